# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmark on a machine with the real kernel, vLLM and the stand-in for Ollama."""
from __future__ import annotations

import json

import pytest

# An emulated machine is no quiet one: its own work takes long, and its CPUs are not its own.
LENIENT = {"tokens": 6, "seconds": 2, "timeout": 1800, "repeats": 1, "max_others": 1000, "max_steal": 100, "max_loss_cpu": 100, "max_loss_together": 100}


# A module that was sent through a pipe, and its burners, are known by their interpreter only; the containers have Python of their own.
LEFTOVERS = "for p in /proc/[0-9]*; do [ \"$(cat $p/comm 2>/dev/null)\" = python3 ] && ! grep -q docker $p/cgroup && echo $p; done || true"


@pytest.fixture(name="measured", scope="module")
def fixture_measured(module):
    return module("inference_benchmark", **LENIENT)


def test_every_case_is_measured(measured):
    assert [row["case"] for row in measured["results"]] == [
        "vllm", "ollama", "together", "together", "vllm+burners", "ollama+burners", "together+burners", "together+burners"]
    for run in measured["runs"]:
        assert all(figures["tokens_per_second"] > 0 and figures["tokens"] >= 6 for figures in run["services"].values()), run
    assert measured["changed"] is False and measured["models"]["vllm"] == "tiny"


def test_the_kernel_keeps_burners_off_vllms_cores(measured, plan):
    assert measured["host"]["cpus"] == {"vllm": plan["vllm"]["cpuset"], "ollama": plan["ollama"]["cpuset"], "burners": plan["system"]["cpuset"]}
    assert measured["host"]["owners"]["0"] == ["vllm"] and measured["host"]["owners"]["15"] == ["ollama", "system"]
    burned = {run["case"]: run["burner_cpus"] for run in measured["runs"]}
    assert all((cpus > 0.1) == case.endswith("+burners") for case, cpus in burned.items()), burned


def test_who_used_what(measured):
    for run in measured["runs"]:
        for service in run["services"]:
            assert run["service_cpus"][service] > 0, run
    assert measured["memory"]["vllm"]["limit_mib"] == 6144 and 0 < measured["memory"]["vllm"]["used_mib"] <= measured["memory"]["vllm"]["peak_mib"]


def test_nothing_stays_behind(measured, sh, prove):
    assert sh(LEFTOVERS) == ""
    result = prove(generate=False)
    assert result["ok"], "\n".join(result["table"])


def test_the_playbook_changes_nothing_and_writes_its_report(play, sh, fingerprint):
    before = fingerprint()
    settings = {f"benchmark_{name}": value for name, value in LENIENT.items()}
    done = play("benchmark", **settings, benchmark_report_folder="", benchmark_report_host_folder="/root/report")
    assert done.code == 0 and "verdict=ok" in done.text and "changed=0" in done.text, done.text
    assert fingerprint() == before
    report = json.loads(sh("cat /root/report/sandbox.json"))
    page = sh("cat /root/report/sandbox.html")
    assert len(report["runs"]) == 6 and page.startswith("<!DOCTYPE html>") and page.count("<svg") == 5
    sh("rm -r /root/report")


@pytest.mark.slow
def test_a_loss_above_its_limit_fails_the_play_and_says_why(play):
    settings = {f"benchmark_{name}": value for name, value in dict(LENIENT, max_loss_cpu=0, max_loss_together=0).items()}
    done = play("benchmark", **settings, benchmark_report_folder="")
    assert done.code != 0 and "FAILED: " in done.text and "verdict=failed" in done.text, done.text


@pytest.mark.slow
def test_a_disturbed_run_is_left_out_and_says_by_whom(module, sh):
    # A slice of its own is outside of the fence.
    sh("systemd-run --slice=foreign.slice --unit=foreign sh -c 'while :; do :; done'")
    try:
        result = module("inference_benchmark", **dict(LENIENT, services=["ollama"], burners=False, max_others=25))
    finally:
        sh("systemctl stop foreign")
    assert "other processes used" in result["runs"][0]["left_out"][0] and "sh (process" in result["runs"][0]["left_out"][0], result["runs"]
    assert result["results"][0]["tokens_per_second"] is None and result["results"][0]["runs_left_out"] == 1


def test_a_service_that_is_down(play, sh):
    sh("docker stop ollama")
    try:
        done = play("benchmark", benchmark_report_folder="")
    finally:
        sh("docker start ollama")
    assert done.code != 0 and "Ollama: the container does not run" in done.text and "Traceback" not in done.text, done.text
    assert sh(LEFTOVERS) == ""


def test_check_mode_measures_nothing(play, sh):
    done = play("benchmark", "--check")
    assert done.code == 0 and "nothing was measured, as this is check mode" in done.text, done.text
