# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module around the benchmark: real streams and a real burner beside a recorded host; what is refused, and the shape of what it returns."""
from __future__ import annotations

import functools
import json
import os
import socket
import time

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils import _benchmark, _benchmark_burners, _docker
from ansible_collections.erni_ki.inference.plugins.modules import inference_benchmark
from ansible_collections.erni_ki.inference.tests.unit.plugins.recorded_host import Host
from ansible_collections.erni_ki.inference.tests.unit.plugins.streaming_services import KEY, Streams

pytest.importorskip("docker")


@pytest.fixture(name="server")
def fixture_server():
    server = Streams(ms=1)
    yield server
    server.close()


@pytest.fixture(name="host")
def fixture_host(tmp_path, monkeypatch):
    host = Host(tmp_path / "host")
    host.write("/proc/stat", "".join(f"cpu{cpu} 1 2 3 4\n" for cpu in range(16)))
    host.write("/sys/devices/system/cpu/online", "0-15\n")
    # Nothing moves in a recorded tree, so the burners seem to do nothing.
    monkeypatch.setattr(_benchmark, "FILLED", 0)
    monkeypatch.setattr(_benchmark_burners, "reachable", lambda: {7})
    monkeypatch.setattr(_docker, "connect", lambda timeout: "client")
    monkeypatch.setattr(_docker, "inspect", lambda client, name: host.containers[name])
    monkeypatch.setattr(inference_benchmark, "host", functools.partial(inference_benchmark.host, root=str(host.root)))
    return host


@pytest.fixture(name="run")
def fixture_run(capsys, module_arguments, server, tmp_path):
    key = tmp_path / "key"
    key.write_text(KEY, encoding="utf-8")

    def run(check=False, **params):
        arguments = {
            "vllm_url": server.url + "/", "ollama_url": server.url, "vllm_api_key_file": str(key), "repeats": 1, "tokens": 8, "seconds": 0.05, "pause": 0,
            "timeout": 20, **params, "_ansible_check_mode": check,
        }
        with module_arguments(arguments), pytest.raises(SystemExit) as ending:
            inference_benchmark.main()
        return ending.value.code, json.loads(capsys.readouterr().out)
    return run


def test_both_services(run, host, server):
    status, result = run(plan=host.plan, repeats=2, max_loss_cpu=1000, max_loss_together=1000)
    assert (status, result["changed"], result["ok"]) == (0, False, True), result
    assert len(result["runs"]) == 12 and len(result["results"]) == 8 and len(result["losses"]) == 6
    assert result["models"] == {"vllm": "tiny", "ollama": "tiny:latest"}
    assert result["host"]["cpus"] == {"vllm": "0-6,8-14", "ollama": "7,15", "burners": "7"}
    assert result["settings"]["repeats"] == 2 and set(result["memory"]) == {"vllm", "ollama"}
    assert result["summary"] == "ok: 6 losses within their limits"
    # Ansible, and the verdict of a run, would take these for something else.
    assert "failed" not in result and not {"checks", "urls"} <= set(result) and not {"findings", "counts"} <= set(result)
    assert server.wait_closed()


def test_by_file(run, host, tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(host.plan), encoding="utf-8")
    status, result = run(plan_path=str(path), services=["ollama"], burners=False)
    assert status == 0 and [row["case"] for row in result["results"]] == ["ollama"] and result["losses"] == []
    assert result["summary"] == "ok: 1 run, and no limit that applies here"


def test_a_loss_that_is_too_high_is_a_result_and_no_failure(run, host, server):
    server.ms["vllm"] = 5
    status, result = run(plan=host.plan, services=["vllm"], max_loss_cpu=0, repeats=1)
    # By chance it may be a gain.
    loss = result["losses"][0]
    assert status == 0 and result["ok"] == (loss["loss_percent"]["median"] <= 0) == (loss["cause"] == "")


def test_check_mode_measures_nothing(run, host, server):
    status, result = run(check=True, plan=host.plan)
    assert (status, result["ok"], result["runs"], result["losses"]) == (0, True, [], []) and server.prompts == []
    assert result["summary"] == "ok: nothing was measured, as this is check mode" and result["results"][0]["tokens_per_second"] is None


def test_a_service_that_is_not_measured_need_not_run(run, host):
    host.containers["ollama"]["State"] = {"Running": False, "Status": "exited"}
    assert run(plan=host.plan, services=["vllm"], burners=False)[0] == 0
    status, result = run(plan=host.plan)
    assert status == 1 and result["msg"].startswith("Ollama: the container does not run (exited). make diagnose tells")


@pytest.mark.parametrize("fault, said", [("refused", "HTTP 503"), ("broken", "broke off after 4 of 8 tokens"), ("other", "no JSON object")])
def test_a_service_that_is_wrong(run, host, server, fault, said):
    server.fault["ollama"] = fault
    status, result = run(plan=host.plan)
    assert status == 1 and result["msg"].startswith(f"Ollama ({server.url}/api/generate): ") and said in result["msg"] and result["msg"].endswith(".")
    assert "exception" not in result


def test_one_that_breaks_while_burners_run(run, host, server, monkeypatch):
    made = []
    original = _benchmark_burners.Burners._end

    def end(self):
        made.extend(self.pids)
        original(self)
    monkeypatch.setattr(_benchmark_burners.Burners, "_end", end)
    look = _benchmark.Bench.run

    def breaking(self, number, case):
        if case.burners:
            server.fault["vllm"] = "broken"
        return look(self, number, case)
    monkeypatch.setattr(_benchmark.Bench, "run", breaking)
    status, result = run(plan=host.plan)
    assert status == 1 and "broke off" in result["msg"] and made
    end_at = time.monotonic() + 10
    while time.monotonic() < end_at and any(_is_there(pid) for pid in made):
        time.sleep(0.01)
    assert not any(_is_there(pid) for pid in made)


def ends(kind):
    """Return the reading and the writing end of a pipe, or of the socket that an SSH server has in its place."""
    return os.pipe() if kind == "pipe" else tuple(one.detach() for one in socket.socketpair())


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_reader_that_is_gone_is_noticed(monkeypatch, kind):
    reader, writer = ends(kind)
    with open(writer, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(inference_benchmark.sys, "__stdout__", stream)
        assert inference_benchmark.wanted()
        os.close(reader)
        assert not inference_benchmark.wanted()
    assert inference_benchmark.wanted()


def _is_there(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("params, said", [
    ({"repeats": 0}, "repeats is 0; it must be 1 or more, such as 5."), ({"tokens": 1}, "tokens is 1; it must be 2 or more, such as 64."),
    ({"seconds": -1}, "seconds is -1; it must be 0.01 or more, such as 10."), ({"max_loss_cpu": float("nan")}, "max_loss_cpu is nan; it must be 0 or more"),
    ({"timeout": 0}, "timeout is 0; it must be 0.01 or more, such as 300."), ({"vllm_url": "https://127.0.0.1"}, "vllm_url: 'https://127.0.0.1' is not a URL"),
    ({"ollama_url": "http://127.0.0.1:9"}, "Ollama (http://127.0.0.1:9): nothing listens on 127.0.0.1 port 9"),
    ({"services": []}, "The plan has no service to measure; it has vllm, ollama."),
])
def test_bad_options(run, host, params, said):
    status, result = run(plan=host.plan, **params)
    assert status == 1 and result["msg"].startswith(said), result["msg"]


def test_a_service_that_is_not_planned(run, host):
    host.plan["ollama"] = None
    status, result = run(plan=host.plan, services=["ollama"])
    assert status == 1 and result["msg"] == "The plan has no service ollama; it has vllm."


@pytest.mark.parametrize("content, said", [
    (None, "There is no plan at"), ("{", "is not valid JSON"), ('{"schema_version": 9}', "schema_version 9"), ("folder", "cannot be read"),
])
def test_a_plan_that_is_none(run, host, tmp_path, content, said):
    path = tmp_path / "plan.json"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_text(content, encoding="utf-8")
    status, result = run(plan_path=str(path))
    assert status == 1 and said in result["msg"]


def test_without_the_sdk(run, host, monkeypatch):
    monkeypatch.setattr(_docker, "docker", None)
    status, result = run(plan=host.plan)
    assert status == 1 and "docker" in result["msg"]


def test_an_engine_that_does_not_answer(run, host, monkeypatch):
    def refuse(timeout):
        raise _docker.EngineError("the Docker Engine does not answer: x")
    monkeypatch.setattr(_docker, "connect", refuse)
    status, result = run(plan=host.plan)
    assert status == 1 and result["msg"].startswith("vLLM: the Docker Engine does not answer: x")
