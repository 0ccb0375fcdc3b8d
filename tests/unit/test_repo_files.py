# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds for every file of the repository."""
from __future__ import annotations

import ast
import functools
import os
import pathlib
import re
import subprocess

import pytest
import yaml

REPO = pathlib.Path(__file__).resolve().parents[2]
HEADER = [
    "# -*- coding: utf-8 -*-",
    "# Copyright (c) 2026, the erni_ki.inference team",
    "# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)",
    "# SPDX-License-Identifier: GPL-3.0-or-later",
]
# Folders in which people and build machines keep checkouts and tools; a path into one of them works in one place only.
PRIVATE = re.compile(r"(?<![\w.}/-])/(?:work|home/\w+|Users/\w+|tmp/\w+_jobs|opt/(?:wheels|pypi)|root/\.(?:pyenv|config|cache))/")
MOVING = re.compile(r"(?<![\w./-])[\w./-]+:latest\b|\bstate:\s*['\"]?latest\b|\bversion:\s*['\"]?latest\b")
SELF = pathlib.PurePath(__file__).name


@functools.cache
def tracked():
    """Return {path: text} of what is tracked and is text; an installed or exported copy without git has no such list."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPO, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    texts = {}
    for name in sorted(listed.stdout.split("\0")):
        path = REPO / name
        if name and path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            if b"\0" not in content:
                texts[name] = content.decode("utf-8")
    return texts


def lines_with(pattern, only=("",), without=()):
    return [
        f"{name}:{number}: {line.strip()[:120]}"
        for name, text in tracked().items() if name.startswith(only) and not name.startswith(without) and pathlib.PurePath(name).name != SELF
        for number, line in enumerate(text.splitlines(), 1) if pattern.search(line)
    ]


def test_the_patterns_find_what_they_are_for():
    assert PRIVATE.search("see /home/jane/inference/x") and PRIVATE.search('"/Users/jane/x"')
    assert not PRIVATE.search("https://example.org/home/jane/") and not PRIVATE.search("/var/home/x")
    assert MOVING.search("image: vllm/vllm-openai-cpu:latest") and MOVING.search("  state: latest")
    assert not MOVING.search("the latest release")


def test_no_path_of_one_machine():
    assert lines_with(PRIVATE) == []


def test_no_path_of_this_checkout():
    if len(REPO.parts) > 2:
        assert lines_with(re.compile(rf"{re.escape(str(REPO))}\b")) == []


def test_nothing_follows_a_moving_version():
    # Ollama calls a model without a tag NAME:latest, and so do its stand-in and its recorded answers.
    assert lines_with(MOVING, without=("tests/unit/", "tests/sandbox/")) == []
    assert lines_with(re.compile(r"^FROM\s+(?!scratch\b)[^\s:@$]+(?::latest)?(?:\s+AS\s+\w+)?\s*$")) == []


def hosts_of_this_machine():
    """Return the hosts of the package indexes that this machine was told to use, other than the public ones."""
    settings = subprocess.run(["pip", "config", "list"], capture_output=True, text=True, check=False).stdout
    settings += " ".join(value for key, value in os.environ.items() if key.startswith("PIP_"))
    apt = subprocess.run(["apt-get", "indextargets", "--format", "$(SITE)"], capture_output=True, text=True, check=False).stdout if _has("apt-get") else ""
    hosts = set(re.findall(r"(?:https?|ftp)://(?:[^/@\s'\"]+@)?([\w.-]+)", settings + " " + apt))
    public = re.compile(r"(?:^|\.)(?:pypi\.org|pythonhosted\.org|debian\.org|ubuntu\.com|docker\.com|pytorch\.org)$")
    return sorted(host for host in hosts if not public.search(host) and host not in ("localhost", "127.0.0.1"))


def _has(program):
    return any(os.access(os.path.join(folder, program), os.X_OK) for folder in os.environ.get("PATH", "").split(os.pathsep))


def test_no_package_mirror_of_this_machine():
    for host in hosts_of_this_machine():
        assert lines_with(re.compile(re.escape(host))) == []


def test_python_files_say_whose_they_are():
    wrong = []
    for name, text in tracked().items():
        if name.endswith(".py") and text.strip():
            lines = text.removeprefix("#!/usr/bin/python\n").splitlines()
            statements = [node for node in ast.parse(text).body if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))]
            if lines[:4] != HEADER or (statements and "from __future__ import annotations" not in lines):
                wrong.append(name)
    assert wrong == []


def test_nothing_is_excused_from_a_test():
    """Findings are mended; a list of what may be wrong only grows."""
    assert [name for name in tracked() if re.search(r"tests/sanity/ignore-|\.ansible-lint-ignore$", name)] == []
    settings = yaml.safe_load(tracked()[".ansible-lint"])
    assert settings["profile"] == "production"
    assert not settings.get("skip_list") and not settings.get("warn_list")
    assert lines_with(re.compile(r"#\s*noqa|#\s*type:\s*ignore|yamllint disable|pylint:\s*disable"), ("plugins/", "roles/", "playbooks/")) == []


def test_lock_files_pin_everything():
    for name in ("requirements.lock", "requirements-test.lock", *(path for path in tracked() if path.startswith("tools/compat/"))):
        pins = [line for line in tracked()[name].splitlines() if not line.startswith("#")]
        assert pins
        assert [line for line in pins if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == [], name


def test_lock_files_hold_what_is_required():
    def key(line):
        return re.sub(r"[-_.]+", "-", line).lower()

    for name in ("requirements", "requirements-test"):
        wanted = {key(line) for line in tracked()[f"{name}.txt"].splitlines() if line and not line.startswith(("#", "-r"))}
        assert wanted <= {key(line) for line in tracked()[f"{name}.lock"].splitlines()}, "`make lock` writes them anew"
    site = set(tracked()["requirements.lock"].splitlines()[1:])
    assert site <= set(tracked()["requirements-test.lock"].splitlines()), "the tests must run with what the site runs with"


def test_make_help_lists_every_target():
    text = tracked()["Makefile"]
    phony = set(re.search(r"^\.PHONY: (.+)$", text, re.MULTILINE).group(1).split()) - {"venv", "venv-test"}
    assert phony == set(re.findall(r"^([a-z-]+):.*## ", text, re.MULTILINE))


def test_roles_compute_nothing_in_passing():
    """Logic is Python with unit tests."""
    inline = re.compile(r"python3? -c|ignore_errors:|\bshell:\s")
    assert lines_with(inline, ("roles/", "playbooks/")) == []
