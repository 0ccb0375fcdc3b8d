# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pictures are well-formed, within their frame, and tell what they are about without colours too."""
from __future__ import annotations

import inspect
import re

import pytest
import yaml

from ansible_collections.erni_ki.inference.plugins.filter import benchmark_pictures as plugin
from ansible_collections.erni_ki.inference.plugins.plugin_utils import _benchmark_pictures as pictures
from ansible_collections.erni_ki.inference.plugins.plugin_utils import _pictures as basic
from ansible_collections.erni_ki.inference.tests.unit.plugins.benchmark_sample import result
from ansible_collections.erni_ki.inference.tests.unit.plugins.drawn import SVG, parse, words


def every(found):
    return [found["cpus"], found["losses"], found["memory"], *found["latency"].values()]


@pytest.mark.parametrize("more", [{}, {"cores": 64, "packages": 2}, {"left_out": (0, 3)}, {"repeats": 1}, {"services": ("ollama",)}])
def test_they_are_well_formed(more):
    for picture in every(pictures.pictures(result(**more))):
        parse(picture)


def test_the_map():
    root = parse(pictures.pictures(result())["cpus"])
    assert [word for word in words(root) if word.startswith(("0", "7", "15"))] == ["0 V", "7 OS", "15 OS"]
    titles = [element.text for element in root.iter(f"{SVG}title")]
    assert "CPU 7 (core 7): Ollama and system" in titles and len(root.findall(f"{SVG}rect")) == 8 + 16
    assert words(parse(pictures.pictures(result(cores=64, packages=2))["cpus"])).count("package 1") == 1


@pytest.mark.parametrize("parties, told", [
    ([], ("nobody", "–", "nobody")), (["system"], ("system", "S", "system")), (["system", "vllm"], ("shared", "VS", "vLLM and system")),
])
def test_owners(parties, told):
    assert basic.owner(parties) == told


def test_the_latency():
    found = pictures.pictures(result())["latency"]
    assert list(found) == ["vllm", "ollama"]
    root = parse(found["vllm"])
    lines = root.findall(f"{SVG}polyline")
    assert len({line.get("class") for line in lines}) == len(lines) == 4 and set(pictures.LINES) <= set(words(root))
    # Slower is higher.
    ends = {line.find(f"{SVG}title").text: float(line.get("points").rpartition(",")[2]) for line in lines}
    assert ends["beside both"] < ends["beside burners"] < ends["alone"]


def test_the_losses():
    root = parse(pictures.pictures(result())["losses"])
    assert {"vLLM: beside burners", "vLLM: both at work, beside burners", "Ollama: beside the other engine"} <= set(words(root))
    assert len([line for line in root.iter(f"{SVG}line") if line.get("class") == "limit"]) == 6
    assert [element.text for element in root.iter(f"{SVG}text") if element.get("class") == "bad"] == ["34.3 %", "28.6 %"]
    fenced = parse(pictures.pictures(result(isolation="fenced"))["losses"])
    assert len([line for line in fenced.iter(f"{SVG}line") if line.get("class") == "limit"]) == 2


def test_the_memory():
    root = parse(pictures.pictures(result())["memory"])
    assert words(root) == ["vLLM: 5100 MiB, peak 5900, limit 6144 MiB", "Ollama: 900 MiB, peak 1200, no limit"]


def test_nothing_to_show():
    empty = dict(result(left_out=range(18)), memory={})
    found = pictures.pictures(empty)
    assert found["latency"] == {"vllm": "", "ollama": ""} and found["losses"] == found["memory"] == ""
    assert pictures.losses([]) == ""


@pytest.mark.parametrize("highest, steps", [(0, 6), (1, 6), (9.7, 6), (40, 6), (123456, 6)])
def test_the_axis(highest, steps):
    found = basic.scale(highest)
    assert found[0] == 0 and found[-1] >= highest * (1 - 1e-6) and 3 <= len(found) <= steps


def test_numbers():
    assert [basic.number(value) for value in (0, 0.25, 2.5, 250)] == ["0", "0.25", "2.5", "250"]


def test_the_filter_returns_what_its_documentation_says():
    taken = plugin.FilterModule().filters()["benchmark_pictures"]
    assert list(inspect.signature(taken).parameters) == ["result"] and list(yaml.safe_load(plugin.DOCUMENTATION)["options"]) == ["_input"]
    assert set(taken(result())) == set(yaml.safe_load(plugin.RETURN)["_value"]["contains"])


def test_everything_that_is_drawn_has_a_style():
    found = pictures.pictures(result())
    used = set()
    for picture in every(found):
        used |= {word for kinds in re.findall(r'class="([^"]+)"', picture) for word in kinds.split()}
    assert [word for word in sorted(used - {"bar"}) if f".{word}" not in found["style"]] == []
