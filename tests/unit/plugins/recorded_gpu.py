# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trees of /sys, /proc and /etc like those of a host with NVIDIA's cards."""
from __future__ import annotations

import pathlib

PROPRIETARY = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Sat Aug 30 01:15:15 UTC 2025\n"
    "GCC version:  gcc version 12.2.0 (Debian 12.2.0-14+deb12u1)\n"
)
OPEN = (
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {}  Release Build  (builder@host)  Thu Oct 10 12:15:00 UTC 2024\n"
    "GCC version:  gcc version 13.3.0 (Ubuntu 13.3.0-6ubuntu2~24.04)\n"
)
PCI_IDS = (
    "# A comment\n\n"
    "10dd  Somebody else\n\t1c31  Not this one\n"
    "10de  NVIDIA Corporation\n"
    "\t1c30  GP106GL [Quadro P2000]\n"
    "\t1c31  GP106GL [Quadro P2200]\n\t\t10de 131b  A variant of it\n"
    "\t2503  GA106 [GeForce RTX 3060]\n"
    "\t2901  GB100\n"
    "10df  Somebody else again\n\t20b0  Not this one either\n"
)


def write(root, name, text):
    path = pathlib.Path(root) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def add_device(root, bus_id="0000:01:00.0", vendor="0x10de", device="0x1c31", pci_class="0x030000", driver=None):
    """Put a device on the PCI bus, as the kernel does: the entry is a link, and so is its driver."""
    place = pathlib.Path(root) / "sys/devices/pci0000:00" / bus_id
    for name, value in (("vendor", vendor), ("device", device), ("class", pci_class)):
        write(place, name, value + "\n")
    if driver:
        target = pathlib.Path(root) / "sys/bus/pci/drivers" / driver
        target.mkdir(parents=True, exist_ok=True)
        (place / "driver").symlink_to(f"../../../bus/pci/drivers/{driver}")
    entry = pathlib.Path(root) / "sys/bus/pci/devices" / bus_id
    entry.parent.mkdir(parents=True, exist_ok=True)
    entry.symlink_to(f"../../../devices/pci0000:00/{bus_id}")


def load_module(root, version="580.95.05", text=PROPRIETARY):
    """Let the kernel have the driver's module."""
    write(root, "proc/driver/nvidia/version", text.format(version))
    write(root, "sys/module/nvidia/version", version + "\n")
    write(root, "sys/module/nvidia/taint", "OE\n" if text == OPEN else "POE\n")
