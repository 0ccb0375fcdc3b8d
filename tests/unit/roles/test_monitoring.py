# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role monitoring refuses before it changes anything, and which programs it takes for its own."""
from __future__ import annotations

import base64

import pytest

from ansible_collections.erni_ki.inference.tests.unit.roles.render import REPO, render

MAIL = {"monitoring_mail_to": ["a@example.org"], "monitoring_mail_from": "b@example.org", "monitoring_mail_smarthost": "mail.example.org:587"}


def packages(*names):
    return {"__monitoring_found": {"stdout_lines": [f"{name} installed" for name in names] + ["prometheus-x config-files"]}}


def noted(*names):
    return {"__monitoring_noted": {"content": base64.b64encode("\n".join(names).encode()).decode()}}


BOTH = ("prometheus", "prometheus-alertmanager")
# {case: (variables, words of the one refusal; None where there is none)}
CASES = {
    "usual": ({}, None),
    "node_exporter of somebody else": (packages("prometheus-node-exporter"), None),
    "a second run": ({**packages(*BOTH, "prometheus-node-exporter"), **noted(*BOTH, "prometheus-node-exporter")}, None),
    "Prometheus of somebody else": (
        packages(*BOTH), ["has prometheus and prometheus-alertmanager, not from this role", "monitoring_external: true", "apt-get purge"]),
    "the same, and external": ({**packages(*BOTH), "monitoring_external": True}, None),
    "external after its own": ({**packages(*BOTH), **noted(*BOTH), "monitoring_external": True}, ["monitoring_state: absent once"]),
    "port": ({"monitoring_prometheus_port": 0}, ["monitoring_prometheus_port", "1 to 65535"]),
    "one port twice": ({"monitoring_prometheus_port": 9100}, ["are the same", "9100"]),
    "mail": (MAIL, None),
    "mail from nobody": ({**MAIL, "monitoring_mail_from": ""}, ["needs monitoring_mail_from and monitoring_mail_smarthost"]),
    "mail server without a port": ({**MAIL, "monitoring_mail_smarthost": "mail.example.org"}, ["host:port"]),
    "mail with half a login": ({**MAIL, "monitoring_mail_username": "x"}, ["go together"]),
    "webhook": ({"monitoring_webhook_url": "https://example.org/x"}, None),
    "no URL": ({"monitoring_webhook_url": "example.org"}, ["http:// or https://"]),
    "two URLs": ({"monitoring_webhook_url": "https://example.org", "monitoring_webhook_url_file": "/x"}, ["exclude each other"]),
    "a token for nobody": ({"monitoring_webhook_token_file": "/x"}, ["needs monitoring_webhook_url"]),
    "no retention": ({"monitoring_retention_size_mib": 0, "monitoring_retention_days": 0}, ["monitoring_retention_size_mib, monitoring_retention_days"]),
}


@pytest.fixture(name="rendered", scope="module")
def fixture_rendered(tmp_path_factory):
    cases = [{"role_path": str(REPO / "roles" / "monitoring"), **case} for case, unused in CASES.values()]
    facts = {"os_family": "Debian", "distribution": "Debian", "distribution_version": "13.0", "architecture": "x86_64"}
    return dict(zip(CASES, render(tmp_path_factory.mktemp("monitoring"), "monitoring", ["__monitoring_problems", "__monitoring_run"], cases, facts)))


@pytest.mark.parametrize("name", CASES)
def test_what_is_refused(rendered, name):
    words = CASES[name][1]
    found = [text for text in rendered[name]["__monitoring_problems"] if text]
    assert len(found) == (0 if words is None else 1) and all(word in found[0] for word in words or ()), found


@pytest.mark.parametrize("name, run", [
    ("usual", [*BOTH, "prometheus-node-exporter"]), ("a second run", [*BOTH, "prometheus-node-exporter"]), ("node_exporter of somebody else", list(BOTH)),
    ("the same, and external", ["prometheus-node-exporter"]),
])
def test_only_what_this_role_installed_is_configured(rendered, name, run):
    assert rendered[name]["__monitoring_run"] == run


@pytest.fixture(name="elsewhere", scope="module")
def fixture_elsewhere(tmp_path_factory):
    """The same on other systems."""
    def problems(case, **facts):
        case = {"role_path": str(REPO / "roles" / "monitoring"), **case}
        return [text for text in render(tmp_path_factory.mktemp("other"), "monitoring", ["__monitoring_problems"], [case], facts)[0][
            "__monitoring_problems"] if text]
    return problems


def test_another_family_is_refused_and_told_what_works(elsewhere):
    [text] = elsewhere({}, os_family="RedHat", distribution="Rocky", distribution_version="9.4")
    assert "this host is RedHat" in text and "monitoring_external: true and monitoring_node_exporter: false" in text
    assert elsewhere({"monitoring_external": True, "monitoring_node_exporter": False}, os_family="RedHat", distribution="Rocky", distribution_version="9") == []


def test_an_old_alertmanager_reads_no_url_from_a_file(elsewhere):
    [text] = elsewhere({"monitoring_webhook_url_file": "/x"}, os_family="Debian", distribution="Debian", distribution_version="12.11")
    assert "0.26" in text and "Debian 12.11" in text
