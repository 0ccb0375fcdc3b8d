# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Adds to a recorded host what its services have used: run times, memory, pressure, throttling, on either version of control groups."""
from __future__ import annotations

import os

from ansible_collections.erni_ki.inference.tests.unit.plugins.recorded_host import IDS, MIB, PIDS

HERTZ = os.sysconf("SC_CLK_TCK")
BEGAN = "2026-11-28T10:00:00.123456789Z"
# Which thread was last on which CPU: (pid, tid): CPU.
PLACES = {
    (1000, 1000): 8, (1000, 1001): 9, (1010, 1010): 6, (1020, 1020): 13, (1020, 1040): 3, **{(1020, 1021 + cpu): cpu for cpu in range(7)},
    (2000, 2000): 7, (2000, 2001): 15, (2010, 2010): 7,
}


class Load:
    """The load of a recorded host, which C(run) adds to."""

    def __init__(self, host):
        self.host = host
        self.ticks = {key: 0 for key in PLACES}
        self.places = dict(PLACES)
        self.groups = {service: 0.0 for service in IDS}
        self.cpus = {cpu: 0.0 for cpu in range(16)}
        if host.version == 1:
            place = host.root / "proc/self/mountinfo"
            more = [f"5{number} 23 0:4{number} / /sys/fs/cgroup/{name} rw - cgroup cgroup rw,{name}" for number, name in enumerate(("cpu", "cpuacct"))]
            place.write_text(place.read_text(encoding="utf-8") + "\n".join(more) + "\n", encoding="utf-8")
            for service in IDS:
                for pid in {pid for pid, _tid in PLACES if pid // 1000 == PIDS[service] // 1000}:
                    file = host.root / f"proc/{pid}/cgroup"
                    file.write_text(file.read_text(encoding="utf-8") + f"11:cpu,cpuacct:{host.group_path(service)}\n", encoding="utf-8")
        for service, attributes in host.containers.items():
            attributes["State"]["StartedAt"] = BEGAN
            self.memory(service, 1000 * MIB, 400 * MIB, 1500 * MIB)
            self.stopped(service, 0.0)
            if host.version == 2:
                for resource in ("cpu", "memory", "io"):
                    self.pressure(service, resource, 0, 0)
        self.write()

    def run(self, tid, seconds, cpu=None, counted=True):
        """Let a thread have run so long, on the CPU where it is or is now put."""
        key = next(key for key in self.places if key[1] == tid)
        self.places[key] = self.places[key] if cpu is None else cpu
        self.ticks[key] += round(seconds * HERTZ)
        self.groups["vllm" if key[0] < 2000 else "ollama"] += seconds
        if counted:
            self.cpus[self.places[key]] += seconds
        self.write()

    def others(self, cpu, seconds):
        self.cpus[cpu] += seconds
        self.write()

    def unseen(self, service, cpu, seconds):
        """Threads that came and went."""
        self.groups[service] += seconds
        self.cpus[cpu] += seconds
        self.write()

    def write(self):
        for (pid, tid), ticks in self.ticks.items():
            used = [str(ticks // 2), str(ticks - ticks // 2)]
            fields = ["S"] + ["0"] * 10 + used + ["0"] * 6 + ["777"] + ["0"] * 16 + [str(self.places[pid, tid])] + ["0"] * 5
            self.host.write(f"/proc/{pid}/task/{tid}/stat", f"{tid} (a (b) c) {' '.join(fields)}\n")
        cpus = [f"cpu{cpu} {round(seconds * HERTZ)} 0 0 5000 3 9 9 0 0 0" for cpu, seconds in self.cpus.items()]
        lines = ["cpu  1 2 3", *cpus, "intr 1 2", "btime 1795000000"]
        self.host.write("/proc/stat", "\n".join(lines) + "\n")
        for service, seconds in self.groups.items():
            if self.host.version == 1:
                self.host.write(self.host.container_file(service, "cpuacct.usage"), f"{round(seconds * 1e9)}\n")
            else:
                self._cpu_stat(service)

    def _cpu_stat(self, service):
        stopped = getattr(self, "_stopped", {}).get(service, 0.0)
        self.host.write(
            self.host.container_file(service, "cpu.stat").replace("/cpuacct/", "/cpu/"),
            f"usage_usec {round(self.groups[service] * 1e6)}\nuser_usec 1\nnr_periods 5\nnr_throttled 1\nthrottled_usec {round(stopped * 1e6)}\n")

    def stopped(self, service, seconds):
        self._stopped = dict(getattr(self, "_stopped", {}), **{service: seconds})
        if self.host.version == 2:
            self._cpu_stat(service)
        else:
            self.host.write(self.host.container_file(service, "cpu.stat"), f"nr_periods 5\nnr_throttled 1\nthrottled_time {round(seconds * 1e9)}\n")

    def memory(self, service, current, inactive, peak):
        two = self.host.version == 2
        for name, value in (("memory.current" if two else "memory.usage_in_bytes", current), ("memory.peak" if two else "memory.max_usage_in_bytes", peak)):
            self.host.write(self.host.container_file(service, name), f"{value}\n")
        self.host.write(self.host.container_file(service, "memory.stat"), f"anon 5\n{'inactive_file' if two else 'total_inactive_file'} {inactive}\n")

    def pressure(self, service, resource, some, full):
        self.host.write(
            self.host.container_file(service, f"memory.{resource}").replace(f"memory.{resource}", f"{resource}.pressure"),
            f"some avg10=0.00 avg60=0.00 avg300=0.00 total={round(some * 1e6)}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total={round(full * 1e6)}\n")
