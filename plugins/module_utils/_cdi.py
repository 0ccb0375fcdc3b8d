# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Container Device Interface (CDI) specifications from which Docker takes devices."""
from __future__ import annotations

import json
import os
import re

try:
    import yaml
except ImportError:
    yaml = None

# In the order of their weight: a device in the first hides one of the same name in the second.
FOLDERS = ("/var/run/cdi", "/etc/cdi")
GPU = "nvidia.com/gpu"

# The container toolkit writes the driver's version into a hook's arguments; older ones only mount the driver's libraries.
_HOST_DRIVER = re.compile(r"--host-driver-version[= ]['\"]?(\d+(?:\.\d+)+)")
_LIBRARY = re.compile(r"/lib(?:cuda|nvidia-ml)\.so\.(\d{2,}(?:\.\d+)+)\b")


def scan_yaml(text):
    """Return (kind, device names) of a specification in block style, as C(nvidia-ctk) writes it, for hosts without PyYAML."""
    kind, names, section, item, inner = None, [], None, None, None
    for line in text.splitlines():
        words = line.strip()
        if not words or words.startswith(("#", "---")):
            continue
        column = len(line) - len(line.lstrip())
        if column == 0 and not words.startswith("- "):
            section, _colon, value = words.partition(":")
            item = None
            kind = _plain(value) if section == "kind" else kind
        if section != "devices":
            continue
        if words.startswith("- ") and item in (None, column):
            item, words = column, words[2:].lstrip()
            inner = column = line.index(words, column + 1)
        if item is not None and column == inner and words.startswith("name:"):
            names.append(_plain(words[5:]))
    return kind, names


def _plain(value):
    value = re.sub(r"\s+#.*$", "", value.strip())
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value


def parse(text, is_json, loader=yaml):
    """Return (kind, device names); ValueError for what is no specification."""
    if not is_json and loader is None:
        return scan_yaml(text)
    try:
        spec = json.loads(text) if is_json else loader.safe_load(text)
    except Exception as error:
        # PyYAML's errors are no ValueErrors.
        raise ValueError(str(error)) from error
    if not isinstance(spec, dict) or not isinstance(spec.get("devices") or [], list):
        raise ValueError("it is no specification")
    devices = [device for device in spec.get("devices") or [] if isinstance(device, dict)]
    return spec.get("kind"), [str(device["name"]) for device in devices if device.get("name") is not None]


def driver_version(text):
    """Return the version of the driver a specification was written for, or None."""
    match = _HOST_DRIVER.search(text) or _LIBRARY.search(text)
    return match.group(1) if match else None


def _folder(root, folder):
    """Return where a folder lies below the root: in a dump, the link /var/run would lead out of it."""
    if folder.startswith("/var/run/") and os.path.islink(os.path.join(root.path, "var/run")):
        folder = folder[4:]
    return folder[1:]


def gpus(root):
    """Return what the host's specifications say of NVIDIA's GPUs; C(root) is a SysRoot. A file that is no specification is passed over, as Docker does."""
    result = {"cdi_spec": None, "cdi_devices": [], "cdi_driver_version": None}
    for folder in FOLDERS:
        place = _folder(root, folder)
        for name in root.names(place):
            text = root.text(f"{place}/{name}") if name.endswith((".yaml", ".json")) else None
            try:
                kind, names = parse(text or "", name.endswith(".json"))
            except ValueError:
                continue
            if kind != GPU:
                continue
            if result["cdi_spec"] is None:
                result.update(cdi_spec=f"{folder}/{name}", cdi_driver_version=driver_version(text))
            result["cdi_devices"] += [f"{GPU}={device}" for device in names if f"{GPU}={device}" not in result["cdi_devices"]]
    return result
