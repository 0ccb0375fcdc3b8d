# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role makes of a plan: the service's description, and the settings it refuses."""
from __future__ import annotations

import importlib.util
import json
import pathlib
import sys

import pytest
import yaml
from ansible_collections.erni_ki.inference.tests.unit.standin import harness

HERE = pathlib.Path(__file__).resolve().parent


def load(name):
    spec = importlib.util.spec_from_file_location(f"roles_{name}", HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


plans, rendering = load("plans"), load("render")
render = rendering.render
GPU, CPU = plans.plan(plans.gpu()), plans.plan()

CASES = {
    "cpu": {"plan_decided": CPU},
    "gpu": {"plan_decided": GPU},
    "small cache": {"plan_decided": plans.plan(plans.gpu(kv_cache_type="q8_0", parallel=2, max_loaded_models=2, context_length=8192))},
    "environment": {"plan_decided": GPU, "ollama_environment": {"OLLAMA_DEBUG": True, "OLLAMA_MAX_QUEUE": 64}},
    "idle variable": {"plan_decided": CPU, "ollama_environment": {"OLLAMA_NUM_CTX": 8192}},
    "variable of the plan": {"plan_decided": GPU, "ollama_environment": {"CUDA_VISIBLE_DEVICES": "0"}},
    "threads": {"plan_decided": CPU, "ollama_environment": {"LLAMA_ARG_THREADS": 8}},
    "flash attention": {"plan_decided": GPU, "ollama_environment": {"OLLAMA_FLASH_ATTENTION": 0}},
    "context of its own": {"plan_decided": GPU, "ollama_context_length": 8192},
    "context without a gpu": {"plan_decided": CPU, "ollama_context_length": 8192},
    "other version": {"plan_decided": CPU, "ollama_image": "ollama/ollama:0.24.0", "plan_ollama_engine_version": "0.32.15"},
    "models": {"plan_decided": CPU, "ollama_models": ["x", {"name": "y", "from": "x", "parameters": {"num_thread": 1, "num_ctx": 1 << 20}}]},
    "too many threads": {"plan_decided": CPU, "ollama_models": ["x", {"name": "y", "from": "x", "parameters": {"num_thread": 4}}]},
    "too long a context": {"plan_decided": GPU, "ollama_models": [{"name": "y", "from": "x", "parameters": {"num_ctx": 8192}}]},
    "in part": {"plan_decided": plans.plan(plans.gpu(partial_allowed=True, left_mib=-100)),
                "ollama_models": [{"name": "y", "from": "x", "parameters": {"num_ctx": 8192}}]},
    "no port": {"plan_decided": CPU, "ollama_port": 0},
    "misspelt": {"plan_decided": CPU, "ollama_models": [{"name": "y", "form": "x"}]},
    "no ollama": {"plan_decided": {**CPU, "ollama": None}},
}


@pytest.fixture(name="rendered", scope="module")
def fixture_rendered(tmp_path_factory):
    wanted = ["__ollama_problems"]
    whole = {name: case for name, case in CASES.items() if name != "no ollama"}
    refused = render(tmp_path_factory.mktemp("refused"), "ollama", wanted, CASES.values())
    made = render(tmp_path_factory.mktemp("made"), "ollama", ["__ollama_definition", "__ollama_gpu", "__ollama_max_mib"], whole.values())
    found = {name: dict(result) for name, result in zip(CASES, refused)}
    for name, result in zip(whole, made):
        found[name].update(result)
    return found


def test_without_a_gpu_the_service_is_as_it_always_was(rendered):
    service = rendered["cpu"]["__ollama_definition"]
    assert "deploy" not in service and "runtime" not in service
    assert service["environment"] == {
        "OLLAMA_HOST": "0.0.0.0:11434", "LLAMA_ARG_THREADS": "1", "OLLAMA_CONTEXT_LENGTH": "4096", "OLLAMA_KEEP_ALIVE": "5m",
        "OLLAMA_MAX_LOADED_MODELS": "1", "OLLAMA_NUM_PARALLEL": "1", "OLLAMA_NO_CLOUD": "1", "NVIDIA_VISIBLE_DEVICES": "void"}
    assert rendered["context without a gpu"]["__ollama_definition"]["environment"]["OLLAMA_CONTEXT_LENGTH"] == "8192"


def test_the_gpu_is_handed_over_by_cdi_and_uuid(rendered):
    service = rendered["gpu"]["__ollama_definition"]
    assert service["runtime"] == "runc"
    assert service["deploy"] == {"resources": {"reservations": {
        "memory": service["mem_reservation"], "devices": [{"driver": "cdi", "capabilities": ["gpu"], "device_ids": [f"nvidia.com/gpu={plans.UUID}"]}]}}}
    environment = service["environment"]
    assert environment["CUDA_VISIBLE_DEVICES"] == plans.UUID and environment["OLLAMA_LLM_LIBRARY"] == "cuda_v12"
    assert environment["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert "OLLAMA_KV_CACHE_TYPE" not in environment and "OLLAMA_FLASH_ATTENTION" not in environment


def test_the_budget_of_video_memory_becomes_ollamas_settings(rendered):
    environment = rendered["small cache"]["__ollama_definition"]["environment"]
    assert {name: environment[name] for name in (
        "OLLAMA_CONTEXT_LENGTH", "OLLAMA_NUM_PARALLEL", "OLLAMA_MAX_LOADED_MODELS", "OLLAMA_KV_CACHE_TYPE", "OLLAMA_FLASH_ATTENTION")} == {
        "OLLAMA_CONTEXT_LENGTH": "8192", "OLLAMA_NUM_PARALLEL": "2", "OLLAMA_MAX_LOADED_MODELS": "2", "OLLAMA_KV_CACHE_TYPE": "q8_0",
        "OLLAMA_FLASH_ATTENTION": "1"}


def test_values_are_text_for_compose(rendered):
    for name in ("cpu", "gpu", "environment"):
        assert all(isinstance(value, str) for value in rendered[name]["__ollama_definition"]["environment"].values())
    environment = rendered["environment"]["__ollama_definition"]["environment"]
    assert environment["OLLAMA_DEBUG"] == "True" and environment["OLLAMA_MAX_QUEUE"] == "64"


@pytest.mark.parametrize("name", ["cpu", "gpu", "small cache", "environment", "flash attention", "context without a gpu", "models", "in part"])
def test_what_can_work_is_not_refused(rendered, name):
    assert [text for text in rendered[name]["__ollama_problems"] if text] == []


@pytest.mark.parametrize("name, words", [
    ("idle variable", ["OLLAMA_NUM_CTX", "plan_ollama_context_length"]),
    ("variable of the plan", ["CUDA_VISIBLE_DEVICES", "plan_ollama_gpu"]),
    ("threads", ["LLAMA_ARG_THREADS", "plan_ollama_cpus"]),
    ("context of its own", ["ollama_context_length is 8192", "4096", "plan_ollama_context_length"]),
    ("other version", ["0.24.0", "plan_ollama_engine_version"]),
    ("too many threads", ["ollama_models, y", "num_thread is 4", "gives Ollama 1", "plan_ollama_cpus"]),
    ("too long a context", ["ollama_models, y", "num_ctx is 8192", "gives Ollama 4096", "plan_ollama_context_length"]),
    ("misspelt", ["ollama_models, y", "no option form", "did you mean from?"]),
    ("no port", ["ollama_port is 0", "1 to 65535"]),
    ("no ollama", ["plan_services"]),
])
def test_what_cannot_work_is_refused(rendered, name, words):
    found = [text for text in rendered[name]["__ollama_problems"] if text]
    assert len(found) == 1 and all(word in found[0] for word in words), found


def test_where_there_is_no_gpu_nothing_watches_one(rendered):
    assert rendered["cpu"]["__ollama_gpu"] == {} and rendered["gpu"]["__ollama_gpu"]["uuid"] == plans.UUID


def test_how_large_a_model_may_be_follows_from_the_budget(rendered):
    # Weights 2000 and what is left, 2172, for one model or for each of two.
    found = {name: rendered[name]["__ollama_max_mib"] for name in ("cpu", "gpu", "small cache", "in part")}
    assert found == {"cpu": 0, "gpu": 4172, "small cache": 2086, "in part": 0}


PLAYBOOK = """
- hosts: localhost
  gather_facts: false
  vars:
    ollama_models:
      - tinystory
      - {name: kept, state: loaded, keep_alive: -1}
      - name: own
        from: tinystory
        system: "It says {{ ollama_port }}."
        template: !unsafe "{{ .System }} {{ .Prompt }}"
        parameters: {num_ctx: "{{ 2 * 256 }}", stop: ["a", "b"]}
      - {name: gone, state: absent}
  tasks:
    - ansible.builtin.include_vars: "{{ case_role }}/vars/main.yml"
    - ansible.builtin.include_tasks: "{{ case_role }}/tasks/models.yml"
"""


def test_the_declared_models_reach_the_module(tmp_path):
    """The role's own task, against a server; a second run changes nothing."""
    role = rendering.REPO / "roles" / "ollama"
    with harness.running(tmp_path) as server:
        server.call("POST", "/api/pull", {"model": "tinystory", "stream": False})
        for name in ("gone", "kept"):
            server.call("POST", "/api/copy", {"source": "tinystory", "destination": name})
        (tmp_path / "inventory.yml").write_text("all: {hosts: {localhost: {ansible_connection: local}}}\n")
        (tmp_path / "playbook.yml").write_text(PLAYBOOK)
        variables = yaml.safe_load((role / "defaults" / "main.yml").read_text())
        del variables["ollama_models"]
        variables.update(plan_decided=CPU, ollama_port=server.port, __ollama_data=str(tmp_path), case_role=str(role), ansible_python_interpreter=sys.executable)
        assert "changed=1 " in rendering.play(tmp_path, "-e", json.dumps(variables))
        shown = server.call("POST", "/api/show", {"model": "own"})[1]
        assert shown["system"] == f"It says {server.port}." and shown["template"] == "{{ .System }} {{ .Prompt }}"
        assert [line.split()[0] for line in shown["parameters"].splitlines()] == ["num_ctx", "stop", "stop"]
        assert sorted(model["name"] for model in server.call("GET", "/api/tags")[1]["models"]) == ["kept:latest", "own:latest", "tinystory:latest"]
        assert server.call("GET", "/api/ps")[1]["models"][0]["expires_at"] > "2300"
        assert "changed=0 " in rendering.play(tmp_path, "-e", json.dumps(variables))
