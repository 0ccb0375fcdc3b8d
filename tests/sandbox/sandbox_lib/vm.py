# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One throwaway machine: QEMU's command line, its folder, its life."""
from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import json
import os
import pathlib
import re
import shlex
import socket
import subprocess
import uuid

from sandbox_lib import emulator, host
from sandbox_lib.common import (
    SandboxError, elapsed_text, environment_int, is_complete, need_space, process_runs, read_pid, remove_tree, run, say, step, stop_process, tail, wait_for,
    write_private)

NAME = re.compile(r"^[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?$")
BOOT_TIMEOUT_S = 600
FORWARDS = (8000, 11434)
MODEL = "/srv/models/tiny"


class Shape:
    """Sockets x cores x threads, NUMA nodes, memory: what the machine's kernel will see."""

    def __init__(self, sockets, cores, threads, numa, memory_mib):
        self.sockets, self.cores, self.threads, self.numa, self.memory_mib = sockets, cores, threads, numa, memory_mib

    @property
    def cpus(self):
        return self.sockets * self.cores * self.threads

    @classmethod
    def parse(cls, text, numa=1, memory_mib=12288):
        """8x2 = cores x threads; 2x4x2 = sockets x cores x threads."""
        if not re.fullmatch(r"[1-9][0-9]*x[1-9][0-9]*(x[1-9][0-9]*)?", text):
            raise SandboxError(f"Shape {text!r}: write cores x threads, such as 8x2, or sockets x cores x threads, such as 2x4x2.")
        numbers = [int(part) for part in text.split("x")]
        sockets, cores, threads = numbers if len(numbers) == 3 else [1, *numbers]
        shape = cls(sockets, cores, threads, numa, memory_mib)
        if shape.cpus > 255:
            raise SandboxError(f"Shape {text!r} has {shape.cpus} CPUs; QEMU's machine takes 255.")
        if numa < 1 or (sockets * cores) % numa or memory_mib % numa:
            raise SandboxError(f"{numa} NUMA nodes do not divide {sockets * cores} cores and {memory_mib} MiB evenly.")
        if memory_mib < 512:
            raise SandboxError(f"{memory_mib} MiB of memory is too little to boot; 512 is the least.")
        return shape

    def text(self):
        return f"{self.sockets}x{self.cores}x{self.threads}, {self.numa} NUMA node{'s' if self.numa > 1 else ''}, {self.memory_mib} MiB"

    def arguments(self):
        found = ["-smp", f"{self.cpus},sockets={self.sockets},cores={self.cores},threads={self.threads}", "-m", f"{self.memory_mib}M"]
        if self.numa > 1:
            each = self.cpus // self.numa
            for node in range(self.numa):
                found += ["-object", f"memory-backend-ram,id=ram{node},size={self.memory_mib // self.numa}M",
                          "-numa", f"node,nodeid={node},cpus={node * each}-{(node + 1) * each - 1},memdev=ram{node}"]
        return found


def accelerator(forced=None, cpuinfo=None, kvm_opens=None):
    """kvm only where the CPU says it can: /dev/kvm alone proves nothing (on some machines it opens and kernels die under it)."""
    if forced is None:
        forced = os.environ.get("SANDBOX_ACCEL", "auto") or "auto"
    if forced not in ("auto", "kvm", "tcg"):
        raise SandboxError(f"SANDBOX_ACCEL is {forced!r}; it can be auto, kvm or tcg.")
    if forced != "auto":
        return forced
    if cpuinfo is None:
        cpuinfo = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    if not re.search(r"^flags\s*:.*\b(svm|vmx)\b", cpuinfo, re.MULTILINE):
        return "tcg"
    if kvm_opens is None:
        kvm_opens = False
        with contextlib.suppress(OSError):
            os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
            kvm_opens = True
    return "kvm" if kvm_opens else "tcg"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def port_is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


class Link:
    """A second network card on a cable that machines of one name for it share, and nobody else: frames go by multicast over this machine's loopback."""

    def __init__(self, name, address, cache):
        if not NAME.match(name):
            raise SandboxError(f"{name!r} cannot be a link's name: lower-case letters, digits and dashes, at most 42.")
        try:
            self.address = ipaddress.IPv4Interface(address)
        except ValueError as error:
            raise SandboxError(f"{address!r} is no address on a link, such as 10.99.0.11/24: {error}") from error
        # The same for all machines of this cache, and another one for those of another cache.
        self.port = 20000 + int(hashlib.sha256(f"{cache}\0{name}".encode()).hexdigest(), 16) % 12000

    @property
    def mac(self):
        return "52:54:" + ":".join(f"{part:02x}" for part in self.address.ip.packed)

    def arguments(self):
        return ["-netdev", f"socket,id=net1,mcast=230.0.0.1:{self.port},localaddr=127.0.0.1",
                "-device", f"virtio-net-pci,netdev=net1,mac={self.mac},romfile="]

    def unit(self):
        return (f"[Match]\nMACAddress={self.mac}\n\n[Network]\nAddress={self.address}\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n\n"
                "[Link]\nRequiredForOnline=no\n")


class Machine:
    def __init__(self, cache, name):
        if not NAME.match(name):
            raise SandboxError(f"{name!r} cannot be a machine's name: lower-case letters, digits and dashes, at most 42.")
        self.cache, self.name = cache, name
        self.folder = cache / "vms" / name
        self.overlay = self.folder / "overlay.qcow2"
        self.containers = self.folder / "containers.qcow2"
        self.console = self.folder / "console.log"
        self.ssh_config = self.folder / "ssh_config"

    @property
    def lock_file(self):
        return self.cache / "vms" / f".{self.name}.lock"

    def state(self):
        try:
            return json.loads((self.folder / "state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def save(self, **changes):
        state = self.state()
        state.update(changes)
        write_private(self.folder / "state.json", json.dumps(state, indent=1, sort_keys=True) + "\n")

    def pid(self):
        pid = read_pid(self.folder / "pid")
        return pid if pid and process_runs(pid, self.overlay) else None

    def _processes(self):
        """Every emulator on this overlay, even one that was interrupted before it wrote its pid."""
        found = []
        for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = path.read_bytes().decode(errors="replace").split("\0")
                if any("qemu-system" in word for word in words) and any(f"file={self.overlay}" in word.replace(",,", ",") for word in words):
                    found.append(int(path.parent.name))
        return found

    def is_usable(self):
        """Created to the end once: its disks can be booted again."""
        state = self.state()
        return (bool(state.get("created")) and self.overlay.exists() and self.containers.exists()
                and is_complete(self.cache / "base" / state["base"]) and is_complete(self.cache / "images" / state["images"]))

    # -- creating ---------------------------------------------------------

    def create(self, qemu, base, images, shape, mode, link=None):
        remove_tree(self.folder)
        need_space(self.cache, 6, "a machine's disks")
        self.folder.mkdir(parents=True)
        for built, thin in ((base, self.overlay), (images, self.containers)):
            # The built disk is shared and never written to; a relative name lets the cache be moved.
            backing = os.path.relpath(built / "disk.raw", thin.parent)
            run([*emulator.program(qemu, "qemu-img"), "create", "-q", "-f", "qcow2", "-F", "raw", "-b", backing, thin])
        self.save(base=base.name, images=images.name, mode=mode, shape=shape.text(), machine_id=uuid.uuid4().hex, port=free_port(),
                  numbers=[shape.sockets, shape.cores, shape.threads, shape.numa, shape.memory_mib], link=link)

    def shape(self):
        return Shape(*self.state()["numbers"])

    def link(self):
        link = self.state().get("link")
        return Link(*link, self.cache) if link else None

    def command(self, qemu, accel):
        state, shape, link = self.state(), self.shape(), self.link()
        base = self.cache / "base" / state["base"]
        kernel = ("root=LABEL=root rw console=ttyS0 net.ifnames=0 mitigations=off loglevel=4 panic=10 tsc=reliable systemd.show_status=auto "
                  f"systemd.hostname={self.name} systemd.machine_id={state['machine_id']}")
        # No i8042: the kernel's probe of the keyboard controller once waited for ever for a timer that did not fire.
        command = [*qemu, "-name", f"erni-ki-{self.name},process=erni-ki-vm", "-machine", "q35,usb=off,vmport=off,smbus=off,i8042=off"]
        command += ["-accel", "kvm", "-cpu", "host"] if accel == "kvm" else ["-accel", "tcg,thread=multi,tb-size=1024", "-cpu", "max"]
        command += shape.arguments()
        command += ["-nodefaults", "-no-user-config", "-display", "none", "-rtc", "base=utc,clock=host",
                    "-kernel", base / "vmlinuz", "-initrd", base / "initrd.img", "-append", kernel,
                    "-serial", f"file:{self.console}"]
        for path in (self.overlay, self.containers):
            # unsafe: a machine that is thrown away need not wait for the platters.
            command += ["-drive", f"if=virtio,format=qcow2,cache=unsafe,discard=unmap,file={str(path).replace(',', ',,')}"]
        command += ["-netdev", f"user,id=net0,hostfwd=tcp:127.0.0.1:{state['port']}-:22", "-device", "virtio-net-pci,netdev=net0,romfile=",
                    *(link.arguments() if link else []), "-device", "virtio-rng-pci", "-device", "virtio-balloon-pci,free-page-reporting=on",
                    "-daemonize", "-pidfile", self.folder / "pid"]
        return command

    def start(self, qemu):
        """Boot; what was there before on the disks is there again."""
        state = self.state()
        if not port_is_free(state["port"]):
            self.save(port=free_port())
        (self.folder / "pid").unlink(missing_ok=True)
        self.write_ssh()
        accel = accelerator()
        self.save(accel=accel)
        say(f"machine {self.name}: {self.shape().text()}, {'hardware' if accel == 'kvm' else 'software'} emulation")
        command, variables = emulator.system(qemu)
        run(self.command(command, accel), env=dict(os.environ, **variables))

    def write_ssh(self):
        state = self.state()
        base = self.cache / "base" / state["base"]
        key = (base / "ssh_host_ed25519_key.pub").read_text(encoding="utf-8").split()
        write_private(self.folder / "known_hosts", f"[127.0.0.1]:{state['port']} {key[0]} {key[1]}\n")
        names = " ".join(dict.fromkeys(["sandbox", self.name]))
        write_private(self.ssh_config, (
            f"Host {names}\n  HostName 127.0.0.1\n  Port {state['port']}\n  User root\n"
            f"  IdentityFile \"{self.cache / 'keys' / 'id_ed25519'}\"\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile \"{self.folder / 'known_hosts'}\"\n  StrictHostKeyChecking yes\n"
            "  ConnectTimeout 60\n  ServerAliveInterval 30\n  ServerAliveCountMax 10\n  LogLevel ERROR\n"))

    # -- talking ----------------------------------------------------------

    def ssh(self, *command, options=()):
        return [host.tool("ssh"), "-F", self.ssh_config, *options, self.name, *command]

    def call(self, command, timeout_s=60, stdin=None):
        """Run a command line inside; (exit status, output). 255 with a text when it cannot be reached."""
        try:
            done = subprocess.run([str(part) for part in self.ssh(command, options=["-o", "BatchMode=yes"])], stdin=stdin or subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=timeout_s, check=False)
        except subprocess.TimeoutExpired:
            return 255, f"no answer within {timeout_s} s"
        return done.returncode, done.stdout.strip()

    def _speaks(self):
        """QEMU accepts connections for a guest that sleeps still: only a greeting counts."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.state()["port"]), timeout=10) as link:
            return link.recv(4) == b"SSH-"
        return False

    def _alive(self):
        if not self.pid():
            raise SandboxError(f"The machine {self.name} stopped by itself. The end of its console ({self.console}):\n{tail(self.console)}")

    def wait_until_up(self, other_than=None):
        """Up: SSH answers, the boot is another one than the given, and systemd has finished starting things."""
        bound = environment_int("SANDBOX_BOOT_TIMEOUT", BOOT_TIMEOUT_S)

        def state():
            self._alive()
            if not self._speaks():
                return None
            status, output = self.call("cat /proc/sys/kernel/random/boot_id; systemctl is-system-running")
            lines = output.split()
            if status == 255 or len(lines) != 2 or lines[0] == other_than or lines[1] not in ("running", "degraded"):
                return None
            return lines[1]

        found = state()
        if not found:
            with step(f"machine {self.name}: boot"):
                found = wait_for(state, f"the machine {self.name} to come up", bound, pause_s=1,
                                 on_timeout=lambda: f" The end of its console ({self.console}):\n{tail(self.console)}")
        if found != "running":
            say(f"machine {self.name}: systemd says {found}: {self.call('systemctl --failed --plain --no-legend')[1]}")

    def copy_in(self, source, target):
        """A folder's files, readable for all, to a folder inside."""
        with subprocess.Popen(["tar", "-C", str(source), "--owner=0", "--group=0", "--mode=u=rwX,go=rX", "-cf", "-", "."], stdout=subprocess.PIPE) as packer:
            status, output = self.call(f"mkdir -p {target} && tar -C {target} -xf -", timeout_s=600, stdin=packer.stdout)
        if status or packer.returncode:
            raise SandboxError(f"Could not copy {source} into the machine {self.name}: {output}")

    def connect(self):
        """Give the second card its address, for every boot from now on."""
        link = self.link()
        if link is None:
            return
        status, output = self.call(f"printf %s {shlex.quote(link.unit())} > /etc/systemd/network/20-link.network && networkctl reload")
        if status:
            raise SandboxError(f"Could not connect the machine {self.name} to its link: {output}")

    def reboot(self):
        status, before = self.call("cat /proc/sys/kernel/random/boot_id")
        if status:
            raise SandboxError(f"The machine {self.name} does not answer: {before}")
        self.call("systemctl reboot")
        self.wait_until_up(other_than=before)

    # -- ending -----------------------------------------------------------

    def destroy(self):
        for pid in self._processes():
            stop_process(pid, self.overlay, f"the machine {self.name}")
        existed = self.folder.exists()
        remove_tree(self.folder)
        return existed

    def describe(self):
        state, pid = self.state(), self.pid()
        found = {"name": self.name, "running": bool(pid), "pid": pid, "folder": str(self.folder)}
        if state:
            found.update(shape=state.get("shape"), port=state.get("port"), accel=state.get("accel"), created=bool(state.get("created")))
        if pid:
            with contextlib.suppress(OSError, IndexError, ValueError):
                status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
                found["resident_mib"] = int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) // 1024
                ticks = float(pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[19]) / os.sysconf("SC_CLK_TCK")
                found["up_for"] = elapsed_text(float(pathlib.Path("/proc/uptime").read_text(encoding="utf-8").split()[0]) - ticks)
        for path in (self.overlay, self.containers):
            if path.exists():
                found[f"{path.stem}_mib"] = path.stat().st_blocks * 512 // 2**20
        return found
