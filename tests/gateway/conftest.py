# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A gateway with its engines, for each release of nginx that the role knows."""
from __future__ import annotations

import nginx
import pytest
from sandbox_lib import debian, host
from sandbox_lib.common import cache_dir, lock

from ansible_collections.erni_ki.inference.plugins.plugin_utils import _gateway

# Generous: the tests may run on a machine that is busy with something else.
LIMITS = {
    "connect_timeout": 20, "queue_timeout": 60, "retry_after": 5, "max_failures": 2, "slow_start": 0, "probe_interval": 0.1, "probe_timeout": 20,
    "check_interval": 0.3, "check_timeout": 30}
VARIABLES = {"gateway_connect_timeout": 20, "gateway_client_timeout": 3, "gateway_stream_timeout": 60, "gateway_answer_timeout": 60, "gateway_max_body_kib": 64}


def programs():
    """nginx of each suite."""
    cache = cache_dir()
    host.check_machine()
    with lock(cache / "lock", "the sandbox's cache"):
        host.ensure_tools(host.MACHINE_TOOLS, cache / "log" / "apt.log")
        return {suite: nginx.Program(debian.unpacked(cache, f"nginx-{suite}", suite, nginx.PACKAGES, nginx.UNUSED)) for suite in nginx.SUITES}


@pytest.fixture(name="programs", scope="session")
def fixture_programs():
    return programs()


@pytest.fixture(name="engines", scope="session")
def fixture_engines(tmp_path_factory):
    """Engines that the tests of this process have one after the other: to start one takes longer than most tests."""
    pool = {}
    yield lambda name, service, models: pool.setdefault((name, *models), nginx.Engine(
        name, service, models, nginx.free_ports(1)[0], tmp_path_factory.getbasetemp() / "engines.log"))
    for engine in pool.values():
        engine.kill()


class Site:
    """What a test has: engines, and a gateway in front of them."""

    def __init__(self, program, folder, pool, own=False):
        self.program, self.folder, self.pool, self.own, self.engines, self.gateway = program, folder, pool, own, {}, None

    def engine(self, service, models, device="none", host_name="here"):
        name = service if host_name == "here" else f"{host_name}-{service}"
        self.engines[name] = self.pool(name, service, models).anew()
        self.engines[name].host, self.engines[name].device = host_name, device
        return self.engines[name]

    def settings(self, aliases=None, keys=(), drained=(), max_queue=2, room=None, limits=None):
        """As the role makes them of plans."""
        hosts = {}
        for engine in self.engines.values():
            given = hosts.setdefault(engine.host, {"name": engine.host, "address": "127.0.0.1", "plan": {}})
            given["plan"][engine.service] = {"engine": {"max_num_seqs": 8}, "device": {
                "kind": "none" if engine.device == "none" else "gpu",
                "vram": {"partial_allowed": engine.device == "gpu_in_part", "parallel": 4, "max_loaded_models": 1}}}
            given[engine.service] = {
                "bind_address": "0.0.0.0", "port": engine.port, "models": engine.models, "authorization": "Bearer engine" if engine.service == "vllm" else ""}
        made = _gateway.settings(
            list(hosts.values()), "here", aliases or nginx.defaults()["gateway_aliases"], keys, {**LIMITS, **(limits or {})}, max_queue, drained,
            alone=list(hosts) == ["here"])
        assert made["problems"] == []
        for one in made["settings"]["engines"]:
            one["max_connections"] = (room or {}).get(one["name"], one["max_connections"] if one["service"] == "vllm" else 4)
        return made["settings"]

    def start(self, variables=None, **settings):
        self.gateway = nginx.Gateway(self.program, self.folder, self.settings(**settings), **{**VARIABLES, **(variables or {})}).start()
        nginx.wait_for(lambda: all(one["checked"] for one in self.gateway.engines().values()), "every engine was looked at")
        return self.gateway

    def up(self, name, wanted=True):
        nginx.wait_for(lambda: self.gateway.engines()[name]["up"] is wanted, f"{name} is {'up' if wanted else 'out'}")

    def end(self):
        if self.gateway:
            self.gateway.stop()
        for engine in self.engines.values() if self.own else ():
            engine.kill()


@pytest.fixture(name="site")
def fixture_site(programs, engines, tmp_path, request):
    # The workers are not root and write here.
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)
    site = Site(programs[getattr(request, "param", nginx.SUITES[-1])], tmp_path, engines)
    yield site
    site.end()


@pytest.fixture(name="both")
def fixture_both(site):
    """Ollama and vLLM, as on one host."""
    site.engine("ollama", ["llama3.2:3b"])
    site.engine("vllm", ["tiny"])
    return site
