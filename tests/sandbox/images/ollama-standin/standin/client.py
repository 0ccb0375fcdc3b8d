# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in's command line: as much of `ollama` as health checks and people at a prompt use.

Imports little: a health check starts it every few seconds, on an emulated CPU too.
"""
from __future__ import annotations

import json
import os
import socket
import sys
import time

from . import BANNER, VERSION

USAGE = """%s

Usage: ollama [serve | list | ls | ps | pull MODEL | run MODEL [PROMPT] | stop MODEL | rm MODEL | cp MODEL NAME | --version]""" % BANNER


class Failed(Exception):
    pass


def host_and_port(environ):
    text = environ.get("OLLAMA_HOST", "").strip()
    scheme, found, rest = text.partition("://")
    if not found:
        scheme, rest = "", text
    rest = rest.partition("/")[0]
    default = {"http": 80, "https": 443}.get(scheme, 11434)
    host, port = rest, ""
    if rest.startswith("["):
        host, _end, port = rest[1:].partition("]")
        port = port[1:]
    elif rest.count(":") == 1:
        host, port = rest.split(":")
    return host or "127.0.0.1", int(port) if port.isdigit() and int(port) < 65536 else default


def call(method, path, body=None):
    """Yields the answer's JSON values, one for each line. HTTP/1.0: the answer ends where the connection does."""
    host, port = host_and_port(os.environ)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    data = json.dumps(body).encode("utf-8") if body is not None else b""
    try:
        with socket.create_connection((host, port)) as connection:
            connection.sendall(("%s %s HTTP/1.0\r\nHost: %s\r\nContent-Length: %d\r\n\r\n" % (method, path, host, len(data))).encode("ascii") + data)
            with connection.makefile("rb") as stream:
                status = int((stream.readline().split() + [b"0", b"0"])[1])
                while stream.readline().strip():
                    pass
                for line in stream:
                    if line.strip():
                        value = json.loads(line)
                        if "error" in value:
                            raise Failed(value["error"])
                        yield value
                if status >= 400 or not status:
                    raise Failed("%d" % status)
    except (OSError, ValueError):
        raise Failed("could not connect to ollama server, run 'ollama serve' to start it") from None


def human_bytes(size):
    for unit, factor in (("TB", 10 ** 12), ("GB", 10 ** 9), ("MB", 10 ** 6), ("KB", 10 ** 3)):
        if size >= factor:
            value = size / factor
            return "%d %s" % (value, unit) if value >= 10 or value == int(value) else "%.1f %s" % (value, unit)
    return "%d B" % size


def human_time(stamp):
    """How long ago, or until, a time the server gave."""
    if int(stamp[:4]) - time.gmtime().tm_year > 20:
        return "Forever"
    import calendar
    seconds = int(time.time() - calendar.timegm(time.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S")))
    for name, size in (("weeks", 7 * 86400), ("days", 86400), ("hours", 3600), ("minutes", 60), ("seconds", 1)):
        if abs(seconds) >= 2 * size or size == 1:
            return "%d %s %s" % (abs(seconds) // size, name, "ago" if seconds >= 0 else "from now")
    return ""


def table(head, rows):
    widths = [max(len(row[index]) for row in [head] + rows) for index in range(len(head))]
    for row in [head] + rows:
        print("    ".join(cell.ljust(width) for cell, width in zip(row, widths)))


def _list():
    models = next(call("GET", "/api/tags"))["models"]
    table(["NAME", "ID", "SIZE", "MODIFIED"],
          [[one["name"], one["digest"][:12], human_bytes(one["size"]), human_time(one["modified_at"])] for one in models])


def _processor(one):
    if not one["size_vram"]:
        return "100% CPU"
    if one["size_vram"] == one["size"]:
        return "100% GPU"
    share = round(100 * (one["size"] - one["size_vram"]) / one["size"])
    return "%d%%/%d%% CPU/GPU" % (share, 100 - share)


def _ps():
    models = next(call("GET", "/api/ps"))["models"]
    table(["NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"],
          [[one["name"], one["digest"][:12], human_bytes(one["size"]), _processor(one), str(one["context_length"]), human_time(one["expires_at"])]
           for one in models])


def _pull(model):
    last = None
    for line in call("POST", "/api/pull", {"model": model}):
        if line["status"] != last:
            last = line["status"]
            print(last, file=sys.stderr)


def _run(model, *prompt):
    if not {model, model + ":latest"} & set(_names()):
        _pull(model)
    for line in call("POST", "/api/generate", {"model": model, "prompt": " ".join(prompt)}):
        print(line.get("response", ""), end="", flush=True)
    print()


def _names():
    return [one["name"] for one in next(call("GET", "/api/tags"))["models"]]


def _stop(model):
    list(call("POST", "/api/generate", {"model": model, "keep_alive": 0}))


def _rm(*models):
    for model in models:
        list(call("DELETE", "/api/delete", {"model": model}))
        print("deleted '%s'" % model)


def _cp(source, target):
    list(call("POST", "/api/copy", {"source": source, "destination": target}))
    print("copied '%s' to '%s'" % (source, target))


def _version():
    try:
        print("ollama version is %s (stand-in)" % next(call("GET", "/api/version"))["version"])
    except Failed:
        print("Warning: could not connect to a running Ollama instance")
        print("Warning: client version is %s (stand-in)" % VERSION)


COMMANDS = {"list": (_list, 0, 0), "ls": (_list, 0, 0), "ps": (_ps, 0, 0), "pull": (_pull, 1, 1), "run": (_run, 1, 1000), "stop": (_stop, 1, 1),
            "rm": (_rm, 1, 1000), "cp": (_cp, 2, 2), "--version": (_version, 0, 0), "-v": (_version, 0, 0)}


def main(arguments):
    if arguments[:1] in (["serve"], ["start"]) and len(arguments) == 1:
        from .server import serve
        return serve(os.environ)
    command, least, most = COMMANDS.get(arguments[0] if arguments else "", (None, 0, 0))
    if command is None or not least <= len(arguments) - 1 <= most:
        print(USAGE)
        return 0 if not arguments or arguments[0] in ("help", "--help", "-h") else 1
    try:
        command(*arguments[1:])
    except Failed as error:
        print("Error: %s" % error, file=sys.stderr)
        return 1
    return 0
