# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A source that hangs, breaks or comes late, and what holds of it meanwhile."""
from __future__ import annotations

import threading
import time

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils._exporter_source import Failed, Source
from ansible_collections.erni_ki.inference.tests.unit.plugins.exporter_world import until


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture(name="clock")
def clock_fixture():
    return Clock()


def test_what_it_told(clock):
    def look():
        clock.now += 2
        return [("name", (), 1.0)]

    source = Source("docker", look, 15, 5, clock=clock)
    assert (source.state().samples, source.state().problem) == ([], "no answer yet")
    source.once()
    assert (source.state().samples, source.state().seconds, source.state().problem) == ([("name", (), 1.0)], 2, None)
    clock.now += 19
    assert source.state().problem is None
    clock.now += 2
    # Its thread is dead, or the machine slept.
    assert source.state().samples == [] and source.state().problem == "nothing new for 21 s"


@pytest.mark.parametrize("error, samples, words", [
    (Failed("half of it", [("name", (), 1.0)]), [("name", (), 1.0)], "half of it"), (ZeroDivisionError("x"), [], "ZeroDivisionError: x")])
def test_what_is_wrong(clock, error, samples, words):
    def look():
        raise error

    source = Source("docker", look, 15, 5, clock=clock)
    source.once()
    assert (source.state().samples, source.state().problem) == (samples, words)


def test_one_that_hangs_is_failed_from_its_deadline_on_and_has_one_thread():
    gate, calls, stop = threading.Event(), [], threading.Event()

    def look():
        calls.append(1)
        if len(calls) > 1:
            gate.wait(30)
        return [("name", (), float(len(calls)))]

    source = Source("ollama", look, 0.05, 0.2)
    before = threading.active_count()
    source.start(stop)
    assert source.first.wait(5)
    assert until(lambda: source.state().problem == "no answer within 0.2 s")
    assert source.state().samples == [] and len(calls) == 2 and threading.active_count() == before + 1
    assert source.news().startswith("ollama: no answer within") and source.news() is None
    gate.set()
    assert until(lambda: source.state().problem is None) and source.state().samples
    assert source.news() == "ollama: well again"
    stop.set()


def test_one_waits_for_another():
    stop, order = threading.Event(), []

    def slow():
        time.sleep(0.2)
        order.append("docker")
        return []

    first = Source("docker", slow, 10, 5)
    second = Source("procs", lambda: order.append("procs") or [], 10, 5, first)
    second.start(stop)
    first.start(stop)
    assert second.first.wait(5) and order == ["docker", "procs"]
    stop.set()
