# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host really does, judged against the plan that was applied.

Evidence is read from the kernel and from the services' APIs, never from the file that asked for it. A check that cannot
be evaluated has failed, and says why; nothing in here ends in an exception for what a host may look like.
"""
from __future__ import annotations

import os
import re
import socket
import stat
import sys
import time

from ansible_collections.erni_ki.inference.plugins.module_utils import _cgroup, _http, _procs
from ansible_collections.erni_ki.inference.plugins.module_utils._cpulist import format_cpulist, parse_cpulist

SCHEMA_VERSION = 1
SERVICES = ("vllm", "ollama")
MIB = 1 << 20

# The major number of NVIDIA's own devices is fixed, that of the others (nvidia-uvm, nvidia-caps) is not.
NVIDIA_MAJOR = 195
NVIDIACTL = (NVIDIA_MAJOR, 255)
GPU_NODES = re.compile(r"nvidia.*|dri|kfd|dxg")

# Names of one runtime.
RUNC = ("runc", "io.containerd.runc.v2")

# How many offenders a message names.
NAMED = 5


# A fault in a process must be seen in it this often, this many seconds apart: a health check that the runtime is just
# starting inside of the container has the runtime's own rights and environment for a moment.
LOOKS = 3
PAUSE = 1.0


class NotProven(Exception):
    """The evidence is not to be had; the text says why."""


class PlanError(Exception):
    """The plan cannot be judged against; the text says why."""


class Check:
    """One check, from its question to its verdict.

    As a context manager it turns whatever keeps the evidence away into a failed check.
    """

    def __init__(self, name, service, expected, evidence="", hint=""):
        self.name = name
        self.service = service
        self.ok = False
        self.expected = expected
        self.found = "not evaluated"
        self.evidence = evidence
        self.hint = hint

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if error is None:
            return False
        if not issubclass(kind, Exception):
            return False
        self.ok = False
        if isinstance(error, (NotProven, _procs.Unreadable, _http.HttpError, _cgroup.ProbeImpossible)):
            self.found = str(error)
        else:
            # A verdict with a hole in it is worth more than a traceback.
            self.found = f"could not be evaluated: {kind.__name__}: {error}"
        return True

    def see(self, ok, found, evidence=None, hint=None):
        self.ok = bool(ok)
        self.found = str(found)
        self.evidence = evidence or self.evidence
        self.hint = hint or self.hint

    def result(self):
        return {
            "name": self.name,
            "service": self.service,
            "ok": self.ok,
            "expected": self.expected,
            "found": self.found,
            "evidence": self.evidence,
            "hint": "" if self.ok else self.hint,
        }


class Subject:
    """A container, as the engine and the kernel show it, and what the plan wants of it."""

    def __init__(self, service, wanted, root="/", groups=None):
        self.service = service
        self.wanted = wanted
        self.root = root
        self.groups = groups
        self.attributes = None
        self.problem = "the engine was not asked"
        self._processes = None

    def inspected(self, attributes, problem=None):
        """Take over the engine's answer; None as attributes and no problem is: there is no such container."""
        self.attributes = attributes
        self.problem = problem
        self.forget()

    def forget(self):
        """Let the processes be read anew."""
        self._processes = None

    @property
    def name(self):
        return self.wanted["container"]

    def get(self, *path):
        """Return a value of the engine's answer, None where one level is missing."""
        value = self.engine()
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def engine(self):
        if self.problem:
            raise NotProven(self.problem)
        if self.attributes is None:
            raise NotProven(f"there is no container '{self.name}'")
        return self.attributes

    @property
    def api(self):
        return f"Docker API: containers/{self.name}/json"

    @property
    def pid(self):
        pid = self.get("State", "Pid")
        if not self.get("State", "Running") or not pid:
            raise NotProven(f"the container does not run ({self.get('State', 'Status') or 'state unknown'})")
        return pid

    def group(self, controller):
        """Return the container's own group; a process that the engine names but that is not in it proves nothing."""
        if self.groups is None:
            raise NotProven("no control groups are mounted")
        group = self.groups.of_process(self.pid, controller)
        own = group.cut(str(self.get("Id") or "?"))
        if own is None:
            raise NotProven(f"process {self.pid} is in the group {group.path}, which is not one of the container {str(self.get('Id'))[:12]}")
        return own

    def processes(self):
        """Return every process in the container's groups; at least one, or NotProven."""
        if self._processes is None:
            pids = set(self.group("cpuset").pids())
            # Version 1 has a tree for each controller, and a process may be in one and not in the other.
            pids |= set(self.group("memory").pids())
            found = (_procs.read_process(self.root, pid) for pid in sorted(pids))
            self._processes = [process for process in found if process is not None and process.threads]
        if not self._processes:
            raise NotProven(f"no process is left in {self.group('cpuset').folder}")
        return self._processes


def lasting(look, looks=LOOKS, pause=None):
    """Return the faults that stay: C(look) returns them as texts by process, and is asked again while there are any."""
    faults = look()
    for _again in range(looks - 1):
        if not faults:
            break
        time.sleep(PAUSE if pause is None else pause)
        seen = look()
        faults = {pid: seen[pid] for pid in seen if pid in faults}
    return [text for pid in sorted(faults) for text in faults[pid]]


def mib(number):
    """Return bytes as text for people."""
    if number is None:
        return "no limit"
    return f"{number // MIB} MiB" if number % MIB == 0 else f"{number} bytes ({number / MIB:.1f} MiB)"


def _named(offenders, what):
    """Return the first few offenders and how many more there are."""
    text = "; ".join(offenders[:NAMED])
    more = len(offenders) - NAMED
    return text + (f"; and {more} more {what}" if more > 0 else "")


def _same_cpus(left, right):
    return parse_cpulist(left) == parse_cpulist(right)


def _shown(cpulist):
    """Return a CPU list in the one way it is shown everywhere."""
    return format_cpulist(parse_cpulist(cpulist)) or "none"


# ---- the container, as its engine sees it


def container_running(subject):
    with Check("container_running", subject.service, "running", subject.api, f"docker ps -a; docker logs {subject.name} --tail=50") as check:
        state = subject.get("State") or {}
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
            check.see(status == "healthy", status if status == "healthy" else status + said, hint="The start may still be under way; wait and verify again." if status == "starting" else None)
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
        wanted = _addresses(bind)
        if subject.get("HostConfig", "NetworkMode") == "host":
            places = _listening(subject.root, subject.pid, port)
            check.evidence = f"/proc/{subject.pid}/net/tcp, tcp6 (host network)"
        else:
            ports = subject.get("NetworkSettings", "Ports") or {}
            places = sorted({(one.get("HostIp") or "0.0.0.0", str(one.get("HostPort"))) for some in ports.values() for one in some or []})
        foreign = [place for place in places if place[0] not in wanted]
        reached = any(place[1] == str(port) for place in places)
        shown = ", ".join(f"{address}:{number}" if ":" not in address else f"[{address}]:{number}" for address, number in places)
        check.see(reached and not foreign, shown or "no port is published")
    return check.result()


def _addresses(host):
    if host in ("0.0.0.0", "::"):
        return {"0.0.0.0", "::"}
    try:
        return {entry[4][0] for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError) as error:
        raise NotProven(f"the name {host} cannot be resolved") from error


def _listening(root, pid, port):
    """Return the (address, port) pairs that are listened on at this port in the network of a process."""
    places = set()
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
            if len(fields) < 4 or fields[3] != "0A":
                continue
            address, number = fields[1].split(":")
            if int(number, 16) != port:
                continue
            # The kernel prints each 32-bit word as a number of the machine's own byte order.
            raw = b"".join(int(address[at:at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, 8 * words, 8))
            places.add((socket.inet_ntop(family, raw), str(port)))
    return sorted(places)


# ---- the container, as the kernel holds it


def in_slice(subject):
    hint = "The container was started without cgroup_parent, or by hand; run the playbook again."
    with Check("slice", subject.service, subject.wanted["slice"], "/proc/PID/cgroup", hint) as check:
        group = subject.group("cpuset")
        check.see(subject.wanted["slice"] in group.path.split("/"), f"in {group.path}", f"/proc/{subject.pid}/cgroup")
    return check.result()


def cpuset_effective(subject):
    hint = "Something else changed the cpuset (docker update, a slice with fewer CPUs, a CPU that went offline); run the playbook again."
    with Check("cpuset_effective", subject.service, _shown(subject.wanted["cpuset"]), "cpuset of the container's group", hint) as check:
        group = subject.group("cpuset")
        try:
            path, cpus = _cgroup.effective_cpus(group)
        except _procs.Unreadable as error:
            if not error.gone:
                raise
            raise NotProven(f"{error.path} does not exist: the group has no cpuset, nothing holds it to CPUs") from error
        check.see(_same_cpus(cpus, subject.wanted["cpuset"]), _shown(cpus), path)
    return check.result()


def mems_effective(subject):
    hint = "The container's memory may come from another NUMA node than its cores'; run the playbook again."
    with Check("mems_effective", subject.service, f"nodes {_shown(subject.wanted['cpuset_mems'])}", "cpuset of the container's group", hint) as check:
        path, nodes = _cgroup.effective_mems(subject.group("cpuset"))
        check.see(_same_cpus(nodes, subject.wanted["cpuset_mems"]), f"nodes {_shown(nodes)}", path)
    return check.result()


def threads_in_cpuset(subject):
    cpuset = frozenset(parse_cpulist(subject.wanted["cpuset"]))
    expected = f"every thread of every process within {_shown(subject.wanted['cpuset'])}"
    with Check("threads_in_cpuset", subject.service, expected, "/proc/PID/task/*/status: Cpus_allowed_list", "Recreate the container with its cpuset.") as check:
        outside = lasting(lambda: _faults(subject, lambda process: [
            f"process {process.pid} ({process.comm}) thread {thread.tid} ({thread.comm}) may run on {format_cpulist(thread.cpus)}"
            for thread in process.threads if not thread.cpus <= cpuset
        ]))
        total = sum(len(process.threads) for process in subject.processes())
        check.see(not outside, _named(outside, "threads") or f"all {total} threads of {len(subject.processes())} processes")
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
        expected = f"a thread bound to each of {_shown(omp['cpus'])} alone, and to no other"
    else:
        expected = f"threads bound to {omp['threads']} CPUs, each on a core of its own, within {_shown(subject.wanted['cpuset'])}"
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
    """The three variables, as the kernel shows them for the engine's process: an exec would show those of the exec'd."""
    wanted = {
        "VLLM_CPU_OMP_THREADS_BIND": str(subject.wanted["omp"]["bind"]),
        "VLLM_CPU_NUM_OF_RESERVED_CPU": str(subject.wanted["omp"]["reserved_cpus"]),
        "VLLM_CPU_KVCACHE_SPACE": str(subject.wanted["kv_cache_gib"]),
    }
    hint = "A variable set in a shell does not reach a running container; change the plan's variables and run the playbook."
    with Check("omp_env", subject.service, _assignments(wanted), "/proc/PID/environ", hint) as check:
        _environment(check, subject, lambda: [process.pid for process in workers(subject)] or [subject.pid], wanted)
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
    evidence = _named([f"/proc/{pid}/environ" for pid in seen], "processes")
    check.see(not wrong, _named(wrong, "differences") or _assignments(wanted), evidence)


def memory_limit(subject):
    wanted = subject.wanted["memory"]["limit_mib"] * MIB
    with Check("memory_limit", subject.service, mib(wanted), "memory of the container's group", "docker update, or a start by hand, changed it; run the playbook again.") as check:
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
        check.see(not nodes, _named([f"/dev/{node}" for node in nodes], "nodes") or "none")
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
        wrong = _gpu_configuration(subject, runtime)
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
        check.see(not wrong, _named(wrong, "ways") or "denied, and nothing in the configuration asks for it")
    return check.result()


def _gpu_configuration(subject, runtime):
    host = subject.get("HostConfig") or {}
    wrong = ["the container is privileged"] if host.get("Privileged") else []
    for key in ("Devices", "DeviceRequests", "DeviceCgroupRules"):
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
        check.see(not wrong, _named(wrong, "faults") or f"so for all {len(subject.processes())} processes")
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


# ---- the services' APIs


class Api:
    """How a service is asked."""

    def __init__(self, service, url, timeout, model=None, key_file=None, bind=None):
        self.service = service
        self.url = url
        self.bind = bind        # the address its port should be published on; that of the URL without
        self.timeout = timeout
        self.model = model
        self.key_file = key_file
        self.silent = None      # why there was no answer at all, so that a second wait is spared
        self._key = None

    def ask(self, path, body=None, authorized=False):
        headers = {}
        if authorized and self.key_file:
            headers["Authorization"] = f"Bearer {self.key()}"
        return _http.exchange(self.url, path, body=body, headers=headers, timeout=self.timeout)

    def key(self):
        if self._key is None:
            self._key = read_key(self.key_file)
        return self._key

    def masked(self, text):
        return text.replace(self._key, "********") if self._key else text


def read_key(path):
    """Return the API key in a file that holds nothing else, or as VLLM_API_KEY=…"""
    try:
        with open(path, encoding="utf-8") as handle:
            lines = [line.strip() for line in handle.read().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise NotProven(f"the API key file {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    for line in lines:
        if line and not line.startswith("#"):
            name, sign, value = line.partition("=")
            key = value.strip().strip("'\"") if sign and name.strip() == "VLLM_API_KEY" else line
            if not key.isascii() or not key.isprintable() or not key:
                raise NotProven(f"the API key in {path} is not plain text")
            return key
    raise NotProven(f"the API key file {path} is empty")


def api_health(api):
    path = "/health" if api.service == "vllm" else "/api/version"
    with Check("api_health", api.service, f"GET {path}: HTTP 200", f"{api.url}{path}", f"docker logs {api.service} --tail=50") as check:
        try:
            answer = api.ask(path)
        except _http.HttpError as error:
            api.silent = str(error)
            raise
        ok = answer.status == 200
        text = f"HTTP {answer.status}"
        if ok and api.service == "ollama":
            version = answer.json()
            ok = isinstance(version, dict) and bool(version.get("version"))
            text += f", version {version['version']}" if ok else f", {_http.excerpt(answer.text())}"
        elif not ok:
            text += f": {_http.excerpt(answer.text())}"
        check.see(ok, text)
    return check.result()


def token_generated(api):
    path = "/v1/completions" if api.service == "vllm" else "/api/generate"
    hint = f"docker logs {api.service} --tail=50; the service answers, but does not do its work."
    with Check("token_generated", api.service, "at least 1 token", f"{api.url}{path}", hint) as check:
        if api.silent:
            raise NotProven(f"not tried, since the service did not answer before: {api.silent}")
        try:
            model, tokens = _vllm_token(api) if api.service == "vllm" else _ollama_token(api)
        except (_http.HttpError, NotProven) as error:
            raise NotProven(api.masked(str(error))) from error
        check.see(tokens >= 1, f"{tokens} token{'' if tokens == 1 else 's'} from {model}")
    return check.result()


def _answered(answer, what):
    """Return the JSON object of an answer that must be a success."""
    if answer.status in (401, 403):
        raise NotProven(f"{what}: HTTP {answer.status}, the service wants another API key")
    if answer.status != 200:
        raise NotProven(f"{what}: HTTP {answer.status}: {_http.excerpt(answer.text())}")
    value = answer.json()
    if not isinstance(value, dict):
        raise NotProven(f"{what}: the answer is not an object: {_http.excerpt(answer.text())}")
    return value


def _first(entries, key, what):
    for entry in entries or []:
        if isinstance(entry, dict) and entry.get(key):
            return entry[key]
    raise NotProven(what)


def _vllm_token(api):
    model = api.model
    if not model:
        listed = _answered(api.ask("/v1/models", authorized=True), "GET /v1/models")
        model = _first(listed.get("data"), "id", "GET /v1/models lists no model")
    body = {"model": model, "prompt": "Hello", "max_tokens": 1, "temperature": 0}
    said = _answered(api.ask("/v1/completions", body, authorized=True), "POST /v1/completions")
    tokens = (said.get("usage") or {}).get("completion_tokens")
    return model, tokens if isinstance(tokens, int) else 0


def _ollama_token(api):
    model = api.model
    if not model:
        listed = _answered(api.ask("/api/tags"), "GET /api/tags")
        model = _first(listed.get("models"), "name", "GET /api/tags lists no model; pull one, or name it in ollama_model")
    body = {"model": model, "prompt": "Hello", "stream": False, "options": {"num_predict": 1}}
    said = _answered(api.ask("/api/generate", body), "POST /api/generate")
    if said.get("error"):
        raise NotProven(f"POST /api/generate: {_http.excerpt(said['error'])}")
    tokens = said.get("eval_count")
    return model, tokens if isinstance(tokens, int) else 0


# ---- everything else on the host


def slice_effective(service, part, groups, subject=None):
    """The slice itself is held to the planned CPUs and nodes, whatever runs in it."""
    nodes = f", nodes {_shown(part['mems'])}" if part.get("mems") else ""
    hint = f"systemctl show {part['unit']} -p AllowedCPUs -p AllowedMemoryNodes; run the playbook again."
    with Check("slice_effective", service, f"{part['unit']} held to {_shown(part['cpus'])}{nodes}", "cpuset of the slice", hint) as check:
        if groups is None:
            raise NotProven("no control groups are mounted")
        group = _slice_of(subject, part["unit"]) or groups.of_unit(part["unit"], "cpuset")
        if not groups.exists(group):
            raise NotProven(f"{group.folder} does not exist: the slice is not active")
        path, cpus = _effective_or_none(_cgroup.effective_cpus, group)
        ok, text = _same_cpus(cpus, part["cpus"]), _shown(cpus)
        if nodes:
            mems = _effective_or_none(_cgroup.effective_mems, group)[1]
            ok, text = ok and _same_cpus(mems, part["mems"]), f"{text}, nodes {_shown(mems)}"
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
    expected = f"{', '.join(fence['units'])} held to {_shown(fence['cpus'])}"
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
            if not _same_cpus(cpus, fence["cpus"]):
                wrong.append(f"{unit} may use {_shown(cpus)}")
        if not wrong and not paths:
            raise NotProven("none of these units is there")
        check.see(not wrong, _named(wrong, "units") or f"{len(paths)} of {len(fence['units'])} units are there, each held to {_shown(fence['cpus'])}", ", ".join(paths))
    return check.result()


def exclusive_cores(cpuset, exempt, root, groups):
    """No thread of any other user-space process may run on vLLM's CPUs.

    C(exempt) are the groups of the containers that may. Threads of the kernel are not counted: those that are bound to a
    CPU serve whoever runs there.
    """
    cpus = frozenset(parse_cpulist(cpuset))
    expected = f"no other user-space process may run on {_shown(cpuset)}"
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
        check.see(not offenders, _named(offenders, "processes") or f"none of {count['processes']} other processes ({count['threads']} threads)")
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


# ---- the whole of it


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
        for key, test in (("kv_cache_gib", _is_number), ("omp.mode", _is_text), ("omp.bind", _is_text), ("omp.threads", _is_number), ("omp.reserved_cpus", _is_number)):
            _need(wanted, key, test, wrong, prefix)
        if _value(wanted, "omp.mode") == "explicit":
            _need(wanted, "omp.cpus", _is_cpulist, wrong, prefix)
    else:
        _need(wanted, "threads", _is_number, wrong, prefix)


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
        container_running(subject),
        container_health(subject),
        restart_count(subject),
        in_slice(subject),
        cpuset_effective(subject),
        mems_effective(subject),
        threads_in_cpuset(subject),
    ]
    if subject.service == "vllm":
        checks += [omp_threads(subject), omp_env(subject)]
    else:
        checks.append(threads_env(subject))
    checks += [memory_limit(subject), swap_limit(subject), memory_reservation(subject), oom_kills(subject)]
    if subject.service == "vllm" or (subject.wanted.get("device") or {}).get("kind", "none") == "none":
        checks += [no_gpu_nodes(subject), no_gpu_permission(subject, probe)]
    return checks + [hardening(subject), listens_only_on(subject, api.url, api.bind)]


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
            checks.append(slice_effective(owner, part, groups, by_service.get(owner)))
    if partition.get("fence"):
        checks.append(fence_effective(partition["fence"], groups))
    if exclusive and plan.get("vllm"):
        exempt = [_own_path(subject) for subject in subjects if subject.service == "vllm" or subject.wanted.get("policy") == "any"]
        checks.append(exclusive_cores(plan["vllm"]["cpuset"], [path for path in exempt if path], root, groups))
    return checks


def _own_path(subject):
    try:
        return subject.group("cpuset").path
    except (NotProven, _procs.Unreadable):
        return None


def prove(plan, services, apis, inspect, root="/", generate=True, probe=_cgroup.probe_devices):
    """Return all checks.

    C(apis) maps a service to its Api; C(inspect) takes a container's name and returns (attributes or None, problem or
    None). The services are made to work first: what runs only while a token is made (Ollama's runner) is then there to
    be looked at.
    """
    groups = mounted_groups(root)
    asked = {}
    for service in services:
        asked[service] = [api_health(apis[service])]
        if generate:
            asked[service].append(token_generated(apis[service]))
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
    """Return aligned lines; what failed is told in full below its line."""
    head = ("", "service", "check", "expected", "found")
    rows = [("ok" if check["ok"] else "FAIL", check["service"], check["name"], _cut(check["expected"], width), _cut(check["found"], width)) for check in checks]
    widths = [max(len(row[column]) for row in [head] + rows) for column in range(4)]
    lines = []
    for row, check in zip([head] + rows, [None] + list(checks)):
        lines.append("  ".join(cell.ljust(size) for cell, size in zip(row, widths + [0])).rstrip())
        if check and not check["ok"]:
            for label in ("expected", "found", "evidence", "hint"):
                if check[label]:
                    lines.append(f"      {label + ':':<10}{check[label]}")
    return lines


def _cut(text, width):
    text = " ".join(text.split())
    return text if len(text) <= width else text[:width - 1] + "…"
