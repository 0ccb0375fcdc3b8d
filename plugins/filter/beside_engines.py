# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: beside_engines
author: The erni_ki.inference team (@erni-ki)
version_added: 0.1.0
short_description: What has to stand beside the engines of a host
description:
  - Reads the variables of a host, and says which units of the gateway, the exporter and the monitoring it has, where they listen and what holds them. It is
    what M(erni_ki.inference.colocation_info) and M(erni_ki.inference.diagnosis_info) take as O(erni_ki.inference.colocation_info#module:beside).
  - What the host does not set has the default of the collection's role.
options:
  _input:
    description: The variables of the host.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show what has to stand beside the engines
  ansible.builtin.debug:
    msg: "{{ hostvars[inventory_hostname] | erni_ki.inference.beside_engines }}"
"""

RETURN = r"""
_value:
  description: The units, in the order in which they are judged.
  type: list
  elements: dict
  contains:
    service:
      description: Which unit it is.
      type: str
      sample: gateway
    required:
      description: Whether the host must have it. A role whose state is V(auto) may have left it out, and only the host knows.
      type: bool
      sample: true
    memory_mib:
      description: The memory limit that it has, where a variable says so.
      type: int
      sample: 1024
    listens:
      description: Where it listens.
      type: list
      elements: str
      sample: ["127.0.0.1:8080", "127.0.0.1:9836"]
    url:
      description: The base URL under which the host asks it.
      type: str
      sample: http://127.0.0.1:8080
    admin_url:
      description: The gateway's own page of what it knows of each engine.
      type: str
      sample: http://127.0.0.1:9836
    keys:
      description: Whether the gateway asks for keys.
      type: bool
      sample: false
"""

import functools
import pathlib

import yaml
from ansible_collections.erni_ki.inference.plugins.module_utils import _beside

ROLES = pathlib.Path(__file__).parents[2] / "roles"


@functools.lru_cache(maxsize=1)
def defaults():
    """Return the defaults of the roles that put something beside the engines; they are not among the variables of a host."""
    found = {}
    for role in ("gateway", "exporter", "monitoring"):
        found.update(yaml.safe_load((ROLES / role / "defaults" / "main.yml").read_text(encoding="utf-8")))
    return found


def beside_engines(variables):
    return _beside.expected(variables, defaults())


class FilterModule:
    """The filter of that name."""

    def filters(self):
        return {"beside_engines": beside_engines}
