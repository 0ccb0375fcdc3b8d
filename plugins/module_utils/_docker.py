# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Docker Engine through its Python SDK. Errors come back as words, not as exceptions of three libraries."""
from __future__ import annotations

import traceback

try:
    import docker
    import docker.errors
except ImportError:
    docker = None
    IMPORT_ERROR = traceback.format_exc()
else:
    IMPORT_ERROR = None


NO_SDK = "the Docker SDK for Python (the Python package docker) is not on this host"


class EngineError(Exception):
    """The engine cannot be asked; the text says why."""


class Engine:
    """An engine that is asked several things. One that does not answer is waited for once; C(problem) then says why."""

    def __init__(self, timeout):
        self.timeout = timeout
        self.problem = NO_SDK if docker is None else None
        self._client = None
        self._known = {}

    def _ask(self, question, *words):
        """Return the answer, None when there is none."""
        if self.problem:
            return None
        try:
            if self._client is None:
                self._client = connect(self.timeout)
            return question(self._client, *words)
        except EngineError as error:
            self.problem = str(error)
            return None

    def inspect(self, name):
        """Return (what the engine knows of a container or None, problem or None)."""
        if name not in self._known:
            self._known[name] = self._ask(inspect, name)
        return self._known[name], self.problem

    def logs(self, name, lines, since=None):
        """Return the last lines of a container's log; nothing where it has none."""
        return self._ask(logs, name, lines, since) or ""

    def has_image(self, name):
        """Return whether an image is there, None when that cannot be told."""
        return self._ask(has_image, name)

    def data_root(self):
        """Return the folder that holds images, containers and volumes, None when that cannot be told."""
        return self._ask(data_root)


def connect(timeout):
    """Return a client of the engine that the environment names (the default socket without)."""
    try:
        # "auto": an engine refuses a client that speaks a newer or a much older version of the API than itself.
        return docker.from_env(version="auto", timeout=timeout)
    except (docker.errors.DockerException, OSError, ValueError) as error:
        raise EngineError(f"the Docker Engine does not answer: {_words(error)}") from error


def inspect(client, name):
    """Return what the engine knows of a container, or None when it has none of that name."""
    return _answer(lambda: client.api.inspect_container(name), None)


def logs(client, name, lines, since=None):
    """Return the last lines of a container's log as text, those since a time in seconds where one is given."""
    def ask():
        try:
            return client.api.logs(name, stdout=True, stderr=True, tail=lines, since=int(since) if since else None)
        except docker.errors.APIError:
            # Some logging drivers cannot be read.
            return b""

    return _answer(ask, b"").decode("utf-8", "replace")


def has_image(client, name):
    return _answer(lambda: bool(client.api.inspect_image(name)), False)


def data_root(client):
    return _answer(client.api.info, {}).get("DockerRootDir")


def _answer(ask, missing):
    """Return the engine's answer, or what stands for a thing that it does not have."""
    try:
        return ask()
    except docker.errors.NotFound:
        return missing
    except (docker.errors.DockerException, OSError, ValueError) as error:
        raise EngineError(f"the Docker Engine does not answer: {_words(error)}") from error


def _words(error):
    return " ".join(str(error).split())[:300] or type(error).__name__
