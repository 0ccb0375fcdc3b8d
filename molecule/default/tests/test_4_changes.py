# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a later run changes: drift is put right, the other mode, a neighbour who was there first."""
from __future__ import annotations

import pytest


@pytest.mark.slow
def test_the_host_is_right_again_after_one_run(play, prove):
    """What the tests of the proof set by hand is drift."""
    run = play("site")
    assert run.code == 0, run.text
    assert prove(timeout=600)["ok"]


def test_a_model_is_made_from_the_one_that_is_there(module, ask):
    there = ask("http://127.0.0.1:11434/api/tags")["models"]
    made = {"name": "brief:1", "from": there[0]["name"], "system": "Be brief.", "parameters": {"num_ctx": 512, "num_thread": 1}}
    assert module("ollama_model", models_path="/var/lib/erni-ki/ollama", **made)["steps"] == ["create"]
    assert module("ollama_model", models_path="/var/lib/erni-ki/ollama", **made)["changed"] is False
    shown = ask("http://127.0.0.1:11434/api/show", model="brief:1")
    assert shown["system"] == "Be brief." and ["num_thread", "1"] in [line.split() for line in shown["parameters"].splitlines()]
    assert module("ollama_model", name="brief:1", state="absent")["changed"] is True
    assert ask("http://127.0.0.1:11434/api/tags")["models"] == there


@pytest.mark.slow
def test_fenced_gives_the_system_its_cpus_back(play, prove, sh):
    run = play("site", "--tags", "cpu_partition,verify", plan_isolation="fenced")
    assert run.code == 0, run.text
    for unit in ("init.scope", "system.slice", "user.slice"):
        assert sh(f"cat /sys/fs/cgroup/{unit}/cpuset.cpus.effective 2>/dev/null || echo 0-15") == "0-15", unit
    assert sh("cat /sys/fs/cgroup/erniki.slice/erniki-vllm.slice/cpuset.cpus.effective") == "0-13"
    run = play("site", "--tags", "cpu_partition,verify")
    assert run.code == 0, run.text
    assert sh("cat /sys/fs/cgroup/system.slice/cpuset.cpus.effective") == "14-15"


@pytest.mark.slow
def test_a_foreign_container_is_not_squeezed_unasked(play, sh, fingerprint):
    sh("docker run -d --name somebodys --entrypoint sleep erni-ki/ollama-standin:0.32.15 3600")
    try:
        before = fingerprint()
        run = play("site")
        assert run.code != 0 and "somebodys" in run.text and "plan_allow_squeezing_containers" in run.text, run.text
        assert fingerprint() == before
    finally:
        sh("docker rm -f somebodys")
