# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host's CPUs, caches and memory look like, read from C(/sys) and C(/proc) or a dump of them.

Every file may be missing: kernels, architectures and containers differ in what they show. Only a folder without
any CPU is an error.
"""
from __future__ import annotations

import os
import re

from ansible_collections.erni_ki.inference.plugins.module_utils._cpulist import format_cpulist, parse_cpulist

CPU_FOLDER = "sys/devices/system/cpu"
NODE_FOLDER = "sys/devices/system/node"
CGROUP_FOLDER = "sys/fs/cgroup"

# The flags inference engines ask for, in the kernel's spelling.
ENGINE_FLAGS = frozenset(
    # x86
    "sse4_2 avx avx2 fma f16c bmi2 avx_vnni avx_vnni_int8 avx_ne_convert avx10 "
    "avx512f avx512bw avx512cd avx512dq avx512vl avx512vbmi avx512_vbmi2 avx512_vnni avx512_bf16 avx512_fp16 "
    "amx_tile amx_int8 amx_bf16 amx_fp16 "
    # Arm
    "neon asimd asimdhp asimddp asimdfhm fphp bf16 i8mm sve sve2 svebf16 svei8mm sme sme2 "
    # IBM Z, POWER, LoongArch, RISC-V
    "vx vxe vxe2 vxe3 nnpa altivec vsx lsx lasx v zvfh zvfhmin zvfbfmin zvfbfwma".split()
)

# Arm names its cores by number only: the MIDR's implementer and part.
ARM_IMPLEMENTERS = {
    0x41: "ARM", 0x42: "Broadcom", 0x43: "Cavium", 0x46: "FUJITSU", 0x48: "HiSilicon", 0x4E: "NVIDIA", 0x50: "APM",
    0x51: "Qualcomm", 0x53: "Samsung", 0x56: "Marvell", 0x61: "Apple", 0x66: "Faraday", 0x69: "Intel", 0x6D: "Microsoft",
    0x70: "Phytium", 0xC0: "Ampere",
}
ARM_PARTS = {
    0x41: {
        0xC05: "Cortex-A5", 0xC07: "Cortex-A7", 0xC08: "Cortex-A8", 0xC09: "Cortex-A9", 0xC0D: "Cortex-A17",
        0xC0E: "Cortex-A17", 0xC0F: "Cortex-A15", 0xD01: "Cortex-A32", 0xD02: "Cortex-A34", 0xD03: "Cortex-A53",
        0xD04: "Cortex-A35", 0xD05: "Cortex-A55", 0xD06: "Cortex-A65", 0xD07: "Cortex-A57", 0xD08: "Cortex-A72",
        0xD09: "Cortex-A73", 0xD0A: "Cortex-A75", 0xD0B: "Cortex-A76", 0xD0C: "Neoverse-N1", 0xD0D: "Cortex-A77",
        0xD0E: "Cortex-A76AE", 0xD40: "Neoverse-V1", 0xD41: "Cortex-A78", 0xD42: "Cortex-A78AE", 0xD43: "Cortex-A65AE",
        0xD44: "Cortex-X1", 0xD46: "Cortex-A510", 0xD47: "Cortex-A710", 0xD48: "Cortex-X2", 0xD49: "Neoverse-N2",
        0xD4A: "Neoverse-E1", 0xD4B: "Cortex-A78C", 0xD4C: "Cortex-X1C", 0xD4D: "Cortex-A715", 0xD4E: "Cortex-X3",
        0xD4F: "Neoverse-V2", 0xD80: "Cortex-A520", 0xD81: "Cortex-A720", 0xD82: "Cortex-X4", 0xD83: "Neoverse-V3AE",
        0xD84: "Neoverse-V3", 0xD85: "Cortex-X925", 0xD87: "Cortex-A725", 0xD8E: "Neoverse-N3",
    },
    0x43: {0x0A1: "ThunderX-88XX", 0x0AF: "ThunderX2-99xx", 0x0B8: "ThunderX3-T110"},
    0x46: {0x001: "A64FX"},
    0x48: {0xD01: "TaiShan-v110", 0xD02: "TaiShan-v120"},
    0x4E: {0x003: "Denver 2", 0x004: "Carmel"},
    0x50: {0x000: "X-Gene"},
    0x51: {0x001: "Oryon", 0xC00: "Falkor", 0xC01: "Saphira"},
    0x70: {0x303: "FTC310", 0x660: "FTC660", 0x661: "FTC661", 0x662: "FTC662", 0x663: "FTC663", 0x664: "FTC664", 0x862: "FTC862"},
    0xC0: {0xAC3: "Ampere-1", 0xAC4: "Ampere-1a"},
}

# Cores of one design differ by their clocks; a core of another design is slower by more than this.
HYBRID_RATIO = 1.5

_CPU_NAME = re.compile(r"cpu(\d+)", re.ASCII)
_NODE_NAME = re.compile(r"node(\d+)", re.ASCII)
_INDEX_NAME = re.compile(r"index(\d+)", re.ASCII)
# Digits are bounded: Python converts no text of thousands of them, and no kernel writes one.
_MEMINFO = re.compile(r"(\w+(?:\(\w+\))?):\s+(\d{1,18}) kB", re.ASCII)
_SIZE = re.compile(r"(\d{1,18})([KMG]?)", re.ASCII)
_NUMBER = re.compile(r"\d{1,18}", re.ASCII)


class TopologyError(Exception):
    """The folder cannot be read as a host; the message is for people."""


class SysRoot:
    """A folder that holds C(sys) and C(proc): C(/), or a dump of them. What cannot be read is None or empty."""

    def __init__(self, path="/"):
        self.path = path

    def text(self, name):
        try:
            with open(os.path.join(self.path, name), "rb", buffering=0) as stream:
                return stream.read().decode("utf-8", "replace").strip()
        except OSError:
            return None

    def names(self, folder):
        try:
            return sorted(os.listdir(os.path.join(self.path, folder)))
        except OSError:
            return []

    def number(self, name):
        try:
            return int(self.text(name) or "", 10)
        except ValueError:
            return None

    def cpu_set(self, name, mask=None):
        """The CPUs in a file in list format, else those of its older twin in mask format; None if there is neither."""
        text = self.text(name)
        if text is not None:
            try:
                return set(parse_cpulist(text))
            except ValueError:
                pass
        return parse_mask(self.text(mask)) if mask else None

    def numbered(self, folder, pattern):
        """The entries of a folder whose names match, as a sorted list of their numbers."""
        found = (pattern.fullmatch(name) for name in self.names(folder))
        return sorted(int(match.group(1)) for match in found if match)


def parse_mask(text):
    """Return the CPUs of a kernel mask such as C(00000000,003f0000,0000003f), or None."""
    try:
        bits = int((text or "").replace(",", ""), 16)
    except ValueError:
        return None
    return {n for n in range(bits.bit_length()) if bits >> n & 1} if bits >= 0 else None


def parse_meminfo(text):
    """Return the sizes in C(/proc/meminfo), or a NUMA node's C(meminfo), in MiB by name."""
    return {name: int(kib) // 1024 for name, kib in _MEMINFO.findall(text or "")}


def parse_size_kib(text):
    """Return the KiB of a cache size such as C(512K), or None."""
    match = _SIZE.fullmatch(text or "")
    if not match:
        return None
    factor = {"": 1 / 1024, "K": 1, "M": 1024, "G": 1024 * 1024}[match.group(2)]
    return int(int(match.group(1)) * factor)


def parse_cpuinfo(text):
    """Return C(/proc/cpuinfo) as a dict.

    C(values) maps each key to its different values in their order; C(arm) lists the different (implementer, part);
    C(ids) maps a CPU to its (package, core).
    """
    values, arm, ids = {}, {}, {}
    cpu, package, implementer = None, None, None
    for line in (text or "").splitlines():
        key, colon, value = line.partition(":")
        if not colon:
            continue
        key, value = key.strip(), value.strip()
        values.setdefault(key, {})[value] = True
        if key == "processor":
            cpu, package = (int(value) if _NUMBER.fullmatch(value) else None), None
        elif key == "physical id":
            package = value
        elif key == "core id" and cpu is not None:
            ids[cpu] = (package, value)
        elif key == "CPU implementer":
            implementer = _hex(value)
        elif key == "CPU part":
            arm[(implementer, _hex(value))] = True
    return {"values": {key: list(seen) for key, seen in values.items()}, "arm": list(arm), "ids": ids}


def _hex(text):
    try:
        return int(text, 16)
    except ValueError:
        return None


def _first(values, *keys):
    return next((values[key][0] for key in keys if values.get(key)), "")


def architecture_of(cpuinfo, byteorder=None):
    """Return the name C(uname -m) has for the machine of this cpuinfo, or None: a dump does not say it."""
    values = cpuinfo["values"]
    words = set(_first(values, "flags", "Features", "features").split())
    if "CPU implementer" in values:
        if words & {"asimd", "fp"}:
            return "aarch64"
        version = _first(values, "CPU architecture")
        return f"armv{version}l" if version.isdecimal() else "arm"
    if "IBM/S390" in values.get("vendor_id", []):
        return "s390x"
    if "flags" in values:
        return "x86_64" if "lm" in words else "i686"
    isa = _first(values, "isa")
    if isa.startswith("rv"):
        return f"riscv{isa[2:4]}"
    if "loongarch64" in _first(values, "ISA").split():
        return "loongarch64"
    if "sparc" in _first(values, "cpu").lower():
        return "sparc64" if _first(values, "type") in ("sun4u", "sun4v") else "sparc"
    if "cpu" in values and "revision" in values:
        if not _first(values, "cpu").startswith(("POWER", "PPC970", "Cell")):
            return "ppc"
        return "ppc64le" if byteorder == "little" else "ppc64"
    return None


def model_of(cpuinfo):
    """Return the name of the CPU model as lscpu prints it (several, in the order of their CPUs, on big.LITTLE), or None."""
    values = cpuinfo["values"]
    names = []
    for implementer, part in cpuinfo["arm"]:
        name = ARM_PARTS.get(implementer, {}).get(part)
        if name is None and part is not None:
            name = _first(values, "model name") or f"{ARM_IMPLEMENTERS.get(implementer, 'Arm')} part {part:#05x}"
        names.append(name)
    for key in () if names else ("model name", "Model Name", "cpu", "uarch"):
        names.extend(values.get(key, []))
        if names:
            break
    return ", ".join(dict.fromkeys(name for name in names if name)) or None


def vendor_of(cpuinfo):
    """Return the vendor as lscpu prints it, or None."""
    values = cpuinfo["values"]
    if cpuinfo["arm"]:
        implementer = cpuinfo["arm"][0][0]
        return ARM_IMPLEMENTERS.get(implementer) or (None if implementer is None else f"{implementer:#04x}")
    return _first(values, "vendor_id", "mvendorid") or None


def flags_of(cpuinfo):
    """Return, sorted, the flags engines ask for that every CPU has: a thread may land on any of them."""
    values = cpuinfo["values"]
    words = set()
    for key in ("flags", "Features", "features"):
        sets = [set(text.split()) for text in values.get(key, [])]
        words.update(set.intersection(*sets) if sets else ())
    isas = []
    for isa in values.get("isa", []):
        # rv64imafdcv_zba_zbb: letters, then words.
        letters, *rest = isa.split("_")
        isas.append(set(letters[4:] if letters.startswith("rv") else "") | set(rest))
    words.update(set.intersection(*isas) if isas else ())
    name = _first(values, "cpu")
    if "altivec supported" in name:
        words.add("altivec")
    # POWER's vector-scalar unit is in no file; it came with POWER7.
    power = re.match(r"POWER(\d{1,3})", name, re.ASCII)
    if power and int(power.group(1)) >= 7:
        words.add("vsx")
    return sorted(words & ENGINE_FLAGS)


def detect_cpus(root):
    """Return the present and the online CPUs, two sets."""
    folders = set(root.numbered(CPU_FOLDER, _CPU_NAME))
    present = root.cpu_set(f"{CPU_FOLDER}/present") or folders
    online = root.cpu_set(f"{CPU_FOLDER}/online")
    if not online:
        # A CPU that cannot be taken offline has no such file.
        online = {n for n in folders if root.number(f"{CPU_FOLDER}/cpu{n}/online") != 0}
    return present | online, online


def group_cores(root, online, ids, node_of):
    """Return the physical cores: lists of logical CPUs, in the order of their lowest."""
    parent = {cpu: cpu for cpu in online}

    def top(cpu):
        while parent[cpu] != cpu:
            parent[cpu] = parent[parent[cpu]]
            cpu = parent[cpu]
        return cpu

    named = {}
    for cpu in sorted(online):
        folder = f"{CPU_FOLDER}/cpu{cpu}/topology"
        siblings = root.cpu_set(f"{folder}/core_cpus_list")
        if siblings is None:
            siblings = root.cpu_set(f"{folder}/thread_siblings_list", f"{folder}/thread_siblings")
        if siblings is None:
            # Numbers of cores repeat in every package, die, cluster and node: only all of them together name a core.
            core = root.number(f"{folder}/core_id")
            if core is not None and core >= 0:
                around = tuple(root.number(f"{folder}/{name}_id") for name in ("physical_package", "drawer", "book", "die", "cluster"))
                key = (node_of[cpu], around, core)
            else:
                key = ids.get(cpu)
            siblings = {named.setdefault(key, cpu)} if key is not None else ()
        # One of the two saying so is enough: a core taken for two could be given to two parties.
        for sibling in siblings:
            if sibling in parent:
                first, second = sorted((top(cpu), top(sibling)))
                parent[second] = first
    cores = {}
    for cpu in sorted(online):
        cores.setdefault(top(cpu), []).append(cpu)
    return [cores[first] for first in sorted(cores)]


def number_packages(root, cores, ids):
    """Return each core's package: the kernel's numbers, or, where it gives none to some, a count of the groups it shows."""
    keys = []
    for cpus in cores:
        folder = f"{CPU_FOLDER}/cpu{cpus[0]}/topology"
        number = root.number(f"{folder}/physical_package_id")
        if number is not None and number >= 0:
            keys.append(number)
            continue
        group = root.cpu_set(f"{folder}/package_cpus_list")
        if group is None:
            group = root.cpu_set(f"{folder}/core_siblings_list", f"{folder}/core_siblings")
        keys.append(("cpus", frozenset(group)) if group else ("cpuinfo", ids.get(cpus[0], (None,))[0]))
    if all(isinstance(key, int) for key in keys):
        return keys
    numbers = {}
    return [numbers.setdefault(key, len(numbers)) for key in keys]


def core_kinds(root, cores):
    """Return each core's kind: C(performance) or C(efficiency) on a hybrid CPU, otherwise C(uniform)."""
    slow = set()
    # Intel counts events of its two designs by two units, each of which lists its CPUs.
    for unit in ("cpu_atom", "cpu_lowpower"):
        slow |= root.cpu_set(f"sys/devices/{unit}/cpus") or set()
    if not slow:
        capacity = {cpus[0]: root.number(f"{CPU_FOLDER}/cpu{cpus[0]}/cpu_capacity") for cpus in cores[:1]}
        if None not in capacity.values():
            capacity.update((cpus[0], root.number(f"{CPU_FOLDER}/cpu{cpus[0]}/cpu_capacity")) for cpus in cores[1:])
        slow = slow_cpus({cpu: value for cpu, value in capacity.items() if value and value > 0})
    kinds = ["efficiency" if slow.issuperset(cpus) else "performance" for cpus in cores]
    return kinds if len(set(kinds)) > 1 else ["uniform"] * len(cores)


def slow_cpus(capacity):
    """Return the CPUs below the widest gap in the capacities (CPU to number), if the gap is that of another design."""
    steps = sorted(set(capacity.values()))
    gaps = [(high / low, high) for low, high in zip(steps, steps[1:])]
    ratio, border = max(gaps, default=(1, 0))
    return {cpu for cpu, value in capacity.items() if value < border} if ratio >= HYBRID_RATIO else set()


def detect_nodes(root, online, memory):
    """Return the NUMA nodes: number to CPUs (online) and MiB; a kernel without NUMA has all in node 0."""
    numbers = root.numbered(NODE_FOLDER, _NODE_NAME)
    nodes, left = {}, set(online)
    for number in numbers:
        folder = f"{NODE_FOLDER}/node{number}"
        cpus = (root.cpu_set(f"{folder}/cpulist", f"{folder}/cpumap") or set()) & left
        left -= cpus
        sizes = parse_meminfo(root.text(f"{folder}/meminfo"))
        if not sizes and len(numbers) == 1:
            sizes = memory
        nodes[number] = {"cpus": cpus, "total": sizes.get("MemTotal"), "free": sizes.get("MemFree")}
    if not nodes:
        nodes[0] = {"cpus": set(), "total": memory.get("MemTotal"), "free": memory.get("MemFree")}
    for cpu in sorted(left):
        linked = [n for n in root.numbered(f"{CPU_FOLDER}/cpu{cpu}", _NODE_NAME) if n in nodes] if numbers else []
        nodes[min(linked or nodes)]["cpus"].add(cpu)
    return nodes


def detect_llc(root, online):
    """Return the groups of CPUs that share a last-level cache, in the order of their lowest CPU; none if no cache is shown."""
    groups, left = [], set(online)
    for cpu in sorted(online):
        # The other CPUs of a group show the same: a few reads for each cache, not for each CPU.
        if cpu not in left:
            continue
        best = None
        for index in root.numbered(f"{CPU_FOLDER}/cpu{cpu}/cache", _INDEX_NAME):
            folder = f"{CPU_FOLDER}/cpu{cpu}/cache/index{index}"
            level = root.number(f"{folder}/level")
            if level is not None and (best is None or level > best[0]) and root.text(f"{folder}/type") != "Instruction":
                best = (level, folder)
        if best is None:
            continue
        level, folder = best
        shared = (root.cpu_set(f"{folder}/shared_cpu_list", f"{folder}/shared_cpu_map") or set()) & left | {cpu}
        left -= shared
        groups.append({"level": level, "size_kib": parse_size_kib(root.text(f"{folder}/size")), "cpus": format_cpulist(shared)})
    return groups


def detect_cgroup(root):
    """Return the cgroup version that holds the controllers, and the mode systemd's documentation would call it."""
    names = set(root.names(CGROUP_FOLDER))
    if "cgroup.controllers" in names:
        return {"version": 2, "mode": "unified"}
    if not names & {"cpuset", "cpu", "memory", "cpu,cpuacct"}:
        return {"version": None, "mode": "none"}
    return {"version": 1, "mode": "hybrid" if root.names(f"{CGROUP_FOLDER}/unified") else "legacy"}


def systemd_affinity(root):
    """Return the CPUs systemd is told to leave to services (C(CPUAffinity=), C(systemd.cpu_affinity=)), or None if it is told nothing."""
    folders = [f"{place}/systemd" for place in ("etc", "run", "usr/local/lib", "usr/lib", "lib")]
    texts = [text for text in (root.text(f"{folder}/system.conf") for folder in folders) if text is not None][:1]
    drop_ins = {}
    for folder in folders:
        for name in root.names(f"{folder}/system.conf.d"):
            if name.endswith(".conf"):
                drop_ins.setdefault(name, f"{folder}/system.conf.d/{name}")
    texts += [root.text(drop_ins[name]) or "" for name in sorted(drop_ins)]
    words = [line.partition("=")[2] for text in texts for line in text.splitlines() if re.match(r"\s*CPUAffinity\s*=", line)]
    boot = re.findall(r"(?:^|\s)systemd\.cpu_affinity=(\S+)", root.text("proc/cmdline") or "")
    cpus = set()
    for value in boot[-1:] or words:
        try:
            # Lines add up, an empty one starts anew.
            cpus = cpus | set(parse_cpulist(",".join(value.replace(",", " ").split()))) if value.strip() else set()
        except ValueError:
            # "numa", or what systemd would not understand either.
            continue
    return cpus or None


def detect_usable(root, online, isolated, init_system):
    """Return the CPUs this host may use.

    They are the online ones, less the isolated ones (the scheduler puts nothing there), within

    - the cpuset at the root of the cgroup tree as it is mounted here: all of a machine, a container's own limit in a container;
    - the affinity every process starts with. Under systemd this is read from its configuration and not from process 1:
      this collection's exclusive mode holds C(init.scope) and C(user.slice) to the reserved cores, so the affinity of process 1,
      and that of whoever reads this, would then be the fence itself, and the next plan would shrink to it.
    """
    files = ("cpuset.cpus.effective", "unified/cpuset.cpus.effective", "cpuset/cpuset.effective_cpus", "cpuset/cpuset.cpus")
    cpuset = next(filter(None, (root.cpu_set(f"{CGROUP_FOLDER}/{name}") for name in files)), None)
    if init_system == "systemd":
        affinity = systemd_affinity(root)
    else:
        found = re.search(r"^Cpus_allowed:\s*(\S+)$", root.text("proc/1/status") or "", re.MULTILINE)
        affinity = parse_mask(found.group(1)) if found else None
    usable = online - isolated
    for limit in (cpuset, affinity):
        # An empty one is a cpuset nobody has filled in yet: it does not run anything, so it says nothing.
        usable = usable & limit if limit else usable
    return usable


def detect_smt_control(root):
    """Return the kernel's word for its SMT switch, or None; a number (only so many threads are on) counts as on."""
    text = root.text(f"{CPU_FOLDER}/smt/control") or ""
    if text.isdecimal():
        return "on"
    return text if text in ("on", "off", "forceoff", "notsupported", "notimplemented") else None


def _number_or_none(root, name):
    number = root.number(name)
    # The kernel's "none": -1, in some versions as an unsigned 16 bit number.
    return None if number in (-1, 65535) else number


def detect(sysroot="/"):
    """Return the topology of the host under C(sysroot), as documented in M(erni_ki.inference.cpu_topology_info).

    Raises TopologyError, with a text for people, when there is no host to see.
    """
    folder = os.path.join(sysroot, CPU_FOLDER)
    if not os.path.exists(sysroot):
        raise TopologyError(f"The sysroot '{sysroot}' does not exist. Give a folder that holds copies of /proc and /sys, or / for this host.")
    if not os.path.isdir(sysroot):
        raise TopologyError(f"The sysroot '{sysroot}' is not a folder. Unpack the dump and give the folder that holds its proc and sys.")
    if not os.path.isdir(folder):
        raise TopologyError(f"The sysroot '{sysroot}' has no folder {CPU_FOLDER}. Give the folder that holds the dump's proc and sys themselves.")
    root = SysRoot(sysroot)
    present, online = detect_cpus(root)
    if not online:
        raise TopologyError(f"No online CPU is found in '{folder}': neither its file 'online' nor a folder such as 'cpu0' says of one.")

    cpuinfo = parse_cpuinfo(root.text("proc/cpuinfo"))
    isolated = (root.cpu_set(f"{CPU_FOLDER}/isolated") or set()) & present
    init_system = root.text("proc/1/comm") or None
    memory = parse_meminfo(root.text("proc/meminfo"))
    nodes = detect_nodes(root, online, memory)
    node_of = {cpu: number for number, node in nodes.items() for cpu in node["cpus"]}

    groups = group_cores(root, online, cpuinfo["ids"], node_of)
    cores = []
    for cpus, package, kind in zip(groups, number_packages(root, groups, cpuinfo["ids"]), core_kinds(root, groups)):
        topology = f"{CPU_FOLDER}/cpu{cpus[0]}/topology"
        core_id = root.number(f"{topology}/core_id")
        cores.append({
            "index": len(cores),
            "package": package,
            "cluster": _number_or_none(root, f"{topology}/cluster_id"),
            "core_id": -1 if core_id is None else core_id,
            "numa_node": node_of[cpus[0]],
            "cpus": cpus,
            "kind": kind,
        })
    threads = max(len(cpus) for cpus in groups)

    available = memory.get("MemAvailable")
    if available is None and "MemFree" in memory:
        # Before Linux 3.14.
        available = sum(memory.get(name, 0) for name in ("MemFree", "Buffers", "Cached"))
    live = os.path.realpath(sysroot) == "/"
    return {
        "architecture": os.uname().machine if live else architecture_of(cpuinfo, root.text("sys/kernel/cpu_byteorder")),
        "model_name": model_of(cpuinfo),
        "vendor": vendor_of(cpuinfo),
        "flags": flags_of(cpuinfo),
        "cpus": {
            "present": format_cpulist(present),
            "online": format_cpulist(online),
            "offline": format_cpulist(present - online),
            "isolated": format_cpulist(isolated),
            "usable": format_cpulist(detect_usable(root, online, isolated, init_system)),
        },
        "cores": cores,
        "smt": {"active": threads > 1, "control": detect_smt_control(root), "threads_per_core": threads},
        "numa_nodes": [
            {"node": number, "cpus": format_cpulist(node["cpus"]), "memory_total_mib": node["total"], "memory_free_mib": node["free"]}
            for number, node in sorted(nodes.items())
        ],
        "llc_groups": detect_llc(root, online),
        "memory": {"total_mib": memory.get("MemTotal"), "available_mib": available, "swap_total_mib": memory.get("SwapTotal")},
        "cgroup": detect_cgroup(root),
        "init_system": init_system,
    }
