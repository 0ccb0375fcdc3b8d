# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands beside the engines of a host, as its variables say: the gateway, the exporter and the monitoring."""
from __future__ import annotations

from ansible_collections.erni_ki.inference.plugins.module_utils._address import bracketed


def is_inference(variables):
    return "inference" in (variables.get("group_names") or ["inference"])


def has(role, value):
    """Return whether a host has what the role makes: as the role decided in this run, or else as its variables ask for."""
    decided = value(f"{role}_decided")
    return value(f"{role}_state") in ("auto", "present") and (decided is None or bool(decided))


def has_gateway(variables, value):
    """Return the same of the gateway: each inference host has one of its own, unless there is a group for them."""
    grouped = "gateway" in (variables.get("groups") or {})
    return ("gateway" in variables["group_names"] if grouped else is_inference(variables)) and has("gateway", value)


def expected(variables, defaults):
    """Return what has to run on a host, as M(erni_ki.inference.colocation_info) takes it in C(beside); see the filter beside_engines."""
    def value(option):
        return variables.get(option, defaults.get(option))

    found = []
    if has_gateway(variables, value):
        found.append(_gateway(variables, value))
    if is_inference(variables) and has("exporter", value):
        found.append({"service": "exporter", "required": _must("exporter", value), "memory_mib": int(value("exporter_memory_max_mib")),
                      **_at(value("exporter_bind_address"), value("exporter_port"))})
    if value("monitoring_state") == "present":
        found += _monitoring(variables, value)
    return found


def _must(role, value):
    """Return whether the role leaves no host without; an automatic one may have, and only the host itself knows."""
    return value(f"{role}_state") == "present" or bool(value(f"{role}_decided"))


def _at(address, port, scheme="http"):
    """Return where a program listens, and the URL under which its own host asks it."""
    asked = {"0.0.0.0": "127.0.0.1", "::": "::1", "[::]": "[::1]"}.get(address, address)
    return {"listens": [f"{bracketed(address)}:{port}"], "url": f"{scheme}://{bracketed(asked)}:{port}"}


def _gateway(variables, value):
    place = _at(value("gateway_bind_address"), value("gateway_port"), "http" if value("gateway_tls") == "none" else "https")
    admin = value("gateway_admin_port")
    # The metrics are on the exporter's address too.
    place["listens"] += list(dict.fromkeys(f"{bracketed(address)}:{admin}" for address in ("127.0.0.1", value("exporter_bind_address"))))
    return {"service": "gateway", "required": _must("gateway", value) or "gateway" in (variables.get("groups") or {}),
            "memory_mib": int(value("gateway_memory_mib")), "admin_url": f"http://127.0.0.1:{admin}", "keys": bool(value("gateway_api_keys")), **place}


def _monitoring(variables, value):
    watching = (variables.get("groups") or {}).get("monitoring")
    found = []
    if not value("monitoring_external") and (not watching or variables.get("inventory_hostname") in watching):
        address = value("monitoring_bind_address")
        found += [
            {"service": "prometheus", "required": True, "memory_mib": int(value("monitoring_memory_mib")), **_at(address, value("monitoring_prometheus_port"))},
            {"service": "alertmanager", "required": True, **_at(address, value("monitoring_alertmanager_port"))}]
    if value("monitoring_node_exporter"):
        # One that was there before the role is somebody else's.
        found.append({"service": "node_exporter", "required": False, **_at(value("exporter_bind_address"), value("monitoring_node_exporter_port"))})
    return found
