# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils import _compat


@pytest.mark.parametrize("text, version", [
    ("0.32.0", (0, 32, 0)), ("v0.11.1.post2", (0, 11, 1)), (" 0.32.0+cpu ", (0, 32, 0)), ("0.29.0rc1", (0, 29, 0)), ("26.1.5+dfsg1-9", (26, 1, 5)),
    ("28.0", (28, 0, 0)), ("0.29", (0, 29, 0)), ("20.10.24", (20, 10, 24)), ("1.2.3.4", (1, 2, 3, 4)),
    ("32", None), ("", None), ("latest", None), ("0.32.", None), ("0.32.0 and more", None), ("1.2.3.4.5", None), ("0..1", None), ("9999999.1", None),
])
def test_versions(text, version):
    assert _compat.parse_version(text) == version


@pytest.mark.parametrize("version, asked, size", [
    ((0, 10, 2), 16, 16), ((0, 10, 2), 32, 16), ((0, 11, 0), 1, 16),
    ((0, 11, 1), 16, 16), ((0, 11, 1), 1, 16), ((0, 28, 0), 17, 32),
    ((0, 29, 0), 16, 32), ((0, 32, 0), 128, 128), ((0, 32, 0), 129, 160), ((1, 0, 0), 16, 32),
])
def test_block_sizes(version, asked, size):
    assert _compat.block_size(version, asked) == size


def test_every_row_of_the_tables_has_a_source_and_its_place():
    for rules in (_compat.BLOCK_RULES, _compat.X86_RULES):
        assert [rule.since for rule in rules] == sorted(rule.since for rule in rules) and rules[0].since == (0,)
        assert all("vllm" in rule.source for rule in rules)


@pytest.mark.parametrize("architecture, flags, version, error, note, newer", [
    ("x86_64", ["avx2", "avx512f"], (0, 32, 0), "", "", ""),
    ("x86_64", ["avx2", "avx512f"], (0, 10, 0), "", "", ""),
    ("x86_64", ["avx512f"], (0, 32, 0), "", "", ""),
    ("x86_64", ["avx2"], (0, 17, 0), "", "AVX2 but not AVX-512", ""),
    ("x86_64", ["avx2"], (0, 16, 9), "needs avx512f", "", "0.17.0"),
    ("x86_64", ["avx"], (0, 16, 9), "needs avx512f", "", ""),
    ("x86_64", [], (0, 32, 0), "needs avx2", "", ""),
    ("aarch64", ["asimd", "bf16"], (0, 32, 0), "", "", ""),
    ("aarch64", ["asimd"], (0, 32, 0), "", "no bf16", ""),
    ("aarch64", ["bf16"], (0, 32, 0), "needs asimd", "", ""),
    ("x86_64", None, (0, 32, 0), "", "did not say", ""),
])
def test_cpu_flags(architecture, flags, version, error, note, newer):
    found = _compat.judge_isa(architecture, None if flags is None else frozenset(flags), version)
    assert bool(found.error) == bool(error) and error in found.error
    assert bool(found.note) == bool(note) and note in found.note
    assert found.newer == newer


GOOD = {"installed": True, "flavor": "docker-ce", "version": "28.1.1", "compose": {"kind": "v2", "version": "2.35.0"}}


@pytest.mark.parametrize("changes, rules", [
    ({}, []),
    ({"installed": False, "flavor": "snap"}, []),
    ({"version": "20.10.0"}, []),
    ({"version": "20.10"}, []),
    ({"version": None}, []),
    ({"version": 20}, []),
    ({"version": "20.9.99"}, ["engine-version"]),
    ({"flavor": "snap"}, ["engine-snap"]),
    # podman has a numbering of its own.
    ({"flavor": "podman-docker", "version": "4.3.1"}, ["engine-podman"]),
    ({"compose": {"kind": "v1", "version": None}}, ["engine-compose"]),
    ({"compose": {"kind": "none", "version": None}}, []),
    ({"compose": None}, []),
    ({"flavor": "snap", "version": "19.3.1", "compose": {"kind": "v1", "version": "1.29.2"}}, ["engine-snap", "engine-version", "engine-compose"]),
])
def test_engines(changes, rules):
    found = _compat.judge_engine(dict(GOOD, **changes))
    assert [rule for rule, _found, _message in found] == rules
    assert all("run again" in message for _rule, _found, message in found)
