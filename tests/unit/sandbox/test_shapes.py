# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import math
import pathlib

import pytest
from sandbox_lib import shapes

from ansible_collections.erni_ki.inference.plugins.module_utils._model_size import measure

MODELS = json.loads((pathlib.Path(__file__).resolve().parents[2] / "calibrate" / "shapes.json").read_text(encoding="utf-8"))["models"]
PARAMETERS = {"gpt2": 124439808, "SmolLM2-135M": 134515008, "Qwen2.5-0.5B": 494032768, "Qwen3-0.6B": 596049920, "Llama-3.2-1B": 1235814400}


@pytest.mark.parametrize("name", sorted(MODELS))
def test_folders_are_as_published(tmp_path, name):
    folder = shapes.make(tmp_path / name, MODELS[name], {"words": 1})
    found = measure(str(folder))
    assert found["parameters"] == PARAMETERS[name] and found["notes"] == []
    assert found["weights_bytes_read"] == found["weights_bytes_on_disk"] == PARAMETERS[name] * shapes.BYTES[MODELS[name]["stored"]]
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}
    # Holes: nothing but the header is on the disk.
    weights = (folder / "model.safetensors").stat()
    assert weights.st_blocks * 512 < 1 << 20 < weights.st_size


def test_an_output_matrix_of_its_own():
    named = dict(shapes.tensors({**MODELS["Llama-3.2-1B"]["config"], "tie_word_embeddings": False}))
    assert named["lm_head.weight"] == named["model.embed_tokens.weight"] and all(math.prod(shape) for shape in named.values())
