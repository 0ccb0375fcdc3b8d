# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tools share: places, the environment of every command, interpreters, results."""
from __future__ import annotations

import dataclasses
import filecmp
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import time
from xml.etree import ElementTree

from bootstrap import CACHE, REPO, VENV

COLLECTIONS = CACHE / "collections"
RESULTS = CACHE / "results"
LOGS = CACHE / "logs"
BENCH = CACHE / "bench"
# A copy of what belongs to the project, where tools want it that look at a collection's folder and at all that lies in it.
EXPORT = CACHE / "export" / "ansible_collections" / "erni_ki" / "inference"


@dataclasses.dataclass(frozen=True)
class Release:
    """An ansible-core release line that the collection promises to run with."""

    name: str
    pythons: tuple[str, ...]
    requirements: tuple[str, ...]

    @property
    def lock(self):
        return REPO / "tools" / "compat" / f"{self.name}.lock"


_TESTS = (
    "docker==7.2.0", "hypothesis==6.170.15", "jinja2==3.1.6", "nvidia-ml-py==13.615.71", "prometheus_client==0.26.0", "pytest==9.2.0", "pytest-xdist==3.8.0")
# The release that requirements.txt holds is tested by everything else.
COMPAT = (
    Release("2.17", ("3.11", "3.12"), ("ansible-core==2.17.14", *_TESTS)),
    Release("2.18", ("3.11", "3.12", "3.13"), ("ansible-core==2.18.19", *_TESTS)),
    Release("2.20", ("3.12", "3.13", "3.14"), ("ansible-core==2.20.10", *_TESTS)),
    Release("2.21", ("3.12", "3.13", "3.14"), ("ansible-core==2.21.5", *_TESTS)),
)


def say(text):
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


def duration(seconds):
    """Return seconds as a person reads them: 8s, 1m08s, 1h02m."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"


def environment(**more):
    """Return the environment in which every command of the tests runs, whatever the caller's shell had set."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "MOLECULE_", "PYTHON"))}
    env["PYTHONUNBUFFERED"] = "1"
    return {**env, **checkout(env), **more}


def checkout(env):
    """Return what makes Ansible use this checkout and its environment."""
    found = {"PATH": f"{VENV / 'bin'}{os.pathsep}{env.get('PATH', os.defpath)}", "VIRTUAL_ENV": str(VENV), "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS)}
    # Ansible ignores an ansible.cfg that it finds by itself in a folder others may write to.
    if (REPO / "ansible.cfg").exists():
        found["ANSIBLE_CONFIG"] = str(REPO / "ansible.cfg")
    return found


def run_pytest(step, chosen=()):
    """Run the tests in tests/STEP, or the chosen ones of them, which use programs that the sandbox's tools unpack; return pytest's exit code."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    env = environment(PYTHONPATH=os.pathsep.join(map(str, (COLLECTIONS, REPO / "tests" / "sandbox", REPO / "tools"))))
    command = ["pytest", "-v", f"--junit-xml={RESULTS / f'{step}.xml'}", *(chosen or [f"tests/{step}"])]
    return subprocess.run(command, cwd=REPO, env=env, check=False).returncode


def repository_files(*patterns):
    """Return the files of the checkout, relative to it: tracked ones and new ones that git does not ignore."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(command, cwd=REPO, check=True, capture_output=True, text=True).stdout
    return sorted(path for path in set(listed.split("\0")) if path and os.path.lexists(REPO / path))


def export(destination=EXPORT):
    """Make destination a copy of the checkout's files, and touch only what differs."""
    wanted = set(repository_files())
    for folder, folders, names in os.walk(destination):
        here = pathlib.Path(folder)
        # What belongs to the copy itself: its git folder, and what ansible-test leaves.
        folders[:] = [name for name in folders if (here / name).relative_to(destination).as_posix() not in (".git", "tests/output")]
        for name in names:
            if (here / name).relative_to(destination).as_posix() not in wanted:
                (here / name).unlink()
    for name in sorted(wanted):
        source, target = REPO / name, destination / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink() or not target.is_file() or not filecmp.cmp(source, target, shallow=False):
            target.unlink(missing_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
        elif source.stat().st_mode != target.stat().st_mode:
            shutil.copymode(source, target)
    return destination


def find_pythons():
    """Return the working CPython interpreters of this machine: {'3.11': path}. Wrappers that only print an error do not count."""
    names = [f"3.{minor}" for minor in range(9, 20)]
    folders = [pathlib.Path(folder) for folder in os.environ.get("PATH", os.defpath).split(os.pathsep) if folder]
    folders += sorted(pathlib.Path.home().glob(".pyenv/versions/*/bin"), reverse=True)
    found = {}
    for name in names:
        for folder in folders:
            path = folder / f"python{name}"
            if name not in found and VENV not in path.parents and os.access(path, os.X_OK) and _works(path, name):
                found[name] = path
    return found


def _works(path, name):
    check = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
    answer = subprocess.run([path, "-I", "-c", check], capture_output=True, text=True, check=False)
    return answer.returncode == 0 and answer.stdout.strip() == name


def machine():
    """Say on what something was measured."""
    memory = re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text(encoding="ascii"))
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "cpu_model": model.group(1) if model else platform.machine(),
        "hardware_virtualization": bool(re.search(r"^flags\s*:.*\b(svm|vmx)\b", cpuinfo, re.MULTILINE)),
        "memory_gib": round(int(memory.group(1)) / 2**20) if memory else None,
        "python": platform.python_version(),
    }


def record(name, seconds, **figures):
    """Keep a measurement for docs/benchmarks.md."""
    BENCH.mkdir(parents=True, exist_ok=True)
    entry = {"name": name, "seconds": round(seconds, 1), "date": time.strftime("%Y-%m-%d"), "machine": machine(), **figures}
    (BENCH / f"{name}.json").write_text(json.dumps(entry, indent=1) + "\n", encoding="utf-8")


class Checks:
    """A step of the tests that is a row of commands: runs them all, prints each verdict, leaves a JUnit file."""

    def __init__(self, step):
        self.step = step
        self.suite = ElementTree.Element("testsuite", name=step)
        self.failed = []

    def run(self, name, command, cwd=REPO, env=None, show=True):
        """Run a command as one test; its output is shown as it comes, or only when it fails."""
        say(f"{self.step}: {name}")
        command = [str(part) for part in command]
        start = time.monotonic()
        into = None if show else subprocess.PIPE
        result = subprocess.run(command, cwd=cwd, env=env or environment(), stdout=into, stderr=into, text=True, check=False)
        failure = f"exit code {result.returncode} of {' '.join(command):.160}\n{result.stdout or ''}{result.stderr or ''}" if result.returncode else None
        return self.add(name, time.monotonic() - start, failure)

    def pytest(self, name, command, cwd=REPO, env=None):
        """Run pytest, and take over its tests one by one."""
        say(f"{self.step}: {name}")
        report = CACHE / "junit.xml"
        report.unlink(missing_ok=True)
        command = [str(part) for part in (*command, f"--junit-xml={report}")]
        code = subprocess.run(command, cwd=cwd, env=env or environment(), check=False).returncode
        before = len(self.failed)
        for case in ElementTree.parse(report).iter("testcase") if report.exists() else ():
            case.set("classname", f"{name}: {case.get('classname')}")
            self.suite.append(case)
            if case.find("failure") is not None or case.find("error") is not None:
                self.failed.append(f"{name}: {case.get('name')}")
        if code and len(self.failed) == before:
            self.add(name, 0, f"exit code {code} of {' '.join(command):.160}")

    def call(self, name, function, *arguments):
        """Run a function as one test; it returns the problems it found, one text each."""
        start = time.monotonic()
        problems = "\n".join(map(str, function(*arguments)))
        return self.add(name, time.monotonic() - start, problems)

    def add(self, name, seconds, failure):
        """Note the verdict of one test; a failure is a text that is not empty."""
        case = self._case(name, seconds)
        if failure:
            self.failed.append(name)
            ElementTree.SubElement(case, "failure", message=failure.splitlines()[0]).text = failure
            print("".join(f"  {line}\n" for line in failure.splitlines()), end="")
        say(f"{self.step}: {name}: {'FAILED' if failure else 'ok'} ({duration(seconds)})")
        return not failure

    def skip(self, name):
        ElementTree.SubElement(self._case(name, 0), "skipped")

    def _case(self, name, seconds):
        return ElementTree.SubElement(self.suite, "testcase", classname=self.step, name=name, time=f"{seconds:.3f}")

    def finish(self):
        """Write the results, say the verdict, and leave with an exit code that agrees."""
        RESULTS.mkdir(parents=True, exist_ok=True)
        ElementTree.ElementTree(self.suite).write(RESULTS / f"{self.step}.xml", encoding="utf-8", xml_declaration=True)
        if self.failed:
            more = f" and {len(self.failed) - 8} more" if len(self.failed) > 8 else ""
            sys.exit(f"{self.step}: {len(self.failed)} of {len(self.suite)} failed: {', '.join(self.failed[:8])}{more}")
        say(f"{self.step}: nothing failed of {len(self.suite)}")
        sys.exit(0 if len(self.suite) else 5)
