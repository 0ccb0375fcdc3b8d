# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the dashboards ask, and for which metrics an expression asks."""
from __future__ import annotations

import json
import pathlib
import re

FILES = pathlib.Path(__file__).resolve().parents[2] / "roles" / "monitoring" / "files"
BOARDS = sorted(path.name for path in FILES.glob("*.json"))
# What is no metric's name in an expression.
WORDS = {"and", "or", "unless", "on", "by", "ignoring", "sum", "max", "min", "avg", "count", "group_left", "group_right", "offset", "bool", "without", "time"}


def board(name):
    return json.loads((FILES / name).read_text(encoding="utf-8"))


def queries(name, instance="node1", interval="1m"):
    """Return (panel, query) of every query of a dashboard, as Grafana would send it for one host."""
    for panel in board(name)["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"].replace("$__rate_interval", interval).replace("$instance", instance)


def names_in(expression):
    """Return the names of the metrics in an expression."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    bare = re.sub(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)", " ", bare)
    bare = re.sub(r"\{[^}]*\}", "{}", bare)
    bare = re.sub(r"\[[^\]]*\]", "", bare)
    words = re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*(?!\w)(?!\s*\()", bare)
    return {word for word in words if word not in WORDS and not re.fullmatch(r"\d.*", word)}
