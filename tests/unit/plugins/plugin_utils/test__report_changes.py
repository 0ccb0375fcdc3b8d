# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What changed between two reports, in words."""
from __future__ import annotations

import copy

import pytest

from ansible_collections.erni_ki.inference.plugins.plugin_utils import _report, _report_changes
from ansible_collections.erni_ki.inference.tests.unit.plugins import report_sample as sample

BEFORE = _report.report(sample.raw(findings=[sample.finding("swap_in_use", "info", "system")]))


def told(after, before=None):
    return [(one["kind"], one["text"]) for one in _report_changes.changes(before or BEFORE, after)]


def test_nothing():
    assert told(copy.deepcopy(BEFORE)) == []
    assert told({**BEFORE, "plan_hash": "0"}) == [("plan", "The plan's file was written anew, and says the same.")]


@pytest.mark.parametrize("policy, words", [
    ({"vllm_memory_limit_mib": 8192}, ["vLLM: memory limit was 6144, is 8192 MiB", "vLLM: memory swap limit was 6144, is 8192 MiB"]),
    ({"vllm_kv_cache_gib": 3}, ["vLLM: kv cache was 4, is 3 GiB"]),
    ({"isolation": "fenced"}, ["isolation was exclusive, is fenced"]),
    ({"vllm_cores": "0-5"}, ["vLLM: cpuset was 0-6,8-14, is 0-5,8-13", "vLLM: cores was 0, 1, 2, 3, 4, 5, 6, is 0, 1, 2, 3, 4, 5"]),
    ({"card": False}, ["Ollama: device kind was gpu, is none", "Ollama: device name was Quadro P2200, is none"]),
    ({"services": ["ollama"], "vllm_cores": ""}, ["vLLM is no longer in the plan."])])
def test_the_plan(policy, words):
    found = told(_report.report(sample.raw(findings=BEFORE["findings"], **policy)))
    assert {("plan", word) for word in words} <= set(found)
    assert not any("budget" in text or "partition" in text for _kind, text in found)


def test_a_service_comes_back_and_a_plan_comes_and_goes():
    alone = _report.report(sample.raw(services=["ollama"], vllm_cores="", findings=BEFORE["findings"]))
    assert ("plan", "vLLM is new in the plan.") in told(BEFORE, alone)
    assert told({**BEFORE, "plan": None, "plan_hash": ""}) == [("plan", "The host has no plan that can be read any more.")]
    assert told(BEFORE, {**BEFORE, "plan": None, "plan_hash": ""}) == [("plan", "The host has a plan now.")]


def test_versions_and_settings():
    after = {**BEFORE, "versions": {**BEFORE["versions"], "Kernel": "7.0", "New": "1"}, "settings": {"vLLM's address": "http://127.0.0.1:8000"}}
    del after["versions"]["NVIDIA driver"]
    assert told(after) == [
        ("versions", "Kernel was 6.1.0-18-amd64, is 7.0"), ("versions", "NVIDIA driver: 580.95.05 (gone)"), ("versions", "New: 1 (new)"),
        ("settings", "Ollama's address: http://127.0.0.1:11434 (gone)"), ("settings", "Ollama's model llama3.2:3b: a80c4f17acd5 (gone)")]


def test_findings_and_proof():
    after = _report.report(sample.raw(failing=[("vllm", "memory_limit")], findings=[
        sample.finding("swap_in_use", "warning", "system"), sample.finding("oom_kill", "critical")]))
    after["checks"] = [*after["checks"], sample.check("system", "new_and_bad", False), sample.check("system", "new_and_good")]
    assert told(after) == [
        ("findings", "system: swap_in_use was info, is warning"), ("findings", "vLLM: oom_kill is new (critical)"),
        ("proof", "vLLM: memory_limit holds no longer"), ("proof", "system: new_and_bad is checked now, and does not hold")]
    assert told(BEFORE, after) == [
        ("findings", "system: swap_in_use was warning, is info"), ("findings", "vLLM: oom_kill is gone (critical)"),
        ("proof", "vLLM: memory_limit holds again")]


@pytest.mark.parametrize("value, words", [
    (None, "none"), ("", "none"), ([], "none"), (True, "yes"), (False, "no"), ([1, 2], "1, 2"), ({}, "{}"), (0, "0")])
def test_values(value, words):
    assert _report_changes._told(value) == words
