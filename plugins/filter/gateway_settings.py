# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: gateway_settings
author: The erni_ki.inference team (@erni-ki)
version_added: 0.1.0
short_description: What a gateway needs to know of its engines, and what cannot work
description:
  - Makes the settings of the role C(gateway) from the plans and variables of the hosts behind it.
options:
  _input:
    description: The variables of all hosts, C(hostvars).
    type: dict
    required: true
  members:
    description: The names of the hosts whose engines are behind the gateway.
    type: list
    elements: str
    required: true
  here:
    description: The name of the gateway's own host. Engines of any other one must be reachable from it.
    type: str
    required: true
  defaults:
    description: The defaults of the roles C(vllm) and C(ollama).
    type: dict
    required: true
  plans:
    description: The results of reading C(/etc/erni-ki/plan.json) on hosts without C(plan_decided) among their variables.
    type: list
    elements: dict
    default: []
  engine_keys:
    description: The results of reading C(vllm_api_key_file).
    type: list
    elements: dict
    default: []
  aliases:
    description: The role's option C(gateway_aliases).
    type: dict
    default: {}
  keys:
    description: The role's option C(gateway_api_keys).
    type: list
    elements: dict
    default: []
  drained:
    description: The role's option C(gateway_drained).
    type: list
    elements: str
    default: []
  max_queue:
    description: The role's option C(gateway_max_queue).
    type: int
    default: 8
  limits:
    description: Times in seconds and counts that the gateway is handed as they are.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Make the settings of a gateway for one host
  ansible.builtin.debug:
    msg: "{{ made['problems'] }}"
  vars:
    made: >-
      {{ hostvars | erni_ki.inference.gateway_settings(
           members=[inventory_hostname], here=inventory_hostname, aliases={'chat': [{'service': 'ollama'}]},
           defaults={'vllm_bind_address': '127.0.0.1', 'vllm_port': 8000, 'vllm_model': 'x', 'vllm_served_model_name': '',
                     'ollama_bind_address': '127.0.0.1', 'ollama_port': 11434, 'ollama_models': ['llama3.2:3b']}) }}
"""

RETURN = r"""
_value:
  description:
    - C(settings) is what the gateway reads, C(problems) a sentence for each thing that cannot work, and C(left_out) one for each host that has no plan or
      could not be asked for it.
  type: dict
"""

from ansible_collections.erni_ki.inference.plugins.plugin_utils import _gateway


class FilterModule:
    """The filter of that name."""

    def filters(self):
        return {"gateway_settings": _gateway.from_inventory}
