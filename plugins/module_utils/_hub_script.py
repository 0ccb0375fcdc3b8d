# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks the hub for a model through the hub's own library. Its text is run inside the engine's image, where that library is; it imports nothing of ours.

list    writes which files a revision has into the answer, and a folder of the same shape without the weights: small files, headers, empty rest
fetch   downloads the files that the list names, each checked, and goes on where an earlier run stopped

The library throws away what it has of a file when it ends, so the unfinished files are kept here, and it is asked for the rest.
"""
from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import sys
import time

ANSWER = ".erni-ki-answer.json"
FILES = ".erni-ki-files.json"
PARTS = ".erni-ki-parts"

# What the engine reads, and no other form of the same weights.
OTHER_WEIGHTS = (".pt", ".pth", ".ot", ".h5", ".msgpack", ".onnx", ".gguf", ".ggml", ".tflite", ".mlmodel", ".mlpackage", ".npz")
OTHER_FOLDERS = ("original", "onnx", "openvino", "coreml", "metal", "runs", "checkpoints")
# What tells the size of a model, beside the headers of its weights.
TELLING = ("config.json", "quantize_config.json", "quant_config.json", "model.safetensors.index.json")

# How often a connection that broke is made anew without a byte having come.
ATTEMPTS = 3
PAUSE_S = 2
CHUNK = 1 << 20


class Problem(Exception):
    """What stands in the way: a word that the module knows, and details."""

    def __init__(self, kind, text="", **more):
        super().__init__(text)
        self.answer = dict({"problem": kind, "text": " ".join(str(text).split())[:500], "status": None, "file": None}, **more)


def chosen(names):
    """Return those of a repository's files that are needed. The same weights often lie there in several forms."""
    kept = [name for name in names if not name.lower().endswith(OTHER_WEIGHTS) and name.split("/")[0] not in OTHER_FOLDERS and not name.startswith(".")]
    if any(name.endswith(".safetensors") and "/" not in name for name in kept):
        kept = [name for name in kept if not name.endswith(".bin")]
        whole = [name for name in kept if name.endswith(".safetensors") and not name.startswith("consolidated")]
        kept = [name for name in kept if not whole or not (name.startswith("consolidated") and name.endswith(".safetensors"))]
    return kept


def digest(path, item):
    """Return the checksum of a file, of the kind that the hub gave for it."""
    if item.get("sha256"):
        state = hashlib.sha256()
    else:
        # What git calls a file: its content behind a header with its size. Not for security; the hub has nothing better for small files.
        state = hashlib.new("sha1", usedforsecurity=False)
        state.update(b"blob %d\0" % os.path.getsize(path))
    with open(path, "rb") as stream:
        for piece in iter(lambda: stream.read(CHUNK), b""):
            state.update(piece)
    return state.hexdigest()


def expected(item):
    return item.get("sha256") or item.get("blob")


def is_right(path, item):
    return os.path.isfile(path) and not os.path.islink(path) and os.path.getsize(path) == item["size"] and digest(path, item) == expected(item)


def classify(error, name=None):
    """Return the Problem that an exception of the library, of its HTTP client or of the system stands for. Their classes move between versions."""
    if isinstance(error, Problem):
        return error
    classes = {kind.__name__ for kind in type(error).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", None)
    kind = "unexpected"
    if "GatedRepoError" in classes:
        kind = "gated"
    elif "RevisionNotFoundError" in classes:
        kind = "revision"
    elif "RepositoryNotFoundError" in classes or "HFValidationError" in classes:
        kind = "repository"
    elif status is not None:
        kind = {401: "token", 403: "forbidden", 404: "repository" if name is None else "entry", 416: "size", 429: "busy"}.get(status, "server")
    elif classes & {"RemoteProtocolError", "DecodingError"} and "illegal" in str(error).lower():
        kind = "not_a_hub"
    elif name is not None and "RemoteProtocolError" in classes and "peer closed connection" in str(error):
        # The hub answered, and its answer ended before its end.
        kind = "size"
    elif classes & {"TransportError", "TimeoutException", "ConnectionError", "OfflineModeIsEnabled", "LocalEntryNotFoundError"}:
        kind = "network"
    elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        kind = "disk"
    elif isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        kind = "permission"
    elif name is not None and isinstance(error, OSError) and error.errno is None:
        # The library's own: an answer that ended before its end, after all its attempts.
        kind = "size"
    elif isinstance(error, ImportError):
        kind = "library"
    elif name is None and isinstance(error, (ValueError, KeyError, TypeError, AttributeError)):
        kind = "not_a_hub"
    return Problem(kind, f"{type(error).__name__}: {error}", status=status, file=name)


class Hub:
    """One revision of one model."""

    def __init__(self, name, revision, token):
        import huggingface_hub
        from huggingface_hub import file_download
        from huggingface_hub.utils import build_hf_headers

        self.name, self.revision = name, revision
        self.token = token or False
        self.api = huggingface_hub.HfApi(token=self.token)
        self.get, self.url = file_download.http_get, file_download.hf_hub_url
        # Sizes and places in a file are those of the file itself.
        self.headers = dict(build_hf_headers(token=self.token), **{"Accept-Encoding": "identity"})

    def files(self):
        """Return what the revision holds, as the hub tells it."""
        info = self.api.model_info(self.name, revision=self.revision, files_metadata=True, timeout=30, token=self.token)
        if info.sha != self.revision:
            raise Problem("not_a_hub", f"asked for {self.revision}, it answers with {str(info.sha)[:60]}")
        found = {}
        for one in info.siblings or []:
            sum256 = getattr(one.lfs, "sha256", None) if one.lfs else None
            found[one.rfilename] = {"name": one.rfilename, "size": one.size, "sha256": sum256, "blob": None if sum256 else one.blob_id}
        kept = [found[name] for name in chosen(sorted(found))]
        broken = [item["name"] for item in kept if not isinstance(item["size"], int) or not expected(item)]
        if broken:
            raise Problem("not_a_hub", f"neither size nor checksum of {broken[0]} is told")
        return kept

    def fetch(self, item, path):
        """Download one file to a path, on from what is there of it, and check it."""
        for attempt in range(ATTEMPTS):
            with contextlib.suppress(FileNotFoundError):
                if os.path.getsize(path) > item["size"]:
                    os.remove(path)
            with open(path, "ab") as stream:
                try:
                    self.get(self.url(self.name, item["name"], revision=self.revision), stream, resume_size=stream.tell(), headers=dict(self.headers),
                             expected_size=item["size"])
                except Exception as error:
                    problem = classify(error, item["name"])
                    if problem.answer["problem"] not in ("network", "size", "server", "busy") or attempt == ATTEMPTS - 1:
                        raise problem from error
            if os.path.getsize(path) == item["size"] and digest(path, item) == expected(item):
                return
            if os.path.getsize(path) >= item["size"]:
                os.remove(path)
                if attempt == ATTEMPTS - 1:
                    raise Problem("checksum", expected(item), file=item["name"])
            time.sleep(PAUSE_S)
        raise Problem("size", "the answers end before the file does", file=item["name"])

    def skeleton(self, files, folder):
        """Make what tells the size of the model: the weights' headers, with nothing behind them."""
        for item in files:
            path = os.path.join(folder, item["name"])
            if item["name"] in TELLING:
                self.fetch(item, path)
            elif item["name"].endswith(".safetensors") and "/" not in item["name"]:
                self._header(item, path)
            elif item["name"].endswith(".bin") and "/" not in item["name"]:
                with open(path, "wb") as stream:
                    stream.truncate(item["size"])

    def _header(self, item, path):
        told = self.api.parse_safetensors_file_metadata(self.name, item["name"], revision=self.revision, token=self.token)
        header = {name: {"dtype": one.dtype, "shape": list(one.shape), "data_offsets": list(one.data_offsets)} for name, one in told.tensors.items()}
        text = json.dumps(header).encode("utf-8")
        with open(path, "wb") as stream:
            stream.write(len(text).to_bytes(8, "little") + text)
            stream.truncate(8 + len(text) + max([one["data_offsets"][1] for one in header.values()], default=0))


def list_files(hub, folder):
    files = hub.files()
    answer = {"files": files, "skeleton": None}
    try:
        hub.skeleton(files, folder)
    except Exception as error:
        problem = classify(error, "the headers of the weights")
        # Whoever may not read the small files will not get the large ones; of all else only the size in memory is unknown.
        if problem.answer["problem"] in ("gated", "token", "forbidden"):
            raise problem from error
        answer["skeleton"] = problem.answer
    return answer


def fetch_files(hub, folder):
    with open(os.path.join(folder, FILES), encoding="utf-8") as stream:
        files = json.load(stream)
    parts = os.path.join(folder, PARTS)
    os.makedirs(parts, exist_ok=True)
    fetched = 0
    for number, item in enumerate(files, 1):
        path = os.path.join(folder, item["name"])
        if is_right(path, item):
            continue
        sys.stdout.write(f"{number}/{len(files)} {item['name']} ({item['size']} bytes)\n")
        sys.stdout.flush()
        # Named by what it is to become: nothing of another revision can get into it.
        part = os.path.join(parts, expected(item))
        before = os.path.getsize(part) if os.path.exists(part) else 0
        hub.fetch(item, part)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.replace(part, path)
        fetched += item["size"] - before
    return {"fetched_bytes": fetched}


def main(argv):
    job, name, revision, folder, token_file = argv
    token = None
    try:
        if token_file:
            with open(token_file, encoding="utf-8") as stream:
                token = stream.read().strip()
        answer = {"list": list_files, "fetch": fetch_files}[job](Hub(name, revision, token), folder)
    except Exception as error:
        answer = classify(error).answer
    text = json.dumps(answer)
    # The library never prints it, but an answer of the hub might.
    text = text.replace(token, "TOKEN") if token else text
    with open(os.path.join(folder, ANSWER), "w", encoding="utf-8") as stream:
        stream.write(text)
    return 3 if "problem" in answer else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
