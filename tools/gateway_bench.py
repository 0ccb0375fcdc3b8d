# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures what the gateway costs against direct access, and what becomes of requests when engines fail, and writes both into docs/gateway.md.

Everything is on this machine: nginx as the role configures it, stand-ins for engines, and the clients. They share its CPUs, so the figures are an upper
bound of what the gateway adds.
"""
from __future__ import annotations

import argparse
import asyncio
import json
import os
import pathlib
import re
import signal
import statistics
import sys
import tempfile
import time

from common import COLLECTIONS, REPO, machine, record, say

sys.path[:0] = map(str, (COLLECTIONS, REPO / "tests" / "gateway", REPO / "tests" / "sandbox"))

DOCUMENT = REPO / "docs" / "gateway.md"
PLACE = "(?s)(<!-- measured: {name} -->\n).*?(<!-- end of measured -->)"
CONNECTIONS = (1, 16, 64)
# An answer as of a fast engine: so many tokens, a token every so many seconds.
TOKENS, DELAY = 32, 0.02
PATIENCE_S = 120


async def exchange(port, value, connection=None, path="/v1/chat/completions"):
    """Ask once; return (status, seconds to the first byte of the body, whole text, connection to use again). Status 0: the connection broke off."""
    begin = time.perf_counter()
    first, status, text = None, 0, b""
    reader, writer = connection or await asyncio.open_connection("127.0.0.1", port)
    try:
        body = json.dumps(value).encode()
        writer.write(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (path.encode(), len(body), body))
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status = int(head.split(" ")[1])
        length = re.search(r"content-length: (\d+)", head)
        if length:
            text = await reader.readexactly(int(length.group(1)))
            first = time.perf_counter() - begin
        while not length:
            size = int(await reader.readuntil(b"\r\n"), 16)
            piece = await reader.readexactly(size + 2)
            if size == 0:
                break
            first = first or time.perf_counter() - begin
            text += piece[:-2]
        return status, first, text.decode(), (reader, writer)
    except (OSError, asyncio.IncompleteReadError):
        writer.close()
        return 0, first, text.decode(errors="replace"), None


async def keep_asking(port, value, seconds, found):
    """One client, one request after the other on one connection."""
    connection, end = None, time.perf_counter() + seconds
    while time.perf_counter() < end:
        status, first, text, connection = await exchange(port, value, connection)
        found.append((status, first, text.count("data: {")))


async def run_clients(port, connections, seconds):
    """Return the times to the first byte in ms, and tokens a second."""
    found, value = [], {"model": "tiny", "messages": [], "stream": True}
    begin = time.perf_counter()
    await asyncio.gather(*(keep_asking(port, value, seconds, found) for unused in range(connections)))
    spent = time.perf_counter() - begin
    bad = [one for one in found if one[0] != 200 or one[2] != TOKENS]
    if bad:
        raise SystemExit(f"{len(bad)} of {len(found)} answers were not whole, the first: {bad[0]}")
    return [one[1] * 1000 for one in found], sum(one[2] for one in found) / spent


def quantile(values, part):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def overhead(site, seconds, rounds):
    """Direct and through the gateway in turn, in one run; return the rows of the table."""
    rows = []
    gateway = site.start(room={"vllm": 256}, limits={"check_interval": 600})
    site.engines["vllm"].control(tokens=TOKENS, delay=DELAY)
    for connections in CONNECTIONS:
        times, rates = {"direct": [], "gateway": []}, {"direct": [], "gateway": []}
        for unused in range(rounds):
            for name, port in (("direct", site.engines["vllm"].port), ("gateway", gateway.port)):
                waited, rate = asyncio.run(run_clients(port, connections, seconds))
                times[name] += waited
                rates[name].append(rate)
        median, high = ({name: function(values) for name, values in times.items()} for function in (statistics.median, lambda all_: quantile(all_, 0.99)))
        ratio = statistics.median(rates["gateway"]) / statistics.median(rates["direct"])
        rows.append((connections, median["direct"], median["gateway"], median["gateway"] - median["direct"], high["direct"], high["gateway"],
                     high["gateway"] - high["direct"], ratio * 100))
        say(f"{connections} connections: {rows[-1]}")
    site.gateway.stop()
    return rows


class Load:
    """Clients that ask without a pause, half of them for a stream, each request over a connection of its own."""

    def __init__(self, port, clients=8):
        self.port, self.clients, self.over, self.found = port, clients, False, []

    async def client(self, number):
        count = 0
        while not self.over:
            count += 1
            value = {"model": "chat", "messages": [], "stream": number % 2 == 0, "user": f"{number}-{count}"}
            begin = time.perf_counter()
            try:
                status, first, text, connection = await exchange(self.port, value)
            except OSError:
                status, first, text, connection = 0, None, "", None
            if connection:
                connection[1].close()
            whole = status == 200 and ("[DONE]" in text if value["stream"] else '"finish_reason": "stop"' in text)
            kind = "whole" if whole else "busy" if status == 429 else "broken" if first and status in (0, 200) else f"error {status}"
            self.found.append((kind, time.perf_counter() - begin, value["user"]))
            if kind != "whole":
                await asyncio.sleep(0.1)

    async def during(self, action):
        asking = [asyncio.ensure_future(self.client(number)) for number in range(self.clients)]
        try:
            await asyncio.sleep(2)
            told = await asyncio.get_running_loop().run_in_executor(None, action)
            await asyncio.sleep(2)
        finally:
            self.over = True
            await asyncio.gather(*asking)
        return told


def until(condition):
    """Return the seconds until a condition holds."""
    begin = time.monotonic()
    while not condition():
        if time.monotonic() - begin > PATIENCE_S:
            raise SystemExit("what was waited for did not come about")
        time.sleep(0.02)
    return time.monotonic() - begin


def failures(make_site):
    """Each failure under load on a gateway of its own; return the rows of the table."""
    def is_up(site, name, wanted=True):
        return until(lambda: site.gateway.engines()[name]["up"] is wanted)

    def kill(site):
        site.engines["ollama"].kill()
        out = is_up(site, "ollama", False)
        time.sleep(1)
        site.engines["ollama"].start()
        return out, is_up(site, "ollama")

    def stop(site):
        site.engines["ollama"].signal(signal.SIGSTOP)
        out = is_up(site, "ollama", False)
        time.sleep(4)
        site.engines["ollama"].signal(signal.SIGCONT)
        return out, is_up(site, "ollama")

    def full(site):
        site.engines["ollama"].control(status=503)
        out = is_up(site, "ollama", False)
        site.engines["ollama"].control(status=200)
        return out, is_up(site, "ollama")

    def slow(site):
        site.engines["ollama"].control(delay=0.2)
        time.sleep(4)
        site.engines["ollama"].control(delay=0.02)
        return None, None

    def reload(site):
        for unused in range(3):
            site.gateway.reload()
            time.sleep(1)
        return None, None

    def restart(site):
        site.gateway.process.send_signal(signal.SIGQUIT)
        site.gateway.process.wait(PATIENCE_S)
        site.gateway.start()
        return None, None

    def drain(site):
        import nginx
        nginx.request(site.gateway.admin, "POST", "/drain/ollama")
        empty = until(lambda: site.gateway.engines()["ollama"]["in_flight"] == 0)
        nginx.request(site.gateway.admin, "POST", "/undrain/ollama")
        return empty, 0.0

    def lose_all(site):
        for engine in site.engines.values():
            engine.kill()
        out = max(is_up(site, name, False) for name in site.engines)
        time.sleep(1)
        for engine in site.engines.values():
            engine.start()
        return out, max(is_up(site, name) for name in site.engines)

    rows = []
    cases = (
        ("killed", kill), ("stopped (SIGSTOP)", stop), ("its queue is full (503)", full), ("ten times slower", slow), ("drained", drain),
        ("all engines killed", lose_all), ("three reloads", reload), ("nginx stopped and started", restart))
    for name, action in cases:
        site = make_site()
        try:
            gateway = site.start(room={"ollama": 16, "vllm": 16}, variables={"gateway_answer_timeout": 3, "gateway_stream_timeout": 3}, limits={
                "probe_interval": 1, "probe_timeout": 2, "check_interval": 10, "slow_start": 5, "connect_timeout": 3})
            for engine in site.engines.values():
                engine.control(tokens=10, delay=0.02)
                engine.forget()
            load = Load(gateway.port)
            out, back = asyncio.run(load.during(lambda what=action, where=site: what(where)))
            kinds = [kind for kind, unused, unused in load.found]
            errors = sum(kind.startswith("error") for kind in kinds)
            longest = max(seconds for kind, seconds, unused in load.found if kind == "whole")
            rows.append((name, len(kinds), errors, kinds.count("broken"), longest, out, back))
            say(f"{name}: {rows[-1]} {sorted(set(kinds))}")
        finally:
            site.end()
    return rows


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def text_of(value, unit):
    return "" if value is None else f"{value:.1f}{unit}"


def fill_in(text, name, made):
    found, count = re.subn(PLACE.format(name=name), lambda match: f"{match.group(1)}\n{made}\n{match.group(2)}", text)
    if count != 1:
        raise SystemExit(f"docs/gateway.md has no place for what was measured of {name}")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10, help="of each run of the overhead")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    import conftest
    import nginx

    busy = os.getloadavg()[0]
    program = conftest.programs()[nginx.SUITES[-1]]
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as place:
        place = pathlib.Path(place)
        place.chmod(0o755)

        def make_site(services=(("ollama", "llama3.2:3b"), ("vllm", "tiny"))):
            folder = pathlib.Path(tempfile.mkdtemp(dir=place))
            folder.chmod(0o755)
            site = conftest.Site(program, folder, lambda name, service, models: nginx.Engine(
                name, service, models, nginx.free_ports(1)[0], folder / "engines.log"), own=True)
            for service, model in services:
                site.engine(service, [model])
            return site

        site = make_site([("vllm", "tiny")])
        try:
            cost = overhead(site, options.seconds, options.rounds)
        finally:
            site.end()
        lost = failures(make_site)
    text = DOCUMENT.read_text(encoding="utf-8")
    text = fill_in(text, "overhead", table(
        ["Connections", "Median direct", "through it", "added", "p99 direct", "through it", "added", "Throughput"],
        [[str(row[0]), *(f"{value:.2f} ms" for value in row[1:7]), f"{row[7]:.1f} %"] for row in cost]))
    text = fill_in(text, "failures", table(
        ["What happens", "Requests", "Errors before a byte", "Broken off after one", "Longest whole answer", "Taken out after", "Put back after"],
        [[row[0], str(row[1]), str(row[2]), str(row[3]), *(text_of(value, " s") for value in row[4:])] for row in lost]))
    about = machine()
    text = fill_in(text, "machine", f"{about['cpus']} CPUs ({about['cpu_model']}), {time.strftime('%Y-%m-%d')}, nginx of Debian's {nginx.SUITES[-1]}. "
                   f"Load average before it began: {busy:.1f}{', so that the times are not what a quiet machine has' if busy > about['cpus'] / 2 else ''}.\n")
    DOCUMENT.write_text(text, encoding="utf-8")
    record("gateway", 0, overhead=cost, failures=lost)


if __name__ == "__main__":
    main()
