# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import pathlib
import socket
import subprocess
import sys

import pytest
from sandbox_lib import vm
from sandbox_lib.common import SandboxError


@pytest.mark.parametrize("text, numa, cpus, arguments", [
    ("8x2", 1, 16, ["-smp", "16,sockets=1,cores=8,threads=2", "-m", "12288M"]),
    ("1x1", 1, 1, ["-smp", "1,sockets=1,cores=1,threads=1", "-m", "12288M"]),
    ("2x4x2", 1, 16, ["-smp", "16,sockets=2,cores=4,threads=2", "-m", "12288M"]),
    ("2x4x2", 2, 16, ["-smp", "16,sockets=2,cores=4,threads=2", "-m", "12288M",
                      "-object", "memory-backend-ram,id=ram0,size=6144M", "-numa", "node,nodeid=0,cpus=0-7,memdev=ram0",
                      "-object", "memory-backend-ram,id=ram1,size=6144M", "-numa", "node,nodeid=1,cpus=8-15,memdev=ram1"]),
])
def test_shapes(text, numa, cpus, arguments):
    shape = vm.Shape.parse(text, numa)
    assert shape.cpus == cpus and shape.arguments() == arguments


@pytest.mark.parametrize("text, numa, memory, message", [
    ("8", 1, 12288, "write cores x threads"),
    ("0x2", 1, 12288, "write cores x threads"),
    ("8x2x", 1, 12288, "write cores x threads"),
    ("8x2x2x2", 1, 12288, "write cores x threads"),
    ("eight", 1, 12288, "write cores x threads"),
    ("16x8x4", 1, 12288, "has 512 CPUs"),
    ("8x2", 3, 12288, "3 NUMA nodes do not divide 8 cores"),
    ("8x2", 0, 12288, "0 NUMA nodes"),
    ("8x2", 2, 12287, "and 12287 MiB evenly"),
    ("1x1", 1, 100, "too little to boot"),
])
def test_shapes_that_cannot_be(text, numa, memory, message):
    with pytest.raises(SandboxError, match=message):
        vm.Shape.parse(text, numa, memory)


def test_shape_survives_being_saved():
    shape = vm.Shape.parse("2x4x2", 2, 8192)
    numbers = [shape.sockets, shape.cores, shape.threads, shape.numa, shape.memory_mib]
    assert vm.Shape(*numbers).text() == shape.text() == "2x4x2, 2 NUMA nodes, 8192 MiB"


INTEL = "processor\t: 0\nflags\t\t: fpu vmx avx2\n"
PLAIN = "processor\t: 0\nflags\t\t: fpu avx2 hypervisor\nvmx flags\t: vnmi\n"


@pytest.mark.parametrize("forced, cpuinfo, opens, expected", [
    ("auto", INTEL, True, "kvm"),
    ("auto", INTEL.replace("vmx", "svm"), True, "kvm"),
    ("auto", INTEL, False, "tcg"),
    # The device is there and opens, and kernels die under it: the flag decides.
    ("auto", PLAIN, True, "tcg"),
    ("kvm", PLAIN, False, "kvm"),
    ("tcg", INTEL, True, "tcg"),
])
def test_accelerator(forced, cpuinfo, opens, expected):
    assert vm.accelerator(forced, cpuinfo, opens) == expected


def test_accelerator_by_environment(monkeypatch):
    monkeypatch.setenv("SANDBOX_ACCEL", "tcg")
    assert vm.accelerator(cpuinfo=INTEL, kvm_opens=True) == "tcg"
    monkeypatch.setenv("SANDBOX_ACCEL", "")
    assert vm.accelerator(cpuinfo=INTEL, kvm_opens=True) == "kvm"
    monkeypatch.setenv("SANDBOX_ACCEL", "hvf")
    with pytest.raises(SandboxError, match="'hvf'; it can be auto, kvm or tcg"):
        vm.accelerator()


@pytest.mark.parametrize("name", ["", "A", "-a", "a-", "a/b", "..", "a b", "a" * 43])
def test_names_that_cannot_be(tmp_path, name):
    with pytest.raises(SandboxError, match="cannot be a machine's name"):
        vm.Machine(tmp_path, name)


@pytest.fixture(name="machine")
def fixture_machine(tmp_path):
    """A machine on paper: its folder and state, no emulator."""
    for kind in ("base", "images"):
        (tmp_path / kind / "h").mkdir(parents=True)
        (tmp_path / kind / "h" / "complete").touch()
    (tmp_path / "base" / "h" / "ssh_host_ed25519_key.pub").write_text("ssh-ed25519 AAAAkey root@sandbox\n")
    machine = vm.Machine(tmp_path, "molecule-default")
    machine.folder.mkdir(parents=True)
    machine.save(base="h", images="h", mode="local", shape="1x8x2, 1 NUMA node, 12288 MiB", numbers=[1, 8, 2, 1, 12288], machine_id="0" * 32, port=40022)
    return machine


def test_command_line(machine):
    command = [str(word) for word in machine.command(["qemu"], "tcg")]
    assert "i8042=off" in command[command.index("-machine") + 1].split(",")
    assert command[0] == "qemu"
    assert command[command.index("-accel") + 1] == "tcg,thread=multi,tb-size=1024" and command[command.index("-cpu") + 1] == "max"
    assert command[command.index("-smp") + 1] == "16,sockets=1,cores=8,threads=2"
    # One way in, from this machine only.
    assert command[command.index("-netdev") + 1] == "user,id=net0,hostfwd=tcp:127.0.0.1:40022-:22"
    kernel = command[command.index("-append") + 1]
    assert "systemd.hostname=molecule-default" in kernel and "tsc=reliable" in kernel
    # A reboot inside is a reboot, not the end.
    assert "-no-reboot" not in command
    assert [word.split("file=")[1] for word in command if word.startswith("if=virtio")] == [str(machine.overlay), str(machine.containers)]


def test_a_link_is_shared_by_the_machines_of_its_name_and_cache(machine, tmp_path):
    assert "net1" not in " ".join(map(str, machine.command(["qemu"], "tcg"))) and machine.link() is None
    machine.save(link=["fleet", "10.99.0.11/24"])
    command = [str(word) for word in machine.command(["qemu"], "tcg")]
    first, second = (vm.Link("fleet", f"10.99.0.{number}/24", tmp_path) for number in (11, 12))
    assert f"socket,id=net1,mcast=230.0.0.1:{first.port},localaddr=127.0.0.1" in command
    assert "virtio-net-pci,netdev=net1,mac=52:54:0a:63:00:0b,romfile=" in command
    # The first card stays the first one.
    assert command.index("virtio-net-pci,netdev=net0,romfile=") < command.index("virtio-net-pci,netdev=net1,mac=52:54:0a:63:00:0b,romfile=")
    assert first.port == second.port and first.mac != second.mac and "MACAddress=52:54:0a:63:00:0b" in first.unit() and "Address=10.99.0.11/24" in first.unit()
    others = {vm.Link("other", "10.99.0.11/24", tmp_path).port, vm.Link("fleet", "10.99.0.11/24", tmp_path / "x").port}
    assert first.port not in others and all(20000 <= port < 32000 for port in (first.port, *others))


def test_a_machine_gets_its_address_once(machine, monkeypatch):
    told = []
    monkeypatch.setattr(machine, "call", lambda command, **unused: told.append(command) or (0, ""))
    machine.connect()
    assert told == []
    machine.save(link=["fleet", "10.99.0.11/24"])
    machine.connect()
    assert len(told) == 1 and "/etc/systemd/network/" in told[0] and "networkctl reload" in told[0]
    monkeypatch.setattr(machine, "call", lambda command, **unused: (1, "no"))
    with pytest.raises(SandboxError, match="to its link: no"):
        machine.connect()


@pytest.mark.parametrize("name, address, message", [("Fleet", "10.99.0.11/24", "cannot be a link's name"), ("fleet", "10.99.0.999", "no address on a link")])
def test_links_that_cannot_be(tmp_path, name, address, message):
    with pytest.raises(SandboxError, match=message):
        vm.Link(name, address, tmp_path)


def test_command_line_with_hardware(machine):
    command = machine.command(["qemu"], "kvm")
    assert command[command.index("-accel") + 1] == "kvm" and command[command.index("-cpu") + 1].startswith("host")


def test_commas_in_paths_are_escaped(tmp_path, machine):
    odd = vm.Machine(tmp_path / "a,b", "sandbox")
    odd.folder.mkdir(parents=True)
    odd.save(**machine.state())
    drives = [word for word in odd.command(["qemu"], "tcg") if "if=virtio" in str(word)]
    assert len(drives) == 2 and all("a,,b" in word for word in drives)


def test_ssh_configuration_is_whole(machine):
    machine.write_ssh()
    shown = subprocess.run(["ssh", "-G", "-F", str(machine.ssh_config), "sandbox"], capture_output=True, text=True, check=True).stdout.splitlines()
    for line in ("hostname 127.0.0.1", "port 40022", "user root", "stricthostkeychecking true", f"identityfile {machine.cache}/keys/id_ed25519",
                 f"userknownhostsfile {machine.folder}/known_hosts"):
        assert line in shown
    assert (machine.folder / "known_hosts").read_text() == "[127.0.0.1]:40022 ssh-ed25519 AAAAkey\n"


def test_usable_only_when_created_and_all_disks_are_there(machine):
    machine.overlay.touch()
    machine.containers.touch()
    assert not machine.is_usable()
    machine.save(created=True)
    assert machine.is_usable()
    (machine.cache / "base" / "h" / "complete").unlink()
    assert not machine.is_usable()


def test_state_that_is_no_json_is_none(machine):
    (machine.folder / "state.json").write_text("{half")
    assert machine.state() == {} and not machine.is_usable()


@pytest.fixture(name="emulator")
def fixture_emulator(machine):
    """A process whose command line looks like the emulator on this machine's overlay."""
    process = subprocess.Popen([sys.executable, "-c", "print('up', flush=True); import time; time.sleep(600)",
                                "qemu-system-x86_64", "-drive", f"if=virtio,file={machine.overlay}"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "up\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_pid_of_another_process_does_not_count(machine, emulator):
    (machine.folder / "pid").write_text(f"{os.getpid()}\n")
    assert machine.pid() is None
    (machine.folder / "pid").write_text(f"{emulator.pid}\n")
    assert machine.pid() == emulator.pid


def test_destroy_ends_an_emulator_that_left_no_pid(machine, emulator):
    assert machine.destroy() is True
    assert not machine.folder.exists()
    # Gone from the table, or waited for by us here.
    assert emulator.poll() is not None or not pathlib.Path(f"/proc/{emulator.pid}").exists() or emulator.wait(timeout=10) is not None
    assert machine.destroy() is False


def test_destroy_leaves_the_emulator_of_another(machine, emulator):
    vm.Machine(machine.cache, "molecule").destroy()
    assert emulator.poll() is None


def test_describe(machine, emulator):
    (machine.folder / "pid").write_text(f"{emulator.pid}\n")
    found = machine.describe()
    assert found["running"] and found["pid"] == emulator.pid and found["port"] == 40022 and found["resident_mib"] > 0
    assert vm.Machine(machine.cache, "none").describe()["running"] is False


def test_only_a_greeting_counts_as_speaking(machine):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        machine.save(port=server.getsockname()[1])
        with socket.create_connection(server.getsockname()) as waiting:
            server.accept()[0].close()
            waiting.recv(1)

        def answer(text):
            import threading

            def serve():
                link = server.accept()[0]
                link.sendall(text)
                link.close()
            thread = threading.Thread(target=serve)
            thread.start()
            spoke = machine._speaks()
            thread.join(timeout=10)
            return spoke
        assert answer(b"SSH-2.0-OpenSSH\r\n") is True
        assert answer(b"") is False
        assert answer(b"HTTP/1.1 400\r\n") is False
    assert machine._speaks() is False


def test_a_machine_that_stopped_shows_its_console(machine):
    machine.console.write_text("one\nKernel panic\n")
    with pytest.raises(SandboxError, match="(?s)stopped by itself.*Kernel panic"):
        machine.wait_until_up()


def test_saved_state_is_json_for_others(machine):
    machine.save(created=True)
    assert json.loads((machine.folder / "state.json").read_text())["created"] is True
