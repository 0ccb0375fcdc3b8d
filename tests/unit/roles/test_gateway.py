# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of the gateway that the role refuses, and where the playbooks have it. What it does once it runs: tests/gateway."""
from __future__ import annotations

import base64
import json

import pytest
import yaml

from ansible_collections.erni_ki.inference.tests.unit.roles.render import REPO, play_locally, render

KEY = [{"name": "a", "sha256": "0" * 64}]
FILES = {"gateway_tls": "files", "gateway_certificate_file": "/c.crt", "gateway_certificate_key_file": "/c.key"}
FOUND = {"results": [{"__gateway_path": "/c.crt", "stat": {"exists": True}}, {"__gateway_path": "/c.key", "stat": {"exists": True}}]}


def public(*keys, rc=0, stderr=""):
    return {"results": [{"stdout": key, "rc": rc, "stderr": stderr} for key in keys]}


CASES = {
    "usual": ({}, []),
    "numbers as text": ({"gateway_port": "8081", "gateway_admin_port": "9837", "gateway_log_days": "7", "gateway_max_clients": "9"}, []),
    "one port, as text": ({"gateway_port": "9836"}, [["both 9836"]]),
    "for the network": ({"gateway_bind_address": "192.0.2.1", "gateway_tls": "self_signed", "gateway_api_keys": KEY}, []),
    "behind another server": ({"gateway_bind_address": "0.0.0.0", "gateway_allow_insecure": True}, []),
    "loopback of IPv6": ({"gateway_bind_address": "[::1]"}, []),
    "open": ({"gateway_bind_address": "0.0.0.0", "gateway_tls": "self_signed"}, [["gateway_api_keys is empty", "gateway_allow_insecure"]]),
    "readable": ({"gateway_bind_address": "192.0.2.1", "gateway_api_keys": KEY}, [["gateway_tls is none", "self_signed"]]),
    "both": ({"gateway_bind_address": "0.0.0.0"}, [["gateway_tls is none"], ["gateway_api_keys is empty"]]),
    "no certificate": ({"gateway_tls": "files"}, [["gateway_certificate_file", "empty"]]),
    "one port": ({"gateway_port": 9836}, [["both 9836"]]),
    "no port": ({"gateway_port": 0, "gateway_admin_port": 70000}, [["gateway_port and gateway_admin_port", "1 to 65535"]]),
    "nothing": ({"gateway_max_clients": 0, "gateway_log_days": -1}, [["gateway_max_clients, gateway_log_days", "works is 1"]]),
    "certificate": ({**FILES, "__gateway_files": FOUND, "__gateway_public_keys": public("x", "x")}, []),
    "another key": ({**FILES, "__gateway_files": FOUND, "__gateway_public_keys": public("x", "y")}, [["/c.key is not that of", "/c.crt", "differ"]]),
    "no certificate in it": ({**FILES, "__gateway_files": FOUND, "__gateway_public_keys": public("", "", rc=1, stderr="unable to load")},
                             [["/c.crt", "unable to load"]]),
    "gone": ({**FILES, "__gateway_files": {"results": [FOUND["results"][0], {"__gateway_path": "/c.key", "stat": {"exists": False}}]}},
             [["/c.key is not on this host"]]),
}
HOSTS = {"Debian 12": ("Debian", "Debian", "12", True), "Debian 13": ("Debian", "Debian", "13", True), "Debian 11": ("Debian", "Debian", "11", False),
         "Rocky": ("RedHat", "Rocky", "9", False)}


@pytest.fixture(name="rendered", scope="module")
def fixture_rendered(tmp_path_factory):
    wanted = ["__gateway_own_problems", "__gateway_certificate_problems"]
    return dict(zip(CASES, render(tmp_path_factory.mktemp("gateway"), "gateway", wanted, [case for case, unused in CASES.values()])))


@pytest.mark.parametrize("name", CASES)
def test_settings(rendered, name):
    found = [text for text in rendered[name]["__gateway_own_problems"] + rendered[name]["__gateway_certificate_problems"] if text]
    wanted = CASES[name][1]
    assert len(found) == len(wanted) and all(word in text for text, words in zip(found, wanted) for word in words), found


@pytest.mark.parametrize("name", HOSTS)
def test_distributions(tmp_path, name):
    family, distribution, major, known = HOSTS[name]
    facts = {"os_family": family, "distribution": distribution, "distribution_major_version": major}
    [made] = render(tmp_path, "gateway", ["__gateway_host_problems"], [{}], facts)
    found = [text for text in made["__gateway_host_problems"] if text]
    assert (not found) if known else (len(found) == 1 and f"this host is {distribution}-{major}" in found[0] and "gateway_state: absent" in found[0])


@pytest.mark.parametrize("state, groups, code", [("auto", ["inference"], 0), ("present", ["inference"], 2), ("auto", ["inference", "gateway"], 2)])
def test_a_host_that_cannot_have_it(tmp_path, state, groups, code):
    """It is left without, or refused where somebody insists; nothing is made either way."""
    plan = {"system": {"cpuset": "7,15"}, "ollama": None, "vllm": {"engine": {"max_num_seqs": 4}}}
    task = {"ansible.builtin.include_role": {"name": "erni_ki.inference.gateway"}, "vars": {"plan_decided": plan}}
    words = {"__gateway_known": [], "__gateway_folder": str(tmp_path / "etc"), "gateway_state": state}
    said = play_locally(tmp_path, task, "-e", json.dumps(words), code=code, groups=groups)
    assert ("This host gets no gateway" in said) == (code == 0) and ("Set gateway_state: absent" in said) == (code == 2)
    assert not (tmp_path / "etc").exists()


@pytest.mark.parametrize("now, moved", [
    ("", True), ("listen 127.0.0.1:8080 backlog=1024;\n listen 127.0.0.1:9836;", False), ("listen 0.0.0.0:8080 ssl;\n listen 127.0.0.1:9836;", True),
    ("listen 127.0.0.1:8080;\n listen 127.0.0.1:9836;\n listen 192.0.2.1:9836;", True)])
def test_where_it_listens_decides_between_reload_and_restart(tmp_path, now, moved):
    described = {"__gateway_described": {"content": base64.b64encode(now.encode()).decode()}}
    [made] = render(tmp_path, "gateway", ["__gateway_moved"], [described])
    assert made["__gateway_moved"] is moved


def test_the_playbooks_check_first_put_it_behind_the_engines_and_remove_it_before_them():
    def roles(play):
        calls = [task.get(f"ansible.builtin.{kind}_role") for task in play.get("tasks", []) for kind in ("include", "import")]
        return [call["name"].rpartition(".")[2] for call in calls if call]

    plan, site, uninstall = (yaml.safe_load((REPO / "playbooks" / f"{name}.yml").read_text(encoding="utf-8")) for name in ("plan", "site", "uninstall"))
    assert [roles(play) for play in site[-3:]] == [["gateway"], ["monitoring"], ["verify"]]
    assert roles(plan[-1]) == ["gateway"] and [roles(play) for play in uninstall[:2]] == [["monitoring"], ["gateway"]]
    # One place for the hosts, three times the same.
    assert len({play["hosts"] for play in (plan[-1], site[-3], uninstall[1])}) == 1
