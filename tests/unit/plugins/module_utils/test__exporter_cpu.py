# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""CPU time by CPU: whatever the threads do, the sum is what the kernel counted, and nothing goes back."""
from __future__ import annotations

import hypothesis
import pytest
from hypothesis import strategies

from ansible_collections.erni_ki.inference.plugins.module_utils._exporter_cpu import Account, Foreign, busy_times

CPUSET = frozenset(range(4))
LOOKS = strategies.lists(strategies.tuples(
    # What each of some threads ran in steps of 10 ms, on which CPU, and what threads ran that nobody saw.
    strategies.dictionaries(strategies.integers(1, 6), strategies.tuples(strategies.integers(0, 300), strategies.integers(0, 5)), max_size=6),
    strategies.integers(0, 200), strategies.booleans()), min_size=1, max_size=8)


@hypothesis.given(LOOKS)
def test_the_sum_is_the_kernels_and_nothing_goes_back(looks):
    account, ticks, total, run, before = Account(), {}, 0, 0, {}
    account.add("run 0", CPUSET, {}, 0.0)
    lived = 0
    for ran, unseen, anew in looks:
        if anew:
            run, ticks, total = run + 1, {}, 0
        for tid, (more, _cpu) in ran.items():
            ticks[tid] = ticks.get(tid, 0) + more
        total += unseen + sum(more for more, _cpu in ran.values())
        lived += unseen + sum(more for more, _cpu in ran.values())
        tasks = {(1, tid, "7"): (ticks[tid] / 100, ran.get(tid, (0, 0))[1]) for tid in ticks}
        used = account.add(f"run {run}", CPUSET, tasks, total / 100)
        assert (used is None) == anew
        now = dict(account.cores)
        assert all(now[cpu] >= value for cpu, value in before.items())
        before = now
    assert sum(account.cores.values()) == pytest.approx(lived / 100)
    assert account.off_plan == pytest.approx(sum(account.cores[cpu] for cpu in (4, 5)))


@hypothesis.given(strategies.lists(strategies.tuples(strategies.floats(0, 60), strategies.floats(0, 60)), max_size=20))
def test_foreign_time_never_goes_back_and_is_never_more_than_ran(looks):
    foreign, busy, last = Foreign(), 0.0, 0.0
    foreign.add({0: 0.0}, {"vllm": {0}}, {"vllm": {}})
    for ran, ours in looks:
        busy += ran
        foreign.add({0: busy}, {"vllm": {0}}, {"vllm": {0: ours}})
        assert last <= foreign.seconds["vllm"] <= busy + 1e-6
        last = foreign.seconds["vllm"]


def test_foreign_time_is_not_told_of_looks_that_are_not_whole():
    foreign = Foreign()
    foreign.add({0: 0.0}, {"vllm": {0}}, {"vllm": {}})
    foreign.add({0: 50.0}, {"vllm": {0}}, {"vllm": None})
    foreign.add({0: 51.0}, {"vllm": {0}}, {"vllm": {0: 0.5}})
    assert foreign.seconds == {"vllm": 0.5}
    foreign.forget()
    foreign.add({0: 90.0}, {"vllm": {0}}, {"vllm": {}})
    assert foreign.seconds == {"vllm": 0.5}


def test_an_account_that_is_resumed_goes_on():
    account = Account()
    account.resume("run", 100.0)
    account.add("run", CPUSET, {(1, 1, "7"): (90.0, 0)}, 104.0)
    assert dict(account.cores) == {0: 1.0, 1: 1.0, 2: 1.0, 3: 1.0}
    account = Account()
    account.resume("another run", 100.0)
    account.add("run", CPUSET, {(1, 1, "7"): (3.0, 0)}, 3.0)
    assert account.cores[0] == 3.0


def test_proc_stat():
    text = "cpu  9 9 9 9\ncpu0 100 50 25 1000 7 8 9 0 3 0\ncpu11 1 0 0 5\ncpux 1 2 3\ncpu2\nintr 5\n"
    assert busy_times(text, 100) == {0: 1.75, 11: 0.01}
