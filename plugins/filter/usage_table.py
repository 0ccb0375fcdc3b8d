# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: usage_table
version_added: 0.1.0
short_description: Shows rows of usage as lines of text
author: The erni_ki.inference team (@erni-ki)
description:
  - Turns the rows of M(erni_ki.inference.usage_info), of one host or of several, into aligned lines for a person. What no line of the log tells is a dash.
positional: _input
options:
  _input:
    description: The rows.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Show what a fleet has used
  ansible.builtin.debug:
    msg: "{{ ansible_play_hosts | map('extract', hostvars, ['usage', 'rows']) | flatten | erni_ki.inference.usage_table }}"
  run_once: true
"""

RETURN = r"""
_value:
  description: The lines.
  type: list
  elements: str
"""

from ansible_collections.erni_ki.inference.plugins.module_utils import _usage


class FilterModule:
    """One filter."""

    def filters(self):
        return {"usage_table": _usage.table}
