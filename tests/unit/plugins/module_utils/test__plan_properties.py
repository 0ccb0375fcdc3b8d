# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds for every plan, on hosts and with policies drawn at random."""
from __future__ import annotations

import copy
import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.erni_ki.inference.plugins.module_utils import _sizing as sizing
from ansible_collections.erni_ki.inference.plugins.module_utils._cpulist import parse_cpulist
from ansible_collections.erni_ki.inference.plugins.module_utils._plan import decide, render_plan
from ansible_collections.erni_ki.inference.plugins.module_utils._policy import merge, read_policy
from ansible_collections.erni_ki.inference.tests.unit.plugins.plan_strategies import (
    HELPLESS, check_plan, gpu_questions, junk, models, questions, topologies,
)

often = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


def well_formed(result):
    json.dumps(result, allow_nan=True)
    assert set(result) == {"plan", "notes", "violations", "table"}
    assert (result["plan"] is None) == bool(result["violations"])
    assert result["table"] and all(len(line) <= 110 and line == line.rstrip() for line in result["table"])
    for violation in result["violations"]:
        assert set(violation) == {"rule", "option", "asked", "found", "nearest", "message"}
        assert violation["message"].endswith((".", "?")) and violation["found"] and isinstance(violation["nearest"], dict)
    if result["plan"]:
        assert result["notes"] == result["plan"]["notes"] and all(set(note) == {"rule", "text"} for note in result["notes"])


def accepted(facts, engine, gpu, policy, result, model=None):
    values, violations = read_policy(policy)
    assert not violations
    read = None
    if model and result["plan"]["vllm"]:
        check_model(model, values, result["plan"])
        read = read_mib(values, model)
        values["vllm_weights_mib"] = values["vllm_weights_mib"] or model["weights_mib"] or 0
    check_plan(facts, engine, gpu, values, result["plan"], read)


def read_mib(values, model):
    """What is read of the files of weights that were measured; None where nobody knows better than that it is as much as they take."""
    known = model and model["weights_mib"] and model["weights_bytes_read"] and not values["vllm_weights_mib"]
    return -(-model["weights_bytes_read"] >> 20) if known else None


def check_model(model, values, plan):
    """The weights are the user's, else those measured; vLLM starts with the context."""
    measured = bool(model["weights_mib"]) and not values["vllm_weights_mib"]
    assert measured == any(note["rule"] == "weights-measured" for note in plan["notes"])
    length = values["vllm_max_model_len"] or model["default_context_length"]
    assert not (model["context_length"] and values["vllm_max_model_len"] > model["context_length"])
    if model["kv_bytes_per_token"] and length:
        sliding = model["sliding_window"] or {"window": 0, "kv_bytes_per_token": 0}
        engine, part = plan["vllm"]["engine"], sliding["kv_bytes_per_token"]
        size = engine["block_size"]
        blocks, kept = -(-length // size), -(-min(length, sliding["window"] - 1 + engine["max_num_batched_tokens"]) // size) + 1
        needed = size * (blocks * (model["kv_bytes_per_token"] - part) + (kept * part if part else 0))
        assert needed <= plan["vllm"]["kv_cache_gib"] << 30


def check_helpless(facts, gpu, policy, violation, model=None):
    """Where the policy is said not to help, it does not."""
    if violation["nearest"] or violation["rule"] not in (
            "host-memory", "node-memory", "kv-fits-node", "cores-needed", "vram-fits", "spill-fits-limit"):
        return
    values = read_policy(policy)[0]
    if violation["rule"] in ("vram-fits", "spill-fits-limit"):
        # One model alone, without its cache, is more than the smallest GPU and all RAM that nobody is promised hold together.
        memory = min(item["memory"]["total_mib"] for item in gpu["gpus"] if item["memory"])
        others = (values["vllm_memory_limit_mib"] if "vllm" in values["services"] else 0) + values["system_reserve_mib"]
        cache = 1024 * (values["ollama_kv_bytes_per_token"] or 147456) >> 20
        assert values["ollama_model_mib"] + 1853 + 256 + cache > memory + facts["memory"]["total_mib"] - others
        return
    weights, read = values["vllm_weights_mib"] or (model or {}).get("weights_mib") or 0, read_mib(values, model)
    widths = [model["intermediate_size"], model["vocabulary_size"], 4 if model["dtype"] == "float32" else 2] if model else []
    vllm = 1024 + sizing.base_of(sizing.Load(
        values["vllm_shm_mib"], weights, weights if read is None else read, values["vllm_max_num_batched_tokens"], values["vllm_max_num_seqs"], *widths)).total
    if violation["rule"] == "host-memory":
        needed = (vllm if "vllm" in values["services"] else 0) + (256 if "ollama" in values["services"] else 0) + 128
        assert needed > facts["memory"]["total_mib"]
    elif violation["rule"] == "cores-needed":
        usable = set(parse_cpulist(facts["cpus"]["usable"]))
        assert sum(1 for core in facts["cores"] if usable & set(core["cpus"])) < (2 if "vllm" in values["services"] else 1)
    elif len({core["kind"] for core in facts["cores"]}) == 1 and values["reserved_cores"] == 1 and not isinstance(values["ollama_cpus"], list):
        # No node that has cores to give has the memory. The last core is reserved.
        usable = set(parse_cpulist(facts["cpus"]["usable"]))
        cores = [core for core in facts["cores"] if usable & set(core["cpus"])][:-1]
        memory = {node["node"]: node["memory_total_mib"] for node in facts["numa_nodes"]}
        assert all(memory[core["numa_node"]] is not None and memory[core["numa_node"]] < vllm for core in cores)


def check_question(question, model=None):
    """Assert the rules on the plan, or on what its refusal calls nearest."""
    facts, engine, gpu, policy = question
    before = copy.deepcopy((facts, engine, gpu, policy, model))
    result = decide(facts, engine, gpu, policy, model=model)
    well_formed(result)
    assert repr((facts, engine, gpu, policy, model)) == repr(before)
    if result["plan"]:
        accepted(facts, engine, gpu, policy, result, model)
        return
    # What a refusal calls nearest is accepted, but for what no policy can help.
    nearest = {}
    for violation in result["violations"]:
        # Everyone says the same of the same key, so that the order of merging is of no matter.
        assert all(nearest.get(name, value) == value for name, value in violation["nearest"].items())
        nearest.update(violation["nearest"])
        assert violation["nearest"] or violation["rule"] in HELPLESS, violation
        check_helpless(facts, gpu, policy, violation, model)
    mended = merge(policy, nearest)
    again = decide(facts, engine, gpu, mended, model=model)
    well_formed(again)
    helpless = {violation["rule"] for violation in result["violations"] if not violation["nearest"]}
    assert {violation["rule"] for violation in again["violations"]} <= helpless, (nearest, again["violations"])
    assert not any(violation["nearest"] for violation in again["violations"])
    if again["plan"]:
        accepted(facts, engine, gpu, mended, again, model)


@often
@given(questions())
def test_plans_keep_the_rules_and_refusals_know_better(question):
    check_question(question)


@often
@given(questions(), models())
def test_the_model_fits_and_refusals_know_better(question, model):
    check_question(question, model)


@often
@given(gpu_questions())
def test_the_gpu_is_one_that_works_and_refusals_know_better(question):
    check_question(question)


@often
@given(questions())
def test_the_same_question_has_the_same_answer(question):
    facts, engine, gpu, policy = question
    first, second = decide(facts, engine, gpu, policy), decide(*copy.deepcopy((facts, engine, gpu)), dict(reversed(list(policy.items()))))
    assert (first["plan"] is None) == (second["plan"] is None)
    if first["plan"]:
        text = render_plan(first["plan"])
        assert text == render_plan(second["plan"]) == render_plan(json.loads(text))
        assert json.loads(text) == first["plan"] and text.endswith("}\n")


@often
@given(topologies(), st.data())
def test_a_damaged_host_is_refused_in_words(facts, data):
    """Replace any one value, however deep, by nonsense."""
    place, key = facts, data.draw(st.sampled_from(sorted(facts)))
    while isinstance(place[key], (dict, list)) and place[key] and data.draw(st.booleans()):
        place = place[key]
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
    if isinstance(place, dict) and data.draw(st.booleans()):
        del place[key]
    else:
        place[key] = data.draw(junk)
    well_formed(decide(facts, None, None, {"ollama_require_gpu": False}))


@often
@given(junk, junk, junk, junk, junk)
def test_nonsense_is_refused_in_words(facts, engine, gpu, policy, model):
    result = decide(facts, engine, gpu, policy, model=model)
    well_formed(result)
    assert result["plan"] is None
