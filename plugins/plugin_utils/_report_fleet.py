# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the reports of several hosts come to on one page."""
from __future__ import annotations

from ansible_collections.erni_ki.inference.plugins.plugin_utils import _report_pictures
from ansible_collections.erni_ki.inference.plugins.plugin_utils._page_style import STYLE
from ansible_collections.erni_ki.inference.plugins.plugin_utils._pictures import NAMES, cpu_map, number


def _row(name, page, report):
    plan, counts = report["plan"] or {}, report["counts"]
    vllm, ollama = plan.get("vllm"), plan.get("ollama")
    tokens = next((row["last"] for row in report["live"]["rows"] if row["what"] == "vLLM: tokens out"), None)
    failed = sum(not check["ok"] for check in report["checks"])
    return {
        "host": name, "read": True, "page": page, "ok": report["ok"],
        "checks": f"{len(report['checks']) - failed} of {len(report['checks'])}" if report["checks"] else "none",
        "counts": ", ".join(f"{count} {severity}" for severity, count in counts.items() if count) or "none", "changes": len(report["changes"]),
        "vllm": f"CPUs {vllm['cpuset']}, {vllm['memory']['limit_mib']} MiB" if vllm else "no",
        "ollama": f"CPUs {ollama['cpuset']}, {(ollama.get('device') or {}).get('name') or 'no GPU'}" if ollama else "no",
        "tokens": "–" if tokens is None else number(tokens), "plan": report["plan_hash"][:12],
        "findings": [f"{one['severity']}: {NAMES.get(one['service'], one['service'])}, {one['code']}: {one['cause']}" for one in report["findings"]],
        "news": [f"changed since {report['since']}: {one['text']}" for one in report["changes"]],
        "cpus": cpu_map({"cores": report["cores"], "owners": report["owners"]}) if report["cores"] else "",
        "host_memory": _report_pictures.host_memory(plan),
    }


def _differing(reports):
    """Return every version that not all hosts have, and which have it."""
    told = []
    for what in sorted({what for report in reports.values() for what in report["versions"]}):
        having = {}
        for name, report in reports.items():
            having.setdefault(report["versions"].get(what, "none"), []).append(name)
        if len(having) > 1:
            told += [{"what": what, "version": version, "hosts": hosts} for version, hosts in sorted(having.items())]
    return told


def fleet(reports, pages):
    """Return what the page shows; C(reports) is each host's report by its name, none where there is none, C(pages) the file of each page."""
    read = {name: report for name, report in reports.items() if report}
    rows = [_row(name, pages[name], report) if report else {"host": name, "read": False, "ok": False, "cpus": ""} for name, report in reports.items()]
    good = sum(row["ok"] for row in rows)
    missing = len(rows) - len(read)
    return {
        "ok": good == len(rows), "hosts": rows, "when": max((report["when"] for report in read.values()), default=""),
        "summary": f"{good} of {len(rows)} hosts are well{f', {missing} could not be read' if missing else ''}.", "versions": _differing(read), "style": STYLE,
    }
