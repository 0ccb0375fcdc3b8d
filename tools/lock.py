# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the lock files: every package that the requirements pull in, at one version. For maintainers; needs the package index."""
from __future__ import annotations

import pathlib
import subprocess
import tempfile

from bootstrap import LOCKS, PYTHON, REPO, make_venv
from common import COMPAT, find_pythons

HEADER = "# Made by `make lock` from {source}: every package, direct or not, at one version. Do not edit.\n"


def freeze(python, *requirements):
    """Return what pip installs for the requirements, one pin a line."""
    with tempfile.TemporaryDirectory(prefix="lock-") as folder:
        venv = pathlib.Path(folder) / "venv"
        make_venv(venv, python)
        pip = [str(venv / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "-qq", *requirements], check=True)
        lines = subprocess.run([*pip, "freeze"], check=True, capture_output=True, text=True).stdout.splitlines()
    return sorted((line for line in lines if "==" in line), key=str.lower)


def write(path, source, lines):
    path.write_text(HEADER.format(source=source) + "\n".join(lines) + "\n", encoding="utf-8")
    print(f"{path.relative_to(REPO)}: {len(lines)} packages")


def main():
    site = freeze(PYTHON, "-r", str(REPO / "requirements.txt"))
    write(LOCKS["site"], "requirements.txt", site)
    test = freeze(PYTHON, "-r", str(REPO / "requirements-test.txt"), "-c", str(LOCKS["site"]))
    write(LOCKS["test"], "requirements-test.txt", test)
    pythons = find_pythons()
    for release in COMPAT:
        python = next((pythons[version] for version in release.pythons if version in pythons), None)
        if python is None:
            print(f"{release.lock.relative_to(REPO)}: kept as it is; it needs one of Python {', '.join(release.pythons)}")
            continue
        write(release.lock, f"tools/common.py for ansible-core {release.name}", freeze(python, *release.requirements))


if __name__ == "__main__":
    main()
