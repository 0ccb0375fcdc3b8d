# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The real nvidia-ml-py against the stand-in for NVIDIA's library, which a C compiler builds first."""
from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from ansible_collections.erni_ki.inference.plugins.modules import gpu_info
from ansible_collections.erni_ki.inference.tests.unit.docs.returns import differences
from ansible_collections.erni_ki.inference.tests.unit.plugins.recorded_gpu import add_device, load_module, write

pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")

COMPILER = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler to build the stand-in with")

REPO = pathlib.Path(__file__).resolve().parents[4]
SOURCE = REPO / "tests" / "sandbox" / "gpu" / "nvml.c"
CARDS = {path.stem: path for path in sorted((SOURCE.parent / "cards").glob("*.conf"))}
# The folder that holds ansible_collections: the one that conftest.py makes, or the one that the checkout lies in.
ROOT = REPO.parents[2] if REPO.parts[-3:] == ("ansible_collections", "erni_ki", "inference") else REPO / ".cache" / "collections"
NAMES = {"quadro-p2200": "Pascal", "geforce-gtx-1050": "Pascal", "geforce-rtx-3060": "Ampere", "a100-mig": "Ampere"}
ID = "ab" * 32

DETECT = """
import json, sys
if "no-bindings" in sys.argv:
    sys.modules["pynvml"] = None
from ansible_collections.erni_ki.inference.plugins.module_utils import _gpu_info
print(json.dumps(_gpu_info.detect(sys.argv[1], float(sys.argv[2]))))
"""
# A program that has been running since before the card was lost.
WATCH = """
import pynvml, sys
pynvml.nvmlInit()
card = pynvml.nvmlDeviceGetHandleByIndex(0)
print(pynvml.nvmlDeviceGetName(card))
with open(sys.argv[1], "a") as data:
    data.write("fail=nvmlDevice 15\\n")
try:
    pynvml.nvmlDeviceGetName(card)
except pynvml.NVMLError as error:
    print(error)
pynvml.nvmlShutdown()
"""


@pytest.fixture(scope="session", name="build")
def build_fixture(tmp_path_factory):
    """Return a function that gives the folder of the library as a branch of the driver has it."""
    built = {}

    def build(branch=None):
        if branch not in built:
            folder = tmp_path_factory.mktemp("standin")
            variant = [f"-DBRANCH={branch}"] if branch else []
            subprocess.run([COMPILER, "-shared", "-fPIC", *variant, "-o", str(folder / "libnvidia-ml.so.1"), str(SOURCE)], check=True)
            built[branch] = folder
        return built[branch]
    return build


@pytest.fixture(name="python")
def python_fixture(build, tmp_path):
    """Run a program with that library and this data file; return what it prints."""
    def run(program, *arguments, branch=None):
        environment = dict(
            os.environ, LD_LIBRARY_PATH=str(build(branch)), STANDIN_NVML=str(tmp_path / "card.conf"), PATH=str(tmp_path),
            PYTHONPATH=os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
        )
        done = subprocess.run([sys.executable, "-c", program, *map(str, arguments)], env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout
    return run


@pytest.fixture(name="detect")
def detect_fixture(python, tmp_path):
    """Return what gpu_info would, on a host with a P2200 on its PCI bus and this data."""
    def detect(data, *arguments, timeout=30.0, branch=None):
        if data is not None:
            write(tmp_path, "card.conf", data)
        root = tmp_path / "host"
        if not root.exists():
            add_device(root, driver="nvidia")
            load_module(root)
        result = {"gpu": json.loads(python(DETECT, root, timeout, *arguments, branch=branch))}
        assert list(differences(gpu_info.RETURN, result)) == []
        return result["gpu"]
    return detect


def card(name="quadro-p2200", more=""):
    return CARDS[name].read_text(encoding="utf-8") + more


def test_it_says_what_it_is(build):
    assert b"standin_nvml" in (build() / "libnvidia-ml.so.1").read_bytes()


@pytest.mark.parametrize("name", sorted(CARDS))
def test_cards(detect, name):
    gpu = detect(card(name))
    said = dict(line.split("=") for line in card(name).splitlines() if "=" in line)

    def number(key, divisor=1):
        return int(said[key]) / divisor if key in said else None

    switch = {None: None, "1": "enabled"}
    assert (gpu["state"], gpu["code"], gpu["hint"]) == ("ok", None, "")
    assert (gpu["driver_version"], gpu["cuda_driver_version"], gpu["nvml_version"]) == ("580.95.05", "13.0", "13.580.95.05")
    assert gpu["gpus"] == [{
        "index": 0, "name": said["name"], "uuid": said["uuid"], "bus_id": said["bus_id"][4:].lower(),
        "memory": {
            "total_mib": number("total_mib"), "used_mib": 0, "free_mib": number("total_mib") - number("reserved_mib"), "reserved_mib": number("reserved_mib")},
        "compute_capability": said["compute_capability"], "architecture": NAMES[name], "mig_mode": switch[said.get("mig")], "ecc_mode": switch[said.get("ecc")],
        "power_limit_w": number("power_limit_mw", 1000), "temperature_c": number("temperature"), "processes": [], "error": None,
    }]


# The exporter's child is kept while the card gets hot and falls off the bus.
EXPORT = """
import json, sys
from ansible_collections.erni_ki.inference.plugins.module_utils._exporter_gpu import Child, judge
child = Child(20, [sys.executable, "-c", "import sys; from ansible_collections.erni_ki.inference.plugins.module_utils._exporter_gpu import main; main([])"])
device = {"uuid": "GPU-57a2d1e5-0000-4000-8000-000000002200", "bus_id": "0000:01:00.0"}
for more in ("", "temperature=88\\nutilization=100\\nused_mib=4400\\n", "fail=nvmlDevice 15\\n"):
    with open(sys.argv[1], "a") as data:
        data.write(more)
    print(json.dumps(judge(child.ask(), device, "/nowhere")))
child.end()
"""


def test_what_the_exporter_reads(python, tmp_path):
    (tmp_path / "card.conf").write_text(card(), encoding="utf-8")
    cold, hot, lost = (json.loads(line) for line in python(EXPORT, tmp_path / "card.conf").splitlines())
    assert cold == [[
        ["driver_mismatch", False], ["lost", False], ["memory_used_bytes", 0], ["memory_total_bytes", 5120 << 20], ["utilization_ratio", 0.03],
        ["temperature_celsius", 41], ["power_watts", 9.25]], None]
    told = dict(hot[0])
    assert (told["temperature_celsius"], told["utilization_ratio"], told["memory_used_bytes"]) == (88, 1.0, 4400 << 20)
    assert lost == [[["driver_mismatch", False], ["lost", True]], None]


def test_processes(detect, tmp_path):
    write(tmp_path, "host/proc/300/cgroup", f"0::/erniki.slice/erniki-ollama.slice/docker-{ID}.scope\n")
    add_device(tmp_path / "host")
    found = detect(card(more="used_mib=4409\nprocess=300 C 4400 /usr/lib/ollama/llama-server\nprocess=200 G 9 Xorg\nprocess=100 M - worker\nprocess=400 C 0\n"))
    assert found["gpus"][0]["memory"] == {"total_mib": 5120, "used_mib": 4409, "free_mib": 650, "reserved_mib": 61}
    assert found["gpus"][0]["processes"] == [
        {"pid": 100, "name": "worker", "memory_mib": None, "container": None, "type": "compute"},
        {"pid": 200, "name": "Xorg", "memory_mib": 9, "container": None, "type": "graphics"},
        {"pid": 300, "name": "/usr/lib/ollama/llama-server", "memory_mib": 4400, "container": ID, "type": "compute"},
        {"pid": 400, "name": None, "memory_mib": 0, "container": None, "type": "compute"},
    ]


@pytest.mark.parametrize("branch, processes", [(470, [300]), (390, [])])
def test_older_drivers_lack_functions(detect, branch, processes):
    found = detect(card(more="process=300 C 4400\nmig=0\n"), branch=branch)
    gpu = found["gpus"][0]
    assert found["state"] == "ok"
    assert gpu["memory"] == {"total_mib": 5120, "used_mib": 61, "free_mib": 5059, "reserved_mib": None}
    assert (gpu["architecture"], gpu["mig_mode"], gpu["error"]) == ("Pascal", "disabled" if branch >= 450 else None, None)
    assert [process["pid"] for process in gpu["processes"]] == processes


def test_a_card_without_memory_of_its_own(detect):
    """Such as those that share the host's."""
    data = "\n".join(line for line in card().splitlines() if "total_mib" not in line)
    found = detect(data)
    assert found["gpus"][0]["memory"] == {"total_mib": None, "used_mib": None, "free_mib": None, "reserved_mib": None}
    assert (found["state"], found["gpus"][0]["error"]) == ("ok", None)


@pytest.mark.parametrize("more, state, code, words", [
    ("fail=nvmlInit 18", "version_mismatch", 18, "the library is 580.95.05"),
    ("fail=nvmlInit 9", "not_loaded", 9, "/dev/nvidiactl"),
    ("fail=nvmlInit 4", "permission", 4, "become"),
    ("fail=nvmlInit 15", "gpu_lost", 15, "fallen off the bus"),
    ("fail=nvmlInit 999", "unknown", 999, "daemon-reload"),
    ("fail=nvmlInit 17", "unknown", 17, "device files"),
    ("fail=nvmlInit 222", "unknown", 222, "the stand-in says 222"),
    ("fail=nvmlDeviceGetCount 15", "gpu_lost", 15, "fallen off the bus"),
    ("fail=nvmlDeviceGetHandle 15", "gpu_lost", 15, "nvmlDeviceGetHandleByIndex: GPU is lost (NVML code 15)"),
    ("fail=nvmlDeviceGetMemoryInfo 15", "gpu_lost", 15, "nvmlDeviceGetMemoryInfo: GPU is lost (NVML code 15)"),
    ("fail=nvmlSystem 999", "ok", None, ""),
    ("crash=nvmlInit", "unknown", None, "NVML crashed (Segmentation fault)"),
    ("crash=nvmlDeviceGetCompute", "unknown", None, "NVML crashed (Segmentation fault)"),
    ("hang=nvmlInit", "unknown", None, "NVML gave no answer within 1 s"),
    ("hang=nvmlDeviceGetTemperature", "unknown", None, "NVML gave no answer within 1 s"),
])
def test_what_goes_wrong(detect, more, state, code, words):
    found = detect(f"{more}\n{card()}", timeout=1.0 if "hang" in more else 30.0)
    assert (found["state"], found["code"]) == (state, code)
    assert words in found["hint"]
    assert [card["device_id"] for card in found["cards"]] == ["0x1c31"]


def test_no_file_is_a_driver_that_is_not_loaded(detect):
    found = detect(None)
    assert (found["state"], found["code"]) == ("not_loaded", 9)


def test_a_driver_without_a_gpu(detect):
    found = detect("driver_version=595.71.05\n")
    assert (found["state"], found["driver_version"], found["gpus"]) == ("unknown", "595.71.05", [])
    assert "finds no GPU" in found["hint"]


def test_one_of_two_is_lost(detect):
    section = card("geforce-rtx-3060").partition("[gpu]")[2]
    found = detect(f"{card()}[gpu]{section}fail=nvmlDevice 15\n")
    assert (found["state"], [gpu["name"] for gpu in found["gpus"]]) == ("ok", ["Quadro P2200", None])
    assert [gpu["error"] for gpu in found["gpus"]] == [None, "nvmlDeviceGetHandleByIndex: GPU is lost (NVML code 15)"]


@pytest.mark.parametrize("more, state, code", [
    ("", "no_bindings", None), ("fail=nvmlInit 18", "version_mismatch", 18), ("fail=nvmlInit 9", "not_loaded", 9), ("crash=nvmlInit", "unknown", None),
    ("fail=nvmlDeviceGetCount 15", "gpu_lost", 15),
])
def test_without_the_bindings(detect, more, state, code):
    found = detect(f"{more}\n{card()}", "no-bindings")
    assert (found["state"], found["code"], found["gpus"]) == (state, code, [])
    assert state != "no_bindings" or "python3-pynvml" in found["hint"]


def test_a_program_that_runs_sees_the_card_fail(python, tmp_path):
    data = write(tmp_path, "card.conf", card())
    assert python(WATCH, data).splitlines() == ["Quadro P2200", "GPU is lost"]
