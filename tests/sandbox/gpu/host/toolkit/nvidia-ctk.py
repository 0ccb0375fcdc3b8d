# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for NVIDIA's nvidia-ctk, for tests: it knows what a CDI specification needs, asks NVML, and fails as NVML does."""
from __future__ import annotations

import glob
import importlib.util
import os
import re
import sys

VERSION = "@VERSION@"
CARD = "/usr/local/lib/standin-nvidia/card.py"
FOLDERS = ("/etc/cdi", "/var/run/cdi")
LIBRARIES = "/usr/lib/x86_64-linux-gnu"


def fail(text):
    print(f'level=error msg="{text}"', file=sys.stderr)
    return 1


def cards():
    sys.dont_write_bytecode = True
    spec = importlib.util.spec_from_file_location("card", CARD)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.listed()


def node(path, depth):
    pad = " " * depth
    return f"{pad}- path: {path}\n{pad}  hostPath: {path}\n"


def mount(host, inside, depth=8, options=("ro", "nosuid", "nodev", "rbind", "rprivate")):
    pad = " " * depth
    return f"{pad}- hostPath: {host}\n{pad}  containerPath: {inside}\n{pad}  options:\n" + "".join(f"{pad}    - {option}\n" for option in options)


def specification(found, library):
    """The text of a specification: one device for each name of each card, and what all of them need."""
    names = [(str(index), index) for index, _name, _uuid in found] + [(uuid, index) for index, _name, uuid in found]
    text = "---\ncdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n"
    for name, indexes in [(name, [index]) for name, index in names] + [("all", [index for index, _name, _uuid in found])]:
        text += f'    - name: "{name}"\n      containerEdits:\n        deviceNodes:\n'
        text += "".join(node(f"/dev/nvidia{index}", 12) for index in indexes)
    text += "containerEdits:\n    env:\n        - NVIDIA_VISIBLE_DEVICES=void\n    deviceNodes:\n"
    text += "".join(node(path, 8) for path in ("/dev/nvidiactl", "/dev/nvidia-uvm") if os.path.exists(path))
    text += "    mounts:\n" + mount(library, library) + mount(library, f"{LIBRARIES}/libnvidia-ml.so.1")
    # What the stand-in library reads; a real driver has no such file.
    return text + mount("/etc/standin-nvidia", "/etc/standin-nvidia")


def generate(words):
    output = os.environ.get("NVIDIA_CTK_CDI_OUTPUT_FILE_PATH", "")
    for place, word in enumerate(words):
        if word.startswith("--output="):
            output = word.partition("=")[2]
        elif word == "--output":
            output = words[place + 1]
        elif not words[place - 1] == "--output":
            return fail(f"the stand-in does not know the option {word}")
    found = cards()
    if isinstance(found, str):
        return fail(f"failed to generate CDI spec: failed to initialize NVML: {found}")
    libraries = [path for path in glob.glob(f"{LIBRARIES}/libnvidia-ml.so.*.*") if re.search(r"\.so\.\d+\.\d+", path)]
    if not libraries or not found:
        return fail("failed to generate CDI spec: no devices, or no library of the driver")
    text = specification(found, libraries[0])
    if not output:
        print(text, end="")
        return 0
    os.makedirs(os.path.dirname(output), exist_ok=True)
    with open(f"{output}.new", "w", encoding="utf-8") as stream:
        stream.write(text)
    os.replace(f"{output}.new", output)
    print('level=info msg="Generated CDI spec with version 0.5.0 (stand-in)"', file=sys.stderr)
    return 0


def names():
    for folder in FOLDERS:
        for path in sorted(glob.glob(f"{folder}/*.yaml")):
            with open(path, encoding="utf-8") as stream:
                yield from re.findall(r'^    - name: "?([^"\n]+)"?$', stream.read(), re.MULTILINE)


def main(words):
    if "--version" in words or "-v" in words:
        print(f"NVIDIA Container Toolkit CLI version {VERSION}\ncommit: stand-in of erni_ki.inference, no NVIDIA software")
        return 0
    if words[:2] == ["cdi", "generate"]:
        return generate(words[2:])
    if words[:2] == ["cdi", "list"]:
        for name in names():
            print(f"nvidia.com/gpu={name}")
        return 0
    return fail(f"the stand-in does not know: {' '.join(words)}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
