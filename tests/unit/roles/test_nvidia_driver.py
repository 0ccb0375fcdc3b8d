# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which branch the role installs, what it holds, and the settings it refuses."""
from __future__ import annotations

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
FOUND = {"__nvidia_driver_found": {"stdout_lines": [
    "nvidia-utils-580-server 580.95.05-0ubuntu1 installed", "libnvidia-compute-580-server 580.95.05-0ubuntu1 installed",
    "linux-modules-nvidia-580-server-generic 6.8.0-50 installed", "nvidia-settings 510 config-files",
    "nvidia-container-toolkit 1.19.1-1 installed", "libnvidia-container1 1.19.1-1 installed", "docker.io 26.1.5 installed"]}}


def device(allowed, **changes):
    return plans.plan({**plans.gpu(), "driver": {"found": "570.10", "allowed": allowed}, **changes})


CASES = {
    "pascal": {"plan_decided": device("570-580")},
    "ampere": {"plan_decided": device("550-", name="NVIDIA GeForce RTX 3060", compute_capability="8.6")},
    "asked for": {"plan_decided": device("570-580"), "nvidia_driver_branch": "570"},
    "no plan": {"nvidia_driver_branch": "580"},
    "packages": {"plan_decided": device("570-580"), "nvidia_driver_packages": ["my-driver"]},
    "open on ampere": {"plan_decided": device("550-", compute_capability="8.6"), "nvidia_driver_packages": ["nvidia-headless-580-open"]},
}
WRONG = {
    "too new": ({"plan_decided": device("570-580"), "nvidia_driver_branch": "595"}, ["595", "570-580", "Quadro P2200", "Set it to 580"]),
    "too old": ({"plan_decided": device("550-"), "nvidia_driver_branch": "535"}, ["535", "550-", "Set it to 550"]),
    "no branch": ({}, ["nvidia_driver_branch", "580"]),
    "a version": ({"plan_decided": device("570-580"), "nvidia_driver_branch": "580.95.05"}, ['"580.95.05"', "number"]),
    "open on pascal": ({"plan_decided": device("570-580"), "nvidia_driver_packages": ["nvidia-headless-580-open"]}, ["open kernel modules", "6.1"]),
    "no key": ({"plan_decided": device("570-580"), "nvidia_driver_repository_url": "https://mirror"}, ["nvidia_driver_repository_key"]),
}
WANTED = ["__nvidia_driver_branch", "__nvidia_driver_packages", "__nvidia_driver_installed"]


@pytest.fixture(name="rendered", scope="module")
def fixture_rendered(tmp_path_factory):
    facts = {"os_family": "Debian", "distribution": "Ubuntu"}
    everything = {**CASES, **{name: case for name, (case, unused) in WRONG.items()}}
    refused = render(tmp_path_factory.mktemp("refused"), "nvidia_driver", ["__nvidia_driver_problems"], everything.values(), facts)
    made = render(tmp_path_factory.mktemp("made"), "nvidia_driver", WANTED, [{**FOUND, **case} for case in CASES.values()], facts)
    return ({name: [text for text in result["__nvidia_driver_problems"] if text] for name, result in zip(everything, refused)}, dict(zip(CASES, made)))


@pytest.mark.parametrize("name", CASES)
def test_what_can_work_is_not_refused(rendered, name):
    assert rendered[0][name] == []


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_work_is_refused(rendered, name):
    found = rendered[0][name]
    assert len(found) == 1 and all(word in found[0] for word in WRONG[name][1]), found


@pytest.mark.parametrize("name, branch", [("pascal", "580"), ("ampere", "550"), ("asked for", "570"), ("no plan", "580")])
def test_the_branch(rendered, name, branch):
    assert rendered[1][name]["__nvidia_driver_branch"] == branch
    assert rendered[1][name]["__nvidia_driver_packages"] == [f"nvidia-headless-{branch}-server", f"nvidia-utils-{branch}-server"]


def test_what_is_held_is_the_driver_and_not_the_toolkit(rendered):
    assert rendered[1]["pascal"]["__nvidia_driver_installed"] == [
        "nvidia-utils-580-server 580.95.05-0ubuntu1", "libnvidia-compute-580-server 580.95.05-0ubuntu1", "linux-modules-nvidia-580-server-generic 6.8.0-50"]


@pytest.fixture(name="others", scope="module")
def fixture_others(tmp_path_factory):
    def one(os_family, distribution, wanted):
        return render(tmp_path_factory.mktemp(distribution), "nvidia_driver", [wanted],
                      [CASES["pascal"]], {"os_family": os_family, "distribution": distribution})[0][wanted]
    return {
        "Debian": one("Debian", "Debian", "__nvidia_driver_packages"), "Rocky": one("RedHat", "Rocky", "__nvidia_driver_packages"),
        "Devuan": one("Debian", "Devuan", "__nvidia_driver_problems")}


def test_other_distributions(others):
    assert others["Debian"] == ["nvidia-driver-pinning-580", "nvidia-driver-cuda", "nvidia-kernel-dkms"]
    assert others["Rocky"] == ["@nvidia-driver:580-dkms"]
    assert "nvidia_driver_packages" in next(text for text in others["Devuan"] if text)
