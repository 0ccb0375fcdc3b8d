# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils import _sizing as sizing

# What it takes is measured anew with each version of vLLM; the rules stay.
RUNTIME = sizing.RUNTIME_MIB
# vLLM with the smallest KV cache, and with one of 4 GiB.
LEAST, WHOLE = RUNTIME + 1024, RUNTIME + 4096
# What a KV cache of 4 GiB leaves in the limit, and one of 1 GiB.
ROOM, MOST = 6144 - WHOLE, 6144 - LEAST
ASK = sizing.Ask(
    total=32000, reserve=1024, limit=6144, reservation=2048, base=sizing.Base(RUNTIME, 0, 0, 0), kv_gib=4, kv_fixed=False, ollama_limit=4096,
    ollama_reservation=1024)


def size(weights=0, **changes):
    return sizing.size(ASK._replace(**{"base": ASK.base._replace(weights=weights), **changes}))


def fixes(refused):
    return {item.rule: item.fix for item in refused}


def test_the_document_fits_as_it_is():
    sizes, refused, notes = size()
    assert sizes == (6144, 2048, 4, ASK.base, 4096, 1024, 1024) and not refused and not notes


@pytest.mark.parametrize("shm, more", [(240, 0), (256, 0), (257, 1), (1024, 768)])
def test_shm_beyond_what_was_measured_counts(shm, more):
    assert sizing.runtime_mib(shm) == RUNTIME + more


LOAD = sizing.Load(shm=256, weights=1000, read=900, tokens=1024, sequences=64, inside=4864, words=151936)


@pytest.mark.parametrize("changes, expected", [
    # As large as the room that the page cache of vLLM's own files leaves, or smaller.
    ({}, (RUNTIME, 1000, 0, 900, 0)), ({"inside": None, "words": None, "sequences": 100000}, (RUNTIME, 1000, 0, 900, 0)),
    # Scores of 256 sequences: 148.4 MiB, 11 times; the layer: 19 MiB, a third of it.
    ({"sequences": 256}, (RUNTIME, 1000, 32 + 1639 - 570, 0, 0)),
    ({"tokens": 131072}, (RUNTIME, 1000, 32 + 1260 - 570, 900 - 722, 0)),
    # Twice as wide, and packed anew.
    ({"width": 4, "weights": 1001}, (RUNTIME, 1001, 0, 900, 651)),
    ({"width": 4, "tokens": 131072}, (RUNTIME, 1000, 32 + 2111 - 570, 0, 650)),
])
def test_what_a_load_takes(changes, expected):
    assert sizing.base_of(LOAD._replace(**changes)) == expected


def test_the_sum_names_what_is_there():
    text = sizing.sum_text(sizing.Base(1700, 1000, 0, 900, 0), 2)
    assert text == "runtime 1700 + weights 1000 + page cache 900 + KV cache 2048 = 5648 MiB"
    text = sizing.sum_text(sizing.Base(1700, 1000, 20, 880, 650), 2)
    assert text == "runtime 1700 + weights 1000 + packed copies 650 + activations 20 + page cache 880 + KV cache 2048 = 6298 MiB"


@pytest.mark.parametrize("changes, kv", [
    ({}, 4), ({"kv_gib": 5}, 4), ({"weights": ROOM}, 4), ({"weights": ROOM + 1}, 3), ({"weights": MOST}, 1), ({"limit": LEAST, "reservation": 1024}, 1),
    ({"kv_gib": 1}, 1), ({"base": sizing.Base(RUNTIME, 100, 1, ROOM - 101)}, 4), ({"base": sizing.Base(RUNTIME, 100, 1, ROOM - 100)}, 3),
])
def test_the_cache_is_lowered_to_what_fits(changes, kv):
    sizes, refused, notes = size(**changes)
    assert sizes.kv_gib == kv and not refused
    assert [rule for rule, _text in notes] == (["kv-lowered"] if kv < changes.get("kv_gib", 4) else [])


@pytest.mark.parametrize("changes, rule, fix", [
    ({"kv_gib": 5, "kv_fixed": True}, "kv-fits-limit", {"vllm_kv_cache_gib": 4}),
    ({"weights": ROOM + 1, "kv_fixed": True}, "kv-fits-limit", {"vllm_kv_cache_gib": 3}),
    # Not even 1 GiB fits.
    ({"limit": LEAST - 1, "reservation": 512}, "vllm-memory-limit", {"vllm_memory_limit_mib": LEAST}),
    ({"weights": MOST + 1}, "vllm-memory-limit", {"vllm_memory_limit_mib": 6145}),
    # A fixed cache is kept where the host has the memory.
    ({"limit": 2048, "kv_fixed": True}, "vllm-memory-limit", {"vllm_memory_limit_mib": WHOLE}),
    ({"limit": 2048, "kv_fixed": True, "total": WHOLE + 5119}, "vllm-memory-limit", {"vllm_memory_limit_mib": LEAST, "vllm_kv_cache_gib": 1}),
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
    assert fixes(refused) == {"vllm-memory-limit": {"vllm_memory_limit_mib": LEAST}}


@pytest.mark.parametrize("changes, fix", [
    # Ollama's spare memory goes first, down to 1 GiB.
    ({"total": 11263}, {"ollama_memory_limit_mib": 4095}),
    ({"total": 8192}, {"ollama_memory_limit_mib": 1024}),
    # Then vLLM's, whose cache is lowered.
    ({"total": 8191}, {"ollama_memory_limit_mib": 1024, "vllm_memory_limit_mib": 6143}),
    ({"total": LEAST + 2048}, {"ollama_memory_limit_mib": 1024, "vllm_memory_limit_mib": LEAST}),
    # Then Ollama's last, then the system's share.
    ({"total": LEAST + 2047}, {"ollama_memory_limit_mib": 256, "vllm_memory_limit_mib": LEAST + 767, "ollama_memory_reservation_mib": 256}),
    ({"total": LEAST + 1280}, {"ollama_memory_limit_mib": 256, "vllm_memory_limit_mib": LEAST, "ollama_memory_reservation_mib": 256}),
    ({"total": LEAST + 1279}, {
        "ollama_memory_limit_mib": 256, "vllm_memory_limit_mib": LEAST, "ollama_memory_reservation_mib": 256, "system_reserve_mib": 1023}),
    ({"total": LEAST + 384}, {
        "ollama_memory_limit_mib": 256, "vllm_memory_limit_mib": LEAST, "ollama_memory_reservation_mib": 256, "system_reserve_mib": 128}),
    # A fixed cache is kept as long as possible.
    ({"total": WHOLE + 1280, "kv_fixed": True}, {"ollama_memory_limit_mib": 256, "vllm_memory_limit_mib": WHOLE, "ollama_memory_reservation_mib": 256}),
    ({"total": WHOLE + 1279, "kv_fixed": True}, {
        "ollama_memory_limit_mib": 256, "vllm_memory_limit_mib": WHOLE - 1, "ollama_memory_reservation_mib": 256, "vllm_kv_cache_gib": 3}),
    ({"total": 4000, "reserve": 3000, "limit": None, "kv_fixed": True}, {"ollama_memory_limit_mib": 1000, "ollama_memory_reservation_mib": 1000}),
    ({"total": 4000, "ollama_limit": None}, {"vllm_memory_limit_mib": 2976}),
])
def test_shared_out_when_the_host_is_short(changes, fix):
    sizes, refused, _notes = size(**changes)
    assert fixes(refused) == {"memory-fits-host": fix}
    assert sizes.limit + sizes.ollama_limit + sizes.reserve <= changes["total"]


def test_too_little_for_anything():
    sizes, refused, _notes = size(total=LEAST + 383)
    assert fixes(refused) == {"host-memory": {}} and f"{LEAST + 383} MiB, and the least that works is {LEAST + 384} MiB" in refused[0].message
    assert sizes.limit == 6144
    assert "least that works is 384 MiB (Ollama 256 MiB, system 128 MiB)" in size(total=300, limit=None)[1][0].message


def test_a_limit_that_was_raised_too_far_is_not_said_to_have_been_asked_for():
    sizes, refused, _notes = size(total=6500, limit=1024, reservation=512)
    assert fixes(refused) == {"vllm-memory-limit": {"vllm_memory_limit_mib": LEAST, "ollama_memory_limit_mib": 5476 - LEAST}}
    assert sizes.limit + sizes.ollama_limit + sizes.reserve == 6500


def test_nobody_is_given_what_the_host_does_not_have():
    """Whatever is asked for, the sizes after the fixes fit, unless nothing does."""
    for total in range(600, 14000, 371):
        for limit in (None, 600, LEAST, 6144, 20000):
            for ollama_limit in (None, 256, 4096, 20000):
                for kv, fixed in ((1, False), (4, True), (9, True), (9, False)):
                    for weights in (0, 1500):
                        if limit is None and ollama_limit is None:
                            continue
                        sizes, refused, _notes = size(
                            total=total, limit=limit, ollama_limit=ollama_limit, kv_gib=kv, kv_fixed=fixed, weights=weights, reservation=600)
                        if "host-memory" in fixes(refused):
                            assert total < (LEAST + weights if limit else 0) + (256 if ollama_limit else 0) + 128
                            continue
                        assert sizes.limit + sizes.ollama_limit + sizes.reserve <= total
                        if limit:
                            assert sizes.base.total + 1024 * sizes.kv_gib <= sizes.limit and sizes.kv_gib >= 1
