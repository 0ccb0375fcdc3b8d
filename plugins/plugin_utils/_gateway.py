# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a gateway needs to know, from what its hosts were given: engines, the way from a model's name to them, and what cannot work. Pure."""
from __future__ import annotations

import base64
import json
import re

from ansible_collections.erni_ki.inference.plugins.module_utils._address import bracketed, is_everywhere, is_loopback

_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_SERVICES = ("ollama", "vllm")


def settings(hosts, here, aliases, keys, limits, max_queue=8, drained=(), alone=True):
    """Return C(settings), which is what the gateway reads, and C(problems), a sentence each.

    C(hosts) is a list of dictionaries with C(name), C(address), C(plan), and for each service of the plan its variables, see C(host_of). C(here) is the
    name of the gateway's own host; engines of another one must be reachable from it. An engine of a gateway that stands C(alone) on its host is called
    as its service.
    """
    problems = []
    engines = [engine for host in hosts for engine in _engines(host, here, alone, max_queue, problems)]
    if not engines:
        problems.append("There is no engine behind this gateway: no host of it has a plan with vllm or ollama.")
    routes = _routes(engines)
    targets = _aliases(aliases, engines, routes, {host["name"] for host in hosts}, problems)
    names = {engine["name"] for engine in engines}
    for name in drained:
        if name not in names:
            problems.append(f"gateway_drained: there is no engine {name}; there are {', '.join(sorted(names)) or 'none'}.")
    for engine in engines:
        engine["drained"] = engine["name"] in drained
    return {
        "settings": {
            "engines": engines, "routes": {**routes, **targets}, "aliases": {name: True for name in targets}, "keys": _keys(keys, problems),
            "limits": dict(limits)},
        "problems": problems,
    }


def host_of(name, variables, defaults, plan, address, vllm_key=""):
    """Return what C(settings) wants of one host. C(variables) are its own, C(defaults) those of the roles vllm and ollama."""
    def of(option):
        value = variables.get(option)
        return defaults[option] if value is None else value

    model = of("vllm_model")
    models = [{"name": one} if isinstance(one, str) else one for one in of("ollama_models")]
    return {
        "name": name, "address": address, "plan": plan,
        "vllm": {
            "bind_address": of("vllm_bind_address"), "port": int(of("vllm_port")), "authorization": f"Bearer {vllm_key}" if vllm_key else "",
            "models": [of("vllm_served_model_name") or (model.rstrip("/").rpartition("/")[2] if model.startswith("/") else model)]},
        "ollama": {
            "bind_address": of("ollama_bind_address"), "port": int(of("ollama_port")), "authorization": "",
            "models": [str(one.get("name")) for one in models if one.get("state") != "absent"]},
    }


def from_inventory(
        hostvars, members, here, defaults, plans=(), engine_keys=(), aliases=None, keys=(), drained=(), max_queue=8, limits=None):
    """Return what C(settings) does, and in C(left_out) a sentence for each member without a plan. The arguments are those of the filter."""
    read = {one["__gateway_member"]: one for one in plans if one.get("content")}
    secrets = {one["__gateway_member"]: base64.b64decode(one["content"]).decode().strip() for one in engine_keys if one.get("content")}
    hosts, left_out, problems = [], [], []
    for name in members:
        if name not in hostvars:
            problems.append(f"gateway_hosts: {name} is no host of the inventory.")
            continue
        variables = hostvars[name]
        plan = variables.get("plan_decided")
        if plan is None and name in read:
            plan = json.loads(base64.b64decode(read[name]["content"]))
        if plan is None:
            left_out.append(f"{name} is left out: it has no plan, or could not be asked for it. The next run of site takes it in.")
            continue
        if plan.get("vllm") and variables.get("vllm_api_key_file") and name not in secrets:
            problems.append(f"vllm_api_key_file of {name} cannot be read, and its vLLM answers nobody without it.")
        hosts.append(host_of(name, variables, defaults, plan, variables.get("ansible_host") or name, secrets.get(name, "")))
    made = settings(hosts, here, aliases or {}, keys, limits or {}, max_queue, drained, alone=list(members) == [here])
    made["settings"]["limits"] = {name: int(value) for name, value in made["settings"]["limits"].items()}
    return {**made, "problems": problems + made["problems"], "left_out": left_out}


def _engines(host, here, alone, max_queue, problems):
    for service in _SERVICES:
        part = (host["plan"] or {}).get(service)
        if not part:
            continue
        given = host[service]
        address = _address(host, service, given["bind_address"], here, problems)
        if not address:
            continue
        name = service if alone else f"{host['name']}-{service}"
        yield {
            "name": name, "host": host["name"], "service": service, "address": address, "port": given["port"],
            "upstream": "engine_" + re.sub(r"[^a-z0-9]", "_", name.lower()), "models": given["models"],
            "known": {spelt: True for model in given["models"] for spelt in _spellings(service, model)},
            "authorization": given["authorization"], "device": _device(part), "max_connections": _room(service, part), "max_queue": max_queue,
        }


def _address(host, service, bound, here, problems):
    """Return where the gateway reaches the engine."""
    everywhere = is_everywhere(bound)
    if host["name"] == here:
        return "127.0.0.1" if everywhere else bracketed(bound)
    if everywhere:
        return bracketed(host["address"])
    if is_loopback(bound):
        problems.append(
            f"{service} of {host['name']} listens on {bound}, where the gateway on {here} cannot reach it. Set {service}_bind_address of {host['name']} to an "
            f"address of its private network, such as {host['address']}.")
        return None
    return bracketed(bound)


def _device(part):
    device = part.get("device") or {}
    if device.get("kind") != "gpu":
        return "none"
    return "gpu_in_part" if device["vram"]["partial_allowed"] else "gpu"


def _room(service, part):
    """Return how many requests the engine works on at a time."""
    if service == "vllm":
        return part["engine"]["max_num_seqs"]
    device = part.get("device") or {}
    if device.get("kind") != "gpu":
        return 1
    return device["vram"]["parallel"] * device["vram"]["max_loaded_models"]


def _spellings(service, model):
    """A model of Ollama without a tag is the one with the tag latest."""
    if service != "ollama":
        return [model]
    if model.endswith(":latest"):
        return [model, model[:-len(":latest")]]
    return [model] if ":" in model.rpartition("/")[2] else [model, model + ":latest"]


def _routes(engines):
    """Return every model's own name with the engines that have it, all of one rank."""
    routes = {}
    for engine in engines:
        for model in engine["models"]:
            for spelt in _spellings(engine["service"], model):
                routes.setdefault(spelt, []).append({"engine": engine["name"], "model": model, "rank": 1})
    return routes


def _aliases(aliases, engines, routes, hosts, problems):
    found = {}
    for alias, wanted in aliases.items():
        where = f"gateway_aliases, {alias}"
        if alias in routes:
            problems.append(f"{where}: a model of {', '.join(sorted({one['engine'] for one in routes[alias]}))} has that name already. Choose another one.")
            continue
        targets = [target for rank, one in enumerate(wanted, 1) for target in _targets(where, one, rank, engines, hosts, problems)]
        if targets:
            found[alias] = targets
        elif engines and not any(text.startswith(where + ":") for text in problems):
            problems.append(f"{where}: no engine of this gateway can answer it. The plans have {_listed(engines)}.")
    return found


def _targets(where, one, rank, engines, hosts, problems):
    """Return the engines that one step of an alias means; a step without a host and a model may mean none."""
    unknown = set(one) - {"service", "model", "host"}
    if unknown:
        problems.append(f"{where}: there is no option {', '.join(sorted(unknown))}; there are service, model and host.")
        return []
    service, model, host = one.get("service"), one.get("model"), one.get("host")
    if service not in _SERVICES:
        problems.append(f"{where}: service is {service}; it is one of {', '.join(_SERVICES)}.")
        return []
    if host and host not in hosts:
        problems.append(f"{where}: {host} is no host of this gateway; there are {', '.join(sorted(hosts))}.")
        return []
    fitting = [engine for engine in engines if engine["service"] == service and host in (None, "", engine["host"])]
    targets = []
    for engine in fitting:
        if not model and engine["models"]:
            targets.append({"engine": engine["name"], "model": engine["models"][0], "rank": rank})
        elif model and model in engine["known"]:
            targets.append({"engine": engine["name"], "model": model, "rank": rank})
    if (model or host) and not targets:
        what = f"{service} with the model {model}" if model else service
        problems.append(f"{where}: {'host ' + host if host else 'no host'} has {'no ' if host else ''}{what}. The plans have {_listed(engines)}.")
    return targets


def _listed(engines):
    return "; ".join(f"{engine['name']} with {', '.join(engine['models']) or 'no model'}" for engine in engines) or "no engine"


def _keys(keys, problems):
    """Return {hash: who}, as the gateway looks a key up."""
    found, names = {}, set()
    for place, key in enumerate(keys, 1):
        name, sha256 = str(key.get("name", "")), str(key.get("sha256", "")).lower()
        where = f"gateway_api_keys, {name or f'number {place}'}"
        if not _NAME.fullmatch(name):
            problems.append(f"{where}: a name has letters, digits, dots, hyphens and underscores, 63 at most; it stands in the log.")
        if name in names:
            problems.append(f"{where}: two keys have that name.")
        names.add(name)
        if not _SHA256.fullmatch(sha256):
            problems.append(f"{where}: sha256 has {len(sha256)} characters that are not all hexadecimal digits, or not 64. printf %s KEY | sha256sum makes it.")
        elif sha256 in found:
            problems.append(f"{where}: it is the same key as {found[sha256]['name']}.")
        rate, burst = int(key.get("requests_per_minute") or 0), int(key.get("burst") or 0)
        if rate < 0 or burst < 0:
            problems.append(f"{where}: requests_per_minute and burst are 0 or more.")
        found[sha256] = {"name": name, "requests_per_minute": rate, "burst": burst or max(1, rate // 6)}
    return found
