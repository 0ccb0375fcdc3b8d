# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module against real files: what it changes, what it leaves, and that check mode tells the same."""
from __future__ import annotations

import json
import os
import stat

import pytest
import yaml
from ansible.module_utils import basic

from ansible_collections.erni_ki.inference.plugins.modules import docker_daemon_config

BEFORE = '{\n    "zz-unknown": [1],\n    "log-opts": {\n        "max-size": "5m"\n    },\n    "debug": true\n}\n'

# A dockerd that refuses a file with the word "wrong" in it.
DOCKERD = """#!/bin/sh
[ "$1" = --version ] && echo "Docker version {version}, build 1" && exit
[ "$1" = --validate ] || exit 9
if grep -q wrong "$3"; then
  echo "unable to configure the Docker daemon with file $3: the following directives don't match any configuration option: wrong" >&2
  exit 1
fi
echo "configuration OK"
"""


@pytest.fixture(name="run")
def run_fixture(capsys, module_arguments, monkeypatch, tmp_path):
    """Run the module with arguments on tmp_path/etc/daemon.json; return its exit status and its result."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    # The machine that runs the tests may have an engine of its own.
    monkeypatch.setattr(basic.AnsibleModule, "get_bin_path", lambda self, name, *args, **kwargs: str(programs / name) if (programs / name).exists() else None)

    def run(check=False, **params):
        arguments = {"path": str(tmp_path / "etc" / "daemon.json"), **params, "_ansible_check_mode": check, "_ansible_diff": True}
        with module_arguments(arguments), pytest.raises(SystemExit) as ending:
            docker_daemon_config.main()
        return ending.value.code, json.loads(capsys.readouterr().out)
    return run


@pytest.fixture(name="file")
def file_fixture(tmp_path):
    path = tmp_path / "etc" / "daemon.json"
    path.parent.mkdir()
    path.write_text(BEFORE, encoding="utf-8")
    path.chmod(0o640)
    return path


@pytest.fixture(name="dockerd")
def dockerd_fixture(tmp_path, run):
    def install(version):
        path = tmp_path / "bin" / "dockerd"
        path.write_text(DOCKERD.format(version=version), encoding="utf-8")
        path.chmod(0o755)
    return install


def snapshot(folder):
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


CASES = {
    "merged": (
        {"settings": {"log-opts": {"max-file": "3"}, "live-restore": True}},
        '{\n    "zz-unknown": [\n        1\n    ],\n    "log-opts": {\n        "max-size": "5m",\n        "max-file": "3"\n    },\n'
        '    "debug": true,\n    "live-restore": true\n}\n',
        {"changed": True, "changed_keys": ["log-opts.max-file", "live-restore"], "restart_required": True, "reload_required": False},
    ),
    "reload": ({"settings": {"debug": False}}, BEFORE.replace("[1]", "[\n        1\n    ]").replace("true", "false"),
               {"changed": True, "changed_keys": ["debug"], "restart_required": False, "reload_required": True}),
    "as it is": ({"settings": {"log-opts": {"max-size": "5m"}}}, BEFORE,
                 {"changed": False, "changed_keys": [], "restart_required": False, "reload_required": False}),
    "taken out": ({"settings": {"log-opts": {"max-size": "5m"}, "debug": False, "never": 1}, "state": "absent"},
                  '{\n    "zz-unknown": [\n        1\n    ],\n    "debug": true\n}\n',
                  {"changed": True, "changed_keys": ["log-opts.max-size"], "restart_required": True, "reload_required": False}),
    "all taken out": ({"settings": {"log-opts": {"max-size": "5m"}, "debug": True, "zz-unknown": [1]}, "state": "absent"}, None,
                      {"changed": True, "changed_keys": ["zz-unknown", "log-opts.max-size", "debug"], "restart_required": True}),
    "emptied": ({"settings": {"log-opts": {"max-size": "5m"}, "debug": True, "zz-unknown": [1]}, "state": "absent", "remove_empty": False}, "{}\n",
                {"changed": True, "settings": {}}),
}


@pytest.mark.parametrize("arguments, text, expected", CASES.values(), ids=CASES)
def test_check_and_real_result_agree(run, file, arguments, text, expected):
    status, checked = run(check=True, **arguments)
    assert (status, file.read_text(encoding="utf-8")) == (0, BEFORE)
    status, result = run(**arguments)
    assert status == 0
    assert (file.read_text(encoding="utf-8") if file.exists() else None) == text
    checked.pop("invocation", None)
    result.pop("invocation", None)
    assert checked == result
    assert {key: result[key] for key in expected} == expected
    if text is not None:
        assert result["settings"] == json.loads(text)
        assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert result["diff"]["before"] == BEFORE
    assert result["diff"]["after"] == (text or "")
    # The second run finds everything done.
    status, again = run(**arguments)
    assert (status, again["changed"]) == (0, False)


def test_new_file(run, tmp_path):
    old = os.umask(0o077)
    try:
        status, checked = run(check=True, settings={"debug": True})
        assert (status, list((tmp_path).glob("etc/*"))) == (0, [])
        status, result = run(settings={"debug": True}, backup=True)
    finally:
        os.umask(old)
    path = tmp_path / "etc" / "daemon.json"
    assert status == 0
    assert path.read_text(encoding="utf-8") == '{\n  "debug": true\n}\n'
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert result["backup_file"] is None
    assert result["diff"]["before_header"].endswith("daemon.json (absent)")
    assert {key: checked[key] for key in checked if key != "invocation"} == {key: result[key] for key in result if key != "invocation"}
    assert result["note"] == "not validated: dockerd is not on this host yet"


def test_nothing_asked_of_no_file_makes_none(run, tmp_path):
    status, result = run(settings={"debug": True}, state="absent")
    assert (status, result["changed"], list(tmp_path.glob("etc/*"))) == (0, False, [])
    assert result["diff"]["before_header"] == result["diff"]["after_header"]


def test_an_empty_object_of_others_stays(run, file):
    file.write_text("{}", encoding="utf-8")
    assert run(settings={"debug": True}, state="absent")[1]["changed"] is False
    assert file.read_text(encoding="utf-8") == "{}"


def test_symbolic_link_is_followed(run, file, tmp_path):
    target = tmp_path / "real.json"
    file.rename(target)
    file.symlink_to(target)
    assert run(settings={"debug": False})[1]["changed"] is True
    assert file.is_symlink()
    assert json.loads(target.read_text(encoding="utf-8"))["debug"] is False


def test_backup(run, file):
    assert run(check=True, settings={"debug": False}, backup=True)[1]["backup_file"] is None
    name = run(settings={"debug": False}, backup=True)[1]["backup_file"]
    with open(name, encoding="utf-8") as handle:
        assert handle.read() == BEFORE
    assert run(settings={"debug": False}, backup=True)[1]["backup_file"] is None


@pytest.mark.parametrize("content, message", [
    (b'{\n  "debug": true,\n}', "line 3, column 1"),
    (b"[1]", "JSON array"),
    (b"\xff\xfe", "not UTF-8"),
])
@pytest.mark.parametrize("check", [True, False])
def test_a_broken_file_is_left_alone(run, file, content, message, check):
    file.write_bytes(content)
    before = snapshot(file.parent)
    status, result = run(check=check, settings={"debug": True})
    assert (status, result["failed"]) == (1, True)
    assert message in result["msg"] and str(file) in result["msg"]
    assert snapshot(file.parent) == before


def test_a_folder_in_its_place(run, file):
    file.unlink()
    file.mkdir()
    status, result = run(settings={"debug": True})
    assert status == 1
    assert "cannot be read: Is a directory" in result["msg"]


def test_a_folder_that_cannot_be_made(run, tmp_path):
    (tmp_path / "etc").write_text("", encoding="utf-8")
    status, result = run(settings={"debug": True}, path=str(tmp_path / "etc" / "docker" / "daemon.json"))
    assert status == 1
    assert "cannot be" in result["msg"] and "Not a directory" in result["msg"]


def test_writing_that_fails(run, file, monkeypatch):
    def refuse(path):
        raise OSError(30, "Read-only file system")
    monkeypatch.setattr(docker_daemon_config.os, "unlink", refuse)
    status, result = run(settings=json.loads(BEFORE), state="absent")
    assert status == 1
    assert result["msg"] == f"{file} cannot be written: Read-only file system."


@pytest.mark.parametrize("settings, word", [({"log-opts": {"max-file": 3}}, 'write "3"'), ({"debug": None}, "is null")])
def test_settings_that_dockerd_would_not_read(run, file, settings, word):
    status, result = run(settings=settings)
    assert status == 1
    assert word in result["msg"]
    assert file.read_text(encoding="utf-8") == BEFORE


@pytest.mark.parametrize("check", [True, False])
def test_validated(run, file, dockerd, check):
    dockerd("26.1.5+dfsg1")
    status, result = run(check=check, settings={"debug": False})
    assert (status, result["validated"], result["note"]) == (0, True, None)


@pytest.mark.parametrize("check", [True, False])
def test_refused_by_dockerd(run, file, dockerd, check):
    dockerd("26.1.5+dfsg1")
    before = snapshot(file.parent)
    status, result = run(check=check, settings={"wrong": 1})
    assert status == 1
    assert result["msg"].startswith(f"dockerd refuses the settings for {file}: unable to configure the Docker daemon with file {file}: the following")
    assert snapshot(file.parent) == before
    # Those who know better.
    assert run(check=check, settings={"wrong": 1}, validate=False)[0] == 0


def test_not_validated_when_nothing_changes(run, file, dockerd):
    dockerd("26.1.5+dfsg1")
    file.write_text('{"wrong": 1}', encoding="utf-8")
    status, result = run(settings={"wrong": 1})
    assert (status, result["changed"], result["validated"], result["note"]) == (0, False, False, None)


def test_an_old_dockerd_is_told(run, file, dockerd):
    dockerd("20.10.24+dfsg1")
    status, result = run(settings={"wrong": 1})
    assert (status, result["validated"]) == (0, False)
    assert result["note"] == "not validated: dockerd 20.10 cannot (since 23.0 it can)"


def test_return_is_documented(run, file):
    documented = yaml.safe_load(docker_daemon_config.RETURN)
    result = run(settings={"debug": False})[1]
    assert set(documented) == set(result) - {"changed", "diff", "invocation"}
    kinds = {"dict": dict, "list": list, "bool": bool, "str": (str, type(None))}
    for name, entry in documented.items():
        assert isinstance(result[name], kinds[entry["type"]]), name
