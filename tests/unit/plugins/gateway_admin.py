# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The admin port of a gateway, on loopback, as far as draining goes. That the real one answers like this: tests/gateway."""
from __future__ import annotations

import http.server
import json
import re
import threading


def engine(name, answers=("chat",), **more):
    host, unused, service = name.rpartition("-")
    return {"name": name, "host": host, "service": service, "up": True, "drained": False, "unless_last": False, "in_flight": 0,
            "answers": list(answers), **more}


class Admin:
    """A server with some engines; C(told) is called with each path of a POST."""

    def __init__(self, *engines, told=lambda path: None, status=200):
        self.engines = {one["name"]: one for one in engines}
        self.asked = []
        admin = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                # What is at work ends a little later.
                answer = list(map(dict, admin.engines.values()))
                for one in admin.engines.values():
                    one["in_flight"] = max(0, one.get("in_flight", 0) - 1)
                self.say(status, answer)

            def do_POST(self):
                admin.asked.append(self.path)
                told(self.path)
                on, name = re.fullmatch(r"/(drain|undrain)/([\w.-]+)\?unless_last=1", self.path).groups()
                one = admin.engines[name]
                if not one["drained"] or one["unless_last"]:
                    one.update(drained=on == "drain", unless_last=on == "drain")
                self.say(status, one)

            def say(self, code, value):
                data = json.dumps(value).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args):
                """Keep the tests' output clean."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def drained(self):
        return [name for name, one in self.engines.items() if one["drained"]]

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.server.shutdown()
        self.server.server_close()
