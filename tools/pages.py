# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Opens the pages that the collection writes in headless Chromium, on screens of several widths and on paper.

What it saw stays in .cache/pages, for people to look at.
"""
from __future__ import annotations

import os
import subprocess
import sys

from common import COLLECTIONS, REPO, RESULTS, environment


def main():
    RESULTS.mkdir(parents=True, exist_ok=True)
    env = environment(PYTHONPATH=os.pathsep.join(map(str, (COLLECTIONS, REPO / "tests" / "sandbox", REPO / "tools"))))
    command = ["pytest", "-v", f"--junit-xml={RESULTS / 'pages.xml'}", *(sys.argv[1:] or ["tests/pages"])]
    sys.exit(subprocess.run(command, cwd=REPO, env=env, check=False).returncode)


if __name__ == "__main__":
    main()
