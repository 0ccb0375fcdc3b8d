# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils import _address


@pytest.mark.parametrize("address, everywhere, loopback, before_a_port", [
    ("127.0.0.1", False, True, "127.0.0.1"), ("127.9.9.9", False, True, "127.9.9.9"), ("localhost", False, True, "localhost"),
    ("::1", False, True, "[::1]"), ("[::1]", False, True, "[::1]"), ("0.0.0.0", True, False, "0.0.0.0"), ("::", True, False, "[::]"),
    ("[::]", True, False, "[::]"), ("192.0.2.1", False, False, "192.0.2.1"), ("2001:db8::1", False, False, "[2001:db8::1]"),
    ("host.example", False, False, "host.example"), ("127.example", False, False, "127.example")])
def test_addresses(address, everywhere, loopback, before_a_port):
    assert (_address.is_everywhere(address), _address.is_loopback(address), _address.bracketed(address)) == (everywhere, loopback, before_a_port)
