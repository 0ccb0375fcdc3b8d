# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every alert fires when it should, not one evaluation earlier, and clears; its metrics exist, and its runbook does."""
from __future__ import annotations

import pathlib
import re

import programs
import pytest
import yaml
from common import REPO
from queries import names_in

CASES = yaml.safe_load(pathlib.Path(__file__).with_name("cases.yml").read_text(encoding="utf-8"))
INTERVAL_S = 15
RUNBOOKS = "https://github.com/erni-ki/inference/blob/main/docs/runbooks.md"
# Those on which it is shown that the cases notice.
SHOWN = ("ErniKiServiceDown", "ErniKiOffPlanCpu", "ErniKiQueueGrowing")


def seconds(text):
    """Return the seconds of such as 12m45s."""
    return sum(int(number) * {"h": 3600, "m": 60, "s": 1}[unit] for number, unit in re.findall(r"(\d+)([hms])", text))


def promtool_tests(rules_file, cases):
    """Return promtool's tests of some cases: before, at and after both ends."""
    tests = []
    for alert, case in cases.items():
        expected = [{"exp_labels": case["labels"], "exp_annotations": {
            "summary": case["summary"], "description": case["description"], "runbook_url": f"{RUNBOOKS}#{alert.lower()}"}}]
        fires, clears = seconds(case["fires"]), seconds(case["clears"])
        tests.append({
            "interval": f"{INTERVAL_S}s",
            "input_series": [{"series": series, "values": values} for series, values in case["series"].items()],
            "alert_rule_test": [{"eval_time": f"{time}s", "alertname": alert, "exp_alerts": wanted}
                                for time, wanted in ((fires - INTERVAL_S, []), (fires, expected), (clears, []))],
            # One evaluation before its end it still fires. Its figures may have changed since, so that is asked as a metric.
            "promql_expr_test": [{"expr": f'count(ALERTS{{alertname="{alert}", alertstate="firing"}})', "eval_time": f"{clears - INTERVAL_S}s",
                                  "exp_samples": [{"labels": "{}", "value": 1}]}]})
    return {"rule_files": [str(rules_file)], "evaluation_interval": f"{INTERVAL_S}s", "tests": tests}


def wrong_in(folder, bin, rules_file, cases):
    """Run promtool; return {alert: what it said} of those that did not do as their case says."""
    (folder / "test.yml").write_text(yaml.safe_dump(promtool_tests(rules_file, cases)), encoding="utf-8")
    done = programs.run(bin, "promtool", "test", "rules", folder / "test.yml", code=None)
    parts = re.split(r"^ +(?=alertname: |expr: )", done.stdout, flags=re.MULTILINE)[1:]
    wrong = {}
    for part in parts:
        [alert] = set(re.findall(r"ErniKi\w+", part.splitlines()[0]))
        wrong[alert] = wrong.get(alert, "") + part
    assert (done.returncode == 0) == (not wrong), done.stdout
    return wrong


@pytest.fixture(name="wrong", scope="module")
def fixture_wrong(tmp_path_factory, bin, usual):
    return wrong_in(tmp_path_factory.mktemp("cases"), bin, usual.folder / "rules.yml", CASES)


def test_every_alert_has_a_case(rules):
    assert sorted(rules) == sorted(CASES)


@pytest.mark.parametrize("alert", CASES)
def test_it_fires_and_clears(alert, wrong):
    assert alert not in wrong, wrong[alert]


@pytest.mark.parametrize("off", [-INTERVAL_S, INTERVAL_S])
def test_one_evaluation_more_or_less_is_noticed(off, tmp_path, bin, usual):
    document = usual.load("rules.yml")
    for group in document["groups"]:
        group["rules"] = [rule for rule in group["rules"] if rule["alert"] in SHOWN]
        for rule in group["rules"]:
            rule["for"] = f"{seconds(rule['for']) + off}s"
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(document), encoding="utf-8")
    assert sorted(wrong_in(tmp_path, bin, tmp_path / "rules.yml", {alert: CASES[alert] for alert in SHOWN})) == sorted(SHOWN)


@pytest.mark.parametrize("suite", programs.SUITES)
def test_every_release_reads_the_rules(suite, suites, usual):
    said = programs.run(suites[suite], "promtool", "check", "rules", usual.folder / "rules.yml").stdout
    assert f"{len(CASES)} rules found" in said


def test_every_alert_says_what_people_need(rules):
    for alert, rule in rules.items():
        assert alert.startswith("ErniKi") and rule["labels"]["severity"] in ("critical", "warning"), alert
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}, alert
        assert rule["annotations"]["runbook_url"] == f"{RUNBOOKS}#{alert.lower()}", alert
        assert re.search(r"\d|\$value", rule["annotations"]["description"]) or "absent" in rule["expr"], f"{alert}: no number in its description"


def test_every_alert_has_a_runbook(rules):
    text = (REPO / "docs" / "runbooks.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert sorted(sections) == sorted(rules)
    for alert, section in sections.items():
        assert [word for word in ("**Means:**", "**Look:**", "**Do:**") if word not in section] == [], alert


def test_the_names_are_found():
    assert names_in('100 * a_b / (c:d > 0) > 95 and on (instance) sum by (x) (rate(e_total{job="f"}[5m])) unless time() - g == 1') == {
        "a_b", "c:d", "e_total", "g"}


def test_no_rule_on_a_metric_that_does_not_exist(rules, listed):
    known = set().union(*listed.values())
    assert {alert: missing for alert, rule in rules.items() if (missing := names_in(rule["expr"]) - known)} == {}
    for alert, case in CASES.items():
        used = {re.split(r"[{ ]", series)[0] for series in case["series"]}
        assert names_in(rules[alert]["expr"]) == used, f"{alert}: the case is about other metrics"
