# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the gateway's tests: real nginx of each release that the role knows, unpacked into the cache, in front of stand-ins for engines."""
from __future__ import annotations

import os
import subprocess
import sys

from common import COLLECTIONS, REPO, RESULTS, environment


def main():
    RESULTS.mkdir(parents=True, exist_ok=True)
    env = environment(PYTHONPATH=os.pathsep.join(map(str, (COLLECTIONS, REPO / "tests" / "sandbox", REPO / "tools"))))
    command = ["pytest", "--numprocesses", "2", f"--junit-xml={RESULTS / 'gateway.xml'}", *(sys.argv[1:] or ["tests/gateway"])]
    sys.exit(subprocess.run(command, cwd=REPO, env=env, check=False).returncode)


if __name__ == "__main__":
    main()
