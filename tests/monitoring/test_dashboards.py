# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The dashboards ask for metrics that exist, in queries that a real Prometheus understands."""
from __future__ import annotations

import pathlib
import re
import urllib.parse

import programs
import pytest
from conftest import ROLE
from queries import BOARDS, board, names_in, queries


@pytest.fixture(name="url", scope="module")
def fixture_url(tmp_path_factory, bin):
    """A Prometheus without a target."""
    folder = tmp_path_factory.mktemp("empty")
    (folder / "prometheus.yml").write_text("scrape_configs: []\n", encoding="utf-8")
    address = f"127.0.0.1:{programs.free_port()}"
    log = folder / "log"
    with programs.running(bin, log, bin / "prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
                          f"--web.listen-address={address}"):
        programs.wait("Prometheus is ready", lambda: programs.get(f"http://{address}/-/ready"), log)
        yield f"http://{address}"


def test_the_role_provisions_each():
    assert BOARDS == ["erni-ki-fleet.json", "erni-ki-host.json"]


@pytest.mark.parametrize("name", BOARDS)
def test_every_metric_exists(name, listed):
    known = set().union(*listed.values())
    assert {panel: missing for panel, query in queries(name) if (missing := names_in(query) - known)} == {}


@pytest.mark.parametrize("name", BOARDS)
def test_prometheus_understands_every_query(name, url):
    wrong = {}
    for panel, query in queries(name):
        answer = programs.get_json(f"{url}/api/v1/query?{urllib.parse.urlencode({'query': query})}")
        if not answer or answer["status"] != "success":
            wrong[panel] = query
    assert wrong == {}
    assert programs.get_json(f"{url}/api/v1/query?query=rate(") is None


@pytest.mark.parametrize("name", BOARDS)
def test_panels_are_in_order(name):
    """Nothing on top of each other, numbers given once, every unit one of Grafana's, every legend a label of the query or a word."""
    panels = board(name)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = {}
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]
        if panel["type"] != "row":
            assert panel["fieldConfig"]["defaults"]["unit"] in ("none", "s", "bytes", "percentunit", "celsius", "watt"), panel["title"]
            assert panel["datasource"]["uid"] == "${datasource}" and panel["targets"], panel["title"]


def test_every_metric_of_ours_is_seen(listed):
    """What the exporter and the gateway tell is on a dashboard or in a rule; all of the gateway's is on a dashboard."""
    shown = set().union(*(names_in(query) for name in BOARDS for _panel, query in queries(name)))
    in_rules = set(re.findall(r"erni_ki_\w+", (ROLE / "templates" / "rules.yml.j2").read_text(encoding="utf-8")))
    assert listed["exporter"] - shown - in_rules <= {"erni_ki_plan_info"}
    assert listed["gateway"] and listed["gateway"] - shown == set()


def test_the_fleet_has_a_row_for_each_host_with_its_gateway():
    """Each query is one number for each host, and each has a column of its own."""
    [panel] = [panel for panel in board("erni-ki-fleet.json")["panels"] if panel["title"] == "Gateways"]
    assert all(" by (instance) " in target["expr"] and target["format"] == "table" and target["instant"] for target in panel["targets"])
    merged, organized = panel["transformations"]
    columns = {f"Value #{target['refId']}" for target in panel["targets"]}
    assert merged["id"] == "merge" and columns == set(organized["options"]["renameByName"]) - {"instance"}
    named = set(organized["options"]["renameByName"].values())
    assert {override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]} <= named and len(named) == len(columns) + 1


def test_grafana_is_told_of_them(written):
    written.role("grafana")
    assert sorted(path.name for path in (written.folder / "dashboards").iterdir()) == BOARDS
    told = {path.parent.name: path.read_text(encoding="utf-8") for path in written.grafana.glob("*/erni-ki.yml")}
    assert f"path: {written.folder / 'dashboards'}" in told["dashboards"] and "http://127.0.0.1:9090" in told["datasources"]
    assert "changed=0" in written.role("grafana")


def test_grafana_of_somebody_elses_prometheus_keeps_its_source(written):
    written.role("grafana", monitoring_external=True)
    assert [path.parent.name for path in written.grafana.glob("*/erni-ki.yml")] == ["dashboards"]


def test_without_grafana_nothing_is_written(written):
    written.role("grafana", __monitoring_grafana_folder=str(pathlib.Path(written.work) / "nowhere"))
    assert not (written.folder / "dashboards").exists() and not (written.work / "nowhere").exists()
