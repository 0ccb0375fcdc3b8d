# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs ansible-test sanity over the collection: every test, no ignore file, no container.

ansible-test wants the collection at ansible_collections/erni_ki/inference, so it gets a copy there.
Its import and compile tests run for each Python that this machine has.
"""
from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
from xml.etree import ElementTree

from common import CACHE, EXPORT, REPO, VENV, Checks, duration, environment, export, find_pythons, say

ROOT = CACHE / "sanity"
HOME = ROOT / "home"
PYTHONS = ROOT / "pythons"
PROMISED = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14")

# ansible-test downloads get-pip.py into its cache; Python brings pip along, so nothing need be fetched.
GET_PIP = """\
# Stands in for get-pip.py: installs the pip that comes with Python.
import ensurepip

ensurepip.bootstrap()
"""


def prepare_pip():
    """Put the stand-in where ansible-test looks for the version that it wants."""
    source = next((VENV / "lib").glob("python3.*/site-packages/ansible_test/_internal/python_requirements.py"))
    cache = HOME / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    for version in set(re.findall(r"pip='([0-9.]+)'", source.read_text(encoding="utf-8"))):
        (cache / f"get_pip_{version.replace('.', '_')}.py").write_text(GET_PIP, encoding="utf-8")


def prepare_pythons():
    """Gather the interpreters in one folder, so that ansible-test finds those and no broken wrapper."""
    shutil.rmtree(PYTHONS, ignore_errors=True)
    PYTHONS.mkdir(parents=True)
    found = {version: path for version, path in find_pythons().items() if version in PROMISED}
    for version, path in found.items():
        (PYTHONS / f"python{version}").symlink_to(path)
    return found


def path_without_wrappers():
    """Leave out the folders whose python3.x only print that there is none."""
    folders = [folder for folder in os.environ.get("PATH", os.defpath).split(os.pathsep) if pathlib.Path(folder).name != "shims"]
    return os.pathsep.join([str(VENV / "bin"), str(PYTHONS), *folders])


def judge(checks):
    """Take over the verdict of every test from the files that ansible-test left."""
    for path in sorted((EXPORT / "tests" / "output" / "junit").glob("*.xml")):
        name = path.stem.removeprefix("ansible-test-sanity-")
        case = next(ElementTree.parse(path).iter("testcase"))
        failure = next((case.find(kind) for kind in ("failure", "error") if case.find(kind) is not None), None)
        if case.find("skipped") is not None:
            checks.skip(name)
        else:
            checks.add(name, 0, None if failure is None else failure.text or "failed")


def main():
    start = time.monotonic()
    export()
    if not (EXPORT / ".git").is_dir():
        subprocess.run(["git", "init", "--quiet", str(EXPORT)], check=True)
    shutil.rmtree(EXPORT / "tests" / "output", ignore_errors=True)
    prepare_pip()
    pythons = prepare_pythons()
    say(f"sanity: import and compile run on Python {', '.join(pythons)}; not on this machine:"
        f" {', '.join(version for version in PROMISED if version not in pythons) or 'none'}")
    # pip's own settings stay those of the person who runs this.
    settings = os.environ.get("XDG_CONFIG_HOME") or str(pathlib.Path.home() / ".config")
    env = environment(HOME=str(HOME), XDG_CONFIG_HOME=settings, PATH=path_without_wrappers())
    for variable in ("ANSIBLE_CONFIG", "ANSIBLE_COLLECTIONS_PATH"):
        env.pop(variable, None)
    command = ["ansible-test", "sanity", "--color", "no", "--junit", *sys.argv[1:]]
    code = subprocess.run(command, cwd=EXPORT, env=env, check=False).returncode
    checks = Checks("sanity")
    judge(checks)
    if code and not checks.failed:
        checks.add("ansible-test", 0, f"exit code {code}; its own message stands above")
    ignored = sorted(path.name for path in (REPO / "tests" / "sanity").glob("ignore-*.txt"))
    checks.add("no ignore file", 0, "; ".join(f"mend what tests/sanity/{name} hides, and remove it" for name in ignored))
    say(f"sanity: {duration(time.monotonic() - start)}")
    checks.finish()


if __name__ == "__main__":
    main()
