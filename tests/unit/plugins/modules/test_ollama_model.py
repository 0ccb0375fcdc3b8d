# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module against a running stand-in, and against servers that are not Ollama."""
from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import socket
import threading
import time

import pytest
import yaml
from ansible.module_utils import basic
from ansible_collections.erni_ki.inference.plugins.module_utils import _ollama
from ansible_collections.erni_ki.inference.plugins.modules import ollama_model
from ansible_collections.erni_ki.inference.tests.unit.standin import harness


@pytest.fixture(name="server", scope="module")
def server_fixture(tmp_path_factory):
    with harness.running(tmp_path_factory.mktemp("ollama")) as server:
        yield server


@pytest.fixture(name="empty")
def empty_fixture(server):
    """The stand-in without models, without switches."""
    server.control()
    for model in server.call("GET", "/api/tags")[1]["models"]:
        server.call("POST", "/api/generate", {"model": model["name"], "keep_alive": 0})
        server.call("DELETE", "/api/delete", {"model": model["name"]})
    return server


@pytest.fixture(name="logged")
def logged_fixture(monkeypatch):
    lines = []
    monkeypatch.setattr(basic.AnsibleModule, "log", lambda self, text, log_args=None: lines.append(text))
    return lines


@pytest.fixture(name="run")
def run_fixture(capsys, module_arguments, logged):
    """Run the module; return its result."""
    def run(check=False, **params):
        arguments = {**params, "_ansible_check_mode": check, "_ansible_diff": True}
        with module_arguments(arguments), pytest.raises(SystemExit) as ending:
            ollama_model.main()
        result = json.loads(capsys.readouterr().out)
        assert bool(result.get("failed")) == (ending.value.code != 0)
        result.pop("invocation", None)
        return result
    return run


def pull(server, name):
    assert server.call("POST", "/api/pull", {"model": name, "stream": False}) == (200, {"status": "success"})


def load(server, name):
    assert server.call("POST", "/api/generate", {"model": name})[1]["done_reason"] == "load"


# ---------------------------------------------------------------- states

CASES = [
    # what is there before: pulled, loaded; what is asked; the steps
    (False, False, {"state": "present"}, ["pull"]),
    (True, False, {"state": "present"}, []),
    (False, False, {"state": "loaded"}, ["pull", "load"]),
    (True, False, {"state": "loaded"}, ["load"]),
    (True, False, {"state": "loaded", "keep_alive": "10m"}, ["load"]),
    (True, True, {"state": "loaded"}, []),
    (True, True, {"state": "loaded", "keep_alive": "-1"}, ["load"]),
    (True, True, {"state": "unloaded"}, ["unload"]),
    (True, False, {"state": "unloaded"}, []),
    (False, False, {"state": "unloaded"}, []),
    (True, True, {"state": "absent"}, ["unload", "delete"]),
    (True, False, {"state": "absent"}, ["delete"]),
    (False, False, {"state": "absent"}, []),
]


@pytest.mark.parametrize("pulled, loaded, asked, steps", CASES)
def test_check_then_real_then_again(empty, run, pulled, loaded, asked, steps):
    """Check mode tells what the real run does, in the same shape, and changes nothing; the run after it finds nothing to do."""
    if pulled:
        pull(empty, "tinystory")
    if loaded:
        load(empty, "tinystory")
    before = [empty.call("GET", path) for path in ("/api/tags", "/api/ps")]
    arguments = {"name": "tinystory", "url": empty.url, **asked}

    foreseen = run(check=True, **arguments)
    assert [empty.call("GET", path) for path in ("/api/tags", "/api/ps")] == before
    real = run(**arguments)
    again = run(**arguments)

    assert foreseen["steps"] == real["steps"] == steps
    assert foreseen["changed"] is real["changed"] is bool(steps)
    assert again["changed"] is False and again["steps"] == []
    assert foreseen["server_version"] == real["server_version"] == "0.32.15"
    assert set(foreseen) == set(real) and set(foreseen["model"]) == set(real["model"])
    for key, value in foreseen["model"].items():
        # What only a pull or a load can tell is left open, and nothing else.
        assert value == real["model"][key] or value in (None, []) and {"pull", "load"} & set(steps)
    assert foreseen["diff"]["before"] == real["diff"]["before"]
    assert set(foreseen["diff"]["after"]) == set(real["diff"]["after"])
    assert (real["diff"]["before"] == real["diff"]["after"]) == (not steps or asked.get("keep_alive") == "-1")
    assert real["model"]["name"] == "tinystory:latest"
    assert real["model"]["present"] == bool(empty.call("GET", "/api/tags")[1]["models"])
    assert real["model"]["loaded"] == bool(empty.call("GET", "/api/ps")[1]["models"])


def test_results_are_documented(empty, run):
    documented = yaml.safe_load(ollama_model.RETURN)
    result = run(name="tinystory", url=empty.url, state="loaded")
    assert set(documented) == set(result) - {"changed", "diff"}
    types = {"str": str, "int": int, "bool": bool, "list": list}
    assert set(documented["model"]["contains"]) == set(result["model"])
    for key, entry in documented["model"]["contains"].items():
        assert isinstance(result["model"][key], types[entry["type"]]), key
        assert isinstance(result["model"][key], bool) == (entry["type"] == "bool"), key
    assert result["model"]["size_bytes"] > 5_000_000
    assert result["model"]["device"] == "cpu" and result["model"]["vram_bytes"] == 0
    assert result["model"]["context_length"] == 2048


def test_it_stays_for_ever_when_asked_to(empty, run):
    assert run(name="tinystory", url=empty.url, state="loaded", keep_alive="-1")["model"]["loaded_until"] > "2300"
    assert run(name="tinystory", url=empty.url, state="loaded", keep_alive="-1")["changed"] is False
    assert run(name="tinystory", url=empty.url, state="loaded", keep_alive="5m")["model"]["loaded_until"] < "2300"


@pytest.mark.parametrize("switch, device", [("gpu", "gpu"), ("partial", "partial"), ("cpu", "cpu")])
def test_it_tells_where_the_model_runs(empty, run, switch, device):
    empty.control(device=switch)
    assert run(name="tinystory", url=empty.url, state="loaded")["model"]["device"] == device


def test_a_model_that_only_embeds_is_loaded_too(empty, run):
    result = run(name="all-minilm", url=empty.url, state="loaded")
    assert result["model"]["loaded"] and result["model"]["capabilities"] == ["embedding"]
    assert run(name="all-minilm", url=empty.url, state="unloaded")["steps"] == ["unload"]


def test_names_are_found_as_the_server_finds_them(empty, run):
    pull(empty, "llama3.2:3b")
    assert run(name="registry.ollama.ai/library/LLAMA3.2:3b", url=empty.url)["changed"] is False


def test_date_plays_no_part(empty, run):
    """Created again, a model has another date and the same digest."""
    pull(empty, "tinystory")
    before = run(name="again", url=empty.url, state="unloaded")
    assert before["changed"] is False
    for _time in range(2):
        empty.call("POST", "/api/create", {"model": "again", "from": "tinystory", "system": "Be brief.", "stream": False})
    digest = run(name="again", url=empty.url)["model"]["digest"]
    os.utime(empty.data / "manifests" / "registry.ollama.ai" / "library" / "again" / "latest", (1, 1))
    assert empty.call("GET", "/api/tags")[1]["models"][-1]["modified_at"].startswith("1970")
    result = run(name="again", url=empty.url, digest=digest)
    assert result["changed"] is False and result["model"]["digest"] == digest


# ---------------------------------------------------------------- models that are made here

@pytest.fixture(name="gguf", scope="module")
def gguf_fixture(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    # Other weights than the registry's: an upload stays on the server, which then pulls nothing of the same digest.
    path.write_bytes(harness.tiny_gguf()[:-1] + b"\1")
    return path


@pytest.fixture(name="asked")
def asked_fixture(monkeypatch):
    """The requests that change something or carry a file."""
    seen = []
    for call in ("pull", "upload", "create", "delete"):
        def noted(self, name, *args, call=call, original=getattr(_ollama.Client, call), **more):
            seen.append(call)
            return original(self, name, *args, **more)
        monkeypatch.setattr(_ollama.Client, call, noted)
    return seen


def shown(server, name):
    return server.call("POST", "/api/show", {"model": name})[1]


def lines(text):
    return sorted(" ".join(line.split()) for line in text.splitlines())


STOPS = ['stop "<|im_start|>"', 'stop "<|im_end|>"']

# What the model is made of, beside its origin; its parameters then, its system message and template.
RECIPES = [
    ({}, STOPS, "", None),
    ({"parameters": {"num_ctx": 512, "temperature": 0.1}, "system": "You are tiny."}, STOPS + ["num_ctx 512", "temperature 0.1"], "You are tiny.", None),
    # As a template in a playbook makes them: everything is text.
    ({"parameters": {"num_ctx": "1024", "temperature": "1", "use_mmap": "true", "stop": "\n"}},
     ["num_ctx 1024", "temperature 1", "use_mmap true", 'stop "\\n"'], "", None),
    ({"template": "{{ .System }} {{ .Prompt }}", "system": "Said:\n\"so\"\n", "parameters": {"stop": ["</s>", "FROM x"], "top_k": 40}},
     ["top_k 40", 'stop "</s>"', 'stop "FROM x"'], "Said:\n\"so\"\n", "{{ .System }} {{ .Prompt }}"),
]


@pytest.mark.parametrize("origin, steps", [("from", ["create"]), ("gguf", ["upload", "create"]), ("from missing", ["pull", "create"])])
@pytest.mark.parametrize("recipe, parameters, system, template", RECIPES)
def test_made_check_then_real_then_again(empty, run, gguf, asked, origin, steps, recipe, parameters, system, template):
    if origin == "from":
        pull(empty, "tinystory")
    origins = {"gguf": str(gguf)} if origin == "gguf" else {"from": "tinystory"}
    arguments = {"name": "own:1", "url": empty.url, **origins, **recipe}
    if origin == "gguf":
        # A blob of another test is there as long as the server runs.
        blob = empty.data / "blobs" / ("sha256-" + hashlib.sha256(gguf.read_bytes()).hexdigest())
        blob.unlink(missing_ok=True)
    before = empty.call("GET", "/api/tags")

    foreseen = run(check=True, **arguments)
    assert empty.call("GET", "/api/tags") == before and asked == []
    real = run(**arguments)
    asked.clear()
    again = run(**arguments)

    assert foreseen["steps"] == real["steps"] == steps
    assert foreseen["changed"] is real["changed"] is True
    assert again["changed"] is False and again["steps"] == [] and asked == []
    assert set(foreseen) == set(real) and set(foreseen["model"]) == set(real["model"])
    assert foreseen["diff"]["before"] == real["diff"]["before"] and real["diff"]["before"]["from"] is None
    assert again["diff"]["before"] == again["diff"]["after"] == real["diff"]["after"]
    for key, value in foreseen["diff"]["after"].items():
        # What only the server can tell is left open.
        assert value == real["diff"]["after"][key] or value is None or (key == "parameters" and origin != "from"), key
    there = shown(empty, "own:1")
    assert lines(there["parameters"]) == sorted(parameters) and there.get("system", "") == system
    assert template is None or there["template"] == template
    names = [model["name"] for model in empty.call("GET", "/api/tags")[1]["models"]]
    assert sorted(names) == (["own:1"] if origin == "gguf" else ["own:1", "tinystory:latest"])


@pytest.mark.parametrize("origin", ["from", "gguf"])
def test_a_modelfile_says_the_same_as_the_options(empty, run, gguf, origin):
    pull(empty, "tinystory")
    found = {"from": "tinystory", "gguf": str(gguf)}[origin]
    options = {"template": "{{ .System }} {{ .Prompt }}", "system": "Said:\n\n\"so\"", "parameters": {"stop": ["</s>", "FROM x"], "top_k": 40}}
    text = f"""# made by hand
from {found}
PARAMETER stop </s>
PARAMETER stop "FROM x"
PARAMETER top_k 40
SYSTEM \"\"\"Said:\n\n"so"\"\"\"
TEMPLATE {options['template']}
"""
    assert run(name="own:1", url=empty.url, **{origin: found}, **options)["changed"] is True
    assert run(name="own:1", url=empty.url, modelfile=text)["changed"] is False
    assert run(name="own:1", url=empty.url, modelfile=text.replace("top_k 40", "top_k 41"))["changed"] is True


@pytest.mark.parametrize("change", [
    {"parameters": {"num_ctx": 1024, "stop": ["x"]}}, {"parameters": {"num_ctx": 512, "stop": ["x", "y"]}}, {"parameters": {"num_ctx": 512}},
    {"parameters": {"stop": ["x"]}}, {"system": "b"}, {"system": ""}, {"template": "{{ .Prompt }}!"}, {"template": ""}])
@pytest.mark.parametrize("origin", ["from", "gguf"])
def test_one_change_makes_it_anew(empty, run, gguf, change, origin):
    """A thing that is said no more is a change, too."""
    pull(empty, "tinystory")
    first = {"url": empty.url, "name": "own", "system": "a", "template": "{{ .Prompt }}", "parameters": {"num_ctx": 512, "stop": ["x"]},
             **({"from": "tinystory"} if origin == "from" else {"gguf": str(gguf)})}
    run(**first)
    second = {**first, **change}
    assert run(check=True, **second)["steps"] == run(**second)["steps"] == ["create"]
    assert run(**second)["changed"] is False
    assert run(**first)["changed"] is True


def test_other_weights_make_it_anew(empty, run, gguf, tmp_path):
    pull(empty, "tinystory")
    run(name="own", url=empty.url, gguf=str(gguf))
    other = tmp_path / "other.gguf"
    other.write_bytes(gguf.read_bytes()[:-1] + b"x")
    assert run(name="own", url=empty.url, gguf=str(other))["steps"] == ["upload", "create"]
    assert run(name="own", url=empty.url, gguf=str(other))["changed"] is False
    assert run(name="own", url=empty.url, gguf=str(gguf))["steps"] == ["create"]
    assert run(name="own", url=empty.url, **{"from": "tinystory"})["steps"] == ["create"]


def test_the_model_it_is_made_from_changes_or_goes(empty, run):
    pull(empty, "tinystory")
    arguments = {"name": "own", "url": empty.url, "from": "base", "parameters": {"num_ctx": 512}}
    run(name="base", url=empty.url, system="a", **{"from": "tinystory"})
    run(**arguments)
    run(name="base", url=empty.url, system="b", **{"from": "tinystory"})
    assert run(**arguments)["steps"] == ["create"] and shown(empty, "own")["system"] == "b"
    run(name="base", url=empty.url, state="absent")
    assert run(**arguments)["changed"] is False
    assert run(**{**arguments, "parameters": {"num_ctx": 1}}, check=True)["steps"] == ["pull", "create"]
    assert "no model 'base:latest'" in run(**{**arguments, "parameters": {"num_ctx": 1}})["msg"]
    assert lines(shown(empty, "own")["parameters"])[0] == "num_ctx 512"


def test_a_loaded_one_is_loaded_anew_and_removed(empty, run, gguf):
    arguments = {"name": "own", "url": empty.url, "gguf": str(gguf), "state": "loaded"}
    run(**arguments)
    result = run(**arguments, parameters={"num_ctx": 512})
    assert result["steps"] == ["unload", "create", "load"] and result["model"]["context_length"] == 512
    assert run(name="own", url=empty.url, state="absent")["steps"] == ["unload", "delete"]
    assert empty.call("GET", "/api/tags")[1]["models"] == []


@pytest.mark.parametrize("path, words, left", [
    ("/api/blobs", "HTTP 500 to the question whether it has the file", []),
    ("/api/show", "does not show 'own:latest': out of order", []),
    ("/api/create", "could not create 'erni-ki/gguf-", []),
    ("/api/delete", "could not delete 'erni-ki/gguf-", ["erni-ki/gguf", "own:latest"]),
])
def test_errors_of_the_server_while_it_is_made(empty, run, gguf, path, words, left):
    empty.control(failing=[path], failing_error="out of order")
    result = run(name="own", url=empty.url, gguf=str(gguf))
    assert result["failed"] and words in result["msg"], result["msg"]
    empty.control()
    names = sorted(model["name"] for model in empty.call("GET", "/api/tags")[1]["models"])
    assert len(names) == len(left) and all(name.startswith(start) for name, start in zip(names, left))
    # The next run ends what was begun.
    assert run(name="own", url=empty.url, gguf=str(gguf))["changed"] is True
    assert run(name="own", url=empty.url, gguf=str(gguf))["changed"] is False
    assert [model["name"] for model in empty.call("GET", "/api/tags")[1]["models"]] == ["own:latest"]


def test_the_server_loses_the_file_before_it_is_used(empty, run, gguf, tmp_path, monkeypatch):
    """A server removes at its start what no model uses."""
    (tmp_path / "lost.gguf").write_bytes(gguf.read_bytes() + b"lost")
    monkeypatch.setattr(_ollama.Client, "upload", lambda self, name, path, size, digest: None)
    result = run(name="own", url=empty.url, gguf=str(tmp_path / "lost.gguf"))
    assert "the server no longer has a file that" in result["msg"] and "no such file or directory" in result["msg"]


def test_files_that_are_no_model(empty, run, gguf, tmp_path, asked):
    broken = tmp_path / "broken.gguf"
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    (tmp_path / "text").write_text("not a gguf file")
    broken.write_bytes(gguf.read_bytes()[:4096])
    for path, words in ((tmp_path / "nothing", "No such file"), (tmp_path, "no ordinary file"), (fifo, "no ordinary file"),
                        (tmp_path / "text", "is not a GGUF file: it begins with b'not '")):
        result = run(name="own", url=empty.url, gguf=str(path))
        assert words in result["msg"] and str(path) in result["msg"] and asked == []
    result = run(name="own", url=empty.url, gguf=str(broken))
    assert "could not create 'erni-ki/gguf-" in result["msg"] and "unexpected EOF" in result["msg"]
    assert empty.call("GET", "/api/tags")[1]["models"] == []


def test_a_file_that_changes_while_it_is_uploaded(empty, run, gguf, tmp_path, monkeypatch):
    changing = tmp_path / "changing.gguf"
    changing.write_bytes(gguf.read_bytes() + b"1")
    original = _ollama.Client.upload

    def upload(self, name, path, size, digest):
        changing.write_bytes(content)
        return original(self, name, path, size, digest)
    monkeypatch.setattr(_ollama.Client, "upload", upload)
    for content, words in ((gguf.read_bytes() + b"2", "changed while it was uploaded"), (gguf.read_bytes(), "became shorter while it was uploaded")):
        result = run(name="own", url=empty.url, gguf=str(changing))
        assert words in result["msg"], result["msg"]
        changing.write_bytes(gguf.read_bytes() + b"1")


def test_long_uploads_tell_how_far_they_are(empty, run, gguf, tmp_path, logged, monkeypatch):
    monkeypatch.setattr(_ollama, "PROGRESS_S", 0)
    (tmp_path / "new.gguf").write_bytes(gguf.read_bytes() + b"new")
    run(name="own", url=empty.url, gguf=str(tmp_path / "new.gguf"))
    assert [line for line in logged if line.startswith("uploading own:latest: 100 % of 6 MiB")] and logged[-1] == "created own:latest"


# ---------------------------------------------------------------- room

@pytest.fixture(name="free")
def free_fixture(monkeypatch):
    """Sets what is free, in MiB."""
    def set_free(mib):
        monkeypatch.setattr(_ollama, "free_bytes", lambda path: mib << 20)
    return set_free


def test_a_pull_stops_where_there_is_no_room(empty, run, free, tmp_path):
    empty.control(pull_mib_per_second=50)
    free(1000)
    result = run(name="llama3.2:3b", url=empty.url, models_path=str(tmp_path))
    assert "there is no room for 'llama3.2:3b': 19" in result["msg"] and "1000 MiB are free in the file system of %s" % tmp_path in result["msg"]
    assert "The pull was stopped" in result["msg"] and empty.call("GET", "/api/tags")[1]["models"] == []
    free(10)
    assert run(name="tinystory", url=empty.url, models_path=str(tmp_path))["changed"] is True
    free(0)
    assert run(name="tinystory", url=empty.url, models_path=str(tmp_path))["changed"] is False


def test_an_upload_that_has_no_room_does_not_begin(empty, run, free, gguf, tmp_path, asked):
    path = tmp_path / "other.gguf"
    path.write_bytes(gguf.read_bytes() + b"room")
    arguments = {"name": "own", "url": empty.url, "gguf": str(path), "models_path": str(tmp_path)}
    # Twice 5.6 MiB.
    free(11)
    for check in (True, False):
        assert "12 MiB are still needed, and 11 MiB are free" in run(check=check, **arguments)["msg"] and asked == []
    free(12)
    assert run(**arguments)["steps"] == ["upload", "create"]
    free(5)
    assert run(**arguments)["changed"] is False
    assert "6 MiB are still needed, and 5 MiB are free" in run(**arguments, system="x")["msg"]


def test_what_does_not_fit_is_not_fetched(empty, run, gguf, asked):
    empty.control(pull_mib_per_second=50)
    words = "does not fit: its files have %d MiB, and max_mib allows %d MiB"
    result = run(name="llama3.2:3b", url=empty.url, max_mib=1000)
    assert "'llama3.2:3b' does not fit: its files have 19" in result["msg"] and "max_mib allows 1000 MiB" in result["msg"]
    asked.clear()
    assert words % (6, 5) in run(name="own", url=empty.url, gguf=str(gguf), max_mib=5)["msg"] and asked == []
    assert words % (6, 5) in run(name="own", url=empty.url, max_mib=5, **{"from": "tinystory"})["msg"] and asked == ["pull"]
    assert run(name="own", url=empty.url, gguf=str(gguf), max_mib=6)["changed"] is True
    assert run(name="own", url=empty.url, gguf=str(gguf), max_mib=5)["changed"] is False


def test_a_folder_that_is_not_there(empty, run, tmp_path, gguf):
    result = run(name="own", url=empty.url, gguf=str(gguf), models_path=str(tmp_path / "no"))
    assert "models_path is %s, and that cannot be looked at: No such file" % (tmp_path / "no") in result["msg"]


# ---------------------------------------------------------------- digests and registries

@pytest.fixture(name="registry")
def registry_fixture():
    registry = harness.Registry()
    registry.add_tiny()
    yield registry
    registry.close()


def test_pinned_digest(empty, run, registry):
    name = "%s/library/tiny" % registry.host
    first = run(name=name, url=empty.url, insecure=True)["model"]["digest"]
    assert run(name=name, url=empty.url, insecure=True, digest=first[:12])["changed"] is False

    # The registry moves the tag on. Nobody who asks for the name alone notices; who asks for the new digest gets it.
    registry.manifests["library/tiny"] = registry.manifests["library/tiny"].replace(b'"from"', b'"From"')
    asked = len(registry.asked)
    assert run(name=name, url=empty.url, insecure=True)["changed"] is False
    assert len(registry.asked) == asked
    moved = hashlib.sha256(registry.manifests["library/tiny"]).hexdigest()
    result = run(name=name, url=empty.url, insecure=True, digest=moved)
    assert result["steps"] == ["pull"]
    assert result["diff"]["before"]["digest"] == first and result["diff"]["after"]["digest"] == moved

    failed = run(name=name, url=empty.url, insecure=True, digest=first)
    assert "has the digest %s, not %s as asked" % (moved, first) in failed["msg"]


def test_a_loaded_model_makes_room_for_another_digest(empty, run, registry):
    name = "%s/library/tiny" % registry.host
    run(name=name, url=empty.url, insecure=True, state="loaded")
    registry.manifests["library/tiny"] += b" "
    moved = hashlib.sha256(registry.manifests["library/tiny"]).hexdigest()
    result = run(name=name, url=empty.url, insecure=True, state="loaded", digest=moved)
    assert result["steps"] == ["unload", "pull", "load"]
    assert empty.call("GET", "/api/ps")[1]["models"][0]["digest"] == moved


def test_an_interrupted_pull_goes_on(empty, run, registry):
    name = "%s/library/tiny" % registry.host
    digest = "sha256:" + hashlib.sha256(harness.tiny_gguf()).hexdigest()
    registry.fail[digest] = "short"
    failed = run(name=name, url=empty.url, insecure=True)
    assert "could not pull" in failed["msg"] or "cannot fetch" in failed["msg"]
    assert empty.call("GET", "/api/tags")[1]["models"] == []
    registry.fail.clear()
    assert run(name=name, url=empty.url, insecure=True)["changed"] is True
    assert ("/v2/library/tiny/blobs/" + digest, "bytes=%d-" % (harness.TINY_SIZE // 2)) in registry.asked


def test_damaged_on_the_way(empty, run, registry):
    digest = "sha256:" + hashlib.sha256(harness.tiny_gguf()).hexdigest()
    registry.fail[digest] = "wrong"
    name = "%s/library/tiny" % registry.host
    assert "damaged on the way" in run(name=name, url=empty.url, insecure=True)["msg"]
    registry.fail.clear()
    assert run(name=name, url=empty.url, insecure=True)["changed"] is True


def test_a_registry_without_tls_needs_insecure(empty, run, registry):
    assert "needs insecure: true" in run(name="%s/library/tiny" % registry.host, url=empty.url)["msg"]


@pytest.mark.parametrize("name, words", [
    ("nosuch:1b", "the registry has no model 'nosuch:1b'; check name and tag"),
    ("no-such-registry.invalid/library/tiny", "cannot fetch 'no-such-registry.invalid/library/tiny:latest' from its registry"),
    ("127.0.0.1:9/library/tiny", "connection refused"),
])
def test_models_that_cannot_be_had(empty, run, name, words):
    result = run(name=name, url=empty.url)
    assert result["failed"] and words in result["msg"]
    assert empty.call("GET", "/api/tags")[1]["models"] == []


# ---------------------------------------------------------------- progress and time

def test_long_pulls_tell_how_far_they_are(empty, run, logged, monkeypatch):
    monkeypatch.setattr(_ollama, "PROGRESS_S", 0.05)
    empty.control(pull_mib_per_second=20)
    run(name="tinystory", url=empty.url)
    assert logged[1] == "pulling tinystory:latest" and logged[-1] == "pulled tinystory:latest"
    assert [line for line in logged if "% of 6 MiB" in line]


def test_a_pull_ends_with_the_timeout(empty, run):
    empty.control(pull_mib_per_second=1)
    begun = time.monotonic()
    result = run(name="llama3.2:3b", url=empty.url, timeout=1)
    # Half an hour of pulling was left.
    assert time.monotonic() - begun < 60
    assert "had not ended when the timeout of 1 s was over" in result["msg"] and "the next run goes on" in result["msg"]


def test_a_load_ends_with_the_timeout(empty, run):
    pull(empty, "tinystory")
    empty.control(load_ms=2500)
    result = run(name="tinystory", url=empty.url, state="loaded", timeout=1)
    assert "the timeout of 1 s is over" in result["msg"]


def test_a_hung_server(empty, run, monkeypatch):
    monkeypatch.setattr(_ollama, "QUICK_S", 0.3)
    empty.control(hung=True)
    result = run(name="tinystory", url=empty.url)
    assert "no full answer to /api/version within 0.3 s" in result["msg"]


def test_unload_waits_for_the_answer_in_progress(empty, run):
    pull(empty, "tinystory")
    empty.control(ms_per_token=20)
    asked = threading.Thread(target=empty.call, args=("POST", "/api/generate", {"model": "tinystory", "prompt": "x", "options": {"num_predict": 25}}))
    asked.start()
    while not empty.call("GET", "/api/ps")[1]["models"]:
        time.sleep(0.01)
    assert run(name="tinystory", url=empty.url, state="unloaded")["model"]["loaded"] is False
    asked.join()
    assert empty.call("GET", "/api/ps")[1]["models"] == []


def test_unload_gives_up_with_the_timeout(empty, run):
    pull(empty, "tinystory")
    empty.control(ms_per_token=50)
    asked = threading.Thread(target=empty.call, args=("POST", "/api/generate", {"model": "tinystory", "prompt": "x", "options": {"num_predict": 400}}))
    asked.start()
    while not empty.call("GET", "/api/ps")[1]["models"]:
        time.sleep(0.01)
    result = run(name="tinystory", url=empty.url, state="unloaded", timeout=1)
    empty.control()
    asked.join()
    assert "is still loaded after 1 s" in result["msg"] or "the timeout of 1 s is over" in result["msg"]


# ---------------------------------------------------------------- errors of the server

@pytest.mark.parametrize("state, path, words", [
    ("present", "/api/pull", "could not pull 'tinystory:latest': out of order"),
    ("present", "/api/tags", "does not list its models: HTTP 500: out of order"),
    ("present", "/api/version", "/api/version answers HTTP 500: out of order"),
    ("loaded", "/api/generate", "could not load 'tinystory:latest': out of order"),
])
def test_errors_of_the_server_are_told(empty, run, state, path, words):
    empty.control(failing=[path], failing_error="out of order")
    result = run(name="tinystory", url=empty.url, state=state)
    assert result["failed"] and words in result["msg"]


@pytest.mark.parametrize("state, path, words", [
    ("absent", "/api/delete", "could not delete 'tinystory:latest': out of order"),
    ("unloaded", "/api/generate", "could not unload 'tinystory:latest': out of order"),
])
def test_errors_of_the_server_on_the_way_out(empty, run, state, path, words):
    pull(empty, "tinystory")
    if state == "unloaded":
        load(empty, "tinystory")
    empty.control(failing=[path], failing_error="out of order")
    assert words in run(name="tinystory", url=empty.url, state=state)["msg"]


def test_deleted_while_loaded(empty, run):
    pull(empty, "tinystory")
    load(empty, "tinystory")
    empty.call("DELETE", "/api/delete", {"model": "tinystory"})
    assert "was deleted while it was loaded" in run(name="tinystory", url=empty.url, state="unloaded")["msg"]
    assert run(name="tinystory", url=empty.url, state="absent")["changed"] is False
    os.kill(empty.children()[0], signal.SIGKILL)
    while empty.call("GET", "/api/ps")[1]["models"]:
        time.sleep(0.05)


@pytest.mark.parametrize("arguments, words", [
    ({"name": "bad name!"}, "is not a model name"),
    ({"name": "x", "digest": "12"}, "is not a digest"),
    ({"name": "x", "state": "loaded", "keep_alive": "soon"}, "is not a time to keep a model loaded"),
    ({"name": "x", "keep_alive": "5m"}, "keep_alive goes with state=loaded only"),
    ({"name": "x", "state": "absent", "digest": "0" * 12}, "digest goes with state=present and state=loaded only"),
    ({"name": "x", "timeout": 0}, "it has to be 1 or more"),
    ({"name": "x", "max_mib": -1}, "or 0 for no limit"),
    ({"name": "x", "from": "y", "gguf": "/z"}, "a model is made from one of them"),
    ({"name": "x", "from": "X:latest"}, "cannot be made from itself"),
    ({"name": "x", "from": "y:cloud"}, "is a cloud model"),
    ({"name": "x", "from": "y", "state": "absent"}, "from goes with state=present and state=loaded only"),
    ({"name": "x", "from": "y", "digest": "0" * 12}, "digest is for a model that is pulled"),
    ({"name": "x", "system": "y"}, "system is for a model that is made here: say by from or gguf"),
    ({"name": "x", "from": "y", "modelfile": "FROM z"}, "modelfile and from are both there"),
    ({"name": "x", "modelfile": "FROM z\nFORM z"}, "line 2 of the Modelfile begins with FORM"),
    ({"name": "x", "modelfile": "FROM z\nPARAMETER num_thraed 4"}, "has no parameter num_thraed"),
    ({"name": "x", "modelfile": "FROM z", "state": "absent"}, "from goes with state=present and state=loaded only"),
    ({"name": "x", "from": "y", "parameters": {"num_thraed": 4}}, "has no parameter num_thraed, and would keep it without a word: did you mean num_thread?"),
    ({"name": "x", "from": "y", "parameters": {"num_ctx": "many"}}, 'the parameter num_ctx is "many"; it has to be a whole number'),
    ({"name": "x", "url": "https://127.0.0.1:1"}, "only plain http is spoken here"),
    ({"name": "x", "url": "http://127.0.0.1:9"}, "nothing listens on 127.0.0.1 port 9"),
])
def test_bad_input_is_refused_in_words(run, arguments, words):
    result = run(**{"url": "http://127.0.0.1:9", **arguments})
    assert result["failed"] and words in result["msg"]
    assert "Traceback" not in result["msg"]


# ---------------------------------------------------------------- servers that are not Ollama, or break off

def request_of(connection):
    """The first line of a request, once all of it was read: the kernel resets a connection that is closed with something unread."""
    with connection.makefile("rb") as stream:
        first = stream.readline()
        stream.read(int(http.client.parse_headers(stream).get("Content-Length", 0)))
    return first


@pytest.fixture(name="fake")
def fake_fixture():
    """A server that answers each request, by its path, with given bytes; None leaves the connection open without a word."""
    listening, threads, open_connections = socket.create_server(("127.0.0.1", 0)), [], []
    answers = {}

    def serve():
        while True:
            try:
                connection = listening.accept()[0]
            except OSError:
                return
            open_connections.append(connection)
            method, path = request_of(connection).decode(errors="replace").split(" ")[:2]
            answer = answers.get(method, answers.get(path, ok({"models": []})))
            if answer is not None:
                connection.sendall(answer)
                connection.close()

    def ok(value, status="200 OK"):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)
    threads.append(threading.Thread(target=serve, daemon=True))
    threads[0].start()
    fake = type("Fake", (), {"url": "http://127.0.0.1:%d" % listening.getsockname()[1], "answers": answers, "ok": staticmethod(ok)})
    answers["/api/version"] = ok({"version": "0.1"})
    yield fake
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    for connection in open_connections:
        connection.close()


def chunked(*pieces, end=True):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + (b"0\r\n\r\n" if end else b"")


@pytest.mark.parametrize("path, answer, words", [
    ("/api/version", b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "refuses a host name that is not its own"),
    ("/api/version", b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n<html>hi</html>", "not in JSON, so this is not Ollama's API: <html>hi</html>"),
    ("/api/version", b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n[]", "answers HTTP 404, but not in JSON"),
    ("/api/version", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "names no version"),
    ("/api/version", b"SSH-2.0-OpenSSH_9.2\r\n", "does not answer in HTTP"),
    ("/api/tags", b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{"data":[]}', "/api/tags does not list models"),
    ("/api/tags", b'HTTP/1.1 500 No\r\nContent-Length: 27\r\n\r\n{"error":{"message":"full"}}', "HTTP 500"),
    ("/api/pull", chunked(b'{"status":"pulling manifest"}\n'), "without saying that it succeeded; its last word was 'pulling manifest'"),
    ("/api/pull", chunked(b'{"status":"pulling manifest"}\n', end=False), "without saying that it succeeded"),
    ("/api/pull", chunked(b'{"status":"pulling manifest"}\n', b'{"error":"odd"}\n'), "could not pull 'tinystory:latest': odd"),
    ("/api/pull", chunked(b"<html>\n"), "is not what Ollama answers"),
    ("/api/pull", chunked(b"[1]\n"), "is not what Ollama answers"),
    ("/api/pull", chunked(b"\n", b'{"status":"success"}\n'), "says that it pulled 'tinystory:latest', but does not list it"),
    ("/api/pull", b"", "the connection broke off during /api/pull"),
])
def test_what_is_not_ollama(run, fake, path, answer, words):
    fake.answers[path] = answer
    result = run(name="tinystory", url=fake.url)
    assert result["failed"] and words in result["msg"], result["msg"]


SHOWN = {"modelfile": "FROM /m/blobs/sha256-%s\n" % ("0" * 64), "details": {"parent_model": "base:latest"}}


@pytest.mark.parametrize("path, answer, words", [
    ("/api/show", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "does not show what weights 'own:latest' has"),
    ("/api/show", b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n<html>hi</html>", "not in JSON"),
    ("/api/show", b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"modelfile":1}', "is not what Ollama shows"),
    ("/api/show", b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{"details":1}', "is not what Ollama shows"),
    ("/api/create", chunked(b'{"status":"writing manifest"}\n'), "ended the creation of 'own:latest' without saying that it succeeded; its last word"),
    ("/api/create", chunked(b'{"status":"parsing GGUF"}\n', b'{"error":"odd"}\n'), "could not create 'own:latest': odd"),
    ("/api/create", chunked(b'{"error":"write x: no space left on device"}\n'), "the disk that holds the server's models is full while creating"),
    ("/api/create", chunked(b'{"status":"success","digest":"x","total":"much"}\n'), "the server's answer is not what Ollama answers"),
    ("/api/create", chunked(b"<html>\n"), "the server's answer is not what Ollama answers"),
    ("/api/create", chunked(b'{"status":"success"}\n'), "what it shows of it is not what was asked for: parameters. Asked for:"),
    ("/api/create", b"", "the connection broke off during /api/create"),
])
def test_what_is_not_ollama_while_a_model_is_made(run, fake, path, answer, words):
    fake.answers["/api/show"] = fake.ok(SHOWN)
    fake.answers[path] = answer
    result = run(name="own", url=fake.url, parameters={"num_ctx": 1}, **{"from": "base"})
    assert result["failed"] and words in result["msg"], result["msg"]


@pytest.mark.parametrize("answer, words", [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "ended the creation of"),
    (b"HTTP/1.1 204 No Content\r\n\r\n", "answers HTTP 204 to the upload"),
    (b'HTTP/1.1 500 No\r\nContent-Length: 44\r\n\r\n{"error":"write x: no space left on device"}', "models is full"),
    (b"HTTP/1.1 400 No\r\nContent-Length: 6\r\n\r\n<html>", "not in JSON"),
])
def test_what_is_not_ollama_while_a_file_is_uploaded(run, fake, gguf, answer, words):
    digest = hashlib.sha256(gguf.read_bytes()).hexdigest()
    fake.answers["/api/show"] = fake.ok({"error": "model 'own' not found"}, "404 Not Found")
    fake.answers["HEAD"] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 102\r\n\r\n"
    fake.answers["/api/blobs/sha256:" + digest] = answer
    fake.answers["/api/create"] = chunked(b'{"status":"parsing GGUF"}\n')
    result = run(name="own", url=fake.url, gguf=str(gguf))
    assert result["failed"] and words in result["msg"], result["msg"]


def test_loaded_and_gone_again(run, fake):
    fake.answers["/api/tags"] = fake.ok({"models": [{"name": "tinystory:latest", "digest": "0" * 64, "size": 1}]})
    fake.answers["/api/generate"] = fake.ok({"done": True})
    assert "was loaded and is gone again" in run(name="tinystory", url=fake.url, state="loaded")["msg"]


def test_a_server_that_stops_between_two_questions(run, monkeypatch, fake):
    def gone(self, name, insecure, limits):
        raise _ollama.OllamaError("gone")
    monkeypatch.setattr(_ollama.Client, "pull", gone)
    assert run(name="tinystory", url=fake.url)["msg"] == "gone"


def test_nobody_listens_any_more():
    client = _ollama.Client("http://127.0.0.1:9", 5)
    with pytest.raises(_ollama.OllamaError, match="nothing listens on 127.0.0.1 port 9"):
        client.delete("x")
    client = _ollama.Client("ftp://127.0.0.1", 5)
    with pytest.raises(_ollama.OllamaError, match="is not a URL"):
        client.delete("x")


def test_a_deadline_that_is_over():
    client = _ollama.Client("http://127.0.0.1:9", 5)
    client.deadline = 0
    with pytest.raises(_ollama.OllamaError, match="the timeout of 5 s is over"):
        client.ask("/api/version")


def test_a_model_that_somebody_else_deleted_is_deleted(fake):
    fake.answers["/api/delete"] = fake.ok({"error": "model 'x' not found"}, "404 Not Found")
    _ollama.Client(fake.url, 5).delete("x")
