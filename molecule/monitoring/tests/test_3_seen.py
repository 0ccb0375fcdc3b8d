# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person gets to see, of the real services after what test_2_gateway.py asked of them: metrics, dashboards, the usage log, the report."""
from __future__ import annotations

import csv
import json
import re
import shlex

import pytest
import yaml
from machine import REPO
from queries import BOARDS, names_in, queries

from ansible_collections.erni_ki.inference.plugins.module_utils._exporter_metrics import METRICS

LISTED = yaml.safe_load((REPO / "tests" / "monitoring" / "metrics.yml").read_text(encoding="utf-8"))
# Asks for everything at once: each command takes a while on an emulated machine.
ASK_ALL = """
import json, sys, urllib.parse, urllib.request
for query in json.loads(sys.argv[1]):
    url = "http://127.0.0.1:9090/api/v1/query?" + urllib.parse.urlencode({"query": query})
    print(len(json.load(urllib.request.urlopen(url, timeout=60))["data"]["result"]))
"""


# Not there while others ask for tokens, as the gateway does.
NEEDLESS = {"erni_ki_service_probe_seconds"}


def of_a_card(name):
    """Whether a metric is there only where the plan gives Ollama a GPU."""
    return name.startswith("erni_ki_gpu_")


def test_every_metric_that_is_asked_for_is_really_there(ask):
    there = set(ask("http://127.0.0.1:9090/api/v1/label/__name__/values")["data"])
    assert {name for name in METRICS if not of_a_card(name)} - there == set()
    assert {name for source in ("vllm", "node") for name in LISTED[source]} - there == set()
    assert [name for name in there if of_a_card(name)] == []


@pytest.mark.parametrize("name", BOARDS)
def test_every_query_of_a_dashboard_finds_something(sh, name):
    asked = [(panel, query) for panel, query in queries(name, instance="sandbox", interval="10m")
             if not any(of_a_card(named) or named in NEEDLESS for named in names_in(query)) and "ALERTS" not in query]
    counts = sh(f"python3 -c {shlex.quote(ASK_ALL)} {shlex.quote(json.dumps([query for panel, query in asked]))}").split()
    assert len(counts) == len(asked) > 15
    assert [panel_query for panel_query, count in zip(asked, counts) if count == "0"] == []


def test_the_usage_log_went_on_after_the_reboot(sh, ask):
    lines = [json.loads(line) for line in sh("cat /var/log/erni-ki/usage.jsonl").splitlines()]
    booted = sh("date -u -d \"$(uptime -s)\" +%FT%TZ")
    assert lines[0]["time"] < booted < lines[-1]["time"]
    assert lines == sorted(lines, key=lambda line: line["time"])
    # What vLLM counted since its start is what the lines of that time add up to.
    of_run = [line["services"]["vllm"] for line in lines if line["time"] > booted and "vllm" in line["services"]]
    counted = of_run[-1]["counters"]
    assert counted["counted"]["requests"] >= 3 and counted["counted"]["requests"] == sum(line.get("requests", 0) for line in of_run)
    assert counted["counted"]["tokens_out"] == sum(line.get("tokens_out", 0) for line in of_run)
    assert counted["cpu"] == pytest.approx(sum(sum(line["cpu_seconds"].values()) for line in of_run), rel=0.01)
    # And it is what the kernel counted, up to the last line.
    [usage] = re.findall(r"usage_usec (\d+)", sh("cat $(find /sys/fs/cgroup/erniki.slice/erniki-vllm.slice -mindepth 1 -maxdepth 1 -name 'docker-*')/cpu.stat"))
    assert 0 < counted["cpu"] <= int(usage) / 1e6
    assert sh("journalctl -u erni-ki-exporter -o cat -g '^usage' -n 1").partition(" ")[2].startswith("{")


def test_a_table_of_what_was_used(play, tmp_path):
    run = play("usage", usage_report_folder=str(tmp_path))
    assert run.code == 0, run.text
    rows = {row["service"]: row for row in csv.DictReader((tmp_path / "usage.csv").read_text(encoding="utf-8").splitlines())}
    assert set(rows) == {"vllm", "ollama"}
    assert all(float(row["cpu_seconds"]) > 0 and int(row["requests"]) > 0 for row in rows.values())


def test_the_report_has_the_proof_and_the_last_hours(play, tmp_path):
    run = play("report", report_folder=str(tmp_path))
    assert run.code == 0, run.text
    [page] = [path.read_text(encoding="utf-8") for path in tmp_path.rglob("sandbox*.html")]
    assert "http://127.0.0.1:9090" in page and page.count("<svg") > 3
    assert "src=" not in page and "<link" not in page
