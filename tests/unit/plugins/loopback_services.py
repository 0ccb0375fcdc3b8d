# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Both services' APIs on loopback, right by default; Ollama's answers are those recorded from a real server."""
from __future__ import annotations

import http.server
import json
import pathlib
import threading

RECORDED = pathlib.Path(__file__).resolve().parents[1] / "data" / "ollama-api"
KEY = "sesame"


def recorded(name):
    """Return (status, body text) of a recorded exchange."""
    answer = json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))["response"]
    return answer["status"], answer["body_raw"]


class Services:
    """One server for both; C(answers) maps a path to (status, body) or to a function of the request's body."""

    def __init__(self):
        self.answers = {
            "/health": (200, ""),
            "/v1/models": (200, json.dumps({"object": "list", "data": [{"id": "tiny"}]})),
            "/v1/completions": (200, json.dumps({"choices": [{"text": ""}], "usage": {"completion_tokens": 1}})),
            "/api/version": recorded("03-version"),
            "/api/tags": recorded("47-tags-one"),
            "/api/generate": recorded("56-generate-nostream"),
        }
        self.asked = []
        services = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                services.asked.append((self.command, self.path, json.loads(body) if body else None, self.headers.get("Authorization")))
                if self.path.startswith("/v1/") and self.headers.get("Authorization") != f"Bearer {KEY}":
                    status, text = 401, '{"error": "Unauthorized"}'
                else:
                    status, text = services.answers.get(self.path, (404, "404 page not found"))
                data = text.encode("utf-8")
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_GET

            def log_message(self, *args):
                """Keep the tests' output clean."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
