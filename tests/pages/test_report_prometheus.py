# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real Prometheus takes the report's question, asked as the role asks it, and the page shows what it was told."""
from __future__ import annotations

import json
import sys

import prometheus
import pytest
import yaml
from sandbox_lib import host
from sandbox_lib.common import cache_dir, lock

from ansible_collections.erni_ki.inference.plugins.plugin_utils._report import report
from ansible_collections.erni_ki.inference.tests.unit.plugins import report_sample as sample
from ansible_collections.erni_ki.inference.tests.unit.roles.render import REPO, play
from ansible_collections.erni_ki.inference.tests.unit.roles.report_page import draw

MIB = 1 << 20
SCRAPE_S, HOURS = 60, 12.0
HOSTILE = "<b>&{{ 6 * 7 }}"
# Metric: (type, {labels: the value after so many seconds}).
SERIES = {
    "erni_ki_plan_info": ("gauge", {'hash="0a"': lambda seconds: 1}),
    "erni_ki_service_cpu_seconds": ("counter", {
        **{f'service="vllm",core="{core}"': lambda seconds: 0.75 * seconds for core in range(8)}, 'service="ollama",core="7"': lambda seconds: 0.5 * seconds}),
    "erni_ki_service_off_plan_cpu_seconds": ("counter", {'service="vllm"': lambda seconds: 0.01 * seconds}),
    "erni_ki_service_memory_working_set_bytes": ("gauge", {'service="vllm"': lambda seconds: (5000 if seconds == 3660 else 4000) * MIB}),
    "erni_ki_service_memory_limit_bytes": ("gauge", {'service="vllm"': lambda seconds: 6144 * MIB}),
    "erni_ki_service_generating": ("gauge", {'service="vllm"': lambda seconds: 0 if 1800 <= seconds < 3600 else 1}),
    "erni_ki_service_restarts": ("counter", {'service="vllm"': lambda seconds: 2 if seconds < 3600 else 4}),
    "erni_ki_ollama_model_size_bytes": ("gauge", {f'model="{HOSTILE}"': lambda seconds: 2300 * MIB}),
    "vllm:generation_tokens": ("counter", {'model_name="tiny",engine="0"': lambda seconds: 110 * seconds}),
}


def samples(instances):
    """Lines of OpenMetrics: a counter is called _total there."""
    for metric, (kind, lines) in SERIES.items():
        yield f"# TYPE {metric} {kind}"
        for name in instances:
            for labels, value in lines.items():
                for seconds in range(0, int(HOURS * 3600) + 1, SCRAPE_S):
                    yield (f"{metric}{'_total' if kind == 'counter' else ''}{{host=\"{name}\",instance=\"{name}\",{labels}}} {value(seconds)}"
                           f" {sample.TIME - HOURS * 3600 + seconds:.0f}")


@pytest.fixture(name="asked", scope="module")
def fixture_asked(tmp_path_factory):
    """The answers to the role's own task, by what was asked for."""
    cache, folder = cache_dir(), tmp_path_factory.mktemp("prometheus")
    with lock(cache / "lock", "the sandbox's cache"):
        host.ensure_tools(host.MACHINE_TOOLS, cache / "log" / "apt.log")
        root = prometheus.ensure(cache)
    tasks = yaml.safe_load((REPO / "roles/report/tasks/prometheus.yml").read_text(encoding="utf-8"))
    variables = yaml.safe_load((REPO / "roles/report/vars/main.yml").read_text(encoding="utf-8"))
    with prometheus.running(root, folder, samples(["node1", "node2"])) as url:
        cases = {name: {"report_prometheus_labels": labels, "report_prometheus_url": f"{url}{path}"} for name, labels, path in (
            ("node1", {}, "/"), ("named", {"host": "node2"}, ""), ("other", {}, ""), ("none", {"host": "x"}, ""), ("no_prometheus", {}, "/elsewhere"))}
        common = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "report_hours": HOURS,
                  "report_prometheus_asker": "", "report_prometheus_token_file": "",
                  "__report_time": str(sample.TIME), "folder": str(folder)}
        (folder / "inventory.yml").write_text(yaml.safe_dump({"all": {"hosts": cases, "vars": common}}), encoding="utf-8")
        keep = {"name": "Keep", "ansible.builtin.copy": {
            "content": "{{ [__report_prometheus, __report_labels] | to_json }}", "dest": "{{ folder }}/{{ inventory_hostname }}.json", "mode": "0600"}}
        (folder / "playbook.yml").write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": [*tasks, keep], "vars": {
            name: variables[name] for name in ("__report_labels", "__report_known")}}]), encoding="utf-8")
        play(folder)
    answers = {name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in cases}
    return {name: report({**sample.raw(prometheus=found), "hours": HOURS, "prometheus_url": "http://p",
                          "prometheus_labels": labels}) for name, (found, labels) in answers.items()}


@pytest.mark.parametrize("name", ["node1", "named"])
def test_the_figures_are_those_that_were_written(asked, name):
    live = asked[name]["live"]
    assert live["available"], live["why"]
    rows = {row["what"]: row for row in live["rows"]}
    assert rows["vLLM: CPU time"]["median"] == pytest.approx(6, rel=0.01) and rows["Ollama: CPU time"]["median"] == pytest.approx(0.5, rel=0.01)
    assert rows["vLLM: CPU time outside its CPUs"]["last"] == pytest.approx(1, rel=0.01) and rows["vLLM: tokens out"]["last"] == pytest.approx(110, rel=0.01)
    # A moment between two points of the picture is not lost.
    assert (rows["vLLM: memory"]["most"], rows["vLLM: memory"]["median"]) == (5000, 4000)
    assert live["words"] == ["vLLM was restarted 2 times."]
    assert live["health"][0]["generating"] == pytest.approx(95.4, abs=0.7)
    assert [model["name"] for model in live["models"]] == [HOSTILE]


@pytest.mark.parametrize("name, said", [
    ("other", "knows several hosts (node1, node2)"), ("none", "has no figure of this host with host=x in the last 12 h"),
    ("no_prometheus", "is no Prometheus that takes this question: HTTP 404")])
def test_why_there_are_none(asked, name, said):
    assert not asked[name]["live"]["available"] and said in asked[name]["live"]["why"]


def test_the_page(browser, folder, tmp_path, asked):
    draw(tmp_path, folder, {"report-prometheus": asked["node1"]})
    seen, said = browser.look("report-prometheus.html", width=1100)
    browser.picture("report-prometheus.html", "report-prometheus.png", height=4200)
    assert said == [] and [row[0] for table in seen["tables"] for row in table if "<b>" in row[0]] == [HOSTILE]
