# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module on logs of a host. conftest.py compares every result with RETURN."""
from __future__ import annotations

import json

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils._usage import Log, encode, instant, stamp
from ansible_collections.erni_ki.inference.plugins.modules import usage_info

BEGIN = instant("2026-11-28T00:00:00Z")


@pytest.fixture(name="run")
def run_fixture(capsys, module_arguments, tmp_path):
    """Run the module on tmp_path/usage.jsonl; return its exit status and its result."""
    def run(**params):
        arguments = {"path": str(tmp_path / "usage.jsonl"), "since": "2026-11-28", "until": "2026-11-30", **params, "_ansible_check_mode": True}
        with module_arguments(arguments), pytest.raises(SystemExit) as ending:
            usage_info.main()
        return ending.value.code, json.loads(capsys.readouterr().out)
    return run


def fill(folder, lines, most=1 << 20):
    log = Log(str(folder / "usage.jsonl"), most, 50)
    for number in range(lines):
        log.append(encode({"version": 1, "time": stamp(BEGIN + 3600 * (number + 1)), "seconds": 3600.0, "services": {"vllm": {
            "cpu_seconds": {"0": 10.0, "8": 5.0}, "memory_working_set_bytes": 100, "tokens_in": 2, "tokens_out": 3, "requests": 1, "probes": 1}}}))


def test_the_whole_and_by_day(run, tmp_path):
    # Small files: all that were rotated are read.
    fill(tmp_path, 30, 500)
    assert len(list(tmp_path.iterdir())) > 10
    code, found = run(host="h1")
    assert code == 0 and (found["lines"], found["unreadable"]) == (30, 0)
    [row] = found["rows"]
    assert (row["host"], row["tokens_out"], row["cpu_seconds"], row["seconds"]) == ("h1", 90, 450.0, 108000.0)
    assert [row["tokens_out"] for row in run(group="day")[1]["rows"]] == [72, 18]
    assert len(run(group="hour")[1]["rows"]) == 30 and run(until="2026-11-28T02:00")[1]["lines"] == 2


def test_a_line_that_was_cut_off(run, tmp_path):
    fill(tmp_path, 1)
    with open(tmp_path / "usage.jsonl", "a", encoding="utf-8") as stream:
        stream.write('{"version":1,"ti')
    found = run()[1]
    assert (found["lines"], found["unreadable"]) == (1, 1)


@pytest.mark.parametrize("params, words", [
    ({}, "There is no usage log in"), ({"since": "soon"}, "'soon' is no time"), ({"until": "soon"}, "'soon' is no time"),
    ({"since": "2026-11-30", "until": "2026-11-28"}, "ends before it begins"), ({"path": "/proc/1/nothing/usage.jsonl"}, "There is no usage log")])
def test_what_cannot_be_summed_up(run, params, words):
    code, found = run(**params)
    assert code == 1 and words in found["msg"]


def test_a_period_without_lines(run, tmp_path):
    fill(tmp_path, 1)
    found = run(since="2026-11-29")[1]
    assert found["rows"] == [] and len(found["table"]) == 1
