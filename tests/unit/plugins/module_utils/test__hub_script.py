# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the script does by itself, without a hub: test_vllm_model.py runs it against one."""
from __future__ import annotations

import errno
import hashlib
import json
import types

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils import _hub_script
from ansible_collections.erni_ki.inference.tests.unit.plugins.fake_hub import blob


@pytest.mark.parametrize("names, kept", [
    (["config.json", "model.safetensors", "pytorch_model.bin", "tf_model.h5", "model.gguf"], ["config.json", "model.safetensors"]),
    (["config.json", "pytorch_model.bin"], ["config.json", "pytorch_model.bin"]),
    (["a-00001-of-00002.safetensors", "a-00002-of-00002.safetensors", "consolidated.safetensors"],
     ["a-00001-of-00002.safetensors", "a-00002-of-00002.safetensors"]),
    (["consolidated.safetensors", "params.json"], ["consolidated.safetensors", "params.json"]),
    (["original/consolidated.00.pth", "onnx/model.json", ".gitattributes", "1_Pooling/config.json"], ["1_Pooling/config.json"]),
    (["unet/model.safetensors", "pytorch_model.bin"], ["unet/model.safetensors", "pytorch_model.bin"]),
])
def test_chosen(names, kept):
    assert _hub_script.chosen(names) == kept


def item(name, data, large=False):
    sums = {"sha256": hashlib.sha256(data).hexdigest()} if large else {"blob": blob(data)}
    return {"name": name, "size": len(data), **sums}


@pytest.mark.parametrize("large", [False, True])
def test_checksums(tmp_path, large):
    path = tmp_path / "x"
    path.write_bytes(b"hello\n")
    told = item("x", b"hello\n", large)
    # What `git hash-object` prints.
    assert large or told["blob"] == "ce013625030ba8dba906f756967f9e9ca394464a"
    assert _hub_script.is_right(str(path), told)
    path.write_bytes(b"hallo\n")
    assert not _hub_script.is_right(str(path), told)
    (tmp_path / "link").symlink_to(path)
    assert not _hub_script.is_right(str(tmp_path / "link"), item("link", b"hallo\n", large))
    assert not _hub_script.is_right(str(tmp_path / "none"), told)


def error_of(*names, status=None, text="", base=Exception):
    """Return an exception whose classes have these names, the first the innermost."""
    kind = base
    for name in reversed(names):
        kind = type(name, (kind,), {})
    error = kind(text)
    if status:
        error.response = types.SimpleNamespace(status_code=status)
    return error


@pytest.mark.parametrize("error, kind", [
    (error_of("GatedRepoError", "RepositoryNotFoundError", status=403), "gated"),
    (error_of("RepositoryNotFoundError", "HfHubHTTPError", status=401), "repository"),
    (error_of("RevisionNotFoundError", status=404), "revision"),
    (error_of("HfHubHTTPError", status=401), "token"),
    (error_of("HfHubHTTPError", status=403), "forbidden"),
    (error_of("HfHubHTTPError", status=429), "busy"),
    (error_of("HfHubHTTPError", status=503), "server"),
    (error_of("ConnectError", "NetworkError", "TransportError"), "network"),
    (error_of("ReadTimeout", "TimeoutException", "TransportError"), "network"),
    (error_of("ConnectionError", "RequestException", base=OSError), "network"),
    (error_of("RemoteProtocolError", "ProtocolError", "TransportError", text="illegal status line: SSH-2.0"), "not_a_hub"),
    (error_of("RemoteProtocolError", "ProtocolError", "TransportError", text="peer closed connection"), "network"),
    (OSError(errno.ENOSPC, "No space left on device"), "disk"),
    (OSError(errno.EACCES, "Permission denied"), "permission"),
    # What requests raises, which older versions of the library use.
    (error_of("JSONDecodeError", "RequestException", "ValueError", base=ValueError), "not_a_hub"),
    (ImportError("no huggingface_hub"), "library"),
    (json.JSONDecodeError("x", "y", 0), "not_a_hub"),
    (KeyError("sha"), "not_a_hub"),
    (RuntimeError("?"), "unexpected"),
])
def test_classify(error, kind):
    assert _hub_script.classify(error).answer["problem"] == kind


def test_classify_of_a_file():
    found = _hub_script.classify(error_of("HfHubHTTPError", status=404), "a.json").answer
    assert found["problem"] == "entry" and found["file"] == "a.json" and found["status"] == 404
    assert _hub_script.classify(OSError("Consistency check failed"), "a.json").answer["problem"] == "size"
    closed = error_of("RemoteProtocolError", "ProtocolError", "TransportError", text="peer closed connection without sending complete message body")
    assert _hub_script.classify(closed, "a.json").answer["problem"] == "size"
    silent = error_of("RemoteProtocolError", "ProtocolError", "TransportError", text="Server disconnected without sending a response.")
    assert _hub_script.classify(silent, "a.json").answer["problem"] == "network"
    assert _hub_script.classify(ValueError("too large"), "a.json").answer["problem"] == "unexpected"


class Source:
    """Files that come in answers: bytes that are appended, or an exception."""

    def __init__(self, answers):
        self.answers, self.offsets = list(answers), []

    def get(self, url, stream, resume_size, headers, expected_size):
        self.offsets.append(resume_size)
        answer = self.answers.pop(0)
        if isinstance(answer, tuple):
            stream.write(answer[0])
            raise answer[1]
        stream.write(answer)


def hub_of(source, monkeypatch):
    monkeypatch.setattr(_hub_script.time, "sleep", lambda seconds: None)
    hub = object.__new__(_hub_script.Hub)
    hub.name, hub.revision, hub.headers, hub.get = "a/b", "0" * 40, {}, source.get
    hub.url = lambda name, file, revision: f"{name}/{revision}/{file}"
    return hub


@pytest.mark.parametrize("here, answers, offsets", [
    (b"", [b"0123456789"], [0]),
    (b"0123", [b"456789"], [4]),
    (b"01234567890", [b"0123456789"], [0]),
    (b"", [(b"0123", error_of("ReadError", "TransportError")), b"456789"], [0, 4]),
    (b"xxxx", [b"456789", b"0123456789"], [4, 0]),
])
def test_a_file_is_made_whole(tmp_path, monkeypatch, here, answers, offsets):
    (tmp_path / "part").write_bytes(here)
    source = Source(answers)
    hub_of(source, monkeypatch).fetch(item("x", b"0123456789"), str(tmp_path / "part"))
    assert (tmp_path / "part").read_bytes() == b"0123456789" and source.offsets == offsets


@pytest.mark.parametrize("answers, kind, left", [
    ([b"9876543210"] * 3, "checksum", None),
    ([(b"01", error_of("ReadError", "TransportError"))] * 3, "network", b"010101"),
    ([(b"0123", OSError(errno.ENOSPC, "full"))], "disk", b"0123"),
    ([(b"", error_of("HfHubHTTPError", status=404))], "entry", b""),
])
def test_a_file_that_does_not_become_whole(tmp_path, monkeypatch, answers, kind, left):
    part = tmp_path / "part"
    with pytest.raises(_hub_script.Problem) as caught:
        hub_of(Source(answers), monkeypatch).fetch(item("x", b"0123456789"), str(part))
    assert caught.value.answer["problem"] == kind
    assert (part.read_bytes() if part.exists() else None) == left


def test_what_is_right_is_not_fetched_again(tmp_path, monkeypatch, capsys):
    files = [item("a.json", b"a"), item("sub/b.json", b"bb"), item("c.bin", b"ccc", True)]
    (tmp_path / _hub_script.FILES).write_text(json.dumps(files), encoding="utf-8")
    (tmp_path / "a.json").write_bytes(b"a")
    (tmp_path / "c.bin").write_bytes(b"xxx")
    source = Source([b"bb", b"ccc"])
    assert _hub_script.fetch_files(hub_of(source, monkeypatch), str(tmp_path)) == {"fetched_bytes": 5}
    assert (tmp_path / "sub" / "b.json").read_bytes() == b"bb" and (tmp_path / "c.bin").read_bytes() == b"ccc"
    assert capsys.readouterr().out.splitlines() == ["2/3 sub/b.json (2 bytes)", "3/3 c.bin (3 bytes)"]


def info(files, sha="0" * 40):
    siblings = [types.SimpleNamespace(rfilename=one["name"], size=one["size"], blob_id=one.get("blob"),
                                      lfs=types.SimpleNamespace(sha256=one["sha256"]) if one.get("sha256") else None) for one in files]
    return types.SimpleNamespace(sha=sha, siblings=siblings)


def listing(monkeypatch, told, source=()):
    hub = hub_of(Source(source), monkeypatch)
    hub.token = False
    tensors = {"w": types.SimpleNamespace(dtype="BF16", shape=[2, 4], data_offsets=(0, 16))}
    hub.api = types.SimpleNamespace(
        model_info=lambda name, **more: told, parse_safetensors_file_metadata=lambda name, file, **more: types.SimpleNamespace(tensors=tensors))
    return hub


def test_a_list_and_a_skeleton(tmp_path, monkeypatch):
    files = [item("config.json", b"{}"), item("model.safetensors", b"m" * 99, True), item("extra.txt", b"x")]
    answer = _hub_script.list_files(listing(monkeypatch, info(files), [b"{}"]), str(tmp_path))
    assert answer["skeleton"] is None and [one["name"] for one in answer["files"]] == ["config.json", "extra.txt", "model.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    assert (tmp_path / "model.safetensors").read_bytes().endswith(b"}}" + b"\0" * 16)


def test_a_skeleton_of_old_weights_is_as_large_as_they_are(tmp_path, monkeypatch):
    files = [item("config.json", b"{}"), item("pytorch_model.bin", b"m" * 4096, True)]
    assert _hub_script.list_files(listing(monkeypatch, info(files), [b"{}"]), str(tmp_path))["skeleton"] is None
    assert (tmp_path / "pytorch_model.bin").stat().st_size == 4096


@pytest.mark.parametrize("error, kind", [(error_of("GatedRepoError", status=403), "gated"), (error_of("HfHubHTTPError", status=401), "token")])
def test_files_that_may_not_be_read_end_the_list(tmp_path, monkeypatch, error, kind):
    with pytest.raises(_hub_script.Problem) as caught:
        _hub_script.list_files(listing(monkeypatch, info([item("config.json", b"{}")]), [(b"", error)]), str(tmp_path))
    assert caught.value.answer["problem"] == kind


def test_a_skeleton_that_cannot_be_made_is_told(tmp_path, monkeypatch):
    answer = _hub_script.list_files(listing(monkeypatch, info([item("config.json", b"{}")]), [(b"", OSError(errno.ENOSPC, "full"))]), str(tmp_path))
    assert answer["skeleton"]["problem"] == "disk" and len(answer["files"]) == 1


@pytest.mark.parametrize("told", [info([], "f" * 40), info([{"name": "a", "size": None, "blob": "0" * 40}]), info([{"name": "a", "size": 3}])])
def test_an_answer_that_is_no_list(monkeypatch, told):
    with pytest.raises(_hub_script.Problem) as caught:
        listing(monkeypatch, told).files()
    assert caught.value.answer["problem"] == "not_a_hub"


def test_main_writes_an_answer_without_the_token(tmp_path, monkeypatch):
    (tmp_path / "token").write_text("hf_Secret\n", encoding="utf-8")
    seen = []

    def made(name, revision, token):
        seen.append(token)
        raise RuntimeError("the hub says hf_Secret is wrong")

    monkeypatch.setattr(_hub_script, "Hub", made)
    assert _hub_script.main(["list", "a/b", "0" * 40, str(tmp_path), str(tmp_path / "token")]) == 3
    text = (tmp_path / _hub_script.ANSWER).read_text(encoding="utf-8")
    assert seen == ["hf_Secret"] and "hf_Secret" not in text and json.loads(text)["problem"] == "unexpected"
    monkeypatch.setattr(_hub_script, "Hub", lambda *args: None)
    monkeypatch.setattr(_hub_script, "list_files", lambda hub, folder: {"files": []})
    assert _hub_script.main(["list", "a/b", "0" * 40, str(tmp_path), ""]) == 0
