#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: exporter_program
short_description: Puts the exporter's program on a host
version_added: 0.1.0
author: The erni_ki.inference team (@erni-ki)
description:
  - Writes the exporter, which is made of the collection's own readers of the kernel and the services, into a folder from which the host's Python runs it.
    The files come with the module; nothing is downloaded.
  - What else lies in the folder is removed.
extends_documentation_fragment:
  - erni_ki.inference._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: Shows which files there are, and not what is in them.
options:
  path:
    description: The folder.
    type: path
    default: /usr/local/lib/erni-ki-exporter
  state:
    description: V(absent) removes the folder.
    type: str
    choices: [present, absent]
    default: present
  gpu:
    description:
      - Also puts nvidia-ml-py there, one file of plain Python; the controller's own, or that of the host where the controller has none.
    type: bool
    default: false
seealso:
  - ref: erni_ki.inference.exporter role <ansible_collections.erni_ki.inference.exporter_role>
    description: Runs it as a service.
"""

EXAMPLES = r"""
- name: Put the exporter on the host
  erni_ki.inference.exporter_program:
    gpu: true

- name: Remove it
  erni_ki.inference.exporter_program:
    state: absent
"""

RETURN = r"""
path:
  description: The folder.
  returned: success
  type: str
  sample: /usr/local/lib/erni-ki-exporter
launcher:
  description: The file to run.
  returned: success
  type: str
  sample: /usr/local/lib/erni-ki-exporter/erni_ki_exporter.py
written:
  description: The files that were not as they should be, below the folder.
  returned: success
  type: list
  elements: str
  sample: [erni_ki_exporter.py]
removed:
  description: The files that were there and are none of the program's.
  returned: success
  type: list
  elements: str
  sample: []
"""

import os
import shutil
import tempfile

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.erni_ki.inference.plugins.module_utils import _exporter, _exporter_program


def present_files(path):
    """Return {path below the folder: text} of what is there; what is no text is empty."""
    found = {}
    for folder, _folders, names in os.walk(path):
        for name in names:
            place = os.path.join(folder, name)
            try:
                with open(place, encoding="utf-8") as stream:
                    found[os.path.relpath(place, path)] = stream.read()
            except (OSError, UnicodeDecodeError):
                found[os.path.relpath(place, path)] = ""
    return found


def write(module, path, name, text):
    """Write one file whole or not at all, readable to all."""
    place = os.path.join(path, name)
    os.makedirs(os.path.dirname(place), mode=0o755, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=module.tmpdir)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.chmod(temporary, 0o644)
    module.atomic_move(temporary, place)


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/usr/local/lib/erni-ki-exporter"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "gpu": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    path, state = module.params["path"], module.params["state"]
    have, want = present_files(path), {}
    if state == "present":
        try:
            want = _exporter_program.files(_exporter.__name__)
        except _exporter_program.ProgramError as error:
            module.fail_json(msg=f"{error}.")
        bindings = _exporter_program.bindings() if module.params["gpu"] else None
        if bindings:
            want["pynvml.py"] = bindings
        elif module.params["gpu"] and "pynvml.py" in have:
            # What an earlier controller brought is better than nothing.
            want["pynvml.py"] = have["pynvml.py"]
    written = sorted(name for name, text in want.items() if have.get(name) != text)
    removed = sorted(name for name in have if name not in want)
    gone = state == "absent" and os.path.isdir(path)
    if not module.check_mode:
        os.umask(0o022)
        try:
            if gone:
                shutil.rmtree(path)
            for name in [] if gone else removed:
                os.unlink(os.path.join(path, name))
            for name in written:
                write(module, path, name, want[name])
        except OSError as error:
            module.fail_json(msg=f"{path}: {error.strerror or error}. The program there may not be whole; run the playbook again.")
    module.exit_json(
        changed=bool(written or removed or gone), path=path, launcher=os.path.join(path, _exporter_program.LAUNCHER), written=written, removed=removed,
        diff={"before": "".join(f"{name}\n" for name in sorted(have)), "after": "".join(f"{name}\n" for name in sorted(want))})


if __name__ == "__main__":
    main()
