# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the exporter tells: the name, kind, labels and meaning of every metric, and how they are written for Prometheus.

Names, labels and units are what alert rules, dashboards and reports rely on; they stand here and nowhere else.
"""
from __future__ import annotations

from typing import NamedTuple

# What is looked at, each by a thread of its own with a deadline of its own.
SOURCES = ("plan", "docker", "cgroup", "procs", "vllm", "ollama", "gpu")
DEVICE_STATES = ("gpu", "partial", "cpu", "idle")
RESOURCES = ("cpu", "memory", "io")
PRESSURES = ("some", "full")


class Metric(NamedTuple):
    """One metric: C(kind) is counter or gauge; a counter's name ends with _total, as its samples' names do."""

    name: str
    kind: str
    labels: tuple
    text: str


def _gauge(name, labels, text):
    return Metric(f"erni_ki_{name}", "gauge", labels, text)


def _counter(name, labels, text):
    return Metric(f"erni_ki_{name}_total", "counter", labels, text)


_LIST = (
    _gauge("plan_info", ("hash",), "The plan that is applied; the hash is the beginning of the SHA-256 of its file."),
    _gauge("plan_drift", (), "1 when a container's cpuset, memory limit or slice, as the kernel has it, is not the plan's."),
    _gauge("service_running", ("service",), "1 when the service's container runs."),
    _gauge("service_generating", ("service",), "1 when the service was last seen to bring a token, by a request of the exporter or by its own counters."),
    _gauge("service_probe_seconds", ("service",), "What the exporter's last request for one token took; missing when others' tokens made it needless."),
    _gauge("service_probe_timestamp_seconds", ("service",), "When it was last found out whether the service brings tokens."),
    _counter("service_restarts", ("service",), "Restarts by Docker's restart policy."),
    _counter("service_oom_kills", ("service",), "Processes of the service that the kernel killed for want of memory."),
    _counter("service_cpu_seconds", ("service", "core"), "CPU time of the service, by the logical CPU on which each thread was seen last."),
    _counter("service_off_plan_cpu_seconds", ("service",), "CPU time of threads that were seen on a CPU outside of the service's cpuset."),
    _counter("service_foreign_cpu_seconds", ("service",), "CPU time that programs other than the planned services had on the service's CPUs."),
    _counter("service_throttled_seconds", ("service",), "Time for which a CPU quota, of the container or of a group above it, stopped the service."),
    _gauge("service_threads", ("service",), "Threads of the service."),
    _gauge("service_threads_outside", ("service",), "Threads that may run on a CPU outside of the service's cpuset, at two looks a while apart."),
    _gauge("service_memory_working_set_bytes", ("service",), "Memory of the service that cannot be given back: all but page cache that nobody used lately."),
    _gauge("service_memory_limit_bytes", ("service",), "The service's memory limit, as the kernel has it."),
    _gauge("service_memory_peak_bytes", ("service",), "The most memory the service has had, page cache included."),
    _counter("service_pressure_seconds", ("service", "resource", "kind"), "Time in which some, or all, of the service's tasks waited for the resource."),
    _gauge("ollama_model_size_bytes", ("model",), "Size of a loaded model with its context."),
    _gauge("ollama_model_vram_bytes", ("model",), "The part of a loaded model that is in video memory."),
    _gauge("ollama_device", ("state",), "1 for where Ollama's loaded models are: all on the GPU, partly, on CPUs, or idle when none is loaded."),
    _gauge("ollama_wrong_device", (), "1 when the plan gives Ollama a GPU and a loaded model is not there as the plan wants it."),
    _gauge("gpu_memory_used_bytes", ("gpu",), "Video memory in use."),
    _gauge("gpu_memory_total_bytes", ("gpu",), "Video memory of the card."),
    _gauge("gpu_memory_ceiling_bytes", ("gpu",), "Video memory the plan lets Ollama use: all but what the driver keeps and llama-server leaves free."),
    _gauge("gpu_utilization_ratio", ("gpu",), "Share of the last moments in which the GPU computed, from 0 to 1."),
    _gauge("gpu_temperature_celsius", ("gpu",), "Temperature of the GPU."),
    _gauge("gpu_power_watts", ("gpu",), "Power that the card draws."),
    _gauge("gpu_lost", ("gpu",), "1 when the driver answers and the plan's GPU is lost or not among its GPUs."),
    _gauge("gpu_driver_mismatch", ("gpu",), "1 when the driver was upgraded under a kernel that still runs the old one."),
    _gauge("collect_failed", ("source",), "1 when a source gave no full answer in time; what it would have told is missing."),
    _gauge("collect_seconds", ("source",), "What the last look at a source took."),
)
METRICS = {metric.name: metric for metric in _LIST}


def sample(name, labels, value):
    """Return one sample, (name, label values in the metric's own order, value); KeyError for what no metric has."""
    metric = METRICS[name]
    if set(labels) != set(metric.labels):
        raise KeyError(f"{name} has the labels {metric.labels}, not {tuple(labels)}")
    return name, tuple(str(labels[label]) for label in metric.labels), float(value)


class _Once:
    """Hands these families to prometheus_client, which asks a registry for them."""

    def __init__(self, families):
        self.collect = lambda: families


def render(samples):
    """Return the samples in Prometheus' text format, as bytes, each metric with HELP and TYPE. Needs prometheus_client."""
    from prometheus_client import generate_latest
    from prometheus_client.core import Metric as Family

    families = {}
    for name, labels, value in samples:
        metric = METRICS[name]
        if name not in families:
            # prometheus_client adds _total to a counter's name itself.
            bare = name[:-len("_total")] if metric.kind == "counter" else name
            families[name] = Family(bare, metric.text, metric.kind)
        families[name].add_sample(name, dict(zip(metric.labels, labels)), value)
    return generate_latest(_Once([families[name] for name in METRICS if name in families]))
