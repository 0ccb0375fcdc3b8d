# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the unit tests, and ends with the coverage of plugins/ when they all ran."""
from __future__ import annotations

import os
import shutil
import subprocess
import sys

from common import CACHE, REPO, RESULTS, environment


def main():
    RESULTS.mkdir(parents=True, exist_ok=True)
    chosen = sys.argv[1:]
    command = ["pytest", "--numprocesses", str(min(4, len(os.sched_getaffinity(0)))), f"--junit-xml={RESULTS / 'unit.xml'}"]
    if not chosen:
        # The floor is in pyproject.toml; it means something for the whole only.
        command += ["--cov", "--cov-report=term:skip-covered"]
    # A folder of its own, so that somebody's pytest --cov at the same time is not mixed in.
    coverage = CACHE / "coverage" / "unit"
    shutil.rmtree(coverage, ignore_errors=True)
    coverage.mkdir(parents=True)
    env = environment(COVERAGE_FILE=str(coverage / "data"), HYPOTHESIS_STORAGE_DIRECTORY=str(CACHE / "hypothesis"))
    sys.exit(subprocess.run([*command, *chosen], cwd=REPO, env=env, check=False).returncode)


if __name__ == "__main__":
    main()
