# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An engine of our own on the build machine: started by hand, with its own data, socket and pid file, for one build at a time."""
from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import subprocess

from sandbox_lib import host
from sandbox_lib.common import SandboxError, read_pid, remove_tree, run, stop_process, tail, wait_for

START_TIMEOUT_S = 180


class Engine:
    """dockerd with everything of its own: a Docker that the machine may have beside it is neither used nor disturbed."""

    def __init__(self, cache):
        self.data = cache / "engine"
        self.log = cache / "log" / "dockerd.log"
        # Sockets have to have short names, wherever the cache lies.
        self.run = pathlib.Path("/run") / ("erni-ki-sandbox-" + hashlib.sha256(str(self.data).encode()).hexdigest()[:12])
        self.pid_file = self.run / "docker.pid"

    def environment(self):
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("DOCKER_", "COMPOSE_", "BUILDKIT_"))}
        return dict(kept, PATH=host.search_path(), DOCKER_HOST=f"unix://{self.run}/docker.sock", DOCKER_CONFIG=str(self.run / "config"), DOCKER_BUILDKIT="0")

    def docker(self, *words, log=None, **kwargs):
        return run([host.tool("docker"), *words], log=log, env=self.environment(), **kwargs)

    def kill_left_over(self):
        pid = read_pid(self.pid_file)
        if pid:
            stop_process(pid, self.data, "an engine that an interrupted run left")

    @contextlib.contextmanager
    def started(self):
        """The engine runs inside the with block. Its mounts are private to it, and it ends when we do, however we end."""
        self.kill_left_over()
        remove_tree(self.run)
        (self.run / "config").mkdir(parents=True)
        self.data.mkdir(parents=True, exist_ok=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        # An empty file of our own: the machine's daemon.json is not for this engine.
        config = self.run / "daemon.json"
        config.write_text(json.dumps({}), encoding="utf-8")
        command = [host.tool("setpriv"), "--pdeathsig", "TERM", host.tool("unshare"), "--mount", "--propagation", "private", host.tool("dockerd"),
                   "--config-file", config, "--data-root", self.data, "--exec-root", self.run / "exec", "--pidfile", self.pid_file,
                   "--host", f"unix://{self.run}/docker.sock", "--storage-driver", "overlay2", "--bridge", "none", "--iptables=false",
                   "--exec-opt", "native.cgroupdriver=cgroupfs", "--containerd-namespace", "erni-ki-sandbox",
                   "--containerd-plugins-namespace", "erni-ki-sandbox-plugins", "--log-level", "warn"]
        with open(self.log, "w", encoding="utf-8") as stream:
            daemon = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
                                      env=self.environment(), start_new_session=True)
        try:
            wait_for(lambda: self._answers(daemon), "the container engine to answer", START_TIMEOUT_S,
                     on_timeout=lambda: f" The end of its log ({self.log}):\n{tail(self.log)}")
            yield self
        finally:
            daemon.terminate()
            try:
                daemon.wait(timeout=60)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
            remove_tree(self.run)

    def _answers(self, daemon):
        if daemon.poll() is not None:
            raise SandboxError(f"The container engine ended with status {daemon.returncode}. The end of its log ({self.log}):\n{tail(self.log)}")
        done = subprocess.run([host.tool("docker"), "version", "--format", "{{.Server.Version}}"], env=self.environment(), check=False,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=30)
        return done.returncode == 0

    def label(self, image, key):
        """A label of an image here, or None."""
        done = subprocess.run([host.tool("docker"), "image", "inspect", "--format", "{{index .Config.Labels \"" + key + "\"}}", image],
                              env=self.environment(), check=False, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        return done.stdout.strip() if done.returncode == 0 else None

    def size(self, image):
        return int(self.docker("image", "inspect", "--format", "{{.Size}}", image).strip())

    def strip(self):
        """Keep the images; all else in the data folder belongs to the engine that made it. Only when it has ended."""
        for path in self.data.iterdir():
            if path.name not in ("image", "overlay2"):
                remove_tree(path)


def registry_answers(image, bound_s=8):
    """Whether an image registry tells about this image within seconds, without a proxy, since the machine's engine will have none."""
    environment = {key: value for key, value in os.environ.items() if key.lower() not in ("http_proxy", "https_proxy", "all_proxy")}
    environment.update(DOCKER_CLI_EXPERIMENTAL="enabled", PATH=host.search_path())
    try:
        done = subprocess.run([host.tool("docker"), "manifest", "inspect", image], env=environment, timeout=bound_s, check=False,
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
