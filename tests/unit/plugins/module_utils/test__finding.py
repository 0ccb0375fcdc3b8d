# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Findings as such: their order, their table, and questions that are not answered."""
from __future__ import annotations

import threading

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils import _finding
from ansible_collections.erni_ki.inference.plugins.module_utils._finding import finding

FINDINGS = [
    finding("starting", "info", "vllm", "a\n b", "It starts.", "Wait."),
    finding("oom_kill", "critical", "ollama", "e", "Too little.", "More.", ["ollama: oom_kills", "ollama: api_health"]),
    finding("swap_in_use", "warning", "vllm", "e", "Slow.", "Restart."),
    finding("disk_full", "critical", "system", "e", "Full.", "Free."),
]


def test_the_worst_comes_first_and_equals_keep_their_order():
    assert [one["code"] for one in _finding.ordered(FINDINGS)] == ["oom_kill", "disk_full", "swap_in_use", "starting"]


def test_the_verdict():
    found = _finding.verdict(_finding.ordered(FINDINGS), 42)
    assert (found["worst"], found["counts"]) == ("critical", {"critical": 2, "warning": 1, "info": 1})
    assert found["summary"] == "4 findings: 2 critical, 1 warning, 1 info"
    assert found["table"][:6] == [
        "severity  service  finding", "critical  ollama   oom_kill", "      evidence: e", "      cause:    Too little.", "      cure:     More.",
        "      explains: ollama: oom_kills, ollama: api_health"]
    assert _finding.verdict(FINDINGS[:1], 1)["summary"] == "1 finding: 1 info"


def test_nothing_found():
    assert _finding.verdict([], 42) == {
        "counts": {"critical": 0, "warning": 0, "info": 0}, "worst": "", "summary": "no finding; 42 checks of the proof passed",
        "table": ["no finding; 42 checks of the proof passed"]}


def test_evidence_is_one_line():
    assert FINDINGS[0]["evidence"] == "a b" and FINDINGS[0]["checks"] == []


def test_a_question_that_is_not_answered_ends():
    over = threading.Event()
    with pytest.raises(_finding.Unanswered, match="no answer within 0.05 s"):
        _finding.bounded(over.wait, 0.05)
    over.set()
    assert _finding.bounded(lambda: 5, 10) == 5
    with pytest.raises(ZeroDivisionError):
        _finding.bounded(lambda: 1 // 0, 10)
