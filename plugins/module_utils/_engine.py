# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which container engine a host has, asked of its command line: on a new host no Python SDK is there to ask."""
from __future__ import annotations

import json
import os
import re
import subprocess

# Beside PATH: a module runs with the short PATH of a non-login shell, and snaps live in a folder of their own.
EXTRA_FOLDERS = ("/usr/local/bin", "/usr/local/sbin", "/usr/bin", "/usr/sbin", "/bin", "/sbin", "/snap/bin", "/var/lib/snapd/snap/bin")

DOCKER_CE = ("docker-ce", "docker-ce-cli", "docker-ee", "docker-ee-cli")
DISTRIBUTION = ("docker.io", "docker-cli", "docker", "docker-engine", "moby-engine", "moby-cli", "docker-latest")

# `docker inspect` takes the names on its command line, whose length is bounded.
INSPECT_AT_ONCE = 200

_VERSION = re.compile(r"v?(\d+(?:\.\d+)+)")


def run_command(argv, timeout):
    """Return (rc, stdout, stderr); a hung daemon ends at the timeout with rc 124, a missing program with 127."""
    environment = dict(os.environ, LC_ALL="C", LANGUAGE="C")
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False, env=environment)
    except subprocess.TimeoutExpired:
        return 124, "", f"'{' '.join(argv)[:120]}' gave no answer within {timeout:g} s"
    except OSError as error:
        return 127, "", f"'{argv[0]}' cannot be run: {error.strerror}"
    return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")


def find_program(name, path=None, extra=EXTRA_FOLDERS):
    """Return the first executable of that name in PATH and the extra folders, or None."""
    path = os.environ.get("PATH", "") if path is None else path
    for folder in path.split(os.pathsep) + list(extra):
        candidate = os.path.join(folder, name)
        if folder and os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    return None


def short_version(text):
    """Return C(26.1.5) of C(26.1.5+dfsg1), C(v2.26.1-4) or C(Docker version 26.1.5, build …); None where there is none."""
    match = _VERSION.search(text or "")
    return match.group(1) if match else None


def is_snap(path):
    """True for a program that a snap brought: in a snap folder, or a link to the snap launcher."""
    for place in (path, os.path.realpath(path)):
        if place.startswith(("/snap/", "/var/lib/snapd/snap/")) or os.path.basename(place) == "snap":
            return True
    return False


def is_podman_script(path):
    """True for the shell script of package podman-docker, which hands everything to podman."""
    try:
        with open(path, "rb") as handle:
            head = handle.read(4096)
    except OSError:
        return False
    return head.startswith(b"#!") and b"podman" in head


def parse_owner(manager, output):
    """Return the package names in what C(dpkg-query -S) or C(rpm -qf --qf '%{NAME}\\n') printed."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if manager == "rpm":
        return [line for line in lines if " " not in line]
    owners = []
    for line in lines:
        # A diverted file has lines of its own: "diversion by PACKAGE from: …"; the owner is in the other line.
        if not line.startswith("diversion by ") and ": " in line:
            owners += [name.split(":")[0].strip() for name in line.rsplit(": ", 1)[0].split(",")]
    return owners


def flavor_of(packages):
    """Return the flavor that goes with these package names."""
    for names, flavor in ((("podman-docker",), "podman-docker"), (DOCKER_CE, "docker-ce"), (DISTRIBUTION, "distribution")):
        if any(package in names for package in packages):
            return flavor
    return "unknown"


def owners(path, run, find, timeout):
    """Return the packages that own a file, asked of dpkg and rpm; under both names where /bin and /usr/bin are one folder."""
    names = [path]
    for name in (os.path.realpath(path), path[4:] if path.startswith("/usr/") else f"/usr{path}"):
        if name not in names and os.path.exists(name):
            names.append(name)
    found = []
    for manager, program, arguments in (("dpkg", "dpkg-query", ["-S"]), ("rpm", "rpm", ["-qf", "--qf", "%{NAME}\\n"])):
        tool = find(program)
        for name in names if tool else ():
            rc, stdout, _stderr = run([tool] + arguments + [name], timeout)
            if rc == 0:
                found += parse_owner(manager, stdout)
    return found


def flavor(docker, dockerd, run, find, timeout):
    """Return where the engine on this host comes from."""
    programs = [program for program in (docker, dockerd) if program]
    if not programs:
        return "none"
    if any(is_snap(program) for program in programs):
        return "snap"
    if docker and is_podman_script(docker):
        return "podman-docker"
    # The daemon decides; the client beside it may come from elsewhere.
    for program in (dockerd, docker):
        found = flavor_of(owners(program, run, find, timeout)) if program else "unknown"
        if found != "unknown":
            return found
    return "unknown"


def load_json(text):
    """Return the JSON value in the text, or None; warnings that a client prints before it are skipped."""
    for start in [0] + [match.start() for match in re.finditer(r"^[\[{]", text, re.MULTILINE)]:
        try:
            return json.loads(text[start:])
        except ValueError:
            continue
    return None


def parse_info(info):
    """Return what C(docker info) says of the engine; Podman's answer has another shape."""
    host = info.get("host")
    if isinstance(host, dict):
        cgroup_version = str(host.get("cgroupVersion") or "")
        store = info.get("store") if isinstance(info.get("store"), dict) else {}
        return {
            "flavor": "podman-docker",
            "version": short_version((info.get("version") or {}).get("Version")),
            "cgroup_driver": host.get("cgroupManager") or None,
            "cgroup_version": int(cgroup_version[1:]) if cgroup_version in ("v1", "v2") else None,
            "data_root": store.get("graphRoot") or None,
            "live_restore": None,
            "runtimes": sorted(filter(None, [(host.get("ociRuntime") or {}).get("name")])),
            "default_runtime": (host.get("ociRuntime") or {}).get("name") or None,
        }
    version = str(info.get("CgroupVersion") or "")
    return {
        "version": short_version(info.get("ServerVersion")),
        "cgroup_driver": info.get("CgroupDriver") if info.get("CgroupDriver") in ("systemd", "cgroupfs") else None,
        "cgroup_version": int(version) if version in ("1", "2") else None,
        "data_root": info.get("DockerRootDir") or None,
        "live_restore": info.get("LiveRestoreEnabled") if isinstance(info.get("LiveRestoreEnabled"), bool) else None,
        "runtimes": sorted(info.get("Runtimes") or {}),
        "default_runtime": info.get("DefaultRuntime") or None,
    }


def compose_of_info(info):
    """Return the Compose plugin that C(docker info) lists, an empty dict when it lists none, None when it does not tell."""
    client = info.get("ClientInfo")
    if not isinstance(client, dict) or not isinstance(client.get("Plugins"), list):
        return None
    for plugin in client["Plugins"]:
        if plugin.get("Name") == "compose" and not plugin.get("Err"):
            return {"kind": "v2", "version": short_version(plugin.get("Version"))}
    return {}


def compose(docker, info, run, find, timeout):
    """Return kind and version of Compose: the plugin of the client, else the old program of its own."""
    listed = compose_of_info(info or {})
    if listed:
        return listed
    if docker and listed is None:
        rc, stdout, _stderr = run([docker, "compose", "version", "--short"], timeout)
        if rc == 0 and short_version(stdout):
            return {"kind": "v2", "version": short_version(stdout)}
    program = find("docker-compose")
    if program:
        rc, stdout, _stderr = run([program, "version", "--short"], timeout)
        version = short_version(stdout)
        # A program of its own that is Compose v2 does not serve `docker compose`, so it is neither of the two.
        if rc == 0 and version and version.startswith("1."):
            return {"kind": "v1", "version": version}
    return {"kind": "none", "version": None}


def parse_containers(inspected):
    """Return the running ones of C(docker inspect), by name."""
    result = []
    for one in inspected:
        host = one.get("HostConfig") or {}
        config = one.get("Config") or {}
        state = (one.get("State") or {}).get("Status")
        if state in ("running", "paused", "restarting"):
            result.append({
                "name": (one.get("Name") or "").lstrip("/"),
                "id": one.get("Id") or "",
                "image": config.get("Image") or one.get("Image") or "",
                "state": state,
                "cgroup_parent": host.get("CgroupParent") or "",
                "cpuset": host.get("CpusetCpus") or "",
                "compose_project": (config.get("Labels") or {}).get("com.docker.compose.project"),
            })
    return sorted(result, key=lambda container: container["name"])


def running_containers(docker, run, timeout):
    """Return (containers, error)."""
    rc, stdout, stderr = run([docker, "ps", "--quiet", "--no-trunc"], timeout)
    if rc:
        return [], f"the running containers cannot be listed: {_said(rc, stdout, stderr)}"
    names = stdout.split()
    inspected = []
    for start in range(0, len(names), INSPECT_AT_ONCE):
        rc, stdout, stderr = run([docker, "inspect", "--type", "container"] + names[start:start + INSPECT_AT_ONCE], timeout)
        some = load_json(stdout)
        # With rc 1 one of them is gone since; the others are printed all the same.
        if not isinstance(some, list):
            return [], f"the running containers cannot be inspected: {_said(rc, stdout, stderr)}"
        inspected += some
    return parse_containers(inspected), None


def _said(rc, stdout, stderr):
    text = " ".join((stderr.strip() or stdout.strip()).split())
    return text[:400] or f"exit code {rc}, no output"


def collect(timeout, run=run_command, find=find_program):
    """Return the whole picture; an engine that does not answer is an error text in it."""
    docker, dockerd = find("docker"), find("dockerd")
    result = {
        "flavor": flavor(docker, dockerd, run, find, timeout),
        "installed": bool(docker or dockerd),
        "reachable": False,
        "version": None,
        "cgroup_driver": None,
        "cgroup_version": None,
        "data_root": None,
        "live_restore": None,
        "runtimes": [],
        "default_runtime": None,
        "compose": {"kind": "none", "version": None},
        "containers": [],
        "error": None,
    }
    info = None
    if docker:
        rc, stdout, stderr = run([docker, "info", "--format", "{{json .}}"], timeout)
        info = load_json(stdout)
        info = info if isinstance(info, dict) else {}
        errors = "; ".join(info.get("ServerErrors") or [])
        if rc == 0 and info and not errors:
            result.update(parse_info(info), reachable=True)
            if str(result["data_root"] or "").startswith("/var/snap/"):
                result["flavor"] = "snap"
        else:
            result["error"] = errors or _said(rc, "", stderr)
    elif dockerd:
        result["error"] = "the engine (dockerd) is installed, its command line (docker) is not"
    result["compose"] = compose(docker, info, run, find, timeout)
    if result["reachable"]:
        result["containers"], result["error"] = running_containers(docker, run, timeout)
    elif dockerd:
        # Stopped or hung: what is installed is still worth knowing.
        result["version"] = short_version(run([dockerd, "--version"], timeout)[1])
    return result
