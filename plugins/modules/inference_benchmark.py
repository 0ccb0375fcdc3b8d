#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: inference_benchmark
version_added: 0.1.0
short_description: Measures what inference services lose by each other and by CPU-bound neighbours
description:
  - Asks the streaming APIs of both services for tokens and notes when each comes. Each service alone, both at once, and each of these cases with a
    CPU-bound process (a burner) for every CPU on which the kernel lets such a process run. Pinning alone loses a third in that case, and no benchmark
    that leaves a CPU idle shows it.
  - Every round runs every case once, in a changing order, so that slow drift meets all of them alike. A loss compares runs of the same round.
  - A run in which somebody else used the measured CPUs, or the machine below took their time, is marked, told with the reason, and left out.
  - A loss of tokens/s above its limit is told with the likely cause, as far as the runs bear it out. The limit for CPU-bound neighbours applies where the
    plan says C(exclusive), as nothing else promises anything against them.
  - Changes no file and no setting. The services are busy meanwhile, Ollama loads the model that is asked, and so do the burners to the rest of the host.
author: The erni_ki.inference team (@erni-ki)
extends_documentation_fragment:
  - erni_ki.inference._attributes
  - erni_ki.inference._attributes.info
requirements:
  - The rights of root on the host, to see the processes of others and to take the time at a higher priority.
  - The Docker SDK for Python (the Python package C(docker)) on the host.
notes:
  - In check mode nothing is measured, as that would load the host; what could be measured is still checked, and the result has no runs.
  - Tokens/s are those after the first, divided by the seconds they took, so that the time to the first token (TTFT) is told apart. Inter-token latency
    is the time from one piece of the stream to the next; tokens that came in one piece share it. The clock is that of the host, at the client's end.
  - An answer counts when it began and ended while all services of its case were at work.
  - Every prompt begins with another number, as both engines keep what they computed for a beginning that they know.
  - The burners run in the control group of the module itself, as any program that is started in a session does, with no pinning and usual priority. They
    end with the module, also when it is killed. When the controller is gone, the module ends before its next run.
  - A loss has an error of its own. RV(losses[].loss_percent) has the range over the rounds.
options:
  plan:
    description:
      - The plan that was applied, as M(erni_ki.inference.colocation_plan) returns it.
      - Without it, the plan in O(plan_path) is read.
    type: dict
  plan_path:
    description: The file on the host that holds the plan that was applied.
    type: path
    default: /etc/erni-ki/plan.json
  services:
    description: The services to measure. All of the plan by default.
    type: list
    elements: str
    choices: [vllm, ollama]
  vllm_url:
    description: The base URL of vLLM, as seen on the host.
    type: str
    default: http://127.0.0.1:8000
  vllm_api_key_file:
    description: The file on the host that holds vLLM's API key, alone or as C(VLLM_API_KEY=...). Without it no key is sent.
    type: path
  vllm_model:
    description: The name under which vLLM serves the model to ask. The first that it lists by default.
    type: str
  ollama_url:
    description: The base URL of Ollama, as seen on the host.
    type: str
    default: http://127.0.0.1:11434
  ollama_model:
    description: The model to ask in Ollama. The first that it lists by default.
    type: str
  repeats:
    description: How many rounds are run.
    type: int
    default: 5
  warmup:
    description: How many answers each service gives before anything is measured.
    type: int
    default: 1
  tokens:
    description: How many tokens an answer has. A service that ends its answer earlier is measured by what came.
    type: int
    default: 64
  seconds:
    description: How long, in seconds, a run lasts at least. It ends when each of its services has also given a whole answer.
    type: float
    default: 10
  pause:
    description: How long, in seconds, the host is left alone before each run.
    type: float
    default: 1
  burners:
    description: Whether the cases with CPU-bound neighbours are run as well.
    type: bool
    default: true
  max_others:
    description: The percentage of one CPU that other processes may use on the measured CPUs in a run that counts.
    type: float
    default: 10
  max_steal:
    description: The percentage of the measured CPUs' time that the machine below may take in a run that counts.
    type: float
    default: 2
  max_loss_cpu:
    description: The percentage of tokens/s that a service may lose by CPU-bound neighbours, where the plan is C(exclusive).
    type: float
    default: 5
  max_loss_together:
    description:
      - The percentage of tokens/s that a service may lose when the other works too. Memory bandwidth and the last-level cache are shared, and no cpuset
        fences them.
    type: float
    default: 25
  timeout:
    description: How long, in seconds, one whole answer may take.
    type: float
    default: 300
"""

EXAMPLES = r"""
- name: Measure the interference
  erni_ki.inference.inference_benchmark:
    vllm_api_key_file: /etc/erni-ki/vllm-api-key
  register: benchmark

- name: Show it
  ansible.builtin.debug:
    msg: "{{ benchmark.table }}"

- name: End here when a service loses more than it may
  ansible.builtin.assert:
    that: benchmark.ok
    fail_msg: "{{ benchmark.summary }}"
"""

RETURN = r"""
ok:
  description: Whether every loss that has a limit is within it.
  returned: success
  type: bool
summary:
  description: The result in one line.
  returned: success
  type: str
  sample: "ok: 6 losses within their limits"
table:
  description: The result as lines of text for a person.
  returned: success
  type: list
  elements: str
results:
  description: Each case and service, as medians and ranges over the runs that count. V(null) stands in the place of figures where none counts.
  returned: success
  type: list
  elements: dict
  contains:
    case:
      description: The services at work, V(vllm), V(ollama) or V(together), with V(+burners) behind it where CPU-bound neighbours ran too.
      type: str
      sample: vllm+burners
    service:
      description: The service that the figures are of.
      type: str
      sample: vllm
    runs:
      description: How many runs count.
      type: int
      sample: 5
    runs_left_out:
      description: How many do not.
      type: int
      sample: 0
    tokens_per_second:
      description: Tokens/s after the first token. V(null) without a run that counts.
      type: dict
      sample: {median: 134.0, min: 131.0, max: 138.0}
    ttft_ms:
      description: The time to the first token in milliseconds, of each run the median. V(null) without a run that counts.
      type: dict
      sample: {median: 41.0, min: 39.5, max: 44.0}
    itl_p50_ms:
      description: The inter-token latency in milliseconds below which half of them lie. V(null) without a run that counts.
      type: dict
      sample: {median: 14.0, min: 13.8, max: 14.3}
    itl_p95_ms:
      description: The same of 95 %. V(null) without a run that counts.
      type: dict
      sample: {median: 17.2, min: 16.9, max: 18.0}
    itl_p99_ms:
      description: The same of 99 %. V(null) without a run that counts.
      type: dict
      sample: {median: 21.0, min: 20.1, max: 23.4}
    itl_curve:
      description: The distribution of all inter-token latencies of the runs that count, as points of percentage and milliseconds.
      type: list
      elements: dict
      sample: [{percent: 0, ms: 12.1}, {percent: 50, ms: 14.0}, {percent: 100, ms: 25.3}]
losses:
  description: What each service loses by its neighbours.
  returned: success
  type: list
  elements: dict
  contains:
    service:
      description: The service that loses.
      type: str
      sample: vllm
    kind:
      description: V(cpu) for CPU-bound neighbours, V(together) for the other engine.
      type: str
      sample: cpu
    base:
      description: The case that is compared with.
      type: str
      sample: vllm
    loaded:
      description: The case with the neighbours.
      type: str
      sample: vllm+burners
    rounds:
      description: How many rounds count, as both their runs do. Half of them must.
      type: int
      sample: 5
    loss_percent:
      description: The loss of tokens/s in percent; below 0 it is a gain. V(null) where no round counts.
      type: dict
      sample: {median: 1.2, min: -0.4, max: 2.0}
    limit_percent:
      description: What it may be. V(null) where nothing is promised.
      type: float
      sample: 5.0
    ok:
      description: Whether it is within its limit, or has none.
      type: bool
    cause:
      description: The likely cause of a loss that is too high; empty without.
      type: str
      sample: "Nothing keeps the burners off vLLM's CPUs 0-6,8-14: pinning holds the engine, and not its neighbours."
    cure:
      description: What to do about it; empty without.
      type: str
      sample: "plan_isolation: exclusive holds all others to the reserved cores; with it set, make diagnose tells why the fence does not hold."
runs:
  description: Every run in the order in which they were made, those that do not count too.
  returned: success
  type: list
  elements: dict
  contains:
    round:
      description: The number of the round, from 1.
      type: int
      sample: 1
    case:
      description: The case.
      type: str
      sample: together
    seconds:
      description: How long it lasted.
      type: float
      sample: 10.4
    left_out:
      description: Why it does not count; empty when it does.
      type: list
      elements: str
      sample: ["other processes used 43 % of a CPU on the measured CPUs: apt-get (process 812) 4.30 s"]
    services:
      description: For each service at work requests, tokens, C(tokens_per_second), C(ttft_ms), C(itl_p50_ms), C(itl_p95_ms) and C(itl_p99_ms). V(null) where
        no two tokens came apart in time.
      type: dict
      sample: {vllm: {requests: 21, tokens: 1344, tokens_per_second: 134.1, ttft_ms: 41.2, itl_p50_ms: 7.2, itl_p95_ms: 9.0, itl_p99_ms: 11.3}}
    service_cpus:
      description: How many CPUs each service used, those that did not work too.
      type: dict
      sample: {vllm: 6.9, ollama: 0.01}
    burner_cpus:
      description: How many CPUs the burners used.
      type: float
      sample: 0.0
    other_cpus:
      description: How many CPUs other processes used, of those that may run on the measured CPUs.
      type: float
      sample: 0.02
    others:
      description: The largest of them.
      type: list
      elements: str
      sample: ["dockerd (process 412) 0.11 s"]
    steal_percent:
      description: The share of the measured CPUs' time that the machine below took.
      type: float
      sample: 0.0
    throttled:
      description: How often the kernel stopped each service for a CPU quota.
      type: dict
      sample: {vllm: 0, ollama: 0}
    mhz:
      description: The mean frequency in MHz of the CPUs of each service at work, in the middle of the run; empty where the kernel does not tell.
      type: dict
      sample: {vllm: 3590.2}
    busy_percent:
      description: The share of its time that each CPU was busy.
      type: dict
      sample: {"0": 99.1, "1": 12.0}
host:
  description: The host as it is measured, its cores and who may use each CPU.
  returned: success
  type: dict
  contains:
    isolation:
      description: The plan's mode of isolation.
      type: str
      sample: exclusive
    model_name:
      description: The CPU's model. V(null) where the kernel does not tell.
      type: str
      sample: AMD EPYC 7402P 24-Core Processor
    cores:
      description: The physical cores, each with its number, its package and its logical CPUs.
      type: list
      elements: dict
      sample: [{core: 0, package: 0, cpus: [0, 8]}]
    owners:
      description: For each CPU who may use it, of V(vllm), V(ollama) and V(system). The last stands for everything else, as the burners found it.
      type: dict
      sample: {"0": [vllm], "7": [ollama, system]}
    cpus:
      description: The effective CPUs of each service, and of the burners.
      type: dict
      sample: {vllm: "0-6,8-14", ollama: "7,15", burners: "7,15"}
memory:
  description: What each service has of its memory limit after the last run, in MiB. A limit of V(null) is none. Memory used is what it cannot give back.
  returned: success
  type: dict
  sample: {vllm: {limit_mib: 6144, used_mib: 5100, peak_mib: 5400}}
models:
  description: The model that each service was asked for.
  returned: success
  type: dict
  sample: {vllm: tiny, ollama: "llama3.2:3b"}
settings:
  description: How it was measured, the options of these names.
  returned: success
  type: dict
  sample: {repeats: 5, tokens: 64}
"""

import select
import sys

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.erni_ki.inference.plugins.module_utils import _benchmark, _benchmark_stream, _check_api, _docker, _plan_input, _proof
from ansible_collections.erni_ki.inference.plugins.module_utils._check import Subject
from ansible_collections.erni_ki.inference.plugins.module_utils._cpulist import format_cpulist

# Option: the least that makes sense, and what is usual.
LEAST = {
    "repeats": (1, 5), "warmup": (0, 1), "tokens": (2, 64), "seconds": (0.01, 10), "pause": (0, 1), "max_others": (0, 10), "max_steal": (0, 2),
    "max_loss_cpu": (0, 5), "max_loss_together": (0, 25), "timeout": (0.01, 300),
}


DOCKER_S = 30


def drivers(module, services):
    """Return {service: Driver}; each service must list the model that it is to be asked for."""
    try:
        apis = _check_api.apis(dict(module.params, vllm_bind_address=None, ollama_bind_address=None), services)
    except ValueError as error:
        module.fail_json(msg=f"{error}.")
    found = {}
    # Another beginning in every run of the module: the engines may still know the prompts of the last one.
    number = _benchmark_stream.first_number()
    for service in services:
        found[service] = _benchmark_stream.Driver(apis[service], _benchmark_stream.find_model(apis[service]), module.params["tokens"], number)
    return found


def host(plan, measured, root="/"):
    """Return the Host around the containers; those that are measured must run, the others are nobody else where they do."""
    engine = _docker.Engine(DOCKER_S)
    groups = _proof.mounted_groups(root)
    subjects = {}
    for service in _proof.planned_services(plan):
        subject = Subject(service, plan[service], root, groups)
        subject.inspected(*engine.inspect(subject.name))
        if service in measured or subject.runs():
            subjects[service] = subject
    return _benchmark.Host(subjects, root)


def wanted():
    """Return whether somebody still reads what the module will say; with the controller goes the other end of the pipe, or of the SSH server's socket."""
    poll = select.poll()
    try:
        poll.register(sys.__stdout__.fileno(), 0)
        return not any(event & (select.POLLERR | select.POLLHUP | select.POLLNVAL) for _handle, event in poll.poll(0))
    except (OSError, ValueError, AttributeError):
        return True


def main():
    module = AnsibleModule(
        argument_spec={
            "plan": {"type": "dict"},
            "plan_path": {"type": "path", "default": "/etc/erni-ki/plan.json"},
            "services": {"type": "list", "elements": "str", "choices": ["vllm", "ollama"]},
            "vllm_url": {"type": "str", "default": "http://127.0.0.1:8000"},
            "vllm_api_key_file": {"type": "path", "no_log": False},
            "vllm_model": {"type": "str"},
            "ollama_url": {"type": "str", "default": "http://127.0.0.1:11434"},
            "ollama_model": {"type": "str"},
            "repeats": {"type": "int", "default": 5},
            "warmup": {"type": "int", "default": 1},
            "tokens": {"type": "int", "default": 64, "no_log": False},
            "seconds": {"type": "float", "default": 10},
            "pause": {"type": "float", "default": 1},
            "burners": {"type": "bool", "default": True},
            "max_others": {"type": "float", "default": 10},
            "max_steal": {"type": "float", "default": 2},
            "max_loss_cpu": {"type": "float", "default": 5},
            "max_loss_together": {"type": "float", "default": 25},
            "timeout": {"type": "float", "default": 300},
        },
        supports_check_mode=True,
    )
    params = module.params
    for name, (least, usual) in LEAST.items():
        # A value that is no number compares with nothing.
        if not least <= params[name] < float("inf"):
            module.fail_json(msg=f"{name} is {params[name]:g}; it must be {least:g} or more, such as {usual:g}.")
    if _docker.docker is None:
        module.fail_json(msg=missing_required_lib("docker"), exception=_docker.IMPORT_ERROR)
    plan = _plan_input.read_plan(module, "nothing is promised that could be measured")
    asked = _plan_input.wanted_services(module, plan, "to measure")
    settings = _benchmark.Settings(**{name: params[name] for name in _benchmark.Settings._fields})
    try:
        around = host(plan, asked)
        bench = _benchmark.Bench(around, drivers(module, asked), settings, module.debug, wanted)
        runs = [] if module.check_mode else bench.measure()
    except _benchmark_stream.BenchmarkError as error:
        module.fail_json(msg=f"{error}.")
    rows = _benchmark.results(runs, bench.cases, bench.gaps)
    losses = _benchmark.judge(runs, bench.cases, around, plan, settings) if runs else []
    ok, summary = _benchmark.verdict(losses, runs)
    module.exit_json(
        changed=False, ok=ok, summary=summary, table=_benchmark.table(rows, losses, runs), results=rows, losses=losses, runs=runs,
        host={
            "isolation": plan["isolation"], **around.map(),
            "cpus": {**{service: format_cpulist(cpus) for service, cpus in around.cpus.items()}, "burners": format_cpulist(around.reachable)}},
        memory=around.memory(), models={service: driver.model for service, driver in bench.drivers.items()}, settings=settings._asdict(),
    )


if __name__ == "__main__":
    main()
