# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/report.md names every series that the report asks Prometheus for, and no other."""
from __future__ import annotations

import pathlib
import re

from ansible_collections.erni_ki.inference.plugins.plugin_utils import _report_series

REPO = pathlib.Path(__file__).resolve().parents[3]
SERIES = re.compile(r"(?:erni_ki_|vllm:)\w+")


def test_every_series_is_documented():
    text = (REPO / "docs" / "report.md").read_text(encoding="utf-8")
    assert set(SERIES.findall(text)) == set(SERIES.findall(_report_series.query({}, 24)))
