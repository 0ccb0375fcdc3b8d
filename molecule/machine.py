# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every scenario's tests share: the host under test, the playbooks as a user runs them, and the proof as data."""
from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
import shlex
import subprocess
import time

import pytest

REPO = pathlib.Path(__file__).resolve().parents[1]
INVENTORY = REPO / "inventory" / "sandbox"

# What of the host may not move when a play refuses: every file of the system's and the collection's own folders,
# the packages, the units that run, the containers and what the kernel grants the slices.
FINGERPRINT = r"""
find /etc /opt /srv /usr/local /var/lib/erni-ki -xdev -printf '%p %y %m %U %s %T@\n' 2>/dev/null | grep -v '^/etc /\?d\|^/etc/mtab' | sort
dpkg-query -W
systemctl list-units --type=service,slice,scope --state=running,active --plain --no-legend |
    awk '{print $1}' | grep -v '^session\|^user\|^run-' | grep -v 'systemd-\(tmpfiles-clean\|timedated\|hostnamed\)\|apt-daily\|dpkg-db' | sort
docker ps -a --no-trunc --format '{{.ID}} {{.Names}} {{.Image}}' | sort
docker inspect --format '{{.Name}} {{.State.StartedAt}} {{.HostConfig.CpusetCpus}} {{.HostConfig.Memory}}' $(docker ps -aq) | sort
head /sys/fs/cgroup/*/cpuset.cpus.effective
"""


# The machine has no curl.
ASK = """
import sys, urllib.request
url, body = sys.argv[1:]
request = urllib.request.Request(url, body.encode() or None, {"Content-Type": "application/json"})
print(urllib.request.urlopen(request, timeout=600).read().decode())
"""


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: only with SLOW_TESTS=1, as `make test-all` has it; the rest keeps `make test` short on a slow machine")


def pytest_collection_modifyitems(config, items):
    """Leave the slow tests to those who ask for them, and say how many they are."""
    if os.environ.get("SLOW_TESTS"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if item not in slow]


@dataclasses.dataclass
class Run:
    """A finished play: its exit code and everything it printed."""

    code: int
    text: str


def ansible(*words, **environment):
    """Run a command of ansible-core as a user does in the checkout."""
    # Molecule forces colour, which would stand between the words that the tests look for.
    done = subprocess.run(words, cwd=REPO, env=dict(os.environ, ANSIBLE_FORCE_COLOR="0", ANSIBLE_NOCOLOR="1", **environment), text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, check=False)
    return Run(done.returncode, done.stdout)


@pytest.fixture(scope="session")
def settings():
    """What a scenario hands to every playbook."""
    return ("-e", f"@{REPO / 'molecule' / 'engines_only.yml'}")


@pytest.fixture(scope="session")
def play(settings):
    """A playbook of the collection (or of the checkout, by its path), with extra variables, on the machine under test."""
    def run(playbook, *words, **variables):
        path = playbook if playbook.endswith(".yml") else f"playbooks/{playbook}.yml"
        return ansible("ansible-playbook", "-i", str(INVENTORY), path, *settings, "-e", json.dumps(variables), *words)
    return run


def asked(module_name, **options):
    """The result of a module of the collection on the machine under test; it has to succeed."""
    # Ansible takes an empty mapping for text.
    words = ("-a", json.dumps(options)) if options else ()
    done = ansible("ansible", "-i", str(INVENTORY), "inference", "-m", f"erni_ki.inference.{module_name}", *words,
                   ANSIBLE_LOAD_CALLBACK_PLUGINS="1", ANSIBLE_STDOUT_CALLBACK="ansible.posix.json")
    assert done.code == 0, done.text
    # Lines of another callback stand before and behind.
    played = json.JSONDecoder().raw_decode(done.text[done.text.index("{"):])[0]
    return next(iter(played["plays"][0]["tasks"][0]["hosts"].values()))


@pytest.fixture(scope="session")
def module():
    """The result of any module, by its name."""
    return asked


@pytest.fixture(scope="session")
def prove():
    """The result of colocation_info."""
    return functools.partial(asked, "colocation_info")


@pytest.fixture(scope="session")
def diagnose():
    """The result of diagnosis_info."""
    return functools.partial(asked, "diagnosis_info")


@pytest.fixture(name="sh")
def fixture_sh(host):
    """A shell command on the machine that has to succeed; its output."""
    def run(command):
        done = host.run("bash -o pipefail -c %s", command)
        assert done.rc == 0, f"`{command}` ended with {done.rc}\n{done.stdout}\n{done.stderr}"
        return done.stdout.strip()
    return run


@pytest.fixture(name="ask")
def fixture_ask(sh):
    """The JSON that a service answers on the machine itself: a POST of C(body), a GET without."""
    def ask(url, **body):
        return json.loads(sh(asking(url, **body)))
    return ask


def asking(url, **body):
    """The command of such a question."""
    return shlex.join(["python3", "-c", ASK, url, json.dumps(body) if body else ""])


@pytest.fixture(name="fingerprint", scope="module")
def fixture_fingerprint(host):
    def read():
        return host.run("bash -c %s", FINGERPRINT).stdout.splitlines()
    return read


@pytest.fixture(name="plan")
def fixture_plan(sh):
    return json.loads(sh("cat /etc/erni-ki/plan.json"))


def wait_for(condition, what="", seconds=900, pause=2):
    """Wait until a condition holds, and return the seconds that took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, f"not within {seconds} s: {what}"
        time.sleep(pause)
    return time.monotonic() - start


@pytest.fixture(name="wait_for", scope="session")
def fixture_wait_for():
    return wait_for


def cpus(text):
    """The numbers of a kernel's CPU list."""
    found = set()
    for part in text.strip().split(","):
        first, dash, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def container_group(sh, name):
    """A container's cgroup, as the kernel has it."""
    return "/sys/fs/cgroup" + sh(f"cut -d: -f3 /proc/$(docker inspect --format '{{{{.State.Pid}}}}' {name})/cgroup")


def allowed_in(sh, group):
    """The CPU lists of all threads in a group; a health check may end while it is read."""
    return sh(f"(cat $(sed 's|.*|/proc/&/task/*/status|' {group}/cgroup.procs) 2>/dev/null || true) | sed -n 's/^Cpus_allowed_list:\t//p' | sort -u").split()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    """What the machine's logs say, with every test that fails."""
    report = (yield).get_result()
    host = item.funcargs.get("host")
    if not report.failed or host is None:
        return
    command = "; ".join((
        "docker ps -a", "docker logs --tail 30 vllm", "docker logs --tail 30 ollama", "journalctl -n 40 --no-pager -p notice", "systemctl --failed --no-pager"))
    try:
        said = host.run(f"bash -c {shlex.quote(command)} 2>&1").stdout
    except RuntimeError as error:
        # The machine may be what is wrong.
        said = str(error)
    report.sections.append(("the machine", said))
