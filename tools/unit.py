# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the unit tests, and ends with the coverage of plugins/ when they all ran."""
from __future__ import annotations

import os
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
    sys.exit(subprocess.run([*command, *chosen], cwd=REPO, env=environment(HYPOTHESIS_STORAGE_DIRECTORY=str(CACHE / "hypothesis")), check=False).returncode)


if __name__ == "__main__":
    main()
