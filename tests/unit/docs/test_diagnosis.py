# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/diagnosis.md lists every finding, and no other; every finding has a unit test that names it."""
from __future__ import annotations

import pathlib
import re

from ansible_collections.erni_ki.inference.plugins.module_utils import _diagnosis, _engine_logs

REPO = pathlib.Path(__file__).resolve().parents[3]


def codes():
    found = {row.code for row in (*_engine_logs.LOGS, *_engine_logs.DOCKER, *_engine_logs.EXITS.values())} | {row[0] for row in _diagnosis.CHECKS.values()}
    for name in ("_diagnosis", "_diagnosis_beside", "_vitals"):
        text = (REPO / "plugins" / "module_utils" / f"{name}.py").read_text(encoding="utf-8")
        found |= set(re.findall(r'(?:finding\(\s*|code, cause = \(?|code, cause\) = \(?)"(\w+)"', text)) | set(re.findall(r'\.get\([^\n]*, \("(\w+)", "', text))
    return found


def test_every_finding_is_documented():
    rows = [line.split("|")[1] for line in (REPO / "docs" / "diagnosis.md").read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    documented = {code for row in rows for code in re.findall(r"`(\w+)`", row)}
    assert documented == codes()


def test_every_finding_has_a_test():
    tests = "".join(path.read_text(encoding="utf-8") for path in (REPO / "tests" / "unit" / "plugins").rglob("test_*.py"))
    assert [code for code in sorted(codes()) if f'"{code}"' not in tests] == []
