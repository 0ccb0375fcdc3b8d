# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The clients that people use, through the gateway: nothing in them knows that it is there."""
from __future__ import annotations

import hashlib
import ssl
import subprocess

import ollama
import openai
import pytest

KEY = "k" * 64
KEYS = [{"name": "alice", "sha256": hashlib.sha256(KEY.encode()).hexdigest(), "requests_per_minute": 600}]
ASKED = [{"role": "user", "content": "count"}]
WORDS = "one two three four five"


@pytest.fixture(name="gateway")
def fixture_gateway(both):
    """With TLS and keys, as on a network."""
    certificate, key = str(both.folder / "server.crt"), str(both.folder / "server.key")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-out", certificate, "-keyout", key], check=True, capture_output=True)
    gateway = both.start(keys=KEYS, variables={"gateway_tls": "files", "__gateway_certificate": certificate, "__gateway_certificate_key": key})
    gateway.trust = ssl.create_default_context(cafile=certificate)
    return gateway


@pytest.fixture(name="client")
def fixture_client(gateway):
    http = openai.DefaultHttpxClient(verify=gateway.trust)
    with openai.OpenAI(base_url=f"https://127.0.0.1:{gateway.port}/v1", api_key=KEY, http_client=http, max_retries=0) as client:
        yield client


def test_openai(client):
    assert [model.id for model in client.models.list()] == ["batch", "chat", "llama3.2:3b", "tiny"] and client.models.retrieve("chat").owned_by == "alias"
    answer = client.chat.completions.create(model="chat", messages=ASKED)
    assert answer.choices[0].message.content == WORDS and answer.model == "llama3.2:3b" and answer.usage.completion_tokens == 5
    said = [part.choices[0].delta.content for part in client.chat.completions.create(model="batch", messages=ASKED, stream=True)]
    assert "".join(said).split() == WORDS.split() and len(said) == 5
    assert client.completions.create(model="batch", prompt="count").choices[0].text == WORDS
    assert client.embeddings.create(model="batch", input="count", encoding_format="float").data[0].embedding == [0.5, 0.25]


def test_openai_says_what_is_wrong(gateway, client, both):
    with pytest.raises(openai.NotFoundError, match="nobody"):
        client.chat.completions.create(model="nobody", messages=ASKED)
    with pytest.raises(openai.AuthenticationError, match="needs a key"):
        client.with_options(api_key="wrong").chat.completions.create(model="chat", messages=ASKED)
    with pytest.raises(openai.APIStatusError) as too_large:
        client.chat.completions.create(model="chat", messages=[{"role": "user", "content": "x" * 100_000}])
    assert too_large.value.status_code == 413
    both.engines["vllm"].control(cut_after=2)
    said = []
    with pytest.raises(openai.APIError, match="broke off in the middle"):
        for part in client.chat.completions.create(model="batch", messages=ASKED, stream=True):
            said.append(part)
    assert len(said) == 2
    for engine in both.engines.values():
        engine.kill()
        both.up(engine.name, False)
    with pytest.raises(openai.InternalServerError, match="No engine"):
        client.chat.completions.create(model="chat", messages=ASKED)
    assert "x" * 100 not in gateway.errors()


def test_ollama(gateway, both):
    client = ollama.Client(host=f"https://127.0.0.1:{gateway.port}/ollama", headers={"Authorization": f"Bearer {KEY}"}, verify=gateway.trust)
    assert client.list().models[0].model == "llama3.2:3b" and client.ps().models[0].name == "llama3.2:3b"
    assert client.chat(model="llama3.2:3b", messages=ASKED).message.content == WORDS
    said = list(client.generate(model="llama3.2:3b", prompt="count", stream=True))
    assert "".join(part.response for part in said).split() == WORDS.split() and said[-1].done and said[-1].eval_count == 5
    assert client.embed(model="llama3.2:3b", input="count").embeddings == [[0.5, 0.25]]
    with pytest.raises(ollama.ResponseError, match="not found"):
        client.chat(model="nobody", messages=ASKED)
    with pytest.raises(ollama.ResponseError, match="not offered"):
        client.delete("llama3.2:3b")
    with pytest.raises(ollama.ResponseError, match="needs a key"):
        ollama.Client(host=f"https://127.0.0.1:{gateway.port}/ollama", verify=gateway.trust).chat(model="llama3.2:3b", messages=ASKED)
    both.engines["ollama"].control(cut_after=2)
    said = []
    with pytest.raises(ollama.ResponseError, match="broke off in the middle"):
        for part in client.chat(model="llama3.2:3b", messages=ASKED, stream=True):
            said.append(part)
    assert len(said) == 2
