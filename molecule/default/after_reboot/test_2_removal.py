# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The removal."""
from __future__ import annotations

import pytest


# Ten minutes on a slow machine: packages go, twice it is looked for what is left.
@pytest.mark.slow
def test_uninstall_removes_what_was_made_and_nothing_else(play, host, sh):
    run = play("uninstall")
    assert run.code == 0, run.text
    for path in ("/opt/erni-ki", "/etc/erni-ki/plan.json", "/etc/docker/installed-by-erni-ki", "/usr/sbin/dockerd"):
        assert not host.file(path).exists, path
    assert sh("ls -d /etc/systemd/system/erniki* /etc/systemd/system/*.d/50-erni-ki.conf 2>/dev/null || true") == ""
    assert sh("cat /sys/fs/cgroup/system.slice/cpuset.cpus.effective 2>/dev/null || echo 0-15") == "0-15"
    # Models stay, and so does what was never ours.
    assert host.file("/var/lib/erni-ki/ollama").exists and host.file("/srv/models/tiny/config.json").exists
    again = play("uninstall")
    assert again.code == 0 and "changed=0" in again.text, again.text
