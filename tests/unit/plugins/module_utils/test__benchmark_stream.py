# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The streaming clients against a server that is right, and wrong in each way."""
from __future__ import annotations

import time

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils import _benchmark_stream as stream
from ansible_collections.erni_ki.inference.plugins.module_utils._check_api import Api
from ansible_collections.erni_ki.inference.tests.unit.plugins.streaming_services import KEY, Streams
from ansible_collections.erni_ki.inference.tests.unit.standin import harness

SERVICES = ("vllm", "ollama")


@pytest.fixture(name="server")
def fixture_server():
    server = Streams()
    yield server
    server.close()


@pytest.fixture(name="driver")
def fixture_driver(server):
    def make(service, tokens=8, timeout=20.0, **more):
        api = Api(service, more.pop("url", server.url), timeout, **more)
        return stream.Driver(api, "tiny", tokens, 1000000)
    return make


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("pieces, plain", [(1, False), (1, True), (3, False)])
def test_every_token_has_its_time(server, driver, service, pieces, plain):
    server.pieces, server.plain, server.ms[service] = pieces, plain, 5
    before = time.monotonic()
    one = driver(service).ask()
    assert one.tokens == 8
    times = [at for at, _number in one.pieces]
    assert times == sorted(times) and before <= one.begun < times[0] <= time.monotonic()
    assert one.first_token() >= 0.004 and len(one.pieces) == -(-8 // pieces)
    if service == "vllm" and not plain:
        assert sum(number for _at, number in one.pieces) == 8
    assert min(one.gaps()) >= 0


def test_no_two_prompts_begin_alike(server, driver):
    one = driver("vllm")
    one.ask()
    one.ask()
    first, second = (prompt for _service, prompt in server.prompts)
    assert first[:7] != second[:7] and len(first) == len(second)
    assert 1000000 <= stream.first_number(lambda: 1e9 + 0.5) < 10000000
    assert stream.first_number(lambda: 1e9) != stream.first_number(lambda: 1e9 + 60)


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("fault, said", [
    ("refused", r"HTTP 503: overloaded"), ("other", r"no stream of server-sent events: <html>|no JSON object: <html>"),
    ("error", r"ended with an error after 4 tokens: out of memory"), ("broken", r"broke off after 4 of 8 tokens; has the service been stopped\? docker logs"),
    ("empty", r"ended after 0 pieces"), ("odd", r"no stream of server-sent events: hello: 1|not what Ollama answers: \{\"hello\": 1\}"),
])
def test_what_is_wrong_is_said(server, driver, service, fault, said):
    server.fault[service] = fault
    with pytest.raises(stream.BenchmarkError, match=said) as error:
        driver(service).ask()
    assert str(error.value).startswith(f"{stream.NAMES[service]} ({server.url}/")


@pytest.mark.parametrize("service", SERVICES)
def test_too_slow(server, driver, service):
    server.fault[service] = "silent"
    with pytest.raises(stream.BenchmarkError, match=r"within 0.2 s: 0 of 8 tokens came. Is it working at all\? make diagnose"):
        driver(service, timeout=0.2).ask()
    server.fault.clear()
    server.ms[service] = 100
    with pytest.raises(stream.BenchmarkError, match=r"within 0.7 s: [456] of 8 tokens came. At that speed fewer tokens \([23]\) fit, or raise the timeout"):
        driver(service, timeout=0.7).ask()


@pytest.mark.parametrize("service", SERVICES)
def test_nobody_there(driver, service):
    with pytest.raises(stream.BenchmarkError, match="nothing listens on 127.0.0.1 port 9 "):
        driver(service, url="http://127.0.0.1:9").ask()


def test_the_api_key(server, driver, tmp_path):
    path = tmp_path / "key"
    path.write_text(KEY, encoding="utf-8")
    assert driver("vllm", key_file=str(path)).ask().tokens == 8
    path.write_text("wrong", encoding="utf-8")
    with pytest.raises(stream.BenchmarkError, match="HTTP 401, the service wants another API key"):
        driver("vllm", key_file=str(path)).ask()
    path.unlink()
    with pytest.raises(stream.BenchmarkError, match="the API key file .* cannot be read"):
        driver("vllm", key_file=str(path)).ask()


def test_lines_that_say_nothing():
    reader = stream.VllmReader()
    for line in (b"\n", b": ping\n", b"event: x\n", b'data: {"choices": [{"text": "a"}], "usage": {"completion_tokens": true}}\n', b"data: [DONE]\n"):
        reader.line(1.0, line)
    assert reader.pieces == [(1.0, 1)] and reader.ended and reader.tokens is None
    reader = stream.OllamaReader()
    for line in (b"\n", b'{"thinking": "a", "done": false}\n', b'{"response": "", "done": true}\n'):
        reader.line(2.0, line)
    assert reader.pieces == [(2.0, 1)] and reader.ended and reader.tokens is None


def test_the_model(server):
    assert stream.find_model(Api("vllm", server.url, 5)) == "tiny"
    assert stream.find_model(Api("ollama", server.url, 5)) == "tiny:latest"
    assert stream.find_model(Api("ollama", server.url, 5, "other")) == "other"
    with pytest.raises(stream.BenchmarkError, match="vLLM .* nothing listens"):
        stream.find_model(Api("vllm", "http://127.0.0.1:9", 5))


def test_both_at_once(server, driver):
    server.ms.update(vllm=20, ollama=1)
    seen = []
    begun = time.monotonic()
    found = stream.drive([driver("vllm"), driver("ollama")], 0.4, lambda: seen.append(time.monotonic() - begun))
    ended = time.monotonic()
    assert len(found["ollama"]) > len(found["vllm"]) >= 1 and len(seen) == 1 and 0.2 <= seen[0] < ended - begun
    # Only whole answers count, and the last ones, cut short, are open no more.
    assert all(begun <= one.begun < one.pieces[-1][0] <= ended and one.tokens == 8 for one in found["vllm"] + found["ollama"])
    assert server.wait_closed()


def test_it_waits_for_a_whole_answer_of_each(server, driver):
    server.ms.update(vllm=40, ollama=1)
    found = stream.drive([driver("vllm"), driver("ollama")], 0.05)
    assert len(found["vllm"]) == 1 and len(found["ollama"]) >= 5


def test_a_driver_can_be_used_again(driver):
    one = driver("ollama")
    assert [bool(stream.drive([one], 0.05)["ollama"]) for _number in range(2)] == [True, True]


@pytest.mark.parametrize("fault", ["broken", "silent", "refused"])
def test_one_that_fails_ends_both(server, driver, fault):
    server.fault["ollama"] = fault
    server.ms["vllm"] = 1
    begun = time.monotonic()
    with pytest.raises(stream.BenchmarkError, match="^Ollama"):
        stream.drive([driver("vllm"), driver("ollama", timeout=0.5)], 60)
    assert time.monotonic() - begun < 30
    server.ended.set()
    assert server.wait_closed()


def test_a_broken_measurement_is_no_silence(driver, monkeypatch):
    one = driver("vllm")
    monkeypatch.setattr(one, "ask", lambda: 1 / 0)
    with pytest.raises(stream.BenchmarkError, match="the measurement broke down: ZeroDivisionError"):
        stream.drive([one], 60)


def test_one_that_was_stopped_before_it_began(driver):
    one = driver("vllm")
    one.stop()
    assert one.ask() is None


def test_ollama_as_it_was_recorded(tmp_path):
    """The stand-in answers byte for byte as a real server did."""
    with harness.running(tmp_path, STANDIN_MS_PER_TOKEN="5") as server:
        assert server.call("POST", "/api/pull", {"model": "llama3.2:1b", "stream": False})[0] == 200
        api = Api("ollama", server.url, 60)
        one = stream.Driver(api, stream.find_model(api), 12, 1000000).ask()
        assert one.tokens == 12 and len(one.pieces) == 12 and min(one.gaps()) >= 0 and one.decoding()[0] == 11
        with pytest.raises(stream.BenchmarkError, match="HTTP 404: model 'none' not found"):
            stream.Driver(api, "none", 12, 1000000).ask()
