# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report's pages and the role that writes them: self-contained, escaped whatever a host says, compared with the last ones, and no host changes."""
from __future__ import annotations

import json
import sys

import pytest
import yaml

from ansible_collections.erni_ki.inference.plugins.plugin_utils._report import report
from ansible_collections.erni_ki.inference.plugins.plugin_utils._report_fleet import fleet
from ansible_collections.erni_ki.inference.tests.unit.plugins import report_sample as sample
from ansible_collections.erni_ki.inference.tests.unit.roles.page import Page
from ansible_collections.erni_ki.inference.tests.unit.roles.render import REPO, play
from ansible_collections.erni_ki.inference.tests.unit.roles.report_page import draw

FINDINGS = [sample.finding("kv_cache_too_large", "critical", checks=["vllm: api_health"]), sample.finding("swap_in_use", "info", "system")]
HOSTILE = sample.spoilt(sample.raw(findings=FINDINGS, failing=[("vllm", "memory_limit")]))
MADE = {
    "good": report(sample.raw()), "ill": report(sample.raw(prometheus=sample.REFUSED, failing=[("vllm", "memory_limit")], findings=FINDINGS)),
    "hostile": report(HOSTILE, json.dumps({**report(sample.raw()), "when": "yesterday" + sample.MARKUP})),
    "unreachable": report({**HOSTILE, "prometheus": {"status": -1, "msg": sample.MARKUP}, "prometheus_url": "http://" + sample.MARKUP}),
}
FLEETS = {"fleet": fleet({**MADE, sample.MARKUP: {}}, {name: f"{name}{sample.MARKUP}.html" for name in MADE})}


@pytest.fixture(name="pages", scope="module")
def fixture_pages(tmp_path_factory):
    """The page of each case, as Ansible's own template module writes it."""
    folder = tmp_path_factory.mktemp("report")
    draw(folder, folder, MADE, FLEETS)
    return {name: (folder / f"{name}.html").read_text(encoding="utf-8") for name in (*MADE, *FLEETS)}


@pytest.mark.parametrize("name", [*MADE, *FLEETS])
def test_the_page_is_whole_and_by_itself(pages, name):
    page = Page(pages[name])
    assert pages[name].startswith("<!DOCTYPE html>")
    # Nothing is fetched, nothing runs; the only links are those to the hosts' own pages.
    assert [value for key, value in page.attributes if key in ("src", "onload", "onerror")] == [] and "<script" not in pages[name]
    assert all(value.endswith(".html") and ":" not in value for key, value in page.attributes if key == "href")
    assert "url(" not in pages[name] and "@import" not in pages[name] and "@media print" in pages[name] and "prefers-color-scheme: dark" in pages[name]
    assert any(key == "name" and value == "viewport" for key, value in page.attributes)


@pytest.mark.parametrize("name", [*MADE, *FLEETS])
def test_what_hosts_say_is_text(pages, name):
    """No value becomes an element, an attribute or a template; what is told is told as it is."""
    page = Page(pages[name])
    assert {key for key, _value in page.attributes} <= {
        "lang", "charset", "name", "content", "class", "viewbox", "role", "aria-label", "xmlns", "x", "y", "x1", "x2", "y1", "y2", "width", "height", "points",
        "text-anchor", "tabindex", "scope", "href", "data-name", "colspan"}
    assert set(page.tags) <= {
        "html", "head", "meta", "title", "style", "body", "header", "main", "section", "article", "h1", "h2", "h3", "p", "br", "strong", "ul", "li", "div",
        "span",
        "table", "thead", "tr", "th", "td", "svg", "rect", "text", "line", "polyline", "a"}
    if name in ("hostile", "unreachable", "fleet"):
        assert any(sample.MARKUP in word for word in page.words) and "6 * 7" in pages[name] and ">42<" not in pages[name]
        for raw in ("<script", "<b>", "'x')</script>\"&{{"):
            assert raw not in pages[name]


def test_every_hostile_name_is_told(pages):
    words = "\n".join(Page(pages["hostile"]).words)
    for name in ("Report on node1", "llama3.2:3b", "Ollama's model llama3.2:3b", "Docker Engine was 26.1.5 (distribution), is 26.1.5 (distribution",
                 "The cause of swap_in_use.", "Quadro P2200",
                 "Expected: expected of memory_limit", "✓ slice"):
        assert name + sample.MARKUP in words, name


def test_what_is_in_it(pages):
    words = Page(pages["ill"]).words
    assert "Something is wrong." in words and 'class="verdict failed"' in pages["ill"] and 'class="verdict"' in pages["good"]
    assert any(word.startswith("critical: vLLM, kv_cache_too_large") for word in words) and any(word.startswith("failed: vLLM, memory_limit") for word in words)
    assert any(word.endswith("none answers at http://127.0.0.1:9090 on the host.") for word in words)
    assert pages["good"].count("<svg") == 11 and pages["ill"].count("<svg") == 4 and "This is the first report of this host." in words
    assert "All is as planned." in Page(pages["good"]).words and "weights-unknown" in pages["good"]
    assert "3 of 5 hosts" not in pages["fleet"] and "1 of 5 hosts are well, 1 could not be read." in Page(pages["fleet"]).words


# What the modules would return, by their names; a host has its own in the folder of its results.
MODULE = """#!/usr/bin/python
# WANT_JSON
import json, os, sys
with open(os.path.join({folder!r}, os.environ["REPORT_HOST"] + ".json")) as results:
    print(json.dumps(json.load(results)[{name!r}]))
"""
MODULES = ("cpu_topology_info", "container_engine_info", "gpu_info", "colocation_info", "diagnosis_info")


class Run:
    """The role on hosts of which each is this machine, with the modules that would read it replaced by what they would return there."""

    def __init__(self, folder):
        self.folder, self.hosts = folder, {}
        self.home = folder / "collections" / "ansible_collections" / "erni_ki" / "inference"
        (self.home / "plugins" / "modules").mkdir(parents=True)
        for name in ("filter", "plugin_utils", "module_utils"):
            (self.home / "plugins" / name).symlink_to(REPO / "plugins" / name)
        (self.home / "galaxy.yml").symlink_to(REPO / "galaxy.yml")
        for name in MODULES:
            (self.home / "plugins" / "modules" / f"{name}.py").write_text(MODULE.format(folder=str(folder), name=name), encoding="utf-8")
        (self.home / "roles").mkdir()
        # The defaults of the others say what stands beside the engines.
        for name in ("report", "gateway", "exporter", "monitoring"):
            (self.home / "roles" / name).symlink_to(REPO / "roles" / name)

    def host(self, name, raw, **variables):
        file = f"host{len(self.hosts)}"
        (self.folder / f"{file}.json").write_text(json.dumps({
            "cpu_topology_info": {"cpu_topology": raw["topology"]}, "container_engine_info": {"container_engine": raw["engine"]},
            "gpu_info": {"gpu": raw["gpu"]}, "colocation_info": raw["proof"], "diagnosis_info": raw["diagnosis"]}), encoding="utf-8")
        (self.folder / f"{file}.plan").write_text(raw["plan"], encoding="utf-8")
        # Nothing listens there.
        self.hosts[name] = {"__report_plan_path": str(self.folder / f"{file}.plan"), "vllm_port": 1, "ollama_port": 1, "report_host": file,
                            "report_prometheus_url": "http://127.0.0.1:1", **variables}

    def play(self, *words, code=0):
        (self.folder / "inventory.yml").write_text(yaml.safe_dump({"all": {"hosts": self.hosts, "vars": {
            "ansible_connection": "local", "ansible_python_interpreter": sys.executable, "report_folder": str(self.folder / "reports")}}}), encoding="utf-8")
        # Variables of a role are above those of the inventory.
        (self.folder / "playbook.yml").write_text(yaml.safe_dump([{
            "hosts": "all", "gather_facts": False, "environment": {"REPORT_HOST": "{{ report_host }}"},
            "tasks": [{"name": "Report", "ansible.builtin.include_role": {"name": "erni_ki.inference.report"}, "vars": {
                "__report_plan_path": "{{ hostvars[inventory_hostname]['__report_plan_path'] }}"}}]}]), encoding="utf-8")
        return play(self.folder, *words, collections=self.folder / "collections", code=code)

    def page(self, name):
        return (self.folder / "reports" / name).read_text(encoding="utf-8")


def test_one_host_and_what_changed_since(tmp_path):
    run = Run(tmp_path)
    run.host("node1", sample.raw())
    # In check mode, too, there is a page.
    said = run.play("--check")
    assert "proof ok: 18 checks passed" in said and "changed=0" in said
    kept = json.loads(run.page("node1.json"))
    assert kept["host"] == "node1" and kept["ok"] and "series" not in kept and sorted(path.name for path in (tmp_path / "reports").iterdir()) == [
        "node1.html", "node1.json"]
    assert (tmp_path / "reports").stat().st_mode & 0o777 == 0o700 and (tmp_path / "reports" / "node1.html").stat().st_mode & 0o777 == 0o600
    words = Page(run.page("node1.html")).words
    assert "This is the first report of this host." in words
    assert any("Prometheus at http://127.0.0.1:1 does not answer: " in word and "refused" in word for word in words)
    run.host("node1", sample.raw(vllm_memory_limit_mib=8192))
    run.play()
    words = Page(run.page("node1.html")).words
    assert f"Since the last report of {kept['when']}:" in words and "Plan: vLLM: memory limit was 6144, is 8192 MiB" in words


def test_a_fleet_with_hostile_names(tmp_path):
    run = Run(tmp_path)
    run.host("node1", sample.raw())
    run.host("../up{{ 6 * 7 }}<b>", sample.spoilt(sample.raw(findings=FINDINGS)))
    bare = {"msg": "There is no plan in /etc/erni-ki/plan.json, so there is nothing to judge this host against.", "failed": True}
    run.host("bare", {**sample.raw(), "plan": "", "proof": bare, "diagnosis": sample.diagnosis([sample.finding("no_plan", "critical", "system")])})
    run.hosts["gone"] = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1, "report_host": "gone"}
    said = run.play(code=4)
    assert "all of it: " in said and "1 finding: 1 critical" in said
    assert sorted(path.name for path in (tmp_path / "reports").iterdir()) == [
        ".._up___6___7____b_.html", ".._up___6___7____b_.json", "bare.html", "bare.json", "index.html", "node1.html", "node1.json"]
    index = Page(run.page("index.html"))
    assert "1 of 4 hosts are well, 1 could not be read." in index.words and "../up{{ 6 * 7 }}<b>" in index.words
    assert sorted(value for key, value in index.attributes if key == "href") == [".._up___6___7____b_.html", "bare.html", "node1.html"]
    assert any(word.startswith("Proof: not made: There is no plan in /etc/erni-ki/plan.json, so") for word in Page(run.page("bare.html")).words)
    assert "../up{{ 6 * 7 }}<b>" in json.loads(run.page(".._up___6___7____b_.json"))["host"]
    assert f"The cause of swap_in_use.{sample.MARKUP}" in Page(run.page(".._up___6___7____b_.html")).words
