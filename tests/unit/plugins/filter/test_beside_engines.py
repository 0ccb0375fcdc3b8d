# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
import yaml

from ansible_collections.erni_ki.inference.plugins.filter import beside_engines as plugin
from ansible_collections.erni_ki.inference.plugins.module_utils import _check_beside


def found(**variables):
    return {one["service"]: one for one in plugin.FilterModule().filters()["beside_engines"](variables)}


def test_the_filter_takes_and_gives_what_its_documentation_says():
    assert set(yaml.safe_load(plugin.DOCUMENTATION)["options"]) == {"_input"}
    fields = yaml.safe_load(plugin.RETURN)["_value"]["contains"]
    assert set(fields) == set(_check_beside.options()) and set(found()["gateway"]) == set(fields)
    assert {name: type(value).__name__ for name, value in found()["gateway"].items()} == {name: field["type"] for name, field in fields.items()}


def test_what_it_gives_is_what_the_module_takes():
    everything = list(found(monitoring_state="present").values())
    taken = [{"required": True, "memory_mib": None, "admin_url": None, "keys": False, **one} for one in everything]
    assert [one.service for one in _check_beside.wanted({"beside": taken, "timeout": 1})] == list(_check_beside.KINDS)


def test_a_host_of_its_own():
    assert found() == {
        "gateway": {"service": "gateway", "required": False, "memory_mib": 1024, "listens": ["127.0.0.1:8080", "127.0.0.1:9836"],
                    "url": "http://127.0.0.1:8080", "admin_url": "http://127.0.0.1:9836", "keys": False},
        "exporter": {"service": "exporter", "required": False, "memory_mib": 128, "listens": ["127.0.0.1:9835"], "url": "http://127.0.0.1:9835"}}


@pytest.mark.parametrize("role", ["gateway", "exporter"])
@pytest.mark.parametrize("own, required", [
    ({"state": "absent"}, None), ({"state": "unmanaged"}, None), ({"decided": False}, None), ({"state": "present"}, True), ({"decided": True}, True),
    ({}, False)])
def test_whether_a_host_has_it(role, own, required):
    assert found(**{f"{role}_{name}": value for name, value in own.items()}).get(role, {}).get("required") is required


@pytest.mark.parametrize("address, listens, url", [
    ("0.0.0.0", "0.0.0.0:8443", "https://127.0.0.1:8443"), ("[::]", "[::]:8443", "https://[::1]:8443"),
    ("192.0.2.1", "192.0.2.1:8443", "https://192.0.2.1:8443"),
    ("2001:db8::1", "[2001:db8::1]:8443", "https://[2001:db8::1]:8443")])
def test_a_gateway_for_the_network(address, listens, url):
    made = found(gateway_bind_address=address, gateway_port="8443", gateway_tls="self_signed", gateway_api_keys=[{"name": "a"}],
                 exporter_bind_address="10.0.0.1")["gateway"]
    assert (made["listens"], made["url"], made["keys"]) == ([listens, "127.0.0.1:9836", "10.0.0.1:9836"], url, True)


def test_with_a_group_for_gateways_only_its_hosts_have_one():
    groups = {"gateway": ["front"], "inference": ["node1", "front"]}
    assert found(groups=groups, group_names=["gateway", "inference"])["gateway"]["required"] is True
    assert set(found(groups=groups, group_names=["inference"])) == {"exporter"}


def test_the_monitoring():
    own = {"monitoring_state": "present", "inventory_hostname": "node1"}
    made = found(**own)
    assert {name: (one.get("memory_mib"), one["required"], one["listens"]) for name, one in made.items() if name not in ("gateway", "exporter")} == {
        "prometheus": (512, True, ["127.0.0.1:9090"]), "alertmanager": (None, True, ["127.0.0.1:9093"]), "node_exporter": (None, False, ["127.0.0.1:9100"])}
    assert "prometheus" not in found(monitoring_external=True, **own) and "node_exporter" not in found(monitoring_node_exporter=False, **own)
    assert {"prometheus", "alertmanager"} & set(found(groups={"monitoring": ["watch"]}, **own)) == set()
    assert "prometheus" in found(groups={"monitoring": ["node1"]}, **own)
