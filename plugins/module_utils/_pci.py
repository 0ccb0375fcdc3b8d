# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NVIDIA's cards as the PCI bus shows them, whatever the state of their driver."""
from __future__ import annotations

import os
import re

VENDOR = "0x10de"
DEVICES = "sys/bus/pci/devices"

# Where distributions put the names of all PCI devices.
NAMES = ("usr/share/misc/pci.ids", "usr/share/hwdata/pci.ids", "var/lib/pciutils/pci.ids")

_BUS_ID = re.compile(r"([0-9a-f]+):([0-9a-f]+):([0-9a-f]+)\.([0-9a-f]+)", re.ASCII | re.IGNORECASE)


def bus_id(text):
    """Return a PCI address as the kernel writes it: NVML's C(00000000:0A:00.0) is C(0000:0a:00.0)."""
    match = _BUS_ID.fullmatch((text or "").strip())
    if not match:
        return None
    domain, bus, device, function = (int(number, 16) for number in match.groups())
    return f"{domain:04x}:{bus:02x}:{device:02x}.{function:x}"


def is_gpu(pci_class):
    """True for a display controller (class 0x03): VGA, or 3D without a socket for a screen. A card's sound and USB parts are none."""
    return (pci_class or "").lower().startswith("0x03") and len(pci_class) == 8


def parse_names(lines, vendor, wanted):
    """Return {device: name} of those wanted, from the lines of a C(pci.ids)."""
    names, inside = {}, False
    for line in lines:
        if line.startswith("#") or not line.strip():
            continue
        if not line.startswith("\t"):
            inside = line[:4].lower() == vendor
        elif inside and not line.startswith("\t\t"):
            device, _blank, name = line.strip().partition(" ")
            if device.lower() in wanted:
                names[device.lower()] = _product(name.strip())
        if len(names) == len(wanted):
            break
    return names


def _product(name):
    """Return C(Quadro P2200) of C(GP106GL [Quadro P2200]): the chip comes first, the product in brackets."""
    match = re.search(r"\[([^\[\]]+)\]$", name)
    return match.group(1) if match else name


def _named(root, wanted):
    """Return {device: name} from the host's own C(pci.ids), for devices such as C(0x1c31)."""
    wanted = {device[2:] for device in wanted}
    for place in NAMES:
        try:
            with open(os.path.join(root.path, place), encoding="utf-8", errors="replace") as lines:
                return {f"0x{device}": name for device, name in parse_names(lines, VENDOR[2:], wanted).items()}
        except OSError:
            continue
    return {}


def _driver(root, folder):
    try:
        return os.path.basename(os.readlink(os.path.join(root.path, folder, "driver")))
    except OSError:
        return None


def cards(root):
    """Return NVIDIA's cards in the order of their addresses; C(root) is a SysRoot."""
    found = []
    for name in root.names(DEVICES):
        folder = f"{DEVICES}/{name}"
        vendor, pci_class = ((root.text(f"{folder}/{item}") or "").lower() for item in ("vendor", "class"))
        if vendor == VENDOR and is_gpu(pci_class):
            found.append({
                "bus_id": bus_id(name) or name,
                "vendor_id": vendor,
                "device_id": (root.text(f"{folder}/device") or "").lower(),
                "class": pci_class,
                "name": None,
                "driver": _driver(root, folder),
            })
    names = _named(root, {card["device_id"] for card in found}) if found else {}
    for card in found:
        card["name"] = names.get(card["device_id"])
    return found
