# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The base disk: a new Debian machine, as a file system image with its kernel beside it."""
from __future__ import annotations

import json
import os
import pathlib
import shutil
import time

from sandbox_lib import debian, host
from sandbox_lib.common import SANDBOX, SandboxError, input_hash, is_complete, need_space, remove_tree, run, settle, step

SUITE = "trixie"
ROOT_GIB = 16
MODULES = ["virtio_pci", "virtio_blk", "virtio_net", "ext4"]
# They would take the package lock at times of their own choosing.
MASKED = ["apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer", "dpkg-db-backup.timer"]
# Looks for a hypervisor's socket at every reload, and complains on the console that there is none.
SILENCED = ["systemd-ssh-generator"]


def read_packages(path):
    return [line.strip() for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines() if line.strip() and not line.startswith("#")]


def ensure_key(cache):
    """The one key that opens every machine of this cache."""
    key = cache / "keys" / "id_ed25519"
    if not key.exists() or not key.with_suffix(".pub").exists():
        key.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in (key, key.with_suffix(".pub")):
            path.unlink(missing_ok=True)
        run([host.tool("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", "sandbox", "-f", key])
    return key


def base_name(cache):
    """What the base disk is built from decides its name."""
    here = SANDBOX / "sandbox_lib"
    return input_hash(
        [here / "disk.py", here / "debian.py", SANDBOX / "rootfs", SANDBOX / "base-packages.txt"],
        [SUITE, json.dumps(debian.reach(SUITE)), ensure_key(cache).with_suffix(".pub").read_text(encoding="utf-8")])


def ensure_base(cache):
    """The folder of the base disk, built now when its inputs are new."""
    name = base_name(cache)
    folder = cache / "base" / name
    if is_complete(folder):
        return folder
    need_space(cache, 4, "the base disk")
    work = cache / "tmp" / f"base-{name}"
    remove_tree(work)
    work.mkdir(parents=True)
    log = cache / "log" / "base.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    try:
        with step("base disk: install a new Debian 13 machine"):
            _install(cache, work / "root", log)
        with step("base disk: write its file system"):
            _write(work, log)
        remove_tree(work / "root")
        settle(work, folder)
    finally:
        remove_tree(work)
    return folder


def _install(cache, root, log):
    modules = "/usr/share/initramfs-tools/modules.d/sandbox"
    early = (f'mkdir -p "$1/etc/initramfs-tools/conf.d" "$1{os.path.dirname(modules)}" && echo MODULES=list > "$1/etc/initramfs-tools/conf.d/sandbox" '
             f'&& echo {" ".join(MODULES)} | tr " " "\\n" > "$1{modules}"')
    debian.mmdebstrap(SUITE, root, read_packages(SANDBOX / "base-packages.txt"), log, extra=[f"--essential-hook={early}"])
    debian.add_certificates(root, log)
    for source in sorted((SANDBOX / "rootfs").rglob("*")):
        if source.is_file():
            target = root / source.relative_to(SANDBOX / "rootfs")
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_symlink():
                target.unlink()
            shutil.copyfile(source, target)
            target.chmod(0o644)
            os.chown(target, 0, 0)
    (root / "etc/hostname").write_text("sandbox\n", encoding="utf-8")
    (root / "etc/machine-id").write_text("", encoding="utf-8")
    keys = root / "root/.ssh"
    keys.mkdir(mode=0o700, exist_ok=True)
    shutil.copyfile(ensure_key(cache).with_suffix(".pub"), keys / "authorized_keys")
    (keys / "authorized_keys").chmod(0o600)
    run(["chroot", root, "systemctl", "mask", *MASKED], log=log)
    generators = root / "etc/systemd/system-generators"
    generators.mkdir(parents=True, exist_ok=True)
    for name in SILENCED:
        (generators / name).symlink_to("/dev/null")
    # Nothing was updated since: the first boot need not rebuild what the installation has just built.
    for name in ("etc/.updated", "var/.updated"):
        (root / name).touch()
    run(["chroot", root, "systemctl", "enable", "systemd-networkd.service"], log=log)
    run(["chroot", root, "systemctl", "disable", "systemd-networkd-wait-online.service"], log=log)


def _one(folder, pattern):
    found = sorted(folder.glob(pattern))
    if not found:
        raise SandboxError(f"The new machine has no {pattern} under {folder}.")
    return found[-1]


def _write(work, log):
    root = work / "root"
    shutil.copyfile(_one(root / "boot", "vmlinuz-*"), work / "vmlinuz")
    shutil.copyfile(_one(root / "boot", "initrd.img-*"), work / "initrd.img")
    shutil.copyfile(_one(root / "etc/ssh", "ssh_host_ed25519_key.pub"), work / "ssh_host_ed25519_key.pub")
    write_ext4(root, work / "disk.raw", "root", ROOT_GIB, log)


def write_ext4(source, image, label, gib, log):
    """A file system image (sparse) with the content of a folder."""
    with open(image, "wb") as stream:
        stream.truncate(gib * 2**30)
    command = [host.tool("mkfs.ext4"), "-q", "-F", "-L", label, "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=1", "-O", "^metadata_csum_seed"]
    if source is not None:
        command += ["-d", source]
    run([*command, image], log=log)


def prune(cache, kind, keep):
    """Drop built folders that no machine stands on any more."""
    used = {keep}
    for path in (cache / "vms").glob("*/state.json"):
        try:
            used.add(json.loads(path.read_text(encoding="utf-8")).get(kind))
        except (OSError, ValueError):
            continue
    for folder in (cache / kind).glob("*"):
        # What was used within the hour may belong to a machine that is being created.
        if folder.name not in used and time.time() - folder.stat().st_mtime > 3600:
            remove_tree(folder)
