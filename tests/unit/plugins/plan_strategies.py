# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts and policies to plan for, drawn at random or made to order, and a checker that knows only the rules."""
from __future__ import annotations

from hypothesis import strategies as st

from ansible_collections.erni_ki.inference.plugins.module_utils._cpulist import format_cpulist, parse_cpulist
from ansible_collections.erni_ki.inference.plugins.module_utils._sizing import RUNTIME_MIB

UUID = "GPU-1b2c3d4e-0000-1111-2222-333344445555"


def gpu(uuid=UUID, name="Quadro P2200", total=5120, capability="6.1", architecture="Pascal", **changes):
    """A GPU as gpu_info shows it; a Quadro P2200 that nobody uses."""
    found = {
        "index": 0, "name": name, "uuid": uuid, "bus_id": "0000:01:00.0",
        "memory": {"total_mib": total, "used_mib": 3, "free_mib": total - 64, "reserved_mib": 61}, "compute_capability": capability,
        "architecture": architecture, "mig_mode": None, "ecc_mode": None, "power_limit_w": 75.0, "temperature_c": 41, "processes": [], "error": None}
    found.update(changes)
    return found


def card(device_id="0x1c31", bus_id="0000:01:00.0", **changes):
    """A card as the PCI bus shows it."""
    return {"bus_id": bus_id, "vendor_id": "0x10de", "device_id": device_id, "class": "0x030000", "name": None, "driver": "nvidia", **changes}


def gpu_facts(*gpus, **changes):
    """What gpu_info returns of a host with these GPUs and a driver that does."""
    facts = {
        "state": "ok", "code": None, "hint": "", "driver_version": "580.95.05", "cuda_driver_version": "13.0", "nvml_version": "13.580.95.05",
        "module": {"loaded": True, "version": "580.95.05", "open": False}, "cards": [card()], "gpus": list(gpus),
        "toolkit": {"version": "1.19.1", "cdi_spec": "/var/run/cdi/nvidia.yaml", "cdi_devices": [], "cdi_driver_version": "580.95.05"}}
    facts.update(changes)
    return facts


GPU = gpu_facts(gpu())
NO_GPU = gpu_facts(state="no_card", driver_version=None, module={"loaded": False, "version": None, "open": None}, cards=[])


def topology(groups, memory=32000, nodes=None, kinds=None, node_of=None, **changes):
    """A topology of cores given as lists of logical CPUs; C(nodes) are MiB by node, C(node_of) says each core's node."""
    cpus = sorted(cpu for group in groups for cpu in group)
    nodes = {0: memory} if nodes is None else nodes
    kinds = kinds or ["uniform"] * len(groups)
    node_of = node_of or [0] * len(groups)
    cores = [
        {"index": index, "package": node_of[index], "cluster": None, "core_id": index, "numa_node": node_of[index], "cpus": list(group), "kind": kinds[index]}
        for index, group in enumerate(groups)]
    on_node = {node: [cpu for core in cores if core["numa_node"] == node for cpu in core["cpus"]] for node in nodes}
    facts = {
        "architecture": "x86_64", "model_name": "Test CPU", "vendor": "Tests", "flags": ["avx", "avx2", "avx512f"],
        "cpus": {"present": format_cpulist(cpus), "online": format_cpulist(cpus), "offline": "", "isolated": "", "usable": format_cpulist(cpus)},
        "cores": cores,
        "smt": {"active": any(len(group) > 1 for group in groups), "control": "on", "threads_per_core": max(len(group) for group in groups)},
        "numa_nodes": [
            {"node": node, "cpus": format_cpulist(on_node[node]), "memory_total_mib": size, "memory_free_mib": size} for node, size in sorted(nodes.items())],
        "llc_groups": [], "memory": {"total_mib": memory, "available_mib": memory, "swap_total_mib": 0},
        "cgroup": {"version": 2, "mode": "unified"}, "init_system": "systemd",
    }
    for name, value in changes.items():
        if name in facts["cpus"]:
            facts["cpus"][name] = value
        else:
            facts[name] = value
    return facts


def split(cores, threads=2):
    """Cores numbered first, their siblings after them: core n is CPUs n and n + cores."""
    return [[core + thread * cores for thread in range(threads)] for core in range(cores)]


def adjacent(cores, threads=2):
    """Siblings side by side: core n is CPUs 2n and 2n + 1."""
    return [[core * threads + thread for thread in range(threads)] for core in range(cores)]


def seldom(draw, percent):
    """True now and then: most hosts and policies are sound, or every test would be about the few that can be refused at once."""
    return draw(st.integers(0, 99)) >= 100 - percent


@st.composite
def topologies(draw):
    """Hosts of one to four packages, with all that makes real ones uneven."""
    packages = draw(st.integers(1, 4))
    per_package = draw(st.integers(1, 6))
    threads = draw(st.sampled_from([1, 2, 2, 4]))
    count = packages * per_package
    # On a hybrid CPU the later cores are efficiency cores, without siblings.
    performance = draw(st.integers(1, count)) if seldom(draw, 25) else count
    hybrid = performance < count
    widths = [threads if core < performance else 1 for core in range(count)]
    if draw(st.booleans()):
        groups, number = [], 0
        for width in widths:
            groups.append(list(range(number, number + width)))
            number += width
    else:
        groups, number = [[] for _core in range(count)], 0
        for thread in range(threads):
            for core in range(count):
                if thread < widths[core]:
                    groups[core].append(number)
                    number += 1
    if seldom(draw, 25):
        # Gaps in the numbering.
        gap, every = draw(st.integers(1, 9)), draw(st.integers(1, 4))
        groups = [[cpu + gap * (cpu // every) for cpu in group] for group in groups]
    everything = sorted(cpu for group in groups for cpu in group)
    offline, isolated, forbidden = (draw(st.sets(st.sampled_from(everything), max_size=4)) if seldom(draw, 20) else set() for _kind in range(3))
    count_of_nodes = draw(st.sampled_from(sorted({1, min(2, count), packages, min(4, count)})))
    nodes_of = [core * count_of_nodes // count for core in range(count)]
    online = [([cpu for cpu in group if cpu not in offline], node, core < performance) for core, (group, node) in enumerate(zip(groups, nodes_of))]
    online = sorted((entry for entry in online if entry[0]), key=lambda entry: entry[0][0])
    if not online:
        online, offline = [(everything[:1], 0, True)], set(everything[1:])
    total = draw(st.integers(500, 12000)) if seldom(draw, 15) else draw(st.integers(12000, 90000))
    shares = [draw(st.sampled_from([3, 2, 4, 1, 0])) for _node in range(count_of_nodes)]
    nodes = {node: total * share // max(1, sum(shares)) for node, share in enumerate(shares)}
    if sum(shares) == 0:
        nodes = {node: None for node in nodes}
    seen = sorted(cpu for group, _node, _fast in online for cpu in group)
    facts = topology(
        [group for group, _node, _fast in online], memory=total, nodes=nodes,
        kinds=[("performance" if fast else "efficiency") if hybrid else "uniform" for _group, _node, fast in online],
        node_of=[node for _group, node, _fast in online],
        offline=format_cpulist(offline), isolated=format_cpulist(isolated),
        usable=format_cpulist(set(seen) - isolated - forbidden))
    if seldom(draw, 30):
        facts["architecture"], facts["flags"] = draw(st.sampled_from([
            ("x86_64", ["avx", "avx2"]), ("aarch64", ["asimd", "bf16"]), ("aarch64", ["asimd"]), ("aarch64", []), ("x86_64", []), ("s390x", ["vx"])]))
    if seldom(draw, 10):
        facts["init_system"] = draw(st.sampled_from(["openrc", None]))
    if seldom(draw, 10):
        facts["cgroup"] = draw(st.sampled_from([{"version": 1, "mode": "legacy"}, {"version": None, "mode": "none"}]))
    return facts


_containers = st.lists(st.fixed_dictionaries({
    "name": st.sampled_from(["vllm", "ollama", "postgres", "webui"]), "id": st.sampled_from(["a" * 64, "b" * 64]), "image": st.just("x"),
    "state": st.just("running"), "cgroup_parent": st.sampled_from(["", "system.slice", "other.slice", "/docker"]), "cpuset": st.just(""),
    "compose_project": st.none()}), max_size=3)


@st.composite
def engines(draw):
    if draw(st.booleans()):
        return None
    engine = {
        "flavor": "distribution", "installed": True, "reachable": True, "version": "26.1.5", "cgroup_driver": "systemd", "cgroup_version": 2,
        "runtimes": ["runc"], "compose": {"kind": "v2", "version": "2.26.1"}, "containers": draw(_containers)}
    if seldom(draw, 20):
        engine.update(draw(st.sampled_from([
            {"installed": False, "flavor": "none", "version": None}, {"flavor": "snap"}, {"flavor": "podman-docker", "version": "5.4.1"},
            {"version": "19.3.1"}, {"version": "20.10.24"}, {"version": None, "reachable": False}, {"cgroup_driver": "cgroupfs"}, {"cgroup_driver": None},
            {"compose": {"kind": "v1", "version": "1.29.2"}}, {"compose": {"kind": "none", "version": None}}])))
    return engine


# Cards as they are sold: name, PCI device id, compute capability, architecture, MiB.
SOLD = (
    ("Quadro P2200", "0x1c31", "6.1", "Pascal", 5120), ("Quadro K4200", "0x11b4", "3.0", "Kepler", 4096),
    ("GeForce GTX 750 Ti", "0x1380", "5.0", "Maxwell", 2048), ("Tesla P40", "0x1b38", "6.1", "Pascal", 24576),
    ("Tesla V100-PCIE-16GB", "0x1db4", "7.0", "Volta", 16384), ("Tesla T4", "0x1eb8", "7.5", "Turing", 16384),
    ("NVIDIA RTX A2000", "0x2531", "8.6", "Ampere", 6138), ("NVIDIA L4", "0x27b8", "8.9", "Ada", 23034), ("NVIDIA H200", "0x2335", "9.0", "Hopper", 143771),
    ("NVIDIA B200", "0x2901", "10.0", "Blackwell", 183359), ("NVIDIA GeForce RTX 5060", "0x2d05", "12.0", "Blackwell", 8151))


@st.composite
def gpu_hosts(draw):
    """What gpu_info returns: mostly a card that works, and now and then all that can be wrong with one."""
    if seldom(draw, 25):
        return draw(st.sampled_from([None, {}, NO_GPU]))
    sold = [draw(st.sampled_from(SOLD)) if seldom(draw, 40) else SOLD[0] for _card in range(draw(st.sampled_from([1, 1, 1, 2, 3])))]
    gpus, cards = [], []
    for index, (name, device_id, capability, architecture, total) in enumerate(sold):
        bus = f"0000:0{index + 1}:00.0"
        cards.append(card(device_id, bus, driver=draw(st.sampled_from(["nvidia", "nvidia", "nouveau", None])), name=draw(st.sampled_from([name, None]))))
        if seldom(draw, 5):
            continue
        free, processes = total - draw(st.integers(0, 100)), []
        if seldom(draw, 25):
            held = [draw(st.integers(0, free // 2)) for _process in range(draw(st.integers(1, 3)))]
            containers = st.sampled_from([None, "a" * 64, "b" * 64, "c" * 64])
            processes = [
                {"pid": 100 + number, "name": "python", "container": draw(containers), "type": "compute",
                 "memory_mib": draw(st.sampled_from([size, size, size, None]))} for number, size in enumerate(held)]
            free = max(0, free - sum(held))
        gpus.append(gpu(
            f"GPU-{index}", name if seldom(draw, 95) else None, total, capability if seldom(draw, 95) else None, architecture if seldom(draw, 95) else None,
            bus_id=draw(st.sampled_from([bus, f"0000{bus}"])), processes=processes, mig_mode=draw(st.sampled_from([None, "disabled"])),
            memory={"total_mib": total, "used_mib": total - free, "free_mib": free, "reserved_mib": draw(st.sampled_from([None, 0, 61]))}))
        if seldom(draw, 5):
            gpus[-1].update(draw(st.sampled_from([{"mig_mode": "enabled"}, {"error": "it is lost"}, {"memory": {}}, {"uuid": None, "error": "no answer"}])))
    driver = draw(st.sampled_from(["580.95.05"] * 6 + ["570.211.01", "550.163.01", "535.288.01", "595.58", "610.43.02", None, "strange"]))
    bad = ["no_driver", "not_loaded", "version_mismatch", "gpu_lost", "permission", "no_bindings", "unknown"]
    state = draw(st.sampled_from(bad)) if seldom(draw, 15) else "ok"
    return gpu_facts(
        *(gpus if state in ("ok", "gpu_lost") else ()), cards=cards, state=state, code=draw(st.sampled_from([None, 9])),
        hint=draw(st.sampled_from(["", "Do this", "Do that."])) if state != "ok" else "", driver_version=driver,
        module={"loaded": True, "version": driver, "open": draw(st.sampled_from([None, False, False, False, True]))},
        toolkit={"version": draw(st.sampled_from([None, "1.19.1", "1.19.1", "1.18.2", "1.17.8", "1.17.7", "unknown"])), "cdi_spec": None})


def _values(facts):
    """What may be asked of this host, by key: mostly what it has, and a little of what it has not."""
    cores = [core["index"] for core in facts["cores"]]
    cpus = [cpu for core in facts["cores"] for cpu in core["cpus"]]
    listed = st.sets(st.sampled_from(cores), min_size=1, max_size=6)
    core_list = st.one_of(listed.map(format_cpulist), listed.map(sorted), st.sampled_from(cores), st.just(""), st.just([len(cores) + 3, 0]))
    cpu_list = st.one_of(
        st.sets(st.sampled_from(facts["cores"]).map(lambda core: tuple(core["cpus"])), max_size=5).map(lambda groups: format_cpulist(sum(groups, ()))),
        st.sets(st.sampled_from([core["cpus"][0] for core in facts["cores"]]), max_size=5).map(format_cpulist),
        st.sets(st.sampled_from(cpus), max_size=8).map(format_cpulist), st.just("0,99"))

    def mib(*values):
        return st.one_of(st.sampled_from(values), st.sampled_from(values).map(str), st.integers(min(values) // 2, 2 * max(values)))

    return {
        "services": st.sampled_from([["vllm", "ollama"], ["vllm"], ["ollama"], "vllm, ollama", [], ["vllm", "llama"]]),
        "isolation": st.sampled_from(["exclusive", "exclusive", "Exclusive", "fenced", "strict"]),
        "reserved_cores": st.one_of(st.integers(1, 6), st.integers(0, 3).map(str), core_list),
        "vllm_cores": core_list,
        "vllm_cpus": cpu_list,
        "vllm_allow_split_cores": st.booleans(),
        "vllm_smt": st.sampled_from(["own", "idle", "idle", "off"]),
        "vllm_omp": st.sampled_from(["auto", "explicit"]),
        "vllm_omp_bind": cpu_list,
        "vllm_numa": st.sampled_from(["span", "single"]),
        "vllm_memory_limit_mib": mib(6144, 4096, 2800, 12000),
        "vllm_memory_reservation_mib": mib(2048, 1024, 8192),
        "vllm_shm_mib": mib(256, 240, 1024),
        "vllm_kv_cache_gib": st.one_of(st.integers(0, 9), st.sampled_from(["4", "4g", 4.5, "512m"])),
        "vllm_kv_cache_fixed": st.booleans(),
        "vllm_weights_mib": mib(0, 300, 1000),
        "vllm_max_num_batched_tokens": st.integers(0, 4096),
        "vllm_max_num_seqs": st.integers(0, 256),
        "vllm_block_size": st.integers(1, 300),
        "vllm_max_model_len": st.integers(0, 9000),
        "vllm_engine_version": st.sampled_from(["0.32.0", "v0.33.1+cpu", "0.29.0", "0.28.0", "0.11.1", "0.10.2", "0.17.0", "new", 0.3]),
        "ollama_cpus": st.one_of(st.sampled_from(["any", "any", "reserved", "all"]), core_list),
        "ollama_memory_limit_mib": mib(4096, 2048, 300),
        "ollama_memory_reservation_mib": mib(1024, 512),
        "ollama_require_gpu": st.sampled_from([False, False, True, "yes"]),
        "ollama_gpu": st.sampled_from(["", "*", "*P2200*", "P2200", "GPU-0", "gpu-1", "GPU-9", "Quadro*"]),
        "ollama_engine_version": st.sampled_from(["0.32.15", "0.31.0", "0.30.11", "0.30.0", "0.24.0", "0.11.0", "0.5.0", "none"]),
        "ollama_model_mib": mib(1926, 2400, 4466, 20000),
        "ollama_kv_bytes_per_token": st.sampled_from([0, 114688, 57344, 393216]),
        "ollama_context_length": st.sampled_from([0, 512, 1000, 4096, 8192, "16384", 131072]),
        "ollama_parallel": st.sampled_from([1, 2, 4, 16, 0]),
        "ollama_max_loaded_models": st.sampled_from([1, 2, 3]),
        "ollama_kv_cache_type": st.sampled_from(["f16", "q8_0", "q4_0", "q8"]),
        "ollama_allow_partial_offload": st.booleans(),
        "container_toolkit_version": st.sampled_from(["1.19.1", "1.18.2", "1.17.8", "1.17.7", "1.20", "new"]),
        "system_reserve_mib": mib(1024, 512, 16000),
        "allow_squeezing_containers": st.booleans(),
    }


junk = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12), st.binary(max_size=4)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)), max_leaves=5)


# Where rules meet.
_OFTEN = ("isolation", "ollama_cpus", "vllm_cores", "vllm_numa", "vllm_omp", "ollama_model_mib", "ollama_context_length", "ollama_gpu")


@st.composite
def policies(draw, facts):
    """A few keys with sensible values, and now and then nonsense in the one or the other."""
    values = _values(facts)
    policy = {name: draw(value) for name, value in values.items() if seldom(draw, 40 if name in _OFTEN else 12)}
    policy.setdefault("ollama_require_gpu", False)
    if seldom(draw, 5):
        policy[draw(st.sampled_from(sorted(values)))] = draw(junk)
    if seldom(draw, 5):
        policy[draw(st.sampled_from(["vllm_core", "vllm_kv_cache_gb", "numa", "plan_vllm_smt", "x"]))] = draw(junk)
    return policy


@st.composite
def questions(draw):
    """All that a plan is made of: host, engine, GPUs, policy."""
    facts = draw(topologies())
    return facts, draw(engines()), draw(gpu_hosts()), draw(policies(facts))


@st.composite
def gpu_questions(draw):
    """The same about one plain host: only what has to do with the GPU varies."""
    facts = topology(split(8), memory=draw(st.sampled_from([12000, 32000, 200000])))
    values = {name: value for name, value in _values(facts).items() if name.startswith("ollama_") or name == "container_toolkit_version"}
    sound = {"ollama_cpus": st.just("reserved"), "ollama_require_gpu": st.sampled_from([True, True, False])}
    policy = {name: draw(sound.get(name, value)) for name, value in values.items() if seldom(draw, 25)}
    engine = draw(engines())
    host = draw(gpu_hosts())
    if engine and seldom(draw, 50):
        # Ollama runs already, and holds what it has loaded.
        engine["containers"] = [{"name": "ollama", "id": "a" * 64}, {"name": "webui", "id": "b" * 64}]
    return facts, engine, host, policy


# What may be left when everything in a policy has been mended: the host has to change.
HELPLESS = frozenset((
    "architecture", "isa", "engine-snap", "engine-podman", "engine-version", "engine-compose", "cores-needed", "host-memory", "node-memory", "kv-fits-node",
    # A model that fits into nothing that the host has.
    "vram-fits", "spill-fits-limit"))


def check_device(engine, facts, values, limit, device):
    """Assert that the GPU in a plan is one that works, and that what is to be on it fits."""
    found = next(item for item in facts["gpus"] if item["uuid"] == device["uuid"])
    assert facts["state"] == "ok" and not found["error"] and found["mig_mode"] != "enabled"
    asked = values["ollama_gpu"].lower()
    assert not asked or asked == found["uuid"].lower() or "*" in asked
    # Card, driver and library, told once more.
    version = tuple(int(part) for part in values["ollama_engine_version"].split("."))
    capability = tuple(int(part) for part in device["compute_capability"].split("."))
    assert found["compute_capability"] in (None, device["compute_capability"]) and capability >= (5, 0)
    driver = facts["driver_version"]
    branch = int(driver.split(".")[0]) if driver and driver != "strange" else None
    first, _dash, last = device["driver"]["allowed"].partition("-")
    assert device["driver"]["found"] == driver and (branch is None or int(first) <= branch <= int(last or branch))
    assert int(first) >= (570 if version >= (0, 30) and capability < (7,) else 550 if version >= (0, 30) else 531)
    assert last == ("580" if capability < (7, 5) else "")
    assert facts["module"]["open"] is not True or capability >= (7, 5)
    assert facts["module"]["open"] is not False or capability < (10,)
    assert device["library"] == ("cuda_v13" if capability >= (7, 5) and version >= (0, 11, 11) and branch and branch >= 580 else "cuda_v12") or branch is None
    assert facts["toolkit"]["version"] != "1.17.7" and values["container_toolkit_version"] != "1.17.7"
    assert device["handover"] == "cdi" and device["cdi_device"] == f"nvidia.com/gpu={found['uuid']}"
    if engine and engine["installed"] and engine["version"]:
        assert int(engine["version"].split(".")[0]) >= 25
    # The budget.
    vram, memory = device["vram"], found["memory"]
    count, share = values["ollama_max_loaded_models"], {"f16": 1, "q8_0": 17 / 32, "q4_0": 9 / 32}[vram["kv_cache_type"]]
    assert device["memory_total_mib"] == vram["total_mib"] == memory["total_mib"]
    assert vram["reserve_mib"] == 768 * count + (1024 if version >= (0, 30) else 0) + (memory["reserved_mib"] or 0)
    assert vram["weights_mib"] == values["ollama_model_mib"] * count
    kv = vram["context_length"] * vram["parallel"] * (values["ollama_kv_bytes_per_token"] or 147456) * share / 2**20
    assert kv * count <= vram["kv_cache_mib"] < (kv + 1) * count
    assert vram["left_mib"] == vram["total_mib"] - vram["reserve_mib"] - vram["weights_mib"] - vram["kv_cache_mib"]
    assert vram["parallel"] == values["ollama_parallel"] and vram["max_loaded_models"] == count and vram["kv_cache_type"] == values["ollama_kv_cache_type"]
    assert vram["context_length"] == values["ollama_context_length"] or (values["ollama_context_length"] == 0 and 1024 <= vram["context_length"] <= 4096)
    assert vram["kv_cache_type"] == "f16" or capability >= ((6, 0) if version >= (0, 31, 2) else (7, 0) if version >= (0, 30) else (5, 0))
    assert vram["partial_allowed"] == values["ollama_allow_partial_offload"]
    if vram["left_mib"] < 0:
        assert vram["partial_allowed"] and 256 - vram["left_mib"] <= limit
    # What others hold.
    own = {item["id"] for item in (engine or {"containers": []})["containers"] if item["name"] == "ollama"}
    mine = [process for process in found["processes"] if process["container"] in own]
    if not any(process["memory_mib"] is None for process in mine):
        needed = 768 * count + (1024 if version >= (0, 30) else 0)
        if not vram["partial_allowed"]:
            needed += vram["weights_mib"] + vram["kv_cache_mib"]
        assert needed <= memory["free_mib"] + sum(process["memory_mib"] for process in mine) + 64


def check_plan(facts, engine, gpu_of_host, values, plan, read=None):
    """Assert every rule on an accepted plan, from the facts and the policy's (complete, typed) values alone."""
    lists = {name: set(parse_cpulist(facts["cpus"][name])) for name in ("online", "usable", "isolated", "offline")}
    usable = (lists["online"] & lists["usable"]) - lists["isolated"] - lists["offline"]
    siblings = {core["index"]: set(core["cpus"]) & usable for core in facts["cores"]}
    node_of = {core["index"]: core["numa_node"] for core in facts["cores"]}
    kind_of = {core["index"]: core["kind"] for core in facts["cores"]}
    usable_cores = {index for index, cpus in siblings.items() if cpus}
    total = facts["memory"]["total_mib"]
    memory_of = {node["node"]: node["memory_total_mib"] for node in facts["numa_nodes"]}
    vllm, ollama, system = plan["vllm"], plan["ollama"], plan["system"]
    services = [name for name in ("vllm", "ollama") if plan[name]]
    assert services == values["services"]

    def together(cores):
        return set().union(*(siblings[core] for core in cores))

    def room(mems):
        sizes = [memory_of[node] for node in parse_cpulist(mems)]
        return total if None in sizes or len(memory_of) == 1 else sum(sizes)

    # Nobody shares a core, and nobody has what the host may not use.
    assert system["cores"] and set(system["cores"]) <= usable_cores
    assert set(parse_cpulist(system["cpuset"])) == together(system["cores"])
    if isinstance(values["reserved_cores"], list):
        assert set(values["reserved_cores"]) <= set(system["cores"])
    else:
        assert len(system["cores"]) >= values["reserved_cores"]
    claimed = 0
    if vllm:
        cpuset, mine = set(parse_cpulist(vllm["cpuset"])), together(vllm["cores"])
        assert vllm["cores"] and set(vllm["cores"]) <= usable_cores and cpuset and cpuset <= mine <= usable
        assert not set(vllm["cores"]) & set(system["cores"]) and not mine & set(parse_cpulist(system["cpuset"]))
        listed = {core: cpuset & siblings[core] for core in vllm["cores"]}
        assert all(listed.values())
        if values["vllm_cpus"]:
            assert cpuset == set(values["vllm_cpus"])
        elif values["vllm_smt"] == "own":
            assert cpuset == mine
        else:
            assert cpuset == {min(siblings[core]) for core in vllm["cores"]}
        if not values["vllm_allow_split_cores"]:
            assert all(len(cpus) == (len(siblings[core]) if values["vllm_smt"] == "own" else 1) for core, cpus in listed.items())
        if values["vllm_cores"]:
            assert vllm["cores"] == sorted(values["vllm_cores"])
        elif not values["vllm_cpus"] and {"performance", "efficiency"} <= {kind_of[core] for core in usable_cores}:
            assert len({kind_of[core] for core in vllm["cores"]}) == 1
        nodes = {node_of[core] for core in vllm["cores"]}
        assert vllm["numa_nodes"] == sorted(nodes)
        assert len(nodes) == 1 or values["vllm_numa"] == "span"
        # Threads.
        omp = vllm["omp"]
        if values["vllm_omp"] == "auto":
            assert (omp["bind"], omp["cpus"]) == ("auto", None) and omp["threads"] >= 1
            if len(nodes) == 1 and facts["architecture"] == "x86_64":
                assert omp["threads"] == max(1, len(vllm["cores"]) - omp["reserved_cpus"])
        else:
            bind = set(parse_cpulist(omp["bind"]))
            assert omp["bind"] == omp["cpus"] and len(bind) == omp["threads"] >= 1 and bind <= cpuset
            assert bind < cpuset or len(cpuset) == 1
            if values["vllm_omp_bind"]:
                assert bind == set(values["vllm_omp_bind"])
            else:
                assert all(len(bind & siblings[core]) <= 1 for core in vllm["cores"])
                # One per core; only where no sibling is free is one core left out.
                assert len(bind) == len(vllm["cores"]) - (1 if len(cpuset) == len(vllm["cores"]) > 1 else 0)
        # Memory.
        memory, budget = vllm["memory"], vllm["budget"]
        claimed += memory["limit_mib"]
        assert memory["limit_mib"] == memory["swap_limit_mib"] == values["vllm_memory_limit_mib"]
        assert memory["reservation_mib"] == values["vllm_memory_reservation_mib"] <= memory["limit_mib"]
        assert memory["shm_mib"] == values["vllm_shm_mib"] >= 240
        assert budget["runtime_mib"] == RUNTIME_MIB + max(0, memory["shm_mib"] - 256)
        assert budget["weights_mib"] == values["vllm_weights_mib"] and budget["kv_cache_mib"] == 1024 * vllm["kv_cache_gib"]
        # The page cache of the weights' files is reclaimed when a batch needs the room.
        assert budget["activations_mib"] >= 0 and budget["page_cache_mib"] == max(0, (values["vllm_weights_mib"] if read is None else read)
                                                                                  - budget["activations_mib"])
        assert budget["left_mib"] == memory["limit_mib"] - sum(value for name, value in budget.items() if name != "left_mib") >= 0
        assert 1 <= vllm["kv_cache_gib"] <= values["vllm_kv_cache_gib"]
        lowered = vllm["kv_cache_gib"] < values["vllm_kv_cache_gib"]
        assert not (lowered and values["vllm_kv_cache_fixed"])
        assert lowered == any(note["rule"] == "kv-lowered" for note in plan["notes"])
        assert memory["limit_mib"] <= room(vllm["cpuset_mems"])
        # vLLM keeps what it needs on the node of its first thread.
        mems = parse_cpulist(vllm["cpuset_mems"])
        first = None if omp["cpus"] is None else parse_cpulist(omp["cpus"])[0]
        home = next((node_of[core] for core in vllm["cores"] if first in siblings[core]), mems[0])
        assert memory["limit_mib"] - budget["left_mib"] <= room(str(home if home in mems else mems[0]))
        assert all(memory_of[node] != 0 for node in parse_cpulist(vllm["cpuset_mems"]) if len(memory_of) > 1)
        # Engine.
        version = tuple(int(part) for part in values["vllm_engine_version"].split("+")[0].split("."))
        size, asked = vllm["engine"]["block_size"], values["vllm_block_size"]
        if version >= (0, 29):
            assert size % 32 == 0 and asked <= size < asked + 32
        elif version >= (0, 11, 1):
            assert size % 16 == 0 and asked <= size < asked + 16
        else:
            assert size == 16
        assert vllm["engine"]["max_num_batched_tokens"] >= vllm["engine"]["max_num_seqs"] >= 1
        if facts["architecture"] == "x86_64":
            assert "avx512f" in facts["flags"] or ("avx2" in facts["flags"] and version >= (0, 17))
        assert vllm["device"] == {"kind": "none", "runtime": "runc"}
    assert facts["architecture"] in ("x86_64", "aarch64")
    if ollama:
        policy = values["ollama_cpus"]
        assert set(parse_cpulist(ollama["cpuset"])) == together(ollama["cores"])
        assert ollama["policy"] == (policy if isinstance(policy, str) else format_cpulist(policy))
        if policy == "any":
            assert set(ollama["cores"]) == usable_cores
            assert ollama["threads"] == max(1, len(usable_cores) - (len(vllm["cores"]) if vllm else 0))
        else:
            assert not vllm or not set(ollama["cores"]) & set(vllm["cores"])
            assert ollama["threads"] == len(ollama["cores"]) >= 1
            if isinstance(policy, list):
                assert set(ollama["cores"]) == set(policy)
            elif vllm:
                assert set(ollama["cores"]) <= set(system["cores"])
        memory = ollama["memory"]
        claimed += memory["limit_mib"]
        assert memory["limit_mib"] == memory["swap_limit_mib"] == values["ollama_memory_limit_mib"]
        assert memory["reservation_mib"] == values["ollama_memory_reservation_mib"] <= memory["limit_mib"]
        if ollama["device"]["kind"] == "gpu":
            check_device(engine, gpu_of_host, values, memory["limit_mib"], ollama["device"])
        else:
            assert ollama["device"] == {"kind": "none", "uuid": None, "name": None} and values["ollama_require_gpu"] is False
            # Nobody is left to guess why.
            rules = [note["rule"] for note in plan["notes"]]
            assert "ollama-on-cpu" in rules
            assert ("gpu-unused" in rules) == bool(gpu_of_host and gpu_of_host["state"] != "no_card" and (gpu_of_host["gpus"] or gpu_of_host["cards"]))
    assert system["memory_left_mib"] == total - claimed >= system["memory_reserve_mib"] == values["system_reserve_mib"] > 0
    # Every usable core is somebody's.
    owned = set(system["cores"]) | set(vllm["cores"] if vllm else ()) | set(ollama["cores"] if ollama else ())
    assert owned == usable_cores
    # The partition says the same.
    partition, slices = plan["partition"], facts["init_system"] in (None, "systemd") and (engine or {}).get("cgroup_driver") != "cgroupfs"
    assert partition["mode"] == plan["isolation"] == values["isolation"]
    assert partition["slices"] == [
        {"unit": f"erniki-{name}.slice", "cpus": plan[name]["cpuset"], "mems": plan[name]["cpuset_mems"],
         "memory_low_mib": plan[name]["memory"]["reservation_mib"]}
        for name in services if slices]
    assert all(plan[name]["slice"] == f"erniki-{name}.slice" for name in services)
    if values["isolation"] == "exclusive":
        assert facts["init_system"] == "systemd" and facts["cgroup"]["version"] == 2
        assert partition["fence"] == {"cpus": system["cpuset"], "units": ["init.scope", "machine.slice", "system.slice", "user.slice"]}
        foreign = [item for item in (engine or {"containers": []})["containers"]
                   if item["name"] not in ("vllm", "ollama") and item["cgroup_parent"] in ("", "system.slice", "/docker")]
        assert not foreign or values["allow_squeezing_containers"]
    else:
        assert partition["fence"] is None
    if engine and engine["installed"]:
        assert engine["flavor"] not in ("snap", "podman-docker") and engine["compose"]["kind"] != "v1" and engine["version"] != "19.3.1"
    assert plan["host"] == {
        "architecture": facts["architecture"], "model_name": facts["model_name"], "cores": len(facts["cores"]), "logical_cpus": len(lists["online"]),
        "threads_per_core": facts["smt"]["threads_per_core"], "numa_nodes": sorted(memory_of), "memory_total_mib": total,
        "usable_cpus": format_cpulist(usable)}


@st.composite
def models(draw):
    """What model_size_info returns as model_size, as far as a plan reads it."""
    each = draw(st.sampled_from([None, 2048, 12288, 32768, 114688, 393216, 1 << 24]))
    part = draw(st.sampled_from([0, 0, each // 2, each])) if each else 0
    context = draw(st.sampled_from([None, 1024, 8192, 131072, 1 << 20]))
    return {
        "path": "/srv/models/one", "dtype": "bfloat16", "weights_mib": draw(st.sampled_from([None, 1, 300, 943, 2358, 14000])), "kv_bytes_per_token": each,
        "sliding_window": {"window": draw(st.sampled_from([1, 512, 4096])), "layers": 4, "kv_bytes_per_token": part} if part else None,
        "context_length": context, "default_context_length": draw(st.sampled_from([context, 2048])) if context != 1024 else context,
        "weights_bytes_read": draw(st.sampled_from([None, 1, 943 << 20, 5000 << 20])), "hidden_size": draw(st.sampled_from([None, 64, 2048])),
        "intermediate_size": draw(st.sampled_from([None, 8192])), "vocabulary_size": draw(st.sampled_from([2048, 262144]))}
