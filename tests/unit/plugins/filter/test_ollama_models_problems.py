# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import re

import yaml

from ansible_collections.erni_ki.inference.plugins.filter import ollama_models_problems as plugin
from ansible_collections.erni_ki.inference.plugins.module_utils import _ollama_recipe
from ansible_collections.erni_ki.inference.plugins.modules import ollama_model


def test_the_filter_takes_what_its_documentation_says():
    found = plugin.FilterModule().filters()["ollama_models_problems"]
    options = yaml.safe_load(plugin.DOCUMENTATION)["options"]
    assert set(options) == {"_input", "threads", "context"}
    said = found([{"name": "x", "paramters": {}}], threads=options["threads"]["default"], context=options["context"]["default"])
    assert said == yaml.safe_load(plugin.RETURN)["_value"]["sample"]


def test_what_can_be_declared_are_options_of_the_module():
    options = yaml.safe_load(ollama_model.DOCUMENTATION)["options"]
    assert set(_ollama_recipe.OPTIONS) <= set(options)
    assert list(_ollama_recipe.STATES) == options["state"]["choices"]
    documented = " ".join(yaml.safe_load(plugin.DOCUMENTATION)["options"]["_input"]["description"])
    assert set(re.findall(r"C\((\w+)\)", documented)) == set(_ollama_recipe.OPTIONS)
