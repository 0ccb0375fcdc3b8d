# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import types

import pytest
from ansible.plugins.action import ActionBase

from ansible_collections.erni_ki.inference.plugins.action import colocation_info, gpu_info
from ansible_collections.erni_ki.inference.plugins.plugin_utils import _bindings


class Probe(_bindings.LendingAction):
    """An action whose host is a folder."""

    def __init__(self, folder, environment):
        self.folder, self.did = folder, []
        self._connection = types.SimpleNamespace(_shell=types.SimpleNamespace(tmpdir=None, join_path=os.path.join))
        self._task = types.SimpleNamespace(environment=environment)

    def _make_tmp_path(self, remote_user=None):
        self.did.append("folder")
        self._connection._shell.tmpdir = str(self.folder)

    def _transfer_data(self, remote_path, data):
        self.did.append("archive")
        with open(remote_path, "wb") as stream:
            stream.write(data)

    def _fixup_perms2(self, remote_paths, remote_user=None, execute=True):
        self.did.append("permissions")

    def _execute_module(self, *args, **kwargs):
        self.did.append("module")
        return {"changed": False, "gpu": {}}


@pytest.fixture(name="probe")
def fixture_probe(tmp_path, monkeypatch):
    monkeypatch.setattr(ActionBase, "run", lambda self, tmp=None, task_vars=None: {"warnings": []})
    return lambda environment=None: Probe(tmp_path, environment)


def test_the_bindings_are_there_and_can_be_imported(probe, tmp_path):
    action = probe([{"LANG": "C"}])
    assert action.run() == {"warnings": [], "changed": False, "gpu": {}}
    assert action.did == ["folder", "archive", "permissions", "module"]
    assert action._task.environment == [{"LANG": "C"}, {"PYTHONPATH": str(tmp_path / "bindings.zip")}]
    done = subprocess.run(
        [sys.executable, "-S", "-c", "import pynvml; print(pynvml.__file__, pynvml.nvmlInit.__name__)"], env={"PYTHONPATH": str(tmp_path / "bindings.zip")},
        capture_output=True, text=True, check=True)
    assert done.stdout.split() == [f"{tmp_path}/bindings.zip/pynvml.py", "nvmlInit"]


def test_a_folder_that_is_there_is_used(probe, tmp_path):
    action = probe()
    action._connection._shell.tmpdir = str(tmp_path)
    action.run()
    assert "folder" not in action.did and action._task.environment == [{"PYTHONPATH": f"{tmp_path}/bindings.zip"}]


@pytest.mark.parametrize("spec", [None, types.SimpleNamespace(origin=None), types.SimpleNamespace(origin="/x/pynvml/__init__.py")])
def test_a_controller_without_them_runs_the_module_alone(probe, monkeypatch, spec):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    action = probe()
    action.run()
    assert action.did == ["module"] and action._task.environment is None


def test_a_broken_installation_counts_as_none(monkeypatch):
    def fail(name):
        raise ValueError("pynvml.__spec__ is None")
    monkeypatch.setattr(importlib.util, "find_spec", fail)
    assert _bindings.bindings() is None


@pytest.mark.parametrize("plugin", [gpu_info, colocation_info])
def test_the_modules_that_ask_nvml_get_them(plugin):
    assert issubclass(plugin.ActionModule, _bindings.LendingAction) and plugin.ActionModule._supports_check_mode
