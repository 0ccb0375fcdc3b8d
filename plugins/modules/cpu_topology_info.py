#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: cpu_topology_info
short_description: Read a host's cores, SMT siblings, NUMA nodes, caches and memory
version_added: 0.1.0
author:
  - The erni_ki.inference team (@erni-ki)
description:
  - Reads C(/sys) and C(/proc) and returns what a placement of threads and memory has to know about the host.
  - M(erni_ki.inference.colocation_plan) takes the result as its O(erni_ki.inference.colocation_plan#module:topology).
  - Nothing is needed on the host besides Python. A file that a kernel, an architecture or a container does not show is done without;
    only a host without any CPU is an error.
extends_documentation_fragment:
  - erni_ki.inference._attributes
  - erni_ki.inference._attributes.info
options:
  sysroot:
    description:
      - A folder that holds C(proc) and C(sys), either V(/) or a dump of them from another machine.
      - From a dump, the architecture is derived from C(proc/cpuinfo).
    type: path
    default: /
seealso:
  - module: erni_ki.inference.colocation_plan
"""

EXAMPLES = r"""
- name: Read the topology of the host
  erni_ki.inference.cpu_topology_info:
  register: host

- name: Say what it has
  ansible.builtin.debug:
    msg: >-
      {{ host.cpu_topology.cores | length }} cores with {{ host.cpu_topology.smt.threads_per_core }} threads each,
      {{ host.cpu_topology.memory.total_mib }} MiB, usable CPUs {{ host.cpu_topology.cpus.usable }}

- name: Fail unless the CPU has AVX2
  ansible.builtin.assert:
    that: "'avx2' in host.cpu_topology.flags"

- name: Read the dump of another machine
  erni_ki.inference.cpu_topology_info:
    sysroot: /var/tmp/dump-of-node7
"""

RETURN = r"""
cpu_topology:
  description:
    - What was found. Lists of CPUs are in the kernel's list format, such as V(0-6,8-14), and empty when there are none.
    - Sizes are in MiB or KiB as the name says, rounded down. V(none) is what the host does not show.
  returned: success
  type: dict
  contains:
    architecture:
      description: The name C(uname -m) has for it. From a dump, V(none) when its C(cpuinfo) does not tell.
      type: str
      sample: x86_64
    model_name:
      description: The CPU's model as C(lscpu) prints it; on a CPU of several designs, their names in the order of their CPUs. V(none) where none is shown.
      type: str
      sample: AMD EPYC 7451 24-Core Processor
    vendor:
      description: The CPU's vendor as C(lscpu) prints it. V(none) where none is shown.
      type: str
      sample: AuthenticAMD
    flags:
      description: Those of the flags that inference engines ask for which every online CPU has, in the kernel's spelling, sorted.
      type: list
      elements: str
      sample: [avx, avx2, f16c, fma]
    cpus:
      description: The logical CPUs.
      type: dict
      contains:
        present:
          description: Those in the machine.
          type: str
          sample: 0-15
        online:
          description: Those switched on.
          type: str
          sample: 0-15
        offline:
          description: Those present and switched off.
          type: str
          sample: ""
        isolated:
          description: Those the scheduler was told to leave alone when the kernel started (C(isolcpus)).
          type: str
          sample: ""
        usable:
          description:
            - Those this host may really use, which is the online ones, less the isolated ones, within two limits.
            - The cpuset at the root of the cgroup tree as the host sees it (C(/sys/fs/cgroup/cpuset.cpus.effective), or C(cpuset) below it with cgroup v1).
              On a machine that is every CPU no partition has taken away; in a container, the container's own limit.
            - The affinity all processes start with. Under systemd this is C(CPUAffinity) in its C(system.conf) or C(systemd.cpu_affinity)
              on the kernel's command line, elsewhere the affinity of process 1.
            - The affinity of the reading process never counts, nor that of process 1 under systemd. A host that this collection holds to its plan
              (isolation V(exclusive)) keeps them on the reserved cores, and the next plan would shrink to these.
          type: str
          sample: 0-15
    cores:
      description: The physical cores with an online CPU, in the order of their lowest CPU.
      type: list
      elements: dict
      contains:
        index:
          description: Counts the cores from 0. Core lists of a plan's policy are lists of these.
          type: int
          sample: 0
        package:
          description: The package (socket); where the kernel does not number them, they are counted from 0.
          type: int
          sample: 0
        cluster:
          description: The cluster of cores in the package. V(none) where the kernel shows none.
          type: int
          sample: 0
        core_id:
          description: The kernel's number of the core, which repeats in other packages and clusters. V(-1) where it gives none.
          type: int
          sample: 0
        numa_node:
          description: The NUMA node. V(0) on a kernel without NUMA.
          type: int
          sample: 0
        cpus:
          description: The logical CPUs (SMT siblings) of the core that are online.
          type: list
          elements: int
          sample: [0, 8]
        kind:
          description: V(performance) or V(efficiency) on a hybrid CPU, V(uniform) elsewhere.
          type: str
          sample: uniform
    smt:
      description: Simultaneous multithreading.
      type: dict
      contains:
        active:
          description: Whether a core has more than one online CPU.
          type: bool
          sample: true
        control:
          description: The kernel's switch, V(on), V(off), V(forceoff), V(notsupported) or V(notimplemented). V(none) where there is no such switch.
          type: str
          sample: "on"
        threads_per_core:
          description: The most online CPUs a core has.
          type: int
          sample: 2
    numa_nodes:
      description: The NUMA nodes, also those without CPUs. One node V(0) on a kernel without NUMA.
      type: list
      elements: dict
      contains:
        node:
          description: The node's number.
          type: int
          sample: 0
        cpus:
          description: Its online CPUs.
          type: str
          sample: 0-15
        memory_total_mib:
          description: Its memory in MiB. V(none) where the host does not show it.
          type: int
          sample: 32000
        memory_free_mib:
          description: Its free memory in MiB, without the page cache. V(none) where the host does not show it.
          type: int
          sample: 30000
    llc_groups:
      description: The groups of online CPUs that share a last-level cache. Empty where the host shows no caches.
      type: list
      elements: dict
      contains:
        level:
          description: The cache's level.
          type: int
          sample: 3
        size_kib:
          description: The cache's size in KiB. V(none) where the host does not show it.
          type: int
          sample: 16384
        cpus:
          description: The online CPUs that share it.
          type: str
          sample: 0-15
    memory:
      description: The memory of the whole host. Each is V(none) where the host does not show it.
      type: dict
      contains:
        total_mib:
          description: The memory in MiB.
          type: int
          sample: 32000
        available_mib:
          description: What processes can still get without swapping, in MiB.
          type: int
          sample: 30000
        swap_total_mib:
          description: The swap space in MiB.
          type: int
          sample: 0
    cgroup:
      description: The control groups.
      type: dict
      contains:
        version:
          description: The version that holds the controllers, V(2) or V(1). V(none) where none is mounted.
          type: int
          sample: 2
        mode:
          description: V(unified) (version 2), V(legacy) (version 1), V(hybrid) (version 1 with an empty version 2 beside it) or V(none).
          type: str
          sample: unified
    init_system:
      description: The name of process 1. V(none) where it cannot be read.
      type: str
      sample: systemd
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.erni_ki.inference.plugins.module_utils._topology import TopologyError, detect


def main():
    module = AnsibleModule(argument_spec={"sysroot": {"type": "path", "default": "/"}}, supports_check_mode=True)
    try:
        topology = detect(module.params["sysroot"])
    except TopologyError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, cpu_topology=topology)


if __name__ == "__main__":
    main()
