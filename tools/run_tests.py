# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the named make targets, whatever becomes of each, and ends with the sum.

One after the other, but for BESIDE, which run one after the other beside those.

Every step leaves JUnit files in .cache/results (STEP.xml or STEP-*.xml); the sum is taken from those, and its last line reads
N passed, N failed.
"""
from __future__ import annotations

import concurrent.futures
import subprocess
import sys
import threading
import time
from xml.etree import ElementTree

from common import LOGS, REPO, RESULTS, duration, record, say

# An emulated machine uses one core most of the time; the others take the second one meanwhile.
BESIDE = ("molecule",)


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


def run(step, width):
    """Run a step, its output in .cache/logs and, behind its name where C(width) is not 0, on the screen; return its exit code."""
    before = f"{step:<{width}} | " if width else ""
    with open(LOGS / f"{step}.log", "w", encoding="utf-8") as log:
        with subprocess.Popen(
            ["make", "--no-print-directory", step], cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        ) as process:
            for line in process.stdout:
                # In one piece, so that lines of two steps do not mix.
                sys.stdout.write(f"{before}{line}")
                sys.stdout.flush()
                log.write(line)
    return process.returncode


def outcome(step, width):
    """Run a step; return what failed in it, its line of the sum, how many tests (passed, failed, were skipped), and whether all is well."""
    start = time.monotonic()
    say(f"{step} begins")
    code = run(step, width)
    seconds = time.monotonic() - start
    passed, wrong, skipped = count(step)
    if code and not wrong:
        wrong = [f"broke down outside its tests, exit code {code}"]
    if not code and not passed:
        wrong.append("no test ran")
    verdict = "FAILED" if code or wrong else "ok"
    record(f"test-{step}", seconds, passed=passed, failed=len(wrong), skipped=skipped, ok=verdict == "ok")
    line = f"  {step:<12} {verdict:<7} {passed:>5} passed {len(wrong):>4} failed {skipped:>4} skipped  {duration(seconds):>7}"
    say(line.strip())
    return [f"  {step}: {text}" for text in wrong], line, (passed, len(wrong), skipped), verdict == "ok"


def main():
    steps = sys.argv[1:]
    LOGS.mkdir(parents=True, exist_ok=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    for path in RESULTS.glob("*.xml"):
        path.unlink()
    begin = time.monotonic()
    lanes = [lane for lane in ([step for step in steps if step not in BESIDE], [step for step in steps if step in BESIDE]) if lane]
    width = max(map(len, steps), default=0) if len(lanes) > 1 else 0
    interrupted = threading.Event()

    def follow(lane):
        # Whoever interrupts ends the steps that run, not one after the other.
        return {step: outcome(step, width) for step in lane if not interrupted.is_set()}

    ended = {}
    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        try:
            for found in pool.map(follow, lanes):
                ended.update(found)
        except KeyboardInterrupt:
            interrupted.set()
            raise
    complaints, lines, counts, well = zip(*(ended[step] for step in steps)) if steps else ((), (), (), ())
    total = [sum(numbers) for numbers in zip(*counts)] or [0, 0, 0]
    seconds = time.monotonic() - begin
    record("test" if "molecule" in steps else "test-fast", seconds, steps=steps, ok=all(well))
    print(f"\n{'=' * 20} all steps, {duration(seconds)} {'=' * 20}")
    print("\n".join([*(line for of_step in complaints for line in of_step), *lines]))
    skipped = f", {total[2]} skipped" if total[2] else ""
    print(f"{total[0]} passed, {total[1]} failed{skipped}", flush=True)
    sys.exit(0 if all(well) and total[0] else 1)


if __name__ == "__main__":
    main()
