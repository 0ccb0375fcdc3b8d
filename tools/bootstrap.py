# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes .cache/venv as the lock files say, and only when they changed. Standard library only: it runs before anything is installed.

bootstrap.py site   what the playbooks need (requirements.lock)
bootstrap.py test   that, and what the tests need (requirements-test.lock)
"""
from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

REPO = pathlib.Path(__file__).resolve().parents[1]
CACHE = REPO / ".cache"
VENV = CACHE / "venv"
COLLECTION = CACHE / "collections" / "ansible_collections" / "erni_ki" / "inference"
STAMP = VENV / "erni-ki-stamp.json"
LOCKS = {"site": REPO / "requirements.lock", "test": REPO / "requirements-test.lock"}
OLDEST = (3, 11)
# From within the environment that is to be made anew, its interpreter is the wrong one to ask.
PYTHON = getattr(sys, "_base_executable", sys.executable)


def say(text):
    print(f"[{time.strftime('%H:%M:%S')}] bootstrap: {text}", flush=True)


def stop(text):
    sys.exit(f"bootstrap: {text}")


def digest(path):
    """Identify what a lock file asks for, and of which interpreter."""
    asked = f"{os.path.realpath(PYTHON)} {sys.version}\n".encode()
    return hashlib.sha256(asked + path.read_bytes()).hexdigest()


def need_venv_module():
    """Debian ships Python without the module that puts pip into a virtual environment."""
    if importlib.util.find_spec("ensurepip") and importlib.util.find_spec("venv"):
        return
    package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
    if os.geteuid() or not shutil.which("apt-get"):
        stop(f"{PYTHON} cannot make virtual environments. Install its venv module (on Debian and Ubuntu, as root:"
             f" apt-get install python3-venv) and run this again.")
    say(f"installing {package}")
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    subprocess.run(["apt-get", "-q", "update"], env=environment, check=False)
    if subprocess.run(["apt-get", "-q", "-y", "install", "--no-install-recommends", package], env=environment, check=False).returncode:
        stop(f"apt-get could not install {package}; its own message stands above.")


def make_venv(directory, python=PYTHON):
    """Make an empty virtual environment with pip."""
    shutil.rmtree(directory, ignore_errors=True)
    subprocess.run([python, "-m", "venv", str(directory)], check=True)


def install(directory, lock):
    """Install exactly what the lock file lists; a missing pin fails here instead of being looked up."""
    pip = [str(directory / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "-qq", "--no-deps", "-r", str(lock)], check=True)
    subprocess.run([*pip, "check"], check=True)


def read_stamp():
    try:
        return json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def link_collection():
    """Let Ansible find the checkout under its full name."""
    COLLECTION.parent.mkdir(parents=True, exist_ok=True)
    if not COLLECTION.is_symlink() or COLLECTION.resolve() != REPO:
        COLLECTION.unlink(missing_ok=True)
        COLLECTION.symlink_to(REPO)


def bring(level):
    """Bring .cache/venv to what the level asks for."""
    wanted = {"site": digest(LOCKS["site"])}
    if level == "test":
        wanted["test"] = digest(LOCKS["test"])
    stamp = read_stamp()
    if wanted.items() <= stamp.items():
        return
    start = time.monotonic()
    need_venv_module()
    if stamp != {"site": wanted["site"]}:
        say("installing what the playbooks need into .cache/venv (about a minute)")
        make_venv(VENV)
        install(VENV, LOCKS["site"])
        STAMP.write_text(json.dumps({"site": wanted["site"]}), encoding="utf-8")
    if level == "test":
        say("installing what the tests need into .cache/venv (about a minute)")
        install(VENV, LOCKS["test"])
        STAMP.write_text(json.dumps(wanted), encoding="utf-8")
    say(f".cache/venv is ready after {time.monotonic() - start:.0f} s")


def main():
    level = sys.argv[1] if len(sys.argv) > 1 else "site"
    if level not in LOCKS:
        stop(f"'{level}' is no level; use one of: {', '.join(LOCKS)}")
    if sys.version_info < OLDEST:
        stop(f"this is Python {sys.version.split()[0]} ({sys.executable}); the controller needs {OLDEST[0]}.{OLDEST[1]} or later."
             " Name another with: make PYTHON=/path/to/python3.12 …")
    CACHE.mkdir(exist_ok=True)
    # Two makes at once would install into one folder.
    with open(CACHE / "bootstrap.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        link_collection()
        try:
            bring(level)
        except subprocess.CalledProcessError as error:
            stop(f"this command failed with exit code {error.returncode}; its own message stands above:\n  {' '.join(map(str, error.cmd))}")


if __name__ == "__main__":
    main()
