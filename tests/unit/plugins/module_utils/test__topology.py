# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import pathlib
import posixpath
import re
import tarfile
import tempfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.erni_ki.inference.plugins.module_utils import _topology
from ansible_collections.erni_ki.inference.plugins.module_utils._cpulist import format_cpulist, parse_cpulist
from ansible_collections.erni_ki.inference.plugins.module_utils._topology import SysRoot, TopologyError, detect

DATA = pathlib.Path(__file__).resolve().parents[2] / "data" / "lscpu"
DUMPS = sorted(path.name[:-len(".tar.gz")] for path in DATA.glob("*.tar.gz"))

CPU = "sys/devices/system/cpu"
NODE = "sys/devices/system/node"


# --- helpers ---------------------------------------------------------------------------------------------------------

# Thousands of files that no test here reads.
BORING = {"cpufreq", "cpuidle", "power", "thermal_throttle", "microcode", "hotplug", "vulnerabilities", "bus"}


def unpack(archive, folder):
    """Extract folders, files and links that stay below the folder, with modes of our own."""
    with tarfile.open(archive) as tar:
        for member in tar:
            name = posixpath.normpath(member.name)
            assert not name.startswith(("/", "..")), name
            if BORING.intersection(name.split("/")):
                continue
            place = folder / name
            if member.isdir():
                place.mkdir(parents=True, exist_ok=True)
            elif member.isfile():
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(tar.extractfile(member).read())
            elif member.issym():
                target = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
                assert not target.startswith(("/", "..")), target
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(member.linkname)


def plant(folder, files):
    """Write a dict of path to text below the folder."""
    for name, text in files.items():
        place = os.path.join(folder, name)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "w", encoding="utf-8") as stream:
            stream.write(f"{text}\n")
    return str(folder)


def mask(cpus, width=16):
    """The kernel's mask format: groups of 32 bits, the first one shortened to the kernel's number of CPUs."""
    text = f"{sum(1 << cpu for cpu in cpus):0{width // 4}x}"
    groups = [text[max(0, end - 8):end] for end in range(len(text), 0, -8)]
    return ",".join(reversed(groups))


def partition(pairs):
    """Which items go together, whatever the groups are called."""
    groups = {}
    for item, group in pairs:
        groups.setdefault(group, set()).add(item)
    return {frozenset(group) for group in groups.values()}


def simple_host(cpus=4, **extra):
    """The files of a host of single-threaded cores in one package; extra files by path, None removes one."""
    everything = f"0-{cpus - 1}" if cpus > 1 else "0"
    files = {f"{CPU}/online": everything, f"{CPU}/present": everything, "proc/cpuinfo": "model name : Some CPU", "proc/1/comm": "systemd"}
    for cpu in range(cpus):
        files.update({
            f"{CPU}/cpu{cpu}/topology/core_id": cpu,
            f"{CPU}/cpu{cpu}/topology/physical_package_id": 0,
            f"{CPU}/cpu{cpu}/topology/core_cpus_list": cpu,
        })
    files.update(extra)
    return {name: text for name, text in files.items() if text is not None}


def check_sane(found):
    """What holds for every host, however little of it can be read."""
    json.dumps(found)
    online = parse_cpulist(found["cpus"]["online"])
    assert online
    assert sorted(cpu for core in found["cores"] for cpu in core["cpus"]) == online
    assert sorted(cpu for node in found["numa_nodes"] for cpu in parse_cpulist(node["cpus"])) == online
    assert [core["index"] for core in found["cores"]] == list(range(len(found["cores"])))
    assert [core["cpus"][0] for core in found["cores"]] == sorted(core["cpus"][0] for core in found["cores"])
    assert set(parse_cpulist(found["cpus"]["usable"])) <= set(online)
    assert not set(parse_cpulist(found["cpus"]["offline"])) & set(online)
    shared = [cpu for group in found["llc_groups"] for cpu in parse_cpulist(group["cpus"])]
    assert len(shared) == len(set(shared)) and set(shared) <= set(online)
    assert {core["numa_node"] for core in found["cores"]} <= {node["node"] for node in found["numa_nodes"]}
    assert len({core["kind"] for core in found["cores"]} - {"uniform"}) in (0, 2)
    assert found["smt"]["active"] == (found["smt"]["threads_per_core"] > 1)


# --- dumps of real machines, against what lscpu says of them -----------------------------------------------------------

class Lscpu:
    """The three parts of an expected file: the summary, the table of logical numbers and that of the kernel's numbers."""

    def __init__(self, name):
        text = (DATA / f"lscpu-{name}.expected").read_text(encoding="utf-8")
        summary, *tables = re.split(r"(?m)^# The following is.*\n(?:# .*\n)*?(?=# CPU,)", text)
        self.summary = [tuple(part.strip() for part in line.split(":", 1)) for line in summary.splitlines() if ":" in line]
        self.logical, self.physical = (self.rows(table) for table in tables)

    @staticmethod
    def rows(table):
        header, *lines = [line for line in table.splitlines() if line.strip()]
        columns = header.lstrip("# ").split(",")
        return [dict(zip(columns, line.split(","))) for line in lines]

    def all(self, key):
        return [value for name, value in self.summary if name == key]

    @property
    def several_designs(self):
        # lscpu then counts cores and sockets anew for each design, so that only the kernel's numbers are unique.
        return len(self.all("Model name")) > 1


@pytest.fixture(scope="session")
def dump_of(tmp_path_factory):
    seen = {}

    def load(name):
        if name not in seen:
            folder = tmp_path_factory.mktemp("dump")
            unpack(DATA / f"{name}.tar.gz", folder)
            seen[name] = str(folder / name), detect(str(folder / name)), Lscpu(name)
        return seen[name][1:]

    load.path = lambda name: (load(name), seen[name][0])[1]
    return load


def test_all_dumps_are_here():
    assert len(DUMPS) == 22
    assert {name.split("-")[0] for name in DUMPS} == {
        "arm", "armv7", "loongarch", "ppc", "ppc64", "rv64", "s390", "sparc64", "vbox", "vmware_fpe", "x86_64"}


@pytest.mark.parametrize("name", DUMPS)
class TestDump:
    def test_is_sane(self, dump_of, name):
        check_sane(dump_of(name)[0])

    def test_cpus(self, dump_of, name):
        found, lscpu = dump_of(name)
        assert parse_cpulist(found["cpus"]["online"]) == [int(row["CPU"]) for row in lscpu.logical]
        assert [found["cpus"]["online"]] == [format_cpulist(parse_cpulist(text)) for text in lscpu.all("On-line CPU(s) list")]
        assert parse_cpulist(found["cpus"]["offline"]) == parse_cpulist(",".join(lscpu.all("Off-line CPU(s) list")))
        assert len(parse_cpulist(found["cpus"]["present"])) == int(lscpu.all("CPU(s)")[0])
        # A dump shows no limits.
        assert found["cpus"]["usable"] == found["cpus"]["online"]

    def test_cores(self, dump_of, name):
        found, lscpu = dump_of(name)
        if lscpu.several_designs:
            expected = partition((int(row["CPU"]), (row["Socket"], row["Core"])) for row in lscpu.physical)
        else:
            expected = partition((int(row["CPU"]), row["Core"]) for row in lscpu.logical)
        assert {frozenset(core["cpus"]) for core in found["cores"]} == expected
        assert {found["smt"]["threads_per_core"]} == {int(text) for text in lscpu.all("Thread(s) per core")}

    def test_packages(self, dump_of, name):
        found, lscpu = dump_of(name)
        rows = lscpu.physical if lscpu.several_designs else lscpu.logical
        packages = {cpu: core["package"] for core in found["cores"] for cpu in core["cpus"]}
        assert partition(packages.items()) == partition((int(row["CPU"]), row["Socket"]) for row in rows)

    def test_the_kernels_own_numbers(self, dump_of, name):
        found, lscpu = dump_of(name)
        by_cpu = {int(row["CPU"]): row for row in lscpu.physical}
        for core in found["cores"]:
            row = by_cpu[core["cpus"][0]]
            assert core["core_id"] == (-1 if row["Core"] == "-" else int(row["Core"]))
            if row["Socket"] != "-":
                assert core["package"] == int(row["Socket"])

    def test_numa_nodes(self, dump_of, name):
        found, lscpu = dump_of(name)
        nodes = {cpu: core["numa_node"] for core in found["cores"] for cpu in core["cpus"]}
        assert nodes == {int(row["CPU"]): int(row["Node"] or 0) for row in lscpu.logical}
        shown = {int(match.group(1)) for match in (re.match(r"NUMA node(\d+) CPU", key) for key, _value in lscpu.summary) if match}
        assert {node["node"] for node in found["numa_nodes"]} == (shown or {0})

    def test_last_level_cache(self, dump_of, name):
        found, lscpu = dump_of(name)
        caches = [column for column in lscpu.logical[0] if re.fullmatch(r"L\d[d]?", column)]
        if not caches or name == "sparc64":
            # sparc64 does not say who shares a cache.
            assert found["llc_groups"] == []
            return
        last = max(caches)
        groups = [set(parse_cpulist(group["cpus"])) for group in found["llc_groups"]]
        assert {group["level"] for group in found["llc_groups"]} == {int(last[1])}
        assert {frozenset(group) for group in groups} == partition((int(row["CPU"]), row[last]) for row in lscpu.logical)
        for text in lscpu.all(f"{last} cache"):
            size, unit, count = re.match(r"([\d.]+) (KiB|MiB) \((\d+) instances?\)", text).groups()
            assert len(groups) == int(count)
            assert sum(group["size_kib"] for group in found["llc_groups"]) == float(size) * {"KiB": 1, "MiB": 1024}[unit]

    def test_names(self, dump_of, name):
        found, lscpu = dump_of(name)
        models = [model for model in lscpu.all("Model name") if model != "-"]
        if lscpu.several_designs:
            assert sorted(found["model_name"].split(", ")) == sorted(models)
        else:
            assert found["model_name"] == (models[0] if models else None)
        assert found["vendor"] == (lscpu.all("Vendor ID") or [None])[0]

    def test_architecture(self, dump_of, name):
        prefix = next(prefix for prefix in ("armv7", "arm", "loongarch", "ppc64", "ppc", "rv64", "s390", "sparc64", "") if name.startswith(prefix))
        assert dump_of(name)[0]["architecture"] == {
            "armv7": "armv7l", "arm": "aarch64", "loongarch": "loongarch64", "ppc64": "ppc64", "ppc": "ppc", "rv64": "riscv64",
            "s390": "s390x", "sparc64": "sparc64", "": "x86_64"}[prefix]

    def test_flags(self, dump_of, name):
        found, lscpu = dump_of(name)
        sets = [set(text.split()) for text in lscpu.all("Flags")]
        expected = set.intersection(*sets) if sets else set()
        for isa in lscpu.all("ISA"):
            expected |= set(isa.split()[0][4:]) | set(isa.split()[1:])
        if "POWER7" in name:
            expected |= {"altivec", "vsx"}
        assert found["flags"] == sorted(expected & _topology.ENGINE_FLAGS)

    def test_what_no_dump_holds_is_absent(self, dump_of, name):
        found = dump_of(name)[0]
        assert found["memory"] == {"total_mib": None, "available_mib": None, "swap_total_mib": None}
        assert found["cgroup"] == {"version": None, "mode": "none"}
        assert found["init_system"] is None


def test_every_architecture_shows_flags_somewhere(dump_of):
    shown = {flag for name in DUMPS for flag in dump_of(name)[0]["flags"]}
    assert shown >= {"avx2", "avx512f", "avx512_vnni", "f16c", "fma", "asimd", "asimddp", "asimdhp", "bf16", "i8mm", "neon",
                     "vx", "altivec", "vsx", "v", "lsx", "lasx"}


def test_big_little(dump_of):
    found = dump_of("arm-A510-A710-A715-X3")[0]
    assert [core["kind"] for core in found["cores"]] == ["efficiency"] * 3 + ["performance"] * 5
    assert found["model_name"] == "Cortex-A510, Cortex-A715, Cortex-A710, Cortex-X3"
    assert [(core["package"], core["core_id"]) for core in found["cores"]] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (1, 3), (2, 0)]
    assert {core["kind"] for name in DUMPS if name != "arm-A510-A710-A715-X3" for core in dump_of(name)[0]["cores"]} == {"uniform"}


def test_clusters(dump_of):
    pioneer = dump_of("rv64-milkvpioneer")[0]
    # Four cores each, and the numbers of the cores begin anew in every cluster.
    assert [core["cluster"] for core in pioneer["cores"]][:12] == [0, 0, 0, 0, 1, 1, 1, 1, 4, 4, 4, 4]
    assert sorted((core["cluster"], core["core_id"]) for core in pioneer["cores"]) == [(cluster, core) for cluster in range(16) for core in range(4)]
    assert {core["cluster"] for core in dump_of("x86_64-64cpu")[0]["cores"]} == {None}


def test_smt_control(dump_of):
    assert dump_of("x86_64-epyc_7451")[0]["smt"] == {"active": True, "control": "on", "threads_per_core": 2}
    assert dump_of("s390-nested-virt")[0]["smt"] == {"active": False, "control": "notsupported", "threads_per_core": 1}
    assert dump_of("rv64-visionfive2")[0]["smt"] == {"active": False, "control": "notimplemented", "threads_per_core": 1}
    assert dump_of("ppc64-POWER7")[0]["smt"] == {"active": True, "control": None, "threads_per_core": 4}


def test_memory_of_a_node_in_a_dump(dump_of):
    assert dump_of("vbox-win")[0]["numa_nodes"] == [{"node": 0, "cpus": "0-1", "memory_total_mib": 2006, "memory_free_mib": 98}]
    assert dump_of("ppc64-POWER7-64cpu")[0]["numa_nodes"][1] == {"node": 1, "cpus": "", "memory_total_mib": None, "memory_free_mib": None}


@pytest.mark.parametrize("name", DUMPS)
def test_cores_survive_the_loss_of_sibling_files(dump_of, name, monkeypatch):
    """Without them the kernel's numbers decide; two logical CPUs of one core must never end up in two."""
    hidden = re.compile(r"(core_cpus|thread_siblings)(_list)?$")
    text = SysRoot.text
    monkeypatch.setattr(SysRoot, "text", lambda root, path: None if hidden.search(path) else text(root, path))
    found = detect(dump_of.path(name))
    check_sane(found)
    if name == "vmware_fpe":
        # This kernel numbers the threads of a module as cores of their own.
        assert found["smt"]["threads_per_core"] == 1
        return
    if name == "rv64-linux":
        # And this one gives no numbers.
        assert found["smt"]["threads_per_core"] == 1
        return
    whole = [set(core["cpus"]) for core in found["cores"]]
    assert all(any(set(core["cpus"]) <= other for other in whole) for core in dump_of(name)[0]["cores"])


# --- parsing -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("text, cpus", [
    ("f", {0, 1, 2, 3}),
    ("00000000,003f0000,0000003f", {0, 1, 2, 3, 4, 5, 48, 49, 50, 51, 52, 53}),
    ("0000,80000000,80000000", {31, 63}),
    ("0", set()),
    ("", None),
    (None, None),
    ("(null)", None),
    ("-1", None),
])
def test_parse_mask(text, cpus):
    assert _topology.parse_mask(text) == cpus


@given(st.sets(st.integers(0, 300)))
def test_masks_are_read_as_the_kernel_writes_them(cpus):
    assert _topology.parse_mask(mask(cpus, 512)) == cpus


@pytest.mark.parametrize("text, kib", [("512K", 512), ("32M", 32768), ("1G", 1048576), ("2048", 2), ("", None), (None, None), ("big", None)])
def test_parse_size(text, kib):
    assert _topology.parse_size_kib(text) == kib


def test_endless_digits_are_no_number():
    """Python raises for the text of a number of over 4300 digits."""
    digits = "9" * 5000
    assert _topology.parse_size_kib(digits) is None and _topology.parse_size_kib(digits + "K") is None
    assert _topology.parse_meminfo(f"MemTotal: {digits} kB\nMemFree: 2048 kB\n") == {"MemFree": 2}
    assert _topology.parse_cpuinfo(f"processor : {digits}\ncore id : 1\n")["ids"] == {}


@pytest.mark.parametrize("steps, slow", [
    ({}, set()),
    ({0: 1024}, set()),
    ({0: 1024, 1: 1024}, set()),
    ({0: 1024, 1: 855}, set()),
    ({0: 539, 1: 1024}, {0}),
    ({0: 280, 1: 855, 2: 1024, 3: 280}, {0, 3}),
    ({0: 160, 1: 498, 2: 1024}, {0}),
    ({0: 446, 1: 1024, 2: 1024}, {0}),
])
def test_slow_cpus(steps, slow):
    assert _topology.slow_cpus(steps) == slow


@pytest.mark.parametrize("cpuinfo, byteorder, architecture", [
    ("vendor_id : GenuineIntel\nflags : fpu sse2 lm", None, "x86_64"),
    ("vendor_id : GenuineIntel\nflags : fpu sse2", None, "i686"),
    ("vendor_id : IBM/S390", None, "s390x"),
    ("Features : fp asimd\nCPU implementer : 0x41\nCPU architecture: 8\nCPU part : 0xd0c", None, "aarch64"),
    ("Features : half thumb neon\nCPU implementer : 0x41\nCPU architecture: 8\nCPU part : 0xd03", None, "armv8l"),
    ("Features : swp half\nCPU implementer : 0x41\nCPU architecture: 7\nCPU part : 0xc07", None, "armv7l"),
    ("CPU implementer : 0x41\nCPU architecture: 5TEJ\nCPU part : 0x926", None, "arm"),
    ("cpu : POWER9 (architected), altivec supported\nrevision : 2.2", "little", "ppc64le"),
    ("cpu : POWER9 (architected), altivec supported\nrevision : 2.2", "big", "ppc64"),
    ("cpu : 740/750\nrevision : 3.1", "big", "ppc"),
    ("isa : rv32imac", None, "riscv32"),
    ("isa : rv64imafdcv_zicsr", None, "riscv64"),
    ("ISA : loongarch32r loongarch64", None, "loongarch64"),
    ("cpu : TI UltraSparc II\ntype : sun4u", None, "sparc64"),
    ("cpu : Fujitsu MB86904 Sparc\ntype : sun4m", None, "sparc"),
    ("cpu model : MIPS 24Kc V7.4", None, None),
    ("", None, None),
])
def test_architecture_of(cpuinfo, byteorder, architecture):
    assert _topology.architecture_of(_topology.parse_cpuinfo(cpuinfo), byteorder) == architecture


@pytest.mark.parametrize("cpuinfo, model, vendor", [
    ("CPU implementer : 0x41\nCPU part : 0xd0c", "Neoverse-N1", "ARM"),
    ("CPU implementer : 0x41\nCPU part : 0xfff", "ARM part 0xfff", "ARM"),
    ("model name : ARMv8 Processor rev 1 (v8l)\nCPU implementer : 0x41\nCPU part : 0xfff", "ARMv8 Processor rev 1 (v8l)", "ARM"),
    ("CPU implementer : 0xee\nCPU part : 0x00a", "Arm part 0x00a", "0xee"),
    ("CPU implementer : 0xc0\nCPU part : 0xac3\n\nCPU implementer : 0xc0\nCPU part : 0xac3", "Ampere-1", "Ampere"),
    ("CPU implementer : ?\nCPU part : ?", None, None),
    ("no colon here\nmodel name :\n", None, None),
    ("vendor_id : HygonGenuine\nmodel name : Hygon C86 7285", "Hygon C86 7285", "HygonGenuine"),
])
def test_names_from_cpuinfo(cpuinfo, model, vendor):
    parsed = _topology.parse_cpuinfo(cpuinfo)
    assert (_topology.model_of(parsed), _topology.vendor_of(parsed)) == (model, vendor)


@pytest.mark.parametrize("cpuinfo, flags", [
    ("flags : fpu avx avx2 amx_bf16 amx_int8 amx_tile avx512_bf16", ["amx_bf16", "amx_int8", "amx_tile", "avx", "avx2", "avx512_bf16"]),
    # Hybrid: only what every core has.
    ("flags : avx avx2 avx512f\nflags : avx avx2", ["avx", "avx2"]),
    ("features : zarch vx vxe vxe2 nnpa", ["nnpa", "vx", "vxe", "vxe2"]),
    ("isa : rv64imafdcv_zvfh\nisa : rv64imafdcv_zvfh_zba", ["v", "zvfh"]),
    ("isa : rv64imafdc_xtheadvector", []),
    ("cpu : POWER10 (raw), altivec supported", ["altivec", "vsx"]),
    ("cpu : PPC970FX, altivec supported", ["altivec"]),
    ("cpu : POWER6 (raw)", []),
    ("isa : mips1 mips2 mips32r2", []),
    ("", []),
])
def test_flags_of(cpuinfo, flags):
    assert _topology.flags_of(_topology.parse_cpuinfo(cpuinfo)) == flags


# --- missing and odd files -----------------------------------------------------------------------------------------------

def test_bad_sysroots(tmp_path):
    with pytest.raises(TopologyError, match=r"The sysroot '.*/gone' does not exist"):
        detect(str(tmp_path / "gone"))
    (tmp_path / "file").write_text("")
    with pytest.raises(TopologyError, match=r"The sysroot '.*/file' is not a folder"):
        detect(str(tmp_path / "file"))
    with pytest.raises(TopologyError, match=r"has no folder sys/devices/system/cpu\. Give the folder that holds"):
        detect(str(tmp_path))
    (tmp_path / CPU).mkdir(parents=True)
    with pytest.raises(TopologyError, match=r"No online CPU is found in '.*sys/devices/system/cpu'"):
        detect(str(tmp_path))


def test_almost_nothing(tmp_path):
    """Only folders of CPUs: each is a core, all are online, in one package and one node."""
    for cpu in (0, 3):
        (tmp_path / CPU / f"cpu{cpu}").mkdir(parents=True)
    found = detect(str(tmp_path))
    check_sane(found)
    assert found["cpus"] == {"present": "0,3", "online": "0,3", "offline": "", "isolated": "", "usable": "0,3"}
    assert found["cores"] == [
        {"index": 0, "package": 0, "cluster": None, "core_id": -1, "numa_node": 0, "cpus": [0], "kind": "uniform"},
        {"index": 1, "package": 0, "cluster": None, "core_id": -1, "numa_node": 0, "cpus": [3], "kind": "uniform"},
    ]
    assert found["numa_nodes"] == [{"node": 0, "cpus": "0,3", "memory_total_mib": None, "memory_free_mib": None}]
    assert (found["architecture"], found["model_name"], found["vendor"], found["flags"]) == (None, None, None, [])
    assert (found["llc_groups"], found["init_system"]) == ([], None)


def test_online_is_found_without_its_file(tmp_path):
    files = simple_host(4, **{f"{CPU}/online": "(null)", f"{CPU}/cpu1/online": "1", f"{CPU}/cpu2/online": "0", f"{CPU}/cpu3/online": "1"})
    found = detect(plant(tmp_path, files))
    assert (found["cpus"]["online"], found["cpus"]["offline"]) == ("0-1,3", "2")


def test_cpu_without_folder(tmp_path):
    found = detect(plant(tmp_path, simple_host(2, **{f"{CPU}/online": "0-1,9", f"{CPU}/present": "0-1"})))
    check_sane(found)
    assert [core["cpus"] for core in found["cores"]] == [[0], [1], [9]]
    assert found["cpus"]["present"] == "0-1,9"


def test_siblings_of_which_only_one_says_so(tmp_path):
    files = simple_host(3, **{f"{CPU}/cpu0/topology/core_cpus_list": "0-1"})
    assert [core["cpus"] for core in detect(plant(tmp_path, files))["cores"]] == [[0, 1], [2]]


def test_siblings_that_are_offline_or_absent(tmp_path):
    files = simple_host(4, **{f"{CPU}/online": "0-2", f"{CPU}/cpu0/topology/core_cpus_list": "0,3,77"})
    found = detect(plant(tmp_path, files))
    assert [core["cpus"] for core in found["cores"]] == [[0], [1], [2]]
    assert found["smt"] == {"active": False, "control": None, "threads_per_core": 1}


def test_topology_from_cpuinfo(tmp_path):
    """No topology folders, as in some sandboxes."""
    cpuinfo = "\n\n".join(f"processor : {cpu}\nphysical id : {cpu // 4}\ncore id : {cpu % 2}" for cpu in range(8))
    found = detect(plant(tmp_path, {f"{CPU}/online": "0-7", "proc/cpuinfo": cpuinfo}))
    assert [core["cpus"] for core in found["cores"]] == [[0, 2], [1, 3], [4, 6], [5, 7]]
    assert [core["package"] for core in found["cores"]] == [0, 0, 1, 1]


def test_package_numbers_that_only_some_have(tmp_path):
    files = simple_host(4)
    for cpu in (2, 3):
        files[f"{CPU}/cpu{cpu}/topology/physical_package_id"] = -1
        files[f"{CPU}/cpu{cpu}/topology/core_siblings"] = "c"
    assert [core["package"] for core in detect(plant(tmp_path, files))["cores"]] == [0, 0, 1, 1]


@pytest.mark.parametrize("shown, cluster", [("3", 3), ("-1", None), ("65535", None), ("", None), ("x", None)])
def test_cluster_numbers(tmp_path, shown, cluster):
    found = detect(plant(tmp_path, simple_host(1, **{f"{CPU}/cpu0/topology/cluster_id": shown})))
    assert found["cores"][0]["cluster"] == cluster


@pytest.mark.parametrize("shown, control", [
    ("on", "on"), ("off", "off"), ("forceoff", "forceoff"), ("notsupported", "notsupported"), ("notimplemented", "notimplemented"),
    ("4", "on"), ("", None), ("maybe", None)])
def test_smt_switch(tmp_path, shown, control):
    assert detect(plant(tmp_path, simple_host(1, **{f"{CPU}/smt/control": shown})))["smt"]["control"] == control


def test_intel_hybrid(tmp_path):
    files = simple_host(8, **{
        f"{CPU}/cpu0/topology/core_cpus_list": "0-1", f"{CPU}/cpu2/topology/core_cpus_list": "2-3",
        "sys/devices/cpu_core/cpus": "0-3", "sys/devices/cpu_atom/cpus": "4-6", "sys/devices/cpu_lowpower/cpus": "7"})
    found = detect(plant(tmp_path, files))
    assert [(core["cpus"], core["kind"]) for core in found["cores"]] == [
        ([0, 1], "performance"), ([2, 3], "performance")] + [([cpu], "efficiency") for cpu in (4, 5, 6, 7)]


def test_hybrid_with_only_one_kind_online(tmp_path):
    files = simple_host(4, **{f"{CPU}/online": "2-3", "sys/devices/cpu_core/cpus": "0-1", "sys/devices/cpu_atom/cpus": "2-3"})
    assert {core["kind"] for core in detect(plant(tmp_path, files))["cores"]} == {"uniform"}


def test_capacities_of_which_some_are_missing_or_zero(tmp_path):
    files = simple_host(4, **{f"{CPU}/cpu{cpu}/cpu_capacity": value for cpu, value in enumerate((1024, 400, 0))})
    assert [core["kind"] for core in detect(plant(tmp_path, files))["cores"]] == ["performance", "efficiency", "performance", "performance"]


def test_nodes_without_cpus_or_memory_files(tmp_path):
    files = simple_host(4, **{
        f"{NODE}/node0/cpulist": "0-1", f"{NODE}/node0/meminfo": "Node 0 MemTotal:       2048000 kB\nNode 0 MemFree:        1024000 kB",
        f"{NODE}/node2/cpumap": "c",
        f"{NODE}/node5/cpulist": "", f"{NODE}/node5/meminfo": "Node 5 MemTotal:      16777216 kB\nNode 5 MemFree:       16777215 kB\n",
        f"{NODE}/online": "0,2,5",
        # What one of several nodes has cannot be told from what all have.
        "proc/meminfo": "MemTotal: 33554432 kB\nMemFree: 1048576 kB"})
    found = detect(plant(tmp_path, files))
    assert found["numa_nodes"] == [
        {"node": 0, "cpus": "0-1", "memory_total_mib": 2000, "memory_free_mib": 1000},
        {"node": 2, "cpus": "2-3", "memory_total_mib": None, "memory_free_mib": None},
        {"node": 5, "cpus": "", "memory_total_mib": 16384, "memory_free_mib": 16383},
    ]
    assert [core["numa_node"] for core in found["cores"]] == [0, 0, 2, 2]


def test_node_found_through_the_cpus_folder(tmp_path):
    files = simple_host(3, **{f"{NODE}/node1/distance": "10", f"{NODE}/node3/distance": "10", f"{CPU}/cpu2/node3/distance": "10"})
    found = detect(plant(tmp_path, files))
    # Nothing speaks of CPUs 0 and 1: the first node has them, as in the kernel.
    assert [core["numa_node"] for core in found["cores"]] == [1, 1, 3]


def test_a_cpu_in_two_nodes_counts_once(tmp_path):
    files = simple_host(2, **{f"{NODE}/node0/cpulist": "0-1", f"{NODE}/node1/cpulist": "1"})
    check_sane(detect(plant(tmp_path, files)))


def test_memory(tmp_path):
    meminfo = "MemTotal: 33554432 kB\nMemFree:  1048576 kB\nMemAvailable: 16777216 kB\nBuffers: 1 kB\nActive(anon): 5 kB\nSwapTotal: 2097152 kB"
    found = detect(plant(tmp_path, simple_host(2, **{"proc/meminfo": meminfo})))
    assert found["memory"] == {"total_mib": 32768, "available_mib": 16384, "swap_total_mib": 2048}
    assert found["numa_nodes"] == [{"node": 0, "cpus": "0-1", "memory_total_mib": 32768, "memory_free_mib": 1024}]


def test_memory_of_the_only_node_without_file(tmp_path):
    found = detect(plant(tmp_path, simple_host(2, **{"proc/meminfo": "MemTotal: 4096000 kB\nMemFree: 1024000 kB", f"{NODE}/node0/cpulist": "0-1"})))
    assert found["numa_nodes"] == [{"node": 0, "cpus": "0-1", "memory_total_mib": 4000, "memory_free_mib": 1000}]


def test_available_memory_of_an_old_kernel(tmp_path):
    meminfo = "MemTotal: 4096000 kB\nMemFree: 1024000 kB\nBuffers: 1024000 kB\nCached: 512000 kB\nSwapTotal: 0 kB"
    assert detect(plant(tmp_path, simple_host(1, **{"proc/meminfo": meminfo})))["memory"] == {
        "total_mib": 4000, "available_mib": 2500, "swap_total_mib": 0}


def test_caches_of_which_some_cpus_lack_the_last_level(tmp_path):
    files = simple_host(6)
    for cpu in range(6):
        cache = f"{CPU}/cpu{cpu}/cache"
        files.update({f"{cache}/index0/level": 1, f"{cache}/index0/type": "Data", f"{cache}/index0/shared_cpu_list": cpu, f"{cache}/index0/size": "48K"})
        files.update({f"{cache}/index9/level": 1, f"{cache}/index9/type": "Instruction", f"{cache}/index9/shared_cpu_list": cpu})
        files.update({f"{cache}/index2/level": 2, f"{cache}/index2/type": "Unified", f"{cache}/index2/size": "2048K",
                      f"{cache}/index2/shared_cpu_list": "4-5" if cpu > 3 else cpu})
        if cpu < 4:
            files.update({f"{cache}/index10/level": 3, f"{cache}/index10/type": "Unified", f"{cache}/index10/size": "24576K",
                          f"{cache}/index10/shared_cpu_map": "f"})
    assert detect(plant(tmp_path, files))["llc_groups"] == [
        {"level": 3, "size_kib": 24576, "cpus": "0-3"}, {"level": 2, "size_kib": 2048, "cpus": "4-5"}]


def test_instruction_caches_do_not_count(tmp_path):
    files = simple_host(2)
    for cpu in range(2):
        cache = f"{CPU}/cpu{cpu}/cache"
        files.update({f"{cache}/index0/level": 2, f"{cache}/index0/type": "Instruction", f"{cache}/index0/shared_cpu_list": "0-1"})
        files.update({f"{cache}/index1/level": 2, f"{cache}/index1/type": "Data", f"{cache}/index1/shared_cpu_list": cpu})
    assert [group["cpus"] for group in detect(plant(tmp_path, files))["llc_groups"]] == ["0", "1"]


def test_cache_without_sharers(tmp_path):
    files = simple_host(2, **{f"{CPU}/cpu1/cache/index0/level": 2})
    assert detect(plant(tmp_path, files))["llc_groups"] == [{"level": 2, "size_kib": None, "cpus": "1"}]


@pytest.mark.parametrize("names, cgroup", [
    ([], {"version": None, "mode": "none"}),
    (["cgroup.controllers", "cpuset.cpus.effective", "memory.stat"], {"version": 2, "mode": "unified"}),
    (["cpuset/cpuset.cpus", "memory/tasks", "systemd/tasks"], {"version": 1, "mode": "legacy"}),
    (["cpuset/cpuset.cpus", "systemd/tasks", "unified/cgroup.procs"], {"version": 1, "mode": "hybrid"}),
    (["systemd/tasks"], {"version": None, "mode": "none"}),
])
def test_cgroup_modes(tmp_path, names, cgroup):
    assert detect(plant(tmp_path, simple_host(1, **{f"sys/fs/cgroup/{name}": "" for name in names})))["cgroup"] == cgroup


@pytest.mark.parametrize("comm", ["systemd", "init", "tini"])
def test_init_system(tmp_path, comm):
    assert detect(plant(tmp_path, simple_host(1, **{"proc/1/comm": comm})))["init_system"] == comm


def test_unreadable_bytes(tmp_path):
    root = plant(tmp_path, simple_host(1))
    (tmp_path / "proc" / "1" / "comm").write_bytes(b"\xff\xfe\x00x")
    (tmp_path / "proc" / "cpuinfo").write_bytes(b"model name : \xff\xff\nflags : \x00avx2 avx2")
    found = detect(root)
    check_sane(found)
    assert found["flags"] == ["avx2"]


def test_this_host():
    found = detect("/")
    check_sane(found)
    assert found["architecture"] == os.uname().machine
    assert set(parse_cpulist(found["cpus"]["usable"])) >= os.sched_getaffinity(0) - set(parse_cpulist(found["cpus"]["isolated"]))
    assert found["memory"]["total_mib"] >= found["memory"]["available_mib"] > 0


# --- usable CPUs -----------------------------------------------------------------------------------------------------------

EIGHT = {
    "sys/fs/cgroup/cgroup.controllers": "cpuset cpu memory",
    "sys/fs/cgroup/cpuset.cpus.effective": "0-7",
    "proc/1/status": "Name:\tsystemd\nCpus_allowed:\tff\nCpus_allowed_list:\t0-7\n",
}
CGROUP = "sys/fs/cgroup"


@pytest.mark.parametrize("extra, usable", [
    ({}, "0-7"),
    # Offline and isolated CPUs.
    ({f"{CPU}/online": "0-5"}, "0-5"),
    ({f"{CPU}/isolated": "2,6-7"}, "0-1,3-5"),
    # A container's own limit, or CPUs taken away by a partition.
    ({f"{CGROUP}/cpuset.cpus.effective": "2-3"}, "2-3"),
    ({f"{CGROUP}/cpuset.cpus.effective": ""}, "0-7"),
    ({f"{CGROUP}/cpuset.cpus.effective": None}, "0-7"),
    # cgroup v1 and hybrid.
    ({f"{CGROUP}/cpuset.cpus.effective": None, f"{CGROUP}/cpuset/cpuset.cpus": "0-5"}, "0-5"),
    ({f"{CGROUP}/cpuset.cpus.effective": None, f"{CGROUP}/cpuset/cpuset.cpus": "0-7", f"{CGROUP}/cpuset/cpuset.effective_cpus": "1-2"}, "1-2"),
    ({f"{CGROUP}/cpuset.cpus.effective": None, f"{CGROUP}/unified/cpuset.cpus.effective": "3", f"{CGROUP}/cpuset/cpuset.cpus": ""}, "3"),
    # Process 1 is not systemd: its affinity is what everything starts with.
    ({"proc/1/comm": "tini", "proc/1/status": "Cpus_allowed:\t0000,0000000c\nCpus_allowed_list:\t2-3\n"}, "2-3"),
    ({"proc/1/comm": "tini", "proc/1/status": "State:\tS\n"}, "0-7"),
    ({"proc/1/comm": None, "proc/1/status": None}, "0-7"),
    # systemd was told to keep services off some CPUs.
    ({"etc/systemd/system.conf": "[Manager]\n#CPUAffinity=0\nCPUAffinity=0-3"}, "0-3"),
    ({"etc/systemd/system.conf": "[Manager]\n CPUAffinity = 0 2, 4-5"}, "0,2,4-5"),
    ({"etc/systemd/system.conf": "[Manager]\nCPUAffinity=0-1\nCPUAffinity=6"}, "0-1,6"),
    ({"etc/systemd/system.conf": "[Manager]\nCPUAffinity=0-1\nCPUAffinity=\nCPUAffinity=6"}, "6"),
    ({"etc/systemd/system.conf": "[Manager]\nCPUAffinity=0-1\nCPUAffinity="}, "0-7"),
    ({"etc/systemd/system.conf": "[Manager]\nCPUAffinity=numa"}, "0-7"),
    ({"etc/systemd/system.conf": "[Manager]", "usr/lib/systemd/system.conf": "[Manager]\nCPUAffinity=0"}, "0-7"),
    ({"usr/lib/systemd/system.conf": "[Manager]\nCPUAffinity=1"}, "1"),
    ({"etc/systemd/system.conf": "[Manager]\nCPUAffinity=0-5", "etc/systemd/system.conf.d/10-x.conf": "[Manager]\nCPUAffinity=\nCPUAffinity=1",
      "run/systemd/system.conf.d/20-y.conf": "[Manager]\nCPUAffinity=3", "run/systemd/system.conf.d/10-x.conf": "[Manager]\nCPUAffinity=7",
      "etc/systemd/system.conf.d/README": "CPUAffinity=5"}, "1,3"),
    ({"proc/cmdline": "root=/dev/vda systemd.cpu_affinity=0-1,4 quiet", "etc/systemd/system.conf": "CPUAffinity=7"}, "0-1,4"),
    ({"proc/1/comm": "tini", "proc/cmdline": "systemd.cpu_affinity=0"}, "0-7"),
    # All at once.
    ({f"{CPU}/online": "0-6", f"{CPU}/isolated": "6", f"{CGROUP}/cpuset.cpus.effective": "1-7", "etc/systemd/system.conf": "CPUAffinity=0-2 6"}, "1-2"),
])
def test_usable(tmp_path, extra, usable):
    assert detect(plant(tmp_path, simple_host(8, **{**EIGHT, **extra})))["cpus"]["usable"] == usable


@pytest.mark.parametrize("extra", [{}, {"etc/systemd/system.conf.d/rt.conf": "[Manager]\nCPUAffinity=0-5"}, {f"{CGROUP}/cpuset.cpus.effective": "0-6"}])
def test_a_host_held_to_its_plan_is_seen_as_before(tmp_path, extra):
    """Exclusive mode holds init.scope, system.slice and user.slice to the reserved cores; the next plan must not shrink to them."""
    before = detect(plant(tmp_path / "before", simple_host(8, **{**EIGHT, **extra})))
    fence = {"proc/1/status": "Name:\tsystemd\nCpus_allowed:\t10\nCpus_allowed_list:\t4\n",
             "proc/self/status": "Name:\tpython3\nCpus_allowed:\t10\nCpus_allowed_list:\t4\n"}
    for unit in ("init.scope", "system.slice", "user.slice"):
        fence.update({f"{CGROUP}/{unit}/cpuset.cpus": "4", f"{CGROUP}/{unit}/cpuset.cpus.effective": "4"})
    assert detect(plant(tmp_path / "after", simple_host(8, **{**EIGHT, **extra, **fence}))) == before


# --- any host ------------------------------------------------------------------------------------------------------------

@st.composite
def hosts(draw):
    """A made-up machine: what it is, and the files a kernel would show of it."""
    packages, clusters, cores, threads = draw(st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 3), st.sampled_from((1, 1, 2, 4))))
    places = [(package, cluster, core) for package in range(packages) for cluster in range(clusters) for core in range(cores)]
    count = len(places) * threads
    # Adjacent, split, or any numbering; with gaps.
    slots = [(place, thread) for place in places for thread in range(threads)]
    order = draw(st.sampled_from(("adjacent", "split", "any")))
    if order == "split":
        slots.sort(key=lambda slot: (slot[1], slot[0]))
    elif order == "any":
        slots = draw(st.permutations(slots))
    numbers = sorted(draw(st.sets(st.integers(0, 3 * count), min_size=count, max_size=count))) if draw(st.booleans()) else range(count)
    where = {number: place for number, (place, _thread) in zip(numbers, slots)}
    online = set(where) - draw(st.sets(st.sampled_from(sorted(where)), max_size=count - 1))

    style = draw(st.sampled_from(("new", "old", "masks", "numbers", "none")))
    nodes = draw(st.sampled_from(("none", "one", "package", "cluster", "far memory")))
    node_of = {"none": lambda place: 0, "one": lambda place: 3, "package": lambda place: place[0], "cluster": lambda place: 2 * place[0] + place[1],
               "far memory": lambda place: place[0]}[nodes]
    core_ids = draw(st.permutations(range(cores)))

    files = {f"{CPU}/present": format_cpulist(where), f"{CPU}/online": format_cpulist(online)}
    for cpu, place in where.items():
        folder = f"{CPU}/cpu{cpu}"
        files[f"{folder}/online"] = int(cpu in online)
        if cpu not in online or style == "none":
            continue
        siblings = {other for other in online if where[other] == place}
        package = {other for other in online if where[other][0] == place[0]}
        files.update({
            # Repeated in each cluster and package.
            f"{folder}/topology/core_id": core_ids[place[2]],
            f"{folder}/topology/physical_package_id": place[0],
        })
        if style in ("new", "numbers"):
            files[f"{folder}/topology/cluster_id"] = place[1]
        if style == "new":
            files[f"{folder}/topology/core_cpus_list"] = format_cpulist(siblings)
            files[f"{folder}/topology/package_cpus_list"] = format_cpulist(package)
        if style == "old":
            files[f"{folder}/topology/thread_siblings_list"] = format_cpulist(siblings)
        if style == "masks":
            files[f"{folder}/topology/thread_siblings"] = mask(siblings, 128)
            files[f"{folder}/topology/core_siblings"] = mask(package, 128)
            files[f"{folder}/topology/physical_package_id"] = -1
        cache = f"{folder}/cache"
        files.update({f"{cache}/index0/level": 1, f"{cache}/index0/type": "Data", f"{cache}/index0/shared_cpu_list": format_cpulist(siblings)})
        files.update({f"{cache}/index1/level": 3, f"{cache}/index1/type": "Unified", f"{cache}/index1/size": "8192K",
                      f"{cache}/index1/shared_cpu_map": mask(package, 128)})
    if nodes != "none":
        for node in {node_of(place) for place in places}:
            files[f"{NODE}/node{node}/cpulist"] = format_cpulist(cpu for cpu in where if node_of(where[cpu]) == node)
    if nodes == "far memory":
        files.update({f"{NODE}/node9/cpulist": "", f"{NODE}/node9/meminfo": "Node 9 MemTotal: 1048576 kB"})
    return {"files": files, "where": where, "online": online, "style": style, "node_of": node_of, "far": nodes == "far memory"}


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(hosts())
def test_any_host(host):
    with tempfile.TemporaryDirectory() as folder:
        found = detect(plant(folder, host["files"]))
    check_sane(found)
    where, online = host["where"], host["online"]
    assert found["cpus"]["present"] == format_cpulist(where)
    assert found["cpus"]["online"] == found["cpus"]["usable"] == format_cpulist(online)
    assert found["cpus"]["offline"] == format_cpulist(set(where) - online)
    for core in found["cores"]:
        assert {core["numa_node"]} == {host["node_of"](where[cpu]) for cpu in core["cpus"]}
    if host["far"]:
        assert found["numa_nodes"][-1] == {"node": 9, "cpus": "", "memory_total_mib": 1024, "memory_free_mib": None}
    if host["style"] == "none":
        assert all(len(core["cpus"]) == 1 for core in found["cores"])
        return
    assert {frozenset(core["cpus"]) for core in found["cores"]} == partition((cpu, where[cpu]) for cpu in online)
    packages = {cpu: core["package"] for core in found["cores"] for cpu in core["cpus"]}
    assert partition(packages.items()) == partition((cpu, where[cpu][0]) for cpu in online)
    if host["style"] != "masks":
        assert packages == {cpu: where[cpu][0] for cpu in online}
    assert {frozenset(parse_cpulist(group["cpus"])) for group in found["llc_groups"]} == partition((cpu, where[cpu][0]) for cpu in online)
    assert {(group["level"], group["size_kib"]) for group in found["llc_groups"]} == {(3, 8192)}


GARBAGE = st.sampled_from(["", "(null)", "-1", "x" * 40, "0-3,", "7-2", "99999999", "0,1", "ffffffff,ffffffff", "0-1:1/0", "9" * 5000])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(hosts(), st.data())
def test_any_damage_is_survived(host, data):
    """Files may be missing or hold anything: the answer is a sane host or a text, never a traceback."""
    files = dict(host["files"])
    for name in data.draw(st.lists(st.sampled_from(sorted(files)), max_size=12, unique=True)):
        text = data.draw(st.none() | GARBAGE)
        if text is None:
            del files[name]
        else:
            files[name] = text
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = detect(plant(folder, files))
        except TopologyError as error:
            assert "online CPU" in str(error) or "no folder" in str(error)
        else:
            check_sane(found)


# --- speed ---------------------------------------------------------------------------------------------------------------

def test_few_reads_for_512_cpus(tmp_path, monkeypatch):
    """Time is for the benchmarks; what is asserted is the number of files opened."""
    files = {f"{CPU}/online": "0-511", f"{CPU}/present": "0-511", "proc/cpuinfo": "\n".join(f"processor : {cpu}\nflags : avx avx2" for cpu in range(512))}
    for cpu in range(512):
        core, folder = cpu % 256, f"{CPU}/cpu{cpu}"
        files.update({f"{folder}/topology/core_cpus_list": f"{core},{core + 256}", f"{folder}/topology/core_id": core % 128,
                      f"{folder}/topology/physical_package_id": core // 128, f"{folder}/topology/cluster_id": -1})
        siblings, package = f"{core},{core + 256}", "0-127,256-383" if core < 128 else "128-255,384-511"
        for index, (level, kind, shared) in enumerate(((1, "Data", siblings), (1, "Instruction", siblings), (2, "Unified", siblings), (3, "Unified", package))):
            files.update({f"{folder}/cache/index{index}/level": level, f"{folder}/cache/index{index}/type": kind,
                          f"{folder}/cache/index{index}/shared_cpu_list": shared})
    for node in (0, 1):
        files[f"{NODE}/node{node}/cpulist"] = "0-127,256-383" if node == 0 else "128-255,384-511"
    root = plant(tmp_path, files)
    reads = []
    for method in ("text", "names"):
        original = getattr(SysRoot, method)
        monkeypatch.setattr(SysRoot, method, lambda self, name, original=original: reads.append(name) or original(self, name))
    found = detect(root)
    assert len(found["cores"]) == 256 and len(found["llc_groups"]) == 2
    assert len(reads) < 3 * 512
    assert len(reads) == len(set(reads))
