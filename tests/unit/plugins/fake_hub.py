# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A hub for models on loopback: what the hub's library asks for one model, ranges included, and what can go wrong there."""
from __future__ import annotations

import hashlib
import http.server
import json
import re
import threading
import urllib.parse

REVISION = "0123456789abcdef0123456789abcdef01234567"
NAME = "team/tiny"


def is_large(name):
    return name.endswith((".safetensors", ".bin", ".pth"))


def blob(data):
    return hashlib.new("sha1", b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


class FakeHub:
    """C(files) is the repository. C(faults) maps a file to a list of faults, each good for one answer (the last one for all that follow where
    C(forever)): a number is how many bytes come before the connection ends, C(wrong) other bytes, C(whole) no range, C(500) and the like a status."""

    def __init__(self, files):
        self.files = dict(files)
        self.faults, self.forever = {}, False
        self.asked = []
        self.token = None
        self.gated = False
        self.page = None
        # Set when the first half of a file of more than 20 MiB is out; then nothing comes until C(go_on) is set.
        self.halved, self.go_on = threading.Event(), None
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                hub.asked.append((self.command, self.path, self.headers.get("Range"), self.headers.get("Authorization")))
                hub.answer(self)

            do_HEAD = do_GET

            def log_message(self, *args):
                """Keep the tests' output clean."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self):
        if self.go_on:
            self.go_on.set()
        self.server.shutdown()
        self.server.server_close()

    def downloads(self, name):
        """Return the ranges in which a file was asked for."""
        return [asked[2] for asked in self.asked if asked[0] == "GET" and asked[1].endswith(f"/resolve/{REVISION}/{name}")]

    def answer(self, request):
        path = urllib.parse.urlsplit(request.path).path
        if self.page is not None:
            return self.send(request, 200, self.page, {"Content-Type": "text/html"})
        if self.token and request.headers.get("Authorization") not in (None, f"Bearer {self.token}"):
            return self.send(request, 401, b"", {"X-Error-Message": "Invalid credentials in Authorization header"})
        may = not self.token or request.headers.get("Authorization") == f"Bearer {self.token}"
        api = re.fullmatch(r"/api/models/(.+)/revision/([^/]+)", path)
        file = re.fullmatch(r"/(.+)/resolve/([^/]+)/(.+)", path)
        if not (api or file) or (api or file).group(1) != NAME or (not may and not self.gated):
            return self.send(request, 401 if not request.headers.get("Authorization") else 404, b"", {"X-Error-Code": "RepoNotFound"})
        if (api or file).group(2) != REVISION:
            return self.send(request, 404, b"", {"X-Error-Code": "RevisionNotFound"})
        if api:
            return self.send(request, 200, json.dumps(self.info()).encode(), {"Content-Type": "application/json"})
        if not may:
            return self.send(request, 403, b"", {"X-Error-Code": "GatedRepo"})
        if file.group(3) not in self.files:
            return self.send(request, 404, b"", {"X-Error-Code": "EntryNotFound"})
        return self.send_file(request, file.group(3))

    def info(self):
        siblings = []
        for name, data in self.files.items():
            entry = {"rfilename": name, "size": len(data), "blobId": blob(data)}
            if is_large(name):
                entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
            siblings.append(entry)
        return {"_id": "1", "id": NAME, "modelId": NAME, "sha": REVISION, "private": False, "gated": self.gated, "disabled": False, "downloads": 0, "likes": 0,
                "tags": [], "siblings": siblings, "createdAt": "2026-01-01T00:00:00.000Z", "lastModified": "2026-01-01T00:00:00.000Z"}

    def send_file(self, request, name):
        data, status = self.files[name], 200
        checksum = hashlib.sha256(data).hexdigest() if is_large(name) else blob(data)
        headers = {"ETag": f'"{checksum}"', "X-Repo-Commit": REVISION, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        if is_large(name):
            headers.update({"X-Linked-Etag": f'"{checksum}"', "X-Linked-Size": str(len(data))})
        faults, fault = self.faults.get(name) or [], None
        if faults and request.command == "GET":
            fault = faults[0] if self.forever and len(faults) == 1 else faults.pop(0)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range") or "")
        if asked and fault != "whole":
            first, last = int(asked.group(1)), min(int(asked.group(2) or len(data) - 1), len(data) - 1)
            if first >= len(data):
                return self.send(request, 416, b"", {"Content-Range": f"bytes */{len(data)}"})
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            data, status = data[first:last + 1], 206
        if fault == "wrong":
            data = bytes(255 - byte for byte in data)
        elif isinstance(fault, str) and fault.isdigit():
            return self.send(request, int(fault), b"", {})
        cut = fault if isinstance(fault, int) else None
        return self.send(request, status, data, headers, cut, halve=self.go_on is not None and len(data) > 20 << 20)

    def send(self, request, status, data, headers, cut=None, halve=False):
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        if request.command == "HEAD":
            return
        if halve:
            request.wfile.write(data[:len(data) // 2])
            request.wfile.flush()
            self.halved.set()
            self.go_on.wait(30)
            request.close_connection = True
            return
        request.wfile.write(data if cut is None else data[:cut])
        if cut is not None:
            request.wfile.flush()
            request.close_connection = True
