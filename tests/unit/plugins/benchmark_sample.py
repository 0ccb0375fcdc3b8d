# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A benchmark's result as the module returns it, made from figures instead of services, for what shows it."""
from __future__ import annotations

import types

from ansible_collections.erni_ki.inference.plugins.module_utils import _benchmark, _benchmark_stats
from ansible_collections.erni_ki.inference.tests.unit.plugins.recorded_host import PLAN

# Tokens/s by service and case, much as they were on a pinned host that fences nothing.
RATES = {
    "vllm": {"vllm": 134, "together": 112, "vllm+burners": 88, "together+burners": 80},
    "ollama": {"ollama": 124, "together": 119, "ollama+burners": 120, "together+burners": 115},
}
CPUS = {"vllm": "0-6,8-14", "ollama": "7,15", "burners": "7,15"}


def request(rate, number):
    """An answer of 40 tokens, every tenth of which takes twice as long."""
    at, pieces = 0.04, []
    for place in range(40):
        pieces.append((at, 1))
        at += (1 + (place % 10 == 9) + number / 50) / rate
    return _benchmark_stats.Request(0, pieces)


def result(repeats=3, services=("vllm", "ollama"), isolation="exclusive", left_out=(), cores=8, packages=1):
    """C(left_out) are the places, in the order of the runs, of those that do not count."""
    settings = _benchmark.Settings(repeats=repeats)
    wanted = _benchmark.cases(list(services), True)
    runs, gaps = [], {}
    for number, case in _benchmark.schedule(wanted, repeats):
        answers = {service: request(RATES[service][case.name], number) for service in case.services}
        runs.append({
            "round": number, "case": case.name, "seconds": 10.0, "left_out": [],
            "services": {service: _benchmark_stats.figures([answers[service]]) for service in case.services},
            "throttled": {service: 0 for service in services}, "mhz": {}, "others": [], "other_cpus": 0.01, "steal_percent": 0.0, "burner_cpus": 0.0,
            "service_cpus": {}, "busy_percent": {}})
        if len(runs) - 1 in left_out:
            runs[-1]["left_out"] = ["other processes used 43 % of a CPU on the measured CPUs: <apt & co> (process 9) 4.30 s"]
            continue
        for service in case.services:
            gaps.setdefault((case.name, service), []).extend(answers[service].gaps())
    host = types.SimpleNamespace(cpus={"vllm": frozenset([*range(7), *range(8, 15)]), "ollama": frozenset({7, 15})}, reachable=frozenset({7, 15}),
                                 siblings=lambda cpus: frozenset())
    rows, losses = _benchmark.results(runs, wanted, gaps), _benchmark.judge(runs, wanted, host, dict(PLAN, isolation=isolation), settings)
    ok, summary = _benchmark.verdict(losses, runs)
    owners = {str(cpu): ["ollama", "system"] if cpu % cores == cores - 1 else ["vllm"] for cpu in range(2 * cores)}
    return {
        "ok": ok, "summary": summary, "table": _benchmark.table(rows, losses, runs), "results": rows, "losses": losses, "runs": runs,
        "host": {"isolation": isolation, "model_name": "A <CPU>", "owners": owners, "cpus": CPUS, "cores": [
            {"core": core, "package": core * packages // cores, "cpus": [core, core + cores]} for core in range(cores)]},
        "memory": {"vllm": {"limit_mib": 6144, "used_mib": 5100, "peak_mib": 5900}, "ollama": {"limit_mib": None, "used_mib": 900, "peak_mib": 1200}},
        "models": {service: "tiny" for service in services}, "settings": settings._asdict()}
