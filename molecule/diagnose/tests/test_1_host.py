# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A healthy host has no finding, and stays as it was; one that is not well fails the play."""
from __future__ import annotations

import json

from machine import REPO

REPORT = REPO / "diagnosis" / "sandbox.json"


def test_a_healthy_host(play, fingerprint):
    before = fingerprint()
    REPORT.unlink(missing_ok=True)
    run = play("diagnose")
    assert run.code == 0, run.text
    assert "no finding; " in run.text and "findings=0 critical=0 warning=0" in run.text and "changed=0" in run.text, run.text
    report = json.loads(REPORT.read_text(encoding="utf-8"))
    assert report["findings"] == [] and report["failed_checks"] == [] and report["checks_evaluated"] > 15
    assert REPORT.stat().st_mode & 0o077 == 0
    assert fingerprint() == before


def test_in_check_mode_too(play):
    run = play("diagnose", "--check")
    assert run.code == 0 and "findings=0" in run.text, run.text


def test_a_missing_plan_fails_the_play_and_changes_nothing(play, sh, fingerprint):
    sh("mv /etc/erni-ki/plan.json /etc/erni-ki/plan.away")
    try:
        before = fingerprint()
        run = play("diagnose")
        assert run.code != 0 and "plan_missing" in run.text and "Traceback" not in run.text, run.text
        assert run.text.rstrip().splitlines()[-1].startswith("verdict=failed") and "findings=1 critical=1" in run.text, run.text
        assert json.loads(REPORT.read_text(encoding="utf-8"))["worst"] == "critical"
        never = play("diagnose", diagnose_fail_on="never", diagnose_report_folder="")
        assert never.code == 0 and "plan_missing" in never.text, never.text
        assert fingerprint() == before
    finally:
        sh("mv /etc/erni-ki/plan.away /etc/erni-ki/plan.json")


def test_a_plan_that_is_broken(diagnose, sh, look):
    sh("cp -p /etc/erni-ki/plan.json /etc/erni-ki/plan.away; echo '{' > /etc/erni-ki/plan.json")
    try:
        assert look.find(diagnose(), "plan_invalid")["severity"] == "critical"
    finally:
        sh("mv /etc/erni-ki/plan.away /etc/erni-ki/plan.json")


def test_docker_is_down(diagnose, sh, look):
    sh("systemctl stop docker.socket docker.service")
    try:
        one = look.find(diagnose(), "docker_down")
        assert one["severity"] == "critical" and "ollama: container_running" in one["checks"]
    finally:
        sh("systemctl start docker.socket docker.service")


def test_a_clock_that_is_wrong(diagnose, sh, look):
    now = int(sh("date +%s"))
    assert not look.codes(diagnose(controller_time=now), "system")
    sh("date -s '+15 minutes'")
    try:
        one = look.find(diagnose(controller_time=now), "clock_wrong")
        assert one["severity"] == "warning" and "ahead" in one["evidence"]
    finally:
        sh("date -s '-15 minutes'")


def test_a_stranger_on_a_core_of_vllm(diagnose, sh, look):
    sh("systemd-run --slice foreign.slice --unit foreign taskset -c 3 sh -c 'while :; do :; done'")
    try:
        result = diagnose(interval=5)
        one = look.find(result, "foreign_on_cores")
        assert one["severity"] == "warning" and one["checks"] == ["system: exclusive_cores"]
        assert "(sh) in /foreign.slice" in one["evidence"] and "CPU 3" in one["evidence"]
    finally:
        sh("systemctl stop foreign")


def test_a_fence_that_is_open(diagnose, sh, look):
    sh("systemctl set-property --runtime user.slice AllowedCPUs=0-15")
    try:
        assert look.find(diagnose(), "fence_broken")["severity"] == "warning"
    finally:
        sh("systemctl set-property --runtime user.slice AllowedCPUs=14-15")
