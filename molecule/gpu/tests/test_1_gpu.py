# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""After a reboot: Ollama has the plan's GPU, read without the collection's own modules; then the proof."""
from __future__ import annotations

import json
import shlex

UUID = "GPU-57a2d1e5-0000-4000-8000-000000002200"
PACKAGES = ["libnvidia-container-tools", "libnvidia-container1", "nvidia-container-toolkit", "nvidia-container-toolkit-base"]

# NVML, asked by whatever Python there is.
ASK = """
import ctypes
nvml, handle, uuid = ctypes.CDLL("libnvidia-ml.so.1"), ctypes.c_void_p(), ctypes.create_string_buffer(96)
print(nvml.nvmlInit_v2(), nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(handle)), nvml.nvmlDeviceGetUUID(handle, uuid, 96), uuid.value.decode())
"""


def test_ollama_is_healthy_again_after_the_reboot(ollama):
    ollama.wait()


def test_the_plan_has_the_card(plan):
    device = plan["ollama"]["device"]
    assert (device["kind"], device["uuid"], device["name"], device["library"]) == ("gpu", UUID, "Quadro P2200", "cuda_v12")
    assert device["cdi_device"] == f"nvidia.com/gpu={UUID}" and device["driver"] == {"found": "580.95.05", "allowed": "570-580"}


def test_the_four_packages_are_at_one_version_and_held(sh):
    versions = sh(f"dpkg-query -W -f '${{Package}} ${{Version}}\\n' {' '.join(PACKAGES)}").splitlines()
    assert versions == [f"{name} 1.19.1-1" for name in PACKAGES]
    assert sh("apt-mark showhold").split() == PACKAGES


def test_the_repository_is_trusted_by_its_own_key_alone(host, sh):
    described = host.file("/etc/apt/sources.list.d/nvidia-container-toolkit.sources").content_string
    assert "Signed-By: /etc/apt/keyrings/nvidia-container-toolkit.asc" in described and "stable/deb/$(ARCH)" in described
    assert sh("cmp /etc/apt/keyrings/nvidia-container-toolkit.asc /srv/standin-nvidia/key.asc && ls /etc/apt/trusted.gpg.d | grep -ci nvidia || true") == "0"


def test_the_specification_is_written_before_docker_starts(sh):
    assert UUID in sh("cat /var/run/cdi/nvidia.yaml")
    assert "docker.service" in sh("systemctl show --property Before --value nvidia-cdi-refresh.service").split()
    written, started = sh("stat -c %Y /var/run/cdi/nvidia.yaml; date +%s -d \"$(systemctl show --property ExecMainStartTimestamp --value docker)\"").split()
    assert int(written) <= int(started)


def test_docker_was_told_and_nothing_else_was(host):
    daemon = json.loads(host.file("/etc/docker/daemon.json").content_string)
    assert daemon["features"] == {"cdi": True} and daemon["live-restore"] is True and "runtimes" not in daemon and "default-runtime" not in daemon


def test_the_container_has_the_nodes_and_may_open_them(sh, opens):
    assert sh("docker exec ollama sh -c 'ls /dev/nvidia*'").split() == ["/dev/nvidia-uvm", "/dev/nvidia0", "/dev/nvidiactl"]
    assert opens("ollama") == "ENXIO"


def test_nvml_answers_inside(sh):
    assert sh(f"docker exec ollama python3 -c {shlex.quote(ASK)}") == f"0 0 0 {UUID}"


def test_ollamas_environment_is_the_plans(sh, plan):
    found = dict(line.split("=", 1) for line in sh("docker inspect --format '{{range .Config.Env}}{{println .}}{{end}}' ollama").split("\n") if "=" in line)
    vram = plan["ollama"]["device"]["vram"]
    expected = {"CUDA_VISIBLE_DEVICES": UUID, "OLLAMA_LLM_LIBRARY": "cuda_v12", "OLLAMA_CONTEXT_LENGTH": str(vram["context_length"]),
                "OLLAMA_NUM_PARALLEL": "1", "OLLAMA_MAX_LOADED_MODELS": "1", "NVIDIA_VISIBLE_DEVICES": "void"}
    assert {name: found.get(name) for name in expected} == expected
    assert sh("docker inspect --format '{{.HostConfig.Runtime}}' ollama") == "runc"


def test_a_model_is_wholly_on_the_card(ollama, sh):
    loaded = ollama.load()
    assert loaded["size_vram"] == loaded["size"] > 0
    sh("sleep 2")
    pid = sh("pgrep -x llama-server")
    assert f"process={pid} C" in sh("cat /etc/standin-nvidia/card.conf")


def test_the_watchdog_is_awake_and_told_of_nothing_but_the_boot(host, ollama, until, sh):
    timer = host.service("erni-ki-ollama-gpu.timer")
    assert timer.is_running and timer.is_enabled
    # An older Docker starts no container with a GPU at its own start.
    major, minor = sh("docker version --format '{{.Server.Version}}'").split(".")[:2]
    if (int(major), int(minor)) < (28, 2):
        until(lambda: "Ollama has its GPU again" in ollama.told(), 600)
        told = ollama.told().splitlines()
        assert len(told) == 3 and 'could not select device driver "cdi"' in told[0] and "Ollama is restarted" == told[1], told
    else:
        assert ollama.told() == ""


def test_the_proof_holds(prove):
    result = prove(timeout=600)
    assert result["ok"] and result["failed_checks"] == [], result["table"]


def test_the_host_is_as_well_as_before(sh):
    assert sh("systemctl list-units --failed --plain --no-legend") == ""
    assert sh("dpkg --audit") == ""
