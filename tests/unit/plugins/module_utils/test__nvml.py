# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NVML through bindings of all ages, and the child process that keeps its hangs and crashes away."""
from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
import types

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils import _nvml
from ansible_collections.erni_ki.inference.tests.unit.plugins.fake_pynvml import (
    ANSWERS, GPU, MIB, NOTHING, NVMLError, NVMLLibraryMismatchError, bindings, memory, process,
)


def gpu_of(**answers):
    found = _nvml.read(bindings(**answers))["gpus"]
    assert len(found) == 1
    return found[0]


def test_a_card():
    assert _nvml.read(bindings()) == {
        "bindings": None, "failure": None, "code": None, "message": None, "nvml_version": "13.580.95.05", "driver_version": "580.95.05",
        "cuda_driver_version": "13.0", "count": 1, "gpus": [GPU],
    }


@pytest.mark.parametrize("name, answer, expected", [
    # Older bindings return bytes.
    ("nvmlDeviceGetName", b"Quadro P2200", {}),
    ("nvmlDeviceGetName", b"Quadro \xff", {"name": "Quadro \ufffd"}),
    ("nvmlDeviceGetName", "", {"name": None}),
    ("nvmlDeviceGetUUID", GPU["uuid"].encode(), {}),
    ("nvmlDeviceGetPciInfo", types.SimpleNamespace(busId=b"00000000:0A:00.0"), {"bus_id": "0000:0a:00.0"}),
    ("nvmlDeviceGetPciInfo", types.SimpleNamespace(), {"bus_id": None}),
    # Older bindings lack functions and arguments, older drivers too, and smaller cards have less.
    ("nvmlDeviceGetArchitecture", None, {"architecture": None}),
    ("nvmlDeviceGetArchitecture", 4294967295, {"architecture": None}),
    ("nvmlDeviceGetMemoryInfo", lambda _handle: memory(5120, 161, 4959), {"memory": dict(GPU["memory"], used_mib=161, reserved_mib=None)}),
    ("nvmlDeviceGetMemoryInfo", NVMLError(3), {"memory": dict.fromkeys(GPU["memory"])}),
    ("nvmlDeviceGetCudaComputeCapability", NVMLError(3), {"compute_capability": None}),
    ("nvmlDeviceGetPowerManagementLimit", NVMLError(3), {"power_limit_w": None}),
    ("nvmlDeviceGetPowerManagementLimit", 115500, {"power_limit_w": 115.5}),
    ("nvmlDeviceGetTemperature", NVMLError(3), {"temperature_c": None}),
    ("nvmlDeviceGetTemperature", NVMLError(999), {"temperature_c": None}),
    ("nvmlDeviceGetMigMode", [0, 0], {"mig_mode": "disabled"}),
    ("nvmlDeviceGetMigMode", [1, 1], {"mig_mode": "enabled"}),
    ("nvmlDeviceGetMigMode", [0, 1], {"mig_mode": "disabled"}),
    ("nvmlDeviceGetMigMode", None, {}),
    ("nvmlDeviceGetEccMode", [1, 0], {"ecc_mode": "enabled"}),
    ("nvmlDeviceGetEccMode", [0, 0], {"ecc_mode": "disabled"}),
    ("nvmlDeviceGetComputeRunningProcesses", None, {}),
    # What fails is told, once.
    ("nvmlDeviceGetName", NVMLError(15), {"name": None, "code": 15, "error": "nvmlDeviceGetName: GPU is lost (NVML code 15)"}),
    ("nvmlDeviceGetMemoryInfo", NVMLError(4), {
        "memory": dict.fromkeys(GPU["memory"]), "code": 4, "error": "nvmlDeviceGetMemoryInfo: NVML Error with code 4 (NVML code 4)"}),
    ("nvmlDeviceGetHandleByIndex", NVMLError(15), dict(NOTHING, code=15, error="nvmlDeviceGetHandleByIndex: GPU is lost (NVML code 15)")),
    ("nvmlDeviceGetHandleByIndex", RuntimeError("?"), dict(NOTHING, code=999, error="nvmlDeviceGetHandleByIndex: Unknown Error (NVML code 999)")),
])
def test_what_cards_and_bindings_answer(name, answer, expected):
    assert gpu_of(**{name: answer}) == {**GPU, **expected}


def test_the_first_failure_is_told():
    lost = {name: NVMLError(15) for name in ANSWERS if name.startswith("nvmlDeviceGet") and name not in ("nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex")}
    lost["nvmlDeviceGetCudaComputeCapability"] = NVMLError(999)
    assert gpu_of(**lost) == dict(NOTHING, code=999, error="nvmlDeviceGetCudaComputeCapability: Unknown Error (NVML code 999)")


def test_a_library_that_is_older_than_the_bindings():
    assert gpu_of(
        nvmlDeviceGetComputeRunningProcesses=NVMLLibraryMismatchError("use _v2"),
        nvmlDeviceGetComputeRunningProcesses_v3=NVMLError(13),
        nvmlDeviceGetComputeRunningProcesses_v2=[process(7, 5 * MIB)],
    )["processes"] == [{"pid": 7, "name": "/usr/bin/program-7", "memory_mib": 5, "type": "compute"}]


@pytest.mark.parametrize("code", [13, 25])
def test_memory_of_an_older_driver(code):
    def info(_handle, version=None):
        if version:
            raise NVMLError(code)
        return memory(5120, 161, 4959)
    assert gpu_of(nvmlDeviceGetMemoryInfo=info)["memory"] == {"total_mib": 5120, "used_mib": 161, "free_mib": 4959, "reserved_mib": None}


def test_other_functions_for_the_same():
    found = _nvml.read(bindings(
        nvmlSystemGetCudaDriverVersion_v2=None, nvmlSystemGetCudaDriverVersion=12080, nvmlDeviceGetTemperature=None,
        nvmlDeviceGetTemperatureV=lambda _handle, sensor: 40 + sensor, nvmlDeviceGetPowerManagementLimit=None, nvmlDeviceGetEnforcedPowerLimit=60000,
    ))
    assert found["cuda_driver_version"] == "12.8"
    assert found["gpus"] == [dict(GPU, temperature_c=40, power_limit_w=60.0)]


@pytest.mark.parametrize("number, expected", [(13000, "13.0"), (12080, "12.8"), (11040, "11.4"), (0, None), (None, None)])
def test_cuda_version(number, expected):
    assert _nvml.cuda_version(number) == expected


def test_processes():
    nothing_known = (1 << 64) - 1
    found = gpu_of(
        nvmlDeviceGetComputeRunningProcesses=[process(30, 4400 * MIB + 1), process(10, None)],
        nvmlDeviceGetMPSComputeRunningProcesses=[process(20, nothing_known)],
        nvmlDeviceGetGraphicsRunningProcesses=[process(30, 8 * MIB), process(5, 9 * MIB)],
        nvmlSystemGetProcessName=lambda pid: {5: b"/usr/lib/xorg/Xorg", 10: ""}.get(pid, "p"),
    )["processes"]
    assert found == [
        {"pid": 5, "name": "/usr/lib/xorg/Xorg", "memory_mib": 9, "type": "graphics"},
        {"pid": 10, "name": None, "memory_mib": None, "type": "compute"},
        {"pid": 20, "name": "p", "memory_mib": None, "type": "compute"},
        {"pid": 30, "name": "p", "memory_mib": 4400, "type": "compute"},
    ]


def test_a_process_that_is_gone_has_no_name():
    assert gpu_of(nvmlDeviceGetComputeRunningProcesses=[process(1, 0)], nvmlSystemGetProcessName=NVMLError(6))["processes"][0]["name"] is None


def test_one_of_two_is_lost():
    def handle(index):
        if index:
            raise NVMLError(15)
        return index
    found = _nvml.read(bindings(nvmlDeviceGetCount=2, nvmlDeviceGetHandleByIndex=handle))["gpus"]
    assert found == [GPU, dict(NOTHING, index=1, code=15, error="nvmlDeviceGetHandleByIndex: GPU is lost (NVML code 15)")]


@pytest.mark.parametrize("name", ["nvmlInit", "nvmlDeviceGetCount"])
@pytest.mark.parametrize("error, code, words", [
    (NVMLError(18), 18, "RM has detected an NVML/RM version mismatch (NVML code 18)"),
    (NVMLError(9), 9, "Driver Not Loaded (NVML code 9)"),
    (NVMLLibraryMismatchError(), 13, "NVML Error with code 13 (NVML code 13)"),
    (OSError("?"), 999, "Unknown Error (NVML code 999)"),
])
def test_no_answer(name, error, code, words):
    found = _nvml.read(bindings(**{name: error}))
    assert (found["code"], found["message"], found["gpus"], found["nvml_version"]) == (code, words, [], "13.580.95.05")


def test_bindings_without_words():
    assert _nvml.read(bindings(nvmlInit=NVMLError(7), NVMLError=None))["message"] == "NVML code 7"


@pytest.mark.parametrize("name", sorted(ANSWERS))
@pytest.mark.parametrize("answer", [
    None, AttributeError("a"), TypeError("t"), ValueError("v"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "u"), NVMLLibraryMismatchError("m"),
    *map(NVMLError, (1, 2, 3, 4, 6, 12, 13, 15, 25, 999)),
], ids=repr)
def test_whatever_fails_there_is_an_answer(name, answer):
    found = _nvml.read(bindings(**{name: answer}))
    assert set(json.loads(json.dumps(found))) == set(_nvml.answer_of())
    for gpu in found["gpus"]:
        assert set(gpu) == set(GPU)


class Library:
    """The library itself, as ctypes shows it."""

    def __init__(self, code=0, count=0):
        self.code = code
        self.count = count

    def nvmlInitWithFlags(self, flags):
        assert flags == 0
        return self.code

    def nvmlDeviceGetCount_v2(self, count):
        count._obj.value = self.count
        return 0


@pytest.mark.parametrize("library, expected", [
    (Library(count=2), {"count": 2}),
    (Library(), {"count": 0}),
    (Library(code=18), {"code": 18, "message": "NVML code 18"}),
    (types.SimpleNamespace(), {"code": 13}),
])
def test_without_bindings_the_library_tells_the_state(library, expected):
    found = _nvml.read_without_bindings("why", load=lambda name: library)
    assert found["bindings"] == "why"
    assert {key: found[key] for key in expected} == expected
    assert found["gpus"] == []


def test_without_bindings_and_library():
    found = _nvml.read_without_bindings("why", load=lambda _name: ctypes.CDLL("libgone-from-here.so.1"))
    assert found["code"] == 12
    assert "libgone-from-here.so.1" in found["message"]


def test_without_ctypes(monkeypatch):
    monkeypatch.setitem(sys.modules, "ctypes", None)
    found = _nvml.read_without_bindings("why")
    assert (found["bindings"], found["code"], found["count"]) == ("why", None, None)


def test_the_bindings_are_used(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", bindings())
    assert _nvml.ask()["gpus"] == [GPU]


def test_the_bindings_are_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(_nvml, "LIBRARY", "libgone-from-here.so.1")
    found = _nvml.ask()
    assert found["bindings"].startswith("ModuleNotFoundError: ")
    assert found["code"] == 12


def test_bindings_for_another_python(monkeypatch, tmp_path):
    (tmp_path / "pynvml.py").write_text("print 'Python 2'\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    monkeypatch.setattr(_nvml, "LIBRARY", "libgone-from-here.so.1")
    assert _nvml.ask()["bindings"].startswith("SyntaxError: ")


def test_asked_in_a_child(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", bindings())
    assert _nvml.ask_safely(10) == _nvml.read(bindings())


def test_what_becomes_of_the_child_is_an_answer(monkeypatch):
    monkeypatch.setattr(_nvml, "ask", lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert _nvml.ask_safely(10) == _nvml.answer_of(failure="crashed (Killed)")


def test_a_long_answer_comes_whole():
    value = ["x" * 1000] * 1000
    assert _nvml.bounded(lambda: value, 30) == (value, None)


def die():
    os.write(2, b"gone")
    os._exit(3)


def leave():
    sys.exit("text")


@pytest.mark.parametrize("function, failure", [
    (lambda: time.sleep(60), "gave no answer within 0.2 s"),
    (die, "ended without an answer"),
    (leave, "ended without an answer"),
    (lambda: 1 / 0, "ended without an answer"),
    (object, "ended without an answer"),
])
def test_a_child_that_gives_none(function, failure, capfd):
    start = time.monotonic()
    timeout = 0.2 if "within" in failure else 30
    assert _nvml.bounded(function, timeout) == (None, failure)
    assert time.monotonic() - start < 20
    assert capfd.readouterr() == ("", "")


def test_a_hung_child_ends_with_its_own_children(tmp_path):
    """A program that the library started must not outlive it."""
    note = tmp_path / "pid"

    def hang():
        pid = os.fork()
        if pid == 0:
            note.write_text(str(os.getpid()), encoding="ascii")
        time.sleep(60)

    assert _nvml.bounded(hang, 1)[1] == "gave no answer within 1 s"
    pid = int(note.read_text(encoding="ascii"))
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(pid)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_the_child_is_cut_off():
    """Who waits for the end of the module's output must not wait for a child that hangs."""
    def look():
        return [os.readlink(f"/proc/self/fd/{number}") for number in (0, 1, 2)] + [os.getsid(0) == os.getpid()]
    assert _nvml.bounded(look, 30) == ([os.devnull] * 3 + [True], None)


@pytest.mark.parametrize("function, timeout", [(lambda: time.sleep(60), 0.1), (lambda: None, 30)])
def test_no_child_is_left_over(monkeypatch, function, timeout):
    children = []

    def fork(original=os.fork):
        children.append(original())
        return children[-1]

    monkeypatch.setattr(_nvml.os, "fork", fork)
    _nvml.bounded(function, timeout)
    with pytest.raises(ChildProcessError):
        os.waitpid(children[0], os.WNOHANG)


def test_a_child_that_cannot_be_killed_is_not_waited_for(monkeypatch):
    """In a call of a broken driver a process does not even end by SIGKILL."""
    monkeypatch.setattr(_nvml.os, "waitpid", lambda pid, flags: (0, 0))
    start = time.monotonic()
    assert _nvml._status(1, patience=0.02) is None
    assert time.monotonic() - start < 5


def test_a_child_without_a_group_is_killed_all_the_same():
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    _nvml._end(pid)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL


def test_the_child_writes_what_the_function_returns(monkeypatch):
    monkeypatch.setattr(_nvml, "_retire", lambda: None)
    reader, writer = os.pipe()
    _nvml._child(lambda: {"a": "\u00fc"}, writer)
    assert _nvml._receive(reader, time.monotonic() + 10) == (b'{"a": "\\u00fc"}', True)
    os.close(reader)
