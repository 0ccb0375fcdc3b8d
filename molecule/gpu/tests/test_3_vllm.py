# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""vLLM gets no device, whatever Docker's default runtime is and whatever its image asks for."""
from __future__ import annotations

import json
import shlex

import pytest

IMAGE = "erni-ki/wants-all-gpus:1"
# Healthy, as the role's health check sees it, and nothing else.
SERVER = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("", 8000), Handler).serve_forever()
"""
DOCKERFILE = f"""FROM erni-ki/ollama-standin:0.32.15
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=all
ENTRYPOINT {json.dumps(["/usr/bin/python3", "-c", SERVER])}
CMD []
"""
RUNTIME = {"default-runtime": "nvidia", "runtimes": {"nvidia": {"path": "/usr/bin/nvidia-container-runtime"}}}
# Merged keys stay until somebody takes them out.
FORGET = """
import json
with open("/etc/docker/daemon.json") as stream:
    settings = json.load(stream)
del settings["default-runtime"], settings["runtimes"]
with open("/etc/docker/daemon.json", "w") as stream:
    json.dump(settings, stream, indent=2)
"""


@pytest.fixture(name="vllm", scope="module")
def fixture_vllm(host, play):
    """vLLM as the role runs it, with an image that wants every GPU, on a Docker that gives every GPU to whoever wants it."""
    def sh(command):
        done = host.run("bash -o pipefail -c %s", command)
        assert done.rc == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout.strip()
    sh(f"printf %s {shlex.quote(DOCKERFILE)} | DOCKER_BUILDKIT=0 docker build --network none -t {IMAGE} -")
    run = play("site", "--skip-tags", "verify", plan_services=["vllm", "ollama"], vllm_image=IMAGE, vllm_image_pull="never", docker_daemon_settings=RUNTIME)
    assert run.code == 0, run.text
    yield sh
    sh("docker rm -f vllm; rm -rf /opt/erni-ki/vllm")
    sh(f"python3 -c {shlex.quote(FORGET)} && systemctl reload docker")


def test_the_trap_is_armed(vllm):
    assert vllm("docker info --format '{{.DefaultRuntime}}'") == "nvidia"
    assert vllm(f"docker run --rm --entrypoint ls {IMAGE} /dev/nvidia0") == "/dev/nvidia0"


def test_vllm_runs_without_the_old_runtime(vllm):
    assert vllm("docker inspect --format '{{.HostConfig.Runtime}} {{.State.Health.Status}}' vllm") == "runc healthy"
    assert "NVIDIA_VISIBLE_DEVICES=void" in vllm("docker inspect --format '{{range .Config.Env}}{{println .}}{{end}}' vllm")


def test_vllm_has_no_node(vllm):
    assert vllm("docker exec vllm sh -c 'ls -d /dev/nvidia* 2>/dev/null || true'") == ""
    assert vllm("docker exec vllm sh -c 'ls /usr/lib/x86_64-linux-gnu | grep -c nvidia || true'") == "0"


def test_vllm_has_no_permission(vllm, opens):
    # The node on the host, opened from within vLLM's cgroup; Ollama's shows that the question is a good one.
    assert opens("vllm") == "EPERM" and opens("ollama") == "ENXIO"


def test_ollama_still_has_its_gpu(vllm, ollama):
    ollama.wait()
    assert ollama.load()["size_vram"] > 0


def test_the_proof_says_so_too(vllm, prove):
    checks = {check["name"]: check["ok"] for check in prove(services=["vllm"], generate=False, timeout=30)["checks"] if check["service"] == "vllm"}
    assert checks["no_gpu_nodes"] and checks["no_gpu_permission"]
