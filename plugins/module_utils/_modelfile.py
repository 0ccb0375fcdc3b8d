# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads a Modelfile, which to Ollama's server is unknown: its own command line takes one apart, and so does this."""
from __future__ import annotations

import re

# The others are kept by no model that is made here, so they are refused and not left out.
READ = ("FROM", "PARAMETER", "SYSTEM", "TEMPLATE")
OTHERS = ("ADAPTER", "LICENSE", "MESSAGE", "PARSER", "RENDERER", "REQUIRES")

_LINE = re.compile(r"[ \t]*([A-Za-z]+)(?:[ \t]+(.*))?$")


def _instructions(text):
    """Yield (number of the line, instruction, its text)."""
    lines = text.replace("\r\n", "\n").split("\n")
    at = 0
    while at < len(lines):
        number, line = at + 1, lines[at]
        at += 1
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _LINE.match(line)
        word = found.group(1).upper() if found else ""
        if word not in READ + OTHERS:
            raise ValueError(f"line {number} of the Modelfile begins with {line.split()[0][:40]}; an instruction is one of {', '.join(READ)}")
        rest = (found.group(2) or "").strip()
        name = ""
        if word == "PARAMETER":
            name, _blank, rest = rest.partition(" ")
            rest = rest.strip()
        mark = next((mark for mark in ('"""', '"') if rest.startswith(mark)), "")
        while mark and (len(rest.rstrip()) < 2 * len(mark) or not rest.rstrip().endswith(mark)):
            if at == len(lines):
                raise ValueError(f"the text that begins in line {number} of the Modelfile has no closing {mark}")
            rest, at = f"{rest}\n{lines[at]}", at + 1
        if mark:
            rest = rest.rstrip()[len(mark):-len(mark)]
        if not rest and word in ("FROM", "PARAMETER"):
            raise ValueError(f"line {number} of the Modelfile has {word} without a value")
        yield number, word, name, rest


def parse(text):
    """Return the options C(from) or C(gguf), C(template), C(system) and C(parameters) that a Modelfile stands for; ValueError for what cannot be."""
    found, parameters = {}, {}
    for number, word, name, value in _instructions(text):
        if word in OTHERS:
            raise ValueError(f"line {number} of the Modelfile has {word}, which models that are made here do not get: leave it out, or run ollama create")
        key = name.lower() if word == "PARAMETER" else word
        if word == "PARAMETER" and key == "stop":
            parameters.setdefault(key, []).append(value)
            continue
        if key in (parameters if word == "PARAMETER" else found):
            raise ValueError(f"line {number} of the Modelfile has {name or word} for a second time")
        (parameters if word == "PARAMETER" else found)[key] = value
    if "FROM" not in found:
        raise ValueError("the Modelfile has no FROM, so it does not say what the model is made of")
    origin = found["FROM"]
    if origin.startswith((".", "~")):
        raise ValueError(f"the Modelfile has FROM {origin}, and nobody knows from which folder: give the file's whole path on the managed host")
    return {"gguf" if origin.startswith("/") else "from": origin, "template": found.get("TEMPLATE"), "system": found.get("SYSTEM"), "parameters": parameters}
