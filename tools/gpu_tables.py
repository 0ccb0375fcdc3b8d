# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables of docs/gpu.md, made from plugins/module_utils/_gpu_compat.py.

Each stands between <!-- table: NAME --> and <!-- end of table -->.
"""
from __future__ import annotations

import importlib.util
import re

from common import REPO

DATA = REPO / "plugins" / "module_utils" / "_gpu_compat.py"
PLACE = re.compile(r"(?P<begin><!-- table: (?P<name>[a-z_]+) -->\n)(?P<table>.*?)(?P<end><!-- end of table -->)", re.DOTALL)
MODULES = {"no": "proprietary only", "either": "open or proprietary", "required": "open only"}


def load(path=DATA):
    spec = importlib.util.spec_from_file_location("gpu_compat", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def markdown(header, rows):
    lines = [" | ".join(cell.replace("|", "\\|") for cell in cells) for cells in (header, *rows)]
    return "\n".join([f"| {lines[0]} |", f"|{'---|' * len(header)}", *(f"| {line} |" for line in lines[1:])]) + "\n"


def linked(source):
    """Return a source with its addresses as links."""
    return re.sub(r"(https?://[^\s()]+?)(?=[.,;:]?(?:[\s()]|$))", r"<\1>", source)


def span(first, last):
    return first if first == last else f"{first}-{last}"


def capabilities(data, row):
    """Return the compute capabilities of an architecture at which something may change."""
    bounds = {row.least, row.most, *(bound for library in data.LIBRARIES for bound in (library.least, library.most))}
    return sorted(bound for bound in bounds if row.least <= bound <= row.most)


def architectures(data, version):
    """One line for each architecture, or for each part of it that needs other drivers."""
    lines = []
    for row in data.ARCHITECTURES:
        parts = []
        for capability in capabilities(data, row):
            window = data.window_for(row, capability, version)
            libraries = ", ".join(f"`{library.name}` from {library.branch} on" for library in data.libraries_for(capability, version))
            branches = "none" if window is None else f"{window.first} and later" if window.last is None else f"{window.first}-{window.last}"
            cells = (branches, libraries or "none")
            if parts and parts[-1][2] == cells:
                parts[-1][1] = capability
            else:
                parts.append([capability, capability, cells])
        for first, last, (branches, libraries) in parts:
            lines.append([row.name, span(data.dotted(first), data.dotted(last)), branches, MODULES[row.open_modules], libraries, linked(row.source)])
    return markdown(["Architecture", "Compute capability", "Driver branches", "Kernel modules", "CUDA library in Ollama, by driver", "Source"], lines)


def since(data, version):
    return data.dotted(version) if any(version) else "any"


def tables(data, version):
    """Return {name: table}; the architectures are those of one version of Ollama."""
    return {
        "architectures": architectures(data, version),
        "cards": markdown(
            ["PCI device id", "Card", "Compute capability", "Source"],
            [[f"`0x{row.pci:04x}`", row.name, data.dotted(row.capability), linked(row.source)] for row in data.CARDS]),
        "libraries": markdown(
            ["Library", "Ollama from", "Compute capability", "Driver branch from", "Source"],
            [[f"`{row.name}`", since(data, row.since), span(data.dotted(row.least), data.dotted(row.most)), str(row.branch), linked(row.source)]
             for row in data.LIBRARIES]),
        "flash_attention": markdown(
            ["Ollama from", "Compute capability from", "Source"],
            [[since(data, row.since), data.dotted(row.least), linked(row.source)] for row in data.FLASH_ATTENTION]),
        "toolkit": markdown(
            ["Below", "Is", "Because", "Source"],
            [[data.dotted(row.version), "refused" if row.required else "noted", row.why, linked(row.source)] for row in data.TOOLKIT]),
        "docker": markdown(
            ["Docker Engine from", "Hands a GPU over", "Source"], [[since(data, row.since), row.how, linked(row.source)] for row in data.HANDOVER]),
    }


def fill_in(text, made):
    """Return a document with the tables it has places for made anew."""
    return PLACE.sub(lambda match: f"{match['begin']}\n{made[match['name']]}\n{match['end']}" if match["name"] in made else match.group(), text)


def misplaced(text, made, document="docs/gpu.md"):
    """Return what the document must mend by hand: places for no table, and tables without a place."""
    named = [match["name"] for match in PLACE.finditer(text)]
    for name in sorted(set(named) - set(made)):
        yield f"{document} has a place for the table {name}, and there is no such table"
    for name in made:
        if name not in named:
            yield f"{document} has no place for the table {name}: add <!-- table: {name} --> and <!-- end of table -->"
