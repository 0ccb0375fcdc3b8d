# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The exporter: looks at the host again and again, answers Prometheus from what was seen last, and writes the usage log.

An answer waits for nothing: it is made of what each source has now, and says what is missing.
"""
from __future__ import annotations

import http.server
import json
import signal
import sys
import threading
import time

from ansible_collections.erni_ki.inference.plugins.module_utils import _check_api, _http, _usage
from ansible_collections.erni_ki.inference.plugins.module_utils._exporter_host import Host, sums
from ansible_collections.erni_ki.inference.plugins.module_utils._exporter_metrics import SOURCES, render, sample
from ansible_collections.erni_ki.inference.plugins.module_utils._exporter_probe import Probe
from ansible_collections.erni_ki.inference.plugins.module_utils._exporter_source import Source

SERVICES = ("vllm", "ollama")

# What the gateway counts of the requests that go through it. Ollama counts nothing itself; vLLM knows better.
GATEWAY = {"requests": "erni_ki_gateway_requests_total", "tokens_out": "erni_ki_gateway_tokens_total"}


class Exporter:
    """All sources, and what is made of them. C(settings) are those of /etc/erni-ki/exporter.json."""

    def __init__(self, settings, host=None, say=None):
        self.settings = settings
        self.say = say or _say
        interval, deadline = settings["interval"], settings["deadline"]
        self.host = host or Host(settings["plan"], _apis(settings, deadline), deadline)
        # A token may take longer than a look.
        asked = _apis(settings, settings["probe_timeout"])
        self.probes = {service: Probe(service, self.host, asked[service], settings["probe_loads_model"] and service == "ollama") for service in SERVICES}
        self.sources, self.asking = {}, []
        for name in SOURCES:
            after = self.sources.get({"plan": None, "cgroup": "docker", "procs": "docker"}.get(name, "plan"))
            # Longer than a request that runs into its own timeout, which tells better what is wrong.
            self.sources[name] = Source(name, getattr(self.host, f"look_{name}"), interval, deadline + 1, after)
        if settings["probe_interval"]:
            for service, probe in self.probes.items():
                self.asking.append(Source(
                    f"probe_{service}", self._only(service, probe.look), settings["probe_interval"], 3 * settings["probe_timeout"] + 1, self.sources[service]))
        self.log = _usage.Log(settings["usage_path"], settings["usage_max_bytes"], settings["usage_files"]) if settings["usage_path"] else None
        self._before = {}       # {service: what was counted at the end of the last line}
        self._line = time.monotonic()   # the end of the last line

    def _only(self, service, look):
        return lambda: look() if service in self.host.services() else []

    def planned(self, name):
        """Return whether a source is one that this host's plan has; without a plan all are missing."""
        plan = self.host.plan
        if plan is None or name in ("plan", "docker", "cgroup", "procs"):
            return True
        if name == "gpu":
            return bool((plan.get("ollama") or {}).get("device") and plan["ollama"]["device"].get("kind") == "gpu")
        return bool(plan.get(name))

    def missing(self):
        """Return {source: why} of those that do not tell what they should."""
        states = {name: source.state() for name, source in self.sources.items() if self.planned(name)}
        return {name: seen.problem for name, seen in states.items() if seen.problem}

    def samples(self):
        found = []
        for name, source in self.sources.items():
            if self.planned(name):
                seen = source.state()
                found += seen.samples
                found.append(sample("erni_ki_collect_failed", {"source": name}, seen.problem is not None))
                found.append(sample("erni_ki_collect_seconds", {"source": name}, seen.seconds))
        for source in self.asking:
            found += source.state().samples
        return found

    def start(self, stop):
        if self.log:
            self.resume()
        for source in (*self.sources.values(), *self.asking):
            source.start(stop)

    def watch(self, stop):
        """Say what is missing, and write the usage log, until C(stop)."""
        period, due = self.settings["usage_interval"], time.monotonic() + self.settings["usage_interval"]
        while not stop.wait(1):
            self.tell()
            if self.log and time.monotonic() >= due:
                due = max(due + period, time.monotonic())
                self.note()
        self.tell()
        if self.log:
            self.note()

    def tell(self):
        """Say what has come to be missing, or is no longer, since this was last said."""
        for source in self.sources.values():
            news = source.news() if self.planned(source.name) else None
            if news:
                self.say(f"<4>{' '.join(news.split())}")

    # ---- the usage log

    def resume(self, now=time.time):
        """Go on from the last line, if there is one."""
        self._line = time.monotonic()
        try:
            last = self.log.last()
        except OSError as error:
            self.say(f"<4>usage log: {self.log.path}: {error.strerror}")
            return
        if not last or last["end"] > now():
            return
        # The time for which the machine was off is nobody's.
        gap = min(now() - last["end"], time.clock_gettime(time.CLOCK_BOOTTIME))
        self._line = time.monotonic() - gap
        for service, used in last["services"].items():
            counters = used.get("counters")
            if service not in SERVICES or not isinstance(counters, dict):
                continue
            self._before[service] = {"counted": counters.get("counted"), "cores": {}, "probes": 0}
            if counters.get("run") and isinstance(counters.get("cpu"), (int, float)):
                self.host.accounts[service].resume(counters["run"], counters["cpu"])

    def note(self, now=time.time):
        """Write a line. One that cannot be written is made up for by the next."""
        record, ends = self.record(now())
        line = _usage.encode(record)
        try:
            self.log.append(line)
        except OSError as error:
            self.say(f"<3>usage log: {self.log.path}: {error.strerror}; the next line will hold this one's time, too")
            return
        self._before.update(ends)
        self._line = time.monotonic()
        self.say(f"<6>usage {line.rstrip()}")

    def record(self, now):
        """Return (the record of the time since the last line, what it was counted with)."""
        states = {name: source.state() for name, source in self.sources.items()}
        known = {(name, labels): value for seen in states.values() for name, labels, value in seen.samples}
        services, ends = {}, {}
        for service in SERVICES:
            if not (self.host.plan or {}).get(service):
                continue
            before = self._before.get(service, {})
            cores, run, cpu = self.host.counted.get(service, ({}, None, None))
            asked = self.probes[service].requests
            used = {"probes": asked - before.get("probes", 0)}
            if cores:
                seconds = {core: round(total - before.get("cores", {}).get(core, 0.0), 6) for core, total in cores.items()}
                used["cpu_seconds"] = {str(core): value for core, value in sorted(seconds.items()) if value}
            working = known.get(("erni_ki_service_memory_working_set_bytes", (service,)))
            if working is not None:
                used["memory_working_set_bytes"] = int(working)
            if service == "ollama" and not states["ollama"].problem:
                used["vram_bytes"] = int(sum(value for (name, _labels), value in known.items() if name == "erni_ki_ollama_model_vram_bytes"))
            mine = self._gateway(service) if service == "ollama" else {} if states[service].problem else dict(self.host.counters.get(service) or {})
            held = before.get("counted")
            for name in _usage.COUNTED:
                value = _usage.rise(held, mine, name)
                if value is not None:
                    used[name] = round(value)
            # Counters that cannot be read now are compared with those of the last time they could.
            kept = {key: mine[key] for key in (*_usage.COUNTED, "started") if key in mine} or held
            used["counters"] = {"run": run, "cpu": cpu, "counted": kept}
            services[service] = used
            ends[service] = {"counted": kept, "cores": cores, "probes": asked}
        return {
            "version": _usage.VERSION, "time": _usage.stamp(now), "seconds": round(time.monotonic() - self._line, 3), "plan": self.host.plan_hash,
            "services": services, "missing": sorted(name for name, seen in states.items() if seen.problem and self.planned(name)),
        }, ends

    def _gateway(self, service):
        """Return the gateway's counters of a service of this host, nothing where there is no gateway."""
        if not self.settings["gateway_url"]:
            return {}
        try:
            answer = _http.exchange(self.settings["gateway_url"], "/metrics", timeout=self.settings["deadline"])
        except _http.HttpError:
            return {}
        # With one host its engines have the names of the services, in a fleet the host's name goes before.
        names = (service, f"{self.settings['gateway_host']}-{service}")
        return next(filter(None, (sums(answer.text(), GATEWAY, f'engine="{name}"') for name in names)), {}) if answer.status == 200 else {}


def _apis(settings, timeout):
    return {
        "vllm": _check_api.Api("vllm", settings["vllm_url"], timeout, key_file=settings["vllm_api_key_file"]),
        "ollama": _check_api.Api("ollama", settings["ollama_url"], timeout),
    }


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers GET /metrics; C(server.exporter) is asked."""

    # For one who connects and says nothing.
    timeout = 10
    server_version = "erni-ki-exporter"
    sys_version = ""

    def do_GET(self):
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404, "Only /metrics is here")
            return
        from prometheus_client import CONTENT_TYPE_LATEST
        body = render(self.server.exporter.samples())
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE_LATEST)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """A scrape is no news for the journal."""


class Server(http.server.ThreadingHTTPServer):
    """The server of one exporter."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address, exporter):
        self.exporter = exporter
        super().__init__(address, Handler)

    def handle_error(self, request, client_address):
        """A client that went away in the middle of its answer is no news; anything else is one line."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            self.exporter.say(f"<4>an answer failed: {type(error).__name__}: {error}")


def main(arguments):
    """Run the exporter with the settings of a file, until SIGTERM. Return the exit code."""
    try:
        with open(arguments[0], encoding="utf-8") as stream:
            settings = json.load(stream)
        exporter = Exporter(settings, say=_say)
        # What renders the answers must be there before the first is asked for.
        render([])
        server = Server((settings["address"], settings["port"]), exporter)
    except ImportError as error:
        _say(f"<3>cannot start: {sys.executable} has no prometheus_client ({error}); install python3-prometheus-client")
        return 1
    except (IndexError, KeyError, OSError, ValueError) as error:
        _say(f"<3>cannot start: {type(error).__name__}: {error}")
        return 1
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
    exporter.start(stop)
    exporter.watch(stop)
    return 0


def _say(text):
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
