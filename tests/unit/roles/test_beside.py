# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The roles that judge a host judge what stands beside its engines by the host's variables, each in the same way."""
from __future__ import annotations

import pytest
import yaml

from ansible_collections.erni_ki.inference.tests.unit.roles.render import REPO, render

CASES = {
    "usual": {}, "without": {"gateway_state": "unmanaged", "exporter_state": "unmanaged"},
    "templated": {"private": "10.0.0.1", "exporter_bind_address": "{{ private }}", "gateway_decided": True, "monitoring_state": "present"},
}


@pytest.mark.parametrize("role", ["verify", "diagnose", "report"])
def test_by_the_hosts_variables(tmp_path, role):
    cases = [{"role_path": str(REPO / "roles" / role), **case} for case in CASES.values()]
    made = dict(zip(CASES, (one[f"__{role}_beside"] for one in render(tmp_path, role, [f"__{role}_beside"], cases, groups=["inference"]))))
    assert [(one["service"], one["required"]) for one in made["usual"]] == [("gateway", False), ("exporter", False)]
    assert made["without"] == []
    found = {one["service"]: one for one in made["templated"]}
    assert list(found) == ["gateway", "exporter", "prometheus", "alertmanager", "node_exporter"] and found["gateway"]["required"] is True
    assert found["gateway"]["listens"] == ["127.0.0.1:8080", "127.0.0.1:9836", "10.0.0.1:9836"] and found["exporter"]["url"] == "http://10.0.0.1:9835"
    # And each hands it to its modules.
    tasks = "".join(path.read_text(encoding="utf-8") for path in sorted((REPO / "roles" / role / "tasks").glob("*.yml")))
    assert tasks.count(f'beside: "{{{{ __{role}_beside }}}}"') == sum(tasks.count(f"{module}_info:\n") for module in ("colocation", "diagnosis"))


def test_scenarios_of_the_engines_alone_judge_nothing_else(tmp_path):
    own = yaml.safe_load((REPO / "molecule" / "engines_only.yml").read_text(encoding="utf-8"))
    [made] = render(tmp_path, "verify", ["__verify_beside"], [{"role_path": str(REPO / "roles" / "verify"), **own}], groups=["inference"])
    assert made["__verify_beside"] == []
