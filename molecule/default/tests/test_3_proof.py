# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof holds on the right host, and each of its checks fails for its own wrong.

A light twin stands in for the container `ollama`: the same image, started by hand, right in everything but one.
"""
from __future__ import annotations

import json

import pytest
from machine import container_group

# One wrong, and what the proof must name for it: no more and no less.
WRONG = {
    "nothing": ({}, set()),
    "container_health": ({"health": ""}, {"container_health"}),
    "slice": ({"slice": "--cgroup-parent system.slice"}, {"slice", "memory_reservation"}),
    "cpuset_effective": ({"cpuset": "--cpuset-cpus 14"}, {"cpuset_effective"}),
    "memory_limit": ({"memory": "--memory 3072m"}, {"memory_limit"}),
    "swap_limit": ({"swap": "--memory-swap 6144m"}, {"swap_limit"}),
    "memory_reservation": ({"reservation": ""}, {"memory_reservation"}),
    "no_gpu_nodes": ({"device": "--device /dev/nvidia0"}, {"no_gpu_nodes", "no_gpu_permission"}),
    "no_gpu_permission": ({"device": "--device-cgroup-rule 'c 195:* rwm'"}, {"no_gpu_permission"}),
    "hardening": ({"caps": ""}, {"hardening"}),
    "listens_only_on": ({"port": "-p 11434:11434"}, {"listens_only_on"}),
    "threads_env": ({"threads": "-e LLAMA_ARG_THREADS=8"}, {"threads_env"}),
    "token_generated": ({"standin": "-e STANDIN_FAILING=/api/generate"}, {"token_generated"}),
    "api_health": ({"standin": "-e STANDIN_HUNG=true", "health": "--health-cmd true --health-interval 2s"}, {"api_health", "token_generated"}),
}

# The others are told from these by unit tests too, and take minutes on a slow machine.
ALWAYS = ("nothing", "cpuset_effective", "memory_limit", "no_gpu_nodes")


def failed(result, service=None):
    return {check["name"] for check in result["checks"] if not check["ok"] and service in (None, check["service"])}


@pytest.mark.slow
def test_the_proof_holds(prove):
    result = prove(timeout=600)
    assert result["ok"] and result["failed_checks"] == [], result["table"]
    assert {check["service"] for check in result["checks"]} == {"vllm", "ollama", "system"}
    assert all(check["expected"] and check["found"] and check["evidence"] for check in result["checks"])


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in ALWAYS else pytest.mark.slow) for name in WRONG])
def test_a_container_wrong_in_one_thing(twin, prove, name):
    changes, expected = WRONG[name]
    twin(**changes)
    # Only who hangs is not waited for: an emulated machine may take its time to answer.
    result = prove(services=["ollama"], timeout=20 if name == "api_health" else 600)
    # The empty slice stays, or goes, as systemd finds time for it.
    assert failed(result, "ollama") - ({"slice_effective"} if "slice" in changes else set()) == expected, "\n".join(result["table"])


@pytest.mark.slow
def test_restart_count(twin, prove):
    twin()
    twin.sh("kill -9 $(docker inspect --format '{{.State.Pid}}' ollama); "
            "for n in $(seq 300); do "
            "[ \"$(docker inspect --format '{{.RestartCount}}{{.State.Health.Status}}' ollama)\" = 1healthy ] && exit; sleep 1; done; exit 1")
    assert failed(prove(services=["ollama"], timeout=600), "ollama") == {"restart_count"}


@pytest.mark.slow
def test_oom_kills(twin, prove):
    twin(memory="--memory 256m", swap="--memory-swap 256m", reservation="")
    # The kernel kills the hog, not the server.
    twin.sh("docker exec ollama sh -c 'echo 1000 > /proc/self/oom_score_adj; exec python3 -c \"b = bytearray(1 << 30)\"' || true")
    assert "oom_kills" in failed(prove(services=["ollama"], timeout=600), "ollama")


@pytest.mark.slow
def test_container_running(twin, prove):
    twin()
    twin.sh("docker stop ollama")
    result = prove(services=["ollama"], timeout=10)
    assert {"container_running", "threads_in_cpuset", "api_health"} <= failed(result, "ollama")
    twin.sh("docker rm ollama")
    result = prove(services=["ollama"], timeout=10)
    assert "container_running" in failed(result, "ollama")


@pytest.mark.slow
def test_threads_in_cpuset(twin, prove):
    # Wider than the plan, in a slice that is not fenced.
    twin(cpuset="", slice="--cgroup-parent foreign.slice")
    assert {"threads_in_cpuset", "cpuset_effective", "slice"} <= failed(prove(services=["ollama"], timeout=600), "ollama")


@pytest.mark.slow
def test_a_plan_for_another_node(prove, sh):
    # This machine has one NUMA node: only the plan can be the wrong one.
    plan = json.loads(sh("cat /etc/erni-ki/plan.json"))
    plan["vllm"]["cpuset_mems"] = "1"
    assert failed(prove(plan=plan, services=["vllm"], generate=False), "vllm") == {"mems_effective"}


@pytest.fixture(name="omp_thread")
def fixture_omp_thread(sh):
    """One thread that the engine bound to CPU 2, moved to CPU 1; put back afterwards."""
    group = container_group(sh, "vllm")
    tids = sh(f"for t in $(cat {group}/cgroup.threads); do grep -q '^Cpus_allowed_list:\t2$' /proc/$t/status && echo $t; done; true").split()
    assert tids
    for tid in tids:
        sh(f"taskset -pc 1 {tid}")
    yield
    for tid in tids:
        sh(f"taskset -pc 2 {tid}")


def test_omp_threads(prove, omp_thread):
    assert failed(prove(services=["vllm"], generate=False), "vllm") == {"omp_threads"}


@pytest.mark.slow
def test_omp_env(prove, sh):
    plan = json.loads(sh("cat /etc/erni-ki/plan.json"))
    plan["vllm"]["kv_cache_gib"] = 3
    assert failed(prove(plan=plan, services=["vllm"], generate=False), "vllm") == {"omp_env"}


@pytest.mark.slow
def test_slice_effective(prove, sh):
    sh("systemctl set-property --runtime erniki-vllm.slice AllowedCPUs=0-11")
    try:
        assert {"slice_effective", "cpuset_effective"} <= failed(prove(services=["vllm"], generate=False), "vllm")
    finally:
        sh("systemctl set-property --runtime erniki-vllm.slice AllowedCPUs=0-13")


@pytest.mark.slow
def test_fence_effective(prove, sh):
    sh("systemctl set-property --runtime user.slice AllowedCPUs=0-15")
    try:
        assert failed(prove(services=["ollama"], generate=False), "system") >= {"fence_effective"}
    finally:
        sh("systemctl set-property --runtime user.slice AllowedCPUs=14-15")


def test_exclusive_cores(prove, sh):
    sh("systemd-run --slice foreign.slice --unit foreign sleep 3600")
    try:
        result = prove(services=["ollama"], generate=False)
        assert failed(result, "system") == {"exclusive_cores"}
        found = next(check for check in result["checks"] if check["name"] == "exclusive_cores")["found"]
        assert "(sleep)" in found and "foreign.slice" in found
    finally:
        sh("systemctl stop foreign")


@pytest.mark.slow
def test_a_service_that_hangs_is_a_failed_check_in_bounded_time(prove, sh):
    sh("docker pause ollama")
    try:
        result = prove(services=["ollama"], timeout=5)
        assert "api_health" in failed(result, "ollama")
        # It was given up by its own bound.
        assert "within 5 s" in next(check for check in result["checks"] if check["name"] == "api_health")["found"]
    finally:
        sh("docker unpause ollama")
