# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses on which programs listen, as settings have them: an IP address, one of IPv6 in brackets or not, or localhost."""
from __future__ import annotations

import ipaddress


def is_everywhere(address):
    return address in ("0.0.0.0", "::", "[::]")


def is_loopback(address):
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return address == "localhost"


def bracketed(address):
    """Return the address as it stands before a port."""
    return f"[{address}]" if ":" in address and not address.startswith("[") else address
