# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pictures of a benchmark as SVG."""
from __future__ import annotations

import math

from ansible_collections.erni_ki.inference.plugins.plugin_utils._page_style import STYLE
from ansible_collections.erni_ki.inference.plugins.plugin_utils._pictures import NAMES, WIDTH, at, cpu_map, line, memory, number, rect, scale, svg, text, write

# The cases of a service in the order of the legend.
LINES = ("alone", "beside the other engine", "beside burners", "beside both")


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
    steps = scale(max(point["ms"] for _name, curve in curves for point in curve))

    def x(percent):
        return left + (WIDTH - left - right) * _tail(percent) / _tail(100)

    def y(ms):
        return bottom - (bottom - top) * ms / steps[-1]

    parts = []
    for ms in steps:
        parts += [line(left, y(ms), WIDTH - right, y(ms), "grid"), write(left - 4, y(ms) + 4, number(ms), "end")]
    for percent, label in ((0, "min"), (50, "p50"), (90, "p90"), (95, "p95"), (99, "p99"), (100, "max")):
        anchor = "end" if percent == 100 else "start" if percent == 0 else "middle"
        parts += [line(x(percent), bottom, x(percent), bottom + 4, "axis"), write(x(percent), bottom + 17, label, anchor)]
    for name, curve in curves:
        points = " ".join(f"{at(x(point['percent']))},{at(y(point['ms']))}" for point in curve)
        parts.append(f'<polyline points="{points}" class="curve line{LINES.index(name)}"><title>{text(name)}</title></polyline>')
    height = bottom + 28
    for name, _curve in curves:
        place = LINES.index(name)
        parts += [line(left, height + 4, left + 30, height + 4, f"curve line{place}"), write(left + 38, height + 8, name)]
        height += 17
    return svg(height, f"Inter-token latency of {NAMES[service]} in ms, by percentile", parts)


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
        parts.append(write(left, y + 12, name))
        top, middle = y + 18, y + 26
        ends = sorted((x(0), x(value["median"])))
        parts.append(rect(ends[0], top, max(ends[1] - ends[0], 1), 16, f"bar {one['service']}"))
        parts.append(line(x(value["min"]), middle, x(value["max"]), middle, "range"))
        parts += [line(x(edge), middle - 4, x(edge), middle + 4, "range") for edge in (value["min"], value["max"])]
        parts.append(line(x(0), top - 2, x(0), top + 18, "axis"))
        label = max(x(value["max"]), x(value["median"]), x(0)) + 5
        if limit is not None:
            parts.append(line(x(limit), top - 4, x(limit), top + 20, "limit"))
            # A number that the limit would strike through stands behind it.
            label = x(limit) + 5 if label - 5 < x(limit) < label + right - 10 else label
        parts.append(write(label, middle + 4, f"{value['median']:.1f} %", kind="" if one["ok"] else "bad"))
        y += 46
    return svg(y, "Loss of tokens/s in percent", parts)


def pictures(result):
    """Return the pictures of what M(erni_ki.inference.inference_benchmark) returned, by name; one that has nothing to show is empty."""
    services = [service for service in ("vllm", "ollama") if any(row["service"] == service for row in result["results"])]
    return {
        "cpus": cpu_map(result["host"]),
        "latency": {service: latency(result["results"], service) for service in services},
        "losses": losses(result["losses"]),
        "memory": memory(result["memory"]),
        "style": STYLE,
    }
