# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What changed between two reports of a host, in words."""
from __future__ import annotations

import json

from ansible_collections.erni_ki.inference.plugins.plugin_utils._pictures import NAMES

# Parts of a plan that follow from others, or that are told in words of their own.
DERIVED = ("partition", "notes", "schema_version", "budget")
UNITS = {"mib": "MiB", "gib": "GiB"}


class Unreadable(Exception):
    """The last report cannot be read; the text says why."""


def read(text):
    """Return the last report; None where there was none, Unreadable where it is no report of this kind."""
    if not text.strip():
        return None
    try:
        found = json.loads(text)
    except ValueError as error:
        raise Unreadable(f"it is no JSON ({error})") from error
    if not isinstance(found, dict) or found.get("schema_version") != 1:
        raise Unreadable("it is no report of this version")
    return found


def _told(value):
    if value is None or value == "" or value == []:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_told, value))
    return json.dumps(value, sort_keys=True) if isinstance(value, dict) else str(value)


def _leaves(value, path=()):
    """Return {path: value} of everything in nested dictionaries."""
    found = {}
    for key, inner in value.items():
        if key in DERIVED:
            continue
        if isinstance(inner, dict) and inner:
            found.update(_leaves(inner, (*path, str(key))))
        else:
            found[(*path, str(key))] = inner
    return found


def _named(path):
    """Return (words, unit) of a place in the plan."""
    first, *rest = path
    words = " ".join(rest).split("_")
    unit = UNITS.get(words[-1], "") if len(words) > 1 else ""
    said = " ".join(words[:-1] if unit else words)
    first = NAMES.get(first, first).replace("_", " ")
    return f"{first}: {said}" if said else first, unit


def _plan(before, now):
    if bool(before) != bool(now):
        yield "The host has a plan now." if now else "The host has no plan that can be read any more."
    before, now = before or {}, now or {}
    if not before or not now:
        return
    gone = [party for party in ("vllm", "ollama") if before.get(party) and not now.get(party)]
    new = [party for party in ("vllm", "ollama") if now.get(party) and not before.get(party)]
    yield from (f"{NAMES[party]} is no longer in the plan." for party in gone)
    yield from (f"{NAMES[party]} is new in the plan." for party in new)
    skipped = (*gone, *new)
    old, current = (_leaves({key: value for key, value in plan.items() if key not in skipped}) for plan in (before, now))
    for path in [*current, *(path for path in old if path not in current)]:
        if old.get(path) != current.get(path):
            words, unit = _named(path)
            tail = f" {unit}" if unit else ""
            yield f"{words} was {_told(old.get(path))}, is {_told(current.get(path))}{tail}"
    if before.get("notes") != now.get("notes"):
        yield "The plan's notes say something else."


def _pairs(before, now):
    """Tell names with a value each: what is new, gone or another one."""
    for name in sorted(set(before) | set(now)):
        if name not in before:
            yield f"{name}: {_told(now[name])} (new)"
        elif name not in now:
            yield f"{name}: {_told(before[name])} (gone)"
        elif before[name] != now[name]:
            yield f"{name} was {_told(before[name])}, is {_told(now[name])}"


def _findings(before, now):
    old, current = ({(one["service"], one["code"]): one for one in found} for found in (before, now))
    for key, one in current.items():
        name = f"{NAMES.get(key[0], key[0])}: {key[1]}"
        if key not in old:
            yield f"{name} is new ({one['severity']})"
        elif old[key]["severity"] != one["severity"]:
            yield f"{name} was {old[key]['severity']}, is {one['severity']}"
    yield from (f"{NAMES.get(key[0], key[0])}: {key[1]} is gone ({one['severity']})" for key, one in old.items() if key not in current)


def _proof(before, now):
    old, current = ({f"{NAMES.get(one['service'], one['service'])}: {one['name']}": one["ok"] for one in found} for found in (before, now))
    for name, ok in current.items():
        if name in old and old[name] != ok:
            yield f"{name} {'holds again' if ok else 'holds no longer'}"
        elif name not in old and old and not ok:
            yield f"{name} is checked now, and does not hold"


def changes(before, now):
    """Return what changed as a list of C(kind) (plan, versions, settings, findings, proof) and C(text), from one report to a later one of the same host."""
    told = [("plan", text) for text in _plan(before["plan"], now["plan"])]
    if before["plan_hash"] != now["plan_hash"] and not told:
        told.append(("plan", "The plan's file was written anew, and says the same."))
    told += [("versions", text) for text in _pairs(before["versions"], now["versions"])]
    told += [("settings", text) for text in _pairs(before["settings"], now["settings"])]
    told += [("findings", text) for text in _findings(before["findings"], now["findings"])]
    told += [("proof", text) for text in _proof(before["checks"], now["checks"])]
    return [{"kind": kind, "text": text} for kind, text in told]
