# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest
import yaml

from ansible_collections.erni_ki.inference.plugins.module_utils._plan import render_plan
from ansible_collections.erni_ki.inference.plugins.module_utils._policy import POLICY, describe
from ansible_collections.erni_ki.inference.plugins.modules import colocation_plan
from ansible_collections.erni_ki.inference.tests.unit.plugins.plan_strategies import GPU, split, topology

HOST = topology(split(8))
MODEL = {
    "path": "/srv/models/one", "dtype": "bfloat16", "weights_mib": 300, "kv_bytes_per_token": 32768, "context_length": 8192, "default_context_length": 8192}


@pytest.fixture(name="run")
def run_fixture(capfd, module_arguments):
    """Run the module with arguments; return its result."""
    def run(**arguments):
        with module_arguments(arguments), pytest.raises(SystemExit) as ended:
            colocation_plan.main()
        result = json.loads(capfd.readouterr().out)
        assert bool(ended.value.code) == bool(result.get("failed"))
        return result
    return run


@pytest.mark.parametrize("arguments, failed, rules", [
    ({"gpu": GPU}, False, []),
    ({"gpu": GPU, "engine": {"installed": False}, "policy": {"vllm_cores": "0-3"}}, False, []),
    ({"policy": {"ollama_require_gpu": False}}, False, []),
    ({"gpu": GPU, "model": MODEL}, False, []),
    ({"gpu": GPU, "model": MODEL, "policy": {"vllm_max_model_len": 9000}}, True, ["context-of-model"]),
    ({"gpu": GPU, "model": dict(MODEL, context_length=1 << 20, default_context_length=1 << 20)}, True, ["kv-holds-context"]),
    ({"gpu": GPU, "model": {"path": 1}}, True, ["facts"]),
    ({}, True, ["gpu-required"]),
    ({"gpu": GPU, "policy": {"vllm_kv_cache_gib": "4g", "vllm_nodes": 1, "vllm_cores": "0-9"}}, True,
     ["option-type", "unknown-option", "core-exists", "core-reserved"]),
    ({"gpu": GPU, "topology": {"cores": "none"}}, True, ["facts"]),
    ({"gpu": {"state": 1}}, True, ["facts"]),
])
def test_plans_and_refusals(run, arguments, failed, rules):
    arguments = dict({"topology": HOST}, **arguments)
    checked = run(_ansible_check_mode=True, **arguments)
    result = run(**arguments)
    checked.pop("invocation", None)
    result.pop("invocation", None)
    assert checked == result
    assert bool(result.get("failed")) == failed and not result.get("changed")
    assert [item["rule"] for item in result["violations"]] == rules
    assert (result["plan"] is None) == (result["plan_text"] is None) == failed
    if failed:
        assert result["msg"] == "\n".join(result["table"]) and result["msg"].startswith(f"No plan: {len(rules)} rule")
    else:
        assert result["plan_text"] == render_plan(result["plan"])
    # The same, without the failure.
    quiet = run(fail_on_violations=False, **arguments)
    assert not quiet.get("failed") and quiet["changed"] is False
    assert {key: quiet[key] for key in ("plan", "plan_text", "notes", "violations", "table")} == {
        key: result[key] for key in ("plan", "plan_text", "notes", "violations", "table")}


def test_arguments_that_ansible_refuses_itself(run):
    assert "topology" in run()["msg"]
    assert "gpu" in run(topology=HOST, gpu=["x"])["msg"]


def test_every_key_of_the_policy_is_described():
    described = yaml.safe_load(colocation_plan.DOCUMENTATION)["options"]["policy"]["description"]
    assert described[2:] == [describe(name) for name in POLICY]


def shape(contains, value, name):
    """Compare what is documented with what is returned, as deep as it is documented."""
    assert set(contains) == set(value), name
    for key, entry in contains.items():
        kinds = {"str": str, "int": int, "bool": bool, "dict": dict, "list": list, "raw": object}
        assert value[key] is None or isinstance(value[key], kinds[entry["type"]]), (name, key)
        if "contains" in entry:
            for item in value[key] if entry["type"] == "list" else [value[key]]:
                if item is not None:
                    shape(entry["contains"], item, f"{name}.{key}")
        elif entry["type"] == "dict" and isinstance(entry["description"], (list, str)) and name.startswith("result.plan"):
            text = " ".join(entry["description"]) if isinstance(entry["description"], list) else entry["description"]
            assert all(f"C({field})" in text for field in value[key] or ()), (name, key)


@pytest.mark.parametrize("arguments", [
    {"gpu": GPU}, {"gpu": GPU, "policy": {"isolation": "exclusive", "vllm_omp": "auto"}}, {"policy": {"services": "vllm"}}, {"policy": {"x": 1}}])
def test_results_are_as_documented(run, arguments):
    result = run(topology=HOST, fail_on_violations=False, **arguments)
    documented = yaml.safe_load(colocation_plan.RETURN)
    shape(documented, {key: value for key, value in result.items() if key not in ("changed", "invocation")}, "result")
