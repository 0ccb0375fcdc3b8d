# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages as they are written, and a browser to open them in. What it saw stays in .cache/pages, for people to look at."""
from __future__ import annotations

import shutil

import chromium
import pytest
from common import CACHE
from sandbox_lib import host
from sandbox_lib.common import cache_dir, lock

FOLDER = CACHE / "pages"


@pytest.fixture(name="folder", scope="session")
def fixture_folder():
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    return FOLDER


@pytest.fixture(name="browser", scope="session")
def fixture_browser(folder):
    cache = cache_dir()
    host.check_machine()
    with lock(cache / "lock", "the sandbox's cache"):
        host.ensure_tools(host.MACHINE_TOOLS, cache / "log" / "apt.log")
        root = chromium.ensure(cache)
    return chromium.Browser(root, folder)
