# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.erni_ki.inference.tests.unit.docs.returns import differences

RETURN = """
size:
  description: MiB, V(null) when unknown.
  type: int
  returned: success
names:
  description: All names.
  type: list
  elements: str
  returned: success
host:
  description: The host.
  type: dict
  returned: success
  contains:
    cores: {description: Cores., type: int}
    model: {description: Model., type: str, returned: where known}
extra:
  description: More.
  type: raw
  returned: when asked for
"""
GOOD = {"changed": False, "size": 4, "names": ["a"], "host": {"cores": 8}}


def test_agreement():
    assert not list(differences(RETURN, GOOD))
    assert not list(differences(RETURN, {**GOOD, "size": None, "extra": [1], "host": {"cores": 8, "model": "x"}}))
    assert not list(differences(RETURN, {"msg": "no", "failed": True, "rc": 1}, failed=True))
    assert list(differences(RETURN, {**GOOD, "rc": 1})) == ["rc is returned, and not documented"]


@pytest.mark.parametrize("change, said", [
    ({"new": 1}, ["new is returned, and not documented"]),
    ({"size": "4"}, ["size is documented as int, and is str: '4'"]),
    ({"size": True}, ["size is documented as int, and is bool: True"]),
    ({"names": None}, ["names is null, and no description says when"]),
    ({"names": ["a", 1]}, ["names[1] is documented as str, and is int: 1"]),
    ({"host": {}}, ["host.cores is documented as always returned, and is missing"]),
    ({"host": {"cores": 1, "more": 2}}, ["host.more is returned, and not documented"]),
])
def test_differences(change, said):
    assert list(differences(RETURN, {**GOOD, **change})) == said


def test_missing_key():
    assert list(differences(RETURN, {})) == [f"{key} is documented as always returned, and is missing" for key in ("size", "names", "host")]
