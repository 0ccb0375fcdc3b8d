# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The switches: how the stand-in misbehaves. Set by environment at the start, by a file or an endpoint while it runs."""
from __future__ import annotations

import contextlib
import json
import os
import sys
import threading

# The second is in the volume of the models: a host can write it where the container's own root is read-only.
FILES = ("/run/standin/control.json", "/root/.ollama/standin/control.json")


class Bad(ValueError):
    pass


def _number(least, most):
    def read(value):
        number = float(value) if not isinstance(value, bool) else None
        if number is None or not least <= number <= most:
            raise ValueError
        return number
    read.help = "a number from %g to %g" % (least, most)
    return read


def _whole(least, most):
    def read(value):
        if isinstance(value, (bool, float)) or not least <= int(value) <= most:
            raise ValueError
        return int(value)
    read.help = "a whole number from %d to %d" % (least, most)
    return read


def _choice(*choices):
    def read(value):
        if value not in choices:
            raise ValueError
        return value
    read.help = "one of " + ", ".join(choices)
    return read


def _paths(value):
    """true, false, or the paths (by their beginnings) that are meant."""
    if isinstance(value, str):
        value = {"true": True, "1": True, "false": False, "0": False, "": False}.get(value.lower(), value.split(","))
    if isinstance(value, bool):
        return ["/"] if value else []
    if not isinstance(value, list) or not all(isinstance(path, str) and path.startswith("/") for path in value):
        raise ValueError
    return value


_paths.help = "true, false or a list of paths such as /api/generate"


def _flag(value):
    if isinstance(value, str):
        value = {"true": True, "1": True, "false": False, "0": False}.get(value.lower())
    if not isinstance(value, bool):
        raise ValueError
    return value


_flag.help = "true or false"


def _text(value):
    if not isinstance(value, str):
        raise ValueError
    return value


_text.help = "text"

# name: (default, reader). Each is STANDIN_<NAME> in the environment and a key of the control file.
SWITCHES = {
    "ms_per_token": (10.0, _number(0, 600000)),
    "prompt_ms_per_token": (0.1, _number(0, 60000)),
    "answer_tokens": (24, _whole(1, 100000)),
    "load_ms": (0.0, _number(0, 600000)),
    "hung": ([], _paths),
    "failing": ([], _paths),
    "failing_status": (500, _whole(400, 599)),
    "failing_error": ("the stand-in was told to fail", _text),
    "device": ("auto", _choice("auto", "cpu", "partial", "gpu")),
    "vram_mib": (5120, _whole(1, 1 << 24)),
    "threads": (0, _whole(0, 4096)),
    "spin": ("generating", _choice("generating", "always", "never")),
    "pull_mib_per_second": (0.0, _number(0, 1e9)),
}


def check(values, where):
    """The values read and checked; tokens_per_second may stand for ms_per_token."""
    values = dict(values)
    if "tokens_per_second" in values:
        if "ms_per_token" in values:
            raise Bad("%s: give ms_per_token or tokens_per_second, not both" % where)
        try:
            values["ms_per_token"] = 1000.0 / float(values.pop("tokens_per_second"))
        except (ValueError, TypeError, ZeroDivisionError):
            raise Bad("%s: tokens_per_second must be a number above 0" % where) from None
    found = {}
    for name, value in values.items():
        if name not in SWITCHES:
            raise Bad("%s: no such switch: %s; there are %s" % (where, name, ", ".join(sorted(SWITCHES) + ["tokens_per_second"])))
        reader = SWITCHES[name][1]
        try:
            found[name] = reader(value)
        except (ValueError, TypeError):
            raise Bad("%s: %s is %r; it must be %s" % (where, name, value, reader.help)) from None
    return found


class Control:
    """Calling it gives the switches as they stand now: defaults, then environment, then file, then endpoint."""

    def __init__(self, environ):
        given = {name[len("STANDIN_"):].lower(): value for name, value in environ.items() if name.startswith("STANDIN_")}
        self.files = [given.pop("control")] if "control" in given else FILES
        self.endpoint, self.stop_with_stdin = (self._own(given, name) for name in ("control_endpoint", "stop_with_stdin"))
        self.start = {name: default for name, (default, _reader) in SWITCHES.items()}
        self.start.update(check(given, "environment STANDIN_*"))
        self.now = {}
        self._lock = threading.Lock()
        self._seen = None
        self._from_file = {}

    @staticmethod
    def _own(given, name):
        try:
            return _flag(given.pop(name, "false"))
        except ValueError:
            raise Bad("environment STANDIN_%s: it must be %s" % (name.upper(), _flag.help)) from None

    def __call__(self):
        seen = None
        for file in self.files:
            with contextlib.suppress(OSError):
                status = os.stat(file)
                seen = (file, status.st_mtime_ns, status.st_size, status.st_ino)
                break
        with self._lock:
            if seen != self._seen:
                self._seen = seen
                self._from_file = self._read(seen[0]) if seen else {}
            return {**self.start, **self._from_file, **self.now}

    def _read(self, file):
        try:
            with open(file, "rb") as stream:
                values = json.load(stream)
            if not isinstance(values, dict):
                raise Bad("%s: a JSON object is wanted" % file)
            found = check(values, file)
        except (OSError, ValueError) as error:
            # A half-written or wrong file must not stop a test's server: it stays as it was, and says so.
            print("ollama-standin: control file not taken: %s" % error, file=sys.stderr, flush=True)
            return self._from_file
        print("ollama-standin: switches now %s" % json.dumps(found, sort_keys=True), file=sys.stderr, flush=True)
        return found

    def set(self, values):
        self.now = check(values, "/standin/control")
