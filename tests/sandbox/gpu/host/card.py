# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The card of a machine that has none: its nodes, its place on the bus, its driver's face, and who uses it.

    card.py up | follow | list | set [LINE ...] | use FILE
"""
from __future__ import annotations

import ctypes
import os
import pathlib
import re
import stat
import subprocess
import sys
import time

CONF = pathlib.Path("/etc/standin-nvidia")
RUN = pathlib.Path("/run/standin-nvidia")
LIBRARY = "libnvidia-ml.so.1"
# NVIDIA's own major number; that of the unified memory is given at run time.
NODES = {"nvidia0": (195, 0), "nvidiactl": (195, 255), "nvidia-uvm": (510, 0)}
PCI = pathlib.Path("/sys/bus/pci/devices")
DRIVER = pathlib.Path("/proc/driver")


def read(name, default=""):
    """Return the value of a key in the card's file."""
    match = re.search(rf"^{name}=(.*)$", (CONF / "base.conf").read_text(encoding="utf-8"), re.MULTILINE)
    return match.group(1).strip() if match else default


def make_nodes(folder=pathlib.Path("/dev")):
    for name, (major, minor) in NODES.items():
        path = folder / name
        if not path.exists():
            os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(major, minor))
            path.chmod(0o666)


def mount(source, target):
    if not os.path.ismount(target):
        subprocess.run(["mount", "--bind", str(source), str(target)], check=True)


def make_bus(devices=PCI, folder=RUN / "pci"):
    """The real devices and the card beside them, over the folder where the kernel lists them."""
    folder.mkdir(parents=True, exist_ok=True)
    for real in devices.iterdir() if not os.path.ismount(devices) else ():
        link = folder / real.name
        if not link.is_symlink():
            link.symlink_to(os.path.realpath(real))
    number = int(read("device_id", "0x1c3110de"), 16)
    card = folder / bus_id(read("bus_id", "00000000:01:00.0"))
    card.mkdir(exist_ok=True)
    for name, value in {"vendor": f"0x{number & 0xffff:04x}", "device": f"0x{number >> 16:04x}", "class": "0x030000"}.items():
        (card / name).write_text(f"{value}\n", encoding="ascii")
    if not (card / "driver").is_symlink():
        (card / "driver").symlink_to("../../drivers/nvidia")
    mount(folder, devices)


def bus_id(text):
    """The kernel's form of NVML's address: four digits of the domain, lower case."""
    domain, bus, rest = text.lower().split(":")
    return f"{int(domain, 16):04x}:{bus}:{rest}"


def make_driver(driver=DRIVER, folder=RUN / "driver"):
    (folder / "nvidia").mkdir(parents=True, exist_ok=True)
    (folder / "nvidia" / "version").write_text(
        f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {read('driver_version')}  Stand-in, no NVIDIA software\n", encoding="ascii")
    mount(folder, driver)


def offer_module():
    """The toolkit's own unit looks for the driver's module among those that are installed."""
    listing = pathlib.Path("/lib/modules") / os.uname().release / "modules.dep"
    text = listing.read_text(encoding="ascii")
    if "/nvidia.ko" not in text:
        listing.write_text(text + "updates/dkms/nvidia.ko:\n", encoding="ascii")


def users(proc=pathlib.Path("/proc")):
    """Return a line for each process of Ollama's stand-in with a model on the card."""
    lines = []
    for comm in proc.glob("[0-9]*/comm"):
        try:
            if comm.read_text(encoding="utf-8") != "llama-server\n":
                continue
            words = (comm.parent / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if "--standin-vram" in words:
            taken = int(words[words.index("--standin-vram") + 1]) >> 20
            if taken:
                lines.append(f"process={comm.parent.name} C {taken} /usr/lib/ollama/llama-server")
    return sorted(lines)


def compose(lines=None):
    """Write what NVML reads; the processes belong to the last card."""
    text = (CONF / "base.conf").read_text(encoding="utf-8").rstrip("\n") + "\n" + "".join(f"{line}\n" for line in (users() if lines is None else lines))
    target = CONF / "card.conf"
    if not target.exists() or target.read_text(encoding="utf-8") != text:
        (CONF / "card.conf.new").write_text(text, encoding="utf-8")
        (CONF / "card.conf.new").rename(target)


def play(lines):
    """Begin the card's file with these lines, in place of those of the last time."""
    base = (CONF / "base.conf").read_text(encoding="utf-8")
    kept = [line for line in base.splitlines() if not re.match(r"(fail|hang|crash)=", line)]
    (CONF / "base.conf").write_text("\n".join([*lines, *kept]) + "\n", encoding="utf-8")
    compose()


def listed(load=ctypes.CDLL):
    """Return (index, name, UUID) of each card as NVML tells them; a text says what it cannot."""
    library = load(LIBRARY)
    code = library.nvmlInit_v2()
    if code:
        library.nvmlErrorString.restype = ctypes.c_char_p
        return f"Failed to initialize NVML: {library.nvmlErrorString(code).decode()}"
    count, found = ctypes.c_uint(), []
    code = library.nvmlDeviceGetCount_v2(ctypes.byref(count))
    for index in range(0 if code else count.value):
        handle, name, uuid = ctypes.c_void_p(), ctypes.create_string_buffer(96), ctypes.create_string_buffer(96)
        code = code or library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle))
        code = code or library.nvmlDeviceGetName(handle, name, 96) or library.nvmlDeviceGetUUID(handle, uuid, 96)
        found.append((index, name.value.decode(), uuid.value.decode()))
    return f"NVML answers {code}" if code else found


def main(words):
    action, rest = words[0] if words else "", words[1:]
    if action == "up":
        for make in (make_nodes, make_bus, make_driver, offer_module, compose):
            make()
    elif action == "follow":
        while True:
            compose()
            time.sleep(1)
    elif action == "set":
        play(rest)
    elif action == "use":
        (CONF / "base.conf").write_text(pathlib.Path(rest[0]).read_text(encoding="utf-8"), encoding="utf-8")
        compose()
        make_driver()
    elif action == "list":
        found = listed()
        if isinstance(found, str):
            print(found)
            return 9
        for index, name, uuid in found:
            print(f"GPU {index}: {name} (UUID: {uuid}) [stand-in, no NVIDIA software]")
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
