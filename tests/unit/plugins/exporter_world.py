# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A recorded host under load with a container engine and a card, as the exporter meets them."""
from __future__ import annotations

import copy
import json
import time

from ansible_collections.erni_ki.inference.plugins.module_utils import _docker, _exporter_host
from ansible_collections.erni_ki.inference.tests.unit.plugins.recorded_host import Host
from ansible_collections.erni_ki.inference.tests.unit.plugins.recorded_load import Load

PATH = "/etc/erni-ki/plan.json"
UUID = "GPU-57a2d1e5-0000-4000-8000-0000000c1c31"


class Engine:
    """A client of the container engine that knows the recorded containers."""

    def __init__(self, recorded):
        self.api = self
        self.recorded = recorded
        self.problem = None

    def inspect_container(self, name):
        if self.problem:
            raise OSError(self.problem)
        if name not in self.recorded.containers:
            raise _docker.docker.errors.NotFound("no such container")
        return copy.deepcopy(self.recorded.containers[name])


class World:
    """A recorded host under load, and the exporter's view of it."""

    def __init__(self, folder, kind="v2-systemd", apis=None, gpu=None):
        self.recorded = Host(folder, kind)
        self.load = Load(self.recorded)
        self.engine = Engine(self.recorded)
        self.host = _exporter_host.Host(PATH, apis or {}, 5, root=str(folder), connect=lambda timeout: self.engine, gpu=gpu)
        self.plan()

    def plan(self):
        self.recorded.write(PATH, json.dumps(self.recorded.plan))

    def look(self, *names):
        """Return {(name without erni_ki_, *label values): value} of these sources."""
        found = {}
        for name in names:
            found.update({(metric[len("erni_ki_"):], *labels): value for metric, labels, value in getattr(self.host, f"look_{name}")()})
        return found


class Card:
    """Answers as the child that reads NVML does."""

    def __init__(self, **changes):
        self.answer = {"code": 0, "nvml_version": "13.580.95.05", "message": None, "gpus": [{
            "uuid": UUID, "bus_id": "0000:01:00.0", "total_mib": 5120, "used_mib": 3000, "temperature_c": 61, "utilization": 0.5, "power_w": 40.5,
            "code": None, "error": None}]}
        self.answer.update(changes)

    def ask(self):
        return self.answer


def with_gpu(folder, card, module="580.95.05"):
    world = World(folder, gpu=card)
    world.recorded.plan["ollama"]["device"] = {
        "kind": "gpu", "uuid": UUID, "bus_id": "0000:01:00.0", "cdi_device": "nvidia.com/gpu=0", "driver": {"allowed": "570-580"},
        "vram": {"total_mib": 5120, "reserve_mib": 1853, "max_loaded_models": 1}}
    world.plan()
    world.recorded.write("/proc/driver/nvidia/version", f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {module}  Tue\n")
    return world


def until(true, seconds=15):
    """Return whether it becomes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.01)
    return False
