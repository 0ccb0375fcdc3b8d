# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The services' streaming APIs: one request after the other, and the moment at which each token came."""
from __future__ import annotations

import contextlib
import json
import os
import threading
import time

from ansible_collections.erni_ki.inference.plugins.module_utils import _check_api, _http
from ansible_collections.erni_ki.inference.plugins.module_utils._benchmark_stats import Request
from ansible_collections.erni_ki.inference.plugins.module_utils._check import NotProven

PATHS = {"vllm": "/v1/completions", "ollama": "/api/generate"}
NAMES = {"vllm": "vLLM", "ollama": "Ollama"}

# Who takes the time must get a CPU at once, also where burners are busy on it.
PRIORITY = -15


class BenchmarkError(Exception):
    """Nothing can be measured; the text says why, and what to do."""


def find_model(api):
    """Return the name of the model that is asked: the one that is named, or the first that the service lists."""
    try:
        return api.model or _check_api.first_model(api)
    except (_http.HttpError, NotProven) as error:
        raise BenchmarkError(f"{NAMES[api.service]} ({api.url}): {api.masked(str(error))}") from error


def first_number(clock=time.time):
    """Return where the numbers of the prompts begin: elsewhere in every run."""
    return int(clock()) % 9000 * 1000 + 1000000


def prompt(number):
    """Return a prompt that asks for a long answer. It begins with a number of its own: engines keep what they computed for a beginning they know."""
    return f"{number:07d}. Write down in words all numbers from {number} on, one after the other, and do not stop before the last one."


def body(service, model, number, tokens):
    """Return the request for so many tokens."""
    if service == "vllm":
        # The rest is vLLM's own: the answer does not end early, and every piece says how many tokens there are by now.
        return {"model": model, "prompt": prompt(number), "max_tokens": tokens, "temperature": 0, "stream": True, "ignore_eos": True,
                "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    return {"model": model, "prompt": prompt(number), "stream": True, "options": {"num_predict": tokens, "temperature": 0, "seed": 1}}


class Reader:
    """Collects the pieces of one answer; C(tokens) is the server's own count, C(ended) whether it said that this was all."""

    def __init__(self):
        self.pieces = []
        self.tokens = None
        self.ended = False

    def add(self, at, number):
        if number > 0:
            self.pieces.append((at, number))

    def count(self):
        return sum(number for _at, number in self.pieces)

    def value(self, text):
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise BenchmarkError(f"a line of the stream is no JSON object: {_http.excerpt(text)}")
        if value.get("error"):
            said = value["error"]
            said = said.get("message") if isinstance(said, dict) else said
            raise BenchmarkError(f"it ended with an error after {self.count()} tokens: {_http.excerpt(said)}")
        return value


class VllmReader(Reader):
    """Server-sent events of POST /v1/completions."""

    def line(self, at, line):
        text = line.decode("utf-8", "replace").strip()
        if not text or text.startswith((":", "event:", "id:", "retry:")):
            return
        name, colon, data = text.partition(":")
        if name != "data" or not colon:
            raise BenchmarkError(f"that is no stream of server-sent events: {_http.excerpt(text)}")
        if data.strip() == "[DONE]":
            self.ended = True
            return
        value = self.value(data)
        told = (value.get("usage") or {}).get("completion_tokens")
        if isinstance(told, int) and not isinstance(told, bool):
            self.tokens = told
            self.add(at, told - self.count() if value.get("choices") else 0)
        elif value.get("choices"):
            # A server that does not count along sends a piece for each token.
            self.add(at, 1)


class OllamaReader(Reader):
    """Lines of JSON of POST /api/generate."""

    def line(self, at, line):
        text = line.decode("utf-8", "replace").strip()
        if not text:
            return
        value = self.value(text)
        if "done" not in value:
            raise BenchmarkError(f"that is not what Ollama answers: {_http.excerpt(text)}")
        if value["done"]:
            self.ended = True
            told = value.get("eval_count")
            self.tokens = told if isinstance(told, int) and not isinstance(told, bool) else None
        # A model that thinks says so in another field.
        self.add(at, 1 if value.get("response") or value.get("thinking") else 0)


READERS = {"vllm": VllmReader, "ollama": OllamaReader}


class Driver:
    """Asks one service, again and again, until it is told to stop."""

    def __init__(self, api, model, tokens, number, clock=time.monotonic):
        self.api = api
        self.service = api.service
        self.model = model
        self.tokens = tokens
        self.clock = clock
        self._number = number           # of the next prompt
        self._stop = threading.Event()
        self._stream = None
        self._lock = threading.Lock()

    def ask(self):
        """Return the Request of one whole answer, None where it was told to stop; BenchmarkError when there is no whole answer."""
        path = PATHS[self.service]
        self._number += 1
        reader = READERS[self.service]()
        try:
            headers = {"Authorization": f"Bearer {self.api.key()}"} if self.api.key_file else {}
            stream = _http.Stream(self.api.url, path, body(self.service, self.model, self._number, self.tokens), headers, self.api.timeout)
            with self._lock:
                self._stream = stream
                if self._stop.is_set():
                    return None
            begun = self.clock()
            with contextlib.closing(stream.answer()) as lines:
                for answer, line in lines:
                    at = self.clock()
                    if answer is not None:
                        raise BenchmarkError(self._refused(answer))
                    reader.line(at, line)
                    if reader.ended:
                        break
        except _http.HttpError as error:
            raise self._failed(self._late(reader) if error.timed_out else str(error)) from error
        except (BenchmarkError, NotProven) as error:
            raise self._failed(str(error)) from error
        if not reader.ended:
            if self._stop.is_set():
                return None
            raise self._failed(f"the stream broke off after {reader.count()} of {self.tokens} tokens; has the service been stopped? docker logs {self.service}")
        if len(reader.pieces) < 2:
            raise self._failed(f"the answer ended after {len(reader.pieces)} pieces, so there is no time between tokens to measure. "
                               "Name a model that answers at length, or ask for more tokens")
        return Request(begun, reader.pieces, reader.tokens)

    def _late(self, reader):
        came = reader.count()
        return (f"no whole answer within {self.api.timeout:g} s: {came} of {self.tokens} tokens came. "
                + (f"At that speed fewer tokens ({max(2, came // 2)}) fit, or raise the timeout" if came > 3 else "Is it working at all? make diagnose tells; "
                   "a slow host needs a longer timeout"))

    def _refused(self, answer):
        if answer.status in (401, 403):
            return f"HTTP {answer.status}, the service wants another API key"
        said = answer.text()
        with contextlib.suppress(ValueError, AttributeError):
            found = json.loads(said).get("error") or said
            said = found.get("message", found) if isinstance(found, dict) else found
        return f"HTTP {answer.status}: {_http.excerpt(said)}"

    def _failed(self, why):
        return BenchmarkError(f"{NAMES[self.service]} ({self.api.url}{PATHS[self.service]}): {self.api.masked(why)}")

    def run(self, done):
        """Ask until told to stop, and hand each Request, or the BenchmarkError that ends it, to C(done)."""
        # In Linux this is the priority of the calling thread alone.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
        try:
            while not self._stop.is_set():
                request = self.ask()
                if request is not None:
                    done(self.service, request)
        except BenchmarkError as error:
            done(self.service, error)
        except Exception as error:
            # A thread that dies in silence would be waited for until the timeout.
            done(self.service, self._failed(f"the measurement broke down: {type(error).__name__}: {error}"))

    def again(self):
        """Be ready for another run."""
        self._stop.clear()

    def stop(self):
        self._stop.set()
        with self._lock:
            if self._stream is not None:
                self._stream.abort()


def drive(drivers, seconds, halfway=lambda: None, clock=time.monotonic):
    """Let all drivers ask at once until C(seconds) are over and each has a whole answer; return {service: [Request]}.

    All begin together, and what is not whole when it ends is left out: so every Request was made while all services were at work.
    C(halfway) is called once in the middle of the time.
    """
    found = {driver.service: [] for driver in drivers}
    failed = []
    changed = threading.Condition()

    def done(service, what):
        with changed:
            if isinstance(what, BenchmarkError):
                failed.append(what)
            else:
                found[service].append(what)
            changed.notify_all()

    threads = []
    for driver in drivers:
        driver.again()
        threads.append(threading.Thread(target=driver.run, args=(done,), daemon=True))
    begun = clock()
    try:
        for thread in threads:
            thread.start()
        with changed:
            # An error wakes it as an answer does; every request has its own deadline.
            changed.wait_for(lambda: failed, seconds / 2)
            halfway()
            changed.wait_for(lambda: failed, begun + seconds - clock())
            changed.wait_for(lambda: failed or all(found.values()))
            collected = {service: list(requests) for service, requests in found.items()}
    finally:
        for driver in drivers:
            driver.stop()
        for thread in threads:
            if thread.ident is not None:
                thread.join(5)
    if failed:
        raise failed[0]
    return collected
