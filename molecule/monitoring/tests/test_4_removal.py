# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The removal, and a Prometheus that somebody else has put in the place."""
from __future__ import annotations

GONE = "/etc/erni-ki/monitoring* /etc/systemd/system/prometheus* /etc/prometheus /etc/default/prometheus*"


def test_absent_leaves_nothing_but_what_was_measured(play, host, sh):
    run = play("site", "--tags", "monitoring", monitoring_state="absent")
    assert run.code == 0, run.text
    assert sh(f"ls -d {GONE} 2>/dev/null || true") == ""
    assert sh("dpkg-query -W -f '${db:Status-Status} ${Package}\\n' 'prometheus*' 2>/dev/null | grep ^installed || true") == ""
    assert host.file("/var/lib/erni-ki-prometheus").exists
    again = play("site", "--tags", "monitoring", monitoring_state="absent")
    assert again.code == 0 and "changed=0" in again.text, again.text


def test_a_prometheus_of_somebody_else_is_refused_and_not_touched(play, sh, fingerprint):
    sh("DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends prometheus")
    before = fingerprint()
    run = play("site")
    assert run.code != 0 and "has prometheus, not from this role" in " ".join(run.text.split()), run.text
    assert fingerprint() == before


def test_its_removal_does_not_touch_it_either(play, host, sh):
    run = play("site", "--tags", "monitoring", monitoring_state="absent")
    assert run.code == 0, run.text
    assert host.service("prometheus").is_running
    sh("apt-get purge -y prometheus")
