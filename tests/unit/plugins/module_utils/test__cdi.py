# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the CDI specifications of a host offer, in the styles they are written in."""
from __future__ import annotations

import json

import pytest
import yaml

from ansible_collections.erni_ki.inference.plugins.module_utils import _cdi
from ansible_collections.erni_ki.inference.plugins.module_utils._topology import SysRoot
from ansible_collections.erni_ki.inference.tests.unit.plugins.recorded_gpu import write

UUID = "GPU-57a2d1e5-0000-4000-8000-000000002200"
# As the container toolkit writes it: sorted keys, lists without an indentation of their own.
NVIDIA_CTK = f"""---
cdiVersion: 0.5.0
containerEdits:
  deviceNodes:
  - path: /dev/nvidiactl
  env:
  - NVIDIA_VISIBLE_DEVICES=void
  hooks:
  - args:
    - nvidia-cdi-hook
    - enable-cuda-compat
    - --host-driver-version=580.95.05
    hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
  mounts:
  - containerPath: /usr/lib/x86_64-linux-gnu/libcuda.so.580.95.05
    hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.580.95.05
    options:
    - ro
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
    hooks:
    - args:
      - nvidia-cdi-hook
      name: not-a-device
  name: "0"
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
  name: {UUID}
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
  name: all
kind: nvidia.com/gpu
"""
BY_HAND = """# Written by hand
cdiVersion: "0.6.0"
kind: 'nvidia.com/gpu'    # quoted

devices:
  - name: '0'
    containerEdits:
      deviceNodes:
        - path: /dev/nvidia0
          name: x
  -   name: all   # with a comment
      containerEdits: {}
annotations:
  name: no
"""
SHORT = {"cdiVersion": "0.6.0", "kind": "nvidia.com/gpu", "devices": [{"name": "0"}, {"name": "all"}]}
NONE = {"cdi_spec": None, "cdi_devices": [], "cdi_driver_version": None}


@pytest.mark.parametrize("loader", [yaml, None])
@pytest.mark.parametrize("text, names", [(NVIDIA_CTK, ["0", UUID, "all"]), (BY_HAND, ["0", "all"])])
def test_yaml(text, names, loader):
    assert _cdi.parse(text, False, loader) == ("nvidia.com/gpu", names)


@pytest.mark.parametrize("loader", [yaml, None])
def test_yaml_of_another_kind(loader):
    assert _cdi.parse("kind: vendor.example/net\ndevices:\n- name: eth0\n", False, loader) == ("vendor.example/net", ["eth0"])
    assert _cdi.parse("kind: nvidia.com/gpu\n", False, loader) == ("nvidia.com/gpu", [])


def test_json():
    assert _cdi.parse(json.dumps(SHORT), True, None) == ("nvidia.com/gpu", ["0", "all"])


@pytest.mark.parametrize("text", ["", "{", "[]", '"text"', '{"devices": 3}'])
def test_no_json_specification(text):
    with pytest.raises(ValueError):
        _cdi.parse(text, True)


@pytest.mark.parametrize("text", ["", "a: [", "- 1", "devices: text"])
def test_no_yaml_specification(text):
    with pytest.raises(ValueError):
        _cdi.parse(text, False)


@pytest.mark.parametrize("text", ["", "a: [", "- 1", "devices: text", "-", "devices:\n-\n  name: x\n", "\t- x:\n name: y"])
def test_the_scanner_takes_anything(text):
    kind, names = _cdi.scan_yaml(text)
    assert kind is None and isinstance(names, list)


def test_devices_that_are_none():
    assert _cdi.parse(json.dumps(dict(SHORT, devices=["x", {}, {"name": 3}])), True) == ("nvidia.com/gpu", ["3"])


@pytest.mark.parametrize("text, version", [
    ("--host-driver-version=575.57.08", "575.57.08"),
    ('["--host-driver-version", "580.95.05"] ', None),
    ("hostPath: /usr/lib64/libcuda.so.470.57.02\n", "470.57.02"),
    ('"hostPath": "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.570.144"', "570.144"),
    ("hostPath: /usr/lib/libcuda.so.1", None),
    ("", None),
])
def test_driver_version(text, version):
    assert _cdi.driver_version(text) == version


@pytest.mark.parametrize("folder", ["/var/run/cdi", "/etc/cdi"])
def test_a_host_with_one(tmp_path, folder):
    write(tmp_path, f"{folder[1:]}/nvidia.yaml", NVIDIA_CTK)
    assert _cdi.gpus(SysRoot(str(tmp_path))) == {
        "cdi_spec": f"{folder}/nvidia.yaml",
        "cdi_devices": ["nvidia.com/gpu=0", f"nvidia.com/gpu={UUID}", "nvidia.com/gpu=all"],
        "cdi_driver_version": "580.95.05",
    }


def test_the_link_of_a_dump_does_not_lead_out_of_it(tmp_path):
    (tmp_path / "var").mkdir()
    (tmp_path / "var/run").symlink_to("/run")
    write(tmp_path, "run/cdi/nvidia.yaml", NVIDIA_CTK)
    assert _cdi.gpus(SysRoot(str(tmp_path)))["cdi_spec"] == "/var/run/cdi/nvidia.yaml"


def test_the_one_of_the_run_weighs_more(tmp_path):
    write(tmp_path, "etc/cdi/a.yaml", NVIDIA_CTK)
    write(tmp_path, "var/run/cdi/z.json", json.dumps(SHORT))
    assert _cdi.gpus(SysRoot(str(tmp_path))) == {
        "cdi_spec": "/var/run/cdi/z.json",
        "cdi_devices": ["nvidia.com/gpu=0", "nvidia.com/gpu=all", f"nvidia.com/gpu={UUID}"],
        "cdi_driver_version": None,
    }


@pytest.mark.parametrize("name, text", [
    ("nvidia.yaml", "a: ["),
    ("nvidia.yaml", NVIDIA_CTK.replace("nvidia.com/gpu", "nvidia.com/gds")),
    ("nvidia.yml", NVIDIA_CTK),
    ("nvidia.yaml.bak", NVIDIA_CTK),
    ("nvidia.json", NVIDIA_CTK),
])
def test_what_docker_does_not_read(tmp_path, name, text):
    write(tmp_path, f"etc/cdi/{name}", text)
    assert _cdi.gpus(SysRoot(str(tmp_path))) == NONE


def test_none(tmp_path):
    assert _cdi.gpus(SysRoot(str(tmp_path))) == NONE
