# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role's tasks write for one host, for a fleet and for somebody else's Prometheus, judged by the programs of both Debian releases."""
from __future__ import annotations

import re
import socket

import programs
import pytest

from ansible_collections.erni_ki.inference.tests.unit.roles.render import REPO

PLAN = {"system": {"cpuset": "7,15"}}


def targets(document):
    """Return {job: {host: address}} of a scrape configuration."""
    return {job["job_name"]: {entry["labels"]["instance"]: entry["targets"][0] for entry in job["static_configs"]} for job in document["scrape_configs"]}


def drop_in(written, service):
    text = (written.units / f"{service}.service.d" / "50-erni-ki.conf").read_text(encoding="utf-8")
    return dict(line.split("=", 1) for line in text.splitlines() if re.match(r"[A-Z]\w+=.", line))


def test_check_mode_first_then_twice(written):
    said = written.role("configure", "units", words=["--check", "--diff"], plan_decided=PLAN)
    assert "failed=0" in said and not written.folder.exists() and list(written.units.iterdir()) == []
    said = written.role("configure", "units", plan_decided=PLAN)
    assert sorted(path.name for path in written.folder.iterdir()) == ["alertmanager.yml", "prometheus.yml", "rules.yml"]
    assert written.load("prometheus.yml")["global"]["scrape_timeout"] == "15s"
    assert "changed=0" in written.role("configure", "units", plan_decided=PLAN)


def test_the_units_are_held_to_the_reserved_cpus_on_loopback(written):
    written.role("units", plan_decided=PLAN)
    found = {service: drop_in(written, service) for service in programs.PACKAGES}
    for service, lines in found.items():
        assert lines["AllowedCPUs"] == lines["CPUAffinity"] == "7,15" and int(lines["MemoryMax"].removesuffix("M")) <= 512, service
        assert "--web.listen-address=127.0.0.1:" in lines["ExecStart"], service
    assert "--storage.tsdb.retention.size=2048MB" in found["prometheus"]["ExecStart"] and found["prometheus"]["StateDirectory"] == "erni-ki-prometheus"
    assert found["prometheus-alertmanager"]["ExecStart"].endswith("--cluster.listen-address=")
    assert "LoadCredential" not in found["prometheus-alertmanager"]
    assert "--no-collector.systemd" in found["prometheus-node-exporter"]["ExecStart"]


def test_a_fleet_is_scraped_by_the_hosts_of_its_group(written):
    private = {"exporter_bind_address": "0.0.0.0", "vllm_bind_address": "0.0.0.0"}
    hosts = {"node1": {**private, "ansible_host": "192.0.2.1"}, "node2": {**private, "ansible_host": "192.0.2.2"}}
    written.role("configure", hosts=hosts, group=["watch"])
    assert targets(written.load("prometheus.yml")) == {
        "erni_ki_exporter": {"node1": "192.0.2.1:9835", "node2": "192.0.2.2:9835"}, "erni_ki_gateway": {"node1": "192.0.2.1:9836", "node2": "192.0.2.2:9836"},
        "node": {"node1": "192.0.2.1:9100", "node2": "192.0.2.2:9100", "watch": "127.0.0.1:9100"},
        "vllm": {"node1": "192.0.2.1:8000", "node2": "192.0.2.2:8000"}}


def test_somebody_elses_prometheus_gets_rules_and_targets(written, usual, bin):
    written.role("configure", "units", monitoring_external=True)
    assert sorted(path.name for path in written.folder.iterdir()) == ["rules.yml", "scrape.yml"]
    assert targets(written.load("scrape.yml")) == targets(usual.load("prometheus.yml")) and written.text("rules.yml") == usual.text("rules.yml")
    assert [path.name for path in written.units.iterdir()] == ["prometheus-node-exporter.service.d"]
    config = written.work / "theirs.yml"
    config.write_text(f"rule_files: [{written.folder}/rules.yml]\nscrape_config_files: [{written.folder}/scrape.yml]\n", encoding="utf-8")
    assert "30 rules found" in programs.run(bin, "promtool", "check", "config", config).stdout


@pytest.mark.parametrize("variables, suites_that_read_it", [
    ({"monitoring_mail_to": ["a@example.org", "b@example.org"], "monitoring_mail_from": "c@example.org", "monitoring_mail_smarthost": "mail.example.org:587",
      "monitoring_mail_username": "erni-ki", "monitoring_mail_password_file": "/etc/erni-ki/mail",
      "monitoring_webhook_url": "https://example.org/hook?a=1&b=\"2\"", "monitoring_webhook_token_file": "/etc/erni-ki/token"}, programs.SUITES),
    ({"monitoring_webhook_url_file": "/etc/erni-ki/hook"}, ("trixie",)),
])
def test_receivers_are_as_each_release_reads_them(written, suites, variables, suites_that_read_it):
    written.role("configure", "units", **variables)
    for suite, folder in suites.items():
        said = programs.run(folder, "amtool", "check-config", written.folder / "alertmanager.yml", code=0 if suite in suites_that_read_it else 1).stdout
        assert ("SUCCESS" in said) == (suite in suites_that_read_it)
    secrets = {value for name, value in variables.items() if name.endswith("_file")}
    text = (written.units / "prometheus-alertmanager.service.d" / "50-erni-ki.conf").read_text(encoding="utf-8")
    assert set(re.findall(r"^LoadCredential=\w+:(.+)$", text, re.MULTILINE)) == secrets
    # Each credential is read under the name that systemd gives it.
    names = set(re.findall(r"^LoadCredential=(\w+):", text, re.MULTILINE))
    assert set(re.findall(r"_file: " + re.escape(str(written.work / "credentials")) + r"/(\w+)", written.text("alertmanager.yml"))) == names


@pytest.mark.parametrize("suite", programs.SUITES)
def test_every_release_reads_the_usual_configuration(suite, suites, usual):
    assert "30 rules found" in programs.run(suites[suite], "promtool", "check", "config", usual.folder / "prometheus.yml").stdout
    programs.run(suites[suite], "amtool", "check-config", usual.folder / "alertmanager.yml")


def test_a_threshold_is_a_variable(written):
    written.role("configure", monitoring_alert_memory_percent=80, monitoring_alert_off_plan_cpus=0.5)
    text = written.text("rules.yml")
    assert "> 80\n" in text and "80 % of the limit" in text and "> 0.5\n" in text and "0.5 are allowed" in text


def test_secrets_that_others_may_read_are_refused_and_ports_that_somebody_has(written, tmp_path):
    secret = tmp_path / "secret"
    asked = {"monitoring_webhook_url": "http://127.0.0.1/", "monitoring_webhook_token_file": str(secret), "plan_decided": PLAN}
    assert "is not on the host" in written.role("preflight", code=2, **asked)
    secret.write_text("x", encoding="utf-8")
    secret.chmod(0o644)
    assert f"chmod 600 {secret}" in written.role("preflight", code=2, **asked)
    secret.chmod(0o600)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        said = written.role("preflight", code=2, monitoring_alertmanager_port=port, **asked)
        assert f"monitoring_alertmanager_port is {port}, and somebody listens there" in " ".join(said.split())
    assert not written.folder.exists() and list(written.units.iterdir()) == []


def test_absent_leaves_nothing_of_ours_and_what_others_made(written):
    theirs = written.units / "prometheus.service.d" / "theirs.conf"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("[Service]\n", encoding="utf-8")
    written.role("configure", "units", "grafana")
    said = written.role("absent")
    assert "failed=0" in said and not written.folder.exists()
    assert [path for path in written.units.rglob("*") if path.is_file()] == [theirs] and [path.name for path in written.units.iterdir()] == [theirs.parent.name]
    assert [path for path in written.grafana.rglob("*") if path.is_file()] == []
    assert "changed=0" in written.role("absent")


def test_every_alert_of_the_inhibitions_exists(usual, rules):
    text = usual.text("alertmanager.yml")
    assert set(re.findall(r"ErniKi\w+", text)) - {"ErniKi"} <= set(rules)


def test_the_packages_are_those_that_are_tested():
    text = (REPO / "roles" / "monitoring" / "tasks" / "preflight.yml").read_text(encoding="utf-8")
    assert ", ".join(programs.PACKAGES) in text
