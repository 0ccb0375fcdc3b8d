# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the collection's archive, and uses it as a user would: without the checkout, under its full name."""
from __future__ import annotations

import json
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile

import yaml

from common import CACHE, REPO, Checks, environment, export

ROOT = CACHE / "package"
INSTALLED = ROOT / "collections"
NAME = "erni_ki.inference"
# Everything that may lie at the top of the archive.
CONTENT = {"CHANGELOG.md", "FILES.json", "LICENSE", "MANIFEST.json", "README.md", "changelogs", "docs", "meta", "playbooks", "plugins", "roles"}


def build(folder):
    """Build the archive from what belongs to the project, and return its path."""
    copy = export()
    galaxy = yaml.safe_load((copy / "galaxy.yml").read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    command = ["ansible-galaxy", "collection", "build", "--force", "--output-path", str(folder)]
    subprocess.run(command, cwd=copy, env=environment(), check=True)
    return folder / f"{galaxy['namespace']}-{galaxy['name']}-{galaxy['version']}.tar.gz"


def surplus(archive):
    """Return what a user of the collection does not need."""
    with tarfile.open(archive) as file:
        names = {pathlib.PurePosixPath(name).parts[0] for name in file.getnames()}
    return [f"{name} is in the archive: leave it out with build_ignore in galaxy.yml" for name in sorted(names - CONTENT)]


def galaxy_complaints(archive):
    """Import the archive as Galaxy does, and return what it said."""
    # Away from the checkout, whose settings for ansible-lint Galaxy does not have.
    with tempfile.TemporaryDirectory(prefix="galaxy-importer-") as folder:
        env = environment(
            GALAXY_IMPORTER_CONFIG=str(REPO / "tools" / "galaxy-importer.cfg"), GALAXY_IMPORTER_ANSIBLE_LOCAL_TMP=f"{folder}/home",
            GALAXY_IMPORTER_TMP_ROOT_DIR=folder, ANSIBLE_HOME=f"{folder}/home",
        )
        # The dependencies lie beside Ansible in this environment.
        for variable in ("ANSIBLE_CONFIG", "ANSIBLE_COLLECTIONS_PATH"):
            env.pop(variable, None)
        command = [sys.executable, "-m", "galaxy_importer.main", str(archive)]
        result = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    lines = (result.stdout + result.stderr).splitlines()
    found = [line for line in lines if re.match(r"(WARNING|ERROR|CRITICAL)\b", line)]
    if not any("completed successfully" in line for line in lines):
        found += ["it did not come to its end:", *lines[-15:]]
    return found


def plugins():
    """Return (type, full name) of everything with documentation that the archive must offer."""
    kinds = [("module", "plugins/modules"), *((kind, f"plugins/{kind}") for kind in ("callback", "filter", "lookup", "test"))]
    for kind, folder in kinds:
        for path in sorted((INSTALLED / "ansible_collections" / "erni_ki" / "inference" / folder).glob("[!_]*.py")):
            yield kind, f"{NAME}.{path.stem}"
    for path in sorted((INSTALLED / "ansible_collections" / "erni_ki" / "inference" / "roles").glob("*/meta/argument_specs.yml")):
        yield "role", f"{NAME}.{path.parts[-3]}"


def undocumented(env):
    """Return what ansible-doc cannot show."""
    kinds = {}
    for kind, name in plugins():
        kinds.setdefault(kind, []).append(name)
    for kind, names in kinds.items():
        shown = subprocess.run(["ansible-doc", "--type", kind, *names], env=env, cwd=ROOT, capture_output=True, text=True, check=False)
        listed = subprocess.run(["ansible-doc", "--type", kind, "--list", "--json", NAME], env=env, cwd=ROOT, capture_output=True, text=True, check=False)
        if shown.returncode or "[WARNING]" in shown.stderr or "[ERROR]" in shown.stderr:
            yield f"ansible-doc --type {kind} {' '.join(names)}:\n{shown.stderr or shown.stdout}"
        known = set(json.loads(listed.stdout or "{}"))
        yield from (f"ansible-doc --type {kind} --list does not name {name}" for name in sorted(set(names) - known))


def check():
    checks = Checks("package")
    shutil.rmtree(ROOT, ignore_errors=True)
    ROOT.mkdir(parents=True)
    archive = build(ROOT)
    checks.call("the archive holds what users need, and nothing else", surplus, archive)
    checks.call("galaxy-importer finds nothing", galaxy_complaints, archive)
    env = environment(ANSIBLE_COLLECTIONS_PATH=str(INSTALLED))
    env.pop("ANSIBLE_CONFIG", None)
    # The dependency, community.docker, comes with the pinned ansible package: no network is asked.
    install = ["ansible-galaxy", "collection", "install", "--no-deps", "--offline", "--collections-path", INSTALLED, archive]
    if checks.run("install", install, cwd=ROOT, env=env):
        for playbook in sorted((INSTALLED / "ansible_collections" / "erni_ki" / "inference" / "playbooks").glob("*.yml")):
            command = ["ansible-playbook", "--inventory", "inference,", "--syntax-check", f"{NAME}.{playbook.stem}"]
            checks.run(f"{NAME}.{playbook.stem} parses", command, cwd=ROOT, env=env)
        checks.call("ansible-doc shows everything", undocumented, env)
        introspect = ["ansible-builder", "introspect", "--verbosity", "1", INSTALLED]
        checks.run("ansible-builder reads the requirements", introspect, cwd=ROOT, env=env)
    checks.finish()


if __name__ == "__main__":
    if sys.argv[1] == "build":
        print(build(REPO).relative_to(REPO))
    else:
        check()
