# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A light twin that stands in for the container `ollama`: the same image, started by hand, right in everything but what a test changes."""
from __future__ import annotations

import pytest

IMAGE = "erni-ki/ollama-standin:0.32.15"

# The container as the plan has it.
RIGHT = {
    "name": "--name ollama", "slice": "--cgroup-parent erniki-ollama.slice", "cpuset": "--cpuset-cpus 14-15",
    "memory": "--memory 4096m", "swap": "--memory-swap 4096m", "reservation": "--memory-reservation 1024m",
    "caps": "--cap-drop ALL", "privileges": "--security-opt no-new-privileges:true", "root": "--read-only --tmpfs /tmp",
    "data": "-v /var/lib/erni-ki/ollama:/root/.ollama", "port": "-p 127.0.0.1:11434:11434", "runtime": "--runtime runc",
    "threads": "-e LLAMA_ARG_THREADS=1", "host": "-e OLLAMA_HOST=0.0.0.0:11434", "gpu": "-e NVIDIA_VISIBLE_DEVICES=void", "device": "",
    "restart": "--restart unless-stopped", "health": "--health-cmd 'ollama ls' --health-interval 2s --health-start-period 120s", "standin": "",
}


@pytest.fixture(name="twin", scope="module")
def fixture_twin(host):
    """Starts twins in the place of the real container, which comes back at the end."""
    def sh(command):
        done = host.run("bash -c %s", command)
        assert done.rc == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout.strip()

    def start(wait=True, command="", **changes):
        sh(f"docker rm -f ollama; docker run -d {' '.join(dict(RIGHT, **changes).values())} {IMAGE} {command}")
        if wait:
            sh("for n in $(seq 300); do [ \"$(docker inspect --format '{{.State.Health.Status}}' ollama 2>/dev/null || echo healthy)\" = starting ] || exit 0; "
               "sleep 1; done; exit 1")

    sh("[ -e /dev/nvidia0 ] || mknod /dev/nvidia0 c 195 0")
    sh("docker stop ollama && docker rename ollama ollama-right")
    start.sh = sh
    yield start
    sh("docker rm -f ollama; docker rename ollama-right ollama && docker start ollama; rm -f /dev/nvidia0")
    sh("for n in $(seq 300); do [ \"$(docker inspect --format '{{.State.Health.Status}}' ollama)\" = healthy ] && exit; sleep 1; done; exit 1")
