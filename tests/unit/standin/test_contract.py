# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every exchange recorded with the real server, replayed in order against a fresh stand-in."""
from __future__ import annotations

import contextlib
import datetime
import hashlib
import http.client
import json
import pathlib
import re

import pytest
from ansible_collections.erni_ki.inference.tests.unit.standin import harness

DATA = pathlib.Path(__file__).resolve().parents[1] / "data" / "ollama-api"
EXCHANGES = [json.loads(path.read_text()) for path in sorted(DATA.glob("*.json"))]
NAMES = [exchange["name"] for exchange in EXCHANGES]
RECORDED_BLOB = "795a7816fe48873fb7999fe48cdf8f6d16713f48f4e0ffee3bed00e4ccef9399"
RECORDED_REGISTRY = "127.0.0.1:15001"
RECORDED_DATA = "/root/.ollama/models"

DURATIONS = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")
TIMES = ("created_at", "modified_at", "expires_at")
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d*[1-9])?Z")


# ---------------------------------------------------------------- replaying

def request_body(request, blob):
    """The bytes to send, or None."""
    body = request.get("body_raw", request.get("body"))
    if body is None:
        return None
    if body == "<%d bytes>" % len(blob):
        return blob
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()


def send(port, method, path, headers, body):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    with contextlib.closing(connection):
        connection.putrequest(method, path, skip_host="Host" in headers, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders()
        # A server that answers before it has read everything stops listening.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.send(body or b"")
        response = connection.getresponse()
        return {"status": response.status, "reason": response.reason, "headers": dict(response.getheaders()), "body": response.read().decode()}


@pytest.fixture(scope="module")
def replayed(tmp_path_factory):
    blob = harness.tiny_gguf()
    assert len(blob) == harness.TINY_SIZE
    own = hashlib.sha256(blob).hexdigest()
    registry = harness.Registry()
    registry.add_tiny()
    answers = {}
    with contextlib.closing(registry), harness.running(tmp_path_factory.mktemp("contract"), OLLAMA_NO_CLOUD="1") as server:
        for exchange in EXCHANGES:
            request = exchange["request"]
            text = json.dumps(request).replace(RECORDED_BLOB, own).replace(RECORDED_REGISTRY, registry.host)
            request = json.loads(text)
            answer = send(server.port, request["method"], request["path"], request["headers"], request_body(request, blob))
            answer["sent"] = len(answer["body"].encode())
            answer["body"] = answer["body"].replace(registry.host, RECORDED_REGISTRY).replace(str(server.data), RECORDED_DATA)
            answers[exchange["name"]] = answer
    return answers


# ---------------------------------------------------------------- comparing

class Labels:
    """Gives every digest a label by its first appearance, so that two replays can be compared though their digests differ."""

    def __init__(self):
        self.seen = {}

    def replace(self, text):
        def label(found):
            return self.seen.setdefault(found.group(), "DIGEST%d" % len(self.seen))
        text = re.sub(r"[0-9a-f]{64}", label, text)
        for digest, name in self.seen.items():
            text = re.sub(r"\b%s\b" % digest[:12], name, text)
        return text


def normal(value, key=""):
    """The value with what cannot be the same replaced by what it is, after a look at its form."""
    if isinstance(value, dict):
        return {name: normal(item, name) for name, item in value.items()}
    if key == "context":
        assert all(isinstance(item, int) for item in value)
        return "%d token ids" % len(value)
    if key == "models":
        # Changed within the same second, their order is that of a hash map.
        return sorted((normal(item) for item in value), key=lambda model: model["name"])
    if isinstance(value, list):
        return [normal(item) for item in value]
    if key in DURATIONS:
        assert isinstance(value, int) and value > 0
        return "nanoseconds"
    if key in TIMES:
        assert STAMP.fullmatch(value), value
        return "time"
    if key == "created":
        assert isinstance(value, int) and value > 1.5e9
        return "seconds"
    if key == "id":
        return re.sub(r"-\d+$", "-number", value)
    if key in ("response", "content", "text") and value:
        return "text"
    if key in ("modelfile", "parameters"):
        # The order of parameters is that of a hash map.
        return "\n".join(sorted(value.splitlines()))
    if isinstance(value, str):
        return re.sub(r"on \S+:53: no such host", "on RESOLVER: no such host", value)
    return value


def normal_body(body, content_type, labels):
    if "json" not in (content_type or "") or not body:
        return labels.replace(body)
    lines = body.splitlines() if "ndjson" in content_type else [body.rstrip("\n")]
    values = [json.loads(line) for line in lines]
    # How far a transfer is, every 60 ms; the recorded one was over before that.
    values = [value for value in values if value.get("completed", 0) >= value.get("total", 0)]
    end = "\n" if body.endswith("\n") else ""
    return labels.replace("\n".join(json.dumps(normal(value)) for value in values) + end)


def lists_models(body):
    """/v1/models has the order of /api/tags."""
    value = json.loads(body)
    return {**value, "data": sorted(value["data"], key=lambda model: model["id"])}


@pytest.fixture(scope="module")
def normalised(replayed):
    """{name: (recorded body, replayed body)}; in order, because labels are given by first appearance."""
    recorded_labels, own_labels = Labels(), Labels()
    found = {}
    for exchange in EXCHANGES:
        response, answer = exchange["response"], replayed[exchange["name"]]
        found[exchange["name"]] = (normal_body(response["body_raw"], response["content_type"], recorded_labels),
                                   normal_body(answer["body"], answer["headers"].get("Content-Type"), own_labels))
    return found


def test_all_exchanges_are_here():
    assert len(EXCHANGES) == 98
    assert len(set(NAMES)) == 98


@pytest.mark.parametrize("exchange", EXCHANGES, ids=NAMES)
def test_answers_as_recorded(exchange, replayed, normalised):
    response, answer = exchange["response"], replayed[exchange["name"]]
    assert answer["status"] == response["status"]
    assert answer["reason"] == response["reason"]
    assert answer["headers"].get("Content-Type") == response["content_type"]
    recorded, own = normalised[exchange["name"]]
    if exchange["name"] == "v1-models":
        recorded, own = lists_models(recorded), lists_models(own)
    assert own == recorded


@pytest.mark.parametrize("exchange", EXCHANGES, ids=NAMES)
def test_headers_as_recorded(exchange, replayed):
    recorded, own = exchange["response"]["headers"], replayed[exchange["name"]]["headers"]
    # The one header more: the stand-in says what it is.
    assert own.pop("Server") == "ollama-standin/0.32.15"
    assert set(own) == set(recorded)
    for name in set(recorded) - {"Date", "Content-Length"}:
        assert own[name] == recorded[name]
    if exchange["request"]["method"] == "HEAD":
        assert own.get("Content-Length") == recorded.get("Content-Length")
    elif "Content-Length" in own:
        assert int(own["Content-Length"]) == replayed[exchange["name"]]["sent"]


def seconds_left(answer):
    """How long the one loaded model of /api/ps is to stay, in seconds."""
    stamp = json.loads(answer["body"])["models"][0]["expires_at"]
    expires = datetime.datetime.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S")
    date = datetime.datetime.strptime(answer["headers"]["Date"], "%a, %d %b %Y %H:%M:%S GMT")
    return (expires - date).total_seconds()


@pytest.mark.parametrize("name, seconds", [("ps-loaded", 300), ("ps-keepalive", 600), ("ps-forever", 9223372036)])
def test_keep_alive_is_kept(replayed, name, seconds):
    recorded = EXCHANGES[NAMES.index(name)]["response"]
    assert abs(seconds_left({"body": recorded["body_raw"], "headers": recorded["headers"]}) - seconds) <= 2
    # Later by what a busy machine takes between two requests.
    assert -20 <= seconds_left(replayed[name]) - seconds <= 1


def test_small_layers_are_the_recorded_ones(replayed):
    """Template and parameters do not depend on the model file: there the very digests agree."""
    for digest in ("e3b2721cec511e3a627ae0993753abbf5c72cdf4cfcdbc8f5c33ce15c4c4e04b", "f02dd72bb2423204352eabc5637b44d79d17f109fdb510a7c51455892aa2d216"):
        assert digest in replayed["pull-again-stream"]["body"]


def test_readme_lists_what_is_not_claimed():
    """Nothing is left out of the comparison above; the table in the README must say the same."""
    text = (harness.IMAGE / "README.md").read_text()
    section = text.split("## Exchanges not claimed", 1)[1].split("\n## ", 1)[0]
    assert re.findall(r"^\| `([^`]+)` \|", section, re.M) == []
    assert "none" in section.lower()
