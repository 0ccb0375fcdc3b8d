# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the Ollama stand-in on loopback, for any test that needs a server that answers as Ollama does."""
from __future__ import annotations

import contextlib
import functools
import hashlib
import http.client
import http.server
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import threading
import time

IMAGE = pathlib.Path(__file__).resolve().parents[2] / "sandbox" / "images" / "ollama-standin"
START_S = 60

# The recorded model: its shape, and the size of its file in bytes.
TINY = {"file_type": 1, "layers": 4, "context_length": 2048, "embedding_length": 256, "feed_forward_length": 512, "heads": 4, "kv_heads": 2,
        "head_length": 64, "epsilon": 1e-06, "vocab_size": 2048}
TINY_SIZE = 5841024


class Server:
    """A running stand-in: `url`, `port`, `data` (its models' folder), `log()`, `control(**switches)`."""

    def __init__(self, process, port, data, folder):
        self.process, self.port, self.data, self.folder = process, port, data, folder
        self.url = "http://127.0.0.1:%d" % port

    def log(self):
        return (self.folder / "standin.log").read_text()

    def control(self, **switches):
        fresh = self.folder / "control.new"
        fresh.write_text(json.dumps(switches))
        fresh.rename(self.folder / "control.json")

    def call(self, method, path, body=None, timeout=60):
        """Status and body of one exchange, the body parsed where it is JSON, as a list where it is lines of it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        with contextlib.closing(connection):
            connection.request(method, path, json.dumps(body) if body is not None else None)
            response = connection.getresponse()
            data, kind = response.read().decode(), response.headers.get("Content-Type", "")
        if "ndjson" in kind:
            return response.status, [json.loads(line) for line in data.splitlines()]
        return response.status, json.loads(data) if "json" in kind and data else data

    def children(self):
        """Process ids of the stand-in's runners."""
        found = []
        for status in pathlib.Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError):
                text = status.read_text()
                if re.search(r"^PPid:\s+%d$" % self.process.pid, text, re.M) and not re.search(r"^State:\s+Z", text, re.M):
                    found.append(int(status.parent.name))
        return found


def environment(folder, **more):
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OLLAMA_", "STANDIN_", "LLAMA_ARG_"))}
    own = {"OLLAMA_HOST": "127.0.0.1:0", "OLLAMA_MODELS": str(folder / "models"), "STANDIN_CONTROL": str(folder / "control.json"),
           "STANDIN_MS_PER_TOKEN": "1", "STANDIN_STOP_WITH_STDIN": "1", "PYTHONPATH": str(IMAGE), "PYTHONDONTWRITEBYTECODE": "1"}
    return {**inherited, **own, **more}


@contextlib.contextmanager
def running(folder, **more):
    """A fresh stand-in whose files lie in `folder`; `more` is added to its environment."""
    with open(folder / "standin.log", "w", encoding="utf-8") as log:
        # Its standard input ends with this process, however that ends: ansible-test runs every test in a fork and drops it there.
        process = subprocess.Popen([sys.executable, "-m", "standin", "serve"], cwd=folder, env=environment(folder, **more),
                                   stdin=subprocess.PIPE, stdout=log, stderr=log)
    try:
        end, found = time.monotonic() + START_S, None
        while not found:
            text = (folder / "standin.log").read_text()
            found = re.search(r"Listening on \S*:(\d+) ", text)
            if not found and (process.poll() is not None or time.monotonic() > end):
                raise AssertionError("the stand-in did not start:\n" + text)
            time.sleep(0 if found else 0.01)
        yield Server(process, int(found.group(1)), folder / "models", folder)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdin.close()


def standin_module(name):
    """A module of the stand-in, for what a test has to compute as it does."""
    if str(IMAGE) not in sys.path:
        sys.path.insert(0, str(IMAGE))
    return __import__("standin." + name, fromlist=[name])


@functools.lru_cache(maxsize=None)
def tiny_gguf():
    """A model file with the shape and the size of the recorded one; its weights are zeros."""
    gguf, chatml = standin_module("gguf"), "<|im_start|><|im_end|>"
    tokens = ["token%04d" % number for number in range(TINY["vocab_size"])]
    bare = gguf.llama(TINY, tokens, chatml)
    # The chat template fills the header up to the recorded size, so that it ends 16 bytes before the weights begin.
    gap = TINY_SIZE - bare.tensor_bytes - 16 - len(gguf.dump(bare).rstrip(b"\0"))
    while True:
        header = gguf.llama(TINY, tokens, chatml + " " * gap)
        size = gguf.read(io.BytesIO(gguf.dump(header))).size
        if size == TINY_SIZE - bare.tensor_bytes - 16:
            return gguf.dump(header) + bytes(bare.tensor_bytes)
        gap += TINY_SIZE - bare.tensor_bytes - 16 - size


class Registry:
    """A model registry on loopback that holds models by path, such as library/tiny. `fail` maps a digest to what goes wrong with it."""

    def __init__(self):
        self.manifests, self.blobs, self.fail, self.asked = {}, {}, {}, []
        registry = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def handle(self):
                # A TLS greeting gets no answer: the connection ends.
                if self.connection.recv(1, 2) == b"\x16":
                    return
                super().handle()

            def do_GET(self):
                registry.answer(self)

            def log_message(self, format, *args):
                pass
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = "127.0.0.1:%d" % self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def blob(self, data):
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self.blobs[digest] = data
        return {"digest": digest, "size": len(data)}

    def add(self, name, layers, config):
        """Layers and config as (media type, bytes, more keys of the manifest)."""
        entries = [dict(self.blob(data), mediaType=kind, **more) for kind, data, more in layers + [config]]
        self.manifests[name] = json.dumps({"schemaVersion": 2, "config": entries[-1], "layers": entries[:-1]}).encode()

    def answer(self, handler):
        self.asked.append((handler.path, handler.headers.get("Range")))
        manifest = re.fullmatch(r"/v2/(.+)/manifests/(.+)", handler.path)
        blob = re.fullmatch(r"/v2/.+/blobs/(.+)", handler.path)
        data = self.manifests.get(manifest.group(1)) if manifest else self.blobs.get(blob.group(1)) if blob else None
        if data is None:
            handler.send_error(404)
            return
        failure = self.fail.get(blob.group(1)) if blob else None
        start = int((handler.headers.get("Range") or "bytes=0-")[6:-1])
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(data) - start))
        handler.end_headers()
        if failure == "wrong":
            data = b"\0" * len(data)
        handler.wfile.write(data[start:len(data) // 2] if failure == "short" else data[start:])

    def add_tiny(self):
        """The recorded registry's one model, layer by layer as large as there."""
        store = standin_module("store")
        config = json.dumps({"model_format": "gguf", "model_family": "llama", "model_families": ["llama"], "model_type": "2.89M", "file_type": "F16",
                             "architecture": "amd64", "os": "linux"}).encode()
        params = standin_module("gojson").dumps({"stop": store.CHATML_STOP}).encode() + b"\n"
        digest = hashlib.sha256(tiny_gguf()).hexdigest()
        self.add("library/tiny", [
            (store.MEDIA + "model", tiny_gguf(), {"from": "/root/.ollama/models/blobs/sha256-" + digest}),
            (store.MEDIA + "template", store.CHATML.encode(), {}),
            (store.MEDIA + "params", params, {}),
        ], (store.CONFIG, config.ljust(411), {}))

    def close(self):
        self.server.shutdown()
        self.server.server_close()
