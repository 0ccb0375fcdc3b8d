# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The container disk: an empty one for official images, or one that holds images built here."""
from __future__ import annotations

from sandbox_lib import disk
from sandbox_lib.common import SANDBOX, input_hash, need_space, remove_tree, step

CONTAINERS_GIB = 24


def ensure_empty(cache):
    name = "empty-" + input_hash([SANDBOX / "sandbox_lib" / "images.py"])
    folder = cache / "images" / name
    if disk.is_complete(folder):
        return folder
    need_space(cache, 1, "an empty container disk")
    work = cache / "tmp" / name
    remove_tree(work)
    work.mkdir(parents=True)
    try:
        with step("container disk: empty"):
            disk.write_ext4(None, work / "disk.raw", "container", CONTAINERS_GIB, cache / "log" / "images.log")
        (work / "complete").touch()
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_tree(folder)
        work.rename(folder)
    finally:
        remove_tree(work)
    return folder
