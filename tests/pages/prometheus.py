# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prometheus of Debian 12, unpacked into the cache, with figures that are written into it."""
from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
import urllib.request

from sandbox_lib import debian

SUITE = "bookworm"
PACKAGES = ["prometheus"]
UNUSED = ["usr/share", "var"]
# A bound to end, not to be reached.
TIMEOUT_S = 300


def ensure(cache):
    """The folder of the program, unpacked now when it is not there."""
    return debian.unpacked(cache, "prometheus", SUITE, PACKAGES, UNUSED)


def free_port():
    with contextlib.closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def running(root, folder, samples):
    """Run Prometheus with these samples, lines of OpenMetrics; yields its URL."""
    text, data = folder / "samples.om", folder / "data"
    text.write_text("\n".join([*samples, "# EOF", ""]), encoding="utf-8")
    program = root / "usr" / "bin"
    subprocess.run([program / "promtool", "tsdb", "create-blocks-from", "openmetrics", text, data], check=True, capture_output=True, timeout=TIMEOUT_S)
    config = folder / "prometheus.yml"
    config.write_text("{}\n", encoding="utf-8")
    url = f"http://127.0.0.1:{free_port()}"
    command = [program / "prometheus", f"--config.file={config}", f"--storage.tsdb.path={data}", f"--web.listen-address={url.partition('//')[2]}",
               "--storage.tsdb.retention.time=10y", "--log.level=error"]
    with open(folder / "log", "wb") as log, subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "GOMAXPROCS": "1"}) as process:
        try:
            end = time.monotonic() + TIMEOUT_S
            while not ready(url):
                assert process.poll() is None and time.monotonic() < end, (folder / "log").read_text(encoding="utf-8")
                time.sleep(0.2)
            yield url
        finally:
            process.terminate()
            process.wait(TIMEOUT_S)


def ready(url):
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{url}/-/ready", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False
