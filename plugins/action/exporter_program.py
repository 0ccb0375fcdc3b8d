# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible_collections.erni_ki.inference.plugins.plugin_utils._bindings import LendingAction


class ActionModule(LendingAction):
    """The module of the same name, with the controller's NVML bindings beside it, from where it takes them along."""
