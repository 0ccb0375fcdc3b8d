# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Models that are made on the server: from another model or from a GGUF file, with parameters, a template and a system message of their own.

Whether a model is as it should be is read from the server (/api/show). What it cannot tell is which file weights came from: 0.32 writes
a GGUF anew when it takes it in, so that its digest is another. It does keep the name of the model that another was made from. So a
file becomes a model first whose name holds the file's digest, the wanted one is made from that, and the first is removed again.
"""
from __future__ import annotations

import ast
import contextlib
import difflib
import hashlib
import json
import os
import re
import stat
from typing import NamedTuple

from ansible_collections.erni_ki.inference.plugins.module_utils import _http
from ansible_collections.erni_ki.inference.plugins.module_utils import _modelfile
from ansible_collections.erni_ki.inference.plugins.module_utils import _ollama

OllamaError = _ollama.OllamaError

# api/types.go of Ollama 0.32. The server keeps any other without a word, and no model reads it.
PARAMETERS = {
    "frequency_penalty": float, "main_gpu": int, "min_p": float, "num_batch": int, "num_ctx": int, "num_gpu": int, "num_keep": int, "num_predict": int,
    "num_thread": int, "presence_penalty": float, "repeat_last_n": int, "repeat_penalty": float, "seed": int, "stop": list, "temperature": float,
    "top_k": int, "top_p": float, "typical_p": float, "use_mmap": bool,
}
_WANTED = {int: "a whole number", float: "a number", bool: "true or false", list: "a text or a list of texts"}

# What a model may be declared with, beside its name, and where each option may stand.
OPTIONS = ("name", "state", "gguf", "from", "modelfile", "template", "system", "parameters", "digest", "keep_alive")
STATES = ("present", "absent", "loaded", "unloaded")
OVERLAYS = ("template", "system", "parameters")


class Recipe(NamedTuple):
    """What a model is made of: from C(base), the name of a model, or from C(gguf), the path of a file."""

    base: str | None
    gguf: str | None
    template: str | None
    system: str | None
    parameters: dict


class Content(NamedTuple):
    """What a model holds. In what is wanted, None is what only the server can tell, and C(open_keys) may be there or not (None: any)."""

    parent: str
    weights: tuple | None
    template: str | None
    system: str | None
    parameters: dict
    open_keys: tuple | None = ()


# ---------------------------------------------------------------- parse

def near(word, known):
    """Return the beginning of a sentence's end: what was meant, or what there is."""
    found = difflib.get_close_matches(str(word), known, n=1, cutoff=0.6)
    return f"did you mean {found[0]}?" if found else f"there are {', '.join(known)}"


def _number(value, kind):
    """Return a value as a parameter of that kind, from the text that a template makes of it, too; None for what is none."""
    text = str(value).strip()
    if isinstance(value, (dict, list)) or (isinstance(value, bool) and kind is not bool):
        return None
    if kind is bool:
        return {"true": True, "yes": True, "false": False, "no": False}.get(text.lower())
    if re.fullmatch(r"[+-]?\d{1,18}", text, re.ASCII):
        return kind(text)
    if kind is float and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,3})?", text, re.ASCII | re.IGNORECASE) and abs(float(text)) < 1e300:
        return float(text)
    return None


def parse_parameters(given):
    """Return parameters with values of the right kind; ValueError for what Ollama does not know, or would not understand."""
    if not isinstance(given, dict):
        raise ValueError(f"parameters is {_http.excerpt(given, 60)}; it has to be a dictionary such as {{num_ctx: 4096}}")
    found = {}
    for key, value in given.items():
        kind = PARAMETERS.get(key)
        if kind is None:
            raise ValueError(f"Ollama has no parameter {key}, and would keep it without a word: {near(key, list(PARAMETERS))}")
        if kind is list:
            texts = value if isinstance(value, list) else [value]
            found[key] = texts if texts and all(isinstance(text, str) and text for text in texts) else None
        else:
            found[key] = _number(value, kind)
        if found[key] is None:
            raise ValueError(f"the parameter {key} is {_http.excerpt(json.dumps(value, ensure_ascii=False, default=str), 60)}; it has to be {_WANTED[kind]}")
    return found


def parse(name, options):
    """Return the Recipe in a model's options, None for a model that is pulled; ValueError for what does not go together."""
    if options.get("modelfile"):
        beside = [key for key in ("from", "gguf", *OVERLAYS) if options.get(key)]
        if beside:
            raise ValueError(f"modelfile and {beside[0]} are both there; a Modelfile says it all")
        options = {**options, **_modelfile.parse(options["modelfile"])}
    base, gguf, state = options.get("from"), options.get("gguf"), options.get("state") or "present"
    overlays = [key for key in OVERLAYS if options.get(key)]
    if not base and not gguf:
        if overlays:
            raise ValueError(f"{overlays[0]} is for a model that is made here: say by from or gguf what it is made of. A model that is pulled is as it is")
        return None
    if base and gguf:
        raise ValueError(f"from is {base} and gguf is {gguf}; a model is made from one of them")
    if state not in ("present", "loaded"):
        raise ValueError(f"{'from' if base else 'gguf'} goes with state=present and state=loaded only, and state is {state}")
    if options.get("digest"):
        raise ValueError("digest is for a model that is pulled; what one that is made here holds, its other options say")
    if base:
        base = _ollama.parse_name(base)
        if base.lower() == name.lower():
            raise ValueError(f"'{name}' cannot be made from itself: give it another name")
    return Recipe(base, gguf, options.get("template") or None, options.get("system") or None, parse_parameters(options.get("parameters") or {}))


def problems(models, threads=0, context=0):
    """Return what is wrong with declared models, as sentences.

    C(threads) are those that the plan gives, and C(context) the tokens, where it bounds them; 0 is no bound.
    """
    found, seen = [], set()
    for number, model in enumerate(models, 1):
        entry = {"name": model} if isinstance(model, str) else model
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            found.append(f"ollama_models, entry {number}: it is {_http.excerpt(json.dumps(model, default=str), 60)}; it has to be a name such as llama3.2:3b, "
                         "or a dictionary with a name.")
            continue
        try:
            name = _judge(entry, threads, context)
            if name.lower() in seen:
                raise ValueError("it is there twice")
            seen.add(name.lower())
        except ValueError as error:
            text = f"ollama_models, {entry['name']}: {error}"
            found.append(text if text.endswith("?") else f"{text}.")
    return found


def _judge(entry, threads, context):
    unknown = [key for key in entry if key not in OPTIONS]
    if unknown:
        raise ValueError(f"there is no option {unknown[0]}: {near(unknown[0], OPTIONS)}")
    wrong = [key for key, value in entry.items() if key not in ("parameters", "keep_alive") and value is not None and not isinstance(value, str)]
    if wrong:
        raise ValueError(f"{wrong[0]} is {_http.excerpt(entry[wrong[0]], 60)}; it has to be text")
    state = entry.get("state") or "present"
    if state not in STATES:
        raise ValueError(f"state is {state}: {near(state, STATES)}")
    recipe = checked(entry)[3]
    for key, most, option in (("num_thread", threads, "plan_ollama_cpus"), ("num_ctx", context, "plan_ollama_context_length")):
        asked = recipe.parameters.get(key, 0) if recipe else 0
        # Below zero is all that the host has, to llama.cpp.
        if most and not 0 <= asked <= most:
            raise ValueError(f"its parameter {key} is {asked}, and the plan gives Ollama {most}: set it to {most}, leave it out, or see {option}")
    return name_of(entry)


def name_of(options):
    return _ollama.parse_name(options["name"])


def checked(options):
    """Return name, digest, keep_alive and Recipe as they are to be used; ValueError for what cannot be."""
    state = options.get("state") or "present"
    name = name_of(options)
    digest = _ollama.parse_digest(options["digest"]) if options.get("digest") else None
    keep_alive = _ollama.parse_keep_alive(str(options["keep_alive"])) if options.get("keep_alive") not in (None, "") else None
    if keep_alive is not None and state != "loaded":
        raise ValueError(f"keep_alive goes with state=loaded only, and state is {state}")
    if digest is not None and state not in ("present", "loaded"):
        raise ValueError(f"digest goes with state=present and state=loaded only, and state is {state}")
    return name, digest, keep_alive, parse(name, options)


# ---------------------------------------------------------------- what is there

def _value(text):
    """Return a value as the server shows it: Go's notation of a text, a truth value or a number."""
    if text.startswith('"'):
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            return text
        return value if isinstance(value, str) else text
    if text in ("true", "false"):
        return text == "true"
    try:
        return float(text)
    except ValueError:
        return text


def shown_parameters(text):
    """Return {key: [values]} of the lines that /api/show has for parameters."""
    found = {}
    for line in text.splitlines():
        key, _blank, rest = line.partition(" ")
        if key:
            found.setdefault(key, []).append(_value(rest.strip()))
    return found


def content(name, shown):
    """Return the Content of a model from what /api/show answers; OllamaError for an answer that is not Ollama's."""
    details = shown.get("details") or {}
    texts = {key: shown.get(key) or "" for key in ("modelfile", "parameters", "template", "system")}
    if not isinstance(details, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise OllamaError(f"what the server shows of '{name}' is not what Ollama shows: {_http.excerpt(json.dumps(shown))}")
    weights = tuple(re.findall(r"^FROM \S*sha256-([0-9a-f]{64})$", texts["modelfile"], re.MULTILINE))
    if not weights:
        raise OllamaError(f"the server does not show what weights '{name}' has; what it shows begins so: {_http.excerpt(texts['modelfile'])}")
    return Content(str(details.get("parent_model") or ""), weights, texts["template"], texts["system"], shown_parameters(texts["parameters"]))


# ---------------------------------------------------------------- what is wanted, and what differs

def as_listed(parameters):
    """Return given parameters as shown_parameters returns those of a model."""
    return {key: [float(one) if isinstance(one, int) and not isinstance(one, bool) else one for one in (value if isinstance(value, list) else [value])]
            for key, value in parameters.items()}


def file_model(recipe, digest):
    """Return the name of the model that a file becomes first.

    From some files the server takes a template and stop words of its own. Whether the ones there are to be its own, the name says, too.
    """
    own = hashlib.sha256(json.dumps([recipe.template, recipe.parameters.get("stop")]).encode("utf-8")).hexdigest()[:12]
    return f"erni-ki/gguf-{own}:{digest}"


def wanted_content(recipe, parent, base):
    """Return the Content that a model made by this recipe has; C(base) is that of the model it is made from, None where it is not there."""
    parameters = as_listed(recipe.parameters)
    if base:
        return Content(parent, base.weights, recipe.template or base.template, recipe.system or base.system, {**base.parameters, **parameters})
    if recipe.gguf:
        return Content(parent, None, recipe.template, recipe.system or "", parameters, ("stop",))
    return Content(parent, None, recipe.template, recipe.system, parameters, None)


def differences(found, wanted):
    """Return what of a model is not as wanted: some of weights, template, system, parameters."""
    same_weights = found.parent.lower() == wanted.parent.lower() if wanted.weights is None else found.weights == wanted.weights
    more = set(found.parameters) - set(wanted.parameters) - set(wanted.open_keys or ())
    same = {
        "weights": same_weights,
        "template": wanted.template in (None, found.template),
        "system": wanted.system in (None, found.system),
        "parameters": all(found.parameters.get(key) == value for key, value in wanted.parameters.items()) and (wanted.open_keys is None or not more),
    }
    return [key for key, value in same.items() if not value]


def shown(made):
    """Return what a diff shows of a Content."""
    if made is None:
        return {"from": None, "template": None, "system": None, "parameters": None}
    plain = {key: [int(one) if isinstance(one, float) and one.is_integer() else one for one in values] for key, values in sorted(made.parameters.items())}
    plain = {key: values[0] if len(values) == 1 else values for key, values in plain.items()}
    return {"from": made.parent, "template": made.template, "system": made.system, "parameters": plain}


# ---------------------------------------------------------------- making it

class Gguf(NamedTuple):
    """A model file of this host."""

    path: str
    size: int
    digest: str


def read_gguf(path, check=lambda: None):
    """Return the Gguf at this path; C(check) is called now and then, and ends a long reading by raising."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OllamaError(f"gguf is {path}, which is no ordinary file")
        with open(path, "rb") as stream:
            first = stream.read(4)
            if first != b"GGUF":
                raise OllamaError(f"gguf is {path}, which is not a GGUF file: it begins with {first!r}, and a GGUF file begins with the letters GGUF. "
                                  "Other formats are converted by llama.cpp's convert_hf_to_gguf.py")
            sha, size = hashlib.sha256(first), len(first)
            while True:
                check()
                data = stream.read(_ollama.CHUNK)
                if not data:
                    return Gguf(path, size, sha.hexdigest())
                sha.update(data)
                size += len(data)
    except OSError as error:
        raise OllamaError(f"gguf is {path}, a file on the managed host, and it cannot be read: {error.strerror or error}") from error


class Maker:
    """Makes one model: knows what is there, what is wanted and the steps in between, and takes those of them that are its own."""

    def __init__(self, client, name, recipe, limits):
        self.client, self.name, self.recipe = client, name, recipe
        self.file = read_gguf(recipe.gguf, client.check_time) if recipe.gguf else None
        self.parent = file_model(recipe, self.file.digest) if self.file else recipe.base
        self.before = self._content(name)
        base = None if self.file else self._content(recipe.base)
        self.wanted = wanted_content(recipe, self.parent, base)
        self.actions = {"pull": self._pull, "upload": self._upload, "create": self._create}
        self.steps = []
        # A run that was interrupted may have left the file's own model behind.
        left = self.file and client.show(self.parent)
        if self.before and not left and not differences(self.before, self.wanted):
            # What only the server can tell is known here.
            self.wanted = self.before
        elif self.file:
            self.steps = ["create"] if client.has_blob(self.file.digest) else ["upload", "create"]
            self._check_size(limits)
        else:
            self.steps = ["create"] if base else ["pull", "create"]

    def _content(self, name):
        found = self.client.show(name)
        return None if found is None else content(name, found)

    def _check_size(self, limits):
        problem = _ollama.too_large(self.name, self.file.size, limits.max_mib)
        if not problem and limits.models_path:
            # The server keeps what was uploaded beside what it makes of it, until it starts the next time.
            needed = self.file.size * len(self.steps)
            problem = _ollama.no_room(self.name, needed, _ollama.free_bytes(limits.models_path), limits.models_path)
        if problem:
            raise OllamaError(f"{problem}. Nothing was uploaded")

    def _pull(self, insecure, limits):
        self.client.pull(self.recipe.base, insecure, limits)
        base = self._content(self.recipe.base)
        if base is None:
            raise OllamaError(f"the server says that it pulled '{self.recipe.base}', but does not show it")
        self.wanted = wanted_content(self.recipe, self.parent, base)

    def _upload(self, _insecure, _limits):
        self.client.upload(self.name, *self.file)

    def _create(self, _insecure, _limits):
        body = {"from": self.parent, "template": self.recipe.template, "system": self.recipe.system, "parameters": self.recipe.parameters}
        body = {key: value for key, value in body.items() if value}
        if self.file:
            try:
                self.client.create(self.parent, {"files": {"model.gguf": f"sha256:{self.file.digest}"}})
                self.client.create(self.name, body)
            except OllamaError:
                with contextlib.suppress(OllamaError):
                    self.client.delete(self.parent)
                raise
            self.client.delete(self.parent)
        else:
            self.client.create(self.name, body)
        made = self._content(self.name)
        if made is None:
            raise OllamaError(f"the server says that it created '{self.name}', but does not show it")
        wrong = differences(made, self.wanted)
        if wrong:
            raise OllamaError(f"the server created '{self.name}', but what it shows of it is not what was asked for: {', '.join(wrong)}. Asked for: "
                              f"{_http.excerpt(json.dumps(shown(self.wanted)), 600)}; shown: {_http.excerpt(json.dumps(shown(made)), 600)}")
        self.wanted = made
