# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Loading models: which are loaded, for how long, on what, by which child process."""
from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

from . import gojson, gpu

HERE = os.path.dirname(os.path.abspath(__file__))
# What the recorded server reports beyond weights and KV cache, in bytes.
COMPUTE_BYTES = 7897045
DEFAULT_CONTEXT = 4096
STOPPED = ("model runner has unexpectedly stopped, this may be due to resource limitations or an internal error, "
           "check ollama server logs for details")


class RunnerError(Exception):
    def __init__(self, message, status=500):
        super().__init__(message)
        self.status = status


class Runner:
    """A loaded model and its child process."""

    def __init__(self, model, options, environ, settings, on_gpu, parallel):
        self.model = model
        self.options = options
        self.users = 0
        self.keep_ns = 0
        self.expires_ns = 0
        self.timer = None
        self.context = min(options["num_ctx"], model.header.own("context_length") or options["num_ctx"])
        self.slots = threading.Semaphore(parallel)
        self._turn = threading.Lock()
        self.size = model.weights_size + self.context * parallel * model.header.kv_bytes_per_token + COMPUTE_BYTES
        self.vram = self._vram(settings, on_gpu, options["num_gpu"])
        command = [sys.executable, "-IBS", os.path.join(HERE, "llama_server.py"), "--model", model.path, "--host", "127.0.0.1", "--no-webui", "--offline",
                   "-c", str(self.context * parallel), "-np", str(parallel), "--standin-spin", settings["spin"]]
        if options["num_gpu"] >= 0:
            command += ["-ngl", str(options["num_gpu"])]
        if self.vram:
            # A stand-in for the card reads here who is on it.
            command += ["--standin-vram", str(self.vram)]
        threads = options["num_thread"] or settings["threads"]
        if threads:
            command += ["-t", str(threads)]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ, text=True, bufsize=1)
        ready = self.child.stdout.readline().split()
        if not ready:
            raise RunnerError("llama-server process has terminated: exit status %d" % self.child.wait())
        self.threads = int(ready[1])
        time.sleep(settings["load_ms"] / 1000)

    def _vram(self, settings, on_gpu, layers):
        device = settings["device"]
        if device == "auto":
            device = "gpu" if on_gpu else "cpu"
        if device == "cpu" or layers == 0:
            return 0
        blocks = (self.model.header.own("block_count") or 1) + 1
        fits = blocks if self.size <= settings["vram_mib"] << 20 else blocks * (settings["vram_mib"] << 20) // self.size
        if device == "partial":
            fits = min(fits, blocks // 2)
        if layers > 0:
            fits = min(fits, layers)
        return self.size if fits >= blocks else self.size * fits // blocks

    def token(self, seconds):
        """Keeps the child's threads busy for one token."""
        with self._turn:
            try:
                self.child.stdin.write("token %.6f\n" % seconds)
                self.child.stdin.flush()
                answered = self.child.stdout.readline()
            except (OSError, ValueError):
                answered = ""
        if not answered:
            raise RunnerError(STOPPED)

    @property
    def alive(self):
        return self.child.poll() is None

    def stop(self):
        self.child.kill()
        self.child.wait()
        with self._turn:
            self.child.stdin.close()
            self.child.stdout.close()


class Scheduler:
    def __init__(self, environ, control):
        self.environ = dict(environ)
        self.control = control
        # Looked for once, at the start, as Ollama does.
        self.gpu = gpu.identity(environ)
        self.default_keep = _keep_alive(environ.get("OLLAMA_KEEP_ALIVE", ""))
        self.context = _whole(environ, "OLLAMA_CONTEXT_LENGTH", 0) or DEFAULT_CONTEXT
        self.parallel = max(1, _whole(environ, "OLLAMA_NUM_PARALLEL", 1))
        self.most = _whole(environ, "OLLAMA_MAX_LOADED_MODELS", 0) or 3
        self.queue = _whole(environ, "OLLAMA_MAX_QUEUE", 512)
        self.loaded = {}
        self.waiting = 0
        self.changed = threading.Condition()
        self.loading = threading.Lock()

    def options(self, model, request):
        merged = {"num_ctx": self.context, "num_batch": 512, "num_gpu": -1, "num_thread": 0, "num_predict": -1, "seed": -1}
        for given in (model.options, request):
            for key, value in given.items():
                if key in merged and value is not None:
                    if isinstance(value, bool) or not isinstance(value, (int, float)):
                        raise RunnerError('option "%s" must be of type integer' % key)
                    merged[key] = int(value)
        merged["num_ctx"] = max(4, merged["num_ctx"])
        return merged

    def _usable(self, model, options):
        """The loaded runner that can serve this request: another context or thread count needs another child."""
        runner = self.loaded.get(model.path)
        if runner is None or not runner.alive:
            return None
        same = all(runner.options[key] == options[key] for key in ("num_batch", "num_gpu", "num_thread"))
        context = min(options["num_ctx"], model.header.own("context_length") or options["num_ctx"])
        return runner if same and runner.context == context else None

    def acquire(self, model, options, keep_ns):
        """The runner for a request, loaded if it is not; give it back with release()."""
        with self.changed:
            runner = self._usable(model, options)
            if runner:
                return self._take(runner, model, keep_ns)
            if self.waiting >= self.queue:
                raise RunnerError("server busy, please try again.  maximum pending requests exceeded", 503)
            self.waiting += 1
        try:
            with self.loading:
                with self.changed:
                    runner = self._usable(model, options)
                    if runner:
                        return self._take(runner, model, keep_ns)
                    if model.path in self.loaded:
                        self._leave(self.loaded[model.path])
                    while len(self.loaded) >= self.most:
                        self._leave(min(self.loaded.values(), key=lambda one: (one.users > 0, one.keep_ns)))
                # A GPU that was lost since: the child does not find it any more, and goes on without a word.
                on_gpu = bool(self.gpu) and bool(gpu.identity(self.environ))
                runner = Runner(model, options, self.environ, self.control(), on_gpu, self.parallel)
                with self.changed:
                    self.loaded[model.path] = runner
                    return self._take(runner, model, keep_ns)
        finally:
            with self.changed:
                self.waiting -= 1

    def _take(self, runner, model, keep_ns):
        runner.model = model
        runner.users += 1
        if runner.timer:
            runner.timer.cancel()
            runner.timer = None
        if keep_ns is not None:
            runner.keep_ns = keep_ns
        elif not runner.expires_ns:
            runner.keep_ns = self.default_keep
        runner.expires_ns = time.time_ns() + runner.keep_ns
        return runner

    def _leave(self, runner):
        """Waits until nobody uses the runner, then unloads it. Called with the lock held."""
        runner.keep_ns = 0
        while runner.users and runner.alive:
            self.changed.wait(0.1)
        self._unload(runner)

    def _unload(self, runner):
        if runner.timer:
            runner.timer.cancel()
            runner.timer = None
        if self.loaded.get(runner.model.path) is runner:
            del self.loaded[runner.model.path]
        runner.stop()
        self.changed.notify_all()

    def release(self, runner):
        with self.changed:
            runner.users -= 1
            self.changed.notify_all()
            if runner.users:
                return
            if runner.keep_ns <= 0 or not runner.alive:
                self._unload(runner)
                return
            runner.expires_ns = time.time_ns() + runner.keep_ns
            # A timer of centuries overflows; such a runner just has none.
            if runner.keep_ns < 10 ** 9 * threading.TIMEOUT_MAX:
                runner.timer = threading.Timer(runner.keep_ns / 10 ** 9, self._expired, [runner])
                runner.timer.daemon = True
                runner.timer.start()

    def _expired(self, runner):
        with self.changed:
            if not runner.users and runner.timer is threading.current_thread():
                self._unload(runner)

    def expire(self, model):
        """Unloads the model, when it has answered whom it is answering."""
        with self.changed:
            runner = self.loaded.get(model.path)
            if runner:
                runner.keep_ns = 0
                runner.expires_ns = time.time_ns()
                if not runner.users:
                    self._unload(runner)

    def running(self):
        with self.changed:
            for runner in [one for one in self.loaded.values() if not one.alive and not one.users]:
                self._unload(runner)
            return sorted(self.loaded.values(), key=lambda one: -(one.expires_ns // 10 ** 9))

    def stop(self):
        with self.changed:
            for runner in list(self.loaded.values()):
                self._unload(runner)


def _whole(environ, name, default):
    try:
        return max(0, int(environ.get(name, "") or default))
    except ValueError:
        return default


def _keep_alive(text):
    try:
        return gojson.keep_alive(int(text))
    except ValueError:
        pass
    try:
        return gojson.keep_alive(text)
    except gojson.GoError:
        return 5 * 60 * 10 ** 9
