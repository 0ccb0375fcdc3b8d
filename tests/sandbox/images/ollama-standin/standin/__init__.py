# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for the Ollama server, for tests. It speaks the recorded API and computes nothing."""
from __future__ import annotations

# The version whose recorded answers it gives.
VERSION = "0.32.15"
BANNER = "ollama-standin: this is NOT Ollama. It is a stand-in for tests that answers as Ollama %s was recorded to; no model runs here." % VERSION
SERVER_HEADER = "ollama-standin/%s" % VERSION
