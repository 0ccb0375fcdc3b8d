# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmark's page, in a browser: nothing is wrong, the numbers are right, and it fits on a phone and on paper."""
from __future__ import annotations

import pytest

from ansible_collections.erni_ki.inference.tests.unit.plugins.benchmark_sample import result
from ansible_collections.erni_ki.inference.tests.unit.roles.benchmark_page import draw

CASES = {"good": result(isolation="fenced"), "bad": result(left_out=(2,)), "large": result(cores=64, packages=2), "one": result(services=("vllm",), repeats=1)}
PHONE, DESK = 390, 1100


@pytest.fixture(name="pages", scope="module", autouse=True)
def fixture_pages(folder, tmp_path_factory):
    draw(tmp_path_factory.mktemp("benchmark"), folder, CASES)


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("name", CASES)
def test_it_fits_and_nothing_is_wrong(browser, name, width):
    seen, said = browser.look(f"{name}.html", width=width)
    browser.picture(f"{name}.html", f"{name}-{width}.png", width=width, height=4200 if width == PHONE else 2200)
    assert said == []
    assert seen["wide"] <= seen["screen"] == width
    for picture in seen["pictures"]:
        assert picture["on"] == [] and picture["outside"] == [], picture["label"]
        assert picture["width"] > 200 and picture["height"] > 30
        assert picture["smallest"] >= (7 if name == "large" else 10), picture["label"]


def ranged(value):
    return f"{value['median']:.1f} {value['min']:.1f}\u2013{value['max']:.1f}" if value else "\u2013"


@pytest.mark.parametrize("name", CASES)
def test_the_numbers_are_those_of_the_result(browser, name):
    case = CASES[name]
    seen = browser.look(f"{name}.html", width=DESK)[0]
    figures, losses = seen["tables"]
    assert [row[3:] for row in figures[1:]] == [
        [ranged(row[figure]) for figure in ("tokens_per_second", "ttft_ms", "itl_p50_ms", "itl_p95_ms", "itl_p99_ms")] for row in case["results"]]
    assert [row[3] for row in losses[1:]] == [ranged(one["loss_percent"]) for one in case["losses"]]
    pictures = {picture["label"]: picture for picture in seen["pictures"]}
    # A bar is as long as its number.
    lost = [one["loss_percent"]["median"] for one in case["losses"]]
    bars = pictures["Loss of tokens/s in percent"]["bars"]
    assert [width / max(bars) for width in bars] == pytest.approx([max(loss, 0) / max(lost) for loss in lost], abs=0.01)
    used = [one["used_mib"] for one in case["memory"].values()]
    bars = pictures["Memory against limits"]["bars"]
    assert [width / max(bars) for width in bars] == pytest.approx([one / max(used) for one in used], abs=0.01)
    assert len([word for word in pictures["Who may use which logical CPU"]["words"] if word[0].isdigit()]) == len(case["host"]["owners"])


def test_it_is_dark_where_the_reader_wants_it(browser):
    seen = {dark: browser.look("good.html", dark=dark)[0] for dark in (False, True)}
    browser.picture("good.html", "good-dark.png", dark=True, height=2200)
    assert [seen[dark]["dark"] for dark in (False, True)] == [False, True]
    assert seen[False]["back"] == "rgb(255, 255, 255)" and seen[True]["back"] == "rgb(20, 22, 26)"


def test_it_is_printed_on_few_sheets(browser):
    assert 1 <= browser.paper("bad.html", "bad.pdf") <= 3
