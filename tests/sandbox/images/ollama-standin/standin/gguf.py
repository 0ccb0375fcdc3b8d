# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""GGUF headers: read, write, and the shape of a llama-like model as one. Weights are never read."""
from __future__ import annotations

import io
import struct

ALIGNMENT = 32
MAX_COUNT = 1 << 20     # keys, tensors, array items: far more than a real header has

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
U32, F32, BOOL, STRING, ARRAY = 4, 6, 7, 8, 9

# tensor type: name, items in a block, bytes of a block
TENSOR_TYPES = {0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 8: ("Q8_0", 32, 34), 12: ("Q4_K", 256, 144), 14: ("Q6_K", 256, 210),
                30: ("BF16", 1, 2)}
FILE_TYPES = {0: "F32", 1: "F16", 2: "Q4_0", 7: "Q8_0", 15: "Q4_K_M", 32: "BF16"}
# file type: the tensor type of its matrices
MATRIX_TYPE = {0: 0, 1: 1, 2: 2, 7: 8, 15: 12, 32: 30}


class GGUFError(ValueError):
    """A file that is no GGUF, or a broken one."""


class Header:
    """Metadata ({key: (type, value)}; an array's value is (item type, items)) and tensors [(name, shape, type, offset)]."""

    def __init__(self, metadata, tensors, size=0):
        self.metadata = metadata
        self.tensors = tensors
        self.size = size        # bytes of the header as read, without padding

    def value(self, key, default=None):
        found = self.metadata.get(key)
        if found is None:
            return default
        return found[1][1] if found[0] == ARRAY else found[1]

    @property
    def architecture(self):
        return self.value("general.architecture", "unknown")

    def own(self, key, default=0):
        return self.value("%s.%s" % (self.architecture, key), default)

    @property
    def parameters(self):
        return sum(_items(shape) for _name, shape, _kind, _offset in self.tensors)

    @property
    def file_type(self):
        return FILE_TYPES.get(self.value("general.file_type", 0), "unknown")

    @property
    def tensor_bytes(self):
        return sum(tensor_size(shape, kind) for _name, shape, kind, _offset in self.tensors)

    @property
    def kv_bytes_per_token(self):
        heads = self.own("attention.head_count_kv") or self.own("attention.head_count")
        width = self.own("embedding_length") // (self.own("attention.head_count") or 1)
        key, value = self.own("attention.key_length") or width, self.own("attention.value_length") or width
        return 2 * self.own("block_count") * heads * (key + value)


def _items(shape):
    count = 1
    for edge in shape:
        count *= edge
    return count


def tensor_size(shape, kind):
    _name, items, size = TENSOR_TYPES[kind]
    return _items(shape) // items * size


def padded(size):
    return -(-size // ALIGNMENT) * ALIGNMENT


# ---------------------------------------------------------------- reading

class _Reader:
    def __init__(self, stream):
        self.stream = stream

    def take(self, size):
        data = self.stream.read(size)
        if len(data) != size:
            raise GGUFError("unexpected EOF")
        return data

    def scalar(self, code):
        return struct.unpack(code, self.take(struct.calcsize(code)))[0]

    def count(self):
        number = self.scalar("<Q")
        if number > MAX_COUNT:
            raise GGUFError("invalid count: %d" % number)
        return number

    def string(self):
        return self.take(self.count()).decode("utf-8", "replace")

    def value(self, kind):
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            item, number = self.scalar("<I"), self.count()
            if item == ARRAY:
                raise GGUFError("invalid type: %d" % item)
            return item, [self.value(item) for _index in range(number)]
        if kind not in _SCALARS:
            raise GGUFError("invalid type: %d" % kind)
        value = self.scalar(_SCALARS[kind])
        return _shortest_float32(value) if kind == F32 else value


def _shortest_float32(value):
    """The shortest decimal that is the same 32-bit float; that is what Go prints."""
    for digits in range(1, 10):
        short = float("%.*g" % (digits, value))
        if struct.pack("<f", short) == struct.pack("<f", value):
            return short
    return value


def read(stream):
    reader = _Reader(stream)
    if reader.take(4) != b"GGUF":
        raise GGUFError("not a GGUF file")
    if reader.scalar("<I") not in (2, 3):
        raise GGUFError("unsupported GGUF version")
    tensors, pairs = reader.count(), reader.count()
    metadata = {}
    for _index in range(pairs):
        key = reader.string()
        kind = reader.scalar("<I")
        metadata[key] = (kind, reader.value(kind))
    found = []
    for _index in range(tensors):
        name, edges = reader.string(), reader.scalar("<I")
        if edges > 4:
            raise GGUFError('tensor "%s" dimensions %d exceeds maximum 4' % (name, edges))
        shape = [reader.scalar("<Q") for _edge in range(edges)]
        kind, offset = reader.scalar("<I"), reader.scalar("<Q")
        if kind not in TENSOR_TYPES:
            raise GGUFError('tensor "%s" has a type the stand-in does not know: %d' % (name, kind))
        found.append((name, shape, kind, offset))
    return Header(metadata, found, stream.tell())


def check_bounds(header, file_size):
    start = padded(header.size)
    for name, shape, kind, offset in header.tensors:
        end = start + offset + tensor_size(shape, kind)
        if end > file_size:
            raise GGUFError('tensor "%s" offset+size (%d) exceeds file size (%d)' % (name, end, file_size))


# ---------------------------------------------------------------- writing

def _pack_string(text):
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def _pack_value(kind, value):
    if kind == STRING:
        return _pack_string(value)
    if kind == ARRAY:
        item, items = value
        return struct.pack("<IQ", item, len(items)) + b"".join(_pack_value(item, one) for one in items)
    return struct.pack(_SCALARS[kind], value)


def dump(header):
    """The header's bytes, padded to where the weights begin."""
    out = io.BytesIO()
    out.write(b"GGUF" + struct.pack("<IQQ", 3, len(header.tensors), len(header.metadata)))
    for key, (kind, value) in header.metadata.items():
        out.write(_pack_string(key) + struct.pack("<I", kind) + _pack_value(kind, value))
    for name, shape, kind, offset in header.tensors:
        out.write(_pack_string(name) + struct.pack("<I", len(shape)))
        out.write(struct.pack("<%dQ" % len(shape), *shape) + struct.pack("<IQ", kind, offset))
    data = out.getvalue()
    return data + b"\0" * (padded(len(data)) - len(data))


def rewritten(header):
    """What `create` makes of a model file: the same weights, a header that names its quantization version."""
    metadata = dict(header.metadata)
    metadata.setdefault("general.quantization_version", (U32, 2))
    metadata.setdefault("general.file_type", (U32, 0))
    return Header(metadata, header.tensors)


def llama(shape, tokens=(), chat_template=""):
    """The header of a llama-like model of this shape (see the catalogue for the keys)."""
    arch = shape.get("architecture", "llama")
    width, heads, kv_heads, head = shape["embedding_length"], shape["heads"], shape["kv_heads"], shape["head_length"]
    metadata = {
        "general.architecture": (STRING, arch),
        "general.file_type": (U32, shape["file_type"]),
        arch + ".block_count": (U32, shape["layers"]),
        arch + ".context_length": (U32, shape["context_length"]),
        arch + ".embedding_length": (U32, width),
        arch + ".feed_forward_length": (U32, shape["feed_forward_length"]),
        arch + ".attention.head_count": (U32, heads),
        arch + ".attention.head_count_kv": (U32, kv_heads),
        arch + ".attention.key_length": (U32, head),
        arch + ".attention.value_length": (U32, head),
        arch + ".attention.layer_norm_rms_epsilon": (F32, shape.get("epsilon", 1e-05)),
        arch + ".rope.dimension_count": (U32, head),
        arch + ".rope.freq_base": (F32, shape.get("rope_base", 10000.0)),
        arch + ".vocab_size": (U32, shape["vocab_size"]),
    }
    if shape.get("embedding"):
        metadata[arch + ".pooling_type"] = (U32, 1)
    if chat_template:
        metadata["tokenizer.chat_template"] = (STRING, chat_template)
    metadata["tokenizer.ggml.model"] = (STRING, "gpt2")
    metadata["tokenizer.ggml.pre"] = (STRING, shape.get("pre", "gpt-2"))
    if tokens:
        metadata["tokenizer.ggml.tokens"] = (ARRAY, (STRING, list(tokens)))
        metadata["tokenizer.ggml.token_type"] = (ARRAY, (5, [1] * len(tokens)))
        metadata["tokenizer.ggml.merges"] = (ARRAY, (STRING, []))
    for key, number in (("bos", 0), ("eos", 2), ("padding", 0)):
        metadata["tokenizer.ggml.%s_token_id" % key] = (U32, number)
    metadata["tokenizer.ggml.add_bos_token"] = (BOOL, False)
    matrix = MATRIX_TYPE[shape["file_type"]]
    wanted = [("output_norm.weight", [width], 0), ("token_embd.weight", [width, shape["vocab_size"]], matrix)]
    if shape.get("own_output"):
        wanted.append(("output.weight", [width, shape["vocab_size"]], matrix))
    for block in range(shape["layers"]):
        wanted += [("blk.%d.%s.weight" % (block, name), edges, 0 if len(edges) == 1 else matrix) for name, edges in (
            ("attn_k", [width, kv_heads * head]), ("attn_norm", [width]), ("attn_output", [heads * head, width]), ("attn_q", [width, heads * head]),
            ("attn_v", [width, kv_heads * head]), ("ffn_down", [shape["feed_forward_length"], width]), ("ffn_gate", [width, shape["feed_forward_length"]]),
            ("ffn_norm", [width]), ("ffn_up", [width, shape["feed_forward_length"]]))]
    tensors, offset = [], 0
    for name, edges, kind in wanted:
        tensors.append((name, edges, kind, offset))
        offset += padded(tensor_size(edges, kind))
    return Header(metadata, tensors)
