# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pure half of models that are made here, against what a real server was recorded to show. The other half is tested with the module."""
from __future__ import annotations

import json
import pathlib

import pytest
from ansible_collections.erni_ki.inference.plugins.module_utils import _ollama_recipe as recipe

DATA = pathlib.Path(__file__).resolve().parents[2] / "data" / "ollama-api"
TEMPLATE = "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"
STOP = ["<|im_start|>", "<|im_end|>"]
WEIGHTS = ("564b5e8c141afebb4ad6627133e0d3caa0a7bd0803b12e0f1ea1298982f39f8c",)


def recorded(name):
    return recipe.content("x", json.loads((DATA / name).read_text())["response"]["body"])


TINY, DERIVED = recorded("51-show.json"), recorded("53-show-derived.json")


def test_what_the_real_server_shows_is_understood():
    assert TINY == recipe.Content("", WEIGHTS, TEMPLATE, "", {"stop": STOP})
    assert DERIVED == recipe.Content("tiny:latest", WEIGHTS, TEMPLATE, "You are tiny.", {"num_ctx": [512], "stop": STOP, "temperature": [0.1]})
    assert recipe.shown(DERIVED) == {"from": "tiny:latest", "template": TEMPLATE, "system": "You are tiny.",
                                     "parameters": {"num_ctx": 512, "stop": STOP, "temperature": 0.1}}
    assert set(recipe.shown(None)) == set(recipe.shown(DERIVED)) and set(recipe.shown(None).values()) == {None}


def made(base="tiny:latest", gguf=None, template=None, system=None, **parameters):
    return recipe.Recipe(base, gguf, template, system, parameters)


@pytest.mark.parametrize("asked, differs", [
    # What was created in the recording.
    (made(system="You are tiny.", num_ctx=512, temperature=0.1), []),
    (made(system="You are tiny.", num_ctx=512, temperature=0.1, stop=STOP, template=TEMPLATE), []),
    (made(system="You are tiny.", num_ctx=512, temperature=0.2), ["parameters"]),
    (made(system="You are tiny.", num_ctx=512), ["parameters"]),
    (made(system="You are tiny.", num_ctx=512, temperature=0.1, top_k=1), ["parameters"]),
    (made(system="You are tiny.", num_ctx=512, temperature=0.1, stop=STOP[::-1]), ["parameters"]),
    (made(num_ctx=512, temperature=0.1), ["system"]),
    (made(template="x", num_ctx=512, temperature=0.1), ["template", "system"]),
])
def test_the_recorded_create_again(asked, differs):
    assert recipe.differences(DERIVED, recipe.wanted_content(asked, "tiny:latest", TINY)) == differs
    # Other weights, where the base has changed.
    other = TINY._replace(weights=("0" * 64,))
    assert recipe.differences(DERIVED, recipe.wanted_content(asked, "tiny:latest", other)) == ["weights"] + differs


@pytest.mark.parametrize("asked, parent, differs", [
    (made(num_ctx=512), "tiny:latest", []),
    (made(num_ctx=512), "TINY:latest", []),
    (made(num_ctx=512), "other:latest", ["weights"]),
    (made(num_ctx=513, system="x"), "tiny:latest", ["system", "parameters"]),
])
def test_where_the_base_is_gone_only_what_is_said_counts(asked, parent, differs):
    assert recipe.differences(DERIVED, recipe.wanted_content(asked, parent, None)) == differs


def test_a_file_is_known_by_the_parents_name():
    asked = made(None, "/x.gguf", system="You are tiny.", num_ctx=512, temperature=0.1)
    parent = recipe.file_model(asked, "ab" * 32)
    there = DERIVED._replace(parent=parent)
    assert recipe.differences(there, recipe.wanted_content(asked, parent, None)) == []
    assert recipe.differences(DERIVED, recipe.wanted_content(asked, parent, None)) == ["weights"]
    assert recipe.file_model(asked._replace(system=None), "ab" * 32) == parent
    # What the server may have chosen by itself is not the same as what was asked for.
    assert len({parent, recipe.file_model(asked._replace(template=TEMPLATE), "ab" * 32), recipe.file_model(asked, "cd" * 32),
                recipe.file_model(asked._replace(parameters={"stop": STOP}), "ab" * 32)}) == 4
    assert recipe.name_of({"name": parent}) == parent
    assert recipe.differences(there, recipe.wanted_content(asked._replace(parameters={"num_ctx": 512}), parent, None)) == ["parameters"]


@pytest.mark.parametrize("line, found", [
    ("num_ctx                        4096", {"num_ctx": [4096.0]}),
    ("num_ctx                        1e+06", {"num_ctx": [1000000.0]}),
    ("use_mmap                       false", {"use_mmap": [False]}),
    ('stop                           "a \\"b\\"\\n\\x07"', {"stop": ['a "b"\n\x07']}),
    ('stop                           "a\nstop                           ""', {"stop": ['"a', ""]}),
    ('stop                           "a" + "b"', {"stop": ['"a" + "b"']}),
    ('stop                           "a", "b"', {"stop": ['"a", "b"']}),
    ("odd                            [a b]", {"odd": ["[a b]"]}),
    ("odd", {"odd": [""]}),
    ("", {}),
])
def test_shown_parameters(line, found):
    assert recipe.shown_parameters(line) == found


@pytest.mark.parametrize("given, found", [
    ({"num_ctx": "4096", "temperature": "0.5", "top_p": 1, "use_mmap": "False", "stop": "x"},
     {"num_ctx": 4096, "temperature": 0.5, "top_p": 1.0, "use_mmap": False, "stop": ["x"]}),
    ({"num_predict": -1, "seed": " 7 ", "temperature": "1e-2"}, {"num_predict": -1, "seed": 7, "temperature": 0.01}),
])
def test_parameters_get_the_kind_that_ollama_wants(given, found):
    result = recipe.parse_parameters(given)
    assert result == found and [type(value) for value in result.values()] == [type(value) for value in found.values()]


@pytest.mark.parametrize("given, words", [
    ({"num_ctx": 1.5}, "num_ctx is 1.5; it has to be a whole number"),
    ({"num_ctx": True}, "num_ctx is true; it has to be a whole number"),
    ({"num_ctx": None}, "num_ctx is null"),
    ({"num_ctx": [1]}, "num_ctx is \\[1\\]"),
    ({"temperature": "warm"}, 'temperature is "warm"; it has to be a number'),
    ({"temperature": "nan"}, "it has to be a number"),
    ({"temperature": "1e999"}, "it has to be a number"),
    ({"use_mmap": 1}, "use_mmap is 1; it has to be true or false"),
    ({"stop": []}, "stop is \\[\\]; it has to be a text or a list of texts"),
    ({"stop": [""]}, "it has to be a text or a list of texts"),
    ({"stop": ["a", 1]}, "it has to be a text or a list of texts"),
    ({"context": 1}, "Ollama has no parameter context, and would keep it without a word: there are frequency_penalty"),
    ({7: 1}, "no parameter 7"),
    (["num_ctx"], "it has to be a dictionary such as {num_ctx: 4096}"),
])
def test_parameters_that_ollama_would_not_understand(given, words):
    with pytest.raises(ValueError, match=words):
        recipe.parse_parameters(given)


# ---------------------------------------------------------------- declared models

@pytest.mark.parametrize("models", [
    [], ["llama3.2:3b", "team/x"], [{"name": "x"}], [{"name": "x", "state": "loaded", "keep_alive": -1}, {"name": "y", "state": "absent"}],
    [{"name": "x", "from": "y", "system": "s", "template": "t", "parameters": {"num_thread": 2, "num_ctx": 4096}}],
    [{"name": "x", "gguf": "/x.gguf", "state": "loaded", "keep_alive": "10m", "parameters": {"num_thread": "1"}}],
    [{"name": "x", "digest": "0" * 12, "from": None, "parameters": None}],
])
def test_what_can_be_declared(models):
    assert recipe.problems(models, threads=2, context=4096) == []


@pytest.mark.parametrize("model, words", [
    (7, "ollama_models, entry 1: it is 7; it has to be a name such as llama3.2:3b, or a dictionary with a name."),
    ({"from": "x"}, 'ollama_models, entry 1: it is {"from": "x"}'),
    ({"name": 7}, "entry 1"),
    ({"name": "x y"}, "ollama_models, x y: 'x y' is not a model name"),
    ({"name": "x", "weight": "y"}, "ollama_models, x: there is no option weight: there are name, state"),
    ({"name": "x", "paramters": {}}, "ollama_models, x: there is no option paramters: did you mean parameters?"),
    ({"name": "x", "state": "pulled"}, "state is pulled: there are present, absent, loaded, unloaded."),
    ({"name": "x", "state": "load"}, "state is load: did you mean loaded?"),
    ({"name": "x", "system": ["a"], "from": "y"}, "system is ['a']; it has to be text."),
    ({"name": "x", "digest": 123456789012}, "digest is 123456789012; it has to be text."),
    ({"name": "x", "keep_alive": "5m"}, "keep_alive goes with state=loaded only"),
    ({"name": "x", "state": "loaded", "keep_alive": 0}, "that is state=unloaded"),
    ({"name": "x", "parameters": {"num_ctx": 1}}, "parameters is for a model that is made here"),
    ({"name": "x", "from": "y", "parameters": {"num_thread": 3}},
     "its parameter num_thread is 3, and the plan gives Ollama 2: set it to 2, leave it out, or see plan_ollama_cpus."),
    ({"name": "x", "from": "y", "parameters": {"num_thread": -1}}, "its parameter num_thread is -1, and the plan gives Ollama 2"),
    ({"name": "x", "from": "y", "parameters": {"num_ctx": "4097"}},
     "num_ctx is 4097, and the plan gives Ollama 4096: set it to 4096, leave it out, or see plan_ollama_context_length."),
])
def test_what_cannot_be_declared(model, words):
    found = recipe.problems([model], threads=2, context=4096)
    assert len(found) == 1 and words in found[0], found


def test_all_problems_are_told_at_once_and_twice_is_one():
    found = recipe.problems(["x", {"name": "X:latest"}, 1, {"name": "y", "a": 1}])
    assert [text.split(":")[0] for text in found] == ["ollama_models, X", "ollama_models, entry 3", "ollama_models, y"] and "twice" in found[0]


def test_without_a_plan_threads_and_context_are_not_judged():
    assert recipe.problems([{"name": "x", "from": "y", "parameters": {"num_thread": 99, "num_ctx": 1 << 20}}]) == []


def test_a_long_reading_ends_with_the_time(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + b"x" * 10)

    def over():
        raise recipe.OllamaError("the time is over")
    assert recipe.read_gguf(str(tmp_path / "x.gguf")).size == 14
    with pytest.raises(recipe.OllamaError, match="the time is over"):
        recipe.read_gguf(str(tmp_path / "x.gguf"), over)
