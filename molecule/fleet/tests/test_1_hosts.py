# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one run has made of two hosts, and a third one that refuses its plan."""
from __future__ import annotations

import json

from fleet import verdicts


def test_each_host_has_a_plan_of_its_own(nodes):
    plans = {name: json.loads(node.sh("cat /etc/erni-ki/plan.json")) for name, node in nodes.items()}
    assert {name: (plan["ollama"]["cpuset"], plan["system"]["cpuset"]) for name, plan in plans.items()} == {"node1": ("0-5", "6-7"), "node2": ("0-2", "3")}


def test_the_gateway_has_both_and_nobody_is_drained(nodes, gateway):
    gateway.wait(node1=True, node2=True)
    engines = gateway.engines()
    assert sorted(engines) == ["node1-ollama", "node2-ollama"] and not any(one["drained"] for one in engines.values())
    assert nodes["node2"].host.run("test -e /etc/systemd/system/erni-ki-gateway.service").rc == 1


def test_a_host_that_refuses_its_plan_stops_nobody(site):
    """The second machine under a third name: a refusal touches nothing, so it may be there twice."""
    def third(hosts):
        hosts["node3"] = {**hosts["node2"], "plan_ollama_memory_limit_mib": 65536}
    run = site("--check", "--tags", "gateway", change=third)
    assert run.code != 0 and verdicts(run) == {"node1": "ok", "node2": "ok", "node3": "failed"}, run.text
    assert "65536" in run.text.rpartition("host=node3 ")[2], run.text
