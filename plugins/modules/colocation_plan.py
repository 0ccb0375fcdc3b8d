#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: colocation_plan
short_description: Decide which cores, memory and device vLLM and Ollama get on a host
version_added: 0.1.0
author:
  - The erni_ki.inference team (@erni-ki)
description:
  - Takes what was detected on a host and what is asked for, and returns the plan, or every reason why there is none.
  - The plan is a pure function of the options. The same options give the same plan, byte for byte; nothing on the host is read or changed.
  - Cores are always given whole. SMT siblings go with their core, and no core is shared by two parties,
    except by Ollama under the policy V(any), and by Ollama and the system on the reserved cores.
  - Offline and isolated logical CPUs, and those that the host may not use, are given to nobody.
  - A configuration that cannot work is refused, with the numbers and the nearest configuration that works. What was adjusted instead is in the notes.
extends_documentation_fragment:
  - erni_ki.inference._attributes
  - erni_ki.inference._attributes.info
options:
  topology:
    description: The host, as returned by M(erni_ki.inference.cpu_topology_info) in RV(erni_ki.inference.cpu_topology_info#module:cpu_topology).
    type: dict
    required: true
  engine:
    description:
      - The container engine, as returned by M(erni_ki.inference.container_engine_info)
        in RV(erni_ki.inference.container_engine_info#module:container_engine).
      - Leave it out where none was looked for; an engine that is not installed yet is no reason to refuse a plan.
    type: dict
  gpu:
    description:
      - The GPUs of the host and their driver, as returned by M(erni_ki.inference.gpu_info) in RV(erni_ki.inference.gpu_info#module:gpu).
      - Leave it out, or empty, where none was looked for; that is a host without one.
      - Ollama gets the one that C(ollama_gpu) of O(policy) names, or the one with most memory among those it can use. vLLM never gets one.
      - A card that Ollama cannot use is no reason to be silent. Driver, kernel modules, container toolkit and Docker are judged by a
        compatibility table, and what does not go together is refused.
    type: dict
  model:
    description:
      - vLLM's model, as returned by M(erni_ki.inference.model_size_info) in RV(erni_ki.inference.model_size_info#module:model_size).
      - Its weights count where C(vllm_weights_mib) of O(policy) is 0. A context that is longer than the model's own, or that does not fit into the
        KV cache, is refused, as vLLM would not start.
      - Leave it out, or empty, where the model is not on the host; its size is then unknown.
    type: dict
  policy:
    description:
      - What is asked for. A key that is left out, or null, has its default. Numbers may be given as text. Unknown keys are violations.
      - Lists of cores and logical CPUs are texts in the kernel's list format such as V(0-6,8), lists of numbers, or one number.
        Cores have the numbers that M(erni_ki.inference.cpu_topology_info) gives them.
      - C(services) (list of str; default vllm, ollama). The services this host has; at least one.
      - C(isolation) (str, fenced or exclusive; default fenced). Whether each service is only held to its own CPUs, or everything else of the system
        is also kept off them (needs systemd and cgroup v2).
      - C(reserved_cores) (int, or core list; default 1). Cores kept for the system. A number takes the last ones (on a hybrid CPU efficiency cores
        first); a list such as [7] or 6-7 names them.
      - C(vllm_cores) (core list; default empty). Cores of vLLM, such as 0-6. Empty takes all others, on one NUMA node and performance cores where
        kinds are mixed.
      - C(vllm_cpus) (CPU list; default empty). Logical CPUs of vLLM, for those who know. Empty follows from the cores.
      - C(vllm_allow_split_cores) (bool; default false). Accept logical CPUs of vLLM that take only a part of a core; the rest of such a core is given
        to nobody.
      - C(vllm_smt) (str, own or idle; default own). SMT siblings of vLLM's cores. With own they are in its cpuset, for its engine and API server;
        with idle only the first CPU of each core is used.
      - C(vllm_omp) (str, explicit or auto; default explicit). Whether the plan lists the CPUs of vLLM's OpenMP threads, or vLLM picks them inside its
        cpuset.
      - C(vllm_omp_bind) (CPU list; default empty). Logical CPUs of vLLM's OpenMP threads, inside its cpuset. Empty takes one per core.
      - C(vllm_numa) (str, single or span; default single). Whether vLLM stays on one NUMA node, or may span several.
      - C(vllm_memory_limit_mib) (int, MiB; default 6144). Memory limit of vLLM's container; the swap limit is the same, so it never swaps.
      - C(vllm_memory_reservation_mib) (int, MiB; default 2048). Memory reservation of vLLM's container.
      - C(vllm_shm_mib) (int, MiB; default 256). Size of vLLM's /dev/shm. vLLM puts a ring of 240 MiB there.
      - C(vllm_kv_cache_gib) (int, GiB; default 4). KV cache of vLLM, whole GiB, at most. The plan lowers it, and says so, where the sum does not fit.
      - C(vllm_kv_cache_fixed) (bool; default false). Refuse the plan instead of lowering the KV cache.
      - C(vllm_weights_mib) (int, MiB; default 0). Size of the model's weights in memory; 0 means unknown.
      - C(vllm_max_num_batched_tokens) (int, tokens; default 1024). Most tokens in one batch of vLLM.
      - C(vllm_max_num_seqs) (int, sequences; default 64). Most sequences at a time in vLLM.
      - C(vllm_block_size) (int, tokens; default 16). Size of a KV cache block; mapped to what the engine's version accepts.
      - C(vllm_max_model_len) (int, tokens; default 0). Longest context of vLLM; 0 means the model's own.
      - C(vllm_engine_version) (str; default 0.32.0). Version of vLLM that will run; decides block sizes and the CPU flags needed.
      - C(ollama_cpus) (str, or core list; default reserved). Where Ollama runs. With reserved on the reserved cores, beside the system (on a host
        without vLLM on the cores vLLM would have had); with any on every usable core, vLLM's too; or a core list.
      - C(ollama_memory_limit_mib) (int, MiB; default 4096). Memory limit of Ollama's container; the swap limit is the same.
      - C(ollama_memory_reservation_mib) (int, MiB; default 1024). Memory reservation of Ollama's container.
      - C(ollama_require_gpu) (bool; default true). Refuse a host without a GPU that Ollama can use. Where false, such a host runs Ollama on its CPUs,
        and the notes say why.
      - C(ollama_gpu) (str; default empty). Ollama's GPU, by its UUID or by a pattern of its name such as *P2200*. Empty takes the one with most
        memory that can be used.
      - C(ollama_engine_version) (str; default 0.32.15). Version of Ollama that will run; decides which drivers and cards do.
      - C(ollama_model_mib) (int, MiB; default 0). Size of Ollama's largest model as loaded; 0 means unknown.
      - C(ollama_kv_bytes_per_token) (int, bytes; default 0). KV cache of one token as f16, 4 x layers x KV heads x head size; 0 means unknown, and a
        cautious figure is taken.
      - C(ollama_context_length) (int, tokens; default 0). Context of each of Ollama's slots on a GPU; 0 lets the plan decide, 4096 or what fits.
      - C(ollama_parallel) (int, slots; default 1). Requests that Ollama works on at once, each with a context of its own.
      - C(ollama_max_loaded_models) (int, models; default 1). Models that Ollama keeps loaded at once, each as large as the largest.
      - C(ollama_kv_cache_type) (str, f16 or q8_0 or q4_0; default f16). Type of Ollama's KV cache; the others than f16 need flash attention.
      - C(ollama_allow_partial_offload) (bool; default false). Accept that a model does not fit into the GPU's memory, and that a part of it is
        computed on CPUs.
      - C(container_toolkit_version) (str; default 1.19.1). Version of the NVIDIA container toolkit that will hand the GPU over.
      - C(system_reserve_mib) (int, MiB; default 1024). Memory that no limit may claim, left to the system.
      - C(allow_squeezing_containers) (bool; default false). Accept that exclusive isolation confines running containers of others to the system's
        CPUs.
    type: dict
  prefix:
    description: What stands before the policy's keys where they are set, such as V(plan_); messages, notes and RV(violations[].nearest) name them so.
    type: str
    default: ""
  fail_on_violations:
    description:
      - Whether the module fails when a rule is broken. The results are the same either way.
      - The message is the text in RV(table).
    type: bool
    default: true
seealso:
  - module: erni_ki.inference.cpu_topology_info
  - module: erni_ki.inference.container_engine_info
  - module: erni_ki.inference.gpu_info
  - module: erni_ki.inference.model_size_info
"""

EXAMPLES = r"""
- name: Read the host
  erni_ki.inference.cpu_topology_info:
  register: host

- name: Plan it with all defaults, without a GPU
  erni_ki.inference.colocation_plan:
    topology: "{{ host.cpu_topology }}"
    policy:
      ollama_require_gpu: false
  register: decided

- name: Read the GPUs
  erni_ki.inference.gpu_info:
  register: cards

- name: Plan with a GPU for a model of 2 GiB, with the slots and KV cache that fit beside it
  erni_ki.inference.colocation_plan:
    topology: "{{ host.cpu_topology }}"
    gpu: "{{ cards.gpu }}"
    policy:
      ollama_gpu: "*P2200*"
      ollama_model_mib: 1926
      ollama_kv_bytes_per_token: 114688
      ollama_parallel: 2

- name: Show the plan
  ansible.builtin.debug:
    msg: "{{ decided.table }}"

- name: Keep everything else off the services' cores, and leave two cores to the system
  erni_ki.inference.colocation_plan:
    topology: "{{ host.cpu_topology }}"
    policy:
      isolation: exclusive
      reserved_cores: 2
      ollama_require_gpu: false

- name: See what is wrong with a policy, without failing
  erni_ki.inference.colocation_plan:
    topology: "{{ host.cpu_topology }}"
    policy:
      vllm_kv_cache_gib: 8
      vllm_kv_cache_fixed: true
      ollama_require_gpu: false
    fail_on_violations: false
  register: judged

- name: Show the nearest policy that works
  ansible.builtin.debug:
    msg: "{{ judged.violations | map(attribute='nearest') | combine }}"
"""

RETURN = r"""
plan:
  description:
    - The plan, V(none) when it is refused. Lists of logical CPUs and of NUMA nodes are texts in the kernel's list format such as V(0-6,8-14).
    - Of the fields here, new ones may be added within a RV(plan.schema_version); the meaning of one never changes.
  returned: always
  type: dict
  contains:
    schema_version:
      description: Version of this structure.
      type: int
      sample: 1
    host:
      description:
        - The host that the plan is for, with C(architecture), C(model_name), C(cores) (their number), C(logical_cpus) (online ones), C(threads_per_core),
          C(numa_nodes), C(memory_total_mib), and C(usable_cpus).
      type: dict
    isolation:
      description: V(fenced) or V(exclusive).
      type: str
    system:
      description:
        - What the system has, C(cores) and C(cpuset) (the reserved cores and those that no service has), C(memory_reserve_mib) (what no limit may claim),
          and C(memory_left_mib) (what no limit does claim, the former included).
      type: dict
    vllm:
      description: What vLLM has; V(none) where it is not among the services.
      type: dict
      contains:
        container:
          description: Name of the container.
          type: str
          sample: vllm
        slice:
          description: Its systemd slice; a plain cgroup of that name on a host without systemd, or whose engine uses the cgroupfs driver.
          type: str
          sample: erniki-vllm.slice
        cores:
          description: Numbers of its cores.
          type: list
          elements: int
        cpuset:
          description: The logical CPUs that it may use.
          type: str
          sample: 0-6,8-14
        cpuset_mems:
          description: The NUMA nodes whose memory it may use.
          type: str
          sample: "0"
        numa_nodes:
          description: The NUMA nodes that its cores are on.
          type: list
          elements: int
        smt:
          description: V(own) or V(idle), as asked.
          type: str
        omp:
          description:
            - Its OpenMP threads, with C(mode) (V(explicit) or V(auto)), C(bind) (the value of C(VLLM_CPU_OMP_THREADS_BIND)),
              C(cpus) (the same as a list of logical CPUs, V(none) when vLLM picks them), C(threads) (their number),
              and C(reserved_cpus) (the value of C(VLLM_CPU_NUM_OF_RESERVED_CPU)).
          type: dict
        memory:
          description: Its C(limit_mib), C(swap_limit_mib), C(reservation_mib) and C(shm_mib), in MiB.
          type: dict
        kv_cache_gib:
          description: Its KV cache in GiB, what was asked for or less.
          type: int
        engine:
          description:
            - The engine's C(version), C(max_num_batched_tokens), C(max_num_seqs), C(block_size), and C(max_model_len), which is V(0) for the model's own.
          type: dict
        budget:
          description:
            - Where its limit goes, C(runtime_mib), C(weights_mib) (V(0) when unknown), C(packed_mib) (copies of weights of 32 bits), C(kv_cache_mib),
              C(activations_mib) (what a batch takes while it is worked on, as far as it is more than the page cache of vLLM's own files), C(page_cache_mib)
              (what the kernel keeps of the weights' files, beyond the activations), and C(left_mib), in MiB.
          type: dict
        device:
          description: C(kind), always V(none), and the container C(runtime).
          type: dict
    ollama:
      description: What Ollama has; V(none) where it is not among the services.
      type: dict
      contains:
        container:
          description: Name of the container.
          type: str
          sample: ollama
        slice:
          description: Its systemd slice; a plain cgroup of that name on a host without systemd, or whose engine uses the cgroupfs driver.
          type: str
          sample: erniki-ollama.slice
        policy:
          description: V(reserved), V(any), or the list of cores that was asked for.
          type: str
        cores:
          description: Numbers of its cores.
          type: list
          elements: int
        cpuset:
          description: The logical CPUs that it may use.
          type: str
          sample: "7,15"
        cpuset_mems:
          description: The NUMA nodes whose memory it may use.
          type: str
          sample: "0"
        threads:
          description: How many threads it is to compute with, one for each of its cores; under the policy V(any) one for each core that is not vLLM's.
          type: int
        memory:
          description: Its C(limit_mib), C(swap_limit_mib) and C(reservation_mib), in MiB.
          type: dict
        device:
          description: Its device. Without a GPU there are only the first three fields, and all but the first are V(none).
          type: dict
          contains:
            kind:
              description: V(gpu) or V(none).
              type: str
            uuid:
              description: The GPU's UUID.
              type: str
              sample: GPU-1b2c3d4e-0000-1111-2222-333344445555
            name:
              description: The GPU's name; V(none) where the driver does not tell it.
              type: str
              sample: Quadro P2200
            bus_id:
              description: Its PCI address; V(none) where the driver does not tell it.
              type: str
              returned: for a GPU
              sample: "0000:01:00.0"
            compute_capability:
              description: Its compute capability.
              type: str
              returned: for a GPU
              sample: "6.1"
            memory_total_mib:
              description: Its memory in MiB.
              type: int
              returned: for a GPU
              sample: 5120
            cdi_device:
              description: Its name for the container engine.
              type: str
              returned: for a GPU
              sample: nvidia.com/gpu=GPU-1b2c3d4e-0000-1111-2222-333344445555
            library:
              description: The CUDA library that Ollama takes for this card and driver.
              type: str
              returned: for a GPU
              sample: cuda_v12
            driver:
              description: The driver's version C(found) (V(none) where it is unknown), and the branches C(allowed), V(550-) for 550 and later.
              type: dict
              returned: for a GPU
            handover:
              description: How the container engine hands the GPU over.
              type: str
              returned: for a GPU
              sample: cdi
            vram:
              description: Where its memory goes.
              type: dict
              returned: for a GPU
              contains:
                total_mib:
                  description: All of it, in MiB.
                  type: int
                reserve_mib:
                  description: What is gone before a model is loaded, in MiB. That is what the driver reserves, CUDA, the compute buffers, and what
                    Ollama leaves free.
                  type: int
                weights_mib:
                  description: The models' weights in MiB, V(0) when unknown.
                  type: int
                kv_cache_mib:
                  description: Their KV caches in MiB.
                  type: int
                left_mib:
                  description: What is left, in MiB. Below zero as much is in RAM instead, as C(ollama_allow_partial_offload) of O(policy) allows.
                  type: int
                context_length:
                  description: The context of each slot, in tokens.
                  type: int
                parallel:
                  description: How many requests each model works on at once.
                  type: int
                kv_cache_type:
                  description: The type of the KV cache, V(f16), V(q8_0) or V(q4_0).
                  type: str
                max_loaded_models:
                  description: How many models are loaded at once.
                  type: int
                partial_allowed:
                  description: Whether a part of a model may be in RAM.
                  type: bool
    partition:
      description:
        - How the CPUs are held apart, with C(mode), C(slices) (each with C(unit), C(cpus), C(mems) and C(memory_low_mib); empty where systemd does not keep the
          containers' cgroups), and C(fence), V(none) unless the isolation is V(exclusive). C(fence) has C(cpus), to which the C(units) of
          everything else are held.
      type: dict
    notes:
      description: The same as RV(notes).
      type: list
      elements: dict
plan_text:
  description: The plan as the text of a JSON file, the same bytes for the same plan. V(none) when it is refused.
  returned: always
  type: str
notes:
  description: What was adjusted and why, and what to know about the plan. Empty when it is refused.
  returned: always
  type: list
  elements: dict
  contains:
    rule:
      description: Name of the rule.
      type: str
      sample: kv-lowered
    text:
      description: The note, for people.
      type: str
violations:
  description: Every rule that is broken.
  returned: always
  type: list
  elements: dict
  contains:
    rule:
      description: Name of the rule.
      type: str
      sample: kv-fits-limit
    option:
      description: The key of the policy that breaks it, or the option of this module.
      type: str
      sample: vllm_kv_cache_gib
    asked:
      description: What was asked for. V(none) when the rule is about the facts, which nobody asked for.
      type: raw
      sample: 8
    found:
      description: What stands against it, with numbers and units.
      type: str
      sample: at most 4 GiB fit
    nearest:
      description:
        - Overrides for the policy that mend it. Those of all violations together, over the policy, give a plan; a key whose value is V(none) is to be dropped.
        - Empty where nothing in the policy helps, such as on a host with too few cores; then the host has to change first.
      type: dict
      sample: {vllm_kv_cache_gib: 4}
    message:
      description: The violation, for people.
      type: str
table:
  description: The plan with its notes, or the violations, as lines of text for people, at most 110 characters wide.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.erni_ki.inference.plugins.module_utils._plan import decide, render_plan


def main():
    module = AnsibleModule(
        argument_spec={
            "topology": {"type": "dict", "required": True},
            "engine": {"type": "dict"},
            "gpu": {"type": "dict"},
            "model": {"type": "dict"},
            "policy": {"type": "dict"},
            "prefix": {"type": "str", "default": ""},
            "fail_on_violations": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    params = module.params
    result = decide(params["topology"], params["engine"], params["gpu"], params["policy"], params["prefix"], params["model"])
    result["plan_text"] = None if result["plan"] is None else render_plan(result["plan"])
    if result["violations"] and params["fail_on_violations"]:
        module.fail_json(msg="\n".join(result["table"]), **result)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
