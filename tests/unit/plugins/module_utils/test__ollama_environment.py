# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils import _ollama_environment
from ansible_collections.erni_ki.inference.plugins.module_utils._ollama_environment import IDLE, OWNED, VARIABLES, image_version, problems

VERSION = "0.32.15"


def one(name, value="1", version=VERSION, decided=()):
    found = problems({name: value}, f"ollama/ollama:{version}", decided=decided)
    assert len(found) <= 1
    return found[0] if found else None


@pytest.mark.parametrize("name, value", [
    ("OLLAMA_DEBUG", "2"), ("OLLAMA_MAX_QUEUE", 64), ("OLLAMA_MAX_QUEUE", "64"), ("OLLAMA_SCHED_SPREAD", False), ("OLLAMA_SCHED_SPREAD", "T"),
    ("OLLAMA_LOAD_TIMEOUT", "10m"), ("OLLAMA_LOAD_TIMEOUT", "1h30m"), ("OLLAMA_LOAD_TIMEOUT", -1), ("OLLAMA_LOAD_TIMEOUT", "1.5h"),
    ("OLLAMA_ORIGINS", "http://a,http://b"), ("OLLAMA_NO_CLOUD", " '1' "), ("OLLAMA_NOPRUNE", ""), ("HTTPS_PROXY", "http://proxy:3128"),
    ("LLAMA_ARG_FIT_TARGET", "512"), ("OLLAMA_FLASH_ATTENTION", "0"),
])
def test_what_is_read_and_can_be_read_is_fine(name, value):
    assert one(name, value) is None


@pytest.mark.parametrize("name", sorted(OWNED))
def test_what_the_plan_decides_is_refused_with_its_variable(name):
    found = one(name, decided=[name])
    assert name in found and OWNED[name] in found


def test_flash_attention_is_free_where_the_plan_does_not_need_it():
    assert one("OLLAMA_FLASH_ATTENTION", "1") is None
    assert "plan_ollama_kv_cache_type" in one("OLLAMA_FLASH_ATTENTION", "1", decided=["OLLAMA_FLASH_ATTENTION"])


def test_what_the_role_sets_cannot_be_set_twice():
    assert "leave it out" in one("OLLAMA_NO_CLOUD", decided=["OLLAMA_NO_CLOUD"])


@pytest.mark.parametrize("name", sorted(IDLE))
def test_what_looks_right_and_does_nothing_is_refused_with_the_right_one(name):
    assert name not in VARIABLES
    found = one(name)
    assert f"sets {name}, which does not exist" in found and IDLE[name] in found


def test_the_settings_named_in_every_second_guide():
    assert {"OLLAMA_NUM_CTX", "OLLAMA_MAX_VRAM", "OLLAMA_GPU_LAYERS", "OLLAMA_NUM_THREAD"} <= set(IDLE)


def test_the_overhead_is_refused_since_it_does_nothing():
    found = one("OLLAMA_GPU_OVERHEAD", 1 << 30)
    assert "0.30.0" in found and "plan_ollama_context_length" in found
    assert one("OLLAMA_GPU_OVERHEAD", 1 << 30, "0.24.0") is None


def test_models_outside_of_the_volume():
    assert "/root/.ollama" in one("OLLAMA_MODELS", "/models")


@pytest.mark.parametrize("name, version, words", [
    ("OLLAMA_NO_CLOUD", "0.16.1", ["0.16.1 does not read", "0.16.2 and later"]),
    ("OLLAMA_NEW_ENGINE", "0.24.0", None),
    ("OLLAMA_NEW_ENGINE", "0.30.0", ["0.30.0 does not read any more", "0.24.0 was the last"]),
    ("OLLAMA_NEW_ENGINE", "0.5.11", ["0.5.11 does not read", "0.5.12"]),
    ("OLLAMA_VULKAN", "v0.12.11", None),
])
def test_each_version_reads_its_own(name, version, words):
    found = one(name, version=version)
    assert found is None if words is None else all(word in found for word in words)


@pytest.mark.parametrize("version", [None, "", "nightly", 32])
def test_an_unknown_version_counts_as_the_newest(version):
    assert one("OLLAMA_GO_TEMPLATE", version=version) is None
    assert "0.32.15" in one("OLLAMA_NEW_ENGINE", version=version)


def test_without_a_tag_the_plan_knows_the_version():
    assert "0.16.1" in problems({"OLLAMA_NO_CLOUD": 1}, "mine/ollama:stable", "0.16.1")[0]
    assert problems({}, "mine/ollama:stable", "0.16.1") == []


def test_an_image_of_another_version_than_the_plan_was_made_for():
    assert problems({}, "ollama/ollama:v0.32.15-rocm", "0.32.15") == []
    found = problems({}, "ollama/ollama:0.24.0", "0.32.15")
    assert len(found) == 1 and "plan_ollama_engine_version to 0.24.0" in found[0] and "0.32.15" in found[0]


def test_a_misspelt_name_is_told_its_neighbour():
    assert "Did you mean OLLAMA_SCHED_SPREAD?" in one("OLLAMA_SHED_SPREAD")
    assert "Leave it out" in one("OLLAMA_XYZ")
    # Never one that this version does not read.
    assert "OLLAMA_NEW_ENGINE" not in one("OLLAMA_NEW_ENGIN")


@pytest.mark.parametrize("name, value, words", [
    ("OLLAMA_SCHED_SPREAD", "off", ['"off"', "0 or 1", "for true"]),
    ("OLLAMA_NOPRUNE", "no", ['"no"']),
    ("OLLAMA_MAX_QUEUE", "many", ["whole number", "default"]),
    ("OLLAMA_MAX_QUEUE", -1, ["whole number"]),
    ("OLLAMA_MAX_QUEUE", True, ["whole number"]),
    ("OLLAMA_LOAD_TIMEOUT", "5 minutes", ["5m"]),
    ("OLLAMA_LOAD_TIMEOUT", "m", ["5m"]),
    ("OLLAMA_DEBUG", None, ["to nothing"]),
    ("OLLAMA_ORIGINS", ["http://a"], ["text or a number"]),
    ("OLLAMA_MAX_QUEUE", "9" * 80, ["..."]),
])
def test_values_that_ollama_would_misread(name, value, words):
    found = one(name, value)
    assert found and all(word in found for word in words), found


def test_all_at_once_and_in_order():
    found = problems({"OLLAMA_NUM_CTX": 1, "OLLAMA_DEBUG": 1, "OLLAMA_HOST": "x"})
    assert len(found) == 2 and "OLLAMA_NUM_CTX" in found[0] and "OLLAMA_HOST" in found[1]


@pytest.mark.parametrize("environment", [None, [], "OLLAMA_DEBUG=1"])
def test_something_else_than_a_dictionary(environment):
    assert "dictionary" in problems(environment)[0]


@pytest.mark.parametrize("image, version", [
    ("ollama/ollama:0.32.15", "0.32.15"), ("erni-ki/ollama-standin:0.32.15", "0.32.15"), ("registry:5000/ollama/ollama:v0.30.1-rocm", "0.30.1"),
    ("ollama/ollama:0.32.15@sha256:" + "0" * 64, "0.32.15"), ("registry:5000/ollama/ollama", None), ("ollama/ollama@sha256:" + "0" * 64, None),
    ("ollama/ollama:rocm", None), ("", None),
])
def test_the_version_in_an_images_tag(image, version):
    assert image_version(image) == version


def test_the_table_is_sound():
    for name, variable in VARIABLES.items():
        assert name.startswith("OLLAMA_") and variable.kind in ("bool", "number", "duration", "text"), name
        assert variable.until is None or variable.since <= variable.until < _ollama_environment.NEWEST, name
        assert variable.since <= _ollama_environment.NEWEST, name
