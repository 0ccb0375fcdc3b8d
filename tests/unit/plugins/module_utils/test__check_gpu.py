# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every check of the GPU passes on a right host, and fails, alone, on one that is wrong in its own thing."""
from __future__ import annotations

import errno
import functools
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils import _cgroup, _check, _check_api, _check_gpu, _nvml, _procs, _proof
from ansible_collections.erni_ki.inference.tests.unit.plugins.loopback_services import KEY, Services, recorded
from ansible_collections.erni_ki.inference.tests.unit.plugins.recorded_gpu_host import (
    BUS, DRIVER, IDS, INFORMATION, LIBRARY, NAME, OTHER, REQUEST, SPEC, UUID, GpuHost, gpu,
)
from ansible_collections.erni_ki.inference.tests.unit.plugins.recorded_host import KINDS, PLAN, Host

STANDING = {"gpu_uuid", "gpu_driver", "cdi_fresh", "gpu_nodes"}
WORKING = {"gpu_loaded", "gpu_libraries", "gpu_processes", "runner_threads"}
OLLAMA = STANDING | WORKING
ALL = {("ollama", name) for name in OLLAMA} | {("vllm", "no_gpu_processes")}
# Those that rest on what NVML answers.
BY_NVML = {("ollama", "gpu_uuid"), ("ollama", "gpu_driver"), ("ollama", "gpu_processes"), ("vllm", "no_gpu_processes")}

COMPILER = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
REPO = pathlib.Path(__file__).resolve().parents[4]
SOURCE = REPO / "tests" / "sandbox" / "gpu" / "nvml.c"
ROOT = REPO.parents[2] if REPO.parts[-3:] == ("ansible_collections", "erni_ki", "inference") else REPO / ".cache" / "collections"


def ps(*models):
    return 200, json.dumps({"models": [dict({"name": "tiny:latest"}, **model) for model in models]})


FULL = ps({"size": 4194304000, "size_vram": 4194304000})


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(_check, "PAUSE", 0)


@pytest.fixture(name="services")
def services_fixture():
    services = Services()
    services.answers["/api/ps"] = FULL
    yield services
    services.close()


@pytest.fixture(name="prove")
def prove_fixture(services, tmp_path):
    """Judge a host; everything that may be given has the value that goes with a right one."""
    key = tmp_path / "key"
    key.write_text(KEY + "\n", encoding="utf-8")

    def run(host, asked=("vllm", "ollama"), **options):
        for attributes in filter(None, host.containers.values()):
            for published in (place for some in attributes["NetworkSettings"]["Ports"].values() for place in some or []):
                published["HostPort"] = str(services.port)
        apis = {service: _check_api.Api(service, services.url, 10, None, str(key) if service == "vllm" else None) for service in asked}
        options = {"probe": getattr(host, "probe", None), "look": getattr(host, "look", None), **options}
        return _proof.prove(host.plan, list(asked), apis, host.inspect, root=str(host.root), **options)
    return run


@pytest.fixture(name="host", params=KINDS)
def host_fixture(tmp_path, request, monkeypatch):
    host = GpuHost(tmp_path / "host", request.param)
    host.patch(monkeypatch)
    return host


@pytest.fixture(name="v2")
def v2_fixture(tmp_path, monkeypatch):
    host = GpuHost(tmp_path / "host")
    host.patch(monkeypatch)
    return host


def failed(checks):
    return {(check["service"], check["name"]) for check in checks if not check["ok"]}


def one(checks, name, service="ollama"):
    return next(check for check in checks if (check["service"], check["name"]) == (service, name))


def names(checks):
    return {(check["service"], check["name"]) for check in checks}


def test_a_right_host(host, prove):
    _proof.load_plan(host.plan)
    checks = prove(host)
    assert failed(checks) == set(), [check for check in checks if not check["ok"]]
    assert ALL <= names(checks)
    assert not {("ollama", "no_gpu_nodes"), ("ollama", "no_gpu_permission")} & names(checks)
    assert {("vllm", "no_gpu_nodes"), ("vllm", "no_gpu_permission")} <= names(checks)
    for check in checks:
        assert all(isinstance(check[key], str) and check[key] for key in ("name", "service", "expected", "found", "evidence")), check
        assert check["hint"] == ""
    assert {name: one(checks, name)["found"] for name in OLLAMA} == {
        "gpu_uuid": f"Quadro P2200 is there, and {NAME} is all that is handed over",
        "gpu_driver": f"kernel module {DRIVER}, library {DRIVER}",
        "cdi_fresh": f"{NAME} is in it, for driver {DRIVER}",
        "gpu_nodes": "/dev/nvidiactl, /dev/nvidia0, /dev/nvidia-uvm",
        "gpu_loaded": "tiny:latest: all of 4000 MiB on the GPU",
        "gpu_libraries": f"process 2010 (llama-server) has /usr/lib/x86_64-linux-gnu/libcuda.so.{DRIVER}",
        "gpu_processes": "process 2010 (llama-server) with 4400 MiB",
        "runner_threads": "process 2010 (llama-server): 1",
    }
    assert one(checks, "no_gpu_processes", "vllm")["found"] == "none of the 1 processes on 1 GPU"


def test_a_host_without_a_gpu_has_the_checks_it_had(tmp_path, prove):
    host = Host(tmp_path / "host")

    def look(root):
        raise AssertionError("nobody asks for a GPU here")
    checks = prove(host, look=look, probe=lambda folder, numbers, paths: [])
    assert failed(checks) == set() and not ALL & names(checks)


def test_without_a_token_only_what_stands_is_seen(v2, prove, services):
    checks = prove(v2, generate=False)
    assert failed(checks) == set()
    assert ALL & names(checks) == {("ollama", name) for name in STANDING} | {("vllm", "no_gpu_processes")}
    assert "/api/ps" not in [path for _method, path, _body, _key in services.asked]
    assert ALL & names(prove(v2, asked=["vllm"])) == {("vllm", "no_gpu_processes")}


# ---- one thing wrong


def config(**changes):
    return lambda host: host.containers["ollama"]["HostConfig"].update(changes)


def nvml(**changes):
    return lambda host: host.answer.update(changes)


def gpus(*found):
    return lambda host: host.answer.update(gpus=list(found), count=len(found))


def remove(path):
    return lambda host: host.remove(path)


def maps(text):
    return lambda host: host.write("/proc/2010/maps", text)


def both(*changes):
    def change(host):
        for one_change in changes:
            one_change(host)
    return change


def no_permission(host):
    host.permitted = {"nvidiactl", "nvidia-uvm"}
    if host.version == 1:
        host.write(host.container_file("ollama", "devices.list"), "c *:* m\nc 195:255 rw\nc 195:0 r\nc 511:* rwm\nodd\nb 195:0 rwm\n")


def no_permission_at_all(host):
    host.permitted = set()
    if host.version == 1:
        host.write(host.container_file("ollama", "devices.list"), "c 1:3 rwm\n")


MINE = {"pid": 2010}
OTHERS = {"pid": 300, "name": "dockerd", "memory_mib": None}

# What is changed, the check that fails for it, what it says, and what its hint says.
WRONG = {
    "gpu_uuid: all": (config(DeviceRequests=[dict(REQUEST, DeviceIDs=["nvidia.com/gpu=all"])]), "gpu_uuid",
                      "Docker hands over by the driver cdi: nvidia.com/gpu=all", "Run the playbook again"),
    "gpu_uuid: by the runtime": (config(DeviceRequests=[{"Driver": "", "Count": -1, "DeviceIDs": None}]), "gpu_uuid", "by the driver (none): any", "playbook"),
    "gpu_uuid: two": (config(DeviceRequests=[REQUEST, REQUEST]), "gpu_uuid", f"by the driver cdi: {NAME}; by the driver cdi: {NAME}", "playbook"),
    "gpu_uuid: nothing": (config(DeviceRequests=None), "gpu_uuid", "Docker hands over no device", "playbook"),
    "gpu_uuid: privileged": (config(Privileged=True), "gpu_uuid", "the container is privileged", "playbook"),
    "gpu_uuid: a path": (config(Devices=[{"PathOnHost": "/dev/nvidia1"}]), "gpu_uuid", "Devices is [{'PathOnHost': '/dev/nvidia1'}]", "playbook"),
    "gpu_uuid: runtime": (config(Runtime="nvidia"), "gpu_uuid", "the runtime is nvidia", "playbook"),
    "gpu_driver: library": (nvml(nvml_version="13.580.105.08"), "gpu_driver",
                            f"kernel module {DRIVER}, library 580.105.08; they differ: the driver was upgraded", "Reboot"),
    "gpu_driver: unknown": (nvml(nvml_version=None), "gpu_driver", "library unknown; the version of the library cannot be read", "Reboot"),
    "gpu_driver: too new": (lambda host: host.plan["ollama"]["device"]["driver"].update(allowed="550-575"), "gpu_driver",
                            "branch 580 is outside of 550-575", "which branches go with which card"),
    "gpu_driver: too old": (lambda host: host.plan["ollama"]["device"]["driver"].update(allowed="590-"), "gpu_driver", "branch 580 is outside of 590-", "docs"),
    "cdi_fresh: none": (remove(SPEC), "cdi_fresh", "there is no specification of nvidia.com/gpu", "nvidia-ctk cdi generate"),
    "cdi_fresh: other device": (lambda host: host.spec(device="0"), "cdi_fresh", f"{NAME} is not in it; it has nvidia.com/gpu=0", "nvidia-ctk cdi generate"),
    "cdi_fresh: stale": (lambda host: host.spec(driver="570.10.01"), "cdi_fresh", f"it was written for driver 570.10.01, and {DRIVER} runs", "refresh"),
    "cdi_fresh: silent": (lambda host: host.spec(driver=None), "cdi_fresh", "it does not tell which driver it was written for", "refresh"),
    "gpu_nodes: control": (remove("/proc/2000/root/dev/nvidiactl"), "gpu_nodes", "/dev/nvidiactl is not there, or no character device", "docker restart"),
    "gpu_nodes: card": (remove("/proc/2000/root/dev/nvidia0"), "gpu_nodes", "/dev/nvidia0 is not there", "docker restart ollama"),
    "gpu_nodes: uvm": (remove("/proc/2000/root/dev/nvidia-uvm"), "gpu_nodes", "/dev/nvidia-uvm is not there", "docker restart ollama"),
    "gpu_nodes: a file": (lambda host: host.write("/proc/2000/root/dev/nvidia0", "no node"), "gpu_nodes", "/dev/nvidia0 is not there, or", "docker restart"),
    "gpu_nodes: another": (lambda host: host.write("/proc/2000/root/dev/nvidia1", ""), "gpu_nodes", "/dev/nvidia1 is there, which is another GPU", "playbook"),
    "gpu_nodes: none": (both(*(remove(f"/proc/2000/root/dev/{name}") for name in ("nvidia0", "nvidiactl", "nvidia-uvm"))), "gpu_nodes",
                        "/dev/nvidiactl is not there, or no character device; /dev/nvidia0 is not there", "playbook"),
    "gpu_nodes: no dev": (lambda host: (host.root / "proc/2000/root").rename(host.root / "proc/2000/gone"), "gpu_nodes",
                          "its /dev cannot be read: No such file or directory", "docker restart"),
    "gpu_nodes: permission": (no_permission, "gpu_nodes", "the kernel does not let it open /dev/nvidia0", "docker restart ollama"),
    "gpu_nodes: no permission": (no_permission_at_all, "gpu_nodes",
                                 "the kernel does not let it open /dev/nvidiactl; the kernel does not let it open /dev/nvidia0; ", "docker restart ollama"),
    "gpu_libraries: none": (maps("55d0 r-xp 0 08:01 99   /usr/lib/ollama/libggml-cpu.so\n"), "gpu_libraries", "none of its 2 processes has one of them", "CDI"),
    "gpu_libraries: no maps": (remove("/proc/2010/maps"), "gpu_libraries", "none of its 2 processes has one of them", "CDI"),
    "gpu_libraries: old": (maps(LIBRARY.replace(DRIVER, "570.10.01")), "gpu_libraries", f"libcuda.so.570.10.01, and the kernel runs {DRIVER}", "CDI"),
    "gpu_libraries: deleted": (maps(LIBRARY + " (deleted)"), "gpu_libraries", f"libcuda.so.{DRIVER}, which was deleted since", "docker restart ollama"),
    "gpu_processes: nobody": (gpus(gpu()), "gpu_processes", "NVML lists no process there; 4461 MiB of its memory are in use", "CPUs without a word"),
    "gpu_processes: others": (gpus(gpu(processes=[OTHERS])), "gpu_processes", "NVML lists only process 300 (dockerd) there", "CPUs without a word"),
    "gpu_processes: astray": (gpus(gpu(processes=[MINE]), gpu(OTHER, "0000:02:00.0", 1, [MINE])), "gpu_processes",
                              f"process 2010 (llama-server) with 4400 MiB on {OTHER}", "docker logs"),
    "gpu_processes: elsewhere": (gpus(gpu(), gpu(OTHER, "0000:02:00.0", 1, [MINE])), "gpu_processes", f"NVML lists no process there; 4461 MiB of its memory"
                                 f" are in use; process 2010 (llama-server) with 4400 MiB on {OTHER}", "docker logs"),
    "runner_threads: argument": (lambda host: host.runner("-t", "8"), "runner_threads", "process 2010 (llama-server) is told 8", "num_thread"),
    "runner_threads: the last": (lambda host: host.runner("-t", "1", "--threads", "4"), "runner_threads", "is told 4", "num_thread"),
    "runner_threads: automatic": (lambda host: host.runner("--threads", "-1"), "runner_threads", "is told -1", "num_thread"),
    "runner_threads: batch": (lambda host: host.runner("-tb", "16"), "runner_threads", "is told 1, 16", "num_thread"),
    "runner_threads: batch in the environment": (lambda host: host.runner(LLAMA_ARG_THREADS_BATCH="8"), "runner_threads", "is told 1, 8", "num_thread"),
    "runner_threads: none": (remove("/proc/2010/cmdline"), "runner_threads", "there is no llama-server in the container", "num_thread"),
}


@pytest.mark.parametrize("change, name, found, hint", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("kind", ["v2-systemd", "v1-cgroupfs"])
def test_one_wrong_thing_fails_one_check(tmp_path, prove, monkeypatch, kind, change, name, found, hint):
    host = GpuHost(tmp_path / "host", kind)
    host.patch(monkeypatch)
    change(host)
    checks = prove(host)
    assert failed(checks) == {("ollama", name)}
    failure = one(checks, name)
    assert found in failure["found"]
    assert hint in failure["hint"] and failure["evidence"] and failure["expected"]


@pytest.mark.parametrize("where", ["container", "pid"])
def test_vllm_on_the_gpu(v2, prove, where):
    """By the container that its control group tells, or by its number."""
    intruder = {"pid": 1020, "name": "VLLM::Worker", "memory_mib": 900}
    if where == "container":
        intruder["pid"] = 1999
        v2.write("/proc/1999/cgroup", f"0::/system.slice/docker-{IDS['vllm']}.scope/inner\n")
    else:
        v2.remove("/proc/1020/cgroup")
    v2.answer["gpus"] = [gpu(processes=[MINE]), gpu(OTHER, "0000:02:00.0", 1, [intruder])]
    checks = prove(v2)
    assert ("vllm", "no_gpu_processes") in failed(checks)
    assert one(checks, "no_gpu_processes", "vllm")["found"] == f"process {intruder['pid']} (VLLM::Worker) with 900 MiB on {OTHER}"
    assert "Run the playbook again" in one(checks, "no_gpu_processes", "vllm")["hint"]


# ---- /api/ps


HALF = {"size": 4194304000, "size_vram": 2097152000}


@pytest.mark.parametrize("answer, found, hint", [
    (recorded("55-ps-loaded"), "tiny:latest: all of 17 MiB on CPUs", "the driver is too old for the card"),
    (ps({"size": 17867733}), "tiny:latest: all of 17 MiB on CPUs", "lost its device"),
    (ps(HALF), "tiny:latest: 50 % of 4000 MiB on the GPU, the rest on CPUs", "plan_ollama_allow_partial_offload"),
    (ps({"size": 10 ** 9, "size_vram": 10 ** 9}, dict(HALF, name="big")), "big: 50 % of 4000 MiB on the GPU", "shorter context"),
    (ps(HALF, {"size": 1, "size_vram": 0, "name": "off"}), "off: all of 0 MiB on CPUs", "the driver is too old"),
    (ps({"size": 5, "size_vram": 6}), "tiny:latest: size 5, size_vram 6, which says nothing", "docker logs ollama"),
    (ps({"size": 0, "size_vram": 0}), "which says nothing", "docker logs"), (ps({}), "which says nothing", "docker logs"),
    (ps({"size": "1", "size_vram": True}), "which says nothing", "docker logs"),
    (recorded("06-ps-empty"), "GET /api/ps lists no model, though one was just loaded", "docker logs"),
    ((200, '{"models": null}'), "GET /api/ps lists no model, though one was just loaded", "docker logs"),
    ((200, '{"models": ["x"]}'), "GET /api/ps: the models are no list of objects", "docker logs"),
    ((200, '{"models": {"x": 1}}'), "GET /api/ps: the models are no list of objects", "docker logs"),
    ((500, "out"), "GET /api/ps: HTTP 500: out", "docker logs"), ((200, "<html>"), "the answer is not JSON: <html>", "docker logs"),
])
def test_a_model_that_is_not_on_the_gpu(v2, prove, services, answer, found, hint):
    services.answers["/api/ps"] = answer
    checks = prove(v2)
    assert failed(checks) == {("ollama", "gpu_loaded")}
    assert found in one(checks, "gpu_loaded")["found"]
    assert hint in one(checks, "gpu_loaded")["hint"]
    assert one(checks, "gpu_loaded")["evidence"] == f"{services.url}/api/ps"


def test_a_part_of_a_model_where_the_plan_allows_it(v2, prove, services):
    v2.plan["ollama"]["device"]["vram"]["partial_allowed"] = True
    services.answers["/api/ps"] = ps(HALF)
    check = one(prove(v2), "gpu_loaded")
    assert (check["ok"], check["found"]) == (True, "tiny:latest: 50 % of 4000 MiB on the GPU, the rest on CPUs")
    services.answers["/api/ps"] = ps({"size": 10, "size_vram": 0})
    assert failed(prove(v2)) == {("ollama", "gpu_loaded")}


def test_a_model_that_does_not_stay_is_loaded_once_more(v2, prove, services):
    services.answers["/api/ps"] = recorded("06-ps-empty")

    class Loading(dict):
        """The services' answers, which change when a model is loaded to stay."""

        def get(self, path, default=None):
            if path == "/api/generate" and services.asked[-1][2].get("keep_alive") == "2m":
                self["/api/ps"] = FULL
            return dict.get(self, path, default)
    services.answers = Loading(services.answers)
    assert failed(prove(v2)) == set()
    posted = [body for _method, path, body, _key in services.asked if path == "/api/generate"]
    assert posted[1:] == [{"model": "tiny:latest", "stream": False, "keep_alive": "2m"}]
    del services.asked[:]
    prove(v2)
    assert [path for _method, path, _body, _key in services.asked][-3:] == ["/api/tags", "/api/generate", "/api/ps"]


def test_no_model_at_all(v2, prove, services):
    services.answers.update({"/api/ps": recorded("06-ps-empty"), "/api/tags": recorded("05-tags-empty")})
    checks = prove(v2)
    assert failed(checks) == {("ollama", "gpu_loaded"), ("ollama", "token_generated")}
    assert "GET /api/tags lists no model; pull one" in one(checks, "gpu_loaded")["found"]


def test_ollama_is_down(v2, prove):
    v2.containers["ollama"] = None
    silent = _check_api.Api("ollama", "http://127.0.0.1:9", 1)
    silent.silent = "connection refused"
    check = _check_gpu.gpu_loaded(v2.plan["ollama"]["device"], "ollama", silent)
    assert check["found"] == "not asked, since the service did not answer before: connection refused"
    checks = prove(v2)
    # The model, the driver and the specification are seen without the container.
    assert failed(checks) & ALL == {("ollama", name) for name in OLLAMA - {"gpu_loaded", "gpu_driver", "cdi_fresh"}}
    assert {one(checks, name)["found"] for name in OLLAMA - {"gpu_loaded", "gpu_driver", "cdi_fresh"}} == {"there is no container 'ollama'"}


# ---- a driver that does not answer


def kernel_without_driver(host):
    for name in ("proc/driver/nvidia", "sys/module/nvidia"):
        shutil.rmtree(host.root / name)


@pytest.mark.parametrize("change, state, also, found", [
    (nvml(gpus=[], count=0, code=18, message="Driver/library version mismatch", driver_version=None, nvml_version="13.590.1.1"), "version_mismatch",
     {("ollama", "gpu_driver")}, {"gpu_driver": f"kernel module {DRIVER}, library 590.1.1; they differ"}),
    (nvml(gpus=[], count=0, code=9, message="not loaded"), "not_loaded", set(), {}),
    (both(nvml(gpus=[], count=0, code=12, driver_version=None, nvml_version=None), kernel_without_driver), "no_driver",
     {("ollama", "gpu_driver"), ("ollama", "cdi_fresh")},
     {"gpu_driver": "the kernel shows no version of the driver's module (driver state no_driver)", "cdi_fresh": "and none that can be told runs"}),
    (nvml(gpus=[], count=0, code=None, failure="gave no answer within 30 s", driver_version=None, nvml_version=None), "unknown",
     {("ollama", "gpu_driver")}, {"gpu_driver": "the version of the library cannot be read (driver state unknown)"}),
    (gpus(gpu(None, None, error="nvmlDeviceGetHandleByIndex: GPU is lost (NVML code 15)", code=15)), "gpu_lost", set(), {}),
    (nvml(gpus=[], count=0, code=None), "unknown", set(), {"gpu_uuid": "NVML shows no GPU (driver state unknown)"}),
])
def test_a_driver_that_does_not_answer(v2, prove, change, state, also, found):
    change(v2)
    checks = prove(v2)
    assert failed(checks) == {("ollama", "gpu_uuid"), ("ollama", "gpu_processes"), ("vllm", "no_gpu_processes")} | also
    for service, name in (("ollama", "gpu_processes"), ("vllm", "no_gpu_processes")):
        assert one(checks, name, service)["found"] == f"NVML cannot be asked (driver state {state})"
        assert one(checks, name, service)["hint"] == v2.look(str(v2.root))["hint"] != ""
    assert one(checks, "gpu_uuid")["hint"] == v2.look(str(v2.root))["hint"]
    for name, text in found.items():
        assert text in one(checks, name)["found"]


def test_without_bindings(v2, prove):
    """The kernel itself knows the UUID; who is on the card only NVML tells."""
    v2.answer = _nvml.answer_of(bindings="ModuleNotFoundError: No module named 'pynvml'", count=1)
    checks = prove(v2)
    assert failed(checks) == BY_NVML - {("ollama", "gpu_uuid")}
    assert one(checks, "gpu_uuid")["evidence"].startswith(INFORMATION)
    assert "nvidia-ml-py" in one(checks, "gpu_processes")["hint"] and "nvidia-ml-py" in one(checks, "gpu_driver")["hint"]
    v2.remove(INFORMATION)
    assert failed(prove(v2)) == BY_NVML


def test_another_card_in_its_place(v2, prove):
    v2.answer["gpus"] = [gpu(OTHER, processes=[MINE])]
    checks = prove(v2)
    assert failed(checks) == {("ollama", "gpu_uuid")}
    assert (one(checks, "gpu_uuid")["found"], one(checks, "gpu_uuid")["hint"][:12]) == (f"NVML shows {OTHER}", "Another card")
    v2.answer["gpus"] = [gpu(OTHER, "0000:02:00.0", processes=[])]
    checks = prove(v2)
    assert one(checks, "gpu_processes")["found"] == f"NVML shows no GPU {UUID}"


def test_one_of_two_is_lost(v2, prove):
    lost = gpu(None, BUS, error="nvmlDeviceGetName: GPU is lost (NVML code 15)", code=15, memory=dict.fromkeys(("total_mib", "used_mib"), None))
    v2.answer["gpus"] = [lost, gpu(OTHER, "0000:02:00.0", 1)]
    checks = prove(v2)
    assert failed(checks) == {("ollama", "gpu_uuid"), ("ollama", "gpu_processes"), ("vllm", "no_gpu_processes")}
    assert one(checks, "gpu_uuid")["found"] == f"the GPU at {BUS} does not answer: {lost['error']}"
    assert one(checks, "gpu_processes")["found"] == f"NVML gives no list of processes: {lost['error']}"
    assert one(checks, "no_gpu_processes", "vllm")["found"] == f"NVML gives no list of processes: GPU 0: {lost['error']}"


def test_a_list_that_is_refused(v2, prove):
    v2.answer["gpus"] = [gpu(error="nvmlDeviceGetComputeRunningProcesses: Insufficient Permissions (NVML code 4)", code=4), gpu(OTHER, None, 1)]
    checks = prove(v2)
    assert failed(checks) == {("ollama", "gpu_uuid"), ("ollama", "gpu_processes"), ("vllm", "no_gpu_processes")}
    assert "Insufficient Permissions" in one(checks, "gpu_processes")["found"]


def test_memory_that_is_not_told(v2, prove):
    v2.answer["gpus"] = [gpu(memory=dict.fromkeys(("total_mib", "used_mib", "free_mib", "reserved_mib"), None))]
    assert one(prove(v2), "gpu_processes")["found"] == "NVML lists no process there"


def test_a_look_that_breaks_is_a_failed_check(v2, prove):
    def look(root):
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
    checks = prove(v2, look=look)
    broken = BY_NVML | {("ollama", "cdi_fresh"), ("ollama", "gpu_libraries")}
    assert failed(checks) == broken
    assert {one(checks, name, service)["found"] for service, name in broken} == {
        "the GPU could not be read: BlockingIOError: [Errno 11] Resource temporarily unavailable"}


# ---- the nodes


def test_a_kernel_that_does_not_tell_the_number(v2, prove):
    """Then one card's node it must be, whichever."""
    v2.remove(INFORMATION)
    checks = prove(v2)
    assert failed(checks) == set()
    assert "one /dev/nvidiaN" in one(checks, "gpu_nodes")["expected"]
    v2.write("/proc/2000/root/dev/nvidia1", "")
    assert one(prove(v2), "gpu_nodes")["found"] == "/dev/nvidia1 is there, which is another GPU"


def test_a_host_without_cuda_nodes(v2, prove):
    for path in ("/dev/nvidia-uvm", "/proc/2000/root/dev/nvidia-uvm"):
        v2.remove(path)
    assert one(prove(v2), "gpu_nodes")["found"] == "/dev/nvidiactl, /dev/nvidia0"


def test_a_permission_that_cannot_be_proven(v2, prove):
    def probe(folder, numbers, paths):
        if numbers:
            return []
        raise _cgroup.ProbeImpossible("the probe gave no answer within 10 s")
    checks = prove(v2, probe=probe)
    assert failed(checks) == {("ollama", "gpu_nodes")}
    assert one(checks, "gpu_nodes")["found"] == "the probe gave no answer within 10 s"


def test_what_is_probed(v2, prove):
    asked = []

    def probe(folder, numbers, paths):
        asked.append((folder, numbers, paths))
        return v2.probe(folder, numbers, paths)
    prove(v2, asked=["ollama"], probe=probe)
    dev = f"{v2.root}/proc/2000/root/dev"
    assert asked == [(f"{v2.root}{v2.folder(v2.group_path('ollama'))}", [], [f"{dev}/nvidiactl", f"{dev}/nvidia0", f"{dev}/nvidia-uvm"])]


def test_device_number(tmp_path):
    assert _check_gpu.device_number("/dev/null") == (1, 3)
    assert _check_gpu.device_number(str(tmp_path)) is None
    assert _check_gpu.device_number(str(tmp_path / "none")) is None
    # A link would lead out of the container.
    (tmp_path / "link").symlink_to("/dev/null")
    assert _check_gpu.device_number(str(tmp_path / "link")) is None


@pytest.mark.parametrize("text, granted", [
    ("a *:* rwm", True), ("c 195:* rw", True), ("c *:0 rwm", True), ("c 195:0 r\nc 195:* w", True), ("c 195:0 r", False), ("c 195:1 rwm", False),
    ("b 195:0 rwm", False), ("c *:* m", False), ("", False), ("c 195:0", False), ("c 19:0 rwm", False),
])
def test_granted_device(text, granted):
    assert _cgroup.granted_device(text, 195, 0) is granted


# ---- processes


@pytest.mark.parametrize("words, environment, found", [
    (["-t", "1"], {"LLAMA_ARG_THREADS": "8"}, "process 2010 (llama-server): 1"),
    (["-t", "2", "-tb", "1"], {}, "process 2010 (llama-server): 2, 1"),
    (["-tb", "2"], {"LLAMA_ARG_THREADS": "2"}, "process 2010 (llama-server): 2"),
])
def test_threads_that_are_few_enough(v2, prove, words, environment, found):
    v2.plan["ollama"]["threads"] = 2
    v2.runner(*words, **environment)
    assert one(prove(v2), "runner_threads")["found"] == found
    assert one(prove(v2), "runner_threads")["ok"]


def test_a_runner_that_is_told_nothing(v2, prove):
    v2.environ(2010, {})
    checks = prove(v2)
    assert failed(checks) == {("ollama", "runner_threads"), ("ollama", "threads_env")}
    assert one(checks, "runner_threads")["found"] == "process 2010 (llama-server) is told nothing"


def test_a_runner_that_a_python_runs(v2, prove):
    v2.command(2010, ["/usr/bin/python3", "-IBS", "/standin/llama_server.py", "-t", "9"])
    assert one(prove(v2), "runner_threads")["found"] == "process 2010 (llama-server) is told 9"


@pytest.mark.parametrize("name, path, function", [
    ("gpu_libraries", "maps", "read_text"), ("runner_threads", "cmdline", "read_arguments"),
])
def test_a_file_that_may_not_be_read(v2, prove, monkeypatch, name, path, function):
    real = getattr(_procs, function)

    def refuse(root, what, *more):
        if str(what) in ("/proc/2010/maps", "2010"):
            raise _procs.Unreadable(f"/proc/2010/{path}", "Permission denied; run with become: true")
        return real(root, what, *more)
    monkeypatch.setattr(_procs, function, refuse)
    checks = prove(v2)
    assert failed(checks) == {("ollama", name)}
    assert one(checks, name)["found"] == f"/proc/2010/{path}: Permission denied; run with become: true"


def test_nvml_of_the_container_is_as_good(v2, prove):
    v2.write("/proc/2010/maps", "7f1c r--p 0 00:31 7  /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1\n")
    assert one(prove(v2), "gpu_libraries")["found"] == "process 2010 (llama-server) has /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1"


# ---- the stand-in for NVIDIA's library, and the real bindings


DETECT = """
import json, sys
from ansible_collections.erni_ki.inference.plugins.module_utils import _gpu_info
print(json.dumps(_gpu_info.detect(sys.argv[1], float(sys.argv[2]))))
"""


@pytest.fixture(scope="session", name="library")
def library_fixture(tmp_path_factory):
    folder = tmp_path_factory.mktemp("standin")
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", str(folder / "libnvidia-ml.so.1"), str(SOURCE)], check=True)
    return folder


@pytest.fixture(name="look")
def look_fixture(tmp_path, library):
    """Look at the host in a process that finds the stand-in, with this card's data."""
    pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")

    def look(data, root, timeout=120.0):
        card = tmp_path / "card.conf"
        # What goes wrong in all functions stands before the card's section, what is on the card in it.
        rules = "".join(line for line in data.splitlines(True) if "=nvml" in line)
        processes = "".join(line for line in data.splitlines(True) if "=nvml" not in line)
        card.write_text(rules + (SOURCE.parent / "cards" / "quadro-p2200.conf").read_text(encoding="utf-8") + processes, encoding="utf-8")
        environment = dict(
            os.environ, LD_LIBRARY_PATH=str(library), STANDIN_NVML=str(card), PATH=str(tmp_path),
            PYTHONPATH=os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
        )
        done = subprocess.run([sys.executable, "-c", DETECT, root, str(timeout)], env=environment, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)
    return look


STANDIN_UUID = next(
    (line[5:] for line in (SOURCE.parent / "cards" / "quadro-p2200.conf").read_text(encoding="utf-8").splitlines() if line.startswith("uuid=")), "")
ON_IT = "process=2010 C 4400 /usr/lib/ollama/llama-server\n"


@pytest.mark.skipif(COMPILER is None, reason="no C compiler to build the stand-in with")
@pytest.mark.parametrize("data, names_failed, name, found", [
    (ON_IT, set(), "gpu_processes", "process 2010 (/usr/lib/ollama/llama-server) with 4400 MiB"),
    ("", {("ollama", "gpu_processes")}, "gpu_processes", "NVML lists no process there; 0 MiB of its memory are in use"),
    ("process=2010 C - llama-server\n", set(), "gpu_processes", "process 2010 (llama-server)"),
    ("process=2010 C 9\nprocess=1000 C 700 vllm\n", {("vllm", "no_gpu_processes")}, "gpu_processes", "process 2010 (?) with 9 MiB"),
    (ON_IT + "fail=nvmlInit 18\n", BY_NVML, "gpu_driver", f"kernel module {DRIVER}, library {DRIVER}; they differ: the driver was upgraded"),
    (ON_IT + "fail=nvmlInit 999\n", BY_NVML - {("ollama", "gpu_driver")}, "gpu_uuid", "NVML shows no GPU (driver state unknown)"),
    (ON_IT + "fail=nvmlDevice 15\n", BY_NVML - {("ollama", "gpu_driver")}, "gpu_processes", "NVML cannot be asked (driver state gpu_lost)"),
    (ON_IT + "fail=nvmlDeviceGetComputeRunningProcesses 4\n", BY_NVML - {("ollama", "gpu_driver")}, "gpu_processes", "NVML cannot be asked"),
    (ON_IT + "fail=nvmlDeviceGetComputeRunningProcesses 3\n", {("ollama", "gpu_processes")}, "gpu_processes", "NVML lists no process there"),
    (ON_IT + "hang=nvmlInit\n", BY_NVML, "gpu_uuid", "NVML shows no GPU (driver state unknown)"),
    (ON_IT + "crash=nvmlDeviceGetName\n", BY_NVML, "gpu_driver", "library unknown; the version of the library cannot be read"),
])
def test_standin(v2, prove, look, data, names_failed, name, found):
    device = v2.plan["ollama"]["device"]
    device.update(uuid=STANDIN_UUID, cdi_device=f"nvidia.com/gpu={STANDIN_UUID}")
    v2.containers["ollama"]["HostConfig"]["DeviceRequests"][0]["DeviceIDs"] = [device["cdi_device"]]
    v2.spec(device=STANDIN_UUID)
    checks = prove(v2, look=functools.partial(look, data, timeout=1.0 if "hang" in data else 30.0))
    assert failed(checks) == names_failed, [check for check in checks if not check["ok"]]
    assert found in one(checks, name)["found"]


def test_every_check_is_tried_wrong():
    assert {name for _change, name, _found, _hint in WRONG.values()} | {"gpu_loaded"} == OLLAMA
    assert PLAN["ollama"]["device"]["kind"] == "none"
