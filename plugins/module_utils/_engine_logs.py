# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the engines, their runtimes and Docker write when a service cannot start, and what it means.

A table: the first row that matches anywhere wins, so a deeper cause stands above what it brings about.
"""
from __future__ import annotations

import re
from typing import NamedTuple

BOTH = ("vllm", "ollama")
VLLM = ("vllm",)

_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# vLLM puts the process, the level, the time and the place before each line; they only hide what it says.
_PREFIX = re.compile(r"^\([^)]*pid=\d+\)\s*|^(?:ERROR|WARNING|INFO|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\]\s*")

_EXCERPT = 400


class Row(NamedTuple):
    """One text of an engine: where it comes from, how it reads, and what to tell a person."""

    code: str
    services: tuple
    pattern: str
    cause: str
    cure: str


LOGS = (
    Row("kv_cache_too_large", VLLM, r"less than requested memory for kv|less than desired CPU memory utilization",
        "The KV cache does not fit: runtime (about 1.8 GiB), weights and KV cache together exceed the memory limit.",
        "Set plan_vllm_weights_mib, so that the plan can lower the KV cache, or raise plan_vllm_memory_limit_mib; then run the playbook site."),
    Row("kv_cache_too_small", VLLM, r"larger than the available KV cache memory|No available memory for the cache blocks",
        "The KV cache is too small for a single request of the model's context length.",
        "Lower plan_vllm_max_model_len to what the log offers, or raise plan_vllm_kv_cache_gib; then run the playbook site."),
    Row("block_size", VLLM, r"No common block size",
        "The block size is none that this version of the engine knows: on CPUs it must be a multiple of 32.",
        "Set plan_vllm_engine_version to the version in the image, so that the plan takes a block size that it accepts; then run the playbook site."),
    Row("shm_too_small", BOTH, r"Insufficient space in /dev/shm|No space left on device: '/(?:dev/shm|psm_)|shared memory.*No space left|bus error",
        "/dev/shm of the container is too small: the engine's processes exchange about 240 MiB through it.",
        "Set plan_vllm_shm_mib to 256 or more, and run the playbook site."),
    Row("compiler_missing", VLLM, r"InvalidCxxCompiler|No working C\+\+ compiler",
        "The model is to be compiled, and the image has no C++ compiler.",
        "Set vllm_enforce_eager: true (the default), or take an image with a compiler; then run the playbook site."),
    Row("bind_invalid", VLLM, r"parse_id_list(?s:.{0,1500}?)ValueError: [^\n]+|doesn't match local world size",
        "VLLM_CPU_OMP_THREADS_BIND is no list of CPUs.",
        "Set plan_vllm_omp_bind to a list such as 0-6, or to nothing, and run the playbook site."),
    Row("bind_outside_cpuset", VLLM,
        r"libgomp: Thread creation failed|libgomp: .*(?:usable logical CPUs|Logical CPU number|environment variable OMP_PLACES)|OMP: Warning #12[3-5]\b",
        "The OMP threads are bound to CPUs outside of the container's cpuset.",
        "Run the playbook site: the plan binds inside the cpuset. Who sets plan_vllm_omp_bind names CPUs of the cpuset only."),
    Row("kv_cache_setting", VLLM,
        r"kv_cache_space = int\((?s:.{0,1500}?)ValueError: [^\n]+|validation error for VllmConfig\s+Value error, invalid literal for int\(\)[^\n]*",
        "VLLM_CPU_KVCACHE_SPACE is no whole number of GiB.",
        "Set plan_vllm_kv_cache_gib to a whole number, and run the playbook site."),
    Row("isa_unsupported", BOTH, r"Illegal instruction|SIGILL",
        "The image was built for a CPU with instructions that this host's has not.",
        "Take an image for this CPU: one with AVX2 kernels where /proc/cpuinfo shows no avx512f."),
    Row("disk_full", BOTH, r"No space left on device|ENOSPC",
        "A disk is full that the engine writes to.",
        "Free space where df -h shows none, then restart the container."),
    Row("permission_denied", BOTH, r"Permission ?(?:Error|denied)[^\n]*",
        "The user that the engine runs as may not read or write a file.",
        "Let that user read the model's folder (chmod -R a+rX FOLDER, weights are often saved with mode 0600), and write to its data folder."),
    Row("permission_denied", VLLM, r"No such file or directory: [^\n]*\.safetensors",
        "The engine cannot open weights that it found a moment before: this is what its library says of a file that its user may not read.",
        "Let the engine's user read the model's folder (chmod -R a+rX FOLDER); weights are often saved with mode 0600."),
    Row("model_missing", VLLM,
        r"HFValidationError|Invalid repository ID or local directory specified|Could not detect config format|does not appear to have a file named"
        r"|Cannot find any model weights|RepositoryNotFoundError|is not a local folder and is not a valid model identifier",
        "The model is not where the engine looks for it.",
        "Check vllm_model: a folder on the host with config.json and the weights, or a name on the hub; then run the playbook site."),
    Row("hub_unreachable", VLLM, r"LocalEntryNotFoundError|couldn't connect to|outgoing traffic has been disabled|Max retries exceeded",
        "The model is to come from the hub, which cannot be reached.",
        "Give the host a way to the hub, or put the model into a folder on the host and set vllm_model to it."),
    Row("argument_refused", VLLM, r"error: (?:unrecognized arguments|argument )[^\n]*",
        "This version of the engine does not know an argument that it was given.",
        "Take it out of vllm_extra_args, and run the playbook site."),
    Row("memory_exhausted", BOTH, r"can't allocate memory|std::bad_alloc|MemoryError|Cannot allocate memory",
        "The engine got no more memory from the kernel.",
        "Give a smaller model, KV cache or context, or a higher memory limit; then run the playbook site."),
    Row("port_taken", BOTH, r"address already in use",
        "Another program listens on the port of the service.",
        "ss -ltnp shows who; stop it, or take another port (vllm_port, ollama_port) and run the playbook site."),
)

# What Docker itself says of a container that it could not start (State.Error).
DOCKER = (
    Row("port_taken", BOTH, r"port is already allocated|address already in use|failed to bind host port",
        "Another program listens on the port of the service.",
        "ss -ltnp shows who; stop it, or take another port (vllm_port, ollama_port) and run the playbook site."),
    Row("gpu_handover_failed", BOTH, r"CDI device|could not select device driver|nvidia-container",
        "Docker could not hand over the GPU: the CDI specification lacks it, or the container toolkit is not there.",
        "systemctl restart nvidia-cdi-refresh.service, or run the playbook site; then docker start the container."),
    Row("bind_mount_missing", BOTH, r"error mounting|bind source path does not exist|no such file or directory",
        "A folder or program that the container needs is not there.",
        "Put it back (the error names it), or run the playbook site."),
    Row("cgroup_refused", BOTH, r"cpuset|cgroup",
        "The kernel refused the container's control group: a CPU that went offline, or a slice that is held to other CPUs.",
        "Run the playbook site, which makes slices and container anew from the plan."),
)

# What the exit code of a main process tells where its log does not.
EXITS = {
    132: Row("isa_unsupported", BOTH, "", "It ended by SIGILL: the image was built for a CPU with instructions that this host's has not.",
             "Take an image for this CPU: one with AVX2 kernels where /proc/cpuinfo shows no avx512f."),
    135: Row("shm_too_small", BOTH, "", "It ended by SIGBUS, as happens when /dev/shm is full.",
             "Set plan_vllm_shm_mib to 256 or more, and run the playbook site."),
    137: Row("killed", BOTH, "", "It was killed (SIGKILL), and not for the container's memory limit: by docker kill, or for want of memory on the whole host.",
             "journalctl -k | grep -i oom tells whether the kernel did it. docker start brings it back."),
}


def plain(text):
    """Return a log without colours."""
    return _COLOUR.sub("", text)


def lines_of(text, most):
    """Return the last lines that say something."""
    lines = [line.rstrip() for line in plain(text).splitlines()]
    return [line for line in lines if line][-most:]


def explain(text, service, rows=LOGS):
    """Return (Row, the text that shows it) of the deepest cause that a log tells, or None."""
    text = plain(text)
    for row in rows:
        if service not in row.services:
            continue
        found = None
        for found in re.finditer(row.pattern, text, re.IGNORECASE):
            continue
        if found:
            return row, _shown(text, found)
    return None


def _shown(text, found):
    """Return the line in which a match ends, without what the engine puts before every line."""
    begin = text.rfind("\n", 0, found.end()) + 1
    end = text.find("\n", found.end())
    line = text[begin:end if end >= 0 else len(text)].strip()
    while True:
        shorter = _PREFIX.sub("", line)
        if shorter == line:
            return line if len(line) <= _EXCERPT else line[:_EXCERPT - 1] + "…"
        line = shorter
