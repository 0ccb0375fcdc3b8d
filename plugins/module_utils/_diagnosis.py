# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with a host, why, and what to do: the proof's failed checks, the engines' own words and the host's vitals, made into findings.

A cause stands once, and what it brings about is folded under it: of a container that is dead because its KV cache does not fit, nobody has
to be told that its threads are not where they should be.
"""
from __future__ import annotations

import datetime
import functools
import os
import re
import time

from ansible_collections.erni_ki.inference.plugins.module_utils import _cgroup, _check_api, _check_gpu, _docker, _engine_logs, _gpu_info, _http, _procs, _proof
from ansible_collections.erni_ki.inference.plugins.module_utils import _diagnosis_beside, _vitals
from ansible_collections.erni_ki.inference.plugins.module_utils._check import NAMED, NotProven, Subject
from ansible_collections.erni_ki.inference.plugins.module_utils._cpulist import parse_cpulist
from ansible_collections.erni_ki.inference.plugins.module_utils._finding import finding, label, ordered

# How much of a log is read, kept, and shown.
READ_LINES, KEPT_LINES, SHOWN_LINES = 400, 40, 3

# Two restarts are an accident and its repetition; more is a loop.
LOOP = 3

SIGKILL = 137

COMPOSE = "/opt/erni-ki/{0}/compose.yaml"

_AGAIN = "Run the playbook site, which makes the host what the plan says."
_DRIFT = "The host was changed past the playbook, or the plan was changed and not applied as a whole."
_VISIBLE = "The container has a way to a GPU that the plan does not give it."
_UNUSABLE = "Ollama cannot use the GPU that the plan gives it; what it loads next, it computes on CPUs."
_ON_CPU = "Ollama computes on CPUs what belongs on its GPU."
_BINDING = "The service is not held to its cores, or its threads are not where they were planned; others slow it down, or it slows them down."
_FENCE = "The rest of the system is not held to its own cores."

# Failed check: (code, severity, cause). The cure is the check's own hint.
CHECKS = {
    "container_health": ("no_health_check", "warning", "The container has no health check: a service that hangs is noticed by nobody."),
    "restart_count": ("restarted", "warning", "The engine ended, and Docker's restart policy brought it back."),
    "slice": ("binding_lost", "warning", _BINDING),
    "slice_effective": ("binding_lost", "warning", _BINDING),
    "cpuset_effective": ("binding_lost", "warning", _BINDING),
    "mems_effective": ("binding_lost", "warning", _BINDING),
    "threads_in_cpuset": ("binding_lost", "warning", _BINDING),
    "omp_threads": ("binding_lost", "warning", _BINDING),
    "oom_kills": ("oom_kill", "critical", "The kernel killed a process of the service, because the service wanted more memory than its limit."),
    "no_gpu_nodes": ("gpu_visible", "critical", _VISIBLE),
    "no_gpu_permission": ("gpu_visible", "critical", _VISIBLE),
    "no_gpu_processes": ("gpu_visible", "critical", _VISIBLE),
    "hardening": ("confinement_lost", "critical", "The container may do more to the host than it should."),
    "listens_only_on": ("published_elsewhere", "critical", "The port is not published where it should be, and only there."),
    "api_health": ("not_answering", "critical", "The service runs, and its API does not answer as it should."),
    "token_generated": ("not_generating", "critical", "The service answers, and does not do its work."),
    "gpu_uuid": ("gpu_unusable", "critical", _UNUSABLE),
    "gpu_driver": ("gpu_unusable", "critical", _UNUSABLE),
    "cdi_fresh": ("gpu_unusable", "critical", _UNUSABLE),
    "gpu_nodes": ("gpu_unusable", "critical", _UNUSABLE),
    "gpu_loaded": ("ollama_on_cpu", "critical", _ON_CPU),
    "gpu_libraries": ("ollama_on_cpu", "critical", _ON_CPU),
    "gpu_processes": ("ollama_on_cpu", "critical", _ON_CPU),
    "runner_threads": ("threads_oversubscribed", "warning", "A model is computed with more threads than Ollama has cores, and they wait for each other."),
    "unit_running": ("unit_stopped", "critical", "It does not run."),
    "aliases_served": ("alias_without_engine", "critical", _diagnosis_beside.WITHOUT_ENGINE),
    "host_only": ("gateway_open", "critical", "Whoever reaches the gateway gets what is for its host alone."),
    "keys_asked": ("gateway_open", "critical", "The gateway answers whoever reaches it, although keys are set."),
    "certificate_valid": ("certificate_expires", "critical", _diagnosis_beside.NO_CERTIFICATE),
    "fence_effective": ("fence_broken", "warning", _FENCE),
    "exclusive_cores": ("fence_broken", "warning", _FENCE),
}

# What goes with a service that runs and does not work.
_OF_TROUBLE = frozenset((
    "container_running", "container_health", "restart_count", "api_health", "token_generated", "omp_threads", "gpu_loaded", "gpu_libraries",
    "gpu_processes", "runner_threads"))
# What is asked of processes, of which a paused container may have some that were on their way in.
_OF_PROCESSES = frozenset(("threads_in_cpuset", "threads_env", "no_gpu_permission", "hardening"))
_OF_BINDING = frozenset(name for name, row in CHECKS.items() if row[0] == "binding_lost")
_GPU_CAUSES = ("gpu_driver", "gpu_uuid", "cdi_fresh", "gpu_nodes")
_OF_GPU = frozenset(_GPU_CAUSES + ("gpu_loaded", "gpu_libraries", "gpu_processes"))

_GPU_LISTED = re.compile(r'msg="inference compute" id=(\S+)')
_GPU_WORDS = re.compile(r"(?i)(?=.*(?:cuda|nvml|nvidia|\bgpus?\b|vram))(?:.*level=(?:WARN|ERROR)|.*(?:fail|error|unable)).*")


class Host:
    """What is asked about a host.

    C(engine) is a _docker.Engine, C(look) what finds its GPUs, C(clock) the controller's time and C(written) when the plan was written, None where
    nobody knows. C(beside) has what is wanted of each unit beside the engines.
    """

    def __init__(self, engine, root="/", interval=2.0, clock=None, written=None, generate=False, probe=_cgroup.probe_devices, look=_gpu_info.detect,
                 beside=(), certificate_days=30):
        self.engine = engine
        self.root = root
        self.interval = interval
        self.clock = clock
        self.written = written
        self.generate = generate
        self.probe = probe
        self.beside = beside
        self.certificate_days = certificate_days
        # The proof asks, and so does who looks for a reason.
        self.look = functools.lru_cache(maxsize=1)(look)
        self.groups = _proof.mounted_groups(root)


class Diagnosis:
    """The findings, and the last lines of the logs of services that are not well."""

    def __init__(self):
        self.findings = []
        self.logs = {}
        self.failed = []        # of the proof's checks
        self.evaluated = 0

    def add(self, *findings):
        self.findings += findings

    def open(self):
        """Return the failed checks that no finding explains yet."""
        told = {name for one in self.findings for name in one["checks"]}
        return [check for check in self.failed if label(check) not in told]

    def of(self, service, names=None):
        """Return the labels of the open failed checks of a service."""
        return [label(check) for check in self.open() if check["service"] == service and (names is None or check["name"] in names)]


def diagnose(plan, services, apis, host, problem=None):
    """Return a Diagnosis. C(plan) is None where there is none to judge against; C(problem) is the finding that says why."""
    result = Diagnosis()
    if problem:
        result.add(problem)
    subjects = [_subject(service, (plan or {}).get(service) or {"container": service}, host) for service in services]
    if plan:
        checks = _proof.prove(plan, services, apis, host.engine.inspect, root=host.root, generate=host.generate, probe=host.probe, look=host.look,
                              beside=host.beside)
        result.evaluated = len(checks)
        result.failed = [check for check in checks if not check["ok"]]
    for subject in subjects if not host.engine.problem else ():
        service_trouble(subject, host, result, planned=bool(plan))
        if plan and subject.service == "ollama":
            ollama_gpu(plan, subject, apis["ollama"], host, result)
    if host.engine.problem:
        result.add(engine_silent(host.engine.problem, services, result))
    _diagnosis_beside.beside(host, result, {check["service"] for check in checks} if plan else ())
    vitals(plan, subjects, host, result)
    drift(subjects, host, result)
    result.findings = ordered(result.findings)
    return result


def _subject(service, wanted, host):
    subject = Subject(service, wanted, host.root, host.groups)
    subject.inspected(*host.engine.inspect(subject.name))
    return subject


def engine_silent(problem, services, result):
    """Docker does not answer: nothing of its containers can be told, and a process of theirs is taken for a stranger."""
    explained = [name for service in services for name in result.of(service)] + result.of("system", {"exclusive_cores"})
    if problem == _docker.NO_SDK:
        return finding("docker_sdk_missing", "critical", "system", problem, "Docker cannot be asked: its SDK for Python is not on the host.",
                       "Install python3-docker (Debian, Ubuntu) or pip install docker; the playbook site does it.", explained)
    return finding("docker_down", "critical", "system", problem, "The Docker Engine is stopped or hangs: no container can be started, stopped or looked at.",
                   "systemctl status docker and journalctl -u docker --since -1h tell why; systemctl start docker.", explained)


# ---- a service that does not work


def service_trouble(subject, host, result, planned=True):
    """Find the one reason why a service does not run, does not start or does not answer, and fold the rest under it."""
    service = subject.service
    if subject.attributes is None:
        if planned:
            result.add(_no_container(subject, host, result.of(service)))
        return
    state = subject.get("State") or {}
    running = state.get("Running") and state.get("Status") == "running"
    health = (state.get("Health") or {}).get("Status")
    silent = result.of(service, {"api_health", "token_generated"})
    if running and health in (None, "none", "healthy") and not silent:
        if service == "vllm" and result.of(service, {"omp_threads"}):
            _bound_elsewhere(subject, host, result)
        return
    text = _log(subject, host)
    if text:
        result.logs[service] = _engine_logs.lines_of(text, KEPT_LINES)
    if state.get("Status") == "paused":
        result.add(finding("container_paused", "critical", service, f"{subject.api}: State.Status paused",
                           "Somebody paused the container; its processes stand still.", f"docker unpause {subject.name}",
                           result.of(service, _OF_TROUBLE | _OF_PROCESSES)))
    elif running and (subject.get("RestartCount") or 0) < LOOP:
        result.add(_not_working(subject, health, text, result))
    else:
        # Of one that ends again and again, each check saw another moment.
        result.add(_does_not_start(subject, host, state, text, result.of(service)))


def _log(subject, host):
    """Return the log of the last run; of a container that starts again and again, also of the runs before."""
    since = None if subject.get("RestartCount") else moment(subject.get("State", "StartedAt"))
    return _engine_logs.plain(host.engine.logs(subject.name, READ_LINES, since))


def moment(text):
    """Return a time of Docker's in seconds, None for none: it writes the year 1 there."""
    match = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)", text or "")
    if not match or text.startswith("0001"):
        return None
    return datetime.datetime.strptime(match.group(1) + "+0000", "%Y-%m-%dT%H:%M:%S%z").timestamp()


def _last(text):
    """Return the last lines of a log on one line."""
    lines = _engine_logs.lines_of(text, SHOWN_LINES)
    return "its log ends with: " + _http.excerpt(" | ".join(lines), 500) if lines else "its log is empty"


def _no_container(subject, host, explained):
    image = compose_image(host.root, subject.service)
    if image and host.engine.has_image(image) is False:
        return finding("image_missing", "critical", subject.service, f"Docker has no container {subject.name} and no image {image}",
                       "The image is not on the host, and could not be pulled or loaded.",
                       f"docker pull {image} shows why; without a registry use {subject.service}_image_archive, or a mirror (docker_registry_mirrors)."
                       " Then run the playbook site.", explained)
    return finding("container_missing", "critical", subject.service, f"Docker has no container {subject.name}",
                   "The container was removed, or never made.", _AGAIN, explained)


def compose_image(root, service):
    """Return the image that the service's description names; where there is no container nothing else could tell."""
    try:
        match = re.search(r"^\s+image: *['\"]?([^\s'\"]+)", _procs.read_text(root, COMPOSE.format(service)), re.MULTILINE)
    except _procs.Unreadable:
        return None
    return match.group(1) if match else None


def _of_row(row, severity, subject, evidence, explained):
    cause, cure = row.cause, row.cure
    if row.code == "kv_cache_too_large":
        cause += _budget(subject)
    return finding(row.code, severity, subject.service, evidence, cause, cure, explained)


def _budget(subject):
    """Return the numbers of the plan that have to fit."""
    limit, kv_cache = (subject.wanted.get("memory") or {}).get("limit_mib"), subject.wanted.get("kv_cache_gib")
    return f" The plan has a limit of {limit} MiB and a KV cache of {kv_cache} GiB." if limit and kv_cache else ""


def _bound_elsewhere(subject, host, result):
    """A healthy engine whose threads are elsewhere may have told so at its start."""
    told = _engine_logs.explain(_log(subject, host), subject.service)
    if told and told[0].code.startswith("bind_"):
        result.add(_of_row(told[0], "warning", subject, f"docker logs {subject.name}: {told[1]}", result.of(subject.service, _OF_BINDING)))


def _not_working(subject, health, text, result):
    """The container runs, and the service in it does not answer, or not yet."""
    service = subject.service
    told = _engine_logs.explain(text, service)
    if told:
        return _of_row(told[0], "critical", subject, f"docker logs {subject.name}: {told[1]}", result.of(service, _OF_TROUBLE) + _no_port(service, result))
    # That it came back by itself stays a finding of its own.
    explained = result.of(service, _OF_TROUBLE - {"restart_count"}) + _no_port(service, result)
    if health == "starting":
        return finding("starting", "info", service, f"State.Health.Status starting since {subject.get('State', 'StartedAt')}; {_last(text)}",
                       "The service is still starting.", "Wait, and diagnose again. A large model, or a download, takes minutes.", explained)
    said = next((check["found"] for check in result.failed if check["service"] == service and check["name"] in ("api_health", "token_generated")), None)
    if health == "unhealthy" and not said:
        last = (subject.get("State", "Health", "Log") or [{}])[-1] or {}
        said = f"the health check ended with {last.get('ExitCode')}: {_http.excerpt(last.get('Output') or '')}"
    code, cause = ("not_answering", "The service runs and does not answer as it should: it hangs, or is busy with something that takes long.")
    if result.of(service, {"token_generated"}) and not result.of(service, {"api_health"}):
        code, cause = "not_generating", "The service answers, and does not do its work."
    return finding(code, "critical", service, f"{said}; {_last(text)}", cause,
                   f"docker logs {subject.name} --tail=50; docker restart {subject.name} if it does not come back.", explained)


def _no_port(service, result):
    """With the host's network a port is there only when the service is."""
    return [label(check) for check in result.open()
            if check["service"] == service and check["name"] == "listens_only_on" and check["found"] == "no port is published"]


def _binds(subject):
    """Return the places of the host that are mounted into the container, as Docker tells them."""
    mounts = subject.attributes.get("Mounts") if subject.attributes else None
    return [one for one in mounts or [] if one.get("Type") == "bind" and one.get("Source")]


def _not_mountable(subject, host):
    """Return what Docker says to whoever starts a container whose folder is gone; it keeps no word of it."""
    for one in _binds(subject):
        if not os.path.exists(_procs.join(host.root, one["Source"])):
            return f"bind source path does not exist: {one['Source']}"
    return ""


def _does_not_start(subject, host, state, text, explained):
    """The container ended, or ends again and again."""
    service, restarts, code = subject.service, subject.get("RestartCount") or 0, state.get("ExitCode")
    again = f"; restarted {restarts} time{'' if restarts == 1 else 's'}" if restarts else ""
    ended = f"{subject.api}: State.Status {state.get('Status')}, ExitCode {code}{again}"
    looping = restarts >= LOOP or state.get("Status") == "restarting"
    killed = _vitals.killed_in(host.groups, subject.wanted["slice"]) if subject.wanted.get("slice") else 0
    error = state.get("Error") or _not_mountable(subject, host)
    # Of the last attempt to start it; how the run before ended comes after.
    told = _engine_logs.explain(error, service, _engine_logs.DOCKER) if error else None
    if told:
        return _of_row(told[0], "critical", subject, f"{ended}, Error: {_http.excerpt(error)}", explained)
    if state.get("OOMKilled") or code == SIGKILL and killed:
        seen = f"{ended}, OOMKilled {str(bool(state.get('OOMKilled'))).lower()}, {killed} killed in {subject.wanted.get('slice')}"
        return finding("oom_kill", "critical", service, seen,
                       f"The kernel killed it, because it wanted more memory than its limit.{_budget(subject)}",
                       f"Give it a smaller KV cache, context or model, or raise plan_{service}_memory_limit_mib; then run the playbook site.", explained)
    told = _engine_logs.explain(text, service)
    if told:
        return _of_row(told[0], "critical", subject, f"{ended}; docker logs {subject.name}: {told[1]}", explained)
    # The slice counts for as long as the host runs: what ended this loop's starts is one kill or more for each.
    if looping and killed >= max(restarts, 1):
        return finding("oom_kill", "critical", service, f"{ended}; {killed} killed in {subject.wanted['slice']}",
                       f"The kernel kills it again and again, because it wants more memory than its limit.{_budget(subject)}",
                       f"Give it a smaller KV cache, context or model, or raise plan_{service}_memory_limit_mib; then run the playbook site.", explained)
    if code in _engine_logs.EXITS and not error:
        return _of_row(_engine_logs.EXITS[code], "critical", subject, f"{ended}; {_last(text)}", explained)
    if looping:
        return finding("restart_loop", "critical", service, f"{ended}; {_last(text)}", "It ends soon after each start, and Docker starts it again.",
                       f"docker logs {subject.name} --tail=200 has the reason; when that is mended, run the playbook site.", explained)
    if not error and state.get("Status") in ("exited", "created") and code in (0, 143):
        return finding("container_stopped", "critical", service, ended, "Somebody stopped the container, or never started it.",
                       f"docker start {subject.name}, or run the playbook site.", explained)
    return finding("start_failed", "critical", service, f"{ended}{', Error: ' + _http.excerpt(error) if error else ''}; {_last(text)}",
                   "It ended for a reason that is not known here; the last lines of its log tell more.",
                   f"docker logs {subject.name} --tail=200 has the whole of it; when that is mended, docker start {subject.name}.", explained)


# ---- Ollama's GPU


def ollama_gpu(plan, subject, api, host, result):
    """Ollama computes on CPUs what the plan has on the GPU, and why. No model is loaded to find out: those that are loaded tell."""
    device = _check_gpu.planned(plan)
    if not device or not result_runs(subject):
        return
    if not host.generate and loaded_models(api):
        check = _check_gpu.gpu_loaded(device, subject.name, api)
        result.evaluated += 1
        if not check["ok"]:
            result.failed.append(check)
    log = _log(subject, host)
    listed = _GPU_LISTED.findall(log)
    by_name = {check["name"]: check for check in result.open() if check["service"] == "ollama"}
    placed = by_name.get("gpu_loaded")
    if not placed and listed[-1:] != ["cpu"]:
        return
    evidence = [f"{placed['evidence']}: {placed['found']}"] if placed else []
    evidence += [f"docker logs {subject.name}: it listed {listed[-1]} at its start"] if listed else []
    reasons, cure = _gpu_reasons(by_name, host, log, evidence)
    if not reasons and placed and "on the GPU, the rest" in placed["found"]:
        result.add(finding(
            "ollama_partly_on_cpu", "warning", "ollama", "; ".join(evidence),
            "A model does not fit into the GPU's memory with its context, and the rest of it is computed on CPUs.", placed["hint"],
            result.of("ollama", _OF_GPU)))
        return
    why = " ".join(reasons) or "The GPU itself can be used: Ollama did not see it when it started, or was told to use CPUs."
    result.add(finding("ollama_on_cpu", "critical", "ollama", "; ".join(evidence), f"{_ON_CPU} {why}",
                       cure or f"docker restart {subject.name} makes it look again; CUDA_VISIBLE_DEVICES=-1 or num_gpu 0 would keep it on CPUs.",
                       result.of("ollama", _OF_GPU)))


def result_runs(subject):
    try:
        return bool(subject.pid)
    except NotProven:
        return False


def loaded_models(api):
    """Return what Ollama has loaded; nothing where it does not tell."""
    try:
        return [] if api.silent else _check_api.running_models(api)
    except (_http.HttpError, NotProven):
        return []


def _gpu_reasons(by_name, host, log, evidence):
    """Return (sentences that say why, cure or None), and add to the evidence what the log says."""
    reasons, cure = [], None
    for name in _GPU_CAUSES:
        check = by_name.get(name)
        if check:
            reasons.append(f"{name}: {check['found'].rstrip('.')}.")
            cure = cure or check["hint"]
    try:
        facts = host.look(host.root)
    except Exception as error:
        # Whatever keeps the driver from being read is itself the reason that is looked for.
        facts = {"state": "unreadable", "hint": f"The GPU could not be read: {type(error).__name__}: {error}"}
    if facts["state"] != "ok":
        reasons.insert(0, f"The driver's state is {facts['state']}.")
        cure = facts["hint"] or cure
    words = [line.strip() for line in log.splitlines() if _GPU_WORDS.match(line) and not _GPU_LISTED.search(line)]
    if words:
        evidence.append(f"and said: {_http.excerpt(words[-1], 300)}")
    return reasons, cure


# ---- what makes it slow, and the host


def vitals(plan, subjects, host, result):
    """Judge who is busy where, memory, throttling, frequency, disks and the clock."""
    running = [subject for subject in subjects if plan and result_runs(subject)]
    if running:
        _threads(plan, running, host, result)
    for subject in running:
        result.add(*_vitals.throttled(subject))
        killed = bool(result.of(subject.service, {"oom_kills"}))
        # At its limit is what a service was that lost a process there.
        result.add(*(one for one in _vitals.memory(subject) if not killed or one["code"] != "memory_near_limit"))
    result.add(*_vitals.host_memory(host.root))
    planned = [plan[service]["cpuset"] for service in _proof.planned_services(plan)] if plan else []
    result.add(*_vitals.governor(host.root, sorted({cpu for cpuset in planned for cpu in parse_cpulist(cpuset)})))
    result.add(*_vitals.disks(host.root, _places(subjects, host)))
    result.add(*_vitals.clock(time.time(), host.clock, _vitals.time_keeper(host.root), _vitals.clock_status()))


def _threads(plan, running, host, result):
    try:
        pids = _procs.list_pids(host.root)
    except _procs.Unreadable:
        return

    def look():
        first = _vitals.moments(host.root, pids)
        time.sleep(host.interval)
        return first, _vitals.moments(host.root, pids)

    seen = look()
    for subject in running:
        told = {label(check) for check in result.open()}
        for one in _vitals.oversubscribed(subject, *seen):
            one["checks"] = [name for name in (f"{subject.service}: runner_threads", f"{subject.service}: threads_env") if name in told]
            result.add(one)
    if not any(subject.service == "vllm" for subject in running):
        return
    exempt = []
    for subject in running:
        try:
            exempt.append(subject.group("cpuset").path)
        except (NotProven, _procs.Unreadable):
            continue
    for one in _vitals.strangers(host.root, host.groups, plan["vllm"]["cpuset"], exempt, seen, look):
        one["checks"] = result.of("system", {"exclusive_cores"})
        result.add(one)


def _places(subjects, host):
    """Return (what, path) of every place that must not be full."""
    places = []
    data = host.engine.data_root()
    if data:
        places.append(("Docker's data", data))
    for subject in subjects:
        places += [(f"{subject.service}: {one.get('Destination')}", one["Source"]) for one in _binds(subject)]
    return places + [("the system", "/")]


# ---- what is left of the proof


def drift(subjects, host, result):
    """Make findings of the failed checks that nothing explains: one for each kind of fault and service."""
    groups = {}
    for check in result.open():
        code, severity, cause = CHECKS.get(check["name"], ("drift", "warning", _DRIFT))
        groups.setdefault((code, check["service"]), (severity, cause, []))[2].append(check)
    made = {subject.service: moment(subject.attributes.get("Created")) for subject in subjects if subject.attributes}
    for (code, service), (severity, cause, checks) in groups.items():
        told = [f"{check['name']}: expected {check['expected']}, found {check['found']}" for check in checks[:NAMED]]
        evidence = "; ".join(told) + (f"; and {len(checks) - NAMED} more" if len(checks) > NAMED else "")
        if code in ("drift", "binding_lost") and host.written and (made.get(service) or host.written) < host.written:
            cause += " The plan was written after the container was made."
        cures = list(dict.fromkeys(check["hint"] for check in checks if check["hint"]))
        result.add(finding(code, severity, service, evidence, cause, " ".join(cures[:2]) or _AGAIN, [label(check) for check in checks]))


def plan_finding(path, error):
    """Return the finding for a plan that cannot be judged against."""
    if isinstance(error, FileNotFoundError):
        return finding("plan_missing", "critical", "system", f"{path}: no such file", "No plan was applied to this host, or somebody removed it.",
                       "Run the playbook site.")
    if isinstance(error, OSError):
        return finding("plan_unreadable", "critical", "system", f"{path}: {error.strerror or os.strerror(error.errno or 0)}",
                       "The plan cannot be read, so nothing can be judged against it.",
                       "Run with become: true; if that is so, look at the file's mode and disk.")
    return finding("plan_invalid", "critical", "system", f"{path}: {error}", "The plan was changed by hand or written by another version of the collection.",
                   "Run the playbook site, which writes it anew.")
