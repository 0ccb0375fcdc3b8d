#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: model_size_info
short_description: Tells what a model on a host takes in memory, without loading it
version_added: 0.1.0
author:
  - The erni_ki.inference team (@erni-ki)
description:
  - Reads what the files of a language model say of themselves, the C(config.json) and the headers of the safetensors files of a Hugging Face folder,
    or the header of a GGUF file. The weights are never read.
  - Returns the size of the weights as an engine loads them, the size of the KV cache for each token, and the longest context.
  - Files that are broken or incomplete are refused in words, in bounded time and memory. So are sizes that no model has.
  - What a file does not tell is V(none), and RV(model_size.notes) say why.
extends_documentation_fragment:
  - erni_ki.inference._attributes
  - erni_ki.inference._attributes.info
options:
  path:
    description:
      - The model on the managed host, a folder with a C(config.json), or a C(.gguf) file. Of a GGUF model in several files, the first.
      - The path begins at the root. A name on the hub is refused, as nothing is asked over the network.
    type: path
    required: true
  dtype:
    description:
      - The type in which the engine computes, as vLLM's C(--dtype). Weights that are not quantized, and the KV cache, are of this type, however
        they are stored.
      - V(auto) is what vLLM does on its own, which is the type in C(config.json), where that is one of 16 bits, else V(bfloat16). For a GGUF file it is
        V(float16), as in Ollama.
      - The tensors of a GGUF file stay as they are stored. For it this is about the KV cache only.
    type: str
    choices: [auto, bfloat16, float16, float32]
    default: auto
  kv_cache_gib:
    description: The size of a KV cache in GiB, for RV(model_size.tokens_that_fit).
    type: int
seealso:
  - module: erni_ki.inference.colocation_plan
"""

EXAMPLES = r"""
- name: Read a model's sizes
  erni_ki.inference.model_size_info:
    path: /srv/models/Qwen2.5-0.5B-Instruct
    kv_cache_gib: 4
  register: model

- name: Say what it takes
  ansible.builtin.debug:
    msg: >-
      {{ model.model_size.weights_mib }} MiB of weights, and room for {{ model.model_size.tokens_that_fit }} tokens
  when: model.exists

- name: Read the CPUs, NUMA nodes and memory
  erni_ki.inference.cpu_topology_info:
  register: host

- name: Make a plan that knows what the model takes
  erni_ki.inference.colocation_plan:
    topology: "{{ host.cpu_topology }}"
    model: "{{ model.model_size | default({}, true) }}"
    policy:
      services: vllm
"""

RETURN = r"""
exists:
  description: Whether there is anything at O(path).
  returned: success
  type: bool
  sample: true
model_size:
  description: What the model takes; V(none) where nothing is at O(path). In it, V(none) is what the files do not tell.
  returned: success
  type: dict
  contains:
    path:
      description: The model.
      type: str
      sample: /srv/models/Qwen2.5-0.5B-Instruct
    source:
      description: >-
        Where the size of the weights is from, the headers of V(safetensors) or V(gguf) files, or the shape in C(config.json) (V(config)), where the weights
        are in C(.bin) files, which cannot be read without running what is in them.
      type: str
      sample: safetensors
    architecture:
      description: The architecture's name, as C(config.json) or the GGUF file has it.
      type: str
      sample: Qwen2ForCausalLM
    dtype:
      description: The type in which the engine computes, V(bfloat16), V(float16) or V(float32).
      type: str
      sample: bfloat16
    quantization:
      description: The method of quantization such as V(awq) or V(gptq), for a GGUF file the type of most of its weights such as V(Q4_K); V(none) without one.
      type: str
      sample: awq
    quantization_bits:
      description: The bits of a quantized weight. For a GGUF file the type tells.
      type: int
      sample: 4
    parameters:
      description: How many parameters the model has. An output matrix that is the embedding counts once, buffers do not count.
      type: int
      sample: 494032768
    weights_mib:
      description: >-
        What the weights take in memory as loaded in RV(model_size.dtype), in MiB, rounded up. Quantized weights stay quantized.
        What the engine takes beside them, such as copies in another layout, is not in it.
      type: int
      sample: 943
    weights_bytes_on_disk:
      description: What the weights take in their files, in bytes. With the source V(config) it is the size of the files.
      type: int
      sample: 988065536
    weights_bytes_read:
      description: >-
        What of RV(model_size.weights_bytes_on_disk) an engine reads, so without buffers, and without an output matrix that is the embedding. The kernel
        keeps it in its page cache.
      type: int
      sample: 988065536
    layers:
      description: The layers.
      type: int
      sample: 24
    attention:
      description: >-
        How queries share keys and values, V(MHA) (each has its own), V(GQA) (groups share), V(MQA) (all share), or V(MLA) (keys and values are compressed).
      type: str
      sample: GQA
    kv_heads:
      description: The heads of keys and values in a layer. With V(MLA) it is 1.
      type: int
      sample: 2
    head_dim:
      description: The elements of a key in each head. With V(MLA) those of the compressed keys and values and of the rotary part together.
      type: int
      sample: 64
    hidden_size:
      description: The elements of a token between layers.
      type: int
      sample: 896
    intermediate_size:
      description: Its elements inside the feed-forward part of a layer.
      type: int
      sample: 4864
    vocabulary_size:
      description: The tokens that the model knows, each of which gets a score when the next is chosen.
      type: int
      sample: 151936
    kv_bytes_per_token:
      description: What one token takes in the KV cache of all layers, in bytes.
      type: int
      sample: 12288
    sliding_window:
      description: The layers that see a window of the last tokens only, where there are some; V(none) where all see everything.
      type: dict
      contains:
        window:
          description: How many tokens they see.
          type: int
          sample: 4096
        layers:
          description: How many of RV(model_size.layers) they are.
          type: int
          sample: 13
        kv_bytes_per_token:
          description: Their part of RV(model_size.kv_bytes_per_token), in bytes.
          type: int
          sample: 53248
    context_length:
      description: The longest context in tokens that the model is made for, and that vLLM accepts.
      type: int
      sample: 32768
    default_context_length:
      description: The context in tokens that vLLM takes when nobody asks for one. It differs from RV(model_size.context_length) for few models.
      type: int
      sample: 32768
    tokens_that_fit:
      description: >-
        How many tokens, of all sequences together, fit into O(kv_cache_gib); V(none) without it. Layers with a window count as if they kept every token.
      type: int
      sample: 349525
    notes:
      description: What is not known, and why.
      type: list
      elements: str
      sample: []
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.erni_ki.inference.plugins.module_utils._model_files import ModelError
from ansible_collections.erni_ki.inference.plugins.module_utils._model_size import DTYPES, measure


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "dtype": {"type": "str", "choices": list(DTYPES), "default": "auto"},
            "kv_cache_gib": {"type": "int"},
        },
        supports_check_mode=True,
    )
    size = module.params["kv_cache_gib"]
    if size is not None and size < 1:
        module.fail_json(msg=f"kv_cache_gib is {size}; it must be at least 1, such as 4.")
    try:
        found = measure(module.params["path"], module.params["dtype"], size)
    except ModelError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, exists=found is not None, model_size=found)


if __name__ == "__main__":
    main()
