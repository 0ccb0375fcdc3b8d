# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.erni_ki.inference.plugins.module_utils import _modelfile


@pytest.mark.parametrize("text, expected", [
    ("FROM llama3.2:3b", {"from": "llama3.2:3b"}),
    ("\n# said by nobody\n  from llama3.2:3b  \n\n", {"from": "llama3.2:3b"}),
    ("FROM /srv/a b.gguf", {"gguf": "/srv/a b.gguf"}),
    ('FROM x\r\nSYSTEM "You are short."\r\n', {"from": "x", "system": "You are short."}),
    ('FROM x\nSYSTEM You are "short".', {"from": "x", "system": 'You are "short".'}),
    ('FROM x\nSYSTEM """\nOne.\n\n  # two\nFROM three""" \n', {"from": "x", "system": "\nOne.\n\n  # two\nFROM three"}),
    ('FROM x\nTEMPLATE "one\ntwo"', {"from": "x", "template": "one\ntwo"}),
    ('FROM x\nSYSTEM ""', {"from": "x", "system": ""}),
    ('FROM x\nPARAMETER stop "<|a|>"\nPARAMETER STOP b\nparameter Num_Ctx   4096', {"from": "x", "parameters": {"stop": ["<|a|>", "b"], "num_ctx": "4096"}}),
])
def test_what_a_modelfile_stands_for(text, expected):
    found = _modelfile.parse(text)
    assert {key: value for key, value in found.items() if value is not None and value != {}} == expected


@pytest.mark.parametrize("text, words", [
    ("", "has no FROM"),
    ("SYSTEM x", "has no FROM"),
    ("FROM", "line 1 of the Modelfile has FROM without a value"),
    ("FROM x\n\nFROM y", "line 3 of the Modelfile has FROM for a second time"),
    ("FROM x\nPARAMETER top_k 1\nPARAMETER top_k 2", "has top_k for a second time"),
    ("FROM x\nPARAMETER top_k", "line 2 of the Modelfile has PARAMETER without a value"),
    ("FROM ./x.gguf", "FROM ./x.gguf, and nobody knows from which folder"),
    ("FROM ~/x.gguf", "give the file's whole path"),
    ("FROM x\nADAPTER /srv/y", "line 2 of the Modelfile has ADAPTER, which models that are made here do not get"),
    ("FROM x\n{{ .Prompt }}", "line 2 of the Modelfile begins with {{"),
    ('FROM x\nSYSTEM """never\nends"', 'the text that begins in line 2 of the Modelfile has no closing """'),
])
def test_what_cannot_be_is_said(text, words):
    with pytest.raises(ValueError) as error:
        _modelfile.parse(text)
    assert words in str(error.value)


@given(st.text())
def test_any_text_is_read_or_refused(text):
    try:
        found = _modelfile.parse(text)
    except ValueError:
        return
    assert bool(found.get("from")) != bool(found.get("gguf"))


@given(st.text(st.characters(blacklist_characters='"', blacklist_categories=("Cc", "Cs"))), st.lists(st.sampled_from(["", " a", "FROM y", "# b"])))
def test_a_text_in_three_quotes_is_kept_as_it_is(line, more):
    system = "\n".join([line, *more, "."])
    assert _modelfile.parse(f'FROM x\nSYSTEM """{system}"""')["system"] == system
