# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host really does, judged against the plan that was applied.

Evidence is read from the kernel and from the services' APIs, never from the file that asked for it.
"""
from __future__ import annotations

import re

from ansible_collections.erni_ki.inference.plugins.module_utils import _cgroup, _check_api, _check_beside, _check_container, _check_gpu, _check_host
from ansible_collections.erni_ki.inference.plugins.module_utils import _gpu_info, _procs
from ansible_collections.erni_ki.inference.plugins.module_utils._check import NotProven, Subject
from ansible_collections.erni_ki.inference.plugins.module_utils._cpulist import parse_cpulist

SCHEMA_VERSION = 1
SERVICES = ("vllm", "ollama")


class PlanError(Exception):
    """The plan cannot be judged against; the text says why."""


def load_plan(plan):
    """Return the plan when it can be judged against; PlanError, with everything that is missing, otherwise."""
    if not isinstance(plan, dict):
        raise PlanError("the plan is not an object")
    version = plan.get("schema_version")
    if version != SCHEMA_VERSION:
        raise PlanError(f"the plan has schema_version {version!r}, and this module knows {SCHEMA_VERSION}; apply the plan again with this collection")
    wrong = []
    _need(plan, "isolation", _is_text, wrong)
    for service in SERVICES:
        if plan.get(service) is not None:
            _need(plan, service, _is_dict, wrong)
            _need_service(plan[service] if _is_dict(plan[service]) else {}, service, wrong)
    _need(plan, "partition.slices", lambda value: isinstance(value, list), wrong)
    if not wrong:
        for number, part in enumerate(plan["partition"]["slices"]):
            _need(part, "unit", _is_text, wrong, f"partition.slices[{number}].")
            _need(part, "cpus", _is_cpulist, wrong, f"partition.slices[{number}].")
        if plan["partition"].get("fence") is not None:
            _need(plan, "partition.fence.cpus", _is_cpulist, wrong)
            _need(plan, "partition.fence.units", lambda value: isinstance(value, list) and all(map(_is_text, value)), wrong)
    if wrong:
        raise PlanError("the plan lacks, or has in another form: " + ", ".join(wrong))
    return plan


def _need_service(wanted, service, wrong):
    prefix = f"{service}."
    for key, test in (("container", _is_text), ("slice", _is_text), ("cpuset", _is_cpulist), ("cpuset_mems", _is_cpulist)):
        _need(wanted, key, test, wrong, prefix)
    for key in ("memory.limit_mib", "memory.swap_limit_mib", "memory.reservation_mib"):
        _need(wanted, key, _is_number, wrong, prefix)
    if wanted.get("device") is not None:
        _need(wanted, "device", _is_dict, wrong, prefix)
    if service == "vllm":
        for key in ("kv_cache_gib", "omp.threads", "omp.reserved_cpus"):
            _need(wanted, key, _is_number, wrong, prefix)
        for key in ("omp.mode", "omp.bind"):
            _need(wanted, key, _is_text, wrong, prefix)
        if _value(wanted, "omp.mode") == "explicit":
            _need(wanted, "omp.cpus", _is_cpulist, wrong, prefix)
    else:
        _need(wanted, "threads", _is_number, wrong, prefix)
        if _value(wanted, "device.kind") == "gpu":
            for key, test in (("uuid", _is_text), ("cdi_device", _is_text), ("driver.allowed", _is_window)):
                _need(wanted, f"device.{key}", test, wrong, prefix)


def _need(value, path, test, wrong, prefix=""):
    if not test(_value(value, path)):
        wrong.append(prefix + path)


def _value(value, path):
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _is_dict(value):
    return isinstance(value, dict)


def _is_text(value):
    return isinstance(value, str) and bool(value)


def _is_number(value):
    return isinstance(value, int) and not isinstance(value, bool)


def _is_cpulist(value):
    try:
        return isinstance(value, str) and bool(parse_cpulist(value))
    except ValueError:
        return False


def _is_window(value):
    return isinstance(value, str) and re.fullmatch(r"[0-9]+-[0-9]*", value) is not None


def planned_services(plan):
    return [service for service in SERVICES if plan.get(service)]


def mounted_groups(root):
    """Return the Groups of a host, or None where none can be seen."""
    try:
        return _cgroup.Groups(root)
    except _procs.Unreadable:
        return None


def container_checks(subject, api, probe=_cgroup.probe_devices):
    """Return the checks of one container, in the order in which a person looks for a fault."""
    checks = [
        _check_container.container_running(subject),
        _check_container.container_health(subject),
        _check_container.restart_count(subject),
        _check_container.in_slice(subject),
        _check_container.cpuset_effective(subject),
        _check_container.mems_effective(subject),
        _check_container.threads_in_cpuset(subject),
    ]
    if subject.service == "vllm":
        checks += [_check_container.omp_threads(subject), _check_container.omp_env(subject)]
    else:
        checks.append(_check_container.threads_env(subject))
    checks += [
        _check_container.memory_limit(subject),
        _check_container.swap_limit(subject),
        _check_container.memory_reservation(subject),
        _check_container.oom_kills(subject),
    ]
    if subject.service == "vllm" or (subject.wanted.get("device") or {}).get("kind", "none") == "none":
        checks += [_check_container.no_gpu_nodes(subject), _check_container.no_gpu_permission(subject, probe)]
    return checks + [_check_container.hardening(subject), _check_container.listens_only_on(subject, api.url, api.bind)]


def gpu_checks(subject, card, loaded, probe=_cgroup.probe_devices):
    """Return the checks of Ollama's GPU; C(loaded) is that of its models, or None where none had to be loaded."""
    checks = [
        _check_gpu.gpu_uuid(subject, card),
        _check_gpu.gpu_driver(subject, card),
        _check_gpu.cdi_fresh(subject, card),
        _check_gpu.gpu_nodes(subject, card, probe),
    ]
    if loaded is None:
        # The rest can be seen only while a model is loaded.
        return checks
    return checks + [loaded, _check_gpu.gpu_libraries(subject, card), _check_gpu.gpu_processes(subject, card), _check_gpu.runner_threads(subject)]


def system_checks(plan, subjects, root, groups):
    """Return the checks of everything around the containers."""
    partition = plan["partition"]
    by_service = {subject.service: subject for subject in subjects}
    exclusive = plan["isolation"] == "exclusive"
    checks = []
    for part in partition["slices"]:
        owner = next((service for service in planned_services(plan) if plan[service]["slice"] == part["unit"]), "system")
        if owner != "system" and owner not in by_service:
            continue
        # With cgroup v1 systemd holds no slice to CPUs; there the container's own cpuset does all of it.
        if exclusive or groups is None or groups.version_of("cpuset") == 2:
            checks.append(_check_host.slice_effective(owner, part, groups, by_service.get(owner)))
    if partition.get("fence"):
        checks.append(_check_host.fence_effective(partition["fence"], groups))
    if exclusive and plan.get("vllm"):
        exempt = [_own_path(subject) for subject in subjects if subject.service == "vllm" or subject.wanted.get("policy") == "any"]
        checks.append(_check_host.exclusive_cores(plan["vllm"]["cpuset"], [path for path in exempt if path], root, groups))
    return checks


def _own_path(subject):
    try:
        return subject.group("cpuset").path
    except (NotProven, _procs.Unreadable):
        return None


def prove(plan, services, apis, inspect, root="/", generate=True, probe=_cgroup.probe_devices, look=_gpu_info.detect, beside=()):
    """Return all checks.

    C(apis) maps a service to its Api; C(inspect) takes a container's name and returns (attributes or None, problem or
    None). The services are made to work first: what runs only while a token is made (Ollama's runner) is then there to
    be looked at. C(look) takes the root and returns what M(erni_ki.inference.gpu_info) does; it is called when the plan has a GPU.
    C(beside) has what is wanted of each unit beside the engines; after a token was made, a gateway has time to notice that.
    """
    groups = mounted_groups(root)
    asked = {}
    for service in services:
        asked[service] = [_check_api.api_health(apis[service])]
        if generate:
            asked[service].append(_check_api.token_generated(apis[service]))
    device, card, loaded = _check_gpu.planned(plan), None, None
    if device:
        if generate and "ollama" in services:
            loaded = _check_gpu.gpu_loaded(device, plan["ollama"]["container"], apis["ollama"])
        card = _check_gpu.Card(device, root, look)
    subjects = []
    # In exclusive mode the other container matters as well, also when it is not asked about.
    for service in planned_services(plan):
        subject = Subject(service, plan[service], root, groups)
        subject.inspected(*inspect(subject.name))
        subjects.append(subject)
    checks = []
    for subject in subjects:
        if subject.service in services:
            checks += container_checks(subject, apis[subject.service], probe) + asked[subject.service]
            if card and subject.service == "ollama":
                checks += gpu_checks(subject, card, loaded, probe)
            elif card:
                checks.append(_check_gpu.no_gpu_processes(subject, card))
    checks += _check_beside.checks(beside, (plan.get("system") or {}).get("cpuset"), root, groups, _check_beside.SETTLES if generate else 0)
    around = system_checks(plan, subjects, root, groups)
    return checks + [check for check in around if check["service"] == "system" or check["service"] in services]


def verdict(checks):
    """Return ok, failed_checks, summary and table; a result named failed is one that Ansible takes for its own."""
    failed = [f"{check['service']}: {check['name']}" for check in checks if not check["ok"]]
    ok = bool(checks) and not failed
    total = f"{len(checks)} check{'' if len(checks) == 1 else 's'}"
    summary = f"ok: {total} passed" if ok else f"FAILED: {len(failed)} of {total}: {', '.join(failed)}" if checks else "FAILED: nothing was checked"
    return {"ok": ok, "failed_checks": failed, "summary": summary, "table": table(checks)}


def table(checks, width=56):
    """Return aligned lines; what failed is told in full below its line, unless another check tells what to do about it."""
    head = ("", "service", "check", "expected", "found")
    rows = [("ok" if check["ok"] else "FAIL", check["service"], check["name"], _cut(check["expected"], width), _cut(check["found"], width)) for check in checks]
    widths = [max(len(row[column]) for row in [head] + rows) for column in range(4)]
    lines = []
    for row, check in zip([head] + rows, [None] + list(checks)):
        lines.append("  ".join(cell.ljust(size) for cell, size in zip(row, widths + [0])).rstrip())
        if check and not check["ok"] and check["hint"]:
            for label in ("expected", "found", "evidence", "hint"):
                if check[label]:
                    lines.append(f"      {label + ':':<10}{check[label]}")
    return lines


def _cut(text, width):
    text = " ".join(text.split())
    return text if len(text) <= width else text[:width - 1] + "…"
