# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import statistics

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils import _benchmark_stats as stats

hypothesis = pytest.importorskip("hypothesis")
st = pytest.importorskip("hypothesis.strategies")

numbers = st.lists(st.floats(0, 1e6), min_size=1, max_size=50)
# The steps between the pieces of one answer, in seconds, and the tokens in each.
answers = st.lists(st.tuples(st.floats(0.001, 10), st.integers(1, 5)), min_size=2, max_size=30)


def request(steps, begun=100.0, tokens=None):
    at, pieces = begun, []
    for step, number in steps:
        at += step
        pieces.append((at, number))
    return stats.Request(begun, pieces, tokens)


def test_one_answer():
    one = request([(0.5, 1), (0.1, 1), (0.2, 2), (0.1, 1)])
    assert one.tokens == 5 and one.first_token() == pytest.approx(0.5)
    # Two tokens in one piece share the 0.2 s.
    assert one.gaps() == pytest.approx([0.1, 0.1, 0.1, 0.1])
    assert one.decoding() == (4, pytest.approx(0.4))
    found = stats.figures([one])
    assert found["tokens_per_second"] == pytest.approx(10) and found["ttft_ms"] == pytest.approx(500) and found["itl_p99_ms"] == pytest.approx(100)
    assert (found["requests"], found["tokens"]) == (1, 5)


def test_the_servers_own_count_wins():
    assert request([(1, 1), (1, 1)], tokens=7).decoding() == (6, pytest.approx(1))


@pytest.mark.parametrize("requests", [[], [request([(1, 1)])], [request([(1, 1), (0, 1)])]])
def test_nothing_to_measure(requests):
    assert stats.figures(requests) is None


@hypothesis.given(numbers, st.floats(0, 100), st.floats(0, 100))
def test_percentiles_are_in_range_and_in_order(values, first, second):
    low, high = sorted((first, second))
    assert min(values) <= stats.percentile(values, low) <= max(values)
    assert stats.percentile(values, low) <= stats.percentile(values, high) * (1 + 1e-12)
    assert stats.percentile(values, 0) == min(values) and stats.percentile(values, 100) == max(values)


@hypothesis.given(numbers)
def test_the_median_is_that_of_statistics(values):
    assert stats.percentile(values, 50) == pytest.approx(statistics.median(values))
    found = stats.spread(values)
    assert found["min"] <= found["median"] <= found["max"]


@hypothesis.given(st.lists(answers, min_size=1, max_size=5))
def test_tokens_per_second_is_one_over_the_mean_latency(found):
    requests = [request(steps) for steps in found]
    gaps = [gap for one in requests for gap in one.gaps()]
    result = stats.figures(requests)
    assert result["tokens_per_second"] == pytest.approx(1 / statistics.mean(gaps), rel=1e-6)
    assert result["itl_p50_ms"] <= result["itl_p95_ms"] <= result["itl_p99_ms"]
    assert result["tokens"] == sum(number for steps in found for _step, number in steps)


@hypothesis.given(answers, st.floats(0.1, 10))
def test_a_slower_host_is_slower_in_everything(steps, factor):
    before, after = stats.figures([request(steps)]), stats.figures([request([(step * factor, number) for step, number in steps])])
    assert after["tokens_per_second"] == pytest.approx(before["tokens_per_second"] / factor, rel=1e-6)
    for name in ("ttft_ms", "itl_p50_ms", "itl_p99_ms"):
        assert after[name] == pytest.approx(before[name] * factor, rel=1e-6)


@hypothesis.given(st.lists(st.tuples(st.floats(0.1, 1e3), st.floats(0.1, 1e3)), min_size=1, max_size=9), st.floats(0.1, 10))
def test_what_slows_both_sides_alike_is_no_loss(pairs, drift):
    found, drifted = stats.loss(pairs), stats.loss([(without * drift, with_it * drift) for without, with_it in pairs])
    for name in ("median", "min", "max"):
        assert drifted[name] == pytest.approx(found[name], abs=1e-6)
    assert found["max"] <= 100


def test_losses():
    assert stats.loss([(100, 90), (200, 190), (50, 45)])["median"] == pytest.approx(10)
    assert stats.loss([(100, 110)]) == pytest.approx({"median": -10, "min": -10, "max": -10})
    assert stats.loss([]) is None
    assert stats.summary([]) == dict.fromkeys(stats.FIGURES)


def test_the_curve():
    found = stats.curve([number / 1000 for number in range(101)])
    assert {point["percent"]: point["ms"] for point in found} == pytest.approx({percent: percent for percent in stats.CURVE})
    assert stats.curve([]) == []
