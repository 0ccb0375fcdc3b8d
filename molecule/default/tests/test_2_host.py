# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""After a reboot: what the host is, read without the collection's own modules.

The start of vLLM takes 4 to 20 minutes on an emulated machine, and is proven before the reboot. What has to wait for the second one is slow.
"""
from __future__ import annotations

import json
import re
import shlex

import pytest


def cpus(text):
    found = set()
    for part in text.strip().split(","):
        first, dash, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def container_group(sh, name):
    pid = sh(f"docker inspect --format '{{{{.State.Pid}}}}' {name}")
    return pid, "/sys/fs/cgroup" + sh(f"cut -d: -f3 /proc/{pid}/cgroup")


def allowed_in(sh, group):
    """The CPU lists of all threads in a group; a health check may end while it is read."""
    return sh(f"(cat $(sed 's|.*|/proc/&/task/*/status|' {group}/cgroup.procs) 2>/dev/null || true) | sed -n 's/^Cpus_allowed_list:\t//p' | sort -u").split()


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


def test_the_machine_has_8_cores_and_16_threads(sh):
    assert sh("lscpu -p=CPU,CORE | grep -v ^#").split() == [f"{n},{n // 2}" for n in range(16)]


@pytest.mark.parametrize("name", [pytest.param("vllm", marks=pytest.mark.slow), "ollama"])
def test_container_is_healthy_again_after_the_reboot(host, sh, name):
    # The engine of an emulated machine takes minutes; Docker's own health check knows when it is there.
    sh(f"for n in $(seq 900); do [ \"$(docker inspect --format '{{{{.State.Health.Status}}}}' {name})\" = healthy ] && exit; sleep 2; done; exit 1")


@pytest.mark.parametrize("name", EXPECTED)
def test_the_kernel_holds_the_container_to_its_cpus_and_memory(sh, name):
    pid, group = container_group(sh, name)
    cpuset, limit, reservation = EXPECTED[name]
    assert f"/erniki.slice/erniki-{name}.slice/" in group
    assert sh(f"cat {group}/cpuset.cpus.effective") == cpuset
    assert sh(f"cat {group}/memory.max {group}/memory.swap.max {group}/memory.low").split() == [str(limit << 20), "0", str(reservation << 20)]
    allowed = allowed_in(sh, group)
    assert allowed and all(cpus(one) <= cpus(cpuset) for one in allowed)


@pytest.mark.slow
def test_openmp_has_one_thread_on_each_of_the_seven_cores(sh):
    dummy, group = container_group(sh, "vllm")
    allowed = allowed_in(sh, group)
    assert {one for one in allowed if one.isdigit()} == {"0", "2", "4", "6", "8", "10", "12"}


def test_the_rest_of_the_system_is_on_the_last_core(sh):
    for unit in ("init.scope", "system.slice", "user.slice"):
        assert sh(f"cat /sys/fs/cgroup/{unit}/cpuset.cpus.effective") == "14-15", unit
    assert sh(f"python3 -c {shlex.quote(STRANGERS)}") == ""


@pytest.mark.slow
def test_vllm_answers_with_tokens(ask):
    said = ask("http://127.0.0.1:8000/v1/completions", model="tiny", prompt="Hello", max_tokens=4, ignore_eos=True)
    assert said["usage"]["completion_tokens"] == 4


def test_ollama_answers_with_tokens(ask):
    name = ask("http://127.0.0.1:11434/api/tags")["models"][0]["name"]
    said = ask("http://127.0.0.1:11434/api/generate", model=name, prompt="Hello", stream=False)
    assert said["done"] and said["response"]


@pytest.mark.parametrize("command, pattern", [
    ("docker compose exec -T vllm env | grep VLLM", r"VLLM_CPU_OMP_THREADS_BIND=0,2,4,6,8,10,12"),
    ("docker compose exec -T vllm env | grep VLLM", r"VLLM_CPU_NUM_OF_RESERVED_CPU=1"),
    ("docker compose exec -T vllm env | grep VLLM", r"VLLM_CPU_KVCACHE_SPACE=4"),
    ("docker compose logs vllm --tail=50", r"vllm"),
    ("docker compose logs ollama --tail=50", r"\w"),
    ("docker compose exec -T vllm cat /proc/self/status | grep Cpus_allowed_list", r"0-13"),
    ("docker stats --no-stream vllm", r"6GiB"),
    ("docker compose ps --format '{{.Name}}' | sort | paste -sd,", r"ollama,vllm"),
])
def test_the_documents_commands_work_as_written(sh, command, pattern):
    assert re.search(pattern, sh(f"cd /opt/erni-ki && {command}"))


def test_vllm_sees_no_gpu(host):
    done = host.run("cd /opt/erni-ki && docker compose exec -T vllm nvidia-smi")
    assert done.rc != 0
    assert host.run("cd /opt/erni-ki && docker compose exec -T vllm sh -c 'ls /dev/nvidia*'").rc != 0


def test_services_are_confined(sh):
    for name in EXPECTED:
        said = json.loads(sh(f"docker inspect {name}"))[0]
        configured = said["HostConfig"]
        assert configured["ReadonlyRootfs"] and configured["CapDrop"] == ["ALL"] and "no-new-privileges:true" in configured["SecurityOpt"]
        assert configured["LogConfig"]["Config"]["max-size"] and not configured["Privileged"]
        assert {port["HostIp"] for ports in configured["PortBindings"].values() for port in ports} == {"127.0.0.1"}
    assert json.loads(sh("docker inspect vllm"))[0]["Config"]["User"] == "1000:1000"


def test_what_is_on_the_disk(host):
    plan = host.file("/etc/erni-ki/plan.json")
    assert plan.mode == 0o644 and json.loads(plan.content_string)["schema_version"] == 1
    daemon = json.loads(host.file("/etc/docker/daemon.json").content_string)
    assert daemon["live-restore"] and daemon["log-driver"] == "local" and daemon["log-opts"]["max-size"]


def test_the_host_is_as_well_as_before(sh):
    assert sh("systemctl list-units --failed --plain --no-legend") == ""
    assert sh("systemctl is-system-running") == "running"
    assert sh("dpkg --audit") == ""
