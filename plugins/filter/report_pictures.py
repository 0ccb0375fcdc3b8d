# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: report_pictures
author: The erni_ki.inference team (@erni-ki)
version_added: 0.1.0
short_description: The pictures of a report as SVG
description:
  - Draws the plan of a host and its live figures, for a page that has the colours in its style sheet.
options:
  _input:
    description: What P(erni_ki.inference.report_document#filter) returned.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Keep the map of the CPUs
  ansible.builtin.copy:
    content: "{{ (my_report | erni_ki.inference.report_pictures).cpus }}"
    dest: /tmp/cpus.svg
    mode: "0644"
"""

RETURN = r"""
_value:
  description: The pictures, each an C(svg) element as text. One that has nothing to show is empty.
  type: dict
  contains:
    cpus:
      description: The cores, and who may use each logical CPU by the plan.
      type: str
    host_memory:
      description: How the plan divides the host's memory.
      type: str
    vllm_memory:
      description: What vLLM's memory is for.
      type: str
    vram:
      description: What the GPU's memory is for.
      type: str
    live:
      description: The figures over time, each with C(title), C(unit) and C(svg).
      type: list
      elements: dict
    style:
      description: The style sheet for a page that shows them.
      type: str
"""

from ansible_collections.erni_ki.inference.plugins.plugin_utils import _report_pictures


class FilterModule:
    """The filter of that name."""

    def filters(self):
        return {"report_pictures": _report_pictures.pictures}
