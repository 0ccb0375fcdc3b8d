# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The real vLLM, started so that it cannot come up: its own words are understood.

Last of the tests: the service's own container makes room, and does not come back. All are started at once, as the start takes minutes here.
"""
from __future__ import annotations

import pytest

IMAGE = "erni-ki/vllm-cpu:0.32.0"

# The container as the plan has it; no port, as several run at once.
RIGHT = {
    "slice": "--cgroup-parent erniki-vllm.slice", "cpuset": "--cpuset-cpus 0-13", "memory": "--memory 6144m --memory-swap 6144m", "user": "--user 1000:1000",
    "root": "--read-only --tmpfs /tmp -e HOME=/tmp -e HF_HUB_OFFLINE=1 -e VLLM_NO_USAGE_STATS=1", "caps": "--cap-drop ALL", "shm": "--shm-size 256m",
    "wait": "-e OMP_WAIT_POLICY=passive", "bind": "-e VLLM_CPU_OMP_THREADS_BIND=0,2,4,6,8,10,12", "reserved": "-e VLLM_CPU_NUM_OF_RESERVED_CPU=1",
    "kv": "-e VLLM_CPU_KVCACHE_SPACE=1", "model": "-v /srv/models:/srv/models:ro",
}
ARGUMENTS = {"model": "/srv/models/tiny", "rest": "--block-size 32 --max-num-batched-tokens 1024 --max-num-seqs 64 --enforce-eager"}

# What is wrong, and words that must be in evidence and cause.
WRONG = {
    "kv_cache_too_large": ({"kv": "-e VLLM_CPU_KVCACHE_SPACE=8"}, {}, ["requested memory for kv (8", "6144 MiB"]),
    "kv_cache_setting": ({"kv": "-e VLLM_CPU_KVCACHE_SPACE=4.5"}, {}, ["4.5"]),
    "shm_too_small": ({"shm": "--shm-size 64m"}, {}, ["/dev/shm"]),
    "bind_outside_cpuset": ({"cpuset": "--cpuset-cpus 8-13", "bind": "-e VLLM_CPU_OMP_THREADS_BIND=0,2,4"}, {}, ["libgomp", "cpuset"]),
    "bind_invalid": ({"bind": "-e VLLM_CPU_OMP_THREADS_BIND=foo"}, {}, ["foo"]),
    "block_size": ({}, {"rest": "--block-size 16 --enforce-eager"}, ["16", "multiple of 32"]),
    "permission_denied": ({}, {"model": "/srv/models/locked"}, ["chmod", "/srv/models/locked"]),
    "model_missing": ({}, {"model": "/srv/models/none"}, ["/srv/models/none"]),
    "argument_refused": ({}, {"rest": "--no-such-argument"}, ["--no-such-argument"]),
}


@pytest.fixture(name="started", scope="module")
def fixture_started(host):
    def sh(command):
        done = host.run("bash -c %s", command)
        assert done.rc == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout.strip()

    sh("docker stop -t 30 vllm")
    sh("cp -r /srv/models/tiny /srv/models/locked && chown -R root:root /srv/models/locked && chmod 0600 /srv/models/locked/*.safetensors")
    for name, (changes, arguments, _words) in WRONG.items():
        words = " ".join(dict(RIGHT, **changes).values())
        sh(f"docker run -d --name vllm-{name} {words} {IMAGE} {' '.join(dict(ARGUMENTS, **arguments).values())}")
    yield sh
    sh("docker rm -f $(docker ps -aq --filter name=vllm-); rm -r /srv/models/locked")


@pytest.mark.parametrize("name", WRONG)
def test_why_vllm_does_not_start(started, diagnose, look, plan, name):
    container = f"vllm-{name}"
    # Bound outside of its cpuset it may come up all the same, on other CPUs than it was told.
    look.wait_for(lambda: started(f"docker inspect --format '{{{{.State.Running}}}}' {container}; docker logs {container} 2>&1 | grep -c libgomp: || true")
                  != "true\n0", 3600, 5)
    plan["vllm"]["container"] = container
    result = diagnose(plan=plan, timeout=60)
    one = look.find(result, name, "vllm")
    assert one["severity"] == "critical" and one["checks"], one
    told = f"{one['evidence']} {one['cause']} {one['cure']}"
    assert not [word for word in WRONG[name][2] if word not in told], one
    assert name == "bind_outside_cpuset" or look.codes(result, "vllm") == {name}
    assert len(result["logs"]["vllm"]) > 1
