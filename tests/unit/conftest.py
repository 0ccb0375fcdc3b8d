# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets the unit tests import the collection under its full name from a plain clone, and take their time."""
from __future__ import annotations

import pathlib
import sys

try:
    import hypothesis
except ImportError:
    hypothesis = None

REPO = pathlib.Path(__file__).resolve().parents[2]
ROOT = REPO / ".cache" / "collections"


def _link():
    place = ROOT / "ansible_collections" / "erni_ki" / "inference"
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.is_symlink():
        place.symlink_to(REPO)
    sys.path.insert(0, str(ROOT))


# Under `ansible-test units` the checkout already lies in a collection root, and its loader does the work.
if REPO.parts[-3:] != ("ansible_collections", "erni_ki", "inference"):
    _link()

# How long an example takes says more about the machine's load than about the code. `ansible-test units` may lack hypothesis.
if hypothesis:
    hypothesis.settings.register_profile("search", deadline=None)
    # The same examples on every machine: what a commit is judged by. `make unit ARGS=--hypothesis-profile=search` looks for new ones.
    hypothesis.settings.register_profile("steady", deadline=None, derandomize=True)
    hypothesis.settings.load_profile("steady")
