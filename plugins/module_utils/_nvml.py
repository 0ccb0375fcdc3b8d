# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NVIDIA's management library (NVML), read through the Python package nvidia-ml-py (C(pynvml)).

The library talks to a kernel module that may be in any state: it has been seen to hang and to crash. So it is only ever loaded into a
child process that has a deadline, and what becomes of that child is an answer too.
"""
from __future__ import annotations

import json
import os
import resource
import select
import signal
import time

from ansible_collections.erni_ki.inference.plugins.module_utils._pci import bus_id

LIBRARY = "libnvidia-ml.so.1"
MIB = 1 << 20

NOT_SUPPORTED = 3
LIBRARY_NOT_FOUND = 12
FUNCTION_NOT_FOUND = 13
VERSION_MISMATCH_OF_ARGUMENT = 25
UNKNOWN = 999
# What an older driver or a smaller card does not have is no fault of the card.
LACKING = (NOT_SUPPORTED, FUNCTION_NOT_FOUND, VERSION_MISMATCH_OF_ARGUMENT)

# The second version of the structure, which tells apart what the driver keeps for itself.
MEMORY_V2 = 0x02000028
TEMPERATURE_GPU = 0

ARCHITECTURES = {
    2: "Kepler", 3: "Maxwell", 4: "Pascal", 5: "Volta", 6: "Turing", 7: "Ampere", 8: "Ada", 9: "Hopper", 10: "Blackwell", 13: "Rubin",
}
SWITCH = {0: "disabled", 1: "enabled"}

# A process that computes and draws is listed once, as one that computes. MPS has a list of its own for its clients.
PROCESS_LISTS = (
    ("compute", "nvmlDeviceGetComputeRunningProcesses"),
    ("compute", "nvmlDeviceGetMPSComputeRunningProcesses"),
    ("graphics", "nvmlDeviceGetGraphicsRunningProcesses"),
)


def attempt(nvml, name, *args):
    """Return (code, value) of one function of the bindings: (0, value) or NVML's code and None."""
    try:
        return 0, getattr(nvml, name)(*args)
    except Exception as error:
        return code_of(error), None


def code_of(error):
    """Return NVML's code for what the bindings raised."""
    value = getattr(error, "value", None)
    if isinstance(value, int):
        return value
    # Older bindings lack functions (AttributeError) and arguments (TypeError); newer ones name a library that is older than they are.
    if isinstance(error, (AttributeError, TypeError)) or type(error).__name__ == "NVMLLibraryMismatchError":
        return FUNCTION_NOT_FOUND
    return UNKNOWN


def first(nvml, names, *args):
    """Return (code, value) of the first of these functions that bindings and library have."""
    answer = (FUNCTION_NOT_FOUND, None)
    for name in names:
        answer = attempt(nvml, name, *args)
        if answer[0] != FUNCTION_NOT_FOUND:
            break
    return answer


def text(value):
    """Return a name as text, whichever of the two the bindings gave; None for nothing."""
    if value is None:
        return None
    return (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)).strip() or None


def mib(value):
    """Return bytes in MiB, rounded down; None for none, and for the number that means "not available"."""
    return value // MIB if isinstance(value, int) and 0 <= value < 1 << 63 else None


def cuda_version(number):
    """Return C(12.8) of 12080."""
    return f"{number // 1000}.{number % 1000 // 10}" if isinstance(number, int) and number > 0 else None


def explain(nvml, code):
    """Return NVML's own words for a code; the bindings know most of them without the library."""
    words = text(attempt(nvml, "NVMLError", code)[1])
    return f"{words.rstrip('.')} (NVML code {code})" if words else f"NVML code {code}"


class Card:
    """One GPU while it is read: what it does not answer is None, and the first thing that fails is remembered."""

    def __init__(self, nvml, handle):
        self.nvml = nvml
        self.handle = handle
        self.failed = None      # (code, what was asked)

    def ask(self, *names):
        return self.judged(names[0], *first(self.nvml, names, self.handle))

    def judged(self, name, code, value):
        if code and code not in LACKING and self.failed is None:
            self.failed = (code, name)
        return value

    def optional(self, *names):
        """Ask for what many cards refuse to tell, each in its own way."""
        return first(self.nvml, names, self.handle)[1]

    def memory(self):
        version = getattr(self.nvml, "nvmlMemory_v2", MEMORY_V2)
        code, found = attempt(self.nvml, "nvmlDeviceGetMemoryInfo", self.handle, version)
        if code in LACKING:
            code, found = attempt(self.nvml, "nvmlDeviceGetMemoryInfo", self.handle)
        found = self.judged("nvmlDeviceGetMemoryInfo", code, found)
        return {f"{name}_mib": mib(getattr(found, name, None)) for name in ("total", "used", "free", "reserved")}

    def processes(self):
        found = {}
        for kind, name in PROCESS_LISTS:
            for process in self.ask(name, f"{name}_v3", f"{name}_v2") or ():
                found.setdefault(process.pid, {
                    "pid": process.pid,
                    "name": text(attempt(self.nvml, "nvmlSystemGetProcessName", process.pid)[1]),
                    "memory_mib": mib(process.usedGpuMemory),
                    "type": kind,
                })
        return [found[pid] for pid in sorted(found)]

    def read(self):
        mig, ecc = self.optional("nvmlDeviceGetMigMode"), self.optional("nvmlDeviceGetEccMode")
        watts = self.optional("nvmlDeviceGetPowerManagementLimit", "nvmlDeviceGetEnforcedPowerLimit")
        celsius = first(self.nvml, ("nvmlDeviceGetTemperature", "nvmlDeviceGetTemperatureV"), self.handle, TEMPERATURE_GPU)[1]
        capability = self.ask("nvmlDeviceGetCudaComputeCapability")
        return {
            "name": text(self.ask("nvmlDeviceGetName")),
            "uuid": text(self.ask("nvmlDeviceGetUUID")),
            "bus_id": bus_id(text(getattr(self.ask("nvmlDeviceGetPciInfo"), "busId", None))),
            "memory": self.memory(),
            "compute_capability": "{0}.{1}".format(*capability) if capability else None,
            "architecture": ARCHITECTURES.get(self.optional("nvmlDeviceGetArchitecture")),
            # Each is a pair, of what is and of what will be after the next reset.
            "mig_mode": SWITCH.get(mig[0]) if mig else None,
            "ecc_mode": SWITCH.get(ecc[0]) if ecc else None,
            "power_limit_w": watts / 1000 if watts else None,
            "temperature_c": celsius,
            "processes": self.processes(),
        }


def read_gpu(nvml, index):
    """Return what NVML tells of a GPU, and C(code) and C(error) of what failed first."""
    code, handle = attempt(nvml, "nvmlDeviceGetHandleByIndex", index)
    card = Card(nvml, handle)
    if code:
        card.failed = (code, "nvmlDeviceGetHandleByIndex")
        # None of these functions exists, so that each field has the value of what is not known.
        found = Card(None, None).read()
    else:
        found = card.read()
    code, asked = card.failed or (None, None)
    return dict({"index": index}, **found, code=code, error=f"{asked}: {explain(nvml, code)}" if code else None)


def answer_of(**known):
    """Return an answer: what NVML said of itself and of its GPUs."""
    return dict({
        "bindings": None,           # why nvidia-ml-py cannot be used
        "failure": None,            # what became of the child
        "code": None,
        "message": None,
        "nvml_version": None,
        "driver_version": None,
        "cuda_driver_version": None,
        "count": 0,
        "gpus": [],
    }, **known)


def read(nvml):
    """Return the answer of NVML through its bindings."""
    code, count = attempt(nvml, "nvmlInit")
    # The library tells its own version even where it finds no driver.
    answer = answer_of(nvml_version=text(attempt(nvml, "nvmlSystemGetNVMLVersion")[1]))
    if not code:
        answer["driver_version"] = text(attempt(nvml, "nvmlSystemGetDriverVersion")[1])
        answer["cuda_driver_version"] = cuda_version(first(nvml, ("nvmlSystemGetCudaDriverVersion_v2", "nvmlSystemGetCudaDriverVersion"))[1])
        code, count = attempt(nvml, "nvmlDeviceGetCount")
    if code:
        answer.update(code=code, message=explain(nvml, code))
    else:
        answer.update(count=count, gpus=[read_gpu(nvml, index) for index in range(count)])
    # Nothing is shut down: the process ends, and with a card that is lost this could hang.
    return answer


def read_without_bindings(why, load=None):
    """Return what the library itself says of the driver's state, when only the bindings are missing."""
    answer = answer_of(bindings=why)
    try:
        import ctypes
        library = (load or ctypes.CDLL)(LIBRARY)
    except ImportError:
        # Neither can be asked: whether there is a GPU is not known.
        return dict(answer, count=None)
    except OSError as error:
        return dict(answer, code=LIBRARY_NOT_FOUND, message=str(error))
    try:
        code, count = library.nvmlInitWithFlags(0), ctypes.c_uint()
        code = code or library.nvmlDeviceGetCount_v2(ctypes.byref(count))
    except AttributeError as error:
        return dict(answer, code=FUNCTION_NOT_FOUND, message=str(error))
    return dict(answer, code=code, message=f"NVML code {code}") if code else dict(answer, count=count.value)


def ask():
    """Return the answer of this host's NVML. Only for a process of its own: see C(ask_safely)."""
    try:
        import pynvml
    except Exception as error:
        # Also a package that this Python does not even parse: the oldest on the index is for Python 2.
        return read_without_bindings(f"{type(error).__name__}: {error}")
    return read(pynvml)


def _retire():
    """Cut the child off from everything that waits for the end of this process's output, and let a crash leave no core file."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    nothing = os.open(os.devnull, os.O_RDWR)
    for handle in (0, 1, 2):
        os.dup2(nothing, handle)


def _child(function, writer):
    _retire()
    with os.fdopen(writer, "wb") as stream:
        stream.write(json.dumps(function()).encode("ascii"))


def _receive(reader, deadline):
    """Return (what was sent, whether the sender closed its end before the deadline)."""
    parts = []
    while True:
        if not select.select([reader], [], [], max(0, deadline - time.monotonic()))[0]:
            return b"".join(parts), False
        part = os.read(reader, 65536)
        if not part:
            return b"".join(parts), True
        parts.append(part)


def _end(pid):
    """Kill the child and its own children; in a call of a broken driver it lives on until that returns, and nobody waits for it."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        # It had not come as far as to have a group.
        os.kill(pid, signal.SIGKILL)


def _status(pid, patience=1.0):
    """Return the status the child ended with, or None when it does not end."""
    deadline = time.monotonic() + patience
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found or time.monotonic() >= deadline:
            return status if found else None
        time.sleep(0.005)


def bounded(function, timeout):
    """Run a function that returns something JSON in a child process. Return (its value, None) or (None, what became of the child)."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            _child(function, writer)
        finally:
            # No handler and no buffer of the parent runs in here.
            os._exit(0)
    os.close(writer)
    try:
        said, ended = _receive(reader, time.monotonic() + timeout)
    finally:
        os.close(reader)
    if not ended:
        _end(pid)
    status = _status(pid)
    if not ended:
        return None, f"gave no answer within {timeout:g} s"
    if status is not None and os.WIFSIGNALED(status):
        return None, f"crashed ({signal.strsignal(os.WTERMSIG(status))})"
    try:
        return json.loads(said.decode("ascii")), None
    except ValueError:
        return None, "ended without an answer"


def ask_safely(timeout):
    """Return the answer of this host's NVML, within the timeout and whatever the library does."""
    answer, failure = bounded(ask, timeout)
    return answer if failure is None else answer_of(failure=failure)
