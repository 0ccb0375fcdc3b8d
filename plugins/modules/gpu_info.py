#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_info
short_description: Tells which NVIDIA GPUs a host has, and what keeps one from being used
version_added: 0.1.0
author:
  - The erni_ki.inference team (@erni-ki)
description:
  - Reads the PCI bus, the driver, its management library (NVML) and the CDI specifications from which Docker takes devices.
  - Tells a host without a card from one whose card cannot be used, and says why it cannot.
  - A host without a card, a driver in a bad state, and a library that hangs or crashes are results, not errors.
extends_documentation_fragment:
  - erni_ki.inference._attributes
  - erni_ki.inference._attributes.info
requirements:
  - nvidia-ml-py on the host, to read a card whose driver runs. In distributions it is C(python3-pynvml) (Debian's contrib, Ubuntu's multiverse).
notes:
  - NVML may load the driver's kernel module and make its device files when root asks it, as C(nvidia-smi) does.
options:
  sysroot:
    description:
      - A folder that holds C(proc), C(sys), C(etc) and C(usr), either V(/) or a dump of them from another machine.
      - NVML and the container toolkit's program are those of the host the module runs on, whatever this says.
    type: path
    default: /
  timeout:
    description:
      - How long, in seconds, NVML and the container toolkit's program may each take. One that hangs is reported.
      - A host of many GPUs without a persistence daemon takes a few seconds for each, and one that is very busy half a minute.
    type: float
    default: 120
seealso:
  - module: erni_ki.inference.colocation_plan
"""

EXAMPLES = r"""
- name: Look at the GPUs
  erni_ki.inference.gpu_info:
  register: host

- name: Refuse a card that cannot be used
  ansible.builtin.assert:
    that: host.gpu.state in ['ok', 'no_card']
    fail_msg: "{{ host.gpu.state }}: {{ host.gpu.hint }}"

- name: Say which containers use a GPU, and how much of it
  ansible.builtin.debug:
    msg: "{{ item.0.name }}: {{ item.1.container or item.1.name }}, {{ item.1.memory_mib }} MiB"
  loop: "{{ host.gpu.gpus | subelements('processes') }}"
"""

RETURN = r"""
gpu:
  description: What was found. Sizes are in MiB, rounded down.
  returned: success
  type: dict
  contains:
    state:
      description:
        - V(ok) when at least one GPU can be used, otherwise what keeps it from being used.
        - V(no_card), none is on the PCI bus. V(no_driver), the card is there and the driver's library is not.
          V(not_loaded), the driver is installed and its kernel module does not answer.
        - V(version_mismatch), the driver was upgraded and the host not rebooted. V(gpu_lost), the card fell off the bus.
          V(permission), the user may not ask.
        - V(no_bindings), the driver runs and nvidia-ml-py is missing on the host. V(unknown), anything else; RV(gpu.code) and RV(gpu.hint) tell more.
      type: str
      sample: ok
    code:
      description: NVML's code for what failed; null where it gave none.
      type: int
      sample: 18
    hint:
      description: What the state means and what to do about it. Empty with V(ok).
      type: str
      sample: ""
    driver_version:
      description: The driver's version, as NVML tells it, else that of the loaded kernel module; null without either.
      type: str
      sample: 580.95.05
    cuda_driver_version:
      description: The newest CUDA that the driver runs; null where NVML does not answer, or where the driver's libcuda is not installed.
      type: str
      sample: "13.0"
    nvml_version:
      description: The version of the management library; null where it does not answer. It also answers without a driver.
      type: str
      sample: 13.580.95.05
    module:
      description: The driver's kernel module.
      type: dict
      contains:
        loaded:
          description: Whether the kernel has it.
          type: bool
          sample: true
        version:
          description: The version of the loaded module; null when there is none.
          type: str
          sample: 580.95.05
        open:
          description: Whether it is the open kind, which drives Turing and later only; null when there is none.
          type: bool
          sample: false
    cards:
      description: NVIDIA's cards on the PCI bus, whatever their driver's state.
      type: list
      elements: dict
      contains:
        bus_id:
          description: The card's address.
          type: str
          sample: "0000:01:00.0"
        vendor_id:
          description: Always NVIDIA's number.
          type: str
          sample: "0x10de"
        device_id:
          description: The number of the chip's variant.
          type: str
          sample: "0x1c31"
        class:
          description: The PCI class, V(0x030000) for one that can drive a screen, V(0x030200) for one that only computes.
          type: str
          sample: "0x030000"
        name:
          description: The product, as the driver names it, else from the host's C(pci.ids); null where neither tells.
          type: str
          sample: Quadro P2200
        driver:
          description: The kernel driver that holds the card, such as V(nvidia), V(nouveau) or V(vfio-pci); null when none does.
          type: str
          sample: nvidia
    gpus:
      description: The GPUs that NVML knows. In each, null is what the card or its driver does not tell, and everything when it is lost.
      type: list
      elements: dict
      contains:
        index:
          description: NVML's number of the GPU, which may change with a reboot.
          type: int
          sample: 0
        name:
          description: The product.
          type: str
          sample: Quadro P2200
        uuid:
          description: The GPU's own name for itself, which stays.
          type: str
          sample: GPU-5b1f6a4e-8c1d-4c61-9d3a-0c6f2a1b7e55
        bus_id:
          description: Its address on the PCI bus, as in RV(gpu.cards[].bus_id).
          type: str
          sample: "0000:01:00.0"
        memory:
          description: The card's memory.
          type: dict
          contains:
            total_mib:
              description: All of it.
              type: int
              sample: 5120
            used_mib:
              description: What processes have. From a driver that does not tell the reserved part apart, including it.
              type: int
              sample: 4483
            free_mib:
              description: What can still be had.
              type: int
              sample: 576
            reserved_mib:
              description: What the driver and the card keep for themselves.
              type: int
              sample: 61
        compute_capability:
          description: What the GPU can do, as CUDA numbers it.
          type: str
          sample: "6.1"
        architecture:
          description: The generation.
          type: str
          sample: Pascal
        mig_mode:
          description: V(enabled) when the GPU is cut into slices, V(disabled) when it could be.
          type: str
          sample: disabled
        ecc_mode:
          description: Whether its memory corrects errors, V(enabled) or V(disabled).
          type: str
          sample: disabled
        power_limit_w:
          description: The power it may draw, in watts.
          type: float
          sample: 75.0
        temperature_c:
          description: Its temperature, in degrees Celsius.
          type: int
          sample: 41
        processes:
          description: The processes that use it, by number.
          type: list
          elements: dict
          contains:
            pid:
              description: The process on the host.
              type: int
              sample: 4321
            name:
              description: Its program.
              type: str
              sample: /usr/lib/ollama/llama-server
            memory_mib:
              description: The memory it has on the GPU.
              type: int
              sample: 4400
            container:
              description: The full id of the container it runs in; null for one of the host's own.
              type: str
              sample: 4f1c0e9d2b7a4f1c0e9d2b7a4f1c0e9d2b7a4f1c0e9d2b7a4f1c0e9d2b7a4f1c
            type:
              description: V(compute) or V(graphics). One that does both is V(compute).
              type: str
              sample: compute
        error:
          description: What failed first when it was read; null for a GPU that answers.
          type: str
          sample: "nvmlDeviceGetHandleByIndex: GPU is lost (NVML code 15)"
    toolkit:
      description: What hands GPUs to containers.
      type: dict
      contains:
        version:
          description: The version of the NVIDIA Container Toolkit; null without one.
          type: str
          sample: 1.19.1
        cdi_spec:
          description: >-
            The specification of C(nvidia.com/gpu) that Docker reads (from C(/var/run/cdi), else C(/etc/cdi)), the weightier one where there are more;
            null without one.
          type: str
          sample: /var/run/cdi/nvidia.yaml
        cdi_devices:
          description: The devices that can be asked for, from all specifications of C(nvidia.com/gpu).
          type: list
          elements: str
          sample: [nvidia.com/gpu=0, nvidia.com/gpu=all]
        cdi_driver_version:
          description: The driver that RV(gpu.toolkit.cdi_spec) was written for; null where it does not tell.
          type: str
          sample: 580.95.05
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.erni_ki.inference.plugins.module_utils._gpu_info import TIMEOUT_S, GpuError, detect


def main():
    module = AnsibleModule(
        argument_spec={"sysroot": {"type": "path", "default": "/"}, "timeout": {"type": "float", "default": TIMEOUT_S}},
        supports_check_mode=True,
    )
    timeout = module.params["timeout"]
    if timeout <= 0:
        module.fail_json(msg=f"timeout is {timeout:g} s; it must be above 0, such as {TIMEOUT_S:g}.")
    try:
        gpu = detect(module.params["sysroot"], timeout)
    except GpuError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, gpu=gpu)


if __name__ == "__main__":
    main()
