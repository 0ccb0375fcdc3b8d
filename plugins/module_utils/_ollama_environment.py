# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which environment variables Ollama reads, by version, and what is wrong with those that somebody wants to set.

Ollama ignores a name that it does not know, and takes a value that it cannot read for true or for its default: neither says a word.
"""
from __future__ import annotations

import difflib
import re
from typing import NamedTuple

from ansible_collections.erni_ki.inference.plugins.module_utils._compat import parse_version

# Read in the tags of ollama/ollama from v0.1.29 to v0.32.15: every name in quotes below envconfig, server, llm, discover, cmd and x.
NEWEST = (0, 32, 15)


class Variable(NamedTuple):
    """Read from C(since) on, by C(until) for the last time (None: still); C(kind) is how its value is parsed."""

    since: tuple
    kind: str
    until: tuple | None = None


VARIABLES = {
    # envconfig/config.go
    "OLLAMA_AUTH": Variable((0, 8, 0), "bool"),
    "OLLAMA_CONTEXT_LENGTH": Variable((0, 5, 13), "number"),
    "OLLAMA_DEBUG": Variable((0, 1, 21), "text"),
    "OLLAMA_DEBUG_LOG_REQUESTS": Variable((0, 18, 3), "bool"),
    "OLLAMA_EDITOR": Variable((0, 16, 0), "text"),
    "OLLAMA_FLASH_ATTENTION": Variable((0, 1, 39), "bool"),
    "OLLAMA_GO_TEMPLATE": Variable((0, 30, 0), "bool"),
    "OLLAMA_GPU_OVERHEAD": Variable((0, 3, 10), "number"),
    "OLLAMA_HOST": Variable((0, 0, 1), "text"),
    "OLLAMA_IGPU_ENABLE": Variable((0, 30, 0), "bool"),
    "OLLAMA_INTEL_GPU": Variable((0, 1, 45), "bool", (0, 12, 10)),
    "OLLAMA_KEEP_ALIVE": Variable((0, 1, 29), "duration"),
    "OLLAMA_KV_CACHE_TYPE": Variable((0, 5, 0), "text"),
    "OLLAMA_LLM_LIBRARY": Variable((0, 1, 21), "text"),
    "OLLAMA_LOAD_TIMEOUT": Variable((0, 3, 10), "duration"),
    "OLLAMA_MAX_LOADED_MODELS": Variable((0, 1, 33), "number"),
    "OLLAMA_MAX_QUEUE": Variable((0, 1, 34), "number"),
    "OLLAMA_MAX_TRANSFER_STREAMS": Variable((0, 23, 3), "number"),
    "OLLAMA_MODELS": Variable((0, 1, 6), "text"),
    "OLLAMA_MULTIUSER_CACHE": Variable((0, 3, 13), "bool", (0, 24, 0)),
    "OLLAMA_NEW_ENGINE": Variable((0, 5, 12), "bool", (0, 24, 0)),
    "OLLAMA_NEW_ESTIMATES": Variable((0, 11, 5), "bool", (0, 11, 10)),
    "OLLAMA_NOHISTORY": Variable((0, 1, 39), "bool"),
    "OLLAMA_NOPRUNE": Variable((0, 0, 19), "bool"),
    "OLLAMA_NO_CLOUD": Variable((0, 16, 2), "bool"),
    "OLLAMA_NUM_PARALLEL": Variable((0, 1, 33), "number"),
    "OLLAMA_ORIGINS": Variable((0, 0, 14), "text"),
    "OLLAMA_REMOTES": Variable((0, 12, 0), "text"),
    "OLLAMA_RUNNERS_DIR": Variable((0, 1, 33), "text", (0, 3, 10)),
    "OLLAMA_SCHED_SPREAD": Variable((0, 1, 45), "bool"),
    "OLLAMA_TMPDIR": Variable((0, 1, 32), "text", (0, 6, 5)),
    "OLLAMA_VULKAN": Variable((0, 12, 11), "bool"),
    # server/cloud_proxy.go, server/routes.go, cmd, llama/compat, and the pull of models
    "OLLAMA_API_KEY": Variable((0, 23, 0), "text"),
    "OLLAMA_AGENT_DISABLE_BASH": Variable((0, 14, 0), "text", (0, 31, 1)),
    "OLLAMA_AGENT_DISABLE_SHELL": Variable((0, 32, 0), "text"),
    "OLLAMA_AGENT_DISABLE_WEBSEARCH": Variable((0, 14, 0), "text"),
    "OLLAMA_CLOUD_BASE_URL": Variable((0, 18, 0), "text"),
    "OLLAMA_EXPERIMENT": Variable((0, 6, 0), "text"),
    "OLLAMA_LLAMA_CPP_COMPAT": Variable((0, 30, 0), "text"),
    "OLLAMA_REGISTRY_MAXSTREAMS": Variable((0, 5, 13), "number", (0, 31, 1)),
}

# The plan or a variable of the role decides these, directly or through the child process llama-server, which reads LLAMA_ARG_….
OWNED = {
    "CUDA_VISIBLE_DEVICES": "plan_ollama_gpu",
    "LLAMA_ARG_CACHE_TYPE_K": "plan_ollama_kv_cache_type",
    "LLAMA_ARG_CACHE_TYPE_V": "plan_ollama_kv_cache_type",
    "LLAMA_ARG_CTX_SIZE": "plan_ollama_context_length",
    "LLAMA_ARG_DEVICE": "plan_ollama_gpu",
    "LLAMA_ARG_N_GPU_LAYERS": "plan_ollama_allow_partial_offload",
    "LLAMA_ARG_N_PARALLEL": "plan_ollama_parallel",
    "LLAMA_ARG_THREADS": "plan_ollama_cpus",
    "NVIDIA_VISIBLE_DEVICES": "plan_ollama_gpu",
    "OLLAMA_CONTEXT_LENGTH": "plan_ollama_context_length",
    "OLLAMA_FLASH_ATTENTION": "plan_ollama_kv_cache_type",
    "OLLAMA_HOST": "ollama_bind_address or ollama_port",
    "OLLAMA_KEEP_ALIVE": "ollama_keep_alive",
    "OLLAMA_KV_CACHE_TYPE": "plan_ollama_kv_cache_type",
    "OLLAMA_LLM_LIBRARY": "plan_ollama_gpu",
    "OLLAMA_MAX_LOADED_MODELS": "plan_ollama_max_loaded_models",
    "OLLAMA_NUM_PARALLEL": "plan_ollama_parallel",
}
# Whatever the plan says, these may be set where it is silent.
OWNED_WHERE_SET = ("OLLAMA_FLASH_ATTENTION",)

# They look right, are often written, and do nothing.
IDLE = {
    "OLLAMA_CPU_THREADS": "plan_ollama_cpus",
    "OLLAMA_CTX_SIZE": "plan_ollama_context_length",
    "OLLAMA_CUDA_VISIBLE_DEVICES": "plan_ollama_gpu",
    "OLLAMA_GPU": "plan_ollama_gpu",
    "OLLAMA_GPU_LAYERS": "plan_ollama_allow_partial_offload",
    "OLLAMA_GPU_MEMORY": "plan_ollama_context_length and a model that fits",
    "OLLAMA_MAX_CONTEXT": "plan_ollama_context_length",
    "OLLAMA_MAX_VRAM": "plan_ollama_context_length and a model that fits",
    "OLLAMA_MODEL": "ollama_models",
    "OLLAMA_NUM_CTX": "plan_ollama_context_length",
    "OLLAMA_NUM_GPU": "plan_ollama_allow_partial_offload",
    "OLLAMA_NUM_GPU_LAYERS": "plan_ollama_allow_partial_offload",
    "OLLAMA_NUM_THREAD": "plan_ollama_cpus",
    "OLLAMA_NUM_THREADS": "plan_ollama_cpus",
    "OLLAMA_PORT": "ollama_port",
    "OLLAMA_THREADS": "plan_ollama_cpus",
    "OLLAMA_VRAM": "plan_ollama_context_length and a model that fits",
}

# A model's process computes its own fit since 0.30: the overhead feeds a log line and the default context, and more than there is underflows.
OVERHEAD_IDLE_SINCE = (0, 30, 0)

_BOOLS = ("1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False")
_PARSERS = {
    "bool": (re.compile("|".join(_BOOLS)), "0 or 1", "takes any other word for true"),
    "number": (re.compile(r"\+?\d{1,19}"), "a whole number", "falls back to its default on anything else"),
    "duration": (
        re.compile(r"[+-]?(?:\d+|(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|ms|s|m|h)(?:(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|ms|s|m|h))*)"),
        "seconds or a duration such as 5m", "falls back to its default on anything else"),
}


def image_version(image):
    """Return the version in an image's tag, as text; None where the tag is none, such as a digest or a name."""
    name = str(image).split("@", 1)[0].rsplit("/", 1)[-1]
    tag = name.partition(":")[2]
    match = re.match(r"v?(\d+\.\d+\.\d+)", tag)
    return match.group(1) if match else None


def problems(environment, image="", planned="", decided=()):
    """Return what is wrong with each variable that somebody wants to set, and with the image's version, as sentences.

    C(image) tells the version by its tag, where it has one; C(planned) is the version the plan was made for. Without either the newest
    known is taken. C(decided) holds the names that the role itself sets.
    """
    if not isinstance(environment, dict):
        return [f"ollama_environment is {_shown(environment)}; it must be a dictionary of names and values."]
    tagged, expected = parse_version(image_version(image) or ""), parse_version(str(planned or ""))
    version = tagged or expected or NEWEST
    found = [_problem(str(name), value, version, decided) for name, value in environment.items()]
    if tagged and expected and tagged != expected:
        found.append(
            f"ollama_image is {image}, and the plan was made for Ollama {_dotted(expected)}: set plan_ollama_engine_version to {_dotted(tagged)}"
            f" as well, or take the image {_dotted(expected)}.")
    return [text for text in found if text]


def _problem(name, value, version, decided):
    where = f"ollama_environment sets {name}"
    if name in OWNED and (name in decided or name not in OWNED_WHERE_SET):
        return f"{where}, which the plan decides: set {OWNED[name]} instead."
    if name in decided:
        return f"{where}, which this role sets itself: leave it out."
    if name == "OLLAMA_MODELS":
        return f"{where}; a folder outside of the container's volume is lost with the container: leave it out, the models are kept in /root/.ollama."
    if name == "OLLAMA_GPU_OVERHEAD" and version >= OVERHEAD_IDLE_SINCE:
        return (f"{where}, which keeps no video memory free since Ollama {_dotted(OVERHEAD_IDLE_SINCE)}. What bounds it is one loaded model and a bounded "
                "context: set plan_ollama_max_loaded_models, plan_ollama_parallel and plan_ollama_context_length.")
    if not name.startswith("OLLAMA_"):
        return None
    found = VARIABLES.get(name)
    if found is None or not found.since <= version <= (found.until or version):
        return f"{where}, which {_unread(name, found, version)}"
    return _bad_value(name, value, found.kind)


def _unread(name, found, version):
    if found is not None:
        if version < found.since:
            return f"Ollama {_dotted(version)} does not read; {_dotted(found.since)} and later do."
        return f"Ollama {_dotted(version)} does not read any more; {_dotted(found.until)} was the last that did. Leave it out."
    if name in IDLE:
        return f"does not exist, and would do nothing: set {IDLE[name]} instead."
    near = difflib.get_close_matches(name, [one for one, known in VARIABLES.items() if known.since <= version <= (known.until or version)], n=1, cutoff=0.75)
    return f"Ollama {_dotted(version)} does not read" + (f". Did you mean {near[0]}?" if near else ", so it would do nothing. Leave it out.")


def _bad_value(name, value, kind):
    if value is None:
        return f"ollama_environment sets {name} to nothing: give it a value, or leave it out."
    if isinstance(value, (dict, list)):
        return f"ollama_environment sets {name} to {_shown(value)}; a variable's value is text or a number."
    if kind not in _PARSERS:
        return None
    pattern, wanted, otherwise = _PARSERS[kind]
    # Ollama drops blanks and quotes around a value, too.
    text = str(value).strip().strip("\"'")
    if not text or pattern.fullmatch(text):
        return None
    return f"ollama_environment sets {name} to {_shown(value)}; Ollama wants {wanted} there, and {otherwise} without a word."


def _dotted(version):
    return ".".join(str(part) for part in version)


def _shown(value):
    text = repr(value) if not isinstance(value, str) else f'"{value}"'
    return text if len(text) <= 60 else text[:57] + "..."
