# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a failed installation from a repository means, read from what apt or dnf said."""
from __future__ import annotations

import re

# In this order: a repository that was refused for its signature offers no version either.
_CHECKSUM = re.compile(r"checksum for .* did not match|checksum did not match", re.IGNORECASE)
_SIGNATURE = re.compile(
    r"NO_PUBKEY|BADSIG|EXPKEYSIG|KEYEXPIRED|REVKEYSIG|invalid signature|is not signed|signature verification (?:failed|error)|Bad GPG signature"
    r"|Missing key|GPG error|GPG check FAILED|public key is not (?:available|installed)|no valid OpenPGP|not live until|Signing key on .* is not bound",
    re.IGNORECASE)
# Only the download of the key says it in these words.
_FETCH = re.compile(r"Request failed|HTTP Error \d", re.IGNORECASE)
_UNREACHABLE = re.compile(
    r"Could not (?:resolve|connect)|Connection (?:refused|timed out|reset|failed)|Temporary failure|No route to host|Network is unreachable|timed out"
    r"|Failed to fetch|does not have a Release file|404\s+Not Found|File not found|Curl error"
    # apt's library for Python says nothing more of a network that fails.
    r"|Failed to update apt cache(?: after \d+ retries)?:\s*(?:unknown reason)?\s*$"
    r"|Cannot download repomd|All mirrors were tried|Failed to download metadata|Status code: \d", re.IGNORECASE)
_UNKNOWN = re.compile(
    r"no available installation candidate|No package matching|Version .* was not found|No package .* available|Unable to find a match|nothing provides"
    r"|Unable to locate package", re.IGNORECASE)
_UNMET = re.compile(r"Dependency is not satisfiable|unmet dependencies|Depsolve Error|but it is not (?:going to be installed|installable)", re.IGNORECASE)
_KEY = re.compile(r"\b([0-9A-F]{16,40})\b")


def offered(listing, package):
    """Return the versions of a package, newest first, of C(apt-cache madison) or C(dnf list --showduplicates)."""
    found = []
    for line in listing.splitlines():
        apt = re.match(r"\s*(\S+)\s*\|\s*(\S+)\s*\|", line)
        dnf = re.match(r"(\S+)\.\w+\s+(?:\d+:)?(\S+)\s+\S+\s*$", line)
        match = apt or dnf
        if match and match.group(1) == package and match.group(2) not in found:
            found.append(match.group(2))
    return sorted(found, key=_sortable, reverse=True)


def _sortable(version):
    # A pre-release, 1.18.0~rc.1-1, is older than its release.
    return [(0, 0, "") if part == "~" else (2, int(part), "") if part.isdigit() else (1, 0, part)
            for part in re.findall(r"\d+|~|[A-Za-z]+", version) + ["zz"]]


def explain(said, package="", version="", repository="", key="", listing="", count=5):
    """Return what a failure means and what to do, in a few sentences."""
    text = " ".join(str(said).split())
    there = offered(listing, package)
    excerpt = f" The package manager said: {text[:600]}{'...' if len(text) > 600 else ''}" if text else ""
    if _CHECKSUM.search(text):
        return f"The key {key} has not the SHA-256 that was asked for, so it is not trusted. Compare both with the publisher's.{excerpt}"
    if _FETCH.search(text):
        return f"The key {key} cannot be fetched from this host. Check the address, a proxy and the network, or give the key as text.{excerpt}"
    if _SIGNATURE.search(text):
        named = _KEY.search(text)
        which = f" (it names the key {named.group(1)})" if named else ""
        return f"The signature of the repository {repository} is not good by the key {key}{which}. Give the repository's own key, or another mirror.{excerpt}"
    if _UNMET.search(text):
        return f"The packages need others that cannot be had. Give package files of one and the same version, all of them.{excerpt}"
    if _UNREACHABLE.search(text) or (_UNKNOWN.search(text) and not there):
        return (f"The repository {repository} cannot be reached from this host, or is none: it offers no version of {package}. "
                f"Check the address, a proxy and the network, or install from package files.{excerpt}")
    if _UNKNOWN.search(text):
        more = f" and {len(there) - count} older" if len(there) > count else ""
        return f"The repository {repository} has no {package} {version}; there are {', '.join(there[:count])}{more}.{excerpt}"
    return f"The packages could not be installed.{excerpt}"
