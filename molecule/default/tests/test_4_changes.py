# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a later run changes: drift is put right, the other mode, a neighbour who was there first."""
from __future__ import annotations

import json

import pytest
from machine import REPO, ansible

# A hub with the sandbox's model. With a number as its argument every connection ends after so many bytes of the weights.
HUB = """
import pathlib, sys, threading
import fake_hub
hub = fake_hub.FakeHub({path.name: path.read_bytes() for path in pathlib.Path("/srv/models/tiny").iterdir()})
if len(sys.argv) > 1:
    hub.faults["model.safetensors"], hub.forever = [int(sys.argv[1])], True
pathlib.Path("/root/hub/url").write_text(hub.url)
threading.Event().wait()
"""


@pytest.mark.slow
def test_the_host_is_right_again_after_one_run(play, prove):
    """What the tests of the proof set by hand is drift."""
    run = play("site")
    assert run.code == 0, run.text
    assert prove(timeout=600)["ok"]


def test_a_model_is_made_from_the_one_that_is_there(module, ask):
    there = ask("http://127.0.0.1:11434/api/tags")["models"]
    made = {"name": "brief:1", "from": there[0]["name"], "system": "Be brief.", "parameters": {"num_ctx": 512, "num_thread": 1}}
    assert module("ollama_model", models_path="/var/lib/erni-ki/ollama", **made)["steps"] == ["create"]
    assert module("ollama_model", models_path="/var/lib/erni-ki/ollama", **made)["changed"] is False
    shown = ask("http://127.0.0.1:11434/api/show", model="brief:1")
    assert shown["system"] == "Be brief." and ["num_thread", "1"] in [line.split() for line in shown["parameters"].splitlines()]
    assert module("ollama_model", name="brief:1", state="absent")["changed"] is True
    assert ask("http://127.0.0.1:11434/api/tags")["models"] == there


@pytest.fixture(name="hub")
def fixture_hub(sh):
    """Start a hub on the machine's loopback; return its URL."""
    fake = (REPO / "tests" / "unit" / "plugins" / "fake_hub.py").read_text(encoding="utf-8")
    sh(f"mkdir /root/hub; cat > /root/hub/fake_hub.py <<'END'\n{fake}\nEND\ncat > /root/hub/serve.py <<'END'\n{HUB}\nEND")

    def start(*words):
        sh("systemctl stop hub 2>/dev/null; rm -f /root/hub/url; systemd-run --quiet --unit=hub python3 /root/hub/serve.py " + " ".join(map(str, words)))
        return sh("until [ -s /root/hub/url ]; do systemctl is-active --quiet hub || exit 1; sleep 1; done; cat /root/hub/url")
    yield start
    sh("systemctl stop hub 2>/dev/null; rm -r /root/hub")


@pytest.mark.slow
def test_a_model_of_the_hub_is_whole_or_goes_on_where_it_stopped(module, sh, hub):
    wanted = {"name": "team/tiny", "revision": "0123456789abcdef0123456789abcdef01234567", "path": "/root/models",
              "image": sh("docker inspect --format '{{.Config.Image}}' vllm")}
    try:
        cut = ansible("ansible", "-i", str(REPO / "inventory" / "sandbox"), "inference", "-m", "erni_ki.inference.vllm_model",
                      "-a", json.dumps(dict(wanted, endpoint=hub(1000))))
        assert cut.code != 0 and "model.safetensors" in cut.text and "the next run goes on from there" in cut.text and "Traceback" not in cut.text, cut.text
        size = int(sh("stat -c %s /srv/models/tiny/model.safetensors"))
        assert 0 < int(sh("stat -c %s /root/models/.partial-*/.erni-ki-parts/*")) < size
        made = module("vllm_model", **wanted, endpoint=hub())
        assert made["changed"] is True and made["model"]["whole"] is True and made["model"]["source"] == "hub"
        for name in sh("ls /srv/models/tiny").split():
            sh(f"cmp /srv/models/tiny/{name} {made['model']['path']}/{name}")
        sh("systemctl stop hub")
        again = module("vllm_model", **wanted, offline=True)
        assert again["changed"] is False and again["model"]["whole"] is True
        assert sh("docker ps -a --format '{{.Names}}' | sort").split() == ["ollama", "vllm"]
    finally:
        sh("rm -rf /root/models")


@pytest.mark.slow
def test_fenced_gives_the_system_its_cpus_back(play, prove, sh):
    run = play("site", "--tags", "cpu_partition,verify", plan_isolation="fenced")
    assert run.code == 0, run.text
    for unit in ("init.scope", "system.slice", "user.slice"):
        assert sh(f"cat /sys/fs/cgroup/{unit}/cpuset.cpus.effective 2>/dev/null || echo 0-15") == "0-15", unit
    assert sh("cat /sys/fs/cgroup/erniki.slice/erniki-vllm.slice/cpuset.cpus.effective") == "0-13"
    run = play("site", "--tags", "cpu_partition,verify")
    assert run.code == 0, run.text
    assert sh("cat /sys/fs/cgroup/system.slice/cpuset.cpus.effective") == "14-15"


@pytest.mark.slow
def test_a_foreign_container_is_not_squeezed_unasked(play, sh, fingerprint):
    sh("docker run -d --name somebodys --entrypoint sleep erni-ki/ollama-standin:0.32.15 3600")
    try:
        before = fingerprint()
        run = play("site")
        assert run.code != 0 and "somebodys" in run.text and "plan_allow_squeezing_containers" in run.text, run.text
        assert fingerprint() == before
    finally:
        sh("docker rm -f somebodys")
