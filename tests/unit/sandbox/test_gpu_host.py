# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in for a host with a card: its packages, its repository, its nvidia-ctk, its card."""
from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import tarfile

import pytest
import yaml

HOST = pathlib.Path(__file__).resolve().parents[2] / "sandbox" / "gpu" / "host"
NEEDED = [name for name in ("cc", "dpkg-deb", "gpg") if not shutil.which(name)]
PACKAGES = {"libnvidia-container1", "libnvidia-container-tools", "nvidia-container-toolkit-base", "nvidia-container-toolkit"}
CARDS = [(0, "Quadro P2200", "GPU-57a2d1e5-0000-4000-8000-000000002200"), (1, "NVIDIA GeForce RTX 3060", "GPU-57a2d1e5-0000-4000-8000-000000003060")]


def load(name):
    module_name = f"gpu_host_{pathlib.Path(name).stem.replace('-', '_')}"
    loader = importlib.machinery.SourceFileLoader(module_name, str(HOST / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(module_name, loader))
    loader.exec_module(module)
    return module


build, card, ctk, runtime = load("build.py"), load("card.py"), load("toolkit/nvidia-ctk.py"), load("toolkit/nvidia-container-runtime.py")


# -- what is built --------------------------------------------------------------

@pytest.fixture(name="built", scope="module")
def fixture_built(tmp_path_factory):
    if NEEDED:
        pytest.skip(f"not on this machine: {', '.join(NEEDED)}")
    output = tmp_path_factory.mktemp("gpu") / "host"
    build.build(output)
    root = output.parent / "root"
    root.mkdir()
    with tarfile.open(output / "root.tar") as archive:
        assert not [entry.name for entry in archive if entry.isdir() or entry.uid or entry.gid]
        archive.extractall(root)
    return output, root


def field(file, name):
    return subprocess.run(["dpkg-deb", "--field", str(file), name], check=True, capture_output=True, text=True).stdout.strip()


def contents(file):
    listing = subprocess.run(["dpkg-deb", "--contents", str(file)], check=True, capture_output=True, text=True).stdout
    return {line.split()[5].lstrip("."): line.split()[0] for line in listing.splitlines()}


def test_four_packages_in_each_version(built):
    sums = json.loads((built[0] / "packages.json").read_text())
    assert set(sums) == {"1.17.9", "1.19.1"}
    for version, files in sums.items():
        assert {field(file["path"], "Package") for file in files} == PACKAGES
        for file in files:
            assert field(file["path"], "Version") == f"{version}-1"
            assert "not NVIDIA's" in field(file["path"], "Description")
            assert hashlib.sha256(pathlib.Path(file["path"]).read_bytes()).hexdigest() == file["sha256"]


def test_the_base_package_has_the_units_that_its_version_has(built):
    for version, there in (("1.17.9", False), ("1.19.1", True)):
        found = contents(built[0] / "packages" / f"nvidia-container-toolkit-base_{version}-1_amd64.deb")
        assert ("/etc/systemd/system/nvidia-cdi-refresh.service" in found) is there
        assert found["/usr/bin/nvidia-ctk"] == "-rwxr-xr-x"


def test_nvidia_ctk_tells_its_version_and_whose_it_is(built, tmp_path):
    subprocess.run(["dpkg-deb", "--extract", built[0] / "packages" / "nvidia-container-toolkit-base_1.19.1-1_amd64.deb", tmp_path], check=True)
    said = subprocess.run(["python3", tmp_path / "usr/bin/nvidia-ctk", "--version"], check=True, capture_output=True, text=True).stdout
    assert "version 1.19.1\n" in said and "no NVIDIA software" in said


@pytest.mark.skipif(not shutil.which("apt-get"), reason="no apt on this machine")
@pytest.mark.parametrize("kind, key, words", [
    ("stable", "key", None), ("stable", "foreign-key", ["NO_PUBKEY|Missing key"]), ("tampered", "key", ["BADSIG|signature"]), ("none", "key", ["Release"]),
])
def test_apt_trusts_the_repository_by_its_key_alone(built, tmp_path, kind, key, words):
    place = built[1] / "srv/standin-nvidia"
    for name in ("lists/partial", "cache/archives/partial", "parts"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "status").touch()
    (tmp_path / "parts" / "x.sources").write_text(
        f"Types: deb\nURIs: file:{place}/{kind}/deb/$(ARCH)\nSuites: /\nSigned-By: {place}/{key}.asc\n")
    options = []
    for name, value in {
            "Dir::State::status": tmp_path / "status", "Dir::State::lists": tmp_path / "lists", "Dir::Cache": tmp_path / "cache",
            "Dir::Etc::sourcelist": "/dev/null", "Dir::Etc::sourceparts": tmp_path / "parts", "APT::Architecture": "amd64",
            "APT::Architectures": "amd64", "APT::Sandbox::User": "root"}.items():
        options += ["-o", f"{name}={value}"]
    done = subprocess.run(["apt-get", *options, "update"], capture_output=True, text=True, check=False, env=dict(os.environ, LC_ALL="C"))
    listed = subprocess.run(["apt-cache", *options, "madison", "nvidia-container-toolkit"], capture_output=True, text=True, check=False).stdout
    if words is None:
        assert done.returncode == 0, done.stderr
        assert [line.split(" | ")[1].strip() for line in listed.splitlines()] == ["1.19.1-1", "1.17.9-1"]
    else:
        assert done.returncode != 0 and not listed
        assert any(word in done.stdout + done.stderr for word in words[0].split("|")), done.stderr


def test_what_the_machine_gets(built):
    root = built[1]
    library = root / "usr/lib/x86_64-linux-gnu"
    assert os.readlink(library / "libnvidia-ml.so.1") == "libnvidia-ml.so.580.95.05"
    assert (library / "libnvidia-ml.so.580.95.05").read_bytes()[:4] == b"\x7fELF"
    assert os.access(root / "usr/bin/nvidia-smi", os.X_OK)
    assert "driver_version=580.95.05" in (root / "etc/standin-nvidia/base.conf").read_text()
    assert (root / "srv/standin-nvidia/cards/geforce-rtx-3060.conf").is_file()


def test_no_key_of_the_build_stays(built):
    assert "PRIVATE" not in "".join(path.read_text() for path in built[0].glob("*.asc"))
    assert not [path for path in built[0].rglob("*") if path.name.startswith("gpg-")]


def test_a_missing_program_is_named(monkeypatch):
    with pytest.raises(build.BuildError, match="no-such-program"):
        build.run(["no-such-program"])
    with pytest.raises(build.BuildError, match="exit code 3"):
        build.run(["sh", "-c", "exit 3"])


# -- nvidia-ctk -----------------------------------------------------------------

def test_the_specification_names_each_card_by_index_and_uuid(monkeypatch):
    monkeypatch.setattr(ctk.os.path, "exists", lambda path: path == "/dev/nvidiactl")
    spec = yaml.safe_load(ctk.specification(CARDS, "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.580.95.05"))
    assert spec["kind"] == "nvidia.com/gpu" and spec["cdiVersion"] == "0.5.0"
    nodes = {device["name"]: [node["path"] for node in device["containerEdits"]["deviceNodes"]] for device in spec["devices"]}
    assert nodes == {"0": ["/dev/nvidia0"], "1": ["/dev/nvidia1"], CARDS[0][2]: ["/dev/nvidia0"], CARDS[1][2]: ["/dev/nvidia1"],
                     "all": ["/dev/nvidia0", "/dev/nvidia1"]}
    common = spec["containerEdits"]
    assert common["env"] == ["NVIDIA_VISIBLE_DEVICES=void"] and [node["path"] for node in common["deviceNodes"]] == ["/dev/nvidiactl"]
    assert [mount["containerPath"].rpartition("/")[2] for mount in common["mounts"]] == ["libnvidia-ml.so.580.95.05", "libnvidia-ml.so.1", "standin-nvidia"]


@pytest.fixture(name="made")
def fixture_made(tmp_path, monkeypatch):
    (tmp_path / "libnvidia-ml.so.1").touch()
    (tmp_path / "libnvidia-ml.so.580.95.05").touch()
    monkeypatch.setattr(ctk, "LIBRARIES", str(tmp_path))
    monkeypatch.setattr(ctk, "FOLDERS", (str(tmp_path / "cdi"),))
    monkeypatch.setattr(ctk, "cards", lambda: CARDS[:1])
    monkeypatch.delenv("NVIDIA_CTK_CDI_OUTPUT_FILE_PATH", raising=False)
    return tmp_path / "cdi" / "nvidia.yaml"


@pytest.mark.parametrize("words, variable", [(["--output", "{}"], False), (["--output={}"], False), ([], True)])
def test_where_the_specification_goes(made, monkeypatch, capsys, words, variable):
    if variable:
        monkeypatch.setenv("NVIDIA_CTK_CDI_OUTPUT_FILE_PATH", str(made))
    assert ctk.main(["cdi", "generate", *(word.format(made) for word in words)]) == 0
    assert yaml.safe_load(made.read_text())["devices"][0]["name"] == "0"
    assert ctk.main(["cdi", "list"]) == 0
    assert capsys.readouterr().out.split() == ["nvidia.com/gpu=0", f"nvidia.com/gpu={CARDS[0][2]}", "nvidia.com/gpu=all"]


def test_the_specification_on_the_screen(made, capsys):
    assert ctk.main(["cdi", "generate"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["kind"] == "nvidia.com/gpu"


@pytest.mark.parametrize("found", ["Failed to initialize NVML: Driver/library version mismatch", []])
def test_no_specification_for_a_card_that_does_not_work(made, monkeypatch, capsys, found):
    monkeypatch.setattr(ctk, "cards", lambda: found)
    assert ctk.main(["cdi", "generate", f"--output={made}"]) == 1
    assert not made.exists() and "failed to generate CDI spec" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["runtime", "configure"], ["cdi", "generate", "--mode=csv"], []])
def test_what_it_does_not_know_it_says(made, capsys, words):
    assert ctk.main(words) == 1 and "does not know" in capsys.readouterr().err


# -- the runtime ----------------------------------------------------------------

@pytest.mark.parametrize("environment, expected", [
    (["NVIDIA_VISIBLE_DEVICES=all"], True), (["NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_VISIBLE_DEVICES=void"], False),
    (["NVIDIA_VISIBLE_DEVICES=0"], True), (["NVIDIA_VISIBLE_DEVICES=none"], False), (["NVIDIA_VISIBLE_DEVICES="], False), (["PATH=/bin"], False),
])
def test_who_gets_all_gpus_from_the_old_runtime(environment, expected):
    assert runtime.wanted(environment) is expected


@pytest.mark.parametrize("environment, injected", [(["NVIDIA_VISIBLE_DEVICES=all"], True), (["NVIDIA_VISIBLE_DEVICES=void"], False)])
def test_the_old_runtime_gives_nodes_and_hands_over_to_runc(tmp_path, monkeypatch, environment, injected):
    (tmp_path / "config.json").write_text(json.dumps({"process": {"env": environment}, "linux": {"devices": []}}))
    nvidia = [name for name in os.listdir("/dev") if name in ("null", "zero")]
    monkeypatch.setattr(runtime.os, "listdir", lambda folder: ["nvidia0", "other"])
    real = os.stat
    monkeypatch.setattr(runtime.os, "stat", lambda path, follow_symlinks=True: real(f"/dev/{nvidia[0]}"))
    started = []
    monkeypatch.setattr(runtime.os, "execvp", lambda program, words: started.append((program, words)))
    words = ["--root", "/run/x", "create", "--bundle", str(tmp_path), "c0ffee"]
    runtime.main(words)
    assert started == [("runc", ["runc", *words])]
    config = json.loads((tmp_path / "config.json").read_text())
    assert [device["path"] for device in config["linux"]["devices"]] == (["/dev/nvidia0"] if injected else [])
    assert ("resources" in config["linux"]) is injected


def test_the_old_runtime_changes_nothing_later_on(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime.os, "execvp", lambda program, words: None)
    runtime.main(["--root", "/run/x", "delete", "c0ffee"])


# -- the card -------------------------------------------------------------------

@pytest.fixture(name="conf")
def fixture_conf(tmp_path, monkeypatch):
    shutil.copyfile(HOST.parent / "cards" / "quadro-p2200.conf", tmp_path / "base.conf")
    monkeypatch.setattr(card, "CONF", tmp_path)
    monkeypatch.setattr(card, "RUN", tmp_path / "run")
    return tmp_path


def test_addresses_are_written_as_the_kernel_does():
    assert card.bus_id("00000000:0A:00.0") == "0000:0a:00.0"


def test_the_card_is_on_the_bus_beside_what_was_there(conf, monkeypatch):
    mounted = []
    monkeypatch.setattr(card, "mount", lambda source, target: mounted.append((source, target)))
    devices = conf / "devices"
    (conf / "real").mkdir()
    devices.mkdir()
    (devices / "0000:00:01.0").symlink_to(conf / "real")
    card.make_bus(devices, conf / "pci")
    assert mounted == [(conf / "pci", devices)]
    assert os.readlink(conf / "pci" / "0000:00:01.0") == str(conf / "real")
    found = conf / "pci" / "0000:01:00.0"
    assert [(found / name).read_text().strip() for name in ("vendor", "device", "class")] == ["0x10de", "0x1c31", "0x030000"]
    assert os.path.basename(os.readlink(found / "driver")) == "nvidia"
    card.make_bus(devices, conf / "pci")


def test_the_driver_shows_its_version(conf, monkeypatch):
    monkeypatch.setattr(card, "mount", lambda source, target: None)
    card.make_driver(conf / "proc", conf / "driver")
    assert "Kernel Module  580.95.05  " in (conf / "driver" / "nvidia" / "version").read_text()


def test_who_is_on_the_card(tmp_path):
    for pid, comm, words in (("1", "systemd", ""), ("7", "llama-server", "python3\0llama_server.py\0--standin-vram\x002097152\0"),
                             ("8", "llama-server", "python3\0llama_server.py\0-ngl\x000\0")):
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "comm").write_text(f"{comm}\n")
        (tmp_path / pid / "cmdline").write_text(words)
    assert card.users(tmp_path) == ["process=7 C 2 /usr/lib/ollama/llama-server"]


def test_what_nvml_reads(conf):
    card.compose(["process=7 C 2 x"])
    text = (conf / "card.conf").read_text()
    assert text.startswith((conf / "base.conf").read_text().rstrip("\n")) and text.endswith("process=7 C 2 x\n")
    before = (conf / "card.conf").stat().st_ino
    card.compose(["process=7 C 2 x"])
    assert (conf / "card.conf").stat().st_ino == before, "written again without need"


def test_a_failure_is_played_and_taken_back(conf, monkeypatch):
    monkeypatch.setattr(card, "users", lambda: [])
    well = (conf / "base.conf").read_text()
    card.main(["set", "fail=nvmlInit 18"])
    assert (conf / "card.conf").read_text().startswith("fail=nvmlInit 18\n")
    card.main(["set", "fail=nvmlDevice 15"])
    assert "18" not in (conf / "card.conf").read_text().splitlines()[0]
    card.main(["set"])
    assert (conf / "base.conf").read_text() == well == (conf / "card.conf").read_text()


def test_another_card(conf, monkeypatch):
    monkeypatch.setattr(card, "users", lambda: [])
    monkeypatch.setattr(card, "mount", lambda source, target: None)
    assert card.main(["use", str(HOST.parent / "cards" / "geforce-rtx-3060.conf")]) == 0
    assert "RTX 3060" in (conf / "card.conf").read_text()


def test_the_module_is_among_those_installed(conf, tmp_path, monkeypatch):
    folder = tmp_path / "modules" / os.uname().release
    folder.mkdir(parents=True)
    (folder / "modules.dep").write_text("kernel/a.ko:\n")
    monkeypatch.setattr(card.pathlib, "Path", lambda path: tmp_path / "modules" if path == "/lib/modules" else pathlib.PurePath(path))
    card.offer_module()
    card.offer_module()
    assert (folder / "modules.dep").read_text() == "kernel/a.ko:\nupdates/dkms/nvidia.ko:\n"


def test_nvml_answers_through_the_library(built, monkeypatch, capsys):
    library = built[1] / "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.580.95.05"
    monkeypatch.setenv("STANDIN_NVML", str(HOST.parent / "cards" / "quadro-p2200.conf"))
    found = card.listed(lambda name: card.ctypes.CDLL(str(library)))
    assert found == [(0, "Quadro P2200", "GPU-57a2d1e5-0000-4000-8000-000000002200")]
    monkeypatch.setattr(card, "listed", lambda: found)
    assert card.main(["list"]) == 0 and "no NVIDIA software" in capsys.readouterr().out
    monkeypatch.setattr(card, "listed", lambda: "Failed to initialize NVML")
    assert card.main(["list"]) == 9 and card.main([]) == 2


def test_a_failure_of_nvml_is_told(built, tmp_path, monkeypatch):
    library = built[1] / "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.580.95.05"
    conf = tmp_path / "card.conf"
    conf.write_text("fail=nvmlInit 18\n" + (HOST.parent / "cards" / "quadro-p2200.conf").read_text())
    monkeypatch.setenv("STANDIN_NVML", str(conf))
    assert "Failed to initialize NVML" in card.listed(lambda name: card.ctypes.CDLL(str(library)))
