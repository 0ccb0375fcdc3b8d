# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tries the alert rules, the dashboards and the delivery of alerts with the real Prometheus and Alertmanager of Debian."""
from __future__ import annotations

import sys

from common import run_pytest

if __name__ == "__main__":
    sys.exit(run_pytest("monitoring", sys.argv[1:]))
