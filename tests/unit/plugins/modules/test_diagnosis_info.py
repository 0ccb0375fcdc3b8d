# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module around the diagnosis: where the plan comes from, what is refused, and the shape of what it returns."""
from __future__ import annotations

import functools
import json

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils import _check, _diagnosis, _docker, _vitals
from ansible_collections.erni_ki.inference.plugins.modules import diagnosis_info
from ansible_collections.erni_ki.inference.tests.unit.plugins.beside_host import Beside
from ansible_collections.erni_ki.inference.tests.unit.plugins.loopback_services import KEY, Services
from ansible_collections.erni_ki.inference.tests.unit.plugins.recorded_host import Host

pytest.importorskip("docker")


@pytest.fixture(name="services")
def services_fixture():
    services = Services()
    yield services
    services.close()


@pytest.fixture(name="host")
def host_fixture(tmp_path, services, monkeypatch):
    """A right host, on which the module runs as if its tree were the root."""
    host = Host(tmp_path / "host")
    host.log = b""
    for service in host.containers.values():
        service["NetworkSettings"]["Ports"] = {"1/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(services.port)}]}
    monkeypatch.setattr(_check, "PAUSE", 0)
    monkeypatch.setattr(_vitals, "clock_status", lambda: 0)
    monkeypatch.setattr(_vitals, "disks", lambda root, places: [])
    monkeypatch.setattr(_diagnosis, "Host", functools.partial(_diagnosis.Host, root=str(host.root), probe=lambda *args: []))
    monkeypatch.setattr(_docker, "connect", lambda timeout: "client")
    monkeypatch.setattr(_docker, "inspect", lambda client, name: host.containers[name])
    monkeypatch.setattr(_docker, "logs", lambda client, name, lines, since: host.log.decode())
    monkeypatch.setattr(_docker, "data_root", lambda client: "/var/lib/docker")
    monkeypatch.setattr(_docker, "has_image", lambda client, name: False)
    return host


@pytest.fixture(name="run")
def run_fixture(capsys, module_arguments, tmp_path, services):
    plan = tmp_path / "plan.json"
    key = tmp_path / "key"
    key.write_text(KEY, encoding="utf-8")

    def run(check=False, **params):
        arguments = {
            "plan_path": str(plan), "vllm_url": services.url + "/", "ollama_url": services.url, "vllm_api_key_file": str(key), "timeout": 10, "interval": 0.01,
            **params, "_ansible_check_mode": check,
        }
        with module_arguments(arguments), pytest.raises(SystemExit) as ending:
            diagnosis_info.main()
        return ending.value.code, json.loads(capsys.readouterr().out)
    run.plan, run.key = plan, key
    return run


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize("by_file", [False, True])
def test_a_right_host(run, host, services, check, by_file):
    if by_file:
        run.plan.write_text(json.dumps(host.plan), encoding="utf-8")
    status, result = run(check=check, **({} if by_file else {"plan": host.plan}))
    assert (status, result["changed"], result["findings"], result["worst"], result["failed_checks"], result["logs"]) == (0, False, [], "", [], {})
    assert result["counts"] == {"critical": 0, "warning": 0, "info": 0}
    assert result["summary"] == f"no finding; {result['checks_evaluated']} checks of the proof passed" and result["table"] == [result["summary"]]
    # Ansible takes a result of this name for a failure of the task, and the verdict one with these two for a proof.
    assert "failed" not in result and not {"checks", "urls"} <= set(result)


def test_tokens_only_when_they_are_asked_for(run, host, services):
    run(plan=host.plan)
    assert {path for _method, path, _body, _key in services.asked} == {"/health", "/api/version"}
    assert run(plan=host.plan, generate=True)[1]["findings"] == []
    assert "/v1/completions" in {path for _method, path, _body, _key in services.asked}


def test_what_is_wrong_is_a_result_and_no_failure(run, host, services):
    host.containers["vllm"]["State"]["Health"]["Status"] = "unhealthy"
    host.log = f"ValueError: No common block size for 16 (x)\nkey {KEY}\n".encode()
    status, result = run(plan=host.plan)
    assert (status, result["worst"], result["counts"]) == (0, "critical", {"critical": 1, "warning": 0, "info": 0})
    assert result["findings"][0]["code"] == "block_size" and result["findings"][0]["checks"] == result["failed_checks"] == ["vllm: container_health"]
    assert result["logs"] == {"vllm": ["ValueError: No common block size for 16 (x)", "key ********"]}
    assert result["summary"] == "1 finding: 1 critical" and len(result["table"]) == 6


def test_a_key_that_cannot_be_read_hides_nothing(run, host):
    run.key.unlink()
    assert run(plan=host.plan)[1]["findings"] == []
    assert run(plan=host.plan, vllm_api_key_file=None)[0] == 0


def test_masking():
    assert diagnosis_info.masked({"a": ["x key", 5, None, {"b": "key"}]}, "key") == {"a": ["x ********", 5, None, {"b": "********"}]}


@pytest.mark.parametrize("content, code", [(None, "plan_missing"), ("{", "plan_invalid"), ("[]", "plan_invalid"), ('{"schema_version": 9}', "plan_invalid")])
def test_a_plan_that_is_none(run, host, content, code):
    if content is not None:
        run.plan.write_text(content, encoding="utf-8")
    status, result = run()
    assert (status, [one["code"] for one in result["findings"]], result["checks_evaluated"]) == (0, [code], 0)
    assert str(run.plan) in result["findings"][0]["evidence"]


def test_a_plan_that_cannot_be_read(run, host):
    run.plan.mkdir()
    assert [one["code"] for one in run()[1]["findings"]] == ["plan_unreadable"]


def test_one_service(run, host):
    host.plan["ollama"] = None
    status, result = run(plan=host.plan)
    assert status == 0 and "ollama" not in {one["service"] for one in result["findings"]}


def test_an_engine_that_is_down(run, host, monkeypatch):
    asked = []

    def refuse(timeout):
        asked.append(timeout)
        raise _docker.EngineError("the Docker Engine does not answer: Connection refused")
    monkeypatch.setattr(_docker, "connect", refuse)
    status, result = run(plan=host.plan)
    assert status == 0 and [one["code"] for one in result["findings"]] == ["docker_down"] and asked == [10]


def test_without_the_sdk(run, host, monkeypatch):
    monkeypatch.setattr(_docker, "docker", None)
    status, result = run(plan=host.plan)
    assert status == 0 and [one["code"] for one in result["findings"]] == ["docker_sdk_missing"]


@pytest.mark.parametrize("params, message", [
    ({"timeout": 0}, "timeout is 0 s; it must be above 0, such as 30."), ({"interval": -1}, "interval is -1 s; it must be above 0, such as 2."),
    ({"vllm_url": "https://127.0.0.1:8000"}, "vllm_url: 'https://127.0.0.1:8000' is not a URL such as"),
])
def test_bad_options(run, host, params, message):
    status, result = run(plan=host.plan, **params)
    assert status == 1 and result["msg"].startswith(message)


def test_what_stands_beside_the_engines(run, host):
    beside = Beside(host)
    assert run(plan=host.plan, beside=list(beside.options.values()))[1]["findings"] == []
    beside.out("vllm", why="/health answers 500")
    found = run(plan=host.plan, beside=list(beside.options.values()))[1]["findings"]
    assert [one["code"] for one in found] == ["engine_taken_out"] and "/health answers 500" in found[0]["evidence"]
    beside.close()


def test_something_beside_that_is_none(run, host):
    status, result = run(plan=host.plan, beside=[{"service": "exporter", "url": "x", "listens": []}])
    assert status == 1 and result["msg"].startswith("beside, exporter: 'x' is not a URL")
