# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which devices on the bus are NVIDIA's cards, what they are called, who drives them."""
from __future__ import annotations

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils import _pci
from ansible_collections.erni_ki.inference.plugins.module_utils._topology import SysRoot
from ansible_collections.erni_ki.inference.tests.unit.plugins.recorded_gpu import PCI_IDS, add_device, write

P2200 = {"bus_id": "0000:01:00.0", "vendor_id": "0x10de", "device_id": "0x1c31", "class": "0x030000", "name": None, "driver": None}


@pytest.mark.parametrize("text, expected", [
    ("00000000:01:00.0", "0000:01:00.0"),
    ("0000:0A:1F.7", "0000:0a:1f.7"),
    ("00010000:C1:00.0", "10000:c1:00.0"),
    ("01:00.0", None),
    ("", None),
    (None, None),
])
def test_bus_id(text, expected):
    assert _pci.bus_id(text) == expected


@pytest.mark.parametrize("pci_class, expected", [
    ("0x030000", True), ("0x030200", True), ("0x038000", True), ("0x040300", False), ("0x0c0330", False), ("0x03", False), ("", False), (None, False),
])
def test_is_gpu(pci_class, expected):
    assert _pci.is_gpu(pci_class) is expected


def test_a_bus_of_everything(tmp_path):
    add_device(tmp_path, "0000:c1:00.0", device="0x20b0", pci_class="0x030200", driver="vfio-pci")
    add_device(tmp_path, driver="nouveau")
    add_device(tmp_path, "0000:01:00.1", device="0x10f1", pci_class="0x040300", driver="snd_hda_intel")
    add_device(tmp_path, "0000:00:02.0", vendor="0x8086", device="0x3e92", driver="i915")
    assert _pci.cards(SysRoot(str(tmp_path))) == [
        dict(P2200, driver="nouveau"),
        {"bus_id": "0000:c1:00.0", "vendor_id": "0x10de", "device_id": "0x20b0", "class": "0x030200", "name": None, "driver": "vfio-pci"},
    ]


def test_no_bus(tmp_path):
    assert _pci.cards(SysRoot(str(tmp_path))) == []


def test_a_device_that_is_gone_meanwhile(tmp_path):
    (tmp_path / "sys/bus/pci/devices").mkdir(parents=True)
    (tmp_path / "sys/bus/pci/devices/0000:01:00.0").symlink_to("nowhere")
    assert _pci.cards(SysRoot(str(tmp_path))) == []


@pytest.mark.parametrize("place", _pci.NAMES)
def test_names(tmp_path, place):
    write(tmp_path, place, PCI_IDS)
    for number, device in enumerate(("0x1c31", "0x2503", "0x2901", "0x20b0")):
        add_device(tmp_path, f"0000:0{number}:00.0", device=device)
    assert [card["name"] for card in _pci.cards(SysRoot(str(tmp_path)))] == ["Quadro P2200", "GeForce RTX 3060", "GB100", None]


def test_names_are_read_no_further_than_needed():
    lines = iter(PCI_IDS.splitlines(keepends=True))
    assert _pci.parse_names(lines, "10de", {"1c30"}) == {"1c30": "Quadro P2000"}
    assert "Quadro P2200" in next(lines)
