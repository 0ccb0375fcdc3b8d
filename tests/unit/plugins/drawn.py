# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A picture as the tests read it."""
from __future__ import annotations

from xml.etree import ElementTree

from ansible_collections.erni_ki.inference.plugins.plugin_utils import _pictures

SVG = "{http://www.w3.org/2000/svg}"


def parse(picture):
    """Return the picture's root, all of whose shapes lie within its frame."""
    root = ElementTree.fromstring(picture)
    _left, _top, width, height = (float(word) for word in root.get("viewBox").split())
    title = root.find(f"{SVG}title").text
    assert width == _pictures.WIDTH and height > 0 and title and title == root.get("aria-label")
    for element in root.iter():
        xs = [float(element.get(name)) for name in ("x", "x1", "x2") if element.get(name)]
        ys = [float(element.get(name)) for name in ("y", "y1", "y2") if element.get(name)]
        for point in (element.get("points") or "").split():
            xs.append(float(point.split(",")[0]))
            ys.append(float(point.split(",")[1]))
        assert all(-2 <= x <= width + 2 for x in xs) and all(-2 <= y <= height + 2 for y in ys), ElementTree.tostring(element)
        if element.tag == f"{SVG}rect":
            assert float(element.get("x")) + float(element.get("width")) <= width + 2
    return root


def words(root):
    return [element.text for element in root.iter(f"{SVG}text")]
