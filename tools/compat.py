# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tries the collection under the other releases of ansible-core that it promises to run with.

compat.py [RELEASE …]   such as 2.17; without one, all that this machine has a Python for
"""
from __future__ import annotations

import shutil
import subprocess
import sys

from bootstrap import install, make_venv
from common import CACHE, COMPAT, REPO, VENV, Checks, environment, find_pythons, say

ROOT = CACHE / "compat"


def prepare(release, python):
    """Return the virtual environment of a release, made anew when its lock file changed."""
    venv = ROOT / release.name / "venv"
    stamp = venv / "erni-ki-stamp.txt"
    wanted = f"{python.resolve()}\n{release.lock.read_text(encoding='utf-8')}"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        say(f"compat: installing ansible-core {release.name} on {python}")
        make_venv(venv, python)
        install(venv, release.lock)
        stamp.write_text(wanted, encoding="utf-8")
    return venv


def collections(release):
    """Return a collections folder with the checkout, and with the dependencies of the pinned ansible package."""
    folder = ROOT / release.name / "collections"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "ansible_collections" / "erni_ki").mkdir(parents=True)
    (folder / "ansible_collections" / "erni_ki" / "inference").symlink_to(REPO)
    bundled = next(VENV.glob("lib/python3.*/site-packages/ansible_collections"))
    (folder / "ansible_collections" / "community").symlink_to(bundled / "community")
    return folder


def try_release(checks, release, python):
    venv = prepare(release, python)
    env = environment(ANSIBLE_COLLECTIONS_PATH=str(collections(release)), ANSIBLE_HOME=str(ROOT / release.name / "home"), VIRTUAL_ENV=str(venv))
    env["PATH"] = f"{venv / 'bin'}:{env['PATH']}"
    env["HYPOTHESIS_STORAGE_DIRECTORY"] = str(CACHE / "hypothesis")
    version = subprocess.run([venv / "bin" / "ansible", "--version"], env=env, capture_output=True, text=True, check=False).stdout.splitlines()
    name = f"ansible-core {release.name}"
    say(f"compat: {version[0] if version else name} on Python {python.name.removeprefix('python')}")
    checks.pytest(f"{name}: unit tests", [venv / "bin" / "pytest", "--numprocesses", "2", "tests/unit/plugins"], env=env)
    for playbook in sorted(REPO.glob("playbooks/*.yml")):
        command = ["ansible-playbook", "--inventory", "inference,", "--syntax-check", f"erni_ki.inference.{playbook.stem}"]
        checks.run(f"{name}: playbook {playbook.stem}", command, env=env)
    modules = [f"erni_ki.inference.{path.stem}" for path in sorted(REPO.glob("plugins/modules/[!_]*.py"))]
    checks.run(f"{name}: documentation", ["ansible-doc", "--type", "module", "--json", *modules], env=env, show=False)


def main():
    checks = Checks("compat")
    chosen = [release for release in COMPAT if not sys.argv[1:] or release.name in sys.argv[1:]]
    pythons = find_pythons()
    for release in chosen:
        python = next((pythons[version] for version in release.pythons if version in pythons), None)
        if python is None:
            say(f"compat: ansible-core {release.name} NOT TRIED: it needs Python {' or '.join(release.pythons)}, and this machine has none of them")
            checks.skip(f"ansible-core {release.name}")
        else:
            try_release(checks, release, python)
    checks.finish()


if __name__ == "__main__":
    main()
