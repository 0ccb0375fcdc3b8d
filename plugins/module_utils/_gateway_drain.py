# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Taking a host's engines out of a gateway for the time of a change, and putting them back."""
from __future__ import annotations

import time

from ansible_collections.erni_ki.inference.plugins.module_utils import _http

# The gateway answers these by itself, at once.
ANSWER_S = 10
PAUSE_S = 0.5


class Gateway:
    """The admin port of a gateway on this host."""

    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}"

    def engines(self):
        """Return what is known of each engine; None where no gateway runs that can drain."""
        try:
            answer = _http.exchange(self.url, "/engines", timeout=ANSWER_S)
        except _http.HttpError as error:
            if isinstance(error.__cause__, ConnectionRefusedError):
                return None
            raise
        if answer.status != 200:
            raise _http.HttpError(f"{self.url}/engines answers {answer.status} {_http.excerpt(answer.text())}")
        found = answer.json()
        # An older gateway does not say whose its engines are. This run replaces it.
        return found if isinstance(found, list) and all(isinstance(one, dict) and "host" in one and "answers" in one for one in found) else None

    def drain(self, name, on):
        """An engine that somebody drained by hand stays as it is."""
        answer = _http.exchange(self.url, f"/{'drain' if on else 'undrain'}/{name}?unless_last=1", timeout=ANSWER_S, method="POST")
        if answer.status != 200:
            raise _http.HttpError(f"{self.url} does not {'drain' if on else 'put back'} {name}: {answer.status} {_http.excerpt(answer.text())}")


def of_host(engines, host):
    return [one for one in engines if one["host"] == host]


def alone_for(engines, engine):
    """Return the aliases and models that no engine of another host could answer now."""
    others = [one for one in engines if one["host"] != engine["host"] and one["up"] and not one["drained"]]
    return sorted(set(engine["answers"]) - {name for one in others for name in one["answers"]})


def drain(gateway, host, timeout, change=True):
    """Drain the host's engines, and wait until those that others can stand in for have nothing at work; the module's result."""
    found = {"drained": [], "left_drained": [], "busy": {}, "notes": [], "by_hand": []}
    engines = gateway.engines()
    if engines is None:
        return {**found, "notes": ["no gateway of this version runs here yet: nothing is drained"]}
    awaited = []
    for engine in of_host(engines, host):
        alone = alone_for(engines, engine)
        if alone and engine["up"]:
            found["notes"].append(f"{engine['name']} is the last engine for {', '.join(alone)}: it keeps getting these requests while its host is changed")
        if alone and set(alone) == set(engine["answers"]) and not engine["unless_last"]:
            # Nobody can stand in: it is never without requests, and who watches the gateway would be told that none can be answered.
            continue
        if change:
            gateway.drain(engine["name"], True)
        if engine["unless_last"]:
            found["left_drained"].append(engine["name"])
        if engine["unless_last"] or not engine["drained"]:
            found["drained"].append(engine["name"])
            found["by_hand"].append(f"curl -X POST {gateway.url}/undrain/{engine['name']}")
        if set(alone) != set(engine["answers"]) or not alone:
            awaited.append(engine["name"])
    if change and awaited:
        found["busy"] = wait(gateway, awaited, timeout)
        found["notes"] += [f"{name} still has {count} request{'s' if count > 1 else ''} at work after {timeout} s (gateway_drain_timeout): "
                           "what the change restarts breaks them off" for name, count in found["busy"].items()]
    return found


def wait(gateway, names, timeout):
    """Return {engine: requests} of what is still at work when the time is over."""
    end = time.monotonic() + timeout
    while True:
        busy = {one["name"]: one["in_flight"] for one in gateway.engines() or [] if one["name"] in names and one["in_flight"] > 0}
        if not busy or time.monotonic() >= end:
            return busy
        time.sleep(PAUSE_S)


def put_back(gateway, host, change=True):
    """Put back what was drained for a change, in this run or an earlier one. Return the names."""
    names = [one["name"] for one in of_host(gateway.engines() or [], host) if one["unless_last"]]
    for name in names if change else ():
        gateway.drain(name, False)
    return names
