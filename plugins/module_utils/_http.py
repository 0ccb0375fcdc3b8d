# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP to a service of this host, with one deadline for the whole exchange.

The timeout of urllib and http.client counts anew with every byte that arrives, so that a server which drips bytes
holds its client for ever. Here every single wait gets what is left until the deadline. No proxy is ever asked: the
services listen on this host.
"""
from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
import time
import urllib.parse

# Answers to these questions are small; a server that never stops must not fill the memory.
MAX_BODY = 4 * 1024 * 1024
MAX_LINE = 1024 * 1024


class HttpError(Exception):
    """There was no full answer; the text says why. C(timed_out) tells whether it was the time."""

    def __init__(self, message, timed_out=False):
        super().__init__(message)
        self.timed_out = timed_out


class Answer:
    """What a server said."""

    def __init__(self, status, reason, headers, body):
        self.status = status
        self.reason = reason
        self.headers = headers
        self.body = body

    def text(self):
        return self.body.decode("utf-8", "replace")

    def json(self):
        """Return the JSON value of the body, or raise HttpError that shows what came instead."""
        try:
            return json.loads(self.text())
        except ValueError as error:
            raise HttpError(f"HTTP {self.status}, but the answer is not JSON: {excerpt(self.text())}") from error


def excerpt(text, length=200):
    """Return the text on one line, cut."""
    text = " ".join(str(text).split())
    return (text[:length] + "…" if len(text) > length else text) or "(empty)"


def _left(deadline):
    left = deadline - time.monotonic()
    if left <= 0:
        raise socket.timeout("timed out")
    return left


class _Socket(socket.socket):
    """A socket whose waits end at a common deadline."""

    deadline = None

    # http.client reads through a file object of the socket, which calls this one for every piece.
    def recv_into(self, *args, **kwargs):
        self.settimeout(_left(self.deadline))
        return super().recv_into(*args, **kwargs)

    # sendall bounds the whole of it by the timeout.
    def sendall(self, *args, **kwargs):
        self.settimeout(_left(self.deadline))
        return super().sendall(*args, **kwargs)


class _TlsSocket(ssl.SSLSocket):
    """The same inside of TLS."""

    deadline = None

    def recv_into(self, *args, **kwargs):
        self.settimeout(_left(self.deadline))
        return super().recv_into(*args, **kwargs)


def unverified_tls():
    """Return how a service of this host is asked over TLS: who signed its certificate is not the question here."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.sslsocket_class = _TlsSocket
    return context


def _resolve(host, port, deadline):
    """Return the addresses of a host; the system's resolver has no timeout of its own, so a thread asks it."""
    box = []

    def ask():
        try:
            box.append((socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), None))
        except (OSError, UnicodeError) as error:
            box.append((None, error))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_left(deadline))
    if not box:
        raise socket.timeout("timed out")
    addresses, error = box[0]
    if error:
        raise OSError(f"the name {host} cannot be resolved: {getattr(error, 'strerror', None) or error}")
    return addresses


class Connection(http.client.HTTPConnection):
    """A connection that ends at its deadline, however slowly the answer drips."""

    def __init__(self, host, port, deadline, tls=None):
        super().__init__(host, port)
        self.deadline = deadline
        self.tls = tls

    def connect(self):
        last = None
        for family, kind, protocol, _name, address in _resolve(self.host, self.port, self.deadline):
            connection = _Socket(family, kind, protocol)
            connection.deadline = self.deadline
            try:
                connection.settimeout(_left(self.deadline))
                connection.connect(address)
                self.sock = self._secured(connection)
            except OSError as error:
                connection.close()
                last = error
            else:
                return
        raise last or OSError("the name has no address")

    def _secured(self, connection):
        if self.tls is None:
            return connection
        connection.settimeout(_left(self.deadline))
        secured = self.tls.wrap_socket(connection)
        secured.deadline = self.deadline
        return secured


def split_url(url, tls=False):
    """Return (host, port, path) of a base URL, of one with TLS where that is wanted; or raise HttpError in words a person can use."""
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise HttpError(f"'{url}' is not a URL: {error}") from error
    if parts.scheme != ("https" if tls else "http") or not host:
        raise HttpError(f"'{url}' is not a URL such as " + (
            "https://127.0.0.1:8443" if tls else "http://127.0.0.1:8000 (only plain http is spoken here)"))
    return host, port or (443 if tls else 80), parts.path.rstrip("/")


@contextlib.contextmanager
def _in_words(host, port, path, timeout, got):
    """Turn whatever ends an exchange before its time into HttpError; C(got) returns how many bytes of the answer came."""
    try:
        yield
    except socket.timeout as error:
        raise HttpError(f"no full answer to {path} within {timeout:g} s ({got()} bytes of it came)", timed_out=True) from error
    except http.client.IncompleteRead as error:
        raise HttpError(f"the answer to {path} broke off after {got() + len(error.partial)} bytes") from error
    except ConnectionRefusedError as error:
        raise HttpError(f"nothing listens on {host} port {port} (connection refused)") from error
    except OSError as error:
        raise HttpError(f"{host} port {port}: {error.strerror or error}") from error
    except (http.client.HTTPException, ValueError) as error:
        raise HttpError(f"{host} port {port} does not answer in HTTP: {excerpt(error)}") from error


def certificate(base, timeout=30.0):
    """Return the certificate that the server of a base URL shows, as DER."""
    host, port, _prefix = split_url(base, tls=True)
    connection = Connection(host, port, time.monotonic() + timeout, unverified_tls())
    try:
        with _in_words(host, port, "a TLS handshake", timeout, lambda: 0):
            connection.connect()
            return connection.sock.getpeercert(binary_form=True)
    finally:
        connection.close()


def exchange(base, path, body=None, headers=None, timeout=30.0, max_body=MAX_BODY, method=None, tls=None):
    """GET, POST the body as JSON, or what C(method) says, and return the Answer; HttpError when there is none by the deadline.

    With C(tls), such as unverified_tls(), the base URL is one of https.
    """
    host, port, prefix = split_url(base, tls=tls is not None)
    connection = Connection(host, port, time.monotonic() + timeout, tls)
    got = 0
    try:
        with _in_words(host, port, path, timeout, lambda: got):
            response = _request(connection, prefix + path, body, headers, method)
            pieces = []
            while True:
                piece = response.read(65536)
                if not piece:
                    break
                pieces.append(piece)
                got += len(piece)
                if got > max_body:
                    raise HttpError(f"{path}: the answer is larger than {max_body // 1024} KiB")
            if response.length:
                # Read piece by piece, http.client lets the end of a connection pass for the end of the body.
                raise HttpError(f"the answer to {path} broke off after {got} of {got + response.length} bytes")
            return Answer(response.status, response.reason, _headers(response), b"".join(pieces))
    finally:
        connection.close()


def _request(connection, path, body, headers, method=None):
    """Send a request and return the response that begins."""
    data = None if body is None else json.dumps(body).encode("utf-8")
    sent = {"Accept": "application/json", "Connection": "close"}
    if data is not None:
        sent["Content-Type"] = "application/json"
    sent.update(headers or {})
    connection.request(method or ("GET" if data is None else "POST"), path, body=data, headers=sent)
    return connection.getresponse()


def _headers(response):
    return {name.lower(): value for name, value in response.getheaders()}


class Stream:
    """The answer to a POST, line by line as it comes. Another thread may end it with C(abort)."""

    def __init__(self, base, path, body, headers=None, timeout=30.0):
        self._base, self._path, self._body, self._sent, self._timeout = base, path, body, headers, timeout
        self._lock = threading.Lock()
        self._socket = None
        self.aborted = False

    def abort(self):
        """End it now: whoever reads it gets no further line."""
        with self._lock:
            self.aborted = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    def answer(self):
        """Give (Answer, None) for what is no success, else (None, line) for each line; nothing more once it is aborted. HttpError otherwise."""
        host, port, prefix = split_url(self._base)
        connection = Connection(host, port, time.monotonic() + self._timeout)
        got = 0
        try:
            with _in_words(host, port, self._path, self._timeout, lambda: got):
                connection.connect()
                with self._lock:
                    if self.aborted:
                        return
                    self._socket = connection.sock
                response = _request(connection, prefix + self._path, self._body, self._sent)
                if response.status != 200:
                    yield Answer(response.status, response.reason, _headers(response), response.read(MAX_BODY)), None
                    return
                while True:
                    line = response.readline(MAX_LINE)
                    if not line or self.aborted:
                        return
                    got += len(line)
                    yield None, line
        except HttpError:
            if not self.aborted:
                raise
        finally:
            with self._lock:
                self._socket = None
            connection.close()
