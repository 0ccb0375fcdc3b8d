# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Alerts whose conditions are brought about for real, together, so that their minutes are waited for once."""
from __future__ import annotations

import pytest
from machine import container_group

# Holds as many bytes as it is told.
HOG = 'import sys, time; held = b"1" * int(sys.argv[1]); time.sleep(86400)'
BUSY = "while True: pass"
# As much as is told of, and no more: it takes from whoever emulates the machine.
STRANGER = """
import time
while True:
    end = time.monotonic() + 0.5
    while time.monotonic() < end: pass
    time.sleep(0.4)
"""
FULL = "/var/tmp/full"
BAD = {
    ("ErniKiForeignCpu", "vllm"), ("ErniKiPlanDrift", ""), ("ErniKiServiceNotGenerating", "ollama"), ("ErniKiGatewayEngineOut", ""),
    ("ErniKiMemoryNearLimit", "ollama"), ("ErniKiThrottled", "ollama"), ("ErniKiDiskNearlyFull", "")}


@pytest.fixture(name="started")
def fixture_started(host, sh):
    """Starts Python in any group of the kernel's, as a unit of that name; all are ended."""
    units = []

    def start(unit, group, code, *words, before=""):
        host.run_expect([0], "systemd-run --collect --expand-environment=no --unit %s sh -c %s", unit,
                        f"echo $$ > {group}/cgroup.procs && {before} exec python3 -c '{code}' {' '.join(map(str, words))}")
        units.append(unit)
    yield start
    for unit in units:
        host.run("systemctl stop %s", unit)


@pytest.fixture(name="ollama")
def fixture_ollama(sh):
    return container_group(sh, "ollama")


@pytest.fixture(name="wait_until_told")
def fixture_wait_until_told(told, wait_for):
    """Until the receiver was told of each (alert, service), as firing or as resolved, since the test began or last waited."""
    known = len(told())

    def wait(alerts, state):
        nonlocal known
        wait_for(lambda: alerts <= {(name, service) for name, status, service in told()[known:] if status == state}, f"{sorted(alerts)} {state}")
        known = len(told())
    return wait


def to_spare(sh, group, share):
    """The bytes that bring a group's working set to a share of its limit."""
    limit, used = map(int, sh(f"cat {group}/memory.max {group}/memory.current").split())
    idle = int(sh(f"awk '/^inactive_file/ {{print $2}}' {group}/memory.stat"))
    return int(share * limit) - used + idle


def test_what_goes_wrong_is_told_of_and_its_end(host, sh, wait_for, wait_until_told, ollama, started):
    vllm = container_group(sh, "vllm")
    own = sh(f"cat {vllm}/cpuset.cpus")
    try:
        # Somebody who is in no group, and so on any CPU; each of the others goes for Ollama, and for one thing of it.
        started("stranger", "/sys/fs/cgroup", STRANGER, before="taskset -pc 0 $$ &&")
        started("hog", ollama, HOG, to_spare(sh, ollama, 0.975))
        # The quota comes after it, or it would take until tomorrow.
        wait_for(lambda: to_spare(sh, ollama, 0.96) < 0, "the memory is taken")
        started("busy", ollama, BUSY)
        sh(f"echo '20000 100000' > {ollama}/cpu.max")
        sh(f"echo 0-11 > {vllm}/cpuset.cpus")
        sh("docker kill --signal STOP ollama")
        sh(f"fallocate -l $(($(df --output=avail -B1 / | tail -1) - $(df --output=size -B1 / | tail -1) / 20)) {FULL}")
        wait_until_told(BAD, "firing")
    finally:
        sh(f"rm -f {FULL}; docker kill --signal CONT ollama; echo {own} > {vllm}/cpuset.cpus; echo max > {ollama}/cpu.max")
        host.run("systemctl stop stranger hog busy")
    wait_until_told(BAD, "resolved")


def test_memory_that_is_not_there_is_told_of(sh, wait_until_told, ollama, started):
    # Whoever asks for it is the one that the kernel ends, and not Ollama.
    started("greedy", ollama, HOG, to_spare(sh, ollama, 1.5), before="echo 1000 > /proc/self/oom_score_adj &&")
    wait_until_told({("ErniKiOomKill", "ollama")}, "firing")
    assert sh("docker inspect --format '{{.State.Running}} {{.RestartCount}}' ollama") == "true 0"


def test_who_watches_is_watched(sh, wait_until_told):
    gone = {("ErniKiExporterGone", ""), ("ErniKiGatewayGone", "")}
    sh("systemctl stop erni-ki-exporter erni-ki-gateway")
    wait_until_told(gone, "firing")
    sh("systemctl start erni-ki-exporter erni-ki-gateway")
    wait_until_told(gone, "resolved")
