# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import struct
import time
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.erni_ki.inference.plugins.module_utils import _gguf, _kv_cache, _model_files, _safetensors
from ansible_collections.erni_ki.inference.plugins.module_utils._kv_cache import Kv
from ansible_collections.erni_ki.inference.plugins.module_utils._model_config import parameters_of
from ansible_collections.erni_ki.inference.plugins.module_utils._model_files import ModelError
from ansible_collections.erni_ki.inference.plugins.module_utils._model_size import measure
from ansible_collections.erni_ki.inference.tests.unit.plugins.model_files import MODELS, count, folder, gguf_file, gguf_llama, safetensors_file, stored
from ansible_collections.erni_ki.inference.tests.unit.plugins.plan_strategies import junk

MIB = 1 << 20
# A small Llama: 4 layers, 2 of 4 heads with keys, 64 wide; 4 x 2 x 2 x 64 elements of cache.
TINY = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16", "vocab_size": 2048, "hidden_size": 256,
    "intermediate_size": 704, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048}
MATRIX = [("model.embed_tokens.weight", "BF16", [2048, 256])]

fast = settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


def refused(path, **options):
    with pytest.raises(ModelError) as raised:
        measure(str(path), **options)
    return str(raised.value)


def tiny(tmp_path, config=None, tensors=None, **more):
    return str(folder(tmp_path / "model", {**TINY, **more} if config is None else config, MATRIX if tensors is None else tensors))


@pytest.mark.parametrize("name", sorted(MODELS))
def test_published_models(tmp_path, name):
    model = MODELS[name]
    path = folder(tmp_path / name, model.config, stored(model.tensors(model.config), model.stored), shards=3)
    found = measure(str(path), kv_cache_gib=4)
    assert found["parameters"] == model.parameters
    # The weights are loaded in 16 bits, however they are stored.
    assert found["weights_mib"] == -(-model.parameters * 2 // MIB)
    assert found["dtype"] == ("float16" if model.stored == "F16" else "bfloat16")
    assert (found["kv_bytes_per_token"], found["attention"], found["context_length"]) == (model.kv, model.attention, model.context)
    assert found["tokens_that_fit"] == (4 << 30) // model.kv
    assert (found["quantization"], found["source"], found["path"]) == (None, "safetensors", str(path))
    sliding = found["sliding_window"]
    assert (sliding and (sliding["window"], sliding["layers"])) == model.sliding
    if sliding:
        assert sliding["kv_bytes_per_token"] * found["layers"] == model.kv * sliding["layers"]
    assert found["default_context_length"] == (model.context or 2048) and bool(found["notes"]) == (model.context is None)
    wide = measure(str(path), "float32")
    assert wide["weights_mib"] == -(-model.parameters * 4 // MIB) and wide["kv_bytes_per_token"] == 2 * model.kv


@pytest.mark.parametrize("name", sorted(MODELS))
def test_published_models_by_their_shape(tmp_path, name):
    """Where the weights cannot be read, what config.json says is as good, for families that are known."""
    model = MODELS[name]
    assert parameters_of(model.config) == (model.parameters if model.shape_tells else None)
    path = tmp_path / name
    path.mkdir()
    (path / "config.json").write_text(json.dumps(model.config), encoding="utf-8")
    (path / "pytorch_model.bin").write_bytes(b"1234")
    found = measure(str(path))
    assert found["source"] == "config" and found["weights_bytes_on_disk"] == 4 and found["kv_bytes_per_token"] == model.kv
    assert found["weights_mib"] == (-(-model.parameters * 2 // MIB) if model.shape_tells else None)
    assert "in .bin files" in found["notes"][-1]


def test_stored_and_loaded_types(tmp_path):
    tensors = [("model.embed_tokens.weight", "F32", [1024, 1024]), ("model.norm.weight", "BF16", [1024])]
    config = {key: value for key, value in TINY.items() if key != "torch_dtype"}
    for number, (told, asked, expected) in enumerate([
            ("float32", "auto", "bfloat16"), ("torch.float16", "auto", "float16"), (None, "auto", "bfloat16"), ("bfloat16", "float32", "float32"),
            ("float8_e4m3fn", "auto", "bfloat16")]):
        path = folder(tmp_path / str(number), {**config, "torch_dtype": told}, tensors)
        found = measure(str(path), asked)
        assert (found["dtype"], found["weights_bytes_on_disk"]) == (expected, 4 * MIB + 2048)
        assert found["weights_mib"] == (5 if expected == "float32" else 3)
    # Silent: what most of the elements are stored as.
    assert measure(str(folder(tmp_path / "half", config, [("a.weight", "F16", [8, 8])])))["dtype"] == "float16"


def test_buffers_and_tied_matrices_do_not_count(tmp_path):
    head, table = ("lm_head.weight", "BF16", [2048, 256]), MATRIX[0]
    for number, (tied, tensors, parameters) in enumerate([
            (True, [table, head], 2048 * 256), (False, [table, head], 2 * 2048 * 256), (True, [head], 2048 * 256), (None, [table, head], 2 * 2048 * 256),
            (None, [table, ("model.layers.0.self_attn.rotary_emb.inv_freq", "F32", [32]), ("h.0.attn.masked_bias", "F32", [])], 2048 * 256),
            (None, [table, ("h.0.attn.bias", "F32", [1, 1, 64, 64]), ("layers.0.attention.bias", "BF16", [5])], 2048 * 256 + 5)]):
        found = measure(str(folder(tmp_path / str(number), {**TINY, "tie_word_embeddings": tied}, tensors)))
        assert found["parameters"] == parameters


QUANTIZED = {
    "gptq": ({"quant_method": "gptq", "bits": 4},
             [("q.qweight", "I32", [128, 1024]), ("q.qzeros", "I32", [8, 128]), ("q.scales", "F16", [8, 1024]), ("q.g_idx", "I32", [1024])], "gptq", 4),
    "awq": ({"quant_method": "awq", "w_bit": 4}, [("q.qweight", "I32", [1024, 128]), ("q.qzeros", "I32", [8, 128]), ("q.scales", "F16", [8, 1024])], "awq", 4),
    "compressed": (
        {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": 4}}, "broken": 1}},
        [("q.weight_packed", "I32", [1024, 128]), ("q.weight_scale", "BF16", [1024, 8]), ("q.weight_shape", "I64", [2])], "compressed-tensors", 4),
    "fp8": ({"quant_method": "fp8"}, [("q.weight", "F8_E4M3", [1024, 1024]), ("q.weight_scale_inv", "F32", [8, 8])], "fp8", 8),
    "bitsandbytes": (
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        [("q.weight", "U8", [512 * 1024, 1]), ("q.weight.absmax", "F32", [16384]), ("q.weight.quant_state.bitsandbytes__nf4", "U8", [80])],
        "bitsandbytes", 4),
    "mxfp4": ({"quant_method": "mxfp4"}, [("q.w_blocks", "U8", [1024, 512]), ("q.w_scales", "U8", [1024, 32])], "mxfp4", 4),
}


@pytest.mark.parametrize("name", sorted(QUANTIZED))
def test_quantized_weights_stay_quantized(tmp_path, name):
    quantization, tensors, method, bits = QUANTIZED[name]
    found = measure(tiny(tmp_path, tensors=tensors + [("norm.weight", "F16", [1024])], quantization_config=quantization), "float32")
    assert (found["quantization"], found["quantization_bits"], found["parameters"]) == (method, bits, 1024 * 1024 + 1024)
    assert found["weights_mib"] == 2 if bits == 8 else found["weights_mib"] == 1
    assert found["kv_bytes_per_token"] == 4 * 2 * 2 * 64 * 4


def test_quantization_that_is_told_elsewhere_or_not_whole(tmp_path):
    path = tiny(tmp_path, tensors=[("q.qweight", "I32", [128, 1024])])
    (tmp_path / "model" / "quantize_config.json").write_text('{"bits": 8, "group_size": 128}', encoding="utf-8")
    found = measure(path)
    assert (found["quantization"], found["quantization_bits"], found["parameters"]) == ("gptq", 8, 4 * 128 * 1024)
    (tmp_path / "model" / "quantize_config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "model" / "config.json").write_text(json.dumps({**TINY, "quantization_config": {"quant_method": "gptq"}}), encoding="utf-8")
    found = measure(path)
    assert found["parameters"] is None and "bits of a weight" in found["notes"][0] and found["weights_mib"] == 1


@pytest.mark.parametrize("more, expected", [
    ({"num_key_value_heads": None}, ("MHA", 4, 4096)), ({"num_key_value_heads": 1}, ("MQA", 1, 1024)), ({"multi_query": True}, ("MQA", 1, 1024)),
    ({"attn_config": {"kv_n_heads": 2}, "num_key_value_heads": None}, ("GQA", 2, 2048)), ({"head_dim": 128.0}, ("GQA", 2, 4096)),
    ({"text_config": {"num_hidden_layers": 8}}, ("GQA", 2, 4096)), ({"model_type": "chatglm", "multi_query_group_num": 1}, ("GQA", 2, 2048)),
    ({"model_type": "gpt_bigcode"}, ("MQA", 1, 1024)),
])
def test_kinds_of_attention(tmp_path, more, expected):
    found = measure(tiny(tmp_path, **more))
    assert (found["attention"], found["kv_heads"], found["kv_bytes_per_token"]) == expected


@pytest.mark.parametrize("more, expected", [
    ({"sliding_window": 512}, (512, 4)), ({"sliding_window": None}, None), ({"sliding_window": 512, "use_sliding_window": False}, None),
    ({"model_type": "qwen2", "sliding_window": 512}, None),
    ({"model_type": "qwen2", "sliding_window": 512, "use_sliding_window": True, "max_window_layers": 3}, (512, 1)),
    ({"sliding_window": 512, "layer_types": ["sliding_attention", "full_attention"] * 2}, (512, 2)),
    ({"sliding_window": 512, "sliding_window_pattern": 4}, (512, 3)), ({"model_type": "gemma3_text", "sliding_window": 512}, (512, 4)),
])
def test_windows(tmp_path, more, expected):
    found = measure(tiny(tmp_path, **more))
    sliding = found["sliding_window"]
    assert (sliding and (sliding["window"], sliding["layers"])) == expected and found["kv_bytes_per_token"] == 2048
    assert sliding is None or sliding["kv_bytes_per_token"] == 512 * expected[1]


@pytest.mark.parametrize("more", [
    {"is_encoder_decoder": True}, {"mamba_d_state": 16}, {"layer_types": ["linear_attention"] * 4}, {"layer_types": ["sliding_attention"] * 4},
    {"num_attention_heads": None}, {"num_key_value_heads": [1, 2, 3, 4]}, {"hidden_size": 255}, {"num_hidden_layers": None}])
def test_caches_that_are_not_known(tmp_path, more):
    found = measure(tiny(tmp_path, **more), kv_cache_gib=1)
    assert (found["kv_bytes_per_token"], found["sliding_window"], found["tokens_that_fit"]) == (None, None, None)
    assert found["notes"] and found["notes"][0].startswith("The KV cache of a token is not known: ") and found["weights_mib"] == 1


@pytest.mark.parametrize("more, expected", [
    ({}, (2048, 2048)), ({"seq_length": 512}, (512, 512)), ({"max_position_embeddings": None}, (None, 2048)),
    ({"max_position_embeddings": None, "model_max_length": 1e30}, (None, 2048)), ({"max_position_embeddings": float("inf")}, (None, 2048)),
    ({"rope_scaling": {"type": "linear", "factor": 4.0}}, (8192, 8192)), ({"rope_scaling": {"rope_type": "llama3", "factor": 32.0}}, (2048, 2048)),
    ({"rope_scaling": {"type": "yarn", "factor": 4, "original_max_position_embeddings": 1024}}, (4096, 4096)),
    ({"rope_parameters": {"rope_type": "yarn", "factor": 4}}, (8192, 8192)), ({"rope_scaling": {"type": "yarn", "factor": "4"}}, (2048, 2048)),
    ({"rope_scaling": {"type": "longrope"}, "original_max_position_embeddings": 512}, (2048, 512)),
])
def test_contexts(tmp_path, more, expected):
    found = measure(tiny(tmp_path, **more))
    assert (found["context_length"], found["default_context_length"]) == expected


# GGUF

@pytest.mark.parametrize("kind, quantization", [("Q4_K", "Q4_K"), ("Q8_0", "Q8_0"), ("F16", None)])
def test_a_gguf_file(tmp_path, kind, quantization):
    config = MODELS["Llama-3.2-1B"].config
    metadata, tensors = gguf_llama(config, kind)
    found = measure(str(gguf_file(tmp_path / "m.gguf", metadata, tensors)), kv_cache_gib=1)
    assert (found["parameters"], found["kv_bytes_per_token"], found["context_length"]) == (1235814400, 32768, 131072)
    assert (found["architecture"], found["quantization"], found["attention"], found["tokens_that_fit"]) == ("llama", quantization, "GQA", 32768)
    assert found["weights_bytes_on_disk"] > 1235000000 * {"Q4_K": 9, "Q8_0": 17, "F16": 32}[kind] // 16 and found["notes"] == []
    assert (found["dtype"], found["source"]) == ("float16", "gguf")
    assert measure(str(tmp_path / "m.gguf"), "float32")["kv_bytes_per_token"] == 65536


@pytest.mark.parametrize("more, expected", [
    ({}, ("GQA", 2048, None)), ({"x.attention.head_count_kv": [2, 2, 2, 1]}, ("GQA", 1792, None)),
    ({"x.attention.head_count_kv": [4, 4, 4, 4]}, ("MHA", 4096, None)),
    ({"general.architecture": "gemma2", "x.attention.sliding_window": 512}, ("GQA", 2048, 2)),
    ({"general.architecture": "gemma2", "x.attention.sliding_window": 512, "x.attention.head_count_kv": [2, 2, 2, 1]}, ("GQA", 1792, None)),
    ({"x.attention.sliding_window": 512}, ("GQA", 2048, None)), ({"x.ssm.state_size": 4}, ("GQA", None, None)),
    ({"x.attention.head_count": 0}, ("GQA", None, None)),
    ({"x.attention.key_length": 576, "x.attention.key_length_mla": 192, "x.attention.head_count_kv": 1}, ("MLA", 4608, None)),
])
def test_caches_of_gguf_files(tmp_path, more, expected):
    metadata = {
        "general.architecture": "x", "x.block_count": 4, "x.context_length": 2048, "x.embedding_length": 256, "x.attention.head_count": 4,
        "x.attention.head_count_kv": 2, **more}
    metadata = {key.replace("x.", f"{metadata['general.architecture']}.", 1): value for key, value in metadata.items()}
    found = measure(str(gguf_file(tmp_path / "m.gguf", metadata, [("a", "F32", [4])])))
    assert found["kv_bytes_per_token"] == expected[1] and (expected[1] is None) == bool(found["notes"])
    assert expected[1] is None or found["attention"] == expected[0]
    assert (found["sliding_window"] or {}).get("layers") == expected[2]


def test_a_model_in_several_gguf_files(tmp_path):
    metadata, tensors = gguf_llama(TINY, "Q4_0")
    half, paths = len(tensors) // 2, [tmp_path / f"m-0000{number}-of-00002.gguf" for number in (1, 2)]
    split = {"split.count": 2, "split.tensors.count": len(tensors)}
    gguf_file(paths[0], {**metadata, **split}, tensors[:half])
    gguf_file(paths[1], {"split.count": 2}, tensors[half:])
    whole = measure(str(gguf_file(tmp_path / "m.gguf", metadata, tensors)))
    assert {**measure(str(paths[0])), "path": ""} == {**whole, "path": ""}
    assert f"Give the first, {paths[0]}." in refused(paths[1])
    gguf_file(paths[0], {**metadata, **split, "split.tensors.count": 99}, tensors[:half])
    assert "the first says 99" in refused(paths[0])
    paths[1].unlink()
    assert f"1 is missing: {paths[1]}" in refused(paths[0])
    paths[0].rename(tmp_path / "first.gguf")
    assert "NAME-00001-of-00002.gguf" in refused(tmp_path / "first.gguf")
    assert "at most 1000" in refused(gguf_file(tmp_path / "many-00001-of-02000.gguf", {"split.count": 2000}, []))


HOSTILE_GGUF = {
    "short": (b"GG", "no GGUF file"), "other": (b"ELF!" + bytes(60), "no GGUF file"), "no header": (b"GGUF\3\0\0\0", "goes on behind the end"),
    "version": (b"GGUF\1\0\0\0" + bytes(60), "GGUF version 1"), "big endian": (b"GGUF\0\0\0\3" + bytes(60), "other byte order"),
    "tensors": (b"GGUF\3\0\0\0" + struct.pack("<QQ", 1 << 60, 0), "is to have 1152921504606846976 tensors"),
    "keys": (b"GGUF\3\0\0\0" + struct.pack("<QQ", 0, 1 << 60), "keys"),
    "key": (b"GGUF\3\0\0\0" + struct.pack("<QQQ", 0, 1, 1 << 62), "bytes in one name"),
    "text": (b"GGUF\3\0\0\0" + struct.pack("<QQQ1sIQ", 0, 1, 1, b"k", 8, 1 << 62), "bytes in one text"),
    "text behind the end": (b"GGUF\3\0\0\0" + struct.pack("<QQQ1sIQ", 0, 1, 1, b"k", 8, 1 << 20), "goes on behind the end"),
    "type": (b"GGUF\3\0\0\0" + struct.pack("<QQQ1sI", 0, 1, 1, b"k", 77), "type 77"),
    "list": (b"GGUF\3\0\0\0" + struct.pack("<QQQ1sIIQ", 0, 1, 1, b"k", 9, 8, 1 << 62), "lists of more than"),
    "list of numbers": (b"GGUF\3\0\0\0" + struct.pack("<QQQ1sIIQ", 0, 1, 1, b"k", 9, 4, 1 << 62), "goes on behind the end"),
    "nested list": (b"GGUF\3\0\0\0" + struct.pack("<QQQ1sIIQIQ", 0, 1, 1, b"k", 9, 9, 1, 9, 1), "list of values of the type 9"),
    "dimensions": (b"GGUF\3\0\0\0" + struct.pack("<QQQ1sI", 1, 0, 1, b"t", 9), "9 dimensions"),
    "shape": (b"GGUF\3\0\0\0" + struct.pack("<QQQ1sIQQIQ", 1, 0, 1, b"t", 2, 1 << 60, 1 << 60, 0, 0), "more than any file holds"),
    "tensor type": (b"GGUF\3\0\0\0" + struct.pack("<QQQ1sIQIQ", 1, 0, 1, b"t", 1, 1, 99, 0), "type 99"),
    "block": (b"GGUF\3\0\0\0" + struct.pack("<QQQ1sIQIQ", 1, 0, 1, b"t", 1, 33, 2, 0), "blocks of 32"),
    "incomplete": (b"GGUF\3\0\0\0" + struct.pack("<QQQ1sIQIQ", 1, 0, 1, b"t", 1, 320, 2, 0), "its tensors take 180 bytes"),
    "overlap": (b"GGUF\3\0\0\0" + struct.pack("<QQ", 2, 0) + 2 * struct.pack("<Q1sIQIQ", 1, b"t", 1, 32, 0, 0) + bytes(160), "overlap"),
    "no architecture": (b"GGUF\3\0\0\0" + bytes(16), "no general.architecture"),
}


@pytest.mark.parametrize("name", sorted(HOSTILE_GGUF))
def test_hostile_gguf_files(tmp_path, name):
    data, text = HOSTILE_GGUF[name]
    (tmp_path / "m.gguf").write_bytes(data)
    assert text in refused(tmp_path / "m.gguf")


@pytest.mark.parametrize("metadata, text", [
    ({"general.alignment": 0}, "general.alignment 0"), ({"general.alignment": "x"}, "general.alignment 'x'"), ({"llama.block_count": -3}, "block_count is -3"),
    ({"llama.block_count": 4, "llama.attention.head_count": [1, 2]}, "2 entries for 4 layers"),
    ({"llama.block_count": 9999, "llama.attention.head_count": 65535, "llama.embedding_length": 1 << 24, "llama.attention.key_length": 1 << 24,
      "llama.attention.value_length": 1 << 24}, "for each token"),
])
def test_absurd_gguf_metadata(tmp_path, metadata, text):
    assert text in refused(gguf_file(tmp_path / "m.gguf", {"general.architecture": "llama", **metadata}, []))


# Hostile folders

def index(path, places):
    (path / "model.safetensors.index.json").write_text(json.dumps(places), encoding="utf-8")


@pytest.mark.parametrize("places, text", [
    ({}, "has no weight_map"), ({"weight_map": {}}, "has no weight_map"), ({"weight_map": {"a": "../secret.safetensors"}}, "only a file in the same folder"),
    ({"weight_map": {"a": "/etc/shadow"}}, "only a file in the same folder"), ({"weight_map": {"a": 1}}, "only a file in the same folder"),
    ({"weight_map": {"a": "x" * 300}}, "only a file in the same folder"), ({"weight_map": {"a": "a\0b"}}, "only a file in the same folder"),
    ({"weight_map": {str(number): f"{number}.safetensors" for number in range(5)}}, "5 are missing: '0.safetensors', '1.safetensors', '2.safetensors' and 2"),
    ({"weight_map": {"a": "model.safetensors", "b": "\udcff"}}, "1 is missing"), ({"weight_map": {"a": "model.safetensors"}}, "lacks 1 of the tensors"),
    ({"weight_map": {str(number): str(number) for number in range(2001)}}, "in 2001 files"),
])
def test_indexes_that_cannot_be(tmp_path, places, text):
    path = tiny(tmp_path)
    index(tmp_path / "model", places)
    assert text in refused(path)


HEADERS = {
    "no dictionary": ({"t": 1}, "dtype, shape and data_offsets"), "type": ({"t": {"dtype": "F7"}}, "the type 'F7'"),
    "no text": ({"t": {"dtype": ["F32"]}}, "the type ['F32']"), "no shape": ({"t": {"dtype": "F32"}}, "the shape None"),
    "negative": ({"t": {"dtype": "F32", "shape": [-1, 4], "data_offsets": [0, 4]}}, "the shape [-1, 4]"),
    "huge": ({"t": {"dtype": "F32", "shape": [1 << 64], "data_offsets": [0, 4]}}, "the shape [18446744073709551616]"),
    "dimensions": ({"t": {"dtype": "F32", "shape": [1] * 65, "data_offsets": [0, 4]}}, "at most 64"),
    "truth": ({"t": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, "the shape [True]"),
    "offsets": ({"t": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, "the data_offsets [4, 0]"),
    "one offset": ({"t": {"dtype": "F32", "shape": [1], "data_offsets": [4]}}, "the data_offsets [4]"),
    "size": ({"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, "has 4 bytes, and its shape [2] of F32 takes 8"),
    "incomplete": ({"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, "is incomplete"),
    "overlap": ({name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for name in "ab"}, "overlap"),
}


@pytest.mark.parametrize("name", sorted(HEADERS))
def test_headers_that_cannot_be(tmp_path, name):
    header, text = HEADERS[name]
    path = tiny(tmp_path)
    safetensors_file(tmp_path / "model" / "model.safetensors", [], header, 8 + len(json.dumps(header)) + 4)
    found = refused(path)
    assert text in found and str(tmp_path / "model" / "model.safetensors") in found


@pytest.mark.parametrize("data, text", [
    (b"", "no safetensors file"), (b"1234", "no safetensors file"), (struct.pack("<Q", 1 << 62) + b"{}", "is to have 4611686018427387904 bytes"),
    (struct.pack("<Q", 2) + b"[]", "a JSON object is needed"), (struct.pack("<Q", 3) + b"{\"a", "not valid JSON"),
    (struct.pack("<Q", 2) + b"\xff\xff", "not valid JSON"), (struct.pack("<Q", 3) + b"[[[", "not valid JSON"),
])
def test_files_that_are_no_safetensors(tmp_path, data, text):
    path = tiny(tmp_path)
    (tmp_path / "model" / "model.safetensors").write_bytes(data)
    assert text in refused(path)


@pytest.mark.parametrize("config, text", [
    ("[1]", "a JSON object is needed"), ("{", "not valid JSON"), ("[" * 200000, "nested too deep"), ('{"a": ' * 100000, "nested too deep"),
    ('{"num_hidden_layers": ' + "9" * 5000 + "}", "a number of 5000 digits"), ('{"num_hidden_layers": -2}', "num_hidden_layers is -2"),
    ('{"num_hidden_layers": 1.5}', "num_hidden_layers is 1.5"), ('{"num_hidden_layers": true}', "num_hidden_layers is True"),
    ('{"hidden_size": "' + "x" * 5000 + '"}', "hidden_size is 'xxx"), ('{"num_hidden_layers": 1e300}', "num_hidden_layers is 1"),
    ('{"max_position_embeddings": NaN}', "max_position_embeddings is nan"),
    ('{"num_hidden_layers": 3, "num_attention_heads": 4, "hidden_size": 8, "layer_types": ["full_attention"]}', "1 entries for 3 layers"),
    ('{"num_hidden_layers": 10000, "num_attention_heads": 60000, "head_dim": 16000000}', "for each token"),
])
def test_configurations_that_cannot_be(tmp_path, config, text):
    path = tiny(tmp_path)
    (tmp_path / "model" / "config.json").write_text(config, encoding="utf-8")
    found = refused(path)
    assert text in found and len(found) < 600


def test_large_files_are_not_read(tmp_path):
    """A GiB of JSON as configuration, index, header of safetensors and of GGUF: an answer at once, and hardly any memory."""
    places = {"config.json": "at most 16777216", "model.safetensors.index.json": "at most 16777216", "model.safetensors": "at most 16777216"}
    began = time.monotonic()
    tracemalloc.start()
    for name, text in places.items():
        path = tiny(tmp_path / name)
        with open(os.path.join(path, name), "wb") as stream:
            stream.write(struct.pack("<Q", 1 << 30) if name == "model.safetensors" else b'{"a":')
            stream.truncate((1 << 30) + 8)
        assert text in refused(path)
    (tmp_path / "m.gguf").write_bytes(b"GGUF\3\0\0\0" + struct.pack("<QQQ1sIQ", 0, 2, 1, b"k", 8, 60 << 20))
    os.truncate(tmp_path / "m.gguf", 1 << 30)
    assert "no general.architecture" in refused(gguf_file(tmp_path / "empty.gguf", {}, []))
    with open(tmp_path / "m.gguf", "r+b") as stream:
        stream.seek(24 + 9 + 4 + 8 + (60 << 20))
        stream.write(struct.pack("<Q1sIQ", 1, b"l", 8, 60 << 20))
    assert "larger than 67108864 bytes" in refused(tmp_path / "m.gguf")
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()
    assert time.monotonic() - began < 30


def test_bounds_of_all_files_together(tmp_path):
    with pytest.raises(ModelError, match="together"):
        _model_files.Budget(10).take(11, "x")
    with pytest.raises(ModelError, match="brackets and quotes"):
        _model_files.parse(b"[" * (_model_files.MAX_JSON_PARTS + 1), "x")
    for number in range(_model_files.MAX_ENTRIES + 1):
        (tmp_path / str(number)).touch()
    assert "more than 10000 files" in refused(tmp_path)


def test_links_and_what_is_no_file(tmp_path):
    os.symlink(tmp_path / "loop", tmp_path / "loop")
    assert "leads nowhere, or back to itself" in refused(tmp_path / "loop")
    path = tiny(tmp_path)
    for place in ("config.json", "model.safetensors"):
        file = os.path.join(path, place)
        os.rename(file, file + ".kept")
        os.symlink(file, file)
        assert "leads back to itself" in refused(path)
        os.unlink(file)
        os.symlink("gone", file)
        assert "a file that is not there" in refused(path)
        os.unlink(file)
        os.mkfifo(file)
        assert f"{file} is not a regular file" in refused(path)
        os.unlink(file)
        os.mkdir(file)
        assert "not a regular file" in refused(path)
        os.rmdir(file)
        # As the hub's cache has it: links to files elsewhere.
        os.rename(file + ".kept", tmp_path / place)
        os.symlink(tmp_path / place, file)
    assert measure(path)["parameters"] == 2048 * 256


def test_what_is_no_model(tmp_path):
    assert "looks like a name on the hub" in refused("Qwen/Qwen2.5-0.5B-Instruct")
    assert measure(str(tmp_path / "gone")) is None
    assert "neither a folder nor a .gguf file" in refused("/proc/self/status")
    assert "has no config.json" in refused(tmp_path)
    (tmp_path / "m.gguf").touch()
    assert f"such as {tmp_path / 'm.gguf'}" in refused(tmp_path)
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    assert "no weights" in refused(tmp_path)
    safetensors_file(tmp_path / "consolidated.safetensors", [("a", "F32", [4])])
    safetensors_file(tmp_path / "adapter_model.safetensors", [("b", "F32", [4])])
    assert measure(str(tmp_path))["parameters"] == 4


@pytest.mark.parametrize("more", [
    {"model_type": "opt", "word_embed_proj_dim": 128}, {"model_type": "opt", "do_layer_norm_before": False}, {"vocab_size": None}, {"model_type": "new"},
    {"model_type": "falcon", "new_decoder_architecture": True}, {"text_config": {}}])
def test_shapes_that_do_not_tell(more):
    assert parameters_of({**TINY, **more}) is None


def test_biases_of_a_shape():
    plain = parameters_of(TINY)
    assert parameters_of({**TINY, "attention_bias": True}) == plain + 4 * (256 + 2 * 128 + 256)
    assert parameters_of({**TINY, "mlp_bias": True}) == plain + 4 * (2 * 704 + 256)


# Arithmetic of the cache

def test_what_a_sequence_needs():
    # Llama-3.2-1B: its whole context is exactly 4 GiB.
    assert _kv_cache.needed(Kv(32768), 131072, 32, 1024) == 4 << 30
    assert _kv_cache.needed(Kv(10), 33, 32, 1024) == 640
    # A window of 100 and a batch of 50 are 149 tokens, 5 blocks of 32, and one more.
    assert _kv_cache.needed(Kv(0, 10, 100), 9000, 32, 50) == 6 * 320 and _kv_cache.needed(Kv(1, 10, 100), 20, 32, 50) == 32 + 640
    assert _kv_cache.longest(Kv(32768), 4 << 30, 131072, 32, 1024) == 131072 and _kv_cache.longest(Kv(32768), 2 << 30, 131072, 32, 1024) == 65536
    assert _kv_cache.longest(Kv(32768), 1 << 20, 131072, 64, 1024) == 0


@fast
@given(full=st.integers(0, 1 << 20), sliding=st.integers(0, 1 << 20), window=st.integers(1, 9000), space=st.integers(0, 1 << 33),
       most=st.integers(1, 1 << 20), block=st.sampled_from([16, 32, 128]), batch=st.integers(1, 4096))
def test_the_longest_that_fits_is_the_longest(full, sliding, window, space, most, block, batch):
    kv = Kv(full, sliding, window)
    found = _kv_cache.longest(kv, space, most, block, batch)
    assert 0 <= found <= most
    assert not found or _kv_cache.needed(kv, found, block, batch) <= space
    assert found == most or _kv_cache.needed(kv, found + 1, block, batch) > space


# Whatever is in the files: an answer or a text.

def answered(path):
    try:
        found = measure(str(path))
    except ModelError as error:
        assert str(error).strip() and len(str(error)) < 2000
        return None
    json.dumps(found, ensure_ascii=False).encode()
    return found


tensor_entry = st.fixed_dictionaries({
    "dtype": st.one_of(st.sampled_from(sorted(_safetensors.BITS)), junk), "shape": st.one_of(st.lists(st.integers(-1, 9), max_size=3), junk),
    "data_offsets": st.one_of(st.lists(st.integers(-1, 99), min_size=2, max_size=2), junk)})


def as_json(value):
    return json.dumps(value, default=repr).encode()


@fast
@given(config=st.one_of(junk, st.dictionaries(st.sampled_from(sorted(TINY) + ["sliding_window", "layer_types", "quantization_config", "rope_scaling",
                                                                              "kv_lora_rank", "text_config", "attn_config"]), junk)),
       header=st.one_of(junk, st.dictionaries(st.text(max_size=9), tensor_entry, max_size=3)), places=st.one_of(st.none(), junk), cut=st.integers(0, 40))
def test_any_folder_has_an_answer(tmp_path_factory, config, header, places, cut):
    path = tmp_path_factory.mktemp("model")
    (path / "config.json").write_bytes(as_json({**TINY, **config} if isinstance(config, dict) else config))
    text = as_json(header)
    (path / "model.safetensors").write_bytes((struct.pack("<Q", len(text)) + text + bytes(100))[cut // 4:])
    if places is not None:
        (path / "model.safetensors.index.json").write_bytes(as_json({"weight_map": places}))
    answered(path)


@fast
@given(data=st.data())
def test_any_gguf_file_has_an_answer(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("model") / "m.gguf"
    metadata, tensors = gguf_llama({**TINY, "num_hidden_layers": 1}, "Q8_0")
    metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.scores"], metadata["tokenizer.chat_template"] = ["a"], [1.0], "x"
    whole = gguf_file(path, metadata, tensors).read_bytes()[:2000]
    position = data.draw(st.integers(0, len(whole) - 1))
    changed = whole[:position] + data.draw(st.binary(min_size=1, max_size=8)) + whole[position + 8:]
    path.write_bytes(changed[:data.draw(st.one_of(st.just(len(changed)), st.integers(0, len(changed))))])
    if data.draw(st.booleans()):
        os.truncate(path, 1 << 24)
    answered(path)


@fast
@given(shapes=st.lists(st.tuples(st.sampled_from(["F32", "F16", "BF16"]), st.lists(st.integers(1, 64), min_size=1, max_size=3)), min_size=1, max_size=9),
       shards=st.integers(1, 3))
def test_weights_are_the_sum_of_the_tensors(tmp_path_factory, shapes, shards):
    tensors = [(f"t.{number}", dtype, shape) for number, (dtype, shape) in enumerate(shapes)]
    path = folder(tmp_path_factory.mktemp("model"), TINY, tensors, min(shards, len(tensors)))
    elements = sum(count(shape) for _dtype, shape in shapes)
    found = answered(path)
    assert found["parameters"] == elements and found["weights_mib"] == -(-elements * 2 // MIB)
    assert found["weights_bytes_on_disk"] == sum(count(shape) * (4 if dtype == "F32" else 2) for dtype, shape in shapes)


def test_the_table_of_types_is_whole():
    assert all(block in (1, 32, 256) and size > 0 for _name, block, size in _gguf.TYPES.values())
