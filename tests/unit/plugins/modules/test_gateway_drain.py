# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module at a gateway's admin port. conftest.py compares every result with RETURN."""
from __future__ import annotations

import json
import socket

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils import _gateway_drain
from ansible_collections.erni_ki.inference.plugins.modules import gateway_drain
from ansible_collections.erni_ki.inference.tests.unit.plugins.gateway_admin import Admin, engine


@pytest.fixture(name="run")
def run_fixture(capsys, module_arguments, monkeypatch):
    """Run the module for the host a; return its exit status and its result."""
    monkeypatch.setattr(_gateway_drain, "PAUSE_S", 0.01)

    def run(port, check=False, **params):
        with module_arguments({"host": "a", "port": port, "_ansible_check_mode": check, **params}), pytest.raises(SystemExit) as ending:
            gateway_drain.main()
        return ending.value.code, json.loads(capsys.readouterr().out)
    return run


def pair(**first):
    """Two hosts with the same."""
    return [engine("a-vllm", **first), engine("a-ollama", ["chat", "x"]), engine("b-vllm"), engine("b-ollama", ["x"])]


def test_out_and_back_is_no_change(run):
    with Admin(*pair(in_flight=2)) as admin:
        code, found = run(admin.port)
        assert code == 0 and admin.drained() == found["drained"] == ["a-vllm", "a-ollama"] and admin.engines["a-vllm"]["in_flight"] == 0
        assert not found["changed"] and found["notes"] == found["left_drained"] == [] and found["busy"] == {}
        assert found["by_hand"][0] == f"curl -X POST http://127.0.0.1:{admin.port}/undrain/a-vllm"
        code, back = run(admin.port, state="served", drained_here=found["drained"])
        assert code == 0 and not back["changed"] and back["put_back"] == found["drained"] and admin.drained() == []
        assert not run(admin.port, state="served")[1]["put_back"]


def test_what_an_earlier_run_left_is_put_back_and_that_is_a_change(run):
    with Admin(*pair(drained=True, unless_last=True)) as admin:
        found = run(admin.port)[1]
        assert found["left_drained"] == ["a-vllm"] and found["drained"] == ["a-vllm", "a-ollama"]
        assert run(admin.port, state="served", drained_here=["a-ollama"])[1]["changed"] and admin.drained() == []


def test_what_somebody_drained_stays_so(run):
    with Admin(*pair(drained=True)) as admin:
        assert run(admin.port)[1]["drained"] == ["a-ollama"]
        assert run(admin.port, state="served")[1]["put_back"] == ["a-ollama"] and admin.drained() == ["a-vllm"]


@pytest.mark.parametrize("second", [{"up": False}, {"drained": True}])
def test_the_last_engine_is_told_and_left_alone(run, second):
    with Admin(engine("a-vllm", in_flight=10**9), engine("b-vllm", **second)) as admin:
        found = run(admin.port)[1]
        assert len(found["notes"]) == 1 and "a-vllm is the last engine for chat" in found["notes"][0] and found["busy"] == {}
        assert found["drained"] == admin.asked == []


def test_one_that_is_needed_for_a_model_of_its_own_is_told_and_waited_for(run):
    with Admin(engine("a-vllm", ["chat", "own"], in_flight=3), engine("b-vllm")) as admin:
        found = run(admin.port)[1]
        assert "is the last engine for own:" in found["notes"][0] and admin.engines["a-vllm"]["in_flight"] == 0


def test_the_last_one_that_was_left_drained_is_put_back(run):
    with Admin(engine("a-vllm", drained=True, unless_last=True, in_flight=10**9)) as admin:
        found = run(admin.port)[1]
        assert found["left_drained"] == ["a-vllm"] and found["busy"] == {}
        assert run(admin.port, state="served")[1]["put_back"] == ["a-vllm"]


def test_a_dead_last_one_is_no_news(run):
    with Admin(engine("a-vllm", up=False)) as admin:
        assert run(admin.port)[1]["notes"] == []


def test_the_time_ends(run):
    with Admin(*pair(in_flight=10**9)) as admin:
        found = run(admin.port, timeout=0)[1]
        assert list(found["busy"]) == ["a-vllm"] and "after 0 s (gateway_drain_timeout)" in found["notes"][0]


def test_check_mode_asks_and_drains_nothing(run):
    with Admin(*pair(in_flight=10**9)) as admin:
        assert run(admin.port, check=True)[1]["drained"] == ["a-vllm", "a-ollama"]
        assert run(admin.port, check=True, state="served")[1]["put_back"] == [] and admin.asked == []


def test_without_a_gateway_there_is_nothing_to_drain(run):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        assert "no gateway of this version" in run(port)[1]["notes"][0] and run(port, state="served")[1]["put_back"] == []


def test_an_older_gateway_does_not_keep_its_successor_out(run):
    with Admin({"name": "vllm"}) as admin:
        assert "no gateway of this version" in run(admin.port)[1]["notes"][0] and admin.asked == []


def test_a_gateway_that_is_broken(run):
    with Admin(engine("a-vllm"), status=500) as admin:
        code, found = run(admin.port)
        assert code == 1 and "/engines answers 500" in found["msg"]


def test_a_time_that_is_none(run):
    assert "timeout is -1 s" in run(1, timeout=-1)[1]["msg"]
