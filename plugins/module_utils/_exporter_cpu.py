# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who ran where: the CPU time of the services by logical CPU, off the plan's CPUs, and that of others on them.

The kernel counts a thread's time, but not where it had it; a thread's time since the last look goes to the CPU that it was last on. What the
control group counted beyond that (threads that came and went in between, fractions of a tick) goes to the CPUs of the cpuset as the seen
time does. So the sum over all CPUs is exact, the split is a sample.
"""
from __future__ import annotations

import collections
import os

from ansible_collections.erni_ki.inference.plugins.module_utils import _procs


def task_times(root, pids, hertz):
    """Return {(pid, tid, start): (seconds, CPU)} of all threads of these processes; those that end meanwhile are left out."""
    found = {}
    for pid in pids:
        for tid in _threads_of(root, pid):
            path = f"/proc/{pid}/task/{tid}/stat"
            try:
                fields = _procs.read_text(root, path).rpartition(")")[2].split()
                found[pid, tid, fields[19]] = ((int(fields[11]) + int(fields[12])) / hertz, int(fields[36]))
            except _procs.Unreadable as error:
                if not error.gone:
                    raise
            except (IndexError, ValueError) as error:
                raise _procs.Unreadable(path, "it has not the fields of a thread") from error
    return found


def _threads_of(root, pid):
    try:
        return [int(name) for name in os.listdir(_procs.join(root, f"/proc/{pid}/task"))]
    except (FileNotFoundError, ProcessLookupError):
        return []


def busy_times(text, hertz):
    """Return {CPU: seconds} that programs ran, from the text of /proc/stat. Interrupts are nobody's program."""
    found = {}
    for line in text.splitlines():
        fields = line.split()
        if fields and fields[0].startswith("cpu") and fields[0][3:].isdigit() and len(fields) > 3:
            found[int(fields[0][3:])] = sum(map(int, fields[1:4])) / hertz
    return found


def group_seconds(group):
    """Return the CPU time that a control group has had, as its kernel counts it."""
    if group.version == 1:
        return int(group.read("cpuacct.usage")) / 1e9
    fields = _procs.parse_fields(group.read("cpu.stat").replace(" ", ":"))
    if "usage_usec" not in fields:
        raise _procs.Unreadable(group.file("cpu.stat"), "there is no usage_usec in it")
    return int(fields["usage_usec"]) / 1e6


class Account:
    """The CPU time of one service since the account was opened, in seconds."""

    def __init__(self):
        self.cores = collections.defaultdict(float)
        self.off_plan = 0.0
        self.identity = None    # of the container's run
        self.total = None       # what the control group had counted
        self._tasks = None      # of the last look of this process
        self._owed = 0.0

    def resume(self, identity, total):
        """Go on where an earlier process stopped: what the same run of the container has had since belongs to the next look."""
        self.identity, self.total = identity, total

    def add(self, identity, cpuset, tasks, total):
        """Take a look into account. Return {CPU: seconds} since the last one, None when there is nothing to compare with."""
        opened = self.identity is None
        same = identity == self.identity
        resumed = same and self._tasks is None
        known = self._tasks if same and not resumed else {}
        self._owed = (self._owed if same else 0.0) + total - (self.total if same else 0.0)
        self.identity, self.total, self._tasks = identity, total, tasks
        if opened:
            self._owed = 0.0
            return None
        used = collections.defaultdict(float)
        for key, (seconds, cpu) in tasks.items():
            # After a gap nobody knows which of a thread's seconds are new; the group's own count does.
            before = seconds if resumed else known.get(key, (0.0, cpu))[0]
            used[cpu] += max(0.0, seconds - before)
        self._owed -= sum(used.values())
        self.off_plan += sum(seconds for cpu, seconds in used.items() if cpu not in cpuset)
        if self._owed > 0 and cpuset:
            seen = {cpu: used.get(cpu, 0.0) for cpu in cpuset}
            whole = sum(seen.values())
            for cpu, seconds in seen.items():
                used[cpu] += self._owed * (seconds / whole if whole else 1 / len(cpuset))
            self._owed = 0.0
        for cpu, seconds in used.items():
            self.cores[cpu] += seconds
        # A run that began since the last look was not seen dying, so its neighbours' share cannot be told.
        return dict(used) if same and not resumed else None


class Foreign:
    """What others ran on the CPUs of each service, in seconds."""

    def __init__(self):
        self.seconds = {}
        self._busy = None
        self._raw = collections.defaultdict(float)

    def add(self, busy, cpusets, used):
        """C(cpusets) are {service: CPUs}, C(used) {service: {CPU: seconds} since the last look, or None when that is not known}."""
        before, self._busy = self._busy, busy
        if before is None or any(seconds is None for seconds in used.values()):
            return
        for service, cpus in cpusets.items():
            ran = sum(max(0.0, busy.get(cpu, 0.0) - before.get(cpu, 0.0)) for cpu in cpus)
            ours = sum(seconds for other, by_cpu in used.items() for cpu, seconds in by_cpu.items() if cpu in cpus and cpu in cpusets[other])
            self._raw[service] += ran - ours
            # The two are counted in different ways, so that the difference trembles; a counter does not go back.
            self.seconds[service] = max(self.seconds.get(service, 0.0), self._raw[service])

    def forget(self):
        """After a look that is not whole there is nothing to compare the next one with."""
        self._busy = None
