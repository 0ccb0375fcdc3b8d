# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every check passes on a right host, and fails, alone, on one that is wrong in its own thing."""
from __future__ import annotations

import json
import os
import socket

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils import _cgroup, _check, _check_api, _check_container, _check_host, _procs, _proof
from ansible_collections.erni_ki.inference.tests.unit.plugins.loopback_services import KEY, Services, recorded
from ansible_collections.erni_ki.inference.tests.unit.plugins.recorded_host import IDS, KINDS, MIB, OLLAMA_ENV, VLLM_ENV, Host, tcp

CONTAINER = {
    "container_running", "container_health", "restart_count", "slice", "cpuset_effective", "mems_effective", "threads_in_cpuset", "memory_limit", "swap_limit",
    "memory_reservation", "oom_kills", "no_gpu_nodes", "no_gpu_permission", "hardening", "listens_only_on",
}
API = {"api_health", "token_generated"}
VLLM = CONTAINER | API | {"omp_threads", "omp_env", "slice_effective"}
OLLAMA = CONTAINER | API | {"threads_env", "slice_effective"}
# What the containers show without a process in them.
NEED_A_PROCESS = CONTAINER - {"restart_count", "listens_only_on"}


@pytest.fixture(name="services")
def services_fixture():
    services = Services()
    yield services
    services.close()


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(_check, "PAUSE", 0)


@pytest.fixture(name="key_file")
def key_file_fixture(tmp_path):
    path = tmp_path / "key"
    path.write_text(KEY + "\n", encoding="utf-8")
    return path


@pytest.fixture(name="prove")
def prove_fixture(tmp_path, services, key_file):
    """Judge a host; everything that may be given has the value that goes with a right one."""
    def run(host, asked=("vllm", "ollama"), plan=None, **options):
        for service in host.containers:
            if host.containers[service] is not None:
                ports = (host.containers[service]["NetworkSettings"] or {}).get("Ports") or {}
                for published in (place for some in ports.values() for place in some or []):
                    published["HostPort"] = str(services.port)
        keys = {"vllm": str(key_file), "ollama": None}
        apis = {service: _check_api.Api(service, services.url, 10, options.pop(f"{service}_model", None), keys[service]) for service in asked}
        probe = options.pop("probe", lambda folder, numbers, paths: [(f"character device {major}:{minor}", False) for major, minor in numbers])
        return _proof.prove(plan or host.plan, list(asked), apis, options.pop("inspect", host.inspect), root=str(host.root), probe=probe, **options)
    return run


@pytest.fixture(name="host", params=KINDS)
def host_fixture(tmp_path, request):
    return Host(tmp_path / "host", request.param)


@pytest.fixture(name="v2")
def v2_fixture(tmp_path):
    return Host(tmp_path / "host")


@pytest.fixture(name="v1")
def v1_fixture(tmp_path):
    return Host(tmp_path / "host", "v1-cgroupfs")


def failed(checks):
    return {(check["service"], check["name"]) for check in checks if not check["ok"]}


def one(checks, service, name):
    return next(check for check in checks if (check["service"], check["name"]) == (service, name))


def test_a_right_host(host, prove):
    checks = prove(host)
    assert failed(checks) == set(), [check for check in checks if not check["ok"]]
    names = {service: {check["name"] for check in checks if check["service"] == service} for service in ("vllm", "ollama", "system")}
    without = {"slice_effective"} if host.version == 1 else set()
    assert names["vllm"] == VLLM - without
    assert names["ollama"] == OLLAMA - without
    assert names["system"] == ({"fence_effective", "exclusive_cores"} if host.version == 2 else set())
    for check in checks:
        assert all(isinstance(check[key], str) and check[key] for key in ("name", "service", "expected", "found", "evidence")), check
        assert check["hint"] == ""
    assert len({(check["service"], check["name"]) for check in checks}) == len(checks)


# ---- one thing wrong


def state(**changes):
    return lambda host: host.containers["vllm"]["State"].update(changes)


def config(service="vllm", **changes):
    return lambda host: host.containers[service]["HostConfig"].update(changes)


def limits(name_v2, name_v1, text_v2, text_v1=None):
    def change(host):
        host.write(host.container_file("vllm", name_v2 if host.version == 2 else name_v1), text_v2 if host.version == 2 or text_v1 is None else text_v1)
    return change


def rights(pid, **changes):
    def change(host):
        values = {"Uid": "1000\t1000\t1000\t1000", "CapEff": "0000000000000000", "NoNewPrivs": "1", **changes}
        host.write(f"/proc/{pid}/status", "Name:\tx\nState:\tS\n" + "".join(f"{name}:\t{value}\n" for name, value in values.items() if value is not None))
    return change


def moved(host):
    group = "/system.slice/docker-%s.scope" % IDS["vllm"] if host.driver == "systemd" else "/docker/" + IDS["vllm"]
    for controller in ("cpuset", "memory", "devices"):
        old = host.root / host.folder(host.group_path("vllm"), controller).lstrip("/")
        new = host.root / host.folder(group, controller).lstrip("/")
        if old.exists():
            new.parent.mkdir(parents=True, exist_ok=True)
            old.rename(new)
    for pid in (1000, 1010, 1020):
        path = host.root / f"proc/{pid}/cgroup"
        path.write_text(path.read_text(encoding="utf-8").replace(host.group_path("vllm"), group), encoding="utf-8")
    if host.version == 2 and host.driver == "systemd":
        host.write("/sys/fs/cgroup/system.slice/memory.low", str(4096 * MIB))
    if host.version == 2 and host.driver == "cgroupfs":
        host.write("/sys/fs/cgroup/docker/memory.low", str(4096 * MIB))
        # The slice is there all the same, where systemd has it.
        host.cpuset("/erniki.slice/erniki-vllm.slice", "0-6,8-14")


def no_health_check(host):
    del host.containers["vllm"]["State"]["Health"]


def cpus(text):
    return lambda host: host.cpuset(host.group_path("vllm"), text)


def no_cpuset(host):
    for name in ("cpuset.cpus.effective",) if host.version == 2 else ("cpuset.effective_cpus",):
        host.remove(host.container_file("vllm", name))


def bound_elsewhere(host):
    host.thread(1020, 1023, "VLLM::Worker", "9")


def publish(address):
    def change(host):
        host.containers["vllm"]["NetworkSettings"]["Ports"]["8000/tcp"].append({"HostIp": address, "HostPort": "8000"})
    return change


# What is changed, the check that fails for it (with version 2, where swap is counted apart from memory, a second one), and what it says.
WRONG = {
    "container_running: paused": (state(Status="paused", Paused=True), "container_running", "paused"),
    "container_running: restarting": (state(Status="restarting", Restarting=True), "container_running", "restarting"),
    "container_health: unhealthy": (state(Health={"Status": "unhealthy", "Log": [{"ExitCode": 0}, {"ExitCode": 22, "Output": "curl: (22) 503\n"}]}),
                                    "container_health", "unhealthy; the last check ended with 22: curl: (22) 503"),
    "container_health: starting": (state(Health={"Status": "starting", "Log": None}), "container_health", "starting"),
    "container_health: none": (no_health_check, "container_health", "the container has no health check"),
    "container_health: off": (state(Health={"Status": "none"}), "container_health", "the container has no health check"),
    "restart_count": (lambda host: host.containers["vllm"].update(RestartCount=3), "restart_count", "3 restarts since the container was created"),
    "restart_count: not told": (lambda host: host.containers["vllm"].pop("RestartCount"), "restart_count", "the engine does not tell"),
    "slice": (moved, "slice", "in /"),
    "cpuset_effective: fewer": (cpus("0-6"), "cpuset_effective", "0-6"),
    "cpuset_effective: more": (cpus("0-15"), "cpuset_effective", "0-15"),
    "cpuset_effective: none": (no_cpuset, "cpuset_effective", "does not exist: the group has no cpuset, nothing holds it to CPUs"),
    "mems_effective": (lambda host: host.cpuset(host.group_path("vllm"), "0-6,8-14", "0-1"), "mems_effective", "nodes 0-1"),
    "threads_in_cpuset": (lambda host: host.thread(1010, 1011, "stray", "0-15"), "threads_in_cpuset",
                          "process 1010 (VLLM::EngineCor) thread 1011 (stray) may run on 0-15"),
    "threads_in_cpuset: main": (lambda host: host.thread(1000, 1000, "vllm", "6-7"), "threads_in_cpuset", "thread 1000 (vllm) may run on 6-7"),
    "omp_threads: on a sibling": (bound_elsewhere, "omp_threads", "none on 2; not planned: 9"),
    "omp_threads: a second one": (lambda host: host.thread(1020, 1030, "VLLM::Worker", "8"), "omp_threads", "not planned: 8"),
    "omp_threads: roams": (lambda host: host.thread(1020, 1023, "VLLM::Worker", "0-6,8-14"), "omp_threads", "none on 2"),
    "omp_env: other value": (lambda host: host.environ(1000, dict(VLLM_ENV, VLLM_CPU_OMP_THREADS_BIND="auto")), "omp_env",
                             "process 1000: VLLM_CPU_OMP_THREADS_BIND=auto"),
    "omp_env: not set": (lambda host: host.environ(1000, {}), "omp_env", "process 1000: VLLM_CPU_KVCACHE_SPACE is not set"),
    "memory_limit": (limits("memory.max", "memory.limit_in_bytes", f"{8192 * MIB}\n"), ("memory_limit", "swap_limit"), "8192 MiB"),
    "memory_limit: none": (limits("memory.max", "memory.limit_in_bytes", "max\n", "9223372036854771712\n"), ("memory_limit", "swap_limit"), "no limit"),
    "memory_limit: odd": (limits("memory.max", "memory.limit_in_bytes", f"{6144 * MIB + 4096}\n"), ("memory_limit", "swap_limit"),
                          "6442455040 bytes (6144.0 MiB)"),
    "swap_limit": (limits("memory.swap.max", "memory.memsw.limit_in_bytes", f"{6144 * MIB}\n", f"{12288 * MIB}\n"), "swap_limit", "12288 MiB together"),
    "swap_limit: none": (limits("memory.swap.max", "memory.memsw.limit_in_bytes", "max\n", "9223372036854771712\n"), "swap_limit", "no limit"),
    "memory_reservation": (limits("memory.low", "memory.soft_limit_in_bytes", "0\n"), "memory_reservation", "0 MiB"),
    "memory_reservation: none": (limits("memory.low", "memory.soft_limit_in_bytes", "max\n", "9223372036854771712\n"), "memory_reservation", "no limit"),
    "oom_kills": (limits("memory.events", "memory.oom_control", "oom 2\noom_kill 2\n"), "oom_kills", "2 processes killed"),
    "no_gpu_nodes": (lambda host: host.write("/proc/1000/root/dev/nvidia0", ""), "no_gpu_nodes", "/dev/nvidia0"),
    "no_gpu_nodes: control": (lambda host: host.write("/proc/1000/root/dev/nvidiactl", ""), "no_gpu_nodes", "/dev/nvidiactl"),
    "no_gpu_nodes: folder": (lambda host: host.write("/proc/1000/root/dev/dri/card0", ""), "no_gpu_nodes", "/dev/dri"),
    "no_gpu_nodes: no dev": (lambda host: (host.root / "proc/1000/root").rename(host.root / "proc/1000/gone"), "no_gpu_nodes",
                             "its /dev cannot be read: No such file or directory"),
    "no_gpu_permission: privileged": (config(Privileged=True), "no_gpu_permission", "the container is privileged"),
    "no_gpu_permission: device": (config(Devices=[{"PathOnHost": "/dev/x"}]), "no_gpu_permission", "Devices is [{'PathOnHost': '/dev/x'}]"),
    "no_gpu_permission: request": (config(DeviceRequests=[{"Driver": "nvidia"}]), "no_gpu_permission", "DeviceRequests is"),
    "no_gpu_permission: rule": (config(DeviceCgroupRules=["c 1:3 r"]), "no_gpu_permission", "DeviceCgroupRules is ['c 1:3 r']"),
    "no_gpu_permission: runtime": (config(Runtime="nvidia"), "no_gpu_permission", "the runtime is nvidia"),
    "hardening: capabilities": (rights(1010, CapEff="00000000a80425fb"), "hardening", "process 1010 (x) has capabilities 00000000a80425fb"),
    "hardening: privileges": (rights(1000, NoNewPrivs="0"), "hardening", "process 1000 (x) may gain privileges"),
    "hardening: not told": (rights(1000, NoNewPrivs=None), "hardening", "process 1000 (x) may gain privileges"),
    "hardening: root": (rights(1020, Uid="0\t0\t0\t0"), "hardening", "process 1020 (x) runs as root"),
    "hardening: set-uid": (rights(1020, Uid="1000\t0\t0\t0"), "hardening", "process 1020 (x) runs as root"),
    "hardening: writable": (lambda host: host.write("/proc/1000/mountinfo", "1 2 0:5 / / ro - overlay o rw\n3 1 0:6 / / rw - overlay o rw\n"), "hardening",
                            "its root file system can be written"),
    "hardening: no mount": (lambda host: host.write("/proc/1000/mountinfo", "1 2 0:5 / /tmp ro - tmpfs o rw\n"), "hardening",
                            "its root file system is not in its mountinfo"),
    "hardening: odd status": (rights(1020, CapEff=None), "hardening", "could not be evaluated: ValueError"),
    "listens_only_on: all": (publish("0.0.0.0"), "listens_only_on", "0.0.0.0:"),
    "listens_only_on: six": (publish("::"), "listens_only_on", "[::]:"),
    "listens_only_on: empty": (publish(""), "listens_only_on", "0.0.0.0:"),
    "listens_only_on: none": (lambda host: host.containers["vllm"]["NetworkSettings"].update(Ports={}), "listens_only_on", "no port is published"),
}


@pytest.mark.parametrize("change, names, found", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("kind", ["v2-systemd", "v1-cgroupfs"])
def test_one_wrong_thing_fails_one_check(tmp_path, prove, kind, change, names, found):
    host = Host(tmp_path / "host", kind)
    change(host)
    first, also = (names, set()) if isinstance(names, str) else (names[0], set(names[1:]) if host.version == 2 else set())
    checks = prove(host)
    assert failed(checks) == {("vllm", name) for name in {first} | also}
    failure = one(checks, "vllm", first)
    assert found in failure["found"]
    assert failure["hint"] and failure["evidence"] and failure["expected"]


@pytest.mark.parametrize("change, name, found", [
    (lambda host: host.environ(2010, {}), "threads_env", "process 2010: LLAMA_ARG_THREADS is not set"),
    (lambda host: host.environ(2000, dict(OLLAMA_ENV, LLAMA_ARG_THREADS="8")), "threads_env", "process 2000: LLAMA_ARG_THREADS=8"),
    (lambda host: host.thread(2010, 2011, "x", "0"), "threads_in_cpuset", "process 2010 (llama-server) thread 2011 (x) may run on 0"),
    (lambda host: host.write("/proc/2000/root/dev/nvidia0", ""), "no_gpu_nodes", "/dev/nvidia0"),
    (config("ollama", Runtime="nvidia"), "no_gpu_permission", "the runtime is nvidia"),
    (rights(2000, Uid="0\t0\t0\t0", CapEff="1"), "hardening", "has capabilities 1"),
])
def test_one_wrong_thing_in_ollama(host, prove, change, name, found):
    change(host)
    checks = prove(host)
    assert failed(checks) - {("system", "exclusive_cores")} == {("ollama", name)}
    assert found in one(checks, "ollama", name)["found"]


# ---- the GPU's permission


def test_permission_in_version_1(v1, prove):
    v1.write(v1.container_file("vllm", "devices.list"), "c 195:* rw\nc 511:0 rw\nc 1:3 rwm\n")
    checks = prove(v1)
    assert failed(checks) == {("vllm", "no_gpu_permission")}
    check = one(checks, "vllm", "no_gpu_permission")
    assert check["found"] == "the kernel permits 'c 195:* rw'; the kernel permits 'c 511:0 rw'"
    assert check["evidence"].endswith("devices.list")
    v1.remove("/proc/devices")
    assert one(prove(v1), "vllm", "no_gpu_permission")["found"] == "the kernel permits 'c 195:* rw'"


def test_permission_in_version_2(v2, prove):
    for node in ("nvidia0", "nvidia-caps/nvidia-cap1", "sda"):
        v2.write(f"/dev/{node}", "")
    asked = []

    def probe(folder, numbers, paths):
        asked.append((folder, numbers, paths))
        return [("character device 195:255", False), ("/dev/nvidia0", True)]
    checks = prove(v2, probe=probe)
    assert failed(checks) == {("vllm", "no_gpu_permission"), ("ollama", "no_gpu_permission")}
    assert one(checks, "vllm", "no_gpu_permission")["found"] == "the kernel permits /dev/nvidia0"
    assert asked[0] == (f"{v2.root}{v2.folder(v2.group_path('vllm'))}", [(195, 255)], [f"{v2.root}/dev/nvidia-caps/nvidia-cap1", f"{v2.root}/dev/nvidia0"])


def test_permission_that_cannot_be_proven(v2, prove):
    def probe(folder, numbers, paths):
        raise _cgroup.ProbeImpossible("no device node can be made: /dev is mounted nodev")
    v2.containers["vllm"]["HostConfig"]["Privileged"] = True
    v2.plan["ollama"] = None
    check = one(prove(v2, ["vllm"], probe=probe), "vllm", "no_gpu_permission")
    assert not check["ok"]
    assert check["found"] == "the container is privileged; not provable: no device node can be made: /dev is mounted nodev"


def test_permission_probe_joins_the_very_group_of_the_process(v2, prove):
    """A container may have groups of its own; only one that holds processes can be joined."""
    group = v2.group_path("vllm") + "/inner"
    v2.write("/proc/1000/cgroup", f"0::{group}\n")
    asked = []
    prove(v2, probe=lambda folder, numbers, paths: asked.append(folder) or [])
    assert asked[0].endswith("/inner")


def test_a_host_without_dev(v2, prove):
    (v2.root / "dev").rmdir()
    assert failed(prove(v2)) == set()


@pytest.mark.parametrize("runtime, planned, ok", [
    ("runc", "runc", True), ("io.containerd.runc.v2", "runc", True), ("crun", "runc", False), ("crun", "crun", True), (None, "runc", False),
])
def test_runtime(v2, prove, runtime, planned, ok):
    v2.plan["vllm"]["device"]["runtime"] = planned
    v2.containers["vllm"]["HostConfig"]["Runtime"] = runtime
    assert one(prove(v2), "vllm", "no_gpu_permission")["ok"] is ok


def test_a_gpu_under_another_name(v2, prove, monkeypatch):
    """The number counts, whatever the node is called."""
    v2.write("/proc/1000/root/dev/harmless", "")
    real = os.lstat

    def lstat(path, *args, **kwargs):
        if str(path).endswith("/harmless"):
            return os.stat_result((0o020666, 0, 0, 1, 0, 0, 0, 0, 0, 0), {"st_rdev": os.makedev(195, 0)})
        if str(path).endswith("/zero"):
            raise FileNotFoundError(2, "gone")
        return real(path, *args, **kwargs)
    monkeypatch.setattr(_check_container.os, "lstat", lstat)
    assert one(prove(v2), "vllm", "no_gpu_nodes")["found"] == "/dev/harmless"


# ---- services that are not there


@pytest.mark.parametrize("answer, found", [
    (lambda name: (None, None), "there is no container 'vllm'"),
    (lambda name: (None, "the Docker Engine does not answer: Connection refused"), "the Docker Engine does not answer: Connection refused"),
])
def test_no_container(host, prove, answer, found):
    checks = prove(host, inspect=lambda name: answer(name) if name == "vllm" else host.inspect(name))
    # Where systemd does not make the slice, it is there only as long as the container.
    assert {name for service, name in failed(checks) if service == "vllm"} - {"slice_effective"} == CONTAINER | {"omp_threads", "omp_env"}
    assert {check["found"] for check in checks if check["service"] == "vllm" and check["name"] in CONTAINER} == {found}
    assert one(checks, "vllm", "container_running")["hint"].startswith("docker start vllm")
    assert one(checks, "vllm", "api_health")["ok"] and one(checks, "vllm", "token_generated")["ok"]


@pytest.mark.parametrize("status, code, extra, text", [
    ("exited", 137, {"OOMKilled": True}, "exited, killed for want of memory with code 137"),
    ("exited", 1, {"Error": ""}, "exited with code 1"),
    ("created", 0, {"Error": "OCI runtime create failed"}, "created: OCI runtime create failed"),
    ("", 0, {}, "state unknown"),
])
def test_a_container_that_does_not_run(host, prove, status, code, extra, text):
    host.containers["vllm"]["State"].update(Status=status, Running=False, Pid=0, ExitCode=code, **extra)
    checks = prove(host)
    assert one(checks, "vllm", "container_running")["found"] == text
    assert {name for service, name in failed(checks) if service == "vllm"} >= NEED_A_PROCESS
    assert one(checks, "vllm", "threads_in_cpuset")["found"].startswith("the container does not run (")
    # What to do is said once.
    assert one(checks, "vllm", "container_running")["hint"].startswith("docker start vllm")
    assert {one(checks, "vllm", name)["hint"] for name in (NEED_A_PROCESS | {"listens_only_on"}) - {"container_running"}} == {""}


def test_an_engine_that_answers_with_little(host, prove):
    host.containers["vllm"] = {"Id": IDS["vllm"], "NetworkSettings": None, "State": None}
    assert {name for service, name in failed(prove(host)) if service == "vllm"} >= NEED_A_PROCESS


def test_a_process_number_that_is_somebody_else(v2, prove):
    """Between the engine's answer and the look into /proc the number may be given anew."""
    v2.containers["vllm"]["State"]["Pid"] = 300
    check = one(prove(v2), "vllm", "threads_in_cpuset")
    assert not check["ok"]
    assert check["found"] == "process 300 is in the group /system.slice/docker.service, which is not one of the container a1a1a1a1a1a1"


def test_a_process_that_has_just_ended(host, prove):
    host.remove("/proc/1000/cgroup")
    checks = prove(host)
    assert one(checks, "vllm", "memory_limit")["found"] == "/proc/1000/cgroup: No such file or directory"
    assert not one(checks, "vllm", "slice")["ok"]


def test_all_processes_have_just_ended(host, prove):
    for pid in (1000, 1010, 1020):
        host.remove(f"/proc/{pid}/status")
    checks = prove(host)
    assert one(checks, "vllm", "threads_in_cpuset")["found"].startswith("no process is left in ")
    assert {("vllm", "threads_in_cpuset"), ("vllm", "hardening"), ("vllm", "omp_threads")} <= failed(checks)


def test_no_control_groups(v2, prove):
    v2.write("/proc/self/mountinfo", "")
    v2.remove("/proc/self/mountinfo")
    checks = prove(v2)
    assert one(checks, "vllm", "cpuset_effective")["found"] == "no control groups are mounted"
    assert {("system", "fence_effective"), ("system", "exclusive_cores"), ("vllm", "slice_effective"), ("vllm", "memory_limit")} <= failed(checks)


# ---- faults that do not last


def test_a_fault_must_last(v2, prove, monkeypatch):
    """The runtime starts a health check in the container's group with its own rights and environment."""
    v2.process(1700, "runc:[2:INIT]", v2.group_path("vllm"), "0-6,8-14", status="Uid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\nNoNewPrivs:\t0\n")
    v2.process(2700, "runc:[2:INIT]", v2.group_path("ollama"), "7,15", status="Uid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\nNoNewPrivs:\t0\n")
    assert failed(prove(v2)) == {("vllm", "hardening"), ("ollama", "hardening"), ("ollama", "threads_env")}

    def become_itself(seconds):
        rights(1700)(v2)
        rights(2700)(v2)
        v2.environ(2700, OLLAMA_ENV)
    v2.process(1700, "runc:[2:INIT]", v2.group_path("vllm"), "0-6,8-14", status="Uid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\nNoNewPrivs:\t0\n")
    monkeypatch.setattr(_check.time, "sleep", become_itself)
    assert failed(prove(v2)) == set()


def test_lasting():
    looks = [{1: ["a"], 2: ["b"]}, {2: ["c", "d"], 3: ["e"]}, {2: ["f"], 3: ["g"]}, {}]
    assert _check.lasting(lambda: looks.pop(0), pause=0) == ["f"]
    assert len(looks) == 1
    assert _check.lasting(lambda: {}, pause=0) == []


# ---- OMP


def test_omp_auto(host, prove):
    host.plan["vllm"]["omp"] = {"mode": "auto", "bind": "auto", "cpus": None, "threads": 6, "reserved_cpus": 1}
    for pid in (1000, 1010, 1020):
        host.environ(pid, dict(VLLM_ENV, VLLM_CPU_OMP_THREADS_BIND="auto"))
    # The highest sibling of each of six cores.
    for cpu in range(7):
        host.thread(1020, 1021 + cpu, "VLLM::Worker", str(cpu + 8) if cpu < 6 else "0-6,8-14")
    host.thread(1020, 1040, "pt_child", "8")
    checks = prove(host)
    assert failed(checks) == set(), [check for check in checks if not check["ok"]]
    assert one(checks, "vllm", "omp_threads")["found"] == "threads of process 1020 (VLLM::Worker) bound to 8-13: 6 CPUs on 6 cores"
    # Two on one core.
    host.thread(1020, 1021, "VLLM::Worker", "1")
    host.thread(1020, 1040, "pt_child", "1")
    check = one(prove(host), "vllm", "omp_threads")
    assert (check["ok"], check["found"]) == (False, "threads of process 1020 (VLLM::Worker) bound to 1,9-13: 6 CPUs on 5 cores")
    # Outside.
    host.thread(1020, 1021, "VLLM::Worker", "7")
    host.thread(1020, 1040, "pt_child", "7")
    check = one(prove(host), "vllm", "omp_threads")
    assert not check["ok"] and check["found"].endswith("; outside of the cpuset: 7")
    # One too few.
    host.thread(1020, 1021, "VLLM::Worker", "0-6,8-14")
    host.thread(1020, 1040, "pt_child", "0-6,8-14")
    check = one(prove(host), "vllm", "omp_threads")
    assert not check["ok"] and "bound to 9-13: 5 CPUs on 5 cores" in check["found"]


def test_nothing_is_bound(host, prove):
    for cpu in range(7):
        host.thread(1020, 1021 + cpu, "VLLM::Worker", "0-6,8-14")
    host.thread(1020, 1040, "pt_child", "0-6,8-14")
    checks = prove(host)
    assert failed(checks) == {("vllm", "omp_threads")}
    assert one(checks, "vllm", "omp_threads")["found"] == "no thread is bound to a CPU of its own"


def test_the_engine_writes_its_title_over_its_environment(host, prove):
    """Seen with vLLM 0.32: VLLM::EngineCore and VLLM::Worker show none of the variables they inherited."""
    host.environ(1010, {})
    host.environ(1020, {})
    checks = prove(host)
    assert failed(checks) == set()
    assert one(checks, "vllm", "omp_env")["evidence"] == "/proc/1000/environ"


def test_environments_that_end_while_they_are_read(host, prove):
    host.remove("/proc/1000/environ")
    assert one(prove(host), "vllm", "omp_env")["found"] == "the processes ended while they were read"


def test_an_environment_that_may_not_be_read(host, prove, monkeypatch):
    def refuse(root, pid):
        raise _procs.Unreadable(f"/proc/{pid}/environ", "Permission denied; run with become: true")
    monkeypatch.setattr(_procs, "read_environ", refuse)
    assert one(prove(host), "vllm", "omp_env")["found"] == "/proc/1000/environ: Permission denied; run with become: true"


# ---- memory


def test_a_reservation_that_the_slices_do_not_grant(v2, prove):
    """In version 2 no group is protected by more than each group above it has."""
    v2.write("/sys/fs/cgroup/erniki.slice/erniki-vllm.slice/memory.low", "0\n")
    checks = prove(v2)
    assert failed(checks) == {("vllm", "memory_reservation")}
    check = one(checks, "vllm", "memory_reservation")
    assert check["found"] == "2048 MiB, but erniki-vllm.slice above it reserves 0 MiB, and the kernel grants no more than that"
    assert check["hint"] == "Give erniki-vllm.slice MemoryLow=2048M or more."
    v2.write("/sys/fs/cgroup/erniki.slice/erniki-vllm.slice/memory.low", "max\n")
    v2.write("/sys/fs/cgroup/erniki.slice/memory.low", f"{1024 * MIB}\n")
    checks = prove(v2)
    assert failed(checks) == {("vllm", "memory_reservation")}
    assert "erniki.slice above it reserves 1024 MiB" in one(checks, "vllm", "memory_reservation")["found"]


def test_no_reservation_needs_none_above(v2, prove):
    for service in ("vllm", "ollama"):
        v2.plan[service]["memory"]["reservation_mib"] = 0
        v2.write(v2.container_file(service, "memory.low"), "0\n")
    v2.write("/sys/fs/cgroup/erniki.slice/memory.low", "0\n")
    assert failed(prove(v2)) == set()


def test_a_kernel_that_does_not_count_swap(v1, prove):
    v1.remove(v1.container_file("vllm", "memory.memsw.limit_in_bytes"))
    checks = prove(v1)
    assert failed(checks) == {("vllm", "swap_limit")}
    check = one(checks, "vllm", "swap_limit")
    assert "the kernel does not count swap" in check["found"] and "the host has 1048572 kB swap" in check["found"]
    assert "swapaccount=1" in check["hint"]
    # Where there is no swap, none can be used.
    v1.write("/proc/meminfo", "SwapTotal:       0 kB\n")
    assert failed(prove(v1)) == set()
    # And none is granted where some was planned.
    v1.plan["vllm"]["memory"]["swap_limit_mib"] = 8192
    assert failed(prove(v1)) == {("vllm", "swap_limit")}


def test_planned_swap(v2, prove):
    v2.plan["vllm"]["memory"]["swap_limit_mib"] = 8192
    v2.write(v2.container_file("vllm", "memory.swap.max"), f"{2048 * MIB}\n")
    checks = prove(v2)
    assert failed(checks) == set()
    assert one(checks, "vllm", "swap_limit")["expected"] == "8192 MiB of memory and swap together (2048 MiB of swap)"


def test_swap_that_may_not_be_read(v2, prove, monkeypatch):
    def refuse(group):
        raise _procs.Unreadable("/x", "Permission denied")
    monkeypatch.setattr(_cgroup, "swap_limit", refuse)
    assert one(prove(v2), "vllm", "swap_limit")["found"] == "/x: Permission denied"


def test_a_kernel_that_does_not_count_kills(v1, prove):
    v1.write(v1.container_file("vllm", "memory.oom_control"), "oom_kill_disable 0\n")
    assert one(prove(v1), "vllm", "oom_kills")["ok"]
    v1.containers["vllm"]["State"]["OOMKilled"] = True
    check = one(prove(v1), "vllm", "oom_kills")
    assert not check["ok"] and check["found"].endswith("; the engine saw one")
    del v1.containers["vllm"]["State"]["OOMKilled"]
    assert "this kernel does not count oom_kill there" in one(prove(v1), "vllm", "oom_kills")["found"]


@pytest.mark.parametrize("number, text", [(None, "no limit"), (0, "0 MiB"), (1 << 30, "1024 MiB"), (1000, "1000 bytes (0.0 MiB)")])
def test_mib(number, text):
    assert _check.mib(number) == text


# ---- who else is there


def test_cpuset_that_may_not_be_read(v2, prove, monkeypatch):
    def refuse(group):
        raise _procs.Unreadable("/x", "Permission denied")
    monkeypatch.setattr(_cgroup, "effective_cpus", refuse)
    checks = prove(v2)
    for service, name in (("vllm", "cpuset_effective"), ("vllm", "slice_effective")):
        assert one(checks, service, name)["found"] == "/x: Permission denied"
    assert "Permission denied" in one(checks, "system", "fence_effective")["found"]


@pytest.mark.parametrize("group", ["/foreign.slice/x.service", "/", "/erniki.slice/erniki-vllm.slice/other.scope", "/erniki.slice"])
def test_a_foreign_process_on_the_cores(v2, prove, group):
    """Also one in the slice of vLLM is foreign: only the container itself is not."""
    v2.process(5000, "burn (it)", group, "6-7", [(5001, "quiet", "7")])
    checks = prove(v2)
    assert failed(checks) == {("system", "exclusive_cores")}
    assert one(checks, "system", "exclusive_cores")["found"] == f"process 5000 (burn (it)) in {group} may run on 6"


def test_one_thread_is_enough(v2, prove):
    v2.process(5000, "half", "/system.slice/x.service", "7,15", [(5001, "half", "0-15")])
    assert one(prove(v2), "system", "exclusive_cores")["found"] == "process 5000 (half) in /system.slice/x.service may run on 0-6,8-14"


def test_many_offenders_are_counted(v2, prove):
    for pid in range(5000, 5008):
        v2.process(pid, "crowd", "/foreign.slice", "0")
    found = one(prove(v2), "system", "exclusive_cores")["found"]
    assert found.count("crowd") == 5 and found.endswith("; and 3 more processes")


@pytest.mark.parametrize("change", [
    lambda host: host.process(5000, "kworker/0:1", "/", "0", flags=0x4208060),
    lambda host: host.process(5000, "siblings", "/system.slice", "7,15"),
    lambda host: host.write("/proc/5000/stat", "5000 (just gone) S 1 1 1 0 -1 0"),
    lambda host: (host.process(5000, "dead", "/x", "0"), host.write("/proc/5000/status", "Name:\tdead\nState:\tZ (zombie)\n")),
    lambda host: host.process(1500, "health", host.group_path("vllm") + "/inner", "0-6,8-14", environ=VLLM_ENV),
])
def test_who_is_not_foreign(v2, prove, change):
    change(v2)
    assert failed(prove(v2)) == set()


def test_ollama_by_its_policy(v2, prove):
    v2.thread(2000, 2001, "ollama", "0-15")
    assert ("system", "exclusive_cores") in failed(prove(v2))
    v2.plan["ollama"].update(policy="any", cpuset="0-15")
    v2.plan["partition"]["slices"][1]["cpus"] = "0-15"
    for group in (v2.group_path("ollama"), "/erniki.slice/erniki-ollama.slice"):
        v2.cpuset(group, "0-15")
    assert failed(prove(v2)) == set()
    # Also where only vLLM is asked about.
    assert failed(prove(v2, ["vllm"])) == set()


def test_processes_that_may_not_be_read(v2, prove, monkeypatch):
    real = _procs.read_text

    def refuse(root, path):
        if path == "/proc/300/stat":
            raise _procs.Unreadable(path, "Permission denied; run with become: true")
        return real(root, path)
    monkeypatch.setattr(_procs, "read_text", refuse)
    assert one(prove(v2), "system", "exclusive_cores")["found"] == "/proc/300/stat: Permission denied; run with become: true"


def test_a_host_without_processes_proves_nothing(v2):
    groups = _cgroup.Groups(str(v2.root))
    for pid in (1, 300):
        v2.remove(f"/proc/{pid}/status")
    check = _check_host.exclusive_cores("0", [v2.group_path("vllm"), v2.group_path("ollama")], str(v2.root), groups)
    assert (check["ok"], check["found"]) == (False, "no process was found")


def test_vllm_down_does_not_hide_who_is_on_its_cores(v2, prove):
    v2.containers["vllm"]["State"].update(Running=False, Status="exited")
    assert "process 1000 (vllm)" in one(prove(v2), "system", "exclusive_cores")["found"]


def test_services_that_are_not_asked_about(v2, prove):
    v2.containers["vllm"]["RestartCount"] = 5
    checks = prove(v2, ["ollama"])
    assert {check["service"] for check in checks} == {"ollama", "system"}
    assert failed(checks) == set()


def test_a_plan_with_one_service(v2, prove):
    v2.plan["vllm"] = None
    v2.plan["partition"]["slices"] = v2.plan["partition"]["slices"][1:]
    checks = prove(v2, ["ollama"])
    assert failed(checks) == set()
    assert {check["name"] for check in checks if check["service"] == "system"} == {"fence_effective"}


def test_fenced_mode_does_not_ask_who_else_runs(v2, prove):
    v2.plan["isolation"] = "fenced"
    v2.plan["partition"]["fence"] = None
    v2.process(5000, "foreign", "/foreign.slice", "0")
    assert failed(prove(v2)) == set()


# ---- slices and fence


@pytest.mark.parametrize("cpus_, mems, found", [("0-5", "0", "0-5, nodes 0"), ("0-6,8-14", "0-1", "0-6,8-14, nodes 0-1")])
def test_slice_effective(v2, prove, cpus_, mems, found):
    v2.cpuset("/erniki.slice/erniki-vllm.slice", cpus_, mems)
    checks = prove(v2)
    assert failed(checks) == {("vllm", "slice_effective")}
    check = one(checks, "vllm", "slice_effective")
    assert check["found"] == found
    assert check["evidence"] == "/sys/fs/cgroup/erniki.slice/erniki-vllm.slice/cpuset.cpus.effective"


def test_a_slice_that_holds_nobody(v2, prove):
    v2.remove("/sys/fs/cgroup/erniki.slice/erniki-vllm.slice/cpuset.cpus.effective")
    assert "does not exist: nothing holds this group to CPUs" in one(prove(v2), "vllm", "slice_effective")["found"]


def test_a_slice_that_is_not_active(v2, prove):
    v2.plan["partition"]["slices"].append({"unit": "erniki-other.slice", "cpus": "0"})
    checks = prove(v2)
    assert failed(checks) == {("system", "slice_effective")}
    assert one(checks, "system", "slice_effective")["found"] == "/sys/fs/cgroup/erniki.slice/erniki-other.slice does not exist: the slice is not active"


def test_the_slice_of_a_container_that_is_down(v2, prove):
    """The slice of systemd is judged also when nothing runs in it."""
    v2.containers["vllm"] = None
    checks = prove(v2)
    assert one(checks, "vllm", "slice_effective")["ok"]


def test_a_slice_without_nodes(v2, prove):
    del v2.plan["partition"]["slices"][0]["mems"]
    assert one(prove(v2), "vllm", "slice_effective")["found"] == "0-6,8-14"


def test_exclusive_in_version_1_is_not_held_by_systemd(v1, prove):
    v1.plan["isolation"] = "exclusive"
    v1.plan["partition"]["fence"] = {"cpus": "7,15", "units": ["system.slice"]}
    v1.cpuset("/erniki-vllm.slice", "0-15")
    assert {("vllm", "slice_effective"), ("system", "fence_effective"), ("system", "exclusive_cores")} <= failed(prove(v1))


def test_fence_effective(v2, prove):
    v2.cpuset("/user.slice", "0-15")
    checks = prove(v2)
    assert failed(checks) == {("system", "fence_effective")}
    assert one(checks, "system", "fence_effective")["found"] == "user.slice may use 0-15"
    v2.remove("/sys/fs/cgroup/user.slice/cpuset.cpus.effective")
    assert one(prove(v2), "system", "fence_effective")["found"].startswith("user.slice: /sys/fs/cgroup/user.slice/cpuset.cpus.effective does not exist")
    # A slice that exists only later counts as soon as it does.
    v2.cpuset("/user.slice", "7,15")
    assert one(prove(v2), "system", "fence_effective")["found"] == "3 of 4 units are there, each held to 7,15"
    v2.cpuset("/machine.slice", "0-15")
    assert one(prove(v2), "system", "fence_effective")["found"] == "machine.slice may use 0-15"


def test_a_fence_around_nothing(v2, prove):
    v2.plan["partition"]["fence"]["units"] = ["machine.slice"]
    check = one(prove(v2), "system", "fence_effective")
    assert (check["ok"], check["found"]) == (False, "none of these units is there")


# ---- the address


@pytest.mark.parametrize("four, six, ok, found", [
    (["127.0.0.1"], [], True, "127.0.0.1:{}"), (["0.0.0.0"], [], False, "0.0.0.0:{}"), ([], ["::"], False, "[::]:{}"),
    (["127.0.0.1"], ["fe80::1"], False, "127.0.0.1:{0}, [fe80::1]:{0}"),
    ([], [], False, "no port is published"), (["127.0.0.1"], None, True, "127.0.0.1:{}"),
])
def test_host_network(v2, prove, services, four, six, ok, found):
    v2.containers["vllm"]["HostConfig"]["NetworkMode"] = "host"
    port = services.port
    # Of others: another port, and a connection.
    others = tcp(("0.0.0.0", port ^ 1), inode=200), tcp(("10.0.0.1", port), state="01", inode=201), "head\nodd\n"
    lines = [line for table in others for line in table.splitlines()[1:]]
    v2.write("/proc/1000/net/tcp", tcp(*((address, port) for address in four)) + "\n".join(lines) + "\n")
    if six is not None:
        v2.write("/proc/1000/net/tcp6", tcp(*((address, port) for address in six), inode=300))
    check = one(prove(v2), "vllm", "listens_only_on")
    assert check["ok"] is ok
    assert check["found"] == found.format(port)
    assert check["evidence"] == "/proc/1000/net/tcp, tcp6 (host network)"


def test_host_network_that_cannot_be_read(v2, prove):
    v2.containers["vllm"]["HostConfig"]["NetworkMode"] = "host"
    assert one(prove(v2), "vllm", "listens_only_on")["found"] == "/proc/1000/net/tcp: No such file or directory"


@pytest.mark.parametrize("url, bind, published, ok", [
    ("http://127.0.0.1:8000", None, [("127.0.0.1", "8000")], True),
    ("http://localhost:8000", None, [("127.0.0.1", "8000")], True),
    ("http://127.0.0.1:8000", None, [("127.0.0.1", "8001")], False),
    ("http://127.0.0.1:8000", "0.0.0.0", [("0.0.0.0", "8000"), ("::", "8000")], True),
    ("http://127.0.0.1:8000", "10.1.2.3", [("10.1.2.3", "8000")], True),
    ("http://127.0.0.1:8000", "10.1.2.3", [("127.0.0.1", "8000")], False),
])
def test_published_where_it_should_be(v2, url, bind, published, ok):
    subject = _check.Subject("vllm", v2.plan["vllm"], str(v2.root), _cgroup.Groups(str(v2.root)))
    v2.containers["vllm"]["NetworkSettings"]["Ports"] = {"8000/tcp": [{"HostIp": address, "HostPort": port} for address, port in published]}
    subject.inspected(*v2.inspect("vllm"))
    assert _check_container.listens_only_on(subject, url, bind)["ok"] is ok


def test_a_name_that_is_none(v2, monkeypatch):
    subject = _check.Subject("vllm", v2.plan["vllm"])
    assert _check_container.listens_only_on(subject, "http://127.0.0.1:8000")["found"] == "the engine was not asked"

    def refuse(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")
    monkeypatch.setattr(_check_container.socket, "getaddrinfo", refuse)
    assert _check_container.listens_only_on(subject, "http://no.such.host")["found"] == "the name no.such.host cannot be resolved"
    assert "is not a URL" in _check_container.listens_only_on(subject, "https://x")["found"]


# ---- the APIs


def test_what_the_services_are_asked(v2, prove, services):
    checks = prove(v2)
    assert one(checks, "vllm", "token_generated")["found"] == "1 token from tiny"
    assert one(checks, "ollama", "token_generated")["found"] == "8 tokens from tiny:latest"
    assert one(checks, "ollama", "api_health")["found"] == "HTTP 200, version 0.32.15"
    assert services.asked == [
        ("GET", "/health", None, None),
        ("GET", "/v1/models", None, f"Bearer {KEY}"),
        ("POST", "/v1/completions", {"model": "tiny", "prompt": "Hello", "max_tokens": 1, "temperature": 0}, f"Bearer {KEY}"),
        ("GET", "/api/version", None, None),
        ("GET", "/api/tags", None, None),
        ("POST", "/api/generate", {"model": "tiny:latest", "prompt": "Hello", "stream": False, "options": {"num_predict": 1}}, None),
    ]


def test_models_by_name_and_no_generation(v2, prove, services):
    prove(v2, vllm_model="mine", ollama_model="yours")
    assert [path for _method, path, _body, _key in services.asked] == ["/health", "/v1/completions", "/api/version", "/api/generate"]
    del services.asked[:]
    checks = prove(v2, generate=False)
    assert failed(checks) == set()
    assert "token_generated" not in {check["name"] for check in checks}
    assert [path for _method, path, _body, _key in services.asked] == ["/health", "/api/version"]


@pytest.mark.parametrize("path, answer, service, names, found", [
    ("/health", (503, "loading"), "vllm", {"api_health"}, "HTTP 503: loading"),
    ("/api/version", (500, ""), "ollama", {"api_health"}, "HTTP 500: (empty)"),
    ("/api/version", (200, "<html>"), "ollama", {"api_health"}, "HTTP 200, but the answer is not JSON: <html>"),
    ("/api/version", (200, "[]"), "ollama", {"api_health"}, "HTTP 200, []"),
    ("/v1/models", (200, '{"object": "list", "data": null}'), "vllm", {"token_generated"}, "GET /v1/models lists no model"),
    ("/v1/models", (404, "none"), "vllm", {"token_generated"}, "GET /v1/models: HTTP 404: none"),
    ("/v1/models", (200, "[]"), "vllm", {"token_generated"}, "GET /v1/models: the answer is not an object: []"),
    ("/v1/completions", (500, "engine died"), "vllm", {"token_generated"}, "POST /v1/completions: HTTP 500: engine died"),
    ("/v1/completions", (200, '{"usage": {"completion_tokens": 0}}'), "vllm", {"token_generated"}, "0 tokens from tiny"),
    ("/v1/completions", (200, "{}"), "vllm", {"token_generated"}, "0 tokens from tiny"),
    ("/api/tags", recorded("05-tags-empty"), "ollama", {"token_generated"}, "GET /api/tags lists no model; pull one, or name it in ollama_model"),
    ("/api/generate", recorded("62-generate-unknown"), "ollama", {"token_generated"}, "POST /api/generate: HTTP 404: "),
    ("/api/generate", recorded("54-generate-load"), "ollama", {"token_generated"}, "0 tokens from tiny:latest"),
    ("/api/generate", (200, '{"error": "an error was encountered while running the model"}'), "ollama", {"token_generated"}, "an error was encountered"),
])
def test_a_service_that_answers_wrong(v2, prove, services, path, answer, service, names, found):
    services.answers[path] = answer
    checks = prove(v2)
    assert failed(checks) == {(service, name) for name in names}
    for name in names:
        check = one(checks, service, name)
        assert found in check["found"]
        assert check["hint"]


def test_nobody_listens(v2):
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        api = _check_api.Api("vllm", f"http://127.0.0.1:{placeholder.getsockname()[1]}", 5)
        assert "connection refused" in _check_api.api_health(api)["found"]
        assert _check_api.token_generated(api)["found"].startswith("not tried, since the service did not answer before: nothing listens on")


def test_a_hung_service_is_waited_for_once(v2):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        api = _check_api.Api("ollama", f"http://127.0.0.1:{listener.getsockname()[1]}", 0.2)
        assert _check_api.api_health(api)["found"].startswith("no full answer to /api/version within 0.2 s")
        assert _check_api.token_generated(api)["found"].startswith("not tried, since")
        listener.settimeout(0)
        listener.accept()[0].close()
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.mark.parametrize("content, sent", [
    (KEY, KEY), (f"\n# vLLM\n{KEY}\n", KEY), (f"VLLM_API_KEY={KEY}\n", KEY), (f"VLLM_API_KEY='{KEY}'\n", KEY), ("a=b", "a=b"),
])
def test_read_key(tmp_path, content, sent):
    path = tmp_path / "key"
    path.write_text(content, encoding="utf-8")
    assert _check_api.read_key(str(path)) == sent


@pytest.mark.parametrize("content, found", [
    (b"", "is empty"), (b"# only\n", "is empty"), (b"VLLM_API_KEY=\n", "is not plain text"), ("schlüssel".encode(), "is not plain text"),
    (b"a\x07b", "is not plain text"), (b"\xff", "cannot be read"), (None, "cannot be read: No such file or directory"),
])
def test_a_key_that_is_none(v2, prove, key_file, content, found):
    key_file.unlink()
    if content is not None:
        key_file.write_bytes(content)
    checks = prove(v2)
    assert failed(checks) == {("vllm", "token_generated")}
    assert found in one(checks, "vllm", "token_generated")["found"]


def test_a_wrong_key_is_told_and_never_shown(v2, prove, services, key_file):
    key_file.write_text("wrong-key-1", encoding="utf-8")
    checks = prove(v2)
    assert one(checks, "vllm", "token_generated")["found"] == "GET /v1/models: HTTP 401, the service wants another API key"
    key_file.write_text(KEY, encoding="utf-8")
    services.answers["/v1/models"] = (500, f"odd request with {KEY}")
    checks = prove(v2)
    assert one(checks, "vllm", "token_generated")["found"] == "GET /v1/models: HTTP 500: odd request with ********"
    assert KEY not in json.dumps(checks)


# ---- the plan


def without(*path):
    def change(plan):
        for key in path[:-1]:
            plan = plan[key]
        del plan[path[-1]]
    return change


def put(value, *path):
    def change(plan):
        for key in path[:-1]:
            plan = plan[key]
        plan[path[-1]] = value
    return change


@pytest.mark.parametrize("change, words", [
    (without("schema_version"), ["schema_version None", "knows 1"]),
    (put(2, "schema_version"), ["schema_version 2"]),
    (without("isolation"), ["isolation"]),
    (without("vllm", "cpuset"), ["vllm.cpuset"]),
    (put("0-x", "vllm", "cpuset"), ["vllm.cpuset"]),
    (put("", "ollama", "cpuset"), ["ollama.cpuset"]),
    (put("6g", "vllm", "memory", "limit_mib"), ["vllm.memory.limit_mib"]),
    (put(True, "vllm", "memory", "limit_mib"), ["vllm.memory.limit_mib"]),
    (without("vllm", "omp"), ["vllm.omp.mode", "vllm.omp.bind", "vllm.omp.threads", "vllm.omp.reserved_cpus"]),
    (put(None, "vllm", "omp", "cpus"), ["vllm.omp.cpus"]),
    (without("ollama", "threads"), ["ollama.threads"]),
    (put("gpu", "ollama", "device"), ["ollama.device"]),
    (put({"kind": "gpu", "uuid": "GPU-1", "driver": {"allowed": "new"}}, "ollama", "device"), ["ollama.device.cdi_device", "ollama.device.driver.allowed"]),
    (put("x", "vllm"), ["vllm"]),
    (put([], "partition"), ["partition.slices"]),
    (put([{"unit": "a.slice"}], "partition", "slices"), ["partition.slices[0].cpus"]),
    (put([3], "partition", "slices"), ["partition.slices[0].unit", "partition.slices[0].cpus"]),
    (put({"cpus": "7", "units": "x"}, "partition", "fence"), ["partition.fence.units"]),
    (put({"units": ["x"]}, "partition", "fence"), ["partition.fence.cpus"]),
])
def test_a_plan_that_cannot_be_judged_against(v2, change, words):
    change(v2.plan)
    with pytest.raises(_proof.PlanError) as error:
        _proof.load_plan(v2.plan)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_a_good_plan(host):
    assert _proof.load_plan(host.plan) is host.plan
    host.plan["ollama"] = None
    assert _proof.planned_services(_proof.load_plan(host.plan)) == ["vllm"]
    with pytest.raises(_proof.PlanError, match="not an object"):
        _proof.load_plan([])


def test_odd_plans_do_not_crash(v2, prove):
    """The device may be missing; it is then taken for none."""
    for service in ("vllm", "ollama"):
        del v2.plan[service]["device"]
    _proof.load_plan(v2.plan)
    assert failed(prove(v2)) == set()


# ---- the verdict


def check(name="a", ok=True, **more):
    return {"name": name, "service": "vllm", "ok": ok, "expected": "e", "found": "f", "evidence": "/x", "hint": "" if ok else "do", **more}


def test_verdict():
    assert _proof.verdict([check()]) == {"ok": True, "failed_checks": [], "summary": "ok: 1 check passed", "table": _proof.table([check()])}
    bad = _proof.verdict([check(), check("b", False), check("c", False)])
    assert (bad["ok"], bad["failed_checks"], bad["summary"]) == (False, ["vllm: b", "vllm: c"], "FAILED: 2 of 3 checks: vllm: b, vllm: c")
    assert _proof.verdict([])["summary"] == "FAILED: nothing was checked" and _proof.verdict([])["ok"] is False


def test_table():
    long = "x " * 60
    lines = _proof.table([check("short"), check("much_longer", False, expected=long, found="f\n g")])
    assert lines == [
        "      service  check        expected                                                  found",
        "ok    vllm     short        e                                                         f",
        "FAIL  vllm     much_longer  x x x x x x x x x x x x x x x x x x x x x x x x x x x x…  f g",
        f"      expected: {long}",
        "      found:    f\n g",
        "      evidence: /x",
        "      hint:     do",
    ]
    assert len(lines[2]) < 120
    assert _proof.table([dict(check("short", False), hint="")])[1:] == ["FAIL  vllm     short  e         f"]


def test_an_unforeseen_error_is_a_failed_check():
    with _check.Check("x", "vllm", "nothing odd") as odd:
        raise RuntimeError("odd")
    assert (odd.ok, odd.found) == (False, "could not be evaluated: RuntimeError: odd")
    with pytest.raises(KeyboardInterrupt):
        with _check.Check("x", "vllm", "nothing odd"):
            raise KeyboardInterrupt


# The other checks that are tried wrong, alone, and where.
ELSEWHERE = {
    "memory_limit": test_one_wrong_thing_fails_one_check, "threads_env": test_one_wrong_thing_in_ollama, "api_health": test_a_service_that_answers_wrong,
    "token_generated": test_a_service_that_answers_wrong, "slice_effective": test_slice_effective, "fence_effective": test_fence_effective,
    "exclusive_cores": test_a_foreign_process_on_the_cores,
}


def test_every_check_is_tried_wrong():
    tried = {names for _change, names, _found in WRONG.values() if isinstance(names, str)}
    assert tried | set(ELSEWHERE) == VLLM | OLLAMA | {"fence_effective", "exclusive_cores"}
