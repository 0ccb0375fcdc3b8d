# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what a host shows to what is wrong with it: each fault becomes the one finding that explains it, and a right host has none."""
from __future__ import annotations

import os
import shutil

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils import _check, _check_api, _diagnosis, _docker, _proof, _vitals
from ansible_collections.erni_ki.inference.tests.unit.plugins.loopback_services import KEY, Services
from ansible_collections.erni_ki.inference.tests.unit.plugins.recorded_gpu_host import DRIVER, GpuHost
from ansible_collections.erni_ki.inference.tests.unit.plugins.recorded_host import MIB, PIDS, Host
from ansible_collections.erni_ki.inference.tests.unit.plugins.module_utils.test__engine_logs import AFTER, KV

pytest.importorskip("docker")

STARTED = "2026-11-27T15:40:00.123456789Z"


class Engine:
    """Docker on a recorded host."""

    def __init__(self, host):
        self.host = host
        self.problem = None
        self.texts, self.images, self.since = {}, set(), {}

    def inspect(self, name):
        return (None, self.problem) if self.problem else (self.host.containers.get(name), None)

    def logs(self, name, lines, since=None):
        self.since[name] = since
        return self.texts.get(name, "")

    def has_image(self, name):
        return name in self.images

    def data_root(self):
        return "/proc"


@pytest.fixture(name="services")
def fixture_services():
    services = Services()
    services.answers["/api/ps"] = (200, '{"models": []}')
    yield services
    services.close()


@pytest.fixture(autouse=True)
def fixture_quiet(monkeypatch):
    """The machine that tests is not the one that is judged."""
    monkeypatch.setattr(_check, "PAUSE", 0)
    monkeypatch.setattr(_vitals, "clock_status", lambda: 0)
    monkeypatch.setattr(_vitals, "disks", lambda root, places: [])


@pytest.fixture(name="host")
def fixture_host(tmp_path):
    return made(Host(tmp_path / "host"))


def made(host):
    for attributes in host.containers.values():
        attributes["State"]["StartedAt"], attributes["Created"], attributes["Mounts"] = STARTED, STARTED, []
    host.engine = Engine(host)
    return host


@pytest.fixture(name="diagnose")
def fixture_diagnose(services, tmp_path):
    key = tmp_path / "key"
    key.write_text(KEY, encoding="utf-8")

    def run(host, plan="its own", problem=None, url=None, **options):
        for attributes in filter(None, host.containers.values()):
            for published in (place for some in (attributes["NetworkSettings"]["Ports"] or {}).values() for place in some or []):
                published["HostPort"] = str(services.port)
        plan = host.plan if plan == "its own" else plan
        names = _proof.planned_services(plan) if plan else list(_proof.SERVICES)
        apis = {name: _check_api.Api(name, (url or {}).get(name, services.url), 5, None, str(key) if name == "vllm" else None) for name in _proof.SERVICES}
        probe = getattr(host, "probe", lambda folder, numbers, paths: [(f"character device {major}:{minor}", False) for major, minor in numbers])
        look = getattr(host, "look", lambda root: {"state": "no_card", "hint": ""})
        asked = _diagnosis.Host(host.engine, str(host.root), interval=0.01, probe=probe, look=look, **options)
        return _diagnosis.diagnose(plan, names, apis, asked, problem)
    return run


def codes(result):
    return [(one["severity"], one["service"], one["code"]) for one in result.findings]


def only(result):
    """Return the one finding; every failed check must be explained by it."""
    assert len(result.findings) == 1, result.findings
    assert result.open() == []
    return result.findings[0]


def without_processes(host, service):
    pid = PIDS[service]
    for folder in host.root.glob("proc/[0-9]*"):
        if pid <= int(folder.name) < pid + 100:
            shutil.rmtree(folder)


def gone(host, service="vllm"):
    without_processes(host, service)
    host.containers[service] = None


def ended(host, service="vllm", code=1, **state):
    """Let a container end."""
    without_processes(host, service)
    host.containers[service]["State"].update({
        "Status": "exited", "Running": False, "Pid": 0, "ExitCode": code, "Health": {"Status": "unhealthy", "Log": []}, **state})


SILENT = {"vllm": "http://127.0.0.1:9", "ollama": "http://127.0.0.1:9"}


def test_a_right_host_has_no_finding(diagnose, host):
    result = diagnose(host)
    assert (result.findings, result.logs, result.failed) == ([], {}, []) and result.evaluated > 30


def test_a_right_host_has_no_finding_with_tokens_either(diagnose, host, services):
    assert diagnose(host, generate=True).findings == []
    assert "/api/generate" in {path for _method, path, _body, _key in services.asked}


def test_no_model_is_loaded_and_no_token_made(diagnose, host, services):
    diagnose(host)
    assert {path for _method, path, _body, _key in services.asked} == {"/health", "/api/version"}


# ---- the whole


def test_docker_is_down(diagnose, host):
    host.engine.problem = "the Docker Engine does not answer: Connection refused"
    one = only(diagnose(host))
    assert (one["severity"], one["code"]) == ("critical", "docker_down") and "Connection refused" in one["evidence"]
    assert {"vllm: container_running", "ollama: container_running", "system: exclusive_cores"} <= set(one["checks"])


def test_no_sdk(diagnose, host):
    host.engine.problem = _docker.NO_SDK
    assert only(diagnose(host))["code"] == "docker_sdk_missing"


@pytest.mark.parametrize("error, code, words", [
    (FileNotFoundError(2, "No such file or directory"), "plan_missing", "no such file"),
    (PermissionError(13, "Permission denied"), "plan_unreadable", "denied"),
    (ValueError("Expecting value"), "plan_invalid", "Expecting value"), (_proof.PlanError("the plan is not an object"), "plan_invalid", "not an object"),
])
def test_no_plan(diagnose, host, error, code, words):
    one = only(diagnose(host, plan=None, problem=_diagnosis.plan_finding("/etc/erni-ki/plan.json", error)))
    assert one["code"] == code and words in one["evidence"] and "/etc/erni-ki/plan.json" in one["evidence"]


def test_without_a_plan_what_is_there_is_looked_at_all_the_same(diagnose, host):
    ended(host)
    host.engine.texts["vllm"] = KV + AFTER
    host.containers["ollama"] = None
    assert codes(diagnose(host, plan=None)) == [("critical", "vllm", "kv_cache_too_large")]


# ---- a service that does not start


def test_a_container_that_is_gone(diagnose, host):
    gone(host)
    one = only(diagnose(host))
    assert one["code"] == "container_missing" and {"vllm: container_running", "vllm: omp_threads"} <= set(one["checks"])


def test_an_image_that_is_gone(diagnose, host):
    gone(host)
    host.write("/opt/erni-ki/vllm/compose.yaml", "name: erni-ki\nservices:\n  vllm:\n    container_name: vllm\n    image: example/vllm:1\n")
    one = only(diagnose(host))
    assert one["code"] == "image_missing" and "example/vllm:1" in one["evidence"]
    host.engine.images.add("example/vllm:1")
    assert only(diagnose(host))["code"] == "container_missing"
    host.write("/opt/erni-ki/vllm/compose.yaml", "services: {}\n")
    assert only(diagnose(host))["code"] == "container_missing"


def test_the_engines_own_reason_with_the_plans_numbers(diagnose, host):
    ended(host)
    host.engine.texts["vllm"] = KV + AFTER
    result = diagnose(host, url=SILENT)
    one = next(one for one in result.findings if one["service"] == "vllm")
    assert one["code"] == "kv_cache_too_large" and "ExitCode 1" in one["evidence"] and "requested memory for kv (8.0 GiB)" in one["evidence"]
    assert "6144 MiB" in one["cause"] and "4 GiB" in one["cause"]
    assert len(one["checks"]) > 10 and not [name for name in one["checks"] if not name.startswith("vllm: ")]
    assert result.logs["vllm"][-1].startswith("(APIServer pid=1) RuntimeError") and _diagnosis.moment(STARTED) == host.engine.since["vllm"]


@pytest.mark.parametrize("state, log, code, words", [
    ({"code": 137, "OOMKilled": True}, "", "oom_kill", "OOMKilled true"),
    ({"code": 137}, "", "killed", "its log is empty"),
    ({"code": 132}, "", "isa_unsupported", "ExitCode 132"),
    ({"code": 135}, "", "shm_too_small", "ExitCode 135"),
    ({"code": 0}, "fine\n", "container_stopped", "ExitCode 0"),
    ({"code": 143}, "", "container_stopped", "ExitCode 143"),
    ({"code": 0, "Status": "created"}, "", "container_stopped", "created"),
    ({"code": 3}, "one\ntwo\nthree\nfour\n", "start_failed", "two | three | four"),
    ({"code": 128, "Error": "failed to bind host port for 127.0.0.1:8000: address already in use"}, "", "port_taken", "127.0.0.1:8000"),
    ({"code": 128, "Error": "something new"}, "", "start_failed", "something new"),
    ({"code": 1, "Status": "restarting", "Running": True}, "odd\n", "restart_loop", "odd"),
])
def test_how_a_container_ended(diagnose, host, state, log, code, words):
    ended(host, **state)
    host.engine.texts["vllm"] = log
    one = only(diagnose(host))
    assert (one["severity"], one["code"]) == ("critical", code) and words in one["evidence"], one
    assert "vllm: container_running" in one["checks"]


def test_a_folder_that_is_gone_keeps_the_container_from_starting(diagnose, host):
    ended(host, code=137)
    host.write("/srv/models/there/config.json", "{}")
    host.containers["vllm"]["Mounts"] = [
        {"Type": "bind", "Source": "/srv/models/there", "Destination": "/a"}, {"Type": "volume", "Source": "/x", "Destination": "/y"}]
    assert only(diagnose(host))["code"] == "killed"
    host.containers["vllm"]["Mounts"].append({"Type": "bind", "Source": "/srv/models/gone", "Destination": "/b"})
    # How it ended before is not why it does not run.
    host.containers["vllm"]["State"]["OOMKilled"] = True
    one = only(diagnose(host))
    assert one["code"] == "bind_mount_missing" and "/srv/models/gone" in one["evidence"] and "/srv/models/there" not in one["evidence"]


def test_a_kill_for_memory_that_only_the_slice_still_knows(diagnose, host):
    ended(host, code=137)
    host.write("/sys/fs/cgroup/erniki.slice/erniki-vllm.slice/memory.events", "oom 2\noom_kill 2\n")
    one = only(diagnose(host))
    assert one["code"] == "oom_kill" and "2 killed in erniki-vllm.slice" in one["evidence"] and "plan_vllm_memory_limit_mib" in one["cure"]


def test_a_loop_whose_reason_is_in_the_log_of_an_earlier_run(diagnose, host):
    host.containers["vllm"]["RestartCount"] = 4
    host.containers["vllm"]["State"]["Health"]["Status"] = "starting"
    host.engine.texts["vllm"] = KV + AFTER + "INFO starting anew\n"
    one = only(diagnose(host))
    assert one["code"] == "kv_cache_too_large" and "restarted 4 times" in one["evidence"] and host.engine.since["vllm"] is None
    assert set(one["checks"]) == {"vllm: container_health", "vllm: restart_count"}


def test_a_loop_by_kills(diagnose, host):
    host.containers["vllm"]["RestartCount"] = 4
    host.containers["vllm"]["State"]["Health"]["Status"] = "starting"
    host.write("/sys/fs/cgroup/erniki.slice/erniki-vllm.slice/memory.events", "oom 4\noom_kill 4\n")
    assert only(diagnose(host))["code"] == "oom_kill"


# Of a container before this one the slice still has the kills.
@pytest.mark.parametrize("killed_before", [0, 1, 3])
def test_a_loop_for_no_known_reason(diagnose, host, killed_before):
    host.containers["vllm"]["RestartCount"] = 4
    host.containers["vllm"]["State"]["Health"]["Status"] = "starting"
    host.write("/sys/fs/cgroup/erniki.slice/erniki-vllm.slice/memory.events", f"oom {killed_before}\noom_kill {killed_before}\n")
    # Its processes ended while they were looked at.
    without_processes(host, "vllm")
    host.engine.texts["vllm"] = "odd\n"
    assert only(diagnose(host))["code"] == "restart_loop"


def test_a_service_that_came_back(diagnose, host):
    host.containers["vllm"]["RestartCount"] = 1
    one = only(diagnose(host))
    assert (one["severity"], one["code"], one["checks"]) == ("warning", "restarted", ["vllm: restart_count"])


# ---- a service that runs and does not work


def test_starting(diagnose, host):
    host.containers["vllm"]["State"]["Health"]["Status"] = "starting"
    host.engine.texts["vllm"] = "INFO loading weights\n"
    one = only(diagnose(host))
    assert (one["severity"], one["code"]) == ("info", "starting") and "loading weights" in one["evidence"]


def test_a_port_that_is_not_listened_on_yet(diagnose, host):
    host.containers["vllm"]["State"]["Health"]["Status"] = "starting"
    host.containers["vllm"]["NetworkSettings"]["Ports"] = {}
    assert only(diagnose(host))["checks"] == ["vllm: container_health", "vllm: listens_only_on"]


def test_starting_again(diagnose, host):
    host.containers["vllm"]["State"]["Health"]["Status"] = "starting"
    host.containers["vllm"]["RestartCount"] = 1
    result = diagnose(host)
    assert codes(result) == [("warning", "vllm", "restarted"), ("info", "vllm", "starting")] and result.open() == []


def test_an_engine_that_goes_away_meanwhile(diagnose, host):
    host.containers["vllm"]["State"]["Health"]["Status"] = "unhealthy"

    def logs(name, lines, since=None):
        host.engine.problem = "the Docker Engine does not answer: Read timed out"
        return ""

    host.engine.logs = logs
    assert [one["code"] for one in diagnose(host).findings] == ["not_answering", "docker_down"]


def test_starting_in_vain(diagnose, host):
    host.containers["vllm"]["State"]["Health"]["Status"] = "starting"
    host.engine.texts["vllm"] = KV
    assert only(diagnose(host))["code"] == "kv_cache_too_large"


def test_unhealthy(diagnose, host):
    host.containers["ollama"]["State"]["Health"] = {"Status": "unhealthy", "Log": [{"ExitCode": 1, "Output": "could not connect\n"}]}
    one = only(diagnose(host))
    assert (one["severity"], one["code"]) == ("critical", "not_answering") and "could not connect" in one["evidence"]


def test_without_a_health_check(diagnose, host):
    del host.containers["ollama"]["State"]["Health"]
    one = only(diagnose(host))
    assert (one["severity"], one["code"], one["checks"]) == ("warning", "no_health_check", ["ollama: container_health"])


def test_hung(diagnose, host, services):
    services.answers["/api/version"] = (503, "busy")
    one = only(diagnose(host))
    assert (one["code"], one["checks"]) == ("not_answering", ["ollama: api_health"]) and "HTTP 503: busy" in one["evidence"]


def test_answers_and_does_not_work(diagnose, host, services):
    services.answers["/api/generate"] = (500, '{"error": "model runner has unexpectedly stopped"}')
    one = only(diagnose(host, generate=True))
    assert (one["code"], one["checks"]) == ("not_generating", ["ollama: token_generated"]) and "unexpectedly stopped" in one["evidence"]


def test_paused(diagnose, host):
    host.containers["ollama"]["State"].update({"Status": "paused", "Paused": True})
    one = only(diagnose(host))
    assert one["code"] == "container_paused" and "docker unpause" in one["cure"]
    # A health check that was on its way in, with what runc has: it will lose that when it goes on.
    host.process(2500, "runc:[2:INIT]", host.group_path("ollama"), "7,15", status="Uid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\nNoNewPrivs:\t0\n")
    one = only(diagnose(host))
    assert one["code"] == "container_paused" and "ollama: hardening" in one["checks"]


# ---- what the proof finds


@pytest.mark.parametrize("change, severity, code, words", [
    (lambda host: host.thread(1020, 1025, "VLLM::Worker", "15"), "warning", "binding_lost", "omp_threads"),
    (lambda host: host.cpuset(host.group_path("vllm"), "0-6"), "warning", "binding_lost", "cpuset_effective: expected 0-6,8-14, found 0-6"),
    (lambda host: host.memory(host.group_path("vllm"), 3072, 3072, 2048), "warning", "drift", "memory_limit: expected 6144 MiB, found 3072 MiB"),
    (lambda host: host.write(host.container_file("vllm", "memory.events"), "oom 1\noom_kill 1\n"), "critical", "oom_kill", "1 processes killed"),
    (lambda host: host.write("/proc/1000/root/dev/nvidia0", ""), "critical", "gpu_visible", "/dev/nvidia0"),
    (lambda host: host.process(1000, "vllm", host.group_path("vllm"), "0-6,8-14", status="Uid:\t0\t0\t0\t0\nCapEff:\t00000000a80425fb\nNoNewPrivs:\t0\n"),
     "critical", "confinement_lost", "capabilities"),
    (lambda host: host.process(5000, "stress", "/foreign.slice", "0-15"), "warning", "fence_broken", "stress"),
    (lambda host: host.cpuset("/user.slice", "0-15"), "warning", "fence_broken", "user.slice may use 0-15"),
])
def test_failed_checks(diagnose, host, change, severity, code, words):
    environment = (host.root / "proc/1000/environ").read_text(encoding="utf-8")
    change(host)
    host.write("/proc/1000/environ", environment)
    found = [one for one in diagnose(host).findings if one["code"] == code]
    assert len(found) == 1 and found[0]["severity"] == severity and words in found[0]["evidence"] and found[0]["cure"]


def test_a_port_that_is_open_to_all(diagnose, host):
    host.containers["ollama"]["NetworkSettings"]["Ports"]["11434/tcp"].append({"HostIp": "0.0.0.0", "HostPort": "1"})
    assert codes(diagnose(host)) == [("critical", "ollama", "published_elsewhere")]


def test_every_failed_check_is_explained_and_each_kind_told_once(diagnose, host):
    host.cpuset(host.group_path("vllm"), "0-6")
    host.thread(1020, 1025, "VLLM::Worker", "15")
    host.memory(host.group_path("vllm"), 3072, 4096, 1024)
    result = diagnose(host)
    assert result.open() == [] and sorted(one["code"] for one in result.findings) == ["binding_lost", "drift"]
    drift = next(one for one in result.findings if one["code"] == "drift")
    assert drift["checks"] == ["vllm: memory_limit", "vllm: swap_limit", "vllm: memory_reservation"]


def test_a_plan_that_was_written_later(diagnose, host):
    host.memory(host.group_path("vllm"), 3072, 3072, 2048)
    created = _diagnosis.moment(STARTED)
    assert "after the container was made" in only(diagnose(host, written=created + 60))["cause"]
    assert "after the container was made" not in only(diagnose(host, written=created - 60))["cause"]


def test_a_healthy_engine_that_said_at_its_start_why_its_threads_are_elsewhere(diagnose, host):
    for cpu in range(7):
        host.thread(1020, 1021 + cpu, "VLLM::Worker", "0-6,8-14")
    host.thread(1020, 1040, "pt_child", "3")
    host.engine.texts["vllm"] = "OMP: Warning #124: KMP_AFFINITY: invalid OS proc ID 15 ignored.\n"
    one = only(diagnose(host))
    assert (one["severity"], one["code"], one["checks"]) == ("warning", "bind_outside_cpuset", ["vllm: omp_threads"])


def test_the_codes_of_all_checks_are_known(diagnose, host):
    """A check that a table does not name is drift; no code may be the name of a check."""
    assert not {code for code, _severity, _cause in _diagnosis.CHECKS.values()} & set(_diagnosis.CHECKS)


# ---- Ollama's GPU


@pytest.fixture(name="gpu_host")
def fixture_gpu_host(tmp_path, monkeypatch):
    host = made(GpuHost(tmp_path / "gpu"))
    host.patch(monkeypatch)
    host.engine.texts["ollama"] = 'level=INFO msg="inference compute" id=GPU-1 library=CUDA\n'
    return host


def loaded(services, vram, size=100 * MIB):
    services.answers["/api/ps"] = (200, '{"models": [{"name": "m:1", "size": %d, "size_vram": %d}]}' % (size, vram))


@pytest.mark.parametrize("vram", [None, 100 * MIB])
def test_a_right_gpu(diagnose, gpu_host, services, vram):
    if vram:
        loaded(services, vram)
    assert diagnose(gpu_host).findings == []


def test_a_model_on_cpus_for_no_reason_that_the_host_shows(diagnose, gpu_host, services):
    loaded(services, 0)
    one = only(diagnose(gpu_host))
    assert (one["severity"], one["code"], one["checks"]) == ("critical", "ollama_on_cpu", ["ollama: gpu_loaded"])
    assert "m:1: all of 100 MiB on CPUs" in one["evidence"] and "/api/ps" in one["evidence"] and "GPU itself can be used" in one["cause"]


def test_a_model_that_does_not_fit(diagnose, gpu_host, services):
    loaded(services, 60 * MIB)
    one = only(diagnose(gpu_host))
    assert (one["severity"], one["code"]) == ("warning", "ollama_partly_on_cpu") and "60 %" in one["evidence"] and "plan_ollama_context_length" in one["cure"]


def test_what_ollama_saw_at_its_start(diagnose, gpu_host):
    gpu_host.engine.texts["ollama"] = (
        'level=WARN source=gpu.go msg="unable to load CUDA driver library" error="cuda driver library init failure: 999"\n'
        'level=INFO msg="inference compute" id=cpu library=cpu\n')
    one = only(diagnose(gpu_host))
    assert one["code"] == "ollama_on_cpu" and "it listed cpu at its start" in one["evidence"] and "init failure: 999" in one["evidence"]


def test_the_driver_is_the_reason(diagnose, gpu_host, services):
    loaded(services, 0)
    gpu_host.answer = dict(gpu_host.answer, code=18, message="Driver/library version mismatch", nvml_version="13.580.126.09", gpus=[], count=0)
    one = next(one for one in diagnose(gpu_host).findings if one["service"] == "ollama")
    assert one["code"] == "ollama_on_cpu" and "state is version_mismatch" in one["cause"] and f"{DRIVER}" in one["cause"] and "Reboot" in one["cure"]
    assert {"ollama: gpu_loaded", "ollama: gpu_driver", "ollama: gpu_uuid"} <= set(one["checks"])


def test_a_driver_that_cannot_be_read(diagnose, gpu_host, services):
    loaded(services, 0)

    def broken(root):
        raise RuntimeError("boom")

    gpu_host.look = broken
    one = next(one for one in diagnose(gpu_host).findings if one["code"] == "ollama_on_cpu")
    assert "unreadable" in one["cause"] and "boom" in one["cure"]


def test_a_gpu_that_cannot_be_used_before_anything_was_loaded(diagnose, gpu_host):
    gpu_host.permitted.discard("nvidiactl")
    one = only(diagnose(gpu_host))
    assert (one["severity"], one["code"], one["checks"]) == ("critical", "gpu_unusable", ["ollama: gpu_nodes"])


def test_with_tokens_the_proof_itself_finds_the_model(diagnose, gpu_host, services):
    loaded(services, 0)
    one = only(diagnose(gpu_host, generate=True))
    assert one["code"] == "ollama_on_cpu" and "ollama: gpu_loaded" in one["checks"]


def test_nothing_is_said_of_the_gpu_of_a_container_that_is_dead(diagnose, gpu_host):
    ended(gpu_host, "ollama", 3)
    assert [one["code"] for one in diagnose(gpu_host).findings if one["service"] == "ollama"] == ["start_failed"]


@pytest.mark.parametrize("answer", [(500, "no"), (200, "[]"), (200, '{"models": 5}')])
def test_an_ollama_that_does_not_say_what_it_has_loaded(diagnose, gpu_host, services, answer):
    services.answers["/api/ps"] = answer
    assert diagnose(gpu_host).findings == []


# ---- the vitals


def test_who_is_busy_is_asked_of_the_scheduler(diagnose, host, monkeypatch):
    host.write("/proc/5000/task/5000/stat", "")
    host.process(5000, "stress", "/foreign.slice", "0-15")
    host.write("/proc/5000/task/5000/stat", "5000 (stress) R" + " 0" * 35 + " 3 0\n")
    count = [0.0]

    def moments(root, pids):
        count[0] += 1
        return {(5000, 5000): _vitals.Moment(count[0], count[0], 0), (2010, 2010): _vitals.Moment(count[0], 0, count[0]),
                (2010, 2011): _vitals.Moment(count[0], count[0], 0)}

    monkeypatch.setattr(_vitals, "moments", moments)
    found = {one["code"]: one for one in diagnose(host).findings}
    assert set(found) == {"foreign_on_cores", "threads_oversubscribed"} and found["foreign_on_cores"]["checks"] == ["system: exclusive_cores"]


def test_what_the_kernel_does_to_a_service(diagnose, host):
    host.write(f"{host.folder(host.group_path('ollama'))}/cpu.stat", "nr_periods 9\nnr_throttled 3\n")
    host.write(host.container_file("vllm", "memory.current"), f"{6144 * MIB}\n")
    host.write("/proc/pressure/memory", "some avg60=50.00\n")
    assert codes(diagnose(host)) == [
        ("warning", "vllm", "memory_near_limit"), ("warning", "ollama", "cpu_throttled"), ("warning", "system", "memory_pressure")]
    host.write(host.container_file("vllm", "memory.events"), "oom 2\noom_kill 1\n")
    assert codes(diagnose(host))[0] == ("critical", "vllm", "oom_kill") and "memory_near_limit" not in {code for _s, _v, code in codes(diagnose(host))}


def test_which_places_must_not_be_full(diagnose, host, monkeypatch):
    seen = []
    monkeypatch.setattr(_vitals, "disks", lambda root, places: seen.extend(places) or [])
    host.containers["vllm"]["Mounts"] = [
        {"Type": "bind", "Source": "/srv/models/tiny", "Destination": "/srv/models/tiny"}, {"Type": "volume", "Source": "/x", "Destination": "/y"}]
    host.containers["ollama"] = None
    diagnose(host)
    assert seen == [("Docker's data", "/proc"), ("vllm: /srv/models/tiny", "/srv/models/tiny"), ("the system", "/")]


def test_the_clock_is_compared(diagnose, host):
    assert codes(diagnose(host, clock=1)) == [("warning", "system", "clock_wrong")]


def test_a_host_without_control_groups(diagnose, host):
    os.unlink(host.root / "proc/self/mountinfo")
    result = diagnose(host)
    assert result.open() == [] and result.findings


@pytest.mark.parametrize("text, expected", [
    (STARTED, 1795794000), ("2026-11-27T15:40:00Z", 1795794000), ("0001-01-01T00:00:00Z", None), ("", None), (None, None), ("soon", None)])
def test_dockers_moments(text, expected):
    assert _diagnosis.moment(text) == expected
