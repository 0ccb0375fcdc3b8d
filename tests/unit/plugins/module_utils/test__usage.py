# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The usage log: its file, which loses nothing, and what its lines come to."""
from __future__ import annotations

import csv
import json

import hypothesis
import pytest
from hypothesis import strategies

from ansible_collections.erni_ki.inference.plugins.module_utils import _usage
from ansible_collections.erni_ki.inference.plugins.module_utils._usage import Log, UsageError, decode, encode, instant, read, rise, table, total

BEGIN = instant("2026-11-28T00:00:00Z")


def line(end, seconds=60.0, **services):
    return {"version": 1, "time": _usage.stamp(end), "seconds": seconds, "plan": "abc", "missing": [], "services": services}


def records(*lines):
    return [decode(encode(one)) for one in lines]


# ---- the file


def numbers(log):
    return [record["plan"] for name in log.names() for record in read(name) if record]


@hypothesis.given(strategies.lists(strategies.integers(0, 400), max_size=60), strategies.integers(1, 5), strategies.integers(300, 3000))
@hypothesis.settings(max_examples=50)
def test_nothing_is_lost_but_the_oldest_and_the_disk_is_bounded(tmp_path_factory, sizes, files, most):
    log = Log(str(tmp_path_factory.mktemp("log") / "usage.jsonl"), most, files)
    longest = 0
    for number, size in enumerate(sizes):
        text = encode(dict(line(BEGIN), plan=number, more="x" * size))
        longest = max(longest, len(text))
        log.append(text)
    kept = numbers(log)
    assert kept == list(range(len(sizes)))[len(sizes) - len(kept):] and len(log.names()) <= files
    held = sum(len(open(name, encoding="ascii").read()) for name in log.names())
    assert held <= files * max(most, longest)
    # What went had to go.
    assert len(kept) == len(sizes) or held + longest > (files - 1) * (most - longest)
    assert (log.last() or {"plan": None})["plan"] == (len(sizes) - 1 if sizes else None)


def test_a_line_that_was_cut_off_costs_itself_alone(tmp_path):
    log = Log(str(tmp_path / "usage.jsonl"), 1 << 20, 2)
    log.append(encode(dict(line(BEGIN), plan="1")))
    with open(log.path, "a", encoding="ascii") as stream:
        stream.write('{"version":1,"time":"2026-')
    log.append(encode(dict(line(BEGIN), plan="2")))
    assert numbers(log) == ["1", "2"] and [record is None for record in read(log.path)] == [False, True, False]
    assert log.last()["plan"] == "2"


def test_a_full_disk_leaves_no_half_line(tmp_path, monkeypatch):
    log = Log(str(tmp_path / "usage.jsonl"), 1 << 20, 2)
    log.append(encode(dict(line(BEGIN), plan="1")))
    real = _usage.os.write
    monkeypatch.setattr(_usage.os, "write", lambda handle, data: real(handle, data[:20]))
    with pytest.raises(OSError, match="no room"):
        log.append(encode(dict(line(BEGIN), plan="2")))
    monkeypatch.undo()
    log.append(encode(dict(line(BEGIN), plan="3")))
    assert numbers(log) == ["1", "3"] and all(read(log.path))


def test_an_interrupted_rotation_loses_nothing(tmp_path):
    log = Log(str(tmp_path / "usage.jsonl"), 1, 4)
    for number in "12":
        log.append(encode(dict(line(BEGIN), plan=number)))
    # Renamed, and then the power failed before the next line.
    (tmp_path / "usage.jsonl.1").rename(tmp_path / "usage.jsonl.2")
    (tmp_path / "usage.jsonl").rename(tmp_path / "usage.jsonl.1")
    assert numbers(log) == ["1", "2"] and log.last()["plan"] == "2"
    log.append(encode(dict(line(BEGIN), plan="3")))
    assert numbers(log) == ["1", "2", "3"]


@pytest.mark.parametrize("text", [
    "", "x", "[]", "{}", '{"version": 2, "services": {}}', '{"version": 1, "time": "odd", "seconds": 1, "services": {}}', "[" * 100000,
    '{"version": 1, "time": "2026-11-28T00:00:00Z", "seconds": -1, "services": {}}', '{"version": 1, "time": "2026-11-28T00:00:00Z", "services": {}}',
    '{"version": 1, "time": "2026-11-28T00:00:00Z", "seconds": NaN, "services": {}}', "x" * (1 << 21),
    '{"version": 1, "time": "2026-11-28T00:00:00Z", "seconds": 1, "services": {"vllm": 5}}'])
def test_what_is_no_line(text):
    assert decode(text) is None


# ---- counters


@pytest.mark.parametrize("before, now, risen", [
    (None, {"a": 5}, None), ({"a": 5}, {}, None), ({"a": 5}, None, None), ({"a": 5}, {"a": 7}, 2), ({"a": 7}, {"a": 5}, 5), ({}, {"a": 5}, 5),
    ({"a": 5, "started": 1}, {"a": 7, "started": 1}, 2), ({"a": 5, "started": 1}, {"a": 7, "started": 2}, 7)])
def test_rise(before, now, risen):
    assert rise(before, now, "a") == risen


@hypothesis.given(strategies.lists(strategies.tuples(strategies.integers(0, 1000), strategies.booleans()), max_size=30), strategies.data())
def test_no_token_is_counted_twice_whatever_ends_when(steps, data):
    """A service counts on, or begins anew; it is read now and then; all that was read is counted once."""
    value, started, begun = 0, 1, 0
    held, counted, expected = {"a": 0, "started": 1}, 0, 0
    for more, anew in steps:
        if anew:
            value, started, begun = 0, started + 1, 0
        value += more
        if data.draw(strategies.booleans()):
            now = {"a": value, "started": started}
            counted += rise(held, now, "a")
            expected += value - begun
            held, begun = now, value
    assert counted == expected


# ---- times


@pytest.mark.parametrize("text, seconds", [
    ("2026-11-28", BEGIN), ("2026-11-28T01:00:00Z", BEGIN + 3600), ("2026-11-28 01:00", BEGIN + 3600), ("2026-11-28T01:00:00+01:00", BEGIN),
    ("24h", 1000 - 86400), ("90m", 1000 - 5400), ("1w", 1000 - 604800), ("5s", 995)])
def test_times(text, seconds):
    assert instant(text, 1000) == seconds


@pytest.mark.parametrize("text", ["", "yesterday", "24", "h", "-5h", "2026-13-01", "5y", "99999999999999h"])
def test_what_is_no_time(text):
    with pytest.raises(UsageError, match="is no time: give a date"):
        instant(text, 1000)


# ---- a period


def used(cpu=None, **more):
    return dict(more, cpu_seconds={"0": 1.0, "10": 2.0, "9": 3.0} if cpu is None else cpu)


def test_a_period():
    rows = total("h1", records(
        line(BEGIN + 60, vllm=used(memory_working_set_bytes=100, tokens_in=5, tokens_out=7, requests=1, probes=1), ollama={"vram_bytes": 3 << 30}),
        line(BEGIN + 120, vllm=used({"0": 4.5}, memory_working_set_bytes=400, tokens_in=6, tokens_out=8, requests=2, probes=1)),
        line(BEGIN + 900, vllm=used(), ollama={})), BEGIN, BEGIN + 600)
    assert [row["service"] for row in rows] == ["ollama", "vllm"]
    assert rows[0] == {
        "host": "h1", "service": "ollama", "from": "2026-11-28T00:00:00Z", "to": "2026-11-28T00:10:00Z", "seconds": 60.0, "cpu_seconds": None,
        "cpus_mean": None, "memory_mean_bytes": None, "memory_max_bytes": None,
        "vram_mean_bytes": 3 << 30, "vram_max_bytes": 3 << 30, "tokens_in": None, "tokens_out": None,
        "requests": None, "probes": None, "cpu_seconds_by_cpu": {}}
    assert rows[1]["cpu_seconds"] == 10.5 and rows[1]["cpus_mean"] == 0.087
    assert list(rows[1]["cpu_seconds_by_cpu"].items()) == [("0", 5.5), ("9", 3.0), ("10", 2.0)]
    assert (rows[1]["memory_mean_bytes"], rows[1]["memory_max_bytes"], rows[1]["tokens_in"], rows[1]["tokens_out"], rows[1]["requests"], rows[1]["probes"]) == (
        250, 400, 11, 15, 3, 2)


def test_by_day_and_hour():
    some = records(*(line(BEGIN + at, vllm=used({"0": 1.0})) for at in (60, 3600, 3660, 86400, 86460)))
    assert [(row["from"], row["cpu_seconds"]) for row in total("h", some, BEGIN, BEGIN + 1e6, "day")] == [
        ("2026-11-28T00:00:00Z", 4.0), ("2026-11-29T00:00:00Z", 1.0)]
    assert [(row["from"][11:13], row["cpu_seconds"]) for row in total("h", some, BEGIN, BEGIN + 86400, "hour")] == [("00", 2.0), ("01", 1.0), ("23", 1.0)]


@pytest.mark.parametrize("odd", ["5", None, [], {}, True, -1, 1e300, "nan"])
def test_odd_values_in_a_line_are_left_out(odd):
    found = total("h", records(line(BEGIN + 60, vllm={"cpu_seconds": {"0": odd}, "memory_working_set_bytes": odd, "tokens_in": odd})), BEGIN, BEGIN + 60)[0]
    assert found["cpu_seconds"] is found["memory_max_bytes"] is found["tokens_in"] is None and found["seconds"] == 60
    assert total("h", records(line(BEGIN + 60, vllm={"cpu_seconds": odd})), BEGIN, BEGIN + 60)[0]["cpu_seconds"] is None


LINES = strategies.lists(strategies.builds(
    lambda at, seconds, service, cpu, tokens: line(BEGIN + at, seconds, **{service: {"cpu_seconds": {"0": cpu}, "tokens_out": tokens}}),
    strategies.integers(1, 400000), strategies.floats(0, 3600), strategies.sampled_from(["vllm", "ollama"]), strategies.floats(0, 1000),
    strategies.integers(0, 100000)), max_size=30)


@hypothesis.given(LINES, strategies.sampled_from([None, "hour", "day"]))
def test_no_grouping_loses_or_doubles(lines, group):
    for service in ("vllm", "ollama"):
        rows = [row for row in total("h", records(*lines), BEGIN - 1e6, BEGIN + 1e6, group) if row["service"] == service]
        mine = [one["services"][service] for one in lines if service in one["services"]]
        assert sum(row["tokens_out"] for row in rows) == sum(one["tokens_out"] for one in mine)
        assert sum(row["cpu_seconds"] for row in rows) == pytest.approx(sum(one["cpu_seconds"]["0"] for one in mine), abs=0.002 * (len(rows) + 1))
        covered = sum(one["seconds"] for one in lines if service in one["services"])
        assert sum(row["seconds"] for row in rows) == pytest.approx(covered, abs=0.002 * (len(rows) + 1))


def test_csv_and_table():
    rows = total("h1", records(line(BEGIN + 60, vllm=used(memory_working_set_bytes=600 << 20, tokens_in=5), ollama={})), BEGIN, BEGIN + 3600)
    text = _usage.as_csv(rows)
    found = list(csv.DictReader(text.splitlines()))
    assert tuple(found[0]) == _usage.COLUMNS and found[1]["cpu_seconds"] == "6.0" and found[1]["cpu_seconds_by_cpu"] == "0=1 9=3 10=2"
    assert found[0]["cpu_seconds"] == "" and found[0]["cpu_seconds_by_cpu"] == ""
    lines = table(rows)
    assert lines[0].split()[:4] == ["host", "service", "from", "hours"] and len(lines) == 3
    assert "600 (600)" in lines[2] and "0.10" in lines[2] and " - " in lines[1]
    assert table([]) and json.dumps(rows)
