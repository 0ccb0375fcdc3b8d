#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: diagnosis_info
version_added: 0.1.0
short_description: Finds out what is wrong with an inference host, why, and what to do
description:
  - Makes the proof of M(erni_ki.inference.colocation_info), reads the logs and states of the containers, and looks at what slows a host down. Each
    finding has its evidence, its cause and its cure, the worst first.
  - A cause is told once, and the failed checks that it brings about are folded under it, see RV(findings[].checks).
  - A service that does not start is explained from its own log and from what Docker says of its end, whatever the reason is, from a KV cache that does
    not fit to a port that is taken. An end that is not known still shows the last lines of the log.
  - Changes nothing. No model is loaded and no token is made unless O(generate) is set.
  - A missing plan, an engine that is stopped and a service that hangs are findings too. Every question has its time.
author: The erni_ki.inference team (@erni-ki)
extends_documentation_fragment:
  - erni_ki.inference._attributes
  - erni_ki.inference._attributes.info
  - erni_ki.inference._beside
requirements:
  - The rights of root on the host, to see the processes of others.
  - The Docker SDK for Python (the Python package C(docker)) on the host; that it is missing is a finding.
notes:
  - What M(erni_ki.inference.colocation_info) says of the probe of devices, of NVML and of E(DOCKER_HOST) holds here as well.
  - Page cache is memory that the kernel takes back without harm, so it does not count as in use when a limit is judged.
options:
  plan:
    description:
      - The plan to judge against, as M(erni_ki.inference.colocation_plan) returns it.
      - Without it, the plan in O(plan_path) is read.
    type: dict
  plan_path:
    description: The file on the host that holds the plan that was applied.
    type: path
    default: /etc/erni-ki/plan.json
  vllm_url:
    description: The base URL of vLLM, as seen on the host.
    type: str
    default: http://127.0.0.1:8000
  vllm_bind_address:
    description: The address on which the port must be published, and on no other. Without it, the address in O(vllm_url).
    type: str
  vllm_api_key_file:
    description: The file on the host that holds vLLM's API key, alone or as C(VLLM_API_KEY=...). Only O(generate) needs it.
    type: path
  vllm_model:
    description: The name under which vLLM serves the model that is to generate a token. The first that it lists by default.
    type: str
  ollama_url:
    description: The base URL of Ollama, as seen on the host.
    type: str
    default: http://127.0.0.1:11434
  ollama_bind_address:
    description: The address on which the port must be published, and on no other. Without it, the address in O(ollama_url).
    type: str
  ollama_model:
    description: The model that is to generate a token in Ollama. The first that it lists by default.
    type: str
  certificate_days:
    description: The days before the end of the gateway's certificate from which on it is told of.
    type: int
    default: 30
  generate:
    description: Whether each service has to generate a token. It may have to load a model for it, and that is a change.
    type: bool
    default: false
  interval:
    description: How long, in seconds, threads are looked at to see which of them are busy.
    type: float
    default: 2
  controller_time:
    description: The time on the controller, in seconds since 1970, to compare the host's clock with. Without it nothing is compared.
    type: int
  timeout:
    description: How long, in seconds, each exchange with a service or with the engine may take as a whole.
    type: float
    default: 30
"""

EXAMPLES = r"""
- name: Look for what is wrong
  erni_ki.inference.diagnosis_info:
    controller_time: "{{ now(fmt='%s') | int }}"
  register: diagnosis

- name: Show it
  ansible.builtin.debug:
    msg: "{{ diagnosis.table }}"

- name: End here when something does not work
  ansible.builtin.assert:
    that: diagnosis.counts.critical == 0
    fail_msg: "{{ diagnosis.summary }}"
"""

RETURN = r"""
findings:
  description: What is wrong, the worst first; empty on a host that is well.
  returned: success
  type: list
  elements: dict
  contains:
    code:
      description: The stable name of the finding.
      type: str
      sample: kv_cache_too_large
    severity:
      description: V(critical), something does not work or is open to others. V(warning), it works worse than planned. V(info), it may pass by itself.
      type: str
      sample: critical
    service:
      description: V(vllm), V(ollama), what stands beside them as O(beside) names it, or V(system) for the host around them.
      type: str
      sample: vllm
    evidence:
      description: What was seen, and where.
      type: str
      sample: "docker logs vllm: ValueError: Available memory on node 0 (3.9/6.0 GiB) on kv cache allocation is less than requested memory for kv (8.0 GiB)."
    cause:
      description: Why that is so, and what it does.
      type: str
      sample: "The KV cache does not fit: runtime (about 1.8 GiB), weights and KV cache together exceed the memory limit."
    cure:
      description: What to do about it.
      type: str
      sample: Set plan_vllm_weights_mib, so that the plan can lower the KV cache, or raise plan_vllm_memory_limit_mib; then run the playbook site.
    checks:
      description: The failed checks of the proof that it explains, each as service and name.
      type: list
      elements: str
      sample: ["vllm: container_running", "vllm: api_health"]
counts:
  description: How many findings there are of each severity.
  returned: success
  type: dict
  sample:
    critical: 1
    warning: 0
    info: 0
worst:
  description: The worst severity that was found; empty without a finding.
  returned: success
  type: str
  sample: critical
summary:
  description: The result in one line.
  returned: success
  type: str
  sample: "1 finding: 1 critical"
table:
  description: The findings as lines of text for a person.
  returned: success
  type: list
  elements: str
checks_evaluated:
  description: How many checks of the proof were made; none without a plan.
  returned: success
  type: int
  sample: 42
failed_checks:
  description: The checks that failed, each as service and name. Each is explained by a finding.
  returned: success
  type: list
  elements: str
  sample: ["vllm: container_running", "vllm: api_health"]
logs:
  description: The last lines of the logs of the services that do not run, start or answer.
  returned: success
  type: dict
  sample:
    vllm: ["RuntimeError: Engine core initialization failed."]
"""

import json
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.erni_ki.inference.plugins.module_utils import _check_api, _check_beside, _diagnosis, _docker, _finding, _proof


def read_plan(params):
    """Return (plan or None, the finding that says why there is none, when it was written)."""
    path, plan, written = params["plan_path"], params["plan"], None
    try:
        if plan is None:
            with open(path, encoding="utf-8") as handle:
                plan = json.load(handle)
            written = os.stat(path).st_mtime
        else:
            path = "the option plan"
        return _proof.load_plan(plan), None, written
    except (OSError, ValueError, _proof.PlanError) as error:
        return None, _diagnosis.plan_finding(path, error), None


def masked(value, key):
    """Return a value in which an API key is not to be read."""
    if isinstance(value, str):
        return value.replace(key, "********")
    if isinstance(value, list):
        return [masked(one, key) for one in value]
    if isinstance(value, dict):
        return {name: masked(one, key) for name, one in value.items()}
    return value


def keys(params):
    """Return the API key where there is one, so that a log that shows it is not handed on."""
    try:
        return [_check_api.read_key(params["vllm_api_key_file"])] if params["vllm_api_key_file"] else []
    except _check_api.NotProven:
        return []


def main():
    module = AnsibleModule(
        argument_spec={
            "plan": {"type": "dict"},
            "plan_path": {"type": "path", "default": "/etc/erni-ki/plan.json"},
            "vllm_url": {"type": "str", "default": "http://127.0.0.1:8000"},
            "vllm_bind_address": {"type": "str"},
            "vllm_api_key_file": {"type": "path", "no_log": False},
            "vllm_model": {"type": "str"},
            "ollama_url": {"type": "str", "default": "http://127.0.0.1:11434"},
            "ollama_bind_address": {"type": "str"},
            "ollama_model": {"type": "str"},
            "beside": {"type": "list", "elements": "dict", "default": [], "options": _check_beside.options()},
            "certificate_days": {"type": "int", "default": 30},
            "generate": {"type": "bool", "default": False},
            "interval": {"type": "float", "default": 2},
            "controller_time": {"type": "int"},
            "timeout": {"type": "float", "default": 30},
        },
        supports_check_mode=True,
    )
    params = module.params
    for name, usual in (("timeout", 30), ("interval", 2)):
        if params[name] <= 0:
            module.fail_json(msg=f"{name} is {params[name]:g} s; it must be above 0, such as {usual}.")
    try:
        apis, beside = _check_api.apis(params, _proof.SERVICES), _check_beside.wanted(params)
    except ValueError as error:
        module.fail_json(msg=f"{error}.")
    plan, problem, written = read_plan(params)
    services = _proof.planned_services(plan) if plan else list(_proof.SERVICES)
    host = _diagnosis.Host(_docker.Engine(params["timeout"]), interval=params["interval"], clock=params["controller_time"], written=written,
                           generate=params["generate"], beside=beside, certificate_days=params["certificate_days"])
    diagnosis = _diagnosis.diagnose(plan, services, apis, host, problem)
    result = {
        "findings": diagnosis.findings,
        "logs": diagnosis.logs,
        "checks_evaluated": diagnosis.evaluated,
        "failed_checks": [_finding.label(check) for check in diagnosis.failed],
        **_finding.verdict(diagnosis.findings, diagnosis.evaluated),
    }
    for key in keys(params):
        result = masked(result, key)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
