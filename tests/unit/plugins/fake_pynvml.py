# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stands in for the Python package nvidia-ml-py: answers from a table, in the ways its versions answer."""
from __future__ import annotations

import types

GPU_UUID = "GPU-57a2d1e5-0000-4000-8000-000000002200"
MIB = 1 << 20
WORDS = {3: "Not Supported", 9: "Driver Not Loaded", 15: "GPU is lost", 18: "RM has detected an NVML/RM version mismatch.", 999: "Unknown Error"}


class NVMLError(Exception):
    """As the real one: the code is its value, and it knows the words for it."""

    def __init__(self, value):
        super().__init__(value)
        self.value = value

    def __str__(self):
        return WORDS.get(self.value, f"NVML Error with code {self.value}")


class NVMLLibraryMismatchError(Exception):
    """What an unversioned function says in newer versions when the library lacks it."""


def process(pid, used, **more):
    return types.SimpleNamespace(pid=pid, usedGpuMemory=used, **more)


def memory(total, used, free, **more):
    return types.SimpleNamespace(total=total * MIB, used=used * MIB, free=free * MIB, **more)


def memory_of_both_versions(_handle, version=None):
    if version is None:
        return memory(5120, 161, 4959)
    assert version == 0x02000028
    return memory(5120, 100, 4959, reserved=61 * MIB)


ANSWERS = {
    "nvmlInit": None,
    "nvmlSystemGetNVMLVersion": "13.580.95.05",
    "nvmlSystemGetDriverVersion": "580.95.05",
    "nvmlSystemGetCudaDriverVersion_v2": 13000,
    "nvmlSystemGetProcessName": lambda pid: f"/usr/bin/program-{pid}",
    "nvmlDeviceGetCount": 1,
    "nvmlDeviceGetHandleByIndex": lambda index: f"handle {index}",
    "nvmlDeviceGetName": "Quadro P2200",
    "nvmlDeviceGetUUID": GPU_UUID,
    "nvmlDeviceGetPciInfo": types.SimpleNamespace(busId="00000000:01:00.0"),
    "nvmlDeviceGetCudaComputeCapability": (6, 1),
    "nvmlDeviceGetArchitecture": 4,
    "nvmlDeviceGetMemoryInfo": memory_of_both_versions,
    "nvmlDeviceGetMigMode": NVMLError(3),
    "nvmlDeviceGetEccMode": NVMLError(3),
    "nvmlDeviceGetPowerManagementLimit": 75000,
    "nvmlDeviceGetTemperature": lambda _handle, sensor: 41 - sensor,
    "nvmlDeviceGetComputeRunningProcesses": [],
    "nvmlDeviceGetMPSComputeRunningProcesses": [],
    "nvmlDeviceGetGraphicsRunningProcesses": [],
}
GPU = {
    "index": 0, "name": "Quadro P2200", "uuid": GPU_UUID, "bus_id": "0000:01:00.0",
    "memory": {"total_mib": 5120, "used_mib": 100, "free_mib": 4959, "reserved_mib": 61},
    "compute_capability": "6.1", "architecture": "Pascal", "mig_mode": None, "ecc_mode": None, "power_limit_w": 75.0, "temperature_c": 41,
    "processes": [], "code": None, "error": None,
}
NOTHING = dict(
    GPU, name=None, uuid=None, bus_id=None, memory=dict.fromkeys(GPU["memory"]), compute_capability=None, architecture=None, power_limit_w=None,
    temperature_c=None,
)


def bindings(**answers):
    """Return bindings that answer as the table says, with these answers instead. An exception is raised; None for a function takes it away."""
    table = {**ANSWERS, **answers}
    names = {name: _function(answer) for name, answer in table.items() if answer is not None or name not in answers}
    if "NVMLError" not in answers:
        names["NVMLError"] = NVMLError
    return types.SimpleNamespace(nvmlMemory_v2=0x02000028, **names)


def _function(answer):
    def function(*args):
        if isinstance(answer, Exception):
            raise answer
        return answer(*args) if callable(answer) else answer
    return function
