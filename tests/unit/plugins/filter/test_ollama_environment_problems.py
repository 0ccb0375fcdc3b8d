# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import yaml

from ansible_collections.erni_ki.inference.plugins.filter import ollama_environment_problems as plugin


def test_the_filter_takes_what_its_documentation_says():
    found = plugin.FilterModule().filters()["ollama_environment_problems"]
    options = yaml.safe_load(plugin.DOCUMENTATION)["options"]
    assert set(options) == {"_input", "image", "planned", "decided"}
    said = found({"OLLAMA_NUM_CTX": "8192"}, image="ollama/ollama:0.32.15", planned=options["planned"]["default"], decided=options["decided"]["default"])
    assert said == yaml.safe_load(plugin.RETURN)["_value"]["sample"]
