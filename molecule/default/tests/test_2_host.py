# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the host is, read without the collection's own modules."""
from __future__ import annotations

import json
import re

import pytest
from machine import allowed_in, container_group


def test_the_machine_has_8_cores_and_16_threads(sh):
    assert sh("lscpu -p=CPU,CORE | grep -v ^#").split() == [f"{n},{n // 2}" for n in range(16)]


def test_openmp_has_one_thread_on_each_of_the_seven_cores(sh):
    assert {one for one in allowed_in(sh, container_group(sh, "vllm")) if one.isdigit()} == {"0", "2", "4", "6", "8", "10", "12"}


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
    for name in ("vllm", "ollama"):
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
