# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmark's page as Ansible's own template module writes it."""
from __future__ import annotations

import json
import sys

import yaml

from ansible_collections.erni_ki.inference.tests.unit.roles.render import REPO, play


def draw(work, folder, cases):
    """Write NAME.html into a folder for each result in C(cases); C(work) is a folder for what is needed on the way."""
    tasks = [{
        "name": "Draw", "ansible.builtin.template": {"src": str(REPO / "roles/benchmark/templates/report.html.j2"), "dest": "{{ folder }}/{{ item.key }}.html"},
        "loop": "{{ cases | dict2items }}", "loop_control": {"label": "{{ item.key }}"},
        "vars": {"__benchmark_report": "{{ item.value }}", "__benchmark_pictures": "{{ item.value | erni_ki.inference.benchmark_pictures }}"}}]
    (work / "cases.json").write_text(json.dumps(cases), encoding="utf-8")
    (work / "playbook.yml").write_text(yaml.safe_dump([{
        "hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks,
        "vars": {"cases": "{{ lookup('file', work ~ '/cases.json') | from_json }}", "work": str(work), "folder": str(folder)}}]), encoding="utf-8")
    (work / "inventory.yml").write_text(yaml.safe_dump({"all": {"hosts": {"localhost": {"ansible_python_interpreter": sys.executable}}}}), encoding="utf-8")
    play(work)
