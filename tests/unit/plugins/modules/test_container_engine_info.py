# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module on a host with programs of ours in PATH, and on one with none."""
from __future__ import annotations

import json

import pytest
import yaml

from ansible_collections.erni_ki.inference.plugins.module_utils import _engine
from ansible_collections.erni_ki.inference.plugins.modules import container_engine_info

DOCKER = """#!/bin/sh
case "$1" in
info) echo '{"ServerVersion": "26.1.5", "CgroupDriver": "systemd", "CgroupVersion": "2", "LiveRestoreEnabled": false, "DockerRootDir": "/srv",
 "Runtimes": {"runc": {}}, "DefaultRuntime": "runc", "ClientInfo": {"Plugins": [{"Name": "compose", "Version": "v2.26.1"}]}}' ;;
ps) echo 1 ;;
inspect) echo '[{"Name": "/x", "State": {"Status": "running"}, "Config": {"Image": "i", "Labels": {"com.docker.compose.project": "p"}}}]' ;;
*) exit 1 ;;
esac
"""


@pytest.fixture(name="run")
def run_fixture(capsys, module_arguments, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(_engine.find_program, "__defaults__", (None, ()))

    def run(check=False, **params):
        arguments = {**params, "_ansible_check_mode": check}
        with module_arguments(arguments), pytest.raises(SystemExit) as ending:
            container_engine_info.main()
        return ending.value.code, json.loads(capsys.readouterr().out)
    return run


@pytest.fixture(name="docker")
def docker_fixture(tmp_path):
    path = tmp_path / "docker"
    path.write_text(DOCKER, encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("check", [False, True])
def test_new_host(run, check):
    status, result = run(check=check)
    assert (status, result["changed"]) == (0, False)
    assert result["container_engine"]["flavor"] == "none"


@pytest.mark.parametrize("check", [False, True])
def test_result_is_as_documented(run, docker, check):
    assert docker.exists()
    status, result = run(check=check)
    assert (status, result["changed"]) == (0, False)
    engine = result["container_engine"]
    assert (engine["flavor"], engine["version"], engine["compose"]) == ("unknown", "26.1.5", {"kind": "v2", "version": "2.26.1"})
    documented = yaml.safe_load(container_engine_info.RETURN)["container_engine"]["contains"]
    assert set(documented) == set(engine)
    assert set(documented["compose"]["contains"]) == set(engine["compose"])
    assert set(documented["containers"]["contains"]) == set(engine["containers"][0])
    kinds = {"str": str, "int": int, "bool": bool, "dict": dict, "list": list}
    for name, entry in documented.items():
        assert engine[name] is None and "null" in entry["description"] or isinstance(engine[name], kinds[entry["type"]]), name


def test_a_hung_engine_is_told(run, docker):
    docker.write_text("#!/bin/sh\nexec /bin/sleep 60\n", encoding="utf-8")
    status, result = run(timeout=0.2)
    assert status == 0
    assert result["container_engine"]["reachable"] is False
    assert "gave no answer within 0.2 s" in result["container_engine"]["error"]


def test_timeout_of_nothing(run):
    status, result = run(timeout=0)
    assert status == 1
    assert result["msg"] == "timeout is 0 s; it must be above 0, such as 30."
