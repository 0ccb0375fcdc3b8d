# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for NVIDIA's container runtime, for tests: a container whose variable asks for GPUs gets all nodes, then runc takes over."""
from __future__ import annotations

import json
import os
import stat
import sys


def wanted(environment):
    """As the real one reads it: void beats everything, none asks for no GPU, and an image's own wish counts."""
    asked = [entry.partition("=")[2] for entry in environment if entry.startswith("NVIDIA_VISIBLE_DEVICES=")]
    return bool(asked) and asked[-1] not in ("", "void", "none")


def inject(config, folder="/dev"):
    linux = config.setdefault("linux", {})
    for name in sorted(os.listdir(folder)):
        status = os.stat(os.path.join(folder, name), follow_symlinks=False)
        if name.startswith("nvidia") and stat.S_ISCHR(status.st_mode):
            number = {"major": os.major(status.st_rdev), "minor": os.minor(status.st_rdev)}
            linux.setdefault("devices", []).append({"path": f"/dev/{name}", "type": "c", "fileMode": 0o666, "uid": 0, "gid": 0, **number})
            linux.setdefault("resources", {}).setdefault("devices", []).append({"allow": True, "type": "c", "access": "rwm", **number})


def main(words):
    if "create" in words or "run" in words:
        bundle = "."
        for place, word in enumerate(words):
            if word in ("--bundle", "-b"):
                bundle = words[place + 1]
        path = os.path.join(bundle, "config.json")
        with open(path, encoding="utf-8") as stream:
            config = json.load(stream)
        if wanted((config.get("process") or {}).get("env") or []):
            inject(config)
            with open(path, "w", encoding="utf-8") as stream:
                json.dump(config, stream)
    os.execvp("runc", ["runc", *words])


if __name__ == "__main__":
    main(sys.argv[1:])
