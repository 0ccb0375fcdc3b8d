# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the benchmarks, and writes docs/benchmarks.md from all that was measured on this machine.

`make site`, `make test` and Molecule leave their durations in .cache/bench by themselves; tests/bench/bench_*.py are run now, and what
they print is shown as it is.
"""
from __future__ import annotations

import json
import subprocess
import sys

from common import BENCH, REPO, duration, environment, machine, say

PAGE = REPO / "docs" / "benchmarks.md"
SITE = (
    ("site-first-empty-cache", "`make site` on a fresh clone, to the verdict"),
    ("site-first-warm-cache", "`make site` with the cache warm, to the verdict"),
    ("site-second", "`make site` again"),
)
TESTS = (("test", "`make test`"), ("test-fast", "`make test-fast`"))
STEPS = ("lint", "docs-check", "unit", "package", "sanity", "compat", "molecule")


def load(name):
    path = BENCH / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def run_benchmarks():
    """Run every benchmark of the repository, and return what each printed."""
    printed = {}
    for script in sorted(REPO.glob("tests/bench/bench_*.py")):
        say(f"bench: {script.name}")
        result = subprocess.run([sys.executable, str(script)], cwd=REPO, env=environment(), stdout=subprocess.PIPE, text=True, check=True)
        printed[script.stem.removeprefix("bench_")] = result.stdout.strip()
        print(result.stdout, flush=True)
    return printed


def describe(found):
    emulated = "with" if found["hardware_virtualization"] else "without"
    return f"{found['cpus']} CPUs ({found['cpu_model']}), {found['memory_gib']} GiB, {emulated} hardware virtualization, Python {found['python']}"


def table(head, rows):
    return ["", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(map(str, row))} |" for row in rows)]


def page(benchmarks):
    lines = [
        "# Benchmarks", "", "<!-- Made by `make bench`. -->", "",
        "Figures of one machine, to see where time goes and whether it grew; the tests assert none of them.", "",
        f"Measured on {describe(machine())}.",
    ]
    sites = [(text, found) for name, text in SITE if (found := load(name))]
    if sites:
        lines += ["", "## The sandbox"]
        lines += table(("", "Time", "of it the machine", "Tasks", "Changed", "Date"), [
            (text, duration(found["seconds"]), duration(found["sandbox_seconds"]), found.get("tasks", "?"), found.get("changed", "?"), found["date"])
            for text, found in sites
        ])
    tests = [(text, found) for name, text in TESTS if (found := load(name))]
    steps = [(f"`make {name}`", found) for name in STEPS if (found := load(f"test-{name}"))]
    if tests or steps:
        lines += ["", "## The tests"]
        lines += table(("", "Time", "Tests", "Date"), [
            (text, duration(found["seconds"]), found.get("passed", "all"), found["date"]) for text, found in tests + steps if found["ok"]
        ])
    for path in sorted(BENCH.glob("molecule-*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["ok"]:
            lines += ["", f"## Molecule's scenario {path.stem.removeprefix('molecule-')}"]
            lines += table(("Action", "Time"), [(entry["action"], duration(entry["seconds"])) for entry in found["actions"]])
    for name, text in benchmarks.items():
        lines += ["", f"## `tests/bench/bench_{name}.py`", "", "```text", text, "```"]
    return "\n".join(lines) + "\n"


def main():
    text = page(run_benchmarks())
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(text, encoding="utf-8")
    say(f"bench: {PAGE.relative_to(REPO)} written")


if __name__ == "__main__":
    main()
