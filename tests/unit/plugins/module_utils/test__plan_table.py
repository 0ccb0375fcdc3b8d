# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils import _plan_table
from ansible_collections.erni_ki.inference.plugins.module_utils._plan import decide
from ansible_collections.erni_ki.inference.plugins.module_utils._sizing import RUNTIME_MIB
from ansible_collections.erni_ki.inference.tests.unit.plugins.plan_strategies import GPU, adjacent, gpu, gpu_facts, split, topology


def test_a_plan():
    found = decide(topology(split(8)), None, GPU, {"isolation": "exclusive"})
    assert found["table"] == [
        "Test CPU: 8 cores, 16 logical CPUs, 32000 MiB, x86_64; isolation: exclusive",
        "",
        "        cores  cpuset    threads          memory                   device",
        "vLLM    0-6    0-6,8-14  7, bound to 0-6  limit 6144 MiB, no swap  none (runc)",
        "                                          reserved 2048 MiB",
        "                                          shm 256 MiB",
        "                                          KV cache 4 GiB",
        "Ollama  7      7,15      1                limit 4096 MiB, no swap  Quadro P2200",
        "                                          reserved 1024 MiB        GPU-1b2c3d4e-0000-1111-",
        "                                                                   2222-333344445555",
        "system  7      7,15                       21760 MiB left",
        "",
        "GPU:  Quadro P2200, compute capability 6.1, driver 580.95.05 (allowed 570-580), cuda_v12, handed over by CDI",
        "VRAM: 5120 MiB: overhead 1853, model unknown, KV cache 576 (4096 tokens, f16), 2691 MiB left",
        "",
        "What was adjusted, and what to know:",
        f"  - weights-unknown: The size of vLLM's model is not known: {2048 - RUNTIME_MIB} MiB are left for it and for the page cache of",
        "    its files. Set vllm_weights_mib to have that checked.",
        "  - block-size: Block size 16 became 32: vLLM 0.32.0 does not take 16 on a CPU.",
        "  - model-unknown: The size of Ollama's model is not known, 2691 MiB of Quadro P2200 are left for it; its KV",
        "    cache is reckoned at 147456 bytes per token, which few models of its kind exceed. Set ollama_model_mib and",
        "    ollama_kv_bytes_per_token to have it checked.",
    ]


def test_violations():
    found = decide(topology(split(8)), None, None, {"vllm_cores": "0-7", "x": 1})
    assert found["table"] == [
        "No plan: 3 rules are broken, and nothing was changed.",
        "",
        "1. unknown-option: 'x' is not a key of the policy.",
        "   asked: x: 1",
        "   found: no key is close to it",
        "   works: x: drop it",
        "",
        "2. core-reserved: vLLM's core 7 is reserved for the system, and no core is shared.",
        '   asked: vllm_cores: "0-7"',
        "   found: reserved for the system: core 7",
        '   works: vllm_cores: "0-6"',
        "",
        "3. gpu-required: Ollama is to run on a GPU, and none was found on this host. Check the card and its driver, or",
        "   let Ollama run on CPUs with ollama_require_gpu: false.",
        "   asked: ollama_require_gpu: true",
        "   found: no GPU",
        "   works: ollama_require_gpu: false",
        "",
        "Each 'works' is meant together with all the others.",
    ]


def test_a_violation_that_no_policy_helps():
    found = decide(None)
    assert found["table"][0] == "No plan: 1 rule is broken, and nothing was changed."
    assert found["table"][-1] == "   works: nothing in the policy helps here"


def test_the_other_parties():
    lines = decide(topology(split(8), model_name=None), None, None, {"services": "vllm", "vllm_omp": "auto"})["table"]
    assert lines[0].startswith("x86_64: 8 cores") and any(line.startswith("vLLM") and "6, bound by vLLM" in line for line in lines)
    assert not any(line.startswith("Ollama") for line in lines)
    lines = decide(topology(split(8)), None, None, {"services": "ollama", "ollama_require_gpu": False})["table"]
    assert any(line.startswith("Ollama") and line.endswith("none (CPU)") for line in lines) and not any(line.startswith("vLLM") for line in lines)


def test_many_cpus_go_on_in_the_next_line():
    found = decide(topology(adjacent(64)), None, GPU, {"vllm_smt": "idle"})
    assert all(len(line) <= _plan_table.WIDTH for line in found["table"])
    cells = [line[15:35].strip() for line in found["table"][3:30]]
    assert cells[0] == "0,2,4,6,8,10,12,14," and "".join(cells).startswith(found["plan"]["vllm"]["cpuset"])


def test_no_line_too_long_whatever_is_in_it():
    found = decide(topology(split(8), model_name="M" * 300), None, gpu_facts(gpu(name="N" * 80)), {})
    assert all(len(line) <= _plan_table.WIDTH for line in found["table"])
    found = decide(topology(split(8)), None, GPU, {"y" * 300: "z" * 3000})
    assert all(len(line) <= _plan_table.WIDTH for line in found["table"]) and len(found["table"]) < 20


@pytest.mark.parametrize("text, lines", [
    ("", []), ("  ", []), ("abc", ["abc"]), ("abcdef", ["abcd", "ef"]), ("ab cd ef", ["ab", "cd", "ef"]), ("a,b,c,d", ["a,b,", "c,d"]), ("a b", ["a b"]),
    ("abcdefghi jk", ["abcd", "efgh", "i jk"]), ("ab  cd", ["ab", "cd"]), ("a\nb", ["a\nb"]),
])
def test_wrapping(text, lines):
    assert _plan_table._wrap(text, 4) == lines
