# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: ollama_models_problems
author: The erni_ki.inference team (@erni-ki)
version_added: 0.1.0
short_description: What is wrong with models declared for Ollama
description:
  - Judges models before a server is asked for them, by the rules of the module M(erni_ki.inference.ollama_model), and by what the plan gives Ollama.
options:
  _input:
    description:
      - The models, each one as a name, or as a dictionary of options of M(erni_ki.inference.ollama_model), which are C(name), C(state), C(gguf), C(from),
        C(modelfile), C(template), C(system), C(parameters), C(digest) and C(keep_alive).
    type: list
    elements: raw
    required: true
  threads:
    description: The threads that the plan gives Ollama, and that no model's parameter C(num_thread) may exceed. V(0) is no bound.
    type: int
    default: 0
  context:
    description: The tokens that the plan has video memory for, and that no model's parameter C(num_ctx) may exceed. V(0) is no bound.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Refuse what cannot work
  ansible.builtin.assert:
    that: problems | length == 0
    fail_msg: "{{ problems | join('\n') }}"
  vars:
    problems: "{{ ollama_models | erni_ki.inference.ollama_models_problems(threads=2) }}"
"""

RETURN = r"""
_value:
  description: A sentence for each model that has a problem, in the order of the models; empty where there is none.
  type: list
  elements: str
  sample: ["ollama_models, x: there is no option paramters: did you mean parameters?"]
"""

from ansible_collections.erni_ki.inference.plugins.module_utils import _ollama_recipe


class FilterModule:
    """The filter of that name."""

    def filters(self):
        return {"ollama_models_problems": _ollama_recipe.problems}
