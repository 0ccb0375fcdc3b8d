# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The roles' interfaces: defaults and argument specs say the same, and say it of everything."""
from __future__ import annotations

import pathlib
import re

import pytest
import yaml

REPO = pathlib.Path(__file__).resolve().parents[2]
ROLES = sorted(path.name for path in REPO.glob("roles/*") if path.is_dir())
TYPES = {"bool": bool, "dict": dict, "float": (float, int), "int": int, "list": list, "path": str, "raw": object, "str": str}


def load(role, *names):
    path = REPO.joinpath("roles", role, *names)
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None


def specs(role):
    return load(role, "meta", "argument_specs.yml")["argument_specs"]


def all_options(options, place=""):
    """Return (place, option) of every option, those inside others too."""
    for name, option in (options or {}).items():
        yield f"{place}{name}", option
        yield from all_options(option.get("options"), f"{place}{name}.")


def entry_options(role):
    for entry, spec in specs(role).items():
        for place, option in all_options(spec.get("options")):
            yield f"{entry}: {place}", option


@pytest.mark.parametrize("role", ROLES)
def test_defaults_are_the_specs_defaults(role):
    """Keys and values; an option without a default is required, and a default is never written twice differently."""
    documented = {}
    for spec in specs(role).values():
        documented.update({name: option["default"] for name, option in (spec.get("options") or {}).items() if "default" in option})
    assert (load(role, "defaults", "main.yml") or {}) == documented


@pytest.mark.parametrize("role", ROLES)
def test_true_is_not_one(role):
    """Python takes true for 1 when it compares; the types must be the same too."""
    defaults = load(role, "defaults", "main.yml") or {}
    for spec in specs(role).values():
        for name, option in (spec.get("options") or {}).items():
            if "default" in option:
                assert type(defaults[name]) is type(option["default"]), name


@pytest.mark.parametrize("role", ROLES)
def test_entry_points_agree(role):
    """An option that several entry points take is the same option."""
    seen = {}
    for spec in specs(role).values():
        for name, option in (spec.get("options") or {}).items():
            assert seen.setdefault(name, option) == option, name


@pytest.mark.parametrize("role", ROLES)
def test_every_entry_point_is_described_and_exists(role):
    for entry, spec in specs(role).items():
        assert spec.get("short_description"), entry
        assert spec.get("description"), entry
        assert (REPO / "roles" / role / "tasks" / f"{entry}.yml").is_file(), entry


@pytest.mark.parametrize("role", ROLES)
def test_every_option_is_documented_and_typed(role):
    for place, option in entry_options(role):
        assert str(option.get("description") or "").strip(), f"{place}: no description"
        assert option.get("type") in TYPES, f"{place}: no type"
        assert option["type"] != "list" or option.get("elements"), f"{place}: a list without elements"
        assert not (option.get("required") and "default" in option), f"{place}: required, and has a default"
        assert "default" in option or option.get("required") or "." in place, f"{place}: neither required nor with a default"


@pytest.mark.parametrize("role", ROLES)
def test_every_default_is_valid(role):
    """Ansible does not look at defaults that nobody set."""
    for place, option in entry_options(role):
        if option.get("default") is None:
            continue
        values = option["default"] if option["type"] == "list" else [option["default"]]
        kind = TYPES[option["elements"] if option["type"] == "list" else option["type"]]
        assert isinstance(option["default"], TYPES[option["type"]]), f"{place}: the default is no {option['type']}"
        for value in values:
            assert isinstance(value, kind) and not (kind is int and isinstance(value, bool)), f"{place}: {value!r} is of another type"
            assert not option.get("choices") or value in option["choices"], f"{place}: {value!r} is no choice"


@pytest.mark.parametrize("role", ROLES)
def test_names_begin_with_the_role(role):
    names = {place.split(": ")[1].split(".")[0] for place, unused in entry_options(role)} | set(load(role, "defaults", "main.yml") or {})
    assert [name for name in sorted(names) if not name.startswith(f"{role}_")] == []
    internal = load(role, "vars", "main.yml") or {}
    assert [name for name in sorted(internal) if not name.startswith(f"__{role}_")] == []


@pytest.mark.parametrize("role", ROLES)
def test_state_is_present_or_absent(role):
    """Whatever a role makes, it also takes away; roles that make nothing have no state. The default comes first."""
    option = (specs(role)["main"].get("options") or {}).get(f"{role}_state")
    if option is not None:
        assert option["choices"] in (["present", "absent"], ["unmanaged", "present", "absent"], ["auto", "present", "absent", "unmanaged"])
        assert option.get("required") or option["default"] == option["choices"][0]
        tasks = REPO / "roles" / role / "tasks"
        assert any(f"{role}_state" in path.read_text(encoding="utf-8") for path in tasks.glob("*.yml"))


@pytest.mark.parametrize("role", ROLES)
def test_no_file_registers_a_result_twice(role):
    """A task that is skipped registers that it was skipped, over what the task before has found."""
    for path in sorted((REPO / "roles" / role / "tasks").glob("*.yml")):
        names = re.findall(r"^ *register: (\S+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(names) == len(set(names)), path.name
