# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the exporter sees of a recorded host, on either version of control groups, and what it says where something is missing."""
from __future__ import annotations

import json
import os

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils import _docker
from ansible_collections.erni_ki.inference.plugins.module_utils._check_api import Api
from ansible_collections.erni_ki.inference.plugins.module_utils._exporter_source import Failed
from ansible_collections.erni_ki.inference.tests.unit.plugins.exporter_world import PATH, UUID, Card, World, with_gpu
from ansible_collections.erni_ki.inference.tests.unit.plugins.loopback_services import Services
from ansible_collections.erni_ki.inference.tests.unit.plugins.recorded_host import IDS, KINDS, MIB
from ansible_collections.erni_ki.inference.tests.unit.plugins.recorded_load import BEGAN


@pytest.fixture(name="world", params=KINDS)
def world_fixture(tmp_path, request):
    return World(tmp_path, request.param)


@pytest.fixture(name="v2")
def v2_fixture(tmp_path):
    return World(tmp_path)


@pytest.fixture(name="services")
def services_fixture():
    services = Services()
    yield services
    services.close()


def by_core(found, service="vllm"):
    return {int(key[2]): value for key, value in found.items() if key[:2] == ("service_cpu_seconds_total", service) and value}


# ---- the plan


def test_the_plan_and_its_hash(v2):
    first = v2.look("plan")
    [(name, digest)] = first
    assert name == "plan_info" and len(digest) == 16 and first[name, digest] == 1
    assert v2.look("plan") == first
    v2.recorded.plan["notes"] = ["another"]
    v2.plan()
    assert v2.look("plan") != first


@pytest.mark.parametrize("text, words", [
    (None, "No such file"), ("{", "plan.json"), ("{}", "schema_version"), ('{"schema_version": 1}', "the plan lacks"), ("\udcff", "plan.json")])
def test_a_plan_that_is_none(v2, text, words):
    v2.look("plan", "docker")
    if text is None:
        v2.recorded.remove(PATH)
    else:
        (v2.recorded.root / PATH[1:]).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(Failed, match=words):
        v2.look("plan")
    # What it would be compared with is gone, and so is all the rest.
    for name in ("docker", "cgroup", "procs", "vllm", "ollama", "gpu"):
        with pytest.raises(Failed, match="there is no plan to go by"):
            v2.look(name)
    v2.plan()
    assert v2.look("plan", "docker")


# ---- Docker


def test_docker(v2):
    v2.recorded.containers["ollama"]["RestartCount"] = 3
    found = v2.look("plan", "docker")
    assert found["service_running", "vllm"] == found["service_running", "ollama"] == 1
    assert (found["service_restarts_total", "vllm"], found["service_restarts_total", "ollama"]) == (0, 3)
    v2.recorded.containers["ollama"].update(RestartCount=1, State={"Status": "restarting", "Running": True, "Pid": 0})
    del v2.recorded.containers["vllm"]
    found = v2.look("docker")
    assert found["service_running", "vllm"] == found["service_running", "ollama"] == 0
    # Made anew, Docker counts from zero again; a counter does not go back.
    assert found["service_restarts_total", "ollama"] == 4


def test_docker_that_does_not_answer(v2):
    v2.look("plan", "docker", "cgroup")
    v2.engine.problem = "Connection refused"
    with pytest.raises(Failed, match="the Docker Engine does not answer: Connection refused"):
        v2.look("docker")
    # The kernel does not need Docker to say what a container has that was there before.
    assert v2.look("cgroup")["service_memory_limit_bytes", "vllm"] == 6144 * MIB
    v2.engine.problem = None
    assert v2.look("docker")["service_running", "vllm"] == 1


def test_docker_that_is_not_there(v2, monkeypatch):
    v2.look("plan")
    for name in ("cgroup", "procs"):
        with pytest.raises(Failed, match="Docker has not told yet"):
            v2.look(name)
    monkeypatch.setattr(_docker, "docker", None)
    v2.host._connect = _docker.connect
    with pytest.raises(Failed, match="the Docker SDK for Python"):
        v2.look("docker")


# ---- control groups


def test_memory_and_limits(world):
    found = world.look("plan", "docker", "cgroup")
    assert found["service_memory_working_set_bytes", "vllm"] == 600 * MIB
    assert found["service_memory_limit_bytes", "vllm"] == 6144 * MIB and found["service_memory_limit_bytes", "ollama"] == 4096 * MIB
    assert found["service_memory_peak_bytes", "ollama"] == 1500 * MIB
    assert found["plan_drift",] == 0
    assert found["service_oom_kills_total", "vllm"] == 0


def test_throttling_and_pressure(world):
    world.look("plan", "docker", "cgroup")
    world.load.stopped("vllm", 2.5)
    if world.recorded.version == 2:
        world.load.pressure("ollama", "memory", 3.5, 1.25)
    found = world.look("cgroup")
    assert found["service_throttled_seconds_total", "vllm"] == pytest.approx(2.5) and found["service_throttled_seconds_total", "ollama"] == 0
    pressures = {key: value for key, value in found.items() if key[0] == "service_pressure_seconds_total"}
    if world.recorded.version == 1:
        assert pressures == {}
    else:
        assert len(pressures) == 12 and pressures["service_pressure_seconds_total", "ollama", "memory", "some"] == 3.5
        assert pressures["service_pressure_seconds_total", "ollama", "memory", "full"] == 1.25


def test_an_oom_kill_that_ended_the_container_is_counted(v2):
    """Of version 2 the slice remembers, whose container is gone and has come again."""
    v2.recorded.write("/sys/fs/cgroup/erniki.slice/erniki-vllm.slice/memory.events", "oom 1\noom_kill 1\n")
    assert v2.look("plan", "docker", "cgroup")["service_oom_kills_total", "vllm"] == 1
    v2.recorded.write("/sys/fs/cgroup/erniki.slice/erniki-vllm.slice/memory.events", "oom 3\noom_kill 3\n")
    assert v2.look("cgroup")["service_oom_kills_total", "vllm"] == 3


@pytest.mark.parametrize("what", ["cpuset", "memory", "slice"])
def test_drift(world, what):
    if what == "cpuset":
        world.recorded.cpuset(world.recorded.group_path("vllm"), "0-5")
    elif what == "memory":
        world.recorded.memory(world.recorded.group_path("ollama"), 5000, 5000, 1024)
    else:
        world.recorded.plan["vllm"]["slice"] = "erniki-other.slice"
        world.plan()
    assert world.look("plan", "docker", "cgroup")["plan_drift",] == 1


def test_a_container_that_has_vanished(world):
    """Between Docker's answer and the look its processes are gone: no value of it, no failure, and the other is still told."""
    before = world.look("plan", "docker", "cgroup", "procs")
    assert ("service_threads", "vllm") in before
    for pid in (1000, 1010, 1020):
        os.rename(world.recorded.root / "proc" / str(pid), world.recorded.root / f"gone-{pid}")
    found = world.look("cgroup", "procs")
    assert not [key for key in found if key[1:2] == ("vllm",) and key[0] not in ("service_foreign_cpu_seconds_total",)]
    assert found["service_threads", "ollama"] == 3 and found["service_memory_limit_bytes", "ollama"] == 4096 * MIB
    # Docker knows it as well a moment later.
    world.recorded.containers["vllm"]["State"].update(Status="exited", Running=False, Pid=0)
    found = world.look("docker", "cgroup", "procs")
    assert found["service_running", "vllm"] == 0 and ("service_threads", "vllm") not in found


def test_a_process_number_that_is_somebody_elses_now(v2):
    v2.look("plan", "docker")
    v2.recorded.write("/proc/1000/cgroup", "0::/user.slice\n")
    with pytest.raises(Failed, match="vllm: process 1000 is in the group /user.slice") as caught:
        v2.look("cgroup")
    assert any(labels == ("ollama",) for _name, labels, _value in caught.value.samples)
    assert not any("vllm" in labels for _name, labels, _value in caught.value.samples)


@pytest.mark.parametrize("name, source", [("memory.max", "cgroup"), ("cpuset.cpus.effective", "cgroup"), ("cpu.stat", "procs")])
def test_a_file_that_cannot_be_read(v2, monkeypatch, name, source):
    v2.look("plan", "docker")
    refuse(monkeypatch, f"docker-{IDS['vllm']}.scope/{name}")
    with pytest.raises(Failed, match="vllm: .*(Permission denied|cannot be read)") as caught:
        v2.look(source)
    told = {labels[0] for _name, labels, _value in caught.value.samples if labels}
    assert told == {"ollama"}


def test_a_file_that_is_not_there_though_the_container_runs(v2):
    v2.look("plan", "docker")
    v2.recorded.remove(v2.recorded.container_file("vllm", "cpuset.cpus.effective"))
    with pytest.raises(Failed, match="vllm: .*cpuset.cpus.effective: No such file"):
        v2.look("cgroup")


def test_threads_that_cannot_be_read(v2, monkeypatch):
    v2.look("plan", "docker")
    refuse(monkeypatch, "/proc/1020/task/1021/stat")
    with pytest.raises(Failed, match="1021/stat: Permission denied"):
        v2.look("procs")


def refuse(monkeypatch, ending):
    """Let a file be unreadable, for root as well."""
    real = open

    def opened(name, *args, **kwargs):
        if str(name).endswith(ending):
            raise PermissionError(13, "Permission denied")
        return real(name, *args, **kwargs)

    monkeypatch.setattr("builtins.open", opened)


# ---- CPU time


def test_cpu_time_by_core(world):
    assert by_core(world.look("plan", "docker", "procs")) == {}
    world.load.run(1021, 6.0)
    world.load.run(1024, 5.0)
    world.load.run(2010, 1.5, cpu=15)
    found = world.look("procs")
    assert by_core(found) == pytest.approx({0: 6.0, 3: 5.0}) and by_core(found, "ollama") == pytest.approx({15: 1.5})
    assert found["service_off_plan_cpu_seconds_total", "vllm"] == found["service_foreign_cpu_seconds_total", "vllm"] == 0
    world.load.run(1021, 1.0)
    assert by_core(world.look("procs")) == pytest.approx({0: 7.0, 3: 5.0})
    assert found["service_threads", "vllm"] == 12


def test_time_off_the_plan(world):
    world.look("plan", "docker", "procs")
    world.load.run(1010, 2.0, cpu=15)
    found = world.look("procs")
    assert found["service_off_plan_cpu_seconds_total", "vllm"] == pytest.approx(2.0) and by_core(found) == pytest.approx({15: 2.0})
    # On Ollama's CPU it is a stranger.
    assert found["service_foreign_cpu_seconds_total", "ollama"] == pytest.approx(2.0)


def test_time_of_others(world):
    world.look("plan", "docker", "procs")
    world.load.run(1021, 10.0)
    world.load.others(0, 3.0)
    world.load.others(9, 1.0)
    world.load.others(7, 4.0)
    found = world.look("procs")
    assert found["service_foreign_cpu_seconds_total", "vllm"] == pytest.approx(4.0)
    assert found["service_foreign_cpu_seconds_total", "ollama"] == pytest.approx(4.0)


def test_time_of_others_beside_a_service_that_is_stopped(world):
    world.recorded.containers["ollama"]["State"].update(Status="exited", Running=False, Pid=0)
    world.look("plan", "docker", "procs")
    world.load.others(0, 3.0)
    assert world.look("procs")["service_foreign_cpu_seconds_total", "vllm"] == pytest.approx(3.0)


def test_ollama_on_any_cpu_is_no_stranger_there(world):
    world.recorded.plan["ollama"].update(policy="any", cpuset="0-15")
    world.plan()
    world.look("plan", "docker", "procs")
    world.load.run(2010, 5.0, cpu=2)
    found = world.look("procs")
    assert found["service_foreign_cpu_seconds_total", "vllm"] == 0 and found["service_off_plan_cpu_seconds_total", "ollama"] == 0


def test_threads_that_came_and_went_in_between(world):
    """Their time is the control group's, and goes where the others' of the service went."""
    world.look("plan", "docker", "procs")
    world.load.run(1021, 3.0)
    world.load.run(1022, 1.0)
    world.load.unseen("vllm", 4, 2.0)
    found = world.look("procs")
    assert by_core(found) == pytest.approx({0: 4.5, 1: 1.5}) and found["service_foreign_cpu_seconds_total", "vllm"] == 0
    world.load.unseen("ollama", 7, 2.0)
    assert by_core(world.look("procs"), "ollama") == pytest.approx({7: 1.0, 15: 1.0})


def test_a_container_that_is_started_anew(world):
    world.look("plan", "docker", "procs")
    world.load.run(1021, 5.0)
    world.look("procs")
    for key in [key for key in world.load.ticks if key[0] < 2000]:
        world.load.ticks[key] = 0
    world.load.groups["vllm"] = 0.0
    world.recorded.containers["vllm"]["State"]["StartedAt"] = "2026-11-28T11:00:00Z"
    world.load.run(1022, 2.0)
    found = world.look("docker", "procs")
    assert by_core(found) == pytest.approx({0: 5.0, 1: 2.0})
    world.load.run(1022, 1.0)
    assert by_core(world.look("procs")) == pytest.approx({0: 5.0, 1: 3.0})


def test_an_earlier_process_has_counted_so_far(world):
    world.load.run(1021, 100.0)
    world.look("plan", "docker")
    world.host.accounts["vllm"].resume(f"{IDS['vllm'][:12]} {BEGAN}", 86.0)
    assert sum(by_core(world.look("procs")).values()) == pytest.approx(14.0)
    world.load.run(1021, 1.0)
    assert sum(by_core(world.look("procs")).values()) == pytest.approx(15.0)


def test_threads_outside_of_the_cpuset(v2):
    """One that is so at one look may be a health check that is just being started."""
    v2.look("plan", "docker")

    def looks(number):
        return [v2.look("procs")["service_threads_outside", "vllm"] for _look in range(number)]

    assert looks(1) == [0]
    v2.recorded.thread(1020, 1022, "stray", "0-15")
    assert looks(8) == [0] * 7 + [1]
    v2.recorded.thread(1020, 1022, "stray", "1")
    assert looks(4) == [1] * 3 + [0]


def test_a_thread_that_ends_while_one_looks(v2):
    v2.look("plan", "docker", "procs")
    v2.recorded.remove("/proc/1020/task/1022/stat")
    assert v2.look("procs")["service_threads", "vllm"] == 11
    v2.recorded.write("/proc/1020/task/1021/stat", "1021 (odd\n")
    with pytest.raises(Failed, match="1021/stat: it has not the fields of a thread"):
        v2.look("procs")


# ---- the services' own words


def test_counters_of_vllm(v2, services):
    v2.host.apis["vllm"] = Api("vllm", services.url, 5)
    services.answers["/metrics"] = (200, "\n".join([
        "# HELP vllm:prompt_tokens_total x", "# TYPE vllm:prompt_tokens_total counter",
        'vllm:prompt_tokens_total{engine="0",model_name="a {b} c"} 120.0', 'vllm:prompt_tokens_total{engine="1",model_name="a"} 3.0',
        'vllm:generation_tokens_total{engine="0"} 1.5e+03', 'vllm:request_success_total{finished_reason="stop"} 4.0 1795000000',
        'vllm:request_success_total{finished_reason="length"} 2.0', 'vllm:num_requests_running{engine="0"} 1.0', "process_start_time_seconds 1.79e+09",
        "vllm:generation_tokens_total_more 9", "broken{", "vllm:num_requests_waiting{} x"]))
    assert v2.look("plan", "vllm") and v2.host.counters["vllm"] == {
        "tokens_in": 123, "tokens_out": 1500, "requests": 6, "running": 1, "started": 1.79e9}
    services.answers["/metrics"] = (503, "no")
    with pytest.raises(Failed, match="HTTP 503"):
        v2.look("vllm")
    assert v2.host.counters["vllm"] == {}
    services.answers["/metrics"] = (200, "python_info 1\n")
    with pytest.raises(Failed, match="no metrics of vLLM"):
        v2.look("vllm")
    services.close()
    with pytest.raises(Failed, match="connection refused"):
        v2.look("vllm")


def ps(*models):
    return 200, json.dumps({"models": [{"name": name, "size": size, "size_vram": vram} for name, size, vram in models]})


@pytest.mark.parametrize("models, state, wrong", [
    ([], "idle", 0), ([("a", 100, 100)], "gpu", 0), ([("a", 100, 40)], "partial", 1), ([("a", 100, 0)], "cpu", 1), ([("a", 100, 100), ("b", 9, 0)], "cpu", 1)])
@pytest.mark.parametrize("gpu, partial", [(False, False), (True, False), (True, True)])
def test_where_ollamas_models_are(v2, services, models, state, wrong, gpu, partial):
    v2.host.apis["ollama"] = Api("ollama", services.url, 5)
    if gpu:
        v2.recorded.plan["ollama"]["device"] = {
            "kind": "gpu", "uuid": UUID, "cdi_device": "nvidia.com/gpu=0", "driver": {"allowed": "570-580"}, "vram": {"partial_allowed": partial}}
        v2.plan()
    services.answers["/api/ps"] = ps(*models)
    found = v2.look("plan", "ollama")
    assert {key[1]: value for key, value in found.items() if key[0] == "ollama_device"} == {one: one == state for one in ("gpu", "partial", "cpu", "idle")}
    assert found["ollama_wrong_device",] == (wrong and gpu and not (partial and state == "partial"))
    for name, size, vram in models:
        assert (found["ollama_model_size_bytes", name], found["ollama_model_vram_bytes", name]) == (size, vram)


@pytest.mark.parametrize("answer, words", [
    ((500, "no"), "HTTP 500"), (ps(("a", 5, 9)), "says nothing"), ((200, '{"models": [{"name": "a"}]}'), "says nothing"), ((200, "["), "not JSON")])
def test_ollama_that_says_nothing_of_use(v2, services, answer, words):
    v2.host.apis["ollama"] = Api("ollama", services.url, 5)
    services.answers["/api/ps"] = answer
    with pytest.raises(Failed, match=words):
        v2.look("plan", "ollama")


# ---- the GPU


def test_the_card(tmp_path):
    found = with_gpu(tmp_path, Card()).look("plan", "gpu")
    assert {key[0]: value for key, value in found.items() if key[1:] == (UUID,)} == {
        "gpu_memory_ceiling_bytes": (5120 - 1853 + 768) * MIB, "gpu_driver_mismatch": 0, "gpu_lost": 0, "gpu_memory_used_bytes": 3000 * MIB,
        "gpu_memory_total_bytes": 5120 * MIB, "gpu_utilization_ratio": 0.5, "gpu_temperature_celsius": 61, "gpu_power_watts": 40.5}


@pytest.mark.parametrize("changes, module, lost, mismatch", [
    ({"gpus": []}, "580.95.05", 1, 0), ({"code": 15, "message": "GPU is lost", "gpus": []}, "580.95.05", 1, 0),
    ({"code": 18, "message": "mismatch", "gpus": []}, "580.95.05", None, 1), ({}, "570.1.2", 0, 1)])
def test_a_card_that_is_lost_or_whose_driver_is_another(tmp_path, changes, module, lost, mismatch):
    found = with_gpu(tmp_path, Card(**changes), module).look("plan", "gpu")
    assert found.get(("gpu_lost", UUID)) == lost and found["gpu_driver_mismatch", UUID] == mismatch


@pytest.mark.parametrize("changes, words", [
    ({"bindings": "ModuleNotFoundError: pynvml"}, "nvidia-ml-py cannot be used"),
    ({"code": 9, "message": "Driver Not Loaded", "gpus": []}, "Driver Not Loaded")])
def test_a_card_that_cannot_be_asked(tmp_path, changes, words):
    world = with_gpu(tmp_path, Card(**changes))
    world.look("plan")
    with pytest.raises(Failed, match=words) as caught:
        world.look("gpu")
    assert {name for name, _labels, _value in caught.value.samples} == {"erni_ki_gpu_memory_ceiling_bytes"}


def test_a_host_without_a_card(v2):
    v2.look("plan")
    assert v2.look("gpu") == {}
