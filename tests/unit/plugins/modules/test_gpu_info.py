# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module on hosts that are folders, with an NVML of ours. conftest.py compares every result with RETURN."""
from __future__ import annotations

import functools
import json

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils import _engine, _gpu_info, _nvml
from ansible_collections.erni_ki.inference.plugins.modules import gpu_info
from ansible_collections.erni_ki.inference.tests.unit.plugins.fake_pynvml import NOTHING, bindings, process
from ansible_collections.erni_ki.inference.tests.unit.plugins.recorded_gpu import add_device, load_module, write

KEYS = {"state", "code", "hint", "driver_version", "cuda_driver_version", "nvml_version", "module", "cards", "gpus", "toolkit"}
LOST = dict(NOTHING, code=15, error="nvmlDeviceGetHandleByIndex: GPU is lost (NVML code 15)")


@pytest.fixture(name="run")
def run_fixture(capsys, module_arguments, monkeypatch, tmp_path):
    """Run the module on the folder, with this answer of NVML; return its exit status and its result."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(_engine.find_program, "__defaults__", (None, ()))

    def run(answer=None, check=False, **params):
        if answer is not None:
            monkeypatch.setattr(gpu_info, "detect", functools.partial(_gpu_info.detect, ask=lambda timeout: answer))
        arguments = {"sysroot": str(tmp_path), **params, "_ansible_check_mode": check}
        with module_arguments(arguments), pytest.raises(SystemExit) as ending:
            gpu_info.main()
        return ending.value.code, json.loads(capsys.readouterr().out)
    return run


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize("answer, state", [
    (_nvml.read(bindings(nvmlDeviceGetComputeRunningProcesses=[process(1, None)], nvmlDeviceGetMigMode=[0, 0], nvmlDeviceGetEccMode=[0, 0])), "ok"),
    (_nvml.answer_of(count=1, gpus=[LOST]), "gpu_lost"),
    (_nvml.answer_of(code=12, message="none"), "no_driver"),
    (_nvml.answer_of(code=18, message="other", nvml_version="13.580.95.05"), "version_mismatch"),
    (_nvml.answer_of(failure="crashed (Aborted)"), "unknown"),
    (_nvml.answer_of(bindings="none", count=1), "no_bindings"),
])
def test_a_host_with_a_card(run, tmp_path, answer, state, check):
    add_device(tmp_path, driver="nouveau")
    write(tmp_path, "etc/cdi/nvidia.json", json.dumps({"kind": "nvidia.com/gpu", "devices": [{"name": "all"}]}))
    program = write(tmp_path, "nvidia-ctk", "#!/bin/sh\necho NVIDIA Container Toolkit CLI version 1.19.1\n")
    program.chmod(0o755)
    if state == "version_mismatch":
        load_module(tmp_path, "570.144")
    status, result = run(answer, check)
    assert (status, result["changed"]) == (0, False)
    gpu = result["gpu"]
    assert set(gpu) == KEYS
    assert gpu["state"] == state
    assert gpu["toolkit"] == {
        "version": "1.19.1", "cdi_spec": "/etc/cdi/nvidia.json", "cdi_devices": ["nvidia.com/gpu=all"], "cdi_driver_version": None}


def test_a_host_without(run):
    status, result = run(_nvml.answer_of(code=12))
    assert status == 0
    assert (result["gpu"]["state"], result["gpu"]["cards"], result["gpu"]["gpus"]) == ("no_card", [], [])


def test_this_host(run):
    """Whatever this machine has: an answer."""
    status, result = run(sysroot="/")
    assert status == 0
    assert set(result["gpu"]) == KEYS


def test_nothing_is_written(run, tmp_path):
    add_device(tmp_path)
    before = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
    run(_nvml.answer_of(code=12))
    assert {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_bad_sysroot(run, tmp_path):
    status, result = run(_nvml.answer_of(), sysroot=str(tmp_path / "gone"))
    assert status == 1
    assert result["msg"] == f"The sysroot '{tmp_path / 'gone'}' does not exist. Give a folder that holds copies of /proc, /sys and /etc, or / for this host."


def test_timeout_of_nothing(run):
    status, result = run(timeout=0)
    assert status == 1
    assert result["msg"] == "timeout is 0 s; it must be above 0, such as 120."
