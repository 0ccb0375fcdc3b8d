# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a diagnosis is made of: findings, each with its evidence, cause and cure, the worst first."""
from __future__ import annotations

import threading

SEVERITIES = ("critical", "warning", "info")


class Unanswered(Exception):
    """A question to the host had no answer in time."""


def finding(code, severity, service, evidence, cause, cure, checks=()):
    """Return one finding; C(checks) are the failed checks of the proof that it explains, each as service and name."""
    return {
        "code": code, "severity": severity, "service": service, "evidence": " ".join(str(evidence).split()), "cause": cause, "cure": cure,
        "checks": list(checks),
    }


def label(check):
    """Return the name under which a failed check is told everywhere."""
    return f"{check['service']}: {check['name']}"


def ordered(findings):
    """Return the worst first; among equals the order in which they were found stays."""
    return sorted(findings, key=lambda one: SEVERITIES.index(one["severity"]))


def counts(findings):
    return {severity: sum(one["severity"] == severity for one in findings) for severity in SEVERITIES}


def verdict(findings, evaluated):
    """Return counts, worst, summary and table; C(evaluated) is how many checks of the proof were made."""
    found = counts(findings)
    told = ", ".join(f"{number} {severity}" for severity, number in found.items() if number)
    total = f"{len(findings)} finding{'' if len(findings) == 1 else 's'}"
    summary = f"{total}: {told}" if findings else f"no finding; {evaluated} checks of the proof passed"
    return {"counts": found, "worst": findings[0]["severity"] if findings else "", "summary": summary, "table": table(findings) or [summary]}


def table(findings):
    """Return lines for a person: the list, and below each line what was seen, why, and what to do."""
    if not findings:
        return []
    head = ("severity", "service", "finding")
    rows = [(one["severity"], one["service"], one["code"]) for one in findings]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(2)]
    lines = ["  ".join([head[0].ljust(widths[0]), head[1].ljust(widths[1]), head[2]])]
    for one, row in zip(findings, rows):
        lines.append("  ".join([row[0].ljust(widths[0]), row[1].ljust(widths[1]), row[2]]))
        for name in ("evidence", "cause", "cure"):
            lines.append(f"      {name + ':':<10}{one[name]}")
        if one["checks"]:
            lines.append(f"      {'explains:':<10}{', '.join(one['checks'])}")
    return lines


def bounded(ask, seconds):
    """Return what a function returns; Unanswered when it hangs, as a question to a dead network disk does."""
    box = []

    def run():
        try:
            box.append((ask(), None))
        except Exception as error:
            # It is raised where the answer is waited for.
            box.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not box:
        raise Unanswered(f"no answer within {seconds:g} s")
    answer, error = box[0]
    if error is not None:
        raise error
    return answer
