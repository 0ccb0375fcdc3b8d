# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A container that is wrong in one thing has the finding of that thing, and no other of its own."""
from __future__ import annotations

import json

import pytest
from machine import asking, container_group

# One wrong, and what must be found for it: the codes of all findings of the service, and words of the first's evidence or cause.
WRONG = {
    "nothing": ({}, set(), ""),
    "no_health_check": ({"health": ""}, {"no_health_check"}, "no health check"),
    "binding_lost": ({"cpuset": "--cpuset-cpus 14"}, {"binding_lost"}, "expected 14-15, found 14"),
    "drift": ({"memory": "--memory 3072m", "threads": "-e LLAMA_ARG_THREADS=8"}, {"drift"}, "found 3072 MiB"),
    "gpu_visible": ({"device": "--device /dev/nvidia0"}, {"gpu_visible"}, "/dev/nvidia0"),
    "confinement_lost": ({"caps": ""}, {"confinement_lost"}, "capabilities"),
    "published_elsewhere": ({"port": "-p 11434:11434"}, {"published_elsewhere"}, "0.0.0.0"),
    "not_answering": ({"standin": "-e STANDIN_HUNG=true", "health": "--health-cmd true --health-interval 2s"}, {"not_answering"}, "no full answer"),
    # Enough that it comes up and answers, and too little for its start.
    "cpu_throttled": ({"standin": "--cpus 0.3", "health": "--health-cmd 'ollama ls' --health-interval 10s --health-start-period 300s"},
                      {"cpu_throttled"}, "periods throttled"),
}

# How a container ends, and what must be found for it.
ENDS = {
    "start_failed": ({"restart": "", "standin": "--entrypoint sh"}, "-c 'echo something odd happened; exit 3'", "something odd happened"),
    "isa_unsupported": ({"restart": "", "standin": "--entrypoint sh"}, "-c 'exit 132'", "ExitCode 132"),
    "oom_kill": ({"restart": "", "memory": "--memory 128m", "swap": "--memory-swap 128m", "reservation": "", "standin": "--entrypoint python3"},
                 "-c 'b = bytearray(1 << 30)'", "OOMKilled true"),
    "restart_loop": ({"restart": "--restart always", "standin": "--entrypoint sh"}, "-c 'echo odd; exit 5'", "restarted"),
    "container_stopped": ({"restart": "", "standin": "--entrypoint true"}, "", "ExitCode 0"),
}


@pytest.mark.parametrize("changes, expected, words", WRONG.values(), ids=WRONG)
def test_a_container_wrong_in_one_thing(twin, diagnose, look, changes, expected, words):
    twin(**changes)
    result = diagnose(timeout=20)
    assert look.codes(result, "ollama") == expected, "\n".join(result["table"])
    if expected:
        one = look.find(result, *expected)
        assert words in one["evidence"], one
    assert {name for one in result["findings"] for name in one["checks"]} == set(result["failed_checks"])


@pytest.mark.parametrize("name", ENDS)
def test_how_a_container_ended(twin, diagnose, look, name):
    changes, command, words = ENDS[name]
    twin(wait=False, command=command, **changes)
    look.wait_for(lambda: twin.sh("docker inspect --format '{{.State.Running}} {{.RestartCount}}' ollama") not in ("true 0", "true 1", "true 2", "false 1"))
    if name == "restart_loop":
        look.wait_for(lambda: int(twin.sh("docker inspect --format '{{.RestartCount}}' ollama")) >= 3)
    result = diagnose(timeout=20)
    one = look.find(result, name, "ollama")
    assert one["severity"] == "critical" and words in one["evidence"], one
    # One that is started again and again may run when it is looked at.
    assert look.codes(result, "ollama") == {name} and f"ollama: {'restart_count' if name == 'restart_loop' else 'container_running'}" in one["checks"]
    assert "ollama" in result["logs"] or name not in ("start_failed", "restart_loop")


def test_a_container_that_is_gone_and_then_its_image(twin, diagnose, look, fingerprint):
    twin.sh("docker rm -f ollama")
    before = fingerprint()
    assert look.find(diagnose(timeout=20), "container_missing")["severity"] == "critical"
    assert fingerprint() == before
    image = twin.sh("sed -n 's/^ *image: //p' /opt/erni-ki/ollama/compose.yaml")
    twin.sh(f"docker tag {image} kept:1 && docker rmi {image}")
    try:
        one = look.find(diagnose(timeout=20), "image_missing")
        assert image in one["evidence"] and one["severity"] == "critical"
    finally:
        twin.sh(f"docker tag kept:1 {image} && docker rmi kept:1")


def test_a_container_that_is_paused(twin, diagnose, look):
    twin()
    twin.sh("docker pause ollama")
    try:
        result = diagnose(timeout=10)
        assert look.find(result, "container_paused")["severity"] == "critical"
        assert look.codes(result, "ollama") == {"container_paused"}, "\n".join(result["table"])
    finally:
        twin.sh("docker unpause ollama")


def test_a_port_that_is_taken(twin, diagnose, look, host):
    twin.sh("docker rm -f ollama; systemd-run --unit taker python3 -m http.server --bind 127.0.0.1 11434")
    try:
        look.wait_for(lambda: "11434" in twin.sh("ss -ltn"))
        with pytest.raises(AssertionError):
            twin(wait=False)
        one = look.find(diagnose(timeout=20), "port_taken")
        assert one["severity"] == "critical" and "11434" in one["evidence"] and "ss -ltnp" in one["cure"]
    finally:
        twin.sh("systemctl stop taker")


def test_a_mount_that_is_not_there(twin, diagnose, look):
    twin.sh("mkdir -p /srv/short-lived")
    # With -v Docker would make it anew.
    twin(device="--mount type=bind,src=/srv/short-lived,dst=/mnt")
    twin.sh("docker stop ollama; rmdir /srv/short-lived; docker start ollama || true")
    one = look.find(diagnose(timeout=20), "bind_mount_missing")
    assert one["severity"] == "critical" and "/srv/short-lived" in one["evidence"]


def test_a_service_that_came_back(twin, diagnose, look):
    twin()
    twin.sh("kill -9 $(docker inspect --format '{{.State.Pid}}' ollama)")
    look.wait_for(lambda: twin.sh("docker inspect --format '{{.RestartCount}}{{.State.Health.Status}}' ollama") == "1healthy")
    assert look.find(diagnose(timeout=20), "restarted")["severity"] == "warning"


def test_an_oom_kill_in_a_service_that_runs(twin, diagnose, look):
    twin(memory="--memory 256m", swap="--memory-swap 256m", reservation="")
    twin.sh("docker exec ollama sh -c 'echo 1000 > /proc/self/oom_score_adj; exec python3 -c \"b = bytearray(1 << 30)\"' || true")
    assert look.find(diagnose(timeout=20), "oom_kill", "ollama")["severity"] == "critical"


def test_a_service_at_its_limit(twin, diagnose, look):
    # What the health checks take now and then has room: 24 MiB, where 2 % are 41.
    twin(memory="--memory 2048m", swap="--memory-swap 2048m", reservation="", root="--read-only --tmpfs /tmp:size=2g")
    group = container_group(twin.sh, "ollama")
    # Files in a tmpfs are memory that cannot be given back where there is no swap.
    twin.sh(f"room=$(( $(cat {group}/memory.max) - $(cat {group}/memory.current) + $(sed -n 's/^inactive_file //p' {group}/memory.stat) ))"
            "; docker exec ollama sh -c \"echo 1000 > /proc/self/oom_score_adj;"
            " exec dd if=/dev/zero of=/tmp/full bs=64K count=$(( (room - 25165824) / 65536 )) status=none\" || true")
    one = look.find(diagnose(timeout=20), "memory_near_limit")
    assert one["severity"] == "warning" and "of 2048 MiB" in one["evidence"]


def test_swap(twin, diagnose, look):
    twin.sh("fallocate -l 256M /swap && chmod 600 /swap && mkswap -q /swap && swapon /swap")
    try:
        twin(swap="--memory-swap 6144m")
        group = container_group(twin.sh, "ollama")
        twin.sh(f"echo 8M > {group}/memory.reclaim || true; [ $(cat {group}/memory.swap.current) -gt 0 ]")
        assert look.find(diagnose(timeout=20), "swap_in_use")["severity"] == "warning"
    finally:
        twin.sh("docker rm -f ollama; swapoff /swap; rm /swap")


def test_a_disk_that_is_full(twin, diagnose, look):
    twin.sh("mkdir -p /srv/small && mount -t tmpfs -o size=32m tmpfs /srv/small")
    try:
        twin(data="-v /srv/small:/root/.ollama")
        twin.sh("dd if=/dev/zero of=/srv/small/full bs=1M status=none || true")
        one = look.find(diagnose(timeout=20), "disk_full")
        assert one["severity"] == "critical" and "/srv/small" in one["evidence"]
    finally:
        twin.sh("docker rm -f ollama; umount /srv/small; rmdir /srv/small")


def test_more_threads_than_cores(twin, diagnose, look, ask):
    # Between two tokens the threads rest, for long where all is emulated.
    twin(standin="-e STANDIN_MS_PER_TOKEN=1000")
    name = ask("http://127.0.0.1:11434/api/tags")["models"][0]["name"]
    question = asking("http://127.0.0.1:11434/api/generate", model=name, prompt="x", stream=False, options={"num_thread": 4, "num_predict": 60000})
    twin.sh(f"systemd-run --unit generating {question}")
    try:
        look.wait_for(lambda: "llama-server" in twin.sh("cat /proc/*/comm 2>/dev/null || true"))
        one = look.find(diagnose(timeout=20, interval=5), "threads_oversubscribed")
    finally:
        twin.sh("systemctl stop generating || true")
    assert one["severity"] == "warning" and "(llama-server)" in one["evidence"] and "num_thread" in one["cause"]


def test_a_service_that_answers_and_does_not_work(twin, diagnose, look):
    twin(standin="-e STANDIN_FAILING=/api/generate")
    assert look.codes(diagnose(timeout=20), "ollama") == set()
    result = diagnose(timeout=600, generate=True)
    assert look.find(result, "not_generating")["severity"] == "critical" and look.codes(result, "ollama") == {"not_generating"}


def test_ollama_on_the_cpu(twin, diagnose, look, ask, plan):
    """The plan says that there is a card, and there is none: the stand-in falls back as Ollama does."""
    twin()
    name = ask("http://127.0.0.1:11434/api/tags")["models"][0]["name"]
    ask("http://127.0.0.1:11434/api/generate", model=name, keep_alive=-1)
    uuid = "GPU-57a2d1e5-0000-4000-8000-000000002200"
    plan["ollama"]["device"] = {"kind": "gpu", "uuid": uuid, "name": "Quadro P2200", "bus_id": "0000:01:00.0", "cdi_device": f"nvidia.com/gpu={uuid}",
                                "driver": {"found": "580.95.05", "allowed": "570-580"}, "vram": {"partial_allowed": False}}
    one = look.find(diagnose(timeout=60, plan=plan), "ollama_on_cpu")
    assert one["severity"] == "critical" and f"{name}: all of" in one["evidence"] and "on CPUs" in one["evidence"], json.dumps(one)
    assert "it listed cpu at its start" in one["evidence"] and "state is no_card" in one["cause"]
    assert {"ollama: gpu_loaded", "ollama: gpu_uuid"} <= set(one["checks"])
