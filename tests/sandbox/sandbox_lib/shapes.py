# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Model folders of published shapes for an engine to load: real configurations, tensors by their real names, and weights that are all zero.

The weights are holes in a sparse file: an engine reads them as it reads any, through the page cache, and they take no room on the disk.
"""
from __future__ import annotations

import json
import os
import pathlib
import struct

from sandbox_lib.model import SPECIAL

BYTES = {"BF16": 2, "F32": 4}


def llama(config):
    """A Llama, and what is like it: Qwen has biases of queries, keys and values, or norms of heads."""
    hidden, inside, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    size = config.get("head_dim") or hidden // heads
    queries, keys = heads * size, config["num_key_value_heads"] * size
    yield "model.embed_tokens.weight", [config["vocab_size"], hidden]
    for number in range(config["num_hidden_layers"]):
        layer = f"model.layers.{number}"
        for name, out, into in (("self_attn.q_proj", queries, hidden), ("self_attn.k_proj", keys, hidden), ("self_attn.v_proj", keys, hidden),
                                ("self_attn.o_proj", hidden, queries), ("mlp.gate_proj", inside, hidden), ("mlp.up_proj", inside, hidden),
                                ("mlp.down_proj", hidden, inside)):
            yield f"{layer}.{name}.weight", [out, into]
            if config["model_type"] == "qwen2" and name[-6:] in ("q_proj", "k_proj", "v_proj"):
                yield f"{layer}.{name}.bias", [out]
        if config["model_type"] == "qwen3":
            yield f"{layer}.self_attn.q_norm.weight", [size]
            yield f"{layer}.self_attn.k_norm.weight", [size]
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{layer}.{name}.weight", [hidden]
    yield "model.norm.weight", [hidden]
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", [config["vocab_size"], hidden]


def gpt2(config):
    hidden = config["n_embd"]
    yield "wte.weight", [config["vocab_size"], hidden]
    yield "wpe.weight", [config["n_positions"], hidden]
    for number in range(config["n_layer"]):
        layer = f"h.{number}"
        for name, into, out in (("attn.c_attn", hidden, 3 * hidden), ("attn.c_proj", hidden, hidden), ("mlp.c_fc", hidden, 4 * hidden),
                                ("mlp.c_proj", 4 * hidden, hidden)):
            yield f"{layer}.{name}.weight", [into, out]
            yield f"{layer}.{name}.bias", [out]
        for name in ("ln_1", "ln_2"):
            yield f"{layer}.{name}.weight", [hidden]
            yield f"{layer}.{name}.bias", [hidden]
    yield "ln_f.weight", [hidden]
    yield "ln_f.bias", [hidden]


def tensors(config):
    return gpt2(config) if config["model_type"] == "gpt2" else llama(config)


def write_sparse(path, named, stored):
    """A safetensors file of which only the header takes room."""
    table, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in named:
        size = BYTES[stored]
        for edge in shape:
            size *= edge
        table[name] = {"dtype": stored, "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    header = json.dumps(table, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    os.truncate(path, 8 + len(header) + offset)


def make(folder, shape, words):
    """Write the folder of a shape, readable for all, with this tokenizer. That it knows fewer tokens than the model has is no harm."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    documents = {
        "config.json": shape["config"],
        "tokenizer.json": words,
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": SPECIAL[0], "eos_token": SPECIAL[1], "pad_token": SPECIAL[2]},
    }
    for name, content in documents.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    write_sparse(folder / "model.safetensors", tensors(shape["config"]), shape["stored"])
    for path in folder.iterdir():
        path.chmod(0o644)
    return folder
