# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the command lines of real engines print becomes one shape; what is missing or hangs does as well."""
from __future__ import annotations

import json
import os
import sys
import time

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils import _engine

# As docker 26.1 of Debian 13 answers, shortened to what is read.
INFO = {
    "ServerVersion": "26.1.5+dfsg1", "CgroupDriver": "systemd", "CgroupVersion": "2", "DockerRootDir": "/var/lib/docker", "LiveRestoreEnabled": True,
    "Runtimes": {"runc": {"path": "runc"}, "io.containerd.runc.v2": {"path": "runc"}}, "DefaultRuntime": "runc",
    "ClientInfo": {"Version": "26.1.5+dfsg1", "Plugins": [{"Name": "buildx", "Version": "0.13.1"}, {"Name": "compose", "Version": "2.26.1-4"}]},
}
# As Podman 4.9 answers to the same question.
PODMAN = {
    "host": {"cgroupManager": "systemd", "cgroupVersion": "v2", "ociRuntime": {"name": "crun"}},
    "store": {"graphRoot": "/var/lib/containers/storage"}, "version": {"Version": "4.9.3"},
}
NO_DAEMON = {
    "ServerErrors": ["Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"],
    "ClientInfo": {"Plugins": []},
}
CONTAINER = {
    "Id": "5" * 64, "Name": "/vllm", "Image": "sha256:1", "State": {"Status": "running"},
    "HostConfig": {"CgroupParent": "erniki-vllm.slice", "CpusetCpus": "0-6"},
    "Config": {"Image": "vllm:1", "Labels": {"com.docker.compose.project": "erni-ki"}},
}
NONE = {"kind": "none", "version": None}


class Shell:
    """Answers commands from a table; the first entry whose words are all in the command is taken."""

    def __init__(self, *answers):
        self.answers = answers
        self.asked = []

    def __call__(self, argv, timeout):
        command = " ".join(argv)
        self.asked.append(command)
        for words, answer in self.answers:
            if all(word in command for word in words.split()):
                return answer
        return 1, "", "unknown"

    def find(self, *names):
        return lambda name: next((f"/usr/bin/{name}" for known in names if known == name), None)


def info(value, rc=0):
    return ("docker info", (rc, json.dumps(value), "" if rc == 0 else "ERROR"))


@pytest.mark.parametrize("text, version", [
    ("26.1.5+dfsg1", "26.1.5"), ("v2.26.1-4\n", "2.26.1"), ("Docker version 20.10.24+dfsg1, build 5d6db84", "20.10.24"), ("1.29.2", "1.29.2"),
    ("5.0", "5.0"), ("", None), (None, None), ("dev", None),
])
def test_short_version(text, version):
    assert _engine.short_version(text) == version


@pytest.mark.parametrize("manager, output, packages", [
    ("dpkg", "docker.io: /usr/bin/docker\n", ["docker.io"]),
    ("dpkg", "docker-ce-cli: /usr/bin/docker\n", ["docker-ce-cli"]),
    ("dpkg", "libc6:amd64, libc6:i386: /usr/share/doc/libc6\n", ["libc6", "libc6"]),
    ("dpkg", "diversion by podman-docker from: /usr/bin/docker\ndocker-cli: /usr/bin/docker\n", ["docker-cli"]),
    ("rpm", "docker-ce-cli\n", ["docker-ce-cli"]),
    ("rpm", "file /usr/local/bin/docker is not owned by any package\n", []),
])
def test_parse_owner(manager, output, packages):
    assert _engine.parse_owner(manager, output) == packages


@pytest.mark.parametrize("packages, flavor", [
    (["docker-ce-cli"], "docker-ce"), (["docker.io"], "distribution"), (["docker-cli"], "distribution"), (["moby-engine"], "distribution"),
    (["podman-docker"], "podman-docker"), (["nvidia-docker2"], "unknown"), ([], "unknown"),
])
def test_flavor_of(packages, flavor):
    assert _engine.flavor_of(packages) == flavor


@pytest.mark.parametrize("docker, dockerd, answers, flavor", [
    (None, None, [], "none"),
    ("/snap/bin/docker", None, [], "snap"),
    ("/usr/bin/docker", "/usr/bin/dockerd", [("dpkg-query /usr/bin/dockerd", (0, "docker-ce: /usr/bin/dockerd", ""))], "docker-ce"),
    ("/usr/bin/docker", "/usr/sbin/dockerd", [("dpkg-query /usr/sbin/dockerd", (0, "docker.io: /usr/sbin/dockerd", ""))], "distribution"),
    # The daemon decides.
    ("/usr/bin/docker", "/usr/sbin/dockerd",
     [("dpkg-query dockerd", (0, "docker.io: /usr/sbin/dockerd", "")), ("dpkg-query", (0, "docker-ce-cli: x", ""))], "distribution"),
    ("/usr/bin/docker", None, [("dpkg-query", (0, "docker-ce-cli: /usr/bin/docker", ""))], "docker-ce"),
    ("/usr/bin/docker", None, [("rpm", (0, "docker-ce-cli\n", ""))], "docker-ce"),
    ("/usr/local/bin/docker", "/usr/local/bin/dockerd", [], "unknown"),
])
def test_flavor(docker, dockerd, answers, flavor):
    shell = Shell(*answers)
    assert _engine.flavor(docker, dockerd, shell, shell.find("dpkg-query", "rpm"), 5) == flavor


def test_no_package_manager():
    shell = Shell()
    assert _engine.flavor("/usr/bin/docker", None, shell, shell.find(), 5) == "unknown"
    assert shell.asked == []


def test_owner_is_asked_under_both_names_of_a_merged_folder(tmp_path):
    """On a host where /bin is /usr/bin, dpkg knows a file under one of the two names only."""
    shell = Shell(("dpkg-query /bin/sh", (0, "dash: /bin/sh", "")))
    assert "dash" in _engine.owners("/usr/bin/sh", shell, shell.find("dpkg-query"), 5)
    link = tmp_path / "docker"
    (tmp_path / "real").write_text("", encoding="utf-8")
    link.symlink_to(tmp_path / "real")
    shell = Shell(("dpkg-query real", (0, "docker.io: x", "")))
    assert _engine.owners(str(link), shell, shell.find("dpkg-query"), 5) == ["docker.io"]


def test_is_snap(tmp_path):
    (tmp_path / "snap").write_text("", encoding="utf-8")
    (tmp_path / "docker").symlink_to(tmp_path / "snap")
    (tmp_path / "other").write_text("", encoding="utf-8")
    assert _engine.is_snap(str(tmp_path / "docker"))
    assert _engine.is_snap("/var/lib/snapd/snap/bin/docker")
    assert not _engine.is_snap(str(tmp_path / "other"))


def test_is_podman_script(tmp_path):
    script = tmp_path / "docker"
    script.write_text("#!/bin/sh\nexec /usr/bin/podman \"$@\"\n", encoding="utf-8")
    assert _engine.is_podman_script(str(script))
    assert _engine.flavor(str(script), None, Shell(), Shell().find(), 5) == "podman-docker"
    script.write_bytes(b"\x7fELF podman")
    assert not _engine.is_podman_script(str(script))
    assert not _engine.is_podman_script(str(tmp_path / "gone"))


def test_find_program(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    for folder, mode in ((first, 0o644), (second, 0o755)):
        folder.mkdir()
        (folder / "docker").write_text("", encoding="utf-8")
        (folder / "docker").chmod(mode)
    assert _engine.find_program("docker", path=f"{first}::{second}", extra=()) == str(second / "docker")
    assert _engine.find_program("docker", path="", extra=(str(second),)) == str(second / "docker")
    assert _engine.find_program("docker", path=str(first), extra=()) is None
    assert _engine.find_program("sh")


@pytest.mark.parametrize("text, value", [
    ('{"a": 1}', {"a": 1}),
    ('WARNING: bridge-nf-call-iptables is disabled\n[{"a": 1}]\n', [{"a": 1}]),
    ("", None), ("nothing", None), ("{broken", None),
])
def test_load_json(text, value):
    assert _engine.load_json(text) == value


def test_a_whole_engine():
    shell = Shell(
        ("dpkg-query dockerd", (0, "docker.io: /usr/sbin/dockerd", "")), info(INFO),
        ("docker ps", (0, "a\nb\n", "")), ("docker inspect", (0, json.dumps([CONTAINER]), "")),
    )
    result = _engine.collect(5, shell, shell.find("docker", "dockerd", "dpkg-query"))
    assert result == {
        "flavor": "distribution", "installed": True, "reachable": True, "version": "26.1.5", "cgroup_driver": "systemd", "cgroup_version": 2,
        "data_root": "/var/lib/docker", "live_restore": True, "runtimes": ["io.containerd.runc.v2", "runc"], "default_runtime": "runc",
        "compose": {"kind": "v2", "version": "2.26.1"},
        "containers": [
            {
                "name": "vllm", "id": "5" * 64, "image": "vllm:1", "state": "running", "cgroup_parent": "erniki-vllm.slice", "cpuset": "0-6",
                "compose_project": "erni-ki"},
        ],
        "error": None,
    }
    # One call for all containers, and none for what `docker info` has told.
    assert sum("inspect" in command for command in shell.asked) == 1
    assert not any("compose" in command for command in shell.asked)


def test_a_new_host():
    result = _engine.collect(5, Shell(), Shell().find())
    assert (result["flavor"], result["installed"], result["reachable"], result["error"]) == ("none", False, False, None)
    assert result["compose"] == NONE


@pytest.mark.parametrize("answer, error", [
    (info(NO_DAEMON, rc=1), "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"),
    (info(NO_DAEMON), "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"),
    (("docker info", (1, "", "permission denied while trying to\n connect")), "permission denied while trying to connect"),
    (("docker info", (124, "", "'docker info' gave no answer within 5 s")), "'docker info' gave no answer within 5 s"),
    (("docker info", (1, "", "")), "exit code 1, no output"),
    (("docker info", (1, "[1]", "odd")), "odd"),
])
def test_unreachable(answer, error):
    shell = Shell(answer, ("dockerd --version", (0, "Docker version 26.1.5+dfsg1, build 1", "")))
    result = _engine.collect(5, shell, shell.find("docker", "dockerd"))
    assert (result["reachable"], result["installed"], result["version"], result["containers"]) == (False, True, "26.1.5", [])
    assert result["error"] == error


def test_daemon_without_command_line():
    shell = Shell(("dockerd --version", (0, "Docker version 26.1.5", "")))
    result = _engine.collect(5, shell, shell.find("dockerd"))
    assert (result["installed"], result["reachable"], result["version"]) == (True, False, "26.1.5")
    assert result["error"] == "the engine (dockerd) is installed, its command line (docker) is not"


def test_podman():
    shell = Shell(info(PODMAN), ("docker ps", (0, "", "")))
    result = _engine.collect(5, shell, shell.find("docker"))
    assert {key: result[key] for key in ("flavor", "version", "cgroup_driver", "cgroup_version", "data_root", "runtimes", "default_runtime", "containers")} == {
        "flavor": "podman-docker", "version": "4.9.3", "cgroup_driver": "systemd", "cgroup_version": 2, "data_root": "/var/lib/containers/storage",
        "runtimes": ["crun"], "default_runtime": "crun", "containers": [],
    }


def test_podman_that_tells_little():
    assert _engine.parse_info({"host": {}}) == {
        "flavor": "podman-docker", "version": None, "cgroup_driver": None, "cgroup_version": None, "data_root": None, "live_restore": None,
        "runtimes": [], "default_runtime": None,
    }


def test_an_engine_that_tells_little():
    assert _engine.parse_info({"CgroupDriver": "none"}) == {
        "version": None, "cgroup_driver": None, "cgroup_version": None, "data_root": None, "live_restore": None, "runtimes": [], "default_runtime": None,
    }


def test_snap_by_its_folder():
    shell = Shell(info(dict(INFO, DockerRootDir="/var/snap/docker/common/var-lib-docker")), ("docker ps", (0, "", "")))
    assert _engine.collect(5, shell, shell.find("docker"))["flavor"] == "snap"


@pytest.mark.parametrize("told, programs, answers, expected", [
    ({"ClientInfo": {"Plugins": [{"Name": "compose", "Version": "v5.0.1"}]}}, [], [], {"kind": "v2", "version": "5.0.1"}),
    # The client does not tell: ask.
    (None, [], [("docker compose version", (0, "2.26.1-4\n", ""))], {"kind": "v2", "version": "2.26.1"}),
    (None, [], [("docker compose version", (1, "", "docker: 'compose' is not a docker command."))], NONE),
    # A plugin that is broken is none.
    ({"ClientInfo": {"Plugins": [{"Name": "compose", "Err": "exec format error"}]}}, [], [], NONE),
    ({"ClientInfo": {"Plugins": []}}, ["docker-compose"], [("docker-compose version", (0, "1.29.2\n", ""))], {"kind": "v1", "version": "1.29.2"}),
    # Version 2 as a program of its own does not serve `docker compose`.
    ({"ClientInfo": {"Plugins": []}}, ["docker-compose"], [("docker-compose version", (0, "2.26.1\n", ""))], NONE),
    ({"ClientInfo": {"Plugins": []}}, ["docker-compose"], [("docker-compose version", (1, "", "Traceback"))], NONE),
    ({"ClientInfo": {"Plugins": []}}, [], [], NONE),
])
def test_compose(told, programs, answers, expected):
    shell = Shell(*answers)
    assert _engine.compose("/usr/bin/docker", told, shell, shell.find(*programs), 5) == expected


def test_compose_of_version_1_without_docker():
    shell = Shell(("docker-compose version", (0, "1.29.2\n", "")))
    assert _engine.compose(None, None, shell, shell.find("docker-compose"), 5) == {"kind": "v1", "version": "1.29.2"}


def test_containers():
    other = {"Name": "/a", "Image": "sha256:2", "State": {"Status": "paused"}, "HostConfig": {}, "Config": {"Labels": None}}
    gone = {"Name": "/b", "State": {"Status": "exited"}}
    found = _engine.parse_containers([CONTAINER, other, gone])
    assert [one["name"] for one in found] == ["a", "vllm"]
    assert found[0] == {"name": "a", "id": "", "image": "sha256:2", "state": "paused", "cgroup_parent": "", "cpuset": "", "compose_project": None}


def test_a_container_that_vanishes_meanwhile():
    shell = Shell(("docker ps", (0, "a b", "")), ("docker inspect", (1, json.dumps([CONTAINER]), "Error: No such container: b")))
    containers, error = _engine.running_containers("docker", shell, 5)
    assert ([one["name"] for one in containers], error) == (["vllm"], None)


def test_many_containers_are_asked_for_in_portions(monkeypatch):
    monkeypatch.setattr(_engine, "INSPECT_AT_ONCE", 2)
    shell = Shell(("docker ps", (0, "a b c", "")), ("docker inspect", (0, json.dumps([CONTAINER]), "")))
    assert len(_engine.running_containers("docker", shell, 5)[0]) == 2
    assert shell.asked[1:] == ["docker inspect --type container a b", "docker inspect --type container c"]


@pytest.mark.parametrize("answers, error", [
    ([("docker ps", (1, "", "no"))], "the running containers cannot be listed: no"),
    ([("docker ps", (0, "a", "")), ("docker inspect", (124, "", "late"))], "the running containers cannot be inspected: late"),
])
def test_containers_that_cannot_be_had(answers, error):
    assert _engine.running_containers("docker", Shell(*answers), 5) == ([], error)


def test_run_command():
    assert _engine.run_command([sys.executable, "-c", "import os, sys; print(os.environ['LC_ALL']); sys.exit(3)"], 30) == (3, "C\n", "")
    rc, stdout, stderr = _engine.run_command(["/nowhere/docker"], 30)
    assert (rc, stdout, stderr) == (127, "", "'/nowhere/docker' cannot be run: No such file or directory")


def test_a_hung_command_ends():
    start = time.monotonic()
    rc, _stdout, stderr = _engine.run_command([sys.executable, "-c", "import time; time.sleep(60)"], 0.2)
    assert rc == 124 and stderr.endswith("gave no answer within 0.2 s")
    assert time.monotonic() - start < 30


def test_nothing_is_asked_of_standard_input():
    """A command that waits for an answer gets none, and does not wait."""
    rc, stdout, _stderr = _engine.run_command([sys.executable, "-c", "import sys; print(repr(sys.stdin.read()))"], 30)
    assert (rc, stdout) == (0, "''\n")
    assert os.path.exists("/dev/null")
