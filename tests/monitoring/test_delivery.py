# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a metric that turns bad to the message: the real programs, started as the role's drop-ins start them, with what the role configures."""
from __future__ import annotations

import contextlib
import http.server
import json
import re
import socketserver
import threading

import programs
import pytest
from conftest import Written

GOOD = {
    'erni_ki_service_running{service="vllm"}': 1, 'erni_ki_service_running{service="ollama"}': 1, 'vllm:kv_cache_usage_perc{engine="0"}': 0.1,
    "erni_ki_plan_drift": 0,
}
TOKEN = "a-token-that-is-read-from-a-file"


class Standin:
    """Speaks for the exporter and vLLM, and can be told what to say, or to be gone."""

    def __init__(self, port):
        self.port, self.says, self.server = port, dict(GOOD), None

    def start(self):
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                text = "".join(f"{name} {value}\n" for name, value in owner.says.items()).encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *unused):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class Webhook:
    """Keeps what Alertmanager sends to it, with the token."""

    def __init__(self):
        self.alerts, self.tokens = [], set()
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                owner.tokens.add(self.headers["Authorization"])
                owner.alerts += [(alert["labels"]["alertname"], alert["status"], alert) for alert in body["alerts"]]
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *unused):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def got(self, name, status):
        return [alert for alertname, state, alert in self.alerts if (alertname, state) == (name, status)]


class Mail(socketserver.StreamRequestHandler):
    """As much of a mail server as Alertmanager needs."""

    letters: list[str] = []

    def handle(self):
        self.say("220 standin ESMTP")
        while line := self.rfile.readline().decode().strip():
            word = line.split(" ")[0].upper()
            if word == "DATA":
                self.say("354 go on")
                letter = b""
                while not letter.endswith(b"\r\n.\r\n"):
                    letter += self.rfile.readline()
                self.letters.append(letter.decode())
            self.say({"EHLO": "250 standin", "QUIT": "221 bye"}.get(word, "250 ok"))
            if word == "QUIT":
                return

    def say(self, text):
        self.wfile.write(f"{text}\r\n".encode())


def started(written, service, log):
    """Start a program as the unit with the role's drop-in would, in folders of the test."""
    text = (written.units / f"{service}.service.d" / "50-erni-ki.conf").read_text(encoding="utf-8")
    [command] = re.findall(r"^ExecStart=(.+)$", text, re.MULTILINE)
    words = command.replace("/usr/bin/", f"{written.programs}/").replace("/var/lib/erni-ki", str(written.work / "data")).split()
    return programs.running(written.programs, log, *words)


@pytest.fixture(name="site", scope="module")
def fixture_site(tmp_path_factory, bin):
    """Everything at work: (URL of Prometheus, URL of Alertmanager, stand-in, webhook, how to stop node_exporter, how to start it)."""
    written = Written(tmp_path_factory.mktemp("delivery"), bin)
    standin, webhook = Standin(programs.free_port()), Webhook()
    mail = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mail)
    threading.Thread(target=mail.serve_forever, daemon=True).start()
    ports = {name: programs.free_port() for name in ("monitoring_prometheus_port", "monitoring_alertmanager_port", "monitoring_node_exporter_port")}
    written.role(
        "configure", "units", **ports, exporter_port=standin.port, gateway_state="unmanaged", vllm_port=standin.port, monitoring_scrape_interval_seconds=1,
        monitoring_group_wait_seconds=1, monitoring_group_interval_seconds=1, monitoring_webhook_url=webhook.url,
        monitoring_webhook_token_file="/etc/erni-ki/token", monitoring_mail_to=["ops@example.org"], monitoring_mail_from="erni-ki@example.org",
        monitoring_mail_smarthost=f"127.0.0.1:{mail.server_address[1]}", monitoring_mail_require_tls=False)
    (written.work / "credentials").mkdir()
    (written.work / "credentials" / "webhook_token").write_text(TOKEN, encoding="utf-8")
    # The only thing that is not as on a host: nobody waits for minutes.
    rules = written.folder / "rules.yml"
    rules.write_text(re.sub(r"^( +for:) .+$", r"\1 2s", rules.read_text(encoding="utf-8"), flags=re.MULTILINE), encoding="utf-8")
    prometheus, alertmanager = (f"http://127.0.0.1:{ports[name]}" for name in ("monitoring_prometheus_port", "monitoring_alertmanager_port"))
    standin.start()
    log = written.work / "log"
    with contextlib.ExitStack() as stack:
        node = stack.enter_context(contextlib.ExitStack())
        node.enter_context(started(written, "prometheus-node-exporter", log))
        stack.enter_context(started(written, "prometheus-alertmanager", log))
        stack.enter_context(started(written, "prometheus", log))
        for url in (prometheus, alertmanager):
            programs.wait(f"{url} is ready", lambda url=url: programs.get(f"{url}/-/ready"), log)
        yield {"prometheus": prometheus, "alertmanager": alertmanager, "standin": standin, "webhook": webhook, "log": log,
               "node_url": f"http://127.0.0.1:{ports['monitoring_node_exporter_port']}", "node_stop": node.close,
               "node_start": lambda: node.enter_context(started(written, "prometheus-node-exporter", log))}
    standin.stop()
    mail.shutdown()
    webhook.server.shutdown()


def up(site):
    """Return {job: health} of Prometheus's targets."""
    found = programs.get_json(f"{site['prometheus']}/api/v1/targets")
    return {target["labels"]["job"]: target["health"] for target in found["data"]["activeTargets"]}


def held_back(site, name):
    """Return whether Alertmanager has an alert and holds it back for another."""
    found = programs.get_json(f"{site['alertmanager']}/api/v2/alerts?inhibited=true") or []
    return [alert for alert in found if alert["labels"]["alertname"] == name and alert["status"]["inhibitedBy"]]


def test_1_everything_is_scraped_and_nothing_fires(site):
    wanted = {"erni_ki_exporter": "up", "vllm": "up", "node": "up"}
    programs.wait("all targets are up", lambda: up(site) == wanted, site["log"])
    # Until the first scrape nothing was watched, and here nobody waits for minutes before that is told.
    programs.wait("nothing fires", lambda: programs.get_json(f"{site['prometheus']}/api/v1/alerts")["data"]["alerts"] == [], site["log"])


def test_2_node_exporter_gives_what_is_asked_of_it(site, listed):
    text = programs.wait("node_exporter answers", lambda: programs.get(f"{site['node_url']}/metrics"), site["log"])
    assert listed["node"] <= set(re.findall(r"^(node_\w+)", text, re.MULTILINE))


def test_3_a_service_goes_down_and_is_told_of(site):
    webhook = site["webhook"]
    site["standin"].says['erni_ki_service_running{service="vllm"}'] = 0
    [alert, *unused] = programs.wait("the webhook got it", lambda: webhook.got("ErniKiServiceDown", "firing"), site["log"])
    assert alert["labels"]["service"] == "vllm" and alert["labels"]["instance"] == "node1" and alert["labels"]["severity"] == "critical"
    assert alert["annotations"]["summary"] == "vllm of node1 is down"
    assert alert["annotations"]["runbook_url"].endswith("/docs/runbooks.md#ernikiservicedown")
    assert webhook.tokens == {f"Bearer {TOKEN}"}


def test_4_its_details_are_held_back(site):
    site["standin"].says['vllm:kv_cache_usage_perc{engine="0"}'] = 0.99
    programs.wait("the detail is held back", lambda: held_back(site, "ErniKiKvCacheNearFull"), site["log"])
    # What comes after it is delivered, so that it would have been too.
    site["standin"].says["erni_ki_plan_drift"] = 1
    programs.wait("something else is told of", lambda: site["webhook"].got("ErniKiPlanDrift", "firing"), site["log"])
    assert site["webhook"].got("ErniKiKvCacheNearFull", "firing") == []


def test_5_its_end_is_told_of(site):
    site["standin"].says.update(GOOD)
    for name in ("ErniKiServiceDown", "ErniKiPlanDrift"):
        programs.wait(f"the end of {name}", lambda name=name: site["webhook"].got(name, "resolved"), site["log"])
    letters = programs.wait("mail of both", lambda: [text for text in Mail.letters if "RESOLVED" in text] and Mail.letters, site["log"])
    assert any("FIRING" in letter and "ErniKiServiceDown" in letter and "ops@example.org" in letter for letter in letters)


def test_6_an_exporter_goes_away_then_the_host(site):
    webhook = site["webhook"]
    site["standin"].stop()
    try:
        programs.wait("the exporter is missed", lambda: webhook.got("ErniKiExporterGone", "firing"), site["log"])
        assert webhook.got("ErniKiHostDown", "firing") == []
        site["node_stop"]()
        programs.wait("the host is missed", lambda: webhook.got("ErniKiHostDown", "firing"), site["log"])
        programs.wait("its parts are held back", lambda: held_back(site, "ErniKiExporterGone") and held_back(site, "ErniKiNodeExporterGone"), site["log"])
    finally:
        site["standin"].start()
        site["node_start"]()
    programs.wait("it is back", lambda: webhook.got("ErniKiHostDown", "resolved"), site["log"])
    programs.wait("nothing fires", lambda: programs.get_json(f"{site['prometheus']}/api/v1/alerts")["data"]["alerts"] == [], site["log"])
