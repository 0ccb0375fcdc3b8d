# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os

import pytest
from ansible.module_utils import basic
from ansible_collections.erni_ki.inference.plugins.module_utils import _partition
from ansible_collections.erni_ki.inference.plugins.modules import cpu_partition

PLAN = {
    "slices": [{"unit": "erniki-vllm.slice", "cpus": "0-6", "mems": "0"}],
    "fence": {"cpus": "7", "units": ["system.slice"]},
}


@pytest.fixture(name="host")
def fixture_host(tmp_path, monkeypatch):
    """A host: a folder of units, a cgroup tree with system.slice in it, and a systemctl that notes how it was called."""
    units, cgroups, calls = tmp_path / "units", tmp_path / "cgroup", []
    (cgroups / "system.slice").mkdir(parents=True)
    (cgroups / "system.slice" / "cpuset.cpus.effective").write_text("0-7\n")
    units.mkdir()
    monkeypatch.setattr(_partition.desired, "__defaults__", (str(units),))
    monkeypatch.setattr(_partition.current, "__defaults__", (str(units),))
    monkeypatch.setattr(_partition.forget_runtime, "__defaults__", (str(tmp_path / "run"),))
    for function in (_partition.cgroup_of, _partition.effective_cpus, _partition.low_mib, _partition.drifted, _partition.unfenced):
        monkeypatch.setattr(function, "__defaults__", (str(cgroups),))

    def run_command(dummy, command, **dummy_options):
        calls.append(command[1:])
        if command[1] == "set-property":
            place = cgroups / command[3]
            (place / "cpuset.cpus.effective").write_text(command[4].partition("=")[2] or "0-7")
            (tmp_path / "run" / (command[3] + ".d")).mkdir(parents=True)
            (tmp_path / "run" / (command[3] + ".d") / "50-AllowedCPUs.conf").touch()
        return (1, "", "no bus") if os.environ.get("SYSTEMCTL_FAILS") else (0, "", "")

    monkeypatch.setattr(basic.AnsibleModule, "run_command", run_command)
    return units, calls


@pytest.fixture(name="run")
def run_fixture(capfd, module_arguments):
    """Run the module with arguments; return its result."""
    def run(**arguments):
        with module_arguments(arguments), pytest.raises(SystemExit):
            cpu_partition.main()
        return json.loads(capfd.readouterr().out)
    return run


def test_create_is_the_same_in_check_mode_and_changes_nothing_there(host, run):
    units, calls = host
    checked = run(partition=PLAN, _ansible_check_mode=True)
    assert checked["changed"] and not list(units.iterdir()) and not calls
    real = run(partition=PLAN)
    assert checked.pop("effective") == {"erniki-vllm.slice": None, "system.slice": "0-7"}
    assert real.pop("effective") == {"erniki-vllm.slice": None, "system.slice": "7"}
    checked.pop("invocation", None)
    real.pop("invocation", None)
    assert checked == real
    assert real["written"] == [str(units / "erniki-vllm.slice"), str(units / "system.slice.d" / "50-erni-ki.conf")]
    # The slice has no cgroup yet; only the unit that has one is told at once.
    assert calls == [["set-property", "--runtime", "system.slice", "AllowedCPUs=7"], ["daemon-reload"]]
    assert not list((units.parent / "run").iterdir())


def test_second_run_changes_nothing(host, run):
    run(partition=PLAN)
    host[1].clear()
    again = run(partition=PLAN)
    assert not again["changed"] and not host[1] and again["diff"]["before"] == again["diff"]["after"]


def test_a_fence_that_is_gone_is_taken_away_at_once(host, run):
    units, calls = host
    run(partition=PLAN)
    calls.clear()
    result = run(partition=dict(PLAN, fence=None))
    assert result["removed"] == [str(units / "system.slice.d" / "50-erni-ki.conf")] and result["written"] == []
    assert not (units / "system.slice.d").exists()
    assert calls == [["set-property", "--runtime", "system.slice", "AllowedCPUs="], ["daemon-reload"]]


def test_what_somebody_changed_by_hand_is_put_right(host, run):
    units, calls = host
    run(partition=PLAN)
    calls.clear()
    (units.parent / "cgroup" / "system.slice" / "cpuset.cpus.effective").write_text("0-7")
    result = run(partition=PLAN)
    assert result["changed"] and result["drifted"] == ["system.slice"] and result["written"] == []
    assert calls == [["set-property", "--runtime", "system.slice", "AllowedCPUs=7"], ["daemon-reload"]]


def test_absent_removes_ours_and_leaves_theirs(host, run):
    units, dummy = host
    run(partition=PLAN)
    (units / "system.slice.d" / "theirs.conf").write_text("[Slice]\n")
    assert run(state="absent")["changed"]
    assert [str(path.relative_to(units)) for path in units.rglob("*") if path.is_file()] == ["system.slice.d/theirs.conf"]
    assert not run(state="absent")["changed"]


@pytest.mark.parametrize("partition", [{"slices": [{"unit": "erniki-vllm.slice"}]}, {"slices": ["text"]}, {"fence": "text"}])
def test_a_partition_that_is_none_is_refused(host, run, partition):
    result = run(partition=partition)
    assert result["failed"] and "plan_decided['partition']" in result["msg"] and not host[1]


def test_what_systemctl_says_reaches_the_user(host, run, monkeypatch):
    monkeypatch.setenv("SYSTEMCTL_FAILS", "1")
    result = run(partition=PLAN)
    assert result["failed"] and result["msg"] == "`systemctl set-property --runtime system.slice AllowedCPUs=7` ended with 1: no bus"
