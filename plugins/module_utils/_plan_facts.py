# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The detected facts as a plan needs them: read once, checked once, never trusted to be well-formed."""
from __future__ import annotations

from typing import NamedTuple

from ansible_collections.erni_ki.inference.plugins.module_utils._cpulist import format_cpulist, parse_cpulist


class Core(NamedTuple):
    """A physical core with those of its logical CPUs that may be used."""

    index: int
    cpus: tuple
    node: int
    kind: str
    left_out: tuple  # online siblings that are isolated or forbidden


class Host(NamedTuple):
    """What a plan needs to know of a host. C(flags) is None where the host did not say."""

    architecture: str
    model_name: str | None
    flags: frozenset | None
    cores: tuple  # usable ones only, by index
    all_cores: frozenset  # indexes, usable or not
    logical_cpus: int
    threads_per_core: int
    nodes: dict  # node to MiB; None where unknown
    total_mib: int
    cgroup_version: int | None
    init_system: str | None
    usable: frozenset
    offline: str
    isolated: str


class Gpu(NamedTuple):
    uuid: str
    name: str | None
    memory_mib: int


class BadFacts(ValueError):
    """The facts are not what the info modules return; C(problems) says where."""

    def __init__(self, problems):
        super().__init__("; ".join(problems))
        self.problems = problems


def _is_int(value):
    return isinstance(value, int) and not isinstance(value, bool)


def _dictionary(value, name, problems):
    if isinstance(value, dict):
        return value
    problems.append(f"{name} is missing" if value is None else f"{name} is not a dictionary")
    return {}


def _cpu_set(value, name, problems):
    if value is None:
        return None
    if not isinstance(value, str):
        problems.append(f"{name} is not a CPU list as text, such as 0-15")
        return None
    try:
        return frozenset(parse_cpulist(value))
    except ValueError as exc:
        problems.append(f"{name}: {exc}")
        return None


def _cores(entries, problems):
    """Return C((index, cpus, node, kind)) of every core."""
    if not isinstance(entries, list) or not entries:
        problems.append("cores is not a list with at least one core")
        return []
    found, indexes, owner = [], set(), {}
    for position, entry in enumerate(entries):
        entry = entry if isinstance(entry, dict) else {}
        index, cpus, node, kind = entry.get("index"), entry.get("cpus"), entry.get("numa_node"), entry.get("kind", "uniform")
        if not _is_int(index) or index < 0 or index in indexes:
            problems.append(f"cores[{position}] has no index of its own")
            continue
        indexes.add(index)
        if not isinstance(cpus, (list, tuple)) or not cpus or not all(_is_int(cpu) and cpu >= 0 for cpu in cpus):
            problems.append(f"cores[{position}].cpus is not a list of CPU numbers")
            continue
        if any(owner.setdefault(cpu, index) != index for cpu in cpus):
            problems.append(f"cores[{position}] has a CPU that another core has as well")
        if node is not None and not _is_int(node):
            problems.append(f"cores[{position}].numa_node is not a number")
            node = None
        # -1 is the kernel's word for "no node".
        found.append((index, tuple(sorted(set(cpus))), node if node is not None and node >= 0 else 0, kind))
    return sorted(found, key=lambda core: core[0])


def _nodes(entries, cores, total, problems):
    nodes = {}
    if entries is not None and not isinstance(entries, list):
        problems.append("numa_nodes is not a list")
        entries = None
    for position, entry in enumerate(entries or []):
        entry = entry if isinstance(entry, dict) else {}
        number, memory = entry.get("node"), entry.get("memory_total_mib")
        if not _is_int(number) or number < 0:
            problems.append(f"numa_nodes[{position}].node is not a number")
        elif memory is not None and (not _is_int(memory) or memory < 0):
            problems.append(f"numa_nodes[{position}].memory_total_mib is not a number")
        else:
            nodes[number] = memory
    for _index, _cpus, node, _kind in cores:
        nodes.setdefault(node, None)
    if len(nodes) == 1:
        # A kernel without NUMA shows one node, often without figures; the host's memory is then its.
        nodes = {node: memory or total for node, memory in nodes.items()}
    return nodes


def read_host(topology):
    """Return the Host in what cpu_topology_info returned as C(cpu_topology). Raises BadFacts."""
    problems = []
    if not isinstance(topology, dict):
        raise BadFacts(["it is not a dictionary"])
    if "cpu_topology" in topology and "cores" not in topology:
        raise BadFacts(["it is the whole result of the module cpu_topology_info; only its key cpu_topology is wanted"])
    entries = _cores(topology.get("cores"), problems)
    lists = _dictionary(topology.get("cpus"), "cpus", problems)
    usable = _cpu_set(lists.get("usable"), "cpus.usable", problems)
    online = _cpu_set(lists.get("online"), "cpus.online", problems)
    isolated = _cpu_set(lists.get("isolated"), "cpus.isolated", problems) or frozenset()
    offline = _cpu_set(lists.get("offline"), "cpus.offline", problems) or frozenset()
    total = _dictionary(topology.get("memory"), "memory", problems).get("total_mib")
    if not _is_int(total) or total <= 0:
        problems.append("memory.total_mib is missing, or is no size in MiB")
        total = 0
    architecture = topology.get("architecture")
    if architecture is not None and not isinstance(architecture, str):
        problems.append("architecture is not text")
    flags = topology.get("flags")
    if flags is not None and (not isinstance(flags, list) or not all(isinstance(flag, str) for flag in flags)):
        problems.append("flags is not a list of texts")
        flags = None
    nodes = _nodes(topology.get("numa_nodes"), entries, total, problems)
    smt = topology.get("smt") if isinstance(topology.get("smt"), dict) else {}
    cgroup = topology.get("cgroup") if isinstance(topology.get("cgroup"), dict) else {}
    if problems:
        raise BadFacts(problems)
    everything = frozenset(cpu for _index, cpus, _node, _kind in entries for cpu in cpus)
    seen = everything if online is None else everything & online
    usable = (seen if usable is None else seen & usable) - isolated - offline
    cores = []
    for index, cpus, node, kind in entries:
        mine = tuple(cpu for cpu in cpus if cpu in usable)
        if mine:
            kind = kind if kind in ("performance", "efficiency") else "uniform"
            cores.append(Core(index, mine, node, kind, tuple(cpu for cpu in cpus if cpu in seen and cpu not in usable)))
    threads = smt.get("threads_per_core")
    return Host(
        architecture=architecture or "unknown",
        model_name=topology.get("model_name") if isinstance(topology.get("model_name"), str) else None,
        flags=None if flags is None else frozenset(flags),
        cores=tuple(cores),
        all_cores=frozenset(index for index, _cpus, _node, _kind in entries),
        logical_cpus=len(seen),
        threads_per_core=threads if _is_int(threads) and threads > 0 else max(len(cpus) for _index, cpus, _node, _kind in entries),
        nodes=nodes,
        total_mib=total,
        cgroup_version=cgroup.get("version") if _is_int(cgroup.get("version")) else None,
        init_system=topology.get("init_system") if isinstance(topology.get("init_system"), str) else None,
        usable=usable,
        offline=format_cpulist(offline),
        isolated=format_cpulist(isolated))


def read_engine(engine):
    """Return the engine's facts with C(containers) a list of dictionaries. Raises BadFacts."""
    if engine is None:
        return {"installed": False, "containers": []}
    if not isinstance(engine, dict):
        raise BadFacts(["it is not a dictionary"])
    if "container_engine" in engine and "installed" not in engine:
        raise BadFacts(["it is the whole result of the module container_engine_info; only its key container_engine is wanted"])
    containers = engine.get("containers")
    containers = [] if containers is None else containers
    if not isinstance(containers, list) or not all(isinstance(item, dict) and isinstance(item.get("name"), str) for item in containers):
        raise BadFacts(["containers is not a list of containers with their names"])
    return dict(engine, containers=containers)


def read_gpus(gpus):
    """Return the GPUs, the one with most memory first. Raises BadFacts."""
    if gpus is None:
        return []
    if not isinstance(gpus, (list, tuple)):
        raise BadFacts(["it is not a list"])
    problems, found = [], []
    for position, gpu in enumerate(gpus):
        gpu = gpu if isinstance(gpu, dict) else {}
        uuid, name, memory = gpu.get("uuid"), gpu.get("name"), gpu.get("memory_total_mib")
        if not isinstance(uuid, str) or not uuid.strip():
            problems.append(f"gpus[{position}] has no uuid")
            continue
        found.append(Gpu(uuid, name if isinstance(name, str) else None, memory if _is_int(memory) else 0))
    if problems:
        raise BadFacts(problems)
    return sorted(found, key=lambda gpu: (-gpu.memory_mib, gpu.uuid))
