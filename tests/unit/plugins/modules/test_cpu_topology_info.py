# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest
import yaml

from ansible_collections.erni_ki.inference.plugins.modules import cpu_topology_info

FILES = {
    "sys/devices/system/cpu/online": "0-2",
    "sys/devices/system/cpu/present": "0-3",
    "sys/devices/system/cpu/smt/control": "on",
    "sys/devices/system/cpu/cpu0/topology/core_cpus_list": "0,2",
    "sys/devices/system/cpu/cpu0/topology/core_id": "4",
    "sys/devices/system/cpu/cpu0/topology/cluster_id": "8",
    "sys/devices/system/cpu/cpu0/topology/physical_package_id": "0",
    "sys/devices/system/cpu/cpu1/topology/physical_package_id": "0",
    "sys/devices/system/cpu/cpu0/cache/index0/level": "3",
    "sys/devices/system/cpu/cpu0/cache/index0/size": "16384K",
    "sys/devices/system/cpu/cpu0/cache/index0/shared_cpu_list": "0-2",
    "sys/devices/system/node/node0/cpulist": "0-2",
    "sys/devices/system/node/node0/meminfo": "Node 0 MemTotal: 4096000 kB\nNode 0 MemFree: 1024000 kB",
    "sys/fs/cgroup/cgroup.controllers": "cpuset",
    "sys/fs/cgroup/cpuset.cpus.effective": "0-1",
    "proc/1/comm": "systemd",
    "proc/cpuinfo": "vendor_id : GenuineIntel\nmodel name : Some CPU\nflags : lm avx avx2",
    "proc/meminfo": "MemTotal: 4096000 kB\nMemAvailable: 2048000 kB\nSwapTotal: 1024000 kB",
}
TOPOLOGY = {
    "architecture": "x86_64",
    "model_name": "Some CPU",
    "vendor": "GenuineIntel",
    "flags": ["avx", "avx2"],
    "cpus": {"present": "0-3", "online": "0-2", "offline": "3", "isolated": "", "usable": "0-1"},
    "cores": [
        {"index": 0, "package": 0, "cluster": 8, "core_id": 4, "numa_node": 0, "cpus": [0, 2], "kind": "uniform"},
        {"index": 1, "package": 0, "cluster": None, "core_id": -1, "numa_node": 0, "cpus": [1], "kind": "uniform"},
    ],
    "smt": {"active": True, "control": "on", "threads_per_core": 2},
    "numa_nodes": [{"node": 0, "cpus": "0-2", "memory_total_mib": 4000, "memory_free_mib": 1000}],
    "llc_groups": [{"level": 3, "size_kib": 16384, "cpus": "0-2"}],
    "memory": {"total_mib": 4000, "available_mib": 2000, "swap_total_mib": 1000},
    "cgroup": {"version": 2, "mode": "unified"},
    "init_system": "systemd",
}


@pytest.fixture(name="host")
def host_fixture(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n", encoding="utf-8")
    (tmp_path / "file").write_text("", encoding="utf-8")
    (tmp_path / "empty" / "sys" / "devices" / "system" / "cpu").mkdir(parents=True)
    return tmp_path


@pytest.fixture(name="run")
def run_fixture(capsys, module_arguments):
    """Run the module with arguments; return its exit status and its result."""
    def run(check=False, **params):
        arguments = {**params, "_ansible_check_mode": check}
        with module_arguments(arguments), pytest.raises(SystemExit) as ending:
            cpu_topology_info.main()
        return ending.value.code, json.loads(capsys.readouterr().out)
    return run


@pytest.mark.parametrize("check", [False, True])
def test_result(run, host, check):
    status, result = run(check=check, sysroot=str(host))
    assert status == 0
    result.pop("invocation", None)
    assert result == {"changed": False, "cpu_topology": TOPOLOGY}


def test_nothing_is_written(run, host):
    before = {path: path.stat().st_mtime_ns for path in host.rglob("*")}
    run(sysroot=str(host))
    assert {path: path.stat().st_mtime_ns for path in host.rglob("*")} == before


def test_this_host_is_the_default(run):
    status, result = run()
    assert status == 0
    assert result["cpu_topology"]["cores"]


@pytest.mark.parametrize("sysroot, message", [
    ("gone", "The sysroot '{}' does not exist. Give a folder that holds copies of /proc and /sys, or / for this host."),
    ("file", "The sysroot '{}' is not a folder. Unpack the dump and give the folder that holds its proc and sys."),
    ("proc", "The sysroot '{}' has no folder sys/devices/system/cpu. Give the folder that holds the dump's proc and sys themselves."),
    ("empty", "No online CPU is found in '{}/sys/devices/system/cpu': neither its file 'online' nor a folder such as 'cpu0' says of one."),
])
def test_bad_sysroot(run, host, sysroot, message):
    status, result = run(sysroot=str(host / sysroot))
    assert status == 1
    assert result["failed"] is True
    assert result["msg"] == message.format(host / sysroot)
    assert "cpu_topology" not in result


def test_unknown_option(run):
    status, result = run(root="/")
    assert status == 1
    assert "Supported parameters include: sysroot" in result["msg"]


def described(value, docs, path):
    """The places where a value is not what the RETURN block says."""
    kinds = {"str": str, "int": int, "bool": bool, "dict": dict, "list": list}
    if value is None:
        if "V(none)" not in str(docs["description"]):
            yield f"{path} is None, which its description does not mention"
        return
    # A bool is an int to Python.
    if not isinstance(value, kinds[docs["type"]]) or isinstance(value, bool) != (docs["type"] == "bool"):
        yield f"{path} is {value!r}, documented as {docs['type']}"
        return
    if isinstance(value, dict):
        yield from (f"{path}.{key} is undocumented" for key in set(value) - set(docs["contains"]))
        yield from (f"{path}.{key} is documented and absent" for key in set(docs["contains"]) - set(value))
        for key in set(value) & set(docs["contains"]):
            yield from described(value[key], docs["contains"][key], f"{path}.{key}")
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from described(item, {**docs, "type": docs["elements"]}, f"{path}[{number}]")


@pytest.mark.parametrize("kind", ["full", "bare"])
def test_return_documents_the_result(run, host, tmp_path, kind):
    if kind == "bare":
        host = tmp_path / "empty"
        (host / "sys/devices/system/cpu/cpu0").mkdir()
        (host / "sys/devices/system/cpu/cpu0/cache/index0").mkdir(parents=True)
        (host / "sys/devices/system/cpu/cpu0/cache/index0/level").write_text("2")
    result = run(sysroot=str(host))[1]
    documented = yaml.safe_load(cpu_topology_info.RETURN)
    assert set(documented) == {"cpu_topology"}
    docs = documented["cpu_topology"]
    # What is said of all members of a section is not repeated for each.
    for member in docs["contains"]["memory"]["contains"].values():
        member["description"] += " " + docs["contains"]["memory"]["description"]
    assert list(described(result["cpu_topology"], docs, "cpu_topology")) == []
