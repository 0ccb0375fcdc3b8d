# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The names that are exported, as Prometheus' own parser reads them."""
from __future__ import annotations

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ansible_collections.erni_ki.inference.plugins.module_utils._exporter_metrics import METRICS, render, sample

# What alert rules, dashboards and reports are written against. Names may be added here, never changed.
CONTRACT = {
    "plan_info": "hash", "plan_drift": "", "service_running": "service", "service_generating": "service", "service_probe_seconds": "service",
    "service_probe_timestamp_seconds": "service", "service_restarts_total": "service", "service_oom_kills_total": "service",
    "service_cpu_seconds_total": "service,core", "service_off_plan_cpu_seconds_total": "service", "service_foreign_cpu_seconds_total": "service",
    "service_throttled_seconds_total": "service", "service_threads": "service", "service_threads_outside": "service",
    "service_memory_working_set_bytes": "service", "service_memory_limit_bytes": "service", "service_memory_peak_bytes": "service",
    "service_pressure_seconds_total": "service,resource,kind", "ollama_model_size_bytes": "model", "ollama_model_vram_bytes": "model",
    "ollama_device": "state", "ollama_wrong_device": "", "gpu_memory_used_bytes": "gpu", "gpu_memory_total_bytes": "gpu",
    "gpu_memory_ceiling_bytes": "gpu", "gpu_utilization_ratio": "gpu", "gpu_temperature_celsius": "gpu", "gpu_power_watts": "gpu", "gpu_lost": "gpu",
    "gpu_driver_mismatch": "gpu", "collect_failed": "source", "collect_seconds": "source",
}


def one_of_each():
    return [sample(name, {label: f'a "{label}"\n' for label in metric.labels}, 1.5) for name, metric in METRICS.items()]


def test_the_contract_is_kept():
    assert {f"erni_ki_{name}": tuple(filter(None, labels.split(","))) for name, labels in CONTRACT.items()}.items() <= {
        name: metric.labels for name, metric in METRICS.items()}.items()


def test_every_name_is_written_with_help_and_type():
    text = render(one_of_each()).decode("utf-8")
    seen = {}
    for family in text_string_to_metric_families(text):
        for found in family.samples:
            seen[found.name] = (family.type, family.documentation, set(found.labels), found.value)
    assert seen == {name: (metric.kind, metric.text, set(metric.labels), 1.5) for name, metric in METRICS.items()}
    for name, metric in METRICS.items():
        assert f"# HELP {name} {metric.text}\n" in text and f"# TYPE {name} {metric.kind}\n" in text


def test_names_say_what_they_are():
    units = r"(_seconds|_bytes|_ratio|_celsius|_watts|_info|_total)$"
    without = {name[len("erni_ki_"):] for name in METRICS if not re.search(units, name)}
    assert without == {
        "plan_drift", "service_running", "service_generating", "service_threads", "service_threads_outside", "ollama_device", "ollama_wrong_device",
        "gpu_lost", "gpu_driver_mismatch", "collect_failed"}
    assert all(name.endswith("_total") == (metric.kind == "counter") and metric.text.endswith(".") for name, metric in METRICS.items())


def test_nothing_is_written_that_is_not_told():
    assert render([]).strip() == b""
    text = render([sample("erni_ki_plan_drift", {}, True)]).decode()
    assert "erni_ki_plan_drift 1.0" in text and text.count("# TYPE") == 1


@pytest.mark.parametrize("name, labels", [("erni_ki_other", {}), ("erni_ki_plan_drift", {"a": 1}), ("erni_ki_plan_info", {})])
def test_what_no_metric_has_is_refused(name, labels):
    with pytest.raises(KeyError):
        sample(name, labels, 1)
