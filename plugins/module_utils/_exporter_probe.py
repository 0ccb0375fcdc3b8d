# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a service brings tokens: seen by its own counters where others have it work, else by asking it for one.

A request for one token is work, too. So none is sent to a service that others keep busy, nor to one whose model would have to be loaded for it,
as that takes minutes and drives out what is loaded, unless that is asked for. And a model that is loaded is not kept loaded by being asked.
"""
from __future__ import annotations

import datetime
import time

from ansible_collections.erni_ki.inference.plugins.module_utils import _check_api, _http
from ansible_collections.erni_ki.inference.plugins.module_utils._check import NotProven
from ansible_collections.erni_ki.inference.plugins.module_utils._exporter_metrics import sample

# So many looks in a row a service may be too busy to be asked; then it is asked all the same.
PATIENCE = 10

# CPU seconds a second above which Ollama has work.
WORKING = 0.2

# Ollama's expiry moves with each use; by no more than this with a request of ours.
MOVED_S = 2.0

# A model that is about to go might be loaded again by a request.
LEAVING_S = 10

# What a model without an end of its stay tells: Go's largest duration from now.
FOREVER_S = 10 * 365 * 86400


class Verdict:
    """What a look came to: C(generating) is True, False, or None for what is not known; C(seconds) are those of a request, None without one."""

    def __init__(self, generating, seconds=None):
        self.generating = generating
        self.seconds = seconds


def progress(before, now, own):
    """Return what vLLM's counters say of the time between two looks, in which the exporter itself had C(own) tokens.

    C(progress): others got tokens. C(idle): nobody waits. C(stuck): somebody waited all the time, and got none. C(unclear): it may yet come.
    """
    if now["tokens_out"] < before["tokens_out"]:
        # It was started anew, so that its counters began at zero.
        before = {"tokens_out": 0.0}
        own = 0
    if now["tokens_out"] - before["tokens_out"] > own:
        return "progress"
    if not now.get("running", 0) + now.get("waiting", 0):
        return "idle"
    return "stuck" if before.get("running", 0) + before.get("waiting", 0) else "unclear"


def remaining(expires, now):
    """Return the keep_alive, in seconds, that leaves the end of a model's stay where it is; -1 is for ever, None for an end that cannot be read."""
    end = moment(expires)
    if end is None:
        return None
    left = end - now
    # Rounded down: it must not stay longer, look by look.
    return -1 if left > FOREVER_S else max(0, int(left))


def moment(text):
    """Return the seconds since 1970 of a time as Go writes it, None for none."""
    try:
        head, dot, tail = str(text).partition(".")
        if dot:
            # Nanoseconds are more digits than Python before 3.11 reads.
            digits = tail[:len(tail) - len(tail.lstrip("0123456789"))]
            head += "." + digits[:6].ljust(6, "0") + tail[len(digits):]
        return datetime.datetime.fromisoformat(head.replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


class Probe:
    """One service's probe, with what it knew at its last look."""

    def __init__(self, service, host, api, load=False, clock=time.time):
        self.service = service
        self.host = host
        self.api = api
        self.load = load
        self.requests = 0       # tokens that the exporter itself asked for, for the usage log
        self._clock = clock
        self._before = None
        self._own = 0
        self._busy = 0
        self._last = None       # the verdict that holds, and when it was found

    def look(self):
        """Return the samples; there are none while nothing is known."""
        verdict = self._vllm() if self.service == "vllm" else self._ollama()
        if verdict is None:
            self._last = None
            return []
        if verdict.generating is not None:
            self._last = (verdict, self._clock())
        if self._last is None:
            return []
        verdict, found = self._last
        labels = {"service": self.service}
        samples = [
            sample("erni_ki_service_generating", labels, verdict.generating), sample("erni_ki_service_probe_timestamp_seconds", labels, found)]
        if verdict.seconds is not None:
            samples.append(sample("erni_ki_service_probe_seconds", labels, verdict.seconds))
        return samples

    def _wait(self):
        """Return whether to leave a busy service alone once more."""
        self._busy += 1
        return self._busy <= PATIENCE

    def _ask(self, path, body):
        """Ask for one token; a service that does not give it in time does not bring any."""
        begun = time.monotonic()
        self.requests += 1
        try:
            answer = self.api.ask(path, body, authorized=self.service == "vllm")
            said = answer.json()
            if answer.status == 400 and "does not support generate" in answer.text():
                # A model for embeddings brings no tokens, and is well.
                return None
            tokens = said.get("eval_count") if self.service == "ollama" else (said.get("usage") or {}).get("completion_tokens")
            good = answer.status == 200 and isinstance(tokens, int) and tokens >= 1
        except (_http.HttpError, NotProven, AttributeError):
            good = False
        self._busy = 0
        return Verdict(good, time.monotonic() - begun)

    def _vllm(self):
        before, now = self._before, self.host.counters.get("vllm")
        own, self._own, self._before = self._own, 0, now
        if now and "tokens_out" in now and before:
            saw = progress(before, now, own)
            if saw != "idle":
                return Verdict({"progress": True, "stuck": False, "unclear": None}[saw])
        try:
            model = self.api.model or _check_api.first_model(self.api)
        except (_http.HttpError, NotProven):
            return Verdict(False)
        verdict = self._ask("/v1/completions", {"model": model, "prompt": "Hello", "max_tokens": 1, "temperature": 0})
        self._own = 1
        return verdict

    def _ollama(self):
        now = self._clock()
        try:
            models = _check_api.running_models(self.api)
        except (_http.HttpError, NotProven):
            self._before = None
            return Verdict(False)
        if not models:
            self._before = None
            return self._load() if self.load else None
        name, expires = models[0].get("name") or models[0].get("model"), models[0].get("expires_at")
        end, stay = moment(expires), remaining(expires, now)
        before, self._before = self._before, (name, end)
        if before and before[0] == name and None not in (before[1], end) and end - before[1] > MOVED_S:
            self._busy = 0
            return Verdict(True)
        if self.host.busy.get("ollama", 0.0) > WORKING and self._wait():
            return Verdict(None)
        if stay is not None and 0 <= stay < LEAVING_S:
            return Verdict(None)
        verdict = self._ask_ollama(name, {} if stay is None else {"keep_alive": stay})
        # The stay is counted from the end of the answer; for ever is counted from now, so that it tells nothing.
        self._before = (name, None if end is None or stay == -1 else end + ((verdict.seconds if verdict else None) or 0.0))
        return verdict

    def _ask_ollama(self, name, more):
        return self._ask("/api/generate", {"model": name, "prompt": "Hello", "stream": False, "options": {"num_predict": 1}, **more})

    def _load(self):
        try:
            name = self.api.model or _check_api.first_model(self.api)
        except (_http.HttpError, NotProven):
            return None
        return self._ask_ollama(name, {})
