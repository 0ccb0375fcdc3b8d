# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan, or why there is none, as lines that a person reads."""
from __future__ import annotations

import json
import re

from ansible_collections.erni_ki.inference.plugins.module_utils._cpulist import format_cpulist

WIDTH = 110

_HEADER = ("", "cores", "cpuset", "threads", "memory", "device")
# The widest that each column gets; with two blanks between them they make a line.
_WIDEST = (6, 10, 20, 18, 23, 23)


def table(plan, violations):
    """Return the lines for a plan, or for the violations that stand in its way."""
    return _refused(violations) if plan is None else _planned(plan)


def _planned(plan):
    host = plan["host"]
    lines = _wrap(
        f"{host['model_name'] or host['architecture']}: {host['cores']} cores, {host['logical_cpus']} logical CPUs, {host['memory_total_mib']} MiB,"
        f" {host['architecture']}; isolation: {plan['isolation']}", WIDTH)
    lines += ["", *_grid([_HEADER, *party_rows(plan)])]
    if plan["ollama"] and plan["ollama"]["device"]["kind"] == "gpu":
        lines += ["", *_gpu(plan["ollama"]["device"])]
    if plan["notes"]:
        lines += ["", "What was adjusted, and what to know:"]
        for note in plan["notes"]:
            lines += _paragraph(f"  - {note['rule']}: ", note["text"])
    return lines


def party_rows(plan):
    """Return (party, cores, cpuset, threads, memory, device) of everybody in the plan; lines of one cell are divided by newlines."""
    vllm, ollama, system = plan["vllm"], plan["ollama"], plan["system"]
    if vllm:
        memory, omp = vllm["memory"], vllm["omp"]
        yield (
            "vLLM", format_cpulist(vllm["cores"]), vllm["cpuset"],
            f"{omp['threads']}, bound to {omp['bind']}" if omp["mode"] == "explicit" else f"{omp['threads']}, bound by vLLM",
            f"limit {memory['limit_mib']} MiB, no swap\nreserved {memory['reservation_mib']} MiB\nshm {memory['shm_mib']} MiB\n"
            f"KV cache {vllm['kv_cache_gib']} GiB",
            f"none ({vllm['device']['runtime']})")
    if ollama:
        memory, device = ollama["memory"], ollama["device"]
        yield (
            "Ollama", format_cpulist(ollama["cores"]), ollama["cpuset"], str(ollama["threads"]),
            f"limit {memory['limit_mib']} MiB, no swap\nreserved {memory['reservation_mib']} MiB",
            f"{device['name'] or 'GPU'}\n{device['uuid']}" if device["kind"] == "gpu" else "none (CPU)")
    yield "system", format_cpulist(system["cores"]), system["cpuset"], "", f"{system['memory_left_mib']} MiB left", ""


def _gpu(device):
    """Say what the GPU is driven by, and where its memory goes."""
    vram = device["vram"]
    slots = f"{vram['context_length']} tokens" if vram["parallel"] == 1 else f"{vram['parallel']} x {vram['context_length']} tokens"
    models = "" if vram["max_loaded_models"] == 1 else f", {vram['max_loaded_models']} models"
    left = f"{vram['left_mib']} MiB left" if vram["left_mib"] >= 0 else f"{-vram['left_mib']} MiB go to RAM"
    yield from _paragraph(
        "GPU:  ", f"{device['name'] or 'GPU'}, compute capability {device['compute_capability']}, driver {device['driver']['found'] or 'unknown'}"
                  f" (allowed {device['driver']['allowed']}), {device['library']}, handed over by {device['handover'].upper()}")
    yield from _paragraph(
        "VRAM: ", f"{vram['total_mib']} MiB: overhead {vram['reserve_mib']}, model {vram['weights_mib'] or 'unknown'}, KV cache {vram['kv_cache_mib']}"
                  f" ({slots}, {vram['kv_cache_type']}{models}), {left}")


def _grid(rows):
    """Align the rows; a cell too wide for its column goes on in the next line."""
    widths = [min(widest, max(len(line) for row in rows for line in row[column].split("\n"))) for column, widest in enumerate(_WIDEST)]
    lines = []
    for row in rows:
        cells = [[part for line in cell.split("\n") for part in _wrap(line, width)] for cell, width in zip(row, widths)]
        for number in range(max(map(len, cells))):
            parts = [(cell[number] if number < len(cell) else "").ljust(width) for cell, width in zip(cells, widths)]
            lines.append("  ".join(parts).rstrip())
    return lines


def _refused(violations):
    count = len(violations)
    lines = [f"No plan: {count} {'rule is' if count == 1 else 'rules are'} broken, and nothing was changed."]
    for number, violation in enumerate(violations, 1):
        lines += ["", *_paragraph(f"{number}. {violation['rule']}: ", violation["message"])]
        if violation["asked"] is not None:
            lines += _paragraph("   asked: ", f"{violation['option']}: {_value(violation['asked'])}")
        lines += _paragraph("   found: ", violation["found"])
        if violation["nearest"]:
            works = "; ".join(f"{name}: {'drop it' if value is None else _value(value)}" for name, value in violation["nearest"].items())
            lines += _paragraph("   works: ", works)
        else:
            lines += ["   works: nothing in the policy helps here"]
    if count > 1 and any(violation["nearest"] for violation in violations):
        lines += ["", "Each 'works' is meant together with all the others."]
    return lines


def _value(value):
    text = json.dumps(value)
    return text if len(text) <= 200 else text[:197] + "..."


def _paragraph(lead, text):
    """Return the text after its lead, with all further lines indented as far as the rule's number or dash."""
    indent = " " * min(len(lead), 10 if lead.startswith("   ") else 4 if lead.startswith("  - ") else 3)
    lines = _wrap(lead + text, WIDTH)
    rest = _wrap(" ".join(lines[1:]), WIDTH - len(indent)) if len(lines) > 1 else []
    return [lines[0], *(indent + line for line in rest)]


def _wrap(text, width):
    """Break text at blanks and behind commas (lists of CPUs have no blanks), and inside a word only where it is too long."""
    lines, line = [], ""
    for word in re.findall(r"\s*[^\s,]*,?", text):
        while len((line + word).rstrip()) > width:
            if line.strip():
                lines.append(line.rstrip())
                line, word = "", word.lstrip()
            else:
                word = word.lstrip()
                lines.append(word[:width])
                word = word[width:]
        line += word
    return lines + [line.rstrip()] if line.strip() else lines
