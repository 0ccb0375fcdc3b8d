# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A program of ours on a managed host: the files that it is made of, which come with the module that puts them there."""
from __future__ import annotations

import ast
import importlib.util

PACKAGE = "ansible_collections.erni_ki.inference.plugins.module_utils"
LAUNCHER = "erni_ki_exporter.py"
MADE = "# Made by erni_ki.inference; changes are overwritten.\n"

_START = '''"""Starts the exporter."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

# The child that reads the card is started again and again, and needs little of it all.
if sys.argv[1:] == ["--gpu"]:
    from {entry}_gpu import main
else:
    from {entry} import main

sys.exit(main(sys.argv[1:]))
'''


class ProgramError(Exception):
    """The files cannot be had; the text says why."""


def source(name):
    """Return the text of a module, from a folder or from the archive that Ansible sends."""
    spec = importlib.util.find_spec(name)
    text = spec.loader.get_source(name) if spec and hasattr(spec.loader, "get_source") else None
    if text is None:
        raise ProgramError(f"the text of {name} is not to be had")
    return text


def imported(text):
    """Return the modules of this collection that a module's text imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module == PACKAGE:
            found.update(f"{PACKAGE}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PACKAGE}."):
            found.add(node.module)
    return found


def files(entry):
    """Return {path below the program's folder: text} of the exporter's module and of all that it needs."""
    wanted = {LAUNCHER: MADE + _START.format(entry=entry)}
    left = {entry}
    while left:
        name = left.pop()
        text = source(name)
        wanted[name.replace(".", "/") + ".py"] = MADE + text
        left |= {other for other in imported(text) if other.replace(".", "/") + ".py" not in wanted}
    return wanted


def bindings():
    """Return the text of nvidia-ml-py, None where this Python has none."""
    try:
        return source("pynvml")
    except (ProgramError, ImportError, ValueError):
        return None
