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


class EngineError(Exception):
    """The engine cannot be asked; the text says why."""


def connect(timeout):
    """Return a client of the engine that the environment names (the default socket without)."""
    try:
        # "auto": an engine refuses a client that speaks a newer or a much older version of the API than itself.
        return docker.from_env(version="auto", timeout=timeout)
    except (docker.errors.DockerException, OSError, ValueError) as error:
        raise EngineError(f"the Docker Engine does not answer: {_words(error)}") from error


def inspect(client, name):
    """Return what the engine knows of a container, or None when it has none of that name."""
    try:
        return client.api.inspect_container(name)
    except docker.errors.NotFound:
        return None
    except (docker.errors.DockerException, OSError, ValueError) as error:
        raise EngineError(f"the Docker Engine does not answer: {_words(error)}") from error


def _words(error):
    return " ".join(str(error).split())[:300] or type(error).__name__
