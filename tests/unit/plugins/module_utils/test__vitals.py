# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What slows a host down, on recorded trees: each fault is found, and what is well is not."""
from __future__ import annotations

import os
import threading
import types

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils import _cgroup, _vitals
from ansible_collections.erni_ki.inference.plugins.module_utils._check import Subject
from ansible_collections.erni_ki.inference.plugins.module_utils._vitals import Moment
from ansible_collections.erni_ki.inference.tests.unit.plugins.recorded_host import KINDS, MIB, Host


@pytest.fixture(name="host")
def fixture_host(tmp_path):
    return Host(tmp_path / "host")


def subject(host, service="vllm"):
    one = Subject(service, host.plan[service], str(host.root), _cgroup.Groups(str(host.root)))
    one.inspected(*host.inspect(service))
    return one


def codes(findings):
    return [one["code"] for one in findings]


def looks(**shares):
    """Two moments, a second apart; the keywords are _PID_TID=(share run, share waited)."""
    first, second = {}, {}
    for name, (ran, waited) in shares.items():
        key = tuple(int(part) for part in name.strip("_").split("_"))
        first[key], second[key] = Moment(10.0, 5.0, 1.0), Moment(11.0, 5.0 + ran, 1.0 + waited)
    return first, second


# ---- threads


def test_moments(host):
    host.write("/proc/1000/task/1000/schedstat", "1500000000 250000000 77\n")
    host.write("/proc/1000/task/1001/schedstat", "broken\n")
    found = _vitals.moments(str(host.root), [1000, 4711])
    assert list(found) == [(1000, 1000)] and found[1000, 1000][1:] == (1.5, 0.25)


def test_busy():
    first, second = looks(_1_1=(0.9, 0), _1_2=(0.1, 0.8), _1_3=(0.1, 0.1))
    first[2, 2] = Moment(10.0, 0, 0)
    assert list(_vitals.busy(first, second, False)) == [(1, 1)] and list(_vitals.busy(first, second, True)) == [(1, 1), (1, 2)]
    assert _vitals.busy(second, first, True) == {}


def test_more_threads_than_cores(host):
    # Ollama has one core of two CPUs.
    found = _vitals.oversubscribed(subject(host, "ollama"), *looks(_2010_2010=(0.5, 0.4), _2010_2011=(0.4, 0.5), _2000_2000=(0.9, 0)))
    assert codes(found) == ["threads_oversubscribed"]
    assert "2 threads of process 2010 (llama-server)" in found[0]["evidence"] and "1 core (7,15)" in found[0]["evidence"] and "num_thread" in found[0]["cause"]


def test_as_many_threads_as_cores(host):
    assert _vitals.oversubscribed(subject(host, "ollama"), *looks(_2010_2010=(0.9, 0), _2000_2000=(0.9, 0))) == []
    workers = {f"_1020_{1021 + cpu}": (0.9, 0.1) for cpu in range(7)}
    assert _vitals.oversubscribed(subject(host), *looks(**workers)) == []
    found = _vitals.oversubscribed(subject(host), *looks(_1020_1030=(0.5, 0.5), **workers))
    assert "8 threads" in found[0]["evidence"] and "7 cores" in found[0]["evidence"]


def test_no_threads_of_a_container_that_is_gone(host):
    host.containers["ollama"] = None
    assert _vitals.oversubscribed(subject(host, "ollama"), {}, {}) == []


STAT = "{0} (stress (1)) R 1 1 1 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 17 {1} 0 0 0\n"


def foreign(host, cpu, pid=5000, group="/system.slice/stress.service", flags=None):
    host.process(pid, "stress", group, "0-15")
    text = STAT.format(pid, cpu)
    host.write(f"/proc/{pid}/task/{pid}/stat", text.replace("4194304", str(flags)) if flags else text)
    return looks(**{f"_{pid}_{pid}": (0.97, 0)})


def strangers(host, seen, again=None, cpuset="0-6,8-14"):
    groups = _cgroup.Groups(str(host.root))
    return _vitals.strangers(str(host.root), groups, cpuset, [host.group_path("vllm"), host.group_path("ollama")], seen, lambda: again or seen)


@pytest.mark.parametrize("cpu, cpuset, words", [(3, "0-6,8-14", "a core of vLLM"), (11, "0-6,8-14", "a core of vLLM"), (11, "0-6", "an SMT sibling")])
def test_a_stranger_on_a_core_of_vllm(host, cpu, cpuset, words):
    found = strangers(host, foreign(host, cpu), cpuset=cpuset)
    assert codes(found) == ["foreign_on_cores"] and words in found[0]["cause"]
    assert f"process 5000 (stress (1)) in /system.slice/stress.service takes 97 % of CPU {cpu}" in found[0]["evidence"]


def test_who_is_no_stranger(host, monkeypatch):
    assert strangers(host, foreign(host, 7)) == []
    assert strangers(host, foreign(host, 3), again=({}, {})) == []
    assert strangers(host, foreign(host, 3, pid=5001, group=host.group_path("ollama"))) == []
    assert strangers(host, foreign(host, 3, pid=5002, flags=0x208040)) == []
    assert strangers(host, looks(_6000_6000=(0.9, 0))) == []
    monkeypatch.setattr(os, "getpid", lambda: 5000)
    assert strangers(host, foreign(host, 3)) == []


# ---- what the kernel does to a service


@pytest.mark.parametrize("place", ["container", "slice"])
def test_throttled(host, place):
    folder = host.folder(host.group_path("vllm") if place == "container" else "/erniki.slice/erniki-vllm.slice")
    host.write(f"{folder}/cpu.stat", "usage_usec 5\nnr_periods 100\nnr_throttled 40\nthrottled_usec 9\n")
    found = _vitals.throttled(subject(host))
    assert codes(found) == ["cpu_throttled"] and "40 of 100 periods" in found[0]["evidence"] and f"{folder}/cpu.stat" in found[0]["evidence"]


def test_not_throttled(host):
    host.write(f"{host.folder(host.group_path('vllm'))}/cpu.stat", "usage_usec 5\nnr_periods 0\nnr_throttled 0\n")
    assert _vitals.throttled(subject(host)) == []
    host.containers["vllm"] = None
    assert _vitals.throttled(subject(host)) == []


def memory_files(host, service="vllm", **values):
    for name, text in values.items():
        host.write(host.container_file(service, name.replace("_", ".", 1)), text)


def test_page_cache_at_the_limit_is_no_finding(host):
    memory_files(host, memory_current=f"{6144 * MIB}\n", memory_stat=f"anon 1\ninactive_file {700 * MIB}\n", memory_peak=f"{6144 * MIB}\n")
    assert _vitals.memory(subject(host)) == []


def test_a_service_at_its_limit(host):
    memory_files(host, memory_current=f"{6144 * MIB}\n", memory_stat=f"anon 1\ninactive_file {20 * MIB}\n", memory_peak=f"{6143 * MIB}\n")
    found = _vitals.memory(subject(host))
    assert codes(found) == ["memory_near_limit"]
    assert "6124 of 6144 MiB" in found[0]["evidence"] and "peak 6143 MiB" in found[0]["evidence"] and "events max 12" in found[0]["evidence"]
    assert "plan_vllm_memory_limit_mib" in found[0]["cure"]


def test_memory_that_was_refused(host):
    memory_files(host, memory_current=f"{100 * MIB}\n", memory_events="low 0\nhigh 0\nmax 900\noom 3\noom_kill 0\n")
    assert codes(_vitals.memory(subject(host))) == ["memory_near_limit"]
    memory_files(host, memory_events="low 0\nhigh 0\nmax 900\noom 3\noom_kill 1\n")
    assert codes(_vitals.memory(subject(host))) == []


def test_pressure_and_swap(host):
    memory_files(host, memory_pressure="some avg10=1.00 avg60=23.50 avg300=9.00 total=1\nfull avg10=0.00 avg60=20.00 avg300=0.00 total=1\n",
                 memory_swap_current="1048576\n")
    host.write(host.container_file("vllm", "memory.swap.current"), f"{5 * MIB}\n")
    found = _vitals.memory(subject(host))
    assert codes(found) == ["memory_pressure", "swap_in_use"] and "23.5 %" in found[0]["evidence"] and "5 MiB" in found[1]["evidence"]


@pytest.mark.parametrize("kind", [kind for kind, (version, _driver) in KINDS.items() if version == 1])
def test_version_1(tmp_path, kind):
    host = Host(tmp_path / "old", kind)
    host.write(host.container_file("vllm", "memory.usage_in_bytes"), f"{6144 * MIB}\n")
    host.write(host.container_file("vllm", "memory.stat"), f"total_inactive_file 0\ntotal_swap {MIB}\n")
    assert codes(_vitals.memory(subject(host))) == ["memory_near_limit", "swap_in_use"]
    assert _vitals.throttled(subject(host)) == []


def test_no_memory_of_a_container_that_is_gone(host):
    host.containers["vllm"] = None
    assert _vitals.memory(subject(host)) == []


@pytest.mark.parametrize("text, share", [
    ("", 0), ("some\n", 0), ("some avg60=x\n", 0), ("full avg60=9\n", 0), ("some avg10=0.00 avg60=12.34 total=1\n", 12.34),
])
def test_pressure_of(text, share):
    assert _vitals.pressure_of(text) == share


def test_kills_are_counted_after_the_container_is_gone(host):
    groups = _cgroup.Groups(str(host.root))
    assert _vitals.killed_in(groups, "erniki-vllm.slice") == 0 and _vitals.killed_in(None, "erniki-vllm.slice") == 0
    host.write("/sys/fs/cgroup/erniki.slice/erniki-vllm.slice/memory.events", "low 0\noom 2\noom_kill 2\n")
    assert _vitals.killed_in(groups, "erniki-vllm.slice") == 2


# ---- the host


def test_the_whole_host_waits_for_memory(host):
    assert _vitals.host_memory(str(host.root)) == []
    host.write("/proc/pressure/memory", "some avg10=0.00 avg60=9.99 avg300=0.00 total=1\n")
    assert _vitals.host_memory(str(host.root)) == []
    host.write("/proc/pressure/memory", "some avg10=0.00 avg60=40.00 avg300=0.00 total=1\n")
    assert codes(_vitals.host_memory(str(host.root))) == ["memory_pressure"]


def frequency(host, cpu, name, driver="acpi-cpufreq", preference=None):
    folder = f"/sys/devices/system/cpu/cpu{cpu}/cpufreq"
    host.write(f"{folder}/scaling_governor", f"{name}\n")
    host.write(f"{folder}/scaling_driver", f"{driver}\n")
    if preference:
        host.write(f"{folder}/energy_performance_preference", f"{preference}\n")


def test_powersave(host):
    assert _vitals.governor(str(host.root), range(16)) == []
    for cpu in (0, 1, 2):
        frequency(host, cpu, "powersave")
    frequency(host, 3, "performance")
    found = _vitals.governor(str(host.root), range(16))
    assert codes(found) == ["cpu_powersave"] and "scaling_governor powersave on the CPUs 0-2" in found[0]["evidence"]


@pytest.mark.parametrize("preference, expected", [("balance_performance", []), ("performance", []), (None, []), ("power", ["cpu_powersave"])])
def test_powersave_of_drivers_that_follow_the_load(host, preference, expected):
    frequency(host, 0, "powersave", "intel_pstate", preference)
    assert codes(_vitals.governor(str(host.root), [0])) == expected


GIB = 1 << 30


def space(size, free, files=1000, free_files=900):
    return types.SimpleNamespace(f_frsize=4096, f_blocks=int(size) // 4096, f_bavail=int(free) // 4096, f_files=files, f_favail=free_files)


@pytest.mark.parametrize("told, expected", [
    (space(100 * GIB, 50 * GIB), []), (space(4000 * GIB, 100 * GIB), []), (space(100 * GIB, 9 * GIB), ["warning"]), (space(100 * GIB, GIB), ["critical"]),
    (space(100 * GIB, 50 * GIB, 1000, 5), ["critical"]), (space(100 * GIB, 50 * GIB, 0, 0), []), (space(0, 0), []),
])
def test_disks(host, told, expected):
    found = _vitals.disks(str(host.root), [("the system", "/"), ("Docker's data", "/proc"), ("nothing", "/none")], ask=lambda path: told)
    # Both places are on one file system.
    assert [one["severity"] for one in found] == expected and set(codes(found)) <= {"disk_full"}
    if expected:
        assert "/ (the system) has" in found[0]["evidence"]


def test_a_disk_that_does_not_answer(host, monkeypatch):
    over = threading.Event()
    monkeypatch.setattr(_vitals, "DISK_SECONDS", 0.05)
    found = _vitals.disks(str(host.root), [("vllm: /srv/models", "/")], ask=lambda path: over.wait())
    over.set()
    assert codes(found) == ["disk_silent"] and "no answer within" in found[0]["evidence"]


@pytest.mark.parametrize("here, there, keeper, status, expected", [
    (1000, None, None, 0x40, []), (1000, 1000, None, None, []), (1000, 890, "chronyd", 0x2001, []), (1000, 700, None, 0x40, ["clock_wrong"]),
    (1000, 1300, None, None, ["clock_wrong"]), (1000, 1000, "chronyd", 0x40, ["clock_unsynchronized"]), (1000, 1000, "chronyd", None, []),
])
def test_the_clock(here, there, keeper, status, expected):
    found = _vitals.clock(here, there, keeper, status)
    assert codes(found) == expected
    if expected == ["clock_wrong"]:
        assert ("300 s ahead" if here > there else "300 s behind") in found[0]["evidence"]


def test_who_keeps_the_clock(host):
    assert _vitals.time_keeper(str(host.root)) is None
    host.write("/proc/300/comm", "systemd-timesyn\n")
    assert _vitals.time_keeper(str(host.root)) == "systemd-timesyn"
    assert _vitals.time_keeper(str(host.root / "none")) is None


def test_the_kernels_word_about_the_clock(monkeypatch):
    status = _vitals.clock_status()
    assert status is None or 0 <= status < 0x10000
    monkeypatch.setattr(_vitals.ctypes, "CDLL", lambda *args, **more: types.SimpleNamespace(adjtimex=lambda room: -1))
    assert _vitals.clock_status() is None
    monkeypatch.setattr(_vitals.ctypes, "CDLL", lambda *args, **more: types.SimpleNamespace())
    assert _vitals.clock_status() is None
