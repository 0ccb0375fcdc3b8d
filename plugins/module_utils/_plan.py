# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides who gets which cores, how much memory and which device. Pure: the same facts and policy give the same plan.

The rules are in C(_plan_rules). What they say would mend a refusal is tried here, all of it together, so what is called
nearest is known to work.
"""
from __future__ import annotations

import json
import re

from ansible_collections.erni_ki.inference.plugins.module_utils._cpulist import format_cpulist
from ansible_collections.erni_ki.inference.plugins.module_utils._plan_facts import BadFacts, read_engine, read_gpu, read_host, read_model
from ansible_collections.erni_ki.inference.plugins.module_utils._plan_gpu import plan_device
from ansible_collections.erni_ki.inference.plugins.module_utils._plan_rules import FENCED_UNITS, Attempt, cpus_of
from ansible_collections.erni_ki.inference.plugins.module_utils._plan_table import table
from ansible_collections.erni_ki.inference.plugins.module_utils._policy import POLICY, merge, read_policy, refusal
from ansible_collections.erni_ki.inference.plugins.module_utils._sizing import MIB_PER_GIB

# The schema of the policy belongs to what others may take from here.
__all__ = ("POLICY", "SCHEMA_VERSION", "decide", "render_plan")

SCHEMA_VERSION = 1

# Each round mends what the round before brought to light; the chains of rules are shorter than this.
_ROUNDS = 8


def decide(topology, engine=None, gpu=None, policy=None, prefix="", model=None):
    """Return C(plan) (None when refused), C(notes), C(violations) and C(table), whatever the arguments hold.

    C(prefix) is what the caller's own names have before those of the policy's keys; whatever names one has it too.
    """
    named = _Names(policy, prefix)
    facts, bad = _read_facts(topology, engine, gpu, model)
    if bad:
        _values, violations = read_policy(policy)
        return _result(None, [], [named.violation(one) for one in bad + violations])
    attempt = Attempt(facts, policy).run()
    if not attempt.violations:
        attempt.notes[:] = [dict(note, text=named.text(note["text"])) for note in attempt.notes]
        return _result(_assemble(attempt), attempt.notes, [])
    _settle(facts, policy, attempt.violations)
    return _result(None, [], [named.violation(one) for one in attempt.violations])


class _Names:
    """The policy's keys as the caller calls them."""

    def __init__(self, policy, prefix):
        self._prefix = prefix
        self._keys = {str(key) for key in policy} | set(POLICY) if isinstance(policy, dict) else set(POLICY)
        # A word such as "services" is a key only where a value follows.
        words = (re.escape(key) + ("" if "_" in key else "(?=[:=])") for key in sorted(self._keys, key=len, reverse=True))
        self._pattern = re.compile(r"(?<![\w-])(?:" + "|".join(words) + r")(?![\w-])")

    def text(self, text):
        return self._pattern.sub(lambda match: self._prefix + match.group(), text) if self._prefix else text

    def key(self, key):
        return self._prefix + key if key in self._keys else key

    def violation(self, violation):
        return dict(
            violation, option=self.key(violation["option"]), found=self.text(violation["found"]), message=self.text(violation["message"]),
            nearest={self.key(key): value for key, value in violation["nearest"].items()})


def render_plan(plan):
    """Return the text of the plan file: the same bytes for the same plan, however its keys are ordered."""
    text = json.dumps(plan, indent=2, sort_keys=True, ensure_ascii=True)
    # Lists of numbers on one line. A newline behind the bracket cannot be inside a text: there it is written as \\n.
    return re.sub(r"\[\n\s*(\d+(?:,\n\s*\d+)*)\n\s*\]", lambda match: "[" + re.sub(r"\s+", " ", match.group(1)) + "]", text) + "\n"


def _result(plan, notes, violations):
    return {"plan": plan, "notes": notes, "violations": violations, "table": table(plan, violations)}


def _read_facts(topology, engine, gpu, model):
    facts, bad = [], []
    readers = (
        ("topology", topology, read_host, "what cpu_topology_info returns as cpu_topology"),
        ("engine", engine, read_engine, "what container_engine_info returns as container_engine"),
        ("gpu", gpu, read_gpu, "what gpu_info returns as gpu"),
        ("model", model, read_model, "what model_size_info returns as model_size"))
    for name, value, reader, wanted in readers:
        try:
            facts.append(reader(value))
        except BadFacts as exc:
            shown = exc.problems[:5] + ([f"and {len(exc.problems) - 5} more"] if len(exc.problems) > 5 else [])
            text = "; ".join(shown)
            bad.append(refusal("facts", name, None, exc.problems[0], f"The option {name} cannot be used: {text}. Give it {wanted}."))
    return facts, bad


def _settle(facts, policy, violations):
    """Try the overrides of all violations together, and complete them until only what no policy can help is left."""
    policy = policy if isinstance(policy, dict) else {}
    overrides = {}
    for violation in violations:
        overrides.update(violation["nearest"])
    mendable = [violation for violation in violations if violation["nearest"]]
    for _round in range(_ROUNDS if mendable else 0):
        left = [violation for violation in Attempt(facts, merge(policy, overrides)).run().violations if violation["nearest"]]
        if not left:
            break
        for violation in left:
            overrides.update(violation["nearest"])
    # One value for each key, whoever asked for it last; what came to light later goes with the first.
    owned = {name for violation in mendable for name in violation["nearest"]}
    for violation in mendable:
        violation["nearest"] = {name: overrides[name] for name in violation["nearest"]}
    for name in overrides:
        if name not in owned:
            mendable[0]["nearest"][name] = overrides[name]


def _assemble(attempt):
    """Return the plan of an attempt without violations."""
    host, values, sizes = attempt.host, attempt.values, attempt.sizes
    vllm = _plan_vllm(attempt) if attempt.has_vllm else None
    ollama = _plan_ollama(attempt) if attempt.has_ollama else None
    system = format_cpulist(cpus_of(attempt.system))
    in_slices = [part for part in (vllm, ollama) if part and attempt.keeps_slices()]
    return {
        "schema_version": SCHEMA_VERSION,
        "host": {
            "architecture": host.architecture, "model_name": host.model_name, "cores": len(host.all_cores), "logical_cpus": host.logical_cpus,
            "threads_per_core": host.threads_per_core, "numa_nodes": sorted(host.nodes), "memory_total_mib": host.total_mib,
            "usable_cpus": format_cpulist(host.usable)},
        "isolation": values["isolation"],
        "system": {
            "cores": [core.index for core in attempt.system], "cpuset": system,
            "memory_reserve_mib": values["system_reserve_mib"], "memory_left_mib": host.total_mib - sizes.limit - sizes.ollama_limit},
        "vllm": vllm,
        "ollama": ollama,
        "partition": {
            "mode": values["isolation"],
            "slices": [
                {"unit": part["slice"], "cpus": part["cpuset"], "mems": part["cpuset_mems"], "memory_low_mib": part["memory"]["reservation_mib"]}
                for part in in_slices],
            "fence": {"cpus": system, "units": list(FENCED_UNITS)} if values["isolation"] == "exclusive" else None},
        "notes": attempt.notes,
    }


def _plan_vllm(attempt):
    values, sizes, omp = attempt.values, attempt.sizes, attempt.omp
    kv = sizes.kv_gib * MIB_PER_GIB
    return {
        "container": "vllm",
        "slice": "erniki-vllm.slice",
        "cores": [core.index for core in attempt.vllm],
        "cpuset": format_cpulist(attempt.cpuset),
        "cpuset_mems": format_cpulist(attempt.mems),
        "numa_nodes": sorted({core.node for core in attempt.vllm}),
        "smt": values["vllm_smt"],
        "omp": omp,
        "memory": {"limit_mib": sizes.limit, "swap_limit_mib": sizes.limit, "reservation_mib": sizes.reservation, "shm_mib": values["vllm_shm_mib"]},
        "kv_cache_gib": sizes.kv_gib,
        "engine": {
            "version": values["vllm_engine_version"], "max_num_batched_tokens": values["vllm_max_num_batched_tokens"],
            "max_num_seqs": values["vllm_max_num_seqs"], "block_size": values["vllm_block_size"], "max_model_len": values["vllm_max_model_len"]},
        "budget": {
            "runtime_mib": sizes.base.runtime, "weights_mib": sizes.base.weights, "packed_mib": sizes.base.packed, "kv_cache_mib": kv,
            "activations_mib": sizes.base.activations, "page_cache_mib": sizes.base.page_cache, "left_mib": sizes.limit - sizes.base.total - kv},
        "device": {"kind": "none", "runtime": "runc"},
    }


def _plan_ollama(attempt):
    sizes, policy = attempt.sizes, attempt.values["ollama_cpus"]
    return {
        "container": "ollama",
        "slice": "erniki-ollama.slice",
        "policy": policy if isinstance(policy, str) else format_cpulist(policy),
        "cores": [core.index for core in attempt.ollama],
        "cpuset": format_cpulist(cpus_of(attempt.ollama)),
        "cpuset_mems": format_cpulist(attempt.mems_of_ollama()),
        # One per core, and none for vLLM's: there they would only be in its way.
        "threads": max(1, len(attempt.ollama) - (len(attempt.vllm) if policy == "any" else 0)),
        "memory": {"limit_mib": sizes.ollama_limit, "swap_limit_mib": sizes.ollama_limit, "reservation_mib": sizes.ollama_reservation},
        "device": plan_device(attempt.device),
    }
