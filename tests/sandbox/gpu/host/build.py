# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds what makes a machine look as if it had an NVIDIA card; see README.md.

    build.py --output FOLDER
"""
from __future__ import annotations

import argparse
import contextlib
import email.utils
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
VERSIONS = ("1.17.9", "1.19.1")
# The first version whose base package has units that keep the specification fresh.
UNITS_SINCE = (1, 18)
LIBRARIES = "usr/lib/x86_64-linux-gnu"
PLACE = "srv/standin-nvidia"
MAINTAINER = "The erni_ki.inference team <noreply@example.invalid>"

# package: (what it depends on, what it says it is). @ is its own version.
PACKAGES = {
    "libnvidia-container1": ("", "stand-in for a library, empty"),
    "libnvidia-container-tools": ("libnvidia-container1 (>= @)", "stand-in for a tool, empty"),
    "nvidia-container-toolkit-base": ("python3", "stand-in for nvidia-ctk and the runtime"),
    "nvidia-container-toolkit": ("nvidia-container-toolkit-base (= @), libnvidia-container-tools (= @)", "stand-in for the runtime's hook, empty"),
}


class BuildError(Exception):
    pass


def run(command, **options):
    """Run a program; what it printed is in the error when it fails."""
    try:
        done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options)
    except FileNotFoundError as error:
        raise BuildError(f"{command[0]} is not on this machine; the stand-in needs a C compiler (cc), dpkg-deb and gpg.") from error
    if done.returncode:
        raise BuildError(f"{' '.join(str(word) for word in command)}: exit code {done.returncode}\n{done.stdout}")
    return done.stdout


def write(path, text, mode=0o644):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


def source(name):
    return (HERE / name).read_text(encoding="utf-8")


# -- packages -------------------------------------------------------------------

def has_units(version):
    return tuple(int(part) for part in version.split(".")[:2]) >= UNITS_SINCE


def package_tree(root, name, version):
    """The files of one package, ready for dpkg-deb."""
    full, (depends, what) = f"{version}-1", PACKAGES[name]
    fields = {"Package": name, "Version": full, "Architecture": "amd64", "Maintainer": MAINTAINER, "Section": "utils", "Priority": "optional",
              "Depends": depends.replace("@", full),
              "Description": f"{what} (stand-in for tests)\n This is not NVIDIA's package. It is part of the tests of erni_ki.inference."}
    write(root / "DEBIAN" / "control", "".join(f"{key}: {value}\n" for key, value in fields.items() if value))
    write(root / "usr/share/doc" / name / "README", f"{name} {full}: {what}. Not NVIDIA's package; part of the tests of erni_ki.inference.\n")
    if name == "nvidia-container-toolkit-base":
        for program in ("nvidia-ctk", "nvidia-container-runtime"):
            write(root / "usr/bin" / program, "#!/usr/bin/python3\n" + source(f"toolkit/{program}.py").replace("@VERSION@", version), 0o755)
        if has_units(version):
            units = ["nvidia-cdi-refresh.service", "nvidia-cdi-refresh.path"]
            for unit in units:
                write(root / "etc/systemd/system" / unit, source(f"toolkit/{unit}"))
            write(root / "DEBIAN/conffiles", "".join(f"/etc/systemd/system/{unit}\n" for unit in units))
        write(root / "DEBIAN/postinst", source("toolkit/postinst"), 0o755)
    for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        folder.chmod(0o755)


def build_packages(output, work):
    """Return {version: [files]}."""
    output.mkdir(parents=True)
    built = {}
    for version in VERSIONS:
        for name in PACKAGES:
            tree = work / f"{name}-{version}"
            package_tree(tree, name, version)
            target = output / f"{name}_{version}-1_amd64.deb"
            run(["dpkg-deb", "--root-owner-group", "--build", tree, target])
            built.setdefault(version, []).append(target)
    return built


# -- the repository -------------------------------------------------------------

def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def index_of(files):
    """The text of Packages: each package's own fields, and where it lies."""
    parts = []
    for file in files:
        control = run(["dpkg-deb", "--field", file]).strip()
        parts.append(f"{control}\nFilename: ./{file.name}\nSize: {file.stat().st_size}\nSHA256: {sha256(file)}\n")
    return "\n".join(parts)


def release_of(index, now=None):
    """The text of Release for a flat repository with one index."""
    data = index.encode()
    return (
        "Origin: erni_ki.inference stand-in\nLabel: stand-in for tests, no NVIDIA software\nSuite: stable\nCodename: stable\nArchitectures: amd64\n"
        f"Date: {email.utils.formatdate(now, usegmt=True).replace('GMT', 'UTC')}\nSHA256:\n {hashlib.sha256(data).hexdigest()} {len(data)} Packages\n")


@contextlib.contextmanager
def keyring(work):
    """A folder for throwaway keys; their agent ends with it."""
    # The agent's socket has a short path or none.
    home = pathlib.Path(tempfile.mkdtemp(prefix="gpg-", dir=work if len(str(work)) < 60 else None))
    home.chmod(0o700)

    def gpg(*words, **options):
        return run(["gpg", "--homedir", home, "--batch", "--yes", "--quiet", "--no-tty", "--passphrase", "", "--pinentry-mode", "loopback", *words], **options)
    try:
        yield gpg
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        shutil.rmtree(home, ignore_errors=True)


def build_repository(folder, files, gpg, key):
    folder.mkdir(parents=True)
    for file in files:
        shutil.copyfile(file, folder / file.name)
    index = index_of(files)
    write(folder / "Packages", index)
    write(folder / "Release", release_of(index))
    gpg("--local-user", key, "--clearsign", "--output", folder / "InRelease", folder / "Release")
    gpg("--local-user", key, "--detach-sign", "--armor", "--output", folder / "Release.gpg", folder / "Release")


def tamper(folder):
    """Change an index after it was signed."""
    for name in ("InRelease", "Release"):
        text = (folder / name).read_text(encoding="utf-8")
        write(folder / name, text.replace("Label: stand-in", "Label: changed "))


# -- the machine ----------------------------------------------------------------

def build_root(root, files, gpg, keys, card):
    """What is unpacked on the machine's /."""
    driver = next(line.partition("=")[2] for line in card.read_text(encoding="utf-8").splitlines() if line.startswith("driver_version="))
    library = root / LIBRARIES / f"libnvidia-ml.so.{driver}"
    library.parent.mkdir(parents=True)
    run(["cc", "-shared", "-fPIC", "-O1", "-Wl,-soname,libnvidia-ml.so.1", "-o", library, HERE.parent / "nvml.c"])
    library.chmod(0o644)
    (root / LIBRARIES / "libnvidia-ml.so.1").symlink_to(library.name)
    write(root / "usr/local/lib/standin-nvidia/card.py", source("card.py"))
    write(root / "usr/bin/nvidia-smi", "#!/bin/sh\n# No NVIDIA software: the stand-in of erni_ki.inference's tests.\n"
                                       "exec /usr/bin/python3 -IB /usr/local/lib/standin-nvidia/card.py list\n", 0o755)
    write(root / "etc/systemd/system/standin-nvidia.service", source("standin-nvidia.service"))
    write(root / "etc/standin-nvidia/base.conf", card.read_text(encoding="utf-8"))
    for other in sorted(card.parent.glob("*.conf")):
        write(root / PLACE / "cards" / other.name, other.read_text(encoding="utf-8"))
    for kind in ("stable", "tampered"):
        build_repository(root / PLACE / kind / "deb/amd64", files, gpg, keys["key"])
    tamper(root / PLACE / "tampered/deb/amd64")


def pack(root, target):
    def plain(entry):
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = "root"
        # Unpacking must not change the folders that the machine has.
        return None if entry.isdir() else entry
    with tarfile.open(target, "w") as archive:
        for path in sorted(root.rglob("*")):
            archive.add(path, arcname=str(path.relative_to(root)), recursive=False, filter=plain)


def build(output, card=HERE.parent / "cards" / "quadro-p2200.conf"):
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="standin-") as name:
        work = pathlib.Path(name)
        built = build_packages(output / "packages", work)
        files = [file for group in built.values() for file in group]
        with keyring(work) as gpg:
            keys = {}
            for key in ("key", "foreign-key"):
                keys[key] = f"erni_ki.inference {key} (throwaway, no NVIDIA software) <{key}@example.invalid>"
                gpg("--quick-generate-key", keys[key], "ed25519", "sign", "never")
                write(output / f"{key}.asc", gpg("--armor", "--export", f"={keys[key]}"))
            build_root(work / "root", files, gpg, keys, card)
        for key in keys:
            write(work / "root" / PLACE / f"{key}.asc", (output / f"{key}.asc").read_text(encoding="utf-8"))
        pack(work / "root", output / "root.tar")
    sums = {version: [{"path": str(file), "sha256": sha256(file)} for file in group] for version, group in built.items()}
    write(output / "packages.json", json.dumps(sums, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description="Builds what makes a machine look as if it had an NVIDIA card.")
    parser.add_argument("--output", required=True, type=pathlib.Path, help="a folder, made anew")
    options = parser.parse_args()
    os.umask(0o022)
    try:
        build(options.output.resolve())
    except BuildError as error:
        sys.exit(f"stand-in: {error}")


if __name__ == "__main__":
    main()
