# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role asks the package managers for, and the settings it refuses."""
from __future__ import annotations

import hashlib
import importlib.util
import pathlib

import pytest

HERE = pathlib.Path(__file__).resolve().parent


def load(name):
    spec = importlib.util.spec_from_file_location(f"roles_{name}", HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


plans, render = load("plans"), load("render").render
PACKAGES = ["libnvidia-container1", "libnvidia-container-tools", "nvidia-container-toolkit-base", "nvidia-container-toolkit"]
KEY = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nnot a key\n-----END PGP PUBLIC KEY BLOCK-----\n"
SUM = "0" * 64
GPU = {
    "plan_decided": plans.plan(plans.gpu()), "plan_container_toolkit_version": "1.19.1",
    # What preflight reads of a new host.
    "__nvidia_container_toolkit_found": {"stdout_lines": []},
}


def files(version="1.19.1-1", between="_", ending="_amd64.deb", names=tuple(reversed(PACKAGES))):
    return [{"path": f"/srv/{name}{between}{version}{ending}", "sha256": SUM} for name in names]


OFFLINE = {"nvidia_container_toolkit_source": "files"}
CASES = {
    "new host": {},
    "installed": {"__nvidia_container_toolkit_found": {"stdout_lines": [f"{name}=1.19.1-1 installed" for name in PACKAGES]}},
    "half": {"__nvidia_container_toolkit_found": {"stdout_lines": [
        "libnvidia-container1=1.19.1-1 installed", "libnvidia-container-tools=1.19.1-1 config-files", "nvidia-container-toolkit=1.18.0-1 installed"]}},
    "older": {"nvidia_container_toolkit_version": "1.17.9"},
    "revision": {"nvidia_container_toolkit_version": "1.19.1-2"},
    "mirror": {"nvidia_container_toolkit_repository_url": "file:/srv/mirror", "nvidia_container_toolkit_repository_key": "file:///srv/mirror/key.gpg"},
    "key as text": {"nvidia_container_toolkit_repository_key": KEY, "nvidia_container_toolkit_repository_key_sha256": hashlib.sha256(KEY.encode()).hexdigest()},
    "key on the host": {"nvidia_container_toolkit_repository_key": "/srv/key.asc", "nvidia_container_toolkit_repository_key_sha256": SUM,
                        "__nvidia_container_toolkit_key_stat": {"stat": {"exists": True, "checksum": SUM}}},
    "files": {**OFFLINE, "nvidia_container_toolkit_package_files": files()},
    "files on the host": {**OFFLINE, "nvidia_container_toolkit_package_files": files(), "nvidia_container_toolkit_package_files_on_host": True},
}
WRONG = {
    "no gpu": ({"plan_decided": plans.plan()}, ["no GPU", "Leave this role out"]),
    "no version": ({"plan_container_toolkit_version": ""}, ["plan_container_toolkit_version", '""']),
    "a name for a version": ({"nvidia_container_toolkit_version": "newest"}, ['"newest"', "1.19.1"]),
    "no key": ({"nvidia_container_toolkit_repository_key": "gpgkey"}, ["neither a URL"]),
    "no sha256": ({"nvidia_container_toolkit_repository_key_sha256": "abc"}, ['"abc"', "64 hexadecimal"]),
    "another key": ({"nvidia_container_toolkit_repository_key": KEY, "nvidia_container_toolkit_repository_key_sha256": SUM},
                    ["given as text", hashlib.sha256(KEY.encode()).hexdigest(), SUM]),
    "another key on the host": (
        {"nvidia_container_toolkit_repository_key": "/srv/key.asc", "nvidia_container_toolkit_repository_key_sha256": SUM,
         "__nvidia_container_toolkit_key_stat": {"stat": {"exists": False}}}, ["/srv/key.asc", "(no such file)"]),
    "no files": (OFFLINE, ["nvidia_container_toolkit_package_files", "none"]),
    "three files": ({**OFFLINE, "nvidia_container_toolkit_package_files": files()[:3]}, ["one file of each"]),
    "one file twice": ({**OFFLINE, "nvidia_container_toolkit_package_files": files()[:3] + files()[:1]}, ["one file of each"]),
    "files of another family": ({**OFFLINE, "nvidia_container_toolkit_package_files": files(between="-", ending=".x86_64.rpm")}, ["one file of each"]),
    "files of another version": ({**OFFLINE, "nvidia_container_toolkit_package_files": files("1.18.2-1")}, ["not of version 1.19.1", "1.18.2-1"]),
    "files without a sum": (
        {**OFFLINE, "nvidia_container_toolkit_package_files": [dict(file, sha256="") for file in files()]}, ["sha256"]),
}
WANTED = ["wanted", "missing", "url", "key", "places", "unit", "has_units", "docker_needs_cdi"]


@pytest.fixture(name="rendered", scope="module")
def fixture_rendered(tmp_path_factory):
    facts = {"os_family": "Debian", "architecture": "x86_64"}
    names = [f"__nvidia_container_toolkit_{name}" for name in WANTED]
    docker = {"__nvidia_container_toolkit_engine": {"container_engine": {"version": "26.1.5"}}}
    found = {}
    everything = {**CASES, **{name: case for name, (case, unused) in WRONG.items()}}
    refused = render(tmp_path_factory.mktemp("refused"), "nvidia_container_toolkit", ["__nvidia_container_toolkit_problems"],
                     [{**GPU, **case} for case in everything.values()], facts)
    made = render(tmp_path_factory.mktemp("made"), "nvidia_container_toolkit", names, [{**GPU, **docker, **case} for case in CASES.values()], facts)
    for name, result in zip(everything, refused):
        found[name] = [text for text in result["__nvidia_container_toolkit_problems"] if text]
    return found, {name: {key: result[f"__nvidia_container_toolkit_{key}"] for key in WANTED} for name, result in zip(CASES, made)}


@pytest.mark.parametrize("name", CASES)
def test_what_can_work_is_not_refused(rendered, name):
    assert rendered[0][name] == []


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_work_is_refused(rendered, name):
    found = rendered[0][name]
    assert len(found) == 1 and all(word in found[0] for word in WRONG[name][1]), found


def test_all_four_packages_at_one_version(rendered):
    for name, version in (("new host", "1.19.1-1"), ("older", "1.17.9-1"), ("revision", "1.19.1-2")):
        assert rendered[1][name]["wanted"] == [f"{package}={version}" for package in PACKAGES]


def test_what_is_missing(rendered):
    made = rendered[1]
    assert made["new host"]["missing"] == made["new host"]["wanted"] and made["installed"]["missing"] == []
    # One that was removed and left its configuration, one that was never there, and one of another version.
    assert made["half"]["missing"] == [f"{package}=1.19.1-1" for package in PACKAGES[1:]]


def test_the_official_repository_or_a_mirror(rendered):
    made = rendered[1]
    assert made["new host"]["url"] == "https://nvidia.github.io/libnvidia-container/stable/deb/$(ARCH)"
    assert made["mirror"]["url"] == "file:/srv/mirror"


@pytest.mark.parametrize("name, place", [
    ("new host", "/etc/apt/keyrings/nvidia-container-toolkit.asc"), ("key as text", "/etc/apt/keyrings/nvidia-container-toolkit.asc"),
    ("mirror", "/etc/apt/keyrings/nvidia-container-toolkit.gpg"), ("key on the host", "/srv/key.asc"),
])
def test_where_the_key_lies(rendered, name, place):
    assert rendered[1][name]["key"] == place


def test_files_come_in_the_order_of_their_needs(rendered):
    names = [f"{package}_1.19.1-1_amd64.deb" for package in PACKAGES]
    assert rendered[1]["files"]["places"] == [f"/var/cache/erni-ki/nvidia-container-toolkit/{name}" for name in names]
    assert rendered[1]["files on the host"]["places"] == [f"/srv/{name}" for name in names]


def test_who_keeps_the_specification_fresh(rendered):
    assert rendered[1]["new host"]["unit"] == "nvidia-cdi-refresh" and rendered[1]["older"]["unit"] == "erni-ki-cdi"


@pytest.fixture(name="docker", scope="module")
def fixture_docker(tmp_path_factory):
    versions = {"26.1.5": True, "28.1.1": True, "28.2.0": False, "29.0.1": False, None: True}
    cases = [{**GPU, "__nvidia_container_toolkit_engine": {"container_engine": {"version": version}}} for version in versions]
    wanted = "__nvidia_container_toolkit_docker_needs_cdi"
    return list(versions.values()), [case[wanted] for case in render(tmp_path_factory.mktemp("docker"), "nvidia_container_toolkit", [wanted], cases)]


def test_where_cdi_is_switched_on(docker):
    assert docker[0] == docker[1]


@pytest.fixture(name="enterprise", scope="module")
def fixture_enterprise(tmp_path_factory):
    wanted = ["__nvidia_container_toolkit_wanted", "__nvidia_container_toolkit_key", "__nvidia_container_toolkit_url",
              "__nvidia_container_toolkit_places", "__nvidia_container_toolkit_problems"]
    case = {**GPU, **OFFLINE, "nvidia_container_toolkit_package_files": files(between="-", ending=".x86_64.rpm"),
            "nvidia_container_toolkit_package_files_on_host": True}
    return render(tmp_path_factory.mktemp("enterprise"), "nvidia_container_toolkit", wanted, [case], {"os_family": "RedHat", "architecture": "x86_64"})[0]


def test_enterprise_linux(enterprise):
    assert enterprise["__nvidia_container_toolkit_wanted"] == [f"{package}-1.19.1-1" for package in PACKAGES]
    assert enterprise["__nvidia_container_toolkit_key"] == "/etc/pki/rpm-gpg/RPM-GPG-KEY-nvidia-container-toolkit"
    assert enterprise["__nvidia_container_toolkit_url"].endswith("/stable/rpm/$basearch")
    assert enterprise["__nvidia_container_toolkit_places"] == [f"/srv/{package}-1.19.1-1.x86_64.rpm" for package in PACKAGES]
    assert [text for text in enterprise["__nvidia_container_toolkit_problems"] if text] == []


FRESH = {
    "fresh": ("580.95.05", "580.95.05", [f"nvidia.com/gpu={plans.UUID}", "nvidia.com/gpu=0"], True),
    "of a driver that nobody names": (None, "580.95.05", [f"nvidia.com/gpu={plans.UUID}"], True),
    "of another driver": ("570.10", "580.95.05", [f"nvidia.com/gpu={plans.UUID}"], False),
    "without the gpu": ("580.95.05", "580.95.05", ["nvidia.com/gpu=0", "nvidia.com/gpu=all"], False),
    "none": (None, "580.95.05", [], False),
}


@pytest.fixture(name="specifications", scope="module")
def fixture_specifications(tmp_path_factory):
    cases = [{**GPU, "__nvidia_container_toolkit_gpu": {"gpu": {
        "driver_version": driver, "toolkit": {"cdi_driver_version": written, "cdi_devices": devices}}}} for written, driver, devices, unused in FRESH.values()]
    wanted = "__nvidia_container_toolkit_fresh"
    return dict(zip(FRESH, (case[wanted] for case in render(tmp_path_factory.mktemp("fresh"), "nvidia_container_toolkit", [wanted], cases))))


@pytest.mark.parametrize("name", FRESH)
def test_a_fresh_specification(specifications, name):
    assert specifications[name] is FRESH[name][3]
