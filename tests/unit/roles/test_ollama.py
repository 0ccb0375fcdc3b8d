# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role makes of a plan: the service's description, and the settings it refuses."""
from __future__ import annotations

import importlib.util
import pathlib

import pytest

HERE = pathlib.Path(__file__).resolve().parent


def load(name):
    spec = importlib.util.spec_from_file_location(f"roles_{name}", HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


plans, render = load("plans"), load("render").render
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
    "no ollama": {"plan_decided": {**CPU, "ollama": None}},
}


@pytest.fixture(name="rendered", scope="module")
def fixture_rendered(tmp_path_factory):
    wanted = ["__ollama_problems"]
    whole = {name: case for name, case in CASES.items() if name != "no ollama"}
    refused = render(tmp_path_factory.mktemp("refused"), "ollama", wanted, CASES.values())
    made = render(tmp_path_factory.mktemp("made"), "ollama", ["__ollama_definition", "__ollama_gpu"], whole.values())
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


@pytest.mark.parametrize("name", ["cpu", "gpu", "small cache", "environment", "flash attention", "context without a gpu"])
def test_what_can_work_is_not_refused(rendered, name):
    assert [text for text in rendered[name]["__ollama_problems"] if text] == []


@pytest.mark.parametrize("name, words", [
    ("idle variable", ["OLLAMA_NUM_CTX", "plan_ollama_context_length"]),
    ("variable of the plan", ["CUDA_VISIBLE_DEVICES", "plan_ollama_gpu"]),
    ("threads", ["LLAMA_ARG_THREADS", "plan_ollama_cpus"]),
    ("context of its own", ["ollama_context_length is 8192", "4096", "plan_ollama_context_length"]),
    ("other version", ["0.24.0", "plan_ollama_engine_version"]),
    ("no ollama", ["plan_services"]),
])
def test_what_cannot_work_is_refused(rendered, name, words):
    found = [text for text in rendered[name]["__ollama_problems"] if text]
    assert len(found) == 1 and all(word in found[0] for word in words), found


def test_where_there_is_no_gpu_nothing_watches_one(rendered):
    assert rendered["cpu"]["__ollama_gpu"] == {} and rendered["gpu"]["__ollama_gpu"]["uuid"] == plans.UUID
