# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils import _gpu_compat as compat

NOW = (0, 32, 15)


def test_every_row_has_a_source_and_its_place():
    for table in (compat.ARCHITECTURES, compat.CARDS, compat.LIBRARIES, compat.FLASH_ATTENTION, compat.TOOLKIT, compat.HANDOVER):
        assert all(len(row.source) > 15 for row in table)
    for table in (compat.FLASH_ATTENTION, compat.HANDOVER):
        assert [row.since for row in table] == sorted(row.since for row in table) and table[0].since == (0,)
    assert [row.least for row in compat.ARCHITECTURES] == sorted(row.least for row in compat.ARCHITECTURES)
    assert all(row.open_modules in ("no", "either", "required") for row in compat.ARCHITECTURES)
    # No card, and no capability, is two things.
    ranges = sorted(one for row in compat.ARCHITECTURES for one in row.pci)
    assert all(before[1] < after[0] for before, after in zip(ranges, ranges[1:])) and all(first <= last for first, last in ranges)
    rows = compat.ARCHITECTURES
    assert all(before.most < after.least for before, after in zip(rows, rows[1:]))
    # A version has one row for a library and a card.
    for version in {row.since for row in compat.LIBRARIES}:
        for row in compat.ARCHITECTURES:
            names = [library.name for library in compat.libraries_for(row.least, version)]
            assert len(names) == len(set(names))


@pytest.mark.parametrize("name, capability, pci, window, library, modules", [
    ("Kepler", (3, 5), 0x11B4, None, None, "no"),
    ("Maxwell", (5, 2), 0x1380, "570-580", "cuda_v12", "no"),
    ("Pascal", (6, 1), 0x1C31, "570-580", "cuda_v12", "no"),
    ("Volta", (7, 0), 0x1DB4, "550-580", "cuda_v12", "no"),
    ("Turing", (7, 5), 0x1EB8, "550-", "cuda_v13", "either"),
    ("Ampere", (8, 6), 0x2531, "550-", "cuda_v13", "either"),
    ("Ada", (8, 9), 0x27B8, "550-", "cuda_v13", "either"),
    ("Hopper", (9, 0), 0x2335, "550-", "cuda_v13", "either"),
    ("Blackwell", (12, 0), 0x2D05, "570-", "cuda_v13", "required"),
    # The data centre's Blackwell and GB10 are in the newer library only.
    ("Blackwell", (10, 0), 0x2901, "580-", "cuda_v13", "required"),
    ("Blackwell", (12, 1), 0x2E12, "580-", "cuda_v13", "required"),
])
def test_architectures(name, capability, pci, window, library, modules):
    row = compat.architecture_of(capability)
    assert row is compat.architecture_of(name=f"NVIDIA {name} GPU") is compat.architecture_of(pci=pci)
    assert (row.name, row.open_modules) == (name, modules)
    found = compat.window_for(row, capability, NOW)
    assert (str(found) if found else None) == window
    assert compat.library_for(capability, NOW, 580) == library


@pytest.mark.parametrize("capability, name, pci", [
    ((13, 0), "Pascal", 0x1C31), ((4, 0), None, None), (None, "Rubin", 0x1C31), (None, None, 0x0010), (None, None, None)])
def test_what_is_in_no_row(capability, name, pci):
    assert compat.architecture_of(capability, name, pci) is None


@pytest.mark.parametrize("capability, version, branch, library, window", [
    ((6, 1), (0, 24, 0), 535, "cuda_v12", "531-580"), ((6, 1), (0, 30, 0), 550, None, "570-580"), ((6, 1), (0, 30, 0), 570, "cuda_v12", "570-580"),
    ((7, 0), (0, 30, 0), 550, "cuda_v12", "550-580"), ((7, 0), (0, 30, 0), 535, None, "550-580"), ((7, 0), (0, 5, 0), 531, "cuda_v12", "531-580"),
    ((8, 6), NOW, 570, "cuda_v12", "550-"), ((8, 6), NOW, 580, "cuda_v13", "550-"), ((8, 6), (0, 11, 10), 580, "cuda_v12", "531-"),
    ((12, 0), NOW, 575, "cuda_v12", "570-"), ((12, 0), (0, 5, 13), 570, "cuda_v12", "570-"), ((12, 0), (0, 5, 12), 570, None, None),
    ((12, 1), (0, 11, 0), 580, None, None), ((12, 1), NOW, 575, None, "580-"), ((3, 5), (0, 24, 0), 470, None, None),
])
def test_libraries_and_drivers_by_version_of_ollama(capability, version, branch, library, window):
    assert compat.library_for(capability, version, branch) == library
    found = compat.window_for(compat.architecture_of(capability), capability, version)
    assert (str(found) if found else None) == window


def test_a_window_that_is_empty_is_none():
    assert compat.window_for(compat.ARCHITECTURES[0], (5, 0), NOW) is None
    assert str(compat.window_for(None, (12, 1), NOW)) == "580-"


@pytest.mark.parametrize("window, inside, outside, words, best", [
    (compat.Window(570, 580), (570, 575, 580), (535, 569, 581, 595), "of branch 570 to 580", 580),
    (compat.Window(550, None), (550, 580, 999), (549,), "of branch 550 or newer", 550),
])
def test_windows(window, inside, outside, words, best):
    assert all(window.holds(branch) for branch in inside) and not any(window.holds(branch) for branch in outside)
    assert (window.words, window.best) == (words, best)


def test_the_p2200_is_known_without_a_driver():
    assert compat.card_of(0x1C31).name == "Quadro P2200" and compat.card_of(0x1C31).capability == (6, 1)
    assert compat.card_of(0x1C30) is None and compat.card_of(None) is None
    for card in compat.CARDS:
        row = compat.architecture_of(pci=card.pci)
        assert row.least <= card.capability <= row.most


@pytest.mark.parametrize("version, way", [
    ((20, 10, 24), None), ((24, 0, 9), None), ((25, 0, 0), "cdi"), ((26, 1, 5), "cdi"), ((28, 2, 0), "cdi"), ((29, 2, 0), "cdi")])
def test_docker(version, way):
    assert compat.handover_of(version).way == way
    # Nothing has to be switched on from 28.2 on.
    assert ("features" in compat.handover_of(version).how) == ((25,) <= version < (28, 2))


@pytest.mark.parametrize("version, required, preferred", [
    ((1, 16, 2), 1, 1), ((1, 17, 7), 1, 1), ((1, 17, 8), 0, 1), ((1, 19, 0), 0, 1), ((1, 19, 1), 0, 0), ((1, 20, 0), 0, 0)])
def test_toolkits(version, required, preferred):
    assert len(compat.toolkit_lacks(version, True)) == required and len(compat.toolkit_lacks(version, False)) == preferred


@pytest.mark.parametrize("capability, version, has", [
    ((5, 0), NOW, False), ((6, 1), NOW, True), ((6, 1), (0, 31, 1), False), ((7, 0), (0, 30, 0), True), ((5, 0), (0, 24, 0), True)])
def test_flash_attention(capability, version, has):
    assert compat.has_flash_attention(capability, version) is has
