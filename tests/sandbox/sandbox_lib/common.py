# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every part of the sandbox shares: where things lie, progress, commands, locks, input hashes."""
from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time

REPO = pathlib.Path(__file__).resolve().parents[3]
SANDBOX = REPO / "tests" / "sandbox"
HEARTBEAT_S = 30
STARTED = time.monotonic()


class SandboxError(Exception):
    """Something a person has to know; shown without a traceback."""


def cache_dir(environ=None):
    """The one folder that holds everything: $ERNI_KI_CACHE/sandbox, else <repo>/.cache/sandbox."""
    environ = os.environ if environ is None else environ
    base = environ.get("ERNI_KI_CACHE")
    return (pathlib.Path(base).expanduser().resolve() if base else REPO / ".cache") / "sandbox"


def elapsed_text(seconds):
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest:02d}s"


_print_lock = threading.Lock()


def say(text):
    """One progress line, with the time since this command began."""
    with _print_lock:
        print(f"[{elapsed_text(time.monotonic() - STARTED):>7}] {text}", flush=True)


@contextlib.contextmanager
def step(text):
    """Say what begins, say every half minute that it goes on, say how long it took."""
    say(f"{text} …")
    begun = time.monotonic()
    done = threading.Event()

    def beat():
        while not done.wait(HEARTBEAT_S):
            say(f"{text}: still at it, {elapsed_text(time.monotonic() - begun)}")

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    say(f"{text}: done in {elapsed_text(time.monotonic() - begun)}")


def tail(path, lines=25):
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def start(command, **kwargs):
    """Start a command as a session of its own, whose end is in our hands: an interrupt waits until we know its process."""
    if threading.current_thread() is not threading.main_thread():
        return subprocess.Popen(command, start_new_session=True, **kwargs)
    caught = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    before = {number: handler for number, handler in before.items() if callable(handler)}
    for number in before:
        signal.signal(number, lambda number, frame: caught.append(number))
    try:
        process = subprocess.Popen(command, start_new_session=True, **kwargs)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if caught:
        stop_children(process)
        raise KeyboardInterrupt
    return process


def stop_children(process, timeout_s=20):
    """End a command and all it started: they are a session of their own."""
    for sent, bound in ((signal.SIGTERM, timeout_s), (signal.SIGKILL, 10)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sent)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=bound)


def failed(command, status, output, log=None, hint=""):
    where = f"\nThe whole output is in {log}." if log else ""
    return SandboxError("\n".join(part for part in (
        hint, f"This command ended with status {status}:", f"  {shlex.join(command)}", "\n".join(output.splitlines()[-25:]) + where) if part))


def run(command, log=None, **kwargs):
    """Run a command with its output in a log, or return its output. On failure tell the command, the status and the end of the output.

    Ctrl-C reaches us and not the command, which we then end ourselves, with its children, before anything is cleaned up.
    """
    command = [str(part) for part in command]
    stream = subprocess.PIPE
    with contextlib.ExitStack() as stack:
        if log is not None:
            log = pathlib.Path(log)
            log.parent.mkdir(parents=True, exist_ok=True)
            stream = stack.enter_context(open(log, "a", encoding="utf-8"))
            stream.write(f"\n$ {shlex.join(command)}\n")
            stream.flush()
        process = start(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, text=True, errors="replace", **kwargs)
        try:
            output = process.communicate()[0]
        except BaseException:
            stop_children(process)
            raise
    if process.returncode != 0:
        raise failed(command, process.returncode, tail(log) if log else output, log)
    return output


class Background:
    """A command that runs beside others, and ends when we end."""

    def __init__(self, command, log):
        self.command, self.log = ["setpriv", "--pdeathsig", "TERM", *(str(part) for part in command)], pathlib.Path(log)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "a", encoding="utf-8") as stream:
            stream.write(f"\n$ {shlex.join(self.command)}\n")
            stream.flush()
            self.process = start(self.command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT)

    def wait(self, hint=""):
        status = self.process.wait()
        if status:
            raise failed(self.command, status, tail(self.log), self.log, hint)

    def stop(self):
        if self.process.poll() is None:
            stop_children(self.process)


def wait_for(condition, what, timeout_s, pause_s=0.5, on_timeout=None):
    """Poll until the condition returns something true; the bound is there to end, not to be reached."""
    deadline = time.monotonic() + timeout_s
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            more = on_timeout() if on_timeout else ""
            raise SandboxError(f"Waited {elapsed_text(timeout_s)} for {what}, in vain.{more}")
        time.sleep(pause_s)


@contextlib.contextmanager
def lock(path, what):
    """One process at a time; who waits says for what. The kernel drops the lock when its holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            say(f"waiting: process {stream.read().strip() or '?'} is at work on {what}")
            fcntl.flock(stream, fcntl.LOCK_EX)
        stream.seek(0)
        stream.truncate()
        stream.write(str(os.getpid()))
        stream.flush()
        yield


def files_below(*roots):
    """All files of the given files and folders, in a stable order, without what Python leaves behind."""
    found = []
    for root in roots:
        root = pathlib.Path(root)
        if root.is_dir():
            found += [path for path in sorted(root.rglob("*")) if path.is_file() and "__pycache__" not in path.parts]
        elif root.exists():
            found.append(root)
    return found


def input_hash(paths=(), texts=()):
    """A short hash over file contents (with their place in the repository) and texts: the name of what is built from them."""
    digest = hashlib.sha256()
    for path in files_below(*paths):
        try:
            name = path.relative_to(REPO)
        except ValueError:
            name = path
        content = path.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    for text in texts:
        digest.update(f"\0{len(text)}\0{text}".encode())
    return digest.hexdigest()[:12]


def mounts_below(folder, mountinfo=None):
    """Mount points inside a folder, deepest first."""
    if mountinfo is None:
        mountinfo = pathlib.Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    prefix = str(folder).rstrip("/") + "/"
    found = []
    for line in mountinfo.splitlines():
        point = line.split()[4].replace("\\040", " ")
        if point.startswith(prefix):
            found.append(point)
    return sorted(found, key=len, reverse=True)


def is_complete(folder):
    """Whether what is built in a folder got to its end."""
    return (folder / "complete").exists()


def remove_tree(folder):
    """Delete a folder, never anything that is mounted into it."""
    folder = pathlib.Path(folder)
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
        return
    if not folder.exists():
        return
    for point in mounts_below(folder):
        subprocess.run(["umount", "--lazy", point], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    left = mounts_below(folder)
    if left:
        raise SandboxError(f"{left[0]} is mounted and will not let go; unmount it and run this again.")
    for chance in range(10):
        try:
            shutil.rmtree(folder)
            return
        except OSError:
            # A process that is just being ended may still have written there.
            if chance == 9:
                raise
            time.sleep(0.2)


def settle(work, folder, alone=False):
    """Move what was made in C(work) to its place in the cache, marked as complete; C(alone) removes what was made there of other inputs."""
    (work / "complete").touch()
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_tree(folder)
    work.rename(folder)
    if alone:
        for other in folder.parent.iterdir():
            if other != folder:
                remove_tree(other)


def need_space(folder, gib, what):
    """Refuse early, with numbers, instead of ending half way with a full disk."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free / 2**30
    if free < gib:
        raise SandboxError(
            f"{folder} has {free:.1f} GiB free; {what} needs about {gib:g} GiB. "
            f"Free some space (`make destroy` drops the machines), or point ERNI_KI_CACHE at a larger disk.")


def write_private(path, text, mode=0o644):
    """Write in one step: a reader sees the old content or the new, never half."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.chmod(mode)
    temporary.replace(path)


def process_runs(pid, marker):
    """True when this pid lives and is what we think: its command line holds the marker."""
    try:
        command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        state = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z" and str(marker) in command


def read_pid(path):
    try:
        return int(pathlib.Path(path).read_text(encoding="utf-8").strip())
    except (OSError, ValueError):
        return None


def stop_process(pid, marker, what, timeout_s=60):
    """End one process of ours, by its number: politely, then not."""
    if not process_runs(pid, marker):
        return
    for sent, bound in ((signal.SIGTERM, timeout_s), (signal.SIGKILL, 30)):
        try:
            os.kill(pid, sent)
            # One that was paused hears nothing until it goes on.
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + bound
        while time.monotonic() < deadline:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            if not process_runs(pid, marker):
                return
            time.sleep(0.1)
    raise SandboxError(f"{what} (process {pid}) does not end.")


def environment_int(name, default):
    text = os.environ.get(name, "")
    if not text:
        return default
    if not text.isdigit():
        raise SandboxError(f"{name} is {text!r}; it has to be a whole number.")
    return int(text)


def stop_on_signals():
    """SIGTERM and SIGHUP clean up as Ctrl-C does, which works in a background job too."""
    def interrupt(number, frame):
        raise KeyboardInterrupt
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    sys.stdout.reconfigure(line_buffering=True)
