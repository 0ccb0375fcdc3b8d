# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks the style of everything: YAML, Ansible, Python."""
from __future__ import annotations

import re

from common import CACHE, REPO, Checks, environment, repository_files


def shell_scripts():
    """Return the shell scripts, which tell themselves by their first line and not by their name."""
    for name in repository_files():
        with open(REPO / name, "rb") as file:
            if re.match(rb"#!\s*/(?:usr/)?bin/(?:env )?(?:ba|da)?sh\b", file.read(40)):
                yield name


def main():
    checks = Checks("lint")
    checks.run("yamllint", ["yamllint", "--strict", "--format", "parsable", *repository_files("*.yml", "*.yaml", ".yamllint", ".ansible-lint")])
    # Its own home, so that collections installed for this user are not taken for this checkout.
    checks.run("ansible-lint", ["ansible-lint", "--nocolor"], env=environment(ANSIBLE_HOME=str(CACHE / "ansible-lint")))
    # ansible-test judges the layout of Python; names that are not used or not defined are left to pyflakes.
    checks.run("pyflakes", ["flake8", "--isolated", "--select", "F", *repository_files("*.py")])
    checks.run("shellcheck", ["shellcheck", *shell_scripts()])
    checks.finish()


if __name__ == "__main__":
    main()
