# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which GPU there is, as far as the kernel and NVML let a process see."""
from __future__ import annotations

import ctypes
import errno
import glob
import os


def refused(path):
    """True where the device permission is missing; a node without a driver behind it is another matter."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
    except OSError as error:
        return error.errno in (errno.EPERM, errno.EACCES)
    return False


def uuids(library):
    """What NVML answers; nothing where it answers with an error, as CUDA would then find nothing."""
    count, found = ctypes.c_uint(), []
    if library.nvmlInit_v2() or library.nvmlDeviceGetCount_v2(ctypes.byref(count)):
        return []
    for index in range(count.value):
        handle, uuid = ctypes.c_void_p(), ctypes.create_string_buffer(96)
        if not library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)) and not library.nvmlDeviceGetUUID(handle, uuid, 96):
            found.append(uuid.value.decode())
    return found


def identity(environ, nodes="/dev/nvidia[0-9]*", control="/dev/nvidiactl", load=ctypes.CDLL):
    """The UUID of the GPU that a model would be loaded on, None for the CPU. Without NVML the nodes are enough, as there is nobody to ask."""
    wanted = environ.get("CUDA_VISIBLE_DEVICES", "")
    if wanted == "-1" or not glob.glob(nodes) or refused(control):
        return None
    try:
        found = uuids(load("libnvidia-ml.so.1"))
    except OSError:
        return "GPU-standin"
    if wanted.startswith("GPU-"):
        return wanted if wanted in found else None
    return found[0] if found else None
