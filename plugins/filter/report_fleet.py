# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: report_fleet
author: The erni_ki.inference team (@erni-ki)
version_added: 0.1.0
short_description: What the reports of several hosts come to
description:
  - Puts the reports of several hosts side by side for one page.
options:
  _input:
    description: What P(erni_ki.inference.report_document#filter) returned, by the host's name; empty for a host that could not be read.
    type: dict
    required: true
  pages:
    description: The name of each host's own page, by the host's name.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Say how many hosts are well
  ansible.builtin.debug:
    msg: "{{ ({'node1': my_report, 'node2': {}} | erni_ki.inference.report_fleet({'node1': 'node1.html', 'node2': 'node2.html'})).summary }}"
"""

RETURN = r"""
_value:
  description: What the page shows.
  type: dict
  contains:
    ok:
      description: Whether all hosts are well.
      type: bool
    summary:
      description: The same in words.
      type: str
    when:
      description: When the last of the reports was made.
      type: str
    hosts:
      description: One row of the table for each host.
      type: list
      elements: dict
    versions:
      description: The versions that not all hosts have, with the hosts that have them.
      type: list
      elements: dict
    style:
      description: The style sheet of the page.
      type: str
"""

from ansible_collections.erni_ki.inference.plugins.plugin_utils import _report_fleet


class FilterModule:
    """The filter of that name."""

    def filters(self):
        return {"report_fleet": _report_fleet.fleet}
