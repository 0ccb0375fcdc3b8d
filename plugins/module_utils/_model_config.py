# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shape of a model, from a Hugging Face config.json or from the metadata of a GGUF file, whatever family it is of.

What is not understood is None, with a note; what cannot be true is a ModelError.
"""
from __future__ import annotations

from typing import NamedTuple

from ansible_collections.erni_ki.inference.plugins.module_utils._kv_cache import MAX_CONTEXT, MAX_WIDTH
from ansible_collections.erni_ki.inference.plugins.module_utils._model_files import ModelError, shown

# Bounds of what a number may be, far above any model's (126 layers, 128 heads).
MAX_LAYERS = 10000
MAX_HEADS = 1 << 16

# Names are shorter.
MAX_TEXT = 200

# What vLLM takes where a model does not say how long its context is.
VLLM_CONTEXT = 2048

# Where vLLM looks for the context; the smallest counts (config/model.py).
_CONTEXT = (
    "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length", "max_target_positions", "max_sequence_length",
    "max_seq_length", "seq_len")

# Families whose output matrix is one of its own where config.json does not say; of all others it is the embedding.
_UNTIED = (
    "baichuan", "deepseek_v2", "deepseek_v3", "gpt_neox", "gptj", "internlm2", "llama", "mistral", "mixtral", "olmo", "olmo2", "phi", "phi3", "qwen2",
    "qwen2_moe", "qwen3", "qwen3_moe", "stablelm")

# Every so many layers one that sees everything; the others have a window. Where no key of the model says so.
_PATTERNS = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6, "cohere2": 4, "gpt-oss": 2}

# Keys of models whose cache is not what the shape of their heads says.
_OTHER_CACHES = (
    "attn_layer_period", "block_configs", "block_types", "global_head_dim", "hybrid_override_pattern", "layers_block_type", "linear_attn_config",
    "linear_num_key_heads", "mamba_d_state", "mamba_expand", "num_kv_shared_layers", "ssm_cfg", "state_size")


class Shape(NamedTuple):
    """C(full) and C(sliding) are elements of the KV cache for one token in all layers of a kind; None where not known."""

    architecture: str | None
    family: str | None
    layers: int | None
    attention: str | None
    kv_heads: int | None
    head_dim: int | None
    full: int | None
    sliding: int
    sliding_layers: int
    window: int
    context: int | None
    default_context: int | None
    dtype: str | None
    tied: bool
    method: str | None
    bits: int | None
    notes: tuple
    hidden: int | None = None
    inside: int | None = None
    words: int | None = None


class _Config:
    """A dictionary that other people wrote."""

    def __init__(self, values, place):
        self.values, self.place = values, place

    def number(self, *names, most=MAX_WIDTH, least=1):
        """Return the first of these keys that there is, as a whole number; None without any, and for a list with a number for each layer."""
        for name in names:
            value = self.values.get(name)
            if value is None or isinstance(value, list):
                continue
            if isinstance(value, float) and value.is_integer():
                value = int(value)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise ModelError(f"{self.place}: {name} is {shown(value)}; a whole number from {least} to {most} is needed.")
            return value
        return None

    def text(self, name):
        value = self.values.get(name)
        return value[:MAX_TEXT] if isinstance(value, str) and value else None

    def flag(self, name, default=False):
        value = self.values.get(name)
        return value if isinstance(value, bool) else default

    def inner(self, name):
        value = self.values.get(name)
        return _Config(value if isinstance(value, dict) else {}, f"{self.place}: {name}")


def kind_of(heads, kv_heads):
    """Return the kind of attention."""
    return "MHA" if heads == kv_heads else "MQA" if kv_heads == 1 else "GQA"


# Hugging Face

def _language(config):
    """Return the part that is about the language model, where there are others; what it lacks is in the whole."""
    for name in ("text_config", "llm_config", "language_config"):
        if isinstance(config.values.get(name), dict):
            return _Config({**config.values, **config.values[name]}, config.place)
    return config


def _quantization(config, files):
    """Return C((method, bits)); C(files) is what older tools wrote beside config.json."""
    for name in ("quantization_config", "compression_config"):
        quantization = config.inner(name)
        if quantization.values:
            break
    else:
        method, values = next(((method, values) for method, values in files.items() if values), (None, {}))
        if method is None:
            return None, None
        quantization = _Config({"quant_method": method, **values}, f"the configuration of {method}")
    method = (quantization.text("quant_method") or "unknown").lower()
    bits = quantization.number("bits", "w_bit", "nbits", most=16)
    if bits is None:
        groups = quantization.inner("config_groups").values.values()
        weights = [group["weights"] for group in groups if isinstance(group, dict) and isinstance(group.get("weights"), dict)]
        found = {_Config(entry, quantization.place).number("num_bits", most=16) for entry in weights}
        # Where groups differ the wider one, so that nothing is reckoned too small.
        bits = max(found - {None}, default=None)
    if bits is None:
        bits = 4 if quantization.flag("load_in_4bit") or method == "mxfp4" else 8 if quantization.flag("load_in_8bit") or method == "fp8" else None
    return method, bits


def _kv_heads(config, heads):
    """Return how many heads of keys and values there are; None where each layer has a number of its own."""
    nested = config.inner("attn_config")
    names = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num")
    if any(isinstance(config.values.get(name), list) for name in names):
        return None
    multi_query = config.flag("multi_query", config.text("model_type") == "gpt_bigcode")
    if multi_query and not config.flag("new_decoder_architecture"):
        return 1
    found = nested.number("kv_n_heads", most=MAX_HEADS)
    if config.text("model_type") == "chatglm" and not config.flag("multi_query_attention"):
        names = names[:-1]
    found = found or config.number(*names, most=MAX_HEADS)
    return heads if found is None else found


def _window(config):
    """Return the window, 0 where no layer has one."""
    family = config.text("model_type") or ""
    if not config.flag("use_sliding_window", not family.startswith(("qwen2", "qwen3"))):
        return 0
    return config.number("sliding_window", most=MAX_CONTEXT, least=0) or 0


def _sliding_layers(config, layers, window):
    """Return how many layers have the window; None where some are of another kind altogether."""
    kinds = config.values.get("layer_types")
    if isinstance(kinds, list) and kinds:
        if len(kinds) != layers:
            raise ModelError(f"{config.place}: layer_types has {len(kinds)} entries for {layers} layers.")
        sliding = kinds.count("sliding_attention")
        return None if sliding + kinds.count("full_attention") != layers or (sliding and not window) else sliding
    if not window:
        return 0
    if (config.text("model_type") or "").startswith(("qwen2", "qwen3")):
        return max(0, layers - (config.number("max_window_layers", most=MAX_LAYERS, least=0) or 0))
    pattern = config.number("sliding_window_pattern", most=MAX_LAYERS) or _PATTERNS.get(config.text("model_type") or "")
    return layers - layers // pattern if pattern else layers


def _context(config):
    """Return C((longest, default)) context: what vLLM allows, and what it takes when nobody asks for one."""
    found = []
    for name in _CONTEXT:
        value = config.values.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value > MAX_CONTEXT:
            continue
        value = config.number(name, most=MAX_CONTEXT)
        if value:
            found.append(value)
    if not found:
        return None, VLLM_CONTEXT
    context = min(found)
    scaling = config.inner("rope_scaling") if config.inner("rope_scaling").values else config.inner("rope_parameters")
    kind = scaling.text("rope_type") or scaling.text("type") or "default"
    original = config.number("original_max_position_embeddings", most=MAX_CONTEXT) or scaling.number("original_max_position_embeddings", most=MAX_CONTEXT)
    if kind in ("longrope", "su"):
        return context, min(context, original or context)
    factor = scaling.values.get("factor")
    if kind in ("yarn", "linear", "dynamic") and isinstance(factor, (int, float)) and not isinstance(factor, bool) and 1 <= factor <= MAX_CONTEXT:
        context = min(MAX_CONTEXT, int((original or context if kind == "yarn" else context) * factor))
    return context, context


def _dtype(config):
    value = config.text("torch_dtype") or config.text("dtype")
    return value.rpartition(".")[2].lower() if value else None


def from_config(values, files=None, place="config.json"):
    """Return the Shape that a config.json tells. C(files) are further configurations of quantization, by method."""
    whole = _Config(values, place)
    config = _language(whole)
    notes = []
    names = values.get("architectures")
    architecture = _Config(dict(enumerate(names)), place).text(0) if isinstance(names, list) else None
    layers = config.number("num_hidden_layers", "n_layer", "num_layers", "n_layers", most=MAX_LAYERS)
    heads = config.number("num_attention_heads", "n_head", "n_heads", "num_heads", most=MAX_HEADS)
    hidden = config.number("hidden_size", "n_embd", "d_model")
    kv_heads = _kv_heads(config, heads)
    head_dim = config.number("head_dim", "kv_channels") or (hidden // heads if hidden and heads and hidden % heads == 0 else None)
    attention = kind_of(heads, kv_heads) if heads and kv_heads else None
    rank = config.number("kv_lora_rank")
    if rank:
        attention, kv_heads, head_dim = "MLA", 1, rank + (config.number("qk_rope_head_dim", least=0) or 0)
    window, full, sliding, count = _window(config), None, 0, 0
    other = [name for name in _OTHER_CACHES if config.values.get(name)]
    if config.flag("is_encoder_decoder"):
        other.append("is_encoder_decoder")
    if layers and kv_heads and head_dim and not other:
        count = _sliding_layers(config, layers, window)
        if count is not None:
            each = kv_heads * head_dim * (1 if rank else 2)
            full, sliding = (layers - count) * each, count * each
    if full is None:
        count = 0
        why = f"config.json has {', '.join(other)}" if other else "its layers or heads are not described, or differ from layer to layer"
        notes.append(f"The KV cache of a token is not known: {why}.")
    context, default = _context(config)
    if context is None:
        notes.append(f"config.json does not tell how long the model's context is. Unless told, vLLM takes {default} tokens.")
    method, bits = _quantization(whole if not config.values.get("quantization_config") else config, files or {})
    tied = whole.values.get("tie_word_embeddings", config.values.get("tie_word_embeddings"))
    family = config.text("model_type")
    if not isinstance(tied, bool):
        tied = family not in _UNTIED
    return Shape(
        architecture or family, family, layers, attention, kv_heads, head_dim, full, sliding, count, window if count else 0, context, default,
        _dtype(config) or _dtype(whole), tied, method, bits, tuple(notes), hidden, _inside(config, hidden), config.number("vocab_size"))


def _inside(config, hidden):
    """Return the width inside the feed-forward part. Families of before it was told have it four times as wide as between layers."""
    names = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
    if any(isinstance(config.values.get(name), list) for name in names):
        return None
    return config.number(*names) or (4 * hidden if hidden else None)


class Family(NamedTuple):
    """What the layers of a family are made of, beside their matrices."""

    gated: bool = True  # three matrices in the feed-forward part, not two
    qkv_bias: bool = False
    biases: bool = False  # everywhere else
    norms: int = 2  # vectors in each layer
    last_norm: int = 1
    head_norms: int = 0  # vectors of a head's size
    positions: int | None = None  # an embedding of positions, and by how many it is longer than the context


FAMILIES = {
    "llama": Family(), "mistral": Family(), "phi3": Family(), "gemma": Family(), "gemma2": Family(norms=4), "qwen2": Family(qkv_bias=True),
    "qwen3": Family(head_norms=2), "gpt2": Family(False, True, True, 4, 2, 0, 0), "opt": Family(False, True, True, 4, 2, 0, 2),
    "falcon": Family(False, False, False, 2, 2),
}


def parameters_of(values):
    """Return the parameters of a model that consists of what its config.json says; None for a family not known here."""
    config = _Config(values, "config.json")
    family = FAMILIES.get(config.text("model_type") or "")
    if family is None or any(isinstance(values.get(name), dict) for name in ("text_config", "quantization_config")):
        return None
    shape = from_config(values)
    hidden, heads = config.number("hidden_size", "n_embd"), config.number("num_attention_heads", "n_head", most=MAX_HEADS)
    words = config.number("vocab_size")
    inside = config.number("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size") or (None if family.gated or not hidden else 4 * hidden)
    positions = 0
    if family.positions is not None:
        positions = config.number("n_positions", "max_position_embeddings", most=MAX_CONTEXT)
    # Variants of a family that are built otherwise.
    special = (
        config.number("word_embed_proj_dim") not in (None, hidden) or not config.flag("do_layer_norm_before", True)
        or config.flag("new_decoder_architecture") or config.flag("alibi") or not config.flag("parallel_attn", True) or config.flag("bias"))
    if special or None in (hidden, heads, words, inside, positions, shape.layers, shape.kv_heads, shape.head_dim):
        return None
    queries, keys = heads * shape.head_dim, shape.kv_heads * shape.head_dim
    attention_bias = config.flag("attention_bias")
    layer = 2 * hidden * (queries + keys) + (3 if family.gated else 2) * hidden * inside + family.norms * hidden + family.head_norms * shape.head_dim
    if family.qkv_bias or attention_bias:
        layer += queries + 2 * keys
    if family.biases or attention_bias:
        layer += hidden
    if family.biases or config.flag("mlp_bias"):
        layer += (2 if family.gated else 1) * inside + hidden
    table = words * hidden * (1 if shape.tied else 2)
    return table + (positions + family.positions if family.positions is not None else 0) * hidden + shape.layers * layer + family.last_norm * hidden


# GGUF

def from_gguf(metadata, types, plain, place):
    """Return the Shape that the metadata of a GGUF file tells; the type with most bytes is that of its quantization."""
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str) or not architecture:
        raise ModelError(f"{place} has no general.architecture, so it is no language model's.")
    prefix = f"{architecture}."
    config = _Config({key[len(prefix):]: value for key, value in metadata.items() if key.startswith(prefix)}, place)
    notes = []
    layers = config.number("block_count", most=MAX_LAYERS)
    heads = _per_layer(config, "attention.head_count", layers)
    kv_heads = _per_layer(config, "attention.head_count_kv", layers) or heads
    hidden = config.number("embedding_length")
    width = hidden // max(heads) if hidden and heads and max(heads) else None
    keys, values = config.number("attention.key_length") or width, config.number("attention.value_length") or width
    attention = None
    if heads and kv_heads:
        kinds = {kind_of(one, other) for one, other in zip(heads, kv_heads) if other}
        attention = kinds.pop() if len(kinds) == 1 else "GQA" if kinds else None
    # Only files made for it have the compressed cache; it has no values of its own.
    if config.number("attention.key_length_mla"):
        attention, values = "MLA", 0
    other = any(mark in key for key in config.values for mark in ("ssm.", "shortconv.", "wkv.", "shared_kv_layers", "key_length_swa"))
    full, sliding, count, window = None, 0, 0, 0
    if layers and kv_heads and keys and values is not None and not other:
        pattern = _PATTERNS.get(architecture)
        window = config.number("attention.sliding_window", most=MAX_CONTEXT, least=0) or 0 if pattern else 0
        # Which layers have the window is known by their number; where their heads differ nobody is told apart.
        if window and len(set(kv_heads)) == 1:
            count = layers - layers // pattern
        else:
            window = 0
        full = sum(kv_heads[count:]) * (keys + values)
        sliding = sum(kv_heads[:count]) * (keys + values)
    else:
        notes.append("The KV cache of a token is not known: the file does not describe layers and heads, or has layers that are no attention.")
    context = config.number("context_length", most=MAX_CONTEXT)
    if context is None:
        notes.append("The file does not tell how long the model's context is.")
    kind = max(sorted(types), key=lambda name: types[name], default=None)
    one = max(kv_heads) if kv_heads else None
    return Shape(
        architecture[:MAX_TEXT], architecture, layers, attention, one, keys, full, sliding, count, window, context, context, "float16", False,
        None if kind in plain else kind, None, tuple(notes), hidden, config.number("feed_forward_length"), config.number("vocab_size"))


def _per_layer(config, name, layers):
    """Return a number for each layer, from one for all or from a list; None where there is neither."""
    value = config.values.get(name)
    if not layers or value is None:
        return None
    if not isinstance(value, list):
        return [config.number(name, most=MAX_HEADS, least=0)] * layers
    if len(value) != layers:
        raise ModelError(f"{config.place}: {name} has {len(value)} entries for {layers} layers.")
    return [_Config({name: one}, config.place).number(name, most=MAX_HEADS, least=0) or 0 for one in value]
