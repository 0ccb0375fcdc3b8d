# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: benchmark_pictures
author: The erni_ki.inference team (@erni-ki)
version_added: 0.1.0
short_description: The pictures of a benchmark as SVG
description:
  - Draws what M(erni_ki.inference.inference_benchmark) returned, for a page that has the colours in its style sheet.
options:
  _input:
    description: What the module returned.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Keep the map of the CPUs
  ansible.builtin.copy:
    content: "{{ (benchmark | erni_ki.inference.benchmark_pictures).cpus }}"
    dest: /tmp/cpus.svg
    mode: "0644"
"""

RETURN = r"""
_value:
  description: The pictures, each an C(svg) element as text. One that has nothing to show is empty.
  type: dict
  contains:
    cpus:
      description: The cores, and who may use each logical CPU.
      type: str
    latency:
      description: For each service the distribution of its inter-token latency in every case.
      type: dict
    losses:
      description: What each service loses by its neighbours, with range and limit.
      type: str
    memory:
      description: What each service has of its memory limit.
      type: str
    style:
      description: The style sheet for a page that shows them.
      type: str
"""

from ansible_collections.erni_ki.inference.plugins.plugin_utils import _benchmark_pictures


class FilterModule:
    """The filter of that name."""

    def filters(self):
        return {"benchmark_pictures": _benchmark_pictures.pictures}
