# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Layouts are applied, measured, and undone, whatever ends it. Last: the engines are restarted."""
from __future__ import annotations

import json

import pytest

LENIENT = {f"benchmark_{name}": value for name, value in {
    "tokens": 4, "seconds": 1, "timeout": 3600, "repeats": 1, "max_others": 1000, "max_steal": 100, "report_folder": "",
    "report_host_folder": "/root/layouts"}.items()}


@pytest.mark.slow
def test_layouts_are_compared_and_undone(play, sh, prove):
    before = sh("sha256sum /etc/erni-ki/plan.json")
    done = play("benchmark", **LENIENT, benchmark_layouts=["none", "pinned", "exclusive"])
    assert done.code == 0 and "lost beside burners" in done.text, done.text
    burners = {layout: json.loads(sh(f"cat /root/layouts/sandbox-{layout}.json"))["host"]["cpus"] for layout in ("none", "pinned", "exclusive")}
    assert burners["none"]["vllm"] == burners["none"]["burners"] == burners["pinned"]["burners"] == "0-15"
    assert burners["pinned"]["vllm"] == burners["exclusive"]["vllm"] == "0-13" and burners["exclusive"]["burners"] == "14-15"
    result = prove(generate=False)
    assert result["ok"] and sh("sha256sum /etc/erni-ki/plan.json") == before, "\n".join(result["table"])


@pytest.mark.slow
def test_an_error_in_between_is_undone(play, prove):
    done = play("benchmark", **dict(LENIENT, benchmark_ollama_model="nobody-has-this"), benchmark_layouts=["pinned"])
    assert done.code != 0 and "nobody-has-this" in done.text, done.text
    result = prove(generate=False)
    assert result["ok"], "\n".join(result["table"])
