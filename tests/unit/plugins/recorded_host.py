# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes trees of /proc, /sys and /dev like those of a host on which both services run as planned.

8 cores and 16 threads in split numbering (core n is CPUs n and n+8), the document's policy. Four kinds of hosts: either
version of control groups, either driver of the engine.
"""
from __future__ import annotations

import copy
import pathlib
import socket
import sys

MIB = 1 << 20
IDS = {"vllm": "a1" * 32, "ollama": "b2" * 32}
PIDS = {"vllm": 1000, "ollama": 2000}
KINDS = {"v2-systemd": (2, "systemd"), "v2-cgroupfs": (2, "cgroupfs"), "v1-systemd": (1, "systemd"), "v1-cgroupfs": (1, "cgroupfs")}
ALL = "0-15"

PLAN = {
    "schema_version": 1,
    "isolation": "exclusive",
    "system": {"cores": [7], "cpuset": "7,15", "memory_reserve_mib": 1024, "memory_left_mib": 20000},
    "vllm": {
        "container": "vllm", "slice": "erniki-vllm.slice", "cores": [0, 1, 2, 3, 4, 5, 6], "cpuset": "0-6,8-14", "cpuset_mems": "0", "numa_nodes": [0],
        "smt": "own", "omp": {"mode": "explicit", "bind": "0-6", "cpus": "0-6", "threads": 7, "reserved_cpus": 1},
        "memory": {"limit_mib": 6144, "swap_limit_mib": 6144, "reservation_mib": 2048, "shm_mib": 256}, "kv_cache_gib": 4,
        "device": {"kind": "none", "runtime": "runc"},
    },
    "ollama": {
        "container": "ollama", "slice": "erniki-ollama.slice", "policy": "reserved", "cores": [7], "cpuset": "7,15", "cpuset_mems": "0", "threads": 1,
        "memory": {"limit_mib": 4096, "swap_limit_mib": 4096, "reservation_mib": 1024}, "device": {"kind": "none", "uuid": None, "name": None},
    },
    "partition": {
        "mode": "exclusive",
        "slices": [{"unit": "erniki-vllm.slice", "cpus": "0-6,8-14", "mems": "0"}, {"unit": "erniki-ollama.slice", "cpus": "7,15", "mems": "0"}],
        "fence": {"cpus": "7,15", "units": ["init.scope", "machine.slice", "system.slice", "user.slice"]},
    },
    "notes": [],
}
VLLM_ENV = {"VLLM_CPU_OMP_THREADS_BIND": "0-6", "VLLM_CPU_NUM_OF_RESERVED_CPU": "1", "VLLM_CPU_KVCACHE_SPACE": "4"}
OLLAMA_ENV = {"LLAMA_ARG_THREADS": "1"}


def hexed(address, port):
    """Return an address as the kernel writes it in /proc/net/tcp: each 32-bit word as a number of the machine's own byte order."""
    raw = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    words = [int.from_bytes(raw[at:at + 4], sys.byteorder) for at in range(0, len(raw), 4)]
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"


def tcp(*places, state="0A", inode=100):
    """Return a table of the kernel's with a socket for each (address, port), of one inode after the other."""
    lines = [f"   {number}: {hexed(address, port)} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 {inode + number} 1 0 100"
             for number, (address, port) in enumerate(places)]
    return "\n".join(["  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode", *lines]) + "\n"


class Host:
    """A tree that the readers take for the root of a host, and the engine's answers that go with it."""

    def __init__(self, root, kind="v2-systemd"):
        self.root = pathlib.Path(root)
        self.version, self.driver = KINDS[kind]
        self.plan = copy.deepcopy(PLAN)
        if self.version == 1:
            # systemd holds no slice to CPUs there; the plan is a fenced one.
            self.plan["isolation"] = self.plan["partition"]["mode"] = "fenced"
            self.plan["partition"]["fence"] = None
        self.containers = {service: self._attributes(service) for service in IDS}
        self._mounts()
        self._system()
        self._vllm()
        self._ollama()

    # -- writing

    def write(self, path, text):
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(str(text), encoding="utf-8")
        return place

    def remove(self, path):
        (self.root / path.lstrip("/")).unlink()

    def group_path(self, service):
        """Return the path of a container's group."""
        part = f"erniki-{service}.slice"
        return f"/erniki.slice/{part}/docker-{IDS[service]}.scope" if self.driver == "systemd" else f"/{part}/{IDS[service]}"

    def folder(self, group, controller="cpuset"):
        return f"/sys/fs/cgroup{group}" if self.version == 2 else f"/sys/fs/cgroup/{controller}{group}"

    def container_file(self, service, name):
        """Return the path of a file of a container's group; the name tells the controller."""
        return f"{self.folder(self.group_path(service), name.split('.')[0])}/{name}"

    def cpuset(self, group, cpus, mems="0"):
        folder = self.folder(group)
        if self.version == 2:
            self.write(f"{folder}/cpuset.cpus.effective", cpus + "\n")
            self.write(f"{folder}/cpuset.mems.effective", mems + "\n")
        else:
            self.write(f"{folder}/cpuset.effective_cpus", cpus + "\n")
            self.write(f"{folder}/cpuset.effective_mems", mems + "\n")

    def memory(self, group, limit, swap, reservation):
        """Limit, memory and swap together, and reservation, in MiB."""
        folder = self.folder(group, "memory")
        if self.version == 2:
            self.write(f"{folder}/memory.max", f"{limit * MIB}\n")
            self.write(f"{folder}/memory.swap.max", f"{(swap - limit) * MIB}\n")
            self.write(f"{folder}/memory.low", f"{reservation * MIB}\n")
            self.write(f"{folder}/memory.events", "low 0\nhigh 0\nmax 12\noom 0\noom_kill 0\noom_group_kill 0\n")
        else:
            self.write(f"{folder}/memory.limit_in_bytes", f"{limit * MIB}\n")
            self.write(f"{folder}/memory.memsw.limit_in_bytes", f"{swap * MIB}\n")
            self.write(f"{folder}/memory.soft_limit_in_bytes", f"{reservation * MIB}\n")
            self.write(f"{folder}/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n")

    def process(self, pid, comm, group, cpus, threads=(), environ=None, status="", flags=0x400140):
        """A process of a group; C(threads) are further (tid, comm, cpus)."""
        self.write(f"/proc/{pid}/stat", f"{pid} ({comm}) S 1 {pid} {pid} 0 -1 {flags} 1 2 3 4\n")
        status = status or "Uid:\t1000\t1000\t1000\t1000\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\n"
        self.write(f"/proc/{pid}/status", f"Name:\t{comm}\nState:\tS (sleeping)\n{status}")
        for tid, name, allowed in [(pid, comm, cpus), *threads]:
            self.thread(pid, tid, name, allowed)
        if self.version == 2:
            self.write(f"/proc/{pid}/cgroup", f"0::{group}\n")
        else:
            lines = [f"{number}:{names}:{group}" for number, names in ((5, "cpuset"), (4, "devices"), (3, "memory"), (1, "name=systemd"))]
            self.write(f"/proc/{pid}/cgroup", "\n".join(lines) + "\n0::/\n")
        for controller in ("cpuset",) if self.version == 2 else ("cpuset", "memory", "devices", "systemd"):
            place = self.root / f"{self.folder(group, controller)}/cgroup.procs".lstrip("/")
            known = place.read_text(encoding="utf-8") if place.exists() else ""
            self.write(f"{self.folder(group, controller)}/cgroup.procs", f"{known}{pid}\n")
        self.environ(pid, environ or {})

    def thread(self, pid, tid, comm, cpus):
        self.write(f"/proc/{pid}/task/{tid}/status", f"Name:\t{comm}\nState:\tS (sleeping)\nCpus_allowed:\tffff\nCpus_allowed_list:\t{cpus}\n")

    def unit(self, name, pid, comm, limit, places, made=""):
        """A unit of systemd on the system's CPUs, with a memory limit in MiB, that listens on (address, port) pairs."""
        group = f"/system.slice/{name}"
        self.write(f"/etc/systemd/system/{name}{made}", "")
        self.process(pid, comm, group, "7,15", [(pid + 1, comm, "7,15")])
        self.write(f"{self.folder(group, 'memory')}/{'memory.max' if self.version == 2 else 'memory.limit_in_bytes'}", f"{limit * MIB}\n")
        self.listen(pid, *places)

    def listen(self, pid, *places):
        """Let a process listen there and nowhere else; somebody else of the host listens on port 22."""
        own = [place for place in places if ":" not in place[0]]
        self.write(f"/proc/{pid}/net/tcp", tcp(*own, inode=pid) + tcp(("0.0.0.0", 22), inode=9).splitlines()[1] + "\n"
                   + tcp(("127.0.0.1", 5000), state="01", inode=pid + 50).splitlines()[1] + "\n")
        self.write(f"/proc/{pid}/net/tcp6", tcp(*(place for place in places if ":" in place[0]), inode=pid + 20))
        folder = self.root / f"proc/{pid}/fd"
        folder.mkdir(exist_ok=True)
        for number, target in enumerate(["/dev/null", *(f"socket:[{pid + at}]" for at in (*range(10), *range(20, 30), 50))]):
            if not (folder / str(number)).is_symlink():
                (folder / str(number)).symlink_to(target)

    def environ(self, pid, variables):
        self.write(f"/proc/{pid}/environ", "".join(f"{name}={value}\0" for name, value in variables.items()))

    # -- what is on it

    def _mounts(self):
        if self.version == 2:
            lines = ["30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate"]
        else:
            names = enumerate(("cpuset", "memory", "devices"))
            lines = [f"3{number} 23 0:2{number} / /sys/fs/cgroup/{name} rw shared:9 - cgroup cgroup rw,{name}" for number, name in names]
            lines.append("38 23 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd")
            lines.append("39 23 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw")
        self.write("/proc/self/mountinfo", "\n".join(["22 1 8:1 / / rw - ext4 /dev/vda rw", "short line", *lines]) + "\n")

    def _system(self):
        fenced = "7,15" if self.version == 2 else ALL
        for group in ("/init.scope", "/system.slice", "/user.slice", "/system.slice/docker.service"):
            self.cpuset(group, fenced)
        # machine.slice does not exist before a machine is started.
        self.process(1, "systemd", "/init.scope", fenced)
        self.process(300, "dockerd", "/system.slice/docker.service", fenced, [(301, "dockerd", fenced)])
        self.process(2, "kthreadd", "/", ALL, flags=0x208040)
        self.process(20, "ksoftirqd/0", "/", "0", flags=0x4208040)
        self.write("/proc/meminfo", "MemTotal:       32768000 kB\nSwapTotal:       1048572 kB\n")
        self.write("/proc/devices", "Character devices:\n  1 mem\n195 nvidia-frontend\n511 nvidia-uvm\n\nBlock devices:\n  7 loop\n")
        (self.root / "dev").mkdir()
        for cpu in range(16):
            self.write(f"/sys/devices/system/cpu/cpu{cpu}/topology/core_cpus_list", f"{cpu % 8},{cpu % 8 + 8}\n")

    def _container(self, service):
        wanted = self.plan[service]
        group = self.group_path(service)
        self.cpuset(group, wanted["cpuset"], "0")
        self.memory(group, wanted["memory"]["limit_mib"], wanted["memory"]["swap_limit_mib"], wanted["memory"]["reservation_mib"])
        above = group.rpartition("/")[0]
        while above:
            if above != "/erniki.slice":
                self.cpuset(above, wanted["cpuset"], "0")
            if self.version == 2:
                self.write(f"{self.folder(above)}/memory.low", f"{3072 * MIB}\n")
            above = above.rpartition("/")[0]
        if self.version == 1:
            self.write(self.container_file(service, "devices.list"), "c 136:* rwm\nc *:* m\nb *:* m\nc 1:3 rwm\nc 5:2 rwm\nc 10:200 rwm\n")
        pid = PIDS[service]
        for node in ("null", "zero", "pts/0"):
            self.write(f"/proc/{pid}/root/dev/{node}", "")
        root = "890 880 0:50 / / ro,relatime - overlay overlay rw\n" if service == "vllm" else "890 880 0:50 / / rw,relatime - overlay overlay rw\n"
        self.write(f"/proc/{pid}/mountinfo", "700 1 8:1 / / rw - ext4 /dev/vda rw\n" + root + "891 890 0:51 / /tmp rw - tmpfs tmpfs rw\n")
        return group, pid

    def _vllm(self):
        group, pid = self._container("vllm")
        roam = "0-6,8-14"
        self.process(pid, "vllm", group, roam, [(pid + 1, "grpc", roam)], VLLM_ENV)
        self.process(pid + 10, "VLLM::EngineCor", group, roam, [], VLLM_ENV)
        # The worker: one thread bound to each core; a thread that a bound one started has its CPU; others roam.
        bound = [(pid + 21 + cpu, "VLLM::Worker", str(cpu)) for cpu in range(7)]
        self.process(pid + 20, "VLLM::Worker", group, roam, bound + [(pid + 40, "pt_child", "3")], VLLM_ENV)

    def _ollama(self):
        group, pid = self._container("ollama")
        root = "Uid:\t0\t0\t0\t0\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\n"
        self.process(pid, "ollama", group, "7,15", [(pid + 1, "ollama", "7,15")], OLLAMA_ENV, root)
        self.process(pid + 10, "llama-server", group, "7,15", [], OLLAMA_ENV, root)

    def _attributes(self, service):
        port = "8000" if service == "vllm" else "11434"
        return {
            "Id": IDS[service], "Name": f"/{service}", "RestartCount": 0,
            "State": {
                "Status": "running", "Running": True, "Paused": False, "Restarting": False, "OOMKilled": False, "Dead": False, "Pid": PIDS[service],
                "ExitCode": 0, "Error": "", "Health": {"Status": "healthy", "FailingStreak": 0, "Log": [{"ExitCode": 0, "Output": ""}]},
            },
            "HostConfig": {
                "NetworkMode": "erni-ki_default", "Privileged": False, "Devices": [], "DeviceRequests": None, "DeviceCgroupRules": None, "Runtime": "runc",
            },
            "NetworkSettings": {"Ports": {f"{port}/tcp": [{"HostIp": "127.0.0.1", "HostPort": port}], "9999/tcp": None}},
        }

    # -- asking

    def inspect(self, name):
        """What the engine answers, in the shape in which the proof takes it."""
        return self.containers.get(name), None
