# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who used the CPUs while something was measured: read from /proc before and after, told by the difference."""
from __future__ import annotations

import os
from typing import NamedTuple

from ansible_collections.erni_ki.inference.plugins.module_utils import _procs

HERTZ = os.sysconf("SC_CLK_TCK")

# How many disturbers are named.
NAMED = 3


class Seen(NamedTuple):
    """A process: its parent, its name, and the CPU time in seconds of itself and of the children that it has waited for."""

    parent: int
    comm: str
    own: float
    children: float


class Cpu(NamedTuple):
    """What a CPU has done since the start of the host, in seconds."""

    busy: float
    steal: float
    idle: float


class Look(NamedTuple):
    """One moment: {(pid, its start): Seen} and {cpu: Cpu}."""

    processes: dict
    cpus: dict


def parse_stat(text):
    """Return (start, Seen) of the text of /proc/PID/stat; the name in it may hold blanks and parentheses."""
    head, _mark, tail = text.rpartition(")")
    fields = tail.split()
    ticks = [int(field) / HERTZ for field in fields[11:15]]
    return int(fields[19]), Seen(int(fields[1]), head.partition("(")[2], ticks[0] + ticks[1], ticks[2] + ticks[3])


def parse_cpus(text):
    """Return {cpu: Cpu} of the text of /proc/stat."""
    cpus = {}
    for line in text.splitlines():
        name, *fields = line.split() or [""]
        if not name.startswith("cpu") or not name[3:].isdigit():
            continue
        # user, nice, system, idle, iowait, irq, softirq, steal; guest time is part of user.
        ticks = [int(field) / HERTZ for field in fields[:8]] + [0] * (8 - len(fields))
        cpus[int(name[3:])] = Cpu(sum(ticks[:3]) + ticks[5] + ticks[6], ticks[7], ticks[3] + ticks[4])
    return cpus


def look(root="/"):
    """Return a Look; processes that end meanwhile are left out."""
    processes = {}
    for pid in _procs.list_pids(root):
        try:
            start, seen = parse_stat(_procs.read_text(root, f"/proc/{pid}/stat"))
        except (_procs.Unreadable, ValueError, IndexError):
            continue
        processes[pid, start] = seen
    return Look(processes, parse_cpus(_procs.read_text(root, "/proc/stat")))


def used(first, second):
    """Return {(pid, start): CPU seconds between two looks}. Short-lived children count for the parent that waited for them."""
    gone = {}
    for key, seen in first.processes.items():
        if key not in second.processes:
            # What it had used before comes to its parent in one piece.
            gone[seen.parent] = gone.get(seen.parent, 0) + seen.own + seen.children
    seconds = {}
    for key, after in second.processes.items():
        before = first.processes.get(key) or Seen(0, "", 0, 0)
        seconds[key] = max(0, after.own - before.own) + max(0, after.children - before.children - gone.get(key[0], 0))
    return seconds


def may_run(root, pid, cpus):
    """Return whether a process may run on one of these CPUs; one that is gone, or does not tell, might have."""
    try:
        allowed = _procs.parse_fields(_procs.read_text(root, f"/proc/{pid}/status")).get("Cpus_allowed_list")
        return allowed is None or bool(_procs.cpus_of(allowed) & cpus)
    except (_procs.Unreadable, ValueError):
        return True


def others(first, second, ours, cpus, root="/"):
    """Return (CPU seconds, words on the largest) of all processes but ours that may run on these CPUs."""
    found = []
    for (pid, start), seconds in used(first, second).items():
        if seconds > 0 and pid not in ours and may_run(root, pid, cpus):
            found.append((seconds, second.processes[pid, start].comm, pid))
    found.sort(reverse=True)
    return sum(seconds for seconds, _comm, _pid in found), [f"{comm} (process {pid}) {seconds:.2f} s" for seconds, comm, pid in found[:NAMED]]


def of(first, second, pids):
    """Return the CPU seconds that some processes used between two looks."""
    return sum(seconds for (pid, _start), seconds in used(first, second).items() if pid in pids)


def busy(first, second):
    """Return {cpu: percent of the time it was busy}."""
    shares = {}
    for cpu, after in second.cpus.items():
        before = first.cpus.get(cpu, after)
        work, idle = after.busy - before.busy, after.idle - before.idle
        total = work + idle + after.steal - before.steal
        shares[cpu] = min(100.0, max(0.0, 100 * work / total)) if total > 0 else 0.0
    return shares


def stolen(first, second, cpus):
    """Return the percent of the time of some CPUs that the machine below took for somebody else."""
    steal = total = 0
    for cpu in cpus & set(first.cpus) & set(second.cpus):
        before, after = first.cpus[cpu], second.cpus[cpu]
        steal += max(0, after.steal - before.steal)
        total += max(0, sum(after) - sum(before))
    return 100 * steal / total if total > 0 else 0.0


def megahertz(cpus, root="/"):
    """Return the mean frequency of some CPUs at this moment, None where the kernel does not tell."""
    found = []
    for cpu in sorted(cpus):
        try:
            found.append(int(_procs.read_text(root, f"/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq")) / 1000)
        except (_procs.Unreadable, ValueError):
            continue
    return sum(found) / len(found) if found else None
