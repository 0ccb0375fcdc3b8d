# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan's GPU, asked through NVML by a child process that is kept for a while.

NVML may hang or crash, so it is never loaded into the exporter itself. To load it anew for each look would cost more than all other sources
together; a child that lives for ever would not see that the driver was upgraded below it. So a child answers a number of times and ends.
"""
from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time

from ansible_collections.erni_ki.inference.plugins.module_utils import _gpu_info, _nvml
from ansible_collections.erni_ki.inference.plugins.module_utils._exporter_source import Failed
from ansible_collections.erni_ki.inference.plugins.module_utils._topology import SysRoot

# How many answers a child gives: with one every 15 seconds, five minutes.
ANSWERS = 20

LOST = 15
MISMATCH = 18

# Metric, field of the answer, and what it is multiplied with.
READINGS = (
    ("memory_used_bytes", "used_mib", _nvml.MIB), ("memory_total_bytes", "total_mib", _nvml.MIB), ("utilization_ratio", "utilization", 1),
    ("temperature_celsius", "temperature_c", 1), ("power_watts", "power_w", 1),
)


def read_card(nvml, index):
    """Return what is told of one GPU; None is what it does not answer."""
    code, handle = _nvml.attempt(nvml, "nvmlDeviceGetHandleByIndex", index)
    if code:
        return dict({key: None for _name, key, _scale in READINGS}, uuid=None, bus_id=None, code=code, error=_nvml.explain(nvml, code))
    card = _nvml.Card(nvml, handle)
    uuid = _nvml.text(card.ask("nvmlDeviceGetUUID"))
    bus = _nvml.bus_id(_nvml.text(getattr(card.ask("nvmlDeviceGetPciInfo"), "busId", None)))
    memory = card.memory()
    load, watts = card.optional("nvmlDeviceGetUtilizationRates"), card.optional("nvmlDeviceGetPowerUsage")
    celsius = _nvml.first(nvml, ("nvmlDeviceGetTemperature", "nvmlDeviceGetTemperatureV"), handle, _nvml.TEMPERATURE_GPU)[1]
    code, asked = card.failed or (None, None)
    return {
        "uuid": uuid, "bus_id": bus, "total_mib": memory["total_mib"], "used_mib": memory["used_mib"], "temperature_c": celsius,
        "utilization": None if load is None else load.gpu / 100, "power_w": None if watts is None else watts / 1000,
        "code": code, "error": f"{asked}: {_nvml.explain(nvml, code)}" if code else None,
    }


def serve(requests, answers, load=None):
    """The child: read the card for each line that comes in, until they end or the answers are given."""
    try:
        if load:
            nvml = load()
        else:
            import pynvml as nvml
    except Exception as error:
        answers.write(json.dumps({"bindings": f"{type(error).__name__}: {error}"}) + "\n")
        answers.flush()
        return
    code, _nothing = _nvml.attempt(nvml, "nvmlInit")
    version = _nvml.text(_nvml.attempt(nvml, "nvmlSystemGetNVMLVersion")[1])
    for _turn in range(ANSWERS):
        if not requests.readline():
            return
        said = {"code": code, "nvml_version": version, "gpus": [], "message": _nvml.explain(nvml, code) if code else None}
        if not code:
            found, count = _nvml.attempt(nvml, "nvmlDeviceGetCount")
            said.update(code=found, message=_nvml.explain(nvml, found) if found else None, gpus=[read_card(nvml, index) for index in range(count or 0)])
        answers.write(json.dumps(said) + "\n")
        answers.flush()
        if said["code"]:
            # It may be another driver the next time.
            return


def main(_arguments):
    """Be the child."""
    serve(sys.stdin, sys.stdout)
    return 0


class Child:
    """Asks, and starts a child where there is none. C(command) is what runs C(serve) on its standard input and output."""

    def __init__(self, timeout, command=None):
        self.timeout = timeout
        # As the exporter itself was started: with its folder for compiled files, where it has one.
        kept = ["-X", f"pycache_prefix={sys.pycache_prefix}"] if sys.pycache_prefix else ["-B"]
        self.command = command or [sys.executable, "-I", *kept, os.path.abspath(sys.argv[0]), "--gpu"]
        self._process = None
        self._lock = threading.Lock()

    def ask(self):
        """Return the child's answer; Failed when there is none in time."""
        with self._lock:
            # A child that had just given its last answer is found out by asking it.
            for again in (True, False):
                fresh = self._process is None
                try:
                    return json.loads(self._exchange())
                except (OSError, ValueError, EOFError) as error:
                    told = self.end()
                    if fresh or not again:
                        raise Failed(f"NVML {told or 'gave no answer'} ({type(error).__name__})") from error

    def _exchange(self):
        if self._process is None:
            self._process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
        # Bindings that are missing are told without being asked for.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()
        deadline, said, reader = time.monotonic() + self.timeout, b"", self._process.stdout.fileno()
        while not said.endswith(b"\n"):
            if not select.select([reader], [], [], max(0.0, deadline - time.monotonic()))[0]:
                self.end()
                raise Failed(f"NVML gave no answer within {self.timeout:g} s")
            part = os.read(reader, 65536)
            if not part:
                raise EOFError("the child ended")
            said += part
        return said

    def end(self):
        """End the child, and return in words how it ended by itself, if it crashed. One in a call of a broken driver is left to itself."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.kill()
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                stream.close()
        try:
            code = process.wait(1)
        except subprocess.TimeoutExpired:
            return None
        return f"crashed (signal {-code})" if code < 0 and code != -9 else None


def judge(answer, device, root):
    """Return ((name, value) of each metric that can be told of the plan's GPU, what is wrong or None)."""
    if answer.get("bindings"):
        return [], f"nvidia-ml-py cannot be used ({answer['bindings']})"
    module = _gpu_info.kernel_module(SysRoot(root))["version"]
    library = _gpu_info.library_version(answer["nvml_version"])
    mismatch = answer["code"] == MISMATCH or bool(module and library and module != library)
    known = [("driver_mismatch", mismatch)]
    if answer["code"] and answer["code"] != LOST:
        return (known, None) if mismatch else ([], f"NVML: {answer['message']}")
    gpus = answer["gpus"]
    gpu = next((one for key in ("uuid", "bus_id") for one in gpus if one[key] and one[key] == device.get(key)), None)
    lost = gpu is None or gpu["code"] == LOST
    known.append(("lost", lost))
    if lost:
        return known, None
    known += [(name, gpu[key] * scale) for name, key, scale in READINGS if gpu[key] is not None]
    return known, f"NVML: {gpu['error']}" if gpu["error"] else None
