# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the tests hand a module its arguments; each that runs one to its end also compares what it returned with RETURN."""
from __future__ import annotations

import json
import sys
from unittest import mock

import pytest
from ansible.module_utils import basic

from ansible_collections.erni_ki.inference.tests.unit.docs.returns import differences


def documentation():
    """Return RETURN of the module that is at work."""
    frame = sys._getframe(1)
    while frame and not ("RETURN" in frame.f_globals and "DOCUMENTATION" in frame.f_globals):
        frame = frame.f_back
    return frame.f_globals["RETURN"] if frame else None


@pytest.fixture(name="module_arguments")
def module_arguments_fixture():
    """Return a function of arguments; it makes a context in which a module finds them."""
    try:
        from ansible.module_utils.testing import patch_module_args
    except ImportError:
        # ansible-core before 2.19
        return lambda arguments: mock.patch.object(basic, "_ANSIBLE_ARGS", json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode())
    return patch_module_args


@pytest.fixture(autouse=True)
def returns_as_documented(monkeypatch):
    found = []

    def compared(original, failed):
        def end(self, *args, **result):
            documented = documentation()
            if documented is not None:
                found.extend(differences(documented, result, failed))
            original(self, *args, **result)
        return end

    monkeypatch.setattr(basic.AnsibleModule, "exit_json", compared(basic.AnsibleModule.exit_json, False))
    monkeypatch.setattr(basic.AnsibleModule, "fail_json", compared(basic.AnsibleModule.fail_json, True))
    yield
    assert not found, "RETURN does not say what the module returned:\n  " + "\n  ".join(dict.fromkeys(found))
