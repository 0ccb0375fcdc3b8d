# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Published models as data, and files with their real headers: sparse ones, as the weights are of no matter."""
from __future__ import annotations

import json
import os
import pathlib
import struct
from typing import NamedTuple

BYTES = {"F32": 4, "F16": 2, "BF16": 2, "I32": 4, "I64": 8, "U8": 1, "I8": 1, "F8_E4M3": 1, "BOOL": 1}


def llama(config, fused=False, qkv_bias=False, head_norms=False, extra_norms=0, head=None):
    """Names and shapes of the tensors of a Llama and what is like it."""
    hidden, inside, words = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    size = config.get("head_dim") or hidden // config["num_attention_heads"]
    queries, keys = config["num_attention_heads"] * size, config["num_key_value_heads"] * size
    yield "model.embed_tokens.weight", [words, hidden]
    if head if head is not None else not config.get("tie_word_embeddings", False):
        yield "lm_head.weight", [words, hidden]
    for layer in range(config["num_hidden_layers"]):
        place = f"model.layers.{layer}"
        if fused:
            yield f"{place}.self_attn.qkv_proj.weight", [queries + 2 * keys, hidden]
            yield f"{place}.mlp.gate_up_proj.weight", [2 * inside, hidden]
        else:
            for name, width in (("q", queries), ("k", keys), ("v", keys)):
                yield f"{place}.self_attn.{name}_proj.weight", [width, hidden]
                if qkv_bias:
                    yield f"{place}.self_attn.{name}_proj.bias", [width]
            yield f"{place}.mlp.gate_proj.weight", [inside, hidden]
            yield f"{place}.mlp.up_proj.weight", [inside, hidden]
        yield f"{place}.self_attn.o_proj.weight", [hidden, queries]
        yield f"{place}.mlp.down_proj.weight", [hidden, inside]
        for number in range(2 + extra_norms):
            yield f"{place}.norm_{number}.weight", [hidden]
        if head_norms:
            yield f"{place}.self_attn.q_norm.weight", [size]
            yield f"{place}.self_attn.k_norm.weight", [size]
    yield "model.norm.weight", [hidden]


def gpt2(config):
    hidden = config["n_embd"]
    yield "wte.weight", [config["vocab_size"], hidden]
    yield "wpe.weight", [config["n_positions"], hidden]
    for layer in range(config["n_layer"]):
        # The causal mask: a buffer, in the published file.
        yield f"h.{layer}.attn.bias", [1, 1, config["n_positions"], config["n_positions"]]
        for name, first, last in (("attn.c_attn", hidden, 3 * hidden), ("attn.c_proj", hidden, hidden), ("mlp.c_fc", hidden, 4 * hidden),
                                  ("mlp.c_proj", 4 * hidden, hidden)):
            yield f"h.{layer}.{name}.weight", [first, last]
            yield f"h.{layer}.{name}.bias", [last]
        for name in ("ln_1", "ln_2"):
            yield f"h.{layer}.{name}.weight", [hidden]
            yield f"h.{layer}.{name}.bias", [hidden]
    yield "ln_f.weight", [hidden]
    yield "ln_f.bias", [hidden]


def opt(config):
    hidden, inside = config["hidden_size"], config["ffn_dim"]
    place = "model.decoder"
    yield f"{place}.embed_tokens.weight", [config["vocab_size"], hidden]
    yield f"{place}.embed_positions.weight", [config["max_position_embeddings"] + 2, hidden]
    for layer in range(config["num_hidden_layers"]):
        matrices = [(f"self_attn.{name}_proj", hidden, hidden) for name in ("q", "k", "v", "out")] + [("fc1", inside, hidden), ("fc2", hidden, inside)]
        for name, out, into in matrices:
            yield f"{place}.layers.{layer}.{name}.weight", [out, into]
            yield f"{place}.layers.{layer}.{name}.bias", [out]
        for name in ("self_attn_layer_norm", "final_layer_norm"):
            yield f"{place}.layers.{layer}.{name}.weight", [hidden]
            yield f"{place}.layers.{layer}.{name}.bias", [hidden]
    yield f"{place}.final_layer_norm.weight", [hidden]
    yield f"{place}.final_layer_norm.bias", [hidden]


def falcon(config):
    hidden = config["hidden_size"]
    size = hidden // config["num_attention_heads"]
    yield "transformer.word_embeddings.weight", [config["vocab_size"], hidden]
    yield "lm_head.weight", [config["vocab_size"], hidden]
    for layer in range(config["num_hidden_layers"]):
        place = f"transformer.h.{layer}"
        yield f"{place}.self_attention.query_key_value.weight", [hidden + 2 * size, hidden]
        yield f"{place}.self_attention.dense.weight", [hidden, hidden]
        yield f"{place}.mlp.dense_h_to_4h.weight", [4 * hidden, hidden]
        yield f"{place}.mlp.dense_4h_to_h.weight", [hidden, 4 * hidden]
        yield f"{place}.input_layernorm.weight", [hidden]
        yield f"{place}.input_layernorm.bias", [hidden]
    yield "transformer.ln_f.weight", [hidden]
    yield "transformer.ln_f.bias", [hidden]


def deepseek_v2(config):
    hidden, heads, rank, rope = config["hidden_size"], config["num_attention_heads"], config["kv_lora_rank"], config["qk_rope_head_dim"]
    nope, values, expert = config["qk_nope_head_dim"], config["v_head_dim"], config["moe_intermediate_size"]
    yield "model.embed_tokens.weight", [config["vocab_size"], hidden]
    yield "lm_head.weight", [config["vocab_size"], hidden]
    for layer in range(config["num_hidden_layers"]):
        place = f"model.layers.{layer}"
        yield f"{place}.self_attn.q_proj.weight", [heads * (nope + rope), hidden]
        yield f"{place}.self_attn.kv_a_proj_with_mqa.weight", [rank + rope, hidden]
        yield f"{place}.self_attn.kv_a_layernorm.weight", [rank]
        yield f"{place}.self_attn.kv_b_proj.weight", [heads * (nope + values), rank]
        yield f"{place}.self_attn.o_proj.weight", [hidden, heads * values]
        yield f"{place}.input_layernorm.weight", [hidden]
        yield f"{place}.post_attention_layernorm.weight", [hidden]
        parts = [("mlp", config["intermediate_size"])]
        if layer >= config["first_k_dense_replace"]:
            yield f"{place}.mlp.gate.weight", [config["n_routed_experts"], hidden]
            parts = [(f"mlp.experts.{number}", expert) for number in range(config["n_routed_experts"])]
            parts.append(("mlp.shared_experts", config["n_shared_experts"] * expert))
        for part, width in parts:
            yield f"{place}.{part}.gate_proj.weight", [width, hidden]
            yield f"{place}.{part}.up_proj.weight", [width, hidden]
            yield f"{place}.{part}.down_proj.weight", [hidden, width]
    yield "model.norm.weight", [hidden]


class Published(NamedTuple):
    """A model as it is published, and what is known of it. C(kv) are bytes per token in 16 bits, C(sliding) window and layers."""

    config: dict
    tensors: object
    parameters: int
    kv: int
    attention: str
    context: int | None
    stored: str = "BF16"
    sliding: tuple | None = None
    shape_tells: bool = True


def _llama_like(family, dtype, *numbers, **more):
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "max_position_embeddings")
    return {"architectures": ["X"], "model_type": family, "torch_dtype": dtype, **dict(zip(names, numbers)), **more}


MODELS = {
    "Qwen2.5-0.5B": Published(
        _llama_like("qwen2", "bfloat16", 151936, 896, 4864, 24, 14, 2, 32768, tie_word_embeddings=True, use_sliding_window=False, sliding_window=32768,
                    max_window_layers=24),
        lambda config: llama(config, qkv_bias=True), 494032768, 12288, "GQA", 32768),
    "Llama-3.2-1B": Published(
        _llama_like("llama", "bfloat16", 128256, 2048, 8192, 16, 32, 8, 131072, head_dim=64, tie_word_embeddings=True,
                    rope_scaling={"factor": 32.0, "original_max_position_embeddings": 8192, "rope_type": "llama3"}),
        llama, 1235814400, 32768, "GQA", 131072),
    # The published file holds the tied output matrix a second time.
    "Qwen3-0.6B": Published(
        _llama_like("qwen3", "bfloat16", 151936, 1024, 3072, 28, 16, 8, 40960, head_dim=128, tie_word_embeddings=True, use_sliding_window=False,
                    sliding_window=None),
        lambda config: llama(config, head_norms=True, head=True), 596049920, 114688, "GQA", 40960),
    "gpt2": Published(
        {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024,
         "n_ctx": 1024},
        gpt2, 124439808, 36864, "MHA", 1024, "F32"),
    "SmolLM2-135M": Published(
        _llama_like("llama", "bfloat16", 49152, 576, 1536, 30, 9, 3, 8192, tie_word_embeddings=True), llama, 134515008, 23040, "GQA", 8192),
    "TinyLlama-1.1B": Published(
        _llama_like("llama", "float32", 32000, 2048, 5632, 22, 32, 4, 2048, tie_word_embeddings=False), llama, 1100048384, 22528, "GQA", 2048, "F32"),
    "Mistral-7B-v0.1": Published(
        _llama_like("mistral", "bfloat16", 32000, 4096, 14336, 32, 32, 8, 32768, sliding_window=4096, tie_word_embeddings=False),
        llama, 7241732096, 131072, "GQA", 32768, sliding=(4096, 32)),
    "gemma-2-2b": Published(
        _llama_like("gemma2", "float32", 256000, 2304, 9216, 26, 8, 4, 8192, head_dim=256, sliding_window=4096),
        lambda config: llama(config, extra_norms=2, head=False), 2614341888, 106496, "GQA", 8192, "F32", (4096, 13)),
    "Phi-3-mini-4k": Published(
        _llama_like("phi3", "bfloat16", 32064, 3072, 8192, 32, 32, 32, 4096, sliding_window=2047, tie_word_embeddings=False,
                    original_max_position_embeddings=4096, rope_scaling=None),
        lambda config: llama(config, fused=True), 3821079552, 393216, "MHA", 4096, sliding=(2047, 32)),
    "opt-125m": Published(
        {"architectures": ["OPTForCausalLM"], "model_type": "opt", "torch_dtype": "float16", "vocab_size": 50272, "hidden_size": 768, "ffn_dim": 3072,
         "num_hidden_layers": 12, "num_attention_heads": 12, "max_position_embeddings": 2048, "word_embed_proj_dim": 768, "do_layer_norm_before": True},
        opt, 125239296, 36864, "MHA", 2048, "F16"),
    "falcon-7b": Published(
        {"architectures": ["FalconForCausalLM"], "model_type": "falcon", "torch_dtype": "bfloat16", "vocab_size": 65024, "hidden_size": 4544,
         "num_hidden_layers": 32, "num_attention_heads": 71, "multi_query": True, "new_decoder_architecture": False, "parallel_attn": True, "bias": False,
         "alibi": False},
        falcon, 6921720704, 8192, "MQA", None),
    "DeepSeek-V2-Lite": Published(
        _llama_like(
            "deepseek_v2", "bfloat16", 102400, 2048, 10944, 27, 16, 16, 163840, kv_lora_rank=512, q_lora_rank=None, qk_nope_head_dim=128, qk_rope_head_dim=64,
            v_head_dim=128, moe_intermediate_size=1408, n_routed_experts=64, n_shared_experts=2, first_k_dense_replace=1, tie_word_embeddings=False,
            rope_scaling={"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096}),
        deepseek_v2, 15706484224, 31104, "MLA", 163840, shape_tells=False),
}


def stored(tensors, dtype):
    """Return name, type and shape of tensors that are all of one type."""
    return [(name, dtype, shape) for name, shape in tensors]


def count(shape):
    elements = 1
    for edge in shape:
        elements *= edge
    return elements


def safetensors_file(path, tensors, header=None, size=None):
    """Write a file of these C((name, type, shape)), or with this header; return its path."""
    entries, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, dtype, shape in tensors:
        end = offset + count(shape) * BYTES[dtype]
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(entries if header is None else header).encode()
    path = pathlib.Path(path)
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(path, 8 + len(text) + offset if size is None else size)
    return path


def folder(path, config, tensors, shards=1):
    """Write a model's folder; return its path."""
    path = pathlib.Path(path)
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tensors = list(tensors)
    if shards == 1:
        safetensors_file(path / "model.safetensors", tensors)
        return path
    places = {}
    for number in range(shards):
        name = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        safetensors_file(path / name, tensors[number::shards])
        places.update({tensor[0]: name for tensor in tensors[number::shards]})
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}), encoding="utf-8")
    return path


# GGUF: a type's number, elements of a block, bytes.
GGUF_TYPES = {"F32": (0, 1, 4), "F16": (1, 1, 2), "Q4_0": (2, 32, 18), "Q8_0": (8, 32, 34), "Q4_K": (12, 256, 144), "BF16": (30, 1, 2)}


def _text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value):
    if isinstance(value, bytes):
        return value
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value) if 0 <= value < 1 << 32 else struct.pack("<Iq", 11, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    inner = [_value(item) for item in value]
    return struct.pack("<I", 9) + (inner[0][:4] if inner else struct.pack("<I", 4)) + struct.pack("<Q", len(inner)) + b"".join(item[4:] for item in inner)


def gguf_file(path, metadata, tensors, version=3, size=None, counts=None):
    """Write a GGUF file of these keys and C((name, type, shape)); a value of bytes is written as it is. Return its path."""
    data = bytearray(b"GGUF" + struct.pack("<IQQ", version, *(counts or (len(tensors), len(metadata)))))
    for key, value in metadata.items():
        data += _text(key) + _value(value)
    offset = 0
    for name, kind, shape in tensors:
        number, block, width = GGUF_TYPES[kind]
        data += _text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape) + struct.pack("<IQ", number, offset)
        offset += -(-count(shape) // block * width // 32) * 32
    path = pathlib.Path(path)
    path.write_bytes(bytes(data))
    os.truncate(path, -(-len(data) // 32) * 32 + offset if size is None else size)
    return path


def gguf_llama(config, kind="Q4_K", tied=True):
    """Return metadata and tensors of a Llama as llama.cpp converts it."""
    hidden, inside, words = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    size = config.get("head_dim") or hidden // config["num_attention_heads"]
    queries, keys, layers = config["num_attention_heads"] * size, config["num_key_value_heads"] * size, config["num_hidden_layers"]
    metadata = {
        "general.architecture": "llama", "llama.block_count": layers, "llama.context_length": config["max_position_embeddings"],
        "llama.embedding_length": hidden, "llama.attention.head_count": config["num_attention_heads"],
        "llama.attention.head_count_kv": config["num_key_value_heads"], "llama.attention.key_length": size, "llama.attention.value_length": size,
        "llama.rope.freq_base": 500000.0, "tokenizer.ggml.tokens": ["<s>", "a", "b"] * 700, "tokenizer.ggml.scores": [1.0] * 2000,
        "tokenizer.chat_template": "x" * 5000, "tokenizer.ggml.add_bos_token": True}
    tensors = [("token_embd.weight", kind, [hidden, words]), ("output_norm.weight", "F32", [hidden]), ("rope_freqs.weight", "F32", [size // 2])]
    if not tied:
        tensors.append(("output.weight", kind, [hidden, words]))
    for layer in range(layers):
        for name, first, last in (("attn_q", hidden, queries), ("attn_k", hidden, keys), ("attn_v", hidden, keys), ("attn_output", queries, hidden),
                                  ("ffn_gate", hidden, inside), ("ffn_up", hidden, inside), ("ffn_down", inside, hidden)):
            tensors.append((f"blk.{layer}.{name}.weight", kind, [first, last]))
        tensors += [(f"blk.{layer}.attn_norm.weight", "F32", [hidden]), (f"blk.{layer}.ffn_norm.weight", "F32", [hidden])]
    return metadata, tensors
