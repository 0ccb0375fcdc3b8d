# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's NVIDIA GPUs: the cards on its PCI bus, its driver, what NVML tells of them, and what hands them to containers.

The PCI bus says which cards there are, NVML whether they can be used. Where the two differ, something stands between, and the state
says what: a card whose driver is missing is never "no card".
"""
from __future__ import annotations

import os
import re
import sys

from ansible_collections.erni_ki.inference.plugins.module_utils import _cdi, _engine, _nvml, _pci
from ansible_collections.erni_ki.inference.plugins.module_utils._topology import SysRoot

# For NVML and for the toolkit, each. Where a host is very busy a first answer takes more than half a minute; a driver that hangs never gives one.
TIMEOUT_S = 120.0

MODULE = "sys/module/nvidia"
PROC = "proc/driver/nvidia"

# What NVML's codes are to a user; every other code is `unknown`.
STATES = {4: "permission", 9: "not_loaded", 12: "no_driver", 15: "gpu_lost", 18: "version_mismatch"}
# Without a card, these two only say that there is no driver for it either.
NOTHING_TO_DRIVE = ("no_driver", "not_loaded")

# What can be said of codes that have no state of their own.
CURES = {
    8: "The external power cables of the card are not attached.",
    10: "The driver did not answer in time. See its messages (dmesg | grep NVRM), and reboot.",
    11: "The kernel has trouble with the card's interrupts. See the messages (dmesg | grep -i irq), and reboot.",
    13: "This NVML is older than the Python package. Install a newer driver, or a nvidia-ml-py of the driver's time.",
    14: "The card's infoROM is corrupted; the card may be broken.",
    16: "The card must be reset: reboot, or run nvidia-smi --gpu-reset while nothing uses it.",
    17: "The operating system keeps this process from the card's device files. Run on the host itself, not inside a container.",
    20: "There was not enough memory.",
    999: (
        "On a host, the driver is in a state it cannot leave by itself: see its messages (dmesg | grep -iE 'NVRM|Xid'), and reboot."
        " Inside a container, this is how a GPU looks whose device permission was lost (systemctl daemon-reload): restart the container."
    ),
}

_MODULE_VERSION = re.compile(r"^NVRM version:.*?\s(\d+\.\d+(?:\.\d+)*)\s", re.MULTILINE)
_CONTAINER = re.compile(r"[/:-]([0-9a-f]{64})(?=[./]|$)", re.ASCII | re.MULTILINE)

# Compute capability to architecture, for drivers that have no word for it.
_GENERATIONS = ((10, 0, "Blackwell"), (9, 0, "Hopper"), (8, 9, "Ada"), (8, 0, "Ampere"), (7, 5, "Turing"), (7, 0, "Volta"), (6, 0, "Pascal"),
                (5, 0, "Maxwell"), (3, 0, "Kepler"))


class GpuError(Exception):
    """The folder cannot be read as a host; the message is for people."""


def container_of(text):
    """Return the id of the container a C(/proc/PID/cgroup) speaks of, or None.

    Either version, either driver: C(/docker/ID), C(/some.slice/docker-ID.scope), C(/kubepods/.../ID). Inside a container that runs
    containers, the outer one is meant, which is the one this host's engine knows.
    """
    match = _CONTAINER.search(text or "")
    return match.group(1) if match else None


def architecture_of(capability):
    """Return the architecture with a compute capability such as C(6.1), or None."""
    if not capability:
        return None
    number = tuple(int(part) for part in capability.split("."))
    return next((name for major, minor, name in _GENERATIONS if number >= (major, minor)), None)


def kernel_module(root):
    """Return what the kernel shows of the driver's module."""
    text = root.text(f"{PROC}/version")
    match = _MODULE_VERSION.search(f"{text or ''}\n")
    version = match.group(1) if match else root.text(f"{MODULE}/version") or None
    loaded = text is not None or bool(root.names(MODULE))
    if text is not None:
        is_open = "Open Kernel Module" in text
    else:
        # The letters that taint the kernel: P is for a module that is not free.
        taint = root.text(f"{MODULE}/taint")
        is_open = None if not taint else "P" not in taint
    return {"loaded": loaded, "version": version, "open": is_open}


def model_of(root, bus_id):
    """Return the product name that the loaded driver shows for a card, or None."""
    match = re.search(r"^Model:\s+(\S.*)$", root.text(f"{PROC}/gpus/{bus_id}/information") or "", re.MULTILINE)
    # For a card that it could not start, the driver writes question marks or "Unknown".
    return match.group(1).strip() if match and match.group(1).strip().strip("?") not in ("", "Unknown") else None


def named(cards):
    """Return the cards as a person reads them."""
    return ", ".join(f"{card['name'] or 'NVIDIA card'} ({card['vendor_id'][2:]}:{card['device_id'][2:]}, {card['bus_id']})" for card in cards)


def library_version(nvml_version):
    """Return the driver's version in NVML's own, C(580.95.05) in C(13.580.95.05): the first number is CUDA's."""
    match = re.fullmatch(r"\d{1,2}\.(\d{3,}\..+)", nvml_version or "")
    return match.group(1) if match else nvml_version


def judge(cards, module, answer):
    """Return (state, code) from the cards on PCI, the kernel module and NVML's answer."""
    gpus = answer["gpus"]
    if any(gpu["error"] is None for gpu in gpus):
        return "ok", None
    if answer["failure"]:
        return "unknown", None
    code = gpus[0]["code"] if gpus else answer["code"]
    if code is not None:
        state = STATES.get(code, "unknown")
        return "no_card" if state in NOTHING_TO_DRIVE and not cards and not module["loaded"] else state, code
    if answer["bindings"] and (answer["count"] or answer["count"] is None and cards):
        return "no_bindings", None
    return "unknown" if cards else "no_card", None


def _numbered(module):
    return f"The kernel module{' ' + module['version'] if module['version'] else ''} is loaded"


def _no_driver(cards, module, _answer, _code):
    if module["loaded"]:
        return (f"{_numbered(module)}, but the driver's library {_nvml.LIBRARY} cannot be loaded."
                " Install the driver's libraries in the version of the module.")
    words = f"The driver's library {_nvml.LIBRARY} is not installed. Install an NVIDIA driver of a branch that knows the card, then reboot."
    held = {card["driver"] for card in cards}
    if "nouveau" in held:
        words += " The kernel's own driver nouveau holds the card until then."
    if "vfio-pci" in held:
        words += " vfio-pci holds a card for virtual machines; such a card cannot be used on this host."
    return words


def _not_loaded(cards, module, _answer, _code):
    if module["loaded"]:
        return (f"{_numbered(module)}, but the driver does not answer: its device files may be missing (/dev/nvidiactl, made by nvidia-modprobe),"
                " or it refused the card (dmesg | grep NVRM).")
    words = ("The driver is installed, and its kernel module is not loaded. Reboot after a fresh installation; else 'modprobe nvidia' and"
             " 'dmesg | grep NVRM' tell why: not built for this kernel (dkms status), refused by Secure Boot, or of a branch that does not know the card.")
    if any(card["driver"] == "nouveau" for card in cards):
        words += " The kernel's own driver nouveau holds the card: reboot, so that the NVIDIA driver gets it."
    return words


def _version_mismatch(_cards, module, answer, _code):
    kernel, library = module["version"] or "(unknown)", library_version(answer["nvml_version"]) or "another"
    return (f"The kernel runs version {kernel} of the driver, and the library is {library}: the driver was upgraded without a reboot."
            " Reboot, and hold the driver's packages against unattended upgrades. Running containers go on until they are made anew.")


def _no_bindings(_cards, _module, answer, _code):
    return (f"The driver runs, but {sys.executable or 'this Python'} has no nvidia-ml-py to read the GPU with ({answer['bindings']})."
            " Install nvidia-ml-py with pip, or python3-pynvml (Debian's contrib, Ubuntu's multiverse).")


def _unknown(_cards, module, answer, code):
    if answer["failure"]:
        return (f"NVML {answer['failure']}. See the driver's messages (dmesg | grep -iE 'NVRM|Xid'); a card that has fallen off the bus does this."
                " Reboot, and install the driver anew if it comes back.")
    if code is not None:
        return CURES.get(code, "See the driver's messages (dmesg | grep -iE 'NVRM|Xid').")
    version = module["version"] or answer["driver_version"]
    words = f"The driver{' ' + version if version else ''} runs and finds no GPU: it refused the card"
    if module["open"]:
        return (f"{words}. Its kernel modules are the open ones, which drive Turing and later only (compute capability 7.5)."
                " Install the proprietary modules for an older card.")
    return f"{words}, or the card has failed. The driver's messages say why (dmesg | grep NVRM): often its branch is too new or too old for the card."


HINTS = {
    "ok": "",
    "no_card": (
        "No NVIDIA card is on the PCI bus. If one is built in, check its seat, its power, and whether the firmware shows it;"
        " a virtual machine must be handed the card by its host."),
    "gpu_lost": (
        "The GPU has fallen off the bus. The kernel's messages tell when and how (dmesg | grep -i Xid). Switch the machine off and on, as a reboot"
        " may not bring it back; if it happens again, look at the card's power supply, temperature and seat."),
    "permission": "This user may not ask the driver. Run with become: true.",
}
# Those that depend on what else was found.
TOLD_BY = {
    "no_driver": _no_driver, "not_loaded": _not_loaded, "version_mismatch": _version_mismatch, "no_bindings": _no_bindings, "unknown": _unknown,
}


def hint_of(state, code, cards, module, answer):
    """Return what the state means and what to do about it."""
    words = HINTS[state] if state in HINTS else TOLD_BY[state](cards, module, answer, code)
    if state in ("ok", "no_card"):
        return words
    said = next(filter(None, [gpu["error"] for gpu in answer["gpus"]] + [answer["message"]]), None)
    return (f"{named(cards)}: " if cards else "") + words + (f" NVML says: {said}." if said else "")


def toolkit(root, timeout, run=_engine.run_command, find=_engine.find_program):
    """Return the container toolkit's version and what the CDI specifications offer."""
    program = find("nvidia-ctk")
    rc, stdout, _stderr = run([program, "--version"], timeout) if program else (1, "", "")
    return dict({"version": _engine.short_version(stdout) if rc == 0 else None}, **_cdi.gpus(root))


def _process(root, process):
    pid = process["pid"]
    return {
        "pid": pid,
        "name": process["name"] or root.text(f"proc/{pid}/comm") or None,
        "memory_mib": process["memory_mib"],
        "container": container_of(root.text(f"proc/{pid}/cgroup")),
        "type": process["type"],
    }


def _gpu(root, gpu):
    gpu = dict(gpu, processes=[_process(root, process) for process in gpu["processes"]])
    gpu["architecture"] = gpu["architecture"] or architecture_of(gpu["compute_capability"])
    del gpu["code"]
    return gpu


def check_root(sysroot):
    if not os.path.exists(sysroot):
        raise GpuError(f"The sysroot '{sysroot}' does not exist. Give a folder that holds copies of /proc, /sys and /etc, or / for this host.")
    if not os.path.isdir(sysroot):
        raise GpuError(f"The sysroot '{sysroot}' is not a folder. Unpack the dump and give the folder that holds its proc and sys.")


def detect(sysroot="/", timeout=TIMEOUT_S, ask=_nvml.ask_safely, read_toolkit=toolkit):
    """Return the GPUs of the host, as documented in M(erni_ki.inference.gpu_info).

    Raises GpuError, with a text for people, when C(sysroot) is no folder.
    """
    check_root(sysroot)
    root = SysRoot(sysroot)
    # First, as NVML may load the kernel module, which the files would then not yet show.
    answer = ask(timeout)
    module, cards = kernel_module(root), _pci.cards(root)
    names = {gpu["bus_id"]: gpu["name"] for gpu in answer["gpus"]}
    for card in cards:
        card["name"] = names.get(card["bus_id"]) or model_of(root, card["bus_id"]) or card["name"]
    state, code = judge(cards, module, answer)
    return {
        "state": state,
        "code": code,
        "hint": hint_of(state, code, cards, module, answer),
        "driver_version": answer["driver_version"] or module["version"],
        "cuda_driver_version": answer["cuda_driver_version"],
        "nvml_version": answer["nvml_version"],
        "module": module,
        "cards": cards,
        "gpus": [_gpu(root, gpu) for gpu in answer["gpus"]],
        "toolkit": read_toolkit(root, timeout),
    }
