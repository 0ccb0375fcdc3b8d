# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a playbook of the checkout on the embedded sandbox, which is made first, or on the hosts of an inventory.

run_playbook.py PLAYBOOK INVENTORY [ARGUMENT …]   an empty INVENTORY is the sandbox; the arguments go to ansible-playbook
"""
from __future__ import annotations

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

from common import CACHE, REPO, checkout, duration, record

SANDBOX = [sys.executable, str(REPO / "tests" / "sandbox" / "sandbox.py")]


def look():
    """Return whether the sandbox's machine is there already, and whether what it is made from is."""
    status = subprocess.run([*SANDBOX, "status", "--name", name(), "--json"], capture_output=True, text=True, check=False)
    folder = pathlib.Path(os.environ.get("ERNI_KI_CACHE") or CACHE).expanduser() / "sandbox"
    try:
        there = any(machine.get("created") for machine in json.loads(status.stdout))
    except ValueError:
        there = False
    return there, any(folder.glob("base/*")) and any(folder.glob("images/*"))


def name():
    return os.environ.get("SANDBOX_NAME") or "sandbox"


def play(command, env):
    """Run ansible-playbook, show its output as it comes, and return its exit code and the figures of its verdict.

    Ansible ends well where there was no host to play on. The verdict does not, and the exit code agrees with it.
    """
    figures, begun, verdict = {}, False, None
    start = time.monotonic()

    def interrupted(unused_signal, unused_frame):
        # Ansible gets the same Ctrl-C, and needs its time to end in order; we stay to say how it ended.
        nonlocal begun
        if not begun:
            begun = True
            print("\ninterrupted: waiting for Ansible to end", file=sys.stderr, flush=True)

    signal.signal(signal.SIGINT, interrupted)
    with subprocess.Popen(command, cwd=REPO, env=env, stdout=subprocess.PIPE, text=True, errors="replace") as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            found = re.match(r"(?:\x1b\[[0-9;]*m)*verdict=(\w+)", line)
            verdict = found[1] if found else verdict
            if " verdict=" in line:
                for word, value in re.findall(r"\b(changed|tasks|checks|checks_failed)=(\d+)", line):
                    figures[word] = figures.get(word, 0) + int(value)
    code = 130 if begun else process.returncode
    if verdict is None:
        how = ("interrupted", "what is done stays, and a step that a host had begun may still end there; the next run takes up from there") if begun else (
            "failed", "Ansible did not get as far as a host")
        print(f"verdict={how[0]} after {duration(time.monotonic() - start)}: {how[1]}", flush=True)
    return code or int(verdict != "ok"), figures


def main():
    playbook, inventory, *arguments = sys.argv[1:]
    start = time.monotonic()
    up = 0.0
    existed = warm = False
    if not inventory:
        existed, warm = look()
        if playbook in ("verify", "diagnose", "benchmark", "usage", "report") and not existed:
            sys.exit(f"There is no sandbox to {playbook}: `make site` makes it. For hosts of your own: make {playbook} INVENTORY=…")
        print(f"The sandbox first: a virtual machine of its own, {'made earlier' if existed else 'made now'}.", flush=True)
        code = subprocess.run([*SANDBOX, "up"], cwd=REPO, check=False).returncode
        if code:
            sys.exit(code)
        up = time.monotonic() - start
        inventory = str(REPO / "inventory" / "sandbox")
        sandbox = True
    else:
        sandbox = False
        if not pathlib.Path(inventory).exists() and "," not in inventory:
            sys.exit(f"INVENTORY={inventory}: there is no such file or folder. A host of your own in five lines: README.md; examples: inventory/example")
    env = {**os.environ, **checkout(os.environ)}
    if sys.stdout.isatty():
        env.setdefault("ANSIBLE_FORCE_COLOR", "1")
    command = ["ansible-playbook", "--inventory", inventory, f"playbooks/{playbook}.yml", *arguments]
    print(f"$ {' '.join(command)}", flush=True)
    code, figures = play(command, env)
    if sandbox and playbook == "site" and not arguments and not code:
        seconds = time.monotonic() - start
        run = "second" if existed else "first, warm cache" if warm else "first, empty cache"
        record(f"site-{run.replace(', ', '-').replace(' ', '-')}", seconds, run=run, sandbox_seconds=round(up, 1), **figures)
    sys.exit(code)


if __name__ == "__main__":
    main()
