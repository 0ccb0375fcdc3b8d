# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes together: versions of vLLM with CPUs and block sizes, container engines with this collection.

The tables name their sources; where a source is a release, the value was read in that release's own files.
"""
from __future__ import annotations

import re
from typing import NamedTuple

# Architectures for which both services have an official image: vllm/vllm-openai-cpu and ollama/ollama.
ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}

# Debian 12 has 20.10; older engines know neither cgroup v2 nor the systemd driver's slices well.
MINIMUM_ENGINE = (20, 10)

_VERSION = re.compile(r"[vV]?(\d{1,6}(?:\.\d{1,6}){1,3})(?:[.+~-]?[A-Za-z]\w*(?:[.+~-]\w+)*)?", re.ASCII)


def parse_version(text):
    """Return C((0, 11, 1)) of C(v0.11.1.post2) or C(0.11.1+cpu), C((0, 29, 0)) of C(0.29); None where it is no version."""
    match = _VERSION.fullmatch(text.strip())
    if not match:
        return None
    parts = tuple(int(part) for part in match.group(1).split("."))
    return parts + (0,) * (3 - len(parts))


class BlockRule(NamedTuple):
    """From this version of vLLM on, the CPU engine takes these block sizes."""

    since: tuple
    multiple: int
    only: bool  # just this one size, no multiples of it
    source: str


BLOCK_RULES = (
    BlockRule(
        (0,), 16, True,
        # Without Intel's extension any other size is an error; with it 16 works as well.
        "vllm/platforms/cpu.py of 0.10.0; https://github.com/vllm-project/vllm/pull/16002"),
    BlockRule(
        (0, 11, 1), 16, False,
        # The rewritten CPU attention; since 0.21.0 it says MultipleOf(16) itself.
        "vllm/v1/attention/backends/cpu_attn.py of 0.11.1 to 0.28.0; https://github.com/vllm-project/vllm/pull/27954, /pull/41025"),
    BlockRule(
        (0, 29, 0), 32, False,
        # get_supported_kernel_block_sizes() is [MultipleOf(32)]; 16 ends with "No common block size for 16".
        "vllm/v1/attention/backends/cpu_attn.py of 0.29.0 to 0.32.0"),
)


def block_size(version, asked):
    """Return the block size nearest to what was asked that this version takes: the next larger one where there is one."""
    rule = [rule for rule in BLOCK_RULES if rule.since <= version][-1]
    if rule.only:
        return rule.multiple
    return -(-asked // rule.multiple) * rule.multiple


class IsaRule(NamedTuple):
    """From this version of vLLM on, the official image needs this flag on x86_64."""

    since: tuple
    flag: str
    source: str


X86_RULES = (
    IsaRule((0,), "avx512f", "AVX-512 only, ends with SIGILL elsewhere: https://github.com/vllm-project/vllm/issues/18660"),
    IsaRule((0, 17, 0), "avx2", "has _C_AVX2 beside _C and picks at start: https://github.com/vllm-project/vllm/pull/35466"),
)


class Isa(NamedTuple):
    """What the CPU means for vLLM: C(error) ends the plan, C(note) goes into it, C(newer) is the version that would do."""

    error: str = ""
    note: str = ""
    newer: str = ""


def judge_isa(architecture, flags, version):
    """Judge a CPU for a version of vLLM. C(flags) may be None where the host did not say."""
    if flags is None:
        return Isa(note="the host did not say which CPU flags it has, so nobody checked that vLLM can run on it")
    if architecture == "aarch64":
        if "asimd" not in flags:
            return Isa(error="vLLM needs asimd (NEON) on aarch64, and this CPU does not have it")
        return Isa() if "bf16" in flags else Isa(note="the CPU has no bf16; vLLM computes bfloat16 models more slowly")
    needed = [rule for rule in X86_RULES if rule.since <= version][-1]
    if needed.flag in flags or "avx512f" in flags:
        return Isa() if "avx512f" in flags else Isa(note="the CPU has AVX2 but not AVX-512: vLLM runs with limited features and more slowly")
    newest = X86_RULES[-1]
    newer = ".".join(str(part) for part in newest.since) if newest.flag in flags else ""
    text = f"vLLM {_dotted(version)} needs {needed.flag} on x86_64, and this CPU does not have it"
    return Isa(error=text + (f"; vLLM {newer} and later run with {newest.flag}" if newer else ""), newer=newer)


def _dotted(version):
    return ".".join(str(part) for part in version)


def judge_engine(engine):
    """Return what keeps this container engine from being used, as C((rule, found, message)). A missing one is no problem."""
    if not engine.get("installed"):
        return []
    found = []
    flavor = engine.get("flavor")
    version = engine.get("version")
    if flavor == "snap":
        found.append((
            "engine-snap", "Docker from a snap",
            "Docker is installed as a snap, which hides devices and paths from containers. Remove it (snap remove docker) and run again;"
            " Docker Engine is then installed from packages."))
    if flavor == "podman-docker":
        found.append((
            "engine-podman", "podman under the name docker",
            "The docker command of this host is podman's. Remove the package podman-docker and run again; Docker Engine is then installed."))
    parsed = parse_version(version) if isinstance(version, str) else None
    if flavor != "podman-docker" and parsed and parsed < MINIMUM_ENGINE:
        found.append((
            "engine-version", f"Docker Engine {version}",
            f"Docker Engine {version} is too old; {_dotted(MINIMUM_ENGINE)} or later is needed. Upgrade it, or remove it and run again."))
    compose = engine.get("compose")
    compose = compose if isinstance(compose, dict) else {}
    if compose.get("kind") == "v1":
        found.append((
            "engine-compose", f"Compose {compose.get('version') or 'v1'}",
            f"Only Compose v1 ({compose.get('version') or 'docker-compose'}) is installed; v2 or later is needed."
            " Remove the old docker-compose, or install the Compose plugin, and run again."))
    return found
