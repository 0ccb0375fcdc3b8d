# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import copy
import json

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils._plan import decide, render_plan
from ansible_collections.erni_ki.inference.plugins.module_utils._policy import POLICY, merge
from ansible_collections.erni_ki.inference.plugins.module_utils._sizing import RUNTIME_MIB as RUNTIME
from ansible_collections.erni_ki.inference.tests.unit.plugins.plan_strategies import GPU, UUID, adjacent, split, topology

DOCUMENT = topology(split(8))
ENGINE = {
    "flavor": "distribution", "installed": True, "reachable": True, "version": "26.1.5", "cgroup_driver": "systemd", "cgroup_version": 2, "data_root": "/x",
    "live_restore": True, "runtimes": ["runc"], "default_runtime": "runc", "compose": {"kind": "v2", "version": "2.26.1"}, "containers": [], "error": None}


def container(name, parent=""):
    return {"name": name, "image": "x", "state": "running", "cgroup_parent": parent, "cpuset": "", "compose_project": None}


def plan(facts=None, engine=None, gpu="P2200", **policy):
    result = decide(facts or DOCUMENT, engine, GPU if gpu == "P2200" else gpu, policy)
    assert not result["violations"], result["violations"]
    return result["plan"]


def refuse(facts=None, engine=None, gpu="P2200", **policy):
    """Return the violations by rule; what they call nearest has been tried."""
    facts, gpu = facts or DOCUMENT, GPU if gpu == "P2200" else gpu
    result = decide(facts, engine, gpu, policy)
    assert result["plan"] is None and result["notes"] == []
    nearest = {name: value for violation in result["violations"] for name, value in violation["nearest"].items()}
    again = decide(facts, engine, gpu, merge(policy, nearest))
    assert {item["rule"] for item in again["violations"]} == {item["rule"] for item in result["violations"] if not item["nearest"]}
    return {item["rule"]: item for item in result["violations"]}


def rules(found):
    return [note["rule"] for note in found["notes"]]


def text(found, rule):
    return next(note["text"] for note in found["notes"] if note["rule"] == rule)


# The plan, by example


def test_the_document_on_split_numbering():
    found = plan(isolation="exclusive")
    assert found.pop("notes") == [
        {"rule": "weights-unknown", "text":
            f"The size of vLLM's model is not known: {2048 - RUNTIME} MiB are left for it and for the page cache of its files. Set vllm_weights_mib to have"
            " that checked."},
        {"rule": "block-size", "text": "Block size 16 became 32: vLLM 0.32.0 does not take 16 on a CPU."},
        {"rule": "model-unknown", "text": (
            "The size of Ollama's model is not known, 2691 MiB of Quadro P2200 are left for it; its KV cache is reckoned at 147456 bytes per token, which"
            " few models of its kind exceed. Set ollama_model_mib and ollama_kv_bytes_per_token to have it checked.")}]
    assert found == {
        "schema_version": 1,
        "host": {
            "architecture": "x86_64", "model_name": "Test CPU", "cores": 8, "logical_cpus": 16, "threads_per_core": 2, "numa_nodes": [0],
            "memory_total_mib": 32000, "usable_cpus": "0-15"},
        "isolation": "exclusive",
        "system": {"cores": [7], "cpuset": "7,15", "memory_reserve_mib": 1024, "memory_left_mib": 21760},
        "vllm": {
            "container": "vllm", "slice": "erniki-vllm.slice", "cores": [0, 1, 2, 3, 4, 5, 6], "cpuset": "0-6,8-14", "cpuset_mems": "0", "numa_nodes": [0],
            "smt": "own",
            "omp": {"mode": "explicit", "bind": "0-6", "cpus": "0-6", "threads": 7, "reserved_cpus": 1},
            "memory": {"limit_mib": 6144, "swap_limit_mib": 6144, "reservation_mib": 2048, "shm_mib": 256},
            "kv_cache_gib": 4,
            "engine": {"version": "0.32.0", "max_num_batched_tokens": 1024, "max_num_seqs": 64, "block_size": 32, "max_model_len": 0},
            "budget": {
                "runtime_mib": RUNTIME, "weights_mib": 0, "packed_mib": 0, "kv_cache_mib": 4096, "activations_mib": 0, "page_cache_mib": 0,
                "left_mib": 2048 - RUNTIME},
            "device": {"kind": "none", "runtime": "runc"}},
        "ollama": {
            "container": "ollama", "slice": "erniki-ollama.slice", "policy": "reserved", "cores": [7], "cpuset": "7,15", "cpuset_mems": "0", "threads": 1,
            "memory": {"limit_mib": 4096, "swap_limit_mib": 4096, "reservation_mib": 1024},
            "device": {
                "kind": "gpu", "uuid": UUID, "name": "Quadro P2200", "bus_id": "0000:01:00.0", "compute_capability": "6.1", "memory_total_mib": 5120,
                "cdi_device": f"nvidia.com/gpu={UUID}", "library": "cuda_v12", "driver": {"found": "580.95.05", "allowed": "570-580"}, "handover": "cdi",
                "vram": {
                    "total_mib": 5120, "reserve_mib": 1853, "weights_mib": 0, "kv_cache_mib": 576, "left_mib": 2691, "context_length": 4096, "parallel": 1,
                    "kv_cache_type": "f16", "max_loaded_models": 1, "partial_allowed": False}}},
        "partition": {
            "mode": "exclusive",
            "slices": [
                {"unit": "erniki-vllm.slice", "cpus": "0-6,8-14", "mems": "0", "memory_low_mib": 2048},
                {"unit": "erniki-ollama.slice", "cpus": "7,15", "mems": "0", "memory_low_mib": 1024}],
            "fence": {"cpus": "7,15", "units": ["init.scope", "machine.slice", "system.slice", "user.slice"]}},
    }


@pytest.mark.parametrize("groups, smt, cpuset, bind, rest", [
    (split(8), "own", "0-6,8-14", "0-6", "7,15"),
    # Core n is CPUs 2n and 2n+1: a literal 0-6 would be three and a half cores.
    (adjacent(8), "own", "0-13", "0,2,4,6,8,10,12", "14-15"),
    # No siblings, so core 6 is left to the engine.
    (split(8, 1), "own", "0-6", "0-5", "7"),
    (split(8), "idle", "0-6", "0-5", "7,15"),
    (adjacent(8), "idle", "0,2,4,6,8,10,12", "0,2,4,6,8,10", "14-15"),
    (split(4, 4), "own", "0-2,4-6,8-10,12-14", "0-2", "3,7,11,15"),
    # Two cores: one OpenMP thread, its sibling for the engine.
    (split(2), "own", "0,2", "0", "1,3"),
    # Offline sibling of core 1: still a whole core. Gaps in the numbering.
    ([[0, 8], [1], [5, 13], [7, 15]], "own", "0-1,5,8,13", "0-1,5", "7,15"),
])
def test_whole_cores_on_every_numbering(groups, smt, cpuset, bind, rest):
    found = plan(topology(groups), vllm_smt=smt)
    assert (found["vllm"]["cpuset"], found["vllm"]["omp"]["bind"], found["system"]["cpuset"]) == (cpuset, bind, rest)
    assert found["ollama"]["cpuset"] == rest and found["ollama"]["threads"] == 1
    assert ("engine-core" in rules(found)) == (bind in ("0-5", "0,2,4,6,8,10"))


def test_fenced_says_that_others_may_use_the_cores():
    found = plan()
    assert found["partition"]["fence"] is None and found["partition"]["mode"] == "fenced" and len(found["partition"]["slices"]) == 2
    assert "others may still use them" in text(found, "fenced")


def test_two_cores_without_siblings_share_the_one_that_vllm_has():
    found = plan(topology([[0], [1]]))
    assert found["vllm"]["omp"] == {"mode": "explicit", "bind": "0", "cpus": "0", "threads": 1, "reserved_cpus": 1}
    assert "vLLM has one CPU only, 0" in text(found, "engine-core")


# Cores as the policy names them


@pytest.mark.parametrize("policy, vllm, system", [
    ({"reserved_cores": 2}, [0, 1, 2, 3, 4, 5], [6, 7]),
    ({"reserved_cores": "2"}, [0, 1, 2, 3, 4, 5], [6, 7]),
    ({"reserved_cores": [0]}, [1, 2, 3, 4, 5, 6, 7], [0]),
    ({"reserved_cores": "0-1"}, [2, 3, 4, 5, 6, 7], [0, 1]),
    ({"reserved_cores": "[0]"}, [1, 2, 3, 4, 5, 6, 7], [0]),
    ({"vllm_cores": "0-3"}, [0, 1, 2, 3], [4, 5, 6, 7]),
    ({"vllm_cores": [0, "2"]}, [0, 2], [1, 3, 4, 5, 6, 7]),
    ({"vllm_cores": 5}, [5], [0, 1, 2, 3, 4, 6, 7]),
    ({"vllm_cpus": "1,9"}, [1], [0, 2, 3, 4, 5, 6, 7]),
    ({"vllm_cpus": "1,9", "vllm_cores": "1"}, [1], [0, 2, 3, 4, 5, 6, 7]),
    ({"ollama_cpus": "5-6"}, [0, 1, 2, 3, 4], [7]),
    ({"ollama_cpus": "6-7"}, [0, 1, 2, 3, 4, 5], [7]),
])
def test_cores_by_name(policy, vllm, system):
    found = plan(**policy)
    assert (found["vllm"]["cores"], found["system"]["cores"]) == (vllm, system)
    assert ("cores-left" in rules(found)) == ("vllm_cores" in policy or "vllm_cpus" in policy)


def test_ollama_with_cores_of_its_own():
    found = plan(ollama_cpus="5-6")
    assert found["ollama"]["policy"] == "5-6" and found["ollama"]["cpuset"] == "5-6,13-14" and found["ollama"]["threads"] == 2


@pytest.mark.parametrize("isolation", ["fenced", "exclusive"])
def test_ollama_anywhere_computes_only_beside_vllm(isolation):
    found = plan(isolation=isolation, ollama_cpus="any", reserved_cores=3)
    assert found["ollama"]["cpuset"] == "0-15" and found["ollama"]["cores"] == list(range(8)) and found["ollama"]["threads"] == 3
    assert found["system"]["cores"] == [5, 6, 7] and found["vllm"]["cores"] == [0, 1, 2, 3, 4]
    assert "may slow vLLM down" in text(found, "ollama-any")


def test_only_vllm():
    found = plan(gpu=None, services="vllm")
    assert found["ollama"] is None and found["vllm"]["cpuset"] == "0-6,8-14" and len(found["partition"]["slices"]) == 1
    assert found["system"]["memory_left_mib"] == 32000 - 6144


def test_only_ollama_has_the_cores_that_vllm_would_have_had():
    found = plan(services=["ollama"])
    assert found["vllm"] is None and found["ollama"]["cores"] == [0, 1, 2, 3, 4, 5, 6] and found["ollama"]["threads"] == 7
    assert found["system"]["cores"] == [7] and "cores 0-6" in text(found, "ollama-alone")


def test_only_ollama_on_one_core_shares_it_with_the_system():
    found = plan(topology([[0, 1]]), services=["ollama"])
    assert found["ollama"]["cores"] == found["system"]["cores"] == [0]


def test_only_ollama_anywhere():
    found = plan(services=["ollama"], ollama_cpus="any")
    assert found["ollama"]["cores"] == found["system"]["cores"] == list(range(8)) and "ollama-any" not in rules(found)


@pytest.mark.parametrize("policy, rule, nearest", [
    ({"vllm_cores": "0-8"}, "core-exists", {"vllm_cores": "0-6"}),
    ({"vllm_cores": "0-7"}, "core-reserved", {"vllm_cores": "0-6"}),
    ({"vllm_cores": "7"}, "core-reserved", {"vllm_cores": ""}),
    ({"vllm_cores": "20-21"}, "core-exists", {"vllm_cores": ""}),
    ({"reserved_cores": [7, 9]}, "core-exists", {"reserved_cores": [7]}),
    ({"reserved_cores": [9]}, "core-exists", {"reserved_cores": 1}),
    ({"reserved_cores": 8}, "reserved-leaves-core", {"reserved_cores": 7}),
    ({"reserved_cores": "0-7"}, "reserved-leaves-core", {"reserved_cores": [1, 2, 3, 4, 5, 6, 7]}),
    ({"vllm_cpus": "0-6,99"}, "cpu-exists", {"vllm_cpus": "0-6,8-14"}),
    ({"vllm_cpus": "0-6"}, "split-core", {"vllm_cpus": "0-6,8-14"}),
    ({"vllm_cpus": "0-1,8", "vllm_smt": "idle"}, "split-core", {"vllm_cpus": "0-1"}),
    ({"vllm_cpus": "6-7,14-15"}, "core-reserved", {"vllm_cpus": "6,14"}),
    ({"vllm_cpus": "7,15"}, "core-reserved", {"vllm_cpus": ""}),
    ({"vllm_cpus": "0,8", "vllm_cores": "1"}, "cores-and-cpus", {"vllm_cpus": ""}),
    ({"ollama_cpus": "9"}, "core-exists", {"ollama_cpus": "reserved"}),
    ({"ollama_cpus": "3-5", "vllm_cores": "0-3"}, "core-shared", {"ollama_cpus": "4-5"}),
    ({"ollama_cpus": "2-3", "vllm_cores": "0-3"}, "core-shared", {"ollama_cpus": "reserved"}),
    ({"ollama_cpus": "0-6"}, "no-core-left", {"ollama_cpus": "reserved"}),
    ({"vllm_omp_bind": "0-7"}, "bind-in-cpuset", {"vllm_omp_bind": ""}),
    ({"vllm_omp_bind": "0-6,8-14"}, "bind-leaves-engine", {"vllm_omp_bind": ""}),
    ({"vllm_omp_bind": "0", "vllm_omp": "auto"}, "bind-and-auto", {"vllm_omp_bind": ""}),
])
def test_cores_refused(policy, rule, nearest):
    assert refuse(**policy)[rule]["nearest"] == nearest


def test_a_core_that_is_offline_is_told_from_one_that_does_not_exist():
    found = refuse(topology(split(8), usable="0-4,6-12,14-15"), vllm_cores="4-5,9")["core-exists"]
    assert "9 does not exist; 5 is offline, isolated or forbidden" in found["message"]
    assert found["asked"] == "4-5,9" and found["nearest"] == {"vllm_cores": "4"}


def test_a_split_core_is_allowed_on_demand_and_its_rest_given_to_nobody():
    found = plan(vllm_cpus="0-6", vllm_allow_split_cores=True)
    assert found["vllm"]["cpuset"] == "0-6" and found["vllm"]["omp"]["bind"] == "0-5" and found["system"]["cpuset"] == "7,15"
    assert rules(found).count("split-core") == 7


def test_the_literal_document_on_adjacent_numbering_is_refused_with_the_cores_it_means():
    found = refuse(topology(adjacent(8)), vllm_cpus="0-6")["split-core"]
    assert found["found"] == "core 3 is 6-7" and found["nearest"] == {"vllm_cpus": "0-7"} and "vllm_cores" in found["message"]


def test_bind_as_asked():
    found = plan(vllm_omp_bind="0-2")
    assert found["vllm"]["omp"] == {"mode": "explicit", "bind": "0-2", "cpus": "0-2", "threads": 3, "reserved_cpus": 1}
    assert "cores 0-1" in text(plan(vllm_omp_bind="0-1,8-9"), "bind-siblings")


@pytest.mark.parametrize("facts, threads", [
    (DOCUMENT, 6),
    (topology(split(2)), 1),
    (topology(split(8, 1), architecture="aarch64", flags=["asimd", "bf16"]), 6),
    # On aarch64 vLLM takes every CPU, siblings too.
    (topology(split(8), architecture="arm64", flags=["asimd", "bf16"]), 13),
])
def test_vllm_picks_its_threads(facts, threads):
    found = plan(facts, vllm_omp="auto")
    assert found["vllm"]["omp"] == {"mode": "auto", "bind": "auto", "cpus": None, "threads": threads, "reserved_cpus": 1}
    assert "omp-auto" in rules(found)


def test_offline_isolated_and_forbidden_cpus_go_to_nobody():
    groups = [[0, 8], [1, 9], [2, 10], [3, 11], [4, 12], [5, 13], [6, 14]]
    found = plan(topology(groups, offline="7,15", isolated="1,9", usable="0-6,8-13"))
    assert found["vllm"]["cpuset"] == "0,2-5,8,10-13" and found["system"]["cpuset"] == "6"
    assert text(found, "unused-cpus") == "Logical CPUs that nobody gets: offline 7,15, isolated 1,9."
    assert "Of core 6 only a part may be used; whoever runs on the siblings 14" in text(found, "partial-cores")


# NUMA and hybrid CPUs

TWO_NODES = topology(split(8), nodes={0: 16000, 1: 16000}, node_of=[0, 0, 0, 0, 1, 1, 1, 1])


def test_vllm_stays_on_the_node_with_most_free_cores():
    found = plan(TWO_NODES)
    assert found["vllm"]["cores"] == [0, 1, 2, 3] and found["vllm"]["cpuset_mems"] == "0" and found["vllm"]["numa_nodes"] == [0]
    # The last core is the reserved one; the rest of its node is nobody's, hence the system's.
    assert found["system"]["cores"] == [4, 5, 6, 7] and found["ollama"]["cores"] == [7] and found["ollama"]["cpuset_mems"] == "1"
    assert "NUMA node 0, with 4 of the 7 cores" in text(found, "numa")
    assert plan(TWO_NODES, reserved_cores=[0])["vllm"]["cores"] == [4, 5, 6, 7]


def test_vllm_spans_nodes_when_told_to():
    found = plan(TWO_NODES, vllm_numa="span")
    assert found["vllm"]["cores"] == [0, 1, 2, 3, 4, 5, 6] and found["vllm"]["cpuset_mems"] == "0-1" and "numa-span" in rules(found)
    # vLLM's own choice of threads knows the first node only.
    assert plan(TWO_NODES, vllm_numa="span", vllm_omp="auto")["vllm"]["omp"]["threads"] == 3


def test_cores_on_two_nodes_are_refused():
    assert refuse(TWO_NODES, vllm_cores="2-5")["numa-single"]["nearest"] == {"vllm_numa": "span"}
    assert refuse(TWO_NODES, vllm_cpus="3-4,11-12")["numa-single"]["option"] == "vllm_cpus"


def test_the_node_holds_the_limit():
    facts = topology(split(8), nodes={0: 4000, 1: 28000}, node_of=[0] * 5 + [1] * 3)
    # Node 0 has more cores, but not the memory.
    assert plan(facts)["vllm"]["cores"] == [5, 6]
    found = refuse(facts, vllm_cores="0-3")["node-memory"]
    assert found["nearest"] == {"vllm_memory_limit_mib": 4000} and found["found"] == "NUMA node 0 with 4000 MiB"
    fixed = refuse(facts, vllm_cores="0-3", vllm_kv_cache_fixed=True)["node-memory"]
    assert fixed["nearest"] == {"vllm_memory_limit_mib": 4000, "vllm_kv_cache_gib": 2}
    reserved = refuse(facts, vllm_cores="0-3", vllm_memory_reservation_mib=5000)["node-memory"]
    assert reserved["nearest"] == {"vllm_memory_limit_mib": 4000, "vllm_memory_reservation_mib": 4000}


def test_a_node_too_small_for_anything_is_left():
    facts = topology(split(8), nodes={0: 2000, 1: 30000}, node_of=[0] * 5 + [1] * 3)
    assert refuse(facts, vllm_cores="0-3")["node-memory"]["nearest"] == {"vllm_cores": "", "vllm_numa": "single"}
    assert refuse(facts, vllm_cpus="0,8")["node-memory"]["nearest"] == {"vllm_cpus": "", "vllm_numa": "single"}
    # Nowhere else to go: the only node with memory is reserved.
    assert refuse(facts, reserved_cores="5-7")["node-memory"]["nearest"] == {}


def test_vllm_keeps_its_cache_on_one_node_even_when_it_spans():
    facts = topology(split(8), nodes={0: 5000, 1: 27000}, node_of=[0] * 4 + [1] * 4)
    found = plan(facts, vllm_numa="span")
    assert found["vllm"]["kv_cache_gib"] == 3 and "NUMA node 0, where vLLM keeps them, has 5000 MiB" in text(found, "kv-lowered")
    assert refuse(facts, vllm_numa="span", vllm_kv_cache_fixed=True)["kv-fits-node"]["nearest"] == {"vllm_kv_cache_gib": 3}
    # By the first thread, not by the first core.
    assert plan(facts, vllm_numa="span", vllm_omp_bind="4-5")["vllm"]["kv_cache_gib"] == 4
    tiny = topology(split(8), nodes={0: 2000, 1: 30000}, node_of=[0] * 4 + [1] * 4)
    assert refuse(tiny, vllm_numa="span")["kv-fits-node"]["nearest"] == {"vllm_numa": "single"}


def test_nodes_without_memory_of_their_own():
    facts = topology(split(8), nodes={0: 0, 1: 32000}, node_of=[0] * 6 + [1] * 2)
    assert plan(facts)["vllm"]["cores"] == [6]
    found = plan(facts, vllm_cores="0-3")
    assert found["vllm"]["numa_nodes"] == [0] and found["vllm"]["cpuset_mems"] == "1"
    assert refuse(facts, vllm_cores="0-3", vllm_omp="auto")["auto-needs-local-core"]["nearest"] == {"vllm_omp": "explicit"}


def test_ollama_takes_memory_elsewhere_when_its_node_is_full():
    facts = topology(split(8), nodes={0: 24000, 1: 8000}, node_of=[0] * 4 + [1] * 4)
    assert plan(facts, ollama_memory_limit_mib=8000)["ollama"]["cpuset_mems"] == "1"
    assert plan(facts, ollama_memory_limit_mib=8001)["ollama"]["cpuset_mems"] == "0-1"
    # vLLM's limit counts where it lies on the same node.
    assert plan(facts, vllm_cores="4-6", ollama_memory_limit_mib=4096)["ollama"]["cpuset_mems"] == "0-1"


HYBRID = topology([[0, 1], [2, 3], [4, 5], [6], [7], [8]], kinds=["performance"] * 3 + ["efficiency"] * 3)


def test_performance_cores_first_and_efficiency_cores_reserved():
    found = plan(HYBRID)
    assert found["vllm"]["cores"] == [0, 1, 2] and found["system"]["cores"] == [3, 4, 5] and found["ollama"]["cores"] == [5]
    assert "performance cores only (cores 0-2)" in text(found, "hybrid")


def test_hybrid_corners():
    swapped = topology([[0], [1], [2, 3], [4, 5]], kinds=["efficiency"] * 2 + ["performance"] * 2)
    assert plan(swapped)["vllm"]["cores"] == [2, 3] and plan(swapped)["ollama"]["cores"] == [1]
    assert plan(swapped, reserved_cores=3)["vllm"]["cores"] == [2]
    alone = plan(HYBRID, reserved_cores="0-2")
    assert alone["vllm"]["cores"] == [3, 4, 5] and "efficiency cores only" in text(alone, "hybrid")
    assert "of both kinds" in text(plan(HYBRID, vllm_cores="2-3"), "hybrid")
    # The performance core with nothing beside it is not the one left to the engine.
    assert plan(topology([[0], [1], [2]], kinds=["efficiency", "performance", "efficiency"]), vllm_cores="0-1")["vllm"]["omp"]["bind"] == "1"


# Memory


# A model that was measured

QWEN = {
    "path": "/srv/models/qwen", "dtype": "bfloat16", "weights_mib": 943, "kv_bytes_per_token": 12288, "sliding_window": None, "context_length": 32768,
    "default_context_length": 32768}
LLAMA = {**QWEN, "path": "/srv/models/llama", "weights_mib": 2358, "kv_bytes_per_token": 32768, "context_length": 131072, "default_context_length": 131072}


def with_model(model, **policy):
    return decide(DOCUMENT, None, GPU, policy, model=model)


def test_measured_weights_replace_unknown_ones():
    found = with_model(QWEN)["plan"]
    assert found["vllm"]["budget"]["weights_mib"] == 943 and found["vllm"]["kv_cache_gib"] == 2
    assert rules(found)[:3] == ["fenced", "weights-measured", "kv-lowered"] and "weights-unknown" not in rules(found)
    assert text(found, "weights-measured") == (
        "vLLM's weights are 943 MiB in bfloat16, as the files in /srv/models/qwen tell; vllm_weights_mib would override that.")
    # Without the note it is the plan for those weights, and the user's word counts for more.
    told = plan(vllm_weights_mib=943)
    assert {**found, "notes": None} == {**told, "notes": None}
    found = with_model(QWEN, vllm_weights_mib=100)["plan"]
    assert found == plan(vllm_weights_mib=100)


@pytest.mark.parametrize("model", [None, {}, {**QWEN, "weights_mib": None, "kv_bytes_per_token": None, "context_length": None, "default_context_length": None}])
def test_a_model_of_which_nothing_is_known_changes_nothing(model):
    assert with_model(model)["plan"] == plan()


def test_a_model_without_vllm_is_of_no_matter():
    assert with_model(LLAMA, services="ollama", vllm_max_model_len=1 << 20)["plan"] == plan(services="ollama")


def test_a_context_beyond_the_models_own():
    result = with_model(QWEN, vllm_max_model_len=40000)
    assert [(item["rule"], item["asked"], item["nearest"]) for item in result["violations"]] == [("context-of-model", 40000, {"vllm_max_model_len": 32768})]
    assert result["violations"][0]["message"] == (
        "vllm_max_model_len of 40000 tokens is more than the model is made for, 32768 tokens as the files in /srv/models/qwen tell; vLLM does not start"
        " with it.")
    assert with_model({**QWEN, "context_length": None, "default_context_length": 2048}, vllm_max_model_len=40000)["plan"]


def test_a_context_that_does_not_fit_into_the_cache():
    # The cache is 2 GiB, half of what 131072 tokens take.
    limit = RUNTIME + 2 * 2358 + 2048
    result = with_model(LLAMA, vllm_memory_limit_mib=limit)
    found = result["violations"][0]
    assert (len(result["violations"]), found["rule"], found["asked"], found["nearest"]) == (1, "kv-holds-context", 0, {"vllm_max_model_len": 65536})
    assert found["message"] == (
        "vLLM does not start when one sequence of the longest context, 131072 tokens by itself, does not fit into its KV cache: at 32768 bytes for each it"
        " needs 4096 MiB, and the cache has 2048. A cache of 4 GiB would hold it.")
    assert with_model(LLAMA, vllm_memory_limit_mib=limit, vllm_max_model_len=65536)["plan"]["vllm"]["engine"]["max_model_len"] == 65536
    assert with_model(LLAMA, vllm_memory_limit_mib=limit, vllm_max_model_len=65537)["violations"][0]["nearest"] == {"vllm_max_model_len": 65536}
    assert with_model(LLAMA, vllm_memory_limit_mib=limit + 2048)["plan"]["vllm"]["kv_cache_gib"] == 4
    # Too long for the model and for the cache: the nearest is one that is neither.
    assert with_model(LLAMA, vllm_memory_limit_mib=limit, vllm_max_model_len=1 << 20)["violations"][0]["nearest"] == {"vllm_max_model_len": 65536}


def test_a_window_keeps_a_long_context_small():
    window = {"window": 4096, "layers": 32, "kv_bytes_per_token": 131072}
    long = {**QWEN, "kv_bytes_per_token": 131072, "context_length": 131072, "default_context_length": 131072}
    assert with_model({**long, "sliding_window": window})["plan"]
    assert with_model(long)["violations"][0]["nearest"] == {"vllm_max_model_len": 16384}


def test_blocks_of_the_cache_that_are_too_large():
    result = with_model({**QWEN, "kv_bytes_per_token": 393216}, vllm_block_size=65536)
    assert result["violations"][0]["nearest"] == {"vllm_block_size": 16, "vllm_max_model_len": 5440}
    assert with_model({**QWEN, "kv_bytes_per_token": 393216}, vllm_block_size=16, vllm_max_model_len=5440)["plan"]


@pytest.mark.parametrize("model, problem", [
    ([], "it is not a dictionary"), ({"exists": True, "model_size": QWEN}, "only its key model_size is wanted"), ({**QWEN, "path": 1}, "path is no text"),
    ({**QWEN, "dtype": ""}, "dtype is no text"), ({**QWEN, "weights_mib": "943"}, "weights_mib is no whole number from 1 to 2147483648"),
    ({**QWEN, "kv_bytes_per_token": 1 << 25}, "kv_bytes_per_token is no whole number"), ({**QWEN, "context_length": 0}, "context_length is no whole number"),
    ({**QWEN, "sliding_window": 4096}, "sliding_window is not a dictionary"), ({**QWEN, "sliding_window": {"window": 4}}, "does not tell its window"),
    ({**QWEN, "sliding_window": {"window": 4, "kv_bytes_per_token": 12289}}, "does not tell its window"),
])
def test_a_model_that_cannot_be(model, problem):
    result = with_model(model)
    assert [item["rule"] for item in result["violations"]] == ["facts"] and problem in result["violations"][0]["message"]
    assert "Give it what model_size_info returns as model_size." in result["violations"][0]["message"]


def test_the_cache_is_lowered_when_the_weights_need_the_room():
    # While they are read they are in memory twice, the second time as the page cache of their files.
    found = plan(vllm_weights_mib=1000)
    assert found["vllm"]["kv_cache_gib"] == 2 and found["vllm"]["budget"] == {
        "runtime_mib": RUNTIME, "weights_mib": 1000, "packed_mib": 0, "kv_cache_mib": 2048, "activations_mib": 0, "page_cache_mib": 1000,
        "left_mib": 2096 - RUNTIME}
    assert text(found, "kv-lowered") == (
        f"vLLM's KV cache is lowered from 4 to 2 GiB: runtime {RUNTIME} + weights 1000 + page cache 1000 + KV cache 4096 = {RUNTIME + 6096} MiB, its memory"
        " limit is 6144 MiB.")
    assert "kv-lowered" not in rules(plan(vllm_weights_mib=(2048 - RUNTIME) // 2))


def test_the_cache_over_the_limit():
    assert plan(vllm_kv_cache_gib=8)["vllm"]["kv_cache_gib"] == 4
    found = refuse(vllm_kv_cache_gib=8, vllm_kv_cache_fixed=True)["kv-fits-limit"]
    assert found["nearest"] == {"vllm_kv_cache_gib": 4} and found["asked"] == 8 and found["found"] == "at most 4 GiB fit"
    assert f"runtime {RUNTIME} + weights unknown + KV cache 8192 = {RUNTIME + 8192} MiB, its memory limit is 6144 MiB" in found["message"]


def test_limits_over_the_memory():
    found = refuse(topology(split(8), memory=8000))["memory-fits-host"]
    assert found["nearest"] == {"ollama_memory_limit_mib": 1024, "vllm_memory_limit_mib": 5952}
    assert "vLLM 6144 + Ollama 4096 + system 1024 = 11264 MiB, the host has 8000 MiB" in found["message"]
    assert refuse(topology(split(8), memory=2000))["host-memory"]["nearest"] == {}


def test_memory_as_text():
    found = refuse(vllm_memory_limit_mib="6g")["option-type"]
    assert found["nearest"] == {"vllm_memory_limit_mib": 6144} and "whole number of MiB" in found["message"]


# The host and its engine


@pytest.mark.parametrize("architecture, flags, policy, rule, nearest", [
    ("x86_64", [], {}, "isa", {}),
    ("x86_64", ["avx2"], {"vllm_engine_version": "0.16.0"}, "isa", {"vllm_engine_version": "0.32.0"}),
    ("aarch64", [], {}, "isa", {}),
    ("armv7l", ["asimd"], {}, "architecture", {}),
    (None, [], {}, "architecture", {}),
])
def test_cpus_that_do_not_do(architecture, flags, policy, rule, nearest):
    assert refuse(topology(split(8), architecture=architecture, flags=flags), **policy)[rule]["nearest"] == nearest


@pytest.mark.parametrize("architecture, flags, note", [
    ("x86_64", ["avx2"], "limited features"),
    ("aarch64", ["asimd"], "no bf16"),
    ("x86_64", None, "did not say"),
])
def test_cpus_that_do_with_a_note(architecture, flags, note):
    assert note in text(plan(topology(split(8), architecture=architecture, flags=flags)), "isa")


def test_ollama_alone_needs_no_vector_units():
    assert "isa" not in rules(plan(topology(split(8), flags=[]), services="ollama"))


@pytest.mark.parametrize("changes, rule, word", [
    ({"flavor": "snap"}, "engine-snap", "snap remove docker"),
    ({"flavor": "podman-docker", "version": "4.3.1"}, "engine-podman", "podman-docker"),
    ({"version": "19.3.15"}, "engine-version", "20.10"),
    ({"compose": {"kind": "v1", "version": "1.29.2"}}, "engine-compose", "1.29.2"),
])
def test_engines_that_do_not_do(changes, rule, word):
    found = refuse(engine=dict(ENGINE, **changes))
    assert list(found) == [rule, *(["engine-cdi"] if rule == "engine-version" else [])] and found[rule]["nearest"] == {} and word in found[rule]["message"]


def test_an_engine_that_is_not_there_is_no_problem():
    assert plan(engine={"installed": False, "flavor": "none", "version": None, "compose": {"kind": "none"}, "containers": []}) == plan(engine=ENGINE) == plan()


@pytest.mark.parametrize("changes, engine, rule", [
    ({"init_system": "openrc"}, None, "exclusive-needs-systemd"),
    ({"init_system": None}, None, "exclusive-needs-systemd"),
    ({"cgroup": {"version": 1, "mode": "legacy"}}, None, "exclusive-needs-cgroup-v2"),
    ({"cgroup": {"version": None, "mode": "none"}}, None, "exclusive-needs-cgroup-v2"),
    ({}, dict(ENGINE, cgroup_driver="cgroupfs"), "exclusive-needs-systemd-driver"),
    ({}, dict(ENGINE, containers=[container("web"), container("vllm"), container("db", "/docker/x"), container("own", "own.slice")]), "foreign-containers"),
])
def test_exclusive_refused(changes, engine, rule):
    found = refuse(topology(split(8), **changes), engine, isolation="exclusive")
    assert list(found) == [rule] and found[rule]["nearest"] == {"isolation": "fenced"}
    assert plan(topology(split(8), **changes), engine)["partition"]["fence"] is None
    if rule == "foreign-containers":
        assert found[rule]["found"] == "running: db, web"


def test_exclusive_squeezes_when_told_to_and_says_what_it_does_not_reach():
    engine = dict(ENGINE, containers=[container("web"), container("own", "own.slice/inner.slice")])
    found = plan(engine=engine, isolation="exclusive", allow_squeezing_containers=True)
    assert "web" in text(found, "foreign-containers") and "own" in text(found, "foreign-slices")
    assert "nobody looked" in text(plan(engine=dict(ENGINE, reachable=False), isolation="exclusive"), "engine-silent")


@pytest.mark.parametrize("facts, engine, slices", [
    (topology(split(8), init_system="openrc"), None, 0), (topology(split(8), init_system=None), None, 2),
    (DOCUMENT, dict(ENGINE, cgroup_driver="cgroupfs"), 0)])
def test_no_slices_where_nobody_keeps_them(facts, engine, slices):
    found = plan(facts, engine)
    assert len(found["partition"]["slices"]) == slices and found["vllm"]["slice"] == "erniki-vllm.slice"


def test_devices():
    assert refuse(gpu=None)["gpu-required"]["nearest"] == {"ollama_require_gpu": False}
    found = plan(gpu=None, ollama_require_gpu="no")
    assert found["ollama"]["device"] == {"kind": "none", "uuid": None, "name": None} and "ollama-on-cpu" in rules(found)


def test_a_host_with_one_core():
    found = refuse(topology([[0, 1]]))["cores-needed"]
    assert found["nearest"] == {} and found["found"] == "1 usable core (logical CPUs 0-1)"
    nothing = refuse(topology([[0, 1]], usable=""), services="ollama")["cores-needed"]
    assert nothing["found"] == "0 usable cores (logical CPUs none)"


# Settings


@pytest.mark.parametrize("version, asked, size", [("0.32.0", 16, 32), ("0.29.0", 33, 64), ("0.28.0", 16, 16), ("0.11.1", 17, 32), ("0.11.0", 128, 16)])
def test_block_sizes(version, asked, size):
    found = plan(vllm_engine_version=version, vllm_block_size=asked)
    assert found["vllm"]["engine"]["block_size"] == size and ("block-size" in rules(found)) == (asked != size)


def test_a_batch_smaller_than_the_sequences():
    found = refuse(vllm_max_num_batched_tokens=32)["batch-covers-sequences"]
    assert found["nearest"] == {"vllm_max_num_seqs": 32} and found["asked"] == 64


# All at once, whatever comes in


def test_all_violations_at_once():
    found = refuse(
        gpu=None, reserved_cores=9, vllm_cores="0-8", vllm_omp_bind="30", vllm_kv_cache_gib=8, vllm_kv_cache_fixed=True, vllm_smt="of",
        ollama_memory_limit_mib=99999, vllm_numa="none", vllm_kv_cache_gb=3, isolation="exclusive", engine=dict(ENGINE, containers=[container("web")]))
    assert set(found) == {
        "option-choice", "unknown-option", "foreign-containers", "kv-fits-limit", "memory-fits-host", "reserved-leaves-core", "core-exists", "core-reserved",
        "bind-in-cpuset", "gpu-required"}


def test_what_comes_to_light_later_goes_with_the_first():
    """A limit that is too small, raised, no longer fits the host beside the others."""
    found = refuse(topology(split(8), memory=6500), vllm_memory_limit_mib=1024, vllm_memory_reservation_mib=512, vllm_cores="1,7", vllm_omp_bind="7")
    assert found["vllm-memory-limit"]["nearest"] == {"vllm_memory_limit_mib": RUNTIME + 1024, "ollama_memory_limit_mib": 4452 - RUNTIME}
    assert found["bind-in-cpuset"]["nearest"] == {"vllm_omp_bind": ""} and found["core-reserved"]["nearest"] == {"vllm_cores": "1"}
    facts = topology(split(8), nodes={0: 2000, 1: 30000}, node_of=[0] * 4 + [1] * 4)
    assert refuse(facts, vllm_cores="0-3", vllm_omp_bind="0-1")["node-memory"]["nearest"] == {"vllm_cores": "", "vllm_numa": "single", "vllm_omp_bind": ""}


@pytest.mark.parametrize("facts, words", [
    (None, "not a dictionary"),
    ({}, "cores is not a list"),
    ({"cpu_topology": DOCUMENT, "changed": False}, "only its key cpu_topology is wanted"),
    (dict(DOCUMENT, cores=[]), "at least one core"),
    (dict(DOCUMENT, cores=["x"]), r"cores[0] has no index"),
    (dict(DOCUMENT, cores=DOCUMENT["cores"] * 2), "has no index of its own"),
    (dict(DOCUMENT, cores=[{"index": 0, "cpus": "0-1"}]), r"cores[0].cpus is not a list of CPU numbers"),
    (dict(DOCUMENT, cores=[{"index": 0, "cpus": [0]}, {"index": 1, "cpus": [0]}]), r"cores[1] has a CPU that another core has"),
    (dict(DOCUMENT, cores=[{"index": 0, "cpus": [0], "numa_node": "x"}]), "numa_node is not a number"),
    (dict(DOCUMENT, cpus=dict(DOCUMENT["cpus"], usable="0-x")), "cpus.usable"),
    (dict(DOCUMENT, cpus=dict(DOCUMENT["cpus"], online=[0])), "cpus.online is not a CPU list as text"),
    (dict(DOCUMENT, memory={}), "memory.total_mib"),
    (dict(DOCUMENT, memory=5), "memory is not a dictionary"),
    (dict(DOCUMENT, architecture=5), "architecture is not text"),
    (dict(DOCUMENT, flags="avx2"), "flags is not a list"),
    (dict(DOCUMENT, numa_nodes={}), "numa_nodes is not a list"),
    (dict(DOCUMENT, numa_nodes=[5]), r"numa_nodes[0].node is not a number"),
    (dict(DOCUMENT, numa_nodes=[{"node": 0, "memory_total_mib": "x"}]), r"numa_nodes[0].memory_total_mib is not a number"),
    (dict(DOCUMENT, cores=[{}] * 9), "and 4 more"),
])
def test_a_host_that_is_none(facts, words):
    result = decide(facts, None, None, {"vllm_smt": "x"})
    assert [item["rule"] for item in result["violations"]] == ["facts", "option-choice"]
    assert words in result["violations"][0]["message"] and result["violations"][0]["option"] == "topology"


@pytest.mark.parametrize("engine, gpu, option, words", [
    ("docker", None, "engine", "not a dictionary"),
    ({"container_engine": ENGINE}, None, "engine", "only its key container_engine is wanted"),
    (dict(ENGINE, containers=["web"]), None, "engine", "containers is not a list"),
    (None, "GPU", "gpu", "not a dictionary"),
    (None, {"gpu": GPU}, "gpu", "only its key gpu is wanted"),
    (None, dict(GPU, state="fine"), "gpu", "state is none of ok, no_card"),
    (None, dict(GPU, gpus="GPU"), "gpu", "gpus is not a list of dictionaries"),
    (None, dict(GPU, gpus=[{}]), "gpu", "gpus[0] has no uuid"),
    (None, dict(GPU, gpus=[{"uuid": "GPU-1", "memory": 5120}]), "gpu", "memory is not a dictionary"),
    (None, dict(GPU, gpus=[{"uuid": "GPU-1", "processes": "none"}]), "gpu", "gpus[0].processes is not a list of dictionaries"),
    (None, dict(GPU, cards=["P2200"]), "gpu", "cards is not a list of dictionaries"),
    (None, dict(GPU, module="580"), "gpu", "module is not a dictionary"),
])
def test_an_engine_or_gpu_that_is_none(engine, gpu, option, words):
    found = decide(DOCUMENT, engine, gpu, None)["violations"]
    assert [item["option"] for item in found] == [option] and words in found[0]["message"]


def test_the_least_that_a_host_may_say():
    facts = {"architecture": "x86_64", "cores": [{"index": 0, "cpus": [0]}, {"index": 1, "cpus": [1]}], "cpus": {}, "memory": {"total_mib": 32000}}
    found = plan(facts)
    assert found["vllm"]["cpuset"] == "0" and found["host"]["numa_nodes"] == [0] and found["host"]["threads_per_core"] == 1
    several = dict(facts, cores=[{"index": 0, "cpus": [0], "numa_node": 0}, {"index": 1, "cpus": [1], "numa_node": 1}])
    assert plan(several)["vllm"]["cpuset_mems"] == "0"


def test_a_policy_that_is_none():
    assert decide(DOCUMENT, None, GPU, None)["plan"] == plan()
    found = decide(DOCUMENT, None, GPU, ["x"])["violations"]
    assert [item["rule"] for item in found] == ["policy-type"]


def test_null_is_the_default():
    assert plan(**{name: None for name in POLICY}) == plan()


# The file


def test_the_file_is_the_same_whatever_the_order():
    found = plan()
    written = render_plan(found)
    assert written == render_plan(json.loads(json.dumps(copy.deepcopy(found), sort_keys=True)))
    assert written.startswith('{\n  "host": {') and written.endswith("}\n") and '"cores": [0, 1, 2, 3, 4, 5, 6],' in written
    assert json.loads(written) == found


def test_the_file_keeps_texts_that_look_like_lists():
    strange = {"notes": [{"rule": "x", "text": "[\n 1,\n 2\n]"}], "cores": [], "nodes": [5]}
    assert json.loads(render_plan(strange)) == strange


# The names of the keys, as the caller knows them


def test_a_prefix_names_the_keys_as_the_caller_does_and_decides_nothing():
    bare, named = decide(DOCUMENT, None, GPU, {}), decide(DOCUMENT, None, GPU, {}, "plan_")
    assert "Set vllm_weights_mib to" in text(bare, "weights-unknown") and "Set plan_vllm_weights_mib to" in text(named, "weights-unknown")
    assert "Each service is held" in text(named, "fenced") and "plan_isolation: exclusive" in text(named, "fenced")
    assert dict(bare["plan"], notes=None) == dict(named["plan"], notes=None) and named["plan"]["notes"] == named["notes"]


def test_a_refusal_names_the_keys_with_their_prefix():
    result = decide(DOCUMENT, None, GPU, {"vllm_kv_cache_gib": 8, "vllm_kv_cache_fixed": True, "vlm_cores": "0-6"}, "plan_")
    unknown, kv = result["violations"]
    assert unknown["option"] == "plan_vlm_cores" and unknown["nearest"] == {"plan_vlm_cores": None, "plan_vllm_cores": "0-6"}
    assert kv["option"] == "plan_vllm_kv_cache_gib" and all(key.startswith("plan_vllm_") for key in kv["nearest"])
    shown = "\n".join(result["table"])
    assert "plan_vlm_cores" in shown and "plan_plan_" not in shown
    assert decide({}, None, None, {}, "plan_")["violations"][0]["option"] == "topology"
