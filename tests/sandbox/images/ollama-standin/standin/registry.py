# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pulling models: a small built-in catalogue instead of Ollama's own registry; any other registry is really asked.

Nothing here contacts a host that a request did not name.
"""
from __future__ import annotations

import errno
import hashlib
import http.client
import json
import os
import socket
import ssl
import threading
import time

from . import VERSION, gguf, gojson, names, store

PROGRESS_S = 0.06       # Ollama reports a download this often
CONNECT_S = 30
CHUNK = 1 << 16


class PullError(Exception):
    pass


def _progress(digest, total, completed):
    line = {"status": "pulling %s" % digest[7:19], "digest": digest}
    # Zeros are left out, as Go's omitempty does.
    line.update({key: value for key, value in (("total", total), ("completed", completed)) if value})
    return line


# ---------------------------------------------------------------- the built-in catalogue

class Catalogue:
    """Models by name, each with the shape and size of the published one, and none of its weights.

    The stand-in stores the header of the weights file only, so the digest of that layer is the digest of its header; the sizes it
    reports are those of the published files.
    """

    def __init__(self, path, settings):
        with open(path, "rb") as stream:
            self.entries = json.load(stream)["models"]
        self.settings = settings
        self._begun = {}
        self._lock = threading.Lock()

    def find(self, name):
        wanted = "%s:%s" % (name.model.lower(), name.tag.lower())
        for entry in self.entries:
            if name.namespace.lower() == names.DEFAULT_NAMESPACE and wanted in entry["names"]:
                return entry
        return None

    def layers(self, entry):
        """The layers of the model, [(media type, bytes, size as published)], the config last."""
        header = gguf.llama(entry["shape"], chat_template="".join(store.CHATML_STOP))
        found = [("model", gguf.dump(header), entry["size"])]
        if not entry["shape"].get("embedding"):
            found.append(("template", store.CHATML.encode("utf-8"), None))
            found.append(("params", (gojson.dumps({"stop": store.CHATML_STOP}) + "\n").encode("utf-8"), None))
        found.append(("license", ("Stand-in data of %s: no weights of that model are here.\n" % entry["names"][0]).encode("utf-8"), None))
        config = {"model_format": "gguf", "model_family": header.architecture, "model_families": [header.architecture],
                  "model_type": entry["parameter_size"], "file_type": entry["quantization_level"], "architecture": "amd64", "os": "linux"}
        found.append((store.CONFIG, (gojson.dumps(config) + "\n").encode("utf-8"), None))
        return found

    def transfer(self, digest, total):
        """Pretends to download: yields progress at the set speed, and goes on where an earlier pull was interrupted."""
        last = time.monotonic()
        while True:
            speed = self.settings()["pull_mib_per_second"] * (1 << 20)
            with self._lock:
                done = self._begun.get(digest, 0)
                now = time.monotonic()
                done = total if not speed else min(total, done + int(speed * (now - last)))
                self._begun[digest] = done
            last = now
            if done >= total:
                with self._lock:
                    self._begun.pop(digest, None)
                return
            yield _progress(digest, total, done)
            time.sleep(PROGRESS_S)


def _pull_catalogue(models, catalogue, name):
    entry = catalogue.find(name)
    if entry is None:
        raise PullError("pull model manifest: file does not exist")
    layers = []
    for kind, data, size in catalogue.layers(entry):
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        total = size or len(data)
        if os.path.exists(models.blob_path(digest)):
            yield _progress(digest, total, total)
        else:
            yield from catalogue.transfer(digest, total)
            models.add_blob([data])
        layers.append({"mediaType": kind if "/" in kind else store.MEDIA + kind, "digest": digest, "size": total})
    yield {"status": "verifying sha256 digest"}
    manifest = {"schemaVersion": 2, "mediaType": store.MANIFEST, "config": layers[-1], "layers": layers[:-1]}
    yield from _finish(models, name, gojson.dumps(manifest).encode("utf-8"))


# ---------------------------------------------------------------- other registries

def _resolver():
    try:
        with open("/etc/resolv.conf", encoding="utf-8", errors="replace") as stream:
            for line in stream:
                fields = line.split()
                if len(fields) > 1 and fields[0] == "nameserver":
                    return "[%s]:53" % fields[1] if ":" in fields[1] else fields[1] + ":53"
    except OSError:
        pass
    return "127.0.0.1:53"


def _dial(host, port):
    """A connection to the registry; errors have the words of Go's dialer."""
    missing = "dial tcp: lookup %s on %s: no such host" % (host, _resolver())
    if host == "invalid" or host.endswith(".invalid"):
        raise PullError(missing)    # RFC 6761: such a name never resolves, and need not be asked for
    try:
        address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise PullError(missing) from None
    shown = "[%s]:%d" % address[4][:2] if address[0] == socket.AF_INET6 else "%s:%d" % address[4][:2]
    connection = socket.socket(address[0], socket.SOCK_STREAM)
    connection.settimeout(CONNECT_S)
    try:
        connection.connect(address[4])
    except socket.timeout:
        connection.close()
        raise PullError("dial tcp %s: i/o timeout" % shown) from None
    except OSError as error:
        connection.close()
        words = {errno.ECONNREFUSED: "connection refused", errno.EHOSTUNREACH: "no route to host", errno.ENETUNREACH: "network is unreachable"}
        raise PullError("dial tcp %s: connect: %s" % (shown, words.get(error.errno, str(error.strerror).lower()))) from None
    return connection


class _Registry:
    """One registry, spoken to over one scheme."""

    def __init__(self, name, insecure):
        self.name = name
        self.scheme = "http" if insecure else "https"
        host, found, port = name.host.rpartition(":")
        self.host, self.port = (host, int(port)) if found and port.isdigit() else (name.host, 80 if insecure else 443)

    def get(self, path, start=0):
        url = "%s://%s%s" % (self.scheme, self.name.host, path)
        try:
            connection = _dial(self.host, self.port)
            http_connection = http.client.HTTPConnection(self.host, self.port)
            if self.scheme == "https":
                connection = ssl.create_default_context().wrap_socket(connection, server_hostname=self.host)
            http_connection.sock = connection
            headers = {"Host": self.name.host, "User-Agent": "ollama-standin/%s" % VERSION, "Accept": store.MANIFEST}
            if start:
                headers["Range"] = "bytes=%d-" % start
            http_connection.request("GET", path, headers=headers)
            response = http_connection.getresponse()
        except PullError as error:
            raise PullError('Get "%s": %s' % (url, error)) from None
        except ssl.SSLCertVerificationError as error:
            raise PullError('Get "%s": tls: failed to verify certificate: %s' % (url, error.verify_message)) from None
        except (ssl.SSLError, http.client.HTTPException, OSError):
            raise PullError('Get "%s": EOF' % url) from None
        if response.status == 404:
            raise PullError("file does not exist")
        if response.status >= 400:
            raise PullError("%d: %s" % (response.status, response.read(4096).decode("utf-8", "replace")))
        return response


def _download(models, registry, digest, total):
    """Fetches one blob beside its place, goes on where an earlier pull stopped, and reports as it goes."""
    partial = models.blob_path(digest) + "-partial"
    start = os.path.getsize(partial) if os.path.exists(partial) else 0
    response = registry.get("/v2/%s/blobs/%s" % (registry.name.repository, digest), start)
    if start and response.status != 206:
        start = 0
    last = time.monotonic()
    try:
        with open(partial, "ab" if start else "wb") as stream:
            for chunk in iter(lambda: response.read(CHUNK), b""):
                stream.write(chunk)
                start += len(chunk)
                if start < total and time.monotonic() - last >= PROGRESS_S:
                    last = time.monotonic()
                    stream.flush()
                    yield _progress(digest, total, start)
    except http.client.HTTPException:
        raise PullError("unexpected EOF") from None
    except OSError as error:
        raise PullError("write %s: %s" % (partial, str(error.strerror).lower())) from None
    if start < total:
        raise PullError("unexpected EOF")
    os.rename(partial, models.blob_path(digest))


def _pull_registry(models, name, insecure):
    registry = _Registry(name, insecure)
    try:
        data = registry.get("/v2/%s/manifests/%s" % (name.repository, name.tag)).read()
        manifest = json.loads(data)
        layers = manifest["layers"] + [manifest["config"]]
        paths = {layer["digest"]: models.blob_path(layer["digest"]) for layer in layers}
    except PullError as error:
        raise PullError("pull model manifest: %s" % error) from None
    except (ValueError, KeyError, TypeError, http.client.HTTPException):
        raise PullError("pull model manifest: invalid character in the manifest") from None
    except store.BadDigest as error:
        raise PullError(str(error)) from None
    fresh = set()
    for layer in layers:
        path = paths[layer["digest"]]
        if os.path.exists(path):
            size = os.path.getsize(path)
            yield _progress(layer["digest"], size, size)
        else:
            yield from _download(models, registry, layer["digest"], layer["size"])
            fresh.add(layer["digest"])
    yield {"status": "verifying sha256 digest"}
    for digest in fresh:
        sha = hashlib.sha256()
        with open(paths[digest], "rb") as stream:
            for chunk in iter(lambda: stream.read(1 << 20), b""):
                sha.update(chunk)
        if "sha256:" + sha.hexdigest() != digest:
            os.unlink(paths[digest])
            raise PullError("digest mismatch, file must be downloaded again")
    yield from _finish(models, name, data)


def _finish(models, name, data):
    yield {"status": "writing manifest"}
    with models.lock:
        old = models.manifest(name)[0] if os.path.exists(models.manifest_path(name)) else None
        models.write_manifest(name, data)
        if old:
            models.prune([layer["digest"] for layer in old["layers"] + [old["config"]]])
    yield {"status": "success"}


def pull(models, catalogue, name, insecure=False):
    """Yields the progress of a pull; PullError carries Ollama's own words."""
    yield {"status": "pulling manifest"}
    if name.host.lower() == names.DEFAULT_HOST:
        yield from _pull_catalogue(models, catalogue, name)
    else:
        yield from _pull_registry(models, name, insecure)
