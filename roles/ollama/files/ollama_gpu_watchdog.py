# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gives Ollama its GPU back: one look, started by erni-ki-ollama-gpu.timer. Made by erni_ki.inference; changes are overwritten.

A container can lose a GPU that works well on the host: systemd or Docker takes the permission away (NVML then says 999 inside), the card
was not there yet when the container started, or it vanished for a while. Docker before 28.2 does not even start a container with a CDI
device at its own start, as after a boot (moby issue 49989). Ollama looks for GPUs once, at its start, and goes on with the CPU without a
word. A restart of the container brings the GPU back, and nothing else does.

What is looked at, cheapest first, and nothing that wakes an idle card:
  the nodes in the container's /dev, and whether a process in the container's cgroup may open them;
  what Ollama's log says it found at its start; which of its loaded models are on no GPU (GET /api/ps).
Only when one of these says that the GPU is lost is the host's own driver asked. Where the host has lost it too, a restart cannot help:
that is told, and Ollama is left alone. Restarts are bounded. Standard library only, Python 3.9.
"""
from __future__ import annotations

import calendar
import contextlib
import ctypes
import errno
import glob
import http.client
import json
import os
import re
import socket
import stat
import sys
import time

PLAN = "/etc/erni-ki/plan.json"
STATE = "/run/erni-ki/ollama-gpu.json"
DOCKER = "/var/run/docker.sock"

# Restarts within the period, at most.
MOST, PERIOD_S = 3, 3600
# A container that has just started is still looking for its GPU.
GRACE_S = 15
# What stays wrong is said again after this time.
REPEAT_S = 600
# What is seen in the kernel is certain at once; a model on the CPU must still be there at the next look.
CERTAIN, LIKELY = 1, 2

# The control nodes. A look at them wakes no card, unlike one at /dev/nvidia0.
CONTROL = ("nvidiactl", "nvidia-uvm")
LOG_BYTES = 1 << 18

NVML = {
    1: "not initialized", 3: "not supported", 4: "no permission", 6: "no such GPU", 9: "the kernel module is not loaded", 12: "the library is not there",
    13: "a function is missing", 15: "the GPU fell off the bus", 18: "the library is not of the loaded kernel module's version: reboot", 999: "unknown error",
}


# ------------------------------------------------------------------- deciding

def suspicion(seen):
    """Return (how sure, what is wrong) of what was seen, or None where Ollama has its GPU or nobody can tell."""
    container = seen["container"]
    if container is None:
        return None
    if not container["running"]:
        return (CERTAIN, f"Docker could not start the container with its GPU: {container['error']}") if lost_at_start(container["error"]) else None
    if seen["missing"]:
        return CERTAIN, f"{', '.join(seen['missing'])} missing in the container"
    if seen["denied"]:
        return CERTAIN, f"the container may not open {', '.join(seen['denied'])} any more"
    if seen["listed"] == "cpu":
        return CERTAIN, "Ollama found no GPU when it started"
    if seen["on_cpu"]:
        return LIKELY, f"{', '.join(seen['on_cpu'])} on the CPU"
    return None


def lost_at_start(error):
    """True where Docker failed for want of the device, not of anything else."""
    return bool(error) and re.search(r"\bCDI\b|nvidia", error, re.IGNORECASE) is not None


def decide(found, host, state, now, age):
    """Return (action, text, state) for a suspicion.

    C(host) is a function that says what is wrong with the GPU on the host, or None. C(age) is the container's in seconds, None when it does not run.
    The action is C(none), C(wait), C(tell) or C(restart).
    """
    state = dict(state)
    if found is None:
        had = state.pop("problem", None)
        for key in ("looks", "told"):
            state.pop(key, None)
        return ("tell" if had else "none"), (f"Ollama has its GPU again (it was: {had})" if had else ""), state
    sure, what = found
    if age is not None and age < GRACE_S:
        return "wait", "", state
    state["looks"] = state.get("looks", 0) + 1
    if state["looks"] < sure:
        return "wait", "", state
    broken = host()
    recent = [then for then in state.get("restarts", []) if 0 <= now - then < PERIOD_S]
    if not broken and len(recent) < MOST:
        # The looks are counted anew: what comes back is judged from the start.
        state.update(restarts=recent + [now], problem=what, looks=0, told=now)
        return "restart", f"{what}; the GPU works on the host: restarting Ollama ({len(recent) + 1} of {MOST} within {PERIOD_S // 60} minutes)", state
    if broken:
        problem = f"{what}; a restart cannot help, because on the host {broken}"
    else:
        problem = f"{what}; restarted {len(recent)} times within {PERIOD_S // 60} minutes, and not again before that time is over"
    state["restarts"] = recent
    if state.get("problem") == problem and 0 <= now - state.get("told", 0) < REPEAT_S:
        return "wait", "", state
    state.update(problem=problem, told=now)
    return "tell", problem, state


# -------------------------------------------------------------------- reading

def given(text):
    """Return (container, UUID) of a plan's text; None where Ollama has no GPU."""
    ollama = json.loads(text).get("ollama") or {}
    device = ollama.get("device") or {}
    return (ollama["container"], device["uuid"]) if device.get("kind") == "gpu" else None


def moment(text):
    """Return the seconds since the epoch of Docker's C(2026-11-23T17:40:02.123456789Z); None for a container that never ran."""
    match = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?Z", text or "")
    if not match or match.group(1).startswith("0001-"):
        return None
    return calendar.timegm(time.strptime(match.group(1), "%Y-%m-%dT%H:%M:%S")) + float(match.group(2) or 0)


def container_of(inspected):
    """Return what of Docker's answer counts here."""
    state = inspected.get("State") or {}
    published = ((inspected.get("NetworkSettings") or {}).get("Ports") or {}).get("11434/tcp") or []
    address = None
    if published:
        host = published[0].get("HostIp") or "127.0.0.1"
        address = ({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), int(published[0]["HostPort"]))
    return {
        "id": inspected["Id"], "running": bool(state.get("Running")) and not state.get("Paused"), "pid": state.get("Pid") or 0,
        "started": moment(state.get("StartedAt")), "error": state.get("Error") or "", "address": address,
    }


def listed_in(log):
    """Return C(gpu) or C(cpu) as Ollama's log says what it found at its start; None where it does not say (yet)."""
    found = re.findall(rb'msg="inference compute" id=(\S+)', log)
    if not found:
        return None
    return "cpu" if all(identity.strip(b'"') == b"cpu" for identity in found) else "gpu"


def unframed(data):
    """Return the text in Docker's log stream, in which each piece has a header of eight bytes."""
    text, place = b"", 0
    while place + 8 <= len(data) and data[place] in (0, 1, 2) and data[place + 1:place + 4] == b"\0\0\0":
        size = int.from_bytes(data[place + 4:place + 8], "big")
        text += data[place + 8:place + 8 + size]
        place += 8 + size
    # A container with a terminal has no headers.
    return text or data


def models_on_cpu(answer):
    """Return the names of loaded models without a byte on a GPU."""
    models = (answer or {}).get("models") or []
    return [str(model.get("name") or "a model") for model in models if isinstance(model, dict) and model.get("size") and not model.get("size_vram")]


def kept_off_gpu(commands):
    """True where a runner was started with no layer on the GPU, as the request option num_gpu: 0 does: somebody asked for it."""
    return any(
        any(re.search(r"llama[-_]server", word) for word in words[:3])
        and any(option in ("-ngl", "--n-gpu-layers") and value == "0" for option, value in zip(words, words[1:]))
        for words in commands)


# ------------------------------------------------------------------ the kernel

def cgroup_of(text):
    """Return the folder below /sys/fs/cgroup whose devices rule a process with this /proc/PID/cgroup."""
    unified = None
    for line in text.splitlines():
        _number, controllers, path = line.split(":", 2)
        if "devices" in controllers.split(","):
            return "devices" + path
        if not controllers:
            unified = path.lstrip("/")
    return unified


def cgroup_file(pid, proc, cgroups):
    """Return the file that holds the processes of the container's cgroup, None where there is no such cgroup."""
    with open(f"{proc}/{pid}/cgroup", encoding="ascii") as stream:
        group = cgroup_of(stream.read())
    return None if group is None else os.path.join(cgroups, group, "cgroup.procs")


def nodes(pid, proc="/proc"):
    """Return (missing, there): nodes a container with a GPU must have and does not, and those that can be opened without waking a card."""
    folder = f"{proc}/{pid}/root/dev"
    # A process that has just ended has no folder, and that is an error here, not a missing node.
    os.listdir(folder)
    missing = [] if glob.glob(f"{folder}/nvidia[0-9]*") else ["/dev/nvidia0"]
    there = []
    for name in CONTROL:
        try:
            if stat.S_ISCHR(os.stat(f"{folder}/{name}").st_mode):
                there.append(name)
        except OSError:
            if name == "nvidiactl":
                missing.append(f"/dev/{name}")
    return missing, there


def refused(pid, names, proc="/proc", cgroups="/sys/fs/cgroup"):
    """Return the nodes that a process in the container's cgroup may not open. A child goes there to try, and ends there."""
    place = cgroup_file(pid, proc, cgroups) if names else None
    if place is None:
        return []
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            with open(place, "w", encoding="ascii") as stream:
                stream.write(str(os.getpid()))
            os.write(writer, ",".join(name for name in names if not may_open(f"{proc}/{pid}/root/dev/{name}")).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        said = stream.read().decode()
    os.waitpid(child, 0)
    return [f"/dev/{name}" for name in said.split(",") if name]


def may_open(path):
    """False where the permission is what fails; a driver that is not there is another matter, and the host's."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        return error.errno not in (errno.EPERM, errno.EACCES)
    return True


def commands_in(pid, proc="/proc", cgroups="/sys/fs/cgroup"):
    """Return the command lines of the container's processes."""
    found = []
    with contextlib.suppress(OSError), open(cgroup_file(pid, proc, cgroups) or os.devnull, encoding="ascii") as stream:
        for one in stream.read().split():
            with contextlib.suppress(OSError), open(f"{proc}/{one}/cmdline", "rb") as words:
                found.append(words.read().decode(errors="replace").rstrip("\0").split("\0"))
    return found


def host_problem(uuid, load=ctypes.CDLL):
    """Return what is wrong with the GPU on the host, or None where its driver answers."""
    try:
        library = load("libnvidia-ml.so.1")
    except OSError as error:
        return f"NVML cannot be loaded ({error})"
    code = library.nvmlInit_v2()
    if code:
        return f"NVML answers {code} ({NVML.get(code, 'an error')})"
    try:
        handle, memory = ctypes.c_void_p(), (ctypes.c_ulonglong * 3)()
        code = library.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(handle))
        # The first call that has to reach the card itself.
        code = code or library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory))
        return f"NVML answers {code} for {uuid} ({NVML.get(code, 'an error')})" if code else None
    finally:
        library.nvmlShutdown()


# ---------------------------------------------------------------- the services

class Docker(http.client.HTTPConnection):
    """Docker's API on its socket."""

    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def docker(method, path, timeout=10, limit=1 << 22, address=DOCKER):
    """Return (status, body) of Docker's answer."""
    connection = Docker(address, timeout)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read(limit)
    finally:
        connection.close()


def ollama_models(address, timeout=5):
    """Return Ollama's answer to GET /api/ps, or None where it gives none in time."""
    connection = http.client.HTTPConnection(*address, timeout=timeout)
    try:
        connection.request("GET", "/api/ps")
        answer = json.loads(connection.getresponse().read(1 << 20))
        return answer if isinstance(answer, dict) else None
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def listed_at_start(container, state, ask):
    """Return what Ollama's log says it found; read until it says so, once for each start of the container."""
    known = state.get("listed") or {}
    if known.get("started") == container["started"]:
        return known.get("what")
    status, data = ask("GET", f"/containers/{container['id']}/logs?stdout=1&stderr=1&since={container['started'] or 0:.6f}", limit=LOG_BYTES)
    what = listed_in(unframed(data)) if status == 200 else None
    if what:
        state["listed"] = {"started": container["started"], "what": what}
    return what


def look(name, state, ask=docker, models=ollama_models):
    """Return what is seen of the container and its GPU."""
    seen = {"container": None, "missing": [], "denied": [], "listed": None, "on_cpu": []}
    status, body = ask("GET", f"/containers/{name}/json")
    if status != 200:
        return seen
    container = seen["container"] = container_of(json.loads(body))
    if not container["running"]:
        return seen
    seen["missing"], there = nodes(container["pid"])
    seen["denied"] = refused(container["pid"], there)
    seen["listed"] = listed_at_start(container, state, ask)
    if container["address"]:
        seen["on_cpu"] = models_on_cpu(models(container["address"]))
        if seen["on_cpu"] and kept_off_gpu(commands_in(container["pid"])):
            seen["on_cpu"] = []
    return seen


def restart(container, ask=docker):
    """Restart this container and nothing else; return what went wrong, or None."""
    verb = "restart?t=10" if container["running"] else "start"
    status, body = ask("POST", f"/containers/{container['id']}/{verb}", timeout=60)
    return None if status in (204, 304) else f"Docker answers {status}: {body.decode(errors='replace').strip()[:300]}"


def load_state(path):
    try:
        with open(path, encoding="utf-8") as stream:
            state = json.load(stream)
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def save_state(path, state):
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    with open(f"{path}.new", "w", encoding="utf-8") as stream:
        json.dump(state, stream)
    os.replace(f"{path}.new", path)


def say(level, text):
    """A line for the journal; the number is the priority it gets there."""
    print(f"<{level}>{' '.join(text.split())}", flush=True)


def main(plan=PLAN, state_path=STATE, ask=docker, models=ollama_models, host=host_problem, clock=time.time):
    """One look, and what follows from it."""
    try:
        with open(plan, encoding="utf-8") as stream:
            gpu = given(stream.read())
    except FileNotFoundError:
        gpu = None
    if not gpu:
        return 0
    name, uuid = gpu
    state = load_state(state_path)
    before = json.dumps(state, sort_keys=True)
    try:
        seen = look(name, state, ask, models)
    except (OSError, ValueError, http.client.HTTPException) as error:
        # Docker restarts, or the container ended meanwhile: the next look will see.
        say(6, f"nothing to be seen: {error}")
        return 0
    now, container = clock(), seen["container"]
    age = now - container["started"] if container and container["running"] and container["started"] else None
    action, text, state = decide(suspicion(seen), lambda: host(uuid), state, now, age)
    # Before the restart: one that hangs counts, too.
    if json.dumps(state, sort_keys=True) != before:
        save_state(state_path, state)
    if text:
        say(4 if action == "restart" else 3 if "problem" in state else 5, text)
    if action == "restart":
        failure = restart(container, ask)
        say(3 if failure else 5, failure or "Ollama is restarted")
    return 0


if __name__ == "__main__":
    sys.exit(main())
