# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the watchdog sees, and what it does about it."""
from __future__ import annotations

import errno
import http.server
import importlib.util
import json
import os
import pathlib
import socketserver
import threading

import pytest
import yaml

REPO = pathlib.Path(__file__).resolve().parents[3]
SPEC = importlib.util.spec_from_file_location("ollama_gpu_watchdog", REPO / "roles" / "ollama" / "files" / "ollama_gpu_watchdog.py")
dog = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(dog)

UUID = "GPU-5c27f1f4-8b12-4c9e-9d55-1f7f0a6f2200"
STARTED = "2026-11-23T17:40:02.500000000Z"
BEGIN = 1795455602.5


def container(**changes):
    return {"id": "c0ffee", "running": True, "pid": 42, "started": BEGIN, "error": "", "address": ("127.0.0.1", 11434), **changes}


def sight(**changes):
    return {"container": container(), "missing": [], "denied": [], "listed": "gpu", "on_cpu": [], **changes}


def well():
    return None


def unasked():
    raise AssertionError("the host was asked")


# ------------------------------------------------------------------- deciding

@pytest.mark.parametrize("seen, sure, words", [
    (sight(missing=["/dev/nvidia0"]), dog.CERTAIN, "/dev/nvidia0 missing"),
    (sight(denied=["/dev/nvidiactl", "/dev/nvidia-uvm"]), dog.CERTAIN, "may not open /dev/nvidiactl, /dev/nvidia-uvm"),
    (sight(listed="cpu"), dog.CERTAIN, "found no GPU when it started"),
    (sight(on_cpu=["llama3.2:3b"]), dog.LIKELY, "llama3.2:3b on the CPU"),
    (sight(container=container(running=False, error="CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=x")), dog.CERTAIN, "could not start"),
    # Docker before 28.2, after a boot.
    (sight(container=container(running=False, error='could not select device driver "cdi" with capabilities: [[gpu]]')), dog.CERTAIN, "could not start"),
])
def test_each_sign_of_a_lost_gpu(seen, sure, words):
    found = dog.suspicion(seen)
    assert found[0] == sure and words in found[1]


@pytest.mark.parametrize("seen", [
    sight(), sight(listed=None), sight(container=None), sight(container=container(running=False)),
    sight(container=container(running=False, error="port is already allocated")),
])
def test_no_sign(seen):
    assert dog.suspicion(seen) is None


def test_a_lost_gpu_that_works_on_the_host_is_worth_a_restart():
    action, text, state = dog.decide((dog.CERTAIN, "gone"), well, {}, 1000.0, 60)
    assert action == "restart" and "gone" in text and "1 of 3" in text
    assert state["restarts"] == [1000.0] and state["problem"] == "gone"


def test_the_host_is_not_asked_while_all_is_well():
    assert dog.decide(None, unasked, {}, 1000.0, 60) == ("none", "", {})


def test_a_young_container_is_given_time():
    assert dog.decide((dog.CERTAIN, "gone"), unasked, {}, 1000.0, dog.GRACE_S - 1)[0] == "wait"
    assert dog.decide((dog.CERTAIN, "gone"), well, {}, 1000.0, dog.GRACE_S)[0] == "restart"


def test_one_that_does_not_run_has_no_age():
    assert dog.decide((dog.CERTAIN, "gone"), well, {}, 1000.0, None)[0] == "restart"


def test_a_model_on_the_cpu_is_looked_at_twice():
    action, dummy, state = dog.decide((dog.LIKELY, "m on the CPU"), unasked, {}, 1000.0, 60)
    assert action == "wait"
    assert dog.decide((dog.LIKELY, "m on the CPU"), well, state, 1020.0, 80)[0] == "restart"


def test_a_look_without_a_sign_begins_the_count_anew():
    state = dog.decide((dog.LIKELY, "m on the CPU"), unasked, {}, 1000.0, 60)[2]
    state = dog.decide(None, unasked, state, 1020.0, 80)[2]
    assert dog.decide((dog.LIKELY, "m on the CPU"), unasked, state, 1040.0, 100)[0] == "wait"


def test_where_the_host_has_lost_it_too_ollama_is_left_alone_and_it_is_told_once():
    def broken():
        return "NVML answers 18 (reboot)"

    action, text, state = dog.decide((dog.CERTAIN, "gone"), broken, {}, 1000.0, 60)
    assert action == "tell" and "cannot help" in text and "18" in text and not state["restarts"]
    action, text, state = dog.decide((dog.CERTAIN, "gone"), broken, state, 1020.0, 80)
    assert (action, text) == ("wait", "")
    assert dog.decide((dog.CERTAIN, "gone"), broken, state, 1000.0 + dog.REPEAT_S, 700)[0] == "tell"
    # The card is back on the host: now a restart helps.
    assert dog.decide((dog.CERTAIN, "gone"), well, state, 1060.0, 120)[0] == "restart"


def test_restarts_are_bounded():
    state, actions = {}, []
    for turn in range(20):
        action, text, state = dog.decide((dog.CERTAIN, "gone"), well, state, 1000.0 + 20 * turn, 60)
        actions.append(action)
    assert actions == ["restart"] * dog.MOST + ["tell"] + ["wait"] * (20 - dog.MOST - 1)
    assert "not again" in state["problem"] and text == ""
    # An hour after the first, one more.
    assert dog.decide((dog.CERTAIN, "gone"), well, state, 1000.0 + dog.PERIOD_S, 60)[0] == "restart"


def test_a_clock_that_was_set_back_does_not_stop_it_for_ever():
    state = {"restarts": [9e9] * 5, "told": 9e9, "problem": "gone"}
    assert dog.decide((dog.CERTAIN, "gone"), well, state, 1000.0, 60)[0] == "restart"


def test_the_end_of_a_problem_is_told_once():
    state = dog.decide((dog.CERTAIN, "gone"), well, {}, 1000.0, 60)[2]
    action, text, state = dog.decide(None, unasked, state, 1040.0, 40)
    assert action == "tell" and "again" in text and "gone" in text and state == {"restarts": [1000.0]}
    assert dog.decide(None, unasked, state, 1060.0, 60)[0] == "none"


# -------------------------------------------------------------------- reading

@pytest.mark.parametrize("plan, expected", [
    ({"ollama": {"container": "ollama", "device": {"kind": "gpu", "uuid": UUID}}}, ("ollama", UUID)),
    ({"ollama": {"container": "ollama", "device": {"kind": "none", "uuid": None}}}, None),
    ({"ollama": None}, None), ({}, None),
])
def test_whom_the_plan_gives_the_gpu(plan, expected):
    assert dog.given(json.dumps(plan)) == expected


@pytest.mark.parametrize("text, expected", [
    (STARTED, BEGIN), ("2026-11-23T17:40:02Z", BEGIN - 0.5), ("0001-01-01T00:00:00Z", None), ("", None), (None, None),
])
def test_dockers_moments(text, expected):
    assert dog.moment(text) == expected


def inspected(**state):
    return {"Id": "c0ffee", "State": {"Running": True, "Paused": False, "Pid": 42, "StartedAt": STARTED, "Error": "", **state},
            "NetworkSettings": {"Ports": {"11434/tcp": [{"HostIp": "127.0.0.1", "HostPort": "11434"}]}}}


def test_what_counts_of_dockers_answer():
    assert dog.container_of(inspected()) == container()
    assert dog.container_of(inspected(Paused=True))["running"] is False
    assert dog.container_of({"Id": "c0ffee", "State": {"Error": "x"}})["address"] is None


@pytest.mark.parametrize("published, expected", [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("", "127.0.0.1"), ("192.0.2.7", "192.0.2.7")])
def test_where_ollama_listens(published, expected):
    answer = inspected()
    answer["NetworkSettings"]["Ports"]["11434/tcp"][0]["HostIp"] = published
    assert dog.container_of(answer)["address"] == (expected, 11434)


LINE = b'time=2026-11-23T17:40:03.001Z level=INFO source=types.go:32 msg="inference compute" id=%s library=%s compute=6.1 name=CUDA0\n'


@pytest.mark.parametrize("log, expected", [
    (LINE % (UUID.encode(), b"CUDA"), "gpu"),
    (LINE % (b"cpu", b"cpu"), "cpu"),
    (b"other\n" + LINE % (b"cpu", b"cpu") + LINE % (UUID.encode(), b"CUDA"), "gpu"),
    (b'level=INFO msg="Listening on [::]:11434"\n', None), (b"", None),
])
def test_what_ollama_found_at_its_start(log, expected):
    assert dog.listed_in(log) == expected


def frame(text, stream=2):
    return bytes([stream, 0, 0, 0]) + len(text).to_bytes(4, "big") + text


@pytest.mark.parametrize("data, expected", [
    (frame(b"one\n") + frame(b"two\n", 1), b"one\ntwo\n"), (frame(b"cut off")[:12], b"cut "), (b"plain\n", b"plain\n"), (b"", b""),
])
def test_the_frames_of_dockers_log(data, expected):
    assert dog.unframed(data) == expected


@pytest.mark.parametrize("answer, expected", [
    ({"models": [{"name": "a", "size": 10, "size_vram": 10}]}, []),
    ({"models": [{"name": "a", "size": 10, "size_vram": 4}]}, []),
    ({"models": [{"name": "a", "size": 10, "size_vram": 0}, {"name": "b", "size": 10}]}, ["a", "b"]),
    ({"models": [{"name": "a", "size": 0}, "b"]}, []), ({"models": None}, []), (None, []),
])
def test_models_without_a_byte_on_the_gpu(answer, expected):
    assert dog.models_on_cpu(answer) == expected


@pytest.mark.parametrize("commands, expected", [
    ([["/usr/lib/ollama/llama-server", "--model", "x", "-ngl", "0"]], True),
    ([["python3", "-IBS", "/x/llama_server.py", "--n-gpu-layers", "0"]], True),
    ([["/usr/lib/ollama/llama-server", "--model", "x", "-ngl", "99"]], False),
    ([["/usr/lib/ollama/llama-server", "--model", "x"], ["/bin/ollama", "serve"]], False),
    ([["sh", "-ngl", "0"]], False), ([], False),
])
def test_a_model_that_somebody_wanted_on_the_cpu(commands, expected):
    assert dog.kept_off_gpu(commands) is expected


# ------------------------------------------------------------------ the kernel

@pytest.mark.parametrize("text, expected", [
    ("0::/erniki.slice/erniki-ollama.slice/docker-c0ffee.scope\n", "erniki.slice/erniki-ollama.slice/docker-c0ffee.scope"),
    ("12:devices:/docker/c0ffee\n11:cpu,cpuacct:/docker/c0ffee\n0::/docker/c0ffee\n", "devices/docker/c0ffee"),
    ("11:cpu,cpuacct:/x\n", None), ("", None),
])
def test_the_cgroup_that_rules_devices(text, expected):
    assert dog.cgroup_of(text) == expected


@pytest.fixture(name="machine")
def fixture_machine(tmp_path):
    """A container's root and cgroup as files; links to character devices stand for its nodes."""
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroup"
    dev = proc / "42" / "root" / "dev"
    dev.mkdir(parents=True)
    group = cgroups / "ollama.scope"
    group.mkdir(parents=True)
    (group / "cgroup.procs").write_text("")
    (proc / "42" / "cgroup").write_text("0::/ollama.scope\n")
    for name in ("nvidia0", "nvidiactl", "nvidia-uvm"):
        (dev / name).symlink_to("/dev/null")
    return {"proc": str(proc), "cgroups": str(cgroups), "dev": dev, "procs": group / "cgroup.procs"}


def test_nodes_that_are_there(machine):
    assert dog.nodes(42, machine["proc"]) == ([], ["nvidiactl", "nvidia-uvm"])


@pytest.mark.parametrize("gone, missing, there", [
    ("nvidia0", ["/dev/nvidia0"], ["nvidiactl", "nvidia-uvm"]), ("nvidiactl", ["/dev/nvidiactl"], ["nvidia-uvm"]), ("nvidia-uvm", [], ["nvidiactl"]),
])
def test_nodes_that_are_not(machine, gone, missing, there):
    (machine["dev"] / gone).unlink()
    assert dog.nodes(42, machine["proc"]) == (missing, there)


def test_a_plain_file_is_no_node_to_try(machine):
    (machine["dev"] / "nvidiactl").unlink()
    (machine["dev"] / "nvidiactl").write_text("")
    assert dog.nodes(42, machine["proc"]) == ([], ["nvidia-uvm"])


def test_a_container_that_ended_meanwhile_is_no_container_without_nodes(machine):
    with pytest.raises(OSError):
        dog.nodes(43, machine["proc"])


def test_a_child_tries_from_within_the_cgroup(machine, monkeypatch):
    assert dog.refused(42, ["nvidiactl"], machine["proc"], machine["cgroups"]) == []
    joined = machine["procs"].read_text()
    assert joined.isdigit() and int(joined) != os.getpid()
    monkeypatch.setattr(dog, "may_open", lambda path: path.endswith("nvidia-uvm"))
    assert dog.refused(42, ["nvidiactl", "nvidia-uvm"], machine["proc"], machine["cgroups"]) == ["/dev/nvidiactl"]


def test_nothing_is_tried_where_nothing_is_there(machine, monkeypatch):
    monkeypatch.setattr(os, "fork", unasked)
    assert dog.refused(42, [], machine["proc"], machine["cgroups"]) == []
    pathlib.Path(machine["proc"], "42", "cgroup").write_text("")
    assert dog.refused(42, ["nvidiactl"], machine["proc"], machine["cgroups"]) == []


def test_a_cgroup_that_lets_nobody_in_refuses_no_node(machine):
    machine["procs"].unlink()
    machine["procs"].mkdir()
    assert dog.refused(42, ["nvidiactl"], machine["proc"], machine["cgroups"]) == []


@pytest.mark.parametrize("number, expected", [(errno.EPERM, False), (errno.EACCES, False), (errno.ENXIO, True), (errno.EIO, True)])
def test_only_a_missing_permission_counts(monkeypatch, number, expected):
    def fail(path, flags):
        raise OSError(number, "")
    monkeypatch.setattr(os, "open", fail)
    assert dog.may_open("/dev/nvidiactl") is expected


def test_a_node_that_opens(tmp_path):
    assert dog.may_open("/dev/null") is True
    assert dog.may_open(str(tmp_path / "none")) is True


def test_the_commands_of_a_container(machine):
    machine["procs"].write_text("42\n43\n44\n")
    for pid, words in ((42, b"/bin/ollama\0serve\0"), (43, b"llama-server\0-ngl\x000\0")):
        folder = pathlib.Path(machine["proc"], str(pid))
        folder.mkdir(exist_ok=True)
        (folder / "cmdline").write_bytes(words)
    found = dog.commands_in(42, machine["proc"], machine["cgroups"])
    assert found == [["/bin/ollama", "serve"], ["llama-server", "-ngl", "0"]]
    assert dog.kept_off_gpu(found)
    assert dog.commands_in(99, machine["proc"], machine["cgroups"]) == []


class Library:
    """NVML as ctypes hands it out: functions that return codes."""

    def __init__(self, init=0, handle=0, memory=0):
        self.codes = {"nvmlInit_v2": init, "nvmlDeviceGetHandleByUUID": handle, "nvmlDeviceGetMemoryInfo": memory, "nvmlShutdown": 0}
        self.called = []

    def __getattr__(self, name):
        def call(*words):
            self.called.append((name, words[0] if words else None))
            return self.codes[name]
        return call


@pytest.mark.parametrize("codes, words", [
    ({"init": 18}, ["18", "reboot"]), ({"init": 9}, ["9", "not loaded"]), ({"handle": 6}, [UUID, "no such GPU"]), ({"memory": 15}, ["15", "fell off"]),
    ({"memory": 77}, ["77", "an error"]),
])
def test_what_the_hosts_driver_says(codes, words):
    library = Library(**codes)
    said = dog.host_problem(UUID, lambda name: library)
    assert all(word in said for word in words)
    assert (("nvmlShutdown", None) in library.called) is ("init" not in codes)


def test_a_host_that_is_well_is_asked_for_this_very_gpu():
    library = Library()
    assert dog.host_problem(UUID, lambda name: library) is None
    assert ("nvmlDeviceGetHandleByUUID", UUID.encode()) in library.called


def test_a_host_without_the_library():
    def load(name):
        raise OSError(f"{name}: cannot open shared object file")
    assert "libnvidia-ml.so.1" in dog.host_problem(UUID, load)


# ---------------------------------------------------------------- the services

class Answers(http.server.BaseHTTPRequestHandler):
    def log_message(self, *unused):
        pass

    def do_GET(self):
        status, body = self.server.answers.get(self.path, (404, b"{}"))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        return "test"

    do_POST = do_GET


@pytest.fixture(name="serve")
def fixture_serve(tmp_path):
    running = []

    def start(kind, address, answers):
        server = kind(address, Answers)
        server.answers = answers
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        running.append(server)
        return server
    yield start
    for server in running:
        server.shutdown()
        server.server_close()


class Unix(socketserver.UnixStreamServer):
    def get_request(self):
        return super().get_request()[0], ("test", 0)


def test_docker_on_its_socket(serve, tmp_path):
    path = str(tmp_path / "docker.sock")
    serve(Unix, path, {"/containers/ollama/json": (200, b'{"Id": "c0ffee"}')})
    assert dog.docker("GET", "/containers/ollama/json", address=path) == (200, b'{"Id": "c0ffee"}')
    assert dog.docker("POST", "/containers/none/restart?t=10", address=path)[0] == 404


@pytest.mark.parametrize("body, expected", [(b'{"models": []}', {"models": []}), (b"[]", None), (b"oops", None)])
def test_ollama_on_its_port(serve, body, expected):
    server = serve(http.server.HTTPServer, ("127.0.0.1", 0), {"/api/ps": (200, body)})
    assert dog.ollama_models(server.server_address[:2]) == expected


def test_ollama_that_does_not_answer():
    with socketserver.TCPServer(("127.0.0.1", 0), Answers) as server:
        address = server.server_address
    assert dog.ollama_models(address) is None


# ------------------------------------------------------------------ one look

class World:
    """A machine on which the watchdog looks: what Docker answers, and what it was asked to do."""

    def __init__(self, tmp_path, monkeypatch, machine):
        self.inspect, self.log, self.ps, self.done, self.host, self.now = inspected(), LINE % (UUID.encode(), b"CUDA"), {"models": []}, [], None, BEGIN + 100
        self.state = tmp_path / "run" / "ollama-gpu.json"
        self.plan = tmp_path / "plan.json"
        self.plan.write_text(json.dumps({"ollama": {"container": "ollama", "device": {"kind": "gpu", "uuid": UUID}}}))
        self.commands, self.restart_status, self.logs_read = [], 204, 0
        real_nodes, real_refused = dog.nodes, dog.refused
        monkeypatch.setattr(dog, "nodes", lambda pid: real_nodes(pid, machine["proc"]))
        monkeypatch.setattr(dog, "refused", lambda pid, names: real_refused(pid, names, machine["proc"], machine["cgroups"]))
        monkeypatch.setattr(dog, "commands_in", lambda pid: self.commands)

    def ask(self, method, path, timeout=10, limit=0):
        if method == "POST":
            self.done.append(path)
            return self.restart_status, b"no"
        if path.endswith("/json"):
            return (200, json.dumps(self.inspect).encode()) if self.inspect else (404, b"")
        self.logs_read += 1
        assert path.startswith("/containers/c0ffee/logs?") and "since=1795455602.500000" in path
        return 200, frame(self.log)

    def look(self, **changes):
        return dog.main(str(self.plan), str(self.state), self.ask, lambda address: self.ps, lambda uuid: self.host, lambda: self.now)


@pytest.fixture(name="world")
def fixture_world(tmp_path, monkeypatch, machine):
    return World(tmp_path, monkeypatch, machine)


def test_all_is_well_and_nothing_is_said(world, capsys):
    assert world.look() == 0 and world.look() == 0
    assert world.done == [] and capsys.readouterr().out == ""
    assert world.logs_read == 1, "the log is read once for each start"


def test_lost_and_given_back(world, machine, capsys):
    world.look()
    (machine["dev"] / "nvidia0").unlink()
    world.look()
    assert world.done == ["/containers/c0ffee/restart?t=10"]
    said = capsys.readouterr().out
    assert said.startswith("<4>/dev/nvidia0 missing") and "<5>Ollama is restarted" in said
    (machine["dev"] / "nvidia0").symlink_to("/dev/null")
    world.now += 20
    world.look()
    assert "again" in capsys.readouterr().out and len(world.done) == 1


def test_a_restart_that_fails_is_told_and_counts(world, machine, capsys):
    world.restart_status = 500
    (machine["dev"] / "nvidia0").unlink()
    for unused in range(6):
        world.look()
    assert len(world.done) == dog.MOST and "<3>Docker answers 500: no" in capsys.readouterr().out


def test_the_cpu_fallback_of_a_loaded_model(world):
    world.ps = {"models": [{"name": "m", "size": 10, "size_vram": 0}]}
    world.look()
    assert world.done == []
    world.look()
    assert len(world.done) == 1


def test_a_model_kept_off_the_gpu_on_purpose(world):
    world.ps = {"models": [{"name": "m", "size": 10, "size_vram": 0}]}
    world.commands = [["llama-server", "-ngl", "0"]]
    world.look()
    world.look()
    assert world.done == []


def test_a_host_that_lost_it_too(world, machine, capsys):
    world.host = "NVML answers 18"
    (machine["dev"] / "nvidia0").unlink()
    world.look()
    world.look()
    assert world.done == []
    assert capsys.readouterr().out.count("<3>") == 1


def test_a_container_that_docker_could_not_start(world):
    world.inspect = inspected(Running=False, Pid=0, Error="CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=x")
    world.look()
    assert world.done == ["/containers/c0ffee/start"]


@pytest.mark.parametrize("plan", [{"ollama": {"container": "ollama", "device": {"kind": "none"}}}, {"ollama": None}])
def test_without_a_gpu_nothing_is_asked(world, plan):
    world.plan.write_text(json.dumps(plan))
    world.ask = None
    assert world.look() == 0


def test_without_a_plan_nothing_is_asked(world):
    world.plan.unlink()
    world.ask = None
    assert world.look() == 0


def test_without_a_container_nothing_is_done(world):
    world.inspect = None
    assert world.look() == 0 and world.done == []


def test_without_docker_the_next_look_will_see(world, capsys):
    def gone(*words, **options):
        raise FileNotFoundError(2, "No such file or directory")
    world.ask = gone
    assert world.look() == 0
    assert capsys.readouterr().out.startswith("<6>")


@pytest.mark.parametrize("text", ["", "[]", "{half"])
def test_a_damaged_state_is_an_empty_one(world, text):
    world.state.parent.mkdir()
    world.state.write_text(text)
    assert dog.load_state(str(world.state)) == {}
    assert world.look() == 0


def test_an_old_container_has_a_log_without_the_line(world):
    world.log = b"nothing\n"
    world.look()
    world.look()
    assert world.logs_read == 2 and world.done == []


def test_its_folder_is_its_own():
    """It is removed whole from a host without a GPU; and the unit starts what lies in it."""
    made = yaml.safe_load((REPO / "roles" / "ollama" / "vars" / "main.yml").read_text(encoding="utf-8"))["__ollama_watchdog_folder"]
    unit = (REPO / "roles" / "ollama" / "files" / "erni-ki-ollama-gpu.service").read_text(encoding="utf-8")
    assert f" {made}/ollama_gpu_watchdog.py\n" in unit
    others = [path for path in REPO.glob("roles/*/*/*.yml") if path.parts[-3] != "ollama"]
    assert [str(path) for path in others if f"{made}/" in path.read_text(encoding="utf-8") or f"{made}\n" in path.read_text(encoding="utf-8")] == []
