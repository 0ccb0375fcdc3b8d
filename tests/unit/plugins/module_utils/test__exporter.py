# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole exporter on a recorded host and real sockets: it keeps answering while others hang, and says what is missing."""
from __future__ import annotations

import http.client
import json
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ansible_collections.erni_ki.inference.plugins.module_utils import _exporter, _exporter_program, _usage
from ansible_collections.erni_ki.inference.plugins.module_utils._exporter_metrics import METRICS
from ansible_collections.erni_ki.inference.tests.unit.plugins.exporter_world import Card, World, until, with_gpu
from ansible_collections.erni_ki.inference.tests.unit.plugins.loopback_services import KEY, Services, recorded


def vllm_metrics(tokens_in, tokens_out, requests, started=5):
    return 200, (f'vllm:prompt_tokens_total{{engine="0"}} {tokens_in}\nvllm:generation_tokens_total{{engine="0"}} {tokens_out}\n'
                 f'vllm:request_success_total{{finished_reason="stop"}} {requests}\nprocess_start_time_seconds {started}\n')


@pytest.fixture(name="services")
def services_fixture():
    services = Services()
    services.answers["/metrics"] = vllm_metrics(0, 0, 0)
    services.answers["/api/ps"] = recorded("55-ps-loaded")
    yield services
    services.close()


class Hung:
    """Takes connections and says nothing, as a hung server does."""

    def __init__(self):
        self.server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.server.getsockname()[1]}"

    def close(self):
        self.server.close()


@pytest.fixture(name="hung")
def hung_fixture():
    hung = Hung()
    yield hung
    hung.close()


def settings(folder, services, **changes):
    key = pathlib.Path(folder, "key")
    key.write_text(KEY + "\n", encoding="utf-8")
    return {
        "address": "127.0.0.1", "port": 0, "plan": "/etc/erni-ki/plan.json", "interval": 0.1, "deadline": 1.0, "vllm_url": services.url,
        "vllm_api_key_file": str(key), "ollama_url": services.url, "gateway_url": "", "gateway_host": "h1", "probe_interval": 0.2,
        "probe_timeout": 2.0, "probe_loads_model": False,
        "usage_path": str(pathlib.Path(folder, "usage.jsonl")), "usage_interval": 3600, "usage_max_bytes": 1 << 20, "usage_files": 3, **changes}


class Running:
    """An exporter with its server."""

    def __init__(self, world, wanted):
        self.said, self.stop = [], threading.Event()
        world.host.apis = _exporter._apis(wanted, wanted["deadline"])
        self.exporter = _exporter.Exporter(wanted, world.host, self.said.append)
        self.server = _exporter.Server(("127.0.0.1", 0), self.exporter)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.exporter.start(self.stop)
        self.watch = threading.Thread(target=self.exporter.watch, args=(self.stop,), daemon=True)
        self.watch.start()

    def close(self):
        self.stop.set()
        self.watch.join(10)
        self.server.shutdown()
        self.server.server_close()

    def scrape(self, path="/metrics"):
        connection = http.client.HTTPConnection(*self.server.server_address, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode("utf-8")
        finally:
            connection.close()

    def values(self):
        status, text = self.scrape()
        assert status == 200
        return {(found.name, *found.labels.values()): found.value for family in text_string_to_metric_families(text) for found in family.samples}

    def until(self, true, seconds=10):
        """Return the values of the first answer that satisfies."""
        end = time.monotonic() + seconds
        while True:
            values = self.values()
            if true(values):
                return values
            assert time.monotonic() < end, values
            time.sleep(0.05)


@pytest.fixture(name="run")
def run_fixture(tmp_path, services):
    running = []

    def start(world=None, **changes):
        place = tmp_path / "host"
        place.mkdir(exist_ok=True)
        running.append(Running(world or World(place), settings(tmp_path, services, **changes)))
        return running[-1]

    yield start
    for one in running:
        one.close()


def failed(values):
    return {key[1] for key, value in values.items() if key[0] == "erni_ki_collect_failed" and value}


def test_every_name_is_exported(tmp_path, run):
    """On a host with a card, a loaded model and idle engines each metric has a value."""
    place = tmp_path / "host"
    place.mkdir()
    world = with_gpu(place, Card())
    running = run(world)
    running.until(lambda found: not failed(found))
    world.load.run(1021, 1.0)
    values = running.until(lambda found: {key[0] for key in found} >= set(METRICS))
    assert failed(values) == set()


def test_a_host_without_a_card_tells_nothing_of_one(run):
    values = run().until(lambda found: not failed(found))
    assert not [key for key in values if key[0].startswith("erni_ki_gpu_")] and ("erni_ki_collect_failed", "gpu") not in values


def test_a_hung_ollama(run, hung):
    running = run(ollama_url=hung.url)
    values = running.until(lambda found: failed(found) == {"ollama"} and ("erni_ki_service_generating", "ollama") in found, 30)
    assert values["erni_ki_service_generating", "ollama"] == 0 and values["erni_ki_service_generating", "vllm"] == 1
    assert not [key for key in values if key[0].startswith("erni_ki_ollama_")]
    for _turn in range(20):
        begun = time.monotonic()
        assert running.scrape()[0] == 200
        assert time.monotonic() - begun < 0.9, "an answer waited for Ollama"
    assert until(lambda: any(line.startswith("<4>ollama: ") for line in running.said))


def test_a_docker_that_hangs(tmp_path, run):
    place = tmp_path / "host"
    place.mkdir()
    world, gate = World(place), threading.Event()
    running = run(world)
    running.until(lambda found: not failed(found))
    world.engine.inspect_container = lambda name: gate.wait(60)
    values = running.until(lambda found: failed(found) == {"docker"})
    assert ("erni_ki_service_running", "vllm") not in values and ("erni_ki_service_threads", "vllm") in values
    gate.set()


def test_a_docker_that_is_not_there(tmp_path, run):
    place = tmp_path / "host"
    place.mkdir()
    world = World(place)
    world.engine.problem = "No such file or directory"
    values = run(world).until(lambda found: failed(found) == {"docker", "cgroup", "procs"} and ("erni_ki_ollama_wrong_device",) in found)
    # Which processes the containers are, only Docker knows.
    assert ("erni_ki_service_running", "vllm") not in values


def test_a_host_without_a_plan(tmp_path, run):
    place = tmp_path / "host"
    place.mkdir()
    world = World(place)
    world.recorded.remove("/etc/erni-ki/plan.json")
    values = run(world).until(lambda found: len(failed(found)) == 7)
    assert {key[0] for key in values} == {"erni_ki_collect_failed", "erni_ki_collect_seconds"}


def test_only_metrics_are_there(run):
    assert run().scrape("/")[0] == 404


# ---- the usage log


def lines(folder):
    return [json.loads(line) for line in pathlib.Path(folder, "usage.jsonl").read_text(encoding="utf-8").splitlines()]


def settle(running):
    """Wait until every source has looked again."""
    counts = {name: source.state().ended for name, source in running.exporter.sources.items()}
    assert until(lambda: all(source.state().ended > counts[name] + 0.1 for name, source in running.exporter.sources.items()))


def test_lines_add_up_over_a_restart_of_the_exporter(tmp_path, services, run):
    """What the services do while it is away is in the first line after; nothing is counted twice."""
    place = tmp_path / "host"
    place.mkdir()
    world = World(place)
    services.answers["/metrics"] = vllm_metrics(1000, 5000, 100)
    first = run(world, probe_interval=0)
    first.until(lambda found: not failed(found))
    settle(first)
    first.exporter.note()
    world.load.run(1021, 6.0)
    services.answers["/metrics"] = vllm_metrics(1010, 5200, 103)
    settle(first)
    first.exporter.note()
    first.close()
    world.load.run(1022, 3.0)
    services.answers["/metrics"] = vllm_metrics(1011, 5300, 104)
    again = World(tmp_path / "other")
    again.load.run(1021, 6.0)
    again.load.run(1022, 3.0)
    second = run(again, probe_interval=0)
    second.until(lambda found: not failed(found))
    settle(second)
    second.exporter.note()
    # vLLM is started anew.
    services.answers["/metrics"] = vllm_metrics(2, 9000, 1, started=6)
    settle(second)
    second.close()
    found = lines(tmp_path)
    used = [line["services"]["vllm"] for line in found]
    assert "tokens_out" not in used[0]
    assert sum(one.get("tokens_out", 0) for one in used) == 300 + 9000 and sum(one.get("tokens_in", 0) for one in used) == 11 + 2
    assert sum(one.get("requests", 0) for one in used) == 4 + 1
    assert sum(sum(one.get("cpu_seconds", {}).values()) for one in used) == pytest.approx(9.0, abs=0.001)
    assert all(line["seconds"] >= 0 and line["missing"] == [] for line in found)
    assert any(line.startswith('<6>usage {"missing"') for line in second.said)
    assert found[0]["services"]["ollama"]["vram_bytes"] == 0 and used[0]["memory_working_set_bytes"] == 600 << 20


def test_a_line_that_cannot_be_written_is_made_up_for(tmp_path, run):
    place = tmp_path / "host"
    place.mkdir()
    world = World(place)
    running = run(world, probe_interval=0)
    running.until(lambda found: not failed(found))
    settle(running)
    running.exporter.note()
    path, running.exporter.log.path = running.exporter.log.path, "/proc/nowhere/usage.jsonl"
    world.load.run(1021, 2.0)
    settle(running)
    running.exporter.note()
    assert any(line.startswith("<3>usage log: /proc/nowhere") for line in running.said)
    running.exporter.log.path = path
    world.load.run(1021, 1.0)
    settle(running)
    running.exporter.note()
    assert lines(tmp_path)[-1]["services"]["vllm"]["cpu_seconds"] == pytest.approx({"0": 3.0})


@pytest.mark.parametrize("name", ["ollama", "h1-ollama"])
def test_what_the_gateway_counts_of_ollama(tmp_path, services, run, name):
    def gateway(tokens):
        return 200, (f'erni_ki_gateway_requests_total{{engine="{name}",status="200"}} {tokens // 10}\n'
                     f'erni_ki_gateway_requests_total{{engine="{name}",status="502"}} 1\n'
                     f'erni_ki_gateway_tokens_total{{engine="{name}"}} {tokens}\nerni_ki_gateway_tokens_total{{engine="h2-ollama"}} 999\n')

    other = Services()
    try:
        other.answers["/metrics"] = gateway(500)
        running = run(gateway_url=other.url, probe_interval=0)
        running.until(lambda found: not failed(found))
        running.exporter.note()
        other.answers["/metrics"] = gateway(740)
        running.exporter.note()
    finally:
        other.close()
    running.exporter.note()
    used = [line["services"]["ollama"] for line in lines(tmp_path)]
    assert [(one.get("tokens_out"), one.get("requests"), one.get("tokens_in")) for one in used] == [(None, None, None), (240, 24, None), (None, None, None)]


def test_what_is_missing_stands_in_the_line(run, tmp_path, hung):
    running = run(vllm_url=hung.url, probe_interval=0)
    running.until(lambda found: failed(found) == {"vllm"})
    running.exporter.note()
    [line] = lines(tmp_path)
    assert line["missing"] == ["vllm"] and "tokens_in" not in line["services"]["vllm"] and _usage.decode(json.dumps(line))


# ---- as the program that it becomes


@pytest.fixture(name="program", scope="module")
def program_fixture(tmp_path_factory):
    folder = tmp_path_factory.mktemp("program")
    for name, text in _exporter_program.files(_exporter.__name__).items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    return folder / _exporter_program.LAUNCHER


def test_the_program_runs_from_its_folder_alone(tmp_path, services, program):
    """Isolated as the service runs it: nothing but its own folder and what the system's Python has."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    (tmp_path / "plan.json").write_text("{}", encoding="utf-8")
    file = tmp_path / "exporter.json"
    file.write_text(json.dumps(settings(tmp_path, services, port=port, plan=str(tmp_path / "plan.json"))), encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-IX", f"pycache_prefix={tmp_path}", str(program), str(file)], cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert until(lambda: _answers(port), 120)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[0]
    finally:
        process.kill()
    assert process.returncode == 0 and "<4>plan: " in said and "Traceback" not in said
    [line] = lines(tmp_path)
    assert line["services"] == {} and "plan" in line["missing"]


def _answers(port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            return b'erni_ki_collect_failed{source="plan"} 1.0' in b"".join(iter(lambda: connection.recv(65536), b""))
    except OSError:
        return False


@pytest.mark.parametrize("text, words", [(None, "FileNotFoundError"), ("{", "cannot start"), ("{}", "KeyError: 'interval'")])
def test_settings_that_cannot_be_used(tmp_path, program, text, words):
    file = tmp_path / "exporter.json"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    done = subprocess.run([sys.executable, "-I", str(program), str(file)], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1 and words in done.stdout and "Traceback" not in done.stderr


def test_a_port_that_somebody_has(tmp_path, services, program):
    with socket.create_server(("127.0.0.1", 0)) as server:
        file = tmp_path / "exporter.json"
        file.write_text(json.dumps(settings(tmp_path, services, port=server.getsockname()[1])), encoding="utf-8")
        done = subprocess.run([sys.executable, "-I", str(program), str(file)], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1 and "Address already in use" in done.stdout


def test_the_program_is_the_child_too(program):
    done = subprocess.run([sys.executable, "-I", str(program), "--gpu"], input="\n", capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0 and ("code" in json.loads(done.stdout) or "bindings" in json.loads(done.stdout))
