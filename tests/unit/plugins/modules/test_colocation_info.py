# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module around the proof: where the plan comes from, what is refused, and the shape of the verdict."""
from __future__ import annotations

import functools
import json

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils import _check, _docker, _proof
from ansible_collections.erni_ki.inference.plugins.modules import colocation_info
from ansible_collections.erni_ki.inference.tests.unit.plugins.beside_host import Beside
from ansible_collections.erni_ki.inference.tests.unit.plugins.loopback_services import KEY, Services
from ansible_collections.erni_ki.inference.tests.unit.plugins.recorded_gpu_host import GpuHost
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
    for service in host.containers.values():
        service["NetworkSettings"]["Ports"] = {"1/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(services.port)}]}
    monkeypatch.setattr(_check, "PAUSE", 0)
    monkeypatch.setattr(_proof, "prove", functools.partial(_proof.prove, root=str(host.root), probe=lambda *args: []))
    monkeypatch.setattr(_docker, "connect", lambda timeout: "client")
    monkeypatch.setattr(_docker, "inspect", lambda client, name: host.containers[name])
    return host


@pytest.fixture(name="run")
def run_fixture(capsys, module_arguments, tmp_path, services):
    plan = tmp_path / "plan.json"
    key = tmp_path / "key"
    key.write_text(KEY, encoding="utf-8")

    def run(check=False, **params):
        arguments = {
            "plan_path": str(plan), "vllm_url": services.url + "/", "ollama_url": services.url, "vllm_api_key_file": str(key), "timeout": 10, **params,
            "_ansible_check_mode": check,
        }
        with module_arguments(arguments), pytest.raises(SystemExit) as ending:
            colocation_info.main()
        return ending.value.code, json.loads(capsys.readouterr().out)
    run.plan = plan
    return run


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize("by_file", [False, True])
def test_a_right_host(run, host, services, check, by_file):
    if by_file:
        run.plan.write_text(json.dumps(host.plan), encoding="utf-8")
    status, result = run(check=check, **({} if by_file else {"plan": host.plan}))
    assert (status, result["changed"], result["ok"], result["failed_checks"]) == (0, False, True, [])
    assert result["summary"] == f"ok: {len(result['checks'])} checks passed"
    assert result["urls"] == {"vllm": services.url, "ollama": services.url}
    assert len(result["table"]) == len(result["checks"]) + 1
    # Ansible takes a result of this name for a failure of the task.
    assert "failed" not in result
    assert KEY not in json.dumps({name: result[name] for name in result if name != "invocation"})


def test_a_wrong_host_is_a_result_and_no_failure(run, host):
    host.containers["vllm"]["RestartCount"] = 1
    host.containers["ollama"] = None
    status, result = run(plan=host.plan)
    assert (status, result["ok"]) == (0, False)
    assert "vllm: restart_count" in result["failed_checks"] and "ollama: container_running" in result["failed_checks"]
    assert result["summary"].startswith(f"FAILED: {len(result['failed_checks'])} of {len(result['checks'])} checks: ")


def test_some_services_and_no_generation(run, host, services):
    status, result = run(plan=host.plan, services=["ollama"], generate=False)
    assert (status, result["ok"], set(result["urls"])) == (0, True, {"ollama"})
    assert [path for _method, path, _body, _key in services.asked] == ["/api/version"]


def test_where_the_ports_belong(run, host):
    status, result = run(plan=host.plan, ollama_bind_address="10.0.0.1")
    assert (status, result["failed_checks"]) == (0, ["ollama: listens_only_on"])


def test_no_key_is_sent_to_ollama(run, host, services):
    run(plan=host.plan)
    assert {key for _method, path, _body, key in services.asked if path.startswith("/api")} == {None}


def test_an_engine_that_is_down(run, host, monkeypatch):
    asked = []

    def refuse(timeout):
        asked.append(timeout)
        raise _docker.EngineError("the Docker Engine does not answer: Connection refused")
    monkeypatch.setattr(_docker, "connect", refuse)
    status, result = run(plan=host.plan)
    assert (status, result["ok"]) == (0, False)
    found = {check["found"] for check in result["checks"] if check["name"] == "container_running"}
    assert found == {"the Docker Engine does not answer: Connection refused"}
    # It may be up again for the second container.
    assert asked == [10, 10]


def test_a_host_with_a_gpu(run, host, services, monkeypatch, tmp_path):
    gpu_host = GpuHost(tmp_path / "gpu-host")
    gpu_host.patch(monkeypatch)
    for service in gpu_host.containers.values():
        service["NetworkSettings"]["Ports"] = {"1/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(services.port)}]}
    services.answers["/api/ps"] = (200, '{"models": [{"name": "tiny:latest", "size": 5, "size_vram": 5}]}')
    prove = functools.partial(_proof.prove.func, root=str(gpu_host.root), probe=gpu_host.probe, look=gpu_host.look)
    monkeypatch.setattr(_proof, "prove", prove)
    monkeypatch.setattr(_docker, "inspect", lambda client, name: gpu_host.containers[name])
    status, result = run(plan=gpu_host.plan)
    assert (status, result["ok"], result["failed_checks"]) == (0, True, [])
    assert {"gpu_loaded", "gpu_processes", "no_gpu_processes"} <= {check["name"] for check in result["checks"]}
    # The name of a check that no document explains is of little use to whoever sees it fail.
    assert [name for name in sorted({check["name"] for check in result["checks"]}) if "gpu" in name and name not in colocation_info.RETURN] == []


def test_one_connection_for_all(run, host, monkeypatch):
    asked = []
    monkeypatch.setattr(_docker, "connect", lambda timeout: asked.append(timeout) or "client")
    run(plan=host.plan)
    assert asked == [10]


@pytest.mark.parametrize("content, message", [
    (None, "There is no plan at {}, so there is nothing to judge this host against. Apply one first (playbook site)."),
    ("{", "The plan {} is not valid JSON: "),
    ("[]", "{}: the plan is not an object."),
    ('{"schema_version": 9}', "{}: the plan has schema_version 9, and this module knows 1; apply the plan again with this collection."),
    ('{"schema_version": 1}', "{}: the plan lacks, or has in another form: isolation, partition.slices."),
])
def test_a_plan_that_is_none(run, host, content, message):
    if content is not None:
        run.plan.write_text(content, encoding="utf-8")
    status, result = run()
    assert (status, result["failed"]) == (1, True)
    assert result["msg"].startswith(message.format(run.plan))
    assert "checks" not in result


def test_a_plan_that_cannot_be_read(run, host):
    run.plan.mkdir()
    status, result = run()
    assert status == 1
    assert result["msg"] == f"The plan {run.plan} cannot be read: Is a directory. Run with become: true."


def test_a_service_that_is_not_planned(run, host):
    host.plan["ollama"] = None
    status, result = run(plan=host.plan, services=["ollama"])
    assert (status, result["msg"]) == (1, "The plan has no service ollama; it has vllm.")
    assert set(run(plan=host.plan)[1]["urls"]) == {"vllm"}
    host.plan["vllm"] = None
    assert run(plan=host.plan)[1]["msg"] == "The plan has no service to check; it has none."


@pytest.mark.parametrize("params, message", [
    ({"timeout": 0}, "timeout is 0 s; it must be above 0, such as 120."),
    ({"vllm_url": "https://127.0.0.1:8000"}, "vllm_url: 'https://127.0.0.1:8000' is not a URL such as http://127.0.0.1:8000 (only plain http is spoken here)."),
    ({"ollama_url": "11434"}, "ollama_url: '11434' is not a URL such as"),
])
def test_bad_options(run, host, params, message):
    status, result = run(plan=host.plan, **params)
    assert status == 1
    assert result["msg"].startswith(message)


def test_without_the_sdk(run, host, monkeypatch):
    monkeypatch.setattr(_docker, "docker", None)
    monkeypatch.setattr(_docker, "IMPORT_ERROR", "No module named 'docker'")
    status, result = run(plan=host.plan)
    assert status == 1
    assert "Failed to import the required Python library (docker)" in result["msg"]


def test_the_image_says_what_it_is():
    assert colocation_info.image({"Config": {"Image": "a:1", "Labels": {"org.opencontainers.image.title": "Stand-in"}}}) == "a:1 (Stand-in)"
    assert colocation_info.image({"Config": {"Image": "a:1", "Labels": None}}) == "a:1"
    assert colocation_info.image(None) == ""


def test_a_plan_that_lacks_what_its_table_shows_is_judged_all_the_same():
    assert colocation_info.plan_table({"host": {}}) == []


def test_what_stands_beside_the_engines(run, host, tmp_path):
    beside = Beside(host)
    status, result = run(plan=host.plan, beside=list(beside.options.values()), generate=False)
    assert (status, result["ok"], result["failed_checks"]) == (0, True, [])
    told = {check["name"] for check in result["checks"] if check["service"] in beside.options}
    assert [name for name in told if name not in colocation_info.RETURN] == [] and set(result["urls"]) == {"vllm", "ollama"}
    beside.stop("gateway")
    assert "gateway: unit_running" in run(plan=host.plan, beside=list(beside.options.values()), generate=False)[1]["failed_checks"]
    beside.close()


def test_without_a_word_nothing_beside_the_engines_is_judged(run, host):
    assert {check["service"] for check in run(plan=host.plan)[1]["checks"]} == {"vllm", "ollama", "system"}


def test_something_beside_that_is_none(run, host):
    status, result = run(plan=host.plan, beside=[{"service": "exporter", "url": "http://127.0.0.1:1", "listens": ["1"]}])
    assert (status, result["msg"]) == (1, "beside, exporter: '1' is not ADDRESS:PORT, such as 127.0.0.1:8080.")
