# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in card as the tests play with it, and Ollama as they wait for it."""
from __future__ import annotations

import pathlib
import shlex
import sys

import pytest

SCENARIO = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(SCENARIO.parent))

pytest_plugins = ["machine"]

CARD = "/usr/bin/python3 -IB /usr/local/lib/standin-nvidia/card.py"

# What a process in a container's cgroup may open: ENXIO is a permission without a driver behind it, EPERM is none. It ends there.
OPENS = """
import errno, os, sys
with open("/proc/%s/cgroup" % sys.argv[1]) as stream:
    group = stream.read().strip().rpartition(":")[2]
with open("/sys/fs/cgroup" + group + "/cgroup.procs", "w") as stream:
    stream.write(str(os.getpid()))
try:
    os.open("/dev/nvidiactl", os.O_RDWR)
    print("open")
except OSError as error:
    print(errno.errorcode[error.errno])
"""


@pytest.fixture(scope="session")
def settings(settings):
    return (*settings, "-e", f"@{SCENARIO / 'vars' / 'main.yml'}")


@pytest.fixture(name="card")
def fixture_card(sh):
    """Plays a failure of the card; it is well again afterwards."""
    def play(*lines):
        return sh(f"{CARD} set {' '.join(shlex.quote(line) for line in lines)}")
    yield play
    play()


@pytest.fixture(name="opens")
def fixture_opens(sh):
    """What becomes of opening the card's control node from within a container's cgroup."""
    def look(container):
        return sh(f"python3 -c {shlex.quote(OPENS)} $(docker inspect --format '{{{{.State.Pid}}}}' {container})")
    return look


@pytest.fixture(name="ollama")
def fixture_ollama(sh, ask):
    return Ollama(sh, ask)


class Ollama:
    """The service on the machine."""

    URL = "http://127.0.0.1:11434"

    def __init__(self, sh, ask):
        self.sh, self.ask, self.heard = sh, ask, 0

    def started(self, name="ollama"):
        return self.sh(f"docker inspect --format '{{{{.State.StartedAt}}}}' {name}")

    def wait(self, seconds=600):
        """Docker's own health check knows when it is there."""
        health = "docker inspect --format '{{.State.Health.Status}}' ollama"
        self.sh(f"for n in $(seq {seconds}); do [ \"$({health})\" = healthy ] && exit; sleep 1; done; exit 1")

    @property
    def model(self):
        return self.ask(f"{self.URL}/api/tags")["models"][0]["name"]

    def load(self):
        """Load the model anew, and return what Ollama says of it."""
        name = self.model
        for keep_alive in (0, -1):
            self.ask(f"{self.URL}/api/generate", model=name, keep_alive=keep_alive)
        return self.loaded()

    def loaded(self):
        return self.ask(f"{self.URL}/api/ps")["models"][0]

    def told(self):
        """What the watchdog wrote into the journal since it began anew, else since the machine was booted."""
        return self.sh("journalctl -b -q -o cat -t erni-ki-ollama-gpu --no-pager || true")[self.heard:]

    def forget(self):
        """Let the watchdog begin anew."""
        self.sh("rm -f /run/erni-ki/ollama-gpu.json")
        self.heard += len(self.told())


@pytest.fixture(name="until")
def fixture_until(wait_for):
    return lambda condition, seconds: wait_for(condition, seconds=seconds, pause=1)
