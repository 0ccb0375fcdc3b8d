# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans as the roles get them."""
from __future__ import annotations

UUID = "GPU-57a2d1e5-0000-4000-8000-0000000c1c31"
NONE = {"kind": "none", "uuid": None, "name": None}


def gpu(**vram):
    return {
        "kind": "gpu", "uuid": UUID, "name": "Quadro P2200", "bus_id": "0000:01:00.0", "compute_capability": "6.1", "memory_total_mib": 5120,
        "cdi_device": f"nvidia.com/gpu={UUID}", "library": "cuda_v12", "driver": {"found": "580.95.05", "allowed": "570-580"}, "handover": "cdi",
        "vram": {"total_mib": 5120, "reserve_mib": 500, "weights_mib": 2000, "kv_cache_mib": 448, "left_mib": 2172, "context_length": 4096, "parallel": 1,
                 "kv_cache_type": "f16", "max_loaded_models": 1, "partial_allowed": False, **vram},
    }


def plan(device=None):
    """A plan with Ollama on the last core."""
    return {
        "schema_version": 1, "vllm": None,
        "ollama": {
            "container": "ollama", "slice": "erniki-ollama.slice", "policy": "reserved", "cores": [7], "cpuset": "7,15", "cpuset_mems": "0", "threads": 1,
            "memory": {"limit_mib": 4096, "swap_limit_mib": 4096, "reservation_mib": 1024}, "device": device or NONE},
    }
