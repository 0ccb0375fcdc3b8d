# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of the monitoring share: the scenario's settings, a receiver of alerts on the host, and waiting."""
from __future__ import annotations

import functools
import json
import pathlib
import sys

import pytest

SCENARIO = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(SCENARIO.parent))
# Behind everything else: only what the dashboards ask, and what the exporter tells, is taken from there.
sys.path += [str(SCENARIO.parents[1] / "tests" / "monitoring"), str(SCENARIO.parents[1] / ".cache" / "collections")]

pytest_plugins = ["machine"]

# Writes a line for each alert that it is told of.
RECEIVER = """
import http.server, json

class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with open("/run/alerts", "a") as told:
            for alert in body["alerts"]:
                told.write(json.dumps([alert["labels"]["alertname"], alert["status"], alert["labels"].get("service", "")]) + "\\n")
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

http.server.HTTPServer(("127.0.0.1", 9999), Handler).serve_forever()
"""


@pytest.fixture(scope="session")
def settings():
    return ("-e", f"@{SCENARIO / 'vars' / 'main.yml'}")


@pytest.fixture(name="told")
def fixture_told(host, sh):
    """What the receiver was told so far, as [alert, status, service]; it is started where it does not run."""
    if host.run("systemctl is-active --quiet alert-receiver").rc:
        host.run_expect([0], "printf %%s %s > /run/receiver.py", RECEIVER)
        sh("touch /run/alerts; systemd-run --unit alert-receiver python3 /run/receiver.py")
    return lambda: [json.loads(line) for line in sh("cat /run/alerts").splitlines()]


@pytest.fixture(name="wait_for")
def fixture_wait_for(wait_for):
    return functools.partial(wait_for, seconds=1800, pause=5)
