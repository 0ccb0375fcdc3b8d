# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's list format for CPUs, cores and nodes: C(0-6,8-14)."""
from __future__ import annotations

import re

# Far above any kernel's NR_CPUS (8192); a list beyond it is a typing error, and expanding it would eat the memory.
MAX_NUMBER = 65535

# Digits are bounded: Python converts no text of thousands of them.
_RANGE = re.compile(r"(\d{1,18})(?:-(\d{1,18})(?::(\d{1,18})/(\d{1,18}))?)?", re.ASCII)


def parse_cpulist(text):
    """Return the numbers in C(text), sorted and unique; an empty text is an empty list.

    Takes what the kernel writes and accepts: single numbers, ranges C(a-b) and strided ranges C(a-b:used/group).
    Raises ValueError, with the offending part, for anything else.
    """
    numbers = set()
    text = str(text).strip()
    for part in text.split(",") if text else []:
        match = _RANGE.fullmatch(part.strip())
        if not match:
            raise ValueError(f"'{part.strip()}' in '{text}' is neither a number nor a range such as 0-6")
        first = int(match.group(1))
        last = first if match.group(2) is None else int(match.group(2))
        if last < first:
            raise ValueError(f"the range '{part.strip()}' in '{text}' runs backwards; write {last}-{first}")
        if last > MAX_NUMBER:
            raise ValueError(f"{last} in '{text}' is beyond any CPU number ({MAX_NUMBER} at most)")
        used, group = (1, 1) if match.group(3) is None else (int(match.group(3)), int(match.group(4)))
        if not 0 < used <= group:
            raise ValueError(f"the stride in '{part.strip()}' must use between 1 and all of its group, as in 0-15:1/2")
        numbers.update(n for n in range(first, last + 1) if (n - first) % group < used)
    return sorted(numbers)


def format_cpulist(numbers):
    """Return the numbers as the kernel would write them: C([0, 1, 2, 8]) is C(0-2,8)."""
    runs = []
    for number in sorted(set(numbers)):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
