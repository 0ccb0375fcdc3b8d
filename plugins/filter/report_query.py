# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: report_query
author: The erni_ki.inference team (@erni-ki)
version_added: 0.1.0
short_description: The question that a report asks Prometheus
description:
  - Returns the parameters of a range query for all live figures of a report at once. Each series of the answer has the label C(figure).
options:
  _input:
    description: The labels that select the series of one host, by name. Empty takes the series of all hosts.
    type: dict
    required: true
  hours:
    description: How many hours are asked for.
    type: float
    required: true
  time:
    description: The end of these hours, in seconds since 1970.
    type: int
    required: true
"""

EXAMPLES = r"""
- name: Ask for the last day
  ansible.builtin.uri:
    url: http://127.0.0.1:9090/api/v1/query_range
    method: POST
    body_format: form-urlencoded
    body: "{{ {'host': inventory_hostname} | erni_ki.inference.report_query(24, now(fmt='%s') | int) }}"
"""

RETURN = r"""
_value:
  description: The parameters of Prometheus' C(query_range).
  type: dict
  contains:
    query:
      description: The expression.
      type: str
    start:
      description: The begin, in seconds since 1970.
      type: int
    end:
      description: The end, in seconds since 1970.
      type: int
    step:
      description: The seconds between two points.
      type: int
"""

from ansible_collections.erni_ki.inference.plugins.plugin_utils import _report_series


class FilterModule:
    """The filter of that name."""

    def filters(self):
        return {"report_query": _report_series.question}
