# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pictures of a report as SVG: the plan, and the live figures over time."""
from __future__ import annotations

from ansible_collections.erni_ki.inference.plugins.plugin_utils._page_style import STYLE
from ansible_collections.erni_ki.inference.plugins.plugin_utils._pictures import (
    NAMES, WIDTH, at, cpu_map, line, memory, number, rect, scale, svg, text, write)

MIB = 1 << 20
LEFT, RIGHT, TOP, BOTTOM = 40, 8, 8, 150
# Which line of the style sheet a service has, in every picture the same.
LINES = {"vllm": 1, "ollama": 2}
SEGMENTS = ("vllm", "ollama", "shared", "system")


def stacked(title, total, parts):
    """Return a bar of a whole and its parts, as (letter, name, MiB, kind), with a line of text for each; what is none or 0 is left out."""
    parts = [part for part in parts if part[2] and part[2] > 0]
    whole = max(total, sum(part[2] for part in parts), 1)
    room = WIDTH - 8
    drawn, x, y = [], 4.0, 52
    for letter, name, mib, kind in parts:
        width = room * mib / whole
        drawn.append(rect(x, 4, width, 26, f"bar segment {kind}", f"{name}: {mib} MiB"))
        if width >= 14:
            drawn.append(write(x + width / 2, 22, letter, "middle", f"on-{kind}"))
        drawn += [rect(4, y - 10, 12, 12, f"segment {kind}"), write(22, y, f"{letter}  {name}"), write(WIDTH - 4, y, f"{mib} MiB", "end")]
        x += width
        y += 18
    drawn.append(rect(4, 4, room * min(total, whole) / whole, 26, "frame"))
    return svg(y - 8, f"{title}: {total} MiB", drawn)


def host_memory(plan):
    """Return how the plan divides the host's memory; empty where it does not tell."""
    total = (plan.get("host") or {}).get("memory_total_mib")
    if not total:
        return ""
    limits = {party: plan[party]["memory"]["limit_mib"] for party in ("vllm", "ollama") if plan.get(party)}
    parts = [("V", "vLLM's limit", limits.get("vllm"), "vllm"), ("O", "Ollama's limit", limits.get("ollama"), "ollama"),
             ("S", "left for the system", total - sum(limits.values()), "system")]
    return stacked("Memory of the host", total, parts)


def vllm_memory(plan):
    """Return what vLLM's limit is for; empty where the plan does not tell."""
    vllm = plan.get("vllm") or {}
    budget = vllm.get("budget")
    if not budget:
        return ""
    names = (("R", "runtime", "runtime_mib"), ("W", "weights", "weights_mib"), ("P", "weights, packed", "packed_mib"), ("K", "KV cache", "kv_cache_mib"),
             ("A", "activations", "activations_mib"), ("C", "page cache", "page_cache_mib"))
    parts = [(letter, name, budget.get(key), SEGMENTS[place % len(SEGMENTS)]) for place, (letter, name, key) in enumerate(names)]
    return stacked("vLLM's memory", vllm["memory"]["limit_mib"], [*parts, ("L", "left", budget.get("left_mib"), "nobody")])


def vram(plan):
    """Return what the GPU's memory is for; empty without a GPU in the plan."""
    found = ((plan.get("ollama") or {}).get("device") or {}).get("vram")
    if not found:
        return ""
    parts = [("R", "overhead", found.get("reserve_mib"), "system"), ("W", "model", found.get("weights_mib"), "ollama"),
             ("K", "KV cache", found.get("kv_cache_mib"), "shared"), ("L", "left", found.get("left_mib"), "nobody")]
    return stacked("Memory of the GPU", found["total_mib"], parts)


def _hours(hours):
    return f"−{hours:g} h"


def _times(live, x):
    """Return the marks of the axis of time: hours before the end."""
    parts = [line(LEFT, BOTTOM, WIDTH - RIGHT, BOTTOM, "axis")]
    for place, anchor in ((0, "start"), (0.25, "middle"), (0.5, "middle"), (0.75, "middle"), (1, "end")):
        moment = live["from"] + place * (live["to"] - live["from"])
        left = live["hours"] * (1 - place)
        parts += [line(x(moment), BOTTOM, x(moment), BOTTOM + 4, "axis"), write(x(moment), BOTTOM + 17, _hours(left) if left else "now", anchor)]
    return parts


def _pieces(points, gap):
    """Cut a line where nothing is known in between."""
    piece = []
    for point in points:
        if piece and point[0] - piece[-1][0] > gap:
            yield piece
            piece = []
        piece.append(point)
    if piece:
        yield piece


def chart(title, live, lines, limits=()):
    """Return lines over time with a legend; empty without any.

    C(lines) are (name, number of the line's style, points); C(limits) are (name, value).
    """
    lines = [one for one in lines if one[2]]
    if not lines:
        return ""
    steps = scale(max([value for _name, _style, points in lines for _at, value in points] + [value for _name, value in limits]))

    def x(moment):
        return LEFT + (WIDTH - LEFT - RIGHT) * min(1, max(0, (moment - live["from"]) / (live["to"] - live["from"])))

    def y(value):
        return BOTTOM - (BOTTOM - TOP) * max(0, value) / steps[-1]

    parts = []
    for value in steps:
        parts += [line(LEFT, y(value), WIDTH - RIGHT, y(value), "grid"), write(LEFT - 4, y(value) + 4, number(value), "end")]
    parts += _times(live, x)
    for name, style, points in lines:
        for piece in _pieces(points, 1.5 * live["step_s"]):
            # A point alone is a short line; otherwise nobody would see it.
            ends = piece if len(piece) > 1 else [piece[0], (piece[0][0] + live["step_s"], piece[0][1])]
            places = " ".join(f"{at(x(moment))},{at(y(value))}" for moment, value in ends)
            parts.append(f'<polyline points="{places}" class="curve line{style}"><title>{text(name)}</title></polyline>')
    drawn = [("limit other" if place else "limit", *limit) for place, limit in enumerate(limits)]
    parts += [line(LEFT, y(value), WIDTH - RIGHT, y(value), kind) for kind, _name, value in drawn]
    height = BOTTOM + 34
    for name, style, points in lines:
        values = [value for _at, value in points]
        said = f"{name}: {number(values[-1])} at last, {number(max(values))} at most"
        parts += [line(LEFT - 36, height - 4, LEFT - 8, height - 4, f"curve line{style}"), write(LEFT, height, said)]
        height += 17
    for kind, name, value in drawn:
        parts += [line(LEFT - 36, height - 4, LEFT - 8, height - 4, kind), write(LEFT, height, f"{name}: {number(value)}")]
        height += 17
    return svg(height - 6, f"{title} in the last {live['hours']:g} h", parts)


def _scaled(points, factor):
    return [(moment, value * factor) for moment, value in points]


def by_service(title, live, found, name, factor=1, limit=""):
    """Return the lines of all services for a figure, and their limits."""
    lines = [(NAMES[service], style, _scaled(found.get(name, {}).get(service, []), factor)) for service, style in LINES.items()]
    limits = [(f"{NAMES[service]}'s limit", found[limit][service][-1][1] * factor) for service in LINES if service in found.get(limit, {})]
    return chart(title, live, lines, limits)


def health(live, found):
    """Return for each service a strip of the time in which it brought tokens; empty without any."""
    rows = [(service, found.get("generating", {}).get(service) or found.get("running", {}).get(service)) for service in LINES]
    rows = [(service, points) for service, points in rows if points]
    if not rows:
        return ""
    room = WIDTH - 8
    span = live["to"] - live["from"]

    def x(moment):
        return 4 + room * min(1, max(0, (moment - live["from"]) / span))

    parts, y = [], 0
    for service, points in rows:
        good = sum(value >= 1 for _at, value in points)
        word = "brought tokens" if service in found.get("generating", {}) else "ran"
        parts += [write(4, y + 12, f"{NAMES[service]} {word} in {100 * good / len(points):.1f} % of the time"), rect(4, y + 18, room, 20, "frame")]
        pieces = []
        for moment, value in points:
            well = value >= 1
            if pieces and pieces[-1][2] == well and moment - pieces[-1][1] <= 1.5 * live["step_s"]:
                pieces[-1][1] = moment
            else:
                pieces.append([moment, moment, well])
        for begin, end, well in pieces:
            # A point stands for the time before it.
            start = x(begin - live["step_s"])
            width = max(x(end) - start, 1)
            parts.append(rect(start, y + (28 if well else 18), width, 10 if well else 20, f"strip {'well' if well else 'ill'}"))
        y += 50
    parts += [write(4, y + 4, _hours(live["hours"])), write(WIDTH - 4, y + 4, "now", "end")]
    return svg(y + 10, f"Health in the last {live['hours']:g} h", parts)


def memory_now(found):
    """Return for each service what it has of its memory limit."""
    told = {}
    for service in LINES:
        if service in found.get("memory", {}):
            used = found["memory"][service]
            limit, peak = (found.get(name, {}).get(service) for name in ("memory_limit", "memory_peak"))
            told[service] = {"used_mib": round(used[-1][1] / MIB), "limit_mib": round(limit[-1][1] / MIB) if limit else None,
                             "peak_mib": round((peak or used)[-1][1] / MIB)}
    return memory(told)


def gpu_memory(live, found):
    """Return the GPU's memory over time, with what the plan lets Ollama use of it."""
    lines = [(f"used on {gpu}" if len(found["vram"]) > 1 else "used", place, _scaled(points, 1 / MIB))
             for place, (gpu, points) in enumerate(sorted(found.get("vram", {}).items())[:4])]
    limits = [(name, max(points[-1][1] for points in found[figure].values()) / MIB)
              for name, figure in (("the plan's ceiling", "vram_ceiling"), ("all there is", "vram_total")) if found.get(figure)]
    return chart("GPU memory in MiB", live, lines, limits)


def pictures(report):
    """Return the pictures of what RV(report) is, by name; one that has nothing to show is empty."""
    plan, live, found = report["plan"] or {}, report["live"], report.get("series") or {}
    tokens = [("out", 1, found.get("tokens_out", {}).get("", [])), ("in", 3, found.get("tokens_in", {}).get("", []))]
    return {
        "cpus": cpu_map({"cores": report["cores"], "owners": report["owners"]}) if report["cores"] else "",
        "host_memory": host_memory(plan),
        "vllm_memory": vllm_memory(plan),
        "vram": vram(plan),
        "live": [one for one in (
            {"title": "Health", "unit": "The flat strip is the time in which a token came, the full one the time in which none did; blank: not known.",
             "svg": health(live, found)},
            {"title": "Memory now", "unit": "The frame is the limit, the filled part what cannot be given back, the line the most there ever was.",
             "svg": memory_now(found)},
            {"title": "CPU time", "unit": "CPUs in use.", "svg": by_service("CPUs in use", live, found, "cpu")},
            {"title": "CPU time outside of the plan's CPUs", "unit": "Percent of one CPU. By the plan it is 0.",
             "svg": by_service("CPU time outside of the plan's CPUs in percent of one CPU", live, found, "off_plan", 100)},
            {"title": "Memory that cannot be given back", "unit": "MiB, and the limit.",
             "svg": by_service("Memory in MiB", live, found, "memory", 1 / MIB, "memory_limit")},
            {"title": "GPU memory", "unit": "MiB.", "svg": gpu_memory(live, found)},
            {"title": "vLLM's tokens", "unit": "Tokens/s of all requests together.", "svg": chart("vLLM's tokens/s", live, tokens)},
        ) if one["svg"]],
        "style": STYLE,
    }
