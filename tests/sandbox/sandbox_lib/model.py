# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tiny model: a Llama of random weights with a tokenizer of its own, written without any library.

It is what a person's own model folder looks like (config, safetensors, tokenizer), it loads in every engine that
knows Llama, and it takes a second to make: the sandbox has a model where no hub can be reached. It answers with
words at random. The same seed and text give the same bytes.
"""
from __future__ import annotations

import array
import collections
import json
import math
import pathlib
import random
import re
import struct
import sys

SPECIAL = ["<s>", "</s>", "<pad>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}")


def config(vocabulary):
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
        "vocab_size": vocabulary, "hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "hidden_act": "silu",
        "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "initializer_range": 0.02,
        "tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False,
        "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "use_cache": True,
    }


def byte_alphabet():
    """Byte-level BPE writes every byte as one printable character; this is the agreed table."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table, extra = {}, 0
    for byte in range(256):
        if byte in plain:
            table[byte] = chr(byte)
        else:
            table[byte] = chr(256 + extra)
            extra += 1
    return table


def train_merges(text, count):
    """Plain byte-pair encoding: merge the most frequent neighbours, ties by their spelling, so that the result never varies."""
    table = byte_alphabet()
    words = collections.Counter()
    for match in re.finditer(r" ?[A-Za-z]+| ?[^\sA-Za-z]+|\s+", text):
        words[tuple(table[byte] for byte in match.group().encode("utf-8"))] += 1
    words = [(list(symbols), number) for symbols, number in sorted(words.items())]
    pairs, places = collections.Counter(), collections.defaultdict(set)
    for index, (symbols, number) in enumerate(words):
        for pair in zip(symbols, symbols[1:]):
            pairs[pair] += number
            places[pair].add(index)
    merges = []
    while len(merges) < count and pairs:
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        if pairs[best] < 2:
            break
        merges.append(best)
        for index in sorted(places.pop(best)):
            symbols, number = words[index]
            for pair in zip(symbols, symbols[1:]):
                pairs[pair] -= number
                if pairs[pair] <= 0:
                    del pairs[pair]
            merged, position = [], 0
            while position < len(symbols):
                if position + 1 < len(symbols) and (symbols[position], symbols[position + 1]) == best:
                    merged.append(best[0] + best[1])
                    position += 2
                else:
                    merged.append(symbols[position])
                    position += 1
            words[index] = (merged, number)
            for pair in zip(merged, merged[1:]):
                pairs[pair] += number
                places[pair].add(index)
        pairs.pop(best, None)
    return merges


def tokenizer(text, size):
    merges = train_merges(text, size - len(SPECIAL) - 256)
    tokens = [*SPECIAL, *byte_alphabet().values()]
    for left, right in merges:
        if left + right not in tokens:
            tokens.append(left + right)
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": number, "content": name, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
                         for number, name in enumerate(SPECIAL)],
        "normalizer": None, "pre_tokenizer": level, "post_processor": level, "decoder": level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {token: number for number, token in enumerate(tokens)}, "merges": [f"{left} {right}" for left, right in merges]},
    }


def bfloat16(values):
    """The upper half of each float, rounded: two bytes a number, little endian."""
    words = array.array("I", array.array("f", values).tobytes())
    halves = array.array("H", ((word + 0x7FFF + ((word >> 16) & 1)) >> 16 & 0xFFFF for word in words))
    if sys.byteorder == "big":
        halves.byteswap()
    return halves.tobytes()


def tensors(settings, mute, generator):
    """Names, shapes and values of a Llama, one tensor at a time. Muted tokens score zero and so lose to any likely one."""
    hidden, inner, size = settings["hidden_size"], settings["intermediate_size"], settings["vocab_size"]
    keys = settings["num_key_value_heads"] * settings["head_dim"]

    def normal(rows, columns, spread=0.02):
        return [generator.gauss(0.0, spread) for place in range(rows * columns)]

    yield "model.embed_tokens.weight", [size, hidden], normal(size, hidden)
    for number in range(settings["num_hidden_layers"]):
        layer = f"model.layers.{number}"
        for name, rows, columns in (("self_attn.q_proj", hidden, hidden), ("self_attn.k_proj", keys, hidden), ("self_attn.v_proj", keys, hidden),
                                    ("self_attn.o_proj", hidden, hidden), ("mlp.gate_proj", inner, hidden), ("mlp.up_proj", inner, hidden),
                                    ("mlp.down_proj", hidden, inner)):
            yield f"{layer}.{name}.weight", [rows, columns], normal(rows, columns)
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{layer}.{name}.weight", [hidden], [1.0] * hidden
    yield "model.norm.weight", [hidden], [1.0] * hidden
    head = normal(size, hidden, 1.6 / math.sqrt(hidden))
    for token in mute:
        head[token * hidden:(token + 1) * hidden] = [0.0] * hidden
    yield "lm_head.weight", [size, hidden], head


def write_safetensors(path, named):
    """Eight bytes of length, a JSON table, the numbers."""
    table, blocks, offset = {"__metadata__": {"format": "pt"}}, [], 0
    for name, shape, values in named:
        block = bfloat16(values)
        table[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + len(block)]}
        blocks.append(block)
        offset += len(block)
    header = json.dumps(table, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with open(path, "wb") as stream:
        stream.write(struct.pack("<Q", len(header)) + header)
        for block in blocks:
            stream.write(block)


def make(folder, text, size=2048, seed=20260101):
    """Write the whole model folder; every file readable for all, as an engine that is not root needs it."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    words = tokenizer(text, size)
    vocabulary = words["model"]["vocab"]
    settings = config(len(vocabulary))
    # Special tokens would end an answer early; bytes beyond ASCII alone are no text.
    mute = [number for token, number in vocabulary.items() if number < len(SPECIAL) or (len(token) == 1 and not token.isascii())]
    named = tensors(settings, mute, random.Random(seed))
    documents = {
        "config.json": settings,
        "generation_config.json": {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2},
        "tokenizer.json": words,
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": SPECIAL[0], "eos_token": SPECIAL[1], "pad_token": SPECIAL[2],
                                  "model_max_length": settings["max_position_embeddings"], "clean_up_tokenization_spaces": False,
                                  "chat_template": CHAT_TEMPLATE},
    }
    for name, content in documents.items():
        (folder / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    write_safetensors(folder / "model.safetensors", named)
    for path in folder.iterdir():
        path.chmod(0o644)
