# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The build machine: what it must have, and what apt adds to it."""
from __future__ import annotations

import contextlib
import os
import pathlib
import platform
import shutil
import subprocess

from sandbox_lib.common import SandboxError, run, step

# program -> the Debian packages that bring it
MACHINE_TOOLS = {
    "mmdebstrap": ["mmdebstrap"],
    "mkfs.ext4": ["e2fsprogs"],
    "ssh": ["openssh-client"],
    "ssh-keygen": ["openssh-client"],
    "unshare": ["util-linux"],
    "setpriv": ["util-linux"],
}
# docker-cli is its own package from Debian 13 on, and only recommended there.
ENGINE_TOOLS = {"dockerd": ["docker.io"], "docker": ["docker.io", "docker-cli"]}
OPTIONAL = ["docker-cli"]
RELEASE = pathlib.Path("/etc/os-release")
POLICY = pathlib.Path("/usr/sbin/policy-rc.d")


def search_path():
    """sbin belongs to it, whatever the caller's shell thinks."""
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def tool(name):
    return shutil.which(name, path=search_path())


def check_machine():
    """Refuse with a sentence what cannot work anyway."""
    release = {}
    with contextlib.suppress(OSError):
        for line in RELEASE.read_text(encoding="utf-8").splitlines():
            key, found, value = line.partition("=")
            if found:
                release[key] = value.strip('"')
    family = [release.get("ID", ""), *release.get("ID_LIKE", "").split()]
    if "debian" not in family:
        raise SandboxError(
            f"The sandbox is built on Debian 12 or later; this is {release.get('PRETTY_NAME', 'something else')}. "
            "Your own hosts need none of it: make site INVENTORY=inventory/mine")
    if os.geteuid() != 0:
        raise SandboxError("The sandbox builds file systems and containers, which takes root: run this as root. "
                           "Your own hosts need none of it: make site INVENTORY=inventory/mine")
    if platform.machine() != "x86_64":
        raise SandboxError(f"The sandbox is an x86_64 machine; this one is {platform.machine()}.")


def missing_packages(tools):
    packages = []
    for name, wanted in tools.items():
        if not tool(name):
            packages += [package for package in wanted if package not in packages]
    return packages


@contextlib.contextmanager
def no_service_starts():
    """Packages that come along must not start daemons on somebody's machine."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n", encoding="utf-8")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)


def _known(package):
    shown = subprocess.run(["apt-cache", "policy", package], stdout=subprocess.PIPE, text=True, check=False, stderr=subprocess.DEVNULL)
    return "Candidate:" in shown.stdout and "Candidate: (none)" not in shown.stdout


def install_packages(packages, log):
    """By apt, without recommended packages and without leaving a service behind; lists are fetched only when they do not suffice."""
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    apt = ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300"]
    with step(f"this machine: apt installs {' '.join(packages)}"), no_service_starts():
        updated = not all(_known(package) for package in packages if package not in OPTIONAL)
        if updated:
            run([*apt, "update"], log=log, env=environment)
        found = [package for package in packages if package not in OPTIONAL or _known(package)]
        try:
            run([*apt, "install", "--no-install-recommends", *found], log=log, env=environment)
        except SandboxError:
            if updated:
                raise
            # Lists older than the mirror name files that are gone.
            run([*apt, "update"], log=log, env=environment)
            run([*apt, "install", "--no-install-recommends", *found], log=log, env=environment)
        if "docker.io" in found and tool("systemctl"):
            # Only the programs are wanted; nobody asked for an engine that comes up with the machine.
            subprocess.run(["systemctl", "disable", "docker.service", "docker.socket", "containerd.service"],
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def ensure_tools(tools, log):
    """Install what is missing."""
    packages = missing_packages(tools)
    if not packages:
        return
    install_packages(packages, log)
    still = missing_packages(tools)
    if still:
        raise SandboxError(f"apt installed its packages, yet programs of {' '.join(still)} are not to be found in {search_path()}.")
