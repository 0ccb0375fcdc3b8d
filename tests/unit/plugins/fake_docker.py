# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker's Python SDK, as far as containers that run a Python script go: each becomes a process here, with the folders under their own names."""
from __future__ import annotations

import os
import subprocess
import sys
import types


class DockerException(Exception):
    pass


class APIError(DockerException):
    pass


class NotFound(APIError):
    pass


class ImageNotFound(NotFound):
    pass


class ReadTimeout(OSError):
    pass


class Container:
    def __init__(self, docker, arguments, kwargs):
        self.docker, self.kwargs, self.process = docker, kwargs, None
        places = {bind["bind"]: folder for folder, bind in kwargs["volumes"].items()}
        self.words = [self.docker.edit(word) for word in kwargs["entrypoint"][1:]]
        for word in arguments:
            root = next((place for place in places if word == place or word.startswith(place + "/")), None)
            self.words.append(places[root] + word[len(root):] if root else word)

    def start(self):
        self.docker.started += 1
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PYTHONDONTWRITEBYTECODE": "1"}
        home = self.docker.home
        self.process = subprocess.Popen(
            [sys.executable, *self.words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**environment, **self.kwargs["environment"], "HOME": home, "HF_HOME": home})
        if self.docker.on_start:
            self.docker.on_start(self)

    def wait(self, timeout):
        try:
            return {"StatusCode": self.process.wait(timeout)}
        except subprocess.TimeoutExpired as error:
            raise ReadTimeout("timed out") from error

    def logs(self, tail):
        return self.process.stdout.read()

    def remove(self, force, v):
        assert force and v
        self.docker.removed += 1
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()


class FakeDocker:
    """What stands in for the module C(docker)."""

    errors = types.SimpleNamespace(DockerException=DockerException, APIError=APIError, NotFound=NotFound, ImageNotFound=ImageNotFound)

    def __init__(self, home, images):
        self.home, self.images = str(home), images
        self.created, self.started, self.removed, self.left_over = [], 0, 0, []
        self.on_start, self.problem = None, None
        self.containers = types.SimpleNamespace(create=self.create)
        self.api = types.SimpleNamespace(remove_container=self.remove_container)

    def from_env(self, version, timeout):
        if self.problem:
            raise DockerException(self.problem)
        return self

    @staticmethod
    def edit(text):
        """Nobody waits in a test."""
        return text.replace("import time\n", "import time\ntime.sleep = lambda seconds: None\n", 1)

    def create(self, image, arguments, **kwargs):
        if image not in self.images:
            raise ImageNotFound("no such image")
        self.created.append(dict(kwargs, arguments=arguments))
        return Container(self, arguments, kwargs)

    def remove_container(self, name, force, v):
        if name not in self.left_over:
            raise NotFound("no such container")
        self.left_over.remove(name)
