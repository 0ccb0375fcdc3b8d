# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP against real servers of loopback, most of them bad ones."""
from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils import _http
from ansible_collections.erni_ki.inference.tests.unit.plugins.beside_host import certificate

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@contextlib.contextmanager
def server(talk):
    """Serve one connection after the other with C(talk(connection, request)); yield the base URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve():
        while not over.is_set():
            try:
                connection, _peer = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                request = b""
                while b"\r\n\r\n" not in request:
                    piece = connection.recv(65536)
                    if not piece:
                        raise OSError("hung up")
                    request += piece
                talk(connection, request)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", over
    finally:
        over.set()
        # A blocked accept does not notice that its socket is closed.
        with contextlib.suppress(OSError):
            socket.create_connection(listener.getsockname(), timeout=1).close()
        listener.close()
        thread.join(10)


def test_get():
    seen = []

    def talk(connection, request):
        seen.append(request)
        connection.sendall(OK + b"X-Yes: 1\r\nContent-Length: 9\r\n\r\n" + b'{"a":"\xc3\xbc"')

    def whole(connection, request):
        seen.append(request)
        connection.sendall(OK + b"X-Yes: 1\r\nContent-Length: 10\r\n\r\n" + b'{"a":"\xc3\xbc"}')

    with server(whole) as (url, _over):
        answer = _http.exchange(url + "/base/", "/x", headers={"Authorization": "Bearer k"}, timeout=10)
    assert (answer.status, answer.reason, answer.headers["x-yes"], answer.json()) == (200, "OK", "1", {"a": "ü"})
    assert seen[0].startswith(b"GET /base/x HTTP/1.1\r\n")
    assert b"Authorization: Bearer k\r\n" in seen[0]
    with server(talk) as (url, _over):
        with pytest.raises(_http.HttpError, match="the answer is not JSON"):
            _http.exchange(url, "/x", timeout=10).json()


def test_post():
    seen = []

    def talk(connection, request):
        while not request.endswith(b"}"):
            request += connection.recv(65536)
        seen.append(request)
        connection.sendall(b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nnext\r\n5\r\n time\r\n0\r\n\r\n")

    with server(talk) as (url, _over):
        answer = _http.exchange(url, "/x", body={"model": "m"}, timeout=10)
    assert (answer.status, answer.text()) == (503, "next time")
    head, body = seen[0].split(b"\r\n\r\n")
    assert head.startswith(b"POST /x HTTP/1.1") and b"Content-Type: application/json" in head
    assert json.loads(body) == {"model": "m"}


def test_proxies_of_the_environment_are_not_asked(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with server(lambda connection, request: connection.sendall(OK + b"Content-Length: 0\r\n\r\n")) as (url, _over):
        assert _http.exchange(url, "/", timeout=10).status == 200


def hang(connection, over):
    over.wait(60)


def drip_headers(connection, over):
    connection.sendall(OK)
    while not over.wait(0.02):
        connection.sendall(b"X: y\r\n")


def drip_body(connection, over):
    connection.sendall(OK + b"Content-Length: 1000000\r\n\r\n")
    while not over.wait(0.02):
        connection.sendall(b"x")


def drip_for_ever(connection, over):
    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
    while not over.wait(0.02):
        connection.sendall(b"x")


@pytest.mark.parametrize("behaviour", [hang, drip_headers, drip_body, drip_for_ever])
def test_the_deadline_holds(behaviour):
    box = []
    with server(lambda connection, request: behaviour(connection, box[0])) as (url, over):
        box.append(over)
        start = time.monotonic()
        with pytest.raises(_http.HttpError) as error:
            _http.exchange(url, "/slow", timeout=0.3)
        took = time.monotonic() - start
    assert error.value.timed_out
    assert str(error.value).startswith("no full answer to /slow within 0.3 s")
    # Far below what any of them would take; far above the jitter of a busy machine.
    assert took < 10


def test_a_server_that_does_not_accept():
    """A full queue of connections: the connection itself must end by the deadline."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        with contextlib.ExitStack() as crowd:
            for _number in range(4):
                waiting = crowd.enter_context(socket.socket())
                waiting.setblocking(False)
                with contextlib.suppress(OSError):
                    waiting.connect(listener.getsockname())
            with pytest.raises(_http.HttpError) as error:
                _http.exchange(f"http://127.0.0.1:{listener.getsockname()[1]}", "/", timeout=0.3)
    assert error.value.timed_out


def test_a_server_that_does_not_read():
    box = []
    with server(lambda connection, request: box[0].wait(60)) as (url, over):
        box.append(over)
        with pytest.raises(_http.HttpError) as error:
            _http.exchange(url, "/", body="x" * (1 << 26), timeout=0.3)
    assert error.value.timed_out


@pytest.mark.parametrize("talk, message", [
    (lambda connection, request: connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n"), "does not answer in HTTP"),
    (lambda connection, request: None, "does not answer in HTTP|closed connection|reset"),
    (lambda connection, request: connection.sendall(OK + b"Content-Length: 10\r\n\r\nabc"), "the answer to / broke off after 3 of 10 bytes"),
    (lambda connection, request: connection.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab"), "the answer to / broke off after"),
    (lambda connection, request: connection.sendall(OK + b"Content-Length: 5000\r\n\r\n" + b"x" * 5000), "the answer is larger than 2 KiB"),
])
def test_bad_servers(talk, message):
    with server(talk) as (url, _over):
        with pytest.raises(_http.HttpError, match=message) as error:
            _http.exchange(url, "/", timeout=10, max_body=2048)
    assert not error.value.timed_out


def test_nobody_listens():
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        port = placeholder.getsockname()[1]
        with pytest.raises(_http.HttpError, match=rf"nothing listens on 127.0.0.1 port {port} \(connection refused\)"):
            _http.exchange(f"http://127.0.0.1:{port}", "/", timeout=10)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "https://127.0.0.1", "unix:///x", "http://", "http://[::1", "http://a:b", "http://a:99999"])
def test_bad_urls(url):
    with pytest.raises(_http.HttpError, match="is not a URL"):
        _http.exchange(url, "/", timeout=1)


@pytest.mark.parametrize("url, parts", [
    ("http://127.0.0.1:8000", ("127.0.0.1", 8000, "")), ("http://localhost/api/", ("localhost", 80, "/api")), ("http://[::1]:80", ("::1", 80, "")),
])
def test_split_url(url, parts):
    assert _http.split_url(url) == parts


def test_tls(tmp_path):
    """A certificate that nobody signed will do; the deadline holds inside of TLS too."""
    pytest.importorskip("cryptography")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(tmp_path, -1, 1))
    slow = threading.Event()

    def serve(listener):
        for _time in range(3):
            connection, _peer = listener.accept()
            with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as secured:
                if secured.recv(65536):
                    secured.sendall(OK + b"Content-Length: 50\r\n\r\n" + (b"" if slow.is_set() else b"x" * 50))
                    for _drip in range(40 if slow.is_set() else 0):
                        secured.sendall(b"x")
                        time.sleep(0.1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        assert _http.exchange(url, "/", timeout=10, tls=_http.unverified_tls()).text() == "x" * 50
        assert _http.certificate(url, timeout=10)[:1] == b"\x30"
        slow.set()
        with pytest.raises(_http.HttpError, match="no full answer to / within 0.5 s") as error:
            _http.exchange(url, "/", timeout=0.5, tls=_http.unverified_tls())
        assert error.value.timed_out
        thread.join(10)


def test_names(monkeypatch):
    with server(lambda connection, request: connection.sendall(OK + b"Content-Length: 0\r\n\r\n")) as (url, _over):
        port = url.rpartition(":")[2]
        # The first address refuses; the second answers.
        addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port))) for address in ("127.0.0.2", "127.0.0.1")]
        with monkeypatch.context() as patched:
            patched.setattr(_http.socket, "getaddrinfo", lambda *args, **kwargs: addresses)
            assert _http.exchange(f"http://some.host:{port}", "/", timeout=10).status == 200
            addresses.clear()
            with pytest.raises(_http.HttpError, match="the name has no address"):
                _http.exchange(f"http://some.host:{port}", "/", timeout=10)


def test_a_name_that_is_none(monkeypatch):
    def refuse(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")
    monkeypatch.setattr(_http.socket, "getaddrinfo", refuse)
    with pytest.raises(_http.HttpError, match="the name some.host cannot be resolved: Name or service not known"):
        _http.exchange("http://some.host", "/", timeout=10)


def test_a_resolver_that_hangs(monkeypatch):
    over = threading.Event()
    monkeypatch.setattr(_http.socket, "getaddrinfo", lambda *args, **kwargs: over.wait(60) and [])
    try:
        with pytest.raises(_http.HttpError) as error:
            _http.exchange("http://some.host", "/", timeout=0.1)
    finally:
        over.set()
    assert error.value.timed_out


@pytest.mark.parametrize("text, short", [("a\n b", "a b"), ("", "(empty)"), ("x" * 300, "x" * 200 + "…"), ({"a": 1}, "{'a': 1}")])
def test_excerpt(text, short):
    assert _http.excerpt(text) == short
