#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: usage_info
short_description: Sums up what the services of a host have used
version_added: 0.1.0
author: The erni_ki.inference team (@erni-ki)
description:
  - Reads the usage log that the exporter writes on the host, with the files that were rotated, and adds up a period, for each service.
  - A line that was cut off, as by a power failure, is counted in RV(unreadable) and left out.
extends_documentation_fragment:
  - erni_ki.inference._attributes
  - erni_ki.inference._attributes.info
options:
  path:
    description: The file that is written; those that were rotated have C(.1) and so on behind its name.
    type: path
    default: /var/log/erni-ki/usage.jsonl
  since:
    description: The begin of the period, as C(2026-11-28), C(2026-11-28T18:00:00Z), or how long ago, as C(24h) or C(7d). Times without a zone are UTC.
    type: str
    default: 24h
  until:
    description: The end of the period, in the same forms. Without it, now.
    type: str
  group:
    description: Whether there is a row for each hour or day (in UTC), or one for the whole period.
    type: str
    choices: [total, day, hour]
    default: total
  host:
    description: The name of the host in the rows.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Sum up the last week by day
  erni_ki.inference.usage_info:
    since: 7d
    group: day
  register: usage

- name: Show it
  ansible.builtin.debug:
    msg: "{{ usage.table }}"
"""

RETURN = r"""
rows:
  description: What each service has used, by hour or day where that was asked for. Null is what no line of the period tells.
  returned: success
  type: list
  elements: dict
  contains:
    host:
      description: The name of the host, as it was given.
      type: str
      sample: workstation
    service:
      description: The service.
      type: str
      sample: vllm
    from:
      description: The begin of the row's time.
      type: str
      sample: "2026-11-28T00:00:00Z"
    to:
      description: The end of the row's time.
      type: str
      sample: "2026-11-29T00:00:00Z"
    seconds:
      description: The seconds of it that the log covers.
      type: float
      sample: 86400.0
    cpu_seconds:
      description: The CPU time; null where no line tells it.
      type: float
      sample: 51234.5
    cpus_mean:
      description: How many CPUs that is at a time, in the mean; null where no line tells it.
      type: float
      sample: 0.593
    memory_mean_bytes:
      description: The mean of the working set; null where no line tells it.
      type: int
      sample: 3221225472
    memory_max_bytes:
      description: The largest working set of any line; null where none tells it.
      type: int
      sample: 4294967296
    vram_mean_bytes:
      description: The mean of the video memory that loaded models take; null where no line tells it.
      type: int
      sample: 2147483648
    vram_max_bytes:
      description: The largest such; null where no line tells it.
      type: int
      sample: 4294967296
    tokens_in:
      description: Tokens of prompts; null where no line tells them.
      type: int
      sample: 120000
    tokens_out:
      description: Tokens that were generated; null where no line tells them.
      type: int
      sample: 34000
    requests:
      description: Requests that were answered; null where no line tells them.
      type: int
      sample: 1500
    probes:
      description: Requests of the exporter itself, one token each, which the tokens and requests of vLLM include; null where no line tells them.
      type: int
      sample: 1400
    cpu_seconds_by_cpu:
      description: The CPU time by logical CPU.
      type: dict
      sample: {"0": 7000.5, "8": 12.25}
table:
  description: The rows as lines for a person.
  returned: success
  type: list
  elements: str
lines:
  description: How many lines of the log lie in the period.
  returned: success
  type: int
  sample: 1440
unreadable:
  description: How many lines of the log could not be read.
  returned: success
  type: int
  sample: 0
"""

import os
import time

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.erni_ki.inference.plugins.module_utils import _usage


def records(module, path):
    """Return the record of every line there is, None for one that cannot be read."""
    # However many files an earlier setting kept.
    log = _usage.Log(path, 0, 1 + max([int(name.rpartition(".")[2]) for name in _rotated(path)], default=0))
    found = []
    try:
        for name in log.names():
            found += _usage.read(name)
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}. The log is written by the role exporter; run with become: true.")
    return found


def _rotated(path):
    folder, name = os.path.split(path)
    try:
        return [one for one in os.listdir(folder) if one.startswith(f"{name}.") and one[len(name) + 1:].isdigit()]
    except OSError:
        return []


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/var/log/erni-ki/usage.jsonl"},
            "since": {"type": "str", "default": "24h"},
            "until": {"type": "str"},
            "group": {"type": "str", "choices": ["total", "day", "hour"], "default": "total"},
            "host": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    params, now = module.params, time.time()
    try:
        begin = _usage.instant(params["since"], now)
        end = _usage.instant(params["until"], now) if params["until"] else now
    except _usage.UsageError as error:
        module.fail_json(msg=f"{error}.")
    if begin >= end:
        module.fail_json(msg=f"The period from {_usage.stamp(begin)} to {_usage.stamp(end)} ends before it begins.")
    found = records(module, params["path"])
    if not found:
        module.fail_json(
            msg=f"There is no usage log in {params['path']}: the role exporter writes it (exporter_usage_log), a minute after its start for the first time.")
    rows = _usage.total(params["host"], found, begin, end, None if params["group"] == "total" else params["group"])
    module.exit_json(
        changed=False, rows=rows, table=_usage.table(rows), lines=sum(1 for one in found if one and begin < one["end"] <= end),
        unreadable=sum(1 for one in found if one is None))


if __name__ == "__main__":
    main()
