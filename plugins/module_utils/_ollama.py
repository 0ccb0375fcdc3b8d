# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Models of an Ollama server: what is there, what is wanted, and the steps between.

The server hides errors: a streamed pull ends with one under HTTP 200, a pull that is not streamed does not say whether it
fetched anything, a request for a foreign host gets an empty 403. All of that ends here as OllamaError, in words for people.
"""
from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import time
from typing import NamedTuple

from ansible_collections.erni_ki.inference.plugins.module_utils import _http

DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"
# A question that a server answers from memory; one that takes longer hangs.
QUICK_S = 30
POLL_S = 0.1
PROGRESS_S = 10
MAX_LINE = 1024 * 1024
MIB = CHUNK = 1024 * 1024
# Ollama's "for ever" is 292 years.
FOREVER_YEARS = 100

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_PARTS = (
    ("host", re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*"), 350),
    ("namespace", re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*"), 80),
    ("model", _PART, 80),
    ("tag", _PART, 80),
)
_DIGEST = re.compile(r"[0-9a-f]{12,64}")
_DURATION = re.compile(r"-?((\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h))+")


class OllamaError(Exception):
    """What is wrong, in words for people."""


# ---------------------------------------------------------------- parse

def parse_name(text):
    """Return the name as the server lists it, such as llama3.2:3b for library/llama3.2:3b; ValueError for what is none."""
    name = text.strip()
    last = name.rsplit("/", 1)[-1].lower()
    if last.endswith((":cloud", "-cloud")) and ":" in last:
        raise ValueError(f"'{text}' is a cloud model: it runs on somebody else's machines, and this host would only hold its name")
    scheme = re.match(r"[a-z]+://", name)
    if scheme:
        name = name[scheme.end():]
    path, found, tag = name.rpartition(":")
    if not found or "/" in tag:
        path, tag = name, DEFAULT_TAG
    pieces = path.split("/")
    if len(pieces) > 3:
        raise ValueError(f"'{text}' is not a model name: it has {len(pieces)} parts, and a name has at most [host/][namespace/]model[:tag]")
    host, namespace, model = [DEFAULT_HOST, DEFAULT_NAMESPACE][:3 - len(pieces)] + pieces
    for (kind, pattern, length), part in zip(_PARTS, (host, namespace, model, tag)):
        if not pattern.fullmatch(part) or len(part) > length:
            raise ValueError(f"'{text}' is not a model name: its {kind} '{part}' may hold letters, digits, '_', '-'"
                             f"{'' if kind == 'namespace' else ' and dots'}, and begins with a letter, a digit or '_'. A name looks like llama3.2:3b")
    if host.lower() != DEFAULT_HOST:
        return f"{host}/{namespace}/{model}:{tag}"
    if namespace.lower() != DEFAULT_NAMESPACE:
        return f"{namespace}/{model}:{tag}"
    return f"{model}:{tag}"


def parse_digest(text):
    """Return the digest in lower case and without its sha256: prefix; ValueError for what is none."""
    digest = text.strip().lower()
    if digest.startswith("sha256:"):
        digest = digest[len("sha256:"):]
    if not _DIGEST.fullmatch(digest):
        raise ValueError(f"'{text}' is not a digest: 64 hexadecimal digits, or at least the first 12 of them, as 'ollama ls' shows them under ID")
    return digest


def parse_keep_alive(text):
    """Return what the API takes: seconds as a number, or a duration as text; ValueError for what is neither."""
    value = text.strip()
    if re.fullmatch(r"-?\d{1,18}", value, re.ASCII):
        seconds = int(value)
        if seconds == 0:
            raise ValueError("a keep_alive of 0 unloads the model; that is state=unloaded")
        return seconds
    if not _DURATION.fullmatch(value) or not re.search("[1-9]", value):
        raise ValueError(f"'{text}' is not a time to keep a model loaded: give seconds such as 600, a duration such as 10m or 1h30m, or -1 for ever")
    return value


def _keeps_for_ever(keep_alive):
    return str(keep_alive).startswith("-")


def _entries(payload, path):
    """Return {name in lower case: entry} of an answer that lists models."""
    models = payload.get("models") if isinstance(payload, dict) else None
    if models is None and isinstance(payload, dict) and "models" in payload:
        models = []
    if not isinstance(models, list) or not all(isinstance(entry, dict) and isinstance(entry.get("name"), str) for entry in models):
        raise OllamaError(f"{path} does not list models; what it answers is not what Ollama answers: {_http.excerpt(json.dumps(payload))}")
    return {entry["name"].lower(): entry for entry in models}


def describe(name, tags, ps):
    """Return the state of a model from what /api/tags and /api/ps answer."""
    listed = _entries(tags, "/api/tags").get(name.lower())
    running = _entries(ps, "/api/ps").get(name.lower())
    details = (listed or {}).get("details") or {}
    state = {
        "name": (listed or {}).get("name") or name,
        "present": listed is not None,
        "digest": None,
        "size_bytes": None,
        "family": details.get("family"),
        "parameter_size": details.get("parameter_size"),
        "quantization_level": details.get("quantization_level"),
        "capabilities": list((listed or {}).get("capabilities") or []),
        "loaded": running is not None,
        "device": None,
        "loaded_bytes": None,
        "vram_bytes": None,
        "context_length": None,
        "loaded_until": None,
    }
    if listed:
        state.update(digest=listed.get("digest"), size_bytes=listed.get("size"))
    if running:
        size, vram = running.get("size") or 0, running.get("size_vram") or 0
        state.update(device="cpu" if not vram else "gpu" if vram >= size else "partial", loaded_bytes=size, vram_bytes=vram,
                     context_length=running.get("context_length"), loaded_until=running.get("expires_at"))
    return state


# ---------------------------------------------------------------- desired and compare

def desired(state, digest=None, keep_alive=None, make=None):
    """Return what is wanted of a model; None where nothing is said.

    C(make) are the steps that make the model here, none where it is as it should be; a model that is pulled has None.
    """
    return {
        "present": {"absent": False, "unloaded": None}.get(state, True),
        "loaded": {"present": None}.get(state, state == "loaded"),
        "digest": digest,
        "keep_alive": keep_alive,
        "make": make,
    }


def _kept_as_wanted(current, keep_alive, year):
    """Whether a loaded model stays for ever where that is wanted, and does not where it is not."""
    until = re.match(r"(\d{4,})-", current["loaded_until"] or "")
    return keep_alive is None or until is None or (int(until.group(1)) - year > FOREVER_YEARS) == _keeps_for_ever(keep_alive)


def compare(current, wanted, year=None):
    """Return the steps from here to there, in order: some of pull, upload, create, load, unload, delete."""
    if wanted["present"] is False:
        if not current["present"]:
            return []
        return ["unload", "delete"] if current["loaded"] else ["delete"]
    steps = list(wanted["make"] or [])
    fits = current["present"] and (current["digest"] or "").startswith(wanted["digest"] or "")
    if wanted["present"] and wanted["make"] is None and not fits:
        steps.append("pull")
    if wanted["loaded"]:
        # Once another one is pulled or made, the server no longer finds the loaded one under this name.
        if steps and current["loaded"]:
            steps.insert(0, "unload")
        if steps or not current["loaded"] or not _kept_as_wanted(current, wanted["keep_alive"], year or time.gmtime().tm_year):
            steps.append("load")
    elif wanted["loaded"] is False and current["loaded"]:
        steps.append("unload")
    return steps


_UNKNOWN = ("size_bytes", "family", "parameter_size", "quantization_level")
_RUNNING = ("device", "loaded_bytes", "vram_bytes", "context_length", "loaded_until")


def predict(current, wanted, steps):
    """Return the state after the steps as far as it can be known without taking them; what cannot is null."""
    after = dict(current)
    if "unload" in steps:
        after.update({key: None for key in _RUNNING}, loaded=False)
    if "delete" in steps:
        after.update({key: None for key in _UNKNOWN}, present=False, digest=None, capabilities=[])
    if "pull" in steps or "create" in steps:
        full = wanted["digest"] if wanted["digest"] and len(wanted["digest"]) == 64 else None
        after.update({key: None for key in _UNKNOWN}, present=True, digest=full, capabilities=[])
    if "load" in steps:
        after.update({key: None for key in _RUNNING}, loaded=True)
    return after


def difference(state):
    """Return what a diff shows of a state: nothing that changes by itself."""
    return {key: state[key] for key in ("name", "present", "digest", "loaded")}


# ---------------------------------------------------------------- words

def mib(size):
    return f"{-(-size // MIB)} MiB"


class Limits(NamedTuple):
    """What a model may take: MiB of files (0: any), and the room in the folder of the server's models (None: not looked at)."""

    max_mib: int = 0
    models_path: str | None = None


def free_bytes(path, statvfs=os.statvfs):
    """Return what is free in the file system of a folder."""
    try:
        found = statvfs(path)
    except OSError as error:
        raise OllamaError(f"models_path is {path}, and that cannot be looked at: {error.strerror or error}. It is the folder on this host in which "
                          "the server keeps its models") from error
    return found.f_bavail * found.f_frsize


def too_large(name, size, max_mib):
    """Return why a model of that many bytes is refused, or None."""
    if not max_mib or size <= max_mib * MIB:
        return None
    return (f"'{name}' does not fit: its files have {mib(size)}, and max_mib allows {max_mib} MiB. "
            "Take a smaller model, or the same one with fewer bits for a weight, such as a tag that ends in q4_K_M")


def no_room(name, needed, free, path):
    """Return why what needs that many bytes is refused, or None."""
    if needed <= free:
        return None
    return (f"there is no room for '{name}': {mib(needed)} are still needed, and {free // MIB} MiB are free in the file system of {path}, "
            f"{mib(needed - free)} too few. Remove a model (state=absent) or other files there")


def check_pull(name, layers, limits):
    """Raise OllamaError where what a pull has announced so far, {digest: (bytes here, bytes)}, is more than it may be."""
    problem = too_large(name, sum(total for _done, total in layers.values()), limits.max_mib)
    if not problem and limits.models_path:
        needed = sum(max(0, total - done) for done, total in layers.values())
        problem = no_room(name, needed, free_bytes(limits.models_path), limits.models_path)
    if problem:
        raise OllamaError(f"{problem}. The pull was stopped; of its files the server has {mib(sum(done for done, _total in layers.values()))} so far, "
                          "which a later pull of it would use")


def explain_create(name, said):
    """Return what a failed create means and what to do, from the server's own words."""
    low = said.lower()
    if "no space left" in low:
        return f"the disk that holds the server's models is full while creating '{name}'; there is no new model (the server said: {said})"
    if "no such file or directory" in low:
        return f"the server no longer has a file that '{name}' is made of; has it been restarted meanwhile? Run it again (the server said: {said})"
    return f"the server could not create '{name}': {said}"


def explain_pull(name, said, insecure):
    """Return what a failed pull means and what to do, from the server's own words."""
    low = said.lower()
    if "file does not exist" in low:
        return f"the registry has no model '{name}'; check name and tag (the server said: {said})"
    if "no space left" in low:
        return (f"the disk that holds the server's models is full while pulling '{name}'; what was fetched is kept, and the next pull goes on "
                f"(the server said: {said})")
    if "digest mismatch" in low:
        return f"what was fetched of '{name}' was damaged on the way and is thrown away; run it again (the server said: {said})"
    if "newer version of ollama" in low:
        return f"'{name}' needs a newer Ollama (the server said: {said})"
    if any(words in low for words in ("connection refused", "no such host", "i/o timeout", "unreachable", "no route to host", "tls:", "eof",
                                      "server misbehaving", "http response to https client")):
        plain = ""
        if not insecure and ("eof" in low or "http response to https" in low or "tls:" in low):
            plain = " A registry without TLS needs insecure: true."
        return (f"the server cannot fetch '{name}' from its registry: {said}.{plain} Without a network, bring the model there another way "
                "(the folder of the server's models, from a host that has it)")
    return f"the server could not pull '{name}': {said}"


class Progress:
    """Reads the lines of a streamed answer; reports how far it is every few seconds; knows how it ended."""

    def __init__(self, name, report, clock=time.monotonic, announced=lambda layers: None, verb="pulling"):
        self.name, self.report, self.clock, self.announced, self.verb = name, report, clock, announced, verb
        self.begun = self.last = clock()
        self.layers = {}
        self.status = None

    def line(self, event):
        self.status = event.get("status")
        digest = event.get("digest")
        if digest:
            new = not self.layers.get(digest, (0, 0))[1]
            self.layers[digest] = (_count(event, "completed"), _count(event, "total"))
            # How far a transfer is runs ahead of the disk or behind it: what is missing is certain when a file begins.
            if new:
                self.announced(self.layers)
        now = self.clock()
        if now - self.last >= PROGRESS_S:
            self.last = now
            self.report(self.text(now))

    def text(self, now):
        done, total = (sum(numbers) for numbers in zip(*self.layers.values())) if self.layers else (0, 0)
        share = f", {100 * done // total} % of {total / 2 ** 20:.0f} MiB" if total else ""
        return f"{self.verb} {self.name}: {self.status}{share}, since {now - self.begun:.0f} s"


def _count(event, key):
    value = event.get(key) or 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise OllamaError(f"the server's answer is not what Ollama answers: {_http.excerpt(json.dumps(event))}")
    return value


class Upload:
    """A file as it is sent: reports how far it is every few seconds."""

    def __init__(self, name, stream, size, report, clock=time.monotonic):
        self.name, self.stream, self.size, self.report, self.clock = name, stream, size, report, clock
        self.begun = self.last = clock()
        self.done = 0

    def read(self, size):
        # Never more than was announced, should the file grow meanwhile.
        data = self.stream.read(min(size, self.size - self.done))
        self.done += len(data)
        # The server would wait for the rest for ever.
        if not data and self.done < self.size:
            raise OllamaError(f"the file for '{self.name}' became shorter while it was uploaded; run it again")
        now = self.clock()
        if now - self.last >= PROGRESS_S:
            self.last = now
            self.report(f"uploading {self.name}: {100 * self.done // self.size} % of {mib(self.size)}, since {now - self.begun:.0f} s")
        return data


# ---------------------------------------------------------------- the server

class Client:
    """One Ollama server. Everything it is asked ends by one deadline."""

    def __init__(self, url, timeout, report=lambda text: None):
        self.url = url
        self.timeout = timeout
        self.deadline = time.monotonic() + timeout
        self.report = report
        self.version = None

    def _left(self, quick=False):
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise OllamaError(f"{self.url}: the timeout of {self.timeout:g} s is over")
        return min(left, QUICK_S) if quick else left

    def check_time(self):
        """Raise OllamaError when the time is over."""
        self._left()

    def _failed(self, error):
        if error.timed_out and time.monotonic() >= self.deadline:
            return OllamaError(f"{self.url}: the timeout of {self.timeout:g} s is over: {error}")
        return OllamaError(f"{self.url}: {error}. Is Ollama running there? The option url says where to look")

    def _value(self, status, body, path):
        """Return the JSON value of an answer, or raise what it means."""
        if status == 403 and not body.strip():
            raise OllamaError(f"{self.url} answers HTTP 403 without a word: that is how Ollama refuses a host name that is not its own. "
                              "Address it by IP address or as localhost, or let it listen beyond loopback (OLLAMA_HOST=0.0.0.0)")
        try:
            value = json.loads(body) if body.strip() else {}
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise OllamaError(f"{self.url}{path} answers HTTP {status}, but not in JSON, so this is not Ollama's API: {_http.excerpt(body)}")
        if status >= 400 or "error" in value:
            said = value.get("error")
            if isinstance(said, dict):
                said = said.get("message")
            raise _Refused(status, str(said or f"HTTP {status}"))
        return value

    def ask(self, path, body=None, quick=False):
        try:
            answer = _http.exchange(self.url, path, body=body, timeout=self._left(quick))
        except _http.HttpError as error:
            raise self._failed(error) from error
        return self._value(answer.status, answer.text(), path)

    def check(self):
        """Find out whether Ollama answers here at all."""
        try:
            self.version = self.ask("/api/version", quick=True).get("version")
        except _Refused as error:
            raise OllamaError(f"{self.url}/api/version answers HTTP {error.status}: {error}") from error
        if not isinstance(self.version, str):
            raise OllamaError(f"{self.url}/api/version names no version, so this is not Ollama's API")

    def state(self, name):
        try:
            return describe(name, self.ask("/api/tags", quick=True), self.ask("/api/ps", quick=True))
        except _Refused as error:
            raise OllamaError(f"{self.url} does not list its models: HTTP {error.status}: {error}") from error

    @contextlib.contextmanager
    def _open(self, method, path, body=None, kept="what was fetched is kept, and the next run goes on", headers=None):
        """Send a request, its body JSON or a file, and give the answer to read as it comes. C(kept) is what a timeout leaves."""
        try:
            host, port, prefix = _http.split_url(self.url)
        except _http.HttpError as error:
            raise OllamaError(str(error)) from error
        # One deadline for all that is read from it, however slowly it drips.
        connection = _http.Connection(host, port, time.monotonic() + self._left())
        connection.blocksize = CHUNK
        if isinstance(body, dict):
            body, headers = json.dumps(body).encode("utf-8"), {"Content-Type": "application/json"}
        try:
            # A server that refuses a file answers before it has read all of it, and closes.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, prefix + path, body=body, headers=headers or {})
            yield connection.getresponse()
        except socket.timeout as error:
            raise OllamaError(f"{self.url}: {path} had not ended when the timeout of {self.timeout:g} s was over; {kept}") from error
        except ConnectionRefusedError as error:
            raise self._failed(_http.HttpError(f"nothing listens on {host} port {port} (connection refused)")) from error
        except (http.client.HTTPException, OSError) as error:
            raise OllamaError(f"{self.url}: the connection broke off during {path} ({_http.excerpt(error)}); has the server been stopped?") from error
        finally:
            connection.close()

    def delete(self, name):
        with self._open("DELETE", "/api/delete", {"model": name}) as response:
            body = response.read(_http.MAX_BODY).decode("utf-8", "replace")
        try:
            self._value(response.status, body, "/api/delete")
        except _Refused as error:
            if error.status != 404:
                raise OllamaError(f"the server could not delete '{name}': {error}") from error

    def _stream(self, path, body, progress, **more):
        """Read the lines of an answer until its end; _Refused or _Told for an error of the server's."""
        with self._open("POST", path, body, **more) as response:
            if response.status != 200:
                self._value(response.status, response.read(_http.MAX_BODY).decode("utf-8", "replace"), path)
            while True:
                line = response.readline(MAX_LINE)
                if not line:
                    return
                if line.strip():
                    progress.line(_event(line))

    def pull(self, name, insecure, limits=Limits()):
        progress = Progress(name, self.report, announced=lambda layers: check_pull(name, layers, limits))
        self.report(f"pulling {name}")
        try:
            self._stream("/api/pull", {"model": name, "insecure": insecure, "stream": True}, progress)
        except (_Refused, _Told) as error:
            raise OllamaError(explain_pull(name, str(error), insecure)) from error
        if progress.status != "success":
            raise OllamaError(f"the server ended the pull of '{name}' without saying that it succeeded; its last word was '{progress.status}'")
        self.report(f"pulled {name}")

    def show(self, name):
        """Return what the server says of a model, None where it has none of that name."""
        try:
            return self.ask("/api/show", {"model": name}, quick=True)
        except _Refused as error:
            if error.status == 404:
                return None
            raise OllamaError(f"the server does not show '{name}': {error}") from error

    def has_blob(self, digest):
        try:
            answer = _http.exchange(self.url, f"/api/blobs/sha256:{digest}", timeout=self._left(quick=True), method="HEAD")
        except _http.HttpError as error:
            raise self._failed(error) from error
        if answer.status not in (200, 404):
            raise OllamaError(f"{self.url} answers HTTP {answer.status} to the question whether it has the file sha256:{digest}; Ollama answers 200 or 404")
        return answer.status == 200

    def upload(self, name, path, size, digest):
        """Bring a file of this host to the server. Only for one that it has not: it would answer without reading it."""
        self.report(f"uploading {path} for {name}")
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        try:
            with open(path, "rb") as stream, self._open(
                    "POST", f"/api/blobs/sha256:{digest}", Upload(name, stream, size, self.report), "an upload begins anew", headers) as response:
                said = response.read(_http.MAX_BODY).decode("utf-8", "replace")
            if response.status not in (200, 201):
                self._value(response.status, said, "/api/blobs")
                raise OllamaError(f"{self.url} answers HTTP {response.status} to the upload of {path}, and Ollama answers 201")
        except _Refused as error:
            if "digest mismatch" in str(error):
                raise OllamaError(f"{path} changed while it was uploaded, or was damaged on the way; run it again (the server said: {error})") from error
            raise OllamaError(explain_create(name, str(error))) from error
        self.report(f"uploaded {path}")

    def create(self, name, body):
        progress = Progress(name, self.report, verb="creating")
        self.report(f"creating {name}")
        try:
            self._stream("/api/create", {"model": name, "stream": True, **body}, progress, kept="the model is as it was")
        except (_Refused, _Told) as error:
            raise OllamaError(explain_create(name, str(error))) from error
        if progress.status != "success":
            raise OllamaError(f"the server ended the creation of '{name}' without saying that it succeeded; its last word was '{progress.status}'")
        self.report(f"created {name}")

    def load(self, name, keep_alive, embeds):
        # A model that only embeds refuses to generate; an empty input loads it as well.
        path, body = ("/api/embed", {"model": name, "input": []}) if embeds else ("/api/generate", {"model": name, "stream": False})
        if keep_alive is not None:
            body["keep_alive"] = keep_alive
        self.report(f"loading {name}")
        try:
            self.ask(path, body)
        except _Refused as error:
            raise OllamaError(f"the server could not load '{name}': {error}") from error

    def unload(self, name):
        try:
            self.ask("/api/generate", {"model": name, "keep_alive": 0, "stream": False})
        except _Refused as error:
            if error.status == 404:
                raise OllamaError(f"'{name}' was deleted while it was loaded; the server unloads it when its time is over, or when it is restarted") from error
            raise OllamaError(f"the server could not unload '{name}': {error}") from error
        # It answers before the model is gone, and keeps it while it still answers somebody.
        while self.state(name)["loaded"]:
            try:
                time.sleep(min(POLL_S, self._left()))
            except OllamaError as error:
                raise OllamaError(f"'{name}' is still loaded after {self.timeout:g} s: it is answering somebody") from error


class _Refused(Exception):
    """The server answered with an error."""

    def __init__(self, status, said):
        super().__init__(said)
        self.status = status


class _Told(OllamaError):
    """An error among the lines of a stream."""


def _event(line):
    """Return one line of a stream as a value."""
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        raise OllamaError(f"the server's answer is not what Ollama answers: {_http.excerpt(line.decode('utf-8', 'replace'))}")
    if "error" in event:
        raise _Told(str(event["error"]))
    return event


def apply(client, name, wanted, steps, current, insecure, limits=Limits(), maker=None):
    """Take the steps and return the state that the server then reports. C(maker) takes those that make a model here."""
    state = current
    for step in steps:
        if maker and step in maker.actions:
            maker.actions[step](insecure, limits)
            state = client.state(name)
        elif step == "pull":
            client.pull(name, insecure, limits)
            state = client.state(name)
            _check_pulled(name, wanted, state)
        elif step == "unload":
            client.unload(name)
        elif step == "load":
            client.load(name, wanted["keep_alive"], state["capabilities"] == ["embedding"])
        elif step == "delete":
            client.delete(name)
    after = client.state(name) if steps else current
    if "load" in steps and not after["loaded"]:
        raise OllamaError(f"'{name}' was loaded and is gone again; has another model taken its place, or is keep_alive too short?")
    return after


def _check_pulled(name, wanted, state):
    if not state["present"]:
        raise OllamaError(f"the server says that it pulled '{name}', but does not list it")
    if wanted["digest"] and not (state["digest"] or "").startswith(wanted["digest"]):
        raise OllamaError(f"the registry's '{name}' has the digest {state['digest']}, not {wanted['digest']} as asked; it was pulled and is on the host now. "
                          "The registry has moved the tag on: ask for the new digest, or name a tag that does not move")
