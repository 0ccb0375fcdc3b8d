# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checks of one container: as its engine sees it, and as the kernel holds it."""
from __future__ import annotations

import os
import re
import socket
import stat
import sys

from ansible_collections.erni_ki.inference.plugins.module_utils import _cgroup, _http, _procs
from ansible_collections.erni_ki.inference.plugins.module_utils._check import (
    MIB, NAMED, Check, NotProven, NotRunning, lasting, mib, named, same_cpus, shown,
)
from ansible_collections.erni_ki.inference.plugins.module_utils._cpulist import format_cpulist, parse_cpulist

# The major number of NVIDIA's own devices is fixed, that of the others (nvidia-uvm, nvidia-caps) is not.
NVIDIA_MAJOR = 195
NVIDIACTL = (NVIDIA_MAJOR, 255)
GPU_NODES = re.compile(r"nvidia.*|dri|kfd|dxg")

# Names of one runtime.
RUNC = ("runc", "io.containerd.runc.v2")


# ---- the container, as its engine sees it


def container_running(subject):
    hint = f"docker start {subject.name}, or run the playbook site; the playbook diagnose finds out why it ended."
    with Check("container_running", subject.service, "running", subject.api, hint) as check:
        try:
            state = subject.get("State") or {}
        except NotRunning as error:
            # All other checks leave it to this one to say what to do.
            raise NotProven(str(error)) from error
        status = state.get("Status") or "state unknown"
        if state.get("OOMKilled"):
            status += ", killed for want of memory"
        if status.startswith(("exited", "dead")):
            status += f" with code {state.get('ExitCode')}"
        if state.get("Error"):
            status += f": {_http.excerpt(state['Error'])}"
        check.see(state.get("Running") and state.get("Status") == "running", status)
    return check.result()


def container_health(subject):
    with Check("container_health", subject.service, "healthy", subject.api, f"docker inspect --format '{{{{json .State.Health}}}}' {subject.name}") as check:
        health = subject.get("State", "Health") if subject.pid else None
        status = (health or {}).get("Status") or "none"
        if status == "none":
            check.see(False, "the container has no health check", hint="Give the service a health check, so that a hang is noticed.")
        else:
            log = (health.get("Log") or [{}])[-1] or {}
            said = f"; the last check ended with {log.get('ExitCode')}: {_http.excerpt(log.get('Output') or '')}" if log.get("ExitCode") else ""
            hint = "The start may still be under way; wait and verify again." if status == "starting" else None
            check.see(status == "healthy", status if status == "healthy" else status + said, hint=hint)
    return check.result()


def restart_count(subject):
    hint = f"docker logs {subject.name} shows why it ended. When the cause is mended, recreate the container."
    with Check("restart_count", subject.service, "0 restarts by the restart policy", subject.api, hint) as check:
        count = subject.get("RestartCount")
        if not isinstance(count, int):
            raise NotProven("the engine does not tell")
        check.see(count == 0, f"{count} restarts since the container was created")
    return check.result()


def listens_only_on(subject, url, bind=None):
    """The container's ports are published on the address they should be, and on no other."""
    hint = "Publish the port as ADDRESS:PORT:PORT; without an address Docker publishes on all of them, past the host's firewall."
    with Check("listens_only_on", subject.service, "published on one address only", subject.api, hint) as check:
        host, port, _path = _http.split_url(url)
        bind = bind or host
        check.expected = f"published on {bind} only, and there as port {port}"
        wanted = addresses(bind)
        if subject.get("HostConfig", "NetworkMode") == "host":
            places = sorted({place for place in listening(subject.root, subject.pid).values() if place[1] == str(port)})
            check.evidence = f"/proc/{subject.pid}/net/tcp, tcp6 (host network)"
        else:
            # Without a process nothing is published, and that is no fault of the ports.
            ports = subject.pid and subject.get("NetworkSettings", "Ports") or {}
            places = sorted({(one.get("HostIp") or "0.0.0.0", str(one.get("HostPort"))) for some in ports.values() for one in some or []})
        foreign = [place for place in places if place[0] not in wanted]
        reached = any(place[1] == str(port) for place in places)
        shown = ", ".join(f"{address}:{number}" if ":" not in address else f"[{address}]:{number}" for address, number in places)
        check.see(reached and not foreign, shown or "no port is published")
    return check.result()


def addresses(host):
    """Return the numeric addresses that stand for a host on which somebody listens."""
    if host in ("0.0.0.0", "::"):
        return {"0.0.0.0", "::"}
    try:
        return {entry[4][0] for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError) as error:
        raise NotProven(f"the name {host} cannot be resolved") from error


def listening(root, pid):
    """Return {inode of the socket: (address, port)} of all that is listened on in the network of a process."""
    places = {}
    for name, family, words in (("tcp", socket.AF_INET, 1), ("tcp6", socket.AF_INET6, 4)):
        try:
            text = _procs.read_text(root, f"/proc/{pid}/net/{name}")
        except _procs.Unreadable:
            # A kernel without IPv6 has no such file.
            if name == "tcp":
                raise
            continue
        for line in text.splitlines()[1:]:
            fields = line.split()
            if len(fields) < 10 or fields[3] != "0A":
                continue
            address, number = fields[1].split(":")
            # The kernel prints each 32-bit word as a number of the machine's own byte order.
            raw = b"".join(int(address[at:at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, 8 * words, 8))
            places[fields[9]] = (socket.inet_ntop(family, raw), str(int(number, 16)))
    return places


# ---- the container, as the kernel holds it


def in_slice(subject):
    hint = "The container was started without cgroup_parent, or by hand; run the playbook again."
    with Check("slice", subject.service, subject.wanted["slice"], "/proc/PID/cgroup", hint) as check:
        group = subject.group("cpuset")
        check.see(subject.wanted["slice"] in group.path.split("/"), f"in {group.path}", f"/proc/{subject.pid}/cgroup")
    return check.result()


def cpuset_effective(subject):
    hint = "Something else changed the cpuset (docker update, a slice with fewer CPUs, a CPU that went offline); run the playbook again."
    with Check("cpuset_effective", subject.service, shown(subject.wanted["cpuset"]), "cpuset of the container's group", hint) as check:
        group = subject.group("cpuset")
        try:
            path, cpus = _cgroup.effective_cpus(group)
        except _procs.Unreadable as error:
            if not error.gone:
                raise
            raise NotProven(f"{error.path} does not exist: the group has no cpuset, nothing holds it to CPUs") from error
        check.see(same_cpus(cpus, subject.wanted["cpuset"]), shown(cpus), path)
    return check.result()


def mems_effective(subject):
    hint = "The container's memory may come from another NUMA node than its cores'; run the playbook again."
    with Check("mems_effective", subject.service, f"nodes {shown(subject.wanted['cpuset_mems'])}", "cpuset of the container's group", hint) as check:
        path, nodes = _cgroup.effective_mems(subject.group("cpuset"))
        check.see(same_cpus(nodes, subject.wanted["cpuset_mems"]), f"nodes {shown(nodes)}", path)
    return check.result()


def threads_in_cpuset(subject):
    cpuset = frozenset(parse_cpulist(subject.wanted["cpuset"]))
    expected = f"every thread of every process within {shown(subject.wanted['cpuset'])}"
    hint = "Recreate the container with its cpuset."
    with Check("threads_in_cpuset", subject.service, expected, "/proc/PID/task/*/status: Cpus_allowed_list", hint) as check:
        outside = lasting(lambda: _faults(subject, lambda process: [
            f"process {process.pid} ({process.comm}) thread {thread.tid} ({thread.comm}) may run on {format_cpulist(thread.cpus)}"
            for thread in process.threads if not thread.cpus <= cpuset
        ]))
        total = sum(len(process.threads) for process in subject.processes())
        check.see(not outside, named(outside, "threads") or f"all {total} threads of {len(subject.processes())} processes")
    return check.result()


def _faults(subject, judge):
    """Return what C(judge) finds in each of the container's processes as they are now."""
    subject.forget()
    found = {process.pid: judge(process) for process in subject.processes()}
    return {pid: texts for pid, texts in found.items() if texts}


def workers(subject):
    """Return the processes some of whose threads are bound to one CPU alone: the engine's workers."""
    return [process for process in subject.processes() if any(len(thread.cpus) == 1 for thread in process.threads)]


def omp_threads(subject):
    """The workers' threads sit where the plan says, one CPU each.

    A bound thread hands its one CPU down to the threads it starts, so it is the CPUs that are compared, not the number
    of threads.
    """
    omp = subject.wanted["omp"]
    explicit = omp["mode"] == "explicit"
    if explicit:
        expected = f"a thread bound to each of {shown(omp['cpus'])} alone, and to no other"
    else:
        expected = f"threads bound to {omp['threads']} CPUs, each on a core of its own, within {shown(subject.wanted['cpuset'])}"
    hint = f"docker logs {subject.name} | grep -i -e omp -e affinity; the engine may have ignored VLLM_CPU_OMP_THREADS_BIND."
    with Check("omp_threads", subject.service, expected, "/proc/PID/task/*/status: Cpus_allowed_list", hint) as check:
        found = workers(subject)
        bound = {cpu for process in found for thread in process.threads if len(thread.cpus) == 1 for cpu in thread.cpus}
        if not bound:
            raise NotProven("no thread is bound to a CPU of its own")
        who = ", ".join(f"{process.pid} ({process.comm})" for process in found[:NAMED])
        text = f"threads of process {who} bound to {format_cpulist(bound)}"
        if explicit:
            wanted = set(parse_cpulist(omp["cpus"]))
            missing, extra = wanted - bound, bound - wanted
            text += f"; none on {format_cpulist(missing)}" if missing else ""
            text += f"; not planned: {format_cpulist(extra)}" if extra else ""
            check.see(bound == wanted, text)
        else:
            cores = {_procs.siblings_of(subject.root, cpu) for cpu in bound}
            outside = bound - set(parse_cpulist(subject.wanted["cpuset"]))
            text += f": {len(bound)} CPUs on {len(cores)} cores"
            text += f"; outside of the cpuset: {format_cpulist(outside)}" if outside else ""
            check.see(len(bound) == omp["threads"] == len(cores) and not outside, text)
    return check.result()


def omp_env(subject):
    """The three variables, as the kernel shows them for the container's first process: an exec would show those of the exec'd.

    The engine and its workers inherit them and then write their titles over the place where the kernel would show theirs.
    """
    wanted = {
        "VLLM_CPU_OMP_THREADS_BIND": str(subject.wanted["omp"]["bind"]),
        "VLLM_CPU_NUM_OF_RESERVED_CPU": str(subject.wanted["omp"]["reserved_cpus"]),
        "VLLM_CPU_KVCACHE_SPACE": str(subject.wanted["kv_cache_gib"]),
    }
    hint = "A variable set in a shell does not reach a running container; change the plan's variables and run the playbook."
    with Check("omp_env", subject.service, _assignments(wanted), "/proc/PID/environ", hint) as check:
        _environment(check, subject, lambda: [subject.pid], wanted)
    return check.result()


def threads_env(subject):
    wanted = {"LLAMA_ARG_THREADS": str(subject.wanted["threads"])}
    hint = "Ollama counts the cores of the host, not of its cpuset, and slows down with too many threads; run the playbook again."
    with Check("threads_env", subject.service, _assignments(wanted), "/proc/PID/environ", hint) as check:
        # The model runs in child processes, which must have it as well.
        _environment(check, subject, lambda: [process.pid for process in subject.processes()], wanted)
    return check.result()


def _assignments(variables):
    return ", ".join(f"{name}={value}" for name, value in variables.items())


def _environment(check, subject, pids, wanted):
    seen = []

    def look():
        subject.forget()
        del seen[:]
        wrong = {}
        for pid in pids():
            try:
                environment = _procs.read_environ(subject.root, pid)
            except _procs.Unreadable as error:
                if error.gone:
                    continue
                raise
            seen.append(pid)
            differences = [
                f"process {pid}: {name}" + (f"={environment[name]}" if name in environment else " is not set")
                for name, value in wanted.items() if environment.get(name) != value
            ]
            if differences:
                wrong[pid] = differences
        return wrong

    wrong = lasting(look)
    if not seen:
        raise NotProven("the processes ended while they were read")
    evidence = named([f"/proc/{pid}/environ" for pid in seen], "processes")
    check.see(not wrong, named(wrong, "differences") or _assignments(wanted), evidence)


def memory_limit(subject):
    wanted = subject.wanted["memory"]["limit_mib"] * MIB
    hint = "docker update, or a start by hand, changed it; run the playbook again."
    with Check("memory_limit", subject.service, mib(wanted), "memory of the container's group", hint) as check:
        path, found = _cgroup.memory_limit(subject.group("memory"))
        check.see(found == wanted, mib(found), path)
    return check.result()


def swap_limit(subject):
    memory = subject.wanted["memory"]
    extra = memory["swap_limit_mib"] - memory["limit_mib"]
    expected = f"{memory['swap_limit_mib']} MiB of memory and swap together ({'no swap' if extra == 0 else f'{extra} MiB of swap'})"
    hint = "The kernel must count swap: on cgroup v1 boot with cgroup_enable=memory swapaccount=1."
    with Check("swap_limit", subject.service, expected, "memory of the container's group", hint) as check:
        try:
            path, found = _cgroup.swap_limit(subject.group("memory"))
        except _procs.Unreadable as error:
            if not error.gone:
                raise
            _without_swap_accounting(check, subject, error, extra)
        else:
            together = "no limit" if found is None else f"{mib(found)} together"
            check.see(found == memory["swap_limit_mib"] * MIB, together, path, "Something gave the container swap; run the playbook again.")
    return check.result()


def _without_swap_accounting(check, subject, error, extra):
    total = _procs.parse_fields(_procs.read_text(subject.root, "/proc/meminfo")).get("SwapTotal", "unknown")
    none = total.split()[:1] == ["0"] and extra == 0
    check.see(none, f"the kernel does not count swap ({error.path} is missing); the host has {'no' if none else total} swap", "/proc/meminfo: SwapTotal")


def memory_reservation(subject):
    """The reservation, and in version 2 that it holds: a group is protected by what all groups above it have as well."""
    wanted = subject.wanted["memory"]["reservation_mib"] * MIB
    with Check("memory_reservation", subject.service, mib(wanted), "memory of the container's group", "Run the playbook again.") as check:
        group = subject.group("memory")
        path, found = _cgroup.memory_reservation(group)
        check.see(found == wanted, mib(found), path)
        above = group.parent() if group.version == 2 and check.ok and wanted else None
        while above is not None and above.path != "/":
            path, granted = _cgroup.memory_reservation(above)
            if granted is not None and granted < wanted:
                check.see(
                    False, f"{mib(found)}, but {os.path.basename(above.path)} above it reserves {mib(granted)}, and the kernel grants no more than that",
                    path, f"Give {os.path.basename(above.path)} MemoryLow={subject.wanted['memory']['reservation_mib']}M or more.")
                break
            above = above.parent()
    return check.result()


def oom_kills(subject):
    hint = "The limit is too small for what runs under it: give a smaller KV cache, context or model, or a higher limit."
    with Check("oom_kills", subject.service, "0 processes killed for memory", "memory of the container's group", hint) as check:
        try:
            path, count = _cgroup.oom_kills(subject.group("memory"))
        except _procs.Unreadable as error:
            # An old kernel does not count; the engine at least knows of the last one.
            killed = subject.get("State", "OOMKilled")
            if not isinstance(killed, bool):
                raise
            check.see(not killed, f"{error}; the engine {'saw one' if killed else 'saw none'}", subject.api)
        else:
            check.see(count == 0, f"{count} processes killed", path)
    return check.result()


# ---- no GPU


def no_gpu_nodes(subject):
    hint = "The container got a GPU: its runtime, NVIDIA_VISIBLE_DEVICES, devices or privileged mode did it. Run the playbook again."
    with Check("no_gpu_nodes", subject.service, "no /dev/nvidia*, /dev/dri, /dev/kfd or /dev/dxg in the container", "/proc/PID/root/dev", hint) as check:
        folder = f"/proc/{subject.pid}/root/dev"
        check.evidence = folder
        nodes = _gpu_nodes(_procs.join(subject.root, folder))
        check.see(not nodes, named([f"/dev/{node}" for node in nodes], "nodes") or "none")
    return check.result()


def _gpu_nodes(folder):
    """Return what looks like a GPU below a /dev folder: by name, and by number under any name."""
    found = []
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise NotProven(f"its /dev cannot be read: {error.strerror}") from error
    for name in names:
        try:
            mode = os.lstat(os.path.join(folder, name))
        except OSError:
            continue
        number = stat.S_ISCHR(mode.st_mode) and os.major(mode.st_rdev) == NVIDIA_MAJOR
        if GPU_NODES.fullmatch(name) or number:
            found.append(name)
    return found


def no_gpu_permission(subject, probe=_cgroup.probe_devices):
    """Neither the kernel nor the container's configuration would let it at a GPU.

    That the nodes are missing is not enough: who may open the device can make the node.
    """
    runtime = (subject.wanted.get("device") or {}).get("runtime") or "runc"
    expected = f"the kernel denies character devices of major {NVIDIA_MAJOR}; not privileged, no devices, runtime {runtime}"
    hint = "docker inspect shows privileged, Devices, DeviceRequests and Runtime; none of them may open a way to a GPU. Run the playbook again."
    with Check("no_gpu_permission", subject.service, expected, subject.api, hint) as check:
        wrong = gpu_configuration(subject, runtime)
        if subject.groups is not None and subject.groups.version_of("devices") == 1:
            group = subject.group("devices")
            check.evidence = f"{subject.api}; {group.file('devices.list')}"
            wrong += [f"the kernel permits '{line}'" for line in _cgroup.granted_by_list(group.read("devices.list"), _gpu_majors(subject.root))]
        else:
            # The first makes sure that the process is the container's; only the very group it is in can be joined.
            subject.group("devices")
            group = subject.groups.of_process(subject.pid, "devices")
            check.evidence = f"{subject.api}; a probe in {group.folder}"
            try:
                answers = probe(_procs.join(subject.root, group.folder), [NVIDIACTL], _host_gpu_nodes(subject.root))
            except _cgroup.ProbeImpossible as error:
                raise NotProven("; ".join(wrong + [f"not provable: {error}"])) from error
            wrong += [f"the kernel permits {what}" for what, granted in answers if granted]
        check.see(not wrong, named(wrong, "ways") or "denied, and nothing in the configuration asks for it")
    return check.result()


def gpu_configuration(subject, runtime, keys=("Devices", "DeviceRequests", "DeviceCgroupRules")):
    """Return what in the container's configuration opens a way to a GPU."""
    host = subject.get("HostConfig") or {}
    wrong = ["the container is privileged"] if host.get("Privileged") else []
    for key in keys:
        if host.get(key):
            wrong.append(f"{key} is {_http.excerpt(host[key])}")
    found = host.get("Runtime") or "unknown"
    if found != runtime and not (found in RUNC and runtime in RUNC):
        wrong.append(f"the runtime is {found}")
    return wrong


def _gpu_majors(root):
    """Return the major numbers of NVIDIA's drivers on this host."""
    majors = {NVIDIA_MAJOR}
    try:
        lines = _procs.read_text(root, "/proc/devices").splitlines()
    except _procs.Unreadable:
        lines = []
    for line in lines:
        if line.startswith("Block"):
            break
        fields = line.split()
        if len(fields) == 2 and fields[1].startswith("nvidia") and fields[0].isdigit():
            majors.add(int(fields[0]))
    return majors


def _host_gpu_nodes(root):
    """Return the NVIDIA nodes of the host itself, also those in folders such as nvidia-caps."""
    nodes = []
    top = _procs.join(root, "/dev")
    try:
        names = sorted(name for name in os.listdir(top) if name.startswith("nvidia"))
    except OSError:
        return []
    for name in names:
        path = os.path.join(top, name)
        inner = sorted(os.listdir(path)) if os.path.isdir(path) else None
        nodes += [path] if inner is None else [os.path.join(path, one) for one in inner]
    return nodes


# ---- the walls around it


def hardening(subject):
    """What the processes can do to the host, as the kernel has it. Ollama's image is made to run as root."""
    strict = subject.service == "vllm"
    expected = "no capabilities, no new privileges" + (", not root, read-only root file system" if strict else "")
    with Check("hardening", subject.service, expected, "/proc/PID/status: CapEff, NoNewPrivs, Uid; /proc/PID/mountinfo", "Run the playbook again.") as check:
        wrong = lasting(lambda: _faults(subject, lambda process: _rights(process, strict)))
        if strict and not _root_is_read_only(_procs.read_text(subject.root, f"/proc/{subject.pid}/mountinfo")):
            wrong.append("its root file system can be written")
        check.see(not wrong, named(wrong, "faults") or f"so for all {len(subject.processes())} processes")
    return check.result()


def _rights(process, strict):
    """Return what a process may do that it should not."""
    status, who = process.status, f"process {process.pid} ({process.comm})"
    wrong = []
    if int(status.get("CapEff", "missing"), 16) != 0:
        wrong.append(f"{who} has capabilities {status['CapEff']}")
    if status.get("NoNewPrivs") != "1":
        wrong.append(f"{who} may gain privileges")
    if strict and "0" in (status.get("Uid") or "0").split():
        wrong.append(f"{who} runs as root")
    return wrong


def _root_is_read_only(mountinfo):
    options = None
    for line in mountinfo.splitlines():
        fields = line.split()
        # The last mount on a place is the one that is seen.
        if len(fields) > 5 and fields[4] == "/":
            options = fields[5].split(",")
    if options is None:
        raise NotProven("its root file system is not in its mountinfo")
    return "ro" in options
