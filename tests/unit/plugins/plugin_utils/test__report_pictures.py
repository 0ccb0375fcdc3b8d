# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report's pictures are well-formed, within their frame, and can be read: each has words, and the words stand out from their ground."""
from __future__ import annotations

import re

import pytest

from ansible_collections.erni_ki.inference.plugins.plugin_utils import _report, _report_pictures
from ansible_collections.erni_ki.inference.plugins.plugin_utils._page_style import STYLE
from ansible_collections.erni_ki.inference.tests.unit.plugins import report_sample as sample
from ansible_collections.erni_ki.inference.tests.unit.plugins.drawn import SVG, parse, words


def drawn(**how):
    found = _report_pictures.pictures(_report.report(sample.raw(**how)))
    return {**{name: found[name] for name in ("cpus", "host_memory", "vllm_memory", "vram")}, **{one["title"]: one["svg"] for one in found["live"]}}


@pytest.mark.parametrize("how", [{}, {"card": False}, {"cores": 64}, {"prometheus": sample.REFUSED}, {"services": ["ollama"], "vllm_cores": ""},
                                 {"prometheus": sample.answer(gap=(0.01, 0.99))}, {"vllm_weights_mib": 900}])
def test_they_are_well_formed(how):
    for picture in drawn(**how).values():
        if picture:
            parse(picture)


def test_there_are_those_that_there_is_something_for():
    assert set(drawn()) == {"cpus", "host_memory", "vllm_memory", "vram", "Health", "Memory now", "CPU time", "CPU time outside of the plan's CPUs",
                            "Memory that cannot be given back", "GPU memory", "vLLM's tokens"}
    assert drawn(card=False)["vram"] == "" and set(drawn(prometheus=sample.REFUSED)) == {"cpus", "host_memory", "vllm_memory", "vram"}


def test_a_bar_is_as_long_as_its_number():
    root = parse(drawn()["vram"])
    bars = {element.find(f"{SVG}title").text: float(element.get("width")) for element in root.iter(f"{SVG}rect") if element.find(f"{SVG}title") is not None}
    assert list(bars) == ["overhead: 1853 MiB", "model: 2000 MiB", "KV cache: 448 MiB", "left: 819 MiB"]
    assert bars["model: 2000 MiB"] / sum(bars.values()) == pytest.approx(2000 / 5120, abs=0.001)
    # A letter for those that are wide enough, and a line for each.
    assert words(root)[:8] == ["R", "R  overhead", "1853 MiB", "W", "W  model", "2000 MiB", "K", "K  KV cache"]


def test_more_than_there_is_stays_within_the_frame():
    root = parse(_report_pictures.stacked("t", 100, [("A", "a", 90, "vllm"), ("B", "b", 60, "system"), ("C", "c", None, "ollama"), ("D", "d", -5, "ollama")]))
    assert [word for word in words(root) if "MiB" in word] == ["90 MiB", "60 MiB"]


def test_lines_over_time():
    root = parse(drawn()["Memory that cannot be given back"])
    lines = root.findall(f"{SVG}polyline")
    # Nothing is known of a part of the time, so each line is broken once.
    assert [line.find(f"{SVG}title").text for line in lines] == ["vLLM", "vLLM", "Ollama", "Ollama"]
    first, second = ([tuple(map(float, point.split(","))) for point in line.get("points").split()] for line in lines[:2])
    assert first[0][0] < first[-1][0] < second[0][0] < second[-1][0] and second[-1][1] < first[0][1]
    assert len(first) + len(second) < 181
    assert {"vLLM: 5000 at last, 5000 at most", "vLLM's limit: 6144", "Ollama's limit: 4096", "−24 h", "now"} <= set(words(root))
    limits = [line.get("class") for line in root.iter(f"{SVG}line") if "limit" in line.get("class")]
    assert sorted(set(limits)) == ["limit", "limit other"] and len(limits) == 4


def test_health_is_told_by_form_and_words():
    root = parse(drawn()["Health"])
    assert words(root)[0].startswith("vLLM brought tokens in 9") and "Ollama brought tokens in 100.0 % of the time" in words(root)
    strips = [(element.get("class"), float(element.get("height"))) for element in root.iter(f"{SVG}rect") if element.get("class").startswith("strip")]
    assert set(strips) == {("strip well", 10), ("strip ill", 20)} and [kind for kind, _height in strips].count("strip ill") == 1
    only_running = sample.answer(values={"running": {"vllm": lambda at: 1}, "instances": sample.VALUES["instances"]})
    assert words(parse(drawn(prometheus=only_running)["Health"]))[0] == "vLLM ran in 100.0 % of the time"


def test_everything_that_is_drawn_has_a_style():
    used = {word for picture in drawn().values() for kinds in re.findall(r'class="([^"]+)"', picture) for word in kinds.split()}
    assert [word for word in sorted(used - {"bar"}) if f".{word}" not in STYLE] == []


def luminance(colour):
    digits = colour if len(colour) == 6 else "".join(digit * 2 for digit in colour)
    parts = [int(digits[place:place + 2], 16) / 255 for place in (0, 2, 4)]
    return sum(weight * (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4) for weight, part in zip((0.2126, 0.7152, 0.0722), parts))


@pytest.mark.parametrize("place", [0, 1, 2])
def test_words_stand_out(place):
    """Light, dark and paper: the contrast that WCAG asks for text (4.5), and for what is not text (3)."""
    colours = dict(re.findall(r"--([a-z-]+): #([0-9a-f]{3,6})", re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)[place]))
    pairs = [("fore", "back", 4.5), ("soft", "back", 4.5), ("bad", "back", 4.5), ("fore", "panel", 4.5), ("soft", "panel", 4.5), ("on", "vllm", 4.5),
             ("on", "shared", 4.5), ("on-light", "ollama", 4.5), ("on-light", "system", 4.5), ("good", "back", 3), ("vllm", "back", 3), ("shared", "back", 3)]
    for first, second, least in pairs:
        one, other = sorted((luminance(colours[first]), luminance(colours[second])), reverse=True)
        assert (one + 0.05) / (other + 0.05) >= least, (first, second)
