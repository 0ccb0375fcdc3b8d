# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the script that speaks to the hub, in a container of the engine's image that has nothing but one folder and the network."""
from __future__ import annotations

import contextlib
import inspect
import json
import os
import shutil
import tempfile
import time
import urllib.parse
from typing import NamedTuple

from ansible_collections.erni_ki.inference.plugins.module_utils import _docker, _hub_script
from ansible_collections.erni_ki.inference.plugins.module_utils._address import is_loopback
from ansible_collections.erni_ki.inference.plugins.module_utils._hub_model import MIB, HubError

# One at a time on a host. `docker logs -f` of it shows how far a download is.
CONTAINER = "erni-ki-vllm-model"
WORK = "/work"
SECRET = "/secret"
# One CPU's worth of time, of those it may use: the hub and the disk are slower than that.
NANO_CPUS = 1000000000
# A Python with the hub's library takes 100 MiB; what is above is the kernel's cache of what it writes.
MEMORY_BYTES = 1024 * MIB
PROCESSES = 128
MAX_ANSWER_BYTES = 16 * MIB
MAX_ENDPOINT = 300

_KEPT = " What came stays, and the next run goes on from there."

ENVIRONMENT = {
    "HOME": "/tmp", "HF_HOME": "/tmp/hf", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "30", "HF_HUB_ETAG_TIMEOUT": "30",
    # Its protocol cannot go on in the middle of a file.
    "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0", "NVIDIA_VISIBLE_DEVICES": "void", "VLLM_NO_USAGE_STATS": "1",
}


class Unavailable(HubError):
    """No container can be run yet: no engine, or no image."""


class Settings(NamedTuple):
    """How the container is to be run."""

    image: str
    user: int
    endpoint: str
    token: str
    environment: dict
    cpuset: str
    timeout: int


def checked_endpoint(endpoint):
    """Return the endpoint's host, None without one; HubError for what is no address."""
    if not endpoint:
        return None
    try:
        parts = urllib.parse.urlsplit(endpoint)
        # A port that is no number is found when it is read.
        host = parts.hostname if parts.port != 0 else None
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https") or parts.query or parts.fragment or len(endpoint) > MAX_ENDPOINT:
        raise HubError(f"The endpoint '{endpoint[:MAX_ENDPOINT]}' is no address of a hub. It is a URL such as https://hub.example or http://127.0.0.1:8080.")
    if parts.username or parts.password:
        raise HubError("The endpoint holds a user or a password, which everybody on the host could read. Give the token's file (vllm_hub_token_file) instead.")
    return host


def check_token(token):
    if token and (not token.isascii() or not token.isprintable() or " " in token):
        raise HubError("The token is not one line of letters and digits without spaces. Give a file with the token alone.")


def run(settings, job, wanted, folder):
    """Return what the script answered about a job, a dictionary."""
    host = checked_endpoint(settings.endpoint)
    check_token(settings.token)
    if _docker.docker is None:
        raise Unavailable(f"{_docker.NO_SDK}.")
    secret = tempfile.mkdtemp(prefix="erni-ki-", dir="/run" if os.path.isdir("/run") else None) if settings.token else None
    answer = os.path.join(folder, _hub_script.ANSWER)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(answer)
    try:
        client = _docker.connect(60)
        binds = {folder: {"bind": WORK, "mode": "rw"}}
        if secret:
            _hand_over(secret, settings)
            binds[secret] = {"bind": SECRET, "mode": "ro"}
        _remove(client)
        ended = _run(client, settings, [job, wanted.name, wanted.revision, WORK, f"{SECRET}/token" if secret else ""], binds, host)
    except _docker.EngineError as error:
        raise Unavailable(f"{error}.") from error
    finally:
        if secret:
            shutil.rmtree(secret, ignore_errors=True)
    found = _read(answer)
    if found is None and ended[0] == 137:
        raise HubError(f"The container that asks the hub, {CONTAINER}, was killed (exit code 137), by somebody, or by the kernel for want of memory.{_KEPT}")
    if found is None:
        raise HubError(f"The container that asks the hub ended without an answer, with exit code {ended[0]}. Its last lines: {ended[1] or '(none)'}")
    return found


def _hand_over(secret, settings):
    """Put the token where the container's user alone reads it; neither its command nor its environment shows it."""
    path = os.path.join(secret, "token")
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "w", encoding="utf-8") as stream:
        stream.write(settings.token)
    for place in (path, secret):
        os.chown(place, settings.user, settings.user)


def _remove(client):
    """Remove the container that an interrupted run left; what it downloaded stays."""
    try:
        client.api.remove_container(CONTAINER, force=True, v=True)
    except _docker.docker.errors.NotFound:
        pass
    except (_docker.docker.errors.DockerException, OSError, ValueError) as error:
        raise HubError(f"The container {CONTAINER}, which an earlier run left, cannot be removed: {_said(error)}. Run docker rm -f {CONTAINER}.") from error


def _said(error):
    return " ".join(str(error).split())[:300] or type(error).__name__


def _run(client, settings, arguments, binds, host):
    """Return (exit code, last lines) of the container."""
    docker, deadline = _docker.docker, time.monotonic() + settings.timeout
    # A user's own variables are for proxies; what keeps the container quiet and on its way is not theirs.
    environment = dict(settings.environment, **ENVIRONMENT)
    if settings.endpoint:
        environment["HF_ENDPOINT"] = settings.endpoint
    try:
        container = client.containers.create(
            settings.image, arguments, entrypoint=["python3", "-c", inspect.getsource(_hub_script)], name=CONTAINER, environment=environment,
            user=f"{settings.user}:{settings.user}", working_dir="/", volumes=binds, runtime="runc", read_only=True, tmpfs={"/tmp": "size=256m"},
            # A hub on this host's loopback is none on the container's own.
            network_mode="host" if host and is_loopback(host) else "bridge",
            cap_drop=["ALL"], security_opt=["no-new-privileges:true"], pids_limit=PROCESSES, nano_cpus=NANO_CPUS, cpuset_cpus=settings.cpuset or None,
            mem_limit=MEMORY_BYTES, memswap_limit=MEMORY_BYTES, oom_score_adj=1000, healthcheck={"test": ["NONE"]},
            log_config={"type": "json-file", "config": {"max-size": "1m"}}, labels={"erni-ki": "vllm-model"})
    except docker.errors.ImageNotFound as error:
        raise Unavailable(f"The image {settings.image} is not on this host.") from error
    except (docker.errors.DockerException, OSError, ValueError) as error:
        raise HubError(f"The container that asks the hub cannot be made: {_said(error)}") from error
    try:
        container.start()
        code = container.wait(timeout=max(1, deadline - time.monotonic())).get("StatusCode")
        return code, " ".join(container.logs(tail=5).decode("utf-8", "replace").split())[-600:]
    except (docker.errors.DockerException, OSError, ValueError) as error:
        if time.monotonic() >= deadline:
            raise HubError(f"The download is not complete after {settings.timeout} s, which is its timeout (vllm_model_timeout).{_KEPT}") from error
        raise HubError(f"The container that asks the hub broke off: {_said(error)}.{_KEPT}") from error
    finally:
        # Whatever happened, nothing goes on downloading behind the play's back.
        with contextlib.suppress(docker.errors.DockerException, OSError, ValueError):
            container.remove(force=True, v=True)


def _read(path):
    """Return what the script wrote, None where that is nothing of its."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as stream:
            found = json.loads(stream.read(MAX_ANSWER_BYTES).decode("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)
    return found if isinstance(found, dict) else None
