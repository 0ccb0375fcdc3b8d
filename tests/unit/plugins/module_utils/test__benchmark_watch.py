# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils import _benchmark_watch as watch
from ansible_collections.erni_ki.inference.plugins.module_utils._benchmark_watch import Cpu, Look, Seen

HERTZ = watch.HERTZ


def write(root, path, text):
    place = root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text, encoding="utf-8")


def stat(root, pid, comm, own, children=0, parent=1, start=100):
    ticks = f"{int(own * HERTZ)} 0 {int(children * HERTZ)} 0"
    write(root, f"proc/{pid}/stat", f"{pid} ({comm}) S {parent} {pid} {pid} 0 -1 4194560 1 2 3 4 {ticks} 20 0 1 0 {start} 1000 10\n")


@pytest.fixture(name="root")
def fixture_root(tmp_path):
    write(tmp_path, "proc/stat", "cpu  1 2 3 4\ncpu0 100 0 0 900 0 0 0 0 0 0\ncpu1 0 0 0 1000 0 0 0 0\nintr 5\n")
    stat(tmp_path, 1, "init", 1)
    write(tmp_path, "proc/1/status", "Name:\tinit\nCpus_allowed_list:\t0-1\n")
    return tmp_path


def test_a_name_may_hold_anything():
    start, seen = watch.parse_stat("7 (a ) (b) R 3 7 7 0 -1 0 1 2 3 4 100 200 300 400 20 0 1 0 12345 1 1")
    assert start == 12345 and seen == Seen(3, "a ) (b", 300 / HERTZ, 700 / HERTZ)


def test_the_cpus():
    found = watch.parse_cpus("cpu 9 9 9 9\ncpu0 1 2 3 4 5 6 7 8 9 10\ncpu12 1 2 3 4\n\nctxt 1\n")
    assert found == {0: Cpu(19 / HERTZ, 8 / HERTZ, 9 / HERTZ), 12: Cpu(6 / HERTZ, 0, 4 / HERTZ)}


def test_a_look(root):
    write(root, "proc/9/stat", "9 (gone")
    found = watch.look(str(root))
    assert list(found.processes) == [(1, 100)] and set(found.cpus) == {0, 1}


def test_this_machine():
    found = watch.look()
    assert any(pid == os.getpid() for pid, _start in found.processes) and found.cpus


def look(**processes):
    return Look({(int(name[1:]), 0): Seen(*seen) for name, seen in processes.items()}, {})


def test_what_was_used():
    # Its child of 2 s ended after 3 s, another came and went with 0.5 s; 30 is new, 40 is another process under a number that is used again.
    first = Look({(10, 0): Seen(1, "make", 1, 5), (20, 0): Seen(10, "cc", 2, 0), (40, 0): Seen(1, "old", 9, 0)}, {})
    second = Look({(10, 0): Seen(1, "make", 1.5, 10.5), (30, 0): Seen(10, "ld", 0.25, 0), (40, 7): Seen(1, "new", 0.1, 0)}, {})
    assert watch.used(first, second) == {(10, 0): pytest.approx(0.5 + 3.5), (30, 0): 0.25, (40, 7): 0.1}
    assert watch.of(first, second, {10, 30}) == pytest.approx(4.25)


def test_others(root):
    for pid, cpus in ((1, "0-1"), (2, "1"), (3, "0"), (5, "0")):
        write(root, f"proc/{pid}/status", f"Name:\tx\nCpus_allowed_list:\t{cpus}\n")
    write(root, "proc/6/status", "Name:\tx\n")
    first = look(p1=(0, "init", 1, 0), p2=(0, "elsewhere", 1, 0), p3=(0, "ours", 1, 0), p4=(0, "gone", 1, 0), p5=(0, "idle", 1, 0), p6=(0, "odd", 1, 0))
    second = look(p1=(0, "init", 2, 0), p2=(0, "elsewhere", 9, 0), p3=(0, "ours", 9, 0), p4=(0, "gone", 4, 0), p5=(0, "idle", 1, 0), p6=(0, "odd", 1.5, 0))
    seconds, named = watch.others(first, second, {3}, frozenset({0}), str(root))
    assert seconds == pytest.approx(4.5)
    assert named == ["gone (process 4) 3.00 s", "init (process 1) 1.00 s", "odd (process 6) 0.50 s"]


def test_busy_and_stolen():
    first = Look({}, {0: Cpu(10, 0, 10), 1: Cpu(0, 0, 0), 2: Cpu(5, 0, 5)})
    second = Look({}, {0: Cpu(13, 1, 10), 1: Cpu(1, 0, 3), 2: Cpu(5, 0, 5), 3: Cpu(1, 0, 1)})
    assert watch.busy(first, second) == {0: 75, 1: 25, 2: 0, 3: 0}
    assert watch.stolen(first, second, frozenset({0, 1, 9})) == pytest.approx(12.5)
    assert watch.stolen(first, second, frozenset({2})) == 0


def test_the_frequency(root):
    assert watch.megahertz({0, 1}, str(root)) is None
    for cpu, khz in ((0, 2000000), (1, 3000000)):
        write(root, f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq", f"{khz}\n")
    assert watch.megahertz({0, 1, 2}, str(root)) == 2500
