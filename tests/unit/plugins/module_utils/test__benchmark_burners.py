# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Burners burn, are allowed everywhere, and are gone however their parent ends."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils import _benchmark_burners as burners
from ansible_collections.erni_ki.inference.plugins.module_utils import _benchmark_watch, _procs


def alive(pid):
    """Whether a process is there and has not ended; one that nobody has waited for yet has."""
    try:
        text = _procs.read_text("/", f"/proc/{pid}/stat")
    except _procs.Unreadable:
        return False
    return text.rpartition(")")[2].split()[0] not in ("Z", "X")


def wait_for(condition, seconds=600):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def test_they_burn_and_are_gone():
    before = _benchmark_watch.look()
    with burners.Burners(2) as context:
        pids = list(context.pids)
        assert len(set(pids)) == 2 and all(map(alive, pids))
        assert wait_for(lambda: _benchmark_watch.of(before, _benchmark_watch.look(), set(pids)) > 0.2)
        assert context.gone() == 0
        for pid in pids:
            allowed = _procs.parse_fields(_procs.read_text("/", f"/proc/{pid}/status"))["Cpus_allowed_list"]
            assert _procs.cpus_of(allowed) == burners.reachable()
            assert os.getpriority(os.PRIO_PROCESS, pid) == 0
    assert not any(map(alive, pids)) and context.pids == []


def test_none_is_asked_for():
    with burners.Burners(0) as context:
        assert context.pids == [] and context.gone() == 0


def test_they_are_gone_after_an_error():
    with pytest.raises(KeyError), burners.Burners(1) as context:
        pids = list(context.pids)
        raise KeyError("x")
    assert not any(map(alive, pids))


def test_one_that_cannot_be_started_leaves_none(monkeypatch):
    context, fork, pids = burners.Burners(2), os.fork, []

    def failing():
        if context.pids:
            raise OSError("no more processes")
        pids.append(fork())
        return pids[-1]
    monkeypatch.setattr(burners.os, "fork", failing)
    with pytest.raises(OSError, match="no more"):
        context.__enter__()
    assert pids[0] and not alive(pids[0])


def test_one_that_was_killed_is_missed():
    with burners.Burners(2) as context:
        os.kill(context.pids[0], signal.SIGKILL)
        assert wait_for(lambda: context.gone() == 1) and len(context.pids) == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_they_end_with_their_parent(number):
    # A shell's background job ignores SIGINT, and so would its children.
    code = ("import signal, sys, time\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "from ansible_collections.erni_ki.inference.plugins.module_utils import _benchmark_burners\n"
            "with _benchmark_burners.Burners(2) as context:\n    print(*context.pids, flush=True)\n    time.sleep(600)\n")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                          env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))) as parent:
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2
        parent.send_signal(number)
        assert parent.wait(600) != 0
    assert wait_for(lambda: not any(map(alive, pids)))


def test_looking_where_one_may_run_changes_nothing():
    before = os.sched_getaffinity(0)
    one = min(before)
    os.sched_setaffinity(0, {one})
    try:
        assert burners.reachable() >= before and os.sched_getaffinity(0) == {one}
    finally:
        os.sched_setaffinity(0, before)
