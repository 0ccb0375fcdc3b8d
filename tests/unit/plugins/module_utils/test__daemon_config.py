# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Daemon settings are merged key by key, and what the change needs is told."""
from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.erni_ki.inference.plugins.module_utils import _daemon_config as dc

KEYS = st.sampled_from(["debug", "features", "log-opts", "labels", "x"])
VALUES = st.recursive(
    st.booleans() | st.integers(0, 2) | st.sampled_from(["", "1", "ü"]) | st.lists(st.integers(0, 1), max_size=2),
    lambda inner: st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
SETTINGS = st.dictionaries(KEYS, VALUES, max_size=4)


@pytest.mark.parametrize("text, settings, indent", [
    ("", {}, "  "),
    (" \n\t", {}, "  "),
    ("{}", {}, "  "),
    ('{"b": 1, "a": true}', {"b": 1, "a": True}, "  "),
    ('{\n    "b": {\n        "c": 1\n    }\n}\n', {"b": {"c": 1}}, "    "),
    ('{\n\t"b": 1\n}', {"b": 1}, "\t"),
])
def test_parse(text, settings, indent):
    assert dc.parse(text, "/f") == (settings, indent)


@pytest.mark.parametrize("text, words", [
    ('{\n  "debug": true,\n}', ["/f is not valid JSON", "line 3, column 1", "(the line reads: })", "Nothing was changed"]),
    ('{"debug" true}', ["line 1, column 10", '{"debug" true}']),
    ("{", ["line 1, column 2"]),
    ('{"a": 1\n', ["line 2, column 1"]),
    ("[]", ["/f holds a JSON array", "an object such as {}"]),
    ('"x"', ["JSON string"]),
    ("3", ["JSON number"]),
    ("true", ["JSON boolean"]),
    ("null", ["JSON null"]),
    ('{"a": NaN}', ["NaN is not JSON"]),
])
def test_parse_refuses_in_words(text, words):
    with pytest.raises(dc.ConfigError) as error:
        dc.parse(text, "/f")
    assert all(word in str(error.value) for word in words), str(error.value)


def test_decode():
    assert dc.decode(b'\xef\xbb\xbf{"a": "\xc3\xbc"}', "/f") == '{"a": "ü"}'
    with pytest.raises(dc.ConfigError, match="byte 2 is 0xff"):
        dc.decode(b'{"\xff"}', "/f")


def test_render_keeps_order_and_letters():
    assert dc.render({"b": "ü", "a": {}}, "\t") == '{\n\t"b": "ü",\n\t"a": {}\n}\n'


@pytest.mark.parametrize("settings, problems", [
    ({"debug": True, "log-opts": {"max-file": "3"}, "features": {}}, []),
    ({"log-opts": {"max-file": 3}}, ['settings.log-opts.max-file is the number 3, and dockerd wants text there: write "3"']),
    ({"log-opts": {"compress": True}}, ['settings.log-opts.compress is the boolean true, and dockerd wants text there: write "true"']),
    ({"proxies": {"no-proxy": None}}, ["settings.proxies.no-proxy is null: give a value, or take the key away with state=absent and its present value"]),
    ({"a": None, "log-opts": {"b": 1}}, None),
])
def test_check_settings(settings, problems):
    found = dc.check_settings(settings)
    assert found == problems if problems is not None else len(found) == 2


@pytest.mark.parametrize("current, settings, state, after, changed_keys", [
    # Unknown keys stay, in their order; new ones come last.
    ({"z": 1, "a": 2}, {"m": 3, "a": 4}, "present", {"z": 1, "a": 4, "m": 3}, ["a", "m"]),
    # Objects at every depth.
    ({"f": {"x": {"p": 1}}}, {"f": {"x": {"q": 2}, "y": True}}, "present", {"f": {"x": {"p": 1, "q": 2}, "y": True}}, ["f.x.q", "f.y"]),
    # Lists as a whole.
    ({"l": [1, 2]}, {"l": [3]}, "present", {"l": [3]}, ["l"]),
    # true is not 1.
    ({"a": 1}, {"a": True}, "present", {"a": True}, ["a"]),
    ({"a": [1]}, {"a": [True]}, "present", {"a": [True]}, ["a"]),
    # The same already, in another order.
    ({"f": {"x": 1, "y": [{"p": 1, "q": 2}]}}, {"f": {"y": [{"q": 2, "p": 1}], "x": 1}}, "present", {"f": {"x": 1, "y": [{"p": 1, "q": 2}]}}, []),
    # One kind becomes another.
    ({"f": {"x": 1}}, {"f": [1]}, "present", {"f": [1]}, ["f"]),
    ({"f": [1]}, {"f": {"x": 1}}, "present", {"f": {"x": 1}}, ["f"]),
    ({}, {"f": {}}, "present", {"f": {}}, ["f"]),
    ({}, {}, "present", {}, []),
    # Taken out only where it is still ours.
    ({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}, "absent", {"b": 2}, ["a"]),
    ({"a": True}, {"a": 1}, "absent", {"a": True}, []),
    ({"f": {"x": 1, "y": 2}}, {"f": {"x": 1, "y": 3}}, "absent", {"f": {"y": 2}}, ["f.x"]),
    # A nest that becomes empty by us goes; one that was empty before stays.
    ({"f": {"x": {"p": 1}}, "g": 1}, {"f": {"x": {"p": 1}}}, "absent", {"g": 1}, ["f.x.p"]),
    ({"f": {}}, {"f": {"x": 1}}, "absent", {"f": {}}, []),
    ({"f": {}}, {"f": {}}, "absent", {}, ["f"]),
    ({"f": {"x": 1}}, {"f": {}}, "absent", {"f": {"x": 1}}, []),
    ({"f": 1}, {"f": {"x": 1}}, "absent", {"f": 1}, []),
])
def test_desired(current, settings, state, after, changed_keys):
    kept = copy.deepcopy((current, settings))
    found = dc.desired(current, settings, state)
    assert json.dumps(found) == json.dumps(after)
    assert dc.compare(current, found)["changed_keys"] == changed_keys
    assert (current, settings) == kept


@given(SETTINGS, SETTINGS)
def test_merging_is_idempotent_and_keeps_the_rest(current, settings):
    once = dc.desired(current, settings, "present")
    assert dc.compare(once, dc.desired(once, settings, "present"))["changed_keys"] == []
    assert [key for key in once if key in current] == list(current)
    for key in set(current) - set(settings):
        assert dc.same(once[key], current[key])
    assert bool(dc.compare(current, once)["changed_keys"]) == (not dc.same(current, once))


@given(SETTINGS, SETTINGS)
def test_taking_out_what_was_put_in(current, settings):
    """Absent after present leaves nothing of ours and everything that has another value."""
    gone = dc.desired(current, settings, "absent")
    assert dc.same(gone, dc.desired(gone, settings, "absent"))
    for key, value in current.items():
        if key not in settings:
            assert dc.same(gone[key], value)
    assert set(gone) <= set(current)


@pytest.mark.parametrize("before, after, restart", [
    # Reloaded by SIGHUP when set …
    ({}, {"live-restore": True, "debug": True, "registry-mirrors": ["http://m"]}, False),
    ({}, {"max-concurrent-downloads": 3}, False),
    ({"runtimes": {"a": {"path": "a"}, "b": {"path": "b"}}}, {"runtimes": {"a": {"path": "a"}}}, False),
    ({}, {"features": {"buildkit": False}}, False),
    # … and only some of them when removed.
    ({"live-restore": True}, {}, True),
    ({"registry-mirrors": ["http://m"]}, {}, True),
    ({"runtimes": {"a": {"path": "a"}}}, {}, True),
    ({"max-concurrent-downloads": 3}, {}, False),
    ({"features": {"buildkit": False}}, {}, False),
    # Read at the start of the daemon only.
    ({}, {"features": {"cdi": True}}, True),
    ({}, {"features": {}}, True),
    ({}, {"log-opts": {"max-size": "10m"}}, True),
    ({}, {"data-root": "/srv"}, True),
    ({}, {"unheard-of": 1}, True),
    # One is enough.
    ({}, {"debug": True, "data-root": "/srv"}, True),
])
def test_what_the_change_needs(before, after, restart):
    result = dc.compare(before, after)
    assert result["restart_required"] is restart
    assert result["reload_required"] is not restart


def test_no_change_needs_nothing():
    assert dc.compare({"a": {"b": 1}}, {"a": {"b": 1}}) == {"changed_keys": [], "restart_required": False, "reload_required": False}


@pytest.mark.parametrize("text, version, can", [
    ("Docker version 26.1.5+dfsg1, build a72d7cd\n", (26, 1), True),
    ("Docker version 23.0.0, build 1", (23, 0), True),
    ("Docker version 20.10.24+dfsg1, build 5d6db84", (20, 10), False),
    ("", None, False),
])
def test_which_dockerd_validates(text, version, can):
    assert dc.parse_version(text) == version
    reason = dc.why_not_validated(text)
    assert (reason is None) is can
    assert can or reason.startswith("not validated: ")
