# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of the diagnosis share: how a finding is looked for, and waiting."""
from __future__ import annotations

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

pytest_plugins = ["machine", "twin"]


def codes(result, service):
    return {one["code"] for one in result["findings"] if one["service"] == service}


def find(result, code, service=None):
    """Return the one finding of this code."""
    found = [one for one in result["findings"] if one["code"] == code and service in (None, one["service"])]
    assert len(found) == 1, f"{code} was found {len(found)} times\n" + "\n".join(result["table"])
    assert found[0]["evidence"] and found[0]["cause"] and found[0]["cure"]
    return found[0]


@pytest.fixture(name="look")
def fixture_look(wait_for):
    """The tests' own helpers, which no test file can import from here."""
    return type("Look", (), {"codes": staticmethod(codes), "find": staticmethod(find), "wait_for": staticmethod(wait_for)})
