# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role report reads on a host, made from figures instead of a host, for what shows it."""
from __future__ import annotations

import copy
import json
import math

from ansible_collections.erni_ki.inference.plugins.module_utils._plan import decide, render_plan
from ansible_collections.erni_ki.inference.plugins.plugin_utils import _report_series
from ansible_collections.erni_ki.inference.tests.unit.plugins.plan_strategies import gpu, gpu_facts, split, topology

TIME = 1_790_000_000
MIB = 1 << 20
UUID = "GPU-57a2d1e5-0000-4000-8000-0000000c1c31"
MARKUP = """<script>alert('x')</script>"&{{ 6 * 7 }}<b"""


def check(service, name, ok=True):
    return {"service": service, "name": name, "ok": ok, "expected": f"expected of {name}", "found": "all 63 threads of 4 processes within 0-6,8-14",
            "evidence": "/proc/PID/task/*/status: Cpus_allowed_list", "hint": "" if ok else "Recreate the container."}


def proof(failing=()):
    names = [("vllm", name) for name in ("container_running", "container_health", "restart_count", "slice", "cpuset_effective", "threads_in_cpuset",
                                         "omp_threads", "memory_limit", "oom_kills", "token_generated")]
    names += [("ollama", name) for name in ("container_running", "cpuset_effective", "memory_limit", "gpu_uuid", "gpu_loaded", "token_generated")]
    names += [("system", name) for name in ("fence_effective", "exclusive_cores")]
    checks = [check(*name, name not in failing) for name in names]
    failed = [f"{service}: {name}" for service, name in failing]
    return {
        "changed": False, "ok": not failed, "checks": checks, "failed_checks": failed,
        "summary": f"FAILED: {len(failed)} of {len(checks)} checks: {', '.join(failed)}" if failed else f"ok: {len(checks)} checks passed",
        "images": {"vllm": "vllm/vllm-openai-cpu:v0.32.0-x86_64", "ollama": "ollama/ollama:0.32.15"},
        "urls": {"vllm": "http://127.0.0.1:8000", "ollama": "http://127.0.0.1:11434"}}


def finding(code, severity, service="vllm", checks=()):
    return {"code": code, "severity": severity, "service": service, "evidence": f"seen in the log of {service}: it was {code} & <nothing> else.",
            "cause": f"The cause of {code}.", "cure": f"Set plan_{service}_something, then run the playbook site.", "checks": list(checks)}


def diagnosis(findings=()):
    counts = {severity: sum(one["severity"] == severity for one in findings) for severity in ("critical", "warning", "info")}
    told = ", ".join(f"{number} {severity}" for severity, number in counts.items() if number)
    count = f"{len(findings)} finding{'' if len(findings) == 1 else 's'}"
    return {"changed": False, "findings": list(findings), "counts": counts,
            "summary": f"{count}: {told}" if findings else "no finding; 18 checks of the proof passed"}


# Figure: {label: the value at a place between 0 and 1 of the time}.
VALUES = {
    "cpu": {"vllm": lambda at: 5 + 2 * math.sin(9 * at), "ollama": lambda at: 0.6},
    "off_plan": {"vllm": lambda at: 0, "ollama": lambda at: 0.002},
    "foreign": {"vllm": lambda at: 0.001, "ollama": lambda at: 0.25},
    "throttled": {"vllm": lambda at: 0, "ollama": lambda at: 0},
    "memory": {"vllm": lambda at: (4000 + 1000 * at) * MIB, "ollama": lambda at: 900 * MIB},
    "memory_limit": {"vllm": lambda at: 6144 * MIB, "ollama": lambda at: 4096 * MIB},
    "memory_peak": {"vllm": lambda at: 5900 * MIB, "ollama": lambda at: 1500 * MIB},
    "running": {"vllm": lambda at: 1, "ollama": lambda at: 1},
    "generating": {"vllm": lambda at: 0 if 0.4 < at < 0.5 else 1, "ollama": lambda at: 1},
    "probe": {"vllm": lambda at: 0.21, "ollama": lambda at: 0.04},
    "restarts": {"vllm": lambda at: 3 if at < 0.45 else 4, "ollama": lambda at: 0},
    "oom_kills": {"vllm": lambda at: 0, "ollama": lambda at: 0},
    "vram": {UUID: lambda at: (2600 + 200 * math.sin(20 * at)) * MIB},
    "vram_ceiling": {UUID: lambda at: 4620 * MIB},
    "vram_total": {UUID: lambda at: 5120 * MIB},
    "gpu_busy": {UUID: lambda at: 0.35},
    "gpu_heat": {UUID: lambda at: 61},
    "gpu_power": {UUID: lambda at: 48.5},
    "gpu_lost": {UUID: lambda at: 0},
    "wrong_device": {"": lambda at: 0},
    "drift": {"": lambda at: 0 if at < 0.9 else 1},
    "model_size": {"llama3.2:3b": lambda at: 2300 * MIB},
    "model_vram": {"llama3.2:3b": lambda at: 2300 * MIB},
    "tokens_out": {"": lambda at: 110 + 20 * math.sin(30 * at)},
    "tokens_in": {"": lambda at: 300 * abs(math.sin(7 * at))},
    "waiting": {"": lambda at: 2},
    "instances": {"127.0.0.1:9835": lambda at: 1},
}


def answer(hours=24, values=None, gap=(0.2, 0.25)):
    """What Prometheus says, as M(ansible.builtin.uri) returns it; in the gap it knows nothing."""
    step = _report_series.step_of(hours)
    count = int(hours * 3600 / step)
    places = [(TIME - hours * 3600 + place * step, place / count) for place in range(count + 1)]
    data = []
    for figure, lines in (VALUES if values is None else values).items():
        for label, line in lines.items():
            kept = {_report_series.FIGURES[figure][1]: label} if label else {}
            data.append({"metric": {"figure": figure, **kept}, "values": [[moment, repr(line(at))] for moment, at in places if not gap[0] < at < gap[1]]})
    return {"status": 200, "json": {"status": "success", "data": {"resultType": "matrix", "result": data}}, "changed": False}


REFUSED = {"status": -1, "changed": False,
           "msg": "Status code was -1 and not [200]: Request failed: <urlopen error [Errno 111] Connection refused>"}


def plan_text(cores=8, card=True, **policy):
    facts = topology(split(cores), memory=4000 * cores)
    found = decide(facts, gpu=gpu_facts(gpu()) if card else None, policy={
        "vllm_cores": f"0-{cores - 2}", "isolation": "exclusive", "ollama_require_gpu": card, "ollama_model_mib": 2000, "ollama_kv_bytes_per_token": 114688,
        **policy})
    assert found["plan"], found["table"]
    return render_plan(found["plan"]), facts


def raw(name="node1", cores=8, card=True, prometheus=None, failing=(), findings=(), **policy):
    """What was read on a host that is well, or not."""
    plan, facts = plan_text(cores, card, **policy)
    return {
        "host": name, "time": TIME, "hours": 24.0, "plan": plan, "topology": facts, "ansible_version": "2.19.1",
        "engine": {"version": "26.1.5", "flavor": "distribution", "compose": {"kind": "v2", "version": "2.26.1"}},
        "gpu": {"driver_version": "580.95.05"},
        "facts": {"distribution": "Debian", "distribution_version": "12.5", "kernel": "6.1.0-18-amd64", "python_version": "3.11.2"},
        "proof": proof(failing), "diagnosis": diagnosis(findings),
        "apis": [{"__report_api": {"name": name}, "json": said} for name, said in (
            ("vllm_version", {"version": "0.32.0"}), ("ollama_version", {"version": "0.32.15"}),
            ("ollama_tags", {"models": [{"name": "llama3.2:3b", "digest": "a80c4f17acd5" + "0" * 52}]}))],
        "prometheus": prometheus or answer(), "prometheus_url": "", "prometheus_labels": {}}


KEPT = ("severity", "kind", "figure", "status", "resultType", "time", "hours", "cpuset", "cpuset_mems", "service", "isolation", "__report_api", "mode")


def spoilt(value):
    """Return the same with markup behind every text that a host, a model or a user chooses; inside of the plan's text, too."""
    if isinstance(value, dict):
        changed = {key: copy.deepcopy(inner) if key in KEPT else spoilt(inner) for key, inner in value.items()}
        return {**changed, "plan": json.dumps(spoilt(json.loads(value["plan"])))} if isinstance(value.get("plan"), str) else changed
    if isinstance(value, list):
        return [spoilt(inner) for inner in value]
    return value + MARKUP if isinstance(value, str) and not value.replace(".", "").replace("-", "").isdigit() else value
