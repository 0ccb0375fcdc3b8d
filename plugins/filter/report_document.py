# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: report_document
author: The erni_ki.inference team (@erni-ki)
version_added: 0.1.0
short_description: The report of one host
description:
  - Makes the report of one host from what the modules of this collection, Prometheus and the services' APIs returned.
  - What could not be read is said in words; nothing of it is an error.
options:
  _input:
    description: What was read, by the names that the role C(report) has for it.
    type: dict
    required: true
  previous:
    description: The text of the last report of this host as JSON; empty where there was none.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Compare with the last report
  ansible.builtin.set_fact:
    my_report: "{{ what_was_read | erni_ki.inference.report_document(lookup('ansible.builtin.file', 'reports/node1.json')) }}"
"""

RETURN = r"""
_value:
  description: The report. All of it but C(series), the points of the lines that are drawn, is kept as JSON beside the page.
  type: dict
"""

from ansible_collections.erni_ki.inference.plugins.plugin_utils import _report


class FilterModule:
    """The filter of that name."""

    def filters(self):
        return {"report_document": _report.document}
