# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os

import pytest
import sandbox
from sandbox_lib import vm
from sandbox_lib.common import SandboxError


class Fake:
    """The steps that take minutes, noted instead of taken."""

    def __init__(self, cache, monkeypatch):
        self.done, self.running = [], False
        for kind in ("base", "images"):
            (cache / kind / "h").mkdir(parents=True)
            (cache / kind / "h" / "complete").touch()
        (cache / "base" / "h" / "ssh_host_ed25519_key.pub").write_text("ssh-ed25519 KEY x\n")
        (cache / "model" / "tiny").mkdir(parents=True)
        monkeypatch.setattr(sandbox.host, "check_machine", lambda: None)
        monkeypatch.setattr(sandbox, "prepare", lambda cache: self.note("prepare") or (
            cache / "qemu" / "h", cache / "base" / "h", cache / "images" / "h", cache / "model" / "tiny", "local"))
        monkeypatch.setattr(sandbox, "kept_emulator", lambda cache: cache / "qemu" / "h")
        monkeypatch.setattr(sandbox.disk, "base_name", lambda cache: "h")
        monkeypatch.setattr(sandbox.images, "Names", type("Names", (), {"of": lambda self, mode: "h"}))
        monkeypatch.setattr(vm, "run", lambda command, **kwargs: open(command[-1], "w").close() if "create" in command else self.boot())
        monkeypatch.setattr(vm.Machine, "pid", lambda machine: os.getpid() if self.running else None)
        monkeypatch.setattr(vm.Machine, "wait_until_up", lambda machine, other_than=None: self.note("wait"))
        monkeypatch.setattr(vm.Machine, "connect", lambda machine: None)
        monkeypatch.setattr(vm.Machine, "copy_in", lambda machine, source, target: self.note(f"copy {source.name} to {target}"))
        for name in ("SANDBOX_SHAPE", "SANDBOX_MEMORY_MIB", "SANDBOX_IMAGES", "SANDBOX_NAME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("SANDBOX_ACCEL", "tcg")
        monkeypatch.setenv("ERNI_KI_CACHE", str(cache.parent))

    def note(self, what):
        self.done.append(what)

    def boot(self):
        self.note("boot")
        self.running = True

    def took(self):
        done, self.done = self.done, []
        return done


@pytest.fixture(name="cache")
def fixture_cache(tmp_path):
    return tmp_path / "sandbox"


@pytest.fixture(name="fake")
def fixture_fake(cache, monkeypatch):
    monkeypatch.setattr(sandbox, "stop_on_signals", lambda: None)
    return Fake(cache, monkeypatch)


NEW = ["prepare", "boot", "wait", "copy tiny to /srv/models/tiny"]


def test_up_creates_then_finds_running_then_starts_again(cache, fake, capsys):
    assert sandbox.main(["up"]) == 0
    assert fake.took() == NEW
    variables = json.loads((cache / "vms" / "sandbox" / "vars.json").read_text())
    assert variables["sandbox_images"] == "local"
    assert sandbox.main(["up"]) == 0
    assert fake.took() == ["wait"] and "already running" in capsys.readouterr().out
    fake.running = False
    assert sandbox.main(["up"]) == 0
    assert fake.took() == ["boot", "wait"]


def test_a_link_is_kept_with_the_machine(cache, fake, capsys):
    assert sandbox.main(["up", "--link", "fleet=10.99.0.11/24"]) == 0
    assert json.loads((cache / "vms" / "sandbox" / "state.json").read_text())["link"] == ["fleet", "10.99.0.11/24"]
    for wrong in ("fleet", "fleet=here"):
        assert sandbox.main(["up", "--name", "other", "--link", wrong]) == 1
    assert "write NAME=ADDRESS" in capsys.readouterr().err


def test_up_makes_anew_what_was_interrupted(cache, fake, monkeypatch, capsys):
    def interrupted(machine, source, target):
        raise KeyboardInterrupt
    with monkeypatch.context() as patch:
        patch.setattr(vm.Machine, "copy_in", interrupted)
        assert sandbox.main(["up"]) == 130
    assert "the next run takes up from here" in capsys.readouterr().err
    fake.took()
    (cache / "vms" / "sandbox" / "left over").touch()
    fake.running = False
    assert sandbox.main(["up"]) == 0
    assert fake.took() == NEW
    assert not (cache / "vms" / "sandbox" / "left over").exists()


def test_up_tells_when_the_inputs_changed_and_keeps_the_machine(fake, monkeypatch, capsys):
    sandbox.main(["up"])
    capsys.readouterr()
    sandbox.main(["up"])
    assert "changed since" not in capsys.readouterr().out
    monkeypatch.setattr(sandbox.disk, "base_name", lambda cache: "new")
    fake.took()
    assert sandbox.main(["up"]) == 0
    assert fake.took() == ["wait"] and "changed since" in capsys.readouterr().out


@pytest.mark.parametrize("arguments, environment, message", [
    (["--shape", "4x1"], {}, "exists with another shape (1x8x2, 1 NUMA node, 12288 MiB; asked for: 1x4x1, 1 NUMA node, 12288 MiB)"),
    (["--memory", "4096"], {}, "asked for: 1x8x2, 1 NUMA node, 4096 MiB"),
    (["--numa", "2"], {}, "asked for: 1x8x2, 2 NUMA nodes"),
    ([], {"SANDBOX_SHAPE": "1x1"}, "asked for: 1x1x1"),
    ([], {"SANDBOX_IMAGES": "official"}, "exists with local images; SANDBOX_IMAGES asks for official"),
    (["--shape", "x"], {}, "Shape 'x'"),
    ([], {"SANDBOX_MEMORY_MIB": "4g"}, "SANDBOX_MEMORY_MIB is '4g'"),
])
def test_up_refuses_to_pass_off_one_machine_as_another(fake, monkeypatch, capsys, arguments, environment, message):
    sandbox.main(["up"])
    fake.took()
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    assert sandbox.main(["up", *arguments]) == 1
    assert message in capsys.readouterr().err and fake.took() == []


def test_same_shape_asked_for_again_is_fine(fake):
    assert sandbox.main(["up", "--shape", "2x4x2", "--numa", "2", "--memory", "4096"]) == 0
    assert sandbox.main(["up", "--shape", "2x4x2", "--numa", "2", "--memory", "4096"]) == 0
    # And a plain up takes it as it is.
    assert sandbox.main(["up"]) == 0
    assert fake.took().count("boot") == 1


def test_machines_of_other_names_stand_beside(cache, fake, monkeypatch, capsys):
    sandbox.main(["up"])
    fake.running = False
    sandbox.main(["up", "--name", "molecule-default"])
    monkeypatch.setenv("SANDBOX_NAME", "third")
    fake.running = False
    sandbox.main(["up"])
    assert sandbox.machine_names(cache) == ["molecule-default", "sandbox", "third"]
    capsys.readouterr()
    sandbox.main(["status", "--json"])
    assert [machine["name"] for machine in json.loads(capsys.readouterr().out)] == ["molecule-default", "sandbox", "third"]
    assert sandbox.main(["down"]) == 0
    assert sandbox.machine_names(cache) == ["molecule-default", "sandbox"]
    assert sandbox.main(["destroy", "--all"]) == 0
    assert sandbox.machine_names(cache) == []
    assert sandbox.main(["destroy", "--all"]) == 0
    assert "there are no machines" in capsys.readouterr().out


def test_commands_that_need_a_running_machine_say_so(fake, capsys):
    for arguments in (["login"], ["exec", "--", "true"], ["forward"], ["reboot-wait"]):
        assert sandbox.main(arguments) == 1
        assert "sandbox does not run. Start it" in capsys.readouterr().err
    assert sandbox.main(["ssh-config"]) == 1


def test_exec_and_login_become_ssh(cache, fake, monkeypatch, capsys):
    sandbox.main(["up"])
    became = []
    monkeypatch.setattr(os, "execv", lambda program, words: became.append(words[1:]))
    sandbox.main(["exec", "--", "lscpu", "-e"])
    sandbox.main(["login"])
    sandbox.main(["forward"])
    config = str(cache / "vms" / "sandbox" / "ssh_config")
    assert became[0] == ["-F", config, "sandbox", "lscpu", "-e"] and became[1] == ["-F", config, "sandbox"]
    assert "127.0.0.1:8000:127.0.0.1:8000" in became[2] and "127.0.0.1:11434:127.0.0.1:11434" in became[2]
    assert sandbox.main(["exec"]) == 1
    capsys.readouterr()
    sandbox.main(["ssh-config", "--path"])
    assert capsys.readouterr().out == config + "\n"


def test_status_before_there_is_anything(fake, capsys):
    assert sandbox.main(["status"]) == 0
    assert capsys.readouterr().out.startswith("sandbox: not running\n")


def test_clean_tmp_removes_what_a_builder_left(cache):
    (cache / "tmp" / "base-x" / "root").mkdir(parents=True)
    sandbox.clean_tmp(cache)
    assert list((cache / "tmp").iterdir()) == []


@pytest.mark.parametrize("error, text", [
    (SandboxError("The reason."), "The reason."),
    (OSError(28, "No space left on device", "/cache/disk.raw"), "[Errno 28] No space left on device: '/cache/disk.raw'"),
])
def test_errors_have_no_traceback(fake, monkeypatch, capsys, error, text):
    def broken(cache):
        raise error
    monkeypatch.setattr(sandbox, "prepare", broken)
    assert sandbox.main(["up"]) == 1
    assert capsys.readouterr().err == f"\nsandbox: {text}\n"


def test_sbin_is_looked_at_whatever_the_shell_has(fake, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin")
    seen = []
    monkeypatch.setattr(sandbox, "prepare", lambda cache: seen.append(os.environ["PATH"]) or sandbox.sys.exit(3))
    with pytest.raises(SystemExit):
        sandbox.main(["up"])
    assert seen[0].startswith("/usr/bin:") and "/usr/sbin" in seen[0].split(":")
