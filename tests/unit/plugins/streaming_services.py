# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Both services' streaming APIs on loopback, token by token, right by default and wrong in one thing where a test says so."""
from __future__ import annotations

import contextlib
import http.server
import json
import threading
import time

KEY = "sesame"


class Streams:
    """One server for both services.

    C(ms) is the time between tokens by service. C(fault) is what goes wrong: silent (never answers), broken (ends after half of the tokens), refused (503),
    other (a web page), error (told within the stream), slow (a token a second), empty (ends at once), odd (lines that are none of the API's).
    C(plain) lets vLLM's part not count along, C(pieces) is how many tokens come in one piece.
    """

    def __init__(self, ms=2.0):
        self.ms = {"vllm": ms, "ollama": ms}
        self.fault = {}
        self.plain = False
        self.pieces = 1
        self.prompts = []
        self.open = 0       # streams at this moment
        self.ended = threading.Event()
        streams = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                listed = {"/v1/models": {"object": "list", "data": [{"id": "tiny"}]}, "/api/tags": {"models": [{"name": "tiny:latest"}]}}
                self.whole(200, json.dumps(listed.get(self.path, {})))

            def do_POST(self):
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                service = "vllm" if self.path == "/v1/completions" else "ollama"
                if service == "vllm" and self.headers.get("Authorization") not in (None, f"Bearer {KEY}"):
                    self.whole(401, '{"error": "Unauthorized"}')
                    return
                streams.prompts.append((service, asked["prompt"]))
                with contextlib.suppress(OSError):
                    streams.answer(self, service, asked)

            def whole(self, status, text, kind="application/json"):
                data = text.encode()
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def piece(self, text):
                data = text.encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                self.wfile.flush()

            def log_message(self, *args):
                """Keep the tests' output clean."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def answer(self, handler, service, asked):
        fault = self.fault.get(service)
        if fault == "silent":
            self.ended.wait(60)
            return
        if fault == "refused":
            handler.whole(503, '{"error": {"message": "overloaded"}}')
            return
        if fault == "other":
            handler.whole(200, "<html>\nhello\n</html>\n", "text/html")
            return
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        self.open += 1
        try:
            self.tokens(handler, service, asked, fault)
        finally:
            self.open -= 1

    def tokens(self, handler, service, asked, fault):
        total = asked["max_tokens"] if service == "vllm" else asked["options"]["num_predict"]
        total = {"broken": total // 2, "error": total // 2, "empty": 0}.get(fault, total)
        if fault == "odd":
            handler.piece('hello: 1\n' if service == "vllm" else '{"hello": 1}\n')
        made = 0
        while made < total:
            self.ended.wait(1 if fault == "slow" else self.ms[service] / 1000)
            step = min(self.pieces, total - made)
            made += step
            handler.piece(self.line(service, " word" * step, made))
        if fault == "error":
            error = {"error": {"message": "out of memory"}} if service == "vllm" else {"error": "out of memory"}
            handler.piece(("data: " if service == "vllm" else "") + json.dumps(error) + "\n\n")
        elif fault == "broken":
            handler.close_connection = True
            return
        elif service == "vllm":
            handler.piece("data: " + json.dumps({"choices": [], "usage": {"completion_tokens": made}}) + "\n\ndata: [DONE]\n\n")
        else:
            handler.piece(json.dumps({"model": "tiny:latest", "response": "", "done": True, "done_reason": "length", "eval_count": made}) + "\n")
        handler.piece("")

    def line(self, service, text, made):
        if service == "ollama":
            return json.dumps({"model": "tiny:latest", "response": text, "done": False}) + "\n"
        value = {"choices": [{"index": 0, "text": text}], "usage": None if self.plain else {"completion_tokens": made}}
        return "data: " + json.dumps(value) + "\n\n"

    def wait_closed(self, seconds=5):
        """Wait until no stream is open any more."""
        end = time.monotonic() + seconds
        while self.open and time.monotonic() < end:
            time.sleep(0.005)
        return self.open == 0

    def close(self):
        self.ended.set()
        self.server.shutdown()
        self.server.server_close()
