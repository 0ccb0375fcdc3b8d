# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""New Debian root file systems, from the mirrors and in the way this machine itself is set up to reach them: no mirror is named here."""
from __future__ import annotations

import contextlib
import json
import pathlib
import re
import shutil
import subprocess

from sandbox_lib.common import SANDBOX, input_hash, is_complete, need_space, remove_tree, run, settle, step
from sandbox_lib.host import tool

# apt settings that say how to reach a mirror; the rest of the host's apt configuration is its own affair.
APT_KEYS = re.compile(r"^Acquire::(http|https|ftp|Retries|ForceIPv4|ForceIPv6|Check-Valid-Until|Check-Date|Max-FutureTime)(::|\b)", re.IGNORECASE)


def apt_settings(dump=None):
    """The host's settings for reaching mirrors (proxy, certificates, date checks), as lines of an apt.conf."""
    if dump is None:
        dump = subprocess.run(["apt-config", "dump"], stdout=subprocess.PIPE, text=True, check=False).stdout
    return [line for line in dump.splitlines() if APT_KEYS.match(line) and not line.rstrip().endswith('"";')]


def setting_files(settings):
    """Files that apt's settings name (certificates): they have to be at the same place inside."""
    named = [pathlib.Path(match.group(1)) for match in (re.search(r'"(/[^"]+)";$', line) for line in settings) if match]
    return [path for path in named if path.is_file()]


def apt_sources(suite, listing=None, codename=None):
    """Source lines for a suite from the mirrors that this host itself uses; [] when none is recognised, for the tool's own default."""
    if codename is None:
        with contextlib.suppress(OSError):
            match = re.search(r"^VERSION_CODENAME=(\S+)", pathlib.Path("/etc/os-release").read_text(encoding="utf-8"), re.MULTILINE)
            codename = match.group(1).strip('"') if match else None
    if not codename:
        return []
    if listing is None:
        listing = subprocess.run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"],
                                 stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False).stdout
    uris = {}
    for line in listing.splitlines():
        parts = line.split()
        if len(parts) == 3 and parts[2] == "main" and parts[0].startswith(("http://", "https://")):
            uris.setdefault(parts[1], parts[0].rstrip("/"))
    if codename not in uris or f"{codename}-security" not in uris:
        return []
    mirror, security = uris[codename], uris[f"{codename}-security"]
    return [f"deb {mirror} {suite} main", f"deb {uris.get(codename + '-updates', mirror)} {suite}-updates main", f"deb {security} {suite}-security main"]


def own_certificates():
    """Certificate authorities that this host's owner added: without them nothing inside could reach the same mirrors."""
    return sorted(pathlib.Path("/usr/local/share/ca-certificates").rglob("*.crt"))


def reach(suite):
    """All that decides how packages of a suite are reached: part of the hash of what is built from them."""
    settings = apt_settings()
    return {"sources": apt_sources(suite), "settings": settings,
            "certificates": [path.read_text(encoding="utf-8", errors="replace") for path in [*own_certificates(), *setting_files(settings)]]}


def mmdebstrap(suite, target, packages, log, variant="apt", extra=()):
    """A root file system in a folder. Its mounts and processes live in namespaces that end with it, and with us, whatever interrupts."""
    hooks = ["--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/doc/*",
             "--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-exclude=/usr/share/info/*"]
    options = [f"--aptopt={line}" for line in apt_settings()]
    run([tool("setpriv"), "--pdeathsig", "KILL", tool("unshare"), "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child",
         tool("mmdebstrap"), "--mode=root", f"--variant={variant}", "--format=directory", f"--include={','.join(packages)}",
         *hooks, *options, *extra, suite, target, *apt_sources(suite)], log=log)


def unpacked(cache, name, suite, packages, unused, check=lambda root: None):
    """The folder with the unpacked packages, without their parts in C(unused), made now when it is not there. C(check) raises where they do not work."""
    key = input_hash([SANDBOX / "sandbox_lib" / "debian.py"], [json.dumps([reach(suite), packages, unused])])
    folder = cache / name / key
    if is_complete(folder):
        return folder
    need_space(cache, 2, name)
    work = cache / "tmp" / f"{name}-{key}"
    remove_tree(work)
    work.parent.mkdir(parents=True, exist_ok=True)
    try:
        with step(f"{name}: unpack {', '.join(packages)} of {suite}"):
            mmdebstrap(suite, work, packages, cache / "log" / f"{name}.log", variant="extract")
            for part in unused:
                remove_tree(work / part)
            check(work)
        settle(work, folder, alone=True)
    finally:
        remove_tree(work)
    return folder


def add_certificates(root, log):
    """The host's own certificate authorities, into a root file system that has ca-certificates."""
    for named in setting_files(apt_settings()):
        target = pathlib.Path(root) / str(named).lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(named, target)
    ours = own_certificates()
    if not ours:
        return
    place = pathlib.Path(root) / "usr/local/share/ca-certificates"
    place.mkdir(parents=True, exist_ok=True)
    for path in ours:
        shutil.copyfile(path, place / path.name)
        (place / path.name).chmod(0o644)
    run(["chroot", root, "update-ca-certificates"], log=log)
