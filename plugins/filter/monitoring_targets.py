# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: monitoring_targets
author: The erni_ki.inference team (@erni-ki)
version_added: 0.1.0
short_description: What Prometheus has to scrape on some hosts
description:
  - Reads the variables of each host, and says for each of its programs with metrics the address under which a Prometheus on another host, or on the same,
    reaches it. Hosts whose C(monitoring_state) is not C(present) are left out, but for the one that scrapes.
options:
  _input:
    description: The variables of each host, by the host's name.
    type: dict
    required: true
  server:
    description: The name of the host that scrapes.
    type: str
    required: true
  defaults:
    description: The values of the variables C(monitoring_…), C(exporter_…), C(gateway_…), C(vllm_…) and C(plan_…) that a host does not set.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show what is scraped
  ansible.builtin.debug:
    msg: "{{ {'node1': hostvars['node1']} | erni_ki.inference.monitoring_targets(server='node1', defaults=defaults) }}"
  vars:
    defaults: "{{ lookup('ansible.builtin.file', 'defaults.yml') | from_yaml }}"
"""

RETURN = r"""
_value:
  description: The targets, sorted by job and host.
  type: list
  elements: dict
  contains:
    job:
      description: The job of the target, as the alert rules name it.
      type: str
      sample: node
    instance:
      description: The host, by its name in the inventory.
      type: str
      sample: node1
    address:
      description: Where it is reached, as host:port.
      type: str
      sample: 192.0.2.1:9100
    reachable:
      description: Whether the server can reach it; another host's loopback it cannot.
      type: bool
      sample: true
"""

from ansible_collections.erni_ki.inference.plugins.module_utils import _scrape


class FilterModule:
    """The filter of that name."""

    def filters(self):
        return {"monitoring_targets": _scrape.targets}
