# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The programs, and the files that the role's own tasks write for them."""
from __future__ import annotations

import pathlib
import re
import sys

import programs
import pytest
import yaml
from common import REPO
from sandbox_lib import host
from sandbox_lib.common import cache_dir, lock

from ansible_collections.erni_ki.inference.plugins.module_utils._exporter_metrics import METRICS
from ansible_collections.erni_ki.inference.tests.unit.roles.render import play

ROLE = REPO / "roles" / "monitoring"
FACTS = {"os_family": "Debian", "distribution": "Debian", "distribution_version": "13.0"}


@pytest.fixture(name="suites", scope="session")
def fixture_suites():
    """{release: the folder of its programs}."""
    cache = cache_dir()
    host.check_machine()
    with lock(cache / "lock", "the sandbox's cache"):
        host.ensure_tools(host.MACHINE_TOOLS, cache / "log" / "apt.log")
        return {suite: programs.ensure(cache, suite) for suite in programs.SUITES}


@pytest.fixture(name="bin", scope="session")
def fixture_bin(suites):
    """The programs of the release that the sandbox's host has."""
    return suites["trixie"]


class Written:
    """What the role's tasks wrote for one inventory."""

    def __init__(self, work, programs_folder):
        self.work, self.programs = work, programs_folder
        self.folder, self.grafana, self.units = work / "etc", work / "grafana", work / "units"

    def role(self, *tasks, hosts=None, group=(), code=0, words=(), **variables):
        """Run some of the role's task files on the first host of the group, or of C(hosts), {name: variables}; return what was printed."""
        hosts = hosts or {"node1": {}}
        for path in (self.work, self.folder.parent, self.grafana, self.units):
            path.mkdir(parents=True, exist_ok=True)
        common = {
            "ansible_connection": "local", "ansible_python_interpreter": sys.executable, "monitoring_state": "present",
            "__monitoring_folder": str(self.folder), "__monitoring_grafana_folder": str(self.grafana), "__monitoring_units": str(self.units),
            "__monitoring_note": str(self.work / "installed"), "__monitoring_promtool": str(self.programs / "promtool"),
            "__monitoring_amtool": str(self.programs / "amtool"), "__monitoring_credentials": str(self.work / "credentials"),
            **variables}
        groups = {"inference": {"hosts": hosts}}
        if group:
            groups["monitoring"] = {"hosts": dict.fromkeys(group)}
        internal = {name: value for name, value in common.items() if name.startswith("__")}
        public = {name: value for name, value in common.items() if not name.startswith("__")}
        (self.work / "inventory.yml").write_text(yaml.safe_dump({"all": {"vars": public, "children": groups}}), encoding="utf-8")
        (self.work / "internal.yml").write_text(yaml.safe_dump(internal), encoding="utf-8")
        (self.work / "playbook.yml").write_text(yaml.safe_dump([{
            "hosts": next(iter(group or hosts)), "gather_facts": False, "tasks": [
                {"name": "Facts", "ansible.builtin.set_fact": {"cacheable": True, **FACTS}},
                *({"name": f"Tasks {name}", "ansible.builtin.include_role": {"name": "erni_ki.inference.monitoring", "tasks_from": name}} for name in tasks),
                # Before the handlers: there is no systemd that could restart anything.
                {"name": "End", "ansible.builtin.meta": "end_play"}]}]), encoding="utf-8")
        return play(self.work, "--extra-vars", f"@{self.work / 'internal.yml'}", *words, code=code)

    def text(self, name):
        return (self.folder / name).read_text(encoding="utf-8")

    def load(self, name):
        return yaml.safe_load(self.text(name))


@pytest.fixture(name="written")
def fixture_written(tmp_path, bin):
    return Written(tmp_path / "work", bin)


@pytest.fixture(name="usual", scope="session")
def fixture_usual(tmp_path_factory, bin):
    """The files of one host without further variables."""
    found = Written(tmp_path_factory.mktemp("usual"), bin)
    found.role("configure")
    return found


@pytest.fixture(name="rules", scope="session")
def fixture_rules(usual):
    """Every rule of the role as {alert: rule}."""
    return {rule["alert"]: rule for group in usual.load("rules.yml")["groups"] for rule in group["rules"]}


@pytest.fixture(name="listed", scope="session")
def fixture_listed():
    """{source: names of the metrics that it gives}."""
    path = pathlib.Path(__file__).with_name("metrics.yml")
    gateway = (REPO / "roles" / "gateway" / "files" / "lua" / "erni_gateway" / "metrics.lua").read_text(encoding="utf-8")
    counted = {"counter": [""], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}
    return {
        **{source: set(names) for source, names in yaml.safe_load(path.read_text(encoding="utf-8")).items()},
        "exporter": set(METRICS),
        "gateway": {f"erni_ki_gateway_{name}{end}" for name, kind in re.findall(r'\{"(\w+)", "(counter|gauge|histogram)",', gateway) for end in counted[kind]},
    }
