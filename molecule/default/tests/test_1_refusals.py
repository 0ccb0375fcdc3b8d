# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What cannot work is refused with words a person understands, and nothing on the host has changed.

First of the tests, because the engine of the rebooted machine starts meanwhile.
"""
from __future__ import annotations

import pytest

REFUSED = {
    "KV cache over the limit": (
        {"plan_vllm_kv_cache_gib": 8, "plan_vllm_kv_cache_fixed": True}, ["plan_vllm_kv_cache_gib", "8192", "6144 MiB"]),
    "limits over RAM": (
        {"plan_vllm_memory_limit_mib": 65536}, ["plan_vllm_memory_limit_mib", "65536", "11963 MiB"]),
    "a CPU that does not exist": (
        {"plan_vllm_cpus": "0-31"}, ["plan_vllm_cpus", "16-31", "0-15"]),
    "a split core": (
        {"plan_vllm_cpus": "0-6"}, ["plan_vllm_cpus", "core 3", "7"]),
    "memory given as text": (
        {"plan_vllm_memory_limit_mib": "six gigabytes"}, ["plan_vllm_memory_limit_mib", "six gigabytes", "int"]),
    "an unknown policy key": (
        {"plan_vlm_cores": "0-6"}, ["plan_vlm_cores", "plan_vllm_cores"]),
    "a bind outside the cpuset": (
        {"plan_vllm_omp_bind": "0,2,15"}, ["plan_vllm_omp_bind", "15", "0-13"]),
    "a bind past the plan": (
        {"vllm_environment": {"VLLM_CPU_OMP_THREADS_BIND": "0-15"}}, ["vllm_environment", "VLLM_CPU_OMP_THREADS_BIND", "0-13"]),
    "a model that is not there": (
        {"vllm_model": "/srv/models/none"}, ["/srv/models/none", "config.json"]),
}


@pytest.mark.parametrize("variables, words", REFUSED.values(), ids=REFUSED)
def test_refused_and_nothing_changed(play, fingerprint, variables, words):
    before = fingerprint()
    run = play("site", **variables)
    assert run.code != 0, run.text
    assert "Traceback" not in run.text
    missing = [word for word in words if word not in run.text]
    assert not missing, f"{missing} not in:\n{run.text}"
    assert run.text.rstrip().splitlines()[-1].startswith("verdict=failed"), run.text
    assert "changed=0" in run.text
    assert fingerprint() == before


def test_the_plan_alone_touches_nothing(play, fingerprint):
    before = fingerprint()
    run = play("plan")
    assert run.code == 0 and "0-13" in run.text and "14-15" in run.text, run.text
    assert fingerprint() == before
