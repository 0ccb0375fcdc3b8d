# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class ModuleDocFragment:
    """The option of the modules that look at what stands beside the engines; module_utils/_check_beside.py has it for their arguments."""

    DOCUMENTATION = r"""
options:
  beside:
    description:
      - What stands beside the engines on this host, as units of systemd that run on the CPUs which the plan leaves to the system. The filter
        P(erni_ki.inference.beside_engines#filter) makes it of a host's variables.
      - Without it only the engines and the host around them are looked at.
    type: list
    elements: dict
    default: []
    suboptions:
      service:
        description: Which unit it is.
        type: str
        required: true
        choices: [gateway, exporter, prometheus, alertmanager, node_exporter]
      required:
        description: Whether it is a fault that this collection has not put it on the host. Otherwise it is passed over where it is not.
        type: bool
        default: true
      memory_mib:
        description: The memory limit that it must have, in MiB. Without it, it must have one.
        type: int
      listens:
        description: Where it must listen, and nowhere else, each as C(ADDRESS:PORT).
        type: list
        elements: str
        required: true
      url:
        description: The base URL under which the host itself asks it. With C(https) nobody asks who signed the certificate.
        type: str
        required: true
      admin_url:
        description: The base URL of the gateway's own page of what it knows of each engine.
        type: str
      keys:
        description: Whether the gateway must refuse whoever has no key.
        type: bool
        default: false
"""
