# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules of Ollama's GPU: which one, whether card, driver, toolkit and Docker go together, and what fits into its memory.

What a host has that keeps its GPU from being used ends the plan, unless Ollama may run on CPUs; then it becomes a note.
What the policy asks for in vain ends it always.
"""
from __future__ import annotations

import fnmatch
import re
from typing import NamedTuple

from ansible_collections.erni_ki.inference.plugins.module_utils import _gpu_compat as compat
from ansible_collections.erni_ki.inference.plugins.module_utils import _vram
from ansible_collections.erni_ki.inference.plugins.module_utils._compat import parse_version
from ansible_collections.erni_ki.inference.plugins.module_utils._policy import POLICY

CPU = {"ollama_require_gpu": False}

# Where gpu_info gave no hint of its own.
_STATES = {
    "no_driver": "the card is there, but its driver is not installed",
    "not_loaded": "the driver is installed, but its kernel module is not loaded",
    "version_mismatch": "the driver's library and the kernel module that runs are of different versions; a reboot loads the new module",
    "gpu_lost": "the driver has lost the GPU",
    "permission": "the driver does not let this user at the GPU",
    "no_bindings": "the Python library nvidia-ml-py is missing on the host, so the driver could not be asked",
    "unknown": "the driver does not answer as it should",
}


class Problem(NamedTuple):
    """What keeps a GPU from being used: C(text) says it, C(cure) what to do about it, C(fix) what the policy could do."""

    rule: str
    found: str
    text: str
    cure: str
    fix: dict | None = None


class Judged(NamedTuple):
    """A GPU with all that stands against it."""

    gpu: object
    label: str
    capability: tuple | None
    window: object
    known: bool
    problems: list
    ask: object
    vram: object


class Device(NamedTuple):
    """What Ollama gets."""

    gpu: object
    capability: tuple
    library: str
    driver: str | None
    window: object
    vram: object
    partial: bool


def device_of_ollama(attempt):
    """Return the Device, or None where Ollama runs on CPUs or the plan is refused."""
    facts, values = attempt.gpu, attempt.values
    if facts.state == "no_card" or (facts.state == "ok" and not facts.gpus):
        _no_gpu(attempt)
        return None
    matching = _matching(attempt)
    judged = [_judge(attempt, gpu) for gpu in matching]
    best = next((one for one in judged if not one.problems), judged[0] if judged else None)
    common = _common(attempt, best)
    problems = common + (best.problems if best else [])
    if problems and not values["ollama_require_gpu"]:
        for problem in problems:
            attempt.note("gpu-unused", problem.text)
        attempt.note("ollama-on-cpu", "The GPU of this host cannot be used, so Ollama runs on its CPUs, as allowed.")
        return None
    other = None if common else _usable_other(attempt, matching)
    for problem in problems:
        fix = problem.fix or ({"ollama_gpu": other.uuid} if other else CPU)
        attempt.refuse(problem.rule, "ollama_require_gpu", problem.found, f"{problem.text} {problem.cure}", fix)
    _toolkit_pin(attempt)
    if best is None or best.ask is None:
        return None
    vram = _memory(attempt, best)
    if problems:
        return None
    _choice(attempt, judged, best)
    library = compat.library_for(best.capability, _version(values), _branch(facts.driver) or best.window.best)
    return Device(best.gpu, best.capability, library, facts.driver, best.window, vram, values["ollama_allow_partial_offload"])


def plan_device(device):
    """Return the device as it stands in the plan."""
    if device is None:
        return {"kind": "none", "uuid": None, "name": None}
    gpu, vram = device.gpu, device.vram
    return {
        "kind": "gpu", "uuid": gpu.uuid, "name": gpu.name, "bus_id": gpu.bus_id, "compute_capability": compat.dotted(device.capability),
        "memory_total_mib": gpu.memory_mib, "cdi_device": f"nvidia.com/gpu={gpu.uuid}", "library": device.library,
        "driver": {"found": device.driver, "allowed": str(device.window)}, "handover": "cdi",
        "vram": {
            "total_mib": vram.total, "reserve_mib": vram.reserve, "weights_mib": vram.weights, "kv_cache_mib": vram.kv, "left_mib": vram.left,
            "context_length": vram.context, "parallel": vram.parallel, "kv_cache_type": vram.kv_type, "max_loaded_models": vram.models,
            "partial_allowed": device.partial}}


def _no_gpu(attempt):
    if attempt.values["ollama_require_gpu"]:
        attempt.refuse(
            "gpu-required", "ollama_require_gpu", "no GPU",
            "Ollama is to run on a GPU, and none was found on this host. Check the card and its driver, or let Ollama run on CPUs with"
            " ollama_require_gpu: false.", CPU)
    else:
        attempt.note("ollama-on-cpu", "No GPU was found, so Ollama runs on its CPUs, as allowed.")


# Which one


def _matches(gpu, asked):
    asked = asked.lower()
    return any(text is not None and (text.lower() == asked or fnmatch.fnmatchcase(text.lower(), asked)) for text in (gpu.uuid, gpu.name))


def _matching(attempt):
    """Return the GPUs that the policy names; all of them where it names none, or where they cannot be told apart yet."""
    gpus, asked = attempt.gpu.gpus, attempt.values["ollama_gpu"]
    found = [gpu for gpu in gpus if _matches(gpu, asked)]
    if not asked or not gpus:
        return list(gpus)
    if found or (attempt.gpu.state != "ok" and any(gpu.uuid is None for gpu in gpus)):
        return found or list(gpus)
    looser = f"*{asked}*"
    attempt.refuse(
        "gpu-no-match", "ollama_gpu", f"this host has {_listed(gpus)}",
        f"ollama_gpu {asked!r} is the UUID or name of no GPU here. There {'is' if len(gpus) == 1 else 'are'}: {_listed(gpus)}.",
        {"ollama_gpu": looser if any(_matches(gpu, looser) for gpu in gpus) else ""})
    return [gpu for gpu in gpus if _matches(gpu, looser)] or list(gpus)


def _listed(gpus):
    return ", ".join(f"{gpu.name or _label(gpu)} ({gpu.uuid or f'at {gpu.bus_id}, not shown by the driver'})" for gpu in gpus)


def _usable_other(attempt, matching):
    others = (_judge(attempt, gpu) for gpu in attempt.gpu.gpus if gpu not in matching)
    return next((one.gpu for one in others if not one.problems), None)


def _choice(attempt, judged, best):
    skipped = [one for one in judged if one.problems]
    if len(judged) > 1:
        why = "the one with most memory" + (" that can be used" if skipped else "")
        attempt.note("gpu-choice", f"The host has {len(judged)} GPUs{_asked(attempt)}; Ollama gets {why}, {best.label} ({best.gpu.uuid}).")
    for one in skipped:
        attempt.note("gpu-skipped", f"Passed over: {one.problems[0].text}")
    if not best.known:
        attempt.note("gpu-unknown", f"{best.label} is in no row of the compatibility table; it is taken for one as new as the newest there.")


def _asked(attempt):
    return f" that match {attempt.values['ollama_gpu']}" if attempt.values["ollama_gpu"] else ""


# What the host has


def _version(values):
    return parse_version(values["ollama_engine_version"])


def _branch(driver):
    match = re.match(r"\d{1,6}(?=\.|$)", driver or "", re.ASCII)
    return int(match.group()) if match else None


def _label(gpu):
    card, row = compat.card_of(gpu.pci), compat.architecture_of(pci=gpu.pci)
    if gpu.name or card:
        return gpu.name or card.name
    return f"a {row.name} card" if row else "an NVIDIA card"


def _start(text):
    return text[:1].upper() + text[1:]


def _common(attempt, best):
    """Return what stands against every GPU of the host."""
    facts, engine = attempt.gpu, attempt.engine
    problems = []
    if facts.state != "ok":
        problems.append(_state(facts, best))
    version = engine.get("version") if engine.get("installed") else None
    parsed = parse_version(version) if isinstance(version, str) else None
    # Podman has a numbering of its own, and is refused for itself.
    if parsed and engine.get("flavor") != "podman-docker" and compat.handover_of(parsed).way is None:
        least = next(row for row in compat.HANDOVER if row.way)
        problems.append(Problem(
            "engine-cdi", f"Docker Engine {version}",
            f"Docker Engine {version} hands no GPU over by CDI; {compat.dotted(least.since)} or later does.",
            "Upgrade Docker, or remove it and run again, or let Ollama run on CPUs with ollama_require_gpu: false."))
    installed = parse_version(facts.toolkit) if facts.toolkit else None
    for row in compat.toolkit_lacks(installed, True) if installed else ():
        problems.append(Problem(
            "toolkit-floor", f"NVIDIA container toolkit {facts.toolkit}",
            f"The NVIDIA container toolkit {facts.toolkit} on this host is below {compat.dotted(row.version)}: {row.why}.",
            "Upgrade it, or remove its packages and run again, or let Ollama run on CPUs with ollama_require_gpu: false."))
    return problems


def _state(facts, best):
    cards = ", ".join(f"{_label(gpu)}{f' at {gpu.bus_id}' if gpu.bus_id else ''}" for gpu in facts.gpus) or "an NVIDIA card"
    code = f", code {facts.code}" if facts.code is not None else ""
    hint = _start(facts.hint.strip() or _STATES[facts.state])
    text = f"The host has {cards}, and Ollama cannot use it (driver state {facts.state}{code}). {hint if hint.endswith(('.', '!', '?')) else f'{hint}.'}"
    cure = "Or let Ollama run on CPUs with ollama_require_gpu: false."
    branch = _branch(facts.driver)
    if facts.state in ("no_driver", "not_loaded") and best and best.window and not (branch and best.window.holds(branch)):
        cure = f"{_drivers(best)} {cure}"
    return Problem("gpu-driver", f"{facts.state}: {cards}", text, cure)


def _drivers(judged):
    """What to install for a card."""
    row = compat.architecture_of(judged.capability) if judged.known else None
    modules = {"no": ", with the proprietary kernel modules", "required": ", with the open kernel modules"}.get(row.open_modules if row else "", "")
    last = judged.window.last
    return f"{_start(judged.label)} needs a driver {judged.window.words}{modules}{f'; {last} is the best choice' if last else ''}."


def _judge(attempt, gpu):
    facts, values = attempt.gpu, attempt.values
    version, label, problems = _version(values), _label(gpu), []
    capability, row, known = _capability(gpu)
    # After an upgrade without a reboot the module that runs is not the one that is going to.
    driver, open_modules = (None, None) if facts.state == "version_mismatch" else (facts.driver, facts.open_modules)
    window = compat.window_for(row, capability, version)
    judged = Judged(gpu, label, capability, window, known, problems, None, None)
    name = f"{_start(label)} ({f'{row.name}, ' if row else ''}compute capability {compat.dotted(capability)})"
    if gpu.uuid is None and facts.state == "ok":
        why = f"{gpu.pci_driver} drives it" if gpu.pci_driver and gpu.pci_driver != "nvidia" else "the driver may not know it"
        problems.append(Problem(
            "gpu-not-shown", f"{label} at {gpu.bus_id}", f"{_start(label)} at {gpu.bus_id} is not among the GPUs that the NVIDIA driver shows; {why}.",
            f"{_drivers(judged) if window else ''} Look for NVRM in the kernel's log, or let Ollama run on CPUs with ollama_require_gpu: false.".strip()))
    if gpu.error:
        problems.append(Problem(
            "gpu-error", gpu.error, f"{_start(label)} does not answer the driver: {gpu.error.rstrip('.')}.",
            "Reboot, and look for Xid in the kernel's log; or let Ollama run on CPUs with ollama_require_gpu: false."))
    if window is None:
        default = parse_version(POLICY["ollama_engine_version"].default)
        newer = compat.window_for(row, capability, default) is not None
        problems.append(Problem(
            "gpu-library", name, f"{name} is none that Ollama {values['ollama_engine_version']} can compute on.",
            f"Use Ollama {compat.dotted(default)}." if newer else "Use another card, or let Ollama run on CPUs with ollama_require_gpu: false.",
            {"ollama_engine_version": POLICY["ollama_engine_version"].default} if newer else None))
    elif _branch(driver) is not None and not window.holds(_branch(driver)):
        problems.append(_wrong_driver(facts, values, judged, row, name))
    if row and open_modules is True and row.open_modules == "no":
        problems.append(Problem(
            "gpu-open-modules", "open kernel modules", f"{name} does not run with the open kernel modules, which know no card before Turing.",
            f"Install the proprietary modules of the same driver in their place{f' (branch {window.best})' if window else ''} and reboot, or let Ollama run"
            " on CPUs with ollama_require_gpu: false."))
    if row and open_modules is False and row.open_modules == "required":
        problems.append(Problem(
            "gpu-closed-modules", "proprietary kernel modules", f"{name} runs only with the open kernel modules, and the proprietary ones are loaded.",
            "Install the open modules of the same driver in their place and reboot, or let Ollama run on CPUs with ollama_require_gpu: false."))
    if gpu.mig:
        problems.append(Problem(
            "gpu-mig", "MIG mode enabled", f"{name} is cut into slices (MIG), and Ollama is given whole GPUs only.",
            f"Switch that off with nvidia-smi -i {gpu.uuid} -mig 0, or let Ollama run on CPUs with ollama_require_gpu: false."))
    return _judge_memory(attempt, judged) if gpu.uuid else judged


def _capability(gpu):
    """Return compute capability and row of a card, and whether these are known or the newest that there are."""
    card = compat.card_of(gpu.pci)
    capability = gpu.capability or (card.capability if card else None)
    row = compat.architecture_of(capability, gpu.architecture, gpu.pci) or (compat.architecture_of(pci=gpu.pci) if capability is None else None)
    newest = compat.ARCHITECTURES[-1]
    if capability is None and row:
        return row.least, row, True
    if row or (capability and capability < newest.least):
        return capability, row, True
    return newest.most, None, False


def _wrong_driver(facts, values, judged, row, name):
    window = judged.window
    if _branch(facts.driver) < window.first:
        why = f"Ollama {values['ollama_engine_version']} leaves a card like this alone with an older driver, and computes on CPUs without saying so"
    else:
        why = f"{window.last} is the last branch that knows {row.name} cards"
    return Problem(
        "gpu-driver-branch", f"driver {facts.driver}, allowed {window}",
        f"{name} has driver {facts.driver}, and needs one {window.words}: {why}.",
        f"Install a driver of branch {window.best}{' or newer' if window.last is None else ''} and reboot, or let Ollama run on CPUs with"
        " ollama_require_gpu: false.")


# What fits into its memory


def _kv_types(judged, values):
    """Return the types of KV cache that the card can have, the largest first."""
    return list(_vram.KV_TYPES) if compat.has_flash_attention(judged.capability, _version(values)) else ["f16"]


def _judge_memory(attempt, judged):
    values, gpu, version = attempt.values, judged.gpu, _version(attempt.values)
    least = _vram.overhead(version, 1)
    usable = gpu.memory_mib - gpu.reserved_mib
    if usable <= least + _vram.SERVER_MIB:
        found = f"{usable} MiB" if gpu.memory_mib else "unknown"
        text = f"has {usable} MiB of memory" if gpu.memory_mib else "does not say how much memory it has"
        judged.problems.append(Problem(
            "gpu-memory", found, f"{_start(judged.label)} {text}, and {least} MiB are gone before a model is loaded.",
            "Use another card, or let Ollama run on CPUs with ollama_require_gpu: false."))
        return judged
    kv_type = values["ollama_kv_cache_type"]
    ask = _vram.Ask(
        gpu.memory_mib, gpu.reserved_mib, version, values["ollama_model_mib"], values["ollama_kv_bytes_per_token"], values["ollama_context_length"],
        values["ollama_parallel"], kv_type if kv_type in _kv_types(judged, values) else "f16", values["ollama_max_loaded_models"])
    partial = values["ollama_allow_partial_offload"]
    vram = _vram.budget(ask, partial)
    better = None if vram.left >= 0 or partial else _vram.nearest(ask, _kv_types(judged, values))
    judged = judged._replace(ask=ask, vram=_vram.budget(better) if better else vram)
    _busy(attempt, judged, (better or ask)._replace(context=judged.vram.context), partial or judged.vram.left < 0)
    return judged


def _busy(attempt, judged, ask, partial):
    """What is free is of interest only where others hold it: Ollama's own model is there when the playbook runs again."""
    gpu, vram = judged.gpu, judged.vram
    if gpu.free_mib is None:
        return
    own = {item["id"] for item in attempt.engine["containers"] if item["name"] == "ollama" and isinstance(item.get("id"), str)}
    mine = [process for process in gpu.processes if process.container in own]
    others = [process for process in gpu.processes if process.container not in own]
    if any(process.memory_mib is None for process in mine):
        free = ask.total - ask.reserved - sum(process.memory_mib or 0 for process in others)
    else:
        free = gpu.free_mib + sum(process.memory_mib for process in mine)
    needed = vram.reserve - ask.reserved + (0 if partial else vram.weights + vram.kv)
    if needed <= free + _vram.IDLE_MIB:
        return
    names = {item.get("id"): item["name"] for item in attempt.engine["containers"]}
    who = "; ".join([*(_process(process, names) for process in others[:5]), *(["and more"] if len(others) > 5 else [])]) or "nobody that the driver names"
    smaller = None if partial else _vram.nearest(ask._replace(total=free + ask.reserved), _kv_types(judged, attempt.values))
    judged.problems.append(Problem(
        "gpu-busy", f"{max(0, free)} of {ask.total} MiB free",
        f"Of the {ask.total} MiB of {judged.label} {max(0, free)} MiB are free for Ollama, and it needs {needed} MiB. Others hold the rest: {who}.",
        "Stop them, give Ollama another GPU with ollama_gpu, or let it run on CPUs with ollama_require_gpu: false.",
        _changes(ask, smaller) if smaller else None))


def _process(process, names):
    place = f" in the container {names.get(process.container) or process.container[:12]}" if process.container else ""
    return f"{process.name}{place}{'' if process.memory_mib is None else f' {process.memory_mib} MiB'}"


def _changes(ask, better):
    fields = (
        ("ollama_max_loaded_models", ask.models, better.models), ("ollama_parallel", ask.parallel, better.parallel),
        ("ollama_kv_cache_type", ask.kv_type, better.kv_type), ("ollama_context_length", ask.context, better.context))
    return {name: after for name, before, after in fields if after != before}


def _memory(attempt, best):
    """Check the budget of the chosen GPU, and return where its memory goes after what has to change."""
    values, ask = attempt.values, best.ask
    types = _kv_types(best, values)
    asked_type = values["ollama_kv_cache_type"]
    if asked_type not in types:
        attempt.refuse(
            "kv-flash-attention", "ollama_kv_cache_type", f"compute capability {compat.dotted(best.capability)}",
            f"A KV cache of type {asked_type} needs flash attention, which Ollama {values['ollama_engine_version']} does not have for {best.label}"
            f" (compute capability {compat.dotted(best.capability)}).", {"ollama_kv_cache_type": "f16"})
    partial = values["ollama_allow_partial_offload"]
    vram = _vram.budget(ask, partial)
    usable = f"{best.label} has {ask.total} MiB"
    if vram.left < 0:
        text = f"{_vram.sum_text(ask, vram)}, {usable}"
        (_spill if partial else _too_large)(attempt, best, vram, text, types)
    if not values["ollama_model_mib"] or not values["ollama_kv_bytes_per_token"]:
        _unknown(attempt, best, best.vram)
    if not ask.context and 0 <= vram.left and vram.context < _vram.CONTEXT:
        attempt.note("context-lowered", f"Ollama's context is {vram.context} tokens instead of {_vram.CONTEXT}: {_vram.sum_text(ask, vram)}, {usable}.")
    return best.vram


def _unknown(attempt, best, vram):
    values = attempt.values
    missing = [name for name in ("ollama_model_mib", "ollama_kv_bytes_per_token") if not values[name]]
    parts = []
    if not values["ollama_model_mib"]:
        parts.append(f"the size of Ollama's model is not known, {max(0, vram.left)} MiB of {best.label} are left for it")
    if not values["ollama_kv_bytes_per_token"]:
        parts.append(f"its KV cache is reckoned at {_vram.KV_BYTES} bytes per token, which few models of its kind exceed")
    attempt.note("model-unknown", f"{_start('; '.join(parts))}. Set {' and '.join(missing)} to have it checked.")


def _with_ram(attempt, ask, types):
    """Return the overrides with which what does not fit into VRAM fits into RAM: none where it does already, None where nothing helps."""
    sizes = attempt.sizes
    most = max(sizes.ollama_limit, attempt.host.total_mib - sizes.limit - sizes.reserve)
    vram = _vram.budget(ask, True)
    fix = {}
    if _vram.SERVER_MIB - vram.left > most:
        ask = ask._replace(context=vram.context)
        better = _vram.nearest(ask._replace(total=ask.total + most - _vram.SERVER_MIB), types)
        if better is None:
            return None
        fix, vram = _changes(ask, better), _vram.budget(better._replace(total=ask.total))
    needed = _vram.SERVER_MIB - vram.left
    return dict(fix, ollama_memory_limit_mib=needed) if needed > sizes.ollama_limit else fix


def _too_large(attempt, best, vram, text, types):
    better = _vram.nearest(best.ask, types)
    if better:
        option, fix, end = next(iter(_changes(best.ask, better))), _changes(best.ask, better), ""
    else:
        more = _with_ram(attempt, best.ask, types)
        option, fix = "ollama_model_mib", {} if more is None else {"ollama_allow_partial_offload": True, **more}
        end = " No shorter context, smaller KV type or fewer slots make it fit; " + (
            "a smaller model would." if more is None else
            "a smaller model would, or ollama_allow_partial_offload: true, by which a part of it goes to RAM and is computed on CPUs, much more slowly.")
    attempt.refuse("vram-fits", option, f"{vram.left + vram.weights + vram.kv} MiB for model and KV cache", f"Ollama's model does not fit: {text}.{end}", fix)


def _spill(attempt, best, vram, text, types):
    spill, limit = -vram.left, attempt.sizes.ollama_limit
    more = _with_ram(attempt, best.ask, types)
    if more == {}:
        attempt.note(
            "vram-spill", f"Not all of Ollama's model fits, as allowed: {text}. {spill} MiB go to RAM, inside its memory limit of {limit} MiB,"
                          " where its CPUs compute them, much more slowly.")
        return
    attempt.refuse(
        "spill-fits-limit", "ollama_memory_limit_mib", f"{spill} MiB spill, the limit is {limit} MiB",
        f"Not all of Ollama's model fits: {text}. {spill} MiB would go to RAM, and with {_vram.SERVER_MIB} MiB for its server that is more than its"
        f" memory limit of {limit} MiB.", more)


# The toolkit that is going to be installed


def _toolkit_pin(attempt):
    pinned = attempt.values["container_toolkit_version"]
    lacks = compat.toolkit_lacks(parse_version(pinned), True)
    for row in lacks:
        attempt.refuse(
            "toolkit-pin", "container_toolkit_version", f"the least is {compat.dotted(row.version)}",
            f"container_toolkit_version {pinned} is below {compat.dotted(row.version)}: {row.why}.",
            {"container_toolkit_version": POLICY["container_toolkit_version"].default})
    for row in () if lacks else compat.toolkit_lacks(parse_version(pinned), False):
        attempt.note("toolkit-version", f"container_toolkit_version {pinned} is below {compat.dotted(row.version)}: {row.why}.")
