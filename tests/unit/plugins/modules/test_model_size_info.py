# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module on folders and files of tensors without weights. conftest.py compares every result with RETURN."""
from __future__ import annotations

import json

import pytest

from ansible_collections.erni_ki.inference.plugins.modules import model_size_info
from ansible_collections.erni_ki.inference.tests.unit.plugins.model_files import MODELS, folder, gguf_file, gguf_llama, stored


@pytest.fixture(name="run")
def run_fixture(capfd, module_arguments):
    """Run the module with arguments, in check mode too; return its result."""
    def once(arguments):
        with module_arguments(arguments), pytest.raises(SystemExit) as ended:
            model_size_info.main()
        result = json.loads(capfd.readouterr().out)
        assert bool(ended.value.code) == bool(result.get("failed"))
        result.pop("invocation", None)
        return result

    def run(**arguments):
        checked, result = once({**arguments, "_ansible_check_mode": True}), once(arguments)
        assert checked == result
        return result
    return run


def qwen(tmp_path):
    model = MODELS["Qwen2.5-0.5B"]
    return str(folder(tmp_path / "qwen", model.config, stored(model.tensors(model.config), model.stored)))


def mistral(tmp_path):
    model = MODELS["Mistral-7B-v0.1"]
    return str(folder(tmp_path / "mistral", model.config, stored(model.tensors(model.config), model.stored), shards=2))


def llama_gguf(tmp_path):
    return str(gguf_file(tmp_path / "llama.gguf", *gguf_llama(MODELS["Llama-3.2-1B"].config)))


def old(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "new"}', encoding="utf-8")
    (tmp_path / "pytorch_model.bin").touch()
    return str(tmp_path)


@pytest.mark.parametrize("make, more, expected", [
    (qwen, {}, {"parameters": 494032768, "weights_mib": 943, "kv_bytes_per_token": 12288, "context_length": 32768, "tokens_that_fit": None, "notes": []}),
    (qwen, {"dtype": "float32", "kv_cache_gib": 4}, {"weights_mib": 1885, "kv_bytes_per_token": 24576, "tokens_that_fit": 174762}),
    (mistral, {}, {"sliding_window": {"window": 4096, "layers": 32, "kv_bytes_per_token": 131072}}),
    (llama_gguf, {"kv_cache_gib": 1}, {"quantization": "Q4_K", "parameters": 1235814400, "tokens_that_fit": 32768}),
    (old, {}, {"parameters": None, "weights_mib": None, "source": "config"}),
])
def test_models(run, tmp_path, make, more, expected):
    path = make(tmp_path)
    result = run(path=path, **more)
    assert (result["changed"], result["exists"]) == (False, True)
    assert {key: result["model_size"][key] for key in expected} == expected and result["model_size"]["path"] == path


def test_no_model(run, tmp_path):
    assert run(path=str(tmp_path / "gone")) == {"changed": False, "exists": False, "model_size": None}


@pytest.mark.parametrize("arguments, text", [
    ({"path": "Qwen/Qwen2.5-0.5B-Instruct"}, "looks like a name on the hub"), ({"path": "/proc/self"}, "has no config.json"),
    ({"path": "/", "kv_cache_gib": 0}, "kv_cache_gib is 0; it must be at least 1"), ({"path": "/", "dtype": "int8"}, "dtype"), ({}, "path"),
])
def test_refusals(run, arguments, text):
    result = run(**arguments)
    assert result["failed"] and text in result["msg"]
