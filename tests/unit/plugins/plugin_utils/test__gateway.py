# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the gateway is told, and what cannot work."""
from __future__ import annotations

import base64
import json

import pytest
from ansible_collections.erni_ki.inference.plugins.filter import gateway_settings
from ansible_collections.erni_ki.inference.plugins.plugin_utils import _gateway

DEFAULTS = {
    "vllm_bind_address": "127.0.0.1", "vllm_port": 8000, "vllm_model": "org/model", "vllm_served_model_name": "", "ollama_bind_address": "127.0.0.1",
    "ollama_port": 11434, "ollama_models": ["llama3.2:3b"]}
VLLM, CPU = {"engine": {"max_num_seqs": 64}, "device": {"kind": "none"}}, {"device": {"kind": "none"}}
ALIASES = {"chat": [{"service": "ollama"}, {"service": "vllm"}], "batch": [{"service": "vllm"}, {"service": "ollama"}]}
BOTH = {"vllm": VLLM, "ollama": CPU}


def gpu(**vram):
    return {"device": {"kind": "gpu", "vram": {"partial_allowed": False, "parallel": 2, "max_loaded_models": 3, **vram}}}


def made(hostvars, members=None, here="one", aliases=None, **more):
    make = gateway_settings.FilterModule().filters()["gateway_settings"]
    return make(hostvars, members=members or [here], here=here, defaults=DEFAULTS, aliases=ALIASES if aliases is None else aliases, **more)


def engine(found, name):
    return next(one for one in found["settings"]["engines"] if one["name"] == name)


def test_one_host_with_both():
    found = made({"one": {"plan_decided": BOTH}}, limits={"probe_interval": "5"})
    assert found["problems"] == found["left_out"] == [] and found["settings"]["limits"] == {"probe_interval": 5}
    vllm, ollama = engine(found, "vllm"), engine(found, "ollama")
    assert (vllm["address"], vllm["port"], vllm["models"], vllm["max_connections"], vllm["device"]) == ("127.0.0.1", 8000, ["org/model"], 64, "none")
    assert (ollama["port"], ollama["max_connections"], ollama["upstream"]) == (11434, 1, "engine_ollama")
    assert found["settings"]["aliases"] == {"chat": True, "batch": True}
    assert found["settings"]["routes"] == {
        "org/model": [{"engine": "vllm", "model": "org/model", "rank": 1}], "llama3.2:3b": [{"engine": "ollama", "model": "llama3.2:3b", "rank": 1}],
        "chat": [{"engine": "ollama", "model": "llama3.2:3b", "rank": 1}, {"engine": "vllm", "model": "org/model", "rank": 2}],
        "batch": [{"engine": "vllm", "model": "org/model", "rank": 1}, {"engine": "ollama", "model": "llama3.2:3b", "rank": 2}]}
    json.dumps(found)


@pytest.mark.parametrize("variables, service, wanted", [
    ({"vllm_model": "/srv/models/tiny/"}, "vllm", ["tiny"]),
    ({"vllm_model": "/srv/models/tiny", "vllm_served_model_name": "small"}, "vllm", ["small"]),
    ({"ollama_models": ["a", {"name": "b:1"}, {"name": "c", "state": "absent"}]}, "ollama", ["a", "b:1"]),
    ({"ollama_models": []}, "ollama", []),
])
def test_names_of_models(variables, service, wanted):
    found = made({"one": {"plan_decided": BOTH, **variables}})
    assert engine(found, service)["models"] == wanted and found["problems"] == []


def test_a_model_without_a_tag_is_the_latest():
    routes = made({"one": {"plan_decided": BOTH, "ollama_models": ["a", "b:latest", "host:5000/c"]}})["settings"]["routes"]
    assert {"a", "a:latest", "b", "b:latest", "host:5000/c", "host:5000/c:latest"} <= set(routes)
    assert routes["a:latest"] == [{"engine": "ollama", "model": "a", "rank": 1}]


@pytest.mark.parametrize("plan, device, room", [
    (gpu(), "gpu", 6), (gpu(partial_allowed=True), "gpu_in_part", 6), (gpu(parallel=1, max_loaded_models=1), "gpu", 1), (CPU, "none", 1)])
def test_the_plan_says_the_device_and_how_much_an_engine_can_take(plan, device, room):
    ollama = engine(made({"one": {"plan_decided": {"ollama": plan, "vllm": None}}}), "ollama")
    assert (ollama["device"], ollama["max_connections"]) == (device, room)


def test_a_host_without_a_service_has_the_other_one_for_every_alias():
    found = made({"one": {"plan_decided": {"vllm": VLLM, "ollama": None}}})
    assert found["problems"] == [] and [one["engine"] for one in found["settings"]["routes"]["chat"]] == ["vllm"]


def fleet(**first):
    return {
        "gate": {}, "node1": {"plan_decided": BOTH, "ansible_host": "192.0.2.11", "vllm_bind_address": "192.0.2.11", "ollama_bind_address": "0.0.0.0", **first},
        "node2": {"ansible_host": "192.0.2.12", "vllm_bind_address": "192.0.2.12", "vllm_port": 8001, "vllm_api_key_file": "/etc/key"}}


READ = [{"__gateway_member": "node2", "content": base64.b64encode(json.dumps({"vllm": VLLM, "ollama": None}).encode()).decode()}]
SECRET = [{"__gateway_member": "node2", "content": base64.b64encode(b"secret\n").decode()}]


def test_many_hosts():
    found = made(fleet(), ["node1", "node2"], "gate", plans=READ, engine_keys=SECRET)
    assert found["problems"] == [] and [one["name"] for one in found["settings"]["engines"]] == ["node1-ollama", "node1-vllm", "node2-vllm"]
    assert engine(found, "node1-ollama")["address"] == "192.0.2.11" and engine(found, "node2-vllm")["port"] == 8001
    assert engine(found, "node2-vllm")["authorization"] == "Bearer secret" and engine(found, "node1-vllm")["authorization"] == ""
    assert [(one["engine"], one["rank"]) for one in found["settings"]["routes"]["batch"]] == [("node1-vllm", 1), ("node2-vllm", 1), ("node1-ollama", 2)]
    only = made(fleet(), ["node1", "node2"], "gate", {"code": [{"service": "vllm", "host": "node2", "model": "org/model"}]}, plans=READ, engine_keys=SECRET)
    assert only["settings"]["routes"]["code"] == [{"engine": "node2-vllm", "model": "org/model", "rank": 1}]


def test_a_host_without_a_plan_is_left_out_and_named():
    found = made(fleet(), ["node1", "node2"], "gate", plans=[{"__gateway_member": "node2", "unreachable": True}])
    assert found["problems"] == [] and len(found["left_out"]) == 1 and found["left_out"][0].startswith("node2 is left out")
    # The names do not depend on who is there today.
    assert [one["name"] for one in found["settings"]["engines"]] == ["node1-ollama", "node1-vllm"]


KEY = {"name": "a", "sha256": "0" * 64}


@pytest.mark.parametrize("hostvars, arguments, words", [
    ({"one": {}}, {}, ["no engine behind this gateway"]),
    (fleet(vllm_bind_address="127.0.0.1"), {"members": ["node1"], "here": "gate"}, ["vllm of node1 listens on 127.0.0.1", "vllm_bind_address", "192.0.2.11"]),
    (fleet(vllm_bind_address="localhost"), {"members": ["node1"], "here": "gate"}, ["vllm of node1 listens on localhost"]),
    (fleet(), {"members": ["node1", "node3"], "here": "gate"}, ["gateway_hosts: node3"]),
    (fleet(), {"members": ["node2"], "here": "gate", "plans": READ}, ["vllm_api_key_file of node2"]),
    (None, {"aliases": {"x": [{"service": "vlm"}]}}, ["service is vlm", "ollama, vllm"]),
    (None, {"aliases": {"x": [{"service": "vllm", "modell": "y"}]}}, ["no option modell"]),
    (None, {"aliases": {"x": [{"service": "vllm", "model": "y"}]}}, ["vllm with the model y", "vllm with org/model"]),
    (None, {"aliases": {"x": [{"service": "vllm", "host": "two"}]}}, ["two is no host"]),
    (None, {"aliases": {"x": []}}, ["no engine of this gateway can answer it"]),
    (None, {"aliases": {"org/model": [{"service": "vllm"}]}}, ["has that name already"]),
    (None, {"drained": ["vlm"]}, ["gateway_drained", "ollama, vllm"]),
    (None, {"keys": [{"name": "a b", "sha256": "0" * 64}]}, ["a b", "letters"]),
    (None, {"keys": [{"name": "a", "sha256": "secret"}]}, ["6 characters", "sha256sum"]),
    (None, {"keys": [KEY, {**KEY, "sha256": "1" * 64}]}, ["two keys"]),
    (None, {"keys": [KEY, {**KEY, "name": "b"}]}, ["same key as a"]),
    (None, {"keys": [{**KEY, "requests_per_minute": -1}]}, ["0 or more"]),
])
def test_what_cannot_work(hostvars, arguments, words):
    problems = made(hostvars or {"one": {"plan_decided": BOTH}}, **arguments)["problems"]
    assert len(problems) == 1 and all(word in problems[0] for word in words), problems


def test_keys():
    keys = made({"one": {"plan_decided": BOTH}}, keys=[{"name": "a", "sha256": "A" * 64, "requests_per_minute": 60}, {**KEY, "name": "b"}])["settings"]["keys"]
    assert keys == {"a" * 64: {"name": "a", "requests_per_minute": 60, "burst": 10}, "0" * 64: {"name": "b", "requests_per_minute": 0, "burst": 1}}


@pytest.mark.parametrize("address, wanted", [("::1", "[::1]"), ("[::1]", "[::1]"), ("0.0.0.0", "127.0.0.1"), ("192.0.2.1", "192.0.2.1")])
def test_addresses_of_its_own_host(address, wanted):
    assert engine(made({"one": {"plan_decided": BOTH, "vllm_bind_address": address}}), "vllm")["address"] == wanted


def test_the_settings_are_pure():
    host = _gateway.host_of("one", {}, DEFAULTS, BOTH, "one")
    before = json.dumps(host)
    first = _gateway.settings([host], "one", ALIASES, [], {}, drained=["vllm"])
    assert first == _gateway.settings([host], "one", ALIASES, [], {}, drained=["vllm"]) and json.dumps(host) == before
    assert engine(first, "vllm")["drained"] and not engine(first, "ollama")["drained"]
