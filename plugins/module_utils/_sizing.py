# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who gets how much memory, in MiB unless a name says otherwise."""
from __future__ import annotations

import math
from typing import NamedTuple

MIB_PER_GIB = 1024
BYTES_PER_MIB = 1 << 20

# Measured with vLLM 0.32, see docs/models.md: its three processes take 1215 MiB before weights and KV cache, what they touch of /dev/shm (a ring of
# 240 MiB) included, for a /dev/shm of up to 256 MiB. Their own files take 570 MiB of page cache, which is charged too where nobody had read them yet.
OWN_FILES_MIB = 570
RUNTIME_MIB = 1215 + OWN_FILES_MIB
RUNTIME_SHM_MIB = 256
# What a batch takes: a basis, as many copies of the scores of all next tokens, and this share of what the widest layer makes of all tokens.
BATCH_MIB, SCORES, LAYER = 32, 11, 0.35
SCORE_BYTES = 4
# oneDNN packs weights of 32 bits anew, and this share of them stays twice.
PACKED_WIDTH, PACKED = 4, 0.65

# As far as the nearest plan that works goes down when memory is short, before it gives up.
OLLAMA_COMFORT_MIB = 1024
OLLAMA_FLOOR_MIB = 256
RESERVE_FLOOR_MIB = 128


class Load(NamedTuple):
    """What is to be served. C(weights) and C(read), what is read of their files, are MiB; the widths of the model are None where not known."""

    shm: int
    weights: int
    read: int
    tokens: int
    sequences: int
    inside: int | None = None
    words: int | None = None
    width: int = 2


class Base(NamedTuple):
    """What vLLM takes beside its KV cache."""

    runtime: int
    weights: int
    activations: int
    page_cache: int
    packed: int = 0

    @property
    def total(self):
        return sum(self)


class Refused(NamedTuple):
    """A rule that is broken; C(fix) are the overrides that mend it, empty where nothing does."""

    rule: str
    option: str
    found: str
    message: str
    fix: dict


class Ask(NamedTuple):
    """What the policy asks for; a service that the host does not have is None in its limit."""

    total: int
    reserve: int
    limit: int | None
    reservation: int
    base: Base
    kv_gib: int
    kv_fixed: bool
    ollama_limit: int | None
    ollama_reservation: int


class Sizes(NamedTuple):
    """What everybody gets. Where rules were broken these are the sizes after the fixes, so that later rules can be judged."""

    limit: int
    reservation: int
    kv_gib: int
    base: Base
    ollama_limit: int
    ollama_reservation: int
    reserve: int


def runtime_mib(shm):
    """Return what vLLM takes before weights and KV cache; whatever /dev/shm is given beyond the measured size counts in full."""
    return RUNTIME_MIB + max(0, shm - RUNTIME_SHM_MIB)


def activations_mib(load):
    """Return what the largest batch takes while it is worked on, beyond the page cache of vLLM's own files, which the kernel gives up for it."""
    scores = load.sequences * (load.words or 0) * SCORE_BYTES
    layer = load.tokens * 2 * (load.inside or 0) * load.width
    return max(0, BATCH_MIB + math.ceil((SCORES * scores + LAYER * layer) / BYTES_PER_MIB) - OWN_FILES_MIB)


def base_of(load):
    """Return what vLLM takes for this load beside its KV cache."""
    activations = activations_mib(load)
    packed = math.ceil(PACKED * load.weights) if load.width == PACKED_WIDTH else 0
    return Base(runtime_mib(load.shm), load.weights, activations, max(0, load.read - activations), packed)


def kv_that_fits(room, base):
    """Return the whole GiB of KV cache that fit beside the rest; below 1 nothing does."""
    return (room - base.total) // MIB_PER_GIB


def sum_text(base, kv_gib):
    """The sum a person can check."""
    kv = kv_gib * MIB_PER_GIB
    known = f"weights {base.weights}" if base.weights else "weights unknown"
    rest = "".join(f" + {name} {value}" for name, value in
                   (("packed copies", base.packed), ("activations", base.activations), ("page cache", base.page_cache)) if value)
    return f"runtime {base.runtime} + {known}{rest} + KV cache {kv} = {base.total + kv} MiB"


def size(ask):
    """Return C((sizes, refused, notes)); notes are pairs of rule and text."""
    refused, notes = [], []
    has_vllm, has_ollama = ask.limit is not None, ask.ollama_limit is not None
    limit = ask.limit if has_vllm else 0
    ollama_limit = ask.ollama_limit if has_ollama else 0
    kv = ask.kv_gib
    if has_vllm:
        limit, kv = _fit_kv(ask, ollama_limit, refused, notes)
    reservation = _fit_reservation("vllm", ask.reservation, limit, refused) if has_vllm else 0
    ollama_reservation = _fit_reservation("ollama", ask.ollama_reservation, ollama_limit, refused) if has_ollama else 0
    sizes = Sizes(limit, reservation, kv, ask.base, ollama_limit, ollama_reservation, ask.reserve)
    if limit + ollama_limit + ask.reserve > ask.total:
        asked_limit = ask.limit if has_vllm else 0
        sizes, over = _fit_host(ask, sizes)
        if over.fix and asked_limit + ollama_limit + ask.reserve <= ask.total:
            # Nobody asked for too much: it is the limit as we raised it. So this belongs to the violation that raised it.
            refused = [item._replace(fix=dict(item.fix, **over.fix)) if item.rule == "vllm-memory-limit" else item for item in refused]
        else:
            refused.append(over)
    return sizes, refused, notes


def _fit_kv(ask, ollama_limit, refused, notes):
    """vLLM allocates its KV cache at once and whole: it fits its limit, or the container is killed at its start."""
    base = ask.base.total
    limit, kv = ask.limit, ask.kv_gib
    most = kv_that_fits(limit, ask.base)
    if kv <= most:
        return limit, kv
    text = f"{sum_text(ask.base, kv)}, its memory limit is {limit} MiB"
    if most >= 1 and not ask.kv_fixed:
        notes.append(("kv-lowered", f"vLLM's KV cache is lowered from {kv} to {most} GiB: {text}."))
        return limit, most
    if most >= 1:
        refused.append(Refused(
            "kv-fits-limit", "vllm_kv_cache_gib", f"at most {most} GiB fit",
            f"vLLM's KV cache of {kv} GiB does not fit and is marked as fixed: {text}.", {"vllm_kv_cache_gib": most}))
        return limit, most
    # Not even 1 GiB fits: the limit itself is too small. A fixed cache is kept where the host has the memory for it.
    whole = base + kv * MIB_PER_GIB
    if ask.kv_fixed and whole + ollama_limit + ask.reserve <= ask.total:
        fix = {"vllm_memory_limit_mib": whole}
    else:
        fix = {"vllm_memory_limit_mib": base + MIB_PER_GIB}
        if ask.kv_fixed:
            fix["vllm_kv_cache_gib"] = 1
        kv = 1
    least = f"vLLM needs {base + MIB_PER_GIB} MiB with the smallest KV cache, 1 GiB"
    refused.append(Refused(
        "vllm-memory-limit", "vllm_memory_limit_mib", least,
        f"vLLM's memory limit of {limit} MiB is too small: {sum_text(ask.base, ask.kv_gib)}, and with a KV cache of 1 GiB it still needs"
        f" {base + MIB_PER_GIB} MiB.", fix))
    return fix["vllm_memory_limit_mib"], kv


def _fit_reservation(service, reservation, limit, refused):
    if reservation <= limit:
        return reservation
    option = f"{service}_memory_reservation_mib"
    refused.append(Refused(
        "reservation-fits-limit", option, f"limit {limit} MiB",
        f"{option} of {reservation} MiB is above the memory limit of {limit} MiB; Docker refuses that.", {option: limit}))
    return limit


def _fit_host(ask, sizes):
    """The limits and the system's share are more than the host has: find the nearest that is not."""
    has_vllm, has_ollama = ask.limit is not None, ask.ollama_limit is not None
    base = ask.base.total
    parts = [(f"vLLM {sizes.limit}", has_vllm), (f"Ollama {sizes.ollama_limit}", has_ollama), (f"system {ask.reserve}", True)]
    text = " + ".join(part for part, present in parts if present)
    text = f"{text} = {sizes.limit + sizes.ollama_limit + ask.reserve} MiB, the host has {ask.total} MiB"
    # Least harm first: Ollama's spare memory, the KV cache (unless fixed), Ollama's rest, a fixed KV cache, the system's share.
    least_vllm = base + MIB_PER_GIB if has_vllm else 0
    kept_vllm = base + sizes.kv_gib * MIB_PER_GIB if has_vllm and ask.kv_fixed else least_vllm
    comfort = min(sizes.ollama_limit, OLLAMA_COMFORT_MIB)
    floor = OLLAMA_FLOOR_MIB if has_ollama else 0
    steps = ((kept_vllm, comfort, ask.reserve), (kept_vllm, floor, ask.reserve), (least_vllm, floor, ask.reserve), (least_vllm, floor, RESERVE_FLOOR_MIB))
    for vllm_floor, ollama_floor, reserve in steps:
        if vllm_floor + ollama_floor + reserve <= ask.total:
            break
    else:
        needed = least_vllm + floor + RESERVE_FLOOR_MIB
        vllm_text = f"vLLM {sum_text(ask.base, 1)}, " if has_vllm else ""
        ollama_text = f"Ollama {floor} MiB, " if has_ollama else ""
        return sizes, Refused(
            "host-memory", "vllm_memory_limit_mib" if has_vllm else "ollama_memory_limit_mib", f"{ask.total} MiB in the host",
            f"The host has too little memory: {ask.total} MiB, and the least that works is {needed} MiB"
            f" ({vllm_text}{ollama_text}system {RESERVE_FLOOR_MIB} MiB).", {})
    if reserve != ask.reserve:
        reserve = min(ask.reserve, ask.total - vllm_floor - ollama_floor)
    ollama_limit = max(ollama_floor, min(sizes.ollama_limit, ask.total - reserve - sizes.limit)) if has_ollama else 0
    limit = min(sizes.limit, ask.total - reserve - ollama_limit)
    kv = min(sizes.kv_gib, kv_that_fits(limit, ask.base)) if has_vllm else sizes.kv_gib
    fitted = Sizes(limit, min(sizes.reservation, limit), kv, ask.base, ollama_limit, min(sizes.ollama_reservation, ollama_limit), reserve)
    fix = {}
    for name, before, after in (
            ("vllm_memory_limit_mib", sizes.limit, limit), ("vllm_memory_reservation_mib", sizes.reservation, fitted.reservation),
            ("ollama_memory_limit_mib", sizes.ollama_limit, ollama_limit),
            ("ollama_memory_reservation_mib", sizes.ollama_reservation, fitted.ollama_reservation),
            ("system_reserve_mib", ask.reserve, reserve)):
        if after != before:
            fix[name] = after
    if ask.kv_fixed and kv != sizes.kv_gib:
        fix["vllm_kv_cache_gib"] = kv
    return fitted, Refused(
        "memory-fits-host", next(iter(fix)), f"{ask.total} MiB in the host", f"The memory limits and the system's share do not fit: {text}.", fix)
