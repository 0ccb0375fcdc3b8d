# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures on this machine what it is worth to keep neighbours off vLLM's CPUs: the real vLLM in a container, and CPU-bound neighbours.

interference.py [--rounds N] [--seconds S]

It shows why `exclusive` is the default: while a CPU is idle every layout looks good, and pinning alone does not help once none is. It fails where that
does not come out: when neighbours that are held to the reserved core cost vLLM more than a benchmark may lose, or those that are not cost no more.
"""
from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from typing import NamedTuple

import calibrate

from calibrate import BENCH, REPO, host, images, machine, model, say, shapes, step
from calibrate import SandboxError, cache_dir, lock, remove_tree, stop_on_signals, wait_for

from ansible_collections.erni_ki.inference.plugins.module_utils import _benchmark, _benchmark_stats, _benchmark_stream, _benchmark_watch, _check_api, _topology

RUN = {"model": "SmolLM2-135M", "dtype": "auto", "kv_cache_gib": 1, "context": 2048, "tokens": 1024, "sequences": 64}
TOKENS = 32
# For each CPU: with one alone, the scheduler finds them all a place beside vLLM's few threads.
NEIGHBOURS = 2
SETTINGS = _benchmark.Settings()
PINNED, UNPINNED = "pinned", "unpinned"


class Row(NamedTuple):
    """A layout of vLLM and its neighbours: for each the CPUs that it may use. C(fills) are those that must be busy for the row to show something."""

    layout: str
    neighbours: str
    burners: tuple = ()
    fills: frozenset = frozenset()

    @property
    def name(self):
        return f"{self.layout}, {self.neighbours}"


def divide(cores):
    """Return vLLM's CPUs, those that its OpenMP threads are bound to, and the reserved ones: of physical cores, lists of logical CPUs, the last."""
    if len(cores) < 2:
        raise SandboxError("This machine has one core; to keep a neighbour off vLLM's takes two.")
    return frozenset().union(*cores[:-1]), [core[0] for core in cores[:-1]], frozenset(cores[-1])


def rows_of(mine, reserved):
    """Return what is measured; a row without neighbours is what the others of its layout are compared with."""
    every = mine | reserved
    number = NEIGHBOURS * len(every)
    return [
        Row(PINNED, "idle"),
        Row(PINNED, "held to the reserved core", (reserved,) * number, reserved),
        Row(PINNED, "on any CPU", (every,) * number, every),
        Row(PINNED, "on its CPUs", (mine,) * len(mine), mine),
        Row(UNPINNED, "idle"),
        Row(UNPINNED, "on any CPU", (every,) * number, every),
    ]


HELD, FREE, INSIDE = 1, 2, 3


def send(number, pids):
    """Docker's own pause now and then fails to freeze what is very busy."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


@contextlib.contextmanager
def awake(pids):
    """Let processes that are stopped run, as long as this lasts."""
    send(signal.SIGCONT, pids)
    try:
        yield pids
    finally:
        send(signal.SIGSTOP, pids)


class Neighbours:
    """CPU-bound neighbours, each in a container and so in a control group of its own, as a host's services are; asleep until they are wanted."""

    def __init__(self, engine, number):
        self.engine, self.names, self.pids = engine, [f"vllm-interference-neighbour-{index}" for index in range(number)], {}

    def start(self):
        for name in self.names:
            self.engine.docker("run", "--detach", "--name", name, "--network", "none", "--entrypoint", "python3", images.OLLAMA, "-c", "while True: pass")
            self.pids[name] = int(self.engine.docker("inspect", "--format", "{{.State.Pid}}", name))
            send(signal.SIGSTOP, [self.pids[name]])

    def move(self, places):
        """Put as many as there are places on their CPUs, and return their processes."""
        names = self.names[:len(places)]
        for name, place in zip(names, places):
            self.engine.docker("update", "--cpuset-cpus", ",".join(map(str, sorted(place))), name)
        return {self.pids[name] for name in names}


class Server:
    """A vLLM of one layout; only one is awake at a time."""

    def __init__(self, engine, layout):
        self.engine, self.layout = engine, layout
        self.name = f"vllm-interference-{layout}"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        self.driver = None

    def start(self, folder, limit_mib, mine, bound):
        variables = dict(calibrate.environment(RUN, []), VLLM_CPU_OMP_THREADS_BIND="auto")
        # Unpinned is vLLM as it comes.
        del variables["VLLM_CPU_NUM_OF_RESERVED_CPU"]
        held = []
        if self.layout == PINNED:
            variables["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, bound))
            held = ["--cpuset-cpus", ",".join(map(str, sorted(mine)))]
        words = [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]
        self.engine.docker("run", "--detach", "--name", self.name, "--network", "host", "--user", "1000:1000", "--tmpfs", "/tmp",
                           "--shm-size", f"{calibrate.SHM_MIB}m", *held, "--memory", f"{limit_mib}m", "--memory-swap", f"{limit_mib}m",
                           "--volume", f"{folder}:/srv/models/{folder.name}:ro", *words, images.VLLM, *calibrate.arguments(folder, RUN),
                           # The last of a kind counts.
                           "--host", "127.0.0.1", "--port", self.url.rpartition(":")[2])
        wait_for(self._healthy, f"the {self.layout} vLLM to become healthy", calibrate.START_S, pause_s=2)
        api = _check_api.Api("vllm", self.url, calibrate.ANSWER_S, folder.name, None, None)
        self.driver = _benchmark_stream.Driver(api, folder.name, TOKENS, _benchmark_stream.first_number())
        self.driver.ask()

    def _healthy(self):
        if self.engine.docker("inspect", "--format", "{{.State.Running}}", self.name).strip() != "true":
            raise SandboxError(f"The {self.layout} vLLM ended:\n{self.engine.docker('logs', '--tail', '30', self.name)}")
        with contextlib.suppress(OSError):
            return urllib.request.urlopen(f"{self.url}/health", timeout=30).status == 200
        return False

    def pids(self):
        """Its processes, as this machine numbers them."""
        return {int(number) for number in re.findall(r"^\s*(\d+)\s*$", self.engine.docker("top", self.name, "-o", "pid"), re.MULTILINE)}


def measure(server, neighbours, row, seconds, cpus):
    """Return one run of a row: vLLM's figures, what its neighbours got, and why it does not count, if it does not."""
    with awake(server.pids()) as served, awake(neighbours.move(row.burners)) as pids:
        ours = pids | served | {os.getpid()}
        first, begun = _benchmark_watch.look(), time.monotonic()
        requests = _benchmark_stream.drive([server.driver], seconds)
        second, lasted = _benchmark_watch.look(), time.monotonic() - begun
        ended = sum(not os.path.exists(f"/proc/{pid}") for pid in pids)
    foreign, named = _benchmark_watch.others(first, second, ours, cpus)
    run = {
        "services": {"vllm": _benchmark_stats.figures(requests["vllm"])}, "burner_cpus": _benchmark_watch.of(first, second, pids) / lasted,
        "other_cpus": foreign / lasted, "others": named, "steal_percent": _benchmark_watch.stolen(first, second, cpus),
        "busy_percent": {str(cpu): share for cpu, share in _benchmark_watch.busy(first, second).items()},
    }
    run["left_out"] = _benchmark.disturbances(run, _benchmark.Case(row.name, ("vllm",), bool(row.burners)), row.fills, ended, SETTINGS)
    return run


def measure_all(options, topology):
    """Return the rows, and a run for every round and row."""
    cache, known = cache_dir(), calibrate.read(calibrate.SHAPES)
    log = cache / "log" / "interference.log"
    host.check_machine()
    host.ensure_tools(host.ENGINE_TOOLS, log)
    mine, bound, reserved = divide([core["cpus"] for core in topology["cores"]])
    rows = rows_of(mine, reserved)
    place, runs = cache / "interference", []
    with lock(cache / "lock", "the sandbox's cache"):
        log.unlink(missing_ok=True)
        remove_tree(place)
        folder = shapes.make(place / RUN["model"], known["models"][RUN["model"]], model.tokenizer((REPO / "LICENSE").read_text(encoding="utf-8"), 2048))
        limit = calibrate.limit_of(calibrate.predict(calibrate.facts_of(folder, RUN), RUN), loose=False)
        calibrate.need_memory(2 * limit)
        engine = images.ensure_built(cache)
        with engine.started():
            servers = {layout: Server(engine, layout) for layout in (PINNED, UNPINNED)}
            neighbours = Neighbours(engine, max(len(row.burners) for row in rows))
            try:
                engine.docker("container", "prune", "--force", log=log)
                for server in servers.values():
                    with step(f"start the {server.layout} vLLM"):
                        server.start(folder, limit, mine, bound)
                        send(signal.SIGSTOP, server.pids())
                neighbours.start()
                order = _benchmark.schedule(rows, options.rounds)
                for done, (number, row) in enumerate(order, 1):
                    run = measure(servers[row.layout], neighbours, row, options.seconds, mine | reserved)
                    runs.append({"round": number, "row": row.name, **run})
                    figures = run["services"]["vllm"]
                    said = f"left out: {'; '.join(run['left_out'])}" if run["left_out"] else f"{figures['tokens_per_second']:.1f} tokens/s"
                    say(f"{done} of {len(order)}: round {number}, {row.name}: {said}")
            finally:
                names = [*neighbours.names, *(server.name for server in servers.values())]
                subprocess.run([host.tool("docker"), "rm", "--force", *names], env=engine.environment(), check=False,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        engine.strip()
        remove_tree(place)
    return rows, runs


def judge(rows, runs, rounds):
    """Return an entry for each row: what it shows, and its loss against the row of its layout without neighbours; None where too few rounds count."""
    good = {row.name: {run["round"]: run for run in runs if run["row"] == row.name and not run["left_out"]} for row in rows}
    found = []
    for row in rows:
        mine, base = good[row.name], good[Row(row.layout, "idle").name]
        both = sorted(set(mine) & set(base))
        enough = len(both) >= (rounds + 1) // 2
        of_vllm = [run["services"]["vllm"] for run in mine.values()]
        rate = [tuple(run["services"]["vllm"]["tokens_per_second"] for run in (base[number], mine[number])) for number in both]
        found.append({
            "layout": row.layout, "neighbours": row.neighbours, "number": len(row.burners), "rounds": len(both),
            **_benchmark_stats.summary(of_vllm), "burner_cpus": _benchmark_stats.spread([run["burner_cpus"] for run in mine.values()]),
            "loss_percent": _benchmark_stats.loss(rate) if enough and row.burners else None, "known": enough})
    return found


def problems(found, limit=SETTINGS.max_loss_cpu):
    """Return what did not come out as it must."""
    unknown = [f"{entry['layout']}, {entry['neighbours']}: only {entry['rounds']} of the rounds count" for entry in found if not entry["known"]]
    if unknown:
        return unknown
    losses = {number: found[number]["loss_percent"]["median"] for number in (HELD, FREE, INSIDE)}
    wrong = []
    if losses[HELD] > limit:
        wrong.append(f"neighbours held to the reserved core cost vLLM {losses[HELD]:.1f} %, and may cost {limit:g}")
    for number in (FREE, INSIDE):
        if losses[number] <= max(limit, losses[HELD]):
            wrong.append(f"neighbours {found[number]['neighbours']} cost a vLLM that is only pinned {losses[number]:.1f} %: that shows nothing")
    return wrong


def table(found):
    """Return the figures as a table."""
    def ranged(value, digits=0):
        return "-" if value is None else f"{value['median']:.{digits}f} [{value['min']:.{digits}f} to {value['max']:.{digits}f}]"

    def median(value, digits):
        return "-" if value is None else f"{value['median']:.{digits}f}"

    head = ("vLLM", "CPU-bound neighbours", "tokens/s", "ITL p50, p99 ms", "Neighbours got, CPUs", "Loss, %")
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for entry in found:
        neighbours = f"{entry['number']} {entry['neighbours']}" if entry["number"] else "none"
        cells = (entry["layout"], neighbours, ranged(entry["tokens_per_second"]), f"{median(entry['itl_p50_ms'], 1)}, {median(entry['itl_p99_ms'], 1)}",
                 median(entry["burner_cpus"], 2), ranged(entry["loss_percent"]))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description="Measure what CPU-bound neighbours cost vLLM, by layout.")
    parser.add_argument("--rounds", type=int, default=SETTINGS.repeats, help="how often each row is measured (%(default)s)")
    parser.add_argument("--seconds", type=float, default=8, help="how long at least each time (%(default)s)")
    options = parser.parse_args()
    if options.rounds < 1 or not 0 < options.seconds < 3600:
        sys.exit("interference: at least one round, and seconds above 0")
    stop_on_signals()
    try:
        rows, runs = measure_all(options, _topology.detect())
    except (SandboxError, _benchmark_stream.BenchmarkError) as error:
        sys.exit(f"interference: {error}")
    found = judge(rows, runs, options.rounds)
    print(table(found), end="")
    kept = {"machine": machine(), "image": images.VLLM, "model": RUN["model"], "date": time.strftime("%Y-%m-%d"), "rounds": options.rounds, "rows": found}
    BENCH.mkdir(parents=True, exist_ok=True)
    (BENCH / "interference.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    wrong = problems(found)
    if wrong:
        sys.exit(f"interference: not as it must be: {'; '.join(wrong)}")
    say("interference: ok")


if __name__ == "__main__":
    main()
