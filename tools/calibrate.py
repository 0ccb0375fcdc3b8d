# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs vLLM with models of published shapes, and compares the memory it needs with what the plan reckons.

calibrate.py [--loose] [MODEL …]   all of tests/calibrate/shapes.json, or these models of it

Each run is a container as the role vllm starts it, with nothing of it in the page cache yet. Its limit is what the plan reckons, and the share more that
it may be wrong by, so a run that ends well is also the proof that this is enough. --loose doubles the limit, to learn what is needed where it was not.

What is measured, in MiB:
  start   what was charged when vLLM looked whether its KV cache fits, and that cache. vLLM counts the page cache as used, the file of the weights too.
  serve   the most that could not be reclaimed while requests were worked on, so without the page cache.
  need    the larger of both: the smallest limit under which vLLM starts and serves.
"""
from __future__ import annotations

import argparse
import json
import math
import os
import pathlib
import random
import subprocess
import sys
import threading
import time
from datetime import datetime

from common import BENCH, COLLECTIONS, REPO, machine

sys.path[:0] = [str(COLLECTIONS), str(REPO / "tests" / "sandbox")]

from ansible_collections.erni_ki.inference.plugins.module_utils import _model_size, _sizing  # noqa: E402  (the path comes first)
from sandbox_lib import host, images, model, shapes  # noqa: E402
from sandbox_lib.common import SandboxError, cache_dir, lock, remove_tree, say, step, stop_on_signals, wait_for  # noqa: E402

SHAPES = REPO / "tests" / "calibrate" / "shapes.json"
MEASURED = REPO / "tests" / "calibrate" / "measured.json"
MIB = 1 << 20

# The plan may reckon as much more than is needed, and as much less.
MOST_OVER, MOST_UNDER = 0.10, 0.03

NAME = "vllm-calibrate"
SHM_MIB = 256
BLOCK_SIZE = 128
SAMPLE_S = 0.05
# Bounds to end, not to be reached: kernels without instructions for 16 bits take minutes for a batch.
START_S, ANSWER_S = 900, 1800
# What the file generation_config.json of published models asks for by itself: each one makes the sampler take more.
SAMPLING = {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.1, "ignore_eos": True}
# Ids that the tokenizer of sandbox_lib.shapes has.
TOKENS = range(10, 2000)


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def title(run):
    return f"{run['model']} ({run['dtype']}, KV {run['kv_cache_gib']} GiB, {run['tokens']} tokens, {run['sequences']} sequences)"


def facts_of(folder, run):
    """Return what the plan knows of a model."""
    found = _model_size.measure(str(folder), run["dtype"])
    return {name: found[name] for name in ("dtype", "weights_mib", "weights_bytes_read", "intermediate_size", "vocabulary_size")}


def predict(size, run):
    """Return what the plan reckons for this run, by parts, in MiB."""
    base = _sizing.base_of(_sizing.Load(
        SHM_MIB, size["weights_mib"], -(-size["weights_bytes_read"] // MIB), run["tokens"], run["sequences"], size["intermediate_size"],
        size["vocabulary_size"], _model_size.WIDTHS[size["dtype"]]))
    return {**base._asdict(), "kv_cache": run["kv_cache_gib"] * _sizing.MIB_PER_GIB, "total": base.total + run["kv_cache_gib"] * _sizing.MIB_PER_GIB}


def difference(predicted, needed):
    return predicted / needed - 1


def is_good(predicted, needed):
    return (1 - MOST_UNDER) * needed <= predicted <= (1 + MOST_OVER) * needed


# -- the container ------------------------------------------------------------

def arguments(folder, run):
    """What the role vllm hands to vLLM; the type is told besides, as its C(vllm_extra_args) would."""
    return [f"/srv/models/{folder.name}", "--served-model-name", folder.name, "--host", "0.0.0.0", "--port", "8000", "--block-size", str(BLOCK_SIZE),
            "--max-num-batched-tokens", str(run["tokens"]), "--max-num-seqs", str(run["sequences"]), "--max-model-len", str(run["context"]),
            "--enforce-eager", "--dtype", run["dtype"]]


def environment(run, cpus):
    """The same for its environment. The OpenMP threads leave one CPU to the engine, as the plan does without SMT."""
    bound = cpus[:-1] or cpus
    return {"VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, bound)), "VLLM_CPU_NUM_OF_RESERVED_CPU": "1", "VLLM_CPU_KVCACHE_SPACE": str(run["kv_cache_gib"]),
            # Else vLLM gives a batch up after 300 s.
            "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": str(ANSWER_S),
            "NVIDIA_VISIBLE_DEVICES": "void", "VLLM_NO_USAGE_STATS": "1", "HOME": "/tmp", "HF_HOME": "/var/lib/erni-ki/vllm", "HF_HUB_OFFLINE": "1"}


def prompts(run, generator):
    """Two lots: one fills a batch with tokens, the other as many sequences as run at once. No two begin alike, so none is in the cache already."""
    def prompt(length):
        return [generator.choice(TOKENS) for token in range(length)]

    length = min(run["tokens"], run["context"] - 8)
    # The first that comes is worked on alone.
    number = 1 if length == run["tokens"] else 1 + math.ceil(run["tokens"] / length)
    return [[prompt(length) for each in range(number)], [prompt(8) for each in range(run["sequences"])]]


def forget(folder):
    """Drop the files of a folder from the page cache, as after a boot. What somebody has mapped stays."""
    for path in pathlib.Path(folder).rglob("*"):
        if path.is_file() and not path.is_symlink():
            with open(path, "rb") as stream:
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class Group:
    """The memory of a container's control group, of version 1 or 2."""

    def __init__(self, lines, root=pathlib.Path("/sys/fs/cgroup")):
        entries = dict(line.split(":", 2)[1:] for line in lines)
        if "memory" in entries:
            self.folder, self.usage, self.prefix = root / "memory" / entries["memory"].strip("/"), "memory.usage_in_bytes", "total_"
        else:
            self.folder, self.usage, self.prefix = root / entries[""].strip("/"), "memory.current", ""

    def sample(self):
        """Return bytes: all that is charged, and what of it is page cache that can be reclaimed."""
        usage = int((self.folder / self.usage).read_text(encoding="ascii"))
        found = dict(line.split() for line in (self.folder / "memory.stat").read_text(encoding="ascii").splitlines())
        return usage, sum(int(found[f"{self.prefix}{name}"]) for name in ("active_file", "inactive_file"))


class Sampler:
    """Samples a group until its processes are gone."""

    def __init__(self, group):
        self.group, self.samples, self.done = group, [], threading.Event()
        self.thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self):
        while not self.done.wait(SAMPLE_S):
            try:
                self.samples.append((time.time(), *self.group.sample()))
            except OSError:
                return

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *unused):
        self.done.set()
        self.thread.join()


def checked_at(log):
    """Return when vLLM looked whether the KV cache fits, by the time stamps of Docker."""
    for line in log.splitlines():
        if "GiB for KV cache on node" in line:
            # Nanoseconds are more than Python reads.
            return datetime.fromisoformat(line.split()[0][:26].rstrip("Z") + "+00:00").timestamp()
    raise SandboxError("vLLM's log does not tell when it looked whether its KV cache fits; it does in version 0.32.")


def evaluate(samples, checked, ready, kv_cache_gib):
    """Return what the samples (time, charged, page cache) say, in MiB."""
    before = max((sample for sample in samples if sample[0] <= checked), key=lambda sample: sample[1])
    after = [charged - cache for at, charged, cache in samples if at > checked]
    idle = [charged - cache for at, charged, cache in samples if at <= ready][-1]
    figures = {"checked": before[1], "checked_page_cache": before[2], "idle": idle, "serve": max(after)}
    figures = {name: round(value / MIB) for name, value in figures.items()}
    figures["start"] = figures["checked"] + kv_cache_gib * _sizing.MIB_PER_GIB
    figures["need"] = max(figures["start"], figures["serve"])
    return figures


def serve(engine, folder, run, limit_mib, log):
    """Run a container from its start to its last answer, and return what it needed."""
    cpus = sorted(os.sched_getaffinity(0))
    variables = [word for name, value in environment(run, cpus).items() for word in ("-e", f"{name}={value}")]
    engine.docker("container", "prune", "--force", log=log)
    forget(engine.data)
    forget(folder)
    engine.docker("run", "--detach", "--name", NAME, "--network", "none", "--user", "1000:1000", "--tmpfs", "/tmp", "--shm-size", f"{SHM_MIB}m",
                  "--cpuset-cpus", ",".join(map(str, cpus)), "--memory", f"{limit_mib}m", "--memory-swap", f"{limit_mib}m",
                  "-v", f"{folder}:/srv/models/{folder.name}:ro", *variables, images.VLLM, *arguments(folder, run), log=log)

    def ended():
        return SandboxError(f"vLLM ended under a limit of {limit_mib} MiB:\n{engine.docker('logs', '--tail', '30', NAME)}")

    def asks(*words, body=None):
        done = subprocess.run([host.tool("docker"), "exec", "--interactive", NAME, "curl", "-fsS", "-m", str(ANSWER_S), *words], env=engine.environment(),
                              check=False, input=body, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        return done.stdout if done.returncode == 0 else None

    def runs():
        return engine.docker("inspect", "--format", "{{.State.Running}}", NAME).strip() == "true"

    def healthy():
        if not runs():
            raise ended()
        return asks("http://127.0.0.1:8000/health") is not None

    try:
        pid = engine.docker("inspect", "--format", "{{.State.Pid}}", NAME).strip()
        lines = pathlib.Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()
        with Sampler(Group(lines)) as sampler:
            wait_for(healthy, "vLLM to become healthy", START_S, pause_s=2)
            ready = time.time()
            for lot in prompts(run, random.Random(title(run))):
                body = json.dumps({"model": folder.name, "prompt": lot, "max_tokens": 4, **SAMPLING})
                if asks("http://127.0.0.1:8000/v1/completions", "-H", "content-type: application/json", "-d", "@-", body=body) is None:
                    raise ended() if not runs() else SandboxError(f"vLLM did not answer:\n{engine.docker('logs', '--tail', '30', NAME)}")
        text = engine.docker("logs", "--timestamps", NAME)
        return evaluate(sampler.samples, checked_at(text), ready, run["kv_cache_gib"])
    finally:
        with open(log, "a", encoding="utf-8") as stream:
            subprocess.run([host.tool("docker"), "logs", NAME], env=engine.environment(), check=False, stdout=stream, stderr=stream)
        engine.docker("rm", "--force", NAME, log=log)


# -- the report ---------------------------------------------------------------

def describe(found):
    return f"{found['cpus']} CPUs ({found['cpu_model']}), {found['memory_gib']} GiB, control groups of version {found['cgroup']}"


def table(entries):
    """Return the table for a document: the parts of what is reckoned, and what was measured."""
    head = ("Model", "Type", "Tokens, sequences", "Runtime", "Weights", "Packed copies", "KV cache", "Activations", "Page cache", "Reckoned",
            "To start", "To serve", "Difference")
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for entry in entries:
        run, reckoned, measured = entry["run"], predict(entry["size"], entry["run"]), entry["measured"]
        cells = (run["model"], run["dtype"], f"{run['tokens']}, {run['sequences']}", reckoned["runtime"], reckoned["weights"], reckoned["packed"],
                 reckoned["kv_cache"], reckoned["activations"], reckoned["page_cache"], reckoned["total"], measured["start"], measured["serve"],
                 f"{difference(reckoned['total'], measured['need']):+.1%}")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def tables():
    """Return what stands in docs/models.md between <!-- table: memory --> and <!-- end of table -->, from the figures of the whole run that is kept."""
    if not MEASURED.exists():
        return {"memory": "Nothing was measured yet; `make calibrate` does it.\n"}
    found = read(MEASURED)
    made = table(found["runs"])
    return {"memory": f"{made}\nMiB, measured on {found['date']} with {found['image']} on {describe(found['machine'])}.\n"}


def need_memory(mib):
    """Refuse before anything was started."""
    found = dict(line.split(":") for line in pathlib.Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
    available = int(found["MemAvailable"].split()[0]) >> 10
    if available < mib:
        raise SandboxError(f"The largest run may take {mib} MiB, and this machine has {available} MiB available. Name smaller models, or free some memory.")


def limit_of(predicted, loose):
    return math.ceil(predicted["total"] * (2 if loose else 1 + MOST_UNDER))


def calibrate(runs, loose):
    cache, known = cache_dir(), read(SHAPES)
    log = cache / "log" / "calibrate.log"
    host.check_machine()
    host.ensure_tools(host.ENGINE_TOOLS, log)
    place = cache / "calibrate"
    words = model.tokenizer((REPO / "LICENSE").read_text(encoding="utf-8"), 2048)
    entries, failures = [], []
    with lock(cache / "lock", "the sandbox's cache"):
        log.unlink(missing_ok=True)
        remove_tree(place)
        folders = {name: shapes.make(place / name, known["models"][name], words) for name in sorted({run["model"] for run in runs})}
        sizes = [facts_of(folders[run["model"]], run) for run in runs]
        limits = [limit_of(predict(size, run), loose) for size, run in zip(sizes, runs)]
        need_memory(max(limits))
        engine = images.ensure_built(cache)
        with engine.started():
            for run, size, limit in zip(runs, sizes, limits):
                try:
                    with step(title(run)):
                        measured = serve(engine, folders[run["model"]], run, limit, log)
                except SandboxError as error:
                    say(f"{title(run)}: {error}")
                    failures.append(run)
                    continue
                entries.append({"run": run, "size": size, "measured": measured})
                total = predict(size, run)["total"]
                say(f"reckoned {total} MiB, needed {measured['need']} MiB: {difference(total, measured['need']):+.1%}")
        engine.strip()
        remove_tree(place)
    return entries, failures


def save(entries):
    """Keep the figures: for tests and the document only where all runs were made."""
    cgroup = 1 if pathlib.Path("/sys/fs/cgroup/memory").is_dir() else 2
    found = {"machine": {**machine(), "cgroup": cgroup}, "image": images.VLLM, "date": time.strftime("%Y-%m-%d"), "runs": entries}
    BENCH.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found, indent=1) + "\n"
    (BENCH / "calibrate.json").write_text(text, encoding="utf-8")
    if [entry["run"] for entry in entries] == read(SHAPES)["runs"]:
        MEASURED.write_text(text, encoding="utf-8")
        say(f"calibrate: {MEASURED.relative_to(REPO)} written; `make docs` writes the table")


def main():
    parser = argparse.ArgumentParser(description="Compare the memory that vLLM needs with what the plan reckons.")
    parser.add_argument("--loose", action="store_true", help="give twice the memory that the plan reckons")
    parser.add_argument("models", nargs="*", metavar="MODEL", help="models of tests/calibrate/shapes.json; all without one")
    options = parser.parse_args()
    known = read(SHAPES)
    unknown = sorted(set(options.models) - set(known["models"]))
    if unknown:
        sys.exit(f"calibrate: no such model: {', '.join(unknown)}; there are {', '.join(known['models'])}")
    runs = [run for run in known["runs"] if run["model"] in options.models or not options.models]
    stop_on_signals()
    try:
        entries, failures = calibrate(runs, options.loose)
    except SandboxError as error:
        sys.exit(f"calibrate: {error}")
    save(entries)
    print(table(entries), end="")
    bad = [title(entry["run"]) for entry in entries if not is_good(predict(entry["size"], entry["run"])["total"], entry["measured"]["need"])]
    bad += [title(run) for run in failures]
    if bad:
        sys.exit(f"calibrate: {len(bad)} of {len(runs)} are not as reckoned (at most {MOST_OVER:.0%} above the need, {MOST_UNDER:.0%} below): {'; '.join(bad)}")
    say(f"calibrate: all {len(runs)} are as reckoned")


if __name__ == "__main__":
    main()
