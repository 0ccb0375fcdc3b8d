# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The embedded sandbox: a throwaway Debian machine with 8 cores and 16 threads, for `make site` and for the tests.

    python3 tests/sandbox/sandbox.py up|down|login|exec|forward|ssh-config|status|reboot-wait|prepare [--name NAME]
"""
from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from sandbox_lib import disk, emulator, host, images, vm  # noqa: E402  (the path comes first)
from sandbox_lib.common import (  # noqa: E402
    SandboxError, cache_dir, environment_int, lock, remove_tree, say, stop_on_signals, write_private)


def clean_tmp(cache):
    """What an interrupted builder left; the caller holds the lock, so nobody works there."""
    for path in (cache / "tmp").glob("*"):
        remove_tree(path)


def prepare(cache, mode=None):
    """Everything that is kept between runs: tools, base disk, container disk, model."""
    host.check_machine()
    with lock(cache / "lock", "the sandbox's cache"):
        host.ensure_tools(host.MACHINE_TOOLS, cache / "log" / "apt.log")
        clean_tmp(cache)
        mode = mode or images.choose_mode(cache)
        download = images.start_wheels(cache) if mode == "local" and not images.is_there(cache) else None
        try:
            qemu = emulator.ensure(cache)
            base = disk.ensure_base(cache)
            containers = images.ensure(cache, mode, download)
        finally:
            if download is not None:
                download.stop()
        model = images.model_folder(cache)
        disk.prune(cache, "base", base.name)
        disk.prune(cache, "images", containers.name)
    return qemu, base, containers, model, mode


def wanted_shape(options):
    memory = options.memory or environment_int("SANDBOX_MEMORY_MIB", 12288)
    return vm.Shape.parse(options.shape or os.environ.get("SANDBOX_SHAPE") or "8x2", options.numa, memory)


def check_kept(machine, options, cache):
    """An existing machine stays as it is; say where it differs from what would be made now."""
    state, shape = machine.state(), wanted_shape(options)
    asked = options.shape or options.memory or options.numa != 1 or os.environ.get("SANDBOX_SHAPE") or os.environ.get("SANDBOX_MEMORY_MIB")
    again = f"Destroy it first: python3 tests/sandbox/sandbox.py down --name {machine.name}"
    if asked and state["shape"] != shape.text():
        raise SandboxError(f"The machine {machine.name} exists with another shape ({state['shape']}; asked for: {shape.text()}). {again}")
    mode = images.wanted_mode()
    if mode not in ("auto", state["mode"]):
        raise SandboxError(f"The machine {machine.name} exists with {state['mode']} images; SANDBOX_IMAGES asks for {mode}. {again}")
    if (state["base"], state["images"]) != (disk.base_name(cache), images.Names().of(state["mode"])):
        say(f"machine {machine.name}: what it was made from has changed since; it is kept as it is. For a new one: make destroy")


def kept_emulator(cache):
    with lock(cache / "lock", "the sandbox's cache"):
        host.ensure_tools(host.MACHINE_TOOLS, cache / "log" / "apt.log")
        return emulator.ensure(cache)


def do_up(cache, options):
    shape, link = wanted_shape(options), options.link and options.link.split("=", 1)
    if link and (len(link) != 2 or not vm.Link(*link, cache)):
        raise SandboxError(f"--link is {options.link!r}; write NAME=ADDRESS, such as fleet=10.99.0.11/24.")
    host.check_machine()
    machine = vm.Machine(cache, options.name)
    with lock(machine.lock_file, f"the machine {options.name}"):
        usable = machine.is_usable()
        if usable:
            check_kept(machine, options, cache)
        else:
            qemu, base, containers, model, mode = prepare(cache)
            if machine.folder.exists():
                say(f"machine {options.name}: what is there was never finished, or its disks are gone; it is made anew")
                machine.destroy()
            machine.create(qemu, base, containers, shape, mode, link)
            write_private(machine.folder / "vars.json", json.dumps(images.variables(mode), indent=1) + "\n")
        if machine.pid():
            say(f"machine {options.name}: already running")
            machine.write_ssh()
        else:
            if usable:
                qemu = kept_emulator(cache)
            machine.start(qemu)
        machine.wait_until_up()
        if not usable:
            machine.connect()
            machine.copy_in(model, vm.MODEL)
            machine.save(created=True)
        say(f"machine {options.name}: up; log in with: ssh -F {machine.ssh_config} {options.name}")


def do_down(cache, options):
    names = machine_names(cache) if options.all else [options.name]
    for name in names:
        machine = vm.Machine(cache, name)
        with lock(machine.lock_file, f"the machine {name}"):
            say(f"machine {name}: {'destroyed' if machine.destroy() else 'there is none'}")
            machine.lock_file.unlink(missing_ok=True)
    if not names:
        say("there are no machines")


def machine_names(cache):
    return sorted(path.name for path in (cache / "vms").glob("*") if path.is_dir() and vm.NAME.match(path.name))


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
    names = [options.name] if options.name_given else machine_names(cache) or [options.name]
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


def do_check_images(cache, options):
    with lock(cache / "lock", "the sandbox's cache"):
        images.check_local(cache)


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
    up.add_argument("--link", metavar="NAME=ADDRESS", help="a second network card, which reaches the other machines of that link, such as fleet=10.99.0.11/24")
    for name in ("down", "destroy"):
        command(name, do_down, "stop the machine and delete its disks").add_argument("--all", action="store_true", help="every machine of the cache")
    command("login", do_login, "open a shell in the machine")
    command("exec", do_exec, "run a command in the machine").add_argument("words", nargs=argparse.REMAINDER)
    command("forward", do_forward, "make the services' ports of the machine reachable on this one's loopback")
    command("ssh-config", do_ssh_config, "print the SSH client configuration").add_argument("--path", action="store_true", help="only where it lies")
    command("status", do_status, "tell what is there").add_argument("--json", action="store_true")
    command("reboot-wait", do_reboot_wait, "reboot the machine and wait until it is up again")
    command("prepare", do_prepare, "build or refresh what is kept between runs, without a machine")
    command("check-images", do_check_images, "run the vLLM image built here natively, and ask it for tokens")
    return main


def main(arguments=None):
    options = parser().parse_args(arguments)
    options.name_given = options.name is not None
    options.name = options.name or os.environ.get("SANDBOX_NAME") or "sandbox"
    stop_on_signals()
    # sbin belongs to it: mmdebstrap, chroot and mkfs are looked for by what we start, too.
    os.environ["PATH"] = host.search_path()
    try:
        options.action(cache_dir(), options)
    except (SandboxError, OSError) as error:
        # An OSError here is a full disk, a missing program, a folder that may not be written: its text says which.
        print(f"\nsandbox: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nsandbox: interrupted; the next run takes up from here.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
