# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report's pages as Ansible's own template module writes them."""
from __future__ import annotations

import json
import sys

import yaml

from ansible_collections.erni_ki.inference.tests.unit.roles.render import REPO, play

TEMPLATES = REPO / "roles" / "report" / "templates"


def draw(work, folder, cases, fleets=None):
    """Write NAME.html into a folder for each of the reports in C(cases), and for each of C(fleets); C(work) is a folder for what is needed on the way."""
    tasks = [{
        "name": f"Draw {kind}", "ansible.builtin.template": {"src": str(TEMPLATES / f"{kind}.html.j2"), "dest": "{{ folder }}/{{ item.key }}.html"},
        "loop": "{{ %s | dict2items }}" % name, "loop_control": {"label": "{{ item.key }}"}, "vars": variables} for kind, name, variables in (
            ("report", "cases", {"__report_made": "{{ item.value }}", "__report_pictures": "{{ item.value | erni_ki.inference.report_pictures }}"}),
            ("fleet", "fleets", {"__report_fleet": "{{ item.value }}"}))]
    (work / "cases.json").write_text(json.dumps({"cases": cases, "fleets": fleets or {}}), encoding="utf-8")
    (work / "playbook.yml").write_text(yaml.safe_dump([{
        "hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [
            {"name": "Read", "ansible.builtin.slurp": {"src": str(work / "cases.json")}, "register": "slurped"}, *tasks],
        "vars": {name: "{{ (slurped.content | b64decode | from_json).%s }}" % name for name in ("cases", "fleets")} | {"folder": str(folder)}}]),
        encoding="utf-8")
    (work / "inventory.yml").write_text(yaml.safe_dump({"all": {"hosts": {"localhost": {"ansible_python_interpreter": sys.executable}}}}), encoding="utf-8")
    play(work)
