# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: benchmark_comparison
author: The erni_ki.inference team (@erni-ki)
version_added: 0.1.0
short_description: Several benchmarks of one host side by side
description:
  - Shows tokens/s and losses of several results of M(erni_ki.inference.inference_benchmark), each service beside its neighbours.
options:
  _input:
    description: For each layout what the module returned.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show two layouts side by side
  ansible.builtin.debug:
    msg: "{{ {'fenced': before, 'exclusive': after} | erni_ki.inference.benchmark_comparison }}"
"""

RETURN = r"""
_value:
  description: Lines of text for a person.
  type: list
  elements: str
"""

from ansible_collections.erni_ki.inference.plugins.module_utils import _benchmark


class FilterModule:
    """The filter of that name."""

    def filters(self):
        return {"benchmark_comparison": _benchmark.comparison}
