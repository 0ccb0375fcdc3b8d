# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes and their threads, as /proc shows them.

Everything takes the folder that stands for the host's root, so that recorded trees can be read. Processes come and go
while one looks: one that is gone is None, never an error.
"""
from __future__ import annotations

import errno
import functools
import os

from ansible_collections.erni_ki.inference.plugins.module_utils._cpulist import parse_cpulist

PF_KTHREAD = 0x00200000

_GONE = (errno.ENOENT, errno.ESRCH, errno.ENOTDIR)


class Unreadable(Exception):
    """A file of the kernel cannot be read, or does not say what it should."""

    def __init__(self, path, reason, gone=False):
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.gone = gone


def join(root, path):
    """Return the path below the folder that stands for the root."""
    return os.path.join(root, path.lstrip("/"))


def read_text(root, path):
    """Return the text of a file; Unreadable, under the path that the host knows, when there is none."""
    try:
        with open(join(root, path), "rb") as handle:
            return handle.read().decode("utf-8", "replace")
    except OSError as error:
        hint = "; run with become: true" if error.errno in (errno.EACCES, errno.EPERM) else ""
        raise Unreadable(path, (error.strerror or str(error)) + hint, gone=error.errno in _GONE) from error


def list_pids(root):
    """Return the numbers of all processes."""
    try:
        names = os.listdir(join(root, "/proc"))
    except OSError as error:
        raise Unreadable("/proc", error.strerror or str(error)) from error
    return sorted(int(name) for name in names if name.isdigit())


def parse_fields(text):
    """Return C(Name: value) lines as a dict; /proc/PID/status is made of them."""
    fields = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            fields[name] = value.strip()
    return fields


def is_kernel_thread(stat):
    """True when the flags in /proc/PID/stat say so; the name before them may hold blanks and parentheses."""
    fields = stat.rpartition(")")[2].split()
    return len(fields) > 6 and bool(int(fields[6]) & PF_KTHREAD)


@functools.lru_cache(maxsize=4096)
def cpus_of(text):
    """Return a CPU list as a set; a host has thousands of threads and a handful of different lists."""
    return frozenset(parse_cpulist(text))


class Thread:
    """One thread: its number, its name and the CPUs it may run on."""

    def __init__(self, tid, comm, cpus):
        self.tid = tid
        self.comm = comm
        self.cpus = cpus


class Process:
    """One process: the fields of its status, and its threads."""

    def __init__(self, pid, status, threads):
        self.pid = pid
        self.status = status
        self.comm = status.get("Name", "?")
        self.threads = threads


def read_threads(root, pid):
    """Return the threads of a process; those that end meanwhile are left out."""
    folder = f"/proc/{pid}/task"
    try:
        tids = sorted(int(name) for name in os.listdir(join(root, folder)) if name.isdigit())
    except OSError as error:
        raise Unreadable(folder, error.strerror or str(error), gone=error.errno in _GONE) from error
    threads = []
    for tid in tids:
        path = f"{folder}/{tid}/status"
        try:
            fields = parse_fields(read_text(root, path))
        except Unreadable as error:
            if error.gone:
                continue
            raise
        if fields.get("State", "")[:1] in ("Z", "X"):
            continue
        if "Cpus_allowed_list" not in fields:
            raise Unreadable(path, "there is no Cpus_allowed_list in it")
        threads.append(Thread(tid, fields.get("Name", "?"), cpus_of(fields["Cpus_allowed_list"])))
    return threads


def read_process(root, pid):
    """Return the Process, or None for one that is gone or dead (a zombie runs nowhere)."""
    try:
        status = parse_fields(read_text(root, f"/proc/{pid}/status"))
        if status.get("State", "")[:1] in ("Z", "X"):
            return None
        return Process(pid, status, read_threads(root, pid))
    except Unreadable as error:
        if error.gone:
            return None
        raise


def read_environ(root, pid):
    """Return the environment that a process was started with."""
    variables = {}
    for entry in read_text(root, f"/proc/{pid}/environ").split("\0"):
        name, sign, value = entry.partition("=")
        if sign:
            variables[name] = value
    return variables


def read_sockets(root, pid):
    """Return the inodes of the sockets that a process has open; none of one that is gone."""
    folder = f"/proc/{pid}/fd"
    found = set()
    try:
        for name in os.listdir(join(root, folder)):
            try:
                target = os.readlink(join(root, f"{folder}/{name}"))
            except FileNotFoundError:
                continue
            if target.startswith("socket:["):
                found.add(target[len("socket:["):-1])
    except OSError as error:
        if error.errno not in _GONE:
            raise Unreadable(folder, (error.strerror or str(error)) + "; run with become: true") from error
    return found


def read_arguments(root, pid):
    """Return the command line of a process; empty for one that has none any more."""
    return read_text(root, f"/proc/{pid}/cmdline").split("\0")[:-1]


def siblings_of(root, cpu):
    """Return the logical CPUs of the core that a CPU is on; itself where the kernel does not tell."""
    for name in ("core_cpus_list", "thread_siblings_list"):
        try:
            return cpus_of(read_text(root, f"/sys/devices/system/cpu/cpu{cpu}/topology/{name}").strip())
        except (Unreadable, ValueError):
            continue
    return frozenset([cpu])
