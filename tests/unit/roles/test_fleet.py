# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook site on many hosts: who has a turn when, who is drained and put back, and what the verdict says. The roles are replaced by a log."""
from __future__ import annotations

import json
import re
import sys

import pytest
import yaml

from ansible_collections.erni_ki.inference.tests.unit.plugins.gateway_admin import Admin, engine
from ansible_collections.erni_ki.inference.tests.unit.roles.render import REPO, play

GATEWAY = ("tasks/turns.yml", "tasks/drain.yml", "tasks/put_back.yml", "meta", "defaults", "vars")
PLAN = {"ollama": None, "vllm": None}
NEW, OLD = ("new1", "new2"), ("old1", "old2", "old3")


def note(text, **more):
    return {"name": "Note", "ansible.builtin.command": {"argv": ["sh", "-c", f"echo {{{{ inventory_hostname }}}} {text} >> {{{{ log }}}}"]}, **more}


def refuse(when):
    return {"name": "Refuse", "ansible.builtin.fail": {"msg": "This cannot work."}, "when": f"{when} | default(false)"}


ROLES = {
    "plan/decide": [refuse("refused"), {"name": "Decide", "ansible.builtin.set_fact": {"plan_decided": PLAN}}],
    "plan/write": [note("plan", register="__plan_write")],
    "docker/preflight": [], "exporter/preflight": [], "gateway/preflight": [refuse("ungated")],
    "docker/main": [note("docker"), refuse("breaks")], "cpu_partition/main": [], "exporter/main": [], "gateway/main": [note("gateway")],
    "verify/main": [refuse("unproven"), note("proven")],
}


def collection(folder):
    """A collection in which only the order of things is the real one."""
    home = folder / "collections" / "ansible_collections" / "erni_ki" / "inference"
    (home / "plugins").mkdir(parents=True)
    for name in ("callback", "module_utils", "modules", "plugin_utils"):
        (home / "plugins" / name).symlink_to(REPO / "plugins" / name)
    for place, tasks in ROLES.items():
        role, entry = place.split("/")
        (home / "roles" / role / "tasks").mkdir(parents=True, exist_ok=True)
        (home / "roles" / role / "tasks" / f"{entry}.yml").write_text(yaml.safe_dump(tasks), encoding="utf-8")
    for name in GATEWAY:
        (home / "roles" / "gateway" / name).symlink_to(REPO / "roles" / "gateway" / name)
    return folder / "collections"


@pytest.fixture(name="site")
def fixture_site(tmp_path):
    """Runs site; returns what was printed, the log, and the engines that are drained at the end."""
    def run(hosts, gateways, code, *words, engines=None):
        log = tmp_path / "log"
        log.write_text("", encoding="utf-8")
        (tmp_path / "plan.json").touch()

        def told(path):
            with open(log, "a", encoding="utf-8") as stream:
                on, name = re.fullmatch(r"/(drain|undrain)/([\w-]+)\?unless_last=1", path).groups()
                stream.write(f"{name.partition('-')[0]} {on}\n")

        with Admin(*(engines or [engine(f"{name}-vllm") for name in OLD]), told=told) as admin:
            each = {name: {"applied": str(tmp_path / ("plan.json" if name in OLD else "none")), **variables} for name, variables in hosts.items()}
            common = {
                "ansible_connection": "local", "ansible_python_interpreter": sys.executable, "log": str(log), "__gateway_applied": "{{ applied }}",
                "gateway_admin_port": admin.port, "exporter_state": "auto"}
            (tmp_path / "inventory.yml").write_text(yaml.safe_dump({
                "all": {"vars": common}, "inference": {"hosts": each}, **({"gateway": {"hosts": gateways}} if gateways is not None else {})}), encoding="utf-8")
            (tmp_path / "playbook.yml").write_text(yaml.safe_dump([{"import_playbook": str(REPO / "playbooks" / "site.yml")}]), encoding="utf-8")
            (tmp_path / "ansible.cfg").write_text(
                "[defaults]\ncallbacks_enabled = erni_ki.inference.verdict\n[inventory]\nhost_pattern_mismatch = ignore\n", encoding="utf-8")
            # A role's own variables win over an inventory's.
            extra = ("-e", json.dumps({"__gateway_applied": "{{ applied }}"}))
            printed = play(tmp_path, *extra, *words, collections=collection(tmp_path), code=code)
            return printed, log.read_text(encoding="utf-8").splitlines(), admin.drained()
    return run


def turn(name):
    return [f"{name} {what}" for what in ("drain", "plan", "docker", "proven", "undrain")]


def verdicts(printed):
    return dict(re.findall(r"^host=(\S+) verdict=(\w+)", printed, re.MULTILINE))


def test_new_hosts_at_once_and_the_others_in_their_turns(site):
    """A host and a gateway that refuse keep nobody from anything, and are told of. What an earlier run left drained is put back, which is a change."""
    hosts = {"refused": {"refused": True}, **{name: {} for name in ("old1", "old2", *NEW)}}
    left = [engine("old1-vllm", drained=True, unless_last=True), engine("old2-vllm")]
    printed, log, drained = site(hosts, {"gate1": {}, "gate2": {"ungated": True}}, 2, engines=left)
    # Whatever two of them do at the same time comes in any order.
    assert sorted(log[:2]) == ["new1 plan", "new2 plan"] and sorted(log[2:4]) == ["new1 docker", "new2 docker"]
    # Both gateways are one here: each drains a host, and the second one finds it put back.
    assert log[4:-3] == ["old1 drain", *turn("old1"), "old2 drain", *turn("old2")]
    assert log[-3] == "gate1 gateway" and sorted(log[-2:]) == ["new1 proven", "new2 proven"] and drained == []
    assert verdicts(printed) == {**{name: "ok" for name in ("old1", "old2", *NEW, "gate1")}, "gate2": "failed", "refused": "failed"}
    changed = dict(re.findall(r"^host=(old\d) verdict=ok changed=(\d+)", printed, re.MULTILINE))
    assert int(changed["old1"]) == int(changed["old2"]) + 1
    assert printed.count("This cannot work.") >= 2 and "verdict=failed after" in printed


def test_one_that_is_not_proven_ends_the_run_and_stays_drained(site):
    printed, log, drained = site({"old1": {}, "old2": {"unproven": True}, "old3": {}}, {"gate": {}}, 2)
    assert log == turn("old1") + turn("old2")[:3] and drained == ["old2-vllm"]
    assert verdicts(printed) == {"old1": "unfinished", "old2": "failed", "old3": "unfinished", "gate": "unfinished"}
    assert "stays drained at gate: old2-vllm." in printed and "/undrain/old2-vllm" in printed and "the run ended early" in printed


def test_two_at_a_time_and_a_gateway_that_cannot_be_reached(site):
    away = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    printed, log, drained = site({name: {"site_serial": 2} for name in OLD}, {"away": away, "gate": {}}, 4, "--tags", "docker")
    assert {line.partition(" ")[0] for line in log[:8]} == {"old1", "old2"} and drained == []
    assert log[8:] == [line for line in turn("old3") if "proven" not in line]
    assert "it cannot be reached; requests that it hands" in printed
    assert verdicts(printed) == {"away": "failed", **{name: "ok" for name in (*OLD, "gate")}}


@pytest.mark.parametrize("hosts, gateways", [({name: {} for name in OLD}, None), ({"old1": {}}, {"old1": {}})])
def test_where_nobody_stands_in_nobody_waits_for_a_turn(site, hosts, gateways):
    log = site(hosts, gateways, 0, "--tags", "docker")[1]
    assert sorted(log[:len(hosts)]) == sorted(f"{name} plan" for name in hosts) and not [line for line in log if "drain" in line]


@pytest.mark.parametrize("serial", [0, "101%"])
def test_a_number_of_turns_that_makes_no_sense_is_refused(site, serial):
    printed, log, drained = site({name: {"site_serial": serial} for name in OLD}, {"gate": {}}, 2)
    assert f"site_serial is {serial}, and" in " ".join(printed.split()) and log == drained == []


def test_tags_that_change_no_service_drain_nobody(site):
    assert site({"old1": {}, "old2": {}}, {"gate": {}}, 0, "--tags", "gateway")[1] == ["old1 plan", "old2 plan", "gate gateway"]


def test_check_mode_drains_nobody(site):
    printed, log, drained = site({"old1": {}, "old2": {}}, {"gate": {}}, 0, "--check", "--tags", "docker")
    assert log == [] and drained == [] and "verdict=ok after" in printed
