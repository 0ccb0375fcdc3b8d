# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Opens the pages that the collection writes in headless Chromium, on screens of several widths and on paper.

What it saw stays in .cache/pages, for people to look at.
"""
from __future__ import annotations

import sys

from common import run_pytest

if __name__ == "__main__":
    sys.exit(run_pytest("pages", sys.argv[1:]))
