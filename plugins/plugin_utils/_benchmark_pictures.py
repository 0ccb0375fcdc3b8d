# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pictures of a benchmark as SVG. They are as wide as a phone, so that their text is readable there; colours come from the page's style sheet.

Nothing is told by colour alone: CPUs have letters, lines have dashes, so that paper without colour shows the same.
"""
from __future__ import annotations

import html
import math

WIDTH = 360

NAMES = {"vllm": "vLLM", "ollama": "Ollama", "system": "system"}
LETTERS = {"vllm": "V", "ollama": "O", "system": "S"}

# The cases of a service in the order of the legend.
LINES = ("alone", "beside the other engine", "beside burners", "beside both")

# From here on the cores stand closer.
MANY_CORES = 32


def text(value):
    return html.escape(str(value), quote=True)


def number(value):
    """Return a number as short as it can be read."""
    size = abs(value)
    return f"{value:.0f}" if size >= 100 else f"{value:.1f}" if size >= 1 else f"{value:.2g}" if size else "0"


def _at(value):
    return f"{value:.1f}".rstrip("0").rstrip(".")


def _svg(height, title, parts):
    return (f'<svg viewBox="0 0 {WIDTH} {_at(height)}" role="img" aria-label="{text(title)}" xmlns="http://www.w3.org/2000/svg">'
            f"<title>{text(title)}</title>{''.join(parts)}</svg>")


def _text(x, y, said, anchor="start", kind=""):
    return f'<text x="{_at(x)}" y="{_at(y)}" text-anchor="{anchor}"{f" class={chr(34)}{kind}{chr(34)}" if kind else ""}>{text(said)}</text>'


def _line(x1, y1, x2, y2, kind):
    return f'<line x1="{_at(x1)}" y1="{_at(y1)}" x2="{_at(x2)}" y2="{_at(y2)}" class="{kind}"/>'


def _rect(x, y, width, height, kind, title=""):
    tail = f"><title>{text(title)}</title></rect>" if title else "/>"
    return f'<rect x="{_at(x)}" y="{_at(y)}" width="{_at(max(width, 0))}" height="{_at(height)}" class="{kind}"{tail}'


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
            parts.append(_text(0, y + 12, f"package {package}"))
            y += 18
        of_package = [core for core in cores if core["package"] == package]
        for start in range(0, len(of_package), columns):
            row = of_package[start:start + columns]
            deep = max(len(core["cpus"]) for core in row)
            for column, core in enumerate(row):
                x = column * step + 2
                parts.append(_rect(x - 1.5, y, size + 3, len(core["cpus"]) * high + 3, "core"))
                for place, cpu in enumerate(core["cpus"]):
                    kind, letters, words = owner(host["owners"].get(str(cpu), []))
                    top = y + 1.5 + place * high
                    parts.append(_rect(x, top, size, high, f"cpu {kind}", f"CPU {cpu} (core {core['core']}): {words}"))
                    label = f"{cpu} {letters}" if columns == 8 else str(cpu)
                    parts.append(_text(x + size / 2, top + high / 2 + 4, label, "middle", f"on-{kind}" if columns == 8 else f"on-{kind} small"))
            y += deep * high + 8
    return _svg(y, "Who may use which logical CPU", parts)


def _scale(highest):
    """Return the round steps of an axis from 0 to a bit above the highest value."""
    highest = highest if highest > 0 else 1
    step = 10 ** math.floor(math.log10(highest / 2))
    for factor in (1, 2, 2.5, 5, 10):
        if highest / (step * factor) <= 4:
            step *= factor
            break
    count = math.ceil(highest / step - 1e-9)
    return [step * place for place in range(count + 1)]


def _tail(percent):
    """Return the place of a percentile on an axis that gives the tail room: 90, 99 are as far apart as 0, 90."""
    return 2.6 if percent >= 100 else math.log10(100 / (100 - percent))


def case_name(case, service):
    """Return which of LINES a case is for a service."""
    burners = case.endswith("+burners")
    together = case.startswith("together")
    return LINES[3 if burners and together else 2 if burners else 1 if together else 0]


def latency(results, service):
    """Return the distributions of the inter-token latency of a service in each case; empty without any."""
    curves = [(case_name(row["case"], service), row["itl_curve"]) for row in results if row["service"] == service and row["itl_curve"]]
    if not curves:
        return ""
    left, right, top, bottom = 36, 8, 8, 190
    steps = _scale(max(point["ms"] for _name, curve in curves for point in curve))

    def x(percent):
        return left + (WIDTH - left - right) * _tail(percent) / _tail(100)

    def y(ms):
        return bottom - (bottom - top) * ms / steps[-1]

    parts = []
    for ms in steps:
        parts += [_line(left, y(ms), WIDTH - right, y(ms), "grid"), _text(left - 4, y(ms) + 4, number(ms), "end")]
    for percent, label in ((0, "min"), (50, "p50"), (90, "p90"), (95, "p95"), (99, "p99"), (100, "max")):
        anchor = "end" if percent == 100 else "start" if percent == 0 else "middle"
        parts += [_line(x(percent), bottom, x(percent), bottom + 4, "axis"), _text(x(percent), bottom + 17, label, anchor)]
    for name, curve in curves:
        points = " ".join(f"{_at(x(point['percent']))},{_at(y(point['ms']))}" for point in curve)
        parts.append(f'<polyline points="{points}" class="curve line{LINES.index(name)}"><title>{text(name)}</title></polyline>')
    height = bottom + 28
    for name, _curve in curves:
        place = LINES.index(name)
        parts += [_line(left, height + 4, left + 30, height + 4, f"curve line{place}"), _text(left + 38, height + 8, name)]
        height += 17
    return _svg(height, f"Inter-token latency of {NAMES[service]} in ms, by percentile", parts)


def losses(found):
    """Return a bar for each loss, its range over the rounds, and its limit; empty without any."""
    known = [one for one in found if one["loss_percent"]]
    if not known:
        return ""
    low = min(0, *(one["loss_percent"]["min"] for one in known))
    high = max(1, *(max(one["loss_percent"]["max"], one["limit_percent"] or 0) for one in known))
    left, right = 4, 60

    def x(value):
        return left + (WIDTH - left - right) * (value - low) / (high - low)

    parts, y = [], 0
    for one in known:
        value, limit = one["loss_percent"], one["limit_percent"]
        name = NAMES[one["service"]] + ": " + ("beside the other engine" if one["kind"] == "together" else
                                               "both at work, beside burners" if one["base"] == "together" else "beside burners")
        parts.append(_text(left, y + 12, name))
        top, middle = y + 18, y + 26
        ends = sorted((x(0), x(value["median"])))
        parts.append(_rect(ends[0], top, max(ends[1] - ends[0], 1), 16, f"bar {one['service']}"))
        parts.append(_line(x(value["min"]), middle, x(value["max"]), middle, "range"))
        parts += [_line(x(edge), middle - 4, x(edge), middle + 4, "range") for edge in (value["min"], value["max"])]
        parts.append(_line(x(0), top - 2, x(0), top + 18, "axis"))
        label = max(x(value["max"]), x(value["median"]), x(0)) + 5
        if limit is not None:
            parts.append(_line(x(limit), top - 4, x(limit), top + 20, "limit"))
            # A number that the limit would strike through stands behind it.
            label = x(limit) + 5 if label - 5 < x(limit) < label + right - 10 else label
        parts.append(_text(label, middle + 4, f"{value['median']:.1f} %", kind="" if one["ok"] else "bad"))
        y += 46
    return _svg(y, "Loss of tokens/s in percent", parts)


def memory(found):
    """Return for each service what it uses, the most it used, and its limit; empty without any."""
    if not found:
        return ""
    most = max(max(one["limit_mib"] or 0, one["peak_mib"], one["used_mib"], 1) for one in found.values())
    room = WIDTH - 8
    parts, y = [], 0
    for service, one in found.items():
        limit = "no limit" if one["limit_mib"] is None else f"limit {one['limit_mib']} MiB"
        parts.append(_text(4, y + 12, f"{NAMES[service]}: {one['used_mib']} MiB, peak {one['peak_mib']}, {limit}"))
        if one["limit_mib"] is not None:
            parts.append(_rect(4, y + 18, room * one["limit_mib"] / most, 18, "frame"))
        parts.append(_rect(4, y + 18, room * one["used_mib"] / most, 18, f"bar {service}"))
        parts.append(_line(4 + room * one["peak_mib"] / most, y + 16, 4 + room * one["peak_mib"] / most, y + 38, "range"))
        y += 50
    return _svg(y, "Memory against limits", parts)


def pictures(result):
    """Return the pictures of what M(erni_ki.inference.inference_benchmark) returned, by name; one that has nothing to show is empty."""
    services = [service for service in ("vllm", "ollama") if any(row["service"] == service for row in result["results"])]
    return {
        "cpus": cpu_map(result["host"]),
        "latency": {service: latency(result["results"], service) for service in services},
        "losses": losses(result["losses"]),
        "memory": memory(result["memory"]),
    }
