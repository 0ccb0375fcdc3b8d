#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_drain
version_added: 0.1.0
short_description: Takes a host's engines out of a gateway while the host is changed
description:
  - Runs on the gateway's host. Requests that another engine can answer go there from now on, and those at work are waited for.
  - An engine is drained unless it is the last one. A request that no other engine could answer still reaches it, since there is nothing better to do with it;
    and one that no other could stand in for, whatever it is asked for, is not drained at all.
  - An engine that somebody has drained by hand, or with C(gateway_drained), stays drained.
author: The erni_ki.inference team (@erni-ki)
extends_documentation_fragment:
  - erni_ki.inference._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
options:
  host:
    description: The name in the inventory of the host whose engines are meant.
    type: str
    required: true
  state:
    description:
      - V(drained) takes them out, and V(served) puts them back.
      - What one run takes out and puts back is no change. So V(drained) never changes anything, and V(served) only with engines outside of O(drained_here).
    type: str
    choices: [drained, served]
    default: drained
  drained_here:
    description: The engines that this run has drained, RV(drained) without RV(left_drained). Read with O(state=served).
    type: list
    elements: str
    default: []
  port:
    description: The gateway's port for administration.
    type: int
    default: 9836
  timeout:
    description: The seconds that requests at work are waited for. Read with O(state=drained).
    type: int
    default: 900
"""

EXAMPLES = r"""
- name: Drain node1 at the gateway
  erni_ki.inference.gateway_drain:
    host: node1
  delegate_to: gate

- name: Put it back
  erni_ki.inference.gateway_drain:
    host: node1
    state: served
  delegate_to: gate
"""

RETURN = r"""
drained:
  description: The engines that are out for a change now.
  returned: with O(state=drained)
  type: list
  elements: str
  sample: [node1-ollama, node1-vllm]
left_drained:
  description: Those of them that an earlier run has left drained.
  returned: with O(state=drained)
  type: list
  elements: str
  sample: []
by_hand:
  description: The commands that put them back on the gateway's host.
  returned: with O(state=drained)
  type: list
  elements: str
  sample: ["curl -X POST http://127.0.0.1:9836/undrain/node1-vllm"]
busy:
  description: Those that others could stand in for and that still had requests at work when the time was over, with their number.
  returned: with O(state=drained)
  type: dict
  sample: {node1-vllm: 2}
notes:
  description: What a person should know, a sentence each.
  returned: with O(state=drained)
  type: list
  elements: str
put_back:
  description: The engines that get requests again.
  returned: with O(state=served)
  type: list
  elements: str
  sample: [node1-ollama, node1-vllm]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.erni_ki.inference.plugins.module_utils import _gateway_drain, _http


def main():
    module = AnsibleModule(
        argument_spec={
            "host": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["drained", "served"], "default": "drained"},
            "drained_here": {"type": "list", "elements": "str", "default": []},
            "port": {"type": "int", "default": 9836},
            "timeout": {"type": "int", "default": 900},
        },
        supports_check_mode=True,
    )
    given, change = module.params, not module.check_mode
    if given["timeout"] < 0:
        module.fail_json(msg=f"timeout is {given['timeout']} s; it must be 0 or more, such as 900.")
    gateway = _gateway_drain.Gateway(given["port"])
    try:
        if given["state"] == "drained":
            module.exit_json(changed=False, **_gateway_drain.drain(gateway, given["host"], given["timeout"], change))
        names = _gateway_drain.put_back(gateway, given["host"], change)
    except _http.HttpError as error:
        module.fail_json(msg=f"The gateway on this host could not be asked: {error}.")
    module.exit_json(changed=bool(set(names) - set(given["drained_here"])), put_back=names)


if __name__ == "__main__":
    main()
