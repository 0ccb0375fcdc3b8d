# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The real services after a reboot: where they run, on what they listen, what they scrape, and an engine that is really killed."""
from __future__ import annotations

import pytest
from machine import cpus

UNITS = ("prometheus", "prometheus-alertmanager", "prometheus-node-exporter", "erni-ki-exporter", "erni-ki-gateway")


@pytest.mark.parametrize("unit", UNITS)
def test_it_runs_on_the_reserved_cpus_alone(host, sh, plan, unit):
    assert host.service(unit).is_running and host.service(unit).is_enabled
    group = sh(f"systemctl show --property ControlGroup --value {unit}")
    assert cpus(sh(f"cat /sys/fs/cgroup{group}/cpuset.cpus.effective")) == cpus(plan["system"]["cpuset"])
    assert int(sh(f"cat /sys/fs/cgroup{group}/memory.max")) <= 1 << 30


def test_everything_listens_on_loopback(sh):
    ports = ("8080", "9090", "9093", "9094", "9100", "9835", "9836")
    listening = sh(f"ss -Hltn '( {' or '.join(f'sport = {port}' for port in ports)} )' | awk '{{print $4}}' | sort").split()
    assert listening == [f"127.0.0.1:{port}" for port in ports if port != "9094"]


def test_the_packages_own_configuration_is_as_it_came(sh):
    # The sandbox's disk has no documents.
    assert sh("dpkg --verify prometheus prometheus-alertmanager prometheus-node-exporter | grep -v ' /usr/share/doc\\| /usr/share/man' || true") == ""


def test_all_targets_answer(ask, wait_for):
    def health():
        return {target["labels"]["job"]: target["health"] for target in ask("http://127.0.0.1:9090/api/v1/targets")["data"]["activeTargets"]}
    wait_for(lambda: health() == {"erni_ki_exporter": "up", "erni_ki_gateway": "up", "node": "up", "vllm": "up"}, "all targets are up")


def test_a_killed_engine_is_told_of_and_its_coming_back(sh, told, wait_for):
    assert told() == []
    sh("docker kill ollama")
    wait_for(lambda: ["ErniKiServiceDown", "firing", "ollama"] in told(), "the receiver is told that Ollama is down")
    sh("docker start ollama")
    wait_for(lambda: ["ErniKiServiceDown", "resolved", "ollama"] in told(), "the receiver is told that Ollama is back")
