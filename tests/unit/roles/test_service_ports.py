# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ports that cannot be published are refused before anything changes."""
from __future__ import annotations

import socket
import sys

import pytest
import yaml

from ansible_collections.erni_ki.inference.tests.unit.roles.render import REPO, play, render

VLLM = {"slice": "erniki-vllm.slice", "cpuset": "0-6", "omp": {"bind": "0-6", "reserved_cpus": 0}, "kv_cache_gib": 4, "engine": {"version": "0.32.0"}}
BOTH = {"plan_decided": {"vllm": VLLM, "ollama": {"slice": "erniki-ollama.slice"}}}
CASES = {
    "usual": BOTH,
    "same": {**BOTH, "vllm_port": 11434},
    "same on all addresses": {**BOTH, "vllm_port": 9000, "ollama_port": 9000, "ollama_bind_address": "0.0.0.0"},
    "same on two addresses": {**BOTH, "vllm_port": 9000, "ollama_port": 9000, "ollama_bind_address": "192.0.2.1"},
    "alone": {"plan_decided": {"vllm": VLLM, "ollama": None}, "vllm_port": 11434},
    "none": {**BOTH, "vllm_port": 0},
    "too high": {**BOTH, "vllm_port": 70000},
}


@pytest.fixture(name="rendered", scope="module")
def fixture_rendered(tmp_path_factory):
    cases = [{**case, "__vllm_model_stat": {}} for case in CASES.values()]
    facts = {"os_family": "Debian", "architecture": "x86_64"}
    return dict(zip(CASES, render(tmp_path_factory.mktemp("ports"), "vllm", ["__vllm_problems"], cases, facts)))


@pytest.mark.parametrize("name, words", [
    ("usual", None), ("same on two addresses", None), ("alone", None),
    ("same", ["vllm_port is 11434", "ollama_port", "11435"]),
    ("same on all addresses", ["vllm_port is 9000", "ollama_port", "9001"]),
    ("none", ["vllm_port is 0", "1 to 65535"]),
    ("too high", ["vllm_port is 70000", "1 to 65535"]),
])
def test_ports_of_the_services(rendered, name, words):
    found = [text for text in rendered[name]["__vllm_problems"] if text]
    assert len(found) == (0 if words is None else 1) and all(word in found[0] for word in words or ()), found


@pytest.mark.parametrize("check", [[], ["--check"]])
@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_port_that_somebody_has(tmp_path, address, check):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (tmp_path / "inventory.yml").write_text(yaml.safe_dump({"all": {"hosts": {"localhost": {
            "ansible_connection": "local", "ansible_python_interpreter": sys.executable}}}}), encoding="utf-8")
        (tmp_path / "playbook.yml").write_text(yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "tasks": [{
            "name": "Port", "ansible.builtin.include_role": {"name": "erni_ki.inference.compose_service", "tasks_from": "port"},
            "vars": {"compose_service_name": "nobodys", "compose_service_address": address, "compose_service_port": port}}]}]), encoding="utf-8")
        said = play(tmp_path, *check, code=2)
        assert f"nobodys_port is {port}, and somebody listens there on {address} already" in said and "ss -tlnp" in said
    play(tmp_path, *check)


@pytest.mark.parametrize("role", ["vllm", "ollama"])
def test_each_role_looks_at_its_own_port_before_anything_changes(role):
    tasks = yaml.safe_load((REPO / "roles" / role / "tasks" / "preflight.yml").read_text(encoding="utf-8"))
    [asked] = [task["vars"] for task in tasks if task.get("ansible.builtin.include_role", {}).get("tasks_from") == "port"]
    assert asked == {"compose_service_name": role, "compose_service_address": "{{ %s_bind_address }}" % role, "compose_service_port": "{{ %s_port }}" % role}
