# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tensors in safetensors files, from their headers and index; the weights themselves are never read."""
from __future__ import annotations

import os
import re
from typing import NamedTuple

from ansible_collections.erni_ki.inference.plugins.module_utils._model_files import (
    MAX_JSON_BYTES, ModelError, failure, names, open_file, parse, read_json, shown,
)

INDEX = "model.safetensors.index.json"

# Published models have up to some 200 files.
MAX_SHARDS = 2000
# What numpy and torch take at most.
MAX_DIMENSIONS = 64
# The most that the sizes of a file are counted in.
MAX_SIZE = (1 << 63) - 1

# Bits of one element.
BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8, "C64": 64,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}
# Those that an engine converts to the type it computes in.
FLOATS = ("F64", "F32", "F16", "BF16")

# Buffers that old versions of transformers saved: no parameters, and no engine loads them. The masks have four dimensions.
_BUFFER = re.compile(r"(?:^|\.)(?:rotary_emb\.(?:inv_freq|cos_cached|sin_cached)|position_ids|(?:attn|attention)\.masked_bias)$")
_MASK = re.compile(r"(?:^|\.)(?:attn|attention)\.bias$")
# What quantized weights come with.
_AUXILIARY = re.compile(r"(?:qzeros|g_idx|scales?|scale_inv|zero_point|weight_shape|absmax|quant_map|SCB|quant_state\.[^.]*)$")
_PACKED = re.compile(r"\.(?:qweight|weight_packed)$")
_HEAD = re.compile(r"(?:^|\.)lm_head\.weight$")
_EMBEDDING = re.compile(r"(?:^|\.)(?:embed_tokens|wte|word_embeddings|embed_in|tok_embeddings)\.weight$")


class Tensor(NamedTuple):
    """One entry of a header."""

    name: str
    dtype: str
    shape: tuple
    elements: int
    size: int


class Weights(NamedTuple):
    """What the tensors add up to. C(floats) counts elements by stored type, C(kept) are the bytes that stay as they are stored.

    C(read) are the bytes of C(on_disk) that an engine reads.
    """

    parameters: int | None
    floats: dict
    kept: int
    on_disk: int
    read: int

    def loaded(self, width):
        """Return the bytes in memory when an element of floats takes C(width)."""
        return sum(self.floats.values()) * width + self.kept


def _whole(value):
    return isinstance(value, int) and not isinstance(value, bool)


def _tensor(name, entry, path, room):
    what = f"{path}: the tensor {shown(name)}"
    if not isinstance(entry, dict):
        raise ModelError(f"{what} is described by {shown(entry)}; dtype, shape and data_offsets are needed.")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in BITS:
        raise ModelError(f"{what} has the type {shown(dtype)}, which is none of {', '.join(BITS)}.")
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS or not all(_whole(edge) and 0 <= edge <= MAX_SIZE for edge in shape):
        raise ModelError(f"{what} has the shape {shown(shape)}; a list of at most {MAX_DIMENSIONS} whole numbers from 0 is needed.")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_whole, offsets)) or not 0 <= offsets[0] <= offsets[1]:
        raise ModelError(f"{what} has the data_offsets {shown(offsets)}; begin and end, two whole numbers from 0, are needed.")
    elements = 1
    for edge in shape:
        elements *= edge
    size = offsets[1] - offsets[0]
    if size * 8 != elements * BITS[dtype]:
        raise ModelError(f"{what} has {size} bytes, and its shape {shown(shape)} of {dtype} takes {elements * BITS[dtype] // 8}.")
    if offsets[1] > room:
        raise ModelError(
            f"{path} is incomplete: the tensor {shown(name)} ends at byte {offsets[1]} of the data, and the file has {room}. Copy or download it again.")
    return Tensor(name, dtype, tuple(shape), elements, size)


def read_header(path, budget):
    """Return the tensors of one file."""
    stream, size = open_file(path)
    with stream:
        try:
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or length > size - 8:
                raise ModelError(f"{path} is no safetensors file, or incomplete: its header is to have {length} bytes, and the file has {size}.")
            if length > MAX_JSON_BYTES:
                raise ModelError(f"The header of {path} is to have {length} bytes, and a model's has at most {MAX_JSON_BYTES}; it is not read.")
            budget.take(length, path)
            data = stream.read(length)
        except OSError as error:
            raise failure(path, error) from None
    header = parse(data, f"The header of {path}")
    room = size - 8 - length
    tensors = [_tensor(name, entry, path, room) for name, entry in header.items() if name != "__metadata__"]
    total = sum(tensor.size for tensor in tensors)
    if total > room:
        raise ModelError(f"The tensors in {path} overlap: together they have {total} bytes, and the file has {room} for them.")
    return tensors


def _shards(folder, there, budget):
    """Return the names of the files with the tensors that the index expects in each, or without an index all files and nothing expected."""
    if INDEX not in there:
        found = [name for name in there if name.endswith(".safetensors") and not name.startswith("adapter_")]
        # Mistral AI ships the same weights a second time under this name.
        chosen = [name for name in found if not name.startswith("consolidated")] or found
        return {name: set() for name in chosen}
    path = os.path.join(folder, INDEX)
    places = read_json(path, budget).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ModelError(f"{path} has no weight_map, which names the file of every tensor.")
    shards = {}
    for tensor, name in places.items():
        if not isinstance(name, str) or not name or name in (".", "..") or "/" in name or "\0" in name or len(name) > 255:
            raise ModelError(f"{path} puts the tensor {shown(tensor)} into {shown(name)}; only a file in the same folder can hold it.")
        shards.setdefault(name, set()).add(tensor)
    return shards


def shards_of(folder, budget):
    """Return what C(_shards) finds, within bounds; empty where the folder has no such file."""
    there = names(folder)
    shards = _shards(folder, there, budget)
    if len(shards) > MAX_SHARDS:
        raise ModelError(f"{folder} has its tensors in {len(shards)} files, and a model's are in at most {MAX_SHARDS}.")
    missing = sorted(set(shards) - set(there))
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ModelError(
            f"{folder} is incomplete: of {len(shards)} files in {INDEX}, {len(missing)} {'is' if len(missing) == 1 else 'are'} missing:"
            f" {', '.join(map(shown, missing[:3]))}{more}. Copy or download them.")
    return shards


def read_folder(folder, shards, budget):
    """Return the tensors of all files, one after the other."""
    for name in sorted(shards):
        path = os.path.join(folder, name)
        tensors = read_header(path, budget)
        missing = sorted(shards[name] - {tensor.name for tensor in tensors})
        if missing:
            raise ModelError(f"{path} lacks {len(missing)} of the tensors that {INDEX} expects in it, such as {shown(missing[0])}.")
        yield from tensors


def _packing(tensor, bits):
    """Return how many parameters one element holds; None where nobody says, 0 for what only comes with them."""
    if _AUXILIARY.search(tensor.name):
        return 0
    if _PACKED.search(tensor.name):
        return BITS[tensor.dtype] // bits if bits else None
    return 2 if tensor.dtype in ("U8", "I8") and bits == 4 else 1


def weigh(tensors, tied, quantized, bits):
    """Return the Weights; C(bits) are those of quantized weights. An output matrix that is tied to the embedding counts once."""
    parameters, floats, kept, on_disk, read = 0, {}, 0, 0, 0
    heads, embedding = [], False
    for tensor in tensors:
        on_disk += tensor.size
        embedding = embedding or bool(_EMBEDDING.search(tensor.name))
        if _BUFFER.search(tensor.name) or (len(tensor.shape) == 4 and _MASK.search(tensor.name)):
            continue
        if tied and _HEAD.search(tensor.name) and tensor.dtype in FLOATS:
            heads.append(tensor)
            continue
        read += tensor.size
        packing = _packing(tensor, bits) if quantized else 1
        parameters = None if parameters is None or packing is None else parameters + packing * tensor.elements
        # Engines keep the scales of quantized weights in the precision they came in, where that is full.
        if tensor.dtype in FLOATS and not (packing == 0 and tensor.dtype == "F32"):
            floats[tensor.dtype] = floats.get(tensor.dtype, 0) + tensor.elements
        else:
            kept += tensor.size
    for tensor in [] if embedding else heads:
        parameters = None if parameters is None else parameters + tensor.elements
        floats[tensor.dtype] = floats.get(tensor.dtype, 0) + tensor.elements
        read += tensor.size
    return Weights(parameters, floats, kept, on_disk, read)
