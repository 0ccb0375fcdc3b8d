# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.erni_ki.inference.plugins.module_utils import _vram

P2200 = _vram.Ask(
    total=5120, reserved=61, version=(0, 32, 15), weights=1926, kv_bytes=114688, context=0, parallel=1, kv_type="f16", models=1)
ALL = list(_vram.KV_TYPES)


def test_what_was_measured_fits():
    """llama3.2:3b with 4 slots of 4096 tokens peaked at 4483 MiB on a P2200; before 0.30 nothing was kept free."""
    measured = P2200._replace(version=(0, 11, 0), parallel=4, context=4096)
    vram = _vram.budget(measured)
    reckoned = vram.reserve - measured.reserved + vram.weights + vram.kv
    assert reckoned == 768 + 1926 + 1792 and 4483 <= reckoned < 4493 and vram.left >= 0


def test_the_default_on_5_gib():
    assert _vram.budget(P2200) == _vram.Vram(
        total=5120, reserve=61 + 768 + 1024, weights=1926, kv=448, left=893, context=4096, parallel=1, kv_type="f16", models=1)
    assert _vram.sum_text(P2200, _vram.budget(P2200)) == (
        "overhead 1853 + weights 1926 + KV cache 448 (4096 tokens at 114688 bytes, f16) = 4227 MiB")


def test_models_and_slots_in_words():
    ask = P2200._replace(models=2, parallel=3, weights=0, kv_bytes=0, kv_type="q8_0")
    assert _vram.sum_text(ask, _vram.budget(ask)).startswith("2 models: overhead 2621 + weights unknown + KV cache ")
    assert " (3 x 1280 tokens at 147456 bytes, q8_0) = " in _vram.sum_text(ask, _vram.budget(ask))


@pytest.mark.parametrize("version, models, overhead", [((0, 29, 9), 1, 768), ((0, 30, 0), 1, 1792), ((0, 30, 0), 2, 2560)])
def test_overhead(version, models, overhead):
    assert _vram.overhead(version, models) == overhead


@pytest.mark.parametrize("context, parallel, kv_bytes, kv_type, mib", [
    (4096, 1, 114688, "f16", 448), (4096, 1, 114688, "q8_0", 238), (4096, 1, 114688, "q4_0", 126), (4096, 4, 114688, "f16", 1792), (4096, 1, 0, "f16", 576),
    (1, 1, 1, "q4_0", 1)])
def test_the_cache(context, parallel, kv_bytes, kv_type, mib):
    assert _vram.kv_mib(context, parallel, kv_bytes, kv_type) == mib


@pytest.mark.parametrize("changes, context", [
    ({}, 4096), ({"total": 100000}, 4096), ({"weights": 2819}, 4096), ({"weights": 2820}, 3840), ({"weights": 3100}, 1280), ({"weights": 3200}, 1024),
    ({"weights": 9000}, 1024), ({"context": 77}, 77),
    # An unknown model is left most of the room.
    ({"weights": 0}, 4096), ({"weights": 0, "parallel": 4}, 1792), ({"weights": 0, "total": 2400}, 1024), ({"weights": 1300, "models": 2}, 1024)])
def test_the_context_that_is_decided(changes, context):
    assert _vram.decided(P2200._replace(**changes)) == context


def test_what_spills_anyway_keeps_the_usual_context():
    assert _vram.decided(P2200._replace(weights=4466), True) == 4096 and _vram.decided(P2200._replace(weights=3100), True) == 1280


@pytest.mark.parametrize("changes, better", [
    ({"context": 8192, "parallel": 2}, {"parallel": 1}),
    ({"context": 16384}, {"kv_type": "q8_0"}),
    ({"context": 16384, "parallel": 2}, {"parallel": 1, "kv_type": "q8_0"}),
    ({"context": 32768}, {"kv_type": "q4_0"}),
    ({"context": 16384, "parallel": 2, "types": ["f16"]}, {"parallel": 1, "context": 12032}),
    ({"context": 131072}, {"context": 12032}),
    ({"weights": 3050, "context": 8192}, {"context": 3584, "kv_type": "q8_0"}),
    ({"weights": 3150, "context": 8192}, {"context": 3584, "kv_type": "q4_0"}),
    ({"weights": 1926, "models": 2, "context": 1024}, {"models": 1}),
    ({"weights": 3240}, None), ({"weights": 3215}, {"kv_type": "q4_0"}), ({"weights": 3206}, {"kv_type": "q8_0"}), ({"weights": 9000}, None)])
def test_nearest(changes, better):
    changes = dict(changes)
    types = changes.pop("types", ALL)
    ask = P2200._replace(**changes)
    assert _vram.budget(ask).left < 0
    found = _vram.nearest(ask, types)
    assert found == (None if better is None else ask._replace(**better))


@given(
    st.builds(
        _vram.Ask, total=st.integers(0, 40000), reserved=st.integers(0, 100), version=st.sampled_from([(0, 24, 0), (0, 32, 15)]),
        weights=st.sampled_from([0, 1926, 4466, 9000]), kv_bytes=st.sampled_from([0, 1, 114688, 393216]), context=st.sampled_from([0, 1, 512, 4096, 10**6]),
        parallel=st.integers(1, 9), kv_type=st.sampled_from(ALL), models=st.integers(1, 3)))
def test_nearest_fits_and_asks_for_no_more(ask):
    before, better = _vram.budget(ask), _vram.nearest(ask, ALL)
    assert before.total - before.reserve - before.weights - before.kv == before.left
    if before.left >= 0:
        assert better == ask
    if better is None:
        # Not even one model with one slot, the smallest cache and the least context.
        least = ask._replace(models=1, parallel=1, kv_type="q4_0", context=min(ask.context or 1024, 1024))
        assert _vram.budget(least).left < 0
        return
    assert _vram.budget(better).left >= 0
    assert better.models <= ask.models and better.parallel <= ask.parallel and ALL.index(better.kv_type) >= ALL.index(ask.kv_type)
    assert better.context <= ask.context and (better.total, better.weights, better.kv_bytes) == (ask.total, ask.weights, ask.kv_bytes)
