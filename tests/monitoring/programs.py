# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prometheus, Alertmanager, node_exporter and their tools, from the packages that the role installs, unpacked into the cache and not installed."""
from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

from sandbox_lib import debian
from sandbox_lib.host import tool

SUITES = ("trixie", "bookworm")
PACKAGES = ["prometheus", "prometheus-alertmanager", "prometheus-node-exporter"]
UNUSED = ["usr/share/doc", "usr/share/locale", "usr/share/man", "usr/share/javascript", "usr/share/fonts", "var"]
# A bound to end, not to be reached.
TIMEOUT_S = 300


def ensure(cache, suite):
    """The folder of the programs of a Debian release, unpacked now when it is not there."""
    return debian.unpacked(cache, f"prometheus-{suite}", suite, PACKAGES, UNUSED) / "usr" / "bin"


def run(folder, *words, code=0):
    """Run a tool to its end; with this exit code, where one is given."""
    done = subprocess.run([folder / words[0], *words[1:]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT_S, check=False)
    assert code in (None, done.returncode), f"{' '.join(map(str, words))} ended with {done.returncode}:\n{done.stdout}"
    return done


@contextlib.contextmanager
def running(folder, log, *command):
    """Run a program of a folder for as long as the block lasts; what it says goes to a file."""
    # Debian's Alertmanager reads templates from /usr/share, wherever it lies itself.
    share = [tool("unshare"), "--mount", "--propagation", "private", "sh", "-c", 'mount --bind "$0" /usr/share && exec "$@"', folder.parent / "share"]
    with open(log, "ab") as stream:
        process = subprocess.Popen([*share, *command], stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port():
    """A port that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def get(url):
    """Return the text behind a URL; None where nobody answers with it."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read().decode()
    except (OSError, urllib.error.URLError):
        return None


def get_json(url):
    text = get(url)
    return None if text is None else json.loads(text)


def wait(what, condition, log=None):
    """Return the first true answer of a condition."""
    end = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.2)
    said = f":\n{log.read_text(errors='replace')[-3000:]}" if log else ""
    raise AssertionError(f"not within {TIMEOUT_S} s: {what}{said}")
