# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What cannot work is refused with words a person understands, and nothing on the host has changed. All rows of the tables: tests/unit."""
from __future__ import annotations

import pytest

CARD = "/usr/bin/python3 -IB /usr/local/lib/standin-nvidia/card.py"
CARDS = "/srv/standin-nvidia/cards"
BASE = "/etc/standin-nvidia/base.conf"

REFUSED = {
    "a driver too old for the card": (f"sed -i s/^driver_version=.*/driver_version=550.163.01/ {BASE}", {}, ["550.163.01", "570", "580"]),
    "a driver too new for the card": (f"sed -i s/^driver_version=.*/driver_version=595.58.03/ {BASE}", {}, ["595.58.03", "580"]),
    "a card in slices": (f"{CARD} use {CARDS}/a100-mig.conf", {}, ["MIG", "A100"]),
    "a driver that was upgraded": (f"{CARD} set 'fail=nvmlInit 18'", {}, ["version_mismatch", "reboot"]),
    "a card that nobody has": ("true", {"plan_ollama_gpu": "*H100*"}, ["H100", "Quadro P2200"]),
    "a setting that does nothing": ("true", {"ollama_environment": {"OLLAMA_NUM_CTX": 8192}}, ["OLLAMA_NUM_CTX", "plan_ollama_context_length"]),
    "a setting of the plan": ("true", {"ollama_environment": {"CUDA_VISIBLE_DEVICES": "0"}}, ["CUDA_VISIBLE_DEVICES", "plan_ollama_gpu"]),
    "a key that is none": ("true", {"nvidia_container_toolkit_repository_key": "gpgkey"}, ["nvidia_container_toolkit_repository_key"]),
    "a toolkit with a known hole": ("true", {"plan_container_toolkit_version": "1.17.4"}, ["1.17.4", "1.17.8"]),
}


@pytest.fixture(name="well_again")
def fixture_well_again(sh):
    # The watchdog would tell of what is played here.
    sh(f"systemctl stop erni-ki-ollama-gpu.timer; cp {BASE} /root/base.conf")
    yield
    sh(f"cp /root/base.conf {BASE}; {CARD} set; rm /root/base.conf; systemctl start erni-ki-ollama-gpu.timer")


@pytest.mark.parametrize("command, variables, words", REFUSED.values(), ids=REFUSED)
def test_refused_and_nothing_changed(play, fingerprint, sh, well_again, command, variables, words):
    sh(command if "fail=" in command else f"{command} && {CARD} set")
    before = [line for line in fingerprint() if "/etc/standin-nvidia" not in line]
    run = play("site", **variables)
    assert run.code != 0, run.text
    assert "Traceback" not in run.text
    missing = [word for word in words if word not in run.text]
    assert not missing, f"{missing} not in:\n{run.text}"
    assert "changed=0" in run.text
    assert [line for line in fingerprint() if "/etc/standin-nvidia" not in line] == before
