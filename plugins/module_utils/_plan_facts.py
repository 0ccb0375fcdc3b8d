# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The detected facts as a plan needs them: read once, checked once, never trusted to be well-formed."""
from __future__ import annotations

import re
from typing import NamedTuple

from ansible_collections.erni_ki.inference.plugins.module_utils._cpulist import format_cpulist, parse_cpulist
from ansible_collections.erni_ki.inference.plugins.module_utils._gpu_compat import VENDOR
from ansible_collections.erni_ki.inference.plugins.module_utils._kv_cache import MAX_BYTES, MAX_CONTEXT, MAX_WEIGHTS_MIB, MAX_WIDTH, Kv


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


class Process(NamedTuple):
    """A process on a GPU; C(container) is the id of the container it is in."""

    name: str
    container: str | None
    memory_mib: int | None


class Gpu(NamedTuple):
    """A GPU as the driver shows it, or a card that it does not show: then C(uuid) is None, and little else is known."""

    uuid: str | None
    name: str | None
    bus_id: str | None
    pci: int | None  # device id
    pci_driver: str | None
    memory_mib: int
    reserved_mib: int
    free_mib: int | None
    capability: tuple | None
    architecture: str | None
    mig: bool
    processes: tuple
    error: str | None


class GpuFacts(NamedTuple):
    """What there is of NVIDIA on a host. C(state) is that of the driver."""

    state: str
    code: int | None
    hint: str
    driver: str | None
    open_modules: bool | None
    toolkit: str | None
    gpus: tuple


class Model(NamedTuple):
    """vLLM's model, where somebody measured it. None is what its files do not tell; C(read_mib) is what of them is read, C(width) that of a number."""

    path: str
    dtype: str
    weights_mib: int | None
    kv: Kv | None
    context: int | None
    default_context: int | None
    read_mib: int | None
    inside: int | None
    words: int | None
    width: int


GPU_STATES = ("ok", "no_card", "no_driver", "not_loaded", "version_mismatch", "gpu_lost", "permission", "no_bindings", "unknown")


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


def _text(value):
    return value if isinstance(value, str) and value.strip() else None


def _mib(value):
    return value if _is_int(value) and value >= 0 else None


def _hexadecimal(value):
    match = re.fullmatch(r"(?:0x)?([0-9a-f]{1,6})", value.strip(), re.ASCII | re.IGNORECASE) if isinstance(value, str) else None
    return int(match.group(1), 16) if match else None


def _capability(value):
    match = re.fullmatch(r"(\d{1,3})\.(\d{1,3})", value.strip(), re.ASCII) if isinstance(value, str) else None
    return (int(match.group(1)), int(match.group(2))) if match else None


def _bus(value):
    """Return a PCI address as sysfs writes it; NVML writes the domain with eight digits."""
    match = re.fullmatch(r"(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}:[0-9a-f]{2}\.[0-7])", value.strip().lower(), re.ASCII) if isinstance(value, str) else None
    return f"{int(match.group(1) or '0', 16):04x}:{match.group(2)}" if match else _text(value)


def _dictionaries(value, name, problems):
    """Return the dictionaries of a list; a missing one is empty."""
    if value is None:
        return []
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, dict) for item in value):
        problems.append(f"{name} is not a list of dictionaries")
        return []
    return list(value)


def _processes(value, name, problems):
    return tuple(
        Process(_text(item.get("name")) or f"process {item.get('pid', '')}".strip(), _text(item.get("container")), _mib(item.get("memory_mib")))
        for item in _dictionaries(value, name, problems))


def _part(facts, name, problems):
    value = facts.get(name)
    if value is not None and not isinstance(value, dict):
        problems.append(f"{name} is not a dictionary")
    return value if isinstance(value, dict) else {}


def read_gpu(gpu):
    """Return the GpuFacts in what gpu_info returned as C(gpu). Raises BadFacts. Nothing at all is a host nobody looked at: one without a card."""
    if gpu is None or gpu == {}:
        gpu = {"state": "no_card"}
    if not isinstance(gpu, dict):
        raise BadFacts(["it is not a dictionary"])
    if "gpu" in gpu and "state" not in gpu:
        raise BadFacts(["it is the whole result of the module gpu_info; only its key gpu is wanted"])
    problems = []
    state, code = gpu.get("state"), gpu.get("code")
    if state not in GPU_STATES:
        problems.append(f"state is none of {', '.join(GPU_STATES)}")
    module, toolkit = _part(gpu, "module", problems), _part(gpu, "toolkit", problems)
    cards = {}
    for card in _dictionaries(gpu.get("cards"), "cards", problems):
        # Of NVIDIA's cards the classes of displays (03) are the GPUs; the others are their sound and USB.
        if _hexadecimal(card.get("vendor_id")) in (None, VENDOR) and (_hexadecimal(card.get("class")) or 0x030000) >> 16 == 0x03:
            cards[_bus(card.get("bus_id")) or f"card {len(cards)}"] = card
    found = []
    for position, one in enumerate(_dictionaries(gpu.get("gpus"), "gpus", problems)):
        uuid, bus, memory = _text(one.get("uuid")), _bus(one.get("bus_id")), _part(one, "memory", problems)
        if uuid is None and _text(one.get("error")) is None:
            problems.append(f"gpus[{position}] has no uuid")
        card = cards.pop(bus, {})
        found.append(Gpu(
            uuid, _text(one.get("name")) or _text(card.get("name")), bus, _hexadecimal(card.get("device_id")), _text(card.get("driver")),
            _mib(memory.get("total_mib")) or 0, _mib(memory.get("reserved_mib")) or 0, _mib(memory.get("free_mib")),
            _capability(one.get("compute_capability")), _text(one.get("architecture")), one.get("mig_mode") == "enabled",
            _processes(one.get("processes"), f"gpus[{position}].processes", problems), _text(one.get("error"))))
    for card in cards.values():
        found.append(Gpu(
            None, _text(card.get("name")), _bus(card.get("bus_id")), _hexadecimal(card.get("device_id")), _text(card.get("driver")), 0, 0, None, None, None,
            False, (), None))
    if problems:
        raise BadFacts(problems)
    return GpuFacts(
        state, code if _is_int(code) else None, _text(gpu.get("hint")) or "", _text(gpu.get("driver_version")) or _text(module.get("version")),
        module.get("open") if isinstance(module.get("open"), bool) else None, _text(toolkit.get("version")),
        tuple(sorted(found, key=lambda one: (-one.memory_mib, one.uuid or "", one.bus_id or ""))))


def read_model(model):
    """Return the Model in what model_size_info returned as C(model_size). Raises BadFacts. Nothing at all is a model that nobody measured: None."""
    if model is None or model == {}:
        return None
    if not isinstance(model, dict):
        raise BadFacts(["it is not a dictionary"])
    if "model_size" in model and "path" not in model:
        raise BadFacts(["it is the whole result of the module model_size_info; only its key model_size is wanted"])
    problems = []

    def number(place, key, name, most):
        value = place.get(key)
        if value is not None and not (_is_int(value) and 1 <= value <= most):
            problems.append(f"{name}{key} is no whole number from 1 to {most}")
        return value

    path, dtype = _text(model.get("path")), _text(model.get("dtype"))
    if path is None or dtype is None:
        problems.append(f"{'path' if path is None else 'dtype'} is no text")
    weights = number(model, "weights_mib", "", MAX_WEIGHTS_MIB)
    context, default = number(model, "context_length", "", MAX_CONTEXT), number(model, "default_context_length", "", MAX_CONTEXT)
    each, kv = number(model, "kv_bytes_per_token", "", MAX_BYTES), None
    read = number(model, "weights_bytes_read", "", MAX_WEIGHTS_MIB << 20)
    widths = [number(model, name, "", MAX_WIDTH) for name in ("intermediate_size", "vocabulary_size")]
    sliding = _part(model, "sliding_window", problems)
    window = number(sliding, "window", "sliding_window.", MAX_CONTEXT)
    part = number(sliding, "kv_bytes_per_token", "sliding_window.", MAX_BYTES)
    if sliding and not problems and (window is None or part is None or each is None or part > each):
        problems.append("sliding_window does not tell its window and its part of kv_bytes_per_token")
    if problems:
        raise BadFacts(problems)
    if each is not None:
        kv = Kv(each - (part or 0), part or 0, window or 0)
    return Model(path, dtype, weights, kv, context, default, None if read is None else -(-read >> 20), *widths, 4 if dtype == "float32" else 2)
