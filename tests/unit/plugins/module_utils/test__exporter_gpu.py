# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The child that reads the card, as a real process: its answers, its end, and what becomes of one that hangs or crashes."""
from __future__ import annotations

import io
import json
import sys
import time
import types

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils import _exporter_gpu
from ansible_collections.erni_ki.inference.plugins.module_utils._exporter_source import Failed


class NvmlError(Exception):
    def __init__(self, value):
        super().__init__(value)
        self.value = value


def bindings(**changes):
    """Return what stands in for pynvml, with one card."""
    memory = types.SimpleNamespace(total=5120 << 20, used=3000 << 20, free=2059 << 20, reserved=61 << 20)
    functions = {
        "nvmlInit": lambda: None, "nvmlSystemGetNVMLVersion": lambda: b"13.580.95.05", "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: index, "nvmlDeviceGetUUID": lambda handle: "GPU-1",
        "nvmlDeviceGetPciInfo": lambda handle: types.SimpleNamespace(busId="00000000:01:00.0"), "nvmlDeviceGetMemoryInfo": lambda handle, version=0: memory,
        "nvmlDeviceGetUtilizationRates": lambda handle: types.SimpleNamespace(gpu=37, memory=5), "nvmlDeviceGetPowerUsage": lambda handle: 41250,
        "nvmlDeviceGetTemperature": lambda handle, sensor: 63, "NVMLError": lambda code: f"error {code}", **changes}
    return types.SimpleNamespace(**functions)


def fails(code):
    def function(*_args):
        raise NvmlError(code)

    return function


def served(nvml, lines):
    answers = io.StringIO()
    _exporter_gpu.serve(io.StringIO("\n" * lines), answers, lambda: nvml)
    return [json.loads(line) for line in answers.getvalue().splitlines()]


def test_an_answer():
    [said] = served(bindings(), 1)
    assert said == {"code": 0, "nvml_version": "13.580.95.05", "message": None, "gpus": [{
        "uuid": "GPU-1", "bus_id": "0000:01:00.0", "total_mib": 5120, "used_mib": 3000, "temperature_c": 63, "utilization": 0.37, "power_w": 41.25,
        "code": None, "error": None}]}


def test_it_ends_after_its_answers():
    assert len(served(bindings(), 100)) == _exporter_gpu.ANSWERS and len(served(bindings(), 3)) == 3


def test_what_fails():
    [said] = served(bindings(nvmlInit=fails(18)), 5)
    assert said["code"] == 18 and said["gpus"] == []
    [said] = served(bindings(nvmlDeviceGetCount=fails(999)), 5)
    assert said["code"] == 999
    # A card that does not tell its power is well; one that does not tell its name is lost.
    said = served(bindings(nvmlDeviceGetPowerUsage=fails(3), nvmlDeviceGetUtilizationRates=fails(3)), 1)[0]["gpus"][0]
    assert said["power_w"] is said["utilization"] is said["error"] is None
    assert served(bindings(nvmlDeviceGetUUID=fails(15)), 1)[0]["gpus"][0]["code"] == 15
    assert served(bindings(nvmlDeviceGetHandleByIndex=fails(15)), 1)[0]["gpus"][0]["code"] == 15


def test_without_bindings():
    def load():
        raise ImportError("No module named 'pynvml'")

    answers = io.StringIO()
    _exporter_gpu.serve(io.StringIO("\n"), answers, load)
    assert json.loads(answers.getvalue()) == {"bindings": "ImportError: No module named 'pynvml'"}


def child(script, timeout=10.0):
    return _exporter_gpu.Child(timeout, [sys.executable, "-c", script])


def test_a_child_is_kept_and_followed_by_another():
    one = child("import os\nfor turn in range(2):\n    input()\n    print('{\"pid\": %d}' % os.getpid(), flush=True)")
    pids = [one.ask()["pid"] for _turn in range(5)]
    one.end()
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]


def test_a_child_that_hangs():
    one, begun = child("import time\ntime.sleep(60)", 0.5), time.monotonic()
    with pytest.raises(Failed, match="no answer within 0.5 s"):
        one.ask()
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize("script, words", [
    ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "crashed"), ("pass", "gave no answer"),
    ("print('odd', flush=True)\ninput()", "gave no answer")])
def test_a_child_that_ends(script, words):
    with pytest.raises(Failed, match=f"NVML .*({words}|gave no answer)"):
        child(script).ask()


def test_bindings_that_are_missing_are_told_whenever_asked():
    one = child("print('{\"bindings\": \"none\"}', flush=True)")
    assert one.ask() == one.ask() == {"bindings": "none"}
    one.end()
