# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP as Ollama's server speaks it: routing, refused hosts and origins, bodies, and how answers are framed."""
from __future__ import annotations

import email.utils
import http.server
import ipaddress
import os
import select
import socket
import socketserver
import sys
import time
import urllib.parse

from . import SERVER_HEADER, gojson

JSON = "application/json; charset=utf-8"
PLAIN_JSON = "application/json"
NDJSON = "application/x-ndjson"
SSE = "text/event-stream"
# Go sends a body up to this size in one piece, with its length.
BUFFERED = 2048
# Go reads so much of a body that nobody asked for before it closes the connection.
UNREAD = 256 << 10
POLL_S = 0.05
LINGER_S = 0.5


# Go's idea of a private address.
_PRIVATE = [ipaddress.ip_network(network) for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")]


class Answer(Exception):
    """What ends a request."""

    def __init__(self, status, body=b"", content_type=None, headers=()):
        super().__init__(status)
        self.status, self.body, self.content_type, self.headers = status, body, content_type, headers


class Gone(Exception):
    """The client hung up."""


def json_answer(value, status=200, content_type=JSON, end=""):
    return Answer(status, (gojson.dumps(value) + end).encode("utf-8"), content_type)


def error_answer(message, status, content_type=JSON):
    return json_answer({"error": message}, status, content_type)


def allowed_host(host, listening):
    """Which Host headers a server accepts: any, unless it listens on loopback only."""
    if not ipaddress.ip_address(listening).is_loopback:
        return True
    name = urllib.parse.urlsplit("//" + host).hostname or ""
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name in ("", "localhost", socket.gethostname().lower()) or name.endswith((".localhost", ".local", ".internal"))
    return address.is_loopback or address.is_unspecified or any(address in network for network in _PRIVATE)


def allowed_origin(origin, host, more):
    if not origin or origin in ("http://" + host, "https://" + host):
        return True
    for pattern in [one.strip() for one in more.split(",") if one.strip()]:
        start, star, end = pattern.partition("*")
        if origin == pattern or star and origin.startswith(start) and origin.endswith(end):
            return True
    scheme, _found, rest = origin.partition("://")
    if scheme in ("app", "file", "tauri", "vscode-webview", "vscode-file"):
        return True
    return scheme in ("http", "https") and rest.partition(":")[0] in ("localhost", "127.0.0.1", "0.0.0.0")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 300
    wbufsize = 1 << 16      # headers and a short body leave in one packet

    # ------------------------------------------------------------ one request

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except (Gone, ConnectionError):
            self.close_connection = True
        except socket.timeout:
            self.close_connection = True

    def parse_request(self):
        ok = super().parse_request()
        self.begun = time.monotonic()
        self.status, self.streaming, self.left = 0, False, 0
        if ok:
            length = self.headers.get("Content-Length", "0")
            self.left = -1 if "chunked" in self.headers.get("Transfer-Encoding", "").lower() else int(length) if length.isdigit() else 0
        return ok

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)

    def _serve(self):
        path = urllib.parse.unquote(self.path.partition("?")[0])
        name = self.headers.get("X-Request-Id")
        if name:
            # Before anything is done with it: a server that is killed later has still said that it got the request.
            print("[STANDIN] begin %s %s" % (name, path), file=sys.stderr, flush=True)
        try:
            self._guard()
            self.server.api.dispatch(self, self.command, path)
        except Answer as answer:
            self._send(answer)
        except (Gone, ConnectionError):
            self.close_connection = True
            self.status = 499
        except Exception as error:      # pylint: disable=broad-except
            if self.streaming:
                raise
            self._send(error_answer("the stand-in failed: %s: %s" % (type(error).__name__, error), 500))
            raise
        finally:
            print("[STANDIN] %s | %3d | %9.3fms | %15s | %-7s %s" % (
                time.strftime("%Y/%m/%d - %H:%M:%S"), self.status, 1000 * (time.monotonic() - self.begun), self.client_address[0], self.command, path),
                file=sys.stderr, flush=True)

    def _guard(self):
        origin, host = self.headers.get("Origin", ""), self.headers.get("Host", "")
        if not allowed_origin(origin, host, os.environ.get("OLLAMA_ORIGINS", "")):
            raise Answer(403)
        if not allowed_host(host, self.server.server_address[0]):
            raise Answer(403)
        if self.command == "OPTIONS":
            raise Answer(204)

    # ------------------------------------------------------------ the request's body

    def chunks(self):
        """The body in pieces."""
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.wfile.flush()
        if self.left == -1:
            while True:
                size = int(self.rfile.readline(64).partition(b";")[0] or b"0", 16)
                data = self.rfile.read(size)
                self.rfile.readline(64)
                if not size:
                    self.left = 0
                    return
                yield data
        while self.left > 0:
            data = self.rfile.read(min(self.left, 1 << 20))
            if not data:
                raise Gone()
            self.left -= len(data)
            yield data

    def body(self):
        return b"".join(self.chunks())

    # ------------------------------------------------------------ the answer

    def _head(self, status, content_type, headers=()):
        self.status = status
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if content_type:
            self.send_header("Content-Type", content_type)
        self.send_header("Date", email.utils.formatdate(usegmt=True))
        self.send_header("Server", SERVER_HEADER)

    def send_response(self, code, message=None):
        """For what the base class answers by itself."""
        self.send_response_only(code, message)
        self.send_header("Server", SERVER_HEADER)

    def _send(self, answer):
        unread = self.left == -1 or self.left > UNREAD
        if self.left > 0 and not unread:
            self.body()
        self._head(answer.status, answer.content_type, answer.headers)
        head = self.command == "HEAD"
        chunked = len(answer.body) > BUFFERED and not head and self.request_version != "HTTP/1.0"
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif answer.status != 204 and not (head and not answer.body):
            self.send_header("Content-Length", str(len(answer.body)))
        if unread:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if chunked:
            self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(answer.body), answer.body))
        elif not head:
            self.wfile.write(answer.body)
        self.wfile.flush()
        if unread:
            self._linger()

    def _linger(self):
        """Closes so that the client can still read the answer to a body it has not sent in full."""
        self.connection.shutdown(socket.SHUT_WR)
        end = time.monotonic() + LINGER_S
        while time.monotonic() < end and select.select([self.connection], [], [], POLL_S)[0]:
            if not self.connection.recv(1 << 16):
                break

    def begin(self, content_type, status=200):
        """Starts an answer whose length is not known."""
        self.streaming = True
        self._head(status, content_type)
        if self.request_version == "HTTP/1.0":
            self.close_connection = True
        else:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def piece(self, text):
        data = text.encode("utf-8")
        if self.request_version != "HTTP/1.0":
            data = b"%x\r\n%s\r\n" % (len(data), data)
        self.wfile.write(data)
        self.wfile.flush()

    def finish_stream(self):
        if self.request_version != "HTTP/1.0":
            self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    # ------------------------------------------------------------ waiting

    def check_client(self):
        """Raises Gone when the client has hung up."""
        if select.select([self.connection], [], [], 0)[0] and not self.connection.recv(1, socket.MSG_PEEK):
            raise Gone()

    def wait_while(self, condition):
        while condition():
            self.check_client()
            time.sleep(POLL_S)

    def log_message(self, format, *args):       # pylint: disable=redefined-builtin
        pass


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    allow_reuse_address = True

    def __init__(self, host, port, api):
        self.api = api
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), Handler)

    def server_bind(self):
        # Without the base class's reverse look-up of the name: nothing here asks the network.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", self.server_address[1]

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], (ConnectionError, socket.timeout)):
            super().handle_error(request, client_address)
