# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Layouts that no plan has, for comparison: what an engine gets without slices, and without anything."""
from __future__ import annotations

import copy


def layout(plan, name):
    """Return the plan as the layout C(name) has it; C(fenced) and C(exclusive), which a plan decides by itself, are as they are."""
    kind = name.partition("-")[0]
    changed = copy.deepcopy(plan)
    if kind in ("none", "pinned"):
        # Docker's own cpuset stays, and nothing else holds anybody.
        changed["isolation"] = "fenced"
        changed["partition"] = {"mode": "fenced", "slices": [], "fence": None}
    if kind == "none":
        everything = changed["host"]["usable_cpus"]
        for service in ("vllm", "ollama"):
            if changed.get(service):
                changed[service]["cpuset"] = everything
        if changed.get("vllm"):
            changed["vllm"]["omp"].update(mode="auto", bind="auto", cpus=None)
        if changed.get("ollama"):
            # What llama.cpp takes when nobody tells it.
            changed["ollama"]["threads"] = changed["host"]["cores"]
    return changed
