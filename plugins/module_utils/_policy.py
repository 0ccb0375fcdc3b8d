# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may be asked of a plan: the one schema of the policy, and how its values are read.

Every key has a default, so an empty policy is complete. A key whose value is null counts as not given; that is
also how C(nearest) of a violation says "drop this key".
"""
from __future__ import annotations

import difflib
import math
import re
from typing import Any, NamedTuple

from ansible_collections.erni_ki.inference.plugins.module_utils._compat import parse_version
from ansible_collections.erni_ki.inference.plugins.module_utils._cpulist import parse_cpulist

SERVICES = ("vllm", "ollama")

_MIB_MAX = 1 << 31  # 2 PiB; anything beyond is a typing error


class Option(NamedTuple):
    """One key of the policy. C(kind) picks the reader, C(type) is what people are told."""

    kind: str
    type: str
    default: Any
    help: str
    unit: str = ""
    choices: tuple = ()
    minimum: int = 0
    maximum: int = 0


def _mib(default, minimum, text):
    return Option("int", "int", default, text, "MiB", minimum=minimum, maximum=_MIB_MAX)


def _number(default, minimum, maximum, text, unit=""):
    return Option("int", "int", default, text, unit, minimum=minimum, maximum=maximum)


def _flag(text, default=False):
    return Option("bool", "bool", default, text)


def _choice(default, choices, text):
    return Option("choice", "str", default, text, choices=choices)


POLICY = {
    "services": Option("services", "list of str", ["vllm", "ollama"], "The services this host has; at least one.", choices=SERVICES),
    "isolation": _choice(
        "fenced", ("fenced", "exclusive"),
        "Whether each service is only held to its own CPUs, or everything else of the system is also kept off them (needs systemd and cgroup v2)."),
    "reserved_cores": Option(
        "reserved", "int, or core list", 1,
        "Cores kept for the system. A number takes the last ones (on a hybrid CPU efficiency cores first); a list such as [7] or 6-7 names them."),
    "vllm_cores": Option(
        "cores", "core list", "", "Cores of vLLM, such as 0-6. Empty takes all others, on one NUMA node and performance cores where kinds are mixed."),
    "vllm_cpus": Option("cpus", "CPU list", "", "Logical CPUs of vLLM, for those who know. Empty follows from the cores."),
    "vllm_allow_split_cores": _flag("Accept logical CPUs of vLLM that take only a part of a core; the rest of such a core is given to nobody."),
    "vllm_smt": _choice(
        "own", ("own", "idle"),
        "SMT siblings of vLLM's cores. With own they are in its cpuset, for its engine and API server; with idle only the first CPU of each core is used."),
    "vllm_omp": _choice("explicit", ("explicit", "auto"), "Whether the plan lists the CPUs of vLLM's OpenMP threads, or vLLM picks them inside its cpuset."),
    "vllm_omp_bind": Option("cpus", "CPU list", "", "Logical CPUs of vLLM's OpenMP threads, inside its cpuset. Empty takes one per core."),
    "vllm_numa": _choice("single", ("single", "span"), "Whether vLLM stays on one NUMA node, or may span several."),
    "vllm_memory_limit_mib": _mib(6144, 512, "Memory limit of vLLM's container; the swap limit is the same, so it never swaps."),
    "vllm_memory_reservation_mib": _mib(2048, 6, "Memory reservation of vLLM's container."),
    "vllm_shm_mib": _mib(256, 240, "Size of vLLM's /dev/shm. vLLM puts a ring of 240 MiB there."),
    "vllm_kv_cache_gib": _number(4, 1, 1 << 21, "KV cache of vLLM, whole GiB, at most. The plan lowers it, and says so, where the sum does not fit.", "GiB"),
    "vllm_kv_cache_fixed": _flag("Refuse the plan instead of lowering the KV cache."),
    "vllm_weights_mib": _number(0, 0, _MIB_MAX, "Size of the model's weights in memory; 0 means unknown.", "MiB"),
    "vllm_max_num_batched_tokens": _number(1024, 1, 1 << 24, "Most tokens in one batch of vLLM.", "tokens"),
    "vllm_max_num_seqs": _number(64, 1, 1 << 20, "Most sequences at a time in vLLM.", "sequences"),
    "vllm_block_size": _number(16, 1, 1 << 16, "Size of a KV cache block; mapped to what the engine's version accepts.", "tokens"),
    "vllm_max_model_len": _number(0, 0, 1 << 31, "Longest context of vLLM; 0 means the model's own.", "tokens"),
    "vllm_engine_version": Option("version", "str", "0.32.0", "Version of vLLM that will run; decides block sizes and the CPU flags needed."),
    "ollama_cpus": Option(
        "ollama", "str, or core list", "reserved",
        "Where Ollama runs. With reserved on the reserved cores, beside the system (on a host without vLLM on the cores vLLM would have had);"
        " with any on every usable core, vLLM's too; or a core list."),
    "ollama_memory_limit_mib": _mib(4096, 256, "Memory limit of Ollama's container; the swap limit is the same."),
    "ollama_memory_reservation_mib": _mib(1024, 6, "Memory reservation of Ollama's container."),
    "ollama_require_gpu": _flag(
        "Refuse a host without a GPU that Ollama can use. Where false, such a host runs Ollama on its CPUs, and the notes say why.", True),
    "ollama_gpu": Option(
        "text", "str", "", "Ollama's GPU, by its UUID or by a pattern of its name such as *P2200*. Empty takes the one with most memory that can be used."),
    "ollama_engine_version": Option("version", "str", "0.32.15", "Version of Ollama that will run; decides which drivers and cards do."),
    "ollama_model_mib": _number(0, 0, _MIB_MAX, "Size of Ollama's largest model as loaded; 0 means unknown.", "MiB"),
    "ollama_kv_bytes_per_token": _number(
        0, 0, 1 << 24, "KV cache of one token as f16, 4 x layers x KV heads x head size; 0 means unknown, and a cautious figure is taken.", "bytes"),
    "ollama_context_length": _number(
        0, 0, 1 << 24, "Context of each of Ollama's slots on a GPU; 0 lets the plan decide, 4096 or what fits.", "tokens"),
    "ollama_parallel": _number(1, 1, 256, "Requests that Ollama works on at once, each with a context of its own.", "slots"),
    "ollama_max_loaded_models": _number(1, 1, 64, "Models that Ollama keeps loaded at once, each as large as the largest.", "models"),
    "ollama_kv_cache_type": _choice("f16", ("f16", "q8_0", "q4_0"), "Type of Ollama's KV cache; the others than f16 need flash attention."),
    "ollama_allow_partial_offload": _flag("Accept that a model does not fit into the GPU's memory, and that a part of it is computed on CPUs."),
    "container_toolkit_version": Option("version", "str", "1.19.1", "Version of the NVIDIA container toolkit that will hand the GPU over."),
    "system_reserve_mib": _mib(1024, 128, "Memory that no limit may claim, left to the system."),
    "allow_squeezing_containers": _flag("Accept that exclusive isolation confines running containers of others to the system's CPUs."),
}


def describe(name):
    """Return the line of the documentation for one key of the policy."""
    option = POLICY[name]
    parts = [option.type, *([option.unit] if option.unit else []), *([" or ".join(option.choices)] if option.kind == "choice" else [])]
    return f"C({name}) ({', '.join(parts)}; default {_shown(option.default)}). {option.help}"


def _shown(default):
    if isinstance(default, bool):
        return "true" if default else "false"
    if isinstance(default, list):
        return ", ".join(default)
    return "empty" if default == "" else str(default)


def refusal(rule, option, asked, found, message, nearest=None):
    """One violation. C(nearest) holds overrides for the policy; empty means that no policy helps."""
    return {"rule": rule, "option": option, "asked": plain(asked), "found": found, "nearest": dict(nearest or {}), "message": message}


def plain(value):
    """Return the value as JSON can hold it, whatever it is."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return repr(value)


def merge(policy, overrides):
    """Return the policy with the overrides over it; a null drops the key."""
    merged = {str(key): value for key, value in policy.items()}
    merged.update(overrides)
    return {key: value for key, value in merged.items() if value is not None}


class Unreadable(ValueError):
    """A value that its key cannot take, with the nearest that it can."""

    def __init__(self, rule, found, nearest):
        super().__init__(found)
        self.rule = rule
        self.found = found
        self.nearest = nearest


def read_policy(policy):
    """Return C((values, violations)); values are complete and typed even where violations exist."""
    values = {name: _read(name, option.default) for name, option in POLICY.items()}
    if policy is None:
        return values, []
    if not isinstance(policy, dict):
        return values, [refusal("policy-type", "policy", policy, _kind_of(policy), f"The policy is {_kind_of(policy)}, not a dictionary of its keys.")]
    given = merge(policy, {})
    violations = []
    for name, value in given.items():
        if name not in POLICY:
            violations.append(_unknown(name, value, given))
            continue
        try:
            values[name] = _read(name, value)
        except Unreadable as exc:
            values[name] = _read(name, exc.nearest)
            violations.append(refusal(exc.rule, name, value, str(exc.found), _unreadable_text(name, value, exc), {name: exc.nearest}))
    return values, violations


def _unreadable_text(name, value, exc):
    return f"{name} is {_quoted(value)}: {exc.found}. It takes {_expected(POLICY[name])}."


def _expected(option):
    if option.kind == "int":
        return f"a whole number{' of ' + option.unit if option.unit else ''}, from {option.minimum} to {option.maximum}"
    if option.kind in ("choice", "services"):
        return ("a list of " if option.kind == "services" else "") + " or ".join(option.choices)
    return {
        "bool": "true or false",
        "text": "text",
        "version": "a version such as 0.32.0, as text",
        "reserved": "a number of cores from 1, or a list of core numbers such as [7] or 6-7",
        "ollama": "reserved, any, or a list of core numbers such as 6-7",
        "cores": "a list of core numbers such as 0-6",
        "cpus": "a list of logical CPU numbers such as 0-6,8-14",
    }[option.kind]


def _unknown(name, value, given):
    """A key that does not exist: name the one that was meant, and carry its value over where that works."""
    bare = name[5:] if name.startswith("plan_") else name
    close = [bare] if bare in POLICY else difflib.get_close_matches(bare, list(POLICY), 1, 0.6)
    nearest = {name: None}
    text = f"{_quoted(name)} is not a key of the policy."
    if close:
        text += f" Did you mean {close[0]}?"
        try:
            _read(close[0], value)
            if close[0] not in given:
                nearest[close[0]] = value
        except Unreadable:
            pass
    return refusal("unknown-option", name, value, f"closest key: {close[0]}" if close else "no key is close to it", text, nearest)


def _kind_of(value):
    names = {"dict": "a dictionary", "list": "a list", "tuple": "a list", "str": "text", "bool": "a boolean", "int": "a whole number",
             "float": "a number with a fraction", "NoneType": "nothing"}
    return names.get(type(value).__name__, f"a value of type {type(value).__name__}")


def _quoted(value):
    text = repr(plain(value))
    return text if len(text) <= 60 else text[:57] + "..."


def _read(name, value):
    option = POLICY[name]
    return _READERS[option.kind](option, value)


def _read_bool(option, value):
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower() if isinstance(value, (int, str)) else ""
    if word in ("true", "yes", "on", "1"):
        return True
    if word in ("false", "no", "off", "0"):
        return False
    raise Unreadable("option-type", f"{_kind_of(value)} that is neither true nor false", option.default)


_SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*([kmgt]?)(?:i?b)?", re.ASCII | re.IGNORECASE)
_SIZE_IN_MIB = {"k": 1 / 1024, "m": 1, "g": 1024, "t": 1024 * 1024}


def _read_int(option, value):
    number = None
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, float) and value.is_integer():
        number = int(value)
    elif isinstance(value, str) and re.fullmatch(r"[+-]?\d{1,18}", value.strip(), re.ASCII):
        number = int(value)
    if number is None:
        raise Unreadable("option-type", f"{_kind_of(value)}, not a whole number", _clamped(option, _guess(option, value)))
    if not option.minimum <= number <= option.maximum:
        limit = f"the least is {option.minimum}" if number < option.minimum else f"the most is {option.maximum}"
        raise Unreadable("option-range", f"{limit} {option.unit}".rstrip(), _clamped(option, number))
    return number


def _clamped(option, number):
    return max(option.minimum, min(option.maximum, number))


def _guess(option, value):
    """What somebody meant who wrote a size as text or with a fraction: 6g, 6144MiB, 4.5."""
    if isinstance(value, float) and math.isfinite(value):
        return int(value)
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if not match:
        return option.default
    number, unit = float(match.group(1)), match.group(2).lower()
    if unit and option.unit in ("MiB", "GiB"):
        number *= _SIZE_IN_MIB[unit] / (1024 if option.unit == "GiB" else 1)
    return int(number)


def _read_choice(option, value):
    word = value.strip().lower() if isinstance(value, str) else ""
    if word in option.choices:
        return word
    close = difflib.get_close_matches(word, option.choices, 1, 0.6)
    raise Unreadable("option-choice", "not one of its choices", close[0] if close else option.default)


def _read_services(option, value):
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)):
        raise Unreadable("option-type", f"{_kind_of(value)}, not a list", list(option.default))
    names = [name.strip().lower() if isinstance(name, str) else name for name in names]
    good = [name for name in SERVICES if name in names]
    if not names:
        raise Unreadable("option-range", "no service at all", list(option.default))
    strange = [name for name in names if name not in SERVICES]
    if strange:
        # The order of SERVICES, whatever the order asked for: the same host, the same plan.
        raise Unreadable("option-choice", f"{_quoted(strange[0])} is no service", good or list(option.default))
    return good


def _numbers(option, value):
    """Read a list of core or CPU numbers, written as text, as a list, or as one number."""
    if isinstance(value, (list, tuple)):
        if any(isinstance(item, bool) or not isinstance(item, (int, str)) for item in value):
            raise Unreadable("option-type", "a list with something other than numbers in it", option.default)
        value = ",".join(str(item) for item in value)
    elif isinstance(value, bool) or not isinstance(value, (int, str)):
        raise Unreadable("option-type", f"{_kind_of(value)}, not a list of numbers", option.default)
    text = str(value).strip()
    if text[:1] == "[" and text[-1:] == "]":
        text = text[1:-1]
    try:
        return parse_cpulist(text)
    except ValueError as exc:
        raise Unreadable("option-type", str(exc), option.default) from None


def _read_reserved(option, value):
    if not isinstance(value, (list, tuple)):
        try:
            return _read_int(option._replace(unit="", minimum=1, maximum=1 << 16), value)
        except Unreadable as exc:
            # "6-7" and "[7]" are texts that are no number, yet lists.
            if exc.rule == "option-range" or not isinstance(value, str):
                raise Unreadable(exc.rule, exc.found, option.default) from None
    numbers = _numbers(option, value)
    if not numbers:
        raise Unreadable("option-range", "no core at all; the system needs one", option.default)
    return numbers


def _read_ollama(option, value):
    word = value.strip().lower() if isinstance(value, str) else value
    if word in ("reserved", "any"):
        return word
    numbers = _numbers(option, value)
    if not numbers:
        raise Unreadable("option-range", "no core at all", option.default)
    return numbers


def _read_text(option, value):
    if not isinstance(value, str):
        raise Unreadable("option-type", f"{_kind_of(value)}, not text", option.default)
    return value.strip()


def _read_version(option, value):
    if isinstance(value, str) and parse_version(value):
        return value.strip().lstrip("vV")
    # A bare 0.30 in YAML is the number 0.3, so a number cannot be trusted to be the version that was meant.
    raise Unreadable("option-type", f"{_kind_of(value)} that is no version", option.default)


_READERS = {
    "bool": _read_bool,
    "int": _read_int,
    "choice": _read_choice,
    "services": _read_services,
    "cores": _numbers,
    "cpus": _numbers,
    "reserved": _read_reserved,
    "ollama": _read_ollama,
    "version": _read_version,
    "text": _read_text,
}
