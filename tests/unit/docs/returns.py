# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares what a module returned with its RETURN documentation, which no other tool does."""
from __future__ import annotations

import yaml

# What Ansible itself documents for every module.
COMMON = {"changed", "diff", "exception", "failed", "invocation", "msg", "skipped", "warnings", "deprecations"}
TYPES = {
    "bool": bool, "dict": dict, "complex": dict, "float": (float, int), "int": int, "list": list, "path": str, "str": str, "raw": object, "any": object,
}
ALWAYS = ("always", "success", "")
# What a failed command leaves.
OF_FAILURES = {"cmd", "rc", "stderr", "stdout"}
NULL = ("null", "V(none)")


def differences(documentation, result, failed=False):
    """Return what a result has that RETURN lacks, or has otherwise, one text each.

    A failed result may lack anything. That a value may be null is said in its description or in one around it, by either word.
    """
    documented = yaml.safe_load(documentation) or {}
    for key in sorted(set(result) - set(documented) - COMMON - (OF_FAILURES if failed else set())):
        yield f"{key} is returned, and not documented"
    yield from _inside(documented, result, "", False, failed)


def _inside(documented, values, place, nullable, failed=False):
    for key, described in documented.items():
        if key in values:
            yield from _value(described, values[key], f"{place}{key}", nullable)
        elif not failed and str(described.get("returned", "")).strip().lower() in ALWAYS:
            yield f"{place}{key} is documented as always returned, and is missing"


def _value(described, value, place, nullable):
    nullable = nullable or any(word in str(described.get("description", "")) for word in NULL)
    if value is None:
        if not nullable:
            yield f"{place} is null, and no description says when"
        return
    kind = described.get("type", "str")
    if not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind in ("int", "float")):
        yield f"{place} is documented as {kind}, and is {type(value).__name__}: {value!r:.80}"
        return
    if kind == "list":
        elements = dict(described, type=described.get("elements", "raw"))
        for number, element in enumerate(value):
            yield from _value(elements, element, f"{place}[{number}]", nullable)
    elif kind in ("dict", "complex") and described.get("contains"):
        for key in sorted(set(value) - set(described["contains"])):
            yield f"{place}.{key} is returned, and not documented"
        yield from _inside(described["contains"], value, f"{place}.", nullable)
