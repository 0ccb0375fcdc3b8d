# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What takes a GPU away from a container, how Ollama gets it back, and what the exporter tells of it."""
from __future__ import annotations

import json
import re

import pytest
from machine import asking

# What a container may open that was given no GPU.
ORDINARY = ("null", "zero", "full", "random", "urandom", "tty")

# An emulated machine may be slow; how soon the watchdog looks is asked of systemd.
PATIENCE_S = 600


@pytest.fixture(name="exported")
def fixture_exported(sh):
    """What the exporter tells: the value of a metric that has one series, None where it has none."""
    def look(name):
        found = re.findall(rf"^erni_ki_{name}(?:{{.*}})? (\S+)$", sh(asking("http://127.0.0.1:9835/metrics")), re.MULTILINE)
        assert len(found) < 2, found
        return float(found[0]) if found else None
    return look


def test_the_watchdog_looks_twice_within_a_minute(sh):
    shown = sh("systemctl show --property TimersMonotonic --property AccuracyUSec erni-ki-ollama-gpu.timer")
    assert "OnUnitInactiveUSec=20s " in shown and "AccuracyUSec=1s" in shown


def test_a_daemon_reload_under_load_takes_nothing_away(sh, ollama, opens):
    before = ollama.started()
    question = asking(f"{ollama.URL}/api/generate", model=ollama.model, prompt="x", stream=False, options={"num_predict": 300})
    sh(f"rm -f /tmp/answer; nohup {question} >/tmp/answer 2>&1 & for n in 1 2 3 4 5; do systemctl daemon-reload; done")
    assert opens("ollama") == "ENXIO"
    sh("for n in $(seq 300); do [ -s /tmp/answer ] && exit; sleep 1; done; exit 1")
    assert json.loads(sh("cat /tmp/answer"))["done"]
    assert ollama.started() == before and ollama.loaded()["size_vram"] > 0


@pytest.fixture(name="bystander")
def fixture_bystander(sh):
    sh("docker run -d --name bystander --entrypoint sleep erni-ki/ollama-standin:0.32.15 3600")
    yield "bystander"
    sh("docker rm -f bystander")


def test_a_lost_device_is_noticed_and_only_ollama_is_restarted(sh, ollama, opens, until, bystander):
    ollama.forget()
    before, other = ollama.started(), ollama.started(bystander)
    # As systemd does it where it does not know of the device: its own list of permissions, without the card.
    scope = f"docker-{sh('docker inspect --format {{.Id}} ollama')}.scope"
    allowed = " ".join(f"'DeviceAllow=/dev/{name} rwm'" for name in ORDINARY)
    sh(f"systemctl set-property --runtime {scope} DeviceAllow= {allowed} && rm -r /run/systemd/system.control/{scope}.d")
    # systemd tells the kernel a little later.
    until(lambda: opens("ollama") == "EPERM", PATIENCE_S)
    until(lambda: "may not open /dev/nvidiactl" in ollama.told(), PATIENCE_S)
    until(lambda: ollama.started() != before, PATIENCE_S)
    ollama.wait()
    assert opens("ollama") == "ENXIO" and ollama.load()["size_vram"] > 0
    assert ollama.started(bystander) == other
    assert "restarting Ollama (1 of 3" in ollama.told()
    until(lambda: "has its GPU again" in ollama.told(), PATIENCE_S)


def test_a_mismatched_library_is_told_and_not_mended_by_restarts(sh, ollama, card, prove, until):
    ollama.forget()
    before = ollama.started()
    card("fail=nvmlInit 18")
    assert ollama.load()["size_vram"] == 0
    until(lambda: "a restart cannot help" in ollama.told() and "answers 18" in ollama.told(), PATIENCE_S)
    result = prove(services=["ollama"], generate=False, timeout=60)
    assert not result["ok"], result["table"]
    assert ollama.started() == before
    # The host is rebooted, so to speak: now a restart helps, and nobody has to ask for it.
    card()
    until(lambda: ollama.started() != before, PATIENCE_S)
    ollama.wait()
    assert ollama.load()["size_vram"] > 0


def test_a_card_that_fell_off_the_bus_is_no_reason_to_restart(ollama, card, until):
    ollama.forget()
    before = ollama.started()
    card("fail=nvmlDevice 15")
    assert ollama.load()["size_vram"] == 0
    until(lambda: "fell off the bus" in ollama.told(), PATIENCE_S)
    assert ollama.started() == before
    card()
    until(lambda: ollama.started() != before, PATIENCE_S)
    ollama.wait()


@pytest.fixture(name="unwatched")
def fixture_unwatched(sh, ollama):
    sh("systemctl stop erni-ki-ollama-gpu.timer")
    yield
    ollama.forget()
    sh("rm -rf /var/lib/erni-ki/ollama/standin; systemctl start erni-ki-ollama-gpu.timer")


@pytest.mark.parametrize("device", ["cpu", "partial"])
def test_a_model_that_is_not_on_the_card_is_noticed(sh, ollama, prove, exported, until, unwatched, device):
    sh("mkdir -p /var/lib/erni-ki/ollama/standin")
    sh(f"echo '{json.dumps({'device': device})}' > /var/lib/erni-ki/ollama/standin/control.json")
    loaded = ollama.load()
    assert loaded["size_vram"] == 0 if device == "cpu" else 0 < loaded["size_vram"] < loaded["size"]
    result = prove(services=["ollama"], timeout=120)
    assert not result["ok"], result["table"]
    until(lambda: exported("ollama_wrong_device") == 1, PATIENCE_S)


def test_what_is_told_of_a_card_that_is_well(exported, until, ollama):
    ollama.load()
    until(lambda: exported("ollama_wrong_device") == 0, PATIENCE_S)
    assert (exported("gpu_lost"), exported("gpu_driver_mismatch"), exported("gpu_temperature_celsius")) == (0, 0, 41)
    assert 0 < exported("gpu_memory_used_bytes") <= exported("gpu_memory_ceiling_bytes") < exported("gpu_memory_total_bytes")


@pytest.mark.parametrize("wrong, metric", [("fail=nvmlDevice 15", "gpu_lost"), ("fail=nvml 18", "gpu_driver_mismatch")])
def test_a_lost_card_and_a_driver_of_another_version_are_told_of(card, exported, until, unwatched, wrong, metric):
    card(wrong)
    until(lambda: exported(metric) == 1, PATIENCE_S)
    card()
    until(lambda: exported(metric) == 0, PATIENCE_S)


def test_a_hot_card_is_told_of(sh, exported, until):
    heat = "sed -i 's/^temperature=.*/temperature={}/' /etc/standin-nvidia/base.conf"
    sh(heat.format(91))
    try:
        until(lambda: exported("gpu_temperature_celsius") == 91, PATIENCE_S)
    finally:
        sh(heat.format(41))


def test_a_specification_that_went_missing_is_written_anew(sh, until):
    sh("rm /var/run/cdi/nvidia.yaml; touch /usr/bin/nvidia-ctk")
    until(lambda: sh("[ -s /var/run/cdi/nvidia.yaml ] && echo there || true") == "there", PATIENCE_S)
