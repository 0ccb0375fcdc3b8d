# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Prometheus scrapes on which host, and under which address."""
from __future__ import annotations

from ansible_collections.erni_ki.inference.plugins.module_utils import _beside
from ansible_collections.erni_ki.inference.plugins.module_utils._address import bracketed, is_everywhere, is_loopback


def targets(hosts, server, defaults):
    """Return the targets on C(hosts), a dictionary {name: variables}, as the host C(server) reaches them; see the filter of that name."""
    found = []
    for name, variables in hosts.items():
        def value(option, own=variables):
            return own.get(option, defaults.get(option))

        # The server itself is where this is asked, whatever its variables say.
        if name != server and value("monitoring_state") != "present":
            continue
        reached = value("monitoring_address") or value("ansible_host") or name
        exporters = value("exporter_bind_address")
        inference = _beside.is_inference(variables)
        listening = {}
        if inference and _beside.has("exporter", value):
            listening["erni_ki_exporter"] = (exporters, value("exporter_port"))
        if inference and "vllm" in value("plan_services"):
            listening["vllm"] = (value("vllm_bind_address"), value("vllm_port"))
        if value("monitoring_node_exporter"):
            listening["node"] = (exporters, value("monitoring_node_exporter_port"))
        if _beside.has_gateway(variables, value):
            listening["erni_ki_gateway"] = (exporters, value("gateway_admin_port"))
        for job, (address, port) in listening.items():
            found.append({"job": job, "instance": name, "address": f"{bracketed(_seen(address, reached, name == server))}:{port}",
                          "reachable": name == server or not is_loopback(address)})
    return sorted(found, key=lambda target: (target["job"], target["instance"]))


def _seen(address, reached, same):
    """Return the address under which a program that listens on C(address) is reached."""
    if is_everywhere(address):
        return "127.0.0.1" if same else reached
    return address
