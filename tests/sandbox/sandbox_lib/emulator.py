# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The emulator: QEMU of Debian 13, unpacked into the cache and run from there.

Not the build machine's own: QEMU before 8.1 can keep translated code that the guest's kernel has just patched
(tb_gen_code read a page without locking it), and a busy guest with many CPUs then dies of "Oops: int3". Debian 12 has 7.2.
And like this the machine is the same wherever it is built, and nothing is installed for it.
"""
from __future__ import annotations

from sandbox_lib import debian
from sandbox_lib.common import run

SUITE = "trixie"
PACKAGES = ["qemu-system-x86", "qemu-utils"]
LIBRARIES = "usr/lib/x86_64-linux-gnu"
# Parts of those packages that a machine without a screen has no use for.
UNUSED = ["usr/share/doc", "usr/share/locale", "usr/share/man", "var", "etc", f"{LIBRARIES}/gconv", f"{LIBRARIES}/perl-base"]


def ensure(cache):
    """The folder of the emulator, unpacked now when it is not there."""
    log = cache / "log" / "qemu.log"
    return debian.unpacked(cache, "qemu", SUITE, PACKAGES, UNUSED, lambda root: run([*program(root, "qemu-system-x86_64"), "--version"], log=log))


def program(folder, name):
    """A program of the unpacked tree, with its own loader and libraries: it needs nothing of the host's."""
    libraries = folder / LIBRARIES
    return [libraries / "ld-linux-x86-64.so.2", "--library-path", libraries, folder / "usr/bin" / name]


def system(folder):
    """QEMU itself, with its modules and firmware; (command, environment)."""
    return ([*program(folder, "qemu-system-x86_64"), "-L", folder / "usr/share/qemu", "-L", folder / "usr/share/seabios"],
            {"QEMU_MODULE_DIR": str(folder / LIBRARIES / "qemu")})
