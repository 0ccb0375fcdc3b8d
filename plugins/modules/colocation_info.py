#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: colocation_info
version_added: 0.1.0
short_description: Proves that the inference services run as planned
description:
  - Judges a host against the plan that was applied to it, by what the kernel and the services' own APIs show, never by the files that asked for it.
  - Reads every thread of every process in the containers' control groups, the effective CPUs, memory nodes and limits, the devices and the permission
    for them, and lets each service generate a token.
  - Where the plan gives Ollama a GPU, also proves that the container has it and no other, that driver and CDI specification go with it, that the loaded
    model is on it and not, without a word, on CPUs, and that no process of vLLM is on any GPU. Without a GPU in the plan, that neither service has one.
  - What stands beside the engines, see O(beside), is judged as they are. Of the gateway it is also proven that each alias has an engine, that what is for
    the host alone is not to be had at the address for clients, and that nobody gets an answer there without a key where keys are set.
  - Works with control groups of version 1 and 2, and with the C(systemd) and the C(cgroupfs) driver of the engine.
  - A service that is down, hangs or is not there is a failed check. So is every check whose evidence cannot be read; RV(checks) says why.
author: The erni_ki.inference team (@erni-ki)
extends_documentation_fragment:
  - erni_ki.inference._attributes
  - erni_ki.inference._attributes.info
  - erni_ki.inference._beside
requirements:
  - The Docker SDK for Python (the Python package C(docker)) on the host.
  - The rights of root on the host, to see the processes of others.
  - nvidia-ml-py on the host where the plan has a GPU, to ask its driver who is on it. Without it the checks that need its answer fail, and say so.
notes:
  - With control groups of version 2 the permission for a device stands in no file. To find it out, a short-lived child of the module joins the group of
    the container and tries to open a nameless device node of NVIDIA's number; the kernel refuses that before any driver is asked. The node is made where
    only root can enter, and is gone before it is used. The child ends at once, and would be the first to die were the container out of memory.
  - With a GPU, NVML is asked as M(erni_ki.inference.gpu_info) does, in a child of the module that ends within two minutes. No library from inside of a
    container is ever loaded, and no program in it is started.
  - A model that Ollama unloads right after its use is loaded once more, for two minutes, to be looked at.
  - The engine is the one that E(DOCKER_HOST) in the environment of the task names; the default socket without.
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
  services:
    description: The services to check. All of the plan by default.
    type: list
    elements: str
    choices: [vllm, ollama]
  vllm_url:
    description: The base URL of vLLM, as seen on the host.
    type: str
    default: http://127.0.0.1:8000
  vllm_bind_address:
    description:
      - The address on which the port must be published, and on no other. V(0.0.0.0) stands for all.
      - Without it, the address in O(vllm_url).
    type: str
  vllm_api_key_file:
    description: The file on the host that holds vLLM's API key, alone or as C(VLLM_API_KEY=...). Without it no key is sent.
    type: path
  vllm_model:
    description: The name under which vLLM serves the model that is to generate a token. The first that it lists by default.
    type: str
  ollama_url:
    description: The base URL of Ollama, as seen on the host.
    type: str
    default: http://127.0.0.1:11434
  ollama_bind_address:
    description:
      - The address on which the port must be published, and on no other. V(0.0.0.0) stands for all.
      - Without it, the address in O(ollama_url).
    type: str
  ollama_model:
    description: The model that is to generate a token in Ollama. The first that it lists by default.
    type: str
  generate:
    description:
      - Whether each service has to generate a token. It may have to load a model for it.
      - Without it, what can be seen of a GPU only while a model is loaded is not checked.
    type: bool
    default: true
  timeout:
    description: How long, in seconds, each exchange with a service or with the engine may take as a whole.
    type: float
    default: 120
"""

EXAMPLES = r"""
- name: Judge the host against its plan
  erni_ki.inference.colocation_info:
    vllm_api_key_file: /etc/erni-ki/vllm-api-key
  register: colocation

- name: Show the proof
  ansible.builtin.debug:
    msg: "{{ colocation.table }}"

- name: End here unless everything is as planned
  ansible.builtin.assert:
    that: colocation.ok
    fail_msg: "{{ colocation.summary }}"
"""

RETURN = r"""
ok:
  description: Whether every check passed.
  returned: success
  type: bool
checks:
  description: All checks, for one service after the other, then for what stands beside them, and for the host around them.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description:
        - The stable name of the check.
        - With a GPU in the plan these are there for Ollama in the place of C(no_gpu_nodes) and C(no_gpu_permission).
          V(gpu_uuid), the plan's GPU is there, and it alone is handed over. V(gpu_driver), kernel module and library are of one version that the plan allows.
          V(cdi_fresh), the CDI specification has the GPU, for the driver that runs. V(gpu_nodes), the container has the card's device nodes, and the
          permission for them.
        - And while a model is loaded, V(gpu_loaded), Ollama has all of it on the GPU, or a part where the plan allows that. V(gpu_libraries), a process of
          the container has the driver's library loaded, in the right version. V(gpu_processes), the driver lists the container on this GPU and on no other.
          V(runner_threads), the process of the model was told no more threads than planned.
        - V(no_gpu_processes) is vLLM's then. The driver lists none of its processes on any GPU.
        - Units beside the engines have V(unit_running), V(threads_in_cpuset), V(memory_limit), V(listens_only_on) and V(api_health). The gateway also has
          V(aliases_served), each alias has an engine. V(host_only), metrics and the switch that drains engines are not at the address for clients.
          V(keys_asked), nobody gets an answer there without a key. V(certificate_valid), its certificate is valid now.
      type: str
      sample: threads_in_cpuset
    service:
      description: V(vllm), V(ollama), what stands beside them as O(beside) names it, or V(system) for the host around them.
      type: str
      sample: vllm
    ok:
      description: Whether the evidence is what the plan expects.
      type: bool
    expected:
      description: What the plan expects.
      type: str
      sample: every thread of every process within 0-6,8-14
    found:
      description: What was found, or why nothing could be found.
      type: str
      sample: all 63 threads of 4 processes
    evidence:
      description: The file, API or probe that showed it.
      type: str
      sample: "/proc/PID/task/*/status: Cpus_allowed_list"
    hint:
      description: What to do about it; empty when there is nothing to do.
      type: str
      sample: Recreate the container with its cpuset.
failed_checks:
  description: The checks that failed, each as service and name.
  returned: success
  type: list
  elements: str
  sample: ["vllm: memory_limit"]
summary:
  description: The verdict in one line.
  returned: success
  type: str
  sample: "ok: 42 checks passed"
table:
  description: The checks as lines of text for a person; what failed is told in full.
  returned: success
  type: list
  elements: str
plan_table:
  description: The plan that was judged against, as lines of text for a person; empty for a plan that lacks what they show.
  returned: success
  type: list
  elements: str
images:
  description: The image each container runs, with the title that the image gives itself in brackets; empty where there is no container.
  returned: success
  type: dict
  sample:
    vllm: vllm/vllm-openai-cpu:v0.32.0-x86_64
    ollama: ollama/ollama:0.32.15
urls:
  description: The base URL of each service that was checked.
  returned: success
  type: dict
  sample:
    vllm: http://127.0.0.1:8000
    ollama: http://127.0.0.1:11434
"""

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.erni_ki.inference.plugins.module_utils import _check_api, _check_beside, _docker, _plan_input, _plan_table, _proof


def asked_about(module, services):
    """Return how each engine is asked, and what is wanted of what stands beside them."""
    try:
        return _check_api.apis(module.params, services), _check_beside.wanted(module.params)
    except ValueError as error:
        module.fail_json(msg=f"{error}.")


def inspector(timeout, seen):
    """Return the function that asks the engine for a container and notes it in C(seen); an engine that is down is an answer."""
    client = []

    def inspect(name):
        try:
            if not client:
                client.append(_docker.connect(timeout))
            seen[name] = _docker.inspect(client[0], name)
            return seen[name], None
        except _docker.EngineError as error:
            return None, str(error)

    return inspect


def plan_table(plan):
    """Return the plan's own table; a plan made by hand may be judged and lack what the table shows."""
    try:
        return _plan_table.table(plan, [])
    except (KeyError, TypeError):
        return []


def image(attributes):
    """Return what a container runs, by its tag and by the title the image gives itself."""
    config = (attributes or {}).get("Config") or {}
    title = (config.get("Labels") or {}).get("org.opencontainers.image.title")
    return f"{config.get('Image') or ''} ({title})" if title else config.get("Image") or ""


def main():
    module = AnsibleModule(
        argument_spec={
            "plan": {"type": "dict"},
            "plan_path": {"type": "path", "default": "/etc/erni-ki/plan.json"},
            "services": {"type": "list", "elements": "str", "choices": ["vllm", "ollama"]},
            "vllm_url": {"type": "str", "default": "http://127.0.0.1:8000"},
            "vllm_bind_address": {"type": "str"},
            "vllm_api_key_file": {"type": "path", "no_log": False},
            "vllm_model": {"type": "str"},
            "ollama_url": {"type": "str", "default": "http://127.0.0.1:11434"},
            "ollama_bind_address": {"type": "str"},
            "ollama_model": {"type": "str"},
            "beside": {"type": "list", "elements": "dict", "default": [], "options": _check_beside.options()},
            "generate": {"type": "bool", "default": True},
            "timeout": {"type": "float", "default": 120},
        },
        supports_check_mode=True,
    )
    if _docker.docker is None:
        module.fail_json(msg=missing_required_lib("docker"), exception=_docker.IMPORT_ERROR)
    timeout = module.params["timeout"]
    if timeout <= 0:
        module.fail_json(msg=f"timeout is {timeout:g} s; it must be above 0, such as 120.")
    plan = _plan_input.read_plan(module, "there is nothing to judge this host against")
    services = _plan_input.wanted_services(module, plan, "to check")
    asked, beside = asked_about(module, services)
    seen = {}
    checks = _proof.prove(plan, services, asked, inspector(timeout, seen), generate=module.params["generate"], beside=beside)
    module.exit_json(
        changed=False,
        checks=checks,
        plan_table=plan_table(plan),
        images={service: image(seen.get(plan[service]["container"])) for service in services},
        urls={service: asked[service].url for service in services},
        **_proof.verdict(checks),
    )


if __name__ == "__main__":
    main()
