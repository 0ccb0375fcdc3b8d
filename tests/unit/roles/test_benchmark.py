# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page and the report: self-contained, well-formed, escaped, and with everything in it; why the play fails."""
from __future__ import annotations

import pathlib

import pytest

from ansible_collections.erni_ki.inference.tests.unit.plugins.benchmark_sample import result
from ansible_collections.erni_ki.inference.tests.unit.roles.benchmark_page import draw
from ansible_collections.erni_ki.inference.tests.unit.roles.page import Page
from ansible_collections.erni_ki.inference.tests.unit.roles.render import render

CASES = {
    "good": result(left_out=(2,)), "fenced": result(isolation="fenced"), "one": result(services=("vllm",), repeats=1), "nothing": result(left_out=range(18)),
}


@pytest.fixture(name="pages", scope="module")
def fixture_pages(tmp_path_factory):
    """The page of each case, as Ansible's own template module writes it."""
    folder = tmp_path_factory.mktemp("benchmark")
    draw(folder, folder, CASES)
    return {name: (folder / f"{name}.html").read_text(encoding="utf-8") for name in CASES}


@pytest.mark.parametrize("name", CASES)
def test_the_page_is_whole_and_by_itself(pages, name):
    page = Page(pages[name])
    assert pages[name].startswith("<!DOCTYPE html>") and "{{" not in pages[name] and "{%" not in pages[name]
    # Nothing is fetched, nothing runs.
    assert [value for key, value in page.attributes if key in ("src", "href", "onload")] == [] and "<script" not in pages[name]
    assert "url(" not in pages[name] and "@import" not in pages[name]
    assert any(key == "name" and value == "viewport" for key, value in page.attributes) and "@media print" in pages[name]
    assert "prefers-color-scheme: dark" in pages[name]


def test_what_is_in_it(pages):
    words = Page(pages["good"]).words
    assert CASES["good"]["summary"] in words and "Runs that were left out: 1 of 18" in words
    assert any(word.startswith("Round 1, together: other processes used 43 %") and "<apt & co>" in word for word in words)
    assert any("A <CPU>" in word for word in words) and "<apt" not in pages["good"] and "<CPU>" not in pages["good"]
    assert pages["good"].count("<svg") == 5 and pages["nothing"].count("<svg") == 2 and pages["one"].count("<svg") == 4
    assert words.count("vLLM") >= 4 and any(word.endswith("✗") for word in words) and any(word.endswith("✓") for word in words)
    assert "–" in Page(pages["nothing"]).words and "None was disturbed." in Page(pages["fenced"]).words
    assert 'class="verdict failed"' in pages["good"] and 'class="verdict"' in pages["fenced"]


def test_an_absolute_folder_is_taken_as_it_is(tmp_path):
    [rendered] = render(tmp_path, "benchmark", ["__benchmark_file"], [{"benchmark_report_folder": "/srv/seen"}])
    assert rendered["__benchmark_file"] == "/srv/seen/case000"


def test_the_report_and_why_it_fails(tmp_path):
    case = {"__benchmark_result": dict(CASES["good"], changed=False, failed=False, invocation={})}
    computed = render(tmp_path, "benchmark", ["__benchmark_report", "__benchmark_reasons", "__benchmark_file"], [case])[0]
    assert set(computed["__benchmark_report"]) == set(CASES["good"]) - {"table"}
    assert pathlib.PurePath(computed["__benchmark_file"]).parts[-2:] == ("benchmark-report", "case000")
    assert len(computed["__benchmark_reasons"]) == 1 and computed["__benchmark_reasons"][0].startswith("No burner may run on vLLM's cores")
