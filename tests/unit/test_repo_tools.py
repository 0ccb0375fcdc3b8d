# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tools around the collection: what they decide, without running what they start."""
from __future__ import annotations

import importlib
import json
import pathlib
import random
import re
import subprocess
import sys
import tarfile
import threading
from xml.etree import ElementTree

import pytest
import yaml

TOOLS = pathlib.Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture(name="tool", scope="module")
def tool_fixture():
    """Import a tool by name, for as long as this file's tests run."""
    before = set(sys.modules)
    sys.path.insert(0, str(TOOLS))
    yield importlib.import_module
    sys.path.remove(str(TOOLS))
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(TOOLS)):
            del sys.modules[name]


def junit(path, **cases):
    suite = ElementTree.Element("testsuite")
    for name, kind in cases.items():
        case = ElementTree.SubElement(suite, "testcase", name=name)
        if kind:
            ElementTree.SubElement(case, kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    ElementTree.ElementTree(suite).write(path)


class TestBootstrap:
    @pytest.fixture(name="bootstrap")
    def bootstrap_fixture(self, tool, tmp_path, monkeypatch):
        module = tool("bootstrap")
        monkeypatch.setattr(module, "VENV", tmp_path / "venv")
        monkeypatch.setattr(module, "STAMP", tmp_path / "venv" / "stamp.json")
        monkeypatch.setattr(module, "LOCKS", {"site": tmp_path / "site.lock", "test": tmp_path / "test.lock"})
        (tmp_path / "site.lock").write_text("a==1\n")
        (tmp_path / "test.lock").write_text("a==1\nb==1\n")
        module.done = []
        monkeypatch.setattr(module, "make_venv", lambda folder, *rest: (folder.mkdir(exist_ok=True), module.done.append("made")))
        monkeypatch.setattr(module, "install", lambda folder, lock: module.done.append(lock.stem))
        return module

    def after(self, bootstrap, level):
        bootstrap.done.clear()
        bootstrap.bring(level)
        return list(bootstrap.done)

    def test_only_what_changed_is_installed(self, bootstrap, tmp_path):
        assert self.after(bootstrap, "site") == ["made", "site"]
        assert self.after(bootstrap, "site") == []
        assert self.after(bootstrap, "test") == ["test"]
        assert self.after(bootstrap, "site") == [] and self.after(bootstrap, "test") == []
        (tmp_path / "test.lock").write_text("a==1\nb==2\n")
        assert self.after(bootstrap, "site") == []
        assert self.after(bootstrap, "test") == ["made", "site", "test"]
        (tmp_path / "site.lock").write_text("a==2\n")
        assert self.after(bootstrap, "site") == ["made", "site"]

    def test_an_interrupted_installation_begins_anew(self, bootstrap, monkeypatch):
        def interrupted(*unused):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(bootstrap, "install", interrupted)
            with pytest.raises(KeyboardInterrupt):
                bootstrap.bring("site")
        assert self.after(bootstrap, "site") == ["made", "site"]

    def test_without_the_venv_module_it_says_what_to_install(self, bootstrap, monkeypatch):
        monkeypatch.setattr(bootstrap.importlib.util, "find_spec", lambda name: None)
        monkeypatch.setattr(bootstrap.os, "geteuid", lambda: 1000)
        with pytest.raises(SystemExit, match="apt-get install python3-venv"):
            bootstrap.bring("site")
        assert bootstrap.done == []

    def test_as_root_it_installs_it(self, bootstrap, monkeypatch):
        called = []
        monkeypatch.setattr(bootstrap.importlib.util, "find_spec", lambda name: None)
        monkeypatch.setattr(bootstrap.os, "geteuid", lambda: 0)
        monkeypatch.setattr(bootstrap.shutil, "which", lambda name: "/usr/bin/" + name)
        monkeypatch.setattr(bootstrap.subprocess, "run", lambda command, **more: called.append(command) or subprocess.CompletedProcess(command, 0))
        assert self.after(bootstrap, "site") == ["made", "site"]
        assert [command[-1] for command in called] == ["update", "python{}.{}-venv".format(*sys.version_info)]

    def test_an_old_python_is_refused(self, bootstrap, monkeypatch):
        monkeypatch.setattr(bootstrap, "OLDEST", (9, 0))
        monkeypatch.setattr(bootstrap.sys, "argv", ["bootstrap.py"])
        with pytest.raises(SystemExit, match="the controller needs 9.0 or later"):
            bootstrap.main()


class TestDocs:
    ENTRIES = {
        "absent": {"short_description": "Remove", "options": {"a_x": {"type": "str", "default": "", "description": "X."}}},
        "main": {"short_description": "Make", "options": {"a_y": {
            "type": "list", "elements": "str", "default": ["p|q"], "choices": ["p|q", "r"],
            "description": ["See O(a_x) and V(0-6).", "Or L(there,https://example.org)."],
            "options": {"z": {"type": "bool", "required": True, "description": "Z."}}}}},
    }

    def test_table(self, tool):
        assert tool("docs").table(self.ENTRIES) == "\n".join([
            "| Variable | Type | Default | Meaning |", "|---|---|---|---|",
            "| `a_y` | list of str | `[p\\|q]` | See `a_x` and `0-6`. Or [there](https://example.org). Each one of `p\\|q`, `r`. |",
            "| `a_y.z` | bool | **required** | Z. |",
            "", "With `tasks_from: absent`:", "",
            "| Variable | Type | Default | Meaning |", "|---|---|---|---|", '| `a_x` | str | `""` | X. |', ""])

    def test_options_that_entry_points_share_stand_once(self, tool):
        shared = {"main": self.ENTRIES["main"], "other": dict(self.ENTRIES["main"])}
        assert tool("docs").table(shared) == tool("docs").table({"main": self.ENTRIES["main"]})

    def test_places(self, tool):
        docs = tool("docs")
        roles = {"a": self.ENTRIES, "b": self.ENTRIES, "c": {"main": {"short_description": "Part (internal)"}}}
        text = "# T\n<!-- variables: b -->\nold\n<!-- end of variables -->\nmiddle\n<!-- variables: * -->\n<!-- end of variables -->\nend\n"
        assert not list(docs.misplaced(text, roles))
        filled = docs.fill_in(text, roles)
        assert "old" not in filled and filled.count("### ") == 1 and "### a: Make" in filled and filled.endswith("-->\nend\n")
        assert docs.fill_in(filled, roles) == filled
        assert list(docs.misplaced(text.replace("*", "d"), roles)) == [
            "README.md has a place for the variables of d, and there is no such role",
            "README.md has no place for the variables of a: add <!-- variables: a --> and <!-- end of variables -->"]
        assert docs.fill_in("# T\n", {}) == "# T\n" and not list(docs.misplaced("", {}))

    def test_stale_and_written(self, tool, tmp_path, monkeypatch):
        docs = tool("docs")
        monkeypatch.setattr(docs, "REPO", tmp_path)
        monkeypatch.setattr(docs, "README", tmp_path / "README.md")
        (tmp_path / "roles" / "a" / "meta").mkdir(parents=True)
        (tmp_path / "roles" / "a" / "meta" / "argument_specs.yml").write_text(json.dumps({"argument_specs": self.ENTRIES}))
        (tmp_path / "README.md").write_text("<!-- variables: a -->\n<!-- end of variables -->\n")
        assert [line for line in docs.stale() if line.endswith("`make docs` writes it")] == [
            "roles/a/README.md does not say what the argument specs say; `make docs` writes it",
            "README.md does not say what the argument specs say; `make docs` writes it"]
        docs.write()
        assert docs.stale() == []


class TestGpuTables:
    def test_made_from_the_data(self, tool):
        tables = tool("gpu_tables")
        made = tables.tables(tables.load(), (0, 32, 15))
        lines = made["architectures"].splitlines()
        assert lines[0].startswith("| Architecture |") and set(lines[1]) == {"|", "-"}
        pascal = next(line for line in lines if line.startswith("| Pascal |"))
        assert pascal.startswith("| Pascal | 6.0-6.2 | 570-580 | proprietary only | `cuda_v12` from 570 on | ") and "<https://" in pascal
        # What differs within an architecture has lines of its own.
        assert [line.split(" | ")[1:3] for line in lines if line.startswith("| Blackwell |")] == [
            ["10.0", "580 and later"], ["12.0", "570 and later"], ["12.1", "580 and later"]]
        assert "| Kepler | 3.0-3.7 | none | proprietary only | none |" in made["architectures"]
        older = tables.tables(tables.load(), (0, 24, 0))["architectures"]
        assert "| Pascal | 6.0-6.2 | 531-580 |" in older
        # No cell breaks its table.
        assert all(line.count(" | ") == table.splitlines()[0].count(" | ") for table in made.values() for line in table.splitlines()[2:])

    @pytest.mark.parametrize("source, linked", [
        ("see https://example.org/a_b.", "see <https://example.org/a_b>."), ("a (https://example.org/x): b", "a (<https://example.org/x>): b"),
        ("https://example.org/1.2.3; y", "<https://example.org/1.2.3>; y"), ("docs/gpu.md", "docs/gpu.md")])
    def test_addresses_are_links(self, tool, source, linked):
        assert tool("gpu_tables").linked(source) == linked

    def test_places(self, tool):
        tables = tool("gpu_tables")
        text = "# T\n<!-- table: a -->\nold\n<!-- end of table -->\n<!-- table: c -->\n<!-- end of table -->\n"
        filled = tables.fill_in(text, {"a": "new\n", "b": "b\n"})
        assert "old" not in filled and "\nnew\n" in filled and tables.fill_in(filled, {"a": "new\n"}) == filled
        assert list(tables.misplaced(text, {"a": "", "b": ""})) == [
            "docs/gpu.md has a place for the table c, and there is no such table",
            "docs/gpu.md has no place for the table b: add <!-- table: b --> and <!-- end of table -->"]

    def test_a_stale_table_is_noticed(self, tool, tmp_path, monkeypatch):
        docs = tool("docs")
        monkeypatch.setattr(docs, "REPO", tmp_path)
        monkeypatch.setattr(docs, "README", tmp_path / "README.md")
        option = {"description": "V.", "type": "str", "default": "0.32.15"}
        specs = {"argument_specs": {"main": {"short_description": "Plan", "options": {"plan_ollama_engine_version": option}}}}
        for name, text in (("roles/plan/meta/argument_specs.yml", json.dumps(specs)), ("README.md", "<!-- variables: * -->\n<!-- end of variables -->\n")):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        (tmp_path / "docs").mkdir()
        whole = (TOOLS.parent / "docs" / "gpu.md").read_text(encoding="utf-8")
        (tmp_path / "docs" / "gpu.md").write_text(whole.replace("570-580", "560-580"), encoding="utf-8")
        docs.write()
        assert docs.stale() == [] and (tmp_path / "docs" / "gpu.md").read_text(encoding="utf-8") == whole
        (tmp_path / "docs" / "gpu.md").write_text(whole.replace("570-580", "560-580"), encoding="utf-8")
        assert docs.stale()[0] == "docs/gpu.md does not say what the compatibility tables say; `make docs` writes it"
        (tmp_path / "docs" / "gpu.md").write_text(whole.replace("table: docker", "table: moby"), encoding="utf-8")
        assert any("no place for the table docker" in line for line in docs.stale())

    def test_every_refusal_is_in_the_document(self):
        rules = set(re.findall(r'(?:Problem|refuse)\(\s*"([a-z-]+)"', (TOOLS.parent / "plugins" / "module_utils" / "_plan_gpu.py").read_text(encoding="utf-8")))
        text = (TOOLS.parent / "docs" / "gpu.md").read_text(encoding="utf-8")
        assert len(rules) > 15 and [rule for rule in sorted(rules) if f"`{rule}`" not in text] == []


class TestRunTests:
    @pytest.fixture(name="run_tests")
    def run_tests_fixture(self, tool, tmp_path, monkeypatch):
        module = tool("run_tests")
        monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
        monkeypatch.setattr(module, "LOGS", tmp_path / "logs")
        monkeypatch.setattr(module, "record", lambda *args, **figures: None)
        return module

    def outcome(self, run_tests, monkeypatch, capsys, **steps):
        """Run steps, each given as (exit code, its cases); return the exit code and the last line."""
        def run(step, width):
            code, cases = steps[step]
            if cases is not None:
                junit(run_tests.RESULTS / f"{step}-x.xml", **cases)
            return code

        monkeypatch.setattr(run_tests, "run", run)
        monkeypatch.setattr(run_tests.sys, "argv", ["run_tests.py", *steps])
        with pytest.raises(SystemExit) as end:
            run_tests.main()
        self.text = capsys.readouterr().out
        return end.value.code, self.text.splitlines()[-1]

    @pytest.mark.parametrize("steps, code, line", [
        ({"a": (0, {"x": None, "y": None}), "b": (0, {"x": None})}, 0, "3 passed, 0 failed"),
        ({"a": (0, {"x": None, "y": "skipped"})}, 0, "1 passed, 0 failed, 1 skipped"),
        ({"a": (2, {"x": None, "y": "failure", "z": "error"}), "b": (0, {"x": None})}, 1, "2 passed, 2 failed"),
        ({"a": (2, {"x": None})}, 1, "1 passed, 1 failed"),
        ({"a": (1, None), "b": (0, {"x": None})}, 1, "1 passed, 1 failed"),
        ({"a": (0, None)}, 1, "0 passed, 1 failed"),
        ({"a": (0, {"x": "skipped"})}, 1, "0 passed, 1 failed, 1 skipped"),
    ], ids=["good", "skipped", "failed", "broken after its tests", "broken before its tests", "no test ran", "all skipped"])
    def test_sum(self, run_tests, monkeypatch, capsys, steps, code, line):
        assert self.outcome(run_tests, monkeypatch, capsys, **steps) == (code, line)

    def test_the_end_names_what_failed(self, run_tests, monkeypatch, capsys):
        self.outcome(run_tests, monkeypatch, capsys, a=(2, {"x": None, "y": "failure"}), b=(1, None))
        end = self.text[self.text.index("all steps"):]
        assert "  a: ::y:" in end and "::x" not in end and "  b: broke down outside its tests, exit code 1" in end

    def test_the_machine_runs_beside_the_others(self, run_tests, monkeypatch, capsys):
        begun, order = threading.Event(), []

        def run(step, width):
            assert width == len("molecule")
            if step == "molecule":
                begun.set()
            assert begun.wait(60)
            order.append(step)
            junit(run_tests.RESULTS / f"{step}.xml", **{step: None})
            return 0

        monkeypatch.setattr(run_tests, "run", run)
        monkeypatch.setattr(run_tests.sys, "argv", ["run_tests.py", "a", "b", "molecule"])
        with pytest.raises(SystemExit) as end:
            run_tests.main()
        assert end.value.code == 0 and [step for step in order if step != "molecule"] == ["a", "b"]
        sums = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
        assert sums == ["a", "b", "molecule"]

    def test_every_line_tells_its_step(self, run_tests, monkeypatch, capsys, tmp_path):
        (tmp_path / "Makefile").write_text("step:\n\t@echo one; echo two\n", encoding="utf-8")
        run_tests.LOGS.mkdir()
        monkeypatch.setattr(run_tests, "REPO", tmp_path)
        assert run_tests.run("step", 8) == 0 and capsys.readouterr().out == "step     | one\nstep     | two\n"
        assert run_tests.run("step", 0) == 0 and capsys.readouterr().out == "one\ntwo\n"
        assert (run_tests.LOGS / "step.log").read_text(encoding="utf-8") == "one\ntwo\n"

    def test_results_of_an_earlier_run_do_not_count(self, run_tests, monkeypatch, capsys):
        junit(run_tests.RESULTS / "a.xml", old=None)
        assert self.outcome(run_tests, monkeypatch, capsys, a=(0, None))[0] == 1


class TestChecks:
    @pytest.fixture(name="checks")
    def checks_fixture(self, tool, tmp_path, monkeypatch):
        module = tool("common")
        monkeypatch.setattr(module, "RESULTS", tmp_path)
        monkeypatch.setattr(module, "CACHE", tmp_path)
        return module.Checks("step")

    def end(self, checks):
        with pytest.raises(SystemExit) as end:
            checks.finish()
        return end.value.code

    def test_good(self, checks, tmp_path):
        assert checks.run("true", ["true"]) and checks.call("none", lambda: [])
        checks.skip("other")
        assert self.end(checks) == 0
        assert len(ElementTree.parse(tmp_path / "step.xml").findall("testcase")) == 3

    def test_failed(self, checks, tmp_path):
        assert not checks.run("false", ["false"]) and not checks.call("one", lambda: ["problem 1", "problem 2"])
        assert self.end(checks) == "step: 2 of 2 failed: false, one"
        assert [failure.text for failure in ElementTree.parse(tmp_path / "step.xml").iter("failure")] == ["exit code 1 of false\n", "problem 1\nproblem 2"]

    def test_nothing_ran(self, checks):
        assert self.end(checks) == 5

    def test_tests_of_pytest_count_one_by_one(self, checks, tmp_path):
        script = "import pathlib, sys; pathlib.Path(sys.argv[1].split('=')[1]).write_text(open(sys.argv[2]).read()); sys.exit(1)"
        junit(tmp_path / "made.xml", a=None, b="failure")
        (tmp_path / "fake.py").write_text(script.replace("sys.argv[1]", "sys.argv[2]").replace("open(sys.argv[2])", "open(sys.argv[1])"))
        checks.pytest("some", [sys.executable, tmp_path / "fake.py", tmp_path / "made.xml"])
        assert (len(checks.suite), checks.failed) == (2, ["some: b"])
        checks.pytest("broken", ["false"])
        assert checks.failed == ["some: b", "broken"]


class TestFiles:
    def test_export_follows_the_checkout(self, tool, tmp_path, monkeypatch):
        common = tool("common")
        repo, copy = tmp_path / "repo", tmp_path / "copy"
        for name in ("a", "tests/b", "gone"):
            (repo / name).parent.mkdir(parents=True, exist_ok=True)
            (repo / name).write_text(name)
        monkeypatch.setattr(common, "REPO", repo)
        monkeypatch.setattr(common, "repository_files", lambda *patterns: [str(path.relative_to(repo)) for path in repo.rglob("*") if path.is_file()])
        common.export(copy)
        for kept in (".git/config", "tests/output/x"):
            (copy / kept).parent.mkdir(parents=True)
            (copy / kept).write_text("kept")
        before = (copy / "a").stat().st_ino
        (repo / "gone").unlink()
        (repo / "tests/b").write_text("new")
        (repo / "tests/b").chmod(0o755)
        common.export(copy)
        assert sorted(str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()) == [".git/config", "a", "tests/b", "tests/output/x"]
        assert (copy / "tests/b").read_text() == "new" and (copy / "tests/b").stat().st_mode & 0o111
        assert (copy / "a").stat().st_ino == before

    def test_archive(self, tool, tmp_path):
        with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
            for name in ("README.md", "roles", "tests"):
                archive.add(TOOLS / "common.py", name)
        assert [text.split()[0] for text in tool("package").surplus(tmp_path / "a.tar.gz")] == ["tests"]

    def test_wrappers_are_no_interpreters(self, tool, tmp_path, monkeypatch):
        common = tool("common")
        wrapper = tmp_path / "python3.12"
        wrapper.write_text("#!/bin/sh\necho no such version >&2\nexit 127\n")
        wrapper.chmod(0o755)
        this = "{}.{}".format(*sys.version_info)
        (tmp_path / f"python{this}").symlink_to(getattr(sys, "_base_executable", sys.executable))
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setenv("HOME", str(tmp_path))
        assert list(common.find_pythons()) == [this]


def test_molecule_clock(tool):
    clock = tool("run_molecule").Clock(0)
    lines = [
        (1, "\x1b[36mINFO    \x1b[0m \x1b[32mdefault\x1b[0m ➜ \x1b[33mcreate\x1b[0m: \x1b[36mExecuting\x1b[0m"),
        (2, "TASK [create: Executing nothing]"), (3, "INFO     default ➜ create: Executing Testinfra tests found in tests/..."),
        (5, "INFO     default ➜ create: Executed: Successful"), (6, "INFO     default ➜ converge: Executing"),
    ]
    assert [clock.read(line, now) for now, line in lines] == ["create", None, None, None, "converge"]
    clock.close(10)
    assert clock.actions == [["create", 5], ["converge", 4]]


def test_the_summary_says_which_task_ended_a_scenario(tool):
    def said(*lines):
        clock = tool("run_molecule").Clock(0)
        for line in lines:
            clock.read(line, 1)
        return clock.complaint

    starts = "INFO     default ➜ {}: Executing".format
    wrong = "  \x1b[31m│\x1b[0m \x1b[0;31m[ERROR]: Task failed: Action failed: the host did not come back\x1b[0m\n"
    assert said(starts("side_effect"), wrong, starts("destroy")) == ", side_effect: Task failed: Action failed: the host did not come back"
    # What was rescued is not what ended it.
    assert said(starts("create"), wrong, starts("converge"), starts("destroy")) == ""


def test_a_scenario_may_verify_twice(tool, tmp_path):
    run_molecule, report = tool("run_molecule"), tmp_path / "molecule-default.xml"
    assert run_molecule.put_aside(report, 1) == 0
    junit(report, a=None, b="failure")
    assert run_molecule.put_aside(report, 2) == 2
    junit(report, c=None)
    assert run_molecule.put_aside(report, 3) == 1
    assert sorted(path.name for path in tmp_path.glob("molecule-*.xml")) == ["molecule-default-2.xml", "molecule-default-3.xml"]


def test_old_reports_of_a_scenario_do_not_count_and_others_stay(tool, tmp_path, monkeypatch):
    run_molecule = tool("run_molecule")
    for name in ("RESULTS", "LOGS", "CACHE"):
        monkeypatch.setattr(run_molecule, name, tmp_path)
    noted, start = [], subprocess.Popen
    monkeypatch.setattr(run_molecule, "record", lambda *unused, **figures: noted.append(figures["tests"]))
    monkeypatch.setattr(run_molecule.subprocess, "Popen", lambda command, **more: start(["true"], **dict(more, cwd=tmp_path)))
    for name in ("gpu", "gpu-2", "gpu-mig", "gpu-mig-2"):
        junit(tmp_path / f"molecule-{name}.xml", a=None)
    found = []
    run_molecule.run("gpu", type("Checks", (), {"add": lambda self, *words: found.append(words[-1])})())
    assert noted == [0] and found == ["Molecule ran no test of the verifier"]
    assert sorted(path.name for path in tmp_path.glob("*.xml")) == ["molecule-gpu-mig-2.xml", "molecule-gpu-mig.xml"]


def test_playbook_figures(tool, monkeypatch, capfd):
    run_playbook = tool("run_playbook")
    monkeypatch.setattr(run_playbook.signal, "signal", lambda *unused: None)
    script = r"printf 'x\nhost=a verdict=ok changed=3 tasks=20 checks=9 checks_failed=0\nhost=b verdict=failed changed=1 tasks=5\n'; exit 2"
    assert run_playbook.play(["sh", "-c", script], {}) == (2, {"changed": 4, "tasks": 25, "checks": 9, "checks_failed": 0})
    out = capfd.readouterr().out
    assert out.startswith("x\nhost=a") and out.splitlines()[-1].startswith("verdict=failed after 0s")


@pytest.mark.parametrize("script, code", [
    (r"printf 'host=a verdict=ok changed=0\nverdict=ok after 3s\n'", 0), (r"printf '\033[0;32mverdict=ok after 3s\033[0m\n'", 0),
    (r"printf 'no host was reached\n\033[0;31mverdict=failed after 0s\n'", 1), ("printf 'nothing\n'", 1), (r"printf 'verdict=failed after 1s\n'; exit 4", 4),
])
def test_exit_code_agrees_with_the_verdict(tool, monkeypatch, capfd, script, code):
    run_playbook = tool("run_playbook")
    monkeypatch.setattr(run_playbook.signal, "signal", lambda *unused: None)
    assert run_playbook.play(["sh", "-c", script], {})[0] == code
    assert "verdict=" in capfd.readouterr().out.splitlines()[-1]


def test_an_interrupted_run_says_so(tool, monkeypatch, capfd):
    run_playbook = tool("run_playbook")
    handlers = []
    monkeypatch.setattr(run_playbook.signal, "signal", lambda number, handler: handlers.append(handler))
    start = subprocess.Popen
    monkeypatch.setattr(run_playbook.subprocess, "Popen", lambda *words, **more: (handlers[0](2, None), handlers[0](2, None), start(*words, **more))[-1])
    assert run_playbook.play(["sh", "-c", "echo 'changed: [a]'; exit 99"], {})[0] == 130
    said = capfd.readouterr()
    assert said.err.count("interrupted") == 1
    assert said.out.splitlines()[-1].startswith("verdict=interrupted after 0s: what is done stays") and "as far as a host" not in said.out


@pytest.mark.parametrize("playbook", ["verify", "diagnose", "benchmark", "report"])
def test_nothing_is_made_to_be_looked_at(tool, monkeypatch, playbook):
    run_playbook = tool("run_playbook")
    monkeypatch.setattr(run_playbook, "look", lambda: (False, True))
    monkeypatch.setattr(run_playbook.subprocess, "run", lambda *unused, **more: pytest.fail("made a machine"))
    monkeypatch.setattr(run_playbook.sys, "argv", ["run_playbook.py", playbook, ""])
    with pytest.raises(SystemExit, match="make site"):
        run_playbook.main()


def test_benchmark_page(tool, tmp_path, monkeypatch):
    bench, common = tool("bench"), tool("common")
    monkeypatch.setattr(bench, "BENCH", tmp_path)
    monkeypatch.setattr(common, "BENCH", tmp_path)
    empty = bench.page({})
    assert "## " not in empty.replace("# Benchmarks", "", 1)
    common.record("site-second", 100, sandbox_seconds=3, tasks=42, changed=0)
    common.record("test-unit", 61, passed=7, ok=True)
    common.record("molecule-default", 700, ok=True, actions=[{"action": "converge", "seconds": 300}])
    text = bench.page({"plan": "1 ms"})
    for line in ("| `make site` again | 1m40s | 3s | 42 | 0 |", "| `make unit` | 1m01s | 7 |", "| converge | 5m00s |", "```text\n1 ms\n```"):
        assert line in text


class TestCalibrate:
    RUN = {"model": "a", "dtype": "auto", "kv_cache_gib": 1, "context": 1024, "tokens": 1024, "sequences": 4}

    @pytest.fixture(name="calibrate")
    def calibrate_fixture(self, tool):
        return tool("calibrate")

    @pytest.mark.parametrize("predicted, good", [(969, False), (970, True), (1000, True), (1100, True), (1101, False)])
    def test_verdict(self, calibrate, predicted, good):
        assert calibrate.is_good(predicted, 1000) is good

    def test_the_limit_leaves_the_share_that_the_plan_may_be_wrong_by(self, calibrate):
        assert [calibrate.limit_of({"total": 1001}, loose) for loose in (False, True)] == [1032, 2002]

    def test_what_the_samples_say(self, calibrate):
        mib = 1 << 20
        # Time, charged, page cache: three processes start, weights are read, the cache is allocated, a batch, the page cache is reclaimed.
        samples = [(at, charged * mib, cache * mib) for at, charged, cache in (
            (1, 100, 50), (2, 2000, 900), (3, 1990, 900), (5, 3010, 890), (6, 3100, 890), (7, 3000, 400))]
        found = calibrate.evaluate(samples, 4, 5, 1)
        assert found == {"checked": 2000, "checked_page_cache": 900, "idle": 2120, "serve": 2600, "start": 3024, "need": 3024}
        assert calibrate.evaluate([*samples, (8, 4000 * mib, 100 * mib)], 4, 5, 1)["need"] == 3900

    def test_the_plan_reckons_what_was_measured(self, calibrate):
        found = calibrate.read(calibrate.MEASURED)["runs"]
        assert [entry["run"] for entry in found] == calibrate.read(calibrate.SHAPES)["runs"]
        wrong = {calibrate.title(entry["run"]): (calibrate.predict(entry["size"], entry["run"]), entry["measured"]["need"]) for entry in found
                 if not calibrate.is_good(calibrate.predict(entry["size"], entry["run"])["total"], entry["measured"]["need"])}
        assert not wrong

    def test_when_vllm_looked(self, calibrate):
        log = "2026-11-27T10:00:00.123456789Z INFO Starting\n2026-11-27T10:00:02.500000000Z INFO Explicitly set (1.0/6.0) GiB for KV cache on node 0.\n"
        assert calibrate.checked_at(log) % 60 == 2.5
        with pytest.raises(calibrate.SandboxError, match="does not tell"):
            calibrate.checked_at("2026-11-27T10:00:00.123456789Z INFO Starting\n")

    @pytest.mark.parametrize("tokens, lengths", [(512, [512]), (1016, [1016]), (2048, [1016] * 4)])
    def test_prompts_fill_a_batch(self, calibrate, tokens, lengths):
        batch, many = calibrate.prompts(dict(self.RUN, tokens=tokens), random.Random(1))
        assert [len(prompt) for prompt in batch] == lengths and [len(prompt) for prompt in many] == [8] * 4
        assert len({tuple(prompt[:8]) for prompt in batch + many}) == len(batch + many)

    def test_both_versions_of_control_groups(self, calibrate, tmp_path):
        one, two = tmp_path / "memory" / "docker" / "x", tmp_path / "docker" / "x"
        for folder, usage, prefix in ((one, "memory.usage_in_bytes", "total_"), (two, "memory.current", "")):
            folder.mkdir(parents=True)
            (folder / usage).write_text("1000\n")
            (folder / "memory.stat").write_text(f"cache 900\n{prefix}inactive_file 70\n{prefix}active_file 30\n")
        for lines in (["5:cpu:/docker/x", "4:memory:/docker/x", "0::/"], ["0::/docker/x"]):
            assert calibrate.Group(lines, tmp_path).sample() == (1000, 100)

    def test_it_starts_vllm_as_the_role_does(self, calibrate):
        """What the role always hands over is handed over, and nothing is missing of its environment."""
        role = yaml.safe_load((TOOLS.parent / "roles" / "vllm" / "vars" / "main.yml").read_text(encoding="utf-8"))
        wanted = set(re.findall(r"'(--[a-z-]+)'", role["__vllm_arguments"])) - {"--revision"}
        given = {word for word in calibrate.arguments(pathlib.Path("a"), self.RUN) if word.startswith("--")}
        assert given == wanted | {"--dtype"}
        assert set(calibrate.environment(self.RUN, [0, 1])) == set(role["__vllm_base_environment"]) | {"VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS"}
        assert calibrate.environment(self.RUN, [0, 1, 2])["VLLM_CPU_OMP_THREADS_BIND"] == "0,1"
        assert calibrate.environment(self.RUN, [0])["VLLM_CPU_OMP_THREADS_BIND"] == "0"

    def test_only_a_whole_run_becomes_the_data_of_tests(self, calibrate, tmp_path, monkeypatch):
        monkeypatch.setattr(calibrate, "REPO", tmp_path)
        monkeypatch.setattr(calibrate, "BENCH", tmp_path / "bench")
        monkeypatch.setattr(calibrate, "MEASURED", tmp_path / "measured.json")
        runs = calibrate.read(calibrate.SHAPES)["runs"]
        calibrate.save([{"run": run} for run in runs[1:]])
        assert (tmp_path / "bench" / "calibrate.json").exists() and not (tmp_path / "measured.json").exists()
        calibrate.save([{"run": run} for run in runs])
        assert len(calibrate.read(tmp_path / "measured.json")["runs"]) == len(runs)

    def test_the_table(self, calibrate, tmp_path, monkeypatch):
        monkeypatch.setattr(calibrate, "MEASURED", tmp_path / "measured.json")
        assert calibrate.tables() == {"memory": "Nothing was measured yet; `make calibrate` does it.\n"}
        size = {"dtype": "bfloat16", "weights_mib": 100, "weights_bytes_read": 200 << 20, "intermediate_size": 32, "vocabulary_size": 64}
        total = calibrate.predict(size, self.RUN)["total"]
        found = {"machine": {"cpus": 2, "cpu_model": "X", "memory_gib": 24, "cgroup": 1}, "image": "i", "date": "2026-11-27", "runs": [
            {"run": self.RUN, "size": size, "measured": {"start": total, "serve": 1, "need": total}}]}
        (tmp_path / "measured.json").write_text(json.dumps(found))
        lines = calibrate.tables()["memory"].splitlines()
        assert lines[2].startswith("| a | auto | 1024, 4 | ") and lines[2].endswith(f" | {total} | {total} | 1 | +0.0% |")
        assert len({line.count("|") for line in lines[:3]}) == 1 and lines[-1].endswith("2 CPUs (X), 24 GiB, control groups of version 1.")

    def test_too_little_memory_is_refused_in_words(self, calibrate):
        with pytest.raises(calibrate.SandboxError, match="may take 1000000000000 MiB, and this machine has [0-9]+ MiB available"):
            calibrate.need_memory(10 ** 12)

    def test_unknown_models_are_refused(self, calibrate, monkeypatch):
        monkeypatch.setattr(calibrate.sys, "argv", ["calibrate.py", "gpt2", "gpt3"])
        with pytest.raises(SystemExit, match="no such model: gpt3; there are gpt2, "):
            calibrate.main()


class TestInterference:
    """What is measured, and what is made of it."""

    @pytest.fixture(name="interference")
    def interference_fixture(self, tool):
        return tool("interference")

    @staticmethod
    def runs(interference, rates, rounds=3, left_out=()):
        """Runs of all rows of a machine with two cores at these tokens/s; C(left_out) are (round, row)."""
        rows = interference.rows_of(frozenset({0}), frozenset({1}))
        found = []
        for number in range(1, rounds + 1):
            for index, (row, rate) in enumerate(zip(rows, rates)):
                figures = {"tokens_per_second": rate, "ttft_ms": 9.0, "itl_p50_ms": 1000 / rate, "itl_p95_ms": 1000 / rate, "itl_p99_ms": 1000 / rate}
                found.append({"round": number, "row": row.name, "services": {"vllm": figures}, "burner_cpus": float(len(row.burners)),
                              "left_out": ["somebody"] if (number, index) in left_out else []})
        return rows, found

    def test_the_last_core_is_reserved_with_all_its_siblings(self, interference):
        assert interference.divide([[0, 2], [1, 3]]) == ({0, 2}, [0], {1, 3})
        assert interference.divide([[0], [1], [2]]) == ({0, 1}, [0, 1], {2})
        with pytest.raises(interference.SandboxError, match="has one core"):
            interference.divide([[0, 1]])

    def test_every_cpu_has_a_neighbour_that_is_where_the_row_says(self, interference):
        rows = interference.rows_of(frozenset({0, 2}), frozenset({1, 3}))
        assert [(len(row.burners), set().union(*row.burners)) for row in rows] == [
            (0, set()), (8, {1, 3}), (8, {0, 1, 2, 3}), (2, {0, 2}), (0, set()), (8, {0, 1, 2, 3})]
        assert [rows[number].neighbours for number in (interference.HELD, interference.FREE, interference.INSIDE)] == [
            "held to the reserved core", "on any CPU", "on its CPUs"]

    def test_losses_are_those_against_the_same_layout(self, interference):
        rows, runs = self.runs(interference, (100, 98, 64, 50, 150, 75))
        found = interference.judge(rows, runs, 3)
        assert [entry["loss_percent"] and round(entry["loss_percent"]["median"]) for entry in found] == [None, 2, 36, 50, None, 50]
        assert interference.problems(found) == []

    @pytest.mark.parametrize("rates, said", [
        ((100, 90, 64, 50, 150, 75), "held to the reserved core cost vLLM 10.0 %, and may cost 5"),
        ((100, 98, 97, 50, 150, 75), "on any CPU cost a vLLM that is only pinned 3.0 %: that shows nothing"),
        ((100, 98, 64, 99, 150, 75), "on its CPUs cost a vLLM that is only pinned 1.0 %: that shows nothing"),
    ])
    def test_what_does_not_come_out(self, interference, rates, said):
        rows, runs = self.runs(interference, rates)
        wrong = interference.problems(interference.judge(rows, runs, 3))
        assert len(wrong) == 1 and said in wrong[0]

    def test_too_few_rounds_prove_nothing(self, interference):
        rows, runs = self.runs(interference, (100, 98, 64, 50, 150, 75), left_out={(1, interference.HELD), (2, interference.HELD)})
        found = interference.judge(rows, runs, 3)
        assert found[interference.HELD]["loss_percent"] is None
        assert interference.problems(found) == ["pinned, held to the reserved core: only 1 of the rounds count"]
        assert "| - |" in interference.table(found).splitlines()[2 + interference.HELD]

    def test_the_table(self, interference):
        lines = interference.table(interference.judge(*self.runs(interference, (100, 98, 64, 50, 150, 75)), 3)).splitlines()
        assert lines[2] == "| pinned | none | 100 [100 to 100] | 10.0, 10.0 | 0.00 | - |"
        assert lines[4] == "| pinned | 4 on any CPU | 64 [64 to 64] | 15.6, 15.6 | 4.00 | 36 [36 to 36] |"
