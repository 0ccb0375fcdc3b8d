# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The figures of a benchmark: from the moments at which tokens came to medians, ranges and losses. Pure."""
from __future__ import annotations

import math

# Where the curve of the inter-token latency is drawn, in percent; the tail is what interference shows in.
CURVE = (0, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 99, 99.5, 100)


class Request:
    """One streamed answer.

    C(begun) is when it was asked for, C(pieces) are (when a piece came, tokens in it), in seconds of one clock, and C(tokens) is how many the server
    counted, None where it did not tell.
    """

    def __init__(self, begun, pieces, tokens=None):
        self.begun = begun
        self.pieces = pieces
        self.tokens = sum(number for _at, number in pieces) if tokens is None else tokens

    def first_token(self):
        """Return the time to the first token (TTFT) in seconds."""
        return self.pieces[0][0] - self.begun

    def gaps(self):
        """Return the inter-token latencies in seconds. Tokens that came together share the time that they were waited for."""
        found = []
        for (before, _number), (at, number) in zip(self.pieces, self.pieces[1:]):
            found += [(at - before) / number] * number
        return found

    def decoding(self):
        """Return (tokens after the first piece, the seconds they took)."""
        return max(0, self.tokens - self.pieces[0][1]), self.pieces[-1][0] - self.pieces[0][0]


def percentile(values, percent):
    """Return the value below which that share of the values lies, linear between neighbours."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low, high = math.floor(place), math.ceil(place)
    between = ordered[low] + (ordered[high] - ordered[low]) * (place - low)
    # Rounding must not leave the range of the values.
    return min(max(between, ordered[low]), ordered[high])


def spread(values):
    """Return median and range, None without a value."""
    return {"median": percentile(values, 50), "min": min(values), "max": max(values)} if values else None


def figures(requests):
    """Return what one run shows of a service: tokens/s while decoding, TTFT and inter-token latencies in milliseconds; None where no two tokens came."""
    numbers, times = zip(*(request.decoding() for request in requests)) if requests else ((), ())
    gaps = [gap for request in requests for gap in request.gaps()]
    if not gaps or sum(times) <= 0:
        return None
    return {
        "requests": len(requests),
        "tokens": sum(request.tokens for request in requests),
        "tokens_per_second": sum(numbers) / sum(times),
        "ttft_ms": 1000 * percentile([request.first_token() for request in requests], 50),
        "itl_p50_ms": 1000 * percentile(gaps, 50),
        "itl_p95_ms": 1000 * percentile(gaps, 95),
        "itl_p99_ms": 1000 * percentile(gaps, 99),
    }


FIGURES = ("tokens_per_second", "ttft_ms", "itl_p50_ms", "itl_p95_ms", "itl_p99_ms")


def summary(runs):
    """Return {figure: median and range} over the figures of several runs."""
    return {name: spread([run[name] for run in runs]) for name in FIGURES}


def curve(gaps):
    """Return the distribution of inter-token latencies given in seconds, as points of C(percent) and C(ms)."""
    return [{"percent": percent, "ms": 1000 * percentile(gaps, percent)} for percent in CURVE] if gaps else []


def loss(pairs):
    """Return median and range of the loss in percent; C(pairs) are (tokens/s without, tokens/s with) of the same round, so that slow drift cancels."""
    return spread([100 * (1 - with_it / without) for without, with_it in pairs])
