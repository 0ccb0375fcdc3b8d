# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import threading

import pytest
from sandbox_lib import common
from sandbox_lib.common import SandboxError


def test_cache_lies_in_the_repository_unless_told_otherwise(tmp_path):
    assert common.cache_dir({}) == common.REPO / ".cache" / "sandbox"
    assert common.cache_dir({"ERNI_KI_CACHE": str(tmp_path)}) == tmp_path / "sandbox"
    assert common.cache_dir({"ERNI_KI_CACHE": ""}) == common.REPO / ".cache" / "sandbox"


@pytest.mark.parametrize("seconds, text", [(0, "0m00s"), (59.9, "0m59s"), (60, "1m00s"), (3725, "62m05s")])
def test_elapsed_text(seconds, text):
    assert common.elapsed_text(seconds) == text


def test_step_says_what_and_how_long(capsys):
    with common.step("something"):
        pass
    first, last = capsys.readouterr().out.splitlines()
    assert first.endswith("something …") and last.endswith("something: done in 0m00s")


def test_step_beats_while_it_lasts(capsys, monkeypatch):
    monkeypatch.setattr(common, "HEARTBEAT_S", 0.02)
    beaten = threading.Event()
    monkeypatch.setattr(common, "elapsed_text", lambda seconds: beaten.set() or "t")
    with common.step("long"):
        beaten.clear()
        assert beaten.wait(10)
    assert "long: still at it, t" in capsys.readouterr().out


def test_step_that_fails_is_not_done(capsys):
    with pytest.raises(SandboxError), common.step("bad"):
        raise SandboxError("no")
    assert "done" not in capsys.readouterr().out


def test_run_returns_output_or_logs_it(tmp_path):
    assert common.run(["sh", "-c", "echo out; echo err >&2"]) == "out\nerr\n"
    assert common.run(["echo", "two words"], log=tmp_path / "deep" / "log") is None
    assert (tmp_path / "deep" / "log").read_text() == "\n$ echo 'two words'\ntwo words\n"


def test_run_tells_command_status_and_end_of_output(tmp_path):
    with pytest.raises(SandboxError) as caught:
        common.run(["sh", "-c", "seq 100; exit 3"], log=tmp_path / "log")
    text = str(caught.value)
    assert "status 3" in text and "seq 100; exit 3" in text and "\n100" in text and "\n60\n" not in text and str(tmp_path / "log") in text


def test_run_ends_the_command_and_its_children_when_interrupted(tmp_path):
    """In a process of its own, which is the one that gets the interrupt."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(common.SANDBOX)!r})\n"
        "from sandbox_lib import common\n"
        "common.stop_on_signals()\n"
        "try:\n"
        f"    common.run(['sh', '-c', 'sleep 600 & echo $! > {tmp_path}/child; wait'])\n"
        "except KeyboardInterrupt:\n"
        "    sys.exit(130)\n")
    process = subprocess.Popen([sys.executable, str(script)])
    try:
        common.wait_for(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text().strip(), "the child", 300, pause_s=0.02)
        child = int((tmp_path / "child").read_text())
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=300) == 130
    finally:
        process.kill()
        process.wait()
    common.wait_for(lambda: not common.process_runs(child, "sleep"), "the child to end", 300, pause_s=0.02)


def test_an_interrupt_while_a_command_starts_ends_it_too(monkeypatch):
    """The moment between the child's start and our knowing of it."""
    begun = []

    def popen(*args, **kwargs):
        begun.append(genuine(*args, **kwargs))
        signal.raise_signal(signal.SIGINT)
        return begun[0]

    genuine = subprocess.Popen
    # In a background job it is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(common.subprocess, "Popen", popen)
    try:
        with pytest.raises(KeyboardInterrupt):
            common.start(["sleep", "600"])
        assert begun[0].returncode == -signal.SIGTERM and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_background_command_fails_with_the_hint(tmp_path):
    good = common.Background(["true"], tmp_path / "log")
    good.wait()
    bad = common.Background(["sh", "-c", "echo nothing found; exit 1"], tmp_path / "log")
    with pytest.raises(SandboxError, match="(?s)look there.*status 1.*nothing found"):
        bad.wait("look there")
    bad.stop()


def test_background_command_is_stopped(tmp_path):
    one = common.Background(["sleep", "600"], tmp_path / "log")
    one.stop()
    assert one.process.returncode == -signal.SIGTERM


def test_wait_for_ends_with_the_reason():
    with pytest.raises(SandboxError, match=r"Waited 0m00s for rain, in vain\. Dry\."):
        common.wait_for(lambda: None, "rain", 0.01, pause_s=0.001, on_timeout=lambda: " Dry.")
    assert common.wait_for(lambda: 7, "seven", 0) == 7


def test_lock_is_for_one_and_says_who_has_it(tmp_path, capsys):
    path, order = tmp_path / "folder" / "lock", []

    def second():
        with common.lock(path, "the thing"):
            order.append("second")

    with common.lock(path, "the thing"):
        thread = threading.Thread(target=second)
        thread.start()
        common.wait_for(lambda: "waiting" in capsys.readouterr().out, "the second to wait", 300, pause_s=0.01)
        order.append("first")
    thread.join(timeout=30)
    assert order == ["first", "second"]


def test_input_hash_follows_names_contents_and_texts(tmp_path):
    one, two = tmp_path / "a", tmp_path / "b"
    one.write_text("x")
    two.write_text("x")
    first = common.input_hash([one])
    assert first == common.input_hash([one]) and len(first) == 12
    assert first != common.input_hash([two])
    assert first != common.input_hash([one], ["t"])
    assert common.input_hash([], ["ab", "c"]) != common.input_hash([], ["a", "bc"])
    one.write_text("y")
    assert first != common.input_hash([one])


def test_input_hash_does_not_see_compiled_files(tmp_path):
    (tmp_path / "a.py").write_text("x")
    before = common.input_hash([tmp_path])
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.pyc").write_text("x")
    assert common.input_hash([tmp_path]) == before


MOUNTS = """\
22 28 0:20 / /proc rw - proc proc rw
30 28 0:30 / /cache/tmp/root/proc rw - proc proc rw
31 28 0:31 / /cache/tmp/root/dev rw - devtmpfs udev rw
32 31 0:32 / /cache/tmp/root/dev/pts rw - devpts devpts rw
33 28 0:33 / /cache/tmp/rooted rw - tmpfs t rw
34 28 0:34 / /cache/tmp/root/with\\040space rw - tmpfs t rw
"""


def test_mounts_below_are_told_deepest_first():
    found = common.mounts_below("/cache/tmp/root", MOUNTS)
    assert set(found) == {"/cache/tmp/root/proc", "/cache/tmp/root/dev", "/cache/tmp/root/dev/pts", "/cache/tmp/root/with space"}
    assert found.index("/cache/tmp/root/dev/pts") < found.index("/cache/tmp/root/dev")


def test_remove_tree_takes_folders_files_links_and_nothing(tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("x")
    folder, link = tmp_path / "folder", tmp_path / "link"
    folder.mkdir()
    (folder / "inner").symlink_to(kept)
    link.symlink_to(kept)
    for path in (folder, link, tmp_path / "never was"):
        common.remove_tree(path)
        assert not os.path.lexists(path)
    assert (kept / "file").exists()


def test_remove_tree_outlasts_a_process_that_still_writes(tmp_path, monkeypatch):
    folder, real, calls = tmp_path / "folder", common.shutil.rmtree, []
    folder.mkdir()

    def late(path):
        calls.append(path)
        if len(calls) < 3:
            raise OSError(39, "Directory not empty")
        real(path)

    monkeypatch.setattr(common.shutil, "rmtree", late)
    monkeypatch.setattr(common.time, "sleep", lambda seconds: None)
    common.remove_tree(folder)
    assert not folder.exists() and len(calls) == 3
    folder.mkdir()
    monkeypatch.setattr(common.shutil, "rmtree", lambda path: late("never") if calls.clear() is None else None)
    with pytest.raises(OSError, match="not empty"):
        common.remove_tree(folder)


def test_remove_tree_refuses_what_stays_mounted(tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    (folder / "proc").mkdir(parents=True)
    monkeypatch.setattr(common, "mounts_below", lambda path: [str(folder / "proc")])
    with pytest.raises(SandboxError, match="is mounted and will not let go"):
        common.remove_tree(folder)
    assert folder.exists()


def test_need_space_tells_what_is_there_and_what_is_needed(tmp_path):
    common.need_space(tmp_path / "new", 0.000001, "a file")
    with pytest.raises(SandboxError, match=r"GiB free; a moon needs about 1e\+09 GiB"):
        common.need_space(tmp_path, 1e9, "a moon")


def test_write_private_replaces_in_one_step(tmp_path):
    path = tmp_path / "folder" / "file"
    common.write_private(path, "one")
    common.write_private(path, "two", mode=0o600)
    assert path.read_text() == "two" and path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_process_runs_needs_the_marker():
    assert common.process_runs(os.getpid(), "pytest") or common.process_runs(os.getpid(), "python")
    assert not common.process_runs(os.getpid(), "/no such marker/")
    assert not common.process_runs(2 ** 22 + 1, "")


def test_read_pid_takes_no_nonsense(tmp_path):
    assert common.read_pid(tmp_path / "none") is None
    (tmp_path / "pid").write_text("abc\n")
    assert common.read_pid(tmp_path / "pid") is None
    (tmp_path / "pid").write_text("12\n")
    assert common.read_pid(tmp_path / "pid") == 12


def test_stop_process_ends_the_one_and_leaves_a_stranger():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)  # ours"])
    try:
        common.stop_process(process.pid, "not its marker", "it")
        assert process.poll() is None
        # Until exec the child's command line is ours.
        common.wait_for(lambda: common.process_runs(process.pid, "# ours"), "the child", 300, pause_s=0.01)
        common.stop_process(process.pid, "# ours", "it")
        assert not pathlib.Path(f"/proc/{process.pid}").exists() or process.wait(timeout=10) == -signal.SIGTERM
    finally:
        process.kill()
        process.wait()


def test_stop_process_that_is_paused():
    process = subprocess.Popen([sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGSTOP)
        common.stop_process(process.pid, "time.sleep", "it", timeout_s=60)
        # By the polite signal, not by the other one.
        assert process.returncode in (None, -signal.SIGTERM) and process.wait(timeout=10) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_stop_process_that_does_not_listen():
    script = "import signal, sys, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf', flush=True)\ntime.sleep(600)\n"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "deaf\n"
        common.stop_process(process.pid, "signal.SIG_IGN", "it", timeout_s=0.1)
        assert not common.process_runs(process.pid, "signal.SIG_IGN")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_environment_int(monkeypatch):
    monkeypatch.delenv("SANDBOX_X", raising=False)
    assert common.environment_int("SANDBOX_X", 5) == 5
    monkeypatch.setenv("SANDBOX_X", "7")
    assert common.environment_int("SANDBOX_X", 5) == 7
    monkeypatch.setenv("SANDBOX_X", "7g")
    with pytest.raises(SandboxError, match="SANDBOX_X is '7g'"):
        common.environment_int("SANDBOX_X", 5)


def test_tail_of_nothing_is_nothing(tmp_path):
    assert common.tail(tmp_path / "none") == ""
    (tmp_path / "log").write_text("\n".join(str(number) for number in range(100)))
    assert common.tail(tmp_path / "log", 2) == "98\n99"
