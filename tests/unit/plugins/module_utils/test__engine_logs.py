# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What real engines wrote when they could not start, and what it is taken for."""
from __future__ import annotations

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils import _engine_logs

FRONT = "(EngineCore pid=142) ERROR 11-27 15:40:02 [core.py:1093] "

# What follows every failure of vLLM's engine, and must not be taken for its reason.
AFTER = f"""{FRONT}EngineCore failed to start.
(APIServer pid=1)   File "/opt/venv/lib/python3.11/site-packages/vllm/v1/engine/core_client.py", line 523, in __init__
(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {{}}
"""

KV = (f"{FRONT}ValueError: Available memory on node 0 (4.12/6.0 GiB) on kv cache allocation is less than requested memory for kv (8.0 GiB)."
      " Decrease --kv-cache-memory-bytes, VLLM_CPU_KVCACHE_SPACE, or reduce CPU memory used by other processes.\n")
BIND = """(EngineCore pid=142)   File "/opt/venv/lib/python3.11/site-packages/vllm/utils/ompmultiprocessing.py", line 164, in <listcomp>
(EngineCore pid=142)     self.cpu_lists = [cr_utils.parse_id_list(s) for s in omp_cpuids_list]
(EngineCore pid=142)   File "/opt/venv/lib/python3.11/site-packages/vllm/utils/cpu_resource_utils.py", line 185, in parse_id_list
(EngineCore pid=142)     result.append(int(part))
(EngineCore pid=142) ValueError: invalid literal for int() with base 10: 'foo'
"""
KV_SETTING = """(APIServer pid=1)   File "/opt/venv/lib/python3.11/site-packages/vllm/platforms/cpu.py", line 326, in check_and_update_config
(APIServer pid=1)     kv_cache_space = int(os.environ[env_key])
(APIServer pid=1) ValueError: invalid literal for int() with base 10: '4.5'
"""

# Code, engine, its text, and words of the evidence.
TEXTS = [
    ("kv_cache_too_large", "vllm", KV, "requested memory for kv (8.0 GiB)"),
    ("kv_cache_too_large", "vllm", FRONT + "RuntimeError: Worker failed with error 'Available memory on node 0 (7.52/13.34 GiB) on kv cache allocation is less"
     " than requested memory for kv (800.0 GiB). Decrease --kv-cache-memory-bytes, VLLM_CPU_KVCACHE_SPACE, or reduce CPU memory used by other processes.',"
     " please check the stack trace above for the root cause\n", "800.0 GiB"),
    ("kv_cache_too_large", "vllm", FRONT + "ValueError: Available memory on node 0 (3.1/6.0 GiB) on startup is less than desired CPU memory utilization"
     " (0.92, 5.52 GiB).\n", "desired CPU memory"),
    ("kv_cache_too_small", "vllm", FRONT + "ValueError: To serve at least one request with the model's max seq len (131072), (3.5 GiB KV cache is needed,"
     " which is larger than the available KV cache memory (1.0 GiB). Based on the available memory, the estimated maximum model length is 37440.\n", "37440"),
    ("kv_cache_setting", "vllm", KV_SETTING, "'4.5'"),
    ("kv_cache_setting", "vllm", "pydantic_core._pydantic_core.ValidationError: 1 validation error for VllmConfig\n  Value error, invalid literal for int()"
     " with base 10: '4.5' [type=value_error, input_value=ArgsKwargs((), {'model_co... 'shutdown_timeout': 0}), input_type=ArgsKwargs]\n", "'4.5'"),
    ("block_size", "vllm", FRONT + "ValueError: No common block size for 16 (CPU_ATTN: [MultipleOf(32)]).\n", "for 16"),
    ("shm_too_small", "vllm", FRONT + "RuntimeError: Insufficient space in /dev/shm for shared-memory allocation: 160 MiB required, 64 MiB free."
     " Increase /dev/shm (e.g. --shm-size or --ipc=host).\n", "64 MiB free"),
    ("shm_too_small", "vllm", "ERROR: Unexpected bus error encountered in worker. This might be caused by insufficient shared memory (shm).\n", "bus error"),
    ("compiler_missing", "vllm", FRONT + "torch._inductor.exc.InductorError: InvalidCxxCompiler: No working C++ compiler found in"
     " torch._inductor.config.cpp.cxx: (None, 'g++')\n", "g++"),
    ("bind_invalid", "vllm", BIND, "'foo'"),
    ("bind_outside_cpuset", "vllm", "libgomp: Thread creation failed: Invalid argument\n", "Invalid argument"),
    ("bind_outside_cpuset", "vllm", "\nlibgomp: Invalid value for environment variable OMP_PLACES\n", "OMP_PLACES"),
    ("bind_outside_cpuset", "vllm",
     "\nlibgomp: Number of places reduced from 2 to 1 because some places didn't contain any usable logical CPUs\n", "usable logical CPUs"),
    ("bind_outside_cpuset", "vllm", "OMP: Warning #124: KMP_AFFINITY: invalid OS proc ID 15 ignored.\n", "#124"),
    ("bind_outside_cpuset", "vllm", "OMP: Warning #125: KMP_AFFINITY: no valid OS proc IDs specified - not using affinity.\n", "#125"),
    ("isa_unsupported", "vllm", "!!!!!!! Segfault encountered !!!!!!!\nIllegal instruction (core dumped)\n", "Illegal"),
    ("permission_denied", "vllm", FRONT + "PermissionError: [Errno 13] Permission denied: '/srv/models/tiny/model.safetensors'\n", "model.safetensors"),
    ("permission_denied", "vllm", FRONT + "FileNotFoundError: No such file or directory: /srv/models/locked/model.safetensors\n", "locked"),
    ("permission_denied", "ollama", "Error: could not create directory mkdir /root/.ollama/models: permission denied\n", "mkdir"),
    ("disk_full", "ollama", 'time=2026-11-27T15:40:02Z level=ERROR msg="write" err="write /root/.ollama/models/blobs/sha256-1: no space left on device"\n',
     "sha256-1"),
    ("disk_full", "vllm", "OSError: [Errno 28] No space left on device: '/var/lib/erni-ki/vllm/hub'\n", "hub"),
    ("model_missing", "vllm", "(APIServer pid=1) ValueError: Invalid repository ID or local directory specified: '/srv/models/none'.\n", "/srv/models/none"),
    ("model_missing", "vllm", "huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name' or 'namespace/repo_name': '/srv/models/none'."
     " Use `repo_type` argument if needed.\n", "/srv/models/none"),
    ("model_missing", "vllm", FRONT + "RuntimeError: Cannot find any model weights with `/srv/models/tiny`\n", "/srv/models/tiny"),
    ("hub_unreachable", "vllm", "OSError: We couldn't connect to 'the hub' to load the files, and couldn't find them in the cached files.\n",
     "couldn't connect"),
    ("argument_refused", "vllm", "usage: vllm serve [model_tag] [options]\nvllm: error: unrecognized arguments: --no-such-thing\n", "--no-such-thing"),
    ("memory_exhausted", "vllm", FRONT + "RuntimeError: [enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"
     " allocate 4294967296 bytes. Error code 12 (Cannot allocate memory)\n", "4294967296"),
    ("port_taken", "ollama", "Error: listen tcp 0.0.0.0:11434: bind: address already in use\n", "11434"),
]


@pytest.mark.parametrize("code, service, text, words", TEXTS, ids=[f"{row[0]}-{number}" for number, row in enumerate(TEXTS)])
def test_the_engines_own_words(code, service, text, words):
    row, shown = _engine_logs.explain("INFO 11-27 15:39:58 [api_server.py:1346] vLLM API server version 0.32.0\n" + text + AFTER, service)
    assert row.code == code and words in shown
    assert row.cause and row.cure


def test_every_row_is_provoked():
    assert {row.code for row in _engine_logs.LOGS} == {row[0] for row in TEXTS}


@pytest.mark.parametrize("code, text", [
    ("port_taken", "driver failed programming external connectivity on endpoint ollama (1a): Error starting userland proxy: listen tcp4 127.0.0.1:11434: bind:"
     " address already in use"),
    ("port_taken", "Bind for 127.0.0.1:8000 failed: port is already allocated"),
    ("gpu_handover_failed", "CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=GPU-1"),
    ("gpu_handover_failed", 'could not select device driver "cdi" with capabilities: [[gpu]]'),
    ("bind_mount_missing", 'error mounting "/srv/models/tiny" to rootfs at "/srv/models/tiny": no such file or directory: unknown'),
    ("cgroup_refused", "failed to create task: unable to apply cgroup configuration: cpuset.cpus: 30 is not available: unknown"),
])
def test_docker_own_words(code, text):
    assert _engine_logs.explain(text, "ollama", _engine_logs.DOCKER)[0].code == code


def test_the_deepest_cause_wins_and_its_last_mention_is_shown():
    text = KV + "PermissionError: [Errno 13] Permission denied: '/x'\n" + KV.replace("4.12", "3.87") + AFTER
    row, shown = _engine_logs.explain(text, "vllm")
    assert row.code == "kv_cache_too_large" and shown.startswith("ValueError: Available memory on node 0 (3.87/6.0 GiB)")


@pytest.mark.parametrize("text", ["", AFTER, "INFO 11-27 15:39:58 [api_server.py:1346] vLLM API server version 0.32.0\n"])
def test_nothing_is_made_up(text):
    assert _engine_logs.explain(text, "vllm") is None


def test_what_only_one_engine_says_is_not_believed_of_the_other():
    assert _engine_logs.explain(KV, "ollama") is None


def test_colours_are_taken_off_and_long_lines_cut():
    assert _engine_logs.plain("\x1b[0;36m(EngineCore)\x1b[0m failed") == "(EngineCore) failed"
    row, shown = _engine_logs.explain(f"\x1b[31m{FRONT}\x1b[0mPermissionError: " + "x" * 1000, "vllm")
    assert row.code == "permission_denied" and len(shown) == 400 and shown.startswith("PermissionError") and shown.endswith("…")


def test_the_last_lines_that_say_something():
    assert _engine_logs.lines_of("one\n\n two \n\x1b[1m\x1b[0m\nthree\n", 2) == [" two", "three"]


def test_exit_codes():
    assert {code: row.code for code, row in _engine_logs.EXITS.items()} == {132: "isa_unsupported", 135: "shm_too_small", 137: "killed"}
