# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters that show and write rows of usage, and the play over several hosts, with real logs."""
from __future__ import annotations

import csv
import sys

import yaml

from ansible_collections.erni_ki.inference.plugins.filter import usage_csv, usage_table
from ansible_collections.erni_ki.inference.plugins.module_utils import _usage
from ansible_collections.erni_ki.inference.tests.unit.roles.render import play

BEGIN = _usage.instant("2026-11-28T00:00:00Z")


def line(end, tokens):
    return _usage.encode({"version": 1, "time": _usage.stamp(end), "seconds": 60.0, "services": {"vllm": {"cpu_seconds": {"0": 30.0}, "tokens_out": tokens}}})


def test_the_filters_are_those_functions():
    rows = _usage.total("h", [_usage.decode(line(BEGIN + 60, 5))], BEGIN, BEGIN + 60)
    assert usage_csv.FilterModule().filters()["usage_csv"](rows) == _usage.as_csv(rows)
    assert usage_table.FilterModule().filters()["usage_table"](rows) == _usage.table(rows)


def test_a_fleet(tmp_path):
    hosts = {}
    for number, name in enumerate(("h1", "h2")):
        log = _usage.Log(str(tmp_path / name), 1 << 20, 2)
        for minute in range(3):
            log.append(line(BEGIN + 60 * (minute + 1), 10 * (number + 1)))
        hosts[name] = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    (tmp_path / "inventory.yml").write_text(yaml.safe_dump({"inference": {"hosts": hosts}}), encoding="utf-8")
    playbook = [{"hosts": "inference", "gather_facts": False, "roles": ["erni_ki.inference.usage"]}]
    (tmp_path / "playbook.yml").write_text(yaml.safe_dump(playbook), encoding="utf-8")
    said = play(tmp_path, "-e", "usage_since=2026-11-28", "-e", "usage_until=2026-11-29",
                "-e", "{'__usage_log': '" + str(tmp_path) + "/{{ inventory_hostname }}', 'usage_report_folder': '" + str(tmp_path / "reports") + "'}")
    found = list(csv.DictReader((tmp_path / "reports" / "usage.csv").read_text(encoding="utf-8").splitlines()))
    assert [(row["host"], row["service"], row["tokens_out"], row["cpu_seconds"]) for row in found] == [
        ("h1", "vllm", "30", "90.0"), ("h2", "vllm", "60", "90.0")]
    assert "changed=0" in said and "changed=1" not in said and "CPU hours" in said
