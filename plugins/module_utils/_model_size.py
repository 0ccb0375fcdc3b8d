# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a model takes in memory, from its files on this host. No weights are read."""
from __future__ import annotations

import os

from ansible_collections.erni_ki.inference.plugins.module_utils import _gguf, _kv_cache, _safetensors
from ansible_collections.erni_ki.inference.plugins.module_utils._model_config import from_config, from_gguf, parameters_of
from ansible_collections.erni_ki.inference.plugins.module_utils._model_files import Budget, ModelError, failure, names, read_json

MIB = 1 << 20
GIB = 1 << 30

WIDTHS = {"bfloat16": 2, "float16": 2, "float32": 4}
DTYPES = ("auto", *WIDTHS)
_STORED = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}

# Beside config.json, where older tools of quantization wrote theirs.
_QUANTIZATION_FILES = {"gptq": "quantize_config.json", "awq": "quant_config.json"}


def measure(path, dtype="auto", kv_cache_gib=None):
    """Return what M(erni_ki.inference.model_size_info) documents; None where there is nothing at the path. Raises ModelError."""
    if not path.startswith("/"):
        raise ModelError(
            f"'{path}' is not a path from the root, and looks like a name on the hub, which is not asked. Download the model, and give its folder,"
            " such as /srv/models/NAME.")
    if not os.path.lexists(path):
        return None
    if os.path.isdir(path):
        result = _folder(path, dtype)
    elif path.endswith(".gguf"):
        result = _one_file(path, dtype)
    elif os.path.exists(path):
        raise ModelError(f"{path} is neither a folder nor a .gguf file. Give the folder with the model's config.json, or a .gguf file.")
    else:
        raise ModelError(f"{path} is a symbolic link that leads nowhere, or back to itself. Give the folder itself.")
    each = result["kv_bytes_per_token"]
    if each and kv_cache_gib is not None:
        result["tokens_that_fit"] = _kv_cache.tokens_that_fit(_kv_cache.Kv(each), kv_cache_gib * GIB)
    return result


def loaded_as(dtype, told, stored):
    """Return the type in which vLLM computes: on its own one of 16 bits. C(stored) counts elements by type; it decides where config.json is silent."""
    if dtype != "auto":
        return dtype
    if told is None and stored:
        told = _STORED.get(max(sorted(stored), key=lambda name: stored[name]))
    return "float16" if told in ("float16", "half") else "bfloat16"


def _folder(path, dtype):
    budget = Budget()
    there = names(path)
    if "config.json" not in there:
        files = [name for name in there if name.endswith(".gguf")]
        hint = f"Give one of its files, such as {os.path.join(path, files[0])}." if files else "Give the folder that holds it, or put the whole model there."
        raise ModelError(f"{path} has no config.json, so it is no model's folder. {hint}")
    config = read_json(os.path.join(path, "config.json"), budget)
    further = {method: read_json(os.path.join(path, name), budget) for method, name in _QUANTIZATION_FILES.items() if name in there}
    shape = from_config(config, further, os.path.join(path, "config.json"))
    shards = _safetensors.shards_of(path, budget)
    notes = list(shape.notes)
    if shards:
        tensors = _safetensors.read_folder(path, shards, budget)
        weights = _safetensors.weigh(tensors, shape.tied, shape.method is not None, shape.bits)
        chosen = loaded_as(dtype, shape.dtype, weights.floats)
        parameters, loaded, on_disk, read = weights.parameters, weights.loaded(WIDTHS[chosen]), weights.on_disk, weights.read
        if parameters is None:
            notes.append(f"How many parameters there are is not known: the configuration of {shape.method} does not tell the bits of a weight.")
    else:
        files = [name for name in there if name.endswith((".bin", ".pt", ".pth")) and not name.startswith(("training_args", "optimizer", "scheduler"))]
        files = [os.path.join(path, name) for name in files if os.path.isfile(os.path.join(path, name))]
        if not files:
            raise ModelError(f"{path} has a config.json and no weights: neither .safetensors nor .bin files are there. Copy or download them.")
        chosen = loaded_as(dtype, shape.dtype, {})
        parameters = parameters_of(config)
        try:
            on_disk = sum(map(os.path.getsize, files))
        except OSError as error:
            raise failure(path, error) from None
        read = on_disk
        what = "The weights are in .bin files, which cannot be read without running what is in them."
        if parameters is None:
            loaded = None
            notes.append(f"{what} What they take in memory is not known, as the shape of {shape.family or 'this model'} is not; convert them to safetensors.")
        else:
            loaded = parameters * WIDTHS[chosen]
            notes.append(f"{what} Parameters and weights are those of the shape in config.json.")
    return _result(path, "safetensors" if shards else "config", shape, chosen, parameters, loaded, on_disk, read, notes)


def _one_file(path, dtype):
    header = _gguf.read_model(path)
    shape = from_gguf(header.metadata, header.types, _gguf.PLAIN, path)
    chosen = shape.dtype if dtype == "auto" else dtype
    return _result(path, "gguf", shape, chosen, header.parameters, header.size, header.size, header.size, list(shape.notes))


def _result(path, source, shape, dtype, parameters, loaded, on_disk, read, notes):
    mib = None if loaded is None else -(-loaded // MIB)
    if mib is not None and mib > _kv_cache.MAX_WEIGHTS_MIB:
        raise ModelError(f"The weights of {path} would take {mib} MiB, more than any model's: the shape in config.json, or a header, is broken.")
    width = WIDTHS[dtype]
    total = None if shape.full is None else (shape.full + shape.sliding) * width
    if total is not None and total > _kv_cache.MAX_BYTES:
        raise ModelError(
            f"The KV cache of {path} would take {total} bytes for each token, and that of a model takes at most {_kv_cache.MAX_BYTES}:"
            " layers, heads or their size are broken.")
    return {
        "path": path,
        "source": source,
        "architecture": shape.architecture,
        "dtype": dtype,
        "quantization": shape.method,
        "quantization_bits": shape.bits,
        "parameters": parameters,
        "weights_mib": mib,
        "weights_bytes_on_disk": on_disk,
        "weights_bytes_read": read,
        "layers": shape.layers,
        "attention": shape.attention,
        "kv_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inside,
        "vocabulary_size": shape.words,
        "kv_bytes_per_token": total,
        "sliding_window": {
            "window": shape.window, "layers": shape.sliding_layers, "kv_bytes_per_token": shape.sliding * width} if shape.sliding_layers else None,
        "context_length": shape.context,
        "default_context_length": shape.default_context,
        "tokens_that_fit": None,
        "notes": notes,
    }
