# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import random
import struct

import pytest
from sandbox_lib import model

TEXT = "the cat and the hat and the bat: the end. The end of the tale is the end of the cat.\n" * 3


@pytest.fixture(name="folder", scope="module")
def fixture_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    model.make(folder, TEXT, size=320)
    return folder


def read(folder, name):
    return json.loads((folder / name).read_text(encoding="utf-8"))


def test_files_are_readable_for_all(folder):
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}


def test_configuration_agrees_with_the_tokenizer(folder):
    config, vocabulary = read(folder, "config.json"), read(folder, "tokenizer.json")["model"]["vocab"]
    assert config["vocab_size"] == len(vocabulary) <= 320
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    assert [config[f"{name}_token_id"] for name in ("bos", "eos", "pad")] == [vocabulary[token] for token in model.SPECIAL] == [0, 1, 2]
    assert config["head_dim"] * config["num_attention_heads"] == config["hidden_size"]


def test_weights_are_a_whole_llama(folder):
    config, content = read(folder, "config.json"), (folder / "model.safetensors").read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    table = json.loads(content[8:8 + length])
    assert table.pop("__metadata__") == {"format": "pt"} and length % 8 == 0
    end = 0
    for name, entry in table.items():
        size = 2
        for extent in entry["shape"]:
            size *= extent
        # One after the other, without a gap, as readers demand.
        assert entry["dtype"] == "BF16" and entry["data_offsets"] == [end, end + size], name
        end += size
    assert len(content) == 8 + length + end
    assert len(table) == 3 + 9 * config["num_hidden_layers"]
    assert table["model.layers.3.self_attn.k_proj.weight"]["shape"] == [128, 256]
    assert table["model.layers.0.mlp.down_proj.weight"]["shape"] == [256, 688]
    assert table["lm_head.weight"]["shape"] == table["model.embed_tokens.weight"]["shape"] == [config["vocab_size"], 256]


def test_special_tokens_and_broken_bytes_are_mute(folder):
    config, content = read(folder, "config.json"), (folder / "model.safetensors").read_bytes()
    vocabulary = read(folder, "tokenizer.json")["model"]["vocab"]
    head = content[-config["vocab_size"] * 256 * 2:]
    silent = [token for token, number in vocabulary.items() if not any(head[number * 512:(number + 1) * 512])]
    assert set(model.SPECIAL) <= set(silent) and "a" not in silent and "Ġthe" not in silent
    assert model.byte_alphabet()[0xFF] in silent


def test_same_text_and_seed_same_bytes(folder, tmp_path):
    model.make(tmp_path / "again", TEXT, size=320)
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_byte_alphabet_is_one_to_one_and_agreed():
    table = model.byte_alphabet()
    assert len(set(table.values())) == 256 and table[ord("A")] == "A" and table[ord(" ")] == "Ġ" and table[ord("\n")] == "Ċ"


def encode(word, merges):
    """Byte-pair encoding as its users do it: the earliest merge first."""
    symbols = [model.byte_alphabet()[byte] for byte in word.encode()]
    ranks = {pair: number for number, pair in enumerate(merges)}
    while len(symbols) > 1:
        rank, place = min((ranks.get(pair, len(merges)), place) for place, pair in enumerate(zip(symbols, symbols[1:])))
        if rank == len(merges):
            break
        symbols[place:place + 2] = [symbols[place] + symbols[place + 1]]
    return symbols


def test_frequent_words_become_one_token():
    merges = model.train_merges(TEXT, 60)
    assert encode(" the", merges) == ["Ġthe"] and encode(" end", merges) == ["Ġend"]
    assert len(encode(" zebra", merges)) > 1


def test_merges_build_on_what_is_there():
    known = set(model.byte_alphabet().values())
    merges = model.train_merges(TEXT, 1000)
    assert len(merges) == len(set(merges))
    for left, right in merges:
        assert left in known and right in known
        known.add(left + right)
    # What occurs once is not worth a token.
    assert len(model.train_merges("abcdefg", 10)) == 0


@pytest.mark.parametrize("value, bits", [(0.0, 0x0000), (1.0, 0x3F80), (-2.0, 0xC000), (0.1, 0x3DCD), (1.00390625, 0x3F80), (1.01171875, 0x3F82)])
def test_bfloat16_rounds_to_even(value, bits):
    assert model.bfloat16([value]) == struct.pack("<H", bits)


def test_bfloat16_keeps_two_digits():
    generator = random.Random(1)
    for value in (generator.uniform(-4, 4) for number in range(1000)):
        half = struct.unpack("<H", model.bfloat16([value]))[0]
        assert abs(struct.unpack("<f", struct.pack("<I", half << 16))[0] - value) <= abs(value) / 256
