# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils._package_failure import explain, offered

PACKAGE = "nvidia-container-toolkit"
MADISON = """\
nvidia-container-toolkit |   1.17.9-1 | file:/srv/mirror/stable/deb/amd64  Packages
nvidia-container-toolkit |   1.19.1-1 | file:/srv/mirror/stable/deb/amd64  Packages
nvidia-container-toolkit |   1.19.1-1 | file:/srv/other  Packages
nvidia-container-toolkit | 1.19.1~rc.2-1 | file:/srv/mirror/stable/deb/amd64  Packages
nvidia-container-toolkit-base | 1.20.0-1 | file:/srv/mirror/stable/deb/amd64  Packages
"""
DNF = """\
Last metadata expiration check: 0:00:10 ago on Mon Nov 23 17:00:00 2026.
Installed Packages
nvidia-container-toolkit.x86_64          1.18.2-1          @nvidia-container-toolkit
Available Packages
nvidia-container-toolkit.x86_64          1.9.0-1           nvidia-container-toolkit
nvidia-container-toolkit.x86_64          0:1.19.1-1        nvidia-container-toolkit
nvidia-container-toolkit-base.x86_64     1.20.0-1          nvidia-container-toolkit
"""


def test_the_versions_there_are_newest_first():
    assert offered(MADISON, PACKAGE) == ["1.19.1-1", "1.19.1~rc.2-1", "1.17.9-1"]
    assert offered(DNF, PACKAGE) == ["1.19.1-1", "1.18.2-1", "1.9.0-1"]
    assert offered("", PACKAGE) == [] == offered("E: No packages found\n", PACKAGE)


# What the package managers say, as apt 2.6 (gpgv) and 3.0 (sqv), dnf 4 and Ansible's modules hand it on.
SIGNATURE = [
    "Failed to update apt cache after 2 retries: W:GPG error: file:/srv/mirror  InRelease: The following signatures couldn't be verified because the public "
    "key is not available: NO_PUBKEY DDCAE044F796ECB0, E:The repository 'file:/srv/mirror  InRelease' is not signed.",
    "W:OpenPGP signature verification failed: file:/srv/mirror  InRelease: Sub-process /usr/bin/sqv returned an error code (1), error message is: Missing "
    "key 2D3F0A4B5C6D7E8F901234567890ABCDEF012345, which is needed to verify signature., E:The repository 'file:/srv/mirror InRelease' is not signed.",
    "W:OpenPGP signature verification failed: file:/srv/mirror  InRelease: Sub-process /usr/bin/sqv returned an error code (1), error message is: "
    "Verifying signature:            Message has been manipulated, E:The repository 'file:/srv/mirror  InRelease' is not signed.",
    "W:GPG error: https://mirror  InRelease: The following signatures were invalid: BADSIG DDCAE044F796ECB0 NVIDIA CORPORATION",
    "Failed to download metadata for repo 'nvidia-container-toolkit': repomd.xml GPG signature verification error: Bad GPG signature",
]
UNREACHABLE = [
    "Failed to update apt cache: W:Failed to fetch http://127.0.0.1:9/InRelease  Could not connect to 127.0.0.1:9 (127.0.0.1). - connect (111: "
    "Connection refused)",
    "The repository 'file:/srv/none  Release' does not have a Release file.",
    "Failed to update apt cache after 2 retries: ",
    "Failed to download metadata for repo 'nvidia-container-toolkit': Cannot download repomd.xml: All mirrors were tried",
]
KEY = ["Request failed: <urlopen error [Errno -3] Temporary failure in name resolution>", "HTTP Error 404: Not Found"]
UNKNOWN = [
    "no available installation candidate for nvidia-container-toolkit=9.9.9-1",
    "E: Version '9.9.9-1' for 'nvidia-container-toolkit' was not found",
    "Failed to install some of the specified packages: No package nvidia-container-toolkit-9.9.9-1 available.",
]


def said(text, listing=""):
    return explain(text, package=PACKAGE, version="9.9.9-1", repository="https://mirror/deb", key="https://mirror/gpgkey", listing=listing)


@pytest.mark.parametrize("text", SIGNATURE)
def test_a_bad_signature(text):
    found = said(text, MADISON)
    assert "signature of the repository https://mirror/deb is not good by the key https://mirror/gpgkey" in found and text[:12] in found


@pytest.mark.parametrize("text, key", [(SIGNATURE[0], "DDCAE044F796ECB0"), (SIGNATURE[1], "2D3F0A4B5C6D7E8F901234567890ABCDEF012345")])
def test_the_key_that_was_wanted_is_named(text, key):
    assert f"it names the key {key}" in said(text)


@pytest.mark.parametrize("text", UNREACHABLE)
def test_a_repository_out_of_reach(text):
    assert "https://mirror/deb cannot be reached" in said(text) and "package files" in said(text)


@pytest.mark.parametrize("text", KEY)
def test_a_key_out_of_reach(text):
    assert "The key https://mirror/gpgkey cannot be fetched" in said(text)


@pytest.mark.parametrize("text", UNKNOWN)
def test_an_unknown_version_names_the_versions_there_are(text):
    assert "has no nvidia-container-toolkit 9.9.9-1; there are 1.19.1-1, 1.19.1~rc.2-1, 1.17.9-1." in said(text, MADISON)
    # apt goes on with a warning where a repository does not answer, and then knows no version at all.
    assert "cannot be reached" in said(text)


def test_many_versions_are_counted():
    listing = "".join(f"{PACKAGE} | 1.{minor}.0-1 | x\n" for minor in range(9, 20))
    assert "there are 1.19.0-1, 1.18.0-1, 1.17.0-1, 1.16.0-1, 1.15.0-1 and 6 older." in said(UNKNOWN[0], listing)


def test_a_key_that_is_another():
    found = said("The checksum for /etc/apt/keyrings/x.asc did not match 00ff; it was 11aa.")
    assert found.startswith("The key https://mirror/gpgkey has not the SHA-256")


def test_package_files_that_do_not_go_together():
    assert "one and the same version" in said("Dependency is not satisfiable: nvidia-container-toolkit-base (= 1.19.1-1)")


def test_anything_else_is_told_as_it_was_said():
    assert said("dpkg was interrupted").endswith("The package manager said: dpkg was interrupted")
    assert said("") == "The packages could not be installed."
    assert len(said("x " * 5000)) < 800
