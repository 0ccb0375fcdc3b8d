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
import re
import socket
import time

from ansible_collections.erni_ki.inference.plugins.module_utils import _http

DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"
# A question that a server answers from memory; one that takes longer hangs.
QUICK_S = 30
POLL_S = 0.1
PROGRESS_S = 10
MAX_LINE = 1024 * 1024
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

def desired(state, digest=None, keep_alive=None):
    """Return what is wanted of a model; None where nothing is said."""
    return {
        "present": {"absent": False, "unloaded": None}.get(state, True),
        "loaded": {"present": None}.get(state, state == "loaded"),
        "digest": digest,
        "keep_alive": keep_alive,
    }


def _kept_as_wanted(current, keep_alive, year):
    """Whether a loaded model stays for ever where that is wanted, and does not where it is not."""
    until = re.match(r"(\d{4,})-", current["loaded_until"] or "")
    return keep_alive is None or until is None or (int(until.group(1)) - year > FOREVER_YEARS) == _keeps_for_ever(keep_alive)


def compare(current, wanted, year=None):
    """Return the steps from here to there, in order: some of pull, load, unload, delete."""
    if wanted["present"] is False:
        if not current["present"]:
            return []
        return ["unload", "delete"] if current["loaded"] else ["delete"]
    steps = []
    fits = current["present"] and (current["digest"] or "").startswith(wanted["digest"] or "")
    if wanted["present"] and not fits:
        steps.append("pull")
    if wanted["loaded"]:
        # Once another digest is pulled, the server no longer finds the loaded one under this name.
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
    if "pull" in steps:
        full = wanted["digest"] if wanted["digest"] and len(wanted["digest"]) == 64 else None
        after.update({key: None for key in _UNKNOWN}, present=True, digest=full, capabilities=[])
    if "load" in steps:
        after.update({key: None for key in _RUNNING}, loaded=True)
    return after


def difference(state):
    """Return what a diff shows of a state: nothing that changes by itself."""
    return {key: state[key] for key in ("name", "present", "digest", "loaded")}


# ---------------------------------------------------------------- words

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
    """Reads the lines of a streamed pull; reports how far it is every few seconds; knows how it ended."""

    def __init__(self, name, report, clock=time.monotonic):
        self.name, self.report, self.clock = name, report, clock
        self.begun = self.last = clock()
        self.layers = {}
        self.status = None

    def line(self, event):
        self.status = event.get("status")
        if event.get("digest"):
            self.layers[event["digest"]] = (event.get("completed") or 0, event.get("total") or 0)
        now = self.clock()
        if now - self.last >= PROGRESS_S:
            self.last = now
            self.report(self.text(now))

    def text(self, now):
        done, total = (sum(numbers) for numbers in zip(*self.layers.values())) if self.layers else (0, 0)
        share = f", {100 * done // total} % of {total / 2 ** 20:.0f} MiB" if total else ""
        return f"pulling {self.name}: {self.status}{share}, since {now - self.begun:.0f} s"


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
    def _open(self, method, path, body):
        """Send a request whose answer is read as it comes."""
        try:
            host, port, prefix = _http.split_url(self.url)
        except _http.HttpError as error:
            raise OllamaError(str(error)) from error
        # One deadline for all that is read from it, however slowly it drips.
        connection = _http.Connection(host, port, time.monotonic() + self._left())
        try:
            connection.request(method, prefix + path, body=json.dumps(body).encode("utf-8"), headers={"Content-Type": "application/json"})
            yield connection.getresponse()
        except socket.timeout as error:
            raise OllamaError(f"{self.url}: {path} had not ended when the timeout of {self.timeout:g} s was over; what was fetched is kept, "
                              "and the next run goes on") from error
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

    def pull(self, name, insecure):
        progress = Progress(name, self.report)
        self.report(f"pulling {name}")
        try:
            with self._open("POST", "/api/pull", {"model": name, "insecure": insecure, "stream": True}) as response:
                if response.status != 200:
                    self._value(response.status, response.read(_http.MAX_BODY).decode("utf-8", "replace"), "/api/pull")
                while True:
                    line = response.readline(MAX_LINE)
                    if not line:
                        break
                    if line.strip():
                        progress.line(_event(line))
        except (_Refused, _Told) as error:
            raise OllamaError(explain_pull(name, str(error), insecure)) from error
        if progress.status != "success":
            raise OllamaError(f"the server ended the pull of '{name}' without saying that it succeeded; its last word was '{progress.status}'")
        self.report(f"pulled {name}")

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
        raise OllamaError(f"the server's answer to the pull is not what Ollama answers: {_http.excerpt(line.decode('utf-8', 'replace'))}")
    if "error" in event:
        raise _Told(str(event["error"]))
    return event


def apply(client, name, wanted, steps, current, insecure):
    """Take the steps and return the state that the server then reports."""
    state = current
    for step in steps:
        if step == "pull":
            client.pull(name, insecure)
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
