# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gateway in front of the real vLLM: whose model an alias is, and what a client notices of an engine that is gone. The rest: tests/gateway."""
from __future__ import annotations

import json

import pytest
from machine import asking

URL = "http://127.0.0.1:8080"


@pytest.fixture(name="up")
def fixture_up(host, wait_for):
    def seen():
        # An error where no engine is up.
        done = host.run(asking(f"{URL}/healthz"))
        return json.loads(done.stdout)["engines"] if done.rc == 0 else None

    def wait(**engines):
        wait_for(lambda: seen() == engines, f"the gateway sees {engines}")
    return wait


@pytest.fixture(name="chat")
def fixture_chat(ask):
    def chat(model):
        answer = ask(f"{URL}/v1/chat/completions", model=model, max_tokens=4, messages=[{"role": "user", "content": "Once"}])
        assert answer["choices"][0]["message"]["content"]
        return answer["model"].partition(":")[0]
    return chat


def test_each_alias_is_the_model_of_its_engine(up, chat):
    up(vllm="up", ollama="up")
    assert (chat("chat"), chat("batch")) == ("tinystory", "tiny")


def test_a_client_does_not_notice_an_engine_that_is_gone(sh, up, chat):
    sh("docker stop ollama")
    # At once: nobody waits until the gateway has taken it out.
    assert chat("chat") == "tiny"
    up(vllm="up", ollama="down")
    assert chat("chat") == "tiny"
    sh("docker start ollama")
    up(vllm="up", ollama="up")
    assert chat("chat") == "tinystory"
