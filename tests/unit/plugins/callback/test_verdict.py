# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import re
import threading
import types

import pytest

from ansible_collections.erni_ki.inference.plugins.callback import verdict


class Stats:
    def __init__(self, **hosts):
        self.processed = hosts

    def summarize(self, host):
        return dict({"ok": 5, "changed": 0, "failures": 0, "unreachable": 0}, **self.processed[host])


def task(name):
    return types.SimpleNamespace(get_name=lambda: name)


def playbook(*plays):
    return types.SimpleNamespace(get_plays=lambda: list(plays))


def play(name, hosts="inference"):
    return types.SimpleNamespace(_uuid=name, hosts=[hosts])


def result(host, body, name="Judge"):
    return types.SimpleNamespace(_host=types.SimpleNamespace(get_name=lambda: host), _result=body, _task=task(name))


@pytest.fixture(name="shown")
def fixture_shown(monkeypatch):
    lines = []
    callback = verdict.CallbackModule()
    monkeypatch.setattr(callback._display, "display", lambda text, **dummy: lines.append(text))
    return callback, lines


@pytest.mark.parametrize("seconds, text", [(0, "0s"), (59.9, "59s"), (60, "1m00s"), (3599, "59m59s"), (3600, "1h00m"), (7325, "2h02m")])
def test_duration(seconds, text):
    assert verdict.duration(seconds) == text


def test_every_task_says_when(shown):
    callback, lines = shown
    callback.v2_playbook_on_task_start(task("Run"), False)
    callback.v2_playbook_on_handler_task_start(task("Restart"))
    assert len(lines) == 2 and all(line.endswith(", 0s since the start") for line in lines)


def test_a_task_that_takes_long_says_that_it_is_at_work(shown, monkeypatch):
    callback, lines = shown
    monkeypatch.setattr(verdict, "BEAT_S", 0.01)
    told = threading.Event()
    monkeypatch.setattr(callback._display, "display", lambda text, **dummy: (lines.append(text), told.set() if "still at it" in text else None))
    callback.v2_playbook_on_task_start(task("Run vllm"), False)
    callback.v2_playbook_on_start(playbook())
    assert told.wait(60)
    callback.v2_playbook_on_stats(Stats(a={}))
    callback._heart.join(60)
    beat = next(line for line in lines if "still at it" in line)
    assert not callback._heart.is_alive() and re.fullmatch(r"  \d\d:\d\d:\d\d, still at it, \d+s: Run vllm", beat), beat


def test_a_good_run_with_a_proof(shown):
    callback, lines = shown
    callback.v2_runner_on_ok(result("a", {"checks": [1, 2], "urls": {}, "ok": True, "failed_checks": []}))
    callback.v2_playbook_on_stats(Stats(a={"changed": 3}))
    assert lines[1] == "host=a verdict=ok changed=3 tasks=5 checks=2 checks_failed=0"
    assert lines[-1].startswith("verdict=ok after ")


def test_a_proof_that_does_not_hold_is_a_failed_verdict_even_if_no_task_failed(shown):
    callback, lines = shown
    callback.v2_runner_on_ok(result("a", {"checks": [1], "urls": {}, "ok": False, "failed_checks": ["vllm: cpuset"]}))
    callback.v2_playbook_on_stats(Stats(a={}))
    assert "verdict=failed" in lines[1] and lines[-1].startswith("verdict=failed")


def test_findings_are_counted_and_do_not_fail_by_themselves(shown):
    callback, lines = shown
    callback.v2_runner_on_ok(result("a", {"findings": [1, 2], "counts": {"critical": 0, "warning": 1, "info": 1}}))
    callback.v2_playbook_on_stats(Stats(a={}))
    assert lines[1] == "host=a verdict=ok changed=0 tasks=5 findings=2 critical=0 warning=1"


def test_what_was_measured_is_counted(shown):
    callback, lines = shown
    callback.v2_runner_on_ok(result("a", {"losses": [{"ok": True}, {"ok": False}], "runs": [{"left_out": []}, {"left_out": ["x"]}, {"left_out": []}]}))
    callback.v2_playbook_on_stats(Stats(a={}))
    assert lines[1] == "host=a verdict=ok changed=0 tasks=5 losses=2 losses_failed=1 runs=3 runs_left_out=1"


def test_one_refused_host_does_not_hide_the_others(shown):
    callback, lines = shown
    callback.v2_runner_on_failed(result("b", {"msg": "\n  Too little memory.\nMore."}, "Decide"))
    callback.v2_playbook_on_stats(Stats(a={}, b={"failures": 1}))
    assert lines[1].startswith("host=a verdict=ok") and lines[2].startswith("host=b verdict=failed")
    assert lines[3] == "  Decide: Too little memory.\n    More." and lines[-1].startswith("verdict=failed")


def test_hosts_whose_turn_did_not_come_are_not_ok(shown):
    callback, lines = shown
    callback.v2_playbook_on_start(playbook(play("plan"), play("apply"), play("prove")))
    for name in ("plan", "apply", "apply"):
        callback.v2_playbook_on_play_start(play(name))
    callback.v2_runner_on_failed(result("b", {"msg": "No."}))
    callback.v2_playbook_on_stats(Stats(a={}, b={"failures": 1}))
    assert lines[1].startswith("host=a verdict=unfinished ") and lines[2].startswith("host=b verdict=failed ") and lines[4].startswith("the run ended early")
    assert lines[-1].startswith("verdict=failed")


def test_a_run_whose_plays_all_began_is_finished(shown):
    callback, lines = shown
    callback.v2_playbook_on_start(playbook(play("plan")))
    callback.v2_playbook_on_play_start(play("plan"))
    callback.v2_playbook_on_stats(Stats(a={}))
    assert lines[1].startswith("host=a verdict=ok ") and len(lines) == 3


def gateway(name, **body):
    return {"ansible_loop_var": "one", "one": name, **body}


def test_what_a_failed_host_leaves_drained_is_said(shown):
    callback, lines = shown
    out = {"drained": ["b-vllm"], "by_hand": ["curl b-vllm"]}
    callback.v2_runner_on_ok(result("b", {"results": [gateway("g1", **out), gateway("g2", **out), gateway("g3", unreachable=True)]}))
    callback.v2_runner_on_ok(result("b", {"results": [gateway("g1", put_back=["b-vllm"])]}))
    callback.v2_runner_on_failed(result("b", {"msg": "No."}))
    callback.v2_playbook_on_stats(Stats(b={"failures": 1}))
    assert lines[3].startswith("  stays drained at g2: b-vllm. ") and lines[3].endswith("\n    curl b-vllm") and len(lines) == 5


@pytest.mark.parametrize("text, lines", [
    (" \n", ["no message"]),
    ("a\n\n  b\n", ["a", "b"]),
    ("\n".join("abcde"), list("abcde")),
    ("\n".join("abcdef"), ["a", "b", "…", "d", "e", "f"]),
])
def test_a_long_reason_keeps_its_beginning_and_its_end(text, lines):
    assert verdict.reason(text, 2, 3) == lines


def test_check_mode_says_so(shown, monkeypatch):
    callback, lines = shown
    monkeypatch.setattr(verdict.context, "CLIARGS", {"check": True})
    callback.v2_playbook_on_stats(Stats(a={"changed": 3}))
    assert lines[-1].startswith("verdict=ok after ") and lines[-1].endswith(", check mode: nothing was changed")


def test_an_ignored_failure_is_no_failure(shown):
    callback, lines = shown
    callback.v2_runner_on_failed(result("a", {}), ignore_errors=True)
    callback.v2_playbook_on_stats(Stats(a={}))
    assert lines[-1].startswith("verdict=ok")


def test_an_unreachable_host(shown):
    callback, lines = shown
    callback.v2_runner_on_unreachable(result("a", {"msg": "no route"}))
    callback.v2_playbook_on_stats(Stats(a={"unreachable": 1}))
    assert lines[2] == "  unreachable: no route" and lines[-1].startswith("verdict=failed")


def test_no_host_is_not_ok(shown):
    callback, lines = shown
    for name in ("plan", "site"):
        callback.v2_playbook_on_play_start(play(name))
    callback.v2_playbook_on_stats(Stats())
    assert lines[1] == "no host was reached: the inventory has none in the group inference" and lines[-1].startswith("verdict=failed")
