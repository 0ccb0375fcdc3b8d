# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role makes of a plan and a model: the service's description, where the model is from, and the settings it refuses."""
from __future__ import annotations

import importlib.util
import pathlib
import re

import pytest
import yaml

HERE = pathlib.Path(__file__).resolve().parent
REPO = HERE.parents[2]
PLAN = {
    "system": {"cpuset": "7,15"}, "ollama": None,
    "vllm": {
        "slice": "erniki-vllm.slice", "cpuset": "0-6,8-14", "omp": {"bind": "0-6", "reserved_cpus": 1}, "kv_cache_gib": 4,
        "memory": {"limit_mib": 6144, "swap_limit_mib": 6144, "reservation_mib": 2048, "shm_mib": 256}, "device": {"runtime": "runc"},
        "engine": {"version": "0.32.0", "block_size": 32, "max_num_batched_tokens": 1024, "max_num_seqs": 64, "max_model_len": 0}}}
PLACE = "/var/lib/erni-ki/vllm/models/team--tiny/abc"
KNOWN = {"plan_decided": PLAN, "__vllm_described": {"model": {"path": PLACE, "whole": True}}, "__vllm_model_stat": {}}
HUB = {**KNOWN, "vllm_model": "team/tiny", "vllm_model_revision": "a" * 40}
THERE, SECRET, OPEN = {"stat": {"exists": False}}, {"stat": {"exists": True, "mode": "0600"}}, {"stat": {"exists": True, "mode": "0644"}}
WANTED = ["__vllm_definition", "__vllm_problems", "__vllm_revision", "__vllm_place_problems", "__vllm_image_if_known", "__vllm_system_cpuset", "__vllm_folders"]
CASES = {
    "hub": HUB,
    "default": KNOWN,
    "another one": {**KNOWN, "vllm_model": "team/tiny"},
    "folder": {**KNOWN, "vllm_model": "/srv/models/tiny", "__vllm_model_stat": {"stat": {"exists": True, "mode": "0644", "roth": True}}},
    "folder and controller": {**KNOWN, "vllm_model": "/srv/models/tiny", "vllm_model_controller_path": "/home",
                              "__vllm_model_stat": {"stat": {"exists": True, "mode": "0644", "roth": True}}},
    "no token": {**HUB, "vllm_hub_token_file": "/etc/token", "__vllm_token_stat_host": THERE},
    "token": {**HUB, "vllm_hub_token_file": "/etc/token", "__vllm_token_stat_host": SECRET},
    "open token": {**HUB, "vllm_hub_token_file": "/me/token", "vllm_hub_token_file_on_host": False, "__vllm_token_stat_controller": OPEN},
    "controller": {**HUB, "vllm_model_revision": "", "vllm_model_controller_path": "/me/tiny/",
                   "__vllm_controller_files": {"files": [{"path": "/me/tiny/config.json", "size": 3}]}},
    "empty controller": {**HUB, "vllm_model_controller_path": "/me/tiny", "__vllm_controller_files": {"files": []}},
    "arguments": {**HUB, "vllm_extra_args": ["--hf_token=x", "--revision", "main"]},
}


@pytest.fixture(name="rendered", scope="module")
def fixture_rendered(tmp_path_factory):
    spec = importlib.util.spec_from_file_location("roles_render", HERE / "render.py")
    rendering = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rendering)
    made = rendering.render(tmp_path_factory.mktemp("vllm"), "vllm", WANTED, CASES.values(), {"os_family": "Debian", "architecture": "x86_64"})
    return dict(zip(CASES, made))


def problems(rendered, case, of="__vllm_problems"):
    return [text for text in rendered[case][of] if text]


def test_the_engine_gets_a_folder_and_never_the_network(rendered):
    for case, place, name in (("hub", PLACE, "team/tiny"), ("default", PLACE, "HuggingFaceTB/SmolLM2-135M-Instruct"),
                              ("folder", "/srv/models/tiny", "tiny"), ("controller", PLACE, "team/tiny")):
        service = rendered[case]["__vllm_definition"]
        assert service["command"][:3] == [place, "--served-model-name", name] and "--revision" not in service["command"]
        assert service["volumes"] == [f"{place}:{place}:ro"]
        assert service["environment"]["HF_HUB_OFFLINE"] == "1" and service["environment"]["HF_HOME"].startswith("/tmp/")
        assert not problems(rendered, case) and not problems(rendered, case, "__vllm_place_problems")
        assert rendered[case]["__vllm_folders"] == []


def test_the_default_model_is_pinned_and_no_other_by_it(rendered):
    assert re.fullmatch("[0-9a-f]{40}", rendered["default"]["__vllm_revision"])
    assert rendered["hub"]["__vllm_revision"] == "a" * 40
    assert rendered["another one"]["__vllm_revision"] == rendered["controller"]["__vllm_revision"] == ""


def test_the_default_model_is_one_that_the_role_knows():
    defaults, internal = (yaml.safe_load((REPO / "roles" / "vllm" / place / "main.yml").read_text(encoding="utf-8")) for place in ("defaults", "vars"))
    assert defaults["vllm_model"] in internal["__vllm_known_revisions"]


def test_a_download_keeps_off_the_engines_cpus(rendered):
    assert rendered["hub"]["__vllm_system_cpuset"] == "7,15"
    assert rendered["hub"]["__vllm_image_if_known"] == "vllm/vllm-openai-cpu:v0.32.0-x86_64"


@pytest.mark.parametrize("case, of, words", [
    ("no token", "__vllm_place_problems", ["/etc/token", "not on this host", "vllm_hub_token_file_on_host to false"]),
    ("open token", "__vllm_place_problems", ["/me/token", "0644", "the controller", "chmod 0600"]),
    ("empty controller", "__vllm_place_problems", ["/me/tiny", "no config.json"]),
    ("folder and controller", "__vllm_problems", ["/srv/models/tiny", "vllm_model_controller_path"]),
    ("arguments", "__vllm_problems", ["--hf-token, --revision"]),
])
def test_what_is_refused(rendered, case, of, words):
    said = "\n".join(problems(rendered, case, of))
    assert not [word for word in words if word not in said], said


def test_a_token_of_its_owner_is_taken(rendered):
    assert not problems(rendered, "token", "__vllm_place_problems")
