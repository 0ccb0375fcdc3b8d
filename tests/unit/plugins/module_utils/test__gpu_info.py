# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host's cards, driver and NVML come to: one state, and what to do about it."""
from __future__ import annotations

import json

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils import _gpu_info, _nvml
from ansible_collections.erni_ki.inference.plugins.module_utils._topology import SysRoot
from ansible_collections.erni_ki.inference.tests.unit.plugins.fake_pynvml import GPU, MIB, NOTHING, NVMLError, bindings, process
from ansible_collections.erni_ki.inference.tests.unit.plugins.recorded_gpu import OPEN, PCI_IDS, PROPRIETARY, add_device, load_module, write

ID = "4f1c0e9d2b7a" * 5 + "4f1c"
OTHER = "ab" * 32
NO_TOOLKIT = {"version": None, "cdi_spec": None, "cdi_devices": [], "cdi_driver_version": None}
MISMATCH = _nvml.answer_of(code=18, message="mismatch (NVML code 18)", nvml_version="13.580.105.08")


def detect(root, answer, **more):
    return _gpu_info.detect(str(root), 5.0, ask=lambda timeout: answer, read_toolkit=lambda _root, _timeout: NO_TOOLKIT, **more)


@pytest.fixture(name="card")
def card_fixture(tmp_path):
    """A host with a P2200 that nobody drives."""
    add_device(tmp_path)
    write(tmp_path, _gpu_info._pci.NAMES[0], PCI_IDS)
    return tmp_path


def test_a_host_with_a_card(card):
    load_module(card)
    (card / "sys/devices/pci0000:00/0000:01:00.0/driver").symlink_to("../../../bus/pci/drivers/nvidia")
    write(card, "proc/77/cgroup", f"0::/system.slice/docker-{ID}.scope\n")
    answer = _nvml.read(bindings(nvmlDeviceGetComputeRunningProcesses=[process(77, 4400 * MIB)]))
    assert detect(card, answer) == {
        "state": "ok", "code": None, "hint": "", "driver_version": "580.95.05", "cuda_driver_version": "13.0", "nvml_version": "13.580.95.05",
        "module": {"loaded": True, "version": "580.95.05", "open": False},
        "cards": [{"bus_id": "0000:01:00.0", "vendor_id": "0x10de", "device_id": "0x1c31", "class": "0x030000", "name": "Quadro P2200", "driver": "nvidia"}],
        "gpus": [{
            "index": 0, "name": "Quadro P2200", "uuid": GPU["uuid"], "bus_id": "0000:01:00.0",
            "memory": {"total_mib": 5120, "used_mib": 100, "free_mib": 4959, "reserved_mib": 61}, "compute_capability": "6.1", "architecture": "Pascal",
            "mig_mode": None, "ecc_mode": None, "power_limit_w": 75.0, "temperature_c": 41,
            "processes": [{"pid": 77, "name": "/usr/bin/program-77", "memory_mib": 4400, "container": ID, "type": "compute"}], "error": None,
        }],
        "toolkit": NO_TOOLKIT,
    }


@pytest.mark.parametrize("driver, loaded, answer, state, code, words", [
    (None, None, {"code": 12}, "no_driver", 12, ["libnvidia-ml.so.1 is not installed", "Install an NVIDIA driver"]),
    ("nouveau", None, {"code": 12}, "no_driver", 12, ["nouveau holds the card"]),
    ("vfio-pci", None, {"code": 12}, "no_driver", 12, ["vfio-pci holds a card for virtual machines"]),
    ("nvidia", PROPRIETARY, {"code": 12}, "no_driver", 12, ["kernel module 580.95.05 is loaded", "in the version of the module"]),
    (None, None, {"code": 9}, "not_loaded", 9, ["its kernel module is not loaded", "Secure Boot", "dkms status"]),
    ("nouveau", None, {"code": 9}, "not_loaded", 9, ["nouveau holds the card: reboot"]),
    ("nvidia", PROPRIETARY, {"code": 9}, "not_loaded", 9, ["kernel module 580.95.05 is loaded", "/dev/nvidiactl"]),
    ("nvidia", PROPRIETARY, MISMATCH, "version_mismatch", 18, ["version 580.95.05 of the driver", "library is 580.105.08", "Reboot", "NVML says: mismatch"]),
    ("nvidia", None, {"code": 18}, "version_mismatch", 18, ["version (unknown)", "the library is another"]),
    ("nvidia", PROPRIETARY, {"code": 15}, "gpu_lost", 15, ["fallen off the bus", "Xid"]),
    ("nvidia", PROPRIETARY, {"code": 4}, "permission", 4, ["become: true"]),
    ("nvidia", PROPRIETARY, {"code": 999}, "unknown", 999, ["reboot", "daemon-reload"]),
    ("nvidia", PROPRIETARY, {"code": 17}, "unknown", 17, ["not inside a container"]),
    ("nvidia", PROPRIETARY, {"code": 13}, "unknown", 13, ["older than the Python package"]),
    ("nvidia", PROPRIETARY, {"code": 77}, "unknown", 77, ["dmesg"]),
    ("nvidia", PROPRIETARY, {"failure": "gave no answer within 5 s"}, "unknown", None, ["NVML gave no answer within 5 s", "Reboot"]),
    ("nvidia", PROPRIETARY, {"failure": "crashed (Segmentation fault)"}, "unknown", None, ["NVML crashed (Segmentation fault)"]),
    # The driver runs and does not want the card.
    ("nvidia", OPEN, {}, "unknown", None, ["runs and finds no GPU", "open ones", "Turing"]),
    ("nvidia", PROPRIETARY, {}, "unknown", None, ["driver 580.95.05 runs and finds no GPU", "too new or too old"]),
    (None, None, {"driver_version": "595.1"}, "unknown", None, ["driver 595.1 runs and finds no GPU"]),
    # Without nvidia-ml-py.
    ("nvidia", PROPRIETARY, {"bindings": "No module", "count": 1}, "no_bindings", None, ["pip", "python3-pynvml", "No module"]),
    ("nvidia", PROPRIETARY, {"bindings": "No module", "count": None}, "no_bindings", None, ["nvidia-ml-py"]),
    ("nvidia", OPEN, {"bindings": "No module", "count": 0}, "unknown", None, ["open ones"]),
    ("nouveau", None, {"bindings": "No module", "code": 12}, "no_driver", 12, ["nouveau"]),
    ("nvidia", PROPRIETARY, {"bindings": "No module", "code": 18}, "version_mismatch", 18, ["580.95.05"]),
])
def test_states_of_a_card(card, driver, loaded, answer, state, code, words):
    if driver:
        (card / "sys/devices/pci0000:00/0000:01:00.0/driver").symlink_to(f"../drivers/{driver}")
    if loaded:
        load_module(card, text=loaded)
    found = detect(card, _nvml.answer_of(**answer))
    assert (found["state"], found["code"]) == (state, code)
    assert found["hint"].startswith("Quadro P2200 (10de:1c31, 0000:01:00.0): ")
    assert [word for word in words if word not in found["hint"]] == []
    assert "  " not in found["hint"] and ".." not in found["hint"]
    assert [card["driver"] for card in found["cards"]] == [driver]


@pytest.mark.parametrize("answer, state, code", [
    ({"code": 12}, "no_card", 12),
    ({"code": 9}, "no_card", 9),
    ({}, "no_card", None),
    ({"bindings": "No module", "code": 12}, "no_card", 12),
    ({"bindings": "No module", "count": None}, "no_card", None),
    ({"bindings": "No module", "count": 0}, "no_card", None),
    # A GPU that is on no PCI bus is one all the same.
    ({"bindings": "No module", "count": 1}, "no_bindings", None),
    ({"code": 18}, "version_mismatch", 18),
    ({"code": 999}, "unknown", 999),
    ({"failure": "crashed (Killed)"}, "unknown", None),
])
def test_states_without_a_card(tmp_path, answer, state, code):
    found = detect(tmp_path, _nvml.answer_of(**answer))
    assert (found["state"], found["code"], found["cards"], found["gpus"]) == (state, code, [], [])
    assert found["hint"]
    assert state != "no_card" or "No NVIDIA card is on the PCI bus" in found["hint"]


def test_a_card_that_left_the_bus_is_not_no_card(tmp_path):
    load_module(tmp_path)
    assert detect(tmp_path, _nvml.answer_of(code=9))["state"] == "not_loaded"


def test_a_gpu_without_a_card_on_the_bus(tmp_path):
    found = detect(tmp_path, _nvml.read(bindings()))
    assert (found["state"], found["cards"], len(found["gpus"])) == ("ok", [], 1)


@pytest.mark.parametrize("codes, state, code", [
    ([15], "gpu_lost", 15), ([999, 15], "unknown", 999), ([4, 4], "permission", 4), ([None, 15], "ok", None), ([15, None], "ok", None),
])
def test_lost_gpus(card, codes, state, code):
    """One that can be used is enough; the other says of itself that it cannot."""
    gpus = [dict(NOTHING if number else GPU, index=index, code=number, error=number and f"asked: {number}") for index, number in enumerate(codes)]
    found = detect(card, _nvml.answer_of(count=len(gpus), gpus=gpus))
    assert (found["state"], found["code"]) == (state, code)
    assert bool(found["hint"]) is (state != "ok")
    assert state == "ok" or f"NVML says: asked: {code}." in found["hint"]
    assert [gpu["error"] for gpu in found["gpus"]] == [number and f"asked: {number}" for number in codes]


@pytest.mark.parametrize("text, version, is_open", [
    (PROPRIETARY.format("580.95.05"), "580.95.05", False),
    (PROPRIETARY.format("470.57.02"), "470.57.02", False),
    (OPEN.format("570.144"), "570.144", True),
    ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  390.157  Wed Oct 12 09:19:07 UTC 2022", "390.157", False),
    ("something else", None, False),
])
def test_kernel_module(tmp_path, text, version, is_open):
    write(tmp_path, "proc/driver/nvidia/version", text)
    assert _gpu_info.kernel_module(SysRoot(str(tmp_path))) == {"loaded": True, "version": version, "open": is_open}


@pytest.mark.parametrize("files, expected", [
    ({}, {"loaded": False, "version": None, "open": None}),
    ({"version": "580.95.05\n"}, {"loaded": True, "version": "580.95.05", "open": None}),
    ({"version": "580.95.05\n", "taint": "POE\n"}, {"loaded": True, "version": "580.95.05", "open": False}),
    ({"version": "580.95.05\n", "taint": "OE\n"}, {"loaded": True, "version": "580.95.05", "open": True}),
    ({"refcnt": "1"}, {"loaded": True, "version": None, "open": None}),
])
def test_kernel_module_that_shows_less(tmp_path, files, expected):
    for name, text in files.items():
        write(tmp_path, f"sys/module/nvidia/{name}", text)
    assert _gpu_info.kernel_module(SysRoot(str(tmp_path))) == expected


@pytest.mark.parametrize("text, name", [
    ("Model: \t\t Quadro P2200\nIRQ:   \t\t 130\n", "Quadro P2200"),
    ("Model: \t\t Unknown\n", "GTX of the list"),
    ("Model: \t\t ??????\n", "GTX of the list"),
    ("", "GTX of the list"),
])
def test_the_name_from_the_driver_or_the_list(tmp_path, text, name):
    add_device(tmp_path)
    write(tmp_path, "usr/share/hwdata/pci.ids", "10de  NVIDIA\n\t1c31  GP106 [GTX of the list]\n")
    write(tmp_path, "proc/driver/nvidia/gpus/0000:01:00.0/information", text)
    assert detect(tmp_path, _nvml.answer_of(code=18))["cards"][0]["name"] == name


def test_a_card_nobody_can_name(tmp_path):
    add_device(tmp_path, device="0x9999")
    found = detect(tmp_path, _nvml.answer_of(code=12))
    assert found["cards"][0]["name"] is None
    assert found["hint"].startswith("NVIDIA card (10de:9999, 0000:01:00.0): ")


@pytest.mark.parametrize("text", [
    f"0::/system.slice/docker-{ID}.scope\n",
    f"0::/erniki.slice/erniki-ollama.slice/docker-{ID}.scope\n",
    f"0::/docker/{ID}\n",
    f"12:devices:/docker/{ID}\n11:cpuset:/docker/{ID}\n1:name=systemd:/docker/{ID}\n",
    f"12:devices:/system.slice/docker-{ID}.scope\n0::/system.slice/containerd.service\n",
    f"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-{ID}.scope\n",
    f"0::/kubepods/burstable/pod12345678-1234-1234-1234-123456789abc/{ID}\n",
    f"0::/system.slice/kubelet.service:cri-containerd:{ID}\n",
    f"0::/machine.slice/libpod-{ID}.scope/container\n",
    f"0::/../../system.slice/docker-{ID}.scope",
    f"0::/system.slice/docker-{ID}.scope/docker/{OTHER}\n",
])
def test_container(text):
    assert _gpu_info.container_of(text) == ID


@pytest.mark.parametrize("text", [
    None, "", "0::/\n", "0::/user.slice/user-1000.slice/session-2.scope\n", "0::/system.slice/docker.service\n", f"0::/docker/{ID[:-1]}\n",
    f"0::/docker/{ID}a\n", f"0::/x{ID}\n", f"0::/docker/{ID.upper()}\n",
])
def test_no_container(text):
    assert _gpu_info.container_of(text) is None


def test_processes_of_the_host_and_gone_ones(card):
    write(card, "proc/10/cgroup", "0::/user.slice\n")
    write(card, "proc/10/comm", "python3\n")
    answer = _nvml.read(bindings(nvmlDeviceGetComputeRunningProcesses=[process(10, None), process(11, 0)], nvmlSystemGetProcessName=NVMLError(6)))
    assert detect(card, answer)["gpus"][0]["processes"] == [
        {"pid": 10, "name": "python3", "memory_mib": None, "container": None, "type": "compute"},
        {"pid": 11, "name": None, "memory_mib": 0, "container": None, "type": "compute"},
    ]


@pytest.mark.parametrize("capability, expected", [
    ("3.5", "Kepler"), ("5.2", "Maxwell"), ("6.1", "Pascal"), ("7.0", "Volta"), ("7.5", "Turing"), ("8.6", "Ampere"), ("8.9", "Ada"), ("9.0", "Hopper"),
    ("10.0", "Blackwell"), ("12.0", "Blackwell"), ("2.0", None), (None, None),
])
def test_architecture_of_an_older_driver(capability, expected):
    assert _gpu_info.architecture_of(capability) == expected


def test_the_architecture_is_derived_where_the_driver_has_no_word(card):
    assert detect(card, _nvml.read(bindings(nvmlDeviceGetArchitecture=None)))["gpus"][0]["architecture"] == "Pascal"


@pytest.mark.parametrize("version, expected", [("13.580.95.05", "580.95.05"), ("12.570.144", "570.144"), ("580.95.05", "580.95.05"), (None, None)])
def test_library_version(version, expected):
    assert _gpu_info.library_version(version) == expected


@pytest.mark.parametrize("program, answer, version", [
    ("/usr/bin/nvidia-ctk", (0, "NVIDIA Container Toolkit CLI version 1.19.1\ncommit: 1234567890.1\n", ""), "1.19.1"),
    ("/usr/bin/nvidia-ctk", (0, "something else\n", ""), None),
    ("/usr/bin/nvidia-ctk", (124, "", "hung"), None),
    (None, None, None),
])
def test_toolkit(tmp_path, program, answer, version):
    def run(argv, timeout):
        assert (argv, timeout) == ([program, "--version"], 7)
        return answer
    write(tmp_path, "etc/cdi/nvidia.json", json.dumps({"kind": "nvidia.com/gpu", "devices": [{"name": "all"}]}))
    found = _gpu_info.toolkit(SysRoot(str(tmp_path)), 7, run=run, find={"nvidia-ctk": program}.get)
    assert found == {"version": version, "cdi_spec": "/etc/cdi/nvidia.json", "cdi_devices": ["nvidia.com/gpu=all"], "cdi_driver_version": None}


@pytest.mark.parametrize("name, words", [("gone", "does not exist"), ("file", "is not a folder")])
def test_bad_sysroot(tmp_path, name, words):
    write(tmp_path, "file", "")
    with pytest.raises(_gpu_info.GpuError, match=words):
        detect(tmp_path / name, _nvml.answer_of())
