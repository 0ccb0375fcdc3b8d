# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the named make targets one after the other, whatever becomes of each, and ends with the sum.

Every step leaves JUnit files in .cache/results (STEP.xml or STEP-*.xml); the sum is taken from those, and its last line reads
N passed, N failed.
"""
from __future__ import annotations

import subprocess
import sys
import time
from xml.etree import ElementTree

from common import LOGS, REPO, RESULTS, duration, record


def count(step):
    """Return how many tests of a step passed and were skipped, and a line for each that failed."""
    passed = skipped = 0
    failed = []
    for path in [*RESULTS.glob(f"{step}.xml"), *RESULTS.glob(f"{step}-*.xml")]:
        for case in ElementTree.parse(path).iter("testcase"):
            wrong = next((found for found in (case.find("failure"), case.find("error")) if found is not None), None)
            if wrong is not None:
                said = " ".join(wrong.get("message", "").split())
                failed.append(f"{case.get('classname', '')}::{case.get('name')}: {said:.600}")
            elif case.find("skipped") is not None:
                skipped += 1
            else:
                passed += 1
    return passed, failed, skipped


def run(step):
    """Run a step, its output on the screen and in .cache/logs; return its exit code."""
    with open(LOGS / f"{step}.log", "w", encoding="utf-8") as log:
        with subprocess.Popen(
            ["make", "--no-print-directory", step], cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        ) as process:
            for line in process.stdout:
                print(line, end="", flush=True)
                log.write(line)
    return process.returncode


def main():
    steps = sys.argv[1:]
    LOGS.mkdir(parents=True, exist_ok=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    for path in RESULTS.glob("*.xml"):
        path.unlink()
    begin = time.monotonic()
    lines, complaints, total, broken = [], [], [0, 0, 0], False
    for number, step in enumerate(steps, 1):
        print(f"\n{'=' * 20} {step} ({number} of {len(steps)}, {duration(time.monotonic() - begin)} since the start) {'=' * 20}", flush=True)
        start = time.monotonic()
        code = run(step)
        seconds = time.monotonic() - start
        passed, wrong, skipped = count(step)
        if code and not wrong:
            wrong = [f"broke down outside its tests, exit code {code}"]
        if not code and not passed:
            wrong.append("no test ran")
        complaints += [f"  {step}: {line}" for line in wrong]
        failed = len(wrong)
        broken = broken or code != 0 or failed > 0
        total = [a + b for a, b in zip(total, (passed, failed, skipped))]
        verdict = "FAILED" if code or failed else "ok"
        lines.append(f"  {step:<12} {verdict:<7} {passed:>5} passed {failed:>4} failed {skipped:>4} skipped  {duration(seconds):>7}")
        record(f"test-{step}", seconds, passed=passed, failed=failed, skipped=skipped, ok=verdict == "ok")
    seconds = time.monotonic() - begin
    record("test" if "molecule" in steps else "test-fast", seconds, steps=steps, ok=not broken)
    print(f"\n{'=' * 20} all steps, {duration(seconds)} {'=' * 20}")
    print("\n".join([*complaints, *lines]))
    skipped = f", {total[2]} skipped" if total[2] else ""
    print(f"{total[0]} passed, {total[1]} failed{skipped}", flush=True)
    sys.exit(1 if broken or not total[0] else 0)


if __name__ == "__main__":
    main()
