# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A GGUF file: its metadata and tensors, from the header; the weights themselves are never read."""
from __future__ import annotations

import os
import re
import struct
from typing import NamedTuple

from ansible_collections.erni_ki.inference.plugins.module_utils._model_files import ModelError, failure, open_file, shown

# A vocabulary of 262 thousand tokens with its merges takes some 15 MB; nothing else in a header is large.
MAX_HEADER_BYTES = 64 << 20
# Texts in lists, which are passed over one by one; 262 thousand tokens with their merges are less than half of that.
MAX_ITEMS = 2000000
# Keys of the metadata: real files have some 50. Tensors: the largest model has 92 thousand.
MAX_KEYS = 10000
MAX_TENSORS = 200000
# The format allows 65535 bytes for a key and 64 for a tensor's name.
MAX_NAME = 65535
# Texts longer than this, such as chat templates, are passed over.
MAX_TEXT = 1024
# Lists of numbers up to this long are kept, as some keys have a number for each layer; all others are passed over.
MAX_LIST = 1024
MAX_DIMENSIONS = 4
MAX_SIZE = (1 << 63) - 1
# Parts of one model; the largest published ones have some 50.
MAX_PARTS = 1000

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9

# Type to its name, the elements of a block, and its bytes (ggml-common.h).
TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 36), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8),
    28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
}
PLAIN = ("F64", "F32", "F16", "BF16")

_PART = re.compile(r"(.*-)(\d{5})(-of-)(\d{5})(\.gguf)", re.ASCII | re.DOTALL)


class Header(NamedTuple):
    """The metadata, without long texts and lists, and what the tensors add up to. C(types) are bytes by type."""

    metadata: dict
    parameters: int
    size: int
    types: dict
    tensors: int


class _Reader:
    """Reads forward, and no further than a header goes."""

    def __init__(self, stream, path, size):
        self.stream, self.path, self.size = stream, path, size
        self.place = self.items = 0

    def _forward(self, count):
        self.place += count
        if self.place > self.size:
            raise ModelError(f"{self.path} is incomplete: its header goes on behind the end of the file at byte {self.size}. Copy or download it again.")
        if self.place > MAX_HEADER_BYTES:
            raise ModelError(f"The header of {self.path} is larger than {MAX_HEADER_BYTES} bytes; no model's is, and it is not read.")

    def take(self, count):
        self._forward(count)
        data = self.stream.read(count)
        if len(data) != count:
            raise ModelError(f"{self.path} became shorter while it was read.")
        return data

    def skip(self, count):
        self._forward(count)
        self.stream.seek(count, os.SEEK_CUR)

    def scalar(self, code):
        return struct.unpack(code, self.take(struct.calcsize(code)))[0]

    def count(self, most, what):
        number = self.scalar("<Q")
        if number > most:
            raise ModelError(f"{self.path} is to have {number} {what}, and a model has at most {most}.")
        return number

    def name(self):
        return self.take(self.count(MAX_NAME, "bytes in one name")).decode("utf-8", "replace")

    def text(self):
        """Return a text, or None for a long one."""
        length = self.count(MAX_HEADER_BYTES, "bytes in one text")
        if length > MAX_TEXT:
            self.skip(length)
            return None
        return self.take(length).decode("utf-8", "replace")

    def value(self):
        """Return a value of the metadata, or None for what is passed over."""
        kind = self.scalar("<I")
        if kind == _ARRAY:
            return self._array()
        if kind == _STRING:
            return self.text()
        if kind not in _SCALARS:
            raise ModelError(f"{self.path} has a value of the type {kind}, which the format does not know.")
        return self.scalar(_SCALARS[kind])

    def _array(self):
        kind, number = self.scalar("<I"), self.scalar("<Q")
        if kind in _SCALARS:
            code = _SCALARS[kind][1]
            if number <= MAX_LIST:
                return list(struct.unpack(f"<{number}{code}", self.take(number * struct.calcsize(f"<{code}"))))
            self.skip(number * struct.calcsize(f"<{code}"))
            return None
        if kind != _STRING:
            raise ModelError(f"{self.path} has a list of values of the type {kind}, which no model has.")
        self.items += number
        if self.items > MAX_ITEMS:
            raise ModelError(f"{self.path} is to have lists of more than {MAX_ITEMS} texts together, and a model's header has fewer.")
        for _item in range(number):
            self.text()
        return None


def _tensor(reader):
    """Return C((elements, type, offset, bytes, name)) of the next tensor."""
    name = reader.name()
    dimensions = reader.scalar("<I")
    what = f"{reader.path}: the tensor {shown(name)}"
    if dimensions > MAX_DIMENSIONS:
        raise ModelError(f"{what} has {dimensions} dimensions, and the format allows {MAX_DIMENSIONS}.")
    shape = [reader.scalar("<Q") for _edge in range(dimensions)]
    kind, offset = reader.scalar("<I"), reader.scalar("<Q")
    if kind not in TYPES:
        raise ModelError(f"{what} has the type {kind}, which is not known here, so its size is not either.")
    name_of_type, block, width = TYPES[kind]
    elements = 1
    for edge in shape:
        elements *= edge
    if elements > MAX_SIZE:
        raise ModelError(f"{what} has the shape {shown(shape)}, more than any file holds.")
    if (shape[0] if shape else 1) % block:
        raise ModelError(f"{what} has rows of {shape[0] if shape else 1} elements, and {name_of_type} is stored in blocks of {block}.")
    return elements, name_of_type, offset, elements // block * width, name


def read(path):
    """Return the Header of one file."""
    stream, size = open_file(path)
    with stream:
        try:
            return _read(_Reader(stream, path, size))
        except OSError as error:
            raise failure(path, error) from None


def _read(reader):
    path = reader.path
    if reader.size < 4 or reader.take(4) != b"GGUF":
        raise ModelError(f"{path} is no GGUF file: it does not begin with GGUF.")
    version = reader.scalar("<I")
    if version not in (2, 3):
        order = " of a machine with the other byte order" if version >= 1 << 16 else ""
        raise ModelError(f"{path} is GGUF version {version}{order}, and versions 2 and 3 are read. Convert the model again.")
    tensors, keys = reader.count(MAX_TENSORS, "tensors"), reader.count(MAX_KEYS, "keys")
    metadata = {}
    for _key in range(keys):
        key = reader.name()
        metadata[key] = reader.value()
    found = [_tensor(reader) for _tensor_number in range(tensors)]
    alignment = metadata.get("general.alignment", 32)
    if isinstance(alignment, bool) or not isinstance(alignment, int) or not 1 <= alignment <= 1 << 16:
        raise ModelError(f"{path} has general.alignment {shown(alignment)}; a whole number such as 32 is needed.")
    room = max(0, reader.size - -(-reader.place // alignment) * alignment)
    end = max((offset + size for _elements, _type, offset, size, _name in found), default=0)
    if end > room:
        raise ModelError(f"{path} is incomplete: its tensors take {end} bytes, and the file has {room} for them. Copy or download it again.")
    types = {}
    for _elements, kind, _offset, size, _name in found:
        types[kind] = types.get(kind, 0) + size
    total = sum(types.values())
    if total > room:
        raise ModelError(f"The tensors in {path} overlap: together they have {total} bytes, and the file has {room} for them.")
    # The factors of the rotary embedding are stored as tensors, and nobody counts them as parameters.
    parameters = sum(elements for elements, _type, _offset, _size, name in found if not name.startswith("rope_f"))
    return Header(metadata, parameters, total, types, tensors)


def read_model(path):
    """Return the Header of a model, and of all its parts together where it is the first file of several."""
    header = read(path)
    parts = header.metadata.get("split.count")
    if not isinstance(parts, int) or parts <= 1:
        return header
    named = _PART.fullmatch(os.path.basename(path))
    if parts > MAX_PARTS:
        raise ModelError(f"{path} is to be one of {parts} files, and a model has at most {MAX_PARTS}.")
    if not named or int(named.group(4)) != parts:
        raise ModelError(f"{path} is one of {parts} files of a model, and is not named like that: NAME-00001-of-{parts:05}.gguf. Rename the files.")
    files = [os.path.join(os.path.dirname(path), f"{named.group(1)}{number:05}{named.group(3)}{named.group(4)}.gguf") for number in range(1, parts + 1)]
    if int(named.group(2)) != 1:
        raise ModelError(f"{path} is a further part of a model of {parts} files. Give the first, {files[0]}.")
    missing = [file for file in files if not os.path.exists(file)]
    if missing:
        raise ModelError(f"{path} is incomplete: of the model's {parts} files, {len(missing)} {'is' if len(missing) == 1 else 'are'} missing: {missing[0]}"
                         f"{' and more' if len(missing) > 1 else ''}. Copy or download them.")
    types, parameters, size, tensors = dict(header.types), header.parameters, header.size, header.tensors
    for file in files[1:]:
        part = read(file)
        parameters, size, tensors = parameters + part.parameters, size + part.size, tensors + part.tensors
        for kind, taken in part.types.items():
            types[kind] = types.get(kind, 0) + taken
    expected = header.metadata.get("split.tensors.count")
    if isinstance(expected, int) and expected != tensors:
        raise ModelError(f"The files of {path} have {tensors} tensors together, and the first says {expected}. They are not of one model.")
    return Header(header.metadata, parameters, size, types, tensors)
