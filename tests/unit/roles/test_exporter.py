# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role exporter refuses, what it gives its program, and how systemd holds it."""
from __future__ import annotations

import configparser
import json
import shutil
import socket
import subprocess

import jinja2
import pytest
import yaml

from ansible_collections.erni_ki.inference.plugins.module_utils import _exporter
from ansible_collections.erni_ki.inference.tests.unit.roles.plans import gpu, plan
from ansible_collections.erni_ki.inference.tests.unit.roles.render import REPO, play_locally, render

ROLE = REPO / "roles" / "exporter"
PLAN = dict(plan(), system={"cpuset": "7,15"})
# As `-e name=value` hands them over.
TEXT = {f"exporter_{name}": value for name, value in {
    "port": "9835", "interval": "15", "deadline": "5", "probe_interval": "60", "probe_timeout": "60", "probe_loads_model": "false", "usage_max_mib": "10",
    "usage_files": "10", "memory_max_mib": "128", "cpu_quota_percent": "50"}.items()}
CASES = {
    "usual": {}, "text": TEXT, "text of vllm's port": {"exporter_port": "8000"},
    "gpu": {"plan_decided": dict(plan(gpu()), system={"cpuset": "7,15"})}, "port 0": {"exporter_port": 0},
    "vllm's port": {"exporter_port": 8000}, "ollama's port": {"ollama_port": 9835}, "name": {"exporter_bind_address": "localhost"},
    "interval": {"exporter_interval": 0, "exporter_probe_interval": 0}, "probe": {"exporter_probe_interval": 20}, "no probe": {"exporter_probe_interval": 0},
    "deadline": {"exporter_deadline": 0}, "timeout": {"exporter_probe_timeout": 0}, "files": {"exporter_usage_files": 0},
    "memory": {"exporter_memory_max_mib": 32}, "quota": {"exporter_cpu_quota_percent": 1}, "no log": {"exporter_usage_log": False},
    "services": {"vllm_bind_address": "0.0.0.0", "vllm_port": 8100, "vllm_api_key_file": "/etc/key", "ollama_bind_address": "192.0.2.1"},
}


@pytest.fixture(name="rendered", scope="module")
def fixture_rendered(tmp_path_factory):
    cases = [{"plan_decided": PLAN, **case} for case in CASES.values()]
    facts = {"os_family": "Debian", "distribution": "Debian"}
    wanted = ["__exporter_problems", "__exporter_settings", "__exporter_gpu"]
    return dict(zip(CASES, render(tmp_path_factory.mktemp("exporter"), "exporter", wanted, cases, facts)))


@pytest.mark.parametrize("name, words", [
    ("usual", None), ("text", None), ("text of vllm's port", ["exporter_port is 8000", "vllm_port"]),
    ("gpu", None), ("no probe", None), ("no log", None), ("services", None), ("port 0", ["exporter_port is 0", "1 to 65535"]),
    ("vllm's port", ["exporter_port is 8000", "vllm_port"]), ("ollama's port", ["exporter_port is 9835", "ollama_port"]),
    ("name", ["exporter_bind_address", "127.0.0.1"]), ("interval", ["exporter_interval is 0"]), ("probe", ["exporter_probe_interval is 20", "30 or more"]),
    ("deadline", ["exporter_deadline is 0"]), ("timeout", ["exporter_probe_timeout is 0"]), ("files", ["exporter_usage_files 0"]),
    ("memory", ["exporter_memory_max_mib is 32", "96"]), ("quota", ["exporter_cpu_quota_percent is 1"])])
def test_what_is_refused(rendered, name, words):
    found = [text for text in rendered[name]["__exporter_problems"] if text]
    assert len(found) == (0 if words is None else 1) and all(word in found[0] for word in words or ()), found


@pytest.mark.parametrize("family, distribution, offered, lacking", [
    ("Debian", "Debian", {}, ""), ("Suse", "SLES", {}, "this host is SLES"), ("RedHat", "Rocky", {"results": []}, "EPEL has it"),
    ("RedHat", "Rocky", {"results": [{"name": "python3-prometheus_client"}]}, "")])
def test_what_a_host_lacks_of_it(tmp_path, family, distribution, offered, lacking):
    own = {"plan_decided": PLAN, "__exporter_offered": offered}
    found = render(tmp_path, "exporter", ["__exporter_lacking"], [own, {**own, "exporter_install_package": False}],
                   {"os_family": family, "distribution": distribution})
    [said, with_own_package] = [case["__exporter_lacking"] for case in found]
    assert lacking in said and bool(said) == bool(lacking) and not with_own_package


@pytest.mark.parametrize("state, code", [("auto", 0), ("present", 2)])
def test_a_host_that_cannot_have_it(tmp_path, state, code):
    """It is left without, or refused where somebody insists; nothing is made either way."""
    task = {"ansible.builtin.include_role": {"name": "erni_ki.inference.exporter"},
            "vars": {"plan_decided": PLAN, "exporter_state": state, "__exporter_packages": {}, "__exporter_folder": str(tmp_path / "lib"),
                     "__exporter_settings_path": str(tmp_path / "etc" / "exporter.json")}}
    said = play_locally(tmp_path, task, "-e", json.dumps({"__exporter_packages": {}}), code=code)
    assert "install prometheus_client for /usr/bin/python3 yourself" in said
    assert ("This host gets no exporter" in said) == (state == "auto") and ("exporter_state: auto leaves" in said) == (state == "present")
    assert not (tmp_path / "lib").exists() and not (tmp_path / "etc").exists()


@pytest.mark.parametrize("name", CASES)
def test_the_program_takes_these_settings(rendered, name):
    """With the types that JSON has, and none is missing or not known."""
    settings = json.loads(json.dumps(rendered[name]["__exporter_settings"]))
    used = set()

    class Watched(dict):
        def __getitem__(self, key):
            used.add(key)
            return super().__getitem__(key)

    exporter = _exporter.Exporter(Watched(settings))
    exporter._gateway("ollama")
    if exporter.log:
        exporter.watch(Stopped())
    # The server takes these two; who runs no log needs none of its settings.
    spared = {key for key in settings if key.startswith("usage_")} if not settings["usage_path"] else set()
    assert set(settings) - used - spared <= {"address", "port", "gateway_host"}
    for key in ("port", "interval", "deadline", "probe_interval", "probe_timeout", "usage_interval", "usage_max_bytes", "usage_files"):
        assert isinstance(settings[key], int) and not isinstance(settings[key], bool), key
    assert isinstance(settings["probe_loads_model"], bool)


class Stopped:
    """An event that is set."""

    def wait(self, _seconds):
        return True


def test_numbers_may_be_text(rendered):
    text, usual = (rendered[name]["__exporter_settings"] for name in ("text", "usual"))
    assert text == {**usual, "gateway_host": text["gateway_host"]}


def test_where_the_services_are(rendered):
    settings = rendered["services"]["__exporter_settings"]
    assert (settings["vllm_url"], settings["ollama_url"], settings["vllm_api_key_file"]) == ("http://127.0.0.1:8100", "http://192.0.2.1:11434", "/etc/key")


@pytest.mark.parametrize("with_gpu", [False, True])
def test_the_unit(tmp_path, with_gpu):
    defaults = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text(encoding="utf-8"))
    variables = yaml.safe_load((ROLE / "vars" / "main.yml").read_text(encoding="utf-8"))
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True)
    text = environment.from_string((ROLE / "templates" / "erni-ki-exporter.service.j2").read_text(encoding="utf-8")).render(
        **{**variables, **defaults, "plan_decided": PLAN, "__exporter_gpu": with_gpu})
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str
    parser.read_string(text)
    service = dict(parser["Service"])
    assert service["ExecStart"] == (
        "/usr/bin/python3 -I -X pycache_prefix=/var/cache/erni-ki-exporter /usr/local/lib/erni-ki-exporter/erni_ki_exporter.py /etc/erni-ki/exporter.json")
    assert (service["CPUAffinity"], service["MemoryMax"], service["CPUQuota"]) == ("7,15", "128M", "50%")
    assert service["CapabilityBoundingSet"] == "" and service["ProtectSystem"] == "strict" and service["NoNewPrivileges"] == "yes"
    assert ("PrivateDevices" in service, service.get("DeviceAllow")) == ((False, "char-nvidia* rw") if with_gpu else (True, None))
    if shutil.which("systemd-analyze"):
        (tmp_path / "erni-ki-exporter.service").write_text(text, encoding="utf-8")
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(tmp_path / "erni-ki-exporter.service")], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_check_mode_on_a_new_host(tmp_path):
    """Nothing of it is there, and nothing is made."""
    task = {"ansible.builtin.include_role": {"name": "erni_ki.inference.exporter"}, "vars": {"plan_decided": PLAN, "exporter_install_package": False}}
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    places = {"__exporter_folder": str(tmp_path / "lib"), "__exporter_settings_path": str(tmp_path / "etc" / "exporter.json"), "exporter_port": free}
    said = play_locally(tmp_path, task, "--check", "--diff", "-e", json.dumps(places))
    assert not (tmp_path / "lib").exists() and not (tmp_path / "etc").exists()
    assert "Put the program on the host" in said and "+erni_ki_exporter.py" in said


@pytest.mark.parametrize("check", [[], ["--check"]])
def test_a_port_that_somebody_has(tmp_path, check):
    """Before anything changes; a port that an exporter of ours has, is no obstacle."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        task = {"ansible.builtin.include_role": {"name": "erni_ki.inference.exporter", "tasks_from": "preflight"},
                "vars": {"plan_decided": PLAN, "exporter_port": port}}
        settings = tmp_path / "exporter.json"
        said = play_locally(tmp_path, task, *check, "-e", f"__exporter_settings_path={settings}", code=2)
        assert f"exporter_port is {port}, and somebody listens there on 127.0.0.1 already" in said and "ss -tlnp" in said
        settings.write_text(json.dumps({"address": "127.0.0.1", "port": port}), encoding="utf-8")
        play_locally(tmp_path, task, *check, "-e", f"__exporter_settings_path={settings}")
