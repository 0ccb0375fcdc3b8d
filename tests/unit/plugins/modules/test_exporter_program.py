# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that the module puts on a host: whole, runnable, and nothing else beside it."""
from __future__ import annotations

import json
import os
import stat

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils import _exporter_program
from ansible_collections.erni_ki.inference.plugins.modules import exporter_program


@pytest.fixture(name="run")
def run_fixture(capsys, module_arguments, tmp_path):
    """Run the module on tmp_path/program; return its exit status and its result."""
    def run(check=False, **params):
        arguments = {"path": str(tmp_path / "program"), **params, "_ansible_check_mode": check, "_ansible_diff": True, "_ansible_remote_tmp": str(tmp_path)}
        with module_arguments(arguments), pytest.raises(SystemExit) as ending:
            exporter_program.main()
        return ending.value.code, json.loads(capsys.readouterr().out)
    return run


def test_written_once_and_the_same_in_check_mode(run, tmp_path):
    checked = run(check=True)
    assert checked[0] == 0 and checked[1]["changed"] and not (tmp_path / "program").exists()
    written = run()
    assert written[0] == 0 and all(written[1][key] == checked[1][key] for key in ("changed", "path", "launcher", "written", "removed", "diff"))
    again = run()[1]
    assert not again["changed"] and again["written"] == again["removed"] == []
    place = tmp_path / "program" / "erni_ki_exporter.py"
    assert stat.S_IMODE(place.stat().st_mode) == 0o644 and again["launcher"] == str(place)
    assert all(stat.S_IMODE(os.stat(folder).st_mode) == 0o755 for folder, _folders, _files in os.walk(tmp_path / "program"))
    assert all(path.read_text(encoding="utf-8").startswith("# Made by erni_ki.inference") for path in (tmp_path / "program").rglob("*.py"))


def test_what_was_changed_or_is_of_another_version(run, tmp_path):
    run()
    (tmp_path / "program" / "erni_ki_exporter.py").write_text("pass\n", encoding="utf-8")
    (tmp_path / "program" / "ansible_collections" / "old.py").write_bytes(b"\xff")
    found = run()[1]
    assert (found["written"], found["removed"]) == (["erni_ki_exporter.py"], ["ansible_collections/old.py"])
    assert not run()[1]["changed"]


def test_with_the_bindings_of_nvml(run, tmp_path, monkeypatch):
    written = run(gpu=True)[1]["written"]
    assert "pynvml.py" in written
    assert not run(gpu=True)[1]["changed"]
    # A controller without them leaves those of an earlier one.
    monkeypatch.setattr(_exporter_program, "bindings", lambda: None)
    assert not run(gpu=True)[1]["changed"]
    assert run()[1]["removed"] == ["pynvml.py"]
    assert not (tmp_path / "program" / "pynvml.py").exists()


def test_removed(run, tmp_path):
    run()
    checked = run(check=True, state="absent")
    assert checked[1]["changed"] and (tmp_path / "program").exists()
    assert run(state="absent")[1]["changed"] and not (tmp_path / "program").exists()
    assert not run(state="absent")[1]["changed"]


def test_what_cannot_be_written(run, tmp_path):
    (tmp_path / "program").write_text("a file\n", encoding="utf-8")
    code, found = run()
    assert code == 1 and "run the playbook again" in found["msg"]


def test_a_text_that_is_not_to_be_had(run, monkeypatch):
    def refuse(name):
        raise _exporter_program.ProgramError(f"the text of {name} is not to be had")

    monkeypatch.setattr(_exporter_program, "source", refuse)
    code, found = run()
    assert code == 1 and "is not to be had" in found["msg"]


def test_imports_are_found_wherever_they_stand():
    package = _exporter_program.PACKAGE
    text = f"from {package} import _a, _b\nimport os\ndef f():\n    from {package}._c import x\n    from {package}x import y\n"
    assert _exporter_program.imported(text) == {f"{package}.{name}" for name in ("_a", "_b", "_c")}
