# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker's daemon.json, shared with other people and tools: merged key by key, never owned."""
from __future__ import annotations

import copy
import json
import re

DEFAULT_INDENT = "  "

# What a running dockerd takes over on SIGHUP: "Configuration reload behavior" in Docker's dockerd reference, and the
# engine's own reload code (moby: daemon/reload.go, daemon/reload_unix.go, reloadConfig in the daemon command). Every
# other key, known or unknown, needs a restart.
RELOADED = frozenset([
    "allow-nondistributable-artifacts",
    "authorization-plugins",
    "debug",
    "default-cgroupns-mode",
    "default-ipc-mode",
    "default-runtime",
    "default-shm-size",
    "insecure-registries",
    "labels",
    "live-restore",
    "max-concurrent-downloads",
    "max-concurrent-uploads",
    "max-download-attempts",
    "network-diagnostic-port",
    "registry-mirrors",
    "runtimes",
    "shutdown-timeout",
])

# The reload code takes most keys over only where the file sets them: a key that is gone keeps its old value until a
# restart. These it sets back to their defaults.
RESET_BY_RELOAD = frozenset([
    "authorization-plugins",
    "max-concurrent-downloads",
    "max-concurrent-uploads",
    "max-download-attempts",
    "network-diagnostic-port",
])

# "features" is reloaded as a whole, but only the build feature is read anew with each request; others, such as cdi and
# containerd-snapshotter, act at the start of the daemon.
RELOADED_FEATURES = frozenset(["buildkit"])

# dockerd reads these as maps of text to text, and refuses to start on a number.
TEXT_MAPS = ("log-opts",)

# The first release with `dockerd --validate`.
VALIDATE_SINCE = (23, 0)


class ConfigError(Exception):
    """The file on the host, or what was asked for, cannot be used; the text says why."""


def _no_constants(name):
    raise ValueError(f"{name} is not JSON")


def parse(text, path):
    """Return (settings, indent) of a daemon.json; an empty text is no settings, as for dockerd itself."""
    if not text.strip():
        return {}, DEFAULT_INDENT
    try:
        settings = json.loads(text, parse_constant=_no_constants)
    except json.JSONDecodeError as error:
        line = text.splitlines()[error.lineno - 1].strip() if error.lineno <= len(text.splitlines()) else ""
        raise ConfigError(
            f"{path} is not valid JSON: line {error.lineno}, column {error.colno}: {error.msg}"
            + (f" (the line reads: {line[:120]})" if line else "")
            + ". Nothing was changed; dockerd would not start with it either. Mend the file and run again."
        ) from error
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON: {error}. Nothing was changed.") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{path} holds a JSON {_kind(settings)}, and dockerd wants an object such as {{}}. Nothing was changed.")
    return settings, _indent_of(text)


def decode(data, path):
    """Return the text of the file's bytes; a byte order mark is dropped, as dockerd does."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: byte {error.start} is 0x{data[error.start]:02x}. Nothing was changed.") from error


def render(settings, indent=DEFAULT_INDENT):
    """Return the text of the file; the order of the keys is the order in the dict."""
    return json.dumps(settings, indent=indent, ensure_ascii=False) + "\n"


def _indent_of(text):
    match = re.search(r'^([ \t]+)"', text, re.MULTILINE)
    return match.group(1) if match else DEFAULT_INDENT


def _kind(value):
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    for kind, name in ((dict, "object"), (list, "array"), (str, "string")):
        if isinstance(value, kind):
            return name
    return "number"


def check_settings(settings):
    """Return what is wrong with the settings that were asked for, as sentences."""
    problems = []
    for path, value in _leaves(settings):
        name = ".".join(path)
        if value is None:
            problems.append(f"settings.{name} is null: give a value, or take the key away with state=absent and its present value")
        elif path[0] in TEXT_MAPS and len(path) > 1 and not isinstance(value, str):
            problems.append(f"settings.{name} is the {_kind(value)} {json.dumps(value)}, and dockerd wants text there: write {json.dumps(json.dumps(value))}")
    return problems


def _leaves(value, path=()):
    if isinstance(value, dict) and (value or not path):
        for key in value:
            yield from _leaves(value[key], path + (key,))
    else:
        yield path, value


def same(left, right):
    """Equal as JSON: true is not 1, and the order of keys does not count."""
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


def desired(current, settings, state):
    """Return the settings the file should hold; neither argument is changed."""
    return _merged(current, settings) if state == "present" else _without(current, settings)


def _merged(current, settings):
    result = copy.deepcopy(current)
    for key, value in settings.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = _merged(result[key], value)
        elif key not in result or not same(result[key], value):
            result[key] = copy.deepcopy(value)
    return result


def _without(current, settings):
    result = copy.deepcopy(current)
    for key, value in settings.items():
        if key not in result:
            continue
        if isinstance(value, dict) and value and isinstance(result[key], dict):
            left = _without(result[key], value)
            if left or not result[key]:
                result[key] = left
            else:
                # The nest is empty because of us: nobody else's key is in it.
                del result[key]
        elif same(result[key], value):
            del result[key]
    return result


def changed_paths(before, after, path=()):
    """Return the paths, as tuples of keys, of the single values that differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = list(before) + [key for key in after if key not in before]
        found = []
        for key in keys:
            if key not in before:
                found += [path + (key,) + rest for rest, _value in _leaves_below(after[key])]
            elif key not in after:
                found += [path + (key,) + rest for rest, _value in _leaves_below(before[key])]
            else:
                found += changed_paths(before[key], after[key], path + (key,))
        return found
    return [] if same(before, after) else [path]


def _leaves_below(value):
    if isinstance(value, dict) and value:
        return list(_leaves(value))
    return [((), value)]


def needs_restart(path, after):
    """True when a reload does not bring the change at this path into a running dockerd."""
    top = path[0]
    if top == "features":
        return len(path) < 2 or path[1] not in RELOADED_FEATURES
    return top not in (RELOADED if top in after else RESET_BY_RELOAD)


def compare(before, after):
    """Return what changes and what dockerd needs for it."""
    paths = changed_paths(before, after)
    restart = any(needs_restart(path, after) for path in paths)
    return {
        "changed_keys": [".".join(path) for path in paths],
        "restart_required": restart,
        "reload_required": bool(paths) and not restart,
    }


def parse_version(text):
    """Return (major, minor) of C(Docker version 26.1.5+dfsg1, build …), or None."""
    match = re.search(r"version v?(\d+)\.(\d+)", text)
    return (int(match.group(1)), int(match.group(2))) if match else None


def why_not_validated(version_text):
    """Return why this dockerd cannot validate a file, or None when it can."""
    version = parse_version(version_text)
    if version is None:
        return f"not validated: the version of dockerd is not known ({version_text.strip()[:80] or 'no output'})"
    if version < VALIDATE_SINCE:
        return f"not validated: dockerd {version[0]}.{version[1]} cannot (since {VALIDATE_SINCE[0]}.{VALIDATE_SINCE[1]} it can)"
    return None
