# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import copy
import inspect

import pytest
import yaml

from ansible_collections.erni_ki.inference.plugins.filter import benchmark_layout as plugin
from ansible_collections.erni_ki.inference.plugins.module_utils._proof import load_plan
from ansible_collections.erni_ki.inference.tests.unit.plugins.recorded_host import PLAN

FULL = dict(PLAN, host={"usable_cpus": "0-15", "cores": 8})


@pytest.mark.parametrize("name", ["none", "pinned", "pinned-idle", "fenced", "exclusive-idle"])
def test_it_is_a_plan_and_changes_none(name):
    before = copy.deepcopy(FULL)
    found = plugin.FilterModule().filters()["benchmark_layout"](FULL, name)
    assert load_plan(found) and FULL == before
    held = name.startswith(("fenced", "exclusive"))
    assert (found == FULL) == held and bool(found["partition"]["slices"]) == held
    if not held:
        assert found["isolation"] == "fenced" and found["partition"]["fence"] is None


def test_pinned_and_none():
    take = plugin.FilterModule().filters()["benchmark_layout"]
    pinned, none = take(FULL, "pinned"), take(FULL, "none")
    assert pinned["vllm"] == FULL["vllm"] and pinned["ollama"] == FULL["ollama"]
    assert none["vllm"]["cpuset"] == none["ollama"]["cpuset"] == "0-15" and none["ollama"]["threads"] == 8
    assert none["vllm"]["omp"]["bind"] == "auto" and none["vllm"]["memory"] == FULL["vllm"]["memory"]


@pytest.mark.parametrize("service", ["vllm", "ollama"])
def test_one_engine(service):
    other = {"vllm": "ollama", "ollama": "vllm"}[service]
    found = plugin.FilterModule().filters()["benchmark_layout"](dict(FULL, **{other: None}), "none")
    assert found[other] is None and found[service]["cpuset"] == "0-15"


def test_the_filter_takes_what_its_documentation_says():
    taken = plugin.FilterModule().filters()["benchmark_layout"]
    assert list(inspect.signature(taken).parameters)[1:] == list(yaml.safe_load(plugin.DOCUMENTATION)["options"])[1:]
