# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gateway as the role configures it, in real nginx, in front of engines that die, hang, are slow or full when they are told to."""
from __future__ import annotations

import concurrent.futures
import hashlib
import json
import os
import signal
import socket
import threading
import time

import nginx
import pytest

CHAT = "/v1/chat/completions"


def chat(model="chat", **more):
    return {"model": model, "messages": [{"role": "user", "content": "secret words"}], **more}


def events(text):
    """The JSON of a stream of events, and whether it came to its end."""
    lines = [line[len("data: "):] for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"], lines[-1:] == ["[DONE]"]


def lines_of(text):
    return [json.loads(line) for line in text.splitlines()]


def served(site):
    """How many requests that generate came to each engine."""
    return {name: sum(one["method"] == "POST" for one in engine.seen()) for name, engine in site.engines.items() if engine.process.poll() is None}


# --- the way from a model to an engine ---

@pytest.mark.parametrize("site", nginx.SUITES, indirect=True)
def test_a_model_s_name_is_the_route(both):
    gateway = both.start()
    ways = (("chat", "ollama", "llama3.2:3b"), ("batch", "vllm", "tiny"), ("tiny", "vllm", "tiny"), ("llama3.2:3b", "ollama", "llama3.2:3b"))
    for asked, engine, told in ways:
        both.engines[engine].forget()
        status, unused, text = gateway.ask("POST", CHAT, chat(asked))
        assert status == 200 and json.loads(text)["model"] == told, text
        [seen] = both.engines[engine].seen()
        assert seen["body"] == chat(told) and seen["path"] == CHAT, asked
    status, unused, text = gateway.ask("GET", "/v1/models")
    assert status == 200 and [one["id"] for one in json.loads(text)["data"]] == ["batch", "chat", "llama3.2:3b", "tiny"]
    assert json.loads(gateway.ask("GET", "/v1/models/chat")[2])["owned_by"] == "alias"
    assert gateway.ask("GET", "/v1/models/nobody")[0] == 404


@pytest.mark.parametrize("site", nginx.SUITES, indirect=True)
def test_failover_before_the_first_byte(both):
    """Killed, shut, closing without a word, or busy with itself: the client gets the other engine's answer, for POST too, streamed or not."""
    gateway = both.start(limits={"probe_interval": 60})
    both.engines["ollama"].control(status=503, status_times=2)
    for stream in (False, True):
        status, unused, text = gateway.ask("POST", CHAT, chat(stream=stream))
        assert status == 200 and '"model": "tiny"' in text
        [seen] = both.engines["vllm"].seen()
        assert seen["body"] == chat("tiny", stream=stream)
        both.engines["vllm"].forget()
    assert gateway.metrics()["erni_ki_gateway_retries_total"] == 2
    assert gateway.engines()["ollama"]["why"] == "ollama answered 503"
    gateway.stop()
    gateway = both.start(limits={"probe_interval": 60})
    both.engines["ollama"].control(status=200, die_before=True)
    assert '"model": "tiny"' in gateway.ask("POST", CHAT, chat())[2]                # it dies with the request in its hands
    both.engines["ollama"].gone()
    answer = gateway.ask("POST", CHAT, chat(stream=True))                           # and nobody listens any more
    assert '"model": "tiny"' in answer[2] and gateway.logged(answer)["tries"] == "2"
    assert not gateway.engines()["ollama"]["up"]
    assert gateway.metrics()['erni_ki_gateway_requests_total{engine="ollama",status="502"}'] == 0


def test_a_hung_engine_is_left_after_its_time(both):
    gateway = both.start(variables={"gateway_answer_timeout": 4}, limits={"probe_interval": 60})
    with both.engines["ollama"].stopped():
        answer = gateway.ask("POST", CHAT, chat())
    assert answer[0] == 200 and '"model": "tiny"' in answer[2]
    assert gateway.logged(answer)["tries"] == "2" and "said nothing in time" in gateway.errors()


def test_the_last_engine_s_own_error_is_the_answer(both):
    gateway = both.start()
    for engine in both.engines.values():
        engine.control(status=500)
    status, unused, text = gateway.ask("POST", CHAT, chat())
    assert status == 500 and "the stand-in answers 500" in text and served(both) == {"ollama": 1, "vllm": 1}


def test_an_error_of_the_client_is_no_reason_to_go_on(both):
    gateway = both.start()
    both.engines["ollama"].control(status=400)
    status, unused, text = gateway.ask("POST", CHAT, chat())
    assert status == 400 and "the stand-in answers 400" in text and served(both)["vllm"] == 0
    assert gateway.engines()["ollama"]["up"]


@pytest.mark.parametrize("site", nginx.SUITES, indirect=True)
@pytest.mark.parametrize("broken", ["die_after", "cut_after"])
def test_no_replay_after_the_first_byte_but_an_error_in_the_stream(both, broken):
    gateway = both.start(limits={"probe_interval": 60})
    for engine in both.engines.values():
        engine.control(**{broken: 2})
    status, headers, text = gateway.ask("POST", "/ollama/api/chat", chat("llama3.2:3b"))
    assert gateway.logged((status, headers, text))["outcome"] == "broken"
    *words, last = lines_of(text)
    assert status == 200 and len(words) == 2 and last == {"error": "The engine ollama broke off in the middle of its answer."}
    # What the engine left in the middle of an event is not sent, so that the error is an event that clients can read.
    status, headers, text = gateway.ask("POST", CHAT, chat("batch", stream=True))
    assert gateway.logged((status, headers, text))["outcome"] == "broken"
    *words, last = events(text)[0]
    assert status == 200 and len(words) == 2 and last["error"]["code"] == "engine_failed" and "[DONE]" not in text and text.endswith("}\n\n")
    if broken == "cut_after":
        assert served(both) == {"ollama": 1, "vllm": 1}
    metrics = gateway.metrics()
    assert metrics['erni_ki_gateway_broken_streams_total{engine="ollama"}'] == metrics['erni_ki_gateway_broken_streams_total{engine="vllm"}'] == 1
    assert metrics["erni_ki_gateway_retries_total"] == 0 and gateway.errors().count("broke off in the middle of an answer") >= 2


def test_an_answer_in_one_piece_that_breaks_off_is_no_whole_one(both):
    """A stream that hangs is ended with an error too."""
    gateway = both.start(variables={"gateway_stream_timeout": 3}, limits={"probe_interval": 60})
    both.engines["vllm"].control(tokens=3, delay=0.2)
    answer = {}
    asking = threading.Thread(target=lambda: answer.update(text=gateway.ask("POST", CHAT, chat("tiny", stream=True))[2]))
    asking.start()
    nginx.wait_for(lambda: gateway.engines()["vllm"]["in_flight"] == 1, "the request is there")
    time.sleep(0.3)
    with both.engines["vllm"].stopped():
        asking.join(nginx.PATIENCE_S)
    assert '"engine_failed"' in answer["text"] and "[DONE]" not in answer["text"]


def test_the_rest_of_the_body_stays_as_it_was(both):
    gateway = both.start()
    text = '{"messages": [{"model": "x", "content": "\\"model\\": \\\\"}], "seed": 12345678901234567890, '\
           '"tools": [], "meta": {}, \n "model" :  "chat" , "a": 1.0}'
    status, unused, said = gateway.ask("POST", CHAT, text.encode())
    assert status == 200, said
    [seen] = both.engines["ollama"].seen()
    wanted = text.replace('"model" :  "chat"', '"model" :  "llama3.2:3b"')
    assert seen["body"] == json.loads(wanted) and int(seen["headers"]["content-length"]) == len(wanted)


def test_a_body_in_chunks(both):
    gateway = both.start()
    body = json.dumps(chat("batch")).encode()
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=nginx.PATIENCE_S) as client:
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
        for part in (body[:9], body[9:]):
            client.sendall(b"%x\r\n%s\r\n" % (len(part), part))
        client.sendall(b"0\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
    [seen] = both.engines["vllm"].seen()
    assert seen["body"] == chat("tiny") and "transfer-encoding" not in seen["headers"]


def test_more_dead_engines_than_attempts(site):
    """nginx redirects a request ten times at most: the answer is an error in time, and no place is held."""
    for number in range(9):
        site.engine("vllm", ["tiny"], host_name=f"node{number}")
    gateway = site.start(limits={"probe_interval": 60})
    for engine in site.engines.values():
        engine.kill()
    status, unused, text = gateway.ask("POST", CHAT, chat())
    assert status == 502 and "accepts no connection" in text
    assert {(one["in_flight"], one["queued"]) for one in gateway.engines().values()} == {(0, 0)}
    assert sum(not one["up"] for one in gateway.engines().values()) == 7
    assert gateway.ask("POST", CHAT, chat())[0] == 502 and gateway.ask("POST", CHAT, chat())[0] == 503


def test_the_direct_ways(both):
    gateway = both.start()
    status, headers, text = gateway.ask("POST", "/ollama/api/generate", {"model": "llama3.2:3b", "prompt": "x"})
    assert status == 200 and headers["content-type"] == "application/x-ndjson" and lines_of(text)[-1]["done"]
    assert json.loads(gateway.ask("GET", "/ollama/api/tags")[2])["models"][0]["name"] == "llama3.2:3b"
    assert gateway.ask("GET", "/vllm/health")[0] == 200
    status, unused, text = gateway.ask("POST", "/vllm/v1/completions", {"model": "tiny", "prompt": "x"})
    assert status == 200 and json.loads(text)["choices"]
    # An alias is a name of the gateway's: the engines do not know it.
    assert gateway.ask("POST", "/vllm/v1/completions", {"model": "chat", "prompt": "x"})[0] == 404


def test_of_engines_with_one_rank_the_least_busy_is_taken(site):
    for node in ("node1", "node2", "node3"):
        site.engine("vllm", ["tiny"], host_name=node)
    gateway = site.start(limits={"check_interval": 600})
    for engine in site.engines.values():
        engine.forget()
        engine.control(delay=0.5)
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(gateway.ask, "POST", CHAT, chat("tiny")) for unused in range(6)]
        assert [one.result()[0] for one in answers] == [200] * 6
    assert set(served(site).values()) == {2}


@pytest.mark.parametrize("site", nginx.SUITES, indirect=True)
def test_events_pass_as_they_come(site):
    """In pieces, two in one, and the last without its end: nothing is lost, and each whole one is sent at once."""
    site.engine("vllm", ["tiny"])
    gateway = site.start(limits={"check_interval": 600})
    pieces = ['data: {"a"', ': 1}\n', '\ndata: {"b": 2}\n\ndata: {"c": 3}\r\n\r\nda', 'ta: {"d": 4}\n\n', "data: [DONE]"]
    site.engines["vllm"].control(pieces=pieces, delay=1)
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=nginx.PATIENCE_S) as client:
        body = json.dumps(chat(stream=True)).encode()
        client.sendall(b"POST /v1/chat/completions HTTP/1.0\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        text, seen = "", []
        while True:
            part = client.recv(65536).decode()
            if not part:
                break
            text += part
            seen.append(text.partition("\r\n\r\n")[2])
    assert seen[-1] == "".join(pieces)
    assert 'data: {"a": 1}\n\ndata: {"b": 2}\n\ndata: {"c": 3}\r\n\r\n' in seen and not any(one.endswith('"a"') for one in seen)


# --- what is refused ---

BODIES = [
    (b"{nope", 400, "bad_request", "not a JSON object"),
    (b"[1]", 400, "bad_request", "not a JSON object"),
    (b'"x"', 400, "bad_request", "not a JSON object"),
    (b"", 400, "bad_request", "no body"),
    (b"{}", 400, "bad_request", 'no "model"'),
    (b'{"model": 1}', 400, "bad_request", 'no "model"'),
    (b'{"model": "chat", "model": "tiny"}', 400, "bad_request", "more than one"),
    (b'{"model": "chat", "Model": "tiny"}', 400, "bad_request", "more than one"),
    (b'{"model": "chat", "mod\\u0065l": "tiny"}', 400, "bad_request", "more than one"),
    (b'{"model": "chat", "x": ' + b"[" * 5000 + b"]" * 5000 + b"}", 400, "bad_request", "nest"),
    (b'{"model": "nobody"}', 404, "unknown_model", "nobody"),
    (b'{"model": "chat", "x": "' + b"x" * 70_000 + b'"}', 413, "too_large", "too large"),
]


def test_bodies_that_no_engine_sees(both):
    gateway = both.start()
    for body, status, code, words in BODIES:
        begin, before = time.monotonic(), gateway.metrics()
        found, headers, text = gateway.ask("POST", CHAT, body)
        said = json.loads(text)["error"]
        assert found == status and said["code"] == code and words in said["message"], (body[:80], text)
        assert time.monotonic() - begin < 20
        assert gateway.logged((found, headers, text))["outcome"] == code
        name = 'erni_ki_gateway_refused_total{reason="%s"}' % code
        assert gateway.metrics()[name] == before[name] + 1
    assert served(both) == {"ollama": 0, "vllm": 0}


PATHS = [
    ("GET", "/", 404), ("GET", "/v1", 404), ("GET", CHAT, 405), ("POST", "/v1/models", 405), ("POST", "/v1/fine_tuning/jobs", 404), ("PUT", CHAT, 405),
    ("POST", "/ollama/api/pull", 404), ("DELETE", "/ollama/api/delete", 404), ("POST", "/ollama/api/create", 404), ("POST", "/v1/../ollama/api/pull", 404),
    ("POST", "/v1/%2e%2e/ollama/api/delete", 404), ("GET", "/v1/..%2f..%2fetc/passwd", 400), ("GET", "/../etc/passwd", 400), ("GET", "/vllm/metrics", 404),
    ("POST", "/v1/chat/completions%00", 400), ("POST", "/v1//chat/completions/", 404), ("GET", "/metrics", 404), ("POST", "/drain/vllm", 404),
    ("GET", "/vllm/health%20HTTP/1.1%0d%0aX:%20y", 404), ("TRACE", "/healthz", 405), ("GET", "/v1/" + "x" * 40_000, 414),
]


def test_paths_that_no_engine_sees(both):
    gateway = both.start()
    for method, path, status in PATHS:
        found, headers, text = gateway.ask(method, path, {"model": "chat"} if method == "POST" else None)
        assert found == status and headers["content-type"] == "application/json" and json.loads(text)["error"], (method, path[:80], found, text)
    assert [engine.seen() for engine in both.engines.values()] == [[], []]


def test_headers_of_a_client_and_of_an_engine_stay_on_their_side(both):
    gateway = both.start()
    headers = gateway.ask("POST", CHAT, chat("tiny"), {
        "Cookie": "a=b", "X-Forwarded-For": "1.2.3.4", "Origin": "https://example.net", "Authorization": "Bearer mine", "Host": "example.net"})[1]
    [seen] = both.engines["vllm"].seen()
    assert set(seen["headers"]) == {"host", "content-type", "content-length", "authorization", "x-request-id"}
    assert seen["headers"]["host"] == "localhost" and seen["headers"]["authorization"] == "Bearer engine"
    assert headers["server"] == "nginx" and headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store"
    assert headers["x-request-id"] == seen["headers"]["x-request-id"]


def test_slow_clients_are_not_waited_for(both):
    """Headers, or a body, that come a byte at a time or not at all."""
    gateway = both.start()
    begin = time.monotonic()
    for start in (b"X-Slow: ", b"Content-Length: 100\r\n\r\n{"):
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=nginx.PATIENCE_S) as client:
            client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n" + start)
            try:
                said = client.recv(65536)
            except ConnectionResetError:
                said = b""
            assert said == b"" or b" 408 " in said, said
    assert 3 <= time.monotonic() - begin < nginx.PATIENCE_S and served(both) == {"ollama": 0, "vllm": 0}


def test_no_prompt_is_logged(both):
    gateway = both.start()
    gateway.ask("POST", CHAT + "?q=secret+words", chat())
    gateway.ask("POST", CHAT, b'{"model": "chat", "secret words')
    both.engines["ollama"].kill()
    gateway.ask("POST", CHAT, chat())
    assert "secret" not in (gateway.folder / "access.log").read_text(encoding="utf-8") and "secret words" not in gateway.errors()


# --- keys ---

KEYS = [{"name": "alice", "sha256": hashlib.sha256(b"a" * 64).hexdigest(), "requests_per_minute": 6, "burst": 2},
        {"name": "bob", "sha256": hashlib.sha256(b"b" * 64).hexdigest()}]


@pytest.mark.parametrize("site", nginx.SUITES, indirect=True)
def test_keys(both):
    gateway = both.start(keys=KEYS)
    for header in ({}, {"Authorization": "Bearer " + "c" * 64}, {"Authorization": "Bearer"}, {"Authorization": "Basic " + "b" * 64},
                   {"Authorization": "Bearer " + KEYS[1]["sha256"]}):
        for path in (CHAT, "/ollama/api/chat", "/vllm/v1/completions"):
            status, headers, text = gateway.ask("POST", path, chat(), header)
            assert status == 401 and headers["www-authenticate"] == "Bearer" and "needs a key" in text
        assert gateway.ask("GET", "/v1/models", headers=header)[0] == 401
    assert served(both) == {"ollama": 0, "vllm": 0} and gateway.ask("GET", "/healthz")[0] == 200
    answer = gateway.ask("POST", CHAT, chat(), {"Authorization": "Bearer " + "b" * 64})
    assert answer[0] == 200 and gateway.logged(answer)["key"] == "bob"
    alice = {"Authorization": "bearer " + "a" * 64}
    found = [gateway.ask("POST", CHAT, chat(), alice) for unused in range(3)]
    assert [one[0] for one in found] == [200, 200, 429] and 1 <= int(found[2][1]["retry-after"]) <= 10 and "6 times a minute" in found[2][2]
    assert gateway.ask("POST", CHAT, chat(), {"Authorization": "Bearer " + "b" * 64})[0] == 200
    refused = gateway.metrics()
    assert refused['erni_ki_gateway_refused_total{reason="unauthorized"}'] == 20 and refused['erni_ki_gateway_refused_total{reason="rate_limit"}'] == 1


# --- limits and queues ---

def test_a_full_engine_has_a_queue_and_a_full_queue_an_end(site):
    site.engine("vllm", ["tiny"])
    gateway = site.start(room={"vllm": 2}, max_queue=3, limits={"check_interval": 600})
    site.engines["vllm"].forget()
    site.engines["vllm"].control(delay=0.6)
    with concurrent.futures.ThreadPoolExecutor(9) as pool:
        answers = [pool.submit(gateway.ask, "POST", CHAT, chat()) for unused in range(9)]
        found = [one.result() for one in answers]
    assert sorted(one[0] for one in found) == [200] * 5 + [429] * 4 and site.engines["vllm"].told()["most"] == 2
    refused = next(one for one in found if one[0] == 429)
    assert refused[1]["retry-after"] == "5" and "queues are full" in refused[2]
    state = gateway.engines()["vllm"]
    assert (state["in_flight"], state["queued"], state["up"]) == (0, 0, True)
    assert gateway.metrics()['erni_ki_gateway_refused_total{reason="queue_full"}'] == 4


def test_a_full_engine_s_requests_go_to_the_next_one(both):
    gateway = both.start(room={"ollama": 1}, limits={"check_interval": 600})
    both.engines["ollama"].control(delay=0.6)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert {one.result()[0] for one in [pool.submit(gateway.ask, "POST", CHAT, chat()) for unused in range(4)]} == {200}
    assert served(both) == {"ollama": 1, "vllm": 3}


def test_who_waits_too_long_or_leaves_gives_the_place_away(site):
    site.engine("vllm", ["tiny"])
    gateway = site.start(room={"vllm": 1}, limits={"queue_timeout": 3, "check_interval": 600})
    site.engines["vllm"].control(delay=2.5)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        first = pool.submit(gateway.ask, "POST", CHAT, chat(max_tokens=4))
        nginx.wait_for(lambda: gateway.engines()["vllm"]["in_flight"] == 1, "the first one is at work")
        with socket.create_connection(("127.0.0.1", gateway.port)) as client:
            body = json.dumps(chat()).encode()
            client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            nginx.wait_for(lambda: gateway.engines()["vllm"]["queued"] == 1, "one waits")
        nginx.wait_for(lambda: gateway.engines()["vllm"]["queued"] == 0, "it has left")
        status, headers, text = gateway.ask("POST", CHAT, chat())
        assert status == 429 and "busy for 3 s" in text and headers["retry-after"] == "5"
        assert first.result()[0] == 200
    assert served(site) == {"vllm": 1}


def test_a_client_that_leaves_frees_the_engine(site):
    site.engine("vllm", ["tiny"]).control(delay=0.2, tokens=1000)
    gateway = site.start()
    with socket.create_connection(("127.0.0.1", gateway.port)) as client:
        body = json.dumps(chat(stream=True)).encode()
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        assert client.recv(10)
    nginx.wait_for(lambda: gateway.engines()["vllm"]["in_flight"] == 0, "the engine is free")
    assert gateway.engines()["vllm"]["up"]


# --- who is up ---

@pytest.mark.parametrize("site", nginx.SUITES, indirect=True)
def test_a_dead_engine_is_out_before_a_client_asks_and_comes_back(both):
    gateway = both.start()
    both.engines["ollama"].kill()
    both.up("ollama", False)
    status, unused, text = gateway.ask("GET", "/healthz")
    health = json.loads(text)
    assert status == 200 and health["ok"] and health["engines"] == {"ollama": "down", "vllm": "up"} and health["aliases"] == {"batch": True, "chat": True}
    answer = gateway.ask("POST", CHAT, chat())
    assert answer[0] == 200 and gateway.logged(answer)["tries"] == "1"
    assert gateway.metrics()['erni_ki_gateway_engine_up{engine="ollama"}'] == 0
    both.engines["vllm"].kill()
    both.up("vllm", False)
    status, headers, text = gateway.ask("POST", CHAT, chat())
    assert status == 503 and headers["retry-after"] == "5" and "No engine" in text
    assert gateway.ask("GET", "/healthz")[0] == 503
    for engine in both.engines.values():
        engine.start()
        both.up(engine.name)
    assert gateway.ask("POST", CHAT, chat())[0] == 200 and gateway.ask("GET", "/healthz")[0] == 200
    assert gateway.metrics()['erni_ki_gateway_engine_up{engine="ollama"}'] == 1
    log = gateway.errors()
    assert "engine ollama is taken out: accepts no connection" in log and "engine ollama is put back" in log


def test_an_engine_that_answers_and_generates_nothing_is_not_well(both):
    gateway = both.start()
    both.engines["vllm"].control(status=500)
    both.up("vllm", False)
    assert "generates no token: /v1/completions answers 500: the stand-in answers 500" in gateway.engines()["vllm"]["why"]
    both.engines["vllm"].control(status=200)
    both.up("vllm")


def test_without_an_interval_no_token_is_asked_for(both):
    gateway = both.start(limits={"check_interval": 0})
    assert [engine.told()["most"] for engine in both.engines.values()] == [0, 0]
    both.engines["vllm"].kill()
    both.up("vllm", False)
    both.engines["vllm"].start()
    both.up("vllm")
    assert both.engines["vllm"].told()["most"] == 0 and gateway.ask("POST", CHAT, chat("tiny"))[0] == 200


def test_a_hung_or_loading_engine_is_not_well(both):
    gateway = both.start(limits={"probe_timeout": 2})
    with both.engines["ollama"].stopped():
        both.up("ollama", False)
    both.up("ollama")
    both.engines["vllm"].control(health=503)
    both.up("vllm", False)
    assert gateway.engines()["vllm"]["why"] == "/health answers 503"
    both.engines["vllm"].control(health=200)
    both.up("vllm")


@pytest.mark.parametrize("device, vram, well", [("gpu", 0, False), ("gpu", 999, False), ("gpu_in_part", 0, False), ("gpu_in_part", 1, True), ("none", 0, True)])
def test_a_model_on_the_wrong_device(site, device, vram, well):
    site.engine("ollama", ["m:1"], device=device)
    gateway = site.start()
    site.up("ollama")
    site.engines["ollama"].control(size_vram=vram)
    if well:
        generated = gateway.engines()
        time.sleep(1)
        assert gateway.engines()["ollama"]["up"] and generated
    else:
        site.up("ollama", False)
        assert gateway.engines()["ollama"]["why"] == f"wrong device: of m:1 {vram} of 1000 bytes are on the GPU"
        site.engines["ollama"].control(size_vram=1000)
        site.up("ollama")


def test_a_busy_engine_is_not_asked_for_a_token(site):
    """It would answer when its request is done, and be taken for dead."""
    site.engine("vllm", ["tiny"]).control(delay=0.6)
    gateway = site.start(limits={"check_timeout": 0.5, "max_failures": 1, "check_interval": 0.1})
    site.engines["vllm"].control(delay=0)
    site.up("vllm")
    site.engines["vllm"].control(delay=0.6)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        asked = pool.submit(gateway.ask, "POST", CHAT, chat())
        nginx.wait_for(lambda: gateway.engines()["vllm"]["in_flight"] == 1, "the request is at work")
        states = []
        while not asked.done():
            states.append(gateway.engines()["vllm"])
            time.sleep(0.1)
        assert asked.result()[0] == 200
    assert len(states) > 3


def test_an_engine_that_comes_back_starts_slowly(site):
    site.engine("vllm", ["tiny"])
    gateway = site.start(limits={"slow_start": 30})
    assert gateway.engines()["vllm"]["limit"] == 8
    site.engines["vllm"].kill()
    site.up("vllm", False)
    site.engines["vllm"].start()
    site.up("vllm")
    assert gateway.engines()["vllm"]["limit"] < 8


def test_draining(both):
    gateway = both.start(drained=["vllm"])
    assert gateway.ask("POST", CHAT, chat("tiny"))[0] == 503
    both.engines["ollama"].control(delay=0.3)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        asked = pool.submit(gateway.ask, "POST", CHAT, chat())
        nginx.wait_for(lambda: gateway.engines()["ollama"]["in_flight"] == 1, "the request is at work")
        status, unused, text = nginx.request(gateway.admin, "POST", "/drain/ollama")
        assert status == 200 and json.loads(text)["drained"]
        assert gateway.ask("POST", CHAT, chat())[0] == 503              # no new one
        assert asked.result()[0] == 200                                 # and the old one to its end
    assert json.loads(gateway.ask("GET", "/healthz")[2])["engines"] == {"ollama": "drained", "vllm": "drained"}
    assert gateway.metrics()['erni_ki_gateway_engine_drained{engine="ollama"}'] == 1
    assert nginx.request(gateway.admin, "POST", "/undrain/ollama")[0] == 200
    assert gateway.ask("POST", CHAT, chat())[0] == 200
    assert nginx.request(gateway.admin, "GET", "/drain/ollama")[0] == 405 and nginx.request(gateway.admin, "POST", "/drain/nobody")[0] == 404
    # A page in the browser of somebody on this host is not that somebody.
    assert nginx.request(gateway.admin, "POST", "/drain/ollama", headers={"Origin": "https://example.net"})[0] == 403


@pytest.mark.parametrize("site", nginx.SUITES, indirect=True)
def test_drained_unless_it_is_the_last(site):
    """What the playbook does with a host that it changes: the others get its requests, and nobody is refused for want of them."""
    first, second = site.engine("vllm", ["tiny"], host_name="a"), site.engine("vllm", ["tiny"], host_name="b")
    gateway = site.start(limits={"probe_interval": 60})

    def post(path):
        status, unused, text = nginx.request(gateway.admin, "POST", path)
        assert status == 200, text
        return json.loads(text)

    assert gateway.engines()["a-vllm"]["answers"] == ["batch", "chat", "tiny"] and gateway.engines()["a-vllm"]["host"] == "a"
    state = post("/drain/a-vllm?unless_last=1")
    assert state["drained"] and state["unless_last"]
    for unused in range(3):
        assert gateway.ask("POST", CHAT, chat())[0] == 200
    assert served(site) == {"a-vllm": 0, "b-vllm": 3}
    assert json.loads(gateway.ask("GET", "/healthz")[2])["engines"] == {"a-vllm": "drained", "b-vllm": "up"}
    # An engine that is full is waited for; one that fails is not.
    second.control(status=503, status_times=1)
    assert gateway.ask("POST", CHAT, chat())[0] == 200 and served(site) == {"a-vllm": 1, "b-vllm": 4}
    second.kill()
    for stream in (False, True):
        assert gateway.ask("POST", CHAT, chat(stream=stream))[0] == 200
    assert served(site) == {"a-vllm": 3}
    gateway.reload()                                                    # which does not put it back
    assert gateway.engines()["a-vllm"]["unless_last"] and gateway.ask("GET", "/healthz")[0] == 200
    assert not post("/undrain/a-vllm?unless_last=1")["drained"]
    # What somebody drained for good is neither weakened nor ended.
    post("/drain/a-vllm")
    assert not post("/drain/a-vllm?unless_last=1")["unless_last"] and post("/undrain/a-vllm?unless_last=1")["drained"]
    assert gateway.ask("POST", CHAT, chat())[0] == 503
    assert not post("/undrain/a-vllm")["drained"] and gateway.ask("POST", CHAT, chat())[0] == 200
    assert first.told()["active"] == 0


def test_a_full_engine_is_no_reason_to_use_a_drained_one(site):
    site.engine("vllm", ["tiny"], host_name="a")
    site.engine("vllm", ["tiny"], host_name="b").control(delay=0.3)
    gateway = site.start(room={"a-vllm": 1, "b-vllm": 1})
    nginx.request(gateway.admin, "POST", "/drain/a-vllm?unless_last=1")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(gateway.ask, "POST", CHAT, chat()) for unused in range(2)]
        assert [one.result()[0] for one in asked] == [200, 200]
    assert served(site) == {"a-vllm": 0, "b-vllm": 2}


def test_a_host_that_was_taken_away_while_it_was_drained_comes_back_as_a_new_one(site):
    site.engine("vllm", ["tiny"], host_name="a")
    site.engine("vllm", ["tiny"], host_name="b")
    gateway = site.start()
    nginx.request(gateway.admin, "POST", "/drain/a-vllm?unless_last=1")
    gone = site.engines.pop("a-vllm")

    def reload(settings):
        before, gateway.settings = gateway.workers(), settings
        gateway.reload()
        nginx.wait_for(lambda: gateway.workers() and not set(before) & set(gateway.workers()), "the old worker is gone")

    both = gateway.settings
    reload(site.settings())
    assert gateway.ask("POST", CHAT, chat())[0] == 200 and gone.told()["seen"] == [] and list(gateway.engines()) == ["b-vllm"]
    time.sleep(4)                                                       # a little longer than it is remembered
    reload(both)
    assert not gateway.engines()["a-vllm"]["drained"]


# --- changes while it works ---

@pytest.mark.parametrize("site", nginx.SUITES, indirect=True)
def test_a_reload_loses_no_request(both):
    """Under load, streamed and plain, with settings that change; what an old worker has is brought to its end."""
    for engine in both.engines.values():
        engine.control(delay=0.02, tokens=10)
    gateway = both.start(room={"vllm": 64, "ollama": 64}, keys=KEYS[1:])
    over, found = threading.Event(), []
    key = {"Authorization": "Bearer " + "b" * 64}

    def load(number):
        while not over.is_set():
            stream = number % 2 == 0
            status, unused, text = gateway.ask("POST", CHAT, chat("chat" if number % 3 else "batch", stream=stream), key)
            whole = status == 200 and (events(text)[1] if stream else '"finish_reason": "stop"' in text)
            found.append("whole" if whole else f"{status}: {text}")

    clients = [threading.Thread(target=load, args=(number,)) for number in range(6)]
    for client in clients:
        client.start()
    for unused in range(4):
        before = len(found)
        gateway.reload()
        nginx.wait_for(lambda begin=before: len(found) > begin + 12, "requests go on")
    over.set()
    for client in clients:
        client.join()
    assert set(found) == {"whole"} and len(found) > 48
    nginx.wait_for(lambda: all(one["in_flight"] == 0 for one in gateway.engines().values()), "nothing is held")
    # What changed is in force; a key that was taken away opens nothing.
    gateway.settings["keys"] = {KEYS[0]["sha256"]: {"name": "alice", "requests_per_minute": 0, "burst": 1}}
    gateway.reload()
    nginx.wait_for(lambda: gateway.ask("POST", CHAT, chat(), key)[0] == 401, "the old key is refused")


def test_a_worker_that_dies_holds_nothing(site):
    site.engine("vllm", ["tiny"])
    gateway = site.start(limits={"check_interval": 600})
    site.engines["vllm"].control(delay=5)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        asked = pool.submit(gateway.ask, "POST", CHAT, chat(max_tokens=9))
        nginx.wait_for(lambda: gateway.engines()["vllm"]["in_flight"] == 1, "the request is at work")
        [worker] = gateway.workers()
        os.kill(worker, signal.SIGKILL)
        assert asked.exception() is not None
    nginx.wait_for(lambda: nginx.listens(gateway.admin) and gateway.engines()["vllm"]["in_flight"] == 0, "its request is forgotten")


def test_settings_that_are_broken_are_refused_and_the_old_ones_stay(both):
    gateway = both.start()
    (gateway.folder / "gateway.json").write_text("{", encoding="utf-8")
    gateway.process.send_signal(signal.SIGHUP)
    nginx.wait_for(lambda: "are no JSON" in gateway.errors(), "the master says so")
    assert gateway.ask("POST", CHAT, chat())[0] == 200


# --- what is told ---

def test_another_address_has_the_metrics_and_nothing_else(both):
    gateway = both.start({"__gateway_metrics_address": "127.0.0.2"})

    def asked(method, path):
        return nginx.request(gateway.admin, method, path, host="127.0.0.2")

    assert asked("GET", "/metrics")[0] == 200 and "erni_ki_gateway_engine_up" in asked("GET", "/metrics")[2]
    assert [asked(method, path)[0] for method, path in (("GET", "/engines"), ("POST", "/drain/vllm"), ("GET", "/v1/models"))] == [404] * 3
    assert gateway.metrics()['erni_ki_gateway_engine_drained{engine="vllm"}'] == 0


def test_metrics_are_as_prometheus_wants_them(both):
    gateway = both.start()
    text = nginx.request(gateway.admin, "GET", "/metrics")
    assert text[1]["content-type"].startswith("text/plain; version=0.0.4")
    names, kinds = [], {}
    for line in text[2].splitlines():
        if line.startswith("# TYPE"):
            kinds[line.split()[2]] = line.split()[3]
        elif not line.startswith("#"):
            names.append(line.split(" ")[0])
    assert len(names) == len(set(names)) and kinds["erni_ki_gateway_ttft_seconds"] == "histogram" and text[2].count("# HELP") == len(kinds)
    before = gateway.metrics()
    for name in ('requests_total{engine="vllm",status="200"}', 'refused_total{reason="no_engine"}', "retries_total", 'ttft_seconds_count{engine="ollama"}'):
        assert before["erni_ki_gateway_" + name] == 0
    assert before['erni_ki_gateway_engine_up{engine="vllm"}'] == 1 and before['erni_ki_gateway_engine_drained{engine="vllm"}'] == 0
    gateway.ask("POST", CHAT, chat("batch", stream=True))       # five events
    gateway.ask("POST", CHAT, chat("batch", max_tokens=3))      # usage says three
    gateway.logged(gateway.ask("POST", "/ollama/api/generate", {"model": "llama3.2:3b", "prompt": "", "options": {"num_predict": 4}}))
    after = gateway.metrics()
    assert after['erni_ki_gateway_requests_total{engine="vllm",status="200"}'] == 2
    assert after['erni_ki_gateway_tokens_total{engine="vllm"}'] == 8 and after['erni_ki_gateway_tokens_total{engine="ollama"}'] == 4
    assert after['erni_ki_gateway_ttft_seconds_count{engine="vllm"}'] == after['erni_ki_gateway_ttft_seconds_bucket{engine="vllm",le="+Inf"}'] == 2
    assert [(line["engine"], line["tokens"], line["model"]) for line in gateway.access()] == [
        ("vllm", "5", "batch"), ("vllm", "3", "batch"), ("ollama", "4", "llama3.2:3b")]
    gateway.reload()
    nginx.wait_for(lambda: gateway.errors().count("gracefully shutting down"), "the worker changes")
    assert gateway.metrics()['erni_ki_gateway_requests_total{engine="vllm",status="200"}'] == 2


def test_the_log_is_reopened_when_it_was_rotated(both):
    gateway = both.start()
    gateway.ask("POST", CHAT, chat())
    (gateway.folder / "access.log").rename(gateway.folder / "access.log.1")
    gateway.process.send_signal(signal.SIGUSR1)
    nginx.wait_for((gateway.folder / "access.log").exists, "a new log")
    gateway.ask("POST", CHAT, chat("batch"))
    nginx.wait_for(lambda: [line["model"] for line in gateway.access()] == ["batch"], "the next line is in the new one")
