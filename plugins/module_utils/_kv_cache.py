# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much of a KV cache some tokens take, in bytes. vLLM's rules (v1/kv_cache_interface.py, v1/core/kv_cache_utils.py)."""
from __future__ import annotations

from typing import NamedTuple

# The KV cache of one token is below 5 MiB in the largest published models without grouped heads (96 layers of 12288, 16 bit); more is a broken file.
MAX_BYTES = 1 << 24
# As much as a plan can be asked for. A context beyond it is how some models say that there is no limit; weights beyond it are a broken file.
MAX_CONTEXT = 1 << 31
MAX_WEIGHTS_MIB = 1 << 31
# Far above the width and the vocabulary of any model (16384, 262144).
MAX_WIDTH = 1 << 24


class Kv(NamedTuple):
    """Bytes of one token in all layers of a kind. C(window) is that of the sliding layers; 0 where there are none."""

    full: int
    sliding: int = 0
    window: int = 0


def tokens_that_fit(kv, space):
    """Return how many tokens of all sequences together fit, as if every layer kept every token."""
    return space // (kv.full + kv.sliding)


def needed(kv, tokens, block, batch):
    """Return what vLLM wants for one sequence of this length.

    Blocks are whole. A sliding layer keeps its window and the tokens of a batch, and one block more, as the window may begin inside a block.
    """
    size = -(-tokens // block) * block * kv.full
    if kv.sliding:
        size += (-(-min(kv.window - 1 + batch, tokens) // block) + 1) * block * kv.sliding
    return size


def longest(kv, space, most, block, batch):
    """Return the longest sequence of at most C(most) tokens that fits; 0 where none does."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if needed(kv, middle, block, batch) <= space:
            low = middle
        else:
            high = middle - 1
    return low
