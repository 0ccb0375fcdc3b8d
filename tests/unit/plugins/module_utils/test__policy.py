# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import math

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils._policy import POLICY, describe, merge, plain, read_policy

DEFAULTS = {
    "services": ["vllm", "ollama"], "isolation": "fenced", "reserved_cores": 1, "vllm_cores": "", "vllm_cpus": "", "vllm_allow_split_cores": False,
    "vllm_smt": "own", "vllm_omp": "explicit", "vllm_omp_bind": "", "vllm_numa": "single", "vllm_memory_limit_mib": 6144,
    "vllm_memory_reservation_mib": 2048, "vllm_shm_mib": 256, "vllm_kv_cache_gib": 4, "vllm_kv_cache_fixed": False, "vllm_weights_mib": 0,
    "vllm_max_num_batched_tokens": 1024, "vllm_max_num_seqs": 64, "vllm_block_size": 16, "vllm_max_model_len": 0, "vllm_engine_version": "0.32.0",
    "ollama_cpus": "reserved", "ollama_memory_limit_mib": 4096, "ollama_memory_reservation_mib": 1024, "ollama_require_gpu": True,
    "ollama_gpu": "", "ollama_engine_version": "0.32.15", "ollama_model_mib": 0, "ollama_kv_bytes_per_token": 0, "ollama_context_length": 0,
    "ollama_parallel": 1, "ollama_max_loaded_models": 1, "ollama_kv_cache_type": "f16", "ollama_allow_partial_offload": False,
    "container_toolkit_version": "1.19.1",
    "system_reserve_mib": 1024, "allow_squeezing_containers": False}


def test_the_documents_values_are_the_defaults():
    assert {name: option.default for name, option in POLICY.items()} == DEFAULTS
    assert read_policy({}) == read_policy(None) == read_policy(DEFAULTS)
    assert not read_policy(DEFAULTS)[1]


@pytest.mark.parametrize("name, value, read", [
    ("vllm_memory_limit_mib", "6144", 6144), ("vllm_memory_limit_mib", " 6144 ", 6144), ("vllm_memory_limit_mib", 6144.0, 6144),
    ("vllm_kv_cache_fixed", "yes", True), ("vllm_kv_cache_fixed", "False", False), ("vllm_kv_cache_fixed", 1, True), ("vllm_kv_cache_fixed", 0, False),
    ("vllm_smt", " IDLE ", "idle"),
    ("services", "ollama", ["ollama"]), ("services", ["ollama", "vllm"], ["vllm", "ollama"]), ("services", ("vllm", "vllm"), ["vllm"]),
    ("services", "ollama, VLLM", ["vllm", "ollama"]),
    ("reserved_cores", 2, 2), ("reserved_cores", "2", 2), ("reserved_cores", [2], [2]), ("reserved_cores", "6-7", [6, 7]), ("reserved_cores", "[7]", [7]),
    ("reserved_cores", ["6", 7], [6, 7]),
    ("vllm_cores", "0-3,5", [0, 1, 2, 3, 5]), ("vllm_cores", 5, [5]), ("vllm_cores", "5", [5]), ("vllm_cores", [3, 1, 1], [1, 3]), ("vllm_cores", [], []),
    ("vllm_cores", ["0-2", 4], [0, 1, 2, 4]), ("vllm_cpus", "", []),
    ("ollama_cpus", "ANY", "any"), ("ollama_cpus", "6-7", [6, 7]), ("ollama_cpus", 6, [6]),
    ("vllm_engine_version", "v0.32.0+cpu", "0.32.0+cpu"),
    ("ollama_gpu", " *P2200* ", "*P2200*"), ("ollama_kv_cache_type", "Q8_0", "q8_0"), ("container_toolkit_version", "1.18.2-rc.1", "1.18.2-rc.1"),
    ("vllm_memory_limit_mib", None, 6144), ("no_such_key", None, None),
])
def test_readings(name, value, read):
    values, violations = read_policy({name: value})
    assert not violations and values.get(name) == read


@pytest.mark.parametrize("name, value, rule, nearest", [
    # Sizes as people write them.
    ("vllm_memory_limit_mib", "6g", "option-type", 6144), ("vllm_memory_limit_mib", "6 GiB", "option-type", 6144),
    ("vllm_memory_limit_mib", "8192M", "option-type", 8192), ("vllm_memory_limit_mib", "2097152 k", "option-type", 2048),
    ("vllm_memory_limit_mib", "0.5g", "option-type", 512), ("vllm_memory_limit_mib", "1t", "option-type", 1 << 20),
    ("vllm_memory_limit_mib", "six", "option-type", 6144), ("vllm_memory_limit_mib", "", "option-type", 6144),
    ("vllm_kv_cache_gib", "4g", "option-type", 4), ("vllm_kv_cache_gib", 4.5, "option-type", 4), ("vllm_kv_cache_gib", "4.5", "option-type", 4),
    ("vllm_kv_cache_gib", "512m", "option-type", 1), ("vllm_kv_cache_gib", math.nan, "option-type", 4), ("vllm_kv_cache_gib", math.inf, "option-type", 4),
    ("vllm_kv_cache_gib", True, "option-type", 4), ("vllm_kv_cache_gib", [4], "option-type", 4), ("vllm_kv_cache_gib", {}, "option-type", 4),
    ("vllm_max_num_seqs", "64k", "option-type", 64), ("vllm_max_num_seqs", "9" * 5000, "option-type", 64),
    # Ranges.
    ("vllm_kv_cache_gib", 0, "option-range", 1), ("vllm_kv_cache_gib", -3, "option-range", 1), ("vllm_memory_limit_mib", "9" * 18, "option-range", 1 << 31),
    ("vllm_shm_mib", 64, "option-range", 240), ("vllm_memory_reservation_mib", 0, "option-range", 6), ("vllm_weights_mib", "-1", "option-range", 0),
    ("reserved_cores", 0, "option-range", 1), ("reserved_cores", "0", "option-range", 1), ("reserved_cores", [], "option-range", 1),
    ("reserved_cores", "", "option-range", 1), ("ollama_cpus", "", "option-range", "reserved"), ("ollama_cpus", [], "option-range", "reserved"),
    ("services", [], "option-range", ["vllm", "ollama"]), ("services", {}, "option-type", ["vllm", "ollama"]),
    # Choices.
    ("isolation", "exclusiv", "option-choice", "exclusive"), ("isolation", "strong", "option-choice", "fenced"), ("isolation", 5, "option-choice", "fenced"),
    ("services", ["vllm", "llama"], "option-choice", ["vllm"]), ("services", ["lama", []], "option-choice", ["vllm", "ollama"]),
    # Others.
    ("vllm_kv_cache_fixed", "perhaps", "option-type", False), ("ollama_require_gpu", 2, "option-type", True), ("ollama_require_gpu", [], "option-type", True),
    ("vllm_cores", "0-x", "option-type", ""), ("vllm_cores", "6-0", "option-type", ""), ("vllm_cores", -1, "option-type", ""),
    ("vllm_cores", True, "option-type", ""), ("vllm_cores", [True], "option-type", ""), ("vllm_cores", [[1]], "option-type", ""),
    ("vllm_cores", 1.5, "option-type", ""), ("vllm_cpus", {}, "option-type", ""),
    ("reserved_cores", 1.5, "option-type", 1), ("reserved_cores", True, "option-type", 1), ("reserved_cores", "last", "option-type", 1),
    ("ollama_cpus", "all", "option-type", "reserved"), ("ollama_cpus", 0.5, "option-type", "reserved"),
    # A version that YAML has read as a number: 0.30 is 0.3 by then.
    ("vllm_engine_version", 0.30, "option-type", "0.32.0"), ("vllm_engine_version", "latest", "option-type", "0.32.0"),
    ("vllm_engine_version", b"1", "option-type", "0.32.0"),
    ("ollama_engine_version", 0.32, "option-type", "0.32.15"), ("container_toolkit_version", "new", "option-type", "1.19.1"),
    ("ollama_gpu", 0, "option-type", ""), ("ollama_gpu", ["x"], "option-type", ""),
    ("ollama_kv_cache_type", "q8", "option-choice", "q8_0"), ("ollama_parallel", 0, "option-range", 1), ("ollama_context_length", "4k", "option-type", 4),
])
def test_refusals(name, value, rule, nearest):
    values, violations = read_policy({name: value})
    assert [(item["rule"], item["option"], item["nearest"]) for item in violations] == [(rule, name, {name: nearest})]
    # Whatever else is to be judged is judged by the nearest value.
    assert values[name] == read_policy({name: nearest})[0][name] and not read_policy({name: nearest})[1]
    assert name in violations[0]["message"] and "It takes " in violations[0]["message"]


@pytest.mark.parametrize("policy, nearest, words", [
    ({"vllm_core": "0-3"}, {"vllm_core": None, "vllm_cores": "0-3"}, "Did you mean vllm_cores?"),
    ({"vllm_core": "0-3", "vllm_cores": "1"}, {"vllm_core": None}, "Did you mean vllm_cores?"),
    ({"vllm_core": "x"}, {"vllm_core": None}, "Did you mean vllm_cores?"),
    ({"plan_vllm_smt": "idle"}, {"plan_vllm_smt": None, "vllm_smt": "idle"}, "Did you mean vllm_smt?"),
    ({"xyzzy": 1}, {"xyzzy": None}, "is not a key of the policy."),
    ({5: 1}, {"5": None}, "is not a key of the policy."),
])
def test_unknown_keys(policy, nearest, words):
    violations = read_policy(policy)[1]
    assert [(item["rule"], item["nearest"]) for item in violations] == [("unknown-option", nearest)] and words in violations[0]["message"]
    assert not read_policy(merge(policy, nearest))[1]


def test_all_at_once():
    assert len(read_policy({"a": 1, "b": 2, "vllm_smt": "x", "vllm_kv_cache_gib": "x", "vllm_cores": "x"})[1]) == 5


@pytest.mark.parametrize("policy", ["text", 5, ["vllm_cores"], True])
def test_a_policy_that_is_no_dictionary(policy):
    values, violations = read_policy(policy)
    assert values == read_policy({})[0] and [item["rule"] for item in violations] == ["policy-type"] and violations[0]["nearest"] == {}


def test_merging():
    assert merge({"a": 1, 5: 2, "b": None}, {"a": None, "5": 3}) == {"5": 3}


def test_anything_can_be_shown():
    assert plain({1: (b"x", {2.5}, None)}) == {"1": ["b'x'", "{2.5}", None]}
    long = read_policy({"vllm_smt": "x" * 500})[1][0]
    assert len(long["message"]) < 300 and len(long["asked"]) == 500


def test_descriptions():
    assert describe("vllm_kv_cache_gib").startswith("C(vllm_kv_cache_gib) (int, GiB; default 4). ")
    assert describe("vllm_smt").startswith("C(vllm_smt) (str, own or idle; default own). ")
    assert describe("vllm_cores").startswith("C(vllm_cores) (core list; default empty). ")
    assert describe("ollama_require_gpu").startswith("C(ollama_require_gpu) (bool; default true). ")
    # As plain text in YAML.
    assert not [name for name in POLICY if ": " in describe(name) or " #" in describe(name) or not describe(name).endswith(".")]
