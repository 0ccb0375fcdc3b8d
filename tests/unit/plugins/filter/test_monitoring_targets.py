# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pathlib

import pytest
import yaml

from ansible_collections.erni_ki.inference.plugins.filter import monitoring_targets as plugin

ROLES = pathlib.Path(__file__).resolve().parents[4] / "roles"
DEFAULTS = {}
for role in ("monitoring", "exporter", "gateway", "vllm", "plan"):
    DEFAULTS.update(yaml.safe_load((ROLES / role / "defaults" / "main.yml").read_text(encoding="utf-8")))
PRIVATE = {"monitoring_state": "present", "exporter_bind_address": "0.0.0.0", "vllm_bind_address": "0.0.0.0"}


def targets(hosts, server):
    return plugin.FilterModule().filters()["monitoring_targets"](hosts, server=server, defaults=DEFAULTS)


def addresses(hosts, server):
    return {(entry["job"], entry["instance"]): entry["address"] for entry in targets(hosts, server)}


def test_the_filter_takes_and_gives_what_its_documentation_says():
    assert set(yaml.safe_load(plugin.DOCUMENTATION)["options"]) == {"_input", "server", "defaults"}
    fields = yaml.safe_load(plugin.RETURN)["_value"]["contains"]
    [first, *unused] = targets({"node1": {}}, "node1")
    assert set(first) == set(fields) and [type(first[name]).__name__ for name in fields] == [field["type"] for field in fields.values()]


def test_a_host_of_its_own_is_asked_on_loopback():
    found = targets({"node1": {}}, "node1")
    assert [(entry["job"], entry["address"], entry["reachable"]) for entry in found] == [
        ("erni_ki_exporter", "127.0.0.1:9835", True), ("erni_ki_gateway", "127.0.0.1:9836", True),
        ("node", "127.0.0.1:9100", True), ("vllm", "127.0.0.1:8000", True)]


def test_what_a_host_does_not_have_is_not_asked():
    own = {"plan_services": ["ollama"], "monitoring_node_exporter": False}
    assert addresses({"node1": own}, "node1") == {
        ("erni_ki_exporter", "node1"): "127.0.0.1:9835", ("erni_ki_gateway", "node1"): "127.0.0.1:9836"}


def test_a_fleet_is_asked_where_ansible_reaches_it():
    hosts = {"watch": {"group_names": ["monitoring"]}, "node1": {**PRIVATE, "ansible_host": "192.0.2.1"},
             "node2": {**PRIVATE, "monitoring_address": "2001:db8::2"},
             "node3": {"monitoring_state": "unmanaged"}, "node4": PRIVATE}
    found = addresses(hosts, "watch")
    assert {instance for unused, instance in found} == {"watch", "node1", "node2", "node4"}
    assert found["node", "watch"] == "127.0.0.1:9100" and ("vllm", "watch") not in found and ("erni_ki_exporter", "watch") not in found
    assert found["vllm", "node1"] == "192.0.2.1:8000" and found["node", "node2"] == "[2001:db8::2]:9100" and found["node", "node4"] == "node4:9100"


def test_an_own_address_is_taken_as_it_is():
    own = {"exporter_bind_address": "10.0.0.1", "vllm_bind_address": "10.0.0.1", "monitoring_state": "present"}
    assert set(addresses({"node1": own}, "node1").values()) == {"10.0.0.1:9835", "10.0.0.1:9836", "10.0.0.1:9100", "10.0.0.1:8000"}
    assert all(entry["reachable"] for entry in targets({"watch": {}, "node1": own}, "watch"))


def test_the_loopback_of_another_host_is_out_of_reach():
    found = targets({"watch": {"group_names": ["monitoring"]}, "node1": {"monitoring_state": "present"}}, "watch")
    assert [(entry["job"], entry["instance"]) for entry in found if not entry["reachable"]] == [
        ("erni_ki_exporter", "node1"), ("erni_ki_gateway", "node1"), ("node", "node1"), ("vllm", "node1")]


@pytest.mark.parametrize("role, job", [("exporter", "erni_ki_exporter"), ("gateway", "erni_ki_gateway")])
@pytest.mark.parametrize("own, there", [
    ({"state": "absent"}, False), ({"state": "unmanaged"}, False), ({"state": "present"}, True), ({"decided": False}, False), ({"decided": True}, True),
    ({"state": "absent", "decided": True}, False)])
def test_what_a_role_left_out_is_not_asked(role, job, own, there):
    own = {f"{role}_{name}": value for name, value in own.items()}
    assert ((job, "node1") in addresses({"node1": own}, "node1")) == there


def test_with_a_group_for_gateways_only_its_hosts_have_one():
    groups = {"gateway": ["front"], "inference": ["node1"]}
    hosts = {"front": {**PRIVATE, "group_names": ["gateway"], "groups": groups, "ansible_host": "192.0.2.9", "gateway_admin_port": 9900},
             "node1": {**PRIVATE, "group_names": ["inference"], "groups": groups, "ansible_host": "192.0.2.1"}}
    assert {key: address for key, address in addresses(hosts, "watch").items() if key[0].startswith("erni_ki")} == {
        ("erni_ki_gateway", "front"): "192.0.2.9:9900", ("erni_ki_exporter", "node1"): "192.0.2.1:9835"}
