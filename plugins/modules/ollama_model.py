#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: ollama_model
version_added: 0.1.0
short_description: Pulls, creates, removes, loads and unloads a model of an Ollama server
description:
  - Brings one model of a running Ollama server into a state, through the server's API.
  - A model is pulled from a registry, or, with O(from), O(gguf) or O(modelfile), created on the server.
  - A model that is pulled counts as the same when its digest is the same, and one that is created when it holds the same weights, template,
    system message and parameters. The date at which it was last written plays no part.
  - Errors that the server hides are found, such as the failure of a pull that ends under HTTP 200.
  - A pull that was interrupted goes on where it stopped when the module runs again. An upload begins anew.
  - While a pull or an upload lasts, the module writes how far it is to the managed host's system log every 10 seconds. There,
    C(journalctl -f -t ansible-erni_ki.inference.ollama_model) shows it.
author: The erni_ki.inference team (@erni-ki)
extends_documentation_fragment:
  - erni_ki.inference._attributes
attributes:
  check_mode:
    support: full
    details:
      - The server is asked what it has, and the registry is not asked for anything. What only a pull or a load can tell, such as the digest of a model that
        is not there yet, is null.
  diff_mode:
    support: full
    details: Of a model that is created here, the model it is made from, template, system message and parameters are shown.
  platform:
    platforms: linux
    support: full
options:
  name:
    description:
      - The model, such as V(llama3.2:3b). Without a tag it is V(latest).
      - A name may hold a registry and a namespace, as in V(registry.example:5000/team/model:tag).
      - Names of cloud models, which end in C(:cloud) or C(-cloud), are refused, since these run elsewhere.
    type: str
    required: true
  state:
    description:
      - With V(present), the model is on the server. It is pulled when it is not there, or has another digest than O(digest). With O(from) or O(gguf) it is
        created when it is not there, or holds something else.
      - With V(absent), it is not. A loaded model is unloaded first.
      - With V(loaded), it is there and in memory, ready to answer.
      - With V(unloaded), it is not in memory. Whether it is on the server does not matter. The module waits until the model has answered
        whom it is answering, and is gone.
    type: str
    choices: [present, absent, loaded, unloaded]
    default: present
  digest:
    description:
      - The digest that the model must have, 64 hexadecimal digits, or at least the first 12 of them, as C(ollama ls) shows them under C(ID).
      - A model that is there with another digest is pulled again. If the registry has another one as well, the task fails.
      - Without it, a model that is there is left as it is, and no registry is asked.
      - Not with O(from) and O(gguf).
    type: str
  from:
    description:
      - The model that this one is created from. It is pulled when it is not on the server.
      - What it has, this one has as well, but for what O(template), O(system) and O(parameters) say. When it changes, this one is created again.
      - When it was removed from the server since, the weights of this one are taken to be right.
    type: str
  gguf:
    description:
      - The path of a GGUF file on the managed host that the model is created from. It is read in each run, because its content decides.
      - The server needs room for it twice, because it keeps what was uploaded beside what it makes of it, until it starts the next time.
      - While it is created, a model named C(erni-ki/gguf-...) is there as well. The server goes on naming it as the parent.
      - Without O(template), the server chooses one by the file, and perhaps the parameter C(stop) with it.
    type: path
  modelfile:
    description:
      - The text of a Modelfile that the model is created from, instead of O(from), O(gguf), O(template), O(system) and O(parameters).
      - Its C(FROM) names a model, or the whole path of a GGUF file on the managed host. C(PARAMETER), C(SYSTEM) and C(TEMPLATE) are read; a Modelfile with
        another instruction is refused.
      - C(lookup('ansible.builtin.file', 'Modelfile')) reads it from the controller, and leaves the braces of its template alone.
    type: str
  template:
    description: The template by which messages become a prompt, in the language of Go's templates. Only with O(from) or O(gguf).
      In a playbook it is marked with C(!unsafe), because Ansible takes its braces for its own.
    type: str
  system:
    description: The system message. Only with O(from) or O(gguf).
    type: str
  parameters:
    description:
      - Parameters such as C(num_ctx), C(num_thread), C(temperature), and C(stop), which is a list. Only with O(from) or O(gguf).
      - A request of a client may override each of them.
      - Names that Ollama does not know are refused, because Ollama itself says nothing of them.
    type: dict
  max_mib:
    description:
      - The most that the model's files may have, in MiB. A model with more is refused, a GGUF file before it is uploaded, a pull as soon as the server says
        how large it is.
      - A model that is there already is not measured.
      - V(0) is no limit.
    type: int
    default: 0
  models_path:
    description:
      - The folder on the managed host in which the server keeps its models.
      - With it, a pull or an upload that its file system has no room for is refused instead of filling it, an upload before it begins, a pull as soon
        as the server says how large it is.
    type: path
  keep_alive:
    description:
      - How long the model stays in memory after it was last used, such as V(10m) or V(1h30m), or in seconds as V(600); V(-1) is for ever, that is until the
        server stops.
      - Without it, the server's own setting, C(OLLAMA_KEEP_ALIVE), counts. A request of a client may set another.
      - A model that is loaded is left as it is, unless it is to stay for ever and does not, or the other way round.
      - Only with O(state=loaded).
    type: str
  url:
    description: Where the server answers, as plain HTTP.
    type: str
    default: http://127.0.0.1:11434
  timeout:
    description:
      - The longest time that the whole task may take, pull and load included, in seconds.
      - A server that does not even answer what it answers from memory is given up after 30 seconds.
    type: int
    default: 1800
  insecure:
    description: Whether the registry in O(name) is spoken to over plain HTTP. It plays no part for names without a registry.
    type: bool
    default: false
seealso:
  - module: erni_ki.inference.colocation_info
    description: Proves that Ollama answers, and where it runs.
"""

EXAMPLES = r"""
- name: Have a model
  erni_ki.inference.ollama_model:
    name: llama3.2:3b

- name: Have exactly this one, whatever the tag points to by now
  erni_ki.inference.ollama_model:
    name: llama3.2:3b
    digest: a80c4f17acd5

- name: Keep it in memory until the server stops
  erni_ki.inference.ollama_model:
    name: llama3.2:3b
    state: loaded
    keep_alive: "-1"
  register: llama

- name: Insist on the GPU
  ansible.builtin.assert:
    that: llama.model.device == 'gpu'
    fail_msg: >-
      {{ llama.model.name }} runs on the {{ llama.model.device }}:
      {{ llama.model.vram_bytes }} of {{ llama.model.loaded_bytes }} bytes are on the GPU.
  when: not ansible_check_mode

- name: Have a variant of it, with a longer context
  erni_ki.inference.ollama_model:
    name: assistant
    from: llama3.2:3b
    system: You answer in one sentence.
    parameters:
      num_ctx: 8192
      temperature: 0.2

- name: Have a model from a file on the host, if it fits
  erni_ki.inference.ollama_model:
    name: own-model:q4
    gguf: /srv/models/own-model-q4_k_m.gguf
    parameters:
      stop: ["<|im_end|>"]
    max_mib: 4096
    models_path: /var/lib/erni-ki/ollama

- name: Have a model from a Modelfile of the controller
  erni_ki.inference.ollama_model:
    name: librarian
    modelfile: "{{ lookup('ansible.builtin.file', 'Modelfile') }}"

- name: Free its memory
  erni_ki.inference.ollama_model:
    name: llama3.2:3b
    state: unloaded

- name: Remove it
  erni_ki.inference.ollama_model:
    name: llama3.2:3b
    state: absent

- name: Have a model from a registry of one's own that speaks plain HTTP
  erni_ki.inference.ollama_model:
    name: 192.0.2.10:5000/team/assistant:2026-11
    insecure: true
"""

RETURN = r"""
model:
  description: The model after the task. In check mode, what is known of it beforehand.
  returned: success
  type: dict
  contains:
    name:
      description: The name as the server lists it.
      type: str
      sample: llama3.2:3b
    present:
      description: Whether the model is on the server.
      type: bool
      sample: true
    digest:
      description: The digest of its manifest; null when the model is not there, or not yet known.
      type: str
      sample: a80c4f17acd55265feec403c7aef86be0c25983ab279d83f3bcd3abbcb5b8b72
    size_bytes:
      description: The size of all its files, in bytes; null when not known.
      type: int
      sample: 2019393189
    family:
      description: The architecture; null when not known.
      type: str
      sample: llama
    parameter_size:
      description: The number of parameters, as the server words it; null when not known.
      type: str
      sample: 3.2B
    quantization_level:
      description: How the weights are stored; null when not known.
      type: str
      sample: Q4_K_M
    capabilities:
      description: What it can do; empty when not known.
      type: list
      elements: str
      sample: [completion, tools]
    loaded:
      description: Whether the model is in memory.
      type: bool
      sample: true
    device:
      description: >-
        What the loaded model runs on, V(gpu), V(cpu), or V(partial) when only a part of it fits on the GPU; null when it is not loaded, or not yet known.
      type: str
      sample: gpu
    loaded_bytes:
      description: What the loaded model takes, weights, cache and working memory, in bytes; null when it is not loaded, or not yet known.
      type: int
      sample: 2842820608
    vram_bytes:
      description: How much of that is on the GPU, in bytes; null when it is not loaded, or not yet known.
      type: int
      sample: 2842820608
    context_length:
      description: The length of its context as loaded, in tokens; null when it is not loaded, or not yet known.
      type: int
      sample: 4096
    loaded_until:
      description: When the server unloads it, if nobody uses it until then; null when it is not loaded, or not yet known.
      type: str
      sample: "2026-11-23T16:03:27.564965756Z"
steps:
  description: What was done, or in check mode would be done, in order. Some of V(pull), V(upload), V(create), V(load), V(unload), V(delete).
  returned: success
  type: list
  elements: str
  sample: [pull, load]
server_version:
  description: The version of the Ollama server.
  returned: success
  type: str
  sample: 0.32.15
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.erni_ki.inference.plugins.module_utils import _ollama
from ansible_collections.erni_ki.inference.plugins.module_utils import _ollama_recipe


def checked(params):
    """Return name, digest, keep_alive and recipe as they are to be used; ValueError for what cannot be."""
    if params["timeout"] < 1:
        raise ValueError(f"timeout is {params['timeout']} seconds; it has to be 1 or more")
    if params["max_mib"] < 0:
        raise ValueError(f"max_mib is {params['max_mib']}; it has to be 1 or more, or 0 for no limit")
    return _ollama_recipe.checked(params)


def run(module):
    params = module.params
    try:
        name, digest, keep_alive, recipe = checked(params)
    except ValueError as error:
        module.fail_json(msg=str(error))
    client = _ollama.Client(params["url"], params["timeout"], module.log)
    limits = _ollama.Limits(params["max_mib"], params["models_path"])
    try:
        client.check()
        before = client.state(name)
        maker = _ollama_recipe.Maker(client, name, recipe, limits) if recipe else None
        wanted = _ollama.desired(params["state"], digest, keep_alive, maker.steps if maker else None)
        steps = _ollama.compare(before, wanted)
        if module.check_mode:
            after = _ollama.predict(before, wanted, steps)
        else:
            after = _ollama.apply(client, name, wanted, steps, before, params["insecure"], limits, maker)
    except _ollama.OllamaError as error:
        module.fail_json(msg=str(error))
    diff = {"before": _ollama.difference(before), "after": _ollama.difference(after)}
    if maker:
        diff["before"].update(_ollama_recipe.shown(maker.before))
        diff["after"].update(_ollama_recipe.shown(maker.wanted))
    module.exit_json(changed=bool(steps), model=after, steps=steps, server_version=client.version, diff=diff)


def main():
    run(AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent", "loaded", "unloaded"], "default": "present"},
            "digest": {"type": "str"},
            "from": {"type": "str"},
            "gguf": {"type": "path"},
            "modelfile": {"type": "str"},
            "template": {"type": "str"},
            "system": {"type": "str"},
            "parameters": {"type": "dict"},
            "max_mib": {"type": "int", "default": 0},
            "models_path": {"type": "path"},
            "keep_alive": {"type": "str"},
            "url": {"type": "str", "default": "http://127.0.0.1:11434"},
            "timeout": {"type": "int", "default": 1800},
            "insecure": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    ))


if __name__ == "__main__":
    main()
