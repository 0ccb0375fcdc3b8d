# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every check of what stands beside the engines passes on a right host, and fails, alone, on one that is wrong in its own thing."""
from __future__ import annotations

import json
import os

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils import _cgroup, _check, _check_beside, _http
from ansible_collections.erni_ki.inference.tests.unit.plugins.beside_host import PIDS, Beside, certificate
from ansible_collections.erni_ki.inference.tests.unit.plugins.recorded_host import Host

UNIT = ["unit_running", "threads_in_cpuset", "memory_limit", "listens_only_on", "api_health"]
GATEWAY = [*UNIT, "aliases_served", "host_only", "keys_asked"]


@pytest.fixture(autouse=True)
def fixture_no_pause(monkeypatch):
    monkeypatch.setattr(_check, "PAUSE", 0)
    monkeypatch.setattr(_check_beside, "PAUSE", 0)


def made(root, kind="v2-systemd"):
    found = Beside(Host(root / "host", kind))
    found.options["gateway"]["keys"] = True
    return found


@pytest.fixture(name="beside")
def fixture_beside(tmp_path):
    found = made(tmp_path)
    yield found
    found.close()


def judge(beside, *names, cpuset="7,15", patience=0, **changes):
    root = str(beside.host.root)
    return _check_beside.checks(beside.wanted(*names, **changes), cpuset, root, _cgroup.Groups(root), patience)


def failed(checks):
    return {(check["service"], check["name"]): check["found"] for check in checks if not check["ok"]}


@pytest.mark.parametrize("kind", ["v2-systemd", "v1-systemd"])
def test_a_right_host(tmp_path, kind):
    beside = made(tmp_path, kind)
    checks = judge(beside)
    beside.close()
    assert failed(checks) == {}
    assert [check["name"] for check in checks if check["service"] == "gateway"] == GATEWAY
    assert all([check["name"] for check in checks if check["service"] == name] == UNIT for name in PIDS if name != "gateway")
    assert all(check["expected"] and check["found"] and check["evidence"] and not check["hint"] for check in checks)
    # Whoever proves changes nothing: no request but a GET, and none that makes a token.
    asked = {(method, path) for services in (beside.front, beside.admin, beside.others) for method, path, _body, _key in services.asked}
    assert asked == {("GET", path) for path in (*_check_beside.HOST_ONLY, *_check_beside.WITH_KEY, "/healthz", "/-/ready")}


def answers(service, path, status, text="{}"):
    return lambda beside: getattr(beside, service).answers.update({path: (status, text)})


def listens(name, *places):
    return lambda beside: beside.host.listen(PIDS[name], *(place if isinstance(place, tuple) else beside.places(name)[place] for place in places))


WRONG = {
    "thread": (lambda beside: beside.host.thread(4000, 4001, "nginx", "0-15"), ("gateway", "threads_in_cpuset"),
               "process 4000 (nginx) thread 4001 may run on 0-15"),
    "exporter's thread": (lambda beside: beside.host.thread(4100, 4100, "python3", "6"), ("exporter", "threads_in_cpuset"), "may run on 6"),
    "memory": (lambda beside: beside.host.write("/sys/fs/cgroup/system.slice/erni-ki-gateway.service/memory.max", 2 << 30), ("gateway", "memory_limit"),
               "2048 MiB"),
    "no memory limit": (lambda beside: beside.host.write("/sys/fs/cgroup/system.slice/prometheus.service/memory.max", "max"), ("prometheus", "memory_limit"),
                        "no limit"),
    "everywhere": (listens("gateway", ("0.0.0.0", 8080), 0, 1), ("gateway", "listens_only_on"), "0.0.0.0:8080"),
    "everywhere in IPv6": (listens("exporter", ("::", 9835), 0), ("exporter", "listens_only_on"), "[::]:9835"),
    "not on the admin port": (listens("gateway", 0), ("gateway", "listens_only_on"), "on 127.0.0.1:"),
    "nowhere": (listens("alertmanager"), ("alertmanager", "listens_only_on"), "on no port"),
    "no answer": (answers("front", "/healthz", 200, "hello"), ("gateway", "api_health"), "the answer is not JSON: hello"),
    "another answer": (answers("front", "/healthz", 200, '{"engines": []}'), ("gateway", "api_health"), 'HTTP 200: {"engines": []}'),
    "an error": (answers("front", "/healthz", 500, "oops"), ("gateway", "api_health"), "HTTP 500: oops"),
    "an alias": (lambda beside: beside.out("vllm", "ollama"), ("gateway", "aliases_served"), "none for batch, chat: ollama down, vllm down"),
    "metrics": (answers("front", "/metrics", 200), ("gateway", "host_only"), "/metrics: HTTP 200"),
    "the switch": (answers("front", "/drain/", 405), ("gateway", "host_only"), "/drain/: HTTP 405"),
    "no key": (answers("front", "/vllm/version", 200), ("gateway", "keys_asked"), "/vllm/version: HTTP 200"),
}


@pytest.mark.parametrize("change, which, found", WRONG.values(), ids=WRONG)
def test_one_wrong_thing_fails_one_check(beside, change, which, found):
    change(beside)
    names = ("gateway", "exporter", "prometheus", "alertmanager")
    wrong = failed(judge(beside, *names))
    explained = {("gateway", name) for name in ("aliases_served", "host_only", "keys_asked")} if which == ("gateway", "api_health") else set()
    assert set(wrong) - explained == {which} and found in wrong[which]
    assert all("did not answer before" in wrong[name] for name in explained)
    check = next(check for check in judge(beside, which[0]) if check["name"] == which[1])
    assert check["hint"] and check["expected"]


def test_the_exporter_answers_with_an_error(beside):
    beside.others.answers["/metrics"] = (500, "oops")
    assert failed(judge(beside, "exporter")) == {("exporter", "api_health"): "HTTP 500: oops"}


@pytest.mark.parametrize("name", PIDS)
def test_a_unit_that_does_not_run_is_told_once(beside, name):
    beside.stop(name)
    checks = judge(beside, name)
    assert failed(checks) == {(name, check): f"{_check_beside.KINDS[name].unit} does not run" for check in (GATEWAY if name == "gateway" else UNIT)}
    assert [check["name"] for check in checks if check["hint"]] == ["unit_running"]


def test_a_unit_that_is_not_there(beside):
    (beside.host.root / _check_beside.KINDS["exporter"].file.lstrip("/")).unlink()
    beside.stop("exporter")
    assert judge(beside, "exporter", required=False) == []
    assert failed(judge(beside, "exporter"))["exporter", "unit_running"] == "there is no erni-ki-exporter.service"


def test_a_unit_is_not_asked_about_for_what_nobody_planned(beside):
    """Without CPUs of the system nothing holds it to some; without a number any memory limit will do; without keys everybody may ask."""
    checks = judge(beside, "gateway", cpuset="", memory_mib=None, keys=False)
    assert failed(checks) == {} and {"threads_in_cpuset", "keys_asked"} & {check["name"] for check in checks} == set()
    beside.host.write("/sys/fs/cgroup/system.slice/erni-ki-gateway.service/memory.max", "max")
    assert set(failed(judge(beside, "gateway", memory_mib=None))) == {("gateway", "memory_limit")}


def test_an_engine_that_comes_back_is_waited_for(beside, monkeypatch):
    beside.out("vllm", "ollama")
    assert ("gateway", "aliases_served") in failed(judge(beside, "gateway"))

    def comes_back(seconds):
        beside.engines["vllm"]["up"] = True
        beside.say()
    monkeypatch.setattr(_check_beside.time, "sleep", comes_back)
    assert failed(judge(beside, "gateway", patience=60)) == {}


def test_a_drained_engine_serves_no_alias(beside):
    beside.engines["ollama"]["drained"] = True
    beside.out("vllm")
    assert failed(judge(beside, "gateway")) == {("gateway", "aliases_served"): "none for batch, chat: ollama drained, vllm down"}


def test_a_gateway_without_aliases(beside):
    beside.aliases = {}
    beside.say()
    checks = judge(beside, "gateway")
    assert failed(checks) == {} and "there is no alias" in {check["found"] for check in checks}


def test_nobody_listens(beside):
    checks = judge(beside, "exporter", url="http://127.0.0.1:9")
    assert failed(checks) == {("exporter", "api_health"): "nothing listens on 127.0.0.1 port 9 (connection refused)"}


def test_a_bind_to_a_name(beside):
    place = f"localhost:{beside.front.port}"
    assert failed(judge(beside, "gateway", listens=[place, beside.place(beside.admin)])) == {}


def test_a_host_without_control_groups(beside):
    checks = _check_beside.checks(beside.wanted("exporter"), "7,15", str(beside.host.root), None)
    assert {check["found"] for check in checks} == {"no control groups are mounted"}


def test_files_of_a_process_that_cannot_be_read(beside, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")
    monkeypatch.setattr(os, "readlink", refuse)
    assert failed(judge(beside, "exporter"))["exporter", "listens_only_on"] == "/proc/4100/fd: Permission denied; run with become: true"


# ---- TLS


@pytest.mark.parametrize("validity, ok", [({}, True), ({"begin": -9, "end": -2}, False), ({"begin": 2}, False), ({"end": 20000}, True)])
def test_a_certificate(beside, tmp_path, validity, ok):
    pytest.importorskip("cryptography")
    beside.secure(tmp_path, **validity)
    checks = judge(beside, "gateway")
    assert set(failed(checks)) == (set() if ok else {("gateway", "certificate_valid")})
    found = next(check["found"] for check in checks if check["name"] == "certificate_valid")
    assert found.startswith("valid from 20") and (" left" in found) == (validity.get("end", 365) > 0)


def test_plain_http_where_tls_was_wanted(beside):
    checks = judge(beside, "gateway", url=f"https://127.0.0.1:{beside.front.port}")
    assert {name for _service, name in failed(checks)} == {"api_health", "aliases_served", "host_only", "keys_asked", "certificate_valid"}
    with pytest.raises(_http.HttpError):
        _http.certificate(f"https://127.0.0.1:{beside.front.port}", 5)


def test_a_certificate_that_says_nothing():
    with pytest.raises(_check.NotProven):
        _check_beside.validity(b"")


def test_a_moment_of_either_kind(tmp_path):
    pytest.importorskip("cryptography")
    import ssl
    der = ssl.PEM_cert_to_DER_cert(certificate(tmp_path, -1, 20000).read_text(encoding="utf-8").partition("-----BEGIN PRIV")[0])
    begin, end = _check_beside.validity(der)
    assert round((end - begin) / 86400) == 20001
    assert _check_beside._moment(b"991231235959", None) == 946684799 and _check_beside.days(86400) == "1 day"


# ---- options


@pytest.mark.parametrize("changes, message", [
    ({"url": "8080"}, "beside, gateway: '8080' is not a URL such as http://127.0.0.1:8000"),
    ({"url": "https://"}, "beside, gateway: 'https:' is not a URL such as https://127.0.0.1:8443"),
    ({"admin_url": "https://127.0.0.1:1"}, "beside, gateway: 'https://127.0.0.1:1' is not a URL such as http"),
    ({"listens": ["8080"]}, "beside, gateway: '8080' is not ADDRESS:PORT, such as 127.0.0.1:8080"),
    ({"listens": [":8080"]}, "':8080' is not ADDRESS:PORT"), ({"listens": ["a:b"]}, "'a:b' is not ADDRESS:PORT"),
])
def test_options_that_are_none(beside, changes, message):
    with pytest.raises(ValueError) as error:
        beside.wanted("gateway", **changes)
    assert message in str(error.value)


def test_options_with_ipv6(beside):
    assert _check_beside._place("[::1]:80") == ("::1", "80")
    assert json.dumps(_check_beside.options()) and _check_beside.wanted({"beside": None, "timeout": 1}) == []
