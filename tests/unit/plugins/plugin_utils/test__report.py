# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a report says of a host, whatever could be read of it."""
from __future__ import annotations

import inspect
import json

import pytest
import yaml

from ansible_collections.erni_ki.inference.plugins.filter import report_document, report_fleet, report_pictures, report_query
from ansible_collections.erni_ki.inference.plugins.plugin_utils import _report, _report_fleet
from ansible_collections.erni_ki.inference.tests.unit.plugins import report_sample as sample

GOOD = _report.report(sample.raw())


def test_a_host_that_is_well():
    assert GOOD["ok"] and GOOD["proof_ok"] and GOOD["plan_problem"] == "" and len(GOOD["plan_hash"]) == 64
    assert GOOD["summary"] == "proof ok: 18 checks passed; diagnosis no finding; 18 checks of the proof passed"
    assert GOOD["when"] == "2026-09-21 14:13 UTC" and GOOD["since"] == "" and GOOD["changes"] == []
    assert GOOD["owners"]["7"] == ["ollama", "system"] and GOOD["owners"]["8"] == ["vllm"] and len(GOOD["cores"]) == 8
    assert [row["party"] for row in GOOD["parties"]] == ["vLLM", "Ollama", "system"]


def test_versions_and_settings():
    versions = GOOD["versions"]
    assert versions["Operating system"] == "Debian 12.5" and versions["vLLM"] == "0.32.0" and versions["Docker Engine"] == "26.1.5 (distribution)"
    assert versions["erni_ki.inference"] == _report.collection_version() != ""
    assert GOOD["settings"]["Ollama's model llama3.2:3b"] == "a80c4f17acd5"
    assert GOOD["settings"]["vLLM's address"] == "http://127.0.0.1:8000"
    # What answers in the place of a service that is not in the plan is not that service.
    alone = sample.raw(services=["ollama"], vllm_cores="")
    assert "vLLM" not in _report.report(alone)["versions"]


@pytest.mark.parametrize("change, ok", [
    ({}, True), ({"findings": [sample.finding("swap_in_use", "warning")]}, True), ({"findings": [sample.finding("oom_kill", "critical")]}, False),
    ({"failing": [("vllm", "memory_limit")]}, False)])
def test_what_fails_the_play(change, ok):
    assert _report.report(sample.raw(**change))["ok"] is ok


def test_the_live_figures():
    live = GOOD["live"]
    assert live["available"] and live["step_s"] == 480
    rows = {row["what"]: row for row in live["rows"]}
    assert rows["vLLM: memory"] == {"what": "vLLM: memory", "unit": "MiB", "last": 5000, "median": pytest.approx(4522, abs=2), "least": 4000, "most": 5000}
    assert rows["Ollama: others on its CPUs"]["median"] == 25 and rows["GPU: temperature"]["last"] == 61
    assert live["health"] == [
        {"service": "vllm", "running": 100, "generating": pytest.approx(90, abs=1)}, {"service": "ollama", "running": 100, "generating": 100}]
    assert live["words"] == ["vLLM was restarted once.", "The containers were not as the plan says in 11.0 % of the time."]
    assert live["models"] == [{"name": "llama3.2:3b", "size_mib": 2300, "vram_mib": 2300, "loaded": True, "hours": pytest.approx(23, abs=0.2)}]


def test_more_models_than_a_page_takes_are_counted():
    many = {"model_size": {f"model{number}": lambda at: 1 for number in range(23)}, "instances": sample.VALUES["instances"]}
    live = _report.report(sample.raw(prometheus=sample.answer(values=many)))["live"]
    assert len(live["models"]) == 20 and live["models_more"] == 3 and live["models"][0]["vram_mib"] == 0
    assert live["rows"] == live["health"] == live["words"] == []


def test_without_prometheus_everything_else_is_there():
    made = _report.report(sample.raw(prometheus=sample.REFUSED))
    assert not made["live"]["available"] and made["series"] == {} and made["live"]["rows"] == []
    assert made["live"]["why"] == "No Prometheus was given (report_prometheus_url), and none answers at http://127.0.0.1:9090 on the host."
    assert made["ok"] and len(made["checks"]) == 18 and made["parties"]


@pytest.mark.parametrize("plan", ["", "{", "[]", '{"schema_version": 2}', "\x00"])
def test_without_a_plan_it_says_what_makes_one(plan):
    failed = {"msg": "There is no plan in /etc/erni-ki/plan.json.", "changed": False}
    made = _report.report({**sample.raw(), "plan": plan, "proof": failed, "diagnosis": failed, "topology": {}, "engine": {}, "gpu": {}, "apis": []})
    assert not made["ok"] and made["plan"] is None and made["plan_problem"] == _report.NO_PLAN and made["plan_hash"] == ""
    assert made["proof_summary"] == "not made: There is no plan in /etc/erni-ki/plan.json"
    assert made["cores"] == made["checks"] == made["findings"] == made["parties"] == [] and made["owners"] == {}


def test_a_plan_made_by_hand():
    made = _report.report({**sample.raw(), "plan": json.dumps({"schema_version": 1, "vllm": {"cpuset": "0-x"}, "ollama": None})})
    assert made["parties"] == [] and set(map(tuple, made["owners"].values())) == {()}


def test_answers_of_another_form_are_no_versions():
    other = [
        {"__report_api": {"name": "ollama_tags"}, "json": {"models": "many"}}, {"__report_api": {"name": "vllm_version"}, "json": [1]},
        {"__report_api": {"name": "ollama_version"}}]
    made = _report.report({**sample.raw(), "apis": other})
    assert "vLLM" not in made["versions"] and "Ollama" not in made["versions"] and not any("model" in name for name in made["settings"])


def test_it_is_compared_with_the_last_one():
    before = {**GOOD, "when": "yesterday", "versions": {**GOOD["versions"], "Kernel": "5.10"}}
    made = _report.report(sample.raw(), json.dumps(before))
    assert made["since"] == "yesterday" and made["changes"] == [{"kind": "versions", "text": "Kernel was 5.10, is 6.1.0-18-amd64"}]


@pytest.mark.parametrize("text, said", [
    ("{", "it is no JSON"), ("[]", "no report of this version"), ('{"schema_version": 1}', "parts of it are missing"),
    ('{"schema_version": 1, "plan": 3, "plan_hash": ""}', "parts of it are missing")])
def test_a_last_report_that_is_broken_is_told(text, said):
    made = _report.report(sample.raw(), text)
    assert made["since_problem"].startswith("The last report cannot be compared: ") and said in made["since_problem"] and made["since"] == "" and made["ok"]


def test_the_fleet():
    ill = _report.report(sample.raw("node2", findings=[sample.finding("oom_kill", "critical")], card=False))
    ill["versions"]["Kernel"] = "5.10"
    made = _report_fleet.fleet({"node1": GOOD, "node2": ill, "node3": {}}, {"node1": "node1.html", "node2": "node2.html", "node3": "node3.html"})
    assert not made["ok"] and made["summary"] == "1 of 3 hosts are well, 1 could not be read." and made["when"] == GOOD["when"]
    assert [row["ok"] for row in made["hosts"]] == [True, False, False] and not made["hosts"][2]["read"]
    first = made["hosts"][0]
    assert first["checks"] == "18 of 18" and first["vllm"] == "CPUs 0-6,8-14, 6144 MiB" and first["ollama"] == "CPUs 7,15, Quadro P2200"
    assert first["tokens"] == "90.2" and first["counts"] == "none" and made["hosts"][1]["counts"] == "1 critical"
    assert {"what": "Kernel", "version": "5.10", "hosts": ["node2"]} in made["versions"] and {row["what"] for row in made["versions"]} == {"Kernel"}
    assert _report_fleet.fleet({"node1": GOOD}, {"node1": "x"})["ok"]


@pytest.mark.parametrize("plugin, name, arguments", [
    (report_document, "report_document", ["raw", "previous"]), (report_pictures, "report_pictures", ["report"]),
    (report_query, "report_query", ["labels", "hours", "time"]), (report_fleet, "report_fleet", ["reports", "pages"])])
def test_the_filters_are_as_documented(plugin, name, arguments):
    taken = plugin.FilterModule().filters()[name]
    assert list(inspect.signature(taken).parameters) == arguments
    assert list(yaml.safe_load(plugin.DOCUMENTATION)["options"]) == ["_input", *arguments[1:]]


@pytest.mark.parametrize("plugin, value", [
    (report_pictures, lambda: report_pictures.FilterModule().filters()["report_pictures"](GOOD)),
    (report_query, lambda: report_query.FilterModule().filters()["report_query"]({}, 1, 2)),
    (report_fleet, lambda: report_fleet.FilterModule().filters()["report_fleet"]({"a": GOOD}, {"a": "a.html"}))])
def test_the_filters_return_what_their_documentation_says(plugin, value):
    assert set(value()) == set(yaml.safe_load(plugin.RETURN)["_value"]["contains"])
