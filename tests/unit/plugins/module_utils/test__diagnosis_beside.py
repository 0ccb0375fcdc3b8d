# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the gateway, the exporter and the monitoring: each fault is one finding, in the gateway's own words where it has some."""
from __future__ import annotations

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils import _check_beside, _diagnosis_beside
from ansible_collections.erni_ki.inference.tests.unit.plugins.beside_host import PIDS, Beside
from ansible_collections.erni_ki.inference.tests.unit.plugins.module_utils.test__diagnosis import (
    codes, ended, fixture_diagnose, fixture_host, fixture_quiet, fixture_services, only,
)

__all__ = ["fixture_diagnose", "fixture_host", "fixture_quiet", "fixture_services"]


@pytest.fixture(name="beside")
def fixture_beside(host):
    found = Beside(host)
    yield found
    found.close()


@pytest.fixture(name="look")
def fixture_look(diagnose, host, beside):
    def run(*names, days=30, **changes):
        return diagnose(host, beside=beside.wanted(*names, **changes), certificate_days=days)
    return run


def test_a_right_host_has_no_finding(look):
    result = look()
    assert (result.findings, result.failed) == ([], []) and result.evaluated > 50


@pytest.mark.parametrize("name", PIDS)
def test_a_unit_that_does_not_run(look, beside, name):
    beside.stop(name)
    found = only(look())
    assert (found["severity"], found["service"], found["code"]) == ("critical" if name == "gateway" else "warning", name, "unit_stopped")
    assert "does not run" in found["evidence"] and "journalctl -u" in found["cure"]


def test_a_host_that_was_left_without_a_gateway(look, beside):
    beside.stop("gateway")
    (beside.host.root / _check_beside.KINDS["gateway"].file.lstrip("/")).unlink()
    assert look(required=False).findings == []
    assert "there is no erni-ki-gateway.service" in only(look("gateway"))["evidence"]


@pytest.mark.parametrize("name, answering, path", [("gateway", "front", "/healthz"), ("exporter", "others", "/metrics"), ("prometheus", "others", "/-/ready")])
def test_a_unit_that_does_not_answer(look, beside, name, answering, path):
    getattr(beside, answering).answers[path] = (500, "oops")
    found = only(look(name))
    assert (found["severity"], found["service"], found["code"]) == ("critical" if name == "gateway" else "warning", name, "not_answering")
    assert "HTTP 500: oops" in found["evidence"] and "systemctl restart" in found["cure"]


def test_it_answers_elsewhere(look, beside):
    beside.host.listen(PIDS["exporter"], ("127.0.0.1", 1))
    found = only(look("exporter", url="http://127.0.0.1:9", listens=["127.0.0.1:9"]))
    assert found["code"] == "not_answering" and "it listens on 127.0.0.1:1" in found["evidence"]


def test_an_engine_that_the_gateway_has_taken_out_and_that_is_well(look, beside):
    beside.out("ollama", why="wrong device: of tiny 0 of 5 bytes are on the GPU")
    found = only(look())
    assert (found["severity"], found["service"], found["code"]) == ("warning", "gateway", "engine_taken_out")
    assert "ollama is out: wrong device: of tiny 0 of 5 bytes are on the GPU" in found["evidence"]


def test_what_is_wrong_with_the_engine_itself_is_told_once(look, beside, host):
    beside.out("ollama")
    ended(host, "ollama", code=0)
    assert codes(look("gateway")) == [("critical", "ollama", "container_stopped")]


def test_an_engine_of_another_host_is_told_by_the_gateway_alone(look, beside):
    beside.engines["node2-vllm"] = dict(beside.engines["vllm"], name="node2-vllm")
    beside.out("node2-vllm", why="accepts no connection: timeout")
    assert "node2-vllm is out: accepts no connection: timeout" in only(look("gateway"))["evidence"]


def test_an_alias_without_an_engine(look, beside):
    beside.engines["vllm"]["drained"] = True
    beside.out("ollama", why="generates no token: /api/generate answers 500")
    found = only(look("gateway"))
    assert (found["severity"], found["code"]) == ("critical", "alias_without_engine")
    assert all(words in found["evidence"] for words in ("none for batch, chat", "ollama is out: generates no token", "vllm is drained"))


def test_an_alias_whose_engine_is_dead_is_folded_under_that(look, beside, host):
    beside.aliases = {"batch": ["vllm"]}
    beside.out("vllm")
    ended(host, "vllm", code=0)
    result = look("gateway")
    assert codes(result) == [("critical", "vllm", "container_stopped")]
    assert "gateway: aliases_served" in result.findings[0]["checks"] and result.open() == []


def test_docker_is_down_and_so_every_engine(look, beside, host):
    beside.out("vllm", "ollama")
    host.engine.problem = "the Docker Engine does not answer: Connection refused"
    result = look("gateway")
    assert codes(result)[0] == ("critical", "system", "docker_down")
    assert "gateway" not in {one["service"] for one in result.findings} and "gateway: aliases_served" in result.findings[0]["checks"]


@pytest.mark.parametrize("change, words", [
    (lambda beside: beside.admin.answers.pop("/engines"), "not JSON"), (lambda beside: beside.options["gateway"].pop("admin_url"), "does not say why"),
    (lambda beside: beside.admin.answers.update({"/engines": (200, "{}")}), "/engines")])
def test_a_gateway_that_does_not_say_why(look, beside, change, words):
    beside.out("vllm", "ollama")
    change(beside)
    found = only(look("gateway"))
    assert found["code"] == "alias_without_engine" and words in found["evidence"]


@pytest.mark.parametrize("path, keys", [("/metrics", False), ("/v1/models", True)])
def test_a_gateway_that_is_open(look, beside, path, keys):
    beside.front.answers[path] = (200, "{}")
    beside.front.answers["/vllm/version"] = (200, "{}") if keys else (401, "")
    found = only(look("gateway", keys=keys))
    assert (found["severity"], found["service"], found["code"]) == ("critical", "gateway", "gateway_open")


def test_a_gateway_that_listens_elsewhere_too(look, beside):
    beside.host.listen(PIDS["gateway"], ("0.0.0.0", 8080), *beside.places("gateway"))
    found = only(look("gateway"))
    assert (found["severity"], found["code"]) == ("critical", "published_elsewhere") and "0.0.0.0:8080" in found["evidence"]


def test_a_gateway_on_the_engines_cores(look, beside):
    beside.host.thread(4000, 4001, "nginx", "0-7")
    found = [one for one in look("gateway").findings if one["service"] == "gateway"]
    assert [(one["severity"], one["code"]) for one in found] == [("warning", "binding_lost")]


def test_another_memory_limit(look, beside):
    beside.host.write("/sys/fs/cgroup/system.slice/erni-ki-exporter.service/memory.max", "max")
    assert only(look("exporter"))["code"] == "drift"


@pytest.mark.parametrize("end, days, severity", [(365, 30, None), (20, 30, "warning"), (20, 10, None), (-0.5, 30, "critical")])
def test_a_certificate_that_ends(look, beside, tmp_path, end, days, severity):
    pytest.importorskip("cryptography")
    beside.secure(tmp_path, end=end)
    result = look("gateway", days=days)
    assert [(one["severity"], one["code"]) for one in result.findings] == ([(severity, "certificate_expires")] if severity else [])
    assert not severity or "valid" in result.findings[0]["evidence"]


def test_a_certificate_that_is_gone_a_moment_later(beside):
    [wanted] = beside.wanted("gateway", url="https://127.0.0.1:9")
    assert _diagnosis_beside._expiring(wanted, 30) == []
