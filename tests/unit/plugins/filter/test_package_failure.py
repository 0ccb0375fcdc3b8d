# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import inspect

import yaml

from ansible_collections.erni_ki.inference.plugins.filter import package_failure as plugin


def test_the_filter_takes_what_its_documentation_says():
    found = plugin.FilterModule().filters()["package_failure"]
    options = yaml.safe_load(plugin.DOCUMENTATION)["options"]
    taken = inspect.signature(found).parameters
    assert list(options)[1:] == list(taken)[1:]
    assert {name: option["default"] for name, option in options.items() if name != "_input"} == {
        name: parameter.default for name, parameter in taken.items() if name != "said"}
    listing = "nvidia-container-toolkit | 1.19.1-1 | x\nnvidia-container-toolkit | 1.17.9-1 | x\n"
    said = found("No package matching", package="nvidia-container-toolkit", version="9.9.9-1", repository="file:/srv/mirror", listing=listing)
    assert said.startswith(yaml.safe_load(plugin.RETURN)["_value"]["sample"])
