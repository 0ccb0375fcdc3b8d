# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan's partition as systemd unit files: which are wanted, which are there, what must change."""
from __future__ import annotations

import os
import re

from ansible_collections.erni_ki.inference.plugins.module_utils._cpulist import format_cpulist, parse_cpulist

UNIT_FOLDER = "/etc/systemd/system"
DROP_IN = "50-erni-ki.conf"
HEADER = "# Made by erni_ki.inference from /etc/erni-ki/plan.json; changes are overwritten.\n"

_OUR_SLICE = re.compile(r"erniki-[a-z0-9]+\.slice")


def unit_text(section, cpus, mems=None, description=None):
    """Return the text of a unit file that holds a slice or scope to C(cpus) (and memory nodes C(mems))."""
    text = HEADER
    if description:
        text += f"[Unit]\nDescription={description}\n\n"
    text += f"[{section}]\nAllowedCPUs={cpus}\n"
    if mems:
        text += f"AllowedMemoryNodes={mems}\n"
    return text


def desired(partition, folder=UNIT_FOLDER):
    """Return {path: text} of every unit file that the plan's C(partition) asks for; an empty partition asks for none."""
    files = {}
    for wanted in partition.get("slices") or []:
        text = unit_text("Slice", wanted["cpus"], wanted.get("mems"), f"CPUs and memory of {wanted['unit'][len('erniki-'):-len('.slice')]}")
        files[os.path.join(folder, wanted["unit"])] = text
    fence = partition.get("fence")
    for unit in (fence["units"] if fence else []):
        section = "Scope" if unit.endswith(".scope") else "Slice"
        files[os.path.join(folder, unit + ".d", DROP_IN)] = unit_text(section, fence["cpus"])
    return files


def current(folder=UNIT_FOLDER):
    """Return {path: text} of every unit file of ours in C(folder)."""
    files = {}
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return files
    for name in names:
        path = os.path.join(folder, name)
        if name.endswith(".d"):
            path = os.path.join(path, DROP_IN)
        elif not _OUR_SLICE.fullmatch(name):
            continue
        try:
            with open(path, encoding="utf-8") as stream:
                files[path] = stream.read()
        except (FileNotFoundError, NotADirectoryError):
            continue
    return files


def compare(have, want):
    """Return (paths to write, paths to remove), each sorted."""
    return sorted(path for path, text in want.items() if have.get(path) != text), sorted(path for path in have if path not in want)


def unit_of(path):
    """Return the unit that a file of ours configures."""
    folder, name = os.path.split(path)
    return os.path.basename(folder)[:-len(".d")] if name == DROP_IN else name


def as_text(files):
    """Return the files as one text, for a diff."""
    return "".join(f"==> {path} <==\n{text}" for path, text in sorted(files.items()))


def allowed_cpus(text):
    """Return the CPUs a unit file allows, in the kernel's list format; None where it names none."""
    match = re.search(r"^AllowedCPUs=(.*)$", text, re.MULTILINE)
    return format_cpulist(parse_cpulist(match.group(1))) if match else None


def cgroup_of(unit, root="/sys/fs/cgroup"):
    """Return the cgroup v2 folder of a slice or scope: erniki-vllm.slice lies in erniki.slice."""
    stem, dot, kind = unit.rpartition(".")
    if kind != "slice":
        return os.path.join(root, unit)
    parts = stem.split("-")
    return os.path.join(root, *("-".join(parts[:n]) + ".slice" for n in range(1, len(parts) + 1)))


def effective_cpus(unit, root="/sys/fs/cgroup"):
    """Return the CPUs the kernel grants a unit, in list format; None while the unit has no cgroup."""
    try:
        with open(os.path.join(cgroup_of(unit, root), "cpuset.cpus.effective"), encoding="ascii") as stream:
            return format_cpulist(parse_cpulist(stream.read()))
    except OSError:
        return None


def drifted(want, root="/sys/fs/cgroup"):
    """Return the paths of wanted files whose unit has a cgroup to which the kernel grants other CPUs."""
    return sorted(
        path for path, text in want.items()
        if os.path.isdir(cgroup_of(unit_of(path), root)) and effective_cpus(unit_of(path), root) != allowed_cpus(text))


def forget_runtime(unit, folder="/run/systemd/system.control"):
    """Remove what C(systemctl set-property --runtime) noted of a unit's CPUs."""
    place = os.path.join(folder, unit + ".d")
    try:
        os.unlink(os.path.join(place, "50-AllowedCPUs.conf"))
        if not os.listdir(place):
            os.rmdir(place)
    except FileNotFoundError:
        pass


def unfenced(partition, root="/sys/fs/cgroup"):
    """Return the top-level slices and scopes with processes that the fence does not hold and that are not ours."""
    fence = partition.get("fence")
    if not fence:
        return []
    found = []
    for name in sorted(os.listdir(root)) if os.path.isdir(root) else []:
        if not name.endswith((".slice", ".scope")) or name in fence["units"] or name == "erniki.slice":
            continue
        try:
            with open(os.path.join(root, name, "cgroup.events"), encoding="ascii") as stream:
                if "populated 1" in stream.read():
                    found.append(name)
        except OSError:
            continue
    return found
