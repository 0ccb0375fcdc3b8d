# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""nginx with its Lua module as the distributions pack it, unpacked into the cache. It needs no root to run, and starts no service."""
from __future__ import annotations

import contextlib
import http.client
import json
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jinja2
import yaml
from common import REPO

ROLE = REPO / "roles" / "gateway"
ENGINE = pathlib.Path(__file__).with_name("engine.py")
# Releases that the role knows, by the suite their packages come from.
SUITES = ("bookworm", "trixie")
PACKAGES = ["base-files", "nginx", "libnginx-mod-http-lua", "lua-cjson"]
UNUSED = ["usr/share/doc", "usr/share/locale", "usr/share/man", "var"]
# A bound to end, not to be reached.
PATIENCE_S = 60


def wait_for(condition, what, patience=PATIENCE_S):
    """Return what the condition returns as soon as that is true."""
    end = time.monotonic() + patience
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {patience} s: {what}")
        time.sleep(0.02)


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for unused in range(count)]
        return [one.getsockname()[1] for one in sockets]


def listens(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def request(port, method, path, value=None, headers=None, timeout=PATIENCE_S, host="127.0.0.1"):
    """Return (status, headers, text) of one exchange over a connection of its own."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        body = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, {name.lower(): text for name, text in answer.getheaders()}, answer.read().decode("utf-8", errors="replace")
    finally:
        connection.close()


class Engine:
    """A stand-in for an engine, as a process."""

    def __init__(self, name, service, models, port, log):
        self.name, self.service, self.models, self.port, self.log = name, service, models, port, log
        self.process = None

    def start(self):
        words = [word for model in self.models for word in ("--model", model)]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-I", str(ENGINE), "--service", self.service, "--port", str(self.port), *words], stdout=log, stderr=log)
        wait_for(lambda: listens(self.port), f"{self.name} listens")
        return self

    def control(self, **behaviour):
        status, unused, text = request(self.port, "POST", "/_control", behaviour)
        assert status == 200, text

    def told(self):
        return json.loads(request(self.port, "GET", "/_seen")[2])

    def seen(self):
        return self.told()["seen"]

    def forget(self):
        request(self.port, "POST", "/_forget", {})

    def anew(self):
        """As if it were just started."""
        if self.process is None or self.process.poll() is not None:
            self.start()
        request(self.port, "POST", "/_forget", {"behave": False})
        wait_for(lambda: self.told()["active"] == 0, f"{self.name} has nothing to do")
        return self

    def signal(self, number):
        self.process.send_signal(number)

    def gone(self):
        """Wait until the process has ended by itself."""
        self.process.wait(PATIENCE_S)

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
        if self.process:
            self.process.wait()

    def stopped(self):
        """SIGSTOP until the block ends."""
        @contextlib.contextmanager
        def block():
            self.signal(signal.SIGSTOP)
            try:
                yield
            finally:
                self.signal(signal.SIGCONT)
        return block()


class Program:
    """nginx of one suite."""

    def __init__(self, root):
        self.root = pathlib.Path(root)
        self.folder = self.root / "usr" / "lib" / "x86_64-linux-gnu"
        loader = self.root / "lib64" / "ld-linux-x86-64.so.2"
        loader = loader if loader.exists() else self.root / "usr" / "lib64" / "ld-linux-x86-64.so.2"
        # By its own loader and libraries: those of this machine may be older.
        self.command = [str(loader), "--library-path", f"{self.folder}:{self.root / 'lib' / 'x86_64-linux-gnu'}", str(self.root / "usr" / "sbin" / "nginx")]

    def places(self, folder):
        return {
            "modules": str(self.root / "usr/lib/nginx/modules"), "lua": str(ROLE / "files" / "lua"), "settings": str(folder / "gateway.json"),
            "lua_path": f"{self.root}/usr/share/lua/5.1/?.lua;{self.root}/usr/share/lua/5.1/?/init.lua", "lua_cpath": f"{self.folder}/lua/5.1/?.so",
            "run": str(folder), "log": str(folder), "user": "www-data"}


def defaults():
    return yaml.safe_load((ROLE / "defaults" / "main.yml").read_text(encoding="utf-8"))


class Gateway:
    """nginx with the role's own template and Lua, and with settings as the role makes them."""

    def __init__(self, program, folder, settings, **variables):
        self.program, self.folder, self.settings = program, folder, settings
        self.port, self.admin = free_ports(2)
        self.variables = {**defaults(), "gateway_port": self.port, "gateway_admin_port": self.admin, "__gateway_metrics_address": "127.0.0.1", **variables}
        self.process = None
        self.conf = folder / "nginx.conf"

    def write(self):
        (self.folder / "gateway.json").write_text(json.dumps(self.settings), encoding="utf-8")
        environment = jinja2.Environment(trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined)
        template = environment.from_string((ROLE / "templates" / "nginx.conf.j2").read_text(encoding="utf-8"))
        self.conf.write_text(template.render(**self.variables, __gateway_places=self.program.places(self.folder), __gateway_config=self.settings),
                             encoding="utf-8")

    def command(self, *words):
        return [*self.program.command, "-p", str(self.folder), "-c", str(self.conf), "-e", str(self.folder / "error.log"), *words]

    def test(self):
        return subprocess.run(self.command("-t"), capture_output=True, text=True, check=False)

    def start(self):
        self.write()
        tested = self.test()
        assert tested.returncode == 0, tested.stderr
        self.process = subprocess.Popen(self.command("-g", "daemon off;"), stderr=subprocess.DEVNULL)
        wait_for(lambda: listens(self.port) and listens(self.admin), "the gateway listens")
        return self

    def reload(self):
        self.write()
        self.process.send_signal(signal.SIGHUP)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def ask(self, method, path, value=None, headers=None, **more):
        return request(self.port, method, path, value, headers, **more)

    def workers(self):
        """The process ids of the workers."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text(encoding="ascii")
        return [int(one) for one in children.split()]

    def engines(self):
        return {one["name"]: one for one in json.loads(request(self.admin, "GET", "/engines")[2])}

    def metrics(self):
        lines = request(self.admin, "GET", "/metrics")[2].splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}

    def access(self):
        """The lines of the access log, of requests for a model."""
        lines = [json.loads(line) for line in (self.folder / "access.log").read_text(encoding="utf-8").splitlines()]
        return [line for line in lines if line["method"] == "POST"]

    def logged(self, answer):
        """The line of one answer; it is written when the client has that already."""
        name = answer[1]["x-request-id"]
        return wait_for(lambda: next((line for line in self.access() if line["id"] == name), None), f"{name} is logged")

    def errors(self):
        return (self.folder / "error.log").read_text(encoding="utf-8")
