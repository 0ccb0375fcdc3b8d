# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Layouts are tried in order, and the plan is restored whatever fails: the role itself, with the other roles and the module replaced by a log."""
from __future__ import annotations

import json
import sys

import pytest
import yaml

from ansible_collections.erni_ki.inference.tests.unit.plugins.benchmark_sample import result
from ansible_collections.erni_ki.inference.tests.unit.plugins.recorded_host import PLAN
from ansible_collections.erni_ki.inference.tests.unit.roles.render import REPO, play

APPLIED = dict(PLAN, host={"usable_cpus": "0-15", "cores": 8}, vllm=dict(PLAN["vllm"], smt="applied"))
DECIDED = dict(APPLIED, isolation="{{ overridden | default(plan_isolation) }}", vllm=dict(APPLIED["vllm"], smt="{{ plan_vllm_smt }}"))

# The model's name is the place of the log.
MODULE = """#!/usr/bin/python
# WANT_JSON
import json, sys
args = json.load(open(sys.argv[1]))
with open(args["vllm_model"], "a") as log:
    log.write("measure %s\\n" % args.get("plan", {{}}).get("vllm", {{}}).get("cpuset"))
if args.get("ollama_model") == "broken":
    print(json.dumps(dict(failed=True, msg="Ollama broke off.")))
else:
    print(json.dumps(dict(json.load(open({result!r})), changed=False)))
"""

RESTORED = ["cpu_partition exclusive applied 2", "ollama exclusive applied 2", "vllm exclusive applied 2", "verify"]
FENCED = ["cpu_partition fenced own 2", "ollama fenced own 2", "vllm fenced own 2", "measure 0-6,8-14"]

# Each is a host of one run.
CASES = {
    "several": {"benchmark_layouts": ["none", "exclusive-idle"]},
    "broken": {"benchmark_layouts": ["fenced"], "benchmark_ollama_model": "broken"},
    "overridden": {"benchmark_layouts": ["fenced"], "overridden": "exclusive"},
    "unfenced": {"benchmark_layouts": ["fenced"], "failing": "cpu_partition exclusive"},
    "plain": {},
}


def note(text):
    return {"name": "Note", "ansible.builtin.command": {"argv": ["sh", "-c", f"echo '{text}' >> {{{{ benchmark_vllm_model }}}}"]}}


def stand_ins():
    """Return the tasks of the other roles."""
    where = "{{ plan_decided.isolation }} {{ plan_decided.vllm.smt }} {{ plan_decided.partition.slices | length }}"
    roles = {
        "plan/decide": [{"name": "Decide", "ansible.builtin.set_fact": {"plan_decided": DECIDED}}],
        "plan/load": [{"name": "Load", "ansible.builtin.set_fact": {"plan_decided": APPLIED}}],
        # The real one.
        "plan/take": yaml.safe_load((REPO / "roles" / "plan" / "tasks" / "take.yml").read_text(encoding="utf-8")),
        "verify/main": [note("verify")],
    }
    for name in ("cpu_partition", "ollama", "vllm"):
        failing = {"name": "Fail", "ansible.builtin.fail": {"msg": "as asked"}, "when": f"failing | default('') == '{name} ' ~ plan_decided.isolation"}
        roles[f"{name}/main"] = [note(f"{name} {where}"), failing]
    return roles


@pytest.fixture(name="compared", scope="module")
def fixture_compared(tmp_path_factory):
    """Runs the role; returns what was printed, {case: the lines of its log}, and the names of the reports."""
    folder = tmp_path_factory.mktemp("layouts")
    home = folder / "collections" / "ansible_collections" / "erni_ki" / "inference"
    (home / "plugins" / "modules").mkdir(parents=True)
    for name in ("filter", "plugin_utils", "module_utils"):
        (home / "plugins" / name).symlink_to(REPO / "plugins" / name)
    (home / "plugins" / "modules" / "inference_benchmark.py").write_text(MODULE.format(result=str(folder / "result.json")), encoding="utf-8")
    (folder / "result.json").write_text(json.dumps(result(repeats=1)), encoding="utf-8")
    for place, tasks in stand_ins().items():
        role, entry = place.split("/")
        (home / "roles" / role / "tasks").mkdir(parents=True, exist_ok=True)
        (home / "roles" / role / "tasks" / f"{entry}.yml").write_text(yaml.safe_dump(tasks), encoding="utf-8")
    (home / "roles" / "benchmark").symlink_to(REPO / "roles" / "benchmark")
    hosts = {case: {"benchmark_vllm_model": str(folder / f"{case}.log"), **variables} for case, variables in CASES.items()}
    for case in ("several", "plain"):
        hosts[case]["benchmark_report_host_folder"] = str(folder / "report")
    common = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "benchmark_report_folder": ""}
    (folder / "inventory.yml").write_text(yaml.safe_dump({"all": {"vars": common, "hosts": hosts}}), encoding="utf-8")
    (folder / "playbook.yml").write_text(yaml.safe_dump([{
        "hosts": "all", "gather_facts": False,
        "tasks": [{"name": "Measure", "ansible.builtin.import_role": {"name": "erni_ki.inference.benchmark"}}]}]), encoding="utf-8")
    printed = play(folder, collections=folder / "collections", code=2)
    logs = {case: (folder / f"{case}.log").read_text(encoding="utf-8").splitlines() for case in CASES}
    return printed, logs, sorted(path.name for path in (folder / "report").iterdir())


def test_every_layout_and_then_the_plan(compared):
    printed, logs, reports = compared
    assert logs["several"] == [
        "cpu_partition fenced own 0", "ollama fenced own 0", "vllm fenced own 0", "measure 0-15",
        "cpu_partition exclusive idle 2", "ollama exclusive idle 2", "vllm exclusive idle 2", "measure 0-6,8-14", *RESTORED]
    assert "lost beside burners" in printed
    assert [name for name in reports if name.startswith("several")] == [
        f"several-{layout}.{kind}" for layout in ("exclusive-idle", "none") for kind in ("html", "json")]


@pytest.mark.parametrize("case, steps, said", [
    ("broken", 4, "Ollama broke off."), ("overridden", 0, "given with -e, which wins over the layout fenced"),
])
def test_an_error_is_told_and_undone(compared, case, steps, said):
    printed, logs, _reports = compared
    assert said in printed and logs[case] == FENCED[:steps] + RESTORED


def test_one_part_that_is_not_restored_keeps_no_other(compared):
    assert "as asked" in compared[0] and compared[1]["unfenced"] == FENCED + RESTORED


def test_without_layouts_a_loss_fails_the_play(compared):
    printed, logs, reports = compared
    # The module reads the plan by itself.
    assert logs["plain"] == ["measure None"] and "FAILED: vLLM loses" in printed and "No burner may run on vLLM's cores" in printed
    assert [name for name in reports if name.startswith("plain")] == ["plain.html", "plain.json"]
