# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From which severity on the diagnosis fails a play, and what its report holds."""
from __future__ import annotations

import pytest

from ansible_collections.erni_ki.inference.tests.unit.roles.render import render

RESULT = {"counts": {"critical": 1, "warning": 2, "info": 4}, "findings": [{"code": "oom_kill"}], "summary": "s", "table": ["t"], "changed": False,
          "failed": False, "invocation": {}, "logs": {}}
CASES = {severity: {"diagnose_fail_on": severity, "__diagnose_result": RESULT} for severity in ("critical", "warning", "info", "never")}


@pytest.fixture(name="rendered", scope="module")
def fixture_rendered(tmp_path_factory):
    return dict(zip(CASES, render(tmp_path_factory.mktemp("diagnose"), "diagnose", ["__diagnose_bad", "__diagnose_report", "__diagnose_file"], CASES.values())))


@pytest.mark.parametrize("severity, bad", [("critical", 1), ("warning", 3), ("info", 7), ("never", 0)])
def test_from_which_severity_on_it_fails(rendered, severity, bad):
    assert int(rendered[severity]["__diagnose_bad"]) == bad


def test_an_absolute_folder_is_taken_as_it_is(tmp_path):
    [rendered] = render(tmp_path, "diagnose", ["__diagnose_file"], [{"diagnose_report_folder": "/srv/seen"}])
    assert rendered["__diagnose_file"] == "/srv/seen/case000.json"


def test_the_report(rendered):
    assert set(rendered["critical"]["__diagnose_report"]) == {"counts", "findings", "summary", "logs"}
    assert rendered["critical"]["__diagnose_file"].endswith("/diagnosis/case000.json")
