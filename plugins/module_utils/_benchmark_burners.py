# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""CPU-bound neighbours: child processes that compute without a pause, wherever the kernel lets them."""
from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

# How long a burner may live on after its parent, in seconds: it looks for it this often.
LOOKS_S = 0.05


def reachable():
    """Return the CPUs that a process which asks for every CPU gets here: those of its control group."""
    before = os.sched_getaffinity(0)
    try:
        everywhere()
        return os.sched_getaffinity(0)
    finally:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, before)


def everywhere():
    """Pin the calling thread to nothing; the kernel keeps it in its control group's CPUs all the same."""
    with contextlib.suppress(OSError, ValueError):
        # Configured and not online: the numbers of CPUs may have gaps, and the kernel ignores those that are not there.
        os.sched_setaffinity(0, range(os.sysconf("SC_NPROCESSORS_CONF")))


def _burn(parent):
    """Compute until the parent is gone."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    everywhere()
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    # A parent that was killed cannot end its children.
    while os.getppid() == parent:
        end = time.monotonic() + LOOKS_S
        while time.monotonic() < end:
            for _step in range(10000):
                pass


class Burners:
    """A context: they run inside of it, and are gone after it, whatever ends it."""

    def __init__(self, count):
        self.count = count
        self.pids = []

    def __enter__(self):
        parent = os.getpid()
        # What is buffered must not be written by each child again.
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            for _number in range(self.count):
                pid = os.fork()
                if pid == 0:
                    try:
                        _burn(parent)
                    finally:
                        # No handler, no buffer and no clean-up of the parent runs in here.
                        os._exit(0)
                self.pids.append(pid)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *unused):
        self._end()

    def gone(self):
        """Return how many ended before their time."""
        ended = []
        for pid in self.pids:
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0]:
                    ended.append(pid)
        self.pids = [pid for pid in self.pids if pid not in ended]
        return self.count - len(self.pids)

    def _end(self):
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in self.pids:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        self.pids = []
