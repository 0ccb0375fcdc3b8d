# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: benchmark_layout
author: The erni_ki.inference team (@erni-ki)
version_added: 0.1.0
short_description: A plan with less isolation than any plan has, for comparison
description:
  - Takes from a plan what a layout lacks. Only for measurements; M(erni_ki.inference.colocation_plan) decides nothing like it.
options:
  _input:
    description: The plan.
    type: dict
    required: true
  name:
    description:
      - The layout. V(none) leaves every CPU to both engines, V(pinned) holds each by Docker's cpuset alone, V(fenced) and V(exclusive) are as they were
        planned. What follows a hyphen plays no part.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show what pinning alone is
  ansible.builtin.debug:
    msg: "{{ plan_decided | erni_ki.inference.benchmark_layout('pinned') }}"
"""

RETURN = r"""
_value:
  description: The changed plan.
  type: dict
"""

from ansible_collections.erni_ki.inference.plugins.plugin_utils import _benchmark_layouts


class FilterModule:
    """The filter of that name."""

    def filters(self):
        return {"benchmark_layout": _benchmark_layouts.layout}
