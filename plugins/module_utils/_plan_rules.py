# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules of a plan, walked through once: who gets which cores, how much memory and which device.

A broken rule becomes a violation that carries the overrides which mend it, and the walk goes on as if they had been
asked for, so that all violations are found at once.
"""
from __future__ import annotations

from ansible_collections.erni_ki.inference.plugins.module_utils import _kv_cache as kv_cache
from ansible_collections.erni_ki.inference.plugins.module_utils import _sizing as sizing
from ansible_collections.erni_ki.inference.plugins.module_utils._compat import ARCHITECTURES, block_size, judge_engine, judge_isa, parse_version
from ansible_collections.erni_ki.inference.plugins.module_utils._cpulist import format_cpulist
from ansible_collections.erni_ki.inference.plugins.module_utils._plan_gpu import device_of_ollama
from ansible_collections.erni_ki.inference.plugins.module_utils._policy import POLICY, plain, read_policy, refusal

FENCED_UNITS = ("init.scope", "machine.slice", "system.slice", "user.slice")

# vLLM's VLLM_CPU_NUM_OF_RESERVED_CPU: its own minimum for one worker, and the document's value.
RESERVED_CPUS = 1


def _count(number, noun):
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _named(cores):
    """C(core 7) or C(cores 0-6)."""
    text = format_cpulist(core.index for core in cores)
    return f"core {text}" if text.isdigit() else f"cores {text}"


def cpus_of(cores):
    return [cpu for core in cores for cpu in core.cpus]


class Attempt:
    """One walk through all rules."""

    def __init__(self, facts, policy):
        self.host, self.engine, self.gpu, self.model = facts
        self.policy = {str(key): value for key, value in policy.items()} if isinstance(policy, dict) else {}
        self.values, self.violations = read_policy(policy)
        self.notes = []
        self.has_vllm = "vllm" in self.values["services"]
        self.has_ollama = "ollama" in self.values["services"]
        self.measured = bool(self.model and self.model.weights_mib and self.has_vllm and not self.values["vllm_weights_mib"])
        if self.measured:
            self.values["vllm_weights_mib"] = self.model.weights_mib
        self.mixed = {"performance", "efficiency"} <= {core.kind for core in self.host.cores}
        self.sizes = None
        self.too_small = False
        self.reserved = self.vllm = self.ollama = self.system = ()
        self.cpuset, self.omp, self.mems = [], {}, []
        self.device = None

    def run(self):
        self._platform()
        self._container_engine()
        self._isolation()
        self._memory()
        if self._divide():
            self._rest()
            if self.has_vllm:
                self._cpus_of_vllm()
                self._threads_of_vllm()
                self._nodes_of_vllm()
        if self.has_vllm:
            self._settings_of_vllm()
        if self.has_ollama:
            self.device = device_of_ollama(self)
        return self

    def refuse(self, rule, option, found, message, nearest=None, asked=None):
        if asked is None:
            asked = self.policy.get(option)
            if asked is None and option in POLICY:
                asked = POLICY[option].default
        self.violations.append(refusal(rule, option, asked, found, message, nearest))

    def note(self, rule, text):
        self.notes.append({"rule": rule, "text": text})

    # The host and its engine

    def _platform(self):
        architecture = ARCHITECTURES.get(self.host.architecture)
        if architecture is None:
            self.refuse(
                "architecture", "topology", self.host.architecture,
                f"The architecture {self.host.architecture} is not supported: vLLM (CPU) and Ollama have official images for x86_64 and aarch64 only.",
                asked=self.host.architecture)
        elif self.has_vllm:
            isa = judge_isa(architecture, self.host.flags, parse_version(self.values["vllm_engine_version"]))
            if isa.error:
                self.refuse(
                    "isa", "vllm_engine_version", f"{architecture} with {', '.join(sorted(self.host.flags)) or 'none of the flags that engines ask for'}",
                    isa.error[0].upper() + isa.error[1:] + ".", {"vllm_engine_version": POLICY["vllm_engine_version"].default} if isa.newer else None)
            if isa.note:
                self.note("isa", isa.note[0].upper() + isa.note[1:] + ".")

    def _container_engine(self):
        for rule, found, message in judge_engine(self.engine):
            self.refuse(rule, "engine", found, message, asked=plain(self.engine.get("flavor")))

    def _isolation(self):
        if self.values["isolation"] == "fenced":
            self.note("fenced", "Each service is held to its own CPUs, but others may still use them; isolation: exclusive keeps them off.")
            return
        problems = []
        if self.host.init_system != "systemd":
            problems.append((
                "exclusive-needs-systemd", f"init system {self.host.init_system or 'unknown'}",
                f"Exclusive isolation works by systemd slices, and this host's init system is {self.host.init_system or 'unknown'}."))
        if self.host.cgroup_version != 2:
            found = "no cgroups" if self.host.cgroup_version is None else f"cgroup v{self.host.cgroup_version}"
            problems.append((
                "exclusive-needs-cgroup-v2", found,
                f"Exclusive isolation needs cgroup v2, and this host has {found}; boot it with systemd.unified_cgroup_hierarchy=1."))
        if self.engine.get("installed") and self.engine.get("cgroup_driver") == "cgroupfs":
            problems.append((
                "exclusive-needs-systemd-driver", "cgroup driver cgroupfs",
                "Exclusive isolation places containers in systemd slices, and Docker here uses the cgroupfs driver;"
                " set exec-opts to native.cgroupdriver=systemd in its daemon.json."))
        squeezed, loose = self._foreign_containers()
        if squeezed and not self.values["allow_squeezing_containers"]:
            problems.append((
                "foreign-containers", f"running: {', '.join(squeezed)}",
                f"Exclusive isolation would confine {_count(len(squeezed), 'running container')} of others to the system's CPUs: {', '.join(squeezed)}."
                " Give them a slice of their own, stop them, or set allow_squeezing_containers: true."))
        elif squeezed:
            self.note("foreign-containers", f"Confined to the system's CPUs with the rest of the system, as allowed: {', '.join(squeezed)}.")
        if loose:
            self.note("foreign-slices", f"Containers in slices of their own are not held to the system's CPUs, so they may run on vLLM's: {', '.join(loose)}.")
        if self.engine.get("installed") and not self.engine.get("reachable", True):
            self.note("engine-silent", "The container engine did not answer, so nobody looked for containers of others.")
        for rule, found, message in problems:
            self.refuse(rule, "isolation", found, message, {"isolation": "fenced"})

    def _foreign_containers(self):
        """Return the names of those that the fence would squeeze, and of those that it would not reach."""
        squeezed, loose = [], []
        for container in self.engine["containers"]:
            if container["name"] in ("vllm", "ollama"):
                continue
            parent = str(container.get("cgroup_parent") or "").strip("/").partition("/")[0]
            # Without a parent the engine puts it in system.slice, or under the cgroupfs driver in a group called docker.
            (squeezed if parent in ("", "docker", *FENCED_UNITS) else loose).append(container["name"])
        return sorted(squeezed), sorted(loose)

    def keeps_slices(self):
        """Whether systemd keeps the containers' slices; the cgroupfs driver makes plain groups of the same names.

        A host that does not say is taken for one with systemd.
        """
        return self.host.init_system in (None, "systemd") and self.engine.get("cgroup_driver") != "cgroupfs"

    # Memory

    def _memory(self):
        values = self.values
        if self.measured:
            self.note(
                "weights-measured", f"vLLM's weights are {self.model.weights_mib} MiB in {self.model.dtype}, as the files in {self.model.path} tell;"
                                    " vllm_weights_mib would override that.")
        base = sizing.base_of(self._load())
        sizes, refused, notes = sizing.size(sizing.Ask(
            total=self.host.total_mib, reserve=values["system_reserve_mib"],
            limit=values["vllm_memory_limit_mib"] if self.has_vllm else None, reservation=values["vllm_memory_reservation_mib"],
            base=base, kv_gib=values["vllm_kv_cache_gib"], kv_fixed=values["vllm_kv_cache_fixed"],
            ollama_limit=values["ollama_memory_limit_mib"] if self.has_ollama else None, ollama_reservation=values["ollama_memory_reservation_mib"]))
        for item in refused:
            self.refuse(item.rule, item.option, item.found, item.message, item.fix)
        for rule, text in notes:
            self.note(rule, text)
        self.sizes = sizes
        self.too_small = any(item.rule == "host-memory" for item in refused)

    def _load(self):
        """What vLLM is to serve. Whose files nobody measured has them as large as the weights."""
        values, model = self.values, self.model
        widths = (model.inside, model.words, model.width) if model else ()
        return sizing.Load(
            values["vllm_shm_mib"], values["vllm_weights_mib"], model.read_mib if self.measured and model.read_mib else values["vllm_weights_mib"],
            values["vllm_max_num_batched_tokens"], values["vllm_max_num_seqs"], *widths)

    # Cores

    def _divide(self):
        """Give every core to somebody. False where the host has too few for anything that follows to make sense."""
        host = self.host
        if host.offline or host.isolated:
            out = [f"{word} {cpus}" for word, cpus in (("offline", host.offline), ("isolated", host.isolated)) if cpus]
            self.note("unused-cpus", f"Logical CPUs that nobody gets: {', '.join(out)}.")
        partial = [core for core in host.cores if core.left_out]
        if partial:
            others = format_cpulist(cpu for core in partial for cpu in core.left_out)
            self.note("partial-cores", f"Of {_named(partial)} only a part may be used; whoever runs on the siblings {others} shares the core.")
        needed = 2 if self.has_vllm else 1
        if len(host.cores) < needed:
            self.refuse(
                "cores-needed", "topology", f"{_count(len(host.cores), 'usable core')} (logical CPUs {format_cpulist(host.usable) or 'none'})",
                f"The host has {_count(len(host.cores), 'usable core')}; {'one for vLLM and one for the system are' if self.has_vllm else 'one is'} needed.",
                asked=_count(needed, "core"))
            return False
        self.reserved = self._reserved_cores()
        ollama = self.values["ollama_cpus"] if self.has_ollama else "reserved"
        named = self._named_cores() if self.has_vllm else ()
        listed = self._ollama_list(ollama, named) if isinstance(ollama, list) else ()
        if not self.has_vllm:
            self._cores_of_ollama(ollama, listed)
            return True
        self.vllm = named
        if not named:
            free = [core for core in host.cores if core not in self.reserved and core not in listed]
            if not free:
                self.refuse(
                    "no-core-left", "ollama_cpus", f"{_named(listed)} for Ollama, {_named(self.reserved)} reserved",
                    f"Ollama's {_named(listed)} and the reserved {_named(self.reserved)} leave no core for vLLM.", {"ollama_cpus": "reserved"})
                ollama, listed = "reserved", ()
                free = [core for core in host.cores if core not in self.reserved]
            self.vllm = self._choose(free, self.values["vllm_numa"] == "span", self.sizes.limit, "vLLM")
        elif self.mixed and len({core.kind for core in named}) > 1:
            self.note("hybrid", "vLLM's cores are of both kinds; its threads wait for each other, so all run as slowly as the efficiency cores.")
        if self.has_ollama:
            self._cores_of_ollama(ollama, listed)
        return True

    def _preferred(self, cores):
        """Best for vLLM first: performance cores, then by number. The system takes from the end."""
        return sorted(cores, key=lambda core: (self.mixed and core.kind == "efficiency", core.index))

    def _reserved_cores(self):
        host, asked = self.host, self.values["reserved_cores"]
        order = self._preferred(host.cores)
        most = len(order) - (1 if self.has_vllm else 0)
        if isinstance(asked, int):
            if asked > most:
                left = "for vLLM " if self.has_vllm else ""
                self.refuse(
                    "reserved-leaves-core", "reserved_cores", f"{_count(len(order), 'usable core')}",
                    f"{_count(asked, 'core')} cannot be reserved: the host has {_count(len(order), 'usable core')}, {left}at most {most} can be.",
                    {"reserved_cores": most})
                asked = most
            return tuple(sorted(order[-asked:]))
        found = self._existing("reserved_cores", asked, 1)
        if not found:
            return (order[-1],)
        if len(found) > most:
            found = [core for core in order if core in found][1:]
            self.refuse(
                "reserved-leaves-core", "reserved_cores", f"{_count(len(order), 'usable core')}",
                f"The reserved {_named(host.cores)} are all that the host has; one has to be left for vLLM.",
                {"reserved_cores": sorted(core.index for core in found)})
        return tuple(sorted(found))

    def _existing(self, option, indexes, otherwise):
        """Return the usable cores among those asked for; refuse what is not there."""
        wanted = set(indexes)
        found = [core for core in self.host.cores if core.index in wanted]
        missing = wanted - {core.index for core in found}
        if missing:
            unusable = missing & self.host.all_cores
            parts = [f"{format_cpulist(missing - unusable)} does not exist"] if missing - unusable else []
            parts += [f"{format_cpulist(unusable)} is offline, isolated or forbidden to this host"] if unusable else []
            fix = [core.index for core in found]
            self.refuse(
                "core-exists", option, f"usable cores {format_cpulist(core.index for core in self.host.cores)}",
                f"{option} names cores that cannot be used: {'; '.join(parts)}. The usable cores are"
                f" {format_cpulist(core.index for core in self.host.cores)}.",
                {option: (fix if option == "reserved_cores" else format_cpulist(fix)) if fix else otherwise})
        return found

    def _named_cores(self):
        """Return vLLM's cores as the policy names them, by core or by logical CPU; empty where it does not."""
        cores, cpus = self.values["vllm_cores"], self.values["vllm_cpus"]
        if cores and cpus:
            touched = {core.index for core in self.host.cores if set(core.cpus) & set(cpus)}
            if touched != set(cores):
                self.refuse(
                    "cores-and-cpus", "vllm_cpus", f"vllm_cores {format_cpulist(cores)}",
                    f"vllm_cpus {format_cpulist(cpus)} are on cores {format_cpulist(touched) or 'that do not exist'}, but vllm_cores says"
                    f" {format_cpulist(cores)}. Give only one of them.", {"vllm_cpus": ""})
                cpus = self.values["vllm_cpus"] = []
        found = self._cores_by_cpu(cpus) if cpus else self._cores_by_index(cores)
        nodes = sorted({core.node for core in found})
        if len(nodes) > 1 and self.values["vllm_numa"] == "single":
            option = "vllm_cpus" if cpus else "vllm_cores"
            self.refuse(
                "numa-single", option, f"NUMA nodes {format_cpulist(nodes)}",
                f"vLLM's {_named(found)} are on NUMA nodes {format_cpulist(nodes)}, and vllm_numa: single keeps it on one:"
                " memory of the other node is slower to reach.", {"vllm_numa": "span"})
            self.values["vllm_numa"] = "span"
        return tuple(found)

    def _cores_by_index(self, indexes):
        if not indexes:
            return []
        found = self._existing("vllm_cores", indexes, "")
        taken = [core for core in found if core in self.reserved]
        found = [core for core in found if core not in self.reserved]
        if taken:
            self.refuse(
                "core-reserved", "vllm_cores", f"reserved for the system: {_named(self.reserved)}",
                f"vLLM's {_named(taken)} {'is' if len(taken) == 1 else 'are'} reserved for the system, and no core is shared.",
                {"vllm_cores": format_cpulist(core.index for core in found)})
        return found

    def _cores_by_cpu(self, cpus):
        """vLLM's cores by logical CPU: every touched core whole, unless the policy allows to split it."""
        host, values = self.host, self.values
        split, taken, good, found = [], [], [], []
        for core in host.cores:
            listed = [cpu for cpu in core.cpus if cpu in cpus]
            if not listed:
                continue
            if core in self.reserved:
                taken.append(core)
                continue
            found.append(core)
            whole = core.cpus if values["vllm_smt"] == "own" else core.cpus[:1]
            if len(listed) == len(whole):
                good += listed
            elif values["vllm_allow_split_cores"]:
                good += listed
                self.note("split-core", f"vLLM gets only CPU {format_cpulist(listed)} of core {core.index} ({format_cpulist(core.cpus)}), as allowed;"
                                        " the rest of it is given to nobody.")
            else:
                split.append(core)
                good += whole
        fix = {"vllm_cpus": format_cpulist(good)}
        missing = [cpu for cpu in cpus if cpu not in host.usable]
        if missing:
            self.refuse(
                "cpu-exists", "vllm_cpus", f"usable CPUs {format_cpulist(host.usable)}",
                f"vllm_cpus names {format_cpulist(missing)}, which do not exist or may not be used; the usable CPUs are {format_cpulist(host.usable)}.", fix)
        if taken:
            self.refuse(
                "core-reserved", "vllm_cpus", f"reserved for the system: {_named(self.reserved)}",
                f"vllm_cpus has CPUs of {_named(taken)}, reserved for the system, and no core is shared.", fix)
        if split:
            siblings = "; ".join(f"core {core.index} is {format_cpulist(core.cpus)}" for core in split[:4]) + ("; ..." if len(split) > 4 else "")
            rule = "all siblings" if values["vllm_smt"] == "own" else "exactly one sibling"
            self.refuse(
                "split-core", "vllm_cpus", siblings,
                f"vllm_cpus {format_cpulist(cpus)} splits {_named(split)} ({siblings}); with vllm_smt: {values['vllm_smt']} a core is given with {rule}."
                " Name whole cores with vllm_cores, or set vllm_allow_split_cores: true.", fix)
        self.values["vllm_cpus"] = sorted(good)
        return found

    def _ollama_list(self, indexes, named):
        """Ollama's own cores; they are nobody else's but, where they are reserved ones, the system's."""
        found = self._existing("ollama_cpus", indexes, "reserved")
        shared = [core for core in found if core in named]
        if shared:
            found = [core for core in found if core not in named]
            fix = format_cpulist(core.index for core in found) or "reserved"
            self.refuse(
                "core-shared", "ollama_cpus", f"vLLM has {_named(named)}",
                f"Ollama's {_named(shared)} {'is' if len(shared) == 1 else 'are'} vLLM's as well, and no core is shared; only ollama_cpus: any shares them.",
                {"ollama_cpus": fix})
        return tuple(found)

    def _choose(self, free, span, limit, who):
        """Return the cores a service gets when nobody names them: performance cores, on the NUMA node with most of them."""
        pool = [core for core in free if core.kind == "performance"] if self.mixed else free
        if self.mixed:
            pool = pool or free
            kind = pool[0].kind
            self.note("hybrid", f"{who} gets {kind} cores only ({_named(pool)}); mixed, its threads would all run as slowly as the efficiency cores.")
        nodes = {}
        for core in pool:
            nodes.setdefault(core.node, []).append(core)
        if span or len(nodes) == 1:
            return tuple(pool)
        memory = {node: self._memory_of([node]) for node in nodes}
        holding = [node for node in nodes if memory[node] >= limit]
        if holding:
            node = max(holding, key=lambda item: (len(nodes[item]), -item))
        else:
            node = max(nodes, key=lambda item: (memory[item], len(nodes[item]), -item))
        hint = "; vllm_numa: span gives it all" if who == "vLLM" else ""
        self.note("numa", f"{who} stays on NUMA node {node}, with {len(nodes[node])} of the {len(pool)} cores it could have{hint}.")
        return tuple(nodes[node])

    def _cores_of_ollama(self, asked, listed):
        if listed:
            self.ollama = listed
        elif asked == "any":
            self.ollama = self.host.cores
            if self.has_vllm:
                self.note("ollama-any", "Ollama may run on every usable core, vLLM's too, and may slow vLLM down; ollama_cpus: reserved separates them.")
        else:
            self.ollama = self.reserved
            if not self.has_vllm:
                free = [core for core in self.host.cores if core not in self.reserved]
                if free:
                    self.ollama = self._choose(free, False, self.sizes.ollama_limit, "Ollama")
                    self.note("ollama-alone", f"There is no vLLM on this host, so Ollama gets the cores it would have had: {_named(self.ollama)}.")

    def _rest(self):
        """The system gets the reserved cores, and those that nobody has to himself."""
        own = {*self.vllm, *(self.ollama if self.values["ollama_cpus"] != "any" else ())}
        left = [core for core in self.host.cores if core not in own and core not in self.reserved]
        self.system = tuple(sorted([*self.reserved, *left]))
        if left:
            self.note("cores-left", f"No service has {_named(left)} to itself, so the system gets {'it' if len(left) == 1 else 'them'} as well.")

    # vLLM's CPUs and threads

    def _cpus_of_vllm(self):
        if self.values["vllm_cpus"]:
            self.cpuset = self.values["vllm_cpus"]
        elif self.values["vllm_smt"] == "idle":
            self.cpuset = sorted(core.cpus[0] for core in self.vllm)
        else:
            self.cpuset = sorted(cpus_of(self.vllm))

    def _threads_of_vllm(self):
        """OpenMP threads are bound one per core; engine and API server need room beside them, for the scheduler occupies a CPU."""
        values, mine = self.values, set(self.cpuset)
        firsts = [min(mine.intersection(core.cpus)) for core in self.vllm]
        bind = firsts
        if len(firsts) == len(mine):
            last = self._preferred(self.vllm)[-1]
            if len(firsts) > 1:
                bind = [cpu for cpu in firsts if cpu not in last.cpus]
                if values["vllm_omp"] == "explicit" and not values["vllm_omp_bind"]:
                    self.note(
                        "engine-core",
                        f"vLLM's cpuset has no free SMT siblings, so core {last.index} is left to its engine; the OpenMP threads get the others.")
            else:
                self.note("engine-core", f"vLLM has one CPU only, {firsts[0]}: its engine and its OpenMP thread share it, and it is slower for that.")
        asked = values["vllm_omp_bind"]
        if asked:
            outside = [cpu for cpu in asked if cpu not in mine]
            if values["vllm_omp"] == "auto":
                self.refuse(
                    "bind-and-auto", "vllm_omp_bind", "vllm_omp: auto",
                    f"vllm_omp_bind names {format_cpulist(asked)}, but with vllm_omp: auto vLLM picks the CPUs itself.", {"vllm_omp_bind": ""})
            elif outside:
                self.refuse(
                    "bind-in-cpuset", "vllm_omp_bind", f"vLLM's cpuset is {format_cpulist(mine)}",
                    f"vllm_omp_bind has CPUs outside vLLM's cpuset {format_cpulist(mine)}: {format_cpulist(outside)}. vLLM would die at its start,"
                    " or run elsewhere without saying so.", {"vllm_omp_bind": ""})
            elif len(asked) == len(mine) > 1:
                self.refuse(
                    "bind-leaves-engine", "vllm_omp_bind", f"vLLM's cpuset is {format_cpulist(mine)}",
                    f"vllm_omp_bind takes all of vLLM's cpuset {format_cpulist(mine)}; its engine needs a CPU of its own.", {"vllm_omp_bind": ""})
            else:
                doubled = [core for core in self.vllm if len(set(asked).intersection(core.cpus)) > 1]
                if doubled:
                    self.note("bind-siblings", f"vllm_omp_bind puts more than one thread on {_named(doubled)}; siblings share a core's arithmetic units.")
                bind = asked
        bind = sorted(bind)
        self.omp = {"mode": "explicit", "bind": format_cpulist(bind), "cpus": format_cpulist(bind), "threads": len(bind), "reserved_cpus": RESERVED_CPUS}

    def _auto_threads(self):
        """As vLLM does it: one thread per core (on aarch64 per CPU) of the first memory node, less the reserved ones where that leaves any."""
        cores = [core for core in self.vllm if core.node == self.mems[0]]
        if ARCHITECTURES.get(self.host.architecture) == "aarch64":
            places = len(set(cpus_of(cores)).intersection(self.cpuset))
        else:
            places = len(cores)
        return places - RESERVED_CPUS if places > RESERVED_CPUS else places

    # vLLM's memory nodes

    def _memory_of(self, nodes):
        """MiB of these NUMA nodes; all of the host's where one of them does not say."""
        known = [self.host.nodes.get(node) for node in nodes]
        return self.host.total_mib if None in known else sum(known)

    def _with_memory(self, cores):
        """The cores' nodes; those without memory of their own (which a cpuset would not take) are replaced by all that have some."""
        local = sorted({core.node for core in cores})
        good = [node for node in local if self.host.nodes.get(node) != 0]
        return good or sorted(node for node, memory in self.host.nodes.items() if memory != 0) or local

    def _nodes_of_vllm(self):
        values = self.values
        self.mems = self._with_memory(self.vllm)
        if values["vllm_omp"] == "auto":
            threads = self._auto_threads()
            if threads < 1:
                self.refuse(
                    "auto-needs-local-core", "vllm_omp", f"memory nodes {format_cpulist(self.mems)}",
                    f"With vllm_omp: auto vLLM looks for cores on its first memory node, {self.mems[0]}, and none of its cores is there.",
                    {"vllm_omp": "explicit"})
            else:
                self.omp = {"mode": "auto", "bind": "auto", "cpus": None, "threads": threads, "reserved_cpus": RESERVED_CPUS}
                self.note("omp-auto", f"vLLM picks the CPUs of its OpenMP threads itself inside its cpuset: {_count(threads, 'thread')}"
                                      f" on {_count(len(self.vllm), 'core')}, expected but not planned.")
        if len(self.mems) > 1:
            self.note("numa-span", f"vLLM spans NUMA nodes {format_cpulist(self.mems)}; it keeps weights and KV cache on one of them, and"
                                   " threads on the others reach them more slowly.")
        if not self.too_small:
            self._limit_in_nodes()
            self._cache_in_node()
        if not values["vllm_weights_mib"]:
            left = self.sizes.limit - self.sizes.base.total - self.sizes.kv_gib * sizing.MIB_PER_GIB
            self.note(
                "weights-unknown",
                f"The size of vLLM's model is not known: {left} MiB are left for it and for the page cache of its files. Set vllm_weights_mib to have that"
                " checked.")

    def _limit_in_nodes(self):
        """The limit is worth nothing beyond the memory of the nodes the container is held to."""
        sizes, values = self.sizes, self.values
        room = self._memory_of(self.mems)
        if sizes.limit <= room:
            return
        least = sizes.base.total + sizing.MIB_PER_GIB
        wanted = sizes.base.total + sizes.kv_gib * sizing.MIB_PER_GIB
        fix = {}
        if room >= least:
            fix["vllm_memory_limit_mib"] = room
            if sizes.reservation > room:
                fix["vllm_memory_reservation_mib"] = room
            if values["vllm_kv_cache_fixed"] and wanted > room:
                fix["vllm_kv_cache_gib"] = sizing.kv_that_fits(room, sizes.base)
        else:
            fix = self._elsewhere(least)
        several = len(self.mems) > 1
        nodes = f"NUMA node{'s' if several else ''} {format_cpulist(self.mems)}"
        self.refuse(
            "node-memory", "vllm_memory_limit_mib", f"{nodes} with {room} MiB",
            f"vLLM's memory limit of {sizes.limit} MiB is more than {nodes} {'have' if several else 'has'}, {room} MiB, and its cores are there.", fix)
        kv = min(sizes.kv_gib, max(1, sizing.kv_that_fits(room, sizes.base)))
        self.sizes = sizes._replace(limit=max(room, least), reservation=min(sizes.reservation, room), kv_gib=kv)

    def _cache_in_node(self):
        """vLLM keeps runtime, weights and KV cache of its worker on the node of its first thread, and checks that they fit there."""
        sizes, values = self.sizes, self.values
        if len(self.mems) < 2:
            return
        home = self._home()
        room = self._memory_of([home])
        most = sizing.kv_that_fits(room, sizes.base)
        if sizes.kv_gib <= most:
            return
        text = f"{sizing.sum_text(sizes.base, sizes.kv_gib)}, NUMA node {home}, where vLLM keeps them, has {room} MiB"
        if most >= 1 and not values["vllm_kv_cache_fixed"]:
            self.note("kv-lowered", f"vLLM's KV cache is lowered from {sizes.kv_gib} to {most} GiB: {text}.")
            self.sizes = sizes._replace(kv_gib=most)
        elif most >= 1:
            self.refuse(
                "kv-fits-node", "vllm_kv_cache_gib", f"at most {most} GiB fit",
                f"vLLM's KV cache of {sizes.kv_gib} GiB does not fit and is marked as fixed: {text}.", {"vllm_kv_cache_gib": most})
        else:
            self.refuse(
                "kv-fits-node", "vllm_numa", f"NUMA node {home} with {room} MiB",
                f"vLLM's first core is on NUMA node {home}, which has too little memory even for a KV cache of 1 GiB: {text}.",
                self._elsewhere(sizes.base.total + sizing.MIB_PER_GIB))

    def _home(self):
        if self.omp["cpus"] is None:
            return self.mems[0]
        first = int(self.omp["cpus"].split(",")[0].split("-")[0])
        node = next(core.node for core in self.vllm if first in core.cpus)
        return node if node in self.mems else self.mems[0]

    def _elsewhere(self, least):
        """Leave the choice of cores to the plan, where that finds a node with enough memory; nothing where none has it."""
        free = [core for core in self.host.cores if core not in self.reserved and (core not in self.ollama or self.values["ollama_cpus"] == "any")]
        pool = [core for core in free if core.kind == "performance"] or free if self.mixed else free
        if not any(self._memory_of([core.node]) >= least for core in pool):
            return {}
        fix = {"vllm_numa": "single"}
        for name in ("vllm_cores", "vllm_cpus"):
            if self.policy.get(name) not in (None, "", []):
                fix[name] = ""
        return fix

    # vLLM's settings, Ollama's memory nodes

    def _settings_of_vllm(self):
        values = self.values
        tokens, sequences = values["vllm_max_num_batched_tokens"], values["vllm_max_num_seqs"]
        if tokens < sequences:
            self.refuse(
                "batch-covers-sequences", "vllm_max_num_seqs", f"vllm_max_num_batched_tokens {tokens}",
                f"vLLM refuses more sequences ({sequences}) than tokens in a batch ({tokens}).", {"vllm_max_num_seqs": tokens})
        asked = values["vllm_block_size"]
        size = block_size(parse_version(values["vllm_engine_version"]), asked)
        if size != asked:
            self.note("block-size", f"Block size {asked} became {size}: vLLM {values['vllm_engine_version']} does not take {asked} on a CPU.")
        values["vllm_block_size"] = size
        if self.model:
            self._context_of_vllm()

    def _context_of_vllm(self):
        """vLLM takes no longer context than the model's own, and wants one sequence of the longest to fit into its KV cache, or it does not start."""
        model, values = self.model, self.values
        asked = values["vllm_max_model_len"]
        length = min(asked or model.default_context or 0, model.context or asked or model.default_context or 0)
        fits, fix = length, {}
        # Where the host is too small for any plan nobody knows how large the cache would be.
        if model.kv and length and not self.too_small:
            space = self.sizes.kv_gib * sizing.MIB_PER_GIB << 20
            batch, block = values["vllm_max_num_batched_tokens"], values["vllm_block_size"]
            fits = kv_cache.longest(model.kv, space, length, block, batch)
            if not fits:
                # Not one block of that size.
                fix["vllm_block_size"] = POLICY["vllm_block_size"].default
                block = block_size(parse_version(values["vllm_engine_version"]), fix["vllm_block_size"])
                fits = kv_cache.longest(model.kv, space, length, block, batch)
        fix["vllm_max_model_len"] = fits
        if asked > length:
            self.refuse(
                "context-of-model", "vllm_max_model_len", f"the model's longest context is {length} tokens",
                f"vllm_max_model_len of {asked} tokens is more than the model is made for, {length} tokens as the files in {model.path} tell;"
                " vLLM does not start with it.", fix)
        elif fits < length:
            needed = kv_cache.needed(model.kv, length, values["vllm_block_size"], values["vllm_max_num_batched_tokens"])
            whole = -(-needed // (sizing.MIB_PER_GIB << 20))
            self.refuse(
                "kv-holds-context", "vllm_max_model_len", f"{fits} tokens fit",
                f"vLLM does not start when one sequence of the longest context, {length} tokens{'' if asked else ' by itself'}, does not fit into its KV"
                f" cache: at {model.kv.full + model.kv.sliding} bytes for each it needs {-(-needed >> 20)} MiB, and the cache has"
                f" {self.sizes.kv_gib * sizing.MIB_PER_GIB}. A cache of {whole} GiB would hold it.", fix)

    def mems_of_ollama(self):
        """The nodes of its cores, unless they do not hold its limit (beside vLLM's, where that is on them as well): then all."""
        mems = self._with_memory(self.ollama)
        beside = self.sizes.limit if self.has_vllm and set(self.mems) <= set(mems) else 0
        if self.sizes.ollama_limit + beside <= self._memory_of(mems):
            return mems
        return sorted(node for node, memory in self.host.nodes.items() if memory != 0)
