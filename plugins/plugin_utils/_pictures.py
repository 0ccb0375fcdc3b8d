# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What pictures of a host are made of, as SVG. They are as wide as a phone, so that their text is readable there; colours come from the page's style sheet.

Nothing is told by colour alone: CPUs have letters, lines have dashes, so that paper without colour shows the same.
"""
from __future__ import annotations

import html
import math

WIDTH = 360

NAMES = {"vllm": "vLLM", "ollama": "Ollama", "system": "system"}
LETTERS = {"vllm": "V", "ollama": "O", "system": "S"}

# From here on the cores stand closer.
MANY_CORES = 32


def text(value):
    return html.escape(str(value), quote=True)


def number(value):
    """Return a number as short as it can be read."""
    size = abs(value)
    return f"{value:.0f}" if size >= 100 else f"{value:.1f}" if size >= 1 else f"{value:.2g}" if size else "0"


def at(value):
    return f"{value:.1f}".rstrip("0").rstrip(".")


def svg(height, title, parts):
    """Return a picture of these parts; the title is what is read out in its place."""
    return (f'<svg viewBox="0 0 {WIDTH} {at(height)}" role="img" aria-label="{text(title)}" xmlns="http://www.w3.org/2000/svg">'
            f"<title>{text(title)}</title>{''.join(parts)}</svg>")


def write(x, y, said, anchor="start", kind=""):
    return f'<text x="{at(x)}" y="{at(y)}" text-anchor="{anchor}"{f" class={chr(34)}{kind}{chr(34)}" if kind else ""}>{text(said)}</text>'


def line(x1, y1, x2, y2, kind):
    return f'<line x1="{at(x1)}" y1="{at(y1)}" x2="{at(x2)}" y2="{at(y2)}" class="{kind}"/>'


def rect(x, y, width, height, kind, title=""):
    tail = f"><title>{text(title)}</title></rect>" if title else "/>"
    return f'<rect x="{at(x)}" y="{at(y)}" width="{at(max(width, 0))}" height="{at(height)}" class="{kind}"{tail}'


def owner(parties):
    """Return (class of the style sheet, letters, words) of a CPU that these may use."""
    known = [party for party in NAMES if party in parties]
    if not known:
        return "nobody", "–", "nobody"
    kind = known[0] if len(known) == 1 else "shared"
    return kind, "".join(LETTERS[party] for party in known), " and ".join(NAMES[party] for party in known)


def cpu_map(host):
    """Return the cores in rows, the logical CPUs of each one below the other, coloured by who may use them."""
    cores = host["cores"]
    columns = 8 if len(cores) <= MANY_CORES else 16
    step = WIDTH / columns
    size, high = step - 4, 26 if columns == 8 else 18
    parts, y = [], 0.0
    packages = sorted({core["package"] for core in cores})
    for package in packages:
        if len(packages) > 1:
            parts.append(write(0, y + 12, f"package {package}"))
            y += 18
        of_package = [core for core in cores if core["package"] == package]
        for start in range(0, len(of_package), columns):
            row = of_package[start:start + columns]
            deep = max(len(core["cpus"]) for core in row)
            for column, core in enumerate(row):
                x = column * step + 2
                parts.append(rect(x - 1.5, y, size + 3, len(core["cpus"]) * high + 3, "core"))
                for place, cpu in enumerate(core["cpus"]):
                    kind, letters, words = owner(host["owners"].get(str(cpu), []))
                    top = y + 1.5 + place * high
                    parts.append(rect(x, top, size, high, f"cpu {kind}", f"CPU {cpu} (core {core['core']}): {words}"))
                    label = f"{cpu} {letters}" if columns == 8 else str(cpu)
                    parts.append(write(x + size / 2, top + high / 2 + 4, label, "middle", f"on-{kind}" if columns == 8 else f"on-{kind} small"))
            y += deep * high + 8
    return svg(y, "Who may use which logical CPU", parts)


def scale(highest):
    """Return the round steps of an axis from 0 to a bit above the highest value."""
    highest = highest if highest > 0 else 1
    step = 10 ** math.floor(math.log10(highest / 2))
    for factor in (1, 2, 2.5, 5, 10):
        if highest / (step * factor) <= 4:
            step *= factor
            break
    count = math.ceil(highest / step - 1e-9)
    return [step * place for place in range(count + 1)]


def memory(found):
    """Return for each service what it uses, the most it used, and its limit; empty without any."""
    if not found:
        return ""
    most = max(max(one["limit_mib"] or 0, one["peak_mib"], one["used_mib"], 1) for one in found.values())
    room = WIDTH - 8
    parts, y = [], 0
    for service, one in found.items():
        limit = "no limit" if one["limit_mib"] is None else f"limit {one['limit_mib']} MiB"
        parts.append(write(4, y + 12, f"{NAMES[service]}: {one['used_mib']} MiB, peak {one['peak_mib']}, {limit}"))
        if one["limit_mib"] is not None:
            parts.append(rect(4, y + 18, room * one["limit_mib"] / most, 18, "frame"))
        parts.append(rect(4, y + 18, room * one["used_mib"] / most, 18, f"bar {service}"))
        parts.append(line(4 + room * one["peak_mib"] / most, y + 16, 4 + room * one["peak_mib"] / most, y + 38, "range"))
        y += 50
    return svg(y, "Memory against limits", parts)
