# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module against a hub on loopback, asked by the hub's real library. conftest.py compares every result with RETURN."""
from __future__ import annotations

import importlib.util
import json
import os
import shutil
import threading
import time

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils import _docker, _hub_container, _hub_model
from ansible_collections.erni_ki.inference.plugins.modules import vllm_model
from ansible_collections.erni_ki.inference.tests.unit.plugins.fake_docker import FakeDocker
from ansible_collections.erni_ki.inference.tests.unit.plugins.fake_hub import NAME, REVISION, FakeHub
from ansible_collections.erni_ki.inference.tests.unit.plugins.model_files import folder

IMAGE = "vllm:1"
TOKEN = "hf_OpenSesame"
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16", "hidden_size": 256, "intermediate_size": 512,
          "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 1024, "max_position_embeddings": 512,
          "tie_word_embeddings": True}
WEIGHTS = "model.safetensors"

needs_library = pytest.mark.skipif(not importlib.util.find_spec("huggingface_hub"), reason="the hub's library is not here")


@pytest.fixture(name="files", scope="module")
def files_fixture(tmp_path_factory):
    """A model of two matrices, and what else lies about in a repository."""
    place = folder(tmp_path_factory.mktemp("model"), CONFIG, [("model.embed_tokens.weight", "BF16", [1024, 256]), ("lm_head.weight", "BF16", [1024, 256])])
    weights = bytearray((place / WEIGHTS).read_bytes())
    weights[-700000:] = os.urandom(700000)
    return {
        "config.json": (place / "config.json").read_bytes(), WEIGHTS: bytes(weights), "tokenizer.json": b"{}" * 5000, "empty.txt": b"",
        "extra/one.json": b"{}", ".gitattributes": b"x", "pytorch_model.bin": b"x" * 100, "original/consolidated.pth": b"y", "model.gguf": b"z"}


WANTED = ["config.json", "empty.txt", "extra/one.json", WEIGHTS, "tokenizer.json"]


@pytest.fixture(name="hub")
def hub_fixture(files):
    hub = FakeHub(files)
    yield hub
    hub.close()


@pytest.fixture(name="docker")
def docker_fixture(tmp_path, monkeypatch):
    fake = FakeDocker(tmp_path / "home", [IMAGE])
    monkeypatch.setattr(_docker, "docker", fake)
    if os.geteuid():
        monkeypatch.setattr(os, "chown", lambda *args, **kwargs: None)
    yield fake
    assert fake.removed == len(fake.created), "a container stayed"


@pytest.fixture(name="run")
def run_fixture(capfd, module_arguments, tmp_path, hub, docker):
    """Run the module; return its result."""
    def run(check=False, **arguments):
        given = {"name": NAME, "revision": REVISION, "path": str(tmp_path / "models"), "image": IMAGE, "endpoint": hub.url, "_ansible_check_mode": check,
                 "_ansible_diff": True, **arguments}
        with module_arguments(given), pytest.raises(SystemExit) as ended:
            vllm_model.main()
        text = capfd.readouterr().out
        assert TOKEN not in text.replace(json.dumps(given), "")
        result = json.loads(text)
        assert bool(ended.value.code) == bool(result.get("failed"))
        return result
    return run


def place_of(tmp_path):
    return tmp_path / "models" / "team--tiny" / REVISION


def partial_of(tmp_path):
    return tmp_path / "models" / f".partial-team--tiny-{REVISION}"


def wait_for(condition):
    for _attempt in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not come to pass")


def content(place):
    return {str(path.relative_to(place)): path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file() and path.name != _hub_model.MANIFEST}


@needs_library
def test_it_is_downloaded_once_and_then_nobody_is_asked(run, hub, docker, tmp_path, files):
    checked = run(check=True)
    assert checked["changed"] and not hub.asked and not docker.created and not (tmp_path / "models").exists()
    made = run()
    assert made["changed"] and made["model"]["whole"] and made["model"]["source"] == "hub" and made["model"]["files"] == len(WANTED)
    assert checked["diff"] == made["diff"]
    place = place_of(tmp_path)
    assert made["model"]["path"] == str(place)
    assert content(place) == {name: files[name] for name in WANTED}
    assert made["model"]["size_bytes"] == made["fetched_bytes"] == sum(len(files[name]) for name in WANTED)
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["team--tiny"]
    assert all(path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644) for path in place.rglob("*"))
    asked = len(hub.asked)
    again = run(image="not here", endpoint="http://127.0.0.1:1")
    assert not again["changed"] and again["model"] == made["model"] and again["fetched_bytes"] == 0
    described = run(state="described", offline=True, image="")
    assert described["model"] == made["model"] and described["model_size"]["parameters"] == 1024 * 256 and described["model_size"]["path"] == str(place)
    assert len(hub.asked) == asked


@needs_library
def test_the_container_has_next_to_nothing(run, hub, docker):
    hub.token = TOKEN
    assert run(token=TOKEN + "\n", environment={"HTTPS_PROXY": "http://proxy.example", "HF_HUB_OFFLINE": "1"}, cpuset="7,15")["changed"]
    for created in docker.created:
        assert created["cap_drop"] == ["ALL"] and created["read_only"] and created["security_opt"] == ["no-new-privileges:true"]
        assert created["cpuset_cpus"] == "7,15" and created["nano_cpus"] == 10 ** 9 and created["mem_limit"] == created["memswap_limit"] == 1 << 30
        assert created["user"] == "65600:65600" and created["runtime"] == "runc" and created["network_mode"] == "host"
        assert created["environment"]["HF_HUB_OFFLINE"] == "0" and created["environment"]["HTTPS_PROXY"] == "http://proxy.example"
        assert sorted(bind["mode"] for bind in created["volumes"].values()) == ["ro", "rw"]
        assert TOKEN not in repr(created)
        assert not [place for place in created["volumes"] if os.path.exists(place)]


@needs_library
def test_an_endpoint_elsewhere_is_reached_through_a_bridge(run, docker):
    assert "cannot be reached" in run(endpoint="http://hub.invalid:8080")["msg"]
    assert docker.created[0]["network_mode"] == "bridge"


@needs_library
def test_an_interrupted_download_goes_on_in_the_middle_of_a_file(run, hub, docker, tmp_path, files):
    def kill(container):
        if "fetch" in container.words:
            assert hub.halved.wait(60)
            wait_for(lambda: [path for path in (partial_of(tmp_path) / ".erni-ki-parts").iterdir() if path.stat().st_size])
            container.process.kill()

    # The library writes pieces of 10 MB.
    files = hub.files = dict(files, **{WEIGHTS: files[WEIGHTS] + b"x" * (30 << 20)})
    hub.go_on, docker.on_start = threading.Event(), kill
    broken = run()
    assert "exit code -9" in broken["msg"]
    part = next((partial_of(tmp_path) / ".erni-ki-parts").iterdir())
    have = part.stat().st_size
    assert 0 < have < len(files[WEIGHTS]) and not place_of(tmp_path).exists()
    hub.go_on.set()
    hub.go_on, docker.on_start, before = None, None, len(hub.downloads(WEIGHTS))
    docker.left_over = [_hub_container.CONTAINER]
    made = run()
    assert made["changed"] and content(place_of(tmp_path))[WEIGHTS] == files[WEIGHTS]
    # One for the header, one for the rest.
    assert hub.downloads(WEIGHTS)[before:] == ["bytes=0-100000", f"bytes={have}-"]
    assert hub.downloads("tokenizer.json") and made["fetched_bytes"] < sum(len(files[name]) for name in WANTED)
    assert not docker.left_over


@needs_library
def test_a_time_that_is_over(run, hub):
    hub.files = dict(hub.files, **{WEIGHTS: hub.files[WEIGHTS] + b"x" * (30 << 20)})
    hub.go_on = threading.Event()
    assert "timeout" in run(timeout=4)["msg"]


@needs_library
@pytest.mark.parametrize("faults", [
    ["whole", 300000], ["whole", 1000, "whole"], ["whole", "503"], ["whole", 1000, "wrong"],
])
def test_what_goes_wrong_now_and_then_is_tried_again(run, hub, tmp_path, files, faults):
    hub.faults[WEIGHTS] = list(faults)
    made = run()
    assert made.get("changed"), made
    assert content(place_of(tmp_path))[WEIGHTS] == files[WEIGHTS]


@needs_library
@pytest.mark.parametrize("faults, words", [
    (["whole", "wrong"], ["model.safetensors", "another checksum"]),
    (["whole", 0], ["model.safetensors", "breaks off before its end", "stays"]),
])
def test_what_stays_wrong_is_said_and_the_next_run_converges(run, hub, tmp_path, files, faults, words):
    hub.faults[WEIGHTS], hub.forever = list(faults), True
    broken = run()
    assert not [word for word in words if word not in broken["msg"]], broken["msg"]
    assert "Traceback" not in broken["msg"] and not place_of(tmp_path).exists()
    hub.faults, asked = {}, len(hub.asked)
    assert run()["changed"] and content(place_of(tmp_path)) == {name: files[name] for name in WANTED}
    # What was whole is not fetched again.
    assert [path for _method, path, _range, _token in hub.asked[asked:] if path.endswith("one.json")] == []


@needs_library
@pytest.mark.parametrize("prepare, arguments, words", [
    ({}, {"name": "team/other"}, ["team/other", "no token", "upper and lower case"]),
    ({}, {"revision": "f" * 40}, ["no revision ffff", "History"]),
    ({"token": TOKEN}, {}, ["can be seen with no token", "private"]),
    ({"token": TOKEN}, {"token": "hf_Wrong"}, ["401", "vllm_hub_token_file"]),
    ({"token": TOKEN, "gated": True}, {}, ["gated", "Accept its terms"]),
    ({"page": b"<html>hello"}, {}, ["no hub for models", "vllm_hub_endpoint"]),
    ({"page": b"{}"}, {}, ["no hub for models"]),
    ({}, {"endpoint": "http://127.0.0.1:1"}, ["cannot be reached", "vllm_model_controller_path"]),
])
def test_what_the_hub_refuses_is_said(run, hub, tmp_path, prepare, arguments, words):
    for name, value in prepare.items():
        setattr(hub, name, value)
    # What asks first is the same for V(present).
    said = run(state="described", **arguments)["msg"]
    assert not [word for word in words if word not in said], said
    assert "Traceback" not in said and not (tmp_path / "models").exists()


@pytest.mark.parametrize("arguments, words", [
    ({"revision": "main"}, ["'main' is no commit", "40 hexadecimal", "git ls-remote"]),
    ({"revision": ""}, ["no revision is given"]),
    ({"name": "../x"}, ["no name on the hub"]),
    ({"name": "a--b/c"}, ["no name on the hub"]),
    ({"endpoint": "hub.example"}, ["no address of a hub"]),
    ({"endpoint": "https://me:secret@hub.example"}, ["user or a password"]),
    ({"token": "two words"}, ["one line"]),
    ({"user": 0}, ["does not run as root"]),
    ({"timeout": 0}, ["1 or more"]),
    ({"image": "none"}, ["none is not on this host"]),
    ({"image": ""}, ["no image"]),
    ({"offline": True}, ["is not there", "vllm_offline", "vllm_model_controller_path"]),
])
def test_bad_settings_are_refused_before_anything_is_asked(run, hub, docker, tmp_path, arguments, words):
    said = run(**arguments)["msg"]
    assert not [word for word in words if word not in said], said
    assert not hub.asked and not docker.created and not (tmp_path / "models").exists()


@needs_library
def test_no_room(run, hub, tmp_path, monkeypatch):
    class Full:
        f_bavail, f_frsize = 64 << 8, 4096
    monkeypatch.setattr(_hub_model.check_room, "__defaults__", (lambda path: Full,))
    for state in ("described", "present"):
        said = run(state=state)["msg"]
        assert "no room" in said and "64 MiB free" in said and "2 MiB are still needed" in said and str(tmp_path / "models") in said
    assert not hub.downloads("tokenizer.json") and not (tmp_path / "models").exists()


@needs_library
def test_described_asks_the_hub_and_leaves_nothing(run, hub, docker, tmp_path, files):
    told = run(state="described", check=True)
    assert not told["changed"] and not told["model"]["whole"] and told["unknown"] is None
    assert told["model_size"]["parameters"] == 1024 * 256 and told["model_size"]["path"] == str(place_of(tmp_path))
    assert told["model"]["size_bytes"] == sum(len(files[name]) for name in WANTED)
    assert not (tmp_path / "models").exists() and hub.downloads(WEIGHTS) == ["bytes=0-100000"]
    assert not [path for created in docker.created for path in created["volumes"] if os.path.exists(path)]
    run()
    whole = run(state="described")
    assert whole["model_size"] == told["model_size"]


def test_described_says_why_it_does_not_know(run, docker):
    assert "is not on this host" in run(state="described", image="none")["unknown"]
    docker.problem = "no socket"
    assert "no socket" in run(state="described")["unknown"]
    assert "no image" in run(state="described", image="")["unknown"].lower()


@needs_library
def test_described_of_weights_that_nobody_understands(run, hub, files):
    hub.files = dict(files, **{WEIGHTS: b"\xff" * 64})
    told = run(state="described")
    assert told["model_size"] is None and told["unknown"] and told["model"]["files"] == len(WANTED)


@needs_library
def test_a_broken_folder_is_mended_and_stays_until_then(run, hub, tmp_path, files):
    run()
    weights = place_of(tmp_path) / WEIGHTS
    os.truncate(weights, 1000)
    hub.token, hub.gated = TOKEN, True
    assert "gated" in run()["msg"] and weights.stat().st_size == 1000
    described = run(check=True)
    assert described["changed"] and "1000 bytes instead of" in described["diff"]["before"].get("problem", "1000 bytes instead of")
    hub.token, asked = None, len(hub.asked)
    assert run()["changed"] and content(place_of(tmp_path)) == {name: files[name] for name in WANTED}
    assert [path for _method, path, _range, _token in hub.asked[asked:] if path.endswith("one.json")] == []
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["team--tiny"]


@needs_library
@pytest.mark.parametrize("name", ["../out.json", "/etc/x.json", "a//b.json", ".erni-ki-files.json"])
def test_a_hub_cannot_write_elsewhere(run, hub, tmp_path, files, name):
    hub.files = dict(files, **{name: b"{}"})
    result = run()
    if name.startswith("."):
        assert result.get("changed") or "cannot be in a model's folder" in result["msg"]
    else:
        assert "cannot be in a model's folder" in result["msg"] and not (tmp_path / "models").exists()


@needs_library
def test_no_model_without_a_configuration(run, hub, files):
    hub.files = {name: data for name, data in files.items() if name != "config.json"}
    assert "no config.json" in run()["msg"]


def copied(tmp_path, files, manifest=None):
    """Put what the role would copy into the partial folder; return the list of it."""
    place = partial_of(tmp_path)
    for name in WANTED:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(files[name])
    if manifest:
        (place / _hub_model.MANIFEST).write_text(manifest, encoding="utf-8")
    return listed(files)


def listed(files):
    """Return what a find on the controller tells of the files."""
    found = [{"path": f"/controller/tiny/{name}", "size": len(files[name]), "mode": "0644"} for name in (*WANTED, ".gitattributes")]
    return {"path": "/controller/tiny/", "files": found + [{"path": "/controller/tiny/.cache/hub/x", "size": 1}]}


def test_what_was_copied_is_adopted(run, hub, docker, tmp_path, files):
    wanted = listed(files)
    told = run(state="described", copied=wanted, image="")
    assert not told["model"]["whole"] and "controller" in told["unknown"]
    assert run(copied=wanted, check=True)["changed"]
    assert "Copy it there again" in run(copied=wanted)["msg"]
    copied(tmp_path, files)
    (partial_of(tmp_path) / "left-over").write_bytes(b"x")
    made = run(copied=wanted)
    assert made["changed"] and made["model"]["source"] == "controller" and content(place_of(tmp_path)) == {name: files[name] for name in WANTED}
    assert not run(copied=wanted)["changed"] and not run(offline=True)["changed"]
    other = listed(dict(files, **{"extra/one.json": b"other"}))
    assert run(copied=other, check=True)["changed"]
    assert not hub.asked and not docker.created


def test_what_was_copied_is_compared_with_the_controllers_manifest(run, tmp_path, files):
    wanted = copied(tmp_path, files)
    run(copied=wanted)
    manifest = (place_of(tmp_path) / _hub_model.MANIFEST).read_text(encoding="utf-8")
    shutil.rmtree(tmp_path / "models")
    broken = dict(files, **{WEIGHTS: files[WEIGHTS][:-1] + b"?"})
    said = run(copied=copied(tmp_path, broken, manifest))["msg"]
    assert "model.safetensors" in said and "checksum" in said and not place_of(tmp_path).exists()
    assert run(copied=copied(tmp_path, files, manifest))["changed"]
    shutil.rmtree(tmp_path / "models")
    said = run(copied=copied(tmp_path, files, manifest.replace("team/tiny", "team/other")))["msg"]
    assert "team/other" in said
    del wanted["files"][0]
    assert run(copied=wanted)["msg"].startswith("The folder /controller/tiny/ on the controller lists no config.json")


def test_files_without_a_commit(run, tmp_path, files):
    wanted = copied(tmp_path, files)
    shutil.move(str(partial_of(tmp_path)), str(tmp_path / "models" / ".partial-team--tiny-local"))
    assert run(copied=wanted, revision="")["model"]["path"] == str(tmp_path / "models" / "team--tiny" / "local")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": 3}', '{"files": [{"name": "../x", "size": 1}]}', '{"name": "x"}'])
def test_a_manifest_that_is_none(run, tmp_path, files, text):
    run(copied=copied(tmp_path, files))
    (place_of(tmp_path) / _hub_model.MANIFEST).write_text(text, encoding="utf-8")
    told = run(state="described", image="")
    assert not told["model"]["whole"] and "cannot be used" in told["model"]["problem"]


def test_a_link_in_place_of_a_file_is_none(run, tmp_path, files):
    run(copied=copied(tmp_path, files))
    (place_of(tmp_path) / "config.json").unlink()
    (place_of(tmp_path) / "config.json").symlink_to("/etc/passwd")
    assert "config.json is missing" in run(state="described", image="")["model"]["problem"]
