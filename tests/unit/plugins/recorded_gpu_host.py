# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The recorded host with a Quadro P2200 for Ollama: its nodes, its driver, its CDI specification, and a model on it."""
from __future__ import annotations

from ansible_collections.erni_ki.inference.plugins.module_utils import _cdi, _check_gpu, _gpu_info, _nvml
from ansible_collections.erni_ki.inference.tests.unit.plugins.recorded_gpu import add_device, load_module
from ansible_collections.erni_ki.inference.tests.unit.plugins.recorded_host import IDS, MIB, OLLAMA_ENV, Host

UUID = "GPU-5a1e0c52-6f1d-4a8e-9c55-0d6f2a3b4c5d"
OTHER = "GPU-00000000-1111-2222-3333-444444444444"
BUS = "0000:01:00.0"
DRIVER = "580.95.05"
NAME = f"nvidia.com/gpu={UUID}"
INFORMATION = f"/proc/driver/nvidia/gpus/{BUS}/information"
SPEC = "/etc/cdi/nvidia.yaml"
NUMBERS = {"nvidiactl": (195, 255), "nvidia0": (195, 0), "nvidia1": (195, 1), "nvidia-uvm": (511, 0)}
DEVICE = {
    "kind": "gpu", "uuid": UUID, "name": "Quadro P2200", "bus_id": BUS, "compute_capability": "6.1", "memory_total_mib": 5120, "cdi_device": NAME,
    "library": "cuda_v12", "driver": {"found": DRIVER, "allowed": "570-580"}, "handover": "cdi", "vram": {"total_mib": 5120, "partial_allowed": False},
}
REQUEST = {"Driver": "cdi", "Count": 0, "DeviceIDs": [NAME], "Capabilities": [["gpu"]], "Options": {}}
LIBRARY = f"7f1c2a000000-7f1c2c000000 r-xp 00000000 08:01 1234   /usr/lib/x86_64-linux-gnu/libcuda.so.{DRIVER}"
RUNNER = ["/usr/lib/ollama/llama-server", "--model", "/root/.ollama/models/blobs/sha256-1", "-c", "4096", "-np", "1"]


def gpu(uuid=UUID, bus_id=BUS, index=0, processes=(), **changes):
    """Return a GPU as NVML answers."""
    known = {
        "index": index, "name": "Quadro P2200", "uuid": uuid, "bus_id": bus_id, "compute_capability": "6.1", "architecture": "Pascal",
        "memory": {"total_mib": 5120, "used_mib": 4461, "free_mib": 598, "reserved_mib": 61}, "mig_mode": None, "ecc_mode": None, "power_limit_w": 75.0,
        "temperature_c": 41, "processes": [dict({"name": "llama-server", "memory_mib": 4400, "type": "compute"}, **process) for process in processes],
        "code": None, "error": None,
    }
    return dict(known, **changes)


class GpuHost(Host):
    """The host of the other recorded proof, on which Ollama has a GPU. C(answer) is what NVML says."""

    def __init__(self, root, kind="v2-systemd"):
        super().__init__(root, kind)
        self.plan["ollama"]["device"] = {**DEVICE, "driver": dict(DEVICE["driver"]), "vram": dict(DEVICE["vram"])}
        self.containers["ollama"]["HostConfig"]["DeviceRequests"] = [dict(REQUEST)]
        self.answer = _nvml.answer_of(
            nvml_version=f"13.{DRIVER}", driver_version=DRIVER, cuda_driver_version="13.0", count=1, gpus=[gpu(processes=[{"pid": 2010}])])
        self.permitted = set(NUMBERS)
        add_device(self.root, BUS, driver="nvidia")
        load_module(self.root, DRIVER)
        self.write(INFORMATION, f"Model: \t\t Quadro P2200\nGPU UUID: \t {UUID}\nBus Location: \t {BUS}\nDevice Minor: \t 0\n")
        self.write("/dev/nvidia-uvm", "")
        for node in ("nvidia0", "nvidiactl", "nvidia-uvm"):
            self.write(f"/proc/2000/root/dev/{node}", "")
        self.spec()
        self.write("/proc/2000/maps", "55d0c0000000-55d0c1000000 r-xp 00000000 08:01 99   /usr/bin/ollama\n")
        self.write("/proc/2010/maps", f"{LIBRARY}\n{LIBRARY}\n")
        self.command(2000, ["/usr/bin/ollama", "serve"])
        self.command(2010, RUNNER)
        if self.version == 1:
            self.write(self.container_file("ollama", "devices.list"), "c *:* m\nc 1:3 rwm\nc 195:255 rw\nc 195:0 rw\nc 511:* rwm\n")

    def spec(self, device=UUID, driver=DRIVER):
        path = f"/usr/lib/libcuda.so.{driver}" if driver else "/usr/lib/libother.so"
        self.write(SPEC, f'cdiVersion: "0.5.0"\nkind: nvidia.com/gpu\ndevices:\n- name: "{device}"\n  containerEdits:\n    deviceNodes:\n'
                         f"    - path: /dev/nvidia0\ncontainerEdits:\n  mounts:\n  - hostPath: {path}\n")

    def command(self, pid, words):
        self.write(f"/proc/{pid}/cmdline", "".join(f"{word}\0" for word in words))

    def runner(self, *words, **environment):
        self.command(2010, [*RUNNER, *words])
        self.environ(2010, {**OLLAMA_ENV, **environment})

    def look(self, root):
        """What gpu_info would return here, without the library and the programs of the machine that tests."""
        return _gpu_info.detect(root, ask=lambda timeout: self.answer, read_toolkit=lambda root, timeout: dict({"version": "1.19.1"}, **_cdi.gpus(root)))

    def probe(self, folder, numbers, paths):
        """What trying it out in a control group finds: vLLM's may open nothing."""
        if numbers:
            return [(f"character device {major}:{minor}", False) for major, minor in numbers]
        return [(path, path.rpartition("/")[2] in self.permitted) for path in paths]

    def number(self, path):
        """What device_number would find, were the files nodes: only root may make those."""
        place = self.root / path
        return NUMBERS.get(place.name) if place.is_file() and place.read_text(encoding="utf-8") == "" else None

    def patch(self, monkeypatch):
        monkeypatch.setattr(_check_gpu, "device_number", self.number)


__all__ = ["BUS", "DEVICE", "DRIVER", "IDS", "INFORMATION", "LIBRARY", "MIB", "NAME", "OTHER", "REQUEST", "RUNNER", "SPEC", "UUID", "GpuHost", "gpu"]
