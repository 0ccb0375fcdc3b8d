# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules' documentation: examples that would run, and what the collection asks for on top of ansible-test."""
from __future__ import annotations

import ast
import pathlib

import pytest
import yaml

REPO = pathlib.Path(__file__).resolve().parents[2]
MODULES = sorted(path.stem for path in REPO.glob("plugins/modules/[!_]*.py"))
KEYWORDS = {
    "become", "become_user", "changed_when", "check_mode", "delegate_to", "diff", "environment", "failed_when", "loop", "loop_control", "name", "no_log",
    "register", "run_once", "tags", "timeout", "vars", "when",
}
OLDEST_PYTHON = (3, 9)


def source(module):
    return (REPO / "plugins" / "modules" / f"{module}.py").read_text(encoding="utf-8")


def constant(module, name):
    """Return a text constant of a module without importing it."""
    for node in ast.parse(source(module)).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"{module} has no {name}")


def actions(tasks):
    """Return (action, arguments) of every task, those of blocks too."""
    for task in tasks:
        inner = [task[key] for key in ("block", "rescue", "always") if key in task]
        for block in inner:
            yield from actions(block)
        if not inner:
            assert task.get("name"), f"a task without a name: {task}"
            found = [key for key in task if key not in KEYWORDS]
            assert len(found) == 1, f"not one action in: {task}"
            yield found[0], task[found[0]] or {}


def unknown(options, arguments, place):
    """Return the arguments that the documentation lacks."""
    for key, value in arguments.items():
        if key not in options:
            yield f"{place}{key}"
        elif isinstance(value, dict) and options[key].get("options"):
            yield from unknown(options[key]["options"], value, f"{place}{key}.")


@pytest.mark.parametrize("module", MODULES)
def test_examples(module):
    """They are tasks, under full names, and give the module only options that it has, and all that it requires."""
    options = yaml.safe_load(constant(module, "DOCUMENTATION")).get("options") or {}
    used = 0
    tasks = yaml.safe_load(constant(module, "EXAMPLES"))
    assert isinstance(tasks, list)
    for action, arguments in actions(tasks):
        assert len(action.split(".")) >= 3, f"{action} is no full name"
        if action == f"erni_ki.inference.{module}":
            used += 1
            assert list(unknown(options, arguments, "")) == []
            assert [name for name, option in options.items() if option.get("required") and name not in arguments] == []
    assert used


@pytest.mark.parametrize("module", MODULES)
def test_documentation(module):
    documentation = yaml.safe_load(constant(module, "DOCUMENTATION"))
    assert documentation["version_added"]
    assert "The erni_ki.inference team (@erni-ki)" in documentation["author"]
    assert any(fragment.startswith("erni_ki.inference._attributes") for fragment in documentation["extends_documentation_fragment"])
    for name, option in (documentation.get("options") or {}).items():
        assert option.get("type"), f"{name}: no type"
        assert option["type"] != "list" or option.get("elements"), f"{name}: a list without elements"


@pytest.mark.parametrize("module", MODULES)
def test_return(module):
    def inside(documented, place):
        for key, described in documented.items():
            assert described.get("description"), f"{place}{key}: no description"
            assert described.get("type"), f"{place}{key}: no type"
            assert described["type"] != "list" or described.get("elements"), f"{place}{key}: a list without elements"
            inside(described.get("contains") or {}, f"{place}{key}.")

    documented = yaml.safe_load(constant(module, "RETURN"))
    assert documented
    for key, described in documented.items():
        assert described.get("returned"), f"{key}: does not say when it is returned"
    inside(documented, "")


@pytest.mark.parametrize("module", MODULES)
def test_there_is_a_test(module):
    """tests/unit/plugins/modules/conftest.py compares RETURN with what the module returns there."""
    assert (REPO / "tests" / "unit" / "plugins" / "modules" / f"test_{module}.py").is_file()


@pytest.mark.parametrize("path", sorted(str(path.relative_to(REPO)) for path in REPO.glob("plugins/module*/*.py")))
def test_runs_on_the_oldest_python_of_managed_hosts(path):
    """Syntax that came later fails on the host, and only there."""
    tree = ast.parse((REPO / path).read_text(encoding="utf-8"), feature_version=OLDEST_PYTHON)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "zip":
            assert not any(keyword.arg == "strict" for keyword in node.keywords), "zip(strict=…) came with Python 3.10"
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "dataclass":
            assert not {keyword.arg for keyword in node.keywords} & {"slots", "kw_only"}, "came with Python 3.10"
