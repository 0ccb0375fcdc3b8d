# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the memory of Ollama's GPU goes, in MiB unless a name says otherwise.

Nothing caps it from outside. What keeps it in bounds is the number of models, slots and tokens, so these are what is reckoned with.
"""
from __future__ import annotations

from typing import NamedTuple

MIB = 1 << 20

# What one loaded model takes beside weights and KV cache: CUDA's context, cuBLAS and the compute buffers. Measured on a Quadro P2200:
# llama3.2:3b peaked at 4483 MiB, of which 1926 are its weights and 1792 its KV cache (4 slots of 4096 tokens, as Ollama took by itself then);
# 765 are left. Ollama itself reckons 457 for the context (ml/device.go), and its log has 257 for the compute buffers of such a model
# (https://github.com/ollama/ollama/issues/8310).
RUNTIME_MIB = 768

# Since 0.30 llama-server places the layers, and rather puts some into RAM than leave less than this free (--fit-target, common/common.h of llama.cpp).
MARGIN_MIB = 1024
MARGIN_SINCE = (0, 30, 0)

# The driver and a console take some before anybody computes; no process is to blame for that much.
IDLE_MIB = 64

# What Ollama takes by itself with less than 23 GiB of VRAM (server/routes.go), and the least that a decided context is worth having.
CONTEXT = 4096
CONTEXT_FLOOR = 1024
CONTEXT_COMFORT = 2048
# llama.cpp pads the context to multiples of it.
CONTEXT_STEP = 256

# Bytes of KV cache per token as f16 where nobody says: those of Qwen3 4B (36 layers, 8 heads of 128), more than most models have that fit a small card.
KV_BYTES = 147456

# What a token takes relative to f16. A block of 32 numbers is 64 bytes as f16, 34 as q8_0 and 18 as q4_0 (ggml-common.h).
KV_TYPES = {"f16": (64, 64), "q8_0": (34, 64), "q4_0": (18, 64)}

# As much of Ollama's RAM as its server itself needs beside what spills; the least limit that a plan gives it.
SERVER_MIB = 256


class Ask(NamedTuple):
    """What is to be on the GPU. Zero is unknown, for C(context) undecided."""

    total: int
    reserved: int  # by the driver, out of reach
    version: tuple
    weights: int
    kv_bytes: int
    context: int
    parallel: int
    kv_type: str
    models: int


class Vram(NamedTuple):
    """Where it goes. C(left) below zero is what spills."""

    total: int
    reserve: int
    weights: int
    kv: int
    left: int
    context: int
    parallel: int
    kv_type: str
    models: int


def overhead(version, models):
    """Return what is gone before weights and KV cache."""
    return RUNTIME_MIB * models + (MARGIN_MIB if version >= MARGIN_SINCE else 0)


def kv_mib(context, parallel, kv_bytes, kv_type):
    """Return the KV cache of one model, rounded up."""
    share, whole = KV_TYPES[kv_type]
    return -(-context * parallel * (kv_bytes or KV_BYTES) * share // (whole * MIB))


def room(ask):
    """Return what is left for weights and KV caches."""
    return ask.total - ask.reserved - overhead(ask.version, ask.models)


def _tokens(ask, space):
    """Return how many tokens, of all slots together, each model may have when all caches are to be within this space."""
    share, whole = KV_TYPES[ask.kv_type]
    return max(0, space // ask.models * MIB * whole // ((ask.kv_bytes or KV_BYTES) * share))


def context_that_fits(ask, space):
    """Return the longest context, in steps; 0 where none fits."""
    return _tokens(ask, space) // ask.parallel // CONTEXT_STEP * CONTEXT_STEP


def decided(ask, spills=False):
    """Return the context: what was asked for, else Ollama's own default, less where it does not fit.

    An unknown model is left three quarters of the room. One that spills anyway keeps the default.
    """
    if ask.context:
        return ask.context
    space = room(ask) - ask.models * ask.weights if ask.weights else room(ask) // 4
    fitting = min(CONTEXT, context_that_fits(ask, space))
    return CONTEXT if spills and fitting < CONTEXT_FLOOR else max(CONTEXT_FLOOR, fitting)


def budget(ask, spills=False):
    """Return where the memory goes, whether it fits or not."""
    context = decided(ask, spills)
    reserve = ask.reserved + overhead(ask.version, ask.models)
    weights = ask.models * ask.weights
    kv = ask.models * kv_mib(context, ask.parallel, ask.kv_bytes, ask.kv_type)
    return Vram(ask.total, reserve, weights, kv, ask.total - reserve - weights - kv, context, ask.parallel, ask.kv_type, ask.models)


def sum_text(ask, vram):
    """The sum a person can check."""
    models = f"{vram.models} models: " if vram.models > 1 else ""
    weights = f"weights {vram.weights}" if vram.weights else "weights unknown"
    slots = f"{vram.context} tokens" if vram.parallel == 1 else f"{vram.parallel} x {vram.context} tokens"
    return (
        f"{models}overhead {vram.reserve} + {weights} + KV cache {vram.kv} ({slots} at {ask.kv_bytes or KV_BYTES} bytes, {vram.kv_type})"
        f" = {vram.reserve + vram.weights + vram.kv} MiB")


def nearest(ask, kv_types):
    """Return what would fit, with the least harm; None where nothing does.

    Fewer slots go first, then a smaller KV type, then fewer models, and the context last. C(kv_types) are those the card can have, the largest first.
    """
    types = list(kv_types)[list(kv_types).index(ask.kv_type):]
    wanted = ask.context or CONTEXT_FLOOR
    for models in sorted({ask.models, 1}, reverse=True):
        for kv_type in types:
            one = ask._replace(models=models, kv_type=kv_type)
            slots = min(ask.parallel, _tokens(one, room(one) - models * one.weights) // wanted)
            if slots:
                return one._replace(parallel=slots)
    for floor in (CONTEXT_COMFORT, CONTEXT_FLOOR):
        for kv_type in types:
            one = ask._replace(models=1, kv_type=kv_type, parallel=1)
            context = context_that_fits(one, room(one) - one.weights)
            if context >= floor:
                return one._replace(context=min(context, wanted))
    return None
