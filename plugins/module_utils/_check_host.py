# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checks of the host around the containers: slices, fence, and who else runs on the cores."""
from __future__ import annotations

import os

from ansible_collections.erni_ki.inference.plugins.module_utils import _cgroup, _procs
from ansible_collections.erni_ki.inference.plugins.module_utils._check import Check, NotProven, lasting, named, same_cpus, shown
from ansible_collections.erni_ki.inference.plugins.module_utils._cpulist import format_cpulist, parse_cpulist


def slice_effective(service, part, groups, subject=None):
    """The slice itself is held to the planned CPUs and nodes, whatever runs in it."""
    nodes = f", nodes {shown(part['mems'])}" if part.get("mems") else ""
    hint = f"systemctl show {part['unit']} -p AllowedCPUs -p AllowedMemoryNodes; run the playbook again."
    with Check("slice_effective", service, f"{part['unit']} held to {shown(part['cpus'])}{nodes}", "cpuset of the slice", hint) as check:
        if groups is None:
            raise NotProven("no control groups are mounted")
        group = _slice_of(subject, part["unit"]) or groups.of_unit(part["unit"], "cpuset")
        if not groups.exists(group):
            raise NotProven(f"{group.folder} does not exist: the slice is not active")
        path, cpus = _effective_or_none(_cgroup.effective_cpus, group)
        ok, text = same_cpus(cpus, part["cpus"]), shown(cpus)
        if nodes:
            mems = _effective_or_none(_cgroup.effective_mems, group)[1]
            ok, text = ok and same_cpus(mems, part["mems"]), f"{text}, nodes {shown(mems)}"
        check.see(ok, text, path)
    return check.result()


def _slice_of(subject, unit):
    """Return the slice as the running container is in it, wherever its engine put it; None when it is not."""
    try:
        group = subject.group("cpuset") if subject else None
    except (NotProven, _procs.Unreadable):
        return None
    while group is not None and os.path.basename(group.path) != unit:
        group = group.parent()
    return group


def _effective_or_none(read, group):
    try:
        return read(group)
    except _procs.Unreadable as error:
        if not error.gone:
            raise
        raise NotProven(f"{error.path} does not exist: nothing holds this group to CPUs") from error


def fence_effective(fence, groups):
    hint = "systemctl show UNIT -p AllowedCPUs; a drop-in is missing or not loaded (systemctl daemon-reload). Run the playbook again."
    expected = f"{', '.join(fence['units'])} held to {shown(fence['cpus'])}"
    with Check("fence_effective", "system", expected, "cpuset of each unit", hint) as check:
        if groups is None:
            raise NotProven("no control groups are mounted")
        wrong, paths = [], []
        for unit in fence["units"]:
            group = groups.of_unit(unit, "cpuset")
            # A slice in which nothing has been started yet does not exist, and its drop-in waits for it.
            if not groups.exists(group):
                continue
            try:
                path, cpus = _effective_or_none(_cgroup.effective_cpus, group)
            except NotProven as error:
                wrong.append(f"{unit}: {error}")
                continue
            paths.append(path)
            if not same_cpus(cpus, fence["cpus"]):
                wrong.append(f"{unit} may use {shown(cpus)}")
        if not wrong and not paths:
            raise NotProven("none of these units is there")
        held = f"{len(paths)} of {len(fence['units'])} units are there, each held to {shown(fence['cpus'])}"
        check.see(not wrong, named(wrong, "units") or held, ", ".join(paths))
    return check.result()


def exclusive_cores(cpuset, exempt, root, groups):
    """No thread of any other user-space process may run on vLLM's CPUs.

    C(exempt) are the groups of the containers that may. Threads of the kernel are not counted: those that are bound to a
    CPU serve whoever runs there.
    """
    cpus = frozenset(parse_cpulist(cpuset))
    expected = f"no other user-space process may run on {shown(cpuset)}"
    hint = "Stop it, or move it: systemctl set-property UNIT AllowedCPUs=…; a container belongs into a slice that is fenced."
    with Check("exclusive_cores", "system", expected, "/proc/*/task/*/status: Cpus_allowed_list", hint) as check:
        if groups is None:
            raise NotProven("no control groups are mounted")
        count = {}

        def look():
            count.update(processes=0, threads=0)
            offenders = {}
            for pid in _procs.list_pids(root):
                process, place = _foreign(pid, exempt, root, groups)
                if process is None:
                    continue
                count["processes"] += 1
                count["threads"] += len(process.threads)
                reach = frozenset().union(*(thread.cpus for thread in process.threads)) & cpus
                if reach:
                    offenders[pid] = [f"process {pid} ({process.comm}) in {place} may run on {format_cpulist(reach)}"]
            return offenders

        offenders = lasting(look)
        if not count["processes"]:
            raise NotProven("no process was found")
        check.see(not offenders, named(offenders, "processes") or f"none of {count['processes']} other processes ({count['threads']} threads)")
    return check.result()


def _foreign(pid, exempt, root, groups):
    """Return (Process, path of its group) of a user-space process outside of the exempt groups; (None, None) otherwise."""
    try:
        if _procs.is_kernel_thread(_procs.read_text(root, f"/proc/{pid}/stat")):
            return None, None
        place = groups.of_process(pid, "cpuset").path
    except _procs.Unreadable as error:
        if error.gone:
            return None, None
        raise
    if any(place == path or place.startswith(path + "/") for path in exempt):
        return None, None
    process = _procs.read_process(root, pid)
    return (process, place) if process is not None and process.threads else (None, None)
