# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes and threads as /proc shows them, also while they end."""
from __future__ import annotations

import os

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils import _procs
from ansible_collections.erni_ki.inference.tests.unit.plugins.recorded_host import Host


@pytest.fixture(name="host")
def host_fixture(tmp_path):
    return Host(tmp_path)


def test_list_pids(host):
    assert _procs.list_pids(host.root) == [1, 2, 20, 300, 1000, 1010, 1020, 2000, 2010]
    with pytest.raises(_procs.Unreadable, match="/proc: No such file or directory"):
        _procs.list_pids(host.root / "nowhere")


def test_read_process(host):
    process = _procs.read_process(host.root, 1020)
    assert (process.pid, process.comm, process.status["CapEff"]) == (1020, "VLLM::Worker", "0000000000000000")
    assert [(thread.tid, thread.comm, sorted(thread.cpus)) for thread in process.threads][1] == (1021, "VLLM::Worker", [0])
    assert len(process.threads) == 9


def test_what_is_gone_is_none(host):
    assert _procs.read_process(host.root, 4711) is None
    # It ended after its status was read.
    for thread in list((host.root / "proc/1010/task").rglob("status")):
        thread.unlink()
        thread.parent.rmdir()
    (host.root / "proc/1010/task").rmdir()
    assert _procs.read_process(host.root, 1010) is None


def test_a_thread_that_ends_meanwhile(host):
    (host.root / "proc/1000/task/1001/status").unlink()
    assert [thread.tid for thread in _procs.read_process(host.root, 1000).threads] == [1000]


def test_zombies_run_nowhere(host):
    host.write("/proc/1010/status", "Name:\tx\nState:\tZ (zombie)\n")
    assert _procs.read_process(host.root, 1010) is None
    host.write("/proc/1000/task/1001/status", "Name:\tx\nState:\tX (dead)\n")
    assert len(_procs.read_process(host.root, 1000).threads) == 1


def test_a_status_without_cpus(host):
    host.write("/proc/1010/task/1010/status", "Name:\tx\nState:\tS\n")
    with pytest.raises(_procs.Unreadable, match="/proc/1010/task/1010/status: there is no Cpus_allowed_list in it"):
        _procs.read_process(host.root, 1010)


def test_what_may_not_be_read(host, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(_procs.Unreadable, match="/proc/1/environ: Permission denied; run with become: true") as error:
        _procs.read_environ(host.root, 1)
    assert not error.value.gone


@pytest.mark.parametrize("stat, kernel", [
    ("2 (kthreadd) S 0 0 0 0 -1 2129984 0 0", True),
    ("20 (a) b) (c) S 2 0 0 0 -1 69238848 0", True),
    ("1 (systemd) S 0 1 1 0 -1 4194560 1", False),
    ("7 ((sd-pam)) S 1 7 7 0 -1 1077936448 1", False),
    ("", False),
])
def test_is_kernel_thread(stat, kernel):
    assert _procs.is_kernel_thread(stat) is kernel


def test_read_environ(host):
    host.write("/proc/1/environ", "A=1\0B=x=y\0C=\0broken\0")
    assert _procs.read_environ(host.root, 1) == {"A": "1", "B": "x=y", "C": ""}


def test_siblings(host):
    assert _procs.siblings_of(host.root, 3) == {3, 11}
    host.remove("/sys/devices/system/cpu/cpu3/topology/core_cpus_list")
    assert _procs.siblings_of(host.root, 3) == {3}
    host.write("/sys/devices/system/cpu/cpu3/topology/thread_siblings_list", "3-4\n")
    assert _procs.siblings_of(host.root, 3) == {3, 4}


def test_this_very_process():
    process = _procs.read_process("/", os.getpid())
    assert process.threads[0].tid == os.getpid()
    assert process.threads[0].cpus == os.sched_getaffinity(0)
    assert not _procs.is_kernel_thread(_procs.read_text("/", f"/proc/{os.getpid()}/stat"))
