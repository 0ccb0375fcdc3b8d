# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: verdict
type: aggregate
short_description: Says how long a run has taken, and ends it with one verdict
version_added: 0.1.0
author: The erni_ki.inference team (@erni-ki)
description:
  - Prints the time of day and the time since the start below the name of every task, and every minute that a task which takes long is still at work.
  - Ends the run, after the recap, with one line a host and a last line C(verdict=ok) or C(verdict=failed), for people and for scripts.
  - A host is C(ok) when no task failed, it was reached, and every check of M(erni_ki.inference.colocation_info), where it ran, held.
  - It is C(unfinished) when the run ended before all plays had begun, because others failed.
  - A host that failed after M(erni_ki.inference.gateway_drain) has drained it stays drained; that is said, with how to put it back.
  - What M(erni_ki.inference.diagnosis_info) found, and M(erni_ki.inference.inference_benchmark) measured, is counted in its line; whether that fails the
    host is up to the play.
requirements:
  - Enable it with C(callbacks_enabled = erni_ki.inference.verdict) in the section C([defaults]) of C(ansible.cfg).
"""

import threading
import time

from ansible import context
from ansible.plugins.callback import CallbackBase


# How often a task that takes long says that it is still at work, in seconds.
BEAT_S = 60


def duration(seconds):
    """Return seconds as a person reads them: 8s, 1m08s, 1h02m."""
    seconds = int(seconds)
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"


def reason(text, first=4, last=5):
    """Return the lines of a failure's message that say something; of a long one its beginning and its end, where a log tells what broke."""
    lines = [line.strip() for line in str(text).splitlines() if line.strip()]
    if len(lines) > first + last:
        lines[first:-last] = ["…"]
    return lines or ["no message"]


class CallbackModule(CallbackBase):
    """Collects what each host's modules returned, and judges it once at the end."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "erni_ki.inference.verdict"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self):
        super().__init__()
        self._start = time.monotonic()
        self._proofs = {}
        self._diagnoses = {}
        self._benchmarks = {}
        self._failures = {}
        self._drained = {}          # host -> gateway -> engines
        self._groups = []
        self._plays = set()         # those that have not begun
        self._task = ("starting", self._start)      # its name, and when it began
        self._told = self._start                    # when it was last said that it is at work
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)

    def v2_playbook_on_start(self, playbook):
        self._plays = {play._uuid for play in playbook.get_plays()}
        # Ansible keeps its display locked while it forks, so a thread may print at any time.
        self._heart.start()

    def v2_playbook_on_play_start(self, play):
        # A play of several batches begins several times.
        self._plays.discard(play._uuid)
        self._groups += [group for group in play.hosts if group not in self._groups]

    def _beat(self):
        """Say now and then that the task at work has not been forgotten."""
        while not self._over.wait(1):
            name, begin = self._task
            now = time.monotonic()
            if now - max(begin, self._told) >= BEAT_S:
                self._told = now
                self._display.display(f"  {time.strftime('%H:%M:%S')}, still at it, {duration(now - begin)}: {name}")

    def v2_playbook_on_task_start(self, task, is_conditional):
        self._task = (task.get_name(), time.monotonic())
        self._display.display(f"  {time.strftime('%H:%M:%S')}, {duration(time.monotonic() - self._start)} since the start")

    def v2_playbook_on_handler_task_start(self, task):
        self.v2_playbook_on_task_start(task, False)

    def v2_playbook_on_cleanup_task_start(self, task):
        self.v2_playbook_on_task_start(task, False)

    def v2_runner_on_ok(self, result):
        self._remember(result)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self._remember(result)
        if not ignore_errors:
            self._failures[result._host.get_name()] = [f"{result._task.get_name()}:"] + reason(result._result.get("msg"))

    def v2_runner_on_unreachable(self, result):
        self._failures[result._host.get_name()] = ["unreachable:"] + reason(result._result.get("msg"))

    def _remember(self, result):
        for one in result._result.get("results") or [result._result]:
            self._remember_gateway(result._host.get_name(), one)
        # Only these modules return both of the two; their action names differ with how the playbook wrote them.
        if "checks" in result._result and "urls" in result._result:
            self._proofs[result._host.get_name()] = result._result
        if "findings" in result._result and "counts" in result._result:
            self._diagnoses[result._host.get_name()] = result._result
        if "losses" in result._result and "runs" in result._result:
            self._benchmarks[result._host.get_name()] = result._result

    def _remember_gateway(self, host, result):
        """What a host's turn has taken out of a gateway, until it is put back there."""
        if not isinstance(result, dict):
            return
        gateways = self._drained.setdefault(host, {})
        gateway = str(result.get(result.get("ansible_loop_var"), "the gateway"))
        if "by_hand" in result and "drained" in result:
            gateways[gateway] = (result["drained"], result["by_hand"])
        elif "put_back" in result:
            gateways.pop(gateway, None)

    def _say_drained(self, host):
        for gateway, (engines, by_hand) in sorted(self._drained.get(host, {}).items()):
            if engines:
                self._display.display("\n    ".join([
                    f"  stays drained at {gateway}: {', '.join(engines)}. The run of site that mends the host puts it back. By hand, on {gateway}:",
                    *by_hand]), color="red")

    def v2_playbook_on_stats(self, stats):
        self._over.set()
        self._display.display("")
        good, unfinished = bool(stats.processed), False
        for host in sorted(stats.processed):
            counts = stats.summarize(host)
            proof = self._proofs.get(host)
            failed = counts["failures"] or counts["unreachable"]
            ok = not failed and (proof is None or proof.get("ok", False))
            good = good and ok
            unfinished = unfinished or ok and bool(self._plays)
            # The plays that did not begin would have changed it, or proven it.
            word = "failed" if not ok else "unfinished" if self._plays else "ok"
            words = [f"host={host}", f"verdict={word}", f"changed={counts['changed']}", f"tasks={counts['ok']}"]
            if proof is not None:
                words.append(f"checks={len(proof['checks'])} checks_failed={len(proof.get('failed_checks', []))}")
            if host in self._diagnoses:
                diagnosis = self._diagnoses[host]
                words.append(f"findings={len(diagnosis['findings'])} critical={diagnosis['counts']['critical']} warning={diagnosis['counts']['warning']}")
            if host in self._benchmarks:
                measured = self._benchmarks[host]
                words.append(f"losses={len(measured['losses'])} losses_failed={sum(not one['ok'] for one in measured['losses'])}")
                words.append(f"runs={len(measured['runs'])} runs_left_out={sum(bool(one['left_out']) for one in measured['runs'])}")
            self._display.display(" ".join(words), color=None if ok else "red")
            if not ok and host in self._failures:
                first, second, *rest = self._failures[host]
                self._display.display("\n    ".join([f"  {first} {second}", *rest]), color="red")
            self._say_drained(host)
        if unfinished:
            self._display.display("the run ended early, because a whole batch of hosts failed; the next run takes up from there", color="red")
        if not stats.processed:
            self._display.display(f"no host was reached: the inventory has none in the group {' or '.join(map(str, self._groups))}", color="red")
        mode = ", check mode: nothing was changed" if context.CLIARGS.get("check") else ""
        self._display.display(
            f"verdict={'ok' if good else 'failed'} after {duration(time.monotonic() - self._start)}{mode}", color="green" if good else "red")
