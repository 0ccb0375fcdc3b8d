# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets Ansible itself compute a role's internal variables, without a host and without running the role."""
from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import yaml

REPO = pathlib.Path(__file__).resolve().parents[3]
FACTS = {name: "{{ case_facts[%r] | default('') }}" % name for name in (
    "os_family", "distribution", "distribution_version", "distribution_major_version", "architecture")}
PLAYBOOK = [{
    "hosts": "cases", "connection": "local", "gather_facts": False,
    "tasks": [
        {"name": "Facts", "ansible.builtin.set_fact": {"cacheable": True, **FACTS}},
        {"name": "Variables of the role", "ansible.builtin.include_vars": "{{ case_role_vars }}"},
        {"name": "Compute", "ansible.builtin.set_fact": {"computed": "{{ case_wanted }}"}},
    ],
}, {
    "hosts": "localhost", "connection": "local", "gather_facts": False,
    "tasks": [{"name": "Keep", "ansible.builtin.copy": {
        "content": "{{ groups['cases'] | map('extract', hostvars) | map(attribute='computed') | list | to_json }}", "dest": "{{ case_output }}",
        "mode": "0600"}}],
}]


def render(folder, role, wanted, cases, facts=None, groups=()):
    """Return for each case, a dictionary of variables over the role's defaults, the wanted variables as {name: value}; each is a host of some groups."""
    defaults = yaml.safe_load((REPO / "roles" / role / "defaults" / "main.yml").read_text(encoding="utf-8"))
    common = {
        "ansible_python_interpreter": sys.executable, "case_role_vars": str(REPO / "roles" / role / "vars" / "main.yml"),
        "case_facts": facts or {"os_family": "Debian"}, "case_wanted": {name: "{{ %s }}" % name for name in wanted},
        "case_output": str(folder / "computed.json"),
    }
    hosts = {f"case{number:03d}": {**defaults, **case} for number, case in enumerate(cases)}
    (folder / "inventory.yml").write_text(yaml.safe_dump({"all": {
        "vars": common, "hosts": {"localhost": {}}, "children": {
            "cases": {"hosts": hosts}, **{name: {"hosts": dict.fromkeys(hosts)} for name in groups}}}}), encoding="utf-8")
    (folder / "playbook.yml").write_text(yaml.safe_dump(PLAYBOOK), encoding="utf-8")
    play(folder)
    return json.loads((folder / "computed.json").read_text(encoding="utf-8"))


def play(folder, *words, collections=REPO / ".cache" / "collections", code=0):
    """Run the folder's playbook.yml with its inventory.yml; it has to end with this exit code. Return what was printed."""
    (folder / "ansible.cfg").touch()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment.update(
        ANSIBLE_COLLECTIONS_PATH=str(collections), ANSIBLE_HOME=str(folder / "home"), ANSIBLE_CONFIG=str(folder / "ansible.cfg"),
        ANSIBLE_NOCOLOR="1", ANSIBLE_PIPELINING="1", ANSIBLE_LOCALHOST_WARNING="False")
    done = subprocess.run(
        [sys.executable, "-m", "ansible", "playbook", "-i", str(folder / "inventory.yml"), str(folder / "playbook.yml"), *words],
        cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def play_locally(folder, task, *words, code=0, groups=()):
    """Run one task on this machine, with its facts, as a host of some groups; see play."""
    (folder / "inventory.yml").write_text(yaml.safe_dump({"all": {"hosts": {"localhost": {
        "ansible_connection": "local", "ansible_python_interpreter": sys.executable}},
        "children": {name: {"hosts": {"localhost": {}}} for name in groups}}}), encoding="utf-8")
    (folder / "playbook.yml").write_text(yaml.safe_dump([{
        "hosts": "localhost", "gather_facts": True, "gather_subset": ["!all", "min"], "tasks": [{"name": "Play", **task}]}]), encoding="utf-8")
    return play(folder, *words, code=code)
