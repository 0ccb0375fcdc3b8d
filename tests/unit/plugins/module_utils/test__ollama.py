# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pure half: names, states, steps and words. The server's half is tested with the module, against the stand-in."""
from __future__ import annotations

import types

import pytest
from ansible_collections.erni_ki.inference.plugins.module_utils import _ollama

DIGEST = "3a010a1ed38d0d4559766f583ad74ee99c24a478da583132574f9ba097ab9c85"
TAGS = {"models": [{"name": "tiny:latest", "model": "tiny:latest", "size": 5841366, "digest": DIGEST, "capabilities": ["completion"],
                    "details": {"family": "llama", "parameter_size": "2.89M", "quantization_level": "F16"}}]}


def ps(vram=0, until="2026-11-23T16:03:27.564965756Z"):
    return {"models": [{"name": "tiny:latest", "size": 1000, "size_vram": vram, "context_length": 2048, "expires_at": until}]}


NONE = {"models": []}


@pytest.mark.parametrize("text, name", [
    ("tiny", "tiny:latest"),
    (" llama3.2:3b ", "llama3.2:3b"),
    ("library/llama3.2:3b", "llama3.2:3b"),
    ("registry.ollama.ai/library/llama3.2", "llama3.2:latest"),
    ("https://registry.ollama.ai/library/llama3.2", "llama3.2:latest"),
    ("team/model:v1.0-a", "team/model:v1.0-a"),
    ("127.0.0.1:5000/library/tiny", "127.0.0.1:5000/library/tiny:latest"),
    ("http://reg.example/team/tiny:x", "reg.example/team/tiny:x"),
    ("cloud-model:8b", "cloud-model:8b"),
])
def test_a_name_is_as_the_server_lists_it(text, name):
    assert _ollama.parse_name(text) == name


@pytest.mark.parametrize("text, words", [
    ("bad name!", "its model 'bad name!'"),
    ("", "its model ''"),
    ("model:", "its tag ''"),
    ("my.team/model", "its namespace 'my.team'"),
    ("a/b/c/d", "4 parts"),
    ("x" * 81, "its model"),
    ("-x", "begins with a letter"),
    ("gpt-oss:20b-cloud", "cloud model"),
    ("gpt-oss:cloud", "cloud model"),
])
def test_no_name_is_refused(text, words):
    with pytest.raises(ValueError, match=words):
        _ollama.parse_name(text)


def test_digests():
    assert _ollama.parse_digest("sha256:" + DIGEST.upper()) == DIGEST
    assert _ollama.parse_digest(DIGEST[:12]) == DIGEST[:12]
    for text in ("3a010a", DIGEST + "0", "not a digest at all"):
        with pytest.raises(ValueError, match="is not a digest"):
            _ollama.parse_digest(text)


@pytest.mark.parametrize("text, value", [("600", 600), ("-1", -1), ("10m", "10m"), ("1h30m", "1h30m"), ("-1s", "-1s"), ("1.5h", "1.5h")])
def test_keep_alive(text, value):
    assert _ollama.parse_keep_alive(text) == value


@pytest.mark.parametrize("text, words", [("0", "state=unloaded"), ("0s", "not a time"), ("soon", "not a time"), ("5 m", "not a time"), ("", "not a time")])
def test_no_keep_alive(text, words):
    with pytest.raises(ValueError, match=words):
        _ollama.parse_keep_alive(text)


def test_describe_a_model_that_is_not_there():
    state = _ollama.describe("tiny:latest", NONE, NONE)
    assert state["name"] == "tiny:latest"
    assert (state["present"], state["loaded"], state["capabilities"]) == (False, False, [])
    assert {value for key, value in state.items() if key not in ("name", "present", "loaded", "capabilities")} == {None}


@pytest.mark.parametrize("vram, device", [(0, "cpu"), (1000, "gpu"), (400, "partial")])
def test_describe_a_loaded_model(vram, device):
    state = _ollama.describe("TINY:latest", TAGS, ps(vram))
    assert state == {
        "name": "tiny:latest", "present": True, "digest": DIGEST, "size_bytes": 5841366, "family": "llama", "parameter_size": "2.89M",
        "quantization_level": "F16", "capabilities": ["completion"], "loaded": True, "device": device, "loaded_bytes": 1000, "vram_bytes": vram,
        "context_length": 2048, "loaded_until": "2026-11-23T16:03:27.564965756Z"}


@pytest.mark.parametrize("payload", [{"models": "many"}, {"data": []}, {"models": [{"size": 1}]}, {"models": [1]}])
def test_describe_what_ollama_does_not_answer(payload):
    with pytest.raises(_ollama.OllamaError, match="/api/tags does not list models"):
        _ollama.describe("tiny:latest", payload, NONE)


def test_describe_a_null_list():
    assert not _ollama.describe("tiny:latest", {"models": None}, NONE)["present"]


FOREVER = "2319-03-05T15:45:44.71334452Z"


@pytest.mark.parametrize("tags, running, state, more, steps", [
    (NONE, NONE, "present", {}, ["pull"]),
    (TAGS, NONE, "present", {}, []),
    (TAGS, NONE, "present", {"digest": DIGEST[:12]}, []),
    (TAGS, NONE, "present", {"digest": "0" * 12}, ["pull"]),
    (TAGS, ps(), "present", {"digest": "0" * 12}, ["pull"]),
    (NONE, NONE, "absent", {}, []),
    (TAGS, NONE, "absent", {}, ["delete"]),
    (TAGS, ps(), "absent", {}, ["unload", "delete"]),
    (NONE, ps(), "absent", {}, []),
    (NONE, NONE, "loaded", {}, ["pull", "load"]),
    (TAGS, NONE, "loaded", {}, ["load"]),
    (TAGS, ps(), "loaded", {}, []),
    (TAGS, ps(), "loaded", {"keep_alive": "10m"}, []),
    (TAGS, ps(), "loaded", {"keep_alive": -1}, ["load"]),
    (TAGS, ps(until=FOREVER), "loaded", {"keep_alive": "-1s"}, []),
    (TAGS, ps(until=FOREVER), "loaded", {"keep_alive": 600}, ["load"]),
    (TAGS, ps(until="never heard of"), "loaded", {"keep_alive": -1}, []),
    (TAGS, ps(), "loaded", {"digest": "0" * 12}, ["unload", "pull", "load"]),
    (NONE, NONE, "present", {"make": ["upload", "create"]}, ["upload", "create"]),
    (TAGS, NONE, "present", {"make": []}, []),
    (TAGS, ps(), "present", {"make": ["create"]}, ["create"]),
    (TAGS, ps(), "loaded", {"make": ["create"]}, ["unload", "create", "load"]),
    (TAGS, ps(), "loaded", {"make": []}, []),
    (TAGS, ps(), "unloaded", {}, ["unload"]),
    (TAGS, NONE, "unloaded", {}, []),
    (NONE, NONE, "unloaded", {}, []),
])
def test_steps_and_where_they_lead(tags, running, state, more, steps):
    current, wanted = _ollama.describe("tiny:latest", tags, running), _ollama.desired(state, **more)
    assert _ollama.compare(current, wanted, year=2026) == steps
    after = _ollama.predict(current, wanted, steps)
    assert set(after) == set(current)
    if not steps:
        assert after == current
    assert after["present"] == {"absent": False, "unloaded": current["present"]}.get(state, True)
    if state in ("loaded", "unloaded"):
        assert after["loaded"] == (state == "loaded")
    if "pull" in steps or "create" in steps:
        assert after["digest"] is None and after["size_bytes"] is None
    if "load" in steps or "unload" in steps:
        assert after["device"] is None and after["loaded_until"] is None


def test_a_full_digest_is_known_beforehand():
    current, wanted = _ollama.describe("tiny:latest", NONE, NONE), _ollama.desired("present", digest=DIGEST)
    assert _ollama.predict(current, wanted, ["pull"])["digest"] == DIGEST


@pytest.mark.parametrize("said, insecure, words", [
    ("pull model manifest: file does not exist", False, "the registry has no model 'x:1'; check name and tag"),
    ("write /root/.ollama/models/blobs/x: no space left on device", False, "the disk that holds the server's models is full"),
    ("digest mismatch, file must be downloaded again", False, "damaged on the way"),
    ("pull model manifest: 412: requires a newer version of Ollama", False, "needs a newer Ollama"),
    ('Get "https://r/v2/": dial tcp: lookup r on 192.0.2.1:53: no such host', False, "cannot fetch 'x:1' from its registry"),
    ('Get "https://r/v2/": EOF', False, "needs insecure: true"),
    ("something new", False, "could not pull 'x:1': something new"),
])
def test_failed_pulls_in_words(said, insecure, words):
    text = _ollama.explain_pull("x:1", said, insecure)
    assert words in text and said in text


def test_no_advice_that_was_followed():
    assert "insecure" not in _ollama.explain_pull("x:1", 'Get "http://r/v2/": EOF', True)


def test_progress_is_reported_every_few_seconds():
    now, told = [0.0], []
    progress = _ollama.Progress("x:1", told.append, lambda: now[0])
    for second, done in ((4, 10), (11, 50), (15, 60), (22, 100)):
        now[0] = second
        progress.line({"status": "pulling abc", "digest": "sha256:abc", "total": 100 << 20, "completed": done << 20})
    progress.line({"status": "success"})
    assert told == ["pulling x:1: pulling abc, 50 % of 100 MiB, since 11 s", "pulling x:1: pulling abc, 100 % of 100 MiB, since 22 s"]
    assert progress.status == "success"
    assert progress.text(30) == "pulling x:1: success, 100 % of 100 MiB, since 30 s"


def test_progress_without_layers():
    assert _ollama.Progress("x:1", print, lambda: 0).text(1) == "pulling x:1: None, since 1 s"


def test_a_layer_is_announced_once_it_says_how_large_it_is():
    seen = []
    progress = _ollama.Progress("x:1", print, lambda: 0, announced=lambda layers: seen.append(dict(layers)))
    for event in ({"digest": "a"}, {"digest": "a", "total": 10}, {"digest": "a", "total": 10, "completed": 9}, {"digest": "b", "total": 5, "completed": 5}):
        progress.line({"status": "pulling", **event})
    assert seen == [{"a": (0, 0)}, {"a": (0, 10)}, {"a": (9, 10), "b": (5, 5)}]


@pytest.mark.parametrize("event", [{"total": "1"}, {"total": -1}, {"total": True}, {"total": 1.5}, {"completed": [1]}])
def test_sizes_that_are_none(event):
    with pytest.raises(_ollama.OllamaError, match="not what Ollama answers"):
        _ollama.Progress("x:1", print, lambda: 0).line({"digest": "a", **event})


MIB = 1 << 20


@pytest.mark.parametrize("layers, max_mib, free, words", [
    ({"a": (0, 10 * MIB)}, 10, 10, None),
    ({"a": (0, 10 * MIB), "b": (0, 1)}, 10, 99, "its files have 11 MiB, and max_mib allows 10 MiB"),
    ({"a": (0, 10 * MIB), "b": (0, 1)}, 0, 10, "11 MiB are still needed, and 10 MiB are free in the file system of /models, 1 MiB too few"),
    ({"a": (9 * MIB, 10 * MIB)}, 0, 0, "1 MiB are still needed, and 0 MiB are free"),
    ({"a": (9 * MIB, 10 * MIB)}, 0, 1, None),
    ({"a": (10 * MIB, 10 * MIB)}, 0, 0, None),
])
def test_what_a_pull_may_take(monkeypatch, layers, max_mib, free, words):
    monkeypatch.setattr(_ollama, "free_bytes", lambda path: free * MIB)
    if words is None:
        _ollama.check_pull("x:1", layers, _ollama.Limits(max_mib, "/models"))
        return
    with pytest.raises(_ollama.OllamaError) as error:
        _ollama.check_pull("x:1", layers, _ollama.Limits(max_mib, "/models"))
    assert words in str(error.value) and "The pull was stopped; of its files the server has" in str(error.value)


def test_free_space_is_what_others_than_root_may_use():
    found = types.SimpleNamespace(f_bavail=3, f_bfree=5, f_frsize=4096, f_bsize=1 << 20)
    assert _ollama.free_bytes("/models", lambda path: found) == 3 * 4096


def test_without_limits_nothing_is_looked_at():
    _ollama.check_pull("x:1", {"a": (0, 1 << 60)}, _ollama.Limits())
