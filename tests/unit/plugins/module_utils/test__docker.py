# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever the SDK raises comes back as words."""
from __future__ import annotations

import builtins
import importlib

import pytest
import requests.exceptions

docker = pytest.importorskip("docker")

from ansible_collections.erni_ki.inference.plugins.module_utils import _docker  # noqa: E402  pylint: disable=wrong-import-position


class Api:
    def __init__(self, answer):
        self.answer = answer
        self.api = self

    def inspect_container(self, name):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer[name]


def test_inspect():
    assert _docker.inspect(Api({"vllm": {"Id": "1"}}), "vllm") == {"Id": "1"}
    assert _docker.inspect(Api(docker.errors.NotFound("No such container: x")), "x") is None


@pytest.mark.parametrize("error", [
    docker.errors.APIError("server error"), docker.errors.DockerException("odd\nthing"), requests.exceptions.ReadTimeout("Read timed out"),
    ConnectionRefusedError(111, "Connection refused"),
])
def test_inspect_that_fails(error):
    with pytest.raises(_docker.EngineError, match="^the Docker Engine does not answer: .+") as caught:
        _docker.inspect(Api(error), "x")
    assert "\n" not in str(caught.value)


def test_an_error_without_words():
    with pytest.raises(_docker.EngineError, match="answer: DockerException$"):
        _docker.inspect(Api(docker.errors.DockerException()), "x")


def test_connect_to_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    with pytest.raises(_docker.EngineError, match="the Docker Engine does not answer"):
        _docker.connect(5)
    monkeypatch.setenv("DOCKER_HOST", "odd://")
    with pytest.raises(_docker.EngineError, match="the Docker Engine does not answer"):
        _docker.connect(5)


def test_connect(monkeypatch):
    seen = {}
    monkeypatch.setattr(_docker.docker, "from_env", lambda **options: seen.update(options) or "client")
    assert _docker.connect(7) == "client"
    assert seen == {"version": "auto", "timeout": 7}


def test_without_the_sdk(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.split(".")[0] == "docker":
            raise ImportError("No module named 'docker'")
        return real(name, *args, **kwargs)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(builtins, "__import__", refuse)
            importlib.reload(_docker)
            assert _docker.docker is None
            assert "No module named 'docker'" in _docker.IMPORT_ERROR
    finally:
        importlib.reload(_docker)
    assert _docker.docker is docker
