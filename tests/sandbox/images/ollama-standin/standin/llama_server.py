# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in for Ollama's child process llama-server: the process, the threads and their load are real, the tokens are not.

It reads "token <seconds>" on standard input, keeps its threads busy for that long, and answers "done".
"""
from __future__ import annotations

import hashlib
import os
import sys
import threading
import time

_CPU = "/sys/devices/system/cpu/cpu%d/topology/thread_siblings"
# Large enough that hashlib lets other threads run meanwhile, so that N threads are N busy CPUs.
_WORK = bytes(1 << 17)


def physical_cores(pattern=_CPU):
    """As llama.cpp counts: physical cores of the machine. The cpuset of the container plays no part."""
    siblings, number = set(), 0
    while True:
        try:
            with open(pattern % number, encoding="ascii") as stream:
                siblings.add(stream.readline())
        except OSError:
            break
        number += 1
    if siblings:
        return len(siblings)
    online = os.cpu_count() or 4
    return online if online <= 4 else online // 2


def thread_count(arguments, environ):
    """The option -t, else LLAMA_ARG_THREADS, else the machine's physical cores."""
    if "-t" in arguments:
        asked = int(arguments[arguments.index("-t") + 1])
    elif environ.get("LLAMA_ARG_THREADS"):
        try:
            asked = int(environ["LLAMA_ARG_THREADS"])
        except ValueError:
            raise SystemExit('error while handling environment variable "LLAMA_ARG_THREADS": stoi') from None
    else:
        asked = physical_cores()
    return asked if asked > 0 else os.cpu_count() or 1


class Threads:
    """N threads that are busy until a moment, and asleep otherwise."""

    def __init__(self, count, always):
        self.until = float("inf") if always else 0.0
        self.wake = threading.Condition()
        for _index in range(count):
            threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            with self.wake:
                while time.monotonic() >= self.until:
                    self.wake.wait()
            while time.monotonic() < self.until:
                hashlib.sha256(_WORK).digest()

    def busy(self, seconds):
        with self.wake:
            self.until = max(self.until, time.monotonic() + seconds)
            self.wake.notify_all()


def main(arguments):
    # The name that ps, pgrep and /proc/<pid>/comm show; threads started later inherit it.
    try:
        with open("/proc/self/comm", "w", encoding="ascii") as stream:
            stream.write("llama-server")
    except OSError:
        pass
    count = thread_count(arguments, os.environ)
    spin = arguments[arguments.index("--standin-spin") + 1] if "--standin-spin" in arguments else "generating"
    threads = Threads(count, spin == "always")
    print("ready %d" % count, flush=True)
    for line in sys.stdin:
        seconds = float(line.split()[1])
        if spin == "generating":
            threads.busy(seconds)
        time.sleep(seconds)
        print("done", flush=True)
    # The server is gone: so is its child, whatever its threads do.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
