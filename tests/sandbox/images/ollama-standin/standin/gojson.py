# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON, times and durations as Go's standard library writes, reads and rejects them."""
from __future__ import annotations

import decimal
import json
import math
import re
import time

FOREVER_NS = 2 ** 63 - 1
_SECOND_NS = 10 ** 9
_UNITS_NS = {"ns": 1, "us": 10 ** 3, "µs": 10 ** 3, "μs": 10 ** 3, "ms": 10 ** 6, "s": _SECOND_NS, "m": 60 * _SECOND_NS, "h": 3600 * _SECOND_NS}


class GoError(ValueError):
    """An error with the text Go gives it."""


# ---------------------------------------------------------------- writing

def _float(value):
    if not math.isfinite(value):
        raise GoError("json: unsupported value: %s" % value)
    if value == int(value) and abs(value) < 1e21:
        return str(int(value))
    if abs(value) < 1e-6 or abs(value) >= 1e21:
        return re.sub(r"e([+-])0?(\d)", r"e\1\2", repr(value))
    return format(decimal.Decimal(repr(value)), "f")


def _string(value):
    text = json.dumps(value, ensure_ascii=False)
    for char, code in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"), ("\u2028", "\\u2028"), ("\u2029", "\\u2029")):
        text = text.replace(char, code)
    return text


def dumps(value):
    """Compact, HTML-escaped, keys in the order given."""
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, dict):
        return "{%s}" % ",".join("%s:%s" % (_string(str(key)), dumps(item)) for key, item in value.items())
    return "[%s]" % ",".join(dumps(item) for item in value)


def rfc3339(nanoseconds):
    """UTC, with as many decimals as are not zero."""
    seconds, rest = divmod(nanoseconds, _SECOND_NS)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    decimals = ("%09d" % rest).rstrip("0")
    return "%s%sZ" % (stamp, "." + decimals if decimals else "")


# ---------------------------------------------------------------- reading

def _reject_constant(text):
    raise GoError("invalid character '%s' looking for beginning of value" % text.lstrip("-")[0])


_DECODER = json.JSONDecoder(parse_constant=_reject_constant)
_PLACES = (
    ("Expecting property name", "looking for beginning of object key string"),
    ("Illegal trailing comma before end of object", "looking for beginning of object key string"),
    ("Expecting ':'", "after object key"),
    ("Expecting ',' delimiter", None),
    ("Invalid control character", "in string literal"),
    ("Invalid \\escape", "in string escape code"),
)


def decode(body):
    """The first JSON value of a request body; what follows it is not looked at, as in Go's decoder."""
    text = body.decode("utf-8", "replace").lstrip(" \t\r\n")
    if not text:
        raise GoError("missing request body")
    try:
        return _DECODER.raw_decode(text)[0]
    except json.JSONDecodeError as error:
        rest = text[error.pos:].lstrip(" \t\r\n")
        if not rest or error.msg.startswith("Unterminated string"):
            raise GoError("unexpected EOF") from None
        where = "looking for beginning of value"
        for start, place in _PLACES:
            if error.msg.startswith(start):
                where = place or ("after object key:value pair" if _inside_object(text[:error.pos]) else "after array element")
        char = text[error.pos] if where == "in string literal" else rest[0]
        raise GoError("invalid character %s %s" % (_quoted(char), where)) from None
    except RecursionError:
        raise GoError("exceeded max depth") from None


def _inside_object(text):
    depth = []
    for found in re.finditer(r'"(?:[^"\\]|\\.)*"|[{}\[\]]', text):
        if found.group() in "{[":
            depth.append(found.group())
        elif found.group() in "}]" and depth:
            depth.pop()
    return bool(depth) and depth[-1] == "{"


def _quoted(char):
    return {"'": "'\\''", '"': "'\"'"}.get(char, "'%s'" % json.dumps(char, ensure_ascii=False)[1:-1])


_KINDS = {
    "string": (str,), "bool": (bool,), "int": (int,), "float64": (int, float),
    "map[string]interface {}": (dict,), "map[string]string": (dict,),
    "[]int": (list,), "[]string": (list,), "[]api.Message": (list,), "[]openai.Message": (list,),
}


def _kind_of(value):
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "string"
    if isinstance(value, (int, float)):
        return "number"
    return "object" if isinstance(value, dict) else "array"


def bind(body, struct, fields):
    """A request body as a struct: {field: value} for the fields that were given and not null.

    `fields` maps a field to its Go type, "duration" or "any". Keys match without regard to case, unknown ones are dropped.
    """
    value = decode(body)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise GoError("json: cannot unmarshal %s into Go value of type api.%s" % (_kind_of(value), struct))
    known = {name.lower(): name for name in fields}
    request = {}
    for key, item in value.items():
        name = known.get(key.lower())
        if name is None or item is None:
            continue
        kind = fields[name]
        if kind == "duration":
            item = keep_alive(item)
        elif kind != "any":
            fits = isinstance(item, _KINDS[kind]) and (kind == "bool") == isinstance(item, bool)
            if not fits:
                what = _kind_of(item)
                if what == "number" and kind == "int":
                    what = "number %s" % dumps(item)
                raise GoError("json: cannot unmarshal %s into Go struct field %s.%s of type %s" % (what, struct, name, kind))
        request[name] = item
    return request


# ---------------------------------------------------------------- durations

def parse_duration(text):
    """A Go duration such as 1h30m or -1s, in nanoseconds."""
    bad = GoError('time: invalid duration "%s"' % text)
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text[1:] if text.startswith("+") else text)
    if rest == "0":
        return 0
    if not rest:
        raise bad
    total = 0
    while rest:
        found = re.match(r"(\d+\.?\d*|\.\d+)([^\d.]*)", rest)
        if not found:
            raise bad
        number, unit = found.groups()
        if not unit:
            raise GoError('time: missing unit in duration "%s"' % text)
        if unit not in _UNITS_NS:
            raise GoError('time: unknown unit "%s" in duration "%s"' % (unit, text))
        total += int(decimal.Decimal(number) * _UNITS_NS[unit])
        rest = rest[found.end():]
    if total > FOREVER_NS:
        raise bad
    return sign * total


def keep_alive(value):
    """How long a model stays loaded: a duration as text, or seconds; negative means for ever."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise GoError("Unsupported type: '%s'" % {bool: "bool", dict: "map[string]interface {}"}.get(type(value), "[]interface {}"))
    nanoseconds = parse_duration(value) if isinstance(value, str) else int(value * _SECOND_NS)
    return FOREVER_NS if nanoseconds < 0 else min(nanoseconds, FOREVER_NS)
