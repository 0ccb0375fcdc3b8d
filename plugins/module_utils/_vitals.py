# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes a host slow, or will stop it soon: who is busy where, memory, swap, throttling, frequency, disks and the clock.

Everything is read from a folder that stands for the host's root. What a host does not have (no frequency of its own in a virtual machine,
no pressure in version 1 of control groups) is no finding.
"""
from __future__ import annotations

import ctypes
import os
import time
from typing import NamedTuple

from ansible_collections.erni_ki.inference.plugins.module_utils import _cgroup, _procs
from ansible_collections.erni_ki.inference.plugins.module_utils._check import MIB, NotProven, named
from ansible_collections.erni_ki.inference.plugins.module_utils._cpulist import format_cpulist, parse_cpulist
from ansible_collections.erni_ki.inference.plugins.module_utils._finding import Unanswered, bounded, finding

# A thread counts as busy when it runs, or waits for a CPU, more than this share of the time that is looked at.
BUSY = 0.5

# Share of a minute in which somebody waited for memory, in percent.
PRESSURE = 10.0

# Share of the limit that is in use and cannot be given back. The document's own plan fills 6 GiB to 96 %, so less is no sign of trouble.
NEAR_LIMIT = 0.98

DISK_SECONDS = 10.0
GIB = 1 << 30

# More is no delay on the way from the controller any more.
CLOCK_SECONDS = 120

# Programs that keep the clock: where one runs and the clock is not synchronized, it does not reach its servers.
TIME_KEEPERS = ("chronyd", "ntpd", "systemd-timesyn", "openntpd", "ntpsec")

STA_UNSYNC = 0x0040

_ABSENT = (_procs.Unreadable, NotProven, ValueError)


# ---- threads


class Moment(NamedTuple):
    """What the scheduler had counted for a thread when it was looked at, in seconds."""

    at: float
    ran: float
    waited: float


def moments(root, pids):
    """Return {(pid, tid): Moment}; threads that end meanwhile, and a kernel that does not count, are left out."""
    found = {}
    for pid in pids:
        try:
            tids = [name for name in os.listdir(_procs.join(root, f"/proc/{pid}/task")) if name.isdigit()]
        except OSError:
            continue
        for tid in tids:
            try:
                fields = _procs.read_text(root, f"/proc/{pid}/task/{tid}/schedstat").split()
                found[pid, int(tid)] = Moment(time.monotonic(), int(fields[0]) / 1e9, int(fields[1]) / 1e9)
            except (_procs.Unreadable, ValueError, IndexError):
                continue
    return found


def busy(first, second, waiting):
    """Return {(pid, tid): share} of the threads that were busy between two looks; with C(waiting), those that wanted to run as well."""
    shares = {}
    for key, before in first.items():
        after = second.get(key)
        if after is None or after.at <= before.at:
            continue
        used = after.ran - before.ran + (after.waited - before.waited if waiting else 0)
        share = used / (after.at - before.at)
        if share > BUSY:
            shares[key] = share
    return shares


def cores_of(root, cpus):
    """Return the cores, each as the set of its CPUs, that some CPUs are on."""
    return {_procs.siblings_of(root, cpu) for cpu in cpus}


def oversubscribed(subject, first, second):
    """A process of the service computes with more threads than the service has cores."""
    try:
        cores = cores_of(subject.root, parse_cpulist(subject.wanted["cpuset"]))
        processes = subject.processes()
    except _ABSENT:
        return []
    wanting = busy(first, second, True)
    worst = []
    for process in processes:
        count = sum(pid == process.pid for pid, _tid in wanting)
        if count > len(cores):
            worst.append((count, process))
    if not worst:
        return []
    count, process = max(worst, key=lambda one: one[0])
    lever = "num_thread, of a request or of the model, goes before LLAMA_ARG_THREADS" if subject.service == "ollama" \
        else "an argument or variable of its own goes before VLLM_CPU_OMP_THREADS_BIND"
    return [finding(
        "threads_oversubscribed", "warning", subject.service,
        f"{count} threads of process {process.pid} ({process.comm}) want to run at once on {len(cores)} core{'' if len(cores) == 1 else 's'}"
        f" ({subject.wanted['cpuset']}): /proc/{process.pid}/task/*/schedstat",
        f"The engine computes with more threads than it has cores, so that they wait for each other: {lever}.",
        "Take that option out, and run the playbook site, which sets the number of threads from the plan.")]


def strangers(root, groups, cpuset, exempt, look, again):
    """Return the foreign processes that keep vLLM's cores busy, those on SMT siblings of its CPUs too.

    C(look) are two moments, and C(again) returns two later ones: what is over by then was no trouble.
    """
    cpus = set(parse_cpulist(cpuset))
    cores = set().union(*cores_of(root, cpus))
    seen = _on_cores(root, groups, exempt, cores, *look)
    if seen:
        later = _on_cores(root, groups, exempt, cores, *again())
        seen = {key: later[key] for key in later if key in seen}
    if not seen:
        return []
    told, beside = [], set()
    for (pid, _tid), (share, cpu, comm, place) in sorted(seen.items()):
        told.append(f"process {pid} ({comm}) in {place} takes {100 * share:.0f} % of CPU {cpu}")
        beside.add(cpu not in cpus)
    where = "an SMT sibling of a CPU of vLLM" if beside == {True} else "a core of vLLM"
    return [finding(
        "foreign_on_cores", "warning", "vllm", f"{named(told, 'processes')}: /proc/*/task/*/schedstat, stat",
        f"Another program computes on {where}; in measurements that cost vLLM up to half of its speed.",
        "Stop it, or keep it off: systemctl set-property UNIT AllowedCPUs=…; plan_isolation: exclusive keeps everybody off vLLM's cores.")]


def _on_cores(root, groups, exempt, cores, first, second):
    """Return {(pid, tid): (share, CPU, name, group)} of the busy threads of foreign processes on these CPUs."""
    found = {}
    for (pid, tid), share in busy(first, second, False).items():
        try:
            stat = _procs.read_text(root, f"/proc/{pid}/task/{tid}/stat")
            if pid == os.getpid() or _procs.is_kernel_thread(stat):
                continue
            place = groups.of_process(pid, "cpuset").path
            name, fields = stat.partition("(")[2].rpartition(")")[0], stat.rpartition(")")[2].split()
            cpu = int(fields[36])
        except (_procs.Unreadable, ValueError, IndexError):
            continue
        if cpu in cores and not any(place == path or place.startswith(path + "/") for path in exempt):
            found[pid, tid] = (share, cpu, name, place)
    return found


# ---- what the kernel does to a service


def throttled_groups(subject):
    """Return (control group, what its cpu.stat counts) of the service and of each group above it that the kernel has stopped for a quota."""
    found = []
    try:
        group = subject.group("cpu")
    except _ABSENT:
        return found
    while group is not None:
        counted = _flat(_read(group, "cpu.stat"))
        if counted.get("nr_throttled"):
            found.append((group, counted))
        group = group.parent()
    return found


def throttled(subject):
    """The kernel has stopped the service, or a slice above it, for a quota that the plan does not give."""
    return [finding(
        "cpu_throttled", "warning", subject.service,
        f"{counted['nr_throttled']} of {counted.get('nr_periods', 0)} periods throttled: {group.file('cpu.stat')}",
        "A CPU quota stops the service again and again; the plan gives none, its cores are its limit.",
        f"docker inspect {subject.name} (NanoCpus, CpuQuota) and systemctl show SLICE -p CPUQuotaPerSecUSec tell who set it; run the playbook site.")
        for group, counted in throttled_groups(subject)[:1]]


def _flat(text):
    """Return C(name number) lines as a dict."""
    fields = (line.split() for line in text.splitlines())
    return {words[0]: int(words[1]) for words in fields if len(words) == 2 and words[1].isdigit()}


class Memory(NamedTuple):
    """What a service has of its memory limit, in bytes: the limit (None without one), what it cannot give back, and the most it ever had."""

    limit: int | None
    working: int
    peak: int


def memory_use(subject):
    """Return the Memory of a service, None where it cannot be read."""
    try:
        group = subject.group("memory")
        limit = _cgroup.memory_limit(group)[1]
    except _ABSENT:
        return None
    two = group.version == 2
    stat = _flat(_read(group, "memory.stat"))
    current = _number(_read(group, "memory.current" if two else "memory.usage_in_bytes"))
    peak = _number(_read(group, "memory.peak" if two else "memory.max_usage_in_bytes"))
    return Memory(limit, max(0, current - stat.get("inactive_file" if two else "total_inactive_file", 0)), peak)


def memory(subject):
    """The service is at its memory limit, waits for memory, or is in swap."""
    use = memory_use(subject)
    if use is None:
        return []
    limit, working, peak = use
    group = subject.group("memory")
    found = []
    two = group.version == 2
    events = _flat(_read(group, "memory.events")) if two else {}
    failing = events.get("oom", 0) and not events.get("oom_kill")
    if limit and (working >= NEAR_LIMIT * limit or failing):
        found.append(finding(
            "memory_near_limit", "warning", subject.service,
            f"{working // MIB} of {limit // MIB} MiB in use that cannot be given back, peak {peak // MIB} MiB, events max {events.get('max', 0)},"
            f" oom {events.get('oom', 0)}: {group.folder}",
            "The service has reached its memory limit; what it asks for next, the kernel refuses or kills it for.",
            f"Give it a smaller model, KV cache or context, or raise plan_{subject.service}_memory_limit_mib; then run the playbook site."))
    share = pressure_of(_read(group, "memory.pressure"))
    if share >= PRESSURE:
        found.append(finding(
            "memory_pressure", "warning", subject.service, f"{share:g} % of the last minute waited for memory: {group.file('memory.pressure')}",
            "The service waits for memory: its limit is too small for what it works on, and the kernel takes from it what it needs again at once.",
            f"Give it a smaller model, KV cache or context, or raise plan_{subject.service}_memory_limit_mib; then run the playbook site."))
    swapped = _number(_read(group, "memory.swap.current")) if two else _flat(_read(group, "memory.stat")).get("total_swap", 0)
    if swapped:
        found.append(finding(
            "swap_in_use", "warning", subject.service, f"{swapped / MIB:.0f} MiB of it are in swap: {group.folder}",
            "Parts of the service are on disk; the plan allows it none of that.",
            "Run the playbook site, which takes swap from it, and restart the container, which brings it back into memory."))
    return found


def _read(group, name):
    try:
        return group.read(name)
    except _procs.Unreadable:
        return ""


def _number(text):
    return int(text) if text.strip().isdigit() else 0


def pressure_of(text):
    """Return the share, in percent of the last minute, in which somebody waited; 0 where the kernel does not tell."""
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["some"]:
            values = dict(word.split("=", 1) for word in words[1:] if "=" in word)
            try:
                return float(values.get("avg60", 0))
            except ValueError:
                return 0.0
    return 0.0


def killed_in(groups, slice_unit):
    """Return how many processes below a slice the kernel has killed for memory; those of containers that are gone count."""
    try:
        return _cgroup.oom_kills(groups.of_unit(slice_unit, "memory"))[1] if groups else 0
    except _ABSENT:
        return 0


# ---- the host


def host_memory(root):
    """The whole host waits for memory."""
    try:
        share = pressure_of(_procs.read_text(root, "/proc/pressure/memory"))
    except _procs.Unreadable:
        return []
    if share < PRESSURE:
        return []
    return [finding(
        "memory_pressure", "warning", "system", f"{share:g} % of the last minute waited for memory: /proc/pressure/memory",
        "The host is short of memory; whatever runs on it, the engines too, is slowed down by that.",
        "ps axo pid,rss,comm --sort -rss tells who has it; raise plan_system_reserve_mib where others need more than the plan leaves them.")]


def governor(root, cpus):
    """The cores that compute are kept at a low frequency."""
    slow = {}
    for cpu in cpus:
        folder = f"/sys/devices/system/cpu/cpu{cpu}/cpufreq"
        try:
            name = _procs.read_text(root, f"{folder}/scaling_governor").strip()
        except _procs.Unreadable:
            continue
        if name != "powersave":
            continue
        told = "scaling_governor powersave"
        if _word(root, f"{folder}/scaling_driver") in ("intel_pstate", "amd-pstate-epp"):
            # With these drivers powersave follows the load; how eagerly, another file tells.
            preference = _word(root, f"{folder}/energy_performance_preference")
            if preference not in ("power", "balance_power"):
                continue
            told = f"energy_performance_preference {preference}"
        slow.setdefault(told, []).append(cpu)
    return [finding(
        "cpu_powersave", "warning", "system", f"{told} on the CPUs {format_cpulist(found)}: /sys/devices/system/cpu/cpu*/cpufreq",
        "The CPUs that compute are told to save power, and stay at a low frequency.",
        "cpupower frequency-set -g performance, and the same in what the host does at boot (tuned-adm profile throughput-performance).")
        for told, found in sorted(slow.items())]


def _word(root, path):
    try:
        return _procs.read_text(root, path).strip()
    except _procs.Unreadable:
        return ""


def disks(root, places, ask=os.statvfs):
    """C(places) are (what, path); each file system is judged once."""
    found, seen = [], set()
    for what, path in places:
        try:
            place = _procs.join(root, path)
            device, told = bounded(lambda: (os.stat(place).st_dev, ask(place)), DISK_SECONDS)
        except Unanswered as error:
            found.append(finding(
                "disk_silent", "critical", "system", f"{path} ({what}): {error}",
                "The disk does not answer: a network disk whose server is gone, or a broken one.",
                "dmesg and mount tell which it is; bring it back, or unmount it with umount -l."))
            continue
        except OSError:
            continue
        if device in seen or not told.f_blocks:
            continue
        seen.add(device)
        found += _disk(what, path, told)
    return found


def _disk(what, path, told):
    size, free = told.f_blocks * told.f_frsize, told.f_bavail * told.f_frsize
    inodes = told.f_files and told.f_favail / told.f_files
    severity = None
    if free < 0.02 * size or told.f_files and inodes < 0.01:
        severity = "critical"
    elif free < 0.1 * size and free < 20 * GIB:
        severity = "warning"
    if severity is None:
        return []
    evidence = f"{path} ({what}) has {free // MIB} of {size // MIB} MiB free ({100 * free / size:.1f} %)"
    if told.f_files:
        evidence += f", and {100 * inodes:.1f} % of its inodes"
    state = "is full" if severity == "critical" else "is nearly full"
    return [finding(
        "disk_full", severity, "system", evidence, f"The disk {state}: images, models and logs have no room, and services fail that must write.",
        "docker system df and du -xh show what takes it; docker image prune removes images that nobody uses, ollama rm models.")]


def clock(here, there, keeper, status):
    """C(here) is the host's time and C(there) the controller's, None where nobody told it; C(keeper) is who keeps it, C(status) the kernel's word."""
    found = []
    if there is not None and abs(here - there) > CLOCK_SECONDS:
        ahead = here > there
        found.append(finding(
            "clock_wrong", "warning", "system", f"the host's clock is {abs(here - there):.0f} s {'ahead of' if ahead else 'behind'} the controller's",
            "One of the two clocks is wrong. Certificates are then not valid, and logs and measurements of several hosts do not fit together.",
            "Install chrony, or let its servers be reached; timedatectl shows the state."))
    if keeper and status is not None and status & STA_UNSYNC:
        found.append(finding(
            "clock_unsynchronized", "warning", "system", f"{keeper} runs, and the kernel says that the clock is not synchronized (adjtimex: STA_UNSYNC)",
            "The program that keeps the clock does not reach its servers, or has just been started.",
            "chronyc sources, or timedatectl timesync-status, shows them; open UDP port 123 to one."))
    return found


def time_keeper(root):
    """Return the program that keeps the clock, or None."""
    try:
        pids = _procs.list_pids(root)
    except _procs.Unreadable:
        return None
    for pid in pids:
        name = _word(root, f"/proc/{pid}/comm")
        if name in TIME_KEEPERS:
            return name
    return None


def clock_status():
    """Return the status bits of the kernel's clock, None where they cannot be had. Asking with no mode changes nothing."""
    # The structure is of 208 bytes at most; modes is the first word, status lies behind four longs.
    room = (ctypes.c_long * 64)()
    try:
        if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(room)) < 0:
            return None
    except (OSError, AttributeError):
        return None
    return ctypes.c_int.from_buffer(room, 5 * ctypes.sizeof(ctypes.c_long)).value
