# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A report: what the host's plan, proof, diagnosis, versions and live figures come to, and what changed since the last one."""
from __future__ import annotations

import base64
import datetime
import hashlib
import json
import pathlib

from ansible.utils.unsafe_proxy import wrap_var
from ansible_collections.erni_ki.inference.plugins.module_utils import _plan_table
from ansible_collections.erni_ki.inference.plugins.module_utils._cpulist import parse_cpulist
from ansible_collections.erni_ki.inference.plugins.plugin_utils import _report_changes, _report_series
from ansible_collections.erni_ki.inference.plugins.plugin_utils._pictures import NAMES, number

SCHEMA_VERSION = 1
SERVICES = ("vllm", "ollama")
MIB = 1 << 20
# Further models are only counted.
MOST_MODELS = 20
NO_PLAN = "There is no plan on this host that can be read; the playbook site makes one."


def plain(value):
    """Return what Ansible hands over lazily as dictionaries and lists of its own."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def moment(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def read_plan(text):
    """Return the plan in a file's text, or None where it is none."""
    try:
        plan = json.loads(text)
    except ValueError:
        return None
    return plan if isinstance(plan, dict) and plan.get("schema_version") == 1 else None


def collection_version():
    """Return the version of this collection, installed or in a checkout; empty where neither tells."""
    root = pathlib.Path(__file__).resolve().parents[2]
    try:
        return json.loads((root / "MANIFEST.json").read_text(encoding="utf-8"))["collection_info"]["version"]
    except (OSError, ValueError, KeyError):
        pass
    try:
        lines = (root / "galaxy.yml").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("version:")), "")


def owners(plan, cores):
    """Return who may use each logical CPU by the plan, as {CPU: parties}."""
    sets = {}
    for party in (*SERVICES, "system"):
        try:
            sets[party] = set(parse_cpulist((plan.get(party) or {}).get("cpuset") or ""))
        except ValueError:
            sets[party] = set()
    return {str(cpu): [party for party, cpus in sets.items() if cpu in cpus] for core in cores for cpu in core["cpus"]}


def parties(plan):
    """Return the plan's table as {heading: cell}, without what a plan made by hand lacks."""
    names = ("party", "cores", "cpuset", "threads", "memory", "device")
    try:
        return [dict(zip(names, row)) for row in _plan_table.party_rows(plan)]
    except (KeyError, TypeError):
        return []


def versions(raw):
    """Return {what: version} of everything that is known."""
    facts, engine, images = raw["facts"], raw["engine"], raw["proof"].get("images") or {}
    compose = engine.get("compose") or {}
    found = {
        "Operating system": " ".join(str(facts.get(name) or "") for name in ("distribution", "distribution_version")).strip(),
        "Kernel": facts.get("kernel"),
        "Python of the host": facts.get("python_version"),
        "CPU": raw["topology"].get("model_name"),
        "Docker Engine": engine.get("version") and f"{engine['version']} ({engine.get('flavor')})",
        "Docker Compose": compose.get("version"),
        "NVIDIA driver": raw["gpu"].get("driver_version"),
        "vLLM": _answer(raw, "vllm_version").get("version"),
        "vLLM's image": images.get("vllm"),
        "Ollama": _answer(raw, "ollama_version").get("version"),
        "Ollama's image": images.get("ollama"),
        "ansible-core": raw["ansible_version"],
        "erni_ki.inference": collection_version(),
    }
    return {name: str(version) for name, version in found.items() if version}


def _answer(raw, name):
    """Return what an API said, as far as it is an object. Where the plan has no such service, something else may answer there."""
    for one in raw["apis"]:
        if one["__report_api"]["name"] == name and (read_plan(raw["plan"]) or {}).get(name.partition("_")[0]) and isinstance(one.get("json"), dict):
            return one["json"]
    return {}


def settings(raw):
    """Return {what: value} of what was chosen beside the plan."""
    found = {f"{NAMES.get(service, service)}'s address": url for service, url in (raw["proof"].get("urls") or {}).items()}
    models = _answer(raw, "ollama_tags").get("models")
    for model in models if isinstance(models, list) else []:
        if isinstance(model, dict) and model.get("name"):
            found[f"Ollama's model {model['name']}"] = str(model.get("digest") or "")[:12]
    return found


def _services(found, names):
    """Return the services that one of these figures knows."""
    return [service for service in SERVICES if any(service in found.get(name, {}) for name in names)]


def _row(what, unit, points, end, step, factor=1):
    told = {name: None if value is None else value * factor for name, value in _report_series.summary(points, end, step).items()}
    return {"what": what, "unit": unit, **told}


def _rows(found, end, step):
    """Return the table of figures."""
    def add(what, unit, name, label="", factor=1):
        if label in found.get(name, {}):
            rows.append(_row(what, unit, found[name][label], end, step, factor))

    rows = []
    for service in SERVICES:
        name = NAMES[service]
        add(f"{name}: CPU time", "CPUs", "cpu", service)
        add(f"{name}: CPU time outside its CPUs", "% of a CPU", "off_plan", service, 100)
        add(f"{name}: others on its CPUs", "% of a CPU", "foreign", service, 100)
        add(f"{name}: throttled", "% of the time", "throttled", service, 100)
        add(f"{name}: memory", "MiB", "memory", service, 1 / MIB)
        add(f"{name}: one token took", "s", "probe", service)
    add("vLLM: tokens out", "tokens/s", "tokens_out")
    add("vLLM: tokens in", "tokens/s", "tokens_in")
    add("vLLM: requests that wait", "requests", "waiting")
    for gpu in sorted({gpu for name in ("vram", "gpu_busy", "gpu_heat", "gpu_power") for gpu in found.get(name, {})}):
        add("GPU: memory", "MiB", "vram", gpu, 1 / MIB)
        add("GPU: busy", "%", "gpu_busy", gpu, 100)
        add("GPU: temperature", "°C", "gpu_heat", gpu)
        add("GPU: power", "W", "gpu_power", gpu)
    return rows


def _health(found):
    """Return for each service how much of the time it ran, and brought a token."""
    told = []
    for service in _services(found, ("generating", "running")):
        one = {"service": service}
        for name in ("running", "generating"):
            points = found.get(name, {}).get(service)
            one[name] = None if not points else round(_report_series.share(points, lambda value: value >= 1), 1)
        told.append(one)
    return told


def _words(found):
    """Return what happened in the time, as sentences."""
    told = []
    for name, one, more in (("restarts", "was restarted once", "was restarted {} times"),
                            ("oom_kills", "was stopped once for want of memory", "was stopped {} times for want of memory")):
        for service in SERVICES:
            count = round(_report_series.grown(found.get(name, {}).get(service) or [(0, 0)]))
            if count:
                told.append(f"{NAMES[service]} {one if count == 1 else more.format(count)}.")
    for name, what in (("drift", "The containers were not as the plan says"), ("wrong_device", "A model of Ollama was not on its GPU"),
                       ("gpu_lost", "The GPU was lost")):
        for points in found.get(name, {}).values():
            part = _report_series.share(points, lambda value: value > 0)
            if part:
                told.append(f"{what} in {number(part)} % of the time.")
    return told


def _models(found, end, step):
    """Return the models that Ollama had loaded, the last ones first."""
    told = []
    for name, points in found.get("model_size", {}).items():
        vram = found.get("model_vram", {}).get(name)
        size = points[-1][1]
        told.append({
            "name": name, "size_mib": round(size / MIB), "vram_mib": round(vram[-1][1] / MIB) if vram else 0,
            "loaded": points[-1][0] >= end - 2 * step, "hours": round(len(points) * step / 3600, 1)})
    return sorted(told, key=lambda one: (not one["loaded"], one["name"]))


def live(raw):
    """Return (what the live figures come to, the lines that are drawn)."""
    hours, url = raw["hours"], raw["prometheus_url"] or _report_series.DEFAULT_URL
    step = _report_series.step_of(hours)
    end = raw["time"]
    head = {"hours": hours, "step_s": step, "from": end - hours * 3600, "to": end, "url": url}
    why = _report_series.problem(raw["prometheus"], url, bool(raw["prometheus_url"]), hours, raw["prometheus_labels"])
    if why:
        return {**head, "available": False, "why": why, "rows": [], "health": [], "words": [], "models": [], "models_more": 0}, {}
    found = _report_series.read(raw["prometheus"]["json"]["data"]["result"])
    models = _models(found, end, step)
    return {
        **head, "available": True, "why": "", "rows": _rows(found, end, step), "health": _health(found), "words": _words(found),
        "models": models[:MOST_MODELS], "models_more": max(0, len(models) - MOST_MODELS)}, found


def _told(result):
    """Return what a module says of the host, or in its own words why it could not look."""
    return result["summary"] if "summary" in result else f"not made: {str(result.get('msg') or 'no reason was given').rstrip('.')}"


def report(raw, previous=""):
    """Return the report of one host.

    C(raw) is what was read, by name; C(previous) the text of the report before, empty without one. The key C(series) is for the pictures only.
    """
    raw = plain(raw)
    plan = read_plan(raw["plan"])
    proof, diagnosis = raw["proof"], raw["diagnosis"]
    cores = [{"core": core["index"], "package": core["package"], "cpus": core["cpus"]} for core in raw["topology"].get("cores") or []]
    figures, series = live(raw)
    made = {
        "schema_version": SCHEMA_VERSION,
        "host": raw["host"],
        "time": raw["time"],
        "when": moment(raw["time"]),
        "plan": plan,
        "plan_hash": hashlib.sha256(raw["plan"].encode()).hexdigest() if plan else "",
        "plan_problem": "" if plan else NO_PLAN,
        "parties": parties(plan) if plan else [],
        "cores": cores if plan else [],
        "owners": owners(plan, cores) if plan else {},
        "proof_ok": bool(proof.get("ok")),
        "proof_summary": _told(proof),
        "checks": proof.get("checks") or [],
        "findings": diagnosis.get("findings") or [],
        "counts": diagnosis.get("counts") or {},
        "diagnosis_summary": _told(diagnosis),
        "versions": versions(raw),
        "settings": settings(raw),
        "live": figures,
    }
    made["ok"] = made["proof_ok"] and "summary" in diagnosis and not made["counts"].get("critical")
    made["summary"] = f"proof {made['proof_summary']}; diagnosis {made['diagnosis_summary']}"
    made["since"], made["since_problem"], made["changes"] = "", "", []
    try:
        before = _report_changes.read(previous)
        if before:
            made["changes"] = _report_changes.changes(before, made)
            made["since"] = before["when"]
    except (_report_changes.Unreadable, AttributeError, KeyError, TypeError) as error:
        made["since_problem"] = f"The last report cannot be compared: {error if isinstance(error, _report_changes.Unreadable) else 'parts of it are missing'}."
    # What hosts and models are called is text, whatever it looks like: no release of Ansible may take it for a template.
    return wrap_var({**made, "series": series})


def document(raw, previous=""):
    """Return the report of what the role read.

    Older releases of Ansible make a dictionary of a text that is JSON, and texts of numbers: the plan comes in base64, and numbers are read again.
    """
    plan = base64.b64decode(raw["plan"]).decode("utf-8", "replace")
    return report({**raw, "plan": plan, "time": int(raw["time"]), "hours": float(raw["hours"])}, previous)
