# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/exporter.md lists every metric with its labels, kind and meaning, and no other; docs/usage.md shows a line that is one."""
from __future__ import annotations

import json
import pathlib
import re

from ansible_collections.erni_ki.inference.plugins.module_utils import _usage
from ansible_collections.erni_ki.inference.plugins.module_utils._exporter_metrics import METRICS, SOURCES

DOCS = pathlib.Path(__file__).resolve().parents[3] / "docs"


def test_the_metrics():
    text = (DOCS / "exporter.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| `erni_ki_")]
    assert rows == [[f"`{name}`", ", ".join(f"`{label}`" for label in metric.labels), metric.kind, metric.text] for name, metric in METRICS.items()]


def test_the_sources():
    text = (DOCS / "exporter.md").read_text(encoding="utf-8")
    assert tuple(re.findall(r"^\| `([a-z]+)` \|", text.partition("| Source |")[2].partition("\n\n")[0], re.MULTILINE)) == SOURCES


def test_a_line_of_the_usage_log():
    text = (DOCS / "usage.md").read_text(encoding="utf-8")
    line = json.loads(text.partition("```json\n")[2].partition("```")[0])
    record = _usage.decode(_usage.encode(line))
    assert [row["tokens_out"] for row in _usage.total("h", [record], record["end"] - 60, record["end"])] == [40, 96]
    table = text.partition("| Field |")[2].partition("\n\n")[0]
    fields = {"version", "services", *re.findall(r"`([a-z_]+)`", "".join(row.split("|")[1] for row in table.splitlines() if row.startswith("| `")))}
    assert fields == set(line) | {key for used in line["services"].values() for key in used}
