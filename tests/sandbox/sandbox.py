# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The embedded sandbox: a throwaway Debian machine with 8 cores and 16 threads, for `make site` and for the tests.

    python3 tests/sandbox/sandbox.py up|down|login|exec|forward|ssh-config|status|reboot-wait|prepare [--name NAME]
"""
from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from sandbox_lib import disk, host, images, vm  # noqa: E402  (the path comes first)
from sandbox_lib.common import (  # noqa: E402
    SandboxError, cache_dir, environment_int, lock, remove_tree, say, stop_on_signals)


def clean_tmp(cache):
    """What an interrupted builder left; the caller holds the lock, so nobody works there."""
    for path in (cache / "tmp").glob("*"):
        remove_tree(path)


def prepare(cache):
    """Everything that is kept between runs: tools, base disk, container disk."""
    host.check_machine()
    with lock(cache / "lock", "the sandbox's cache"):
        host.ensure_tools(host.MACHINE_TOOLS, cache / "log" / "apt.log")
        clean_tmp(cache)
        base = disk.ensure_base(cache)
        containers = images.ensure_empty(cache)
        disk.prune(cache, "base", base.name)
        disk.prune(cache, "images", containers.name)
    return base, containers


def wanted_shape(options):
    memory = options.memory or environment_int("SANDBOX_MEMORY_MIB", 12288)
    return vm.Shape.parse(options.shape or os.environ.get("SANDBOX_SHAPE") or "8x2", options.numa, memory)


def do_up(cache, options):
    shape = wanted_shape(options)
    base, containers = prepare(cache)
    machine = vm.Machine(cache, options.name)
    with lock(machine.lock_file, f"the machine {options.name}"):
        usable = machine.is_usable()
        asked = options.shape or options.memory or options.numa != 1 or os.environ.get("SANDBOX_SHAPE") or os.environ.get("SANDBOX_MEMORY_MIB")
        if usable and asked and machine.state()["shape"] != shape.text():
            raise SandboxError(f"The machine {options.name} exists with another shape ({machine.state()['shape']}; asked for: {shape.text()}). "
                               f"Destroy it first: {pathlib.Path(__file__).name} down --name {options.name}")
        if usable and (machine.state()["base"], machine.state()["images"]) != (base.name, containers.name):
            say(f"machine {options.name}: made from older disks than the current ones; it is kept. For a new one destroy it first.")
        if not usable:
            if machine.folder.exists():
                say(f"machine {options.name}: an unfinished one is there; it is made anew")
                machine.destroy()
            machine.create(base, containers, shape)
        if machine.pid():
            say(f"machine {options.name}: already running")
            machine.write_ssh()
        else:
            machine.start()
        machine.wait_until_up()
        if not usable:
            machine.save(created=True)
        say(f"machine {options.name}: up; log in with: ssh -F {machine.ssh_config} {options.name}")


def do_down(cache, options):
    machine = vm.Machine(cache, options.name)
    with lock(machine.lock_file, f"the machine {options.name}"):
        say(f"machine {options.name}: {'destroyed' if machine.destroy() else 'there is none'}")
    with contextlib.suppress(FileNotFoundError):
        machine.lock_file.unlink()


def running(cache, options):
    machine = vm.Machine(cache, options.name)
    if not machine.pid():
        raise SandboxError(f"The machine {options.name} does not run. Start it: python3 tests/sandbox/sandbox.py up --name {options.name}")
    return machine


def become(command):
    command = [str(part) for part in command]
    sys.stdout.flush()
    os.execv(command[0], command)


def do_login(cache, options):
    become(running(cache, options).ssh())


def do_exec(cache, options):
    words = options.words[1:] if options.words[:1] == ["--"] else options.words
    if not words:
        raise SandboxError("exec what? For example: exec -- lscpu")
    become(running(cache, options).ssh(*words))


def do_forward(cache, options):
    machine = running(cache, options)
    say("forwarding " + ", ".join(f"http://127.0.0.1:{port}" for port in vm.FORWARDS) + " into the machine until Ctrl-C")
    forwards = [word for port in vm.FORWARDS for word in ("-L", f"127.0.0.1:{port}:127.0.0.1:{port}")]
    become(machine.ssh(options=["-N", "-o", "ExitOnForwardFailure=yes", *forwards]))


def do_ssh_config(cache, options):
    machine = vm.Machine(cache, options.name)
    if not machine.ssh_config.exists():
        raise SandboxError(f"There is no machine {options.name}.")
    print(machine.ssh_config if options.path else machine.ssh_config.read_text(encoding="utf-8"), end="\n" if options.path else "")


def do_status(cache, options):
    names = [options.name] if options.name_given else sorted(path.parent.name for path in (cache / "vms").glob("*/state.json")) or [options.name]
    found = [vm.Machine(cache, name).describe() for name in names]
    if options.json:
        print(json.dumps(found, indent=1))
        return
    for machine in found:
        print(f"{machine['name']}: {'running' if machine['running'] else 'not running'}")
        for key, value in machine.items():
            if key not in ("name", "running") and value is not None:
                print(f"  {key}: {value}")


def do_reboot_wait(cache, options):
    running(cache, options).reboot()


def do_prepare(cache, options):
    prepare(cache)


def parser():
    main = argparse.ArgumentParser(prog="sandbox.py", description="The embedded sandbox: a throwaway Debian machine with 8 cores and 16 threads.")
    commands = main.add_subparsers(dest="command", required=True)

    def command(name, action, text):
        one = commands.add_parser(name, help=text, description=text)
        one.add_argument("--name", default=None, help="the machine's name (default: $SANDBOX_NAME, else sandbox)")
        one.set_defaults(action=action)
        return one

    up = command("up", do_up, "create the machine, or start it, or find it running")
    up.add_argument("--shape", help="cores x threads, or sockets x cores x threads (default 8x2, or $SANDBOX_SHAPE)")
    up.add_argument("--numa", type=int, default=1, help="number of NUMA nodes")
    up.add_argument("--memory", type=int, help="MiB (default 12288, or $SANDBOX_MEMORY_MIB)")
    command("down", do_down, "stop the machine and delete its disks")
    command("login", do_login, "open a shell in the machine")
    command("exec", do_exec, "run a command in the machine").add_argument("words", nargs=argparse.REMAINDER)
    command("forward", do_forward, "make the services' ports of the machine reachable on this one's loopback")
    command("ssh-config", do_ssh_config, "print the SSH client configuration").add_argument("--path", action="store_true", help="only where it lies")
    command("status", do_status, "tell what is there").add_argument("--json", action="store_true")
    command("reboot-wait", do_reboot_wait, "reboot the machine and wait until it is up again")
    command("prepare", do_prepare, "build or refresh what is kept between runs, without a machine")
    return main


def main(arguments=None):
    options = parser().parse_args(arguments)
    options.name_given = options.name is not None
    options.name = options.name or os.environ.get("SANDBOX_NAME") or "sandbox"
    stop_on_signals()
    try:
        options.action(cache_dir(), options)
    except SandboxError as error:
        print(f"\nsandbox: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nsandbox: interrupted; the next run takes up from here.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
