# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts and policies to plan for, drawn at random or made to order, and a checker that knows only the rules."""
from __future__ import annotations

from hypothesis import strategies as st

from ansible_collections.erni_ki.inference.plugins.module_utils._cpulist import format_cpulist, parse_cpulist

GPU = {"uuid": "GPU-1b2c3d4e-0000-1111-2222-333344445555", "name": "Quadro P2200", "memory_total_mib": 5120}


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
    "name": st.sampled_from(["vllm", "ollama", "postgres", "webui"]), "image": st.just("x"), "state": st.just("running"),
    "cgroup_parent": st.sampled_from(["", "system.slice", "other.slice", "/docker"]), "cpuset": st.just(""), "compose_project": st.none()}), max_size=3)


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


gpu_lists = st.sampled_from([[], [GPU], [dict(GPU, uuid="GPU-small", memory_total_mib=2048), GPU]])


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
        "system_reserve_mib": mib(1024, 512, 16000),
        "allow_squeezing_containers": st.booleans(),
    }


junk = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12), st.binary(max_size=4)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)), max_leaves=5)


# Where rules meet.
_OFTEN = ("isolation", "ollama_cpus", "vllm_cores", "vllm_numa", "vllm_omp")


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
    return facts, draw(engines()), draw(gpu_lists), draw(policies(facts))


# What may be left when everything in a policy has been mended: the host has to change.
HELPLESS = frozenset((
    "architecture", "isa", "engine-snap", "engine-podman", "engine-version", "engine-compose", "cores-needed", "host-memory", "node-memory", "kv-fits-node"))


def check_plan(facts, engine, gpus, values, plan):
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
        assert budget["runtime_mib"] == 1638 + max(0, memory["shm_mib"] - 256)
        assert budget["weights_mib"] == values["vllm_weights_mib"] and budget["kv_cache_mib"] == 1024 * vllm["kv_cache_gib"]
        assert budget["left_mib"] == memory["limit_mib"] - budget["runtime_mib"] - budget["weights_mib"] - budget["kv_cache_mib"] >= 0
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
        if gpus:
            assert ollama["device"] == {"kind": "gpu", "uuid": GPU["uuid"], "name": GPU["name"]}
        else:
            assert ollama["device"] == {"kind": "none", "uuid": None, "name": None} and values["ollama_require_gpu"] is False
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
