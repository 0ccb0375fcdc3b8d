# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: ollama_environment_problems
author: The erni_ki.inference team (@erni-ki)
version_added: 0.1.0
short_description: What is wrong with environment variables for Ollama
description:
  - Judges environment variables before a server is started with them, because Ollama says nothing about a name that it does not know, and
    takes a value that it cannot read for true or for its default.
  - Says so of variables that this version does not read, that do not exist though they are often written, whose value cannot be read, and that
    the plan decides; and of an image of another version than the plan was made for.
options:
  _input:
    description: The variables, as names and values.
    type: dict
    required: true
  image:
    description: Ollama's image, whose tag is its version, such as V(ollama/ollama:0.32.15). Where it is none, O(planned) is taken.
    type: str
    default: ""
  planned:
    description: The version the plan was made for. Where it is empty and O(image) tells none, the newest that the table knows is taken.
    type: str
    default: ""
  decided:
    description: The names that are set already, and so cannot be set again.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Refuse what would do nothing
  ansible.builtin.assert:
    that: problems | length == 0
    fail_msg: "{{ problems | join('\n') }}"
  vars:
    problems: "{{ ollama_environment | erni_ki.inference.ollama_environment_problems(image='ollama/ollama:0.32.15') }}"
"""

RETURN = r"""
_value:
  description: A sentence for each problem, in the order of the variables; empty where there is none.
  type: list
  elements: str
  sample: ["ollama_environment sets OLLAMA_NUM_CTX, which does not exist, and would do nothing: set plan_ollama_context_length instead."]
"""

from ansible_collections.erni_ki.inference.plugins.module_utils import _ollama_environment


class FilterModule:
    """The filter of that name."""

    def filters(self):
        return {"ollama_environment_problems": _ollama_environment.problems}
