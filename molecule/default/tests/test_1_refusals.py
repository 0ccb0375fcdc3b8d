# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What cannot work is refused with words a person understands, and nothing on the host has changed."""
from __future__ import annotations

import shutil

import pytest
import yaml
from machine import INVENTORY, REPO, ansible

REFUSED = {
    "KV cache over the limit": (
        {"plan_vllm_kv_cache_gib": 8, "plan_vllm_kv_cache_fixed": True}, ["plan_vllm_kv_cache_gib", "8192", "6144 MiB"]),
    "limits over RAM": (
        {"plan_vllm_memory_limit_mib": 65536}, ["plan_vllm_memory_limit_mib", "65536", "11963 MiB"]),
    "a CPU that does not exist": (
        {"plan_vllm_cpus": "0-31"}, ["plan_vllm_cpus", "16-31", "0-15"]),
    "a split core": (
        {"plan_vllm_cpus": "0-6"}, ["plan_vllm_cpus", "core 3", "7"]),
    "memory given as text": (
        {"plan_vllm_memory_limit_mib": "six gigabytes"}, ["plan_vllm_memory_limit_mib", "six gigabytes", "int"]),
    "an unknown policy key": (
        {"plan_vlm_cores": "0-6"}, ["plan_vlm_cores", "plan_vllm_cores"]),
    "a bind outside the cpuset": (
        {"plan_vllm_omp_bind": "0,2,15"}, ["plan_vllm_omp_bind", "15", "0-13"]),
    "a bind past the plan": (
        {"vllm_environment": {"VLLM_CPU_OMP_THREADS_BIND": "0-15"}}, ["vllm_environment", "VLLM_CPU_OMP_THREADS_BIND", "0-13"]),
    "a model that is not there": (
        {"vllm_model": "/srv/models/none"}, ["/srv/models/none", "config.json"]),
    "a branch of a model on the hub": (
        {"vllm_model": "team/tiny", "vllm_model_revision": "main"}, ["team/tiny", "main", "40 hexadecimal digits"]),
    "a model that is to come without the network": (
        {"vllm_model": "team/tiny", "vllm_model_revision": "0" * 40, "vllm_offline": True}, ["team/tiny", "vllm_offline", "vllm_model_controller_path"]),
    "a token that is not there": (
        {"vllm_model": "team/tiny", "vllm_model_revision": "0" * 40, "vllm_hub_token_file": "/etc/none"}, ["/etc/none", "vllm_hub_token_file_on_host"]),
    "one port for both": (
        {"vllm_port": 11434}, ["vllm_port", "11434", "ollama_port", "11435"]),
    "a port that somebody has": (
        {"vllm_port": 22}, ["vllm_port", "22", "ss -tlnp"]),
}

# One of the plan's, and those that vLLM's role adds to them. The plan's others are told from these by unit tests too, and take minutes on a slow machine.
ALWAYS = ("KV cache over the limit", "a bind past the plan", "a model that is not there", "a port that somebody has")


@pytest.fixture(name="refused", scope="module")
def fixture_refused(request, tmp_path_factory, fingerprint):
    """One run over an inventory that has the machine under a name for each refusal, with the variables of it; what moved meanwhile."""
    names = [item.callspec.params["name"] for item in request.session.items if item.originalname == "test_refused"]
    top = tmp_path_factory.mktemp("refused")
    shutil.copytree(INVENTORY, top / "inventory" / "sandbox")
    for name in ("roles", ".cache"):
        (top / name).symlink_to(REPO / name)
    hosts = top / "inventory" / "sandbox" / "hosts.yml"
    machine = yaml.safe_load(hosts.read_text(encoding="utf-8"))["inference"]["hosts"]["sandbox"]
    each = {label(name): dict(machine, ansible_host="sandbox", **REFUSED[name][0]) for name in names}
    hosts.write_text(yaml.safe_dump({"inference": {"hosts": each}}), encoding="utf-8")
    before = fingerprint()
    run = ansible("ansible-playbook", "-i", str(hosts.parent), "playbooks/site.yml", ANSIBLE_FORKS=str(len(each)))
    return run, sorted(set(before) ^ set(fingerprint()))


def label(name):
    return name.replace(" ", "-")


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in ALWAYS else pytest.mark.slow) for name in REFUSED])
def test_refused(refused, name):
    text = refused[0].text
    told = "\n".join(line for line in text.splitlines() if f"[{label(name)}]" in line)
    missing = [word for word in REFUSED[name][1] if word not in told]
    assert not missing, f"{missing} not in:\n{told}\n{text}"
    assert f"host={label(name)} verdict=failed changed=0 " in text, text


def test_nothing_has_changed(refused):
    run, moved = refused
    assert run.code != 0 and "Traceback" not in run.text, run.text
    assert run.text.rstrip().splitlines()[-1].startswith("verdict=failed"), run.text
    assert not moved


@pytest.mark.slow
def test_the_plan_alone_touches_nothing(play, fingerprint):
    before = fingerprint()
    run = play("plan")
    assert run.code == 0 and "0-13" in run.text and "14-15" in run.text, run.text
    assert fingerprint() == before
