# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Opens a model's files, which anybody may have made: in bounded time and memory, and with a text where something is wrong."""
from __future__ import annotations

import errno
import json
import os
import stat

# The largest JSON of published models is an index of 9 MB (DeepSeek-V3, 92 thousand tensors).
MAX_JSON_BYTES = 16 << 20
# Brackets and quotes in it: 13 for each tensor of a header. Each may become an object of some 60 bytes, whatever the text's size is.
MAX_JSON_PARTS = 2000000
# All JSON of one model together, as a model may have hundreds of headers.
MAX_TOTAL_BYTES = 64 << 20
# No size in a model has more digits; Python takes quadratic time for long ones.
MAX_DIGITS = 30
# A folder with more files is no model's; the largest have a few hundred.
MAX_ENTRIES = 10000


class ModelError(ValueError):
    """The model cannot be read; the message is for people."""

    def __init__(self, message):
        # Names that are no text, as a file system or JSON may hold, would not go through Ansible.
        super().__init__(message.encode("utf-8", "replace").decode("utf-8"))


def shown(value):
    """Return what a file holds as a short text."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def failure(path, error):
    """Return the ModelError that says why a file cannot be opened or read."""
    if error.errno == errno.ELOOP:
        return ModelError(f"{path} is a symbolic link that leads back to itself. Put the model's own files there.")
    if error.errno == errno.ENOENT and os.path.islink(path):
        return ModelError(f"{path} is a symbolic link to a file that is not there. Put the model's own files there, or mount what they are on.")
    return ModelError(f"{path} cannot be read: {error.strerror or error}.")


def open_file(path):
    """Return C((stream, size)) of a regular file. A pipe or a device would block, or never end."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise failure(path, error if isinstance(error, OSError) else OSError(errno.EINVAL, str(error))) from None
    # Not before the file is known to be one: Python's own files refuse folders with a text of its own.
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise ModelError(f"{path} is not a regular file.")
    return os.fdopen(descriptor, "rb"), status.st_size


class Budget:
    """What may still be read of one model."""

    def __init__(self, total=MAX_TOTAL_BYTES):
        self.total = self.left = total

    def take(self, size, path):
        self.left -= size
        if self.left < 0:
            raise ModelError(f"With {path} the model's headers are larger than {self.total} bytes together; no model's are, and they are not read.")


def _integer(digits):
    if len(digits) > MAX_DIGITS:
        raise ModelError(f"a number of {len(digits)} digits")
    return int(digits)


def parse(data, path):
    """Return the dictionary that the bytes hold as JSON."""
    parts = sum(data.count(mark) for mark in (b'"', b"[", b"{"))
    if parts > MAX_JSON_PARTS:
        raise ModelError(f"{path} has {parts} brackets and quotes, and a model's JSON has at most {MAX_JSON_PARTS}; it is not read.")
    try:
        value = json.loads(data.decode("utf-8"), parse_int=_integer)
    except RecursionError:
        raise ModelError(f"{path} is JSON nested too deep to be a model's.") from None
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON ({shown(str(error))}). It may be incomplete: copy or download it again.") from None
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds {shown(value)}; a JSON object is needed.")
    return value


def read_json(path, budget):
    """Return the dictionary in a JSON file."""
    stream, size = open_file(path)
    with stream:
        if size > MAX_JSON_BYTES:
            raise ModelError(f"{path} has {size} bytes, and a model's JSON has at most {MAX_JSON_BYTES}; it is not read.")
        budget.take(size, path)
        try:
            data = stream.read(size)
        except OSError as error:
            raise failure(path, error) from None
    return parse(data, path)


def names(folder):
    """Return the names in a folder, sorted."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                found.append(entry.name)
                if len(found) > MAX_ENTRIES:
                    raise ModelError(f"{folder} holds more than {MAX_ENTRIES} files, so it is no model's folder. Give the folder with its config.json.")
    except OSError as error:
        raise failure(folder, error) from None
    return sorted(found)
