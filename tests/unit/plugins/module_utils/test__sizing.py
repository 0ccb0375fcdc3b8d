# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils import _sizing as sizing

ASK = sizing.Ask(
    total=32000, reserve=1024, limit=6144, reservation=2048, shm=256, weights=0, kv_gib=4, kv_fixed=False, ollama_limit=4096, ollama_reservation=1024)


def size(**changes):
    return sizing.size(ASK._replace(**changes))


def fixes(refused):
    return {item.rule: item.fix for item in refused}


def test_the_document_fits_as_it_is():
    sizes, refused, notes = size()
    assert sizes == (6144, 2048, 4, 1638, 4096, 1024, 1024) and not refused and not notes


@pytest.mark.parametrize("shm, runtime", [(240, 1638), (256, 1638), (257, 1639), (1024, 2406)])
def test_shm_beyond_what_was_measured_counts(shm, runtime):
    assert sizing.runtime_mib(shm) == runtime


@pytest.mark.parametrize("changes, kv", [
    ({}, 4), ({"kv_gib": 5}, 4), ({"weights": 410}, 4), ({"weights": 411}, 3), ({"weights": 3482}, 1), ({"shm": 667}, 3), ({"limit": 2662}, 1),
    ({"kv_gib": 1}, 1),
])
def test_the_cache_is_lowered_to_what_fits(changes, kv):
    sizes, refused, notes = size(**changes)
    assert sizes.kv_gib == kv and not refused
    assert [rule for rule, _text in notes] == (["kv-lowered"] if kv < changes.get("kv_gib", 4) else [])


@pytest.mark.parametrize("changes, rule, fix", [
    ({"kv_gib": 5, "kv_fixed": True}, "kv-fits-limit", {"vllm_kv_cache_gib": 4}),
    ({"weights": 411, "kv_fixed": True}, "kv-fits-limit", {"vllm_kv_cache_gib": 3}),
    # Not even 1 GiB fits.
    ({"limit": 2661, "reservation": 512}, "vllm-memory-limit", {"vllm_memory_limit_mib": 2662}),
    ({"weights": 3483}, "vllm-memory-limit", {"vllm_memory_limit_mib": 6145}),
    # A fixed cache is kept where the host has the memory.
    ({"limit": 2048, "kv_fixed": True}, "vllm-memory-limit", {"vllm_memory_limit_mib": 5734}),
    ({"limit": 2048, "kv_fixed": True, "total": 10000}, "vllm-memory-limit", {"vllm_memory_limit_mib": 2662, "vllm_kv_cache_gib": 1}),
    ({"reservation": 6145}, "reservation-fits-limit", {"vllm_memory_reservation_mib": 6144}),
    ({"ollama_reservation": 4097}, "reservation-fits-limit", {"ollama_memory_reservation_mib": 4096}),
])
def test_refused_with_what_fits(changes, rule, fix):
    sizes, refused, _notes = size(**changes)
    assert fixes(refused) == {rule: fix}
    for name, field in (("vllm_memory_limit_mib", "limit"), ("vllm_kv_cache_gib", "kv_gib"), ("vllm_memory_reservation_mib", "reservation")):
        assert name not in fix or getattr(sizes, field) == fix[name]


def test_a_reservation_is_judged_by_the_limit_as_raised():
    _sizes, refused, _notes = size(limit=1024)
    assert fixes(refused) == {"vllm-memory-limit": {"vllm_memory_limit_mib": 2662}}


@pytest.mark.parametrize("changes, fix", [
    # Ollama's spare memory goes first, down to 1 GiB.
    ({"total": 11263}, {"ollama_memory_limit_mib": 4095}),
    ({"total": 8192}, {"ollama_memory_limit_mib": 1024}),
    # Then vLLM's, whose cache is lowered.
    ({"total": 8191}, {"ollama_memory_limit_mib": 1024, "vllm_memory_limit_mib": 6143}),
    ({"total": 4710}, {"ollama_memory_limit_mib": 1024, "vllm_memory_limit_mib": 2662}),
    # Then Ollama's last, then the system's share.
    ({"total": 4709}, {"ollama_memory_limit_mib": 256, "vllm_memory_limit_mib": 3429, "ollama_memory_reservation_mib": 256}),
    ({"total": 3942}, {"ollama_memory_limit_mib": 256, "vllm_memory_limit_mib": 2662, "ollama_memory_reservation_mib": 256}),
    ({"total": 3941}, {"ollama_memory_limit_mib": 256, "vllm_memory_limit_mib": 2662, "ollama_memory_reservation_mib": 256, "system_reserve_mib": 1023}),
    ({"total": 3046}, {"ollama_memory_limit_mib": 256, "vllm_memory_limit_mib": 2662, "ollama_memory_reservation_mib": 256, "system_reserve_mib": 128}),
    # A fixed cache is kept as long as possible.
    ({"total": 7014, "kv_fixed": True}, {"ollama_memory_limit_mib": 256, "vllm_memory_limit_mib": 5734, "ollama_memory_reservation_mib": 256}),
    ({"total": 6000, "kv_fixed": True}, {
        "ollama_memory_limit_mib": 256, "vllm_memory_limit_mib": 4720, "ollama_memory_reservation_mib": 256, "vllm_kv_cache_gib": 3}),
    ({"total": 4000, "reserve": 3000, "limit": None, "kv_fixed": True}, {"ollama_memory_limit_mib": 1000, "ollama_memory_reservation_mib": 1000}),
    ({"total": 4000, "ollama_limit": None}, {"vllm_memory_limit_mib": 2976}),
])
def test_shared_out_when_the_host_is_short(changes, fix):
    sizes, refused, _notes = size(**changes)
    assert fixes(refused) == {"memory-fits-host": fix}
    assert sizes.limit + sizes.ollama_limit + sizes.reserve <= changes["total"]


def test_too_little_for_anything():
    sizes, refused, _notes = size(total=3045)
    assert fixes(refused) == {"host-memory": {}} and "3045 MiB, and the least that works is 3046 MiB" in refused[0].message
    assert sizes.limit == 6144
    assert "least that works is 384 MiB (Ollama 256 MiB, system 128 MiB)" in size(total=300, limit=None)[1][0].message


def test_a_limit_that_was_raised_too_far_is_not_said_to_have_been_asked_for():
    sizes, refused, _notes = size(total=6500, limit=1024, reservation=512)
    assert fixes(refused) == {"vllm-memory-limit": {"vllm_memory_limit_mib": 2662, "ollama_memory_limit_mib": 2814}}
    assert sizes.limit + sizes.ollama_limit + sizes.reserve == 6500


def test_nobody_is_given_what_the_host_does_not_have():
    """Whatever is asked for, the sizes after the fixes fit, unless nothing does."""
    for total in range(600, 14000, 371):
        for limit in (None, 600, 2662, 6144, 20000):
            for ollama_limit in (None, 256, 4096, 20000):
                for kv, fixed in ((1, False), (4, True), (9, True), (9, False)):
                    for weights in (0, 1500):
                        if limit is None and ollama_limit is None:
                            continue
                        sizes, refused, _notes = size(
                            total=total, limit=limit, ollama_limit=ollama_limit, kv_gib=kv, kv_fixed=fixed, weights=weights, reservation=600)
                        if "host-memory" in fixes(refused):
                            assert total < (1638 + weights + 1024 if limit else 0) + (256 if ollama_limit else 0) + 128
                            continue
                        assert sizes.limit + sizes.ollama_limit + sizes.reserve <= total
                        if limit:
                            assert sizes.runtime + weights + 1024 * sizes.kv_gib <= sizes.limit and sizes.kv_gib >= 1
