# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checks of what stands beside the engines: units of systemd on the system's CPUs, and what the gateway lets through.

The kernel tells what runs, where, and on what it listens; the rest is asked of the programs themselves.
"""
from __future__ import annotations

import calendar
import os
import re
import time
from typing import NamedTuple

from ansible_collections.erni_ki.inference.plugins.module_utils import _cgroup, _http, _procs
from ansible_collections.erni_ki.inference.plugins.module_utils._check import MIB, NAMED, Check, NotProven, NotRunning, lasting, mib, named, shown
from ansible_collections.erni_ki.inference.plugins.module_utils._check_container import addresses, listening
from ansible_collections.erni_ki.inference.plugins.module_utils._cpulist import format_cpulist, parse_cpulist

# Until a gateway sends an engine requests again that has just been started: its next look, and a token.
SETTLES = 60
PAUSE = 3.0

DAY = 86400


class Kind(NamedTuple):
    """A unit, the file that makes it this collection's, and the path at which its program says that it is well."""

    unit: str
    file: str
    path: str


def _kind(unit, file, path):
    return Kind(f"{unit}.service", f"/etc/systemd/system/{unit}.service{file}", path)


KINDS = {
    "gateway": _kind("erni-ki-gateway", "", "/healthz"),
    "exporter": _kind("erni-ki-exporter", "", "/metrics"),
    "prometheus": _kind("prometheus", ".d/50-erni-ki.conf", "/-/ready"),
    "alertmanager": _kind("prometheus-alertmanager", ".d/50-erni-ki.conf", "/-/ready"),
    "node_exporter": _kind("prometheus-node-exporter", ".d/50-erni-ki.conf", "/metrics"),
}

# What the gateway offers to its own host alone, and what it offers to nobody without a key. None of it changes anything.
HOST_ONLY = ("/metrics", "/engines", "/drain/")
WITH_KEY = ("/v1/models", "/ollama/api/version", "/vllm/version")


class Wanted(NamedTuple):
    """What is expected of one unit."""

    service: str
    url: str
    listens: tuple
    required: bool = True
    memory_mib: int | None = None
    admin_url: str | None = None
    keys: bool = False
    timeout: float = 30.0

    @property
    def tls(self):
        return self.url.startswith("https:")

    def ask(self, path):
        return _http.exchange(self.url, path, timeout=self.timeout, tls=_http.unverified_tls() if self.tls else None)


def options():
    """Return what the modules take for each unit."""
    return {
        "service": {"type": "str", "required": True, "choices": list(KINDS)},
        "required": {"type": "bool", "default": True},
        "memory_mib": {"type": "int"},
        "listens": {"type": "list", "elements": "str", "required": True},
        "url": {"type": "str", "required": True},
        "admin_url": {"type": "str"},
        "keys": {"type": "bool", "default": False, "no_log": False},
    }


def wanted(params):
    """Return a Wanted for each unit of a module's options; ValueError, in words, for what is none."""
    found = []
    for one in params["beside"] or []:
        unit = Wanted(**{**one, "url": one["url"].rstrip("/"), "listens": tuple(one["listens"])}, timeout=params["timeout"])
        try:
            _http.split_url(unit.url, tls=unit.tls)
            if unit.admin_url:
                _http.split_url(unit.admin_url)
            for place in unit.listens:
                _place(place)
        except (_http.HttpError, ValueError) as error:
            raise ValueError(f"beside, {unit.service}: {error}") from error
        found.append(unit)
    return found


def _place(text):
    """Return (address, port) of ADDRESS:PORT, an address of IPv6 in brackets."""
    address, colon, port = text.rpartition(":")
    if not colon or not address or not port.isdigit():
        raise ValueError(f"'{text}' is not ADDRESS:PORT, such as 127.0.0.1:8080")
    return address.strip("[]"), port


class Unit:
    """A unit of systemd, as the kernel shows it."""

    def __init__(self, wanted_, root="/", groups=None):
        self.wanted = wanted_
        self.service = wanted_.service
        self.kind = KINDS[wanted_.service]
        self.name = self.kind.unit
        self.root = root
        self.groups = groups

    def there(self):
        """Return whether this collection put it on the host."""
        return os.path.exists(_procs.join(self.root, self.kind.file))

    def group(self, controller):
        if self.groups is None:
            raise NotProven("no control groups are mounted")
        return self.groups.at(f"/system.slice/{self.name}", controller)

    def pids(self):
        """Return its processes, at least one; in version 1 systemd has a tree of its own for them."""
        found = self.group("name=systemd").pids()
        if not found:
            raise NotRunning(f"{self.name} does not run" if self.there() else f"there is no {self.name}")
        return found

    def processes(self):
        found = (_procs.read_process(self.root, pid) for pid in sorted(self.pids()))
        return [process for process in found if process is not None]

    def sockets(self):
        """Return the (address, port) pairs on which its processes listen."""
        pids = self.pids()
        own = {inode for pid in pids for inode in _procs.read_sockets(self.root, pid)}
        return sorted({place for inode, place in listening(self.root, min(pids)).items() if inode in own})


def checks(beside, cpuset, root, groups, patience=0):
    """Return the checks of all units that are on the host or have to be; C(cpuset) are the system's CPUs, C(patience) is what an alias may take."""
    found = []
    for one in beside:
        unit = Unit(one, root, groups)
        if not one.required and not unit.there():
            continue
        found.append(unit_running(unit))
        if cpuset:
            found.append(threads_in_cpuset(unit, cpuset))
        found += [memory_limit(unit), listens_only_on(unit)]
        found += gateway(unit, patience) if unit.service == "gateway" else [api_health(unit)]
    return found


# ---- the unit, as the kernel holds it


def unit_running(unit):
    hint = f"systemctl status {unit.name} and journalctl -u {unit.name} -n 30 tell why; run the playbook site."
    with Check("unit_running", unit.service, f"{unit.name} runs", "its control group", hint) as check:
        check.evidence = f"{unit.group('name=systemd').folder}/cgroup.procs"
        try:
            processes = unit.processes()
        except NotRunning as error:
            # All other checks leave it to this one to say what to do.
            raise NotProven(str(error)) from error
        check.see(processes, ", ".join(f"process {process.pid} ({process.comm})" for process in processes[:NAMED]))
    return check.result()


def threads_in_cpuset(unit, cpuset):
    cpus = frozenset(parse_cpulist(cpuset))
    expected = f"every thread on the system's CPUs {shown(cpuset)}"
    hint = f"systemctl show {unit.name} -p AllowedCPUs -p CPUAffinity; run the playbook site, then systemctl restart {unit.name}."
    with Check("threads_in_cpuset", unit.service, expected, "/proc/PID/task/*/status: Cpus_allowed_list", hint) as check:
        total = []

        def look():
            processes = unit.processes()
            total[:] = [thread for process in processes for thread in process.threads]
            return {process.pid: texts for process in processes if (texts := [
                f"process {process.pid} ({process.comm}) thread {thread.tid} may run on {format_cpulist(thread.cpus)}"
                for thread in process.threads if not thread.cpus <= cpus])}

        outside = lasting(look)
        check.see(total and not outside, named(outside, "threads") or f"all {len(total)} threads")
    return check.result()


def memory_limit(unit):
    limit = unit.wanted.memory_mib
    hint = f"systemctl show {unit.name} -p MemoryMax; run the playbook site, then systemctl restart {unit.name}."
    with Check("memory_limit", unit.service, mib(limit * MIB) if limit else "a limit", "memory of the unit's group", hint) as check:
        unit.pids()
        path, found = _cgroup.memory_limit(unit.group("memory"))
        check.see(found == limit * MIB if limit else found is not None, mib(found), path)
    return check.result()


def listens_only_on(unit):
    expected = f"on {', '.join(unit.wanted.listens)} only"
    hint = f"ss -tlnp shows who listens where; run the playbook site, then systemctl restart {unit.name}."
    with Check("listens_only_on", unit.service, expected, "/proc/PID/fd, /proc/PID/net/tcp, tcp6", hint) as check:
        found = unit.sockets()
        allowed = [{(address, port) for address in addresses(host)} for host, port in map(_place, unit.wanted.listens)]
        foreign = [place for place in found if not any(place in some for some in allowed)]
        missing = [some for some in allowed if not some & set(found)]
        text = ", ".join(f"[{address}]:{port}" if ":" in address else f"{address}:{port}" for address, port in found)
        check.see(not foreign and not missing, f"on {text or 'no port'}")
    return check.result()


def api_health(unit):
    path = unit.kind.path
    with Check("api_health", unit.service, f"GET {path}: HTTP 200", f"{unit.wanted.url}{path}", f"journalctl -u {unit.name} -n 30") as check:
        unit.pids()
        answer = unit.wanted.ask(path)
        check.see(answer.status == 200, f"HTTP {answer.status}" + ("" if answer.status == 200 else f": {_http.excerpt(answer.text())}"))
    return check.result()


# ---- the gateway, as its clients see it


def gateway(unit, patience):
    """Return the checks of what the gateway answers; where it does not, it is asked once only."""
    health, said = _health(unit, patience)
    found = [health, aliases_served(unit, said), host_only(unit, said)]
    if unit.wanted.keys:
        found.append(keys_asked(unit, said))
    if unit.wanted.tls:
        found.append(certificate_valid(unit, said))
    return found


def _health(unit, patience):
    """Return the check, and what the gateway says of its engines and aliases, None where it says nothing."""
    path, said = unit.kind.path, None
    hint = f"journalctl -u {unit.name} -n 30; tail /var/log/erni-ki-gateway/error.log"
    with Check("api_health", unit.service, f"GET {path}: its engines and aliases", f"{unit.wanted.url}{path}", hint) as check:
        unit.pids()
        deadline = time.monotonic() + patience
        while True:
            answer = unit.wanted.ask(path)
            # 503 is its answer while an alias has no engine.
            seen = answer.json() if answer.status in (200, 503) else None
            if not isinstance(seen, dict) or not all(isinstance(seen.get(name), dict) for name in ("engines", "aliases")):
                raise NotProven(f"HTTP {answer.status}: {_http.excerpt(answer.text())}")
            if all(seen["aliases"].values()) or time.monotonic() >= deadline:
                break
            time.sleep(PAUSE)
        said = seen
        check.see(True, f"HTTP {answer.status}, {_states(said)}")
    return check.result(), said


def _states(said):
    return ", ".join(f"{name} {state}" for name, state in sorted(said["engines"].items())) or "no engine"


def _answered(unit, said):
    unit.pids()
    if said is None:
        raise NotProven("not asked, since it did not answer before")


def aliases_served(unit, said):
    hint = f"curl {unit.wanted.admin_url or 'its admin port'}/engines says why an engine is out; the playbook diagnose tells it too."
    with Check("aliases_served", unit.service, "an engine for every alias", f"{unit.wanted.url}{unit.kind.path}: aliases", hint) as check:
        _answered(unit, said)
        without = sorted(name for name, served in said["aliases"].items() if not served)
        each = f"{', '.join(sorted(said['aliases']))}: each has one" if said["aliases"] else "there is no alias"
        check.see(not without, f"none for {', '.join(without)}: {_states(said)}" if without else each)
    return check.result()


def _refused(unit, said, name, paths, status, hint):
    """A GET of each of these paths, without a key, is refused with this status."""
    with Check(name, unit.service, f"GET {', '.join(paths)} without a key: HTTP {status}", unit.wanted.url, hint) as check:
        _answered(unit, said)
        found = {path: unit.wanted.ask(path).status for path in paths}
        wrong = [f"{path}: HTTP {seen}" for path, seen in found.items() if seen != status]
        check.see(not wrong, ", ".join(wrong) or f"HTTP {status} for each")
    return check.result()


def host_only(unit, said):
    """What is for the host alone is not on the address for clients."""
    return _refused(unit, said, "host_only", HOST_ONLY, 404, "What is for the host belongs on the admin port; run the playbook site.")


def keys_asked(unit, said):
    return _refused(unit, said, "keys_asked", WITH_KEY, 401,
                    f"Everybody may ask who reaches it. Run the playbook site, then systemctl restart {unit.name}.")


def certificate_valid(unit, said):
    hint = "Renew the certificate; systemctl reload erni-ki-gateway takes it."
    with Check("certificate_valid", unit.service, "a certificate that is valid now", f"TLS handshake with {unit.wanted.url}", hint) as check:
        _answered(unit, said)
        begin, end = validity(_http.certificate(unit.wanted.url, unit.wanted.timeout))
        now = time.time()
        text = f"valid from {_day(begin)} to {_day(end)}"
        check.see(begin <= now < end, f"{text}, {days(end - now)} left" if now < end else text)
    return check.result()


def days(seconds):
    number = int(seconds // DAY)
    return f"{number} day{'' if number == 1 else 's'}"


def _day(moment):
    return time.strftime("%Y-%m-%d", time.gmtime(moment))


# The two times of a certificate stand side by side: a sequence, each a UTCTime or a GeneralizedTime.
_TIME = rb"(?:\x17\x0d(\d{12})Z|\x18\x0f(\d{14})Z)"
_VALIDITY = re.compile(rb"\x30[\x1e\x20\x22]" + _TIME + _TIME, re.DOTALL)


def validity(der):
    """Return (begin, end) of a certificate, in seconds since 1970."""
    match = _VALIDITY.search(der or b"")
    if not match:
        raise NotProven("the certificate does not say until when it is valid")
    short_begin, long_begin, short_end, long_end = match.groups()
    return _moment(short_begin, long_begin), _moment(short_end, long_end)


def _moment(short, long):
    text = (long or short).decode("ascii")
    if short:
        text = ("20" if int(text[:2]) < 50 else "19") + text
    return calendar.timegm(time.strptime(text, "%Y%m%d%H%M%S"))
