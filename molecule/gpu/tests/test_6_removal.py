# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The removal."""
from __future__ import annotations


def test_uninstall_removes_what_was_made_and_nothing_else(play, host, sh):
    run = play("uninstall")
    assert run.code == 0, run.text
    assert sh("ls -d /etc/systemd/system/erni* /usr/local/lib/erni-ki* /etc/systemd/system/nvidia-cdi* /etc/apt/sources.list.d/*nvidia* "
              "/etc/apt/keyrings/*nvidia* /etc/erni-ki/nvidia* 2>/dev/null || true") == ""
    assert sh("dpkg-query -W -f '${db:Status-Status} ${Package}\\n' '*nvidia-container*' 2>/dev/null | grep ^installed || true") == ""
    # The card, its driver and the models are not ours to remove.
    assert host.file("/dev/nvidia0").exists and host.file("/usr/bin/nvidia-smi").exists and host.file("/var/lib/erni-ki/ollama").exists
    again = play("uninstall")
    assert again.code == 0 and "changed=0" in again.text, again.text
