# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Prometheus is asked for, and what its answers come to."""
from __future__ import annotations

import pytest

from ansible_collections.erni_ki.inference.plugins.plugin_utils import _report_series as series
from ansible_collections.erni_ki.inference.tests.unit.plugins import report_sample as sample


@pytest.mark.parametrize("hours, step", [(24, 480), (1, 20), (0.1, 15), (168, 3360)])
def test_a_line_has_no_more_points_than_are_seen(hours, step):
    asked = series.question({}, hours, 1_790_000_000)
    assert asked["step"] == step and (asked["end"] - asked["start"]) / step <= series.POINTS and asked["end"] == 1_790_000_000
    assert f"[{max(180, step)}s]" in asked["query"]


def test_the_labels_are_quoted():
    asked = series.query({"host": 'a"b\\c\nd', "job": "x"}, 1)
    assert 'erni_ki_service_running{host="a\\"b\\\\c\\nd",job="x"}' in asked
    assert "erni_ki_service_running[180s]" in series.query({}, 1)


@pytest.mark.parametrize("answer, given, said", [
    (sample.REFUSED, True, "Prometheus at http://p does not answer: Request failed: <urlopen error [Errno 111] Connection refused>."),
    (sample.REFUSED, False, "No Prometheus was given (report_prometheus_url), and none answers at http://p on the host."),
    ({}, True, "Prometheus at http://p does not answer: no answer."),
    ({"status": 401, "msg": "HTTP Error 401"}, True, "What answers at http://p is no Prometheus that takes this question: HTTP 401."),
    ({"status": 200}, False, "What answers at http://p is no Prometheus that takes this question: HTTP 200."),
    ({"status": 400, "json": {"status": "error", "error": "bad"}}, True, "What answers at http://p is no Prometheus that takes this question: HTTP 400, bad."),
    ({"status": 200, "json": {"status": "success"}}, True, "What answers at http://p is no Prometheus: its answer has another form."),
    ({"status": 200, "json": {"status": "success", "data": {"result": [{"metric": {"figure": "cpu"}, "values": [3]}]}}}, True,
     "What answers at http://p is no Prometheus: its answer has another form."),
    ({"status": 200, "json": {"status": "success", "data": {"result": []}}}, True,
     "Prometheus at http://p answers, and has no figure of this host with host=a in the last 24 h."),
    (sample.answer(values={"instances": {"a:1": lambda at: 1, "b:1": lambda at: 1}}), True,
     "Prometheus at http://p knows several hosts (a:1, b:1). Name this one's with report_prometheus_labels, such as instance: or host:."),
    (sample.answer(), True, "")])
def test_why_there_are_no_figures(answer, given, said):
    assert series.problem(answer, "http://p", given, 24, {"host": "a"}) == said


def test_reading():
    data = [{"metric": {"figure": "cpu", "service": "vllm"}, "values": [[1, "2"], [2, "NaN"], [3, "+Inf"], [4, "0.5"]]},
            {"metric": {"figure": "drift"}, "values": [[1, "NaN"]]}, {"metric": {"figure": "unknown"}, "values": [[1, "1"]]}, {"metric": {}, "values": []}]
    assert series.read(data) == {"cpu": {"vllm": [(1, 2), (4, 0.5)]}}


def test_what_a_line_comes_to():
    points = [(0, 1), (10, 5), (20, 3)]
    assert series.summary(points, 40, 10) == {"last": 3, "median": 3, "least": 1, "most": 5}
    assert series.summary(points, 41, 10)["last"] is None
    assert series.grown([(0, 5), (1, 7), (2, 1), (3, 4)]) == 2 + 1 + 3 and series.grown([(0, 5)]) == 0
    assert series.share([(0, 1), (1, 0)], bool) == 50
