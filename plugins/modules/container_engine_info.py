#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: container_engine_info
version_added: 0.1.0
short_description: Tells which container engine a host has, and what runs on it
description:
  - Finds the Docker Engine, or what answers in its place, by its command line, so that it works on a host on which nothing is prepared.
  - Tells engines apart that behave differently, such as a snap (which hides devices and paths from containers) or Podman's emulation of the C(docker) command.
  - A host without an engine, and an engine that does not answer, are results, not errors.
author: The erni_ki.inference team (@erni-ki)
extends_documentation_fragment:
  - erni_ki.inference._attributes
  - erni_ki.inference._attributes.info
notes:
  - The engine is the one that the C(docker) command speaks to; E(DOCKER_HOST) in the environment of the task counts.
options:
  timeout:
    description: How long, in seconds, each command may take. An engine that hangs is reported in RV(container_engine.error).
    type: float
    default: 30
"""

EXAMPLES = r"""
- name: Look at the container engine
  erni_ki.inference.container_engine_info:
  register: engine

- name: Refuse an engine that cannot hand out devices
  ansible.builtin.assert:
    that: engine.container_engine.flavor != 'snap'
    fail_msg: The Docker snap hides devices from containers. Remove it (snap remove docker), then run again.
"""

RETURN = r"""
container_engine:
  description: The engine.
  returned: success
  type: dict
  contains:
    flavor:
      description: >-
        Where the engine comes from. V(docker-ce) is Docker's own repository, V(distribution) that of the operating system, V(podman-docker) is Podman under
        the name C(docker), V(none) is a host without an engine, and V(unknown) one that no package owns.
      type: str
      sample: distribution
    installed:
      description: Whether a C(docker) or C(dockerd) program is there.
      type: bool
    reachable:
      description: Whether the engine answers.
      type: bool
    version:
      description: The version of the engine, also of one that is installed and stopped; null where it is not known.
      type: str
      sample: 26.1.5
    cgroup_driver:
      description: V(systemd) or V(cgroupfs); null where the engine does not answer.
      type: str
      sample: systemd
    cgroup_version:
      description: The version of control groups the engine uses, V(1) or V(2); null where it does not answer.
      type: int
      sample: 2
    data_root:
      description: The folder of images and containers; null where the engine does not answer.
      type: str
      sample: /var/lib/docker
    live_restore:
      description: Whether containers go on while the engine restarts; null where it does not tell.
      type: bool
    runtimes:
      description: The names of the runtimes the engine knows.
      type: list
      elements: str
      sample: [io.containerd.runc.v2, runc]
    default_runtime:
      description: The runtime of containers that name none; null where the engine does not answer.
      type: str
      sample: runc
    compose:
      description: Docker Compose.
      type: dict
      contains:
        kind:
          description: V(v2) is the plugin behind C(docker compose), V(v1) only the old C(docker-compose) program, V(none) neither.
          type: str
          sample: v2
        version:
          description: Its version; null where there is none.
          type: str
          sample: 2.26.1
    containers:
      description: The running containers (also paused and restarting ones), by name.
      type: list
      elements: dict
      contains:
        name:
          description: The container's name.
          type: str
          sample: vllm
        id:
          description: Its full id, 64 hexadecimal digits.
          type: str
          sample: 4f66ad9a0b2e3c6d5e7f8a9b0c1d2e3f4a5b6c7d8e9f0a1b2c3d4e5f60718293
        image:
          description: The image as it was asked for.
          type: str
          sample: vllm/vllm-openai-cpu:v0.32.0-x86_64
        state:
          description: V(running), V(paused) or V(restarting).
          type: str
          sample: running
        cgroup_parent:
          description: The control group or slice that was asked for; empty for the engine's default.
          type: str
          sample: erniki-vllm.slice
        cpuset:
          description: The logical CPUs that were asked for; empty for all.
          type: str
          sample: 0-6,8-14
        compose_project:
          description: The Compose project the container belongs to; null where it belongs to none.
          type: str
          sample: erni-ki
    error:
      description: Why the engine did not answer, in its own words; null where it did, and where there is none.
      type: str
      sample: "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.erni_ki.inference.plugins.module_utils import _engine


def main():
    module = AnsibleModule(
        argument_spec={"timeout": {"type": "float", "default": 30}},
        supports_check_mode=True,
    )
    timeout = module.params["timeout"]
    if timeout <= 0:
        module.fail_json(msg=f"timeout is {timeout:g} s; it must be above 0, such as 30.")
    module.exit_json(changed=False, container_engine=_engine.collect(timeout))


if __name__ == "__main__":
    main()
