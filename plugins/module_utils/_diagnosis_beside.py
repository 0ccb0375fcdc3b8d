# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with what stands beside the engines: the gateway, the exporter and the monitoring."""
from __future__ import annotations

import time

from ansible_collections.erni_ki.inference.plugins.module_utils import _check_beside, _http
from ansible_collections.erni_ki.inference.plugins.module_utils._check import NotProven
from ansible_collections.erni_ki.inference.plugins.module_utils._finding import finding

WITHOUT_ENGINE = "No engine of these aliases gets requests: whoever asks for one of them is refused."
NO_CERTIFICATE = "The gateway's certificate is not valid, and clients that look at it do not ask."

# What is missing while it does not run or answer.
_LOSS = {
    "gateway": "Whoever asks at its address gets no answer; the engines' own ports go on.",
    "exporter": "Nothing is measured or logged of what the services do, and alerts that need it stay silent.",
    "prometheus": "Nothing is recorded, and no alert is raised.",
    "alertmanager": "Nobody is told of an alert.",
    "node_exporter": "Nothing is known of the disks and the host itself.",
}


def beside(host, result, judged):
    """Add the findings; C(judged) are the services that the proof has looked at."""
    for wanted in host.beside:
        if wanted.service not in judged:
            continue
        checks = {check["name"]: check for check in result.failed if check["service"] == wanted.service}
        if "unit_running" in checks:
            result.add(_stopped(wanted, checks["unit_running"], result))
        elif "api_health" in checks:
            result.add(_silent(wanted, checks, result))
        elif wanted.service == "gateway":
            _engines(wanted, checks.get("aliases_served"), host, result)
            if wanted.tls and "certificate_valid" not in checks:
                result.add(*_expiring(wanted, host.certificate_days))


def _severity(wanted):
    return "critical" if wanted.service == "gateway" else "warning"


def _stopped(wanted, check, result):
    return finding("unit_stopped", _severity(wanted), wanted.service, f"{check['evidence']}: {check['found']}",
                   f"It was stopped, or ends soon after each start. {_LOSS[wanted.service]}", check["hint"], result.of(wanted.service))


# What no program that hangs can be asked.
_OF_ANSWERS = frozenset(("api_health", "aliases_served", "host_only", "keys_asked", "certificate_valid"))


def _silent(wanted, checks, result):
    check = checks["api_health"]
    # Where it listens elsewhere, that is why.
    also = {"listens_only_on"} if "nothing listens" in check["found"] else set()
    seen = f"{check['evidence']}: {check['found']}" + (f"; it listens {checks['listens_only_on']['found']}" if also and "listens_only_on" in checks else "")
    unit = _check_beside.KINDS[wanted.service].unit
    return finding("not_answering", _severity(wanted), wanted.service, seen, f"It runs, and does not answer as it should. {_LOSS[wanted.service]}",
                   f"{check['hint']}; systemctl restart {unit}.", result.of(wanted.service, _OF_ANSWERS | also))


def _engines(wanted, unserved, host, result):
    """Tell of engines that get no requests, in the gateway's own words, unless what is wrong with the engine itself was told before."""
    engines, evidence = _states(wanted)
    out = [engine for engine in engines if not engine.get("up") and not engine.get("drained")]
    ill = {one["service"] for one in result.findings if one["severity"] == "critical"}
    # Only an engine of this host is called as its service.
    told = [engine for engine in out if engine.get("name") in ill or host.engine.problem]
    if unserved:
        names = result.of("gateway", {"aliases_served"})
        drained = [f"{engine.get('name')} is drained" for engine in engines if engine.get("drained")]
        if told and len(told) == len(out) and not drained:
            causes = {engine["name"] for engine in told} | ({"system"} if host.engine.problem else set())
            next(one for one in result.findings if one["severity"] == "critical" and one["service"] in causes)["checks"].extend(names)
            return
        why = "; ".join([_why(engine) for engine in out] + drained) or evidence
        result.add(finding("alias_without_engine", "critical", "gateway", f"{unserved['evidence']}: {unserved['found']}; {why}", WITHOUT_ENGINE,
                           "Mend what the gateway says of each engine. One that is drained is put back by POST /undrain/ENGINE at the gateway's admin port, or"
                           " by taking it out of gateway_drained and running the playbook site.", names))
        return
    for engine in out:
        if engine not in told:
            result.add(finding(
                "engine_taken_out", "warning", "gateway", f"{evidence}: {_why(engine)}",
                "The gateway sends this engine no requests, because it failed for the gateway; others have its share.",
                "It is put back by itself when it has generated a token. Where the engine runs on this host and nothing else is found here, look whether"
                f" it brings one: diagnose_generate: true. Else diagnose the engine's host; journalctl -u {_check_beside.KINDS['gateway'].unit} has the rest."))


def _why(engine):
    return f"{engine.get('name')} is out: {engine.get('why') or 'the gateway does not say why'}"


def _states(wanted):
    """Return (what the gateway knows of each engine, where that was read); nothing where it does not tell."""
    if not wanted.admin_url:
        return [], "the gateway does not say why"
    where = f"{wanted.admin_url}/engines"
    try:
        said = _http.exchange(wanted.admin_url, "/engines", timeout=wanted.timeout).json()
    except _http.HttpError as error:
        return [], f"{where}: {error}"
    return [one for one in said if isinstance(one, dict)] if isinstance(said, list) else [], where


def _expiring(wanted, days):
    try:
        end = _check_beside.validity(_http.certificate(wanted.url, wanted.timeout))[1]
    except (_http.HttpError, NotProven):
        # The proof has just read it; a moment later it is gone with the gateway.
        return []
    left = end - time.time()
    if left >= days * _check_beside.DAY:
        return []
    return [finding("certificate_expires", "warning", "gateway",
                    f"{wanted.url} shows a certificate that is valid for {_check_beside.days(left)} more; {days} are wanted",
                    "The gateway's certificate ends soon; after that, clients that look at it do not ask.",
                    "Renew it, in place of gateway_certificate_file and its key, and systemctl reload erni-ki-gateway. One that the role made is made anew by"
                    " the playbook site when /etc/erni-ki/gateway/self-signed.crt is gone.")]
