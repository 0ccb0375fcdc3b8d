# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys, versions and repositories: a clear error, nothing half-installed, and the next run converges."""
from __future__ import annotations

import json
import pathlib

import pytest

REPO = pathlib.Path(__file__).resolve().parents[3]
ROLE = "molecule/gpu/toolkit.yml"
PACKAGES = "nvidia-container-toolkit nvidia-container-toolkit-base libnvidia-container-tools libnvidia-container1"
NAME = "nvidia_container_toolkit"

FAILS = {
    "an index that was changed after it was signed": (
        {"repository_url": "file:/srv/standin-nvidia/tampered/deb/$(ARCH)"}, ["signature of the repository file:/srv/standin-nvidia/tampered"]),
    "somebody else's key": (
        {"repository_key": "file:///srv/standin-nvidia/foreign-key.asc"}, ["is not good by the key file:///srv/standin-nvidia/foreign-key.asc"]),
    "a key with another sum": ({"repository_key_sha256": "0" * 64}, ["has not the SHA-256"]),
    "a key that is not there": ({"repository_key": "file:///srv/standin-nvidia/none.asc"}, ["cannot be fetched"]),
    "a repository out of reach": ({"repository_url": "http://127.0.0.1:9/deb"}, ["http://127.0.0.1:9/deb cannot be reached"]),
    "an unknown version": ({"version": "9.9.9"}, ["no nvidia-container-toolkit 9.9.9-1; there are 1.19.1-1, 1.17.9-1"]),
}


def role(**variables):
    return {f"{NAME}_{name}": value for name, value in variables.items()}


def test_removed(play, host, sh):
    sh("systemctl stop erni-ki-ollama-gpu.timer")
    run = play(ROLE, **role(state="absent"))
    assert run.code == 0, run.text
    assert installed(sh) == [] and sh("apt-mark showhold") == ""
    for path in ("/etc/systemd/system/nvidia-cdi-refresh.service", "/etc/systemd/system/nvidia-cdi-refresh.service.d", "/var/run/cdi/nvidia.yaml",
                 "/etc/erni-ki/nvidia-container-toolkit-installed"):
        assert not host.file(path).exists, path
    assert "features" not in json.loads(host.file("/etc/docker/daemon.json").content_string)
    assert left_behind(sh) == ""
    again = play(ROLE, **role(state="absent"))
    assert again.code == 0 and "changed=0" in again.text, again.text


def installed(sh):
    return sh(f"dpkg-query -W -f '${{db:Status-Status}} ${{Package}} ${{Version}}\\n' {PACKAGES} 2>/dev/null | grep ^installed || true").splitlines()


def left_behind(sh):
    return sh("ls /etc/apt/sources.list.d/*nvidia* /etc/apt/keyrings/*nvidia* 2>/dev/null || true")


@pytest.mark.parametrize("variables, words", FAILS.values(), ids=FAILS)
def test_a_failed_installation_leaves_nothing(play, host, sh, variables, words):
    run = play(ROLE, **role(**variables))
    assert run.code != 0, run.text
    flat = " ".join(run.text.split())
    missing = [word for word in words if word not in flat]
    assert not missing, f"{missing} not in:\n{run.text}"
    assert installed(sh) == [] and left_behind(sh) == "" and sh("dpkg --audit") == ""
    assert not host.file("/etc/erni-ki/nvidia-container-toolkit-installed").exists


def files(version):
    return json.loads((REPO / ".cache" / "sandbox" / "gpu-host" / "packages.json").read_text(encoding="utf-8"))[version]


def test_package_files_whose_sum_is_another(play, sh):
    wrong = [dict(file, sha256="0" * 64) for file in files("1.17.9")]
    run = play(ROLE, **role(source="files", version="1.17.9", package_files=wrong))
    assert run.code != 0 and "not 0000" in run.text, run.text
    assert installed(sh) == []


def test_package_files_of_an_older_toolkit(play, host, sh):
    run = play(ROLE, **role(source="files", version="1.17.9", package_files=files("1.17.9")))
    assert run.code == 0, run.text
    assert len(installed(sh)) == 4 and all(line.endswith(" 1.17.9-1") for line in installed(sh))
    assert left_behind(sh) == "" and len(sh("apt-mark showhold").split()) == 4
    # It has no units of its own.
    assert host.service("erni-ki-cdi.service").is_enabled and host.service("erni-ki-cdi.path").is_running
    assert "GPU-57a2d1e5" in sh("cat /var/run/cdi/nvidia.yaml")


def test_the_repository_again_and_a_newer_version_past_the_hold(play, host, sh):
    run = play(ROLE)
    assert run.code == 0, run.text
    assert all(line.endswith(" 1.19.1-1") for line in installed(sh)) and len(sh("apt-mark showhold").split()) == 4
    assert not host.file("/etc/systemd/system/erni-ki-cdi.service").exists
    again = play(ROLE)
    assert again.code == 0 and "changed=0" in again.text, again.text


def test_an_upgrade_of_everything_leaves_it_alone(sh):
    assert "nvidia" not in sh("apt-get -q -s dist-upgrade | grep ^Inst || true")


def test_the_whole_site_is_right_again(play, prove, ollama, sh):
    run = play("site")
    assert run.code == 0, run.text
    ollama.wait()
    assert ollama.load()["size_vram"] > 0
    assert prove(timeout=300)["ok"]
