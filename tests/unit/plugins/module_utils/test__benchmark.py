# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is measured in which order, what does not count, and how losses are judged and explained."""
from __future__ import annotations

import contextlib
import types

import pytest
import yaml

from ansible_collections.erni_ki.inference.plugins.filter import benchmark_comparison
from ansible_collections.erni_ki.inference.plugins.module_utils import _benchmark as bench
from ansible_collections.erni_ki.inference.plugins.module_utils._benchmark_stats import Request
from ansible_collections.erni_ki.inference.plugins.module_utils._benchmark_watch import Cpu, Look, Seen
from ansible_collections.erni_ki.inference.plugins.module_utils._check import Subject
from ansible_collections.erni_ki.inference.plugins.module_utils._proof import mounted_groups
from ansible_collections.erni_ki.inference.tests.unit.plugins.benchmark_sample import result
from ansible_collections.erni_ki.inference.tests.unit.plugins.recorded_host import KINDS, Host, PLAN

hypothesis = pytest.importorskip("hypothesis")
st = pytest.importorskip("hypothesis.strategies")

BOTH = ["vllm", "ollama"]
VLLM, OLLAMA = frozenset([*range(7), *range(8, 15)]), frozenset({7, 15})


def test_the_cases():
    assert [case.name for case in bench.cases(BOTH, True)] == ["vllm", "ollama", "together", "vllm+burners", "ollama+burners", "together+burners"]
    assert [case.name for case in bench.cases(["ollama"], True)] == ["ollama", "ollama+burners"]
    assert [case.name for case in bench.cases(BOTH, False)] == ["vllm", "ollama", "together"]


@hypothesis.given(st.sampled_from([BOTH, ["vllm"]]), st.booleans(), st.integers(1, 12))
def test_every_round_has_every_case_once(services, burners, repeats):
    wanted = bench.cases(services, burners)
    order = bench.schedule(wanted, repeats)
    assert [number for number, _case in order] == sorted(number for number, _case in order)
    for number in range(1, repeats + 1):
        assert sorted(case.name for turn, case in order if turn == number) == sorted(case.name for case in wanted)


def test_no_case_is_always_first():
    order = bench.schedule(bench.cases(BOTH, True), 6)
    assert len({order[start][1].name for start in range(0, 36, 6)}) > 2


def answer(rate, begun=0.0, tokens=10):
    return Request(begun, [(begun + 0.1 + number / rate, 1) for number in range(tokens)])


class FakeHost:
    """An exclusive host of the recorded plan; every look at it is a second later."""

    def __init__(self, reachable=OLLAMA):
        self.root, self.cpus, self.reachable = "/nowhere", {"vllm": VLLM, "ollama": OLLAMA}, reachable
        self.other = self.steal = 0.0
        self.burned = 1.0
        self.stops = 0
        self.looks = 0

    def pids(self):
        return {"vllm": {10}, "ollama": {20}}

    def throttled(self):
        self.stops += 1 if self.stops else 0
        return {"vllm": self.stops, "ollama": 0}

    def siblings(self, cpus):
        return frozenset()

    def look(self, root):
        self.looks += 1
        at = float(self.looks)
        cpus = {cpu: Cpu(at * (self.burned if cpu in self.reachable else 0.5), at * self.steal, at * (1 - self.burned)) for cpu in range(16)}
        return Look({(10, 0): Seen(1, "vllm", 6 * at, 0), (20, 0): Seen(1, "ollama", at, 0), (30, 0): Seen(1, "cron", self.other * at, 0)}, cpus)


class FakeBurners:
    """Counts how many there are."""

    running = 0
    ended = 0

    def __init__(self, count):
        self.count, self.pids = count, list(range(900, 900 + count))

    def __enter__(self):
        FakeBurners.running = self.count
        return self

    def __exit__(self, *unused):
        FakeBurners.running = 0

    def gone(self):
        return FakeBurners.ended if self.count else 0


@pytest.fixture(name="host")
def fixture_host(monkeypatch):
    monkeypatch.setattr(FakeBurners, "ended", 0)
    return FakeHost()


@pytest.fixture(name="made")
def fixture_made(host):
    """A Bench whose services make so many tokens a second: a number, or a function of (service, case, burners)."""
    def make(rate, services=("vllm", "ollama"), **settings):
        seen = []

        def drive(drivers, seconds, halfway):
            halfway()
            names = tuple(driver.service for driver in drivers)
            seen.append((names, FakeBurners.running))
            return {name: [answer(rate(name, len(names) > 1, FakeBurners.running > 0))] for name in names}
        asked = []
        drivers = {service: types.SimpleNamespace(service=service, model="tiny", ask=lambda service=service: asked.append(service)) for service in services}
        clock = iter(range(10 ** 6))
        made = bench.Bench(host, drivers, bench.Settings(**settings), burners=FakeBurners, drive=drive, look=host.look, sleep=lambda seconds: None,
                           clock=lambda: float(next(clock)))
        made.seen, made.asked = seen, asked
        return made
    return make


def judged(made, plan=None):
    return bench.judge(made.runs, made.cases, made.host, plan or PLAN, made.settings)


def test_a_host_that_keeps_its_promise(made):
    one = made(lambda service, together, burners: 100 - 10 * together - burners, repeats=3, warmup=2)
    runs = one.measure()
    assert sorted(one.asked) == ["ollama"] * 2 + ["vllm"] * 2 and len(runs) == 18
    assert {names: burners for names, burners in one.seen if burners} == {("vllm",): 2, ("ollama",): 2, ("vllm", "ollama"): 2}
    assert all(run["left_out"] == [] and run["service_cpus"] == {"vllm": 6, "ollama": 1} for run in runs)
    rows = bench.results(runs, one.cases, one.gaps)
    assert [(row["case"], row["service"]) for row in rows] == [
        ("vllm", "vllm"), ("ollama", "ollama"), ("together", "vllm"), ("together", "ollama"), ("vllm+burners", "vllm"), ("ollama+burners", "ollama"),
        ("together+burners", "vllm"), ("together+burners", "ollama")]
    assert rows[2]["tokens_per_second"]["median"] == pytest.approx(90) and rows[2]["runs"] == 3 and rows[2]["itl_curve"]
    losses = judged(one)
    assert [(loss["service"], loss["kind"], loss["base"], loss["limit_percent"]) for loss in losses] == [
        ("vllm", "cpu", "vllm", 5), ("ollama", "cpu", "ollama", 5), ("vllm", "cpu", "together", 5), ("vllm", "together", "vllm", 25),
        ("ollama", "cpu", "together", 5), ("ollama", "together", "ollama", 25)]
    assert all(loss["ok"] and loss["cause"] == loss["cure"] == "" for loss in losses)
    assert losses[3]["loss_percent"]["median"] == pytest.approx(10) and losses[0]["loss_percent"]["median"] == pytest.approx(1)
    assert bench.verdict(losses, runs) == (True, "ok: 6 losses within their limits")
    lines = bench.table(rows, losses, runs)
    assert any(line.startswith("ok  vllm") and "together against vllm" in line for line in lines) and not any("left out" in line for line in lines)


def test_reserved_cores_that_the_plan_shares(made):
    one = made(lambda service, together, burners: 50 if burners and service == "ollama" else 100, repeats=3)
    one.measure()
    losses = judged(one)
    bad = [loss for loss in losses if not loss["ok"]]
    assert {(loss["service"], loss["kind"]) for loss in bad} == {("ollama", "cpu")}
    assert bad[0]["cause"].startswith("Ollama's CPUs 7,15 are among the reserved ones") and "plan_ollama_cpus" in bad[0]["cure"]
    ok, summary = bench.verdict(losses, one.runs)
    assert not ok and summary == ("FAILED: Ollama loses 50.0 % beside CPU burners (limit 5 %); "
                                  "Ollama loses 50.0 % beside CPU burners (both engines at work) (limit 5 %)")
    assert any(line == f"      cause: {bad[0]['cause']}" for line in bench.table([], losses, one.runs))


def test_pinning_alone(made, host):
    """Nothing is promised, and it is told all the same."""
    host.reachable = frozenset(range(16))
    one = made(lambda service, together, burners: 64 if burners else 100, services=("vllm",), repeats=2)
    one.measure()
    loss = judged(one, dict(PLAN, isolation="fenced"))[0]
    assert (loss["ok"], loss["limit_percent"], loss["loss_percent"]["median"]) == (True, None, pytest.approx(36))
    assert loss["cause"].startswith("Nothing keeps the burners off vLLM's CPUs 0-6,8-14") and "plan_isolation: exclusive" in loss["cure"]
    assert bench.verdict([loss], one.runs) == (True, "ok: 4 runs, and no limit that applies here")
    # The same where the plan promises it: the fence does not hold.
    loss = judged(one)[0]
    assert not loss["ok"] and loss["cause"].startswith("Nothing keeps the burners off")


def likely(made, host, kind="cpu", service="vllm", **changes):
    base = {"throttled": {}, "mhz": {service: 3000.0}}
    loaded = {"throttled": {}, "mhz": {service: 3000.0}, **changes}
    return bench.likely(bench.Comparison(service, kind, service, "x"), [(base, loaded)] * 3, host, PLAN)


def test_causes(made, host):
    assert "what no cpuset fences" in likely(made, host)[0]
    assert "memory bandwidth and the last-level cache" in likely(made, host, "together")[0]
    assert likely(made, host, throttled={"vllm": 2})[0].startswith("The kernel stopped vLLM 6 times")
    assert "clock 10 % slower beside the burners" in likely(made, host, mhz={"vllm": 2700.0})[0]
    assert "clock 10 % slower beside the other engine" in likely(made, host, "together", mhz={"vllm": 2700.0})[0]
    host.siblings = lambda cpus: frozenset({15})
    assert likely(made, host)[0].startswith("The burners may run on 15, SMT siblings of vLLM's CPUs")
    host.cpus = {"vllm": VLLM, "ollama": VLLM | OLLAMA}
    cause, cure = likely(made, host, "together")
    assert cause.startswith("Nothing keeps the other engine off vLLM's CPUs 0-6,8-14") and cure.startswith("plan_ollama_cpus: reserved")


def test_what_disturbs_is_left_out_openly(made, host):
    host.other = 0.43
    one = made(lambda service, together, burners: 100, repeats=2)
    one.measure()
    assert all(run["left_out"] == ["other processes used 43 % of a CPU on the measured CPUs: cron (process 30) 0.43 s"] for run in one.runs)
    rows, losses = bench.results(one.runs, one.cases, one.gaps), judged(one)
    assert rows[0]["runs"] == 0 and rows[0]["runs_left_out"] == 2 and rows[0]["tokens_per_second"] is None and rows[0]["itl_curve"] == []
    assert not losses[0]["ok"] and losses[0]["loss_percent"] is None
    assert losses[0]["cause"].startswith("Only 0 of 2 rounds count, and half of them must: other processes used 43 %")
    ok, summary = bench.verdict(losses, one.runs)
    assert not ok and "the loss of vLLM beside the other engine is not known" in summary and summary.endswith("; 12 of 12 runs left out")
    lines = bench.table(rows, losses, one.runs)
    assert "12 of 12 runs were left out:" in lines and any("round 1, vllm: other processes used 43 %" in line for line in lines)


@pytest.mark.parametrize("settings, counts", [({"max_others": 50}, True), ({"max_others": 42}, False)])
def test_what_counts_as_disturbed(made, host, settings, counts):
    host.other = 0.43
    one = made(lambda service, together, burners: 100, repeats=1, **settings)
    assert all(bool(run["left_out"]) != counts for run in one.measure())


def test_steal_and_burners(made, host):
    host.steal, host.burned = 0.1, 0.5
    FakeBurners.ended = 1
    one = made(lambda service, together, burners: 100, services=("vllm",), repeats=1)
    first, second = one.measure()
    assert first["left_out"] == ["the machine below took 9.1 % of the measured CPUs' time (steal)"]
    assert second["left_out"][1] == "1 of 2 burners ended before their time"
    FakeBurners.ended = 0
    assert one.run(2, one.cases[1])["left_out"][1] == "the burners left CPU 7,15 partly idle, so that they proved nothing"


def test_tokens_that_all_came_at_once(made, monkeypatch):
    one = made(lambda service, together, burners: 100, services=("vllm",), repeats=1, burners=False)
    monkeypatch.setattr(one, "drive", lambda drivers, seconds, halfway: {"vllm": [Request(0, [(1, 1), (1, 1)])]})
    assert one.measure()[0]["left_out"] == ["no two tokens of vLLM came apart in time"]


def test_a_gain_and_a_single_limit(made):
    one = made(lambda service, together, burners: 110 if burners else 100, services=("vllm",), repeats=1)
    one.measure()
    losses = judged(one)
    assert bench.sentence(losses[0]) == "vLLM gains 10.0 % beside CPU burners (limit 5 %)"
    assert bench.verdict(losses, one.runs)[1] == "ok: 1 loss within its limit"
    assert bench.verdict([], [])[1] == "ok: nothing was measured, as this is check mode"


@hypothesis.given(st.lists(st.tuples(st.floats(1, 1000), st.floats(0, 0.99)), min_size=1, max_size=6), st.floats(0, 99))
def test_the_limit_is_what_it_says(rounds, limit):
    """Whatever the host's speed does from round to round, a loss is judged by that of the middle."""
    runs = []
    for number, (speed, loss) in enumerate(rounds, 1):
        for case, rate in (("vllm", speed), ("vllm+burners", speed * (1 - loss))):
            runs.append({"round": number, "case": case, "left_out": [], "services": {"vllm": {"tokens_per_second": rate}}, "throttled": {}, "mhz": {}})
    settings = bench.Settings(repeats=len(rounds), max_loss_cpu=limit)
    found = bench.judge(runs, bench.cases(["vllm"], True), FakeHost(), PLAN, settings)[0]
    middle = 100 * sorted(loss for _speed, loss in rounds)[len(rounds) // 2]
    if len(rounds) % 2 and abs(middle - limit) > 1e-6:
        assert found["ok"] == (middle < limit)
    assert found["ok"] == (found["cause"] == "") and found["rounds"] == len(rounds)


@pytest.fixture(name="recorded", params=sorted(KINDS))
def fixture_recorded(tmp_path, request, monkeypatch):
    tree = Host(tmp_path, request.param)
    tree.write("/proc/stat", "".join(f"cpu{cpu} 1 2 3 4\n" for cpu in range(16)))
    tree.write("/sys/devices/system/cpu/online", "0-15\n")
    monkeypatch.setattr(bench._benchmark_burners, "reachable", lambda: {7, 15})
    tree.subjects = {}
    for service in BOTH:
        subject = tree.subjects[service] = Subject(service, tree.plan[service], str(tree.root), mounted_groups(str(tree.root)))
        subject.inspected(tree.containers[service])
    return tree


def test_what_is_read_of_a_host(recorded):
    two = recorded.version == 2
    recorded.write(recorded.container_file("vllm", "memory.current" if two else "memory.usage_in_bytes"), f"{5 << 30}\n")
    recorded.write(recorded.container_file("vllm", "memory.peak" if two else "memory.max_usage_in_bytes"), f"{6 << 30}\n")
    host = bench.Host(recorded.subjects, str(recorded.root))
    assert host.cpus == {"vllm": VLLM, "ollama": OLLAMA} and host.reachable == {7, 15}
    assert host.pids()["ollama"] == {2000, 2010}
    assert host.throttled() == {"vllm": 0, "ollama": 0}
    assert host.memory()["vllm"] == {"limit_mib": 6144, "used_mib": 5120, "peak_mib": 6144}
    found = host.map()
    assert found["cores"][0] == {"core": 0, "package": 0, "cpus": [0, 8]} and len(found["cores"]) == 8
    assert (found["owners"]["0"], found["owners"]["15"]) == (["vllm"], ["ollama", "system"])
    assert host.siblings(frozenset({0, 1, 8})) == {9}


def test_a_container_that_is_gone(recorded):
    host = bench.Host(recorded.subjects, str(recorded.root))
    recorded.subjects["vllm"].inspected(None)
    with pytest.raises(bench.BenchmarkError, match="vLLM: there is no container 'vllm'. Has it been restarted meanwhile"):
        host.pids()
    with pytest.raises(bench.BenchmarkError, match="vLLM: there is no container 'vllm'. make diagnose tells"):
        bench.Host(recorded.subjects, str(recorded.root))
    assert host.throttled()["vllm"] == 0 and "vllm" not in host.memory()


def test_nobody_waits_any_more(made):
    one = made(lambda service, together, burners: 100, repeats=3)
    one.wanted = lambda: len(one.runs) < 4
    with pytest.raises(bench.BenchmarkError, match="Nobody waits for the result any more"):
        one.measure()
    assert len(one.runs) == 4


def test_layouts_side_by_side():
    lines = bench.comparison({"pinned": result(), "exclusive": result(left_out=range(18)), "alone": result(services=("vllm",))})
    assert [line.split()[:2] for line in lines[1:]] == [
        ["vllm", "pinned"], ["vllm", "exclusive"], ["vllm", "alone"], ["ollama", "pinned"], ["ollama", "exclusive"]]
    assert lines[1].split()[-3:] == ["16.4", "34.3", "40.3"] and lines[2].split()[2:] == ["-"] * 4 and lines[3].split()[-3:] == ["-", "34.3", "-"]
    plugin = yaml.safe_load(benchmark_comparison.DOCUMENTATION)
    assert list(plugin["options"]) == ["_input"] and benchmark_comparison.FilterModule().filters()["benchmark_comparison"] is bench.comparison


def test_an_error_ends_the_burners(made, monkeypatch):
    one = made(lambda service, together, burners: 100, repeats=1)

    def fail(drivers, seconds, halfway):
        raise bench.BenchmarkError("x")
    monkeypatch.setattr(one, "drive", fail)
    for case in one.cases:
        with contextlib.suppress(bench.BenchmarkError):
            one.run(1, case)
        assert FakeBurners.running == 0
