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

PARENT = "erniki.slice"
_OUR_SLICE = re.compile(r"erniki(-[a-z0-9]+)?\.slice")
_PROPERTY = re.compile(r"^(AllowedCPUs|AllowedMemoryNodes|MemoryLow)=(.*)$", re.MULTILINE)


def unit_text(unit, properties, description=None):
    """Return the text of a file that gives a slice or scope these properties; those without a value are left out."""
    text = HEADER
    if description:
        text += f"[Unit]\nDescription={description}\n\n"
    text += "[Scope]\n" if unit.endswith(".scope") else "[Slice]\n"
    return text + "".join(f"{name}={value}\n" for name, value in properties.items() if value)


def properties_of(text):
    """Return the properties that a unit file of ours gives, as {name: value}."""
    return dict(_PROPERTY.findall(text))


def desired(partition, folder=UNIT_FOLDER):
    """Return {path: text} of every unit file that the plan's C(partition) asks for; an empty partition asks for none."""
    files = {}
    reserved = 0
    for wanted in partition.get("slices") or []:
        low = wanted.get("memory_low_mib") or 0
        reserved += low
        properties = {"AllowedCPUs": wanted["cpus"], "AllowedMemoryNodes": wanted.get("mems"), "MemoryLow": low and f"{low}M"}
        files[os.path.join(folder, wanted["unit"])] = unit_text(
            wanted["unit"], properties, f"CPUs and memory of {wanted['unit'][len('erniki-'):-len('.slice')]}")
    if reserved:
        # The kernel keeps memory for a group only as far as every group above it has it too.
        files[os.path.join(folder, PARENT)] = unit_text(PARENT, {"MemoryLow": f"{reserved}M"}, "The inference engines")
    fence = partition.get("fence")
    for unit in (fence["units"] if fence else []):
        files[os.path.join(folder, unit + ".d", DROP_IN)] = unit_text(unit, {"AllowedCPUs": fence["cpus"]})
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
        # Services have drop-ins of that name from other roles.
        if name.endswith((".slice.d", ".scope.d")):
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


def low_mib(unit, root="/sys/fs/cgroup"):
    """Return the memory in MiB that the kernel keeps for a unit; None where its cgroup does not say."""
    try:
        with open(os.path.join(cgroup_of(unit, root), "memory.low"), encoding="ascii") as stream:
            text = stream.read().strip()
        return None if text == "max" else int(text) >> 20
    except (OSError, ValueError):
        return None


def _granted(unit, properties, root):
    """Say whether the kernel grants a unit what its file says."""
    cpus, low = properties.get("AllowedCPUs"), properties.get("MemoryLow")
    if cpus and effective_cpus(unit, root) != format_cpulist(parse_cpulist(cpus)):
        return False
    return not low or low_mib(unit, root) == int(low.rstrip("M"))


def drifted(want, root="/sys/fs/cgroup"):
    """Return the paths of wanted files whose unit has a cgroup to which the kernel grants something else."""
    return sorted(
        path for path, text in want.items()
        if os.path.isdir(cgroup_of(unit_of(path), root)) and not _granted(unit_of(path), properties_of(text), root))


def assignments(have, want, root="/sys/fs/cgroup"):
    """Return what makes a running unit as its file will be: C(NAME=VALUE) for what it will have, and what takes back the rest.

    The kernel refuses to empty the cpuset of a group with processes (ENOSPC), so that all CPUs, or nodes, take its place until the next boot.
    """
    everything = {name: _line(os.path.join(root, f"cpuset.{file}.effective")) for name, file in (("AllowedCPUs", "cpus"), ("AllowedMemoryNodes", "mems"))}
    properties = properties_of(want)
    return [f"{name}={properties.get(name) or everything.get(name, '')}" for name in sorted(set(properties) | set(properties_of(have)))]


def _line(path):
    """Return the text of a file of one line; empty where it cannot be read."""
    try:
        with open(path, encoding="ascii") as stream:
            return stream.read().strip()
    except OSError:
        return ""


def forget_runtime(unit, words, folder="/run/systemd/system.control"):
    """Remove what C(systemctl set-property --runtime) noted of a unit."""
    place = os.path.join(folder, unit + ".d")
    for word in words:
        try:
            os.unlink(os.path.join(place, f"50-{word.partition('=')[0]}.conf"))
        except FileNotFoundError:
            continue
    try:
        os.rmdir(place)
    except OSError:
        # Not there, or it holds somebody else's.
        pass


def unfenced(partition, root="/sys/fs/cgroup"):
    """Return the top-level slices and scopes with processes that the fence does not hold and that are not ours."""
    fence = partition.get("fence")
    if not fence:
        return []
    found = []
    for name in sorted(os.listdir(root)) if os.path.isdir(root) else []:
        if not name.endswith((".slice", ".scope")) or name in fence["units"] or name == PARENT:
            continue
        try:
            with open(os.path.join(root, name, "cgroup.events"), encoding="ascii") as stream:
                if "populated 1" in stream.read():
                    found.append(name)
        except OSError:
            continue
    return found
