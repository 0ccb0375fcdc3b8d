# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The example inventories: Ansible reads them, they set what there is to set, the plans can be made, and the gateways follow who is in them."""
from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from ansible_collections.erni_ki.inference.plugins.module_utils._plan import decide
from ansible_collections.erni_ki.inference.plugins.plugin_utils import _gateway
from ansible_collections.erni_ki.inference.tests.unit.plugins.plan_strategies import GPU, NO_GPU, split, topology

REPO = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = REPO / "inventory" / "example"
OPTIONS = {
    name for path in REPO.glob("roles/*/meta/argument_specs.yml")
    for spec in yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"].values() for name in spec.get("options") or {}}
# What the hosts of the fleet have.
HARDWARE = {
    "node1": (topology(split(8)), GPU),
    "node2": (topology(split(16), nodes={0: 32000, 1: 32000}, memory=64000, node_of=[0] * 8 + [1] * 8), GPU),
    "node3": (topology(split(8, threads=1)), NO_GPU),
}


def read(folder):
    """Return {host: its variables} and {group: its hosts}, as Ansible has them."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    shown = subprocess.run([sys.executable, "-m", "ansible", "inventory", "-i", str(folder), "--list"], capture_output=True, text=True, check=True,
                           cwd=folder, env={**environment, "ANSIBLE_INVENTORY_UNPARSED_FAILED": "1"})
    assert "WARNING" not in shown.stderr, shown.stderr
    found = json.loads(shown.stdout)
    groups = {name: group.get("hosts", []) for name, group in found.items() if name != "_meta"}
    return found["_meta"]["hostvars"], groups


@pytest.fixture(name="fleet", scope="module")
def fixture_fleet():
    return read(EXAMPLES / "fleet")


def own(variables):
    """A host's variables with its address put in."""
    return {name: value.replace("{{ ansible_host }}", variables["ansible_host"]) if isinstance(value, str) else value for name, value in variables.items()}


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.iterdir()))
def test_examples_set_what_there_is_to_set(name):
    hostvars, groups = read(EXAMPLES / name)
    assert groups["inference"]
    names = {variable for variables in hostvars.values() for variable in variables}
    assert {variable for variable in names if not variable.startswith("ansible_")} <= OPTIONS | {"site_serial"}


def test_the_fleet_has_hosts_of_different_shapes_and_two_gateways(fleet):
    hostvars, groups = fleet
    assert groups["gateway"] == ["gate1", "gate2"] and sorted(groups["inference"]) == sorted(HARDWARE)
    assert len({variables["ansible_host"] for variables in hostvars.values()}) == len(hostvars)


def plans(hostvars):
    found = {}
    for name, (facts, gpu) in HARDWARE.items():
        policy = {option[len("plan_"):]: value for option, value in hostvars[name].items() if option.startswith("plan_")}
        result = decide(facts, None, gpu, policy)
        assert not result["violations"], result["violations"]
        found[name] = result["plan"]
    return found


def test_each_host_has_a_plan_of_its_own(fleet):
    made = plans(fleet[0])
    assert {name: one["vllm"]["cpuset"] for name, one in made.items()} == {"node1": "0-6,8-14", "node2": "0-7,16-23", "node3": "0-5"}
    assert made["node2"]["vllm"]["numa_nodes"] == [0] and made["node3"]["ollama"] is None
    assert [one["ollama"]["device"]["kind"] for one in (made["node1"], made["node2"])] == ["gpu", "gpu"]


def engines(hostvars, groups, made, here="gate1"):
    """The engines that a gateway has by an inventory."""
    defaults = {name: value for role in ("vllm", "ollama")
                for name, value in yaml.safe_load((REPO / "roles" / role / "defaults" / "main.yml").read_text(encoding="utf-8")).items()}
    known = {name: {**own(variables), **({"plan_decided": made[name]} if name in made else {})} for name, variables in hostvars.items()}
    aliases = yaml.safe_load((REPO / "roles" / "gateway" / "defaults" / "main.yml").read_text(encoding="utf-8"))["gateway_aliases"]
    found = _gateway.from_inventory(known, groups["inference"], here, defaults, aliases=aliases, keys=[{"name": "example", "sha256": "0" * 64}])
    assert found["problems"] == found["left_out"] == []
    return {one["name"]: f"{one['address']}:{one['port']}" for one in found["settings"]["engines"]}, found["settings"]["routes"]


def test_a_host_is_added_and_taken_away_by_the_inventory_alone(tmp_path, fleet):
    folder = tmp_path / "fleet"
    shutil.copytree(EXAMPLES / "fleet", folder)
    made = plans(fleet[0])
    before, unused = engines(*fleet, made)
    assert before == {"node1-ollama": "192.0.2.11:11434", "node1-vllm": "192.0.2.11:8000", "node2-ollama": "192.0.2.12:11434", "node2-vllm": "192.0.2.12:8000",
                      "node3-vllm": "192.0.2.13:8000"}
    hosts = folder / "hosts.yml"
    text = hosts.read_text(encoding="utf-8")
    hosts.write_text(re.sub(r"    node2:\n      ansible_host: \S+\n", "", text), encoding="utf-8")
    left, routes = engines(*read(folder), made)
    assert left == {name: address for name, address in before.items() if not name.startswith("node2-")}
    assert not [one for targets in routes.values() for one in targets if one["engine"].startswith("node2-")] and "Qwen/Qwen2.5-1.5B-Instruct" not in routes
    # Both gateways have the same.
    assert engines(*fleet, made, here="gate2")[0] == before
