# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all checks of the proof are made of: a question, the evidence, a verdict.

A check that cannot be evaluated has failed, and says why; nothing in here ends in an exception for what a host may
look like.
"""
from __future__ import annotations

import time

from ansible_collections.erni_ki.inference.plugins.module_utils import _cgroup, _http, _procs
from ansible_collections.erni_ki.inference.plugins.module_utils._cpulist import format_cpulist, parse_cpulist

MIB = 1 << 20

# How many offenders a message names.
NAMED = 5

# A fault in a process must be seen in it this often, this many seconds apart: a health check that the runtime is just
# starting inside of the container has the runtime's own rights and environment for a moment.
LOOKS = 3
PAUSE = 1.0


class NotProven(Exception):
    """The evidence is not to be had; the text says why."""


class NotRunning(NotProven):
    """The container is not there, or does not run. The check container_running says what to do about it; for all others there is nothing to mend."""


class Check:
    """One check, from its question to its verdict.

    As a context manager it turns whatever keeps the evidence away into a failed check.
    """

    def __init__(self, name, service, expected, evidence="", hint=""):
        self.name = name
        self.service = service
        self.ok = False
        self.expected = expected
        self.found = "not evaluated"
        self.evidence = evidence
        self.hint = hint

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if error is None:
            return False
        if not issubclass(kind, Exception):
            return False
        self.ok = False
        if isinstance(error, (NotProven, _procs.Unreadable, _http.HttpError, _cgroup.ProbeImpossible)):
            self.found = str(error)
            if isinstance(error, NotRunning):
                self.hint = ""
        else:
            # A verdict with a hole in it is worth more than a traceback.
            self.found = f"could not be evaluated: {kind.__name__}: {error}"
        return True

    def see(self, ok, found, evidence=None, hint=None):
        self.ok = bool(ok)
        self.found = str(found)
        self.evidence = evidence or self.evidence
        self.hint = hint or self.hint

    def result(self):
        return {
            "name": self.name,
            "service": self.service,
            "ok": self.ok,
            "expected": self.expected,
            "found": self.found,
            "evidence": self.evidence,
            "hint": "" if self.ok else self.hint,
        }


class Subject:
    """A container, as the engine and the kernel show it, and what the plan wants of it."""

    def __init__(self, service, wanted, root="/", groups=None):
        self.service = service
        self.wanted = wanted
        self.root = root
        self.groups = groups
        self.attributes = None
        self.problem = "the engine was not asked"
        self._processes = None

    def inspected(self, attributes, problem=None):
        """Take over the engine's answer; None as attributes and no problem is: there is no such container."""
        self.attributes = attributes
        self.problem = problem
        self.forget()

    def forget(self):
        """Let the processes be read anew."""
        self._processes = None

    @property
    def name(self):
        return self.wanted["container"]

    def get(self, *path):
        """Return a value of the engine's answer, None where one level is missing."""
        value = self.engine()
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def engine(self):
        if self.problem:
            raise NotProven(self.problem)
        if self.attributes is None:
            raise NotRunning(f"there is no container '{self.name}'")
        return self.attributes

    @property
    def api(self):
        return f"Docker API: containers/{self.name}/json"

    @property
    def pid(self):
        pid = self.get("State", "Pid")
        if not self.get("State", "Running") or not pid:
            raise NotRunning(f"the container does not run ({self.get('State', 'Status') or 'state unknown'})")
        return pid

    def runs(self):
        """Return whether the engine says that the container runs."""
        try:
            return bool(self.pid)
        except NotProven:
            return False

    def group(self, controller):
        """Return the container's own group; a process that the engine names but that is not in it proves nothing."""
        if self.groups is None:
            raise NotProven("no control groups are mounted")
        group = self.groups.of_process(self.pid, controller)
        own = group.cut(str(self.get("Id") or "?"))
        if own is None:
            raise NotProven(f"process {self.pid} is in the group {group.path}, which is not one of the container {str(self.get('Id'))[:12]}")
        return own

    def pids(self):
        """Return the numbers of all processes in the container's groups."""
        # Version 1 has a tree for each controller, and a process may be in one and not in the other.
        return self.group("cpuset").pids() | self.group("memory").pids()

    def processes(self):
        """Return every process in the container's groups; at least one, or NotProven."""
        if self._processes is None:
            found = (_procs.read_process(self.root, pid) for pid in sorted(self.pids()))
            self._processes = [process for process in found if process is not None and process.threads]
        if not self._processes:
            raise NotProven(f"no process is left in {self.group('cpuset').folder}")
        return self._processes


def lasting(look, looks=LOOKS, pause=None):
    """Return the faults that stay: C(look) returns them as texts by process, and is asked again while there are any."""
    faults = look()
    for _again in range(looks - 1):
        if not faults:
            break
        time.sleep(PAUSE if pause is None else pause)
        seen = look()
        faults = {pid: seen[pid] for pid in seen if pid in faults}
    return [text for pid in sorted(faults) for text in faults[pid]]


def mib(number):
    """Return bytes as text for people."""
    if number is None:
        return "no limit"
    return f"{number // MIB} MiB" if number % MIB == 0 else f"{number} bytes ({number / MIB:.1f} MiB)"


def named(offenders, what):
    """Return the first few offenders and how many more there are."""
    text = "; ".join(offenders[:NAMED])
    more = len(offenders) - NAMED
    return text + (f"; and {more} more {what}" if more > 0 else "")


def same_cpus(left, right):
    return parse_cpulist(left) == parse_cpulist(right)


def shown(cpulist):
    """Return a CPU list in the one way it is shown everywhere."""
    return format_cpulist(parse_cpulist(cpulist)) or "none"
