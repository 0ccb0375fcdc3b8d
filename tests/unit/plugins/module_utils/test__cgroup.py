# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Control groups of both versions, and the probe for device permission."""
from __future__ import annotations

import errno
import os
import pathlib
import stat

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils import _cgroup
from ansible_collections.erni_ki.inference.plugins.module_utils._procs import Unreadable
from ansible_collections.erni_ki.inference.tests.unit.plugins.recorded_host import IDS, KINDS, Host


@pytest.fixture(name="host", params=KINDS)
def host_fixture(tmp_path, request):
    return Host(tmp_path, request.param)


@pytest.fixture(name="v2")
def v2_fixture(tmp_path):
    return Host(tmp_path)


def groups_of(host):
    return _cgroup.Groups(host.root)


def test_of_process(host):
    groups = groups_of(host)
    for controller in ("cpuset", "memory", "devices"):
        group = groups.of_process(1020, controller)
        assert (group.version, group.path) == (host.version, host.group_path("vllm"))
        assert group.folder == host.folder(host.group_path("vllm"), controller)
        assert groups.exists(group) or controller == "devices" and host.version == 1
        assert group.cut(IDS["vllm"]).path == group.path
        assert group.cut("erniki-vllm").path.endswith("/erniki-vllm.slice")
        assert group.cut("ffff") is None
    assert groups.version_of("cpuset") == host.version


def test_values(host):
    group = groups_of(host).of_process(1000, "cpuset")
    memory = groups_of(host).of_process(1000, "memory")
    assert _cgroup.effective_cpus(group)[1] == "0-6,8-14"
    assert _cgroup.effective_mems(group)[1] == "0"
    assert _cgroup.memory_limit(memory)[1] == 6144 << 20
    assert _cgroup.swap_limit(memory)[1] == 6144 << 20
    assert _cgroup.memory_reservation(memory)[1] == 2048 << 20
    assert _cgroup.oom_kills(memory)[1] == 0
    assert all(read(memory)[0].startswith(memory.folder) for read in (_cgroup.memory_limit, _cgroup.swap_limit, _cgroup.memory_reservation, _cgroup.oom_kills))


def test_no_limits(host):
    memory = groups_of(host).of_process(1000, "memory")
    text = "max\n" if host.version == 2 else "9223372036854771712\n"
    for name in ("memory.max", "memory.swap.max") if host.version == 2 else ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"):
        host.write(host.container_file("vllm", name), text)
    assert _cgroup.memory_limit(memory)[1] is None
    assert _cgroup.swap_limit(memory)[1] is None


def test_an_old_kernel_of_version_1(tmp_path):
    host = Host(tmp_path, "v1-cgroupfs")
    host.remove(host.container_file("vllm", "cpuset.effective_cpus"))
    host.write(host.container_file("vllm", "cpuset.cpus"), "0-5\n")
    name, cpus = _cgroup.effective_cpus(groups_of(host).of_process(1000, "cpuset"))
    assert (os.path.basename(name), cpus) == ("cpuset.cpus", "0-5")
    host.write(host.container_file("vllm", "memory.oom_control"), "oom_kill_disable 0\nunder_oom 0\n")
    with pytest.raises(Unreadable, match="this kernel does not count oom_kill there"):
        _cgroup.oom_kills(groups_of(host).of_process(1000, "memory"))


def test_a_file_that_may_not_be_read(v2, monkeypatch):
    group = groups_of(v2).of_process(1000, "cpuset")

    def refuse(name):
        raise Unreadable(name, "Permission denied")
    monkeypatch.setattr(group, "read", refuse)
    with pytest.raises(Unreadable, match="Permission denied"):
        _cgroup.effective_cpus(group)


def test_pids_of_all_groups_below(host):
    group = host.group_path("vllm")
    host.process(1500, "nested", group + "/inner/most", "0")
    assert groups_of(host).of_process(1000, "cpuset").pids() == {1000, 1010, 1020, 1500}


@pytest.mark.parametrize("number, fails", [(errno.ENODEV, False), (errno.EOPNOTSUPP, False), (errno.EACCES, True)])
def test_pids_of_a_group_that_does_not_tell(v2, monkeypatch, number, fails):
    group = groups_of(v2).of_process(1000, "cpuset")

    def refuse(*args, **kwargs):
        raise OSError(number, os.strerror(number))
    monkeypatch.setattr("builtins.open", refuse)
    if fails:
        with pytest.raises(Unreadable, match="cgroup.procs: Permission denied"):
            group.pids()
    else:
        assert group.pids() == set()


@pytest.mark.parametrize("unit, path", [
    ("erniki-vllm.slice", "/erniki.slice/erniki-vllm.slice"), ("erniki.slice", "/erniki.slice"), ("a-b-c.slice", "/a.slice/a-b.slice/a-b-c.slice"),
    ("init.scope", "/init.scope"), ("docker.service", "/docker.service"), ("slice", "/slice"),
])
def test_unit_path(unit, path):
    assert _cgroup.unit_path(unit) == path


def test_of_unit(host):
    groups = groups_of(host)
    assert groups.exists(groups.of_unit("user.slice", "cpuset"))
    assert not groups.exists(groups.of_unit("machine.slice", "cpuset"))


def test_the_top(v2):
    group = groups_of(v2).at("/", "cpuset")
    assert (group.folder, group.parent()) == ("/sys/fs/cgroup", None)


def test_a_mount_that_is_not_of_the_top(v2):
    v2.write("/proc/self/mountinfo", "30 23 0:26 /lxc/box /sys/fs\\040x rw - cgroup2 cgroup2 rw\n")
    groups = groups_of(v2)
    assert groups.at("/lxc/box/a", "cpuset").folder == "/sys/fs x/a"
    assert groups.at("/lxc/box", "cpuset").path == "/"
    assert groups.at("/lxc/boxer", "cpuset").path == "/lxc/boxer"


def test_seen_from_a_container(v2):
    with pytest.raises(Unreadable, match="outside of what can be seen from here"):
        groups_of(v2).at("/../other", "cpuset")


def test_nothing_mounted(v2):
    v2.write("/proc/self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/vda rw\n")
    with pytest.raises(Unreadable, match="no control groups that serve cpuset are mounted"):
        groups_of(v2).of_process(1000, "cpuset")


def test_a_process_in_no_group(v2):
    v2.write("/proc/1000/cgroup", "odd\n3:memory:/x\n")
    with pytest.raises(Unreadable, match="/proc/1000/cgroup: it names no group for cpuset"):
        groups_of(v2).of_process(1000, "cpuset")


def test_this_very_process():
    groups = _cgroup.Groups()
    assert os.getpid() in groups.of_process(os.getpid(), "memory").pids()


@pytest.mark.parametrize("text, lines", [
    ("c 136:* rwm\nc *:* m\nb *:* m\nc 1:3 rwm\n", []),
    ("a *:* rwm\n", ["a *:* rwm"]),
    ("c 195:* rw\n", ["c 195:* rw"]),
    ("c 195:0 r\nc 195:255 w\n", ["c 195:0 r", "c 195:255 w"]),
    ("c 195:* m\nb 195:* rwm\nc 510:0 rwm\n", []),
    ("c 511:0 rwm\n", ["c 511:0 rwm"]),
    ("c *:* r\n", ["c *:* r"]),
    ("odd\n", []),
])
def test_granted_by_list(text, lines):
    assert _cgroup.granted_by_list(text, {195, 511}) == lines


# ---- the probe


@pytest.fixture(name="group")
def group_fixture(tmp_path):
    """A folder that can be joined like a group: what the child writes lands in a file."""
    (tmp_path / "group").mkdir()
    (tmp_path / "group" / "cgroup.procs").write_text("", encoding="utf-8")
    return tmp_path / "group"


def test_probe_asks_from_inside(group):
    assert _cgroup.probe_devices(str(group), [], ["/dev/null", "/dev/erni-ki-none"]) == [("/dev/null", True)]
    assert (group / "cgroup.procs").read_text(encoding="utf-8") == "0"


@pytest.mark.parametrize("outcome, granted", [(0, True), (errno.ENXIO, True), (errno.EIO, True), (errno.EPERM, False)])
def test_what_an_outcome_means(group, monkeypatch, outcome, granted):
    monkeypatch.setattr(_cgroup, "_try_open", lambda handle: outcome)
    assert _cgroup.probe_devices(str(group), [], ["/dev/null"]) == [("/dev/null", granted)]


def test_a_refusal_by_something_else_proves_nothing(group, monkeypatch):
    monkeypatch.setattr(_cgroup, "_try_open", lambda handle: errno.EACCES)
    with pytest.raises(_cgroup.ProbeImpossible, match="/dev/null: access is refused by something other than the control group"):
        _cgroup.probe_devices(str(group), [], ["/dev/null"])


def test_a_refusal_outside_proves_nothing(group, monkeypatch):
    monkeypatch.setattr(_cgroup, "_node_without_a_name", lambda major, minor, folders: os.open("/dev/null", os.O_PATH))
    monkeypatch.setattr(_cgroup, "_try_open", lambda handle: errno.EPERM)
    with pytest.raises(_cgroup.ProbeImpossible, match="character device 195:255 cannot be opened outside of the container either"):
        _cgroup.probe_devices(str(group), [(195, 255)])


def test_number_and_node(group, monkeypatch):
    """Refused inside, not refused outside."""
    parent = os.getpid()
    monkeypatch.setattr(_cgroup, "_node_without_a_name", lambda major, minor, folders: os.open("/dev/null", os.O_PATH))
    monkeypatch.setattr(_cgroup, "_try_open", lambda handle: errno.ENXIO if os.getpid() == parent else errno.EPERM)
    assert _cgroup.probe_devices(str(group), [(195, 255)], ["/dev/zero"]) == [("character device 195:255", False), ("/dev/zero", False)]


def test_no_handle_is_left_open(group):
    before = set(os.listdir("/proc/self/fd"))
    _cgroup.probe_devices(str(group), [], ["/dev/null"])
    with pytest.raises(_cgroup.ProbeImpossible):
        _cgroup.probe_devices(str(group / "gone"), [], ["/dev/null"])
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_group_that_is_gone(group):
    with pytest.raises(_cgroup.ProbeImpossible, match="cgroup.procs cannot be written: No such file or directory"):
        _cgroup.probe_devices(str(group / "gone"), [], ["/dev/null"])


def test_a_group_that_refuses_the_child(group):
    (group / "cgroup.procs").unlink()
    # Writing to it fails with ENOSPC, as joining may fail with ENODEV or EBUSY.
    (group / "cgroup.procs").symlink_to("/dev/full")
    with pytest.raises(_cgroup.ProbeImpossible, match="the probe could not join .*: No space left on device"):
        _cgroup.probe_devices(str(group), [], ["/dev/null"])


def test_a_probe_that_hangs(group, monkeypatch):
    reader, writer = os.pipe()
    # Nothing is ever written, so the child waits for ever.
    monkeypatch.setattr(_cgroup, "_try_open", lambda handle: os.read(reader, 1))
    try:
        with pytest.raises(_cgroup.ProbeImpossible, match="the probe gave no answer within 0.1 s"):
            _cgroup.probe_devices(str(group), [], ["/dev/null"], timeout=0.1)
    finally:
        os.close(reader)
        os.close(writer)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_node_that_may_not_be_seen(group, monkeypatch):
    def refuse(path, *args, **kwargs):
        raise PermissionError(13, "Permission denied")
    with monkeypatch.context() as patched:
        patched.setattr(_cgroup.os, "open", refuse)
        with pytest.raises(_cgroup.ProbeImpossible, match="/dev/null: Permission denied"):
            _cgroup.probe_devices(str(group), [], ["/dev/null"])


def test_visit(group, monkeypatch, tmp_path):
    """What the child does, in this process, which does not volunteer to die."""
    said = tmp_path / "said"
    monkeypatch.setattr("builtins.open", lambda *args, **kwargs: (tmp_path / "score").open("w", encoding="ascii"))
    procs, writer = os.open(group / "cgroup.procs", os.O_WRONLY), os.open(said, os.O_WRONLY | os.O_CREAT)
    null = os.open("/dev/null", os.O_PATH)
    try:
        _cgroup._visit(procs, [null, 999999], writer)
    finally:
        for handle in (procs, writer, null):
            os.close(handle)
    assert pathlib.Path(said).read_text(encoding="ascii") == '{"tried": [0, %d]}' % errno.ENOENT
    assert (tmp_path / "score").read_text(encoding="ascii") == "1000"


def test_visit_that_cannot(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise OSError(30, "Read-only file system")
    said = tmp_path / "said"
    writer = os.open(said, os.O_WRONLY | os.O_CREAT)
    monkeypatch.setattr("builtins.open", refuse)
    try:
        _cgroup._visit(-1, [], writer)
    finally:
        os.close(writer)
    assert said.read_bytes() == b'{"error": "Read-only file system"}'


class Nodes:
    """Stands in for mknod, which only root may use."""

    def __init__(self, monkeypatch, fails=()):
        self.made = []
        self.fails = fails
        monkeypatch.setattr(_cgroup.os, "mknod", self)

    def __call__(self, path, mode, device):
        if any(folder in path for folder in self.fails):
            raise PermissionError(1, "Operation not permitted")
        self.made.append((path, mode, os.major(device), os.minor(device), stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode)))
        pathlib.Path(path).touch()


def test_a_node_without_a_name(tmp_path, monkeypatch):
    nodes = Nodes(monkeypatch)
    handle = _cgroup._node_without_a_name(195, 255, [str(tmp_path)])
    try:
        assert os.readlink(f"/proc/self/fd/{handle}").endswith("/node (deleted)")
    finally:
        os.close(handle)
    assert nodes.made[0][1:] == (0o600 | stat.S_IFCHR, 195, 255, 0o700)
    assert list(tmp_path.iterdir()) == []


def test_where_a_node_can_be_made(tmp_path, monkeypatch):
    for name in ("nodev", "refused", "good"):
        (tmp_path / name).mkdir()
    nodes = Nodes(monkeypatch, fails=["refused"])

    class Status:
        def __init__(self, path):
            self.f_flag = os.ST_NODEV if path.endswith("nodev") else 0
    monkeypatch.setattr(_cgroup.os, "statvfs", lambda path: Status(str(path)) if os.path.isdir(path) else os.stat(path))
    folders = [str(tmp_path / name) for name in ("gone", "nodev", "refused", "good")]
    os.close(_cgroup._node_without_a_name(195, 255, folders))
    assert "/good/" in nodes.made[0][0]
    with pytest.raises(_cgroup.ProbeImpossible) as error:
        _cgroup._node_without_a_name(195, 255, folders[:3])
    for part in ("no device node can be made", "gone: No such file or directory", "nodev is mounted nodev", "refused: Operation not permitted"):
        assert part in str(error.value)
    assert list((tmp_path / "refused").iterdir()) == []
