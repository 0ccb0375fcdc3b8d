# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What came back by itself after a reboot: read without the collection's own modules, and then by its proof.

vLLM takes 4 to 20 minutes to start on an emulated machine: its first start is waited for by the play, the second one only by the slow tests.
"""
from __future__ import annotations

import shlex

import pytest
from machine import allowed_in, container_group, cpus

# Every thread of user space outside vLLM's slice that the kernel allows on CPUs 0-13. Bit 21 of the flags marks a thread of the kernel.
STRANGERS = """
import glob
for task in glob.glob("/proc/[0-9]*/task/[0-9]*"):
    try:
        flags = int(open(task + "/stat").read().rpartition(")")[2].split()[6])
        group = open(task + "/cgroup").read().strip()
        allowed = [line.split()[1] for line in open(task + "/status") if line.startswith("Cpus_allowed_list")][0]
    except (OSError, IndexError):
        continue
    if not flags & 0x200000 and "/erniki-vllm.slice/" not in group and allowed not in ("14", "15", "14-15"):
        print(task, allowed, group)
"""

# This machine numbers the siblings of core n as 2n and 2n+1: seven cores are 0-13, and a literal 0-6 would be three and a half.
EXPECTED = {"vllm": ("0-13", 6144, 2048), "ollama": ("14-15", 4096, 1024)}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_kernel_holds_the_container_to_its_cpus_and_memory(sh, name):
    group = container_group(sh, name)
    cpuset, limit, reservation = EXPECTED[name]
    assert f"/erniki.slice/erniki-{name}.slice/" in group
    assert sh(f"cat {group}/cpuset.cpus.effective") == cpuset
    assert sh(f"cat {group}/memory.max {group}/memory.swap.max {group}/memory.low").split() == [str(limit << 20), "0", str(reservation << 20)]
    allowed = allowed_in(sh, group)
    assert allowed and all(cpus(one) <= cpus(cpuset) for one in allowed)


def test_the_rest_of_the_system_is_on_the_last_core(sh):
    for unit in ("init.scope", "system.slice", "user.slice"):
        assert sh(f"cat /sys/fs/cgroup/{unit}/cpuset.cpus.effective") == "14-15", unit
    assert sh(f"python3 -c {shlex.quote(STRANGERS)}") == ""


def test_the_host_is_as_well_as_before(sh):
    assert sh("systemctl list-units --failed --plain --no-legend") == ""
    assert sh("systemctl is-system-running") == "running"
    assert sh("dpkg --audit") == ""


@pytest.mark.parametrize("name", [pytest.param("vllm", marks=pytest.mark.slow), "ollama"])
def test_container_is_healthy_again_after_the_reboot(host, sh, name):
    # The engine of an emulated machine takes minutes; Docker's own health check knows when it is there.
    sh(f"for n in $(seq 900); do [ \"$(docker inspect --format '{{{{.State.Health.Status}}}}' {name})\" = healthy ] && exit; sleep 2; done; exit 1")


def test_ollama_answers_with_tokens_again(ask):
    name = ask("http://127.0.0.1:11434/api/tags")["models"][0]["name"]
    said = ask("http://127.0.0.1:11434/api/generate", model=name, prompt="Hello", stream=False)
    assert said["done"] and said["response"]


def test_the_proof_of_ollama_and_the_system_holds_again(prove):
    result = prove(services=["ollama"], timeout=600)
    assert result["ok"], result["table"]


@pytest.mark.slow
def test_the_whole_proof_holds_again(prove):
    result = prove(timeout=1200)
    assert result["ok"], result["table"]
