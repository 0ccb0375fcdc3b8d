# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Model names: [host/[namespace/]]model[:tag]."""
from __future__ import annotations

import re

DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"
_MISSING = "!MISSING!"
_PARTS = {
    "host": (re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*"), 350),
    "namespace": (re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*"), 80),
    "model": (re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*"), 80),
    "tag": (re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*"), 80),
}


class Name:
    def __init__(self, host, namespace, model, tag, scheme="https"):
        self.host, self.namespace, self.model, self.tag, self.scheme = host, namespace, model, tag, scheme

    @property
    def parts(self):
        return (self.host, self.namespace, self.model, self.tag)

    @property
    def valid(self):
        return all(len(part) <= _PARTS[kind][1] and _PARTS[kind][0].fullmatch(part) for kind, part in zip(_PARTS, self.parts))

    @property
    def repository(self):
        return "%s/%s" % (self.namespace, self.model)

    @property
    def full(self):
        return "%s/%s/%s:%s" % self.parts

    @property
    def shortest(self):
        if self.host.lower() != DEFAULT_HOST:
            return self.full
        if self.namespace.lower() != DEFAULT_NAMESPACE:
            return "%s/%s:%s" % self.parts[1:]
        return "%s:%s" % self.parts[2:]


def _cut(text, separator):
    before, found, after = text.rpartition(separator)
    if not found:
        return text, "", False
    return before or _MISSING, after or _MISSING, True


def parse(text):
    tag = ""
    if text.rfind(":") > text.rfind("/"):
        text, tag, _found = _cut(text, ":")
    host = namespace = scheme = ""
    rest, model, more = _cut(text, "/")
    if not more:
        model = text
    else:
        rest, namespace, more = _cut(rest, "/")
        if not more:
            namespace = rest
        else:
            scheme, found, host = rest.partition("://")
            if not found:
                scheme, host = "", rest
    return Name(host or DEFAULT_HOST, namespace or DEFAULT_NAMESPACE, model, tag or DEFAULT_TAG, scheme or "https")


def split_source(text):
    """The name without a source suffix, and "cloud", "local" or ""."""
    text = text.strip()
    before, found, suffix = text.rpartition(":")
    if found and suffix.strip().lower() in ("cloud", "local"):
        return before, suffix.strip().lower()
    if found and "/" not in suffix and suffix.lower().endswith("-cloud"):
        return "%s:%s" % (before, suffix[:-len("-cloud")]), "cloud"
    return text, ""
