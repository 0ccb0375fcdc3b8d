# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which NVIDIA cards, drivers, kernel modules, versions of Ollama, container toolkits and Docker go together.

Tables only, each row with its source, and the functions that look something up in them. docs/gpu.md is made from them.
Versions are tuples, compute capabilities are pairs, driver branches are numbers: 580 is the branch of 580.95.05.
"""
from __future__ import annotations

from typing import NamedTuple

VENDOR = 0x10DE


class Architecture(NamedTuple):
    """A generation of cards. C(pci) are ranges of PCI device ids: they tell what a card is while no driver runs."""

    name: str
    least: tuple  # compute capability, from
    most: tuple  # to
    pci: tuple
    first_branch: int | None  # None: every branch that Ollama accepts knows it
    last_branch: int | None  # None: no end is announced
    open_modules: str  # no, either or required
    source: str


# By code name, as of August 2026.
_PCI = "ids: https://github.com/pciutils/pciids"
_LAST = "branch: NVIDIA's Unix graphics feature deprecation schedule, 580 is the last for Maxwell, Pascal and Volta"
# The open ones need the GSP, a processor that came with Turing.
_KERNEL = "modules: https://github.com/NVIDIA/open-gpu-kernel-modules/issues/19"

ARCHITECTURES = (
    Architecture(
        "Kepler", (3, 0), (3, 7), ((0x0FC0, 0x0FFF), (0x1001, 0x103F), (0x1180, 0x11FF), (0x1280, 0x12BF)), None, 470, "no",
        f"branch: https://www.nvidia.com/en-us/drivers/unix/legacy-gpu/; {_KERNEL}; {_PCI}"),
    Architecture(
        "Maxwell", (5, 0), (5, 3), ((0x1340, 0x1436), (0x1613, 0x1676), (0x174D, 0x17FD)), None, 580, "no", f"{_LAST}; {_KERNEL}; {_PCI}"),
    Architecture(
        "Pascal", (6, 0), (6, 2), ((0x15C2, 0x15FF), (0x1725, 0x172F), (0x1B00, 0x1D56)), None, 580, "no", f"{_LAST}; {_KERNEL}; {_PCI}"),
    Architecture("Volta", (7, 0), (7, 2), ((0x1D81, 0x1DF6),), None, 580, "no", f"{_LAST}; {_KERNEL}; {_PCI}"),
    Architecture("Turing", (7, 5), (7, 5), ((0x1E02, 0x1FF9), (0x2182, 0x21D1)), None, None, "either", f"{_KERNEL}; {_PCI}"),
    Architecture("Ampere", (8, 0), (8, 7), ((0x2080, 0x20FF), (0x2200, 0x223F), (0x2414, 0x25FB)), None, None, "either", f"{_KERNEL}; {_PCI}"),
    Architecture("Ada", (8, 9), (8, 9), ((0x2681, 0x28F8),), None, None, "either", f"{_KERNEL}; {_PCI}"),
    Architecture("Hopper", (9, 0), (9, 0), ((0x2302, 0x23F0),), None, None, "either", f"{_KERNEL}; {_PCI}"),
    Architecture(
        "Blackwell", (10, 0), (12, 1), ((0x2900, 0x2F58), (0x3180, 0x3340)), 570, None, "required",
        "branch: CUDA 12.8, the first that compiles for it, comes with 570, https://docs.nvidia.com/cuda/archive/12.8.0/cuda-toolkit-release-notes;"
        f" modules: https://linuxfromscratch.org/glfs/view/dev-openrc/shareddeps/nvidia-r580.html; {_PCI}"),
)


class Card(NamedTuple):
    """A card whose compute capability must be known while no driver runs: its architecture alone has several."""

    pci: int
    name: str
    capability: tuple
    source: str


CARDS = (
    Card(0x1C31, "Quadro P2200", (6, 1), "https://github.com/pciutils/pciids; capability: https://docs.ollama.com/gpu"),
)


class Library(NamedTuple):
    """A CUDA library inside Ollama's image: from which version on, for which cards, from which driver branch on."""

    name: str
    since: tuple  # Ollama
    least: tuple  # compute capability, from
    most: tuple  # to
    branch: int
    source: str


# The newest library that runs the card is taken (discover/runner.go, filterOverlapByLibrary); of its rows the one of the newest version counts.
LIBRARIES = (
    Library(
        "cuda_v13", (0, 11, 11), (7, 5), (12, 1), 580,
        "https://github.com/ollama/ollama/pull/12000; the preset llama_cuda_v13_linux begins with 75-virtual;"
        " CUDA 13.0 needs 580: https://docs.nvidia.com/cuda/archive/13.0.0/cuda-toolkit-release-notes"),
    Library("cuda_v12", (0,), (5, 0), (9, 0), 531, "docs/gpu.md of Ollama 0.24.0: driver version 531 and newer"),
    Library("cuda_v12", (0, 5, 13), (12, 0), (12, 0), 570, "CMakePresets.json of Ollama 0.5.13; 570 is the first branch that knows the card"),
    Library(
        "cuda_v12", (0, 30, 0), (5, 0), (6, 2), 570,
        "docs/gpu.mdx and discover/cuda_compat.go of Ollama 0.30.0; https://github.com/ollama/ollama/issues/16415"),
    Library(
        "cuda_v12", (0, 30, 0), (7, 0), (9, 0), 550,
        "https://github.com/ollama/ollama/issues/16449 for 0.30.0; docs/gpu.mdx and discover/cuda_compat.go since 0.30.11"),
)


class FlashAttention(NamedTuple):
    """From this version of Ollama on it switches flash attention on by itself from this compute capability on."""

    since: tuple
    least: tuple
    source: str


# llama.cpp does not start with a quantised KV cache without it.
FLASH_ATTENTION = (
    FlashAttention((0,), (5, 0), "ml/device.go of Ollama 0.24.0: any CUDA card"),
    FlashAttention((0, 30, 0), (7, 0), "ml/device.go of Ollama 0.30.0: compute capability 7 and later"),
    FlashAttention((0, 31, 2), (6, 0), "https://github.com/ollama/ollama/pull/16994"),
)


class Toolkit(NamedTuple):
    """What a version of the NVIDIA container toolkit mends."""

    version: tuple
    required: bool
    why: str
    source: str


TOOLKIT = (
    Toolkit(
        (1, 17, 8), True, "before it a container can become root on the host (CVE-2025-23266, CVE-2025-23359, CVE-2024-0132)",
        "https://github.com/CVEProject/cvelistV5/blob/main/cves/2025/23xxx/CVE-2025-23266.json: up to 1.17.7"),
    Toolkit(
        (1, 19, 1), False, "before 1.18.2 NVIDIA_VISIBLE_DEVICES=none gives every GPU, and before 1.19.1 the CDI specification is not refreshed as reliably",
        "https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/release-notes.html"),
)


class Handover(NamedTuple):
    """How Docker Engine, from this version on, hands a device over."""

    since: tuple
    way: str | None
    how: str
    source: str


HANDOVER = (
    Handover((0,), None, "not by CDI", "https://github.com/cncf-tags/container-device-interface/issues/84"),
    Handover((25,), "cdi", 'by CDI, once `{"features": {"cdi": true}}` is set; not to the containers that it starts at its own start',
             "https://github.com/moby/moby/issues/49989"),
    Handover((28, 2), "cdi", "by CDI", "https://docs.docker.com/engine/release-notes/28/#2820"),
)


def dotted(version):
    return ".".join(str(part) for part in version)


def architecture_of(capability=None, name=None, pci=None):
    """Return the row of a card, by the best that is known of it; None where the table does not have it."""
    for row in ARCHITECTURES:
        if capability is not None:
            if row.least <= capability <= row.most:
                return row
        elif name is not None:
            if row.name.lower() in name.lower():
                return row
        elif pci is not None and any(first <= pci <= last for first, last in row.pci):
            return row
    return None


def card_of(pci):
    """Return the row of a card that has one, or None."""
    return next((row for row in CARDS if row.pci == pci), None)


def libraries_for(capability, version):
    """Return the rows that could run this card in this version of Ollama, whatever the driver, the one it prefers first."""
    found = {}
    for row in LIBRARIES:
        if row.since <= version and row.least <= capability <= row.most and (row.name not in found or row.since > found[row.name].since):
            found[row.name] = row
    return list(found.values())


class Window(NamedTuple):
    """The driver branches that work; C(last) None is an open end."""

    first: int
    last: int | None

    def holds(self, branch):
        return self.first <= branch and (self.last is None or branch <= self.last)

    def __str__(self):
        """C(570-580), or C(550-) with an open end."""
        return f"{self.first}-{self.last or ''}"

    @property
    def words(self):
        return f"of branch {self.first} or newer" if self.last is None else f"of branch {self.first} to {self.last}"

    @property
    def best(self):
        """The branch to install: the last that knows the card; where none is the last, the first that is sure to do."""
        return self.last or self.first


def window_for(row, capability, version):
    """Return the driver branches for a card, or None where this version of Ollama has no library for it."""
    libraries = libraries_for(capability, version)
    if not libraries:
        return None
    first = max(min(library.branch for library in libraries), row.first_branch or 0 if row else 0)
    last = row.last_branch if row else None
    return None if last is not None and last < first else Window(first, last)


def library_for(capability, version, branch):
    """Return the name of the library Ollama takes with this driver, or None."""
    return next((row.name for row in libraries_for(capability, version) if row.branch <= branch), None)


def has_flash_attention(capability, version):
    rule = [rule for rule in FLASH_ATTENTION if rule.since <= version][-1]
    return capability >= rule.least


def handover_of(version):
    """Return the row for a version of Docker Engine."""
    return [row for row in HANDOVER if row.since <= version][-1]


def toolkit_lacks(version, required):
    """Return what a version of the toolkit has not mended: the rows it is below, of those that are required or of the others."""
    return [row for row in TOOLKIT if row.required == required and version < row.version]
