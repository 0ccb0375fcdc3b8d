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


class Full(Api):
    """A client that has all that an Engine asks for; an exception in the place of an answer is raised."""

    def __init__(self, **answers):
        super().__init__(None)
        self.answers, self.asked = answers, []

    def _give(self, what, *asked, **more):
        self.asked.append((what, asked, more))
        answer = self.answers[what]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def inspect_container(self, name):
        return self._give("container", name)

    def logs(self, name, **options):
        return self._give("logs", name, **options)

    def inspect_image(self, name):
        return self._give("image", name)

    def info(self):
        return self._give("info")


@pytest.fixture(name="engine")
def engine_fixture(monkeypatch):
    def make(**answers):
        client = Full(**answers)
        monkeypatch.setattr(_docker, "connect", lambda timeout: client)
        engine = _docker.Engine(10)
        engine.client = client
        return engine
    return make


def test_an_engine_that_answers(engine):
    one = engine(container={"Id": "1"}, logs=b"a\xff\n", image={"Id": "2"}, info={"DockerRootDir": "/var/lib/docker"})
    assert one.inspect("vllm") == ({"Id": "1"}, None) and one.inspect("vllm") == ({"Id": "1"}, None)
    assert one.logs("vllm", 5, 12.7) == "a\ufffd\n" and one.has_image("i") is True and one.data_root() == "/var/lib/docker" and one.problem is None
    # The container is asked for once.
    assert one.client.asked == [
        ("container", ("vllm",), {}), ("logs", ("vllm",), {"stdout": True, "stderr": True, "tail": 5, "since": 12}), ("image", ("i",), {}), ("info", (), {})]


def test_what_an_engine_does_not_have(engine):
    gone = docker.errors.NotFound("No such")
    one = engine(container=gone, logs=gone, image=gone, info={})
    assert (one.inspect("x"), one.logs("x", 5), one.has_image("x"), one.data_root()) == ((None, None), "", False, None)
    assert one.problem is None


def test_a_log_that_cannot_be_read_is_none(engine):
    one = engine(logs=docker.errors.APIError("configured logging driver does not support reading"))
    assert one.logs("x", 5) == "" and one.problem is None


def test_an_engine_that_does_not_answer_is_waited_for_once(engine):
    one = engine(container=requests.exceptions.ReadTimeout("Read timed out"))
    assert one.inspect("a")[0] is None and "Read timed out" in one.inspect("b")[1]
    assert (one.logs("a", 5), one.has_image("i"), one.data_root()) == ("", None, None)
    assert len(one.client.asked) == 1


def test_no_engine_can_be_asked_without_the_sdk(monkeypatch):
    monkeypatch.setattr(_docker, "docker", None)
    assert _docker.Engine(10).inspect("a") == (None, _docker.NO_SDK)
