# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes what the documents say from what they are about, or checks that all documents are in order.

Every role's README.md is made whole. In the README.md of the collection a table stands between <!-- variables: ROLE --> and
<!-- end of variables -->. With * instead of a role the place gets all roles that have no place of their own. A role whose short
description ends with (internal) needs none.

The tables of docs/gpu.md are made from the compatibility tables, see gpu_tables.py; that of docs/models.md from what was measured, see calibrate.py.
"""
from __future__ import annotations

import difflib
import re
import sys

import calibrate
import gpu_tables
import yaml

from common import REPO, Checks, export

README = REPO / "README.md"
PLACE = re.compile(r"(?P<begin><!-- variables: (?P<role>[a-z_*]+) -->\n)(?P<table>.*?)(?P<end><!-- end of variables -->)", re.DOTALL)


def read_roles():
    """Return {role: its entry points}."""
    return {path.parts[-3]: yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"] for path in sorted(REPO.glob("roles/*/meta/argument_specs.yml"))}


def is_internal(entries):
    return str(entries["main"].get("short_description", "")).endswith("(internal)")


def plain(markup):
    """Turn Ansible's documentation markup into one line of Markdown."""
    text = " ".join(markup) if isinstance(markup, list) else str(markup)
    text = re.sub(r"\bL\(([^,]+?),\s*([^)]+)\)", r"[\1](\2)", text)
    text = re.sub(r"\bU\(([^)]+)\)", r"<\1>", text)
    text = re.sub(r"\bB\(((?:[^)\\]|\\.)*)\)", r"**\1**", text)
    text = re.sub(r"\bI\(((?:[^)\\]|\\.)*)\)", r"*\1*", text)
    text = re.sub(r"\b(?:[COVEMR]|RV|P)\(((?:[^)\\]|\\.)*)\)", lambda match: code(re.sub(r"\\(.)", r"\1", match.group(1)).split("#", 1)[0]), text)
    return " ".join(text.split())


def code(value):
    """Write a value as it stands in an inventory."""
    if value is None:
        return ""
    if isinstance(value, bool):
        value = str(value).lower()
    elif isinstance(value, str):
        value = value or '""'
    else:
        value = yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n").removesuffix("\n...")
    return f"`{value}`"


def type_of(option):
    kind = option.get("type", "str")
    if kind == "list":
        return f"list of {type_of({'type': option.get('elements', 'raw')})}"
    return "any" if kind == "raw" else kind


def rows(options, prefix=""):
    """Return a line for each option, and for those inside it."""
    lines = []
    for name, option in options.items():
        meaning = plain(option.get("description", ""))
        if option.get("choices"):
            meaning += f" {'Each one' if option.get('type') == 'list' else 'One'} of {', '.join(code(choice) for choice in option['choices'])}."
        default = "**required**" if option.get("required") else code(option.get("default"))
        cells = [cell.replace("|", "\\|") for cell in (f"`{prefix}{name}`", type_of(option), default, meaning)]
        lines.append(f"| {' | '.join(cells)} |")
        lines += rows(option.get("options") or {}, f"{prefix}{name}.")
    return lines


def table(entries):
    """Return the table of one role; entry points that share their options are shown once."""
    parts, shown = [], []
    for name, entry in sorted(entries.items(), key=lambda item: item[0] != "main"):
        options = entry.get("options") or {}
        if not options or options in shown:
            continue
        if shown:
            parts += ["", f"With `tasks_from: {name}`:", ""]
        shown.append(options)
        parts += ["| Variable | Type | Default | Meaning |", "|---|---|---|---|", *rows(options)]
    return "\n".join(parts) + "\n" if parts else "No variables.\n"


def role_document(role, entries):
    """Return the README.md of a role."""
    main = entries["main"]
    description = main.get("description", [])
    paragraphs = [description] if isinstance(description, str) else description
    return "\n\n".join([
        f"# erni_ki.inference.{role}",
        "<!-- Made by `make docs` from meta/argument_specs.yml. -->",
        f"{plain(main['short_description'])}.",
        *(plain(paragraph) for paragraph in paragraphs),
        "## Variables",
        table(entries),
    ])


def fill_in(text, roles):
    """Return the collection's README.md with all its tables made anew."""
    named = {match["role"] for match in PLACE.finditer(text)}

    def fill(match):
        if match["role"] != "*":
            made = table(roles[match["role"]])
        else:
            rest = {role: entries for role, entries in roles.items() if role not in named and not is_internal(entries)}
            made = "\n".join(f"### {role}: {plain(entries['main']['short_description'])}\n\n{table(entries)}" for role, entries in rest.items())
        return f"{match['begin']}\n{made}\n{match['end']}"

    return PLACE.sub(fill, text)


def read(path):
    return path.read_text(encoding="utf-8") if path.exists() else ""


def misplaced(text, roles):
    """Return what the collection's README.md must mend by hand: places for no role, and roles without a place."""
    named = {match["role"] for match in PLACE.finditer(text)}
    for role in sorted(named - set(roles) - {"*"}):
        yield f"README.md has a place for the variables of {role}, and there is no such role"
    for role, entries in roles.items():
        if not named & {role, "*"} and not is_internal(entries):
            yield f"README.md has no place for the variables of {role}: add <!-- variables: {role} --> and <!-- end of variables -->"


def documents():
    """Return {path: what it should hold}."""
    roles = read_roles()
    wanted = {REPO / "roles" / role / "README.md": role_document(role, entries) for role, entries in roles.items()}
    text = read(README)
    problems = list(misplaced(text, roles))
    if not problems:
        wanted[README] = fill_in(text, roles)
    document = REPO / "docs" / "gpu.md"
    if document.exists():
        made = gpu_tables.tables(gpu_tables.load(), engine_version(roles))
        problems += gpu_tables.misplaced(read(document), made)
        wanted[document] = gpu_tables.fill_in(read(document), made)
    document = REPO / "docs" / "models.md"
    if document.exists():
        made = calibrate.tables()
        problems += gpu_tables.misplaced(read(document), made, "docs/models.md")
        wanted[document] = gpu_tables.fill_in(read(document), made)
    return wanted, problems


def engine_version(roles):
    """Return the version of Ollama that is run by default."""
    default = roles["plan"]["main"]["options"]["plan_ollama_engine_version"]["default"]
    return tuple(int(part) for part in default.split("."))


def write():
    wanted, problems = documents()
    for path, text in wanted.items():
        if text != read(path):
            path.write_text(text, encoding="utf-8")
            print(f"{path.relative_to(REPO)}: written")
    if problems:
        sys.exit("\n".join(problems))


def stale():
    """Return where the documents differ from what they are made from."""
    wanted, problems = documents()
    for path, text in wanted.items():
        name = str(path.relative_to(REPO))
        if text != read(path):
            source = {"gpu.md": "compatibility tables", "models.md": "measured figures"}.get(path.name, "argument specs")
            problems.append(f"{name} does not say what the {source} say; `make docs` writes it")
            problems += difflib.unified_diff(read(path).splitlines(), text.splitlines(), name, source, lineterm="", n=0)
    return problems


def check():
    checks = Checks("docs-check")
    checks.call("tables in the documents", stale)
    copy = export()
    lint = ["antsibull-docs", "lint-collection-docs", "--plugin-docs", "--validate-collection-refs", "dependent"]
    checks.run("module and role documentation", [*lint, "--disallow-unknown-collection-refs", "."], cwd=copy)
    checks.run("changelog fragments", ["antsibull-changelog", "lint"], cwd=copy)
    checks.finish()


if __name__ == "__main__":
    {"write": write, "check": check}[sys.argv[1]]()
