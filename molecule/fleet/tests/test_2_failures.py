# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A steady load while things happen to node2. As long as node1 lives nobody gets an error before a byte, and nobody's request is repeated after one."""
from __future__ import annotations

import contextlib
import shlex

import pytest

# The node's own requests, past the gateway: two at work and in the queue are all that its engine takes.
ASK = """
import json, urllib.request
body = {"model": "tinystory", "prompt": "Once", "options": {"num_predict": 100000}}
urllib.request.urlopen(urllib.request.Request("http://10.99.0.12:11434/api/generate", json.dumps(body).encode(), {"Host": "localhost"})).read()
"""
BUSY = f"for n in 1 2 3; do systemd-run --unit fleet-busy-$n python3 -c {shlex.quote(ASK)}; done"


@contextlib.contextmanager
def out(node, gateway, begin, end):
    node.sh(begin)
    try:
        yield gateway.wait(node2=False)
    finally:
        node.sh(end)
    gateway.wait(node2=True)


def killed(node, gateway):
    return out(node, gateway, "docker kill ollama", "docker start ollama")


def stopped(node, gateway):
    processes = "$(docker top ollama -o pid | tail -n +2)"
    return out(node, gateway, f"kill -STOP {processes}", f"kill -CONT {processes}")


def cut_off(node, gateway):
    # Before Docker's own rules, and without a word: frames are lost, as on a cable that is pulled.
    rule = "PREROUTING -i eth1 -j DROP"
    return out(node, gateway, f"iptables -t raw -I {rule}", f"iptables -t raw -D {rule}")


@contextlib.contextmanager
def full(node, unused):
    node.sh(BUSY)
    try:
        yield
    finally:
        node.sh("systemctl stop 'fleet-busy-*'")


@contextlib.contextmanager
def slow(node, unused):
    node.control(ms_per_token=300)
    try:
        yield
    finally:
        node.control()


@contextlib.contextmanager
def drained(node, gateway):
    gateway.post("/drain/node2-ollama")
    before = len(node.begun())
    try:
        yield
        assert len(node.begun()) <= before + 1              # the one that was on its way
    finally:
        gateway.post("/undrain/node2-ollama")


@contextlib.contextmanager
def reloaded(unused, gateway):
    gateway.node.sh("systemctl reload erni-ki-gateway")
    yield


@pytest.mark.parametrize("happens", [killed, stopped, full, slow, cut_off, drained, reloaded], ids=lambda one: one.__name__)
def test_nobody_gets_an_error_while_another_engine_lives(nodes, gateway, load, judge, happens):
    gateway.wait(node1=True, node2=True)
    load.start()
    with happens(nodes["node2"], gateway):
        load.more()
    load.more()
    found = judge(load.stop())
    assert found["error"] == found["refused"] == []
    # A byte was sent: that cannot be mended, and is said. One engine works on one request at a time.
    assert len(found["broken"]) <= (1 if happens in (killed, stopped, cut_off) else 0), found["broken"]


def test_a_restart_of_the_gateway_loses_no_request_that_it_took(gateway, load, judge):
    load.start()
    gateway.node.sh("systemctl restart erni-ki-gateway")
    gateway.wait(node1=True, node2=True)
    load.more()
    found = judge(load.stop())
    # It accepts nobody while it ends what it has; a connection that the kernel had accepted for it is closed without an answer.
    assert found["broken"] == [] and {one["status"] for one in found["error"]} <= {0} and found["whole"]


def test_all_engines_are_lost_and_come_back(nodes, gateway, load, judge):
    load.start()
    for node in nodes.values():
        node.sh("docker kill ollama")
    gateway.wait(node1=False, node2=False)
    load.more(4, "error")
    for node in nodes.values():
        node.sh("docker start ollama")
    gateway.wait(node1=True, node2=True)
    load.more()
    found = judge(load.stop())
    assert {one["status"] for one in found["error"]} <= {502, 503, 504} and found["refused"] == [] and len(found["broken"]) <= 2
