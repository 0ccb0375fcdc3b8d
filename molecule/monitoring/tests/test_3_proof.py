# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof of what stands beside the engines holds on the right host, and each of its checks fails for its own wrong; diagnose says why."""
from __future__ import annotations

import json
import time

import pytest
from machine import asking

GATEWAY, EXPORTER = "erni-ki-gateway", "erni-ki-exporter"
CONFIGURED, SETTINGS = "/etc/erni-ki/gateway/nginx.conf", "/etc/erni-ki/gateway/settings.json"
FRONT, ADMIN = "http://127.0.0.1:8080", "http://127.0.0.1:9836"

# As the variables of this scenario say it.
BESIDE = [
    {"service": "gateway", "memory_mib": 1024, "listens": ["127.0.0.1:8080", "127.0.0.1:9836"], "url": FRONT, "admin_url": ADMIN},
    {"service": "exporter", "memory_mib": 128, "listens": ["127.0.0.1:9835"], "url": "http://127.0.0.1:9835"},
    {"service": "prometheus", "memory_mib": 512, "listens": ["127.0.0.1:9090"], "url": "http://127.0.0.1:9090"},
    {"service": "alertmanager", "memory_mib": 128, "listens": ["127.0.0.1:9093"], "url": "http://127.0.0.1:9093"},
    {"service": "node_exporter", "memory_mib": 128, "listens": ["127.0.0.1:9100"], "url": "http://127.0.0.1:9100"},
]
UNIT = {"unit_running", "threads_in_cpuset", "memory_limit", "listens_only_on", "api_health"}
NAMES = {one["service"] for one in BESIDE}


def beside(*names, **changes):
    return [{**one, **changes} for one in BESIDE if not names or one["service"] in names]


@pytest.fixture(name="judge")
def fixture_judge(prove):
    """The failed checks of what stands beside the engines."""
    def run(*names, **changes):
        result = prove(beside=beside(*names, **changes), services=["ollama"], generate=False, timeout=120)
        return {(check["service"], check["name"]) for check in result["checks"] if not check["ok"] and check["service"] in NAMES}, result["table"]
    return run


@pytest.fixture(name="well")
def fixture_well(host, wait_for):
    """Whatever a test did to the gateway, the next one finds it well."""
    def again():
        wait_for(lambda: host.run(asking(f"{FRONT}/healthz")).rc == 0, "every alias has an engine", seconds=900)
    again()
    yield again
    again()


@pytest.fixture(name="exporting")
def fixture_exporting(host, wait_for):
    """The exporter answers, though the test before started it again."""
    wait_for(lambda: host.run(asking("http://127.0.0.1:9835/metrics")).rc == 0, "the exporter answers", seconds=900)


@pytest.fixture(name="as_nginx_has_it")
def fixture_as_nginx_has_it(sh, well):
    """Let the gateway run with another configuration for a while."""
    def change(command):
        # Another address needs a start.
        sh(f"{command}; systemctl restart {GATEWAY}")
        well()
    sh(f"cp -a {CONFIGURED} /root/nginx.conf; cp -a {SETTINGS} /root/settings.json")
    yield change
    sh(f"cp -a /root/nginx.conf {CONFIGURED}; cp -a /root/settings.json {SETTINGS}; systemctl restart {GATEWAY}")


def test_it_holds(prove, well):
    result = prove(beside=BESIDE, generate=False, timeout=120)
    assert result["ok"], result["table"]
    told = {}
    for check in result["checks"]:
        told.setdefault(check["service"], set()).add(check["name"])
    assert told["gateway"] == UNIT | {"aliases_served", "host_only"}
    assert all(told[name] == UNIT for name in NAMES - {"gateway"})


def test_the_playbook_judges_it_by_the_variables(play, well):
    run = play("verify", "-e", json.dumps({"verify_generate": False}))
    assert run.code == 0, run.text
    assert all(f"{name} " in run.text for name in ("aliases_served", "host_only", "unit_running")), run.text
    # A variable that was not applied.
    run = play("verify", "-e", json.dumps({"verify_generate": False, "gateway_memory_mib": 512}))
    assert run.code != 0 and "gateway: memory_limit" in run.text, run.text


def test_unit_running(sh, judge, diagnose, exporting):
    sh(f"systemctl stop {EXPORTER}")
    try:
        failed, table = judge("exporter")
        assert failed == {("exporter", name) for name in UNIT}, table
        found = [one for one in diagnose(beside=beside("exporter"))["findings"] if one["service"] == "exporter"]
        assert [(one["severity"], one["code"]) for one in found] == [("warning", "unit_stopped")]
    finally:
        sh(f"systemctl start {EXPORTER}")


def test_threads_in_cpuset(sh, judge, exporting):
    """The exporter is held by its affinity, and so may be moved within what the fence leaves; the plan leaves it less."""
    sh("systemctl set-property --runtime system.slice AllowedCPUs=0-15")
    sh(f"for t in /proc/$(systemctl show -p MainPID --value {EXPORTER})/task/*; do taskset -pc 0-15 ${{t##*/}}; done")
    try:
        failed, table = judge("exporter")
        assert failed == {("exporter", "threads_in_cpuset")}, table
    finally:
        sh(f"systemctl set-property --runtime system.slice AllowedCPUs=14-15; systemctl restart {EXPORTER}")


@pytest.mark.parametrize("name, unit, limit", [("gateway", GATEWAY, "1024M"), ("prometheus", "prometheus", "512M")])
def test_memory_limit(sh, judge, name, unit, limit):
    sh(f"systemctl set-property --runtime {unit} MemoryMax=infinity")
    try:
        failed, table = judge(name)
        assert failed == {(name, "memory_limit")}, table
    finally:
        sh(f"systemctl set-property --runtime {unit} MemoryMax={limit}")


def test_listens_only_on(judge, as_nginx_has_it):
    as_nginx_has_it(f"sed -i 's/listen 127.0.0.1:8080/listen 0.0.0.0:8080/' {CONFIGURED}")
    failed, table = judge("gateway")
    assert failed == {("gateway", "listens_only_on")}, table


def test_host_only(judge, as_nginx_has_it):
    as_nginx_has_it(f"sed -i '0,/location = .healthz/s//location = \\/metrics {{ return 200; }}\\n        &/' {CONFIGURED}")
    failed, table = judge("gateway")
    assert failed == {("gateway", "host_only")}, table


def test_keys_asked(judge, as_nginx_has_it):
    # The variables say that there are keys, and the gateway has none.
    failed, table = judge("gateway", keys=True)
    assert failed == {("gateway", "keys_asked")}, table
    key = json.dumps({"0" * 64: {"name": "a", "requests_per_minute": 0, "burst": 1}})
    as_nginx_has_it(
        f"python3 -c 'import json; t = json.load(open(\"{SETTINGS}\")); t[\"keys\"] = {key}; json.dump(t, open(\"{SETTINGS}\", \"w\"))'")
    failed, table = judge("gateway", keys=True)
    assert failed == set(), table


def test_certificate_valid(sh, judge, diagnose, as_nginx_has_it):
    # The plain port stays for the tests that wait. The unit may not look into /root.
    folder = "/etc/erni-ki/gateway"
    secured = f"listen 127.0.0.1:8443 ssl; ssl_certificate {folder}/x.crt; ssl_certificate_key {folder}/x.key; listen 127.0.0.1:8080"
    tls = {"url": "https://127.0.0.1:8443", "listens": ["127.0.0.1:8080", "127.0.0.1:8443", "127.0.0.1:9836"]}
    as_nginx_has_it(f"openssl req -x509 -newkey rsa:2048 -nodes -days 10 -subj /CN=x -keyout {folder}/x.key -out {folder}/x.crt; "
                    f"sed -i 's#listen 127.0.0.1:8080#{secured}#' {CONFIGURED}")
    failed, table = judge("gateway", **tls)
    assert failed == set(), table
    found = [one for one in diagnose(beside=beside("gateway", **tls), certificate_days=30)["findings"] if one["service"] == "gateway"]
    assert [(one["severity"], one["code"]) for one in found] == [("warning", "certificate_expires")]
    sh(f"openssl req -x509 -key {folder}/x.key -subj /CN=x -not_before 20200101000000Z -not_after 20200201000000Z -out {folder}/x.crt; "
       f"systemctl reload {GATEWAY}; sleep 5")
    failed, table = judge("gateway", **tls)
    assert failed == {("gateway", "certificate_valid")}, table
    sh(f"rm {folder}/x.crt {folder}/x.key")


def test_aliases_served_and_why_not(sh, judge, diagnose, well):
    for engine in ("vllm", "ollama"):
        # A POST has a body.
        sh(asking(f"{ADMIN}/drain/{engine}", now=True))
    try:
        failed, table = judge("gateway")
        assert failed == {("gateway", "aliases_served")}, table
        found = [one for one in diagnose(beside=beside("gateway"))["findings"] if one["service"] == "gateway"]
        assert [(one["severity"], one["code"]) for one in found] == [("critical", "alias_without_engine")] and "vllm is drained" in found[0]["evidence"]
    finally:
        sh(f"systemctl restart {GATEWAY}")


def test_api_health(sh, judge, diagnose, well):
    pids = f"$(cat /sys/fs/cgroup/system.slice/{GATEWAY}.service/cgroup.procs)"
    sh(f"kill -STOP {pids}")
    try:
        begin = time.monotonic()
        failed, table = judge("gateway")
        assert ("gateway", "api_health") in failed and not {("gateway", name) for name in UNIT - {"api_health"}} & failed, table
        # Who hangs is asked once, and given up.
        assert time.monotonic() - begin < 600
        found = [one for one in diagnose(beside=beside("gateway"), timeout=10)["findings"] if one["service"] == "gateway"]
        assert [(one["severity"], one["code"]) for one in found] == [("critical", "not_answering")]
    finally:
        sh(f"kill -CONT {pids}")


def test_an_engine_that_the_gateway_has_taken_out(sh, diagnose, as_nginx_has_it, wait_for):
    """The engine is well, and the gateway looks for it where nobody listens."""
    as_nginx_has_it(f"sed -i 's/: 11434\\b/: 11435/' {SETTINGS}")
    wait_for(lambda: json.loads(sh(asking(f"{FRONT}/healthz")))["engines"]["ollama"] == "down", "the gateway has taken Ollama out", seconds=300)
    found = [one for one in diagnose(beside=beside("gateway"))["findings"] if one["service"] == "gateway"]
    assert [(one["severity"], one["code"]) for one in found] == [("warning", "engine_taken_out")]
    assert "ollama is out: accepts no connection" in found[0]["evidence"], found
