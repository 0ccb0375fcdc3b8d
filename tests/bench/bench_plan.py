# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prints how long a plan takes for 2 sockets with 128 threads each, and a refusal of everything at once. Nothing is asserted."""
from __future__ import annotations

import pathlib
import statistics
import sys
import time

REPO = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / ".cache" / "collections"))
LINK = REPO / ".cache" / "collections" / "ansible_collections" / "erni_ki" / "inference"
if not LINK.exists():
    LINK.parent.mkdir(parents=True, exist_ok=True)
    LINK.symlink_to(REPO)

from ansible_collections.erni_ki.inference.plugins.module_utils._plan import decide, render_plan  # noqa: E402

SOCKETS, CORES = 2, 64
TARGET_MS = 20
ROUNDS = 200


def host():
    """Siblings after all cores, as most servers number them."""
    count = SOCKETS * CORES
    cores = [{"index": core, "package": core // CORES, "cluster": None, "core_id": core % CORES, "numa_node": core // CORES, "cpus": [core, core + count],
              "kind": "uniform"} for core in range(count)]
    everything = f"0-{2 * count - 1}"
    return {
        "architecture": "x86_64", "model_name": "2 sockets, 128 threads each", "vendor": None, "flags": ["avx2", "avx512f"], "cores": cores,
        "cpus": {"present": everything, "online": everything, "offline": "", "isolated": "", "usable": everything},
        "smt": {"active": True, "control": "on", "threads_per_core": 2},
        "numa_nodes": [{"node": node, "cpus": "", "memory_total_mib": 262144, "memory_free_mib": 1} for node in range(SOCKETS)],
        "memory": {"total_mib": 524288, "available_mib": 524288, "swap_total_mib": 0}, "cgroup": {"version": 2, "mode": "unified"}, "init_system": "systemd"}


def gpus():
    """Eight of a kind, each held in part by 16 processes."""
    found = [
        {"index": number, "name": "NVIDIA H200", "uuid": f"GPU-{number}", "bus_id": f"0000:0{number}:00.0", "compute_capability": "9.0",
         "architecture": "Hopper", "memory": {"total_mib": 143771, "used_mib": 0, "free_mib": 143000 - number, "reserved_mib": 600}, "mig_mode": "disabled",
         "processes": [{"pid": pid, "name": "python", "memory_mib": 16, "container": None} for pid in range(16)], "error": None} for number in range(8)]
    cards = [{"bus_id": gpu["bus_id"], "vendor_id": "0x10de", "device_id": "0x2335", "class": "0x030200", "name": None, "driver": "nvidia"} for gpu in found]
    return {"state": "ok", "driver_version": "580.95.05", "module": {"loaded": True, "version": "580.95.05", "open": True}, "cards": cards, "gpus": found,
            "toolkit": {"version": "1.19.1"}}


QUESTIONS = (
    ("defaults", {"ollama_require_gpu": False}),
    ("exclusive, spanning, idle siblings", {"ollama_require_gpu": False, "isolation": "exclusive", "vllm_numa": "span", "vllm_smt": "idle"}),
    ("eight GPUs", {"ollama_model_mib": 40000, "ollama_parallel": 4}),
    ("a model that fits on none of them", {"ollama_model_mib": 150000, "ollama_context_length": 1 << 20, "ollama_max_loaded_models": 3}),
    ("refused for ten reasons", {
        "reserved_cores": 500, "vllm_cpus": "0-70", "vllm_omp_bind": "255", "vllm_kv_cache_gib": 9, "vllm_kv_cache_fixed": True, "vllm_smt": "off",
        "ollama_cpus": "200", "ollama_memory_limit_mib": 999999, "vllm_nodes": 2}),
)


def main():
    facts, cards = host(), gpus()
    print(f"A plan for {SOCKETS} sockets x {2 * CORES} threads, {ROUNDS} rounds each; the target is {TARGET_MS} ms.")
    for name, policy in QUESTIONS:
        times = []
        for _round in range(ROUNDS):
            start = time.perf_counter()
            result = decide(facts, None, cards if "ollama_model_mib" in policy else None, policy)
            if result["plan"]:
                render_plan(result["plan"])
            times.append(1000 * (time.perf_counter() - start))
        print(f"  {name:36} median {statistics.median(times):6.2f} ms   worst {max(times):6.2f} ms")


if __name__ == "__main__":
    main()
