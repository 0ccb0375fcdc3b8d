# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of the fleet share: both machines, the playbook, the gateway as it sees itself, and the load."""
from __future__ import annotations

import base64
import json
import pathlib
import re

import pytest
import testinfra
import yaml
from machine import REPO, ansible, asking, wait_for

SCENARIO = pathlib.Path(__file__).resolve().parents[1]
INVENTORY = SCENARIO / "inventory"


class Node:
    """One of the machines."""

    def __init__(self, number):
        self.name = f"node{number}"
        machine = f"molecule-fleet-{number}"
        self.host = testinfra.get_host(f"ssh://{machine}?timeout=120", ssh_config=str(REPO / ".cache" / "sandbox" / "vms" / machine / "ssh_config"))

    def sh(self, command):
        done = self.host.run("bash -o pipefail -c %s", command)
        assert done.rc == 0, f"`{command}` on {self.name} ended with {done.rc}\n{done.stdout}\n{done.stderr}"
        return done.stdout.strip()

    def begun(self):
        """The ids of the requests that its engine began, in their order; nobody who is killed forgets them."""
        return re.findall(r"^\[STANDIN\] begin (\S+) /v1/chat/completions$", self.sh("docker logs ollama 2>&1"), re.MULTILINE)

    def control(self, **switches):
        """Tell the stand-in how to behave; without a switch as at its start."""
        folder = "/var/lib/erni-ki/ollama/standin"
        if switches:
            self.sh(f"mkdir -p {folder}; printf %s '{json.dumps(switches)}' > {folder}/.new; mv {folder}/.new {folder}/control.json")
        else:
            self.sh(f"rm -f {folder}/control.json")


@pytest.fixture(name="nodes", scope="session")
def fixture_nodes():
    return {"node1": Node(1), "node2": Node(2)}


class Gateway:
    """The gateway, which is on node1."""

    def __init__(self, node):
        self.node = node

    def engines(self):
        return {one["name"]: one for one in json.loads(self.node.sh(asking("http://127.0.0.1:9836/engines")))}

    def post(self, path):
        # A POST has a body.
        self.node.sh(asking("http://127.0.0.1:9836" + path, now=True))

    def wait(self, **wanted):
        """Until engines are up or not: node1=True."""
        def seen():
            engines = self.engines()
            return all(engines[f"{name}-ollama"]["up"] is up for name, up in wanted.items())
        wait_for(seen, f"the gateway sees {wanted}")

    def logged(self):
        """{id: line} of the access log."""
        lines = map(json.loads, self.node.sh("cat /var/log/erni-ki-gateway/access.log").splitlines())
        return {line["id"]: line for line in lines}


@pytest.fixture(name="gateway", scope="session")
def fixture_gateway(nodes):
    return Gateway(nodes["node1"])


class Load:
    """Clients on the gateway's host."""

    FOLDER = "/run/fleet-load"

    def __init__(self, node):
        self.node = node

    def start(self, clients=4):
        text = base64.b64encode((SCENARIO / "load.py").read_bytes()).decode()
        self.node.sh(f"rm -rf {self.FOLDER}; mkdir {self.FOLDER}; base64 -d <<< {text} > {self.FOLDER}/load.py; touch {self.FOLDER}/done; "
                     f"systemctl reset-failed fleet-load 2>/dev/null; systemd-run --unit fleet-load python3 {self.FOLDER}/load.py {self.FOLDER} {clients}")
        self.more(clients)
        return self

    def done(self):
        return [json.loads(line) for line in self.node.sh(f"cat {self.FOLDER}/done").splitlines()]

    def more(self, count=8, outcome="whole"):
        """Wait until so many more requests ended like this."""
        before = sum(one["outcome"] == outcome for one in self.done())
        wait_for(lambda: sum(one["outcome"] == outcome for one in self.done()) >= before + count, f"{count} more requests are {outcome}")

    def stop(self):
        """Let each client end its request; what became of all of them."""
        self.node.sh(f"touch {self.FOLDER}/stop")
        wait_for(lambda: self.node.host.run("systemctl is-active --quiet fleet-load").rc, "the load ends")
        return self.done()


@pytest.fixture(name="load")
def fixture_load(nodes):
    load = Load(nodes["node1"])
    yield load
    nodes["node1"].host.run(f"touch {load.FOLDER}/stop")


@pytest.fixture(name="judge")
def fixture_judge(nodes, gateway):
    """What holds whatever happened: no engine got a request twice, and none got one that another had begun to answer."""
    def judge(requests):
        begun, logged = {name: node.begun() for name, node in nodes.items()}, gateway.logged()
        for one in requests:
            if not one["id"]:
                continue
            at, line = [name for name, ids in begun.items() if one["id"] in ids], logged[one["id"]]
            assert all(begun[name].count(one["id"]) == 1 for name in at), f"twice: {one}"
            # The gateway counts its attempts until a byte came; one more beginning than that would be a replay.
            assert len(at) <= int(line["tries"]), f"begun at {at}: {line}"
            if one["status"] == 200 and one["bytes"]:
                assert line["engine"].partition("-")[0] in at, f"begun at {at}: {line}"
        return {outcome: [one for one in requests if one["outcome"] == outcome] for outcome in ("whole", "broken", "error", "refused")}
    return judge


@pytest.fixture(name="site", scope="session")
def fixture_site(tmp_path_factory):
    """The playbook site on the fleet, as C(change) makes the inventory's hosts of it."""
    def run(*words, change=lambda hosts: None, playbook="site", **variables):
        inventory = yaml.safe_load((INVENTORY / "hosts.yml").read_text(encoding="utf-8"))
        change(inventory["inference"]["hosts"])
        folder = tmp_path_factory.mktemp("inventory")
        (folder / "hosts.yml").write_text(yaml.safe_dump(inventory), encoding="utf-8")
        return ansible("ansible-playbook", "-i", str(folder), f"playbooks/{playbook}.yml", "-e", json.dumps(variables), *words,
                       MOLECULE_PROJECT_DIRECTORY=str(REPO))
    return run


def verdicts(run):
    return dict(re.findall(r"^host=(\S+) verdict=(\w+)", run.text, re.MULTILINE))
