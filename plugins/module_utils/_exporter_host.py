# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the exporter looks at on the host, one function a source: the plan, Docker, the kernel, and the services' own counters.

Each returns samples for M(_exporter_metrics), and raises Failed for what it cannot tell, with what it can. What one source finds and others need
(the plan, which process a container is) stays here; the kernel itself says whether that process still is the container's.
"""
from __future__ import annotations

import collections
import hashlib
import json
import os
import time

from ansible_collections.erni_ki.inference.plugins.module_utils import (
    _cgroup, _check_api, _check_gpu, _docker, _exporter_cpu, _exporter_gpu, _http, _procs, _proof, _vitals, _vram,
)
from ansible_collections.erni_ki.inference.plugins.module_utils._check import MIB, NotProven, NotRunning, Subject, same_cpus
from ansible_collections.erni_ki.inference.plugins.module_utils._cpulist import parse_cpulist
from ansible_collections.erni_ki.inference.plugins.module_utils._exporter_metrics import DEVICE_STATES, PRESSURES, RESOURCES, sample
from ansible_collections.erni_ki.inference.plugins.module_utils._exporter_source import Failed

# vLLM's counters of its work, and the gauges that tell whether it has some.
VLLM_COUNTERS = {"tokens_in": "vllm:prompt_tokens_total", "tokens_out": "vllm:generation_tokens_total", "requests": "vllm:request_success_total"}
# When its process began tells counters that begin anew from those that go on.
VLLM_STARTED = {"started": "process_start_time_seconds"}
VLLM_GAUGES = {"running": "vllm:num_requests_running", "waiting": "vllm:num_requests_waiting"}

HASH_DIGITS = 16

# At every such look the CPUs that each thread may run on are read, which costs more than all the rest.
AFFINITY_EVERY = 4


def sums(text, names, only=""):
    """Return {key: sum over all label sets} of the metrics C({key: name}) in Prometheus' text format; those that are not there are left out.

    C(only) is what the labels must hold.
    """
    wanted = {name: key for key, name in names.items()}
    found = {}
    for line in text.splitlines():
        name = line.partition("{")[0].partition(" ")[0]
        if name in wanted and only in line:
            try:
                value = float(line.rpartition("}")[2].split()[0] if "{" in line else line.split()[1])
            except (IndexError, ValueError):
                continue
            found[wanted[name]] = found.get(wanted[name], 0.0) + value
    return found


class Rising:
    """Counters that others keep and that begin anew at times; here they only rise."""

    def __init__(self):
        self._last = {}
        self._sums = {}

    def follow(self, key, raw):
        last = self._last.get(key)
        self._sums[key] = self._sums.get(key, 0.0) + (raw if last is None or raw < last else raw - last)
        self._last[key] = raw
        return self._sums[key]


class Host:
    """The host as the exporter sees it. C(connect) returns a client of the container engine."""

    def __init__(self, plan_path, apis, timeout, root="/", connect=_docker.connect, gpu=None):
        self.plan_path = plan_path
        self.apis = apis                    # {service: _check_api.Api}
        self.timeout = timeout
        self.root = root
        self.plan = None
        self.plan_hash = ""
        self.containers = None              # {service: the engine's answer}, of those that are there; None before its first answer
        self.accounts = collections.defaultdict(_exporter_cpu.Account)
        self.foreign = _exporter_cpu.Foreign()
        self.counters = {}                  # {service: {"tokens_in": …}} as the service counts them
        self.busy = {}                      # {service: CPU seconds a second} since the last look
        self.counted = {}                   # {service: (seconds by CPU, run, what its group had counted)}, for the usage log
        self._connect = connect
        self._client = None
        self._gpu = gpu or _exporter_gpu.Child(timeout)
        self._rising = Rising()
        self._outside = {}                  # {service: (threads outside of its cpuset, those that were so at the look before as well)}
        self._turn = -1
        self._looked = None
        self._hertz = os.sysconf("SC_CLK_TCK")

    # ---- what others need

    def planned(self):
        """Return the plan; Failed without one."""
        if self.plan is None:
            raise Failed(f"{self.plan_path}: there is no plan to go by")
        return self.plan

    def services(self):
        return _proof.planned_services(self.planned())

    def subject(self, service):
        """Return the container as it is known, to be looked up in the kernel."""
        if self.containers is None:
            raise Failed("Docker has not told yet which processes the containers are")
        found = Subject(service, self.planned()[service], self.root, _proof.mounted_groups(self.root))
        found.inspected(self.containers.get(service))
        return found

    def run_of(self, service):
        """Return what names one run of a container, as text; empty where it is not known."""
        attributes = (self.containers or {}).get(service) or {}
        return f"{attributes.get('Id', '')[:12]} {(attributes.get('State') or {}).get('StartedAt', '')}".strip()

    def each(self, look):
        """Return the samples of each service's container; a container that does not run has none, one that cannot be read does not hide the other."""
        found, wrong = [], []
        for service in self.services():
            subject = self.subject(service)
            try:
                found += look(subject)
            except NotRunning:
                continue
            except _procs.Unreadable as error:
                # Of a container that has just ended nothing is left to be read; Docker's next answer tells more.
                if not error.gone or os.path.exists(_procs.join(self.root, f"/proc/{subject.pid}")):
                    wrong.append(f"{service}: {error}")
            except NotProven as error:
                wrong.append(f"{service}: {error}")
            except (ValueError, KeyError, IndexError) as error:
                wrong.append(f"{service}: {type(error).__name__}: {error}")
        if wrong:
            raise Failed("; ".join(wrong), found)
        return found

    # ---- the sources

    def look_plan(self):
        try:
            with open(_procs.join(self.root, self.plan_path), "rb") as stream:
                data = stream.read()
            found = hashlib.sha256(data).hexdigest()[:HASH_DIGITS]
            if found != self.plan_hash or self.plan is None:
                self.plan = _proof.load_plan(json.loads(data.decode("utf-8")))
                self.plan_hash = found
        except OSError as error:
            self.plan = None
            raise Failed(f"{self.plan_path}: {error.strerror}") from error
        except (ValueError, _proof.PlanError) as error:
            self.plan = None
            raise Failed(f"{self.plan_path}: {error}") from error
        return [sample("erni_ki_plan_info", {"hash": self.plan_hash}, 1)]

    def look_docker(self):
        found, services = [], self.services()
        if _docker.docker is None and self._connect is _docker.connect:
            raise Failed(_docker.NO_SDK)
        try:
            if self._client is None:
                self._client = self._connect(self.timeout)
            answers = {service: _docker.inspect(self._client, self.planned()[service]["container"]) for service in services}
        except _docker.EngineError as error:
            # It may be another engine when it answers again.
            self._client = None
            raise Failed(str(error)) from error
        self.containers = {service: attributes for service, attributes in answers.items() if attributes}
        for service, attributes in answers.items():
            status = ((attributes or {}).get("State") or {}).get("Status")
            found.append(sample("erni_ki_service_running", {"service": service}, status == "running"))
            restarts = (attributes or {}).get("RestartCount", 0)
            if isinstance(restarts, int):
                found.append(sample("erni_ki_service_restarts_total", {"service": service}, self._rising.follow(("restarts", service), restarts)))
        return found

    def look_cgroup(self):
        drift = []
        try:
            found, problem = self.each(lambda subject: self._container(subject, drift)), None
        except Failed as error:
            found, problem = error.samples, str(error)
        if drift:
            found.append(sample("erni_ki_plan_drift", {}, any(drift)))
        if problem:
            raise Failed(problem, found)
        return found

    def _container(self, subject, drift):
        service, wanted = subject.service, subject.wanted
        group, memory = subject.group("cpuset"), subject.group("memory")
        found = []

        def tell(name, value, **labels):
            found.append(sample(f"erni_ki_service_{name}", dict(labels, service=service), value))

        use = _vitals.memory_use(subject)
        if use is None:
            raise NotProven(f"{memory.folder}: the memory in use cannot be read")
        tell("memory_working_set_bytes", use.working)
        if use.limit is not None:
            tell("memory_limit_bytes", use.limit)
        if use.peak:
            tell("memory_peak_bytes", use.peak)
        drift.append(
            not same_cpus(_cgroup.effective_cpus(group)[1], wanted["cpuset"]) or use.limit != wanted["memory"]["limit_mib"] * MIB
            or wanted["slice"] not in group.path.split("/"))
        tell("oom_kills_total", self._rising.follow(("oom", service), self._oom_kills(memory, wanted["slice"])))
        stopped = self._throttled(subject)
        if stopped is not None:
            tell("throttled_seconds_total", stopped)
        for resource in RESOURCES:
            for kind, seconds in _pressures(memory, resource):
                tell("pressure_seconds_total", self._rising.follow(("pressure", service, resource, kind), seconds), resource=resource, kind=kind)
        return found

    @staticmethod
    def _oom_kills(memory, unit):
        """Of version 2 the slice counts, which outlives the container that was killed."""
        above = memory.cut(unit) if memory.version == 2 else None
        try:
            return _cgroup.oom_kills(above or memory)[1]
        except _procs.Unreadable:
            return _cgroup.oom_kills(memory)[1]

    def _throttled(self, subject):
        """Return the seconds for which a quota stopped the group or one above it, None where the kernel does not tell."""
        try:
            group, total = subject.group("cpu"), None
        except _procs.Unreadable:
            return None
        while group is not None:
            try:
                fields = _procs.parse_fields(group.read("cpu.stat").replace(" ", ":"))
            except _procs.Unreadable:
                fields = {}
            key, scale = ("throttled_usec", 1e6) if group.version == 2 else ("throttled_time", 1e9)
            if key in fields:
                total = (total or 0.0) + self._rising.follow(("throttled", subject.service, group.path), int(fields[key]) / scale)
            group = group.parent()
        return total

    def look_procs(self):
        now = time.monotonic()
        busy = _exporter_cpu.busy_times(_procs.read_text(self.root, "/proc/stat"), self._hertz)
        used = {}
        self._turn += 1
        try:
            found = self.each(lambda subject: self._threads(subject, used, now))
        except Failed:
            # Without all of the services nobody can tell what is foreign.
            self.foreign.forget()
            raise
        cpusets = {service: frozenset(parse_cpulist(self.planned()[service]["cpuset"])) for service in self.services()}
        self.foreign.add(busy, cpusets, used)
        self._looked = now
        found += [sample("erni_ki_service_foreign_cpu_seconds_total", {"service": service}, self.foreign.seconds.get(service, 0.0)) for service in cpusets]
        return found

    def _threads(self, subject, used, now):
        service = subject.service
        cpuset = frozenset(parse_cpulist(subject.wanted["cpuset"]))
        controller = "cpuacct" if subject.groups is not None and subject.groups.version_of("cpuacct") == 1 else "cpuset"
        # One that does not run uses nothing; of one that does, whatever breaks off below leaves that unknown.
        if subject.pid:
            used[service] = None
        tasks = _exporter_cpu.task_times(self.root, sorted(subject.pids()), self._hertz)
        if not tasks:
            raise NotRunning(f"no process of {subject.name} is left")
        account = self.accounts[service]
        used[service] = account.add(self.run_of(service), cpuset, tasks, _exporter_cpu.group_seconds(subject.group(controller)))
        self.counted[service] = (dict(account.cores), account.identity, account.total)
        if used[service] is not None and self._looked is not None and now > self._looked:
            self.busy[service] = sum(used[service].values()) / (now - self._looked)
        if self._turn % AFFINITY_EVERY == 0 or service not in self._outside:
            outside = {(process.pid, thread.tid) for process in subject.processes() for thread in process.threads if not thread.cpus <= cpuset}
            # A health check that the runtime is just starting has the runtime's own CPUs for a moment.
            before = self._outside.get(service, (set(), set()))[0]
            self._outside[service] = (outside, outside & before)
        labels = {"service": service}
        return [
            *(sample("erni_ki_service_cpu_seconds_total", dict(labels, core=cpu), seconds) for cpu, seconds in sorted(account.cores.items())),
            sample("erni_ki_service_off_plan_cpu_seconds_total", labels, account.off_plan),
            sample("erni_ki_service_threads", labels, len(tasks)),
            sample("erni_ki_service_threads_outside", labels, len(self._outside[service][1])),
        ]

    def look_vllm(self):
        """vLLM's own metrics are scraped besides; here its counters are kept for the probe and the usage log."""
        self.planned()
        api, found = self.apis["vllm"], {}
        try:
            answer = api.ask("/metrics")
            if answer.status != 200:
                raise Failed(f"GET {api.url}/metrics: HTTP {answer.status}")
            found = sums(answer.text(), {**VLLM_COUNTERS, **VLLM_GAUGES, **VLLM_STARTED})
            if not set(found) & set(VLLM_COUNTERS):
                raise Failed(f"GET {api.url}/metrics: there are no metrics of vLLM in the answer")
        except _http.HttpError as error:
            raise Failed(str(error)) from error
        finally:
            self.counters["vllm"] = found
        return []

    def look_ollama(self):
        device = _check_gpu.planned(self.planned())
        try:
            models = _check_api.running_models(self.apis["ollama"])
        except (_http.HttpError, NotProven) as error:
            raise Failed(str(error)) from error
        found, states = [], []
        for model in models:
            name, size, vram = str(model.get("name") or model.get("model") or "?"), model.get("size"), model.get("size_vram") or 0
            if not _check_gpu.is_placed(size, vram):
                raise Failed(f"GET /api/ps: {name}: size {_http.excerpt(size)}, size_vram {_http.excerpt(vram)}, which says nothing")
            found += [sample("erni_ki_ollama_model_size_bytes", {"model": name}, size), sample("erni_ki_ollama_model_vram_bytes", {"model": name}, vram)]
            states.append("gpu" if vram == size else "partial" if vram else "cpu")
        # The worst of them names the whole.
        state = next((one for one in ("cpu", "partial", "gpu") if one in states), "idle")
        found += [sample("erni_ki_ollama_device", {"state": one}, one == state) for one in DEVICE_STATES]
        allowed = ("gpu", "partial") if device and device.get("vram", {}).get("partial_allowed") is True else ("gpu",)
        found.append(sample("erni_ki_ollama_wrong_device", {}, bool(device) and any(one not in allowed for one in states)))
        return found

    def look_gpu(self):
        device = _check_gpu.planned(self.planned())
        if not device:
            return []
        labels = {"gpu": device["uuid"]}
        ceiling = ceiling_bytes(device)
        found = [] if ceiling is None else [sample("erni_ki_gpu_memory_ceiling_bytes", labels, ceiling)]
        try:
            known, problem = _exporter_gpu.judge(self._gpu.ask(), device, self.root)
        except Failed as error:
            known, problem = [], str(error)
        found += [sample(f"erni_ki_gpu_{name}", labels, value) for name, value in known]
        if problem:
            raise Failed(problem, found)
        return found


def _pressures(group, resource):
    """Give (kind, seconds) of a group; nothing where the kernel does not count."""
    try:
        text = group.read(f"{resource}.pressure")
    except _procs.Unreadable:
        return
    for line in text.splitlines():
        words = line.split()
        total = [word[len("total="):] for word in words if word.startswith("total=")]
        if total and words[0] in PRESSURES and total[0].isdigit():
            yield words[0], int(total[0]) / 1e6


def ceiling_bytes(device):
    """Return what the plan lets Ollama use of the card: what its models may take by themselves is part of the plan's reserve."""
    vram = device.get("vram") or {}
    if not isinstance(vram.get("total_mib"), int) or not isinstance(vram.get("reserve_mib"), int):
        return None
    return (vram["total_mib"] - vram["reserve_mib"] + _vram.RUNTIME_MIB * vram.get("max_loaded_models", 1)) * MIB
