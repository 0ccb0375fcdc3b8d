# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes under load: each host in its turn, one that breaks, and one that is taken away."""
from __future__ import annotations

from fleet import verdicts


def started(nodes):
    return {name: node.sh("docker inspect --format '{{.State.StartedAt}}' ollama") for name, node in nodes.items()}


def test_a_change_of_every_host_is_noticed_by_nobody(nodes, gateway, load, judge, site):
    gateway.wait(node1=True, node2=True)
    before = started(nodes)
    load.start()
    run = site(ollama_keep_alive="11m")
    load.more()
    found = judge(load.stop())
    assert run.code == 0 and verdicts(run) == {"node1": "ok", "node2": "ok"}, run.text
    after = started(nodes)
    assert all(before[name] != after[name] for name in nodes)
    assert found["error"] == found["broken"] == found["refused"] == [], run.text
    assert not any(one["drained"] for one in gateway.engines().values())


def test_one_that_breaks_stays_drained_until_it_is_mended(gateway, load, judge, site):
    def broken(hosts):
        hosts["node2"]["ollama_image"] = "erni-ki/none:0.32.15"
    load.start()
    run = site(change=broken, ollama_keep_alive="11m")
    assert run.code != 0 and verdicts(run) == {"node1": "unfinished", "node2": "failed"}, run.text
    assert "stays drained at node1: node2-ollama." in run.text and "/undrain/node2-ollama" in run.text, run.text
    assert gateway.engines()["node2-ollama"]["unless_last"]
    load.more()
    found = judge(load.stop())
    assert found["error"] == found["broken"] == found["refused"] == []
    mended = site()
    assert mended.code == 0, mended.text
    assert not gateway.engines()["node2-ollama"]["drained"]


def test_a_host_leaves_and_comes_back_by_the_inventory(nodes, gateway, load, judge, site):
    load.start()
    run = site("--tags", "gateway", change=lambda hosts: hosts.pop("node2"))
    # One that is left alone with its own host calls the engines as their services.
    assert run.code == 0 and list(gateway.engines()) == ["ollama"], run.text
    before = len(nodes["node2"].begun())
    load.more()
    assert len(nodes["node2"].begun()) <= before + 1        # one that the old worker had begun
    run = site("--tags", "gateway")
    assert run.code == 0 and sorted(gateway.engines()) == ["node1-ollama", "node2-ollama"], run.text
    found = judge(load.stop())
    assert found["error"] == found["broken"] == found["refused"] == []
