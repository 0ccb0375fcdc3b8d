# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: package_failure
author: The erni_ki.inference team (@erni-ki)
version_added: 0.1.0
short_description: What a failed installation from a repository means
description:
  - Tells a bad signature from an unknown version and from a repository that cannot be reached, in what apt, dnf or the download of a key said,
    and says what to do.
options:
  _input:
    description: What was said.
    type: str
    required: true
  package:
    description: The package that was to be installed.
    type: str
    default: ""
  version:
    description: The version that was to be installed.
    type: str
    default: ""
  repository:
    description: The repository's address.
    type: str
    default: ""
  key:
    description: Where the repository's key came from.
    type: str
    default: ""
  listing:
    description: The versions there are, as C(apt-cache madison) or C(dnf list --showduplicates) prints them.
    type: str
    default: ""
  count:
    description: How many of them are named, at most.
    type: int
    default: 5
"""

EXAMPLES = r"""
- name: Say what kept the packages from being installed
  ansible.builtin.fail:
    msg: "{{ ansible_failed_result.msg | erni_ki.inference.package_failure(package='nvidia-container-toolkit', version='9.9.9-1') }}"
"""

RETURN = r"""
_value:
  description: What it means and what to do.
  type: str
  sample: "The repository file:/srv/mirror has no nvidia-container-toolkit 9.9.9-1; there are 1.19.1-1, 1.17.9-1."
"""

from ansible_collections.erni_ki.inference.plugins.module_utils import _package_failure


class FilterModule:
    """The filter of that name."""

    def filters(self):
        return {"package_failure": _package_failure.explain}
