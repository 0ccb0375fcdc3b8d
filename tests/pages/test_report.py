# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report's pages, in a browser: nothing is wrong, the numbers are right, and they fit on a phone and on paper."""
from __future__ import annotations

import json

import pytest

from ansible_collections.erni_ki.inference.plugins.plugin_utils._report import report
from ansible_collections.erni_ki.inference.plugins.plugin_utils._report_fleet import fleet
from ansible_collections.erni_ki.inference.tests.unit.plugins import report_sample as sample
from ansible_collections.erni_ki.inference.tests.unit.roles.report_page import draw

PHONE, DESK = 390, 1100
FINDINGS = [sample.finding("kv_cache_too_large", "critical", checks=["vllm: container_running", "vllm: api_health"]),
            sample.finding("cpu_governor", "warning", "system"), sample.finding("swap_in_use", "info", "system")]


def cases():
    before = report(sample.raw(findings=FINDINGS[2:], vllm_kv_cache_gib=3))
    last = json.dumps({**before, "when": "2026-09-20 14:13 UTC", "versions": {**before["versions"], "Kernel": "6.1.0-17-amd64"}})
    ill = sample.raw("node2", failing=[("vllm", "memory_limit")], findings=FINDINGS, prometheus=sample.REFUSED)
    bare = {**sample.raw("node3", prometheus=sample.REFUSED), "plan": "", "topology": {}, "engine": {}, "gpu": {}, "apis": [],
            "proof": {"msg": "There is no plan.", "failed": False}, "diagnosis": {"msg": "It could not be made.", "failed": False}}
    return {
        "report-good": report(sample.raw(), last), "report-ill": report(ill), "report-cpu": report(sample.raw("node4", card=False)),
        "report-large": report(sample.raw("node5", cores=64)), "report-bare": report(bare),
        "report-hostile": report(sample.spoilt(sample.raw(findings=FINDINGS, failing=[("vllm", "memory_limit")])), json.dumps(before)),
    }


CASES = cases()
FLEET = {f"{made['host']}": made for made in CASES.values()}
FLEETS = {"report-fleet": fleet({**FLEET, "gone": {}}, {name: f"{number}.html" for number, name in enumerate(FLEET)})}


@pytest.fixture(name="pages", scope="module", autouse=True)
def fixture_pages(folder, tmp_path_factory):
    draw(tmp_path_factory.mktemp("report"), folder, CASES, FLEETS)


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("name", [*CASES, *FLEETS])
def test_it_fits_and_nothing_is_wrong(browser, name, width):
    seen, said = browser.look(f"{name}.html", width=width)
    browser.picture(f"{name}.html", f"{name}-{width}.png", width=width, height=7000 if width == PHONE else 4200)
    assert said == []
    assert seen["wide"] <= seen["screen"] == width
    for picture in seen["pictures"]:
        assert picture["on"] == [] and picture["outside"] == [], picture["label"]
        assert picture["width"] > 200 and picture["height"] > 30 and picture["label"]
        assert picture["smallest"] >= (7 if name in ("report-large", "report-fleet") else 10), picture["label"]


def figure(value):
    return "\u2013" if value is None else f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 1 else f"{value:.3f}" if value else "0"


@pytest.mark.parametrize("name", ["report-good", "report-cpu", "report-large"])
def test_the_numbers_are_those_of_the_report(browser, name):
    case = CASES[name]
    seen = browser.look(f"{name}.html", width=DESK)[0]
    rows = next(table for table in seen["tables"] if table[0][0] == "Figure")
    assert [row[1:5] for row in rows[1:]] == [[figure(row[key]) for key in ("last", "median", "least", "most")] for row in case["live"]["rows"]]
    assert [row[1:] for row in rows if row[0] == "vLLM: memory, MiB"] == [["5000", "4522", "4000", "5000"]]
    pictures = {picture["label"]: picture for picture in seen["pictures"]}
    whole = pictures[f"Memory of the host: {case['plan']['host']['memory_total_mib']} MiB"]
    limits = [case["plan"][service]["memory"]["limit_mib"] for service in ("vllm", "ollama")]
    parts = [*limits, case["plan"]["host"]["memory_total_mib"] - sum(limits)]
    # A bar is as long as its number.
    assert [width / sum(whole["bars"]) for width in whole["bars"]] == pytest.approx([part / sum(parts) for part in parts], abs=0.01)
    assert [word for word in whole["words"] if word.endswith(" MiB")] == [f"{part} MiB" for part in parts]
    assert len([word for word in pictures["Who may use which logical CPU"]["words"] if word[0].isdigit()]) == len(case["owners"])


def test_it_is_dark_where_the_reader_wants_it(browser):
    for name in ("report-good", "report-ill", "report-fleet"):
        seen = {dark: browser.look(f"{name}.html", dark=dark)[0] for dark in (False, True)}
        browser.picture(f"{name}.html", f"{name}-dark.png", dark=True, height=4200)
        assert [seen[dark]["dark"] for dark in (False, True)] == [False, True]
        assert seen[False]["back"] == "rgb(255, 255, 255)" and seen[True]["back"] == "rgb(20, 22, 26)"


@pytest.mark.parametrize("name, most", [("report-good", 5), ("report-ill", 4), ("report-fleet", 5)])
def test_it_is_printed_on_few_sheets(browser, name, most):
    assert 1 <= browser.paper(f"{name}.html", f"{name}.pdf") <= most
