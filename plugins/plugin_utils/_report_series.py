# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The live figures of a report: what Prometheus is asked for in one question, and what its answer says."""
from __future__ import annotations

import math
import statistics

# So many points a line has at most: two for each unit of a picture's width would not be seen.
POINTS = 180
# Prometheus samples every 15 s by default, others' up to once a minute; a rate needs more than two samples.
LEAST_STEP_S = 15
LEAST_WINDOW_S = 180
DEFAULT_URL = "http://127.0.0.1:9090"


def _rate(metric):
    return "sum", f"rate({metric}{{SELECTOR}}[WINDOW])"


def _most(metric):
    return "max", f"max_over_time({metric}{{SELECTOR}}[WINDOW])"


def _least(metric):
    return "min", f"min_over_time({metric}{{SELECTOR}}[WINDOW])"


def _mean(metric):
    return "max", f"avg_over_time({metric}{{SELECTOR}}[WINDOW])"


def _raw(metric):
    return "max", f"{metric}{{SELECTOR}}"


# Name: ((how the series of one label become one, expression), the label that stays).
FIGURES = {
    "cpu": (_rate("erni_ki_service_cpu_seconds_total"), "service"),
    "off_plan": (_rate("erni_ki_service_off_plan_cpu_seconds_total"), "service"),
    "foreign": (_rate("erni_ki_service_foreign_cpu_seconds_total"), "service"),
    "throttled": (_rate("erni_ki_service_throttled_seconds_total"), "service"),
    "memory": (_most("erni_ki_service_memory_working_set_bytes"), "service"),
    "memory_limit": (_raw("erni_ki_service_memory_limit_bytes"), "service"),
    "memory_peak": (_raw("erni_ki_service_memory_peak_bytes"), "service"),
    "running": (_least("erni_ki_service_running"), "service"),
    "generating": (_least("erni_ki_service_generating"), "service"),
    "probe": (_most("erni_ki_service_probe_seconds"), "service"),
    "restarts": (_raw("erni_ki_service_restarts_total"), "service"),
    "oom_kills": (_raw("erni_ki_service_oom_kills_total"), "service"),
    "vram": (_most("erni_ki_gpu_memory_used_bytes"), "gpu"),
    "vram_ceiling": (_raw("erni_ki_gpu_memory_ceiling_bytes"), "gpu"),
    "vram_total": (_raw("erni_ki_gpu_memory_total_bytes"), "gpu"),
    "gpu_busy": (_mean("erni_ki_gpu_utilization_ratio"), "gpu"),
    "gpu_heat": (_most("erni_ki_gpu_temperature_celsius"), "gpu"),
    "gpu_power": (_mean("erni_ki_gpu_power_watts"), "gpu"),
    "gpu_lost": (_most("erni_ki_gpu_lost"), "gpu"),
    "wrong_device": (_most("erni_ki_ollama_wrong_device"), ""),
    "drift": (_most("erni_ki_plan_drift"), ""),
    "model_size": (_raw("erni_ki_ollama_model_size_bytes"), "model"),
    "model_vram": (_raw("erni_ki_ollama_model_vram_bytes"), "model"),
    "tokens_out": (_rate("vllm:generation_tokens_total"), ""),
    "tokens_in": (_rate("vllm:prompt_tokens_total"), ""),
    "waiting": (_most("vllm:num_requests_waiting"), ""),
    "instances": (("count", "erni_ki_plan_info{SELECTOR}"), "instance"),
}


def step_of(hours):
    """Return the seconds between two points."""
    return max(LEAST_STEP_S, math.ceil(hours * 3600 / POINTS))


def _quoted(value):
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def query(labels, hours):
    """Return one PromQL expression for all figures; each series has the label C(figure). C(labels) select the series of one host."""
    selector = "{" + ",".join(f"{name}={_quoted(value)}" for name, value in sorted(labels.items())) + "}" if labels else ""
    window = f"{max(LEAST_WINDOW_S, step_of(hours))}s"
    parts = []
    for name, ((how, expression), label) in FIGURES.items():
        expression = expression.replace("{SELECTOR}", selector).replace("WINDOW", window)
        parts.append(f'label_replace({how} by ({label}) ({expression}), "figure", "{name}", "", "")')
    return " or ".join(parts)


def question(labels, hours, time):
    """Return the parameters of Prometheus' C(query_range) for the hours before a time, in seconds since 1970."""
    return {"query": query(labels, hours), "start": int(time - hours * 3600), "end": int(time), "step": step_of(hours)}


def _number(text):
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def read(data):
    """Return {figure: {label: [(seconds since 1970, value), …]}} of a range query's result; values that are no numbers are left out."""
    found = {}
    for series in data:
        name = series["metric"].get("figure")
        if name not in FIGURES:
            continue
        points = [(float(at), _number(value)) for at, value in series["values"]]
        points = [(at, value) for at, value in points if value is not None]
        if points:
            found.setdefault(name, {})[series["metric"].get(FIGURES[name][1], "")] = points
    return found


def problem(answer, url, given, hours, labels):
    """Return why there are no figures, in words; empty where there are. C(answer) is what M(ansible.builtin.uri) returned for the question."""
    status, said = answer.get("status", -1), answer.get("json")
    if status == -1:
        # What the connection says ends in the address, which is told already.
        why = str(answer.get("msg") or "no answer").replace("Status code was -1 and not [200]: ", "").rstrip(". ")
        if given:
            return f"Prometheus at {url} does not answer: {why}."
        return f"No Prometheus was given (report_prometheus_url), and none answers at {url} on the host."
    if not isinstance(said, dict) or said.get("status") != "success":
        reason = said.get("error") if isinstance(said, dict) else None
        return f"What answers at {url} is no Prometheus that takes this question: HTTP {status}{f', {reason}' if reason else ''}."
    try:
        found = read(said["data"]["result"])
    except (AttributeError, KeyError, TypeError, ValueError):
        return f"What answers at {url} is no Prometheus: its answer has another form."
    if len(found.get("instances", {})) > 1:
        names = ", ".join(sorted(found["instances"]))
        return f"Prometheus at {url} knows several hosts ({names}). Name this one's with report_prometheus_labels, such as instance: or host:."
    if not found:
        of_host = f" with {', '.join(f'{name}={value}' for name, value in sorted(labels.items()))}" if labels else ""
        return f"Prometheus at {url} answers, and has no figure of this host{of_host} in the last {hours:g} h."
    return ""


def summary(points, end, step):
    """Return what a line's points come to; C(last) is none where the line ended before the others."""
    values = [value for _at, value in points]
    last = values[-1] if points[-1][0] >= end - 2 * step else None
    return {"last": last, "median": statistics.median(values), "least": min(values), "most": max(values)}


def grown(points):
    """Return by how much a counter grew; one that became smaller began anew."""
    values = [value for _at, value in points]
    return sum(after - before if after >= before else after for before, after in zip(values, values[1:]))


def share(points, test):
    """Return the percentage of the points for which this is so."""
    return 100 * sum(test(value) for _at, value in points) / len(points)
