# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Control groups of either version: where a process is, and what the kernel holds its group to."""
from __future__ import annotations

import errno
import json
import os
import select
import shutil
import signal
import stat
import tempfile
import time

from ansible_collections.erni_ki.inference.plugins.module_utils._procs import Unreadable, join, parse_fields, read_text

# The number that stands for "no limit" in version 1 depends on the page size; nothing real is near it.
UNLIMITED = 1 << 60

# Folders that may hold a device node for a moment; the first whose file system knows devices is taken.
PROBE_FOLDERS = ("/dev", "/run", "/root", "/var/lib")


class Group:
    """A control group in one hierarchy: its version, its path in it, and its folder."""

    def __init__(self, root, version, path, folder):
        self.root = root
        self.version = version
        self.path = path
        self.folder = folder

    def file(self, name):
        return f"{self.folder}/{name}"

    def read(self, name):
        return read_text(self.root, self.file(name)).strip()

    def read_first(self, *names):
        """Return (name, text) of the first of these files that exists."""
        missing = None
        for name in names:
            try:
                return name, self.read(name)
            except Unreadable as error:
                if not error.gone:
                    raise
                missing = missing or error
        raise missing

    def parent(self):
        """Return the group above, or None at the top."""
        if self.path == "/":
            return None
        return Group(self.root, self.version, os.path.dirname(self.path), os.path.dirname(self.folder))

    def cut(self, mark):
        """Return the group whose own name holds the mark, this one or one above; None without."""
        group = self
        while group is not None and mark not in os.path.basename(group.path):
            group = group.parent()
        return group

    def pids(self):
        """Return the processes in this group and below it."""
        found = set()
        for folder, _folders, files in os.walk(join(self.root, self.folder)):
            if "cgroup.procs" not in files:
                continue
            try:
                with open(os.path.join(folder, "cgroup.procs"), encoding="ascii") as handle:
                    found.update(int(line) for line in handle.read().split())
            except OSError as error:
                # Gone meanwhile, or a threaded group, whose processes the group above lists.
                if error.errno not in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
                    raise Unreadable(f"{self.folder}/cgroup.procs", error.strerror or str(error)) from error
        return found


class Groups:
    """The hierarchies of a host."""

    def __init__(self, root="/"):
        self.root = root
        self.unified = None     # (mount point, root of the mount)
        self.legacy = {}        # controller, or name=systemd: (mount point, root of the mount)
        self._parse(read_text(root, "/proc/self/mountinfo"))

    def _parse(self, text):
        for line in text.splitlines():
            fields, dash, rest = line.partition(" - ")
            fields, rest = fields.split(), rest.split()
            if not dash or len(fields) < 5 or len(rest) < 3:
                continue
            mount = (_unescape(fields[4]), _unescape(fields[3]))
            if rest[0] == "cgroup2":
                self.unified = self.unified or mount
            elif rest[0] == "cgroup":
                for option in rest[2].split(","):
                    self.legacy.setdefault(option, mount)

    def version_of(self, controller):
        """Return 1 or 2: which version serves this controller here."""
        return 1 if controller in self.legacy else 2

    def of_process(self, pid, controller):
        """Return the Group a process is in, in the hierarchy that serves the controller."""
        path = f"/proc/{pid}/cgroup"
        version = self.version_of(controller)
        for line in read_text(self.root, path).splitlines():
            fields = line.split(":", 2)
            if len(fields) != 3:
                continue
            number, controllers, name = fields
            if controller in controllers.split(",") if version == 1 else number == "0" and not controllers:
                return self.at(name, controller)
        raise Unreadable(path, f"it names no group for {controller}")

    def at(self, path, controller):
        """Return the Group of that path in the hierarchy that serves the controller."""
        mount = self.legacy.get(controller, self.unified)
        if mount is None:
            raise Unreadable("/proc/self/mountinfo", f"no control groups that serve {controller} are mounted")
        point, top = mount
        if path.startswith("/.."):
            raise Unreadable("/proc/self/cgroup", f"the group {path} is outside of what can be seen from here (run on the host, not in a container)")
        if top != "/" and (path + "/").startswith(top + "/"):
            path = path[len(top):] or "/"
        return Group(self.root, self.version_of(controller), path, (point + path).rstrip("/") or "/")

    def of_unit(self, unit, controller):
        """Return the Group of a systemd slice or scope at the top: C(a-b.slice) lies in C(a.slice)."""
        return self.at(unit_path(unit), controller)

    def exists(self, group):
        return os.path.isdir(join(self.root, group.folder))


def unit_path(unit):
    """Return where systemd puts a slice (or a unit of the root slice)."""
    name, dot, kind = unit.rpartition(".")
    if kind != "slice" or not dot:
        return f"/{unit}"
    parts = name.split("-")
    return "/" + "/".join("-".join(parts[:end]) + ".slice" for end in range(1, len(parts) + 1))


def _unescape(text):
    return text.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")


def effective_cpus(group):
    """Return (file, CPU list) that the kernel holds the group to."""
    return _effective(group, "cpus")


def effective_mems(group):
    """Return (file, list of NUMA nodes) that the kernel holds the group to."""
    return _effective(group, "mems")


def _effective(group, what):
    if group.version == 2:
        names = (f"cpuset.{what}.effective",)
    else:
        names = (f"cpuset.effective_{what}", f"cpuset.{what}")
    name, text = group.read_first(*names)
    return group.file(name), text


def parse_bytes(text):
    """Return a number of bytes, or None for no limit."""
    if text == "max":
        return None
    number = int(text)
    return None if number >= UNLIMITED else number


def memory_limit(group):
    name = "memory.max" if group.version == 2 else "memory.limit_in_bytes"
    return group.file(name), parse_bytes(group.read(name))


def memory_reservation(group):
    name = "memory.low" if group.version == 2 else "memory.soft_limit_in_bytes"
    return group.file(name), parse_bytes(group.read(name))


def swap_limit(group):
    """Return (file, bytes of memory and swap together); version 2 counts the swap alone."""
    if group.version == 1:
        name = "memory.memsw.limit_in_bytes"
        return group.file(name), parse_bytes(group.read(name))
    swap = parse_bytes(group.read("memory.swap.max"))
    memory = parse_bytes(group.read("memory.max"))
    return group.file("memory.swap.max"), None if swap is None or memory is None else swap + memory


def oom_kills(group):
    """Return (file, how many processes of the group the kernel has killed for memory)."""
    name = "memory.events" if group.version == 2 else "memory.oom_control"
    fields = parse_fields(group.read(name).replace(" ", ":"))
    if "oom_kill" not in fields:
        raise Unreadable(group.file(name), "this kernel does not count oom_kill there")
    return group.file(name), int(fields["oom_kill"])


def granted_by_list(text, majors):
    """Return the lines of a devices.list (version 1) that let its group read or write character devices of these majors."""
    found = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        kind, device, access = fields[:3]
        major = device.split(":")[0]
        if kind in ("a", "c") and (major == "*" or major.isdigit() and int(major) in majors) and set(access) & set("rw"):
            found.append(line.strip())
    return found


def granted_device(text, major, minor):
    """True when a devices.list (version 1) lets its group read and write this character device."""
    rights = set()
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 3 or fields[0] not in ("a", "c"):
            continue
        numbers = fields[1].split(":")
        if numbers[0] in ("*", str(major)) and numbers[-1] in ("*", str(minor)):
            rights |= set(fields[2])
    return {"r", "w"} <= rights


class ProbeImpossible(Exception):
    """Whether a group may open a device cannot be found out here; the text says why."""


def _node_without_a_name(major, minor, folders):
    """Return a handle of a character device node that exists nowhere any more.

    The node is made in a folder that only root can enter and removed at once; the handle alone (O_PATH does not open the
    device) keeps it. So nobody else can ever use it, and nothing stays behind.
    """
    reasons = []
    for folder in folders:
        try:
            if os.statvfs(folder).f_flag & getattr(os, "ST_NODEV", 4):
                reasons.append(f"{folder} is mounted nodev")
                continue
            place = tempfile.mkdtemp(prefix=".erni-ki-", dir=folder)
        except OSError as error:
            reasons.append(f"{folder}: {error.strerror}")
            continue
        try:
            node = os.path.join(place, "node")
            os.mknod(node, 0o600 | stat.S_IFCHR, os.makedev(major, minor))
            return os.open(node, os.O_PATH | os.O_CLOEXEC)
        except OSError as error:
            reasons.append(f"{folder}: {error.strerror}")
        finally:
            shutil.rmtree(place, ignore_errors=True)
    raise ProbeImpossible("no device node can be made: " + "; ".join(reasons))


def _try_open(handle):
    """Return 0, or the error number, of opening what the handle stands for."""
    try:
        os.close(os.open(f"/proc/self/fd/{handle}", os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC))
        return 0
    except OSError as error:
        return error.errno


def _visit(procs, handles, writer):
    """What the child does: volunteer as the first victim, join the group, try each device, tell."""
    try:
        # Were the group at its memory limit, this child and not the service must be the one to die.
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as handle:
            handle.write("1000")
        os.write(procs, b"0")
        said = {"tried": [_try_open(handle) for handle in handles]}
    except OSError as error:
        said = {"error": error.strerror or str(error)}
    os.write(writer, json.dumps(said).encode("ascii"))


def _reap(pid, deadline):
    """Wait for the child; one that is still there at the deadline is killed."""
    while True:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return
        if time.monotonic() >= deadline:
            os.kill(pid, signal.SIGKILL)
            deadline = float("inf")
        time.sleep(0.005)


def _ask_from_inside(folder, handles, timeout):
    try:
        procs = os.open(os.path.join(folder, "cgroup.procs"), os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ProbeImpossible(f"{folder}/cgroup.procs cannot be written: {error.strerror}") from error
    reader, writer = os.pipe()
    try:
        pid = os.fork()
        if pid == 0:
            try:
                _visit(procs, handles, writer)
            finally:
                # No handler, no buffer of the parent runs in here.
                os._exit(0)
        deadline = time.monotonic() + timeout
        ready = select.select([reader], [], [], timeout)[0]
        said = os.read(reader, 65536) if ready else b""
        _reap(pid, deadline if ready else 0)
    finally:
        for handle in (procs, reader, writer):
            os.close(handle)
    if not said:
        raise ProbeImpossible(f"the probe gave no answer within {timeout:g} s")
    answer = json.loads(said.decode("ascii"))
    if "error" in answer:
        raise ProbeImpossible(f"the probe could not join {folder}: {answer['error']}")
    return answer["tried"]


def probe_devices(folder, numbers, paths=(), timeout=10.0, node_folders=PROBE_FOLDERS):
    """Find out, by trying, whether a group of version 2 may open character devices.

    In version 2 the permission is a program in the kernel that no file shows. So a child of this process joins the
    group, tries to open a nameless node of each number and each of the existing nodes, and ends at once. The kernel
    refuses with EPERM before any driver is asked; every other outcome (also ENXIO: no such hardware) means permitted.

    Returns [(what, granted)] in the order asked. ProbeImpossible when that cannot be told.
    """
    handles, labels = [], []
    try:
        for major, minor in numbers:
            handles.append(_node_without_a_name(major, minor, node_folders))
            labels.append(f"character device {major}:{minor}")
            # The counter-test: refused here as well, the refusal in there would prove nothing.
            outside = _try_open(handles[-1])
            if outside in (errno.EPERM, errno.EACCES):
                raise ProbeImpossible(f"{labels[-1]} cannot be opened outside of the container either ({os.strerror(outside)})")
        for path in paths:
            try:
                handles.append(os.open(path, os.O_PATH | os.O_CLOEXEC))
                labels.append(path)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise ProbeImpossible(f"{path}: {error.strerror}") from error
        tried = _ask_from_inside(folder, handles, timeout)
    finally:
        for handle in handles:
            os.close(handle)
    for label, outcome in zip(labels, tried):
        if outcome == errno.EACCES:
            raise ProbeImpossible(f"{label}: access is refused by something other than the control group")
    return [(label, outcome != errno.EPERM) for label, outcome in zip(labels, tried)]
