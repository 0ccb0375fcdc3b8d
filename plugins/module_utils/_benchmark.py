# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The interference of two inference services, measured: cases that take turns, runs that are left out, losses that are judged.

A case is which services work at once, and whether CPU-bound neighbours do. Every round runs every case once, so that what drifts slowly (heat,
clock, the host's other work) meets all of them alike, and a loss compares runs of the same round.
"""
from __future__ import annotations

import os
import time
from typing import NamedTuple

from ansible_collections.erni_ki.inference.plugins.module_utils import (
    _benchmark_burners, _benchmark_stats, _benchmark_stream, _benchmark_watch, _cgroup, _procs, _topology, _vitals,
)
from ansible_collections.erni_ki.inference.plugins.module_utils._benchmark_stream import NAMES, BenchmarkError
from ansible_collections.erni_ki.inference.plugins.module_utils._check import MIB, NotProven
from ansible_collections.erni_ki.inference.plugins.module_utils._cpulist import format_cpulist, parse_cpulist

TOGETHER = "together"
BURNERS = "+burners"

# Burners that leave a CPU idle prove nothing: below this share of its time, in percent, they have not filled it.
FILLED = 80.0

# A clock this much slower, in percent, explains a loss.
SLOWER = 2.0


class Settings(NamedTuple):
    """How is measured. Times in seconds, shares in percent."""

    repeats: int = 5
    warmup: int = 1
    tokens: int = 64
    seconds: float = 10.0
    pause: float = 1.0
    burners: bool = True
    max_others: float = 10.0    # of one CPU
    max_steal: float = 2.0
    max_loss_cpu: float = 5.0
    max_loss_together: float = 25.0


class Case(NamedTuple):
    """Which services work at once, and whether burners do."""

    name: str
    services: tuple
    burners: bool


def cases(services, burners):
    """Return the cases for these services: each alone, all together, and the same with burners."""
    found = [Case(service, (service,), False) for service in services]
    if len(services) > 1:
        found.append(Case(TOGETHER, tuple(services), False))
    return found + [Case(case.name + BURNERS, case.services, True) for case in found if burners]


def schedule(wanted, repeats):
    """Return (round, case) in the order in which they run: each round begins with another case, and every second one runs backwards."""
    order = []
    for number in range(repeats):
        start = number % len(wanted)
        turn = wanted[start:] + wanted[:start]
        order += [(number + 1, case) for case in (turn if number % 2 == 0 else turn[::-1])]
    return order


class Host:
    """What is looked at around the services; C(subjects) maps a service to its Subject."""

    def __init__(self, subjects, root="/"):
        self.subjects = subjects
        self.root = root
        self.cpus = {service: self._cpus(subject) for service, subject in subjects.items()}
        self.reachable = frozenset(_benchmark_burners.reachable())

    @staticmethod
    def _cpus(subject):
        try:
            return frozenset(parse_cpulist(_cgroup.effective_cpus(subject.group("cpuset"))[1]))
        except (NotProven, _procs.Unreadable, ValueError) as error:
            raise BenchmarkError(f"{NAMES[subject.service]}: {error}. make diagnose tells what is wrong with it") from error

    def pids(self):
        """Return {service: its processes at this moment}."""
        found = {}
        for service, subject in self.subjects.items():
            try:
                found[service] = subject.group("cpuset").pids()
            except (NotProven, _procs.Unreadable) as error:
                raise BenchmarkError(f"{NAMES[service]}: {error}. Has it been restarted meanwhile? make diagnose tells") from error
        return found

    def throttled(self):
        """Return {service: how often the kernel has stopped it for a quota}."""
        return {service: sum(counted["nr_throttled"] for _group, counted in _vitals.throttled_groups(subject)) for service, subject in self.subjects.items()}

    def memory(self):
        """Return {service: what it has of its limit, in MiB}."""
        found = {}
        for service, subject in self.subjects.items():
            use = _vitals.memory_use(subject)
            if use is not None:
                # Kernels before 5.19 keep no peak.
                found[service] = {
                    "limit_mib": None if use.limit is None else use.limit // MIB, "used_mib": use.working // MIB,
                    "peak_mib": max(use.peak, use.working) // MIB}
        return found

    def map(self):
        """Return the cores, each with its package and its CPUs, and for every CPU who may use it."""
        found = _topology.detect(self.root)
        cores = [{"core": core["index"], "package": core["package"], "cpus": core["cpus"]} for core in found["cores"]]
        owners = {}
        for cpu in sorted(cpu for core in cores for cpu in core["cpus"]):
            may = [service for service, cpus in self.cpus.items() if cpu in cpus] + (["system"] if cpu in self.reachable else [])
            owners[str(cpu)] = may
        return {"model_name": found["model_name"], "cores": cores, "owners": owners}

    def siblings(self, cpus):
        """Return the SMT siblings of some CPUs that are not among them."""
        return frozenset().union(*(_procs.siblings_of(self.root, cpu) for cpu in cpus)) - cpus


class Bench:
    """Measures; C(drivers) maps a service to its Driver."""

    def __init__(self, host, drivers, settings, report=lambda text: None, wanted=lambda: True, burners=_benchmark_burners.Burners,
                 drive=_benchmark_stream.drive, look=_benchmark_watch.look, sleep=time.sleep, clock=time.monotonic):
        self.host, self.drivers, self.settings, self.report, self.wanted = host, drivers, settings, report, wanted
        self.burners, self.drive, self.look, self.sleep, self.clock = burners, drive, look, sleep, clock
        self.cases = cases(list(drivers), settings.burners)
        self.gaps = {}      # (case, service): inter-token latencies of the runs that count
        self.runs = []

    def warm(self):
        """Let each service load its model and do what it does only once; what is wrong with a service comes out here."""
        for driver in self.drivers.values():
            self.report(f"warming up {NAMES[driver.service]}")
            for _number in range(self.settings.warmup):
                driver.ask()

    def measure(self):
        """Return the runs, one after the other."""
        self.warm()
        order = schedule(self.cases, self.settings.repeats)
        for done, (number, case) in enumerate(order, 1):
            self.report(f"run {done} of {len(order)}: round {number}, {case.name}")
            self.sleep(self.settings.pause)
            if not self.wanted():
                raise BenchmarkError("Nobody waits for the result any more, so nothing more is measured")
            self.runs.append(self.run(number, case))
        return self.runs

    def run(self, number, case):
        """Return one run: what it shows of each service, what went on around it, and why it does not count, if it does not."""
        host, settings = self.host, self.settings
        with self.burners(len(host.reachable) if case.burners else 0) as burners:
            before, throttled, begun = host.pids(), host.throttled(), self.clock()
            first = self.look(host.root)
            seen = {}

            def halfway():
                seen.update({service: _benchmark_watch.megahertz(host.cpus[service], host.root) for service in case.services})

            requests = self.drive([self.drivers[service] for service in case.services], settings.seconds, halfway)
            second, seconds = self.look(host.root), self.clock() - begun
            after, ended = host.pids(), burners.gone()
            own = {service: before[service] | after[service] for service in after}
            ours = set(burners.pids).union(*own.values()) | {os.getpid()}
            measured = frozenset().union(*(host.cpus[service] for service in case.services))
            foreign, named = _benchmark_watch.others(first, second, ours, measured, host.root)
            busy = _benchmark_watch.busy(first, second)
            run = {
                "round": number,
                "case": case.name,
                "seconds": seconds,
                "services": {service: _benchmark_stats.figures(requests[service]) for service in case.services},
                "service_cpus": {service: _benchmark_watch.of(first, second, pids) / seconds for service, pids in own.items()},
                "burner_cpus": _benchmark_watch.of(first, second, set(burners.pids)) / seconds,
                "other_cpus": foreign / seconds,
                "others": named,
                "steal_percent": _benchmark_watch.stolen(first, second, measured),
                "throttled": {service: count - throttled[service] for service, count in host.throttled().items()},
                "mhz": {service: value for service, value in seen.items() if value is not None},
                "busy_percent": {str(cpu): share for cpu, share in sorted(busy.items())},
            }
        run["left_out"] = disturbances(run, case, host.reachable, ended, settings)
        if not run["left_out"]:
            for service in case.services:
                self.gaps.setdefault((case.name, service), []).extend(gap for request in requests[service] for gap in request.gaps())
        return run


def disturbances(run, case, reachable, ended, settings):
    """Return why a run does not count, nothing where it does."""
    found = []
    if run["other_cpus"] * 100 > settings.max_others:
        found.append(f"other processes used {100 * run['other_cpus']:.0f} % of a CPU on the measured CPUs: {', '.join(run['others'])}")
    if run["steal_percent"] > settings.max_steal:
        found.append(f"the machine below took {run['steal_percent']:.1f} % of the measured CPUs' time (steal)")
    if ended:
        found.append(f"{ended} of {len(reachable)} burners ended before their time")
    elif case.burners:
        free = [cpu for cpu in sorted(reachable) if run["busy_percent"].get(str(cpu), 100) < FILLED]
        if free:
            found.append(f"the burners left CPU {format_cpulist(free)} partly idle, so that they proved nothing")
    for service, figures in run["services"].items():
        if figures is None:
            found.append(f"no two tokens of {NAMES[service]} came apart in time")
    return found


# ---- judging


def results(runs, wanted, gaps):
    """Return a row for each case and service: medians and ranges over the runs that count."""
    rows = []
    for case in wanted:
        of_case = [run for run in runs if run["case"] == case.name]
        for service in case.services:
            good = [run["services"][service] for run in of_case if not run["left_out"]]
            rows.append({
                "case": case.name, "service": service, "runs": len(good), "runs_left_out": len(of_case) - len(good),
                **_benchmark_stats.summary(good), "itl_curve": _benchmark_stats.curve(gaps.get((case.name, service), []))})
    return rows


class Comparison(NamedTuple):
    """What a service loses by a neighbour: C(loaded) against C(base), of the kind C(cpu) or C(together)."""

    service: str
    kind: str
    base: str
    loaded: str


def comparisons(wanted):
    """Return what is compared, as far as the cases allow."""
    names = {case.name for case in wanted}
    found = []
    for case in wanted:
        for service in case.services:
            if case.name + BURNERS in names:
                found.append(Comparison(service, "cpu", case.name, case.name + BURNERS))
            if case.name == TOGETHER:
                found.append(Comparison(service, "together", service, TOGETHER))
    return found


def judge(runs, wanted, host, plan, settings):
    """Return the losses, each with its limit where it has one, and where it is above it with the likely cause."""
    exclusive = plan["isolation"] == "exclusive"
    found = []
    for one in comparisons(wanted):
        by_case = {name: {run["round"]: run for run in runs if run["case"] == name and not run["left_out"]} for name in (one.base, one.loaded)}
        rounds = sorted(set(by_case[one.base]) & set(by_case[one.loaded]))
        pairs = [(by_case[one.base][number], by_case[one.loaded][number]) for number in rounds]
        # Nothing but `exclusive` promises anything against CPU-bound neighbours.
        limit = settings.max_loss_together if one.kind == "together" else settings.max_loss_cpu if exclusive else None
        loss = _benchmark_stats.loss([tuple(run["services"][one.service]["tokens_per_second"] for run in pair) for pair in pairs])
        enough = len(rounds) >= (settings.repeats + 1) // 2
        ok = limit is None or (enough and loss["median"] <= limit)
        cause = cure = ""
        if not enough:
            cause, cure = undecided(runs, one, len(rounds), settings)
        elif not ok or (limit is None and loss["median"] > settings.max_loss_cpu):
            cause, cure = likely(one, pairs, host, plan)
        found.append({
            "service": one.service, "kind": one.kind, "base": one.base, "loaded": one.loaded, "rounds": len(rounds), "loss_percent": loss,
            "limit_percent": limit, "ok": ok, "cause": cause, "cure": cure})
    return found


def undecided(runs, one, rounds, settings):
    """Return (cause, cure) where too few runs count."""
    reasons = [reason for run in runs if run["case"] in (one.base, one.loaded) for reason in run["left_out"]]
    return (
        f"Only {rounds} of {settings.repeats} rounds count, and half of them must: {reasons[0] if reasons else 'the others were left out'}.",
        "Stop what disturbs, or repeat it at a quieter time; with a host that is never quiet raise benchmark_max_others.")


def likely(one, pairs, host, plan):
    """Return (cause, cure) of a loss: the first that the runs bear out; else what no cpuset fences."""
    name, cpus = NAMES[one.service], host.cpus[one.service]
    neighbours = host.reachable if one.kind == "cpu" else frozenset().union(*(held for service, held in host.cpus.items() if service != one.service))
    who = "the burners" if one.kind == "cpu" else "the other engine"
    shared = cpus & neighbours
    if shared and one.kind == "cpu" and plan["isolation"] == "exclusive" and shared <= frozenset(parse_cpulist(plan["system"]["cpuset"])):
        return (
            f"{name}'s CPUs {format_cpulist(shared)} are among the reserved ones, which the plan shares with the rest of the system: {who} ran there too.",
            "plan_ollama_cpus with a list of cores, such as \"6\", gives it cores of its own; then run the playbook site.")
    if shared:
        return (
            f"Nothing keeps {who} off {name}'s CPUs {format_cpulist(shared)}: pinning holds the engine, and not its neighbours.",
            "plan_isolation: exclusive holds all others to the reserved cores; with it set, make diagnose tells why the fence does not hold."
            if one.kind == "cpu" else "plan_ollama_cpus: reserved gives each engine CPUs of its own; then run the playbook site.")
    beside = host.siblings(cpus) & neighbours
    if beside:
        return (
            f"{who.capitalize()} may run on {format_cpulist(beside)}, SMT siblings of {name}'s CPUs: they share the cores.",
            "Give the engine whole cores: run the playbook site again, which plans by the host's own topology.")
    stopped = sum(loaded["throttled"].get(one.service, 0) for _base, loaded in pairs)
    if stopped:
        return f"The kernel stopped {name} {stopped} times for a CPU quota, which the plan does not give.", "make diagnose names who set it."
    base, loaded = ([run["mhz"][one.service] for run in side if one.service in run["mhz"]] for side in zip(*pairs))
    if base and loaded:
        slow = 100 * (1 - _benchmark_stats.percentile(loaded, 50) / _benchmark_stats.percentile(base, 50))
        if slow > SLOWER:
            return (
                f"{name}'s CPUs ran at a clock {slow:.0f} % slower beside {who}: more busy cores share one budget of power and heat.",
                "No cpuset changes that. Better cooling or a higher power limit does; else raise the limit of the loss by as much.")
    if one.kind == "together":
        return (
            "The engines have no CPU in common: memory bandwidth and the last-level cache are shared, and no cpuset fences them.",
            "Smaller or quantized models and fewer cores ask for less of it; on a host with several NUMA nodes give each engine its own. "
            "Or accept it: benchmark_max_loss_together.")
    return (
        f"No burner may run on {name}'s cores, so it is what no cpuset fences: the clock of the other cores, the shared cache, work of the kernel.",
        "Repeat it with more benchmark_repeats on a quiet host; what stays is this CPU's own.")


def verdict(losses, runs):
    """Return ok and summary."""
    judged = [one for one in losses if one["limit_percent"] is not None]
    broken = [one for one in judged if not one["ok"]]
    out = sum(bool(run["left_out"]) for run in runs)
    tail = f"; {out} of {len(runs)} runs left out" if out else ""
    if broken:
        return False, "FAILED: " + "; ".join(sentence(one) for one in broken) + tail
    if not runs:
        return True, "ok: nothing was measured, as this is check mode"
    if not judged:
        return True, f"ok: {len(runs)} run{'' if len(runs) == 1 else 's'}, and no limit that applies here{tail}"
    return True, f"ok: {len(judged)} loss{'' if len(judged) == 1 else 'es'} within {'its limit' if len(judged) == 1 else 'their limits'}{tail}"


def sentence(one):
    """Return a loss as a person says it."""
    beside = "the other engine" if one["kind"] == "together" else "CPU burners" + (" (both engines at work)" if one["base"] == TOGETHER else "")
    if one["loss_percent"] is None:
        return f"the loss of {NAMES[one['service']]} beside {beside} is not known"
    loss = one["loss_percent"]["median"]
    changed = f"loses {loss:.1f} %" if loss >= 0 else f"gains {-loss:.1f} %"
    limit = "" if one["limit_percent"] is None else f" (limit {one['limit_percent']:g} %)"
    return f"{NAMES[one['service']]} {changed} beside {beside}{limit}"


# ---- telling


def _ranged(value, digits=1):
    if value is None:
        return "-"
    # Two dots, as a loss may be below 0.
    return f"{value['median']:.{digits}f} [{value['min']:.{digits}f}..{value['max']:.{digits}f}]"


def table(rows, losses, runs):
    """Return lines for a person: the figures, the losses, what was left out, and why a loss is too high."""
    head = ("case", "service", "runs", "tokens/s", "TTFT ms", "ITL p50 ms", "p95", "p99")
    cells = [head]
    for row in rows:
        cells.append((row["case"], row["service"], str(row["runs"]), *(_ranged(row[name], 1) for name in _benchmark_stats.FIGURES[:3]),
                      *("-" if row[name] is None else f"{row[name]['median']:.1f}" for name in _benchmark_stats.FIGURES[3:])))
    lines = ["median [range] over the runs that count; tokens/s while decoding", *_aligned(cells), ""]
    cells = [("", "loss of", "beside", "median [range] %", "limit %", "rounds")]
    for one in losses:
        state = "" if one["limit_percent"] is None else "ok" if one["ok"] else "FAIL"
        beside = f"{one['loaded']} against {one['base']}"
        limit = "none" if one["limit_percent"] is None else f"{one['limit_percent']:g}"
        cells.append((state, one["service"], beside, _ranged(one["loss_percent"]), limit, str(one["rounds"])))
    for line, one in zip(_aligned(cells), [None, *losses]):
        lines.append(line)
        if one and one["cause"]:
            lines += [f"      cause: {one['cause']}", f"      cure:  {one['cure']}"]
    left = [run for run in runs if run["left_out"]]
    if left:
        lines += ["", f"{len(left)} of {len(runs)} runs were left out:"]
        lines += [f"  round {run['round']}, {run['case']}: {'; '.join(run['left_out'])}" for run in left]
    return lines


def _aligned(cells):
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells]


def comparison(measured):
    """Return lines that show several results side by side; C(measured) maps a layout to what the module returned."""
    cells = [("service", "layout", "tokens/s alone", "lost together, %", "lost beside burners, %", "lost beside both, %")]
    for service in NAMES:
        for name, result in measured.items():
            rows = {row["case"]: row for row in result["results"] if row["service"] == service}
            if service not in rows:
                continue
            alone = rows[service]["tokens_per_second"]
            losses = []
            for case in (TOGETHER, service + BURNERS, TOGETHER + BURNERS):
                rate = (rows.get(case) or {}).get("tokens_per_second")
                losses.append(f"{100 * (1 - rate['median'] / alone['median']):.1f}" if alone and rate else "-")
            cells.append((service, name, _ranged(alone), *losses))
    return _aligned(cells)
