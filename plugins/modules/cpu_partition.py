#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: cpu_partition
short_description: Hold services and the rest of the system to their CPUs with systemd slices
version_added: 0.1.0
author: The erni_ki.inference team (@erni-ki)
description:
  - Writes the systemd unit files that the plan's partition asks for, removes those of an earlier plan, and lets systemd apply them.
  - A slice for each engine (C(AllowedCPUs=), C(AllowedMemoryNodes=), C(MemoryLow=)), and one around them;
    with a fence, drop-ins for the system's own slices and scopes too.
  - The files are in C(/etc/systemd/system), so that the partition survives a reboot and a C(daemon-reload).
requirements:
  - systemd 244 or later on cgroup v2, on the managed host.
extends_documentation_fragment: [erni_ki.inference._attributes]
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  platform:
    platforms: linux
options:
  partition:
    description:
      - The key C(partition) of the plan that M(erni_ki.inference.colocation_plan) made.
      - Needed with O(state=present).
    type: dict
  state:
    description: V(absent) removes every unit file of this collection, and gives the system its CPUs back.
    type: str
    choices: [present, absent]
    default: present
"""

EXAMPLES = r"""
- name: Hold everybody to the plan
  erni_ki.inference.cpu_partition:
    partition: "{{ plan_decided['partition'] }}"

- name: Give the system all its CPUs back
  erni_ki.inference.cpu_partition:
    state: absent
"""

RETURN = r"""
written:
  description: The unit files that were written (in check mode, would be).
  returned: always
  type: list
  elements: str
  sample: [/etc/systemd/system/erniki-vllm.slice]
removed:
  description: The unit files that were removed.
  returned: always
  type: list
  elements: str
drifted:
  description: Units to which the kernel did not grant what their files say, before this run put it right.
  returned: always
  type: list
  elements: str
effective:
  description: What the kernel grants each unit, in its list format; null for a slice without a running service.
  returned: always
  type: dict
  sample: {erniki-vllm.slice: 0-6,8-14, system.slice: "7,15"}
unfenced:
  description: Top-level slices and scopes of others, with processes, that the fence does not hold.
  returned: always
  type: list
  elements: str
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.erni_ki.inference.plugins.module_utils import _partition


def systemctl(module, *words):
    """Run systemctl; its failure ends the module with what it said."""
    command = ["systemctl", *words]
    rc, out, err = module.run_command(command)
    if rc:
        module.fail_json(msg=f"`{' '.join(command)}` ended with {rc}: {(err or out).strip()}", rc=rc, stdout=out, stderr=err)


def apply(module, have, want, write, remove, drifted):
    """Make the files as wanted and let the kernel act on them at once."""
    for path in write:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        temporary = path + ".erni-ki-new"
        with open(temporary, "w", encoding="utf-8") as stream:
            stream.write(want[path])
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    # A daemon-reload reads the files and leaves the cgroup of a running slice as it was; set-property changes it. What it
    # notes below /run is taken away again: the files are the one place that says it.
    for path in sorted(set(write + remove + drifted)):
        unit = _partition.unit_of(path)
        if os.path.isdir(_partition.cgroup_of(unit)):
            words = _partition.assignments(have.get(path, ""), want.get(path, ""))
            systemctl(module, "set-property", "--runtime", unit, *words)
            _partition.forget_runtime(unit, words)
    # Last, so that a run that was interrupted leaves the next one something to see.
    for path in remove:
        os.unlink(path)
        if os.path.basename(path) == _partition.DROP_IN and not os.listdir(os.path.dirname(path)):
            os.rmdir(os.path.dirname(path))
    systemctl(module, "daemon-reload")


def main():
    module = AnsibleModule(
        argument_spec={"partition": {"type": "dict"}, "state": {"type": "str", "choices": ["present", "absent"], "default": "present"}},
        required_if=[("state", "present", ["partition"])],
        supports_check_mode=True,
    )
    partition = module.params["partition"] if module.params["state"] == "present" else {}
    try:
        want = _partition.desired(partition)
    except (KeyError, TypeError, AttributeError) as problem:
        module.fail_json(msg=f"partition is not what a plan holds under that name: {problem!r}. Pass plan_decided['partition'].")
    have = _partition.current()
    write, remove = _partition.compare(have, want)
    drifted = _partition.drifted(want)
    changed = bool(write or remove or drifted)
    if changed and not module.check_mode:
        apply(module, have, want, write, remove, drifted)
    units = sorted({_partition.unit_of(path) for path in want})
    module.exit_json(
        changed=changed,
        written=write,
        removed=remove,
        drifted=sorted({_partition.unit_of(path) for path in drifted}),
        effective={unit: _partition.effective_cpus(unit) for unit in units},
        unfenced=_partition.unfenced(partition),
        diff={"before": _partition.as_text(have), "after": _partition.as_text(want)},
    )


if __name__ == "__main__":
    main()
