# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs Molecule's scenarios, keeps their output in .cache/logs, and notes how long every action took.

run_molecule.py [SCENARIO …]   without one, all of molecule/
"""
from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from xml.etree import ElementTree

from common import CACHE, LOGS, REPO, RESULTS, Checks, duration, environment, record, say

# Molecule says "INFO     default ➜ converge: Executing" before an action, and more after the word for parts of one.
ACTION = re.compile(r"(?:^|\s)[\w-]+ ➜ (?P<action>[a-z_]+): Executing\s*$")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
FAILED_TASK = re.compile(r"\[ERROR\]: (Task failed: .*?)\s*$")


class Clock:
    """Tells Molecule's actions apart in its output, measures them, and keeps what the last task that failed said."""

    def __init__(self, now):
        self.actions = []
        self.since = now
        self.complaint = ""

    def read(self, line, now):
        line = COLOUR.sub("", line)
        wrong = FAILED_TASK.search(line)
        if wrong:
            self.complaint = f", {self.actions[-1][0] if self.actions else 'start'}: {wrong[1]}"
        found = ACTION.search(line)
        if found:
            self.close(now)
            # These two follow a failure too.
            if found["action"] not in ("cleanup", "destroy"):
                self.complaint = ""
            self.actions.append([found["action"], None])
            self.since = now
            return found["action"]
        return None

    def close(self, now):
        if self.actions and self.actions[-1][1] is None:
            self.actions[-1][1] = now - self.since


def put_aside(report, number):
    """The number of tests in a report, which no later part of the scenario overwrites."""
    if not report.exists():
        return 0
    return len(list(ElementTree.parse(report.rename(report.with_name(f"{report.stem}-{number}.xml"))).iter("testcase")))


def run(scenario, checks):
    LOGS.mkdir(parents=True, exist_ok=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    report = RESULTS / f"molecule-{scenario}.xml"
    tests = 0
    # Not those of a scenario whose name only begins alike.
    for old in [report, *RESULTS.glob(f"{report.stem}-[0-9]*.xml")]:
        old.unlink(missing_ok=True)
    env = environment(
        # Molecule frames its output; narrower than this it breaks Ansible's lines.
        COLUMNS="160",
        MOLECULE_EPHEMERAL_DIRECTORY=str(CACHE / "molecule" / scenario),
        # pytest, which the verifier runs, finds its report's place here.
        PYTEST_ADDOPTS=f"{os.environ.get('PYTEST_ADDOPTS', '')} -p no:cacheprovider --junit-xml={report}".strip(),
    )
    start = time.monotonic()
    clock = Clock(start)
    command = ["molecule", "--base-config", "tools/molecule.yml", "test", "--scenario-name", scenario]
    with open(LOGS / f"molecule-{scenario}.log", "w", encoding="utf-8") as log:
        with subprocess.Popen(command, cwd=REPO, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace") as process:
            for line in process.stdout:
                now = time.monotonic()
                action = clock.read(line, now)
                if action:
                    tests += put_aside(report, len(clock.actions))
                    say(f"molecule {scenario}: {action} ({duration(now - start)} since the start)")
                print(line, end="", flush=True)
                log.write(line)
    clock.close(time.monotonic())
    seconds = time.monotonic() - start
    tests += put_aside(report, len(clock.actions) + 1)
    failure = f"exit code {process.returncode}{clock.complaint}" if process.returncode else None if tests else "Molecule ran no test of the verifier"
    checks.add(f"scenario {scenario}", seconds, failure)
    actions = [{"action": action, "seconds": round(took, 1)} for action, took in clock.actions]
    record(f"molecule-{scenario}", seconds, ok=failure is None, tests=tests, actions=actions)
    for entry in actions:
        print(f"  {entry['action']:<14} {duration(entry['seconds']):>7}")


def main():
    checks = Checks("molecule")
    for scenario in sys.argv[1:] or sorted(path.parent.name for path in REPO.glob("molecule/*/molecule.yml")):
        run(scenario, checks)
    checks.finish()


if __name__ == "__main__":
    main()
