# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: usage_csv
version_added: 0.1.0
short_description: Writes rows of usage as CSV
author: The erni_ki.inference team (@erni-ki)
description:
  - Turns the rows of M(erni_ki.inference.usage_info), of one host or of several, into CSV with one head line. What no line of the log tells is an empty cell.
positional: _input
options:
  _input:
    description: The rows.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Write what a fleet has used
  ansible.builtin.copy:
    content: "{{ ansible_play_hosts | map('extract', hostvars, ['usage', 'rows']) | flatten | erni_ki.inference.usage_csv }}"
    dest: fleet.csv
    mode: "0644"
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
_value:
  description: The text of a CSV file.
  type: str
"""

from ansible_collections.erni_ki.inference.plugins.module_utils import _usage


class FilterModule:
    """One filter."""

    def filters(self):
        return {"usage_csv": _usage.as_csv}
