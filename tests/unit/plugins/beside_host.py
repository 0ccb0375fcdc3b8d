# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A recorded host with the units beside its engines, and the answers of a gateway and an exporter; right in everything but what a test changes."""
from __future__ import annotations

import datetime
import json
import ssl

from ansible_collections.erni_ki.inference.plugins.module_utils import _check_beside
from ansible_collections.erni_ki.inference.tests.unit.plugins.loopback_services import Services

PIDS = {"gateway": 4000, "exporter": 4100, "prometheus": 4200, "alertmanager": 4300, "node_exporter": 4400}
LIMITS = {"gateway": 1024, "exporter": 128, "prometheus": 512, "alertmanager": 128, "node_exporter": 128}
STATE = {"service": "vllm", "up": True, "drained": False, "checked": True, "in_flight": 0, "queued": 0, "limit": 4}


class Beside:
    """C(front) is the gateway's address for clients, C(admin) its admin port, C(others) the rest."""

    def __init__(self, host):
        self.host = host
        self.front, self.admin, self.others = Services(), Services(), Services()
        self.engines = {"vllm": dict(STATE, name="vllm"), "ollama": dict(STATE, name="ollama", service="ollama")}
        self.aliases = {"chat": ["ollama", "vllm"], "batch": ["vllm", "ollama"]}
        for path in ("/ollama/api/version", "/vllm/version"):
            self.front.answers[path] = (401, "{}")
        self.others.answers.update({"/metrics": (200, "erni_ki_plan_drift 0\n"), "/-/ready": (200, "Ready.\n")})
        self.options = {
            "gateway": {"url": self.front.url, "admin_url": self.admin.url, "listens": [self.place(self.front), self.place(self.admin)]},
            **{name: {"url": self.others.url, "listens": [self.place(self.others)]} for name in PIDS if name != "gateway"}}
        for name, one in self.options.items():
            one.update(service=name, memory_mib=LIMITS[name])
            kind = _check_beside.KINDS[name]
            host.unit(kind.unit, PIDS[name], name.replace("gateway", "nginx")[:15], LIMITS[name], self.places(name),
                      kind.file.replace(f"/etc/systemd/system/{kind.unit}", ""))
        self.say()

    @staticmethod
    def place(services):
        return f"127.0.0.1:{services.port}"

    def places(self, name):
        return [("127.0.0.1", int(place.rpartition(":")[2])) for place in self.options[name]["listens"]]

    def say(self):
        """Let the gateway tell what C(engines) are like now."""
        usable = {name: engine["up"] and not engine["drained"] for name, engine in self.engines.items()}
        aliases = {alias: any(usable[name] for name in names) for alias, names in self.aliases.items()}
        engines = {name: "drained" if engine["drained"] else "up" if engine["up"] else "down" for name, engine in self.engines.items()}
        self.front.answers["/healthz"] = (200 if all(aliases.values()) else 503, json.dumps({"engines": engines, "aliases": aliases, "ok": True}))
        self.admin.answers["/engines"] = (200, json.dumps(list(self.engines.values())))

    def out(self, *names, why="accepts no connection: connection refused"):
        for name in names:
            self.engines[name].update(up=False, why=why)
        self.say()

    def stop(self, name):
        """Let a unit end."""
        group = f"/system.slice/{_check_beside.KINDS[name].unit}"
        for controller in ("cpuset", "memory", "devices", "systemd"):
            place = self.host.root / f"{self.host.folder(group, controller)}/cgroup.procs".lstrip("/")
            if place.exists():
                place.write_text("", encoding="utf-8")

    def secure(self, folder, **validity):
        """Let the gateway speak TLS, with a certificate that begins and ends so many days from now."""
        begin, end = validity.get("begin", -1), validity.get("end", 365)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate(folder, begin, end))
        self.front.server.socket = context.wrap_socket(self.front.server.socket, server_side=True)
        self.options["gateway"]["url"] = f"https://127.0.0.1:{self.front.port}"

    def wanted(self, *names, **changes):
        """Return what a module makes of its options."""
        chosen = [{"required": True, "admin_url": None, "keys": False, **self.options[name], **changes} for name in names or self.options]
        return _check_beside.wanted({"beside": chosen, "timeout": 10})

    def close(self):
        for services in (self.front, self.admin, self.others):
            services.close()


def certificate(folder, begin, end):
    """Write a certificate and its key, and return the file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gateway")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(x509.random_serial_number())
    made = made.not_valid_before(now + datetime.timedelta(days=begin)).not_valid_after(now + datetime.timedelta(days=end)).sign(key, hashes.SHA256())
    path = folder / "gateway.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return path
