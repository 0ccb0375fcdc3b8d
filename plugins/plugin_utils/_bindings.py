# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lends a module the controller's NVML bindings for as long as it runs.

A host is read before anything on it is changed, so its GPU must be readable where nvidia-ml-py is not installed, and where no package of it
can be had. The bindings are one file of plain Python: it goes into the task's own temporary folder, which Ansible removes with the task.
"""
from __future__ import annotations

import importlib.util
import io
import zipfile

from ansible.plugins.action import ActionBase

NAME = "pynvml"


def bindings():
    """Return the controller's bindings as an archive that Python imports from, None where it has none."""
    try:
        spec = importlib.util.find_spec(NAME)
    except (ImportError, ValueError):
        return None
    # A package of several files, as the abandoned fork of that name is, cannot be lent like this.
    if not spec or not (spec.origin or "").endswith(f"/{NAME}.py"):
        return None
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as writer:
        writer.write(spec.origin, f"{NAME}.py")
    return archive.getvalue()


class LendingAction(ActionBase):
    """Runs the module of the same name, with the bindings where its Python finds them first."""

    _supports_check_mode = True

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        archive = bindings()
        if archive:
            shell = self._connection._shell
            if not shell.tmpdir:
                self._make_tmp_path()
            # An archive and not the file itself: a module does not look into the folder in which it lies.
            place = shell.join_path(shell.tmpdir, "bindings.zip")
            self._transfer_data(place, archive)
            self._fixup_perms2((shell.tmpdir, place))
            self._task.environment = [*(self._task.environment or []), {"PYTHONPATH": place}]
        result.update(self._execute_module(task_vars=task_vars))
        return result
