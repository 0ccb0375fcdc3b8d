# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils import _partition

EXCLUSIVE = {
    "mode": "exclusive",
    "slices": [{"unit": "erniki-vllm.slice", "cpus": "0-6,8-14", "mems": "0"}, {"unit": "erniki-ollama.slice", "cpus": "7,15", "mems": "0"}],
    "fence": {"cpus": "7,15", "units": ["init.scope", "system.slice"]},
}


def write(folder, files):
    for path, text in files.items():
        path = os.path.join(folder, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(text)


def test_desired_files_of_an_exclusive_plan():
    files = _partition.desired(EXCLUSIVE, "/units")
    assert sorted(files) == [
        "/units/erniki-ollama.slice", "/units/erniki-vllm.slice", "/units/init.scope.d/50-erni-ki.conf", "/units/system.slice.d/50-erni-ki.conf"]
    vllm = files["/units/erniki-vllm.slice"]
    assert vllm.startswith(_partition.HEADER)
    assert "[Slice]\nAllowedCPUs=0-6,8-14\nAllowedMemoryNodes=0\n" in vllm
    assert files["/units/init.scope.d/50-erni-ki.conf"].endswith("[Scope]\nAllowedCPUs=7,15\n")
    assert "AllowedMemoryNodes" not in files["/units/system.slice.d/50-erni-ki.conf"]


def test_desired_files_of_a_fenced_plan_leave_the_system_alone():
    assert sorted(_partition.desired(dict(EXCLUSIVE, fence=None), "/units")) == ["/units/erniki-ollama.slice", "/units/erniki-vllm.slice"]


def test_desired_of_nothing_is_nothing():
    assert _partition.desired({}) == {}


def test_current_finds_ours_and_only_ours(tmp_path):
    write(tmp_path, {
        "erniki-vllm.slice": "a", "system.slice.d/50-erni-ki.conf": "b", "system.slice.d/override.conf": "theirs",
        "erniki.txt": "theirs", "other.slice": "theirs", "docker.service.d/10.conf": "theirs", "not-a-folder.d": "theirs"})
    assert _partition.current(str(tmp_path)) == {
        str(tmp_path / "erniki-vllm.slice"): "a", str(tmp_path / "system.slice.d/50-erni-ki.conf"): "b"}


def test_the_drop_in_of_a_service_is_another_roles(tmp_path):
    for unit in ("nvidia-cdi-refresh.service", "system.slice"):
        (tmp_path / f"{unit}.d").mkdir()
        (tmp_path / f"{unit}.d" / _partition.DROP_IN).write_text("x")
    assert list(_partition.current(str(tmp_path))) == [str(tmp_path / "system.slice.d" / _partition.DROP_IN)]


def test_current_without_a_folder_is_nothing(tmp_path):
    assert _partition.current(str(tmp_path / "none")) == {}


def test_compare():
    assert _partition.compare({"same": "1", "old": "1", "gone": "1"}, {"same": "1", "old": "2", "new": "1"}) == (["new", "old"], ["gone"])


@pytest.mark.parametrize("path, unit", [
    ("/etc/systemd/system/erniki-vllm.slice", "erniki-vllm.slice"), ("/etc/systemd/system/init.scope.d/50-erni-ki.conf", "init.scope")])
def test_unit_of(path, unit):
    assert _partition.unit_of(path) == unit


def test_properties_of():
    assert _partition.properties_of("# MemoryLow=1M\n[Slice]\nAllowedCPUs=0-2\nMemoryLow=7M\n") == {"AllowedCPUs": "0-2", "MemoryLow": "7M"}


def test_reservations_add_up_in_the_slice_above():
    slices = [dict(EXCLUSIVE["slices"][0], memory_low_mib=2048), dict(EXCLUSIVE["slices"][1], memory_low_mib=1024)]
    files = _partition.desired({"slices": slices}, "/units")
    assert "MemoryLow=2048M\n" in files["/units/erniki-vllm.slice"] and "MemoryLow=1024M\n" in files["/units/erniki-ollama.slice"]
    assert files["/units/erniki.slice"].endswith("[Slice]\nMemoryLow=3072M\n")


def test_assignments_take_back_what_is_no_longer_asked_for(tmp_path):
    write(tmp_path, {"cpuset.cpus.effective": "0-15\n", "cpuset.mems.effective": "0-1\n"})
    root = str(tmp_path)
    assert _partition.assignments("AllowedCPUs=0\nMemoryLow=1M\n", "AllowedCPUs=1\n", root) == ["AllowedCPUs=1", "MemoryLow="]
    # Not nothing: the kernel takes no empty cpuset from a group with processes.
    assert _partition.assignments("AllowedCPUs=0\nAllowedMemoryNodes=0\n", "", root) == ["AllowedCPUs=0-15", "AllowedMemoryNodes=0-1"]
    assert _partition.assignments("AllowedCPUs=0\n", "", root + "/none") == ["AllowedCPUs="]


def test_drifted(tmp_path):
    want = {"/u/erniki-vllm.slice": "AllowedCPUs=0-6\nMemoryLow=2048M\n", "/u/erniki.slice": "MemoryLow=2048M\n", "/u/gone.slice": "AllowedCPUs=1\n"}
    right = {"erniki.slice/memory.low": str(2048 << 20), "erniki.slice/erniki-vllm.slice/memory.low": str(2048 << 20),
             "erniki.slice/erniki-vllm.slice/cpuset.cpus.effective": "0-6\n"}
    write(tmp_path, right)
    assert _partition.drifted(want, str(tmp_path)) == []
    for path, text in (("erniki.slice/memory.low", "0"), ("erniki.slice/memory.low", "max")):
        write(tmp_path, dict(right, **{path: text}))
        assert _partition.drifted(want, str(tmp_path)) == ["/u/erniki.slice"]
    write(tmp_path, dict(right, **{"erniki.slice/erniki-vllm.slice/cpuset.cpus.effective": "0-7"}))
    assert _partition.drifted(want, str(tmp_path)) == ["/u/erniki-vllm.slice"]


def test_forget_runtime_leaves_what_others_noted(tmp_path):
    write(tmp_path, {"a.slice.d/50-AllowedCPUs.conf": "", "a.slice.d/50-CPUWeight.conf": "", "b.slice.d/50-MemoryLow.conf": ""})
    _partition.forget_runtime("a.slice", ["AllowedCPUs=1", "MemoryLow="], str(tmp_path))
    _partition.forget_runtime("b.slice", ["MemoryLow=1M"], str(tmp_path))
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["a.slice.d", "a.slice.d/50-CPUWeight.conf"]


@pytest.mark.parametrize("unit, place", [
    ("system.slice", "/c/system.slice"), ("init.scope", "/c/init.scope"),
    ("erniki-vllm.slice", "/c/erniki.slice/erniki-vllm.slice"), ("a-b-c.slice", "/c/a.slice/a-b.slice/a-b-c.slice")])
def test_cgroup_of(unit, place):
    assert _partition.cgroup_of(unit, "/c") == place


def test_effective_cpus(tmp_path):
    write(tmp_path, {"erniki.slice/erniki-vllm.slice/cpuset.cpus.effective": "0-6,8-14\n"})
    assert _partition.effective_cpus("erniki-vllm.slice", str(tmp_path)) == "0-6,8-14"
    assert _partition.effective_cpus("erniki-ollama.slice", str(tmp_path)) is None


def test_unfenced_names_only_populated_groups_of_others(tmp_path):
    write(tmp_path, {
        "system.slice/cgroup.events": "populated 1\n", "erniki.slice/cgroup.events": "populated 1\n", "foreign.slice/cgroup.events": "populated 1\n",
        "idle.slice/cgroup.events": "populated 0\n", "odd.slice/other": "", "cgroup.procs": ""})
    assert _partition.unfenced(EXCLUSIVE, str(tmp_path)) == ["foreign.slice"]
    assert _partition.unfenced(dict(EXCLUSIVE, fence=None), str(tmp_path)) == []
    assert _partition.unfenced(EXCLUSIVE, str(tmp_path / "none")) == []


def test_as_text_is_sorted():
    assert _partition.as_text({"/b": "2\n", "/a": "1\n"}) == "==> /a <==\n1\n==> /b <==\n2\n"
