# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a service is asked for a token, and what follows from the answer, or from others' tokens."""
from __future__ import annotations

import datetime
import json
import types

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils import _exporter_probe
from ansible_collections.erni_ki.inference.plugins.module_utils._check_api import Api
from ansible_collections.erni_ki.inference.plugins.module_utils._exporter_probe import Probe, progress, remaining
from ansible_collections.erni_ki.inference.tests.unit.plugins.loopback_services import KEY, Services, recorded

NOW = 1795900000.0


@pytest.fixture(name="services")
def services_fixture():
    services = Services()
    yield services
    services.close()


@pytest.fixture(name="host")
def host_fixture():
    return types.SimpleNamespace(counters={}, busy={})


@pytest.fixture(name="vllm")
def vllm_fixture(services, host, tmp_path):
    (tmp_path / "key").write_text(f"VLLM_API_KEY={KEY}\n", encoding="utf-8")
    return Probe("vllm", host, Api("vllm", services.url, 5, key_file=str(tmp_path / "key")), clock=lambda: NOW)


@pytest.fixture(name="ollama")
def ollama_fixture(services, host):
    return Probe("ollama", host, Api("ollama", services.url, 5), clock=lambda: NOW)


def values(probe):
    return {name[len("erni_ki_service_"):]: value for name, _labels, value in probe.look()}


def asked(services, path):
    return [body for _method, place, body, _key in services.asked if place == path]


def counts(tokens, running=0, waiting=0):
    return {"tokens_out": float(tokens), "running": running, "waiting": waiting}


@pytest.mark.parametrize("before, now, own, saw", [
    (counts(10), counts(12), 1, "progress"), (counts(10), counts(11), 1, "idle"), (counts(10), counts(10), 0, "idle"),
    (counts(10), counts(10, running=1), 0, "unclear"), (counts(10, waiting=1), counts(10, running=1), 0, "stuck"),
    (counts(10, running=1), counts(11, running=1), 1, "stuck"), (counts(500), counts(3), 1, "progress"), (counts(500), counts(0), 1, "idle")])
def test_what_vllms_counters_say(before, now, own, saw):
    assert progress(before, now, own) == saw


# ---- vLLM


def test_an_idle_vllm_is_asked_for_one_token(services, host, vllm):
    host.counters["vllm"] = counts(10)
    found = values(vllm)
    assert found["generating"] == 1 and found["probe_timestamp_seconds"] == NOW and 0 < found["probe_seconds"] < 5
    assert asked(services, "/v1/completions") == [{"model": "tiny", "prompt": "Hello", "max_tokens": 1, "temperature": 0}]
    # Its own token is no progress.
    host.counters["vllm"] = counts(11)
    assert values(vllm)["generating"] == 1 and len(asked(services, "/v1/completions")) == 2 == vllm.requests


def test_a_vllm_at_work_is_not_asked(services, host, vllm):
    host.counters["vllm"] = counts(10)
    values(vllm)
    host.counters["vllm"] = counts(50, running=3)
    assert values(vllm) == {"generating": 1, "probe_timestamp_seconds": NOW}
    # No token since, and somebody waits all the time.
    assert values(vllm)["generating"] == 0
    assert len(asked(services, "/v1/completions")) == 1


def test_a_request_that_has_just_come_changes_nothing(services, host, vllm):
    host.counters["vllm"] = counts(10)
    first = values(vllm)
    host.counters["vllm"] = counts(11, running=1)
    assert values(vllm) == first and len(asked(services, "/v1/completions")) == 1


@pytest.mark.parametrize("answer", [(500, "no"), (200, '{"usage": {"completion_tokens": 0}}'), (200, "[]"), (200, '{"usage": null}')])
def test_a_vllm_that_brings_no_token(services, vllm, answer):
    services.answers["/v1/completions"] = answer
    assert values(vllm)["generating"] == 0


def test_a_vllm_that_is_not_there(services, vllm):
    services.close()
    assert values(vllm) == {"generating": 0, "probe_timestamp_seconds": NOW}


# ---- Ollama


def loaded(ends_in=200.0, name="tiny:latest"):
    end = datetime.datetime.fromtimestamp(NOW + ends_in, datetime.timezone.utc)
    text = end.isoformat(timespec="microseconds").replace("+00:00", "456Z")
    return 200, json.dumps({"models": [{"name": name, "size": 5, "size_vram": 5, "expires_at": text}]})


@pytest.mark.parametrize("load", [False, True])
def test_no_model_is_loaded_unless_told_so(services, ollama, load):
    services.answers["/api/ps"] = recorded("06-ps-empty")
    ollama.load = load
    found = values(ollama)
    assert (found.get("generating"), len(asked(services, "/api/generate"))) == ((1, 1) if load else (None, 0))


def test_a_loaded_model_is_asked_and_does_not_stay_longer_for_it(services, ollama):
    services.answers["/api/ps"] = loaded(200.9)
    assert values(ollama)["generating"] == 1
    [body] = asked(services, "/api/generate")
    assert body == {"model": "tiny:latest", "prompt": "Hello", "stream": False, "options": {"num_predict": 1}, "keep_alive": 200}
    services.answers["/api/ps"] = loaded(5)
    values(ollama)
    # It is about to go: a request might load it again.
    assert len(asked(services, "/api/generate")) == 1


def test_a_model_that_is_unloaded_takes_the_verdict_with_it(services, ollama):
    services.answers["/api/ps"] = loaded()
    assert values(ollama)
    services.answers["/api/ps"] = recorded("78-ps-unloaded")
    assert values(ollama) == {}


def test_a_model_that_others_used(services, ollama):
    services.answers["/api/ps"] = loaded(200)
    values(ollama)
    services.answers["/api/ps"] = loaded(260)
    assert values(ollama) == {"generating": 1, "probe_timestamp_seconds": NOW} and len(asked(services, "/api/generate")) == 1


def test_a_model_for_ever(services, ollama):
    services.answers["/api/ps"] = recorded("60-ps-forever")
    assert values(ollama)["generating"] == 1 and asked(services, "/api/generate")[0]["keep_alive"] == -1
    services.answers["/api/ps"] = (200, recorded("60-ps-forever")[1].replace("2319-03-05T15:45", "2319-03-05T15:46"))
    values(ollama)
    assert len(asked(services, "/api/generate")) == 2


def test_a_busy_ollama_is_left_alone_for_a_while(services, host, ollama):
    services.answers["/api/ps"] = loaded()
    first = values(ollama)
    host.busy["ollama"] = 0.9
    for _look in range(_exporter_probe.PATIENCE):
        assert values(ollama) == first
    assert len(asked(services, "/api/generate")) == 1
    values(ollama)
    assert len(asked(services, "/api/generate")) == 2


@pytest.mark.parametrize("answer, generating", [
    ((500, '{"error": "llama runner process has terminated"}'), 0), ((200, '{"eval_count": 0}'), 0), ((200, "odd"), 0),
    ((400, '{"error":"\\"all-minilm\\" does not support generate"}'), None)])
def test_an_ollama_that_brings_no_token(services, ollama, answer, generating):
    services.answers["/api/ps"], services.answers["/api/generate"] = loaded(), answer
    assert values(ollama).get("generating") == generating


def test_an_ollama_that_is_not_there(services, ollama):
    services.close()
    assert values(ollama)["generating"] == 0


@pytest.mark.parametrize("expires, stay", [
    ("2026-11-28T18:26:40.999999999Z", 0), ("2319-03-05T15:45:44.71334452Z", -1), ("2000-01-01T00:00:00Z", 0), ("0001-01-01T00:00:00Z", 0), ("odd", None),
    (None, None)])
def test_how_long_a_model_stays(expires, stay):
    assert remaining(expires, 1795890400.5) == stay
