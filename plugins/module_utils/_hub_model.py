# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One revision of a model in a folder of this host: whether it is whole, what it still needs, and how it gets into its place.

A folder is whole when it holds a manifest, which is written last, and every file of it with its size. Checksums are compared once, before that.
"""
from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import stat
from typing import NamedTuple

from ansible_collections.erni_ki.inference.plugins.module_utils import _hub_script

MIB = 1 << 20
MANIFEST = "erni-ki-model.json"
# A list of ten thousand files with their checksums has 2 MB.
MAX_MANIFEST_BYTES = 16 << 20
MAX_FILES = 10000
MAX_FILE_BYTES = 1 << 50
# What the file system needs beside the files themselves.
SPARE_BYTES = 64 * MIB

_NAME = re.compile(r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9_])?(?:/[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9_])?)?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_CHECKSUMS = {"sha256": re.compile(r"[0-9a-f]{64}"), "blob": _COMMIT}


class HubError(Exception):
    """The model cannot be had; the text is for people."""


class Wanted(NamedTuple):
    """Which model: its name, its commit (empty for files that somebody copies), and where models lie."""

    name: str
    revision: str
    top: str

    @property
    def folder(self):
        return os.path.join(self.top, self.name.replace("/", "--"), self.revision or "local")

    @property
    def partial(self):
        """The folder in which the files gather; in the same file system, so that a rename brings them into their place."""
        return os.path.join(self.top, f".partial-{self.name.replace('/', '--')}-{self.revision or 'local'}")


def checked(name, revision, top, copied):
    """Return the Wanted, or raise HubError for a name or revision that cannot be one."""
    if not _NAME.fullmatch(name) or "--" in name or ".." in name or len(name) > 96:
        raise HubError(f"'{name}' is no name on the hub. It is an owner and a model, such as Qwen/Qwen2.5-0.5B-Instruct, of letters, digits, '-', '_' and '.'.")
    if not os.path.isabs(top):
        raise HubError(f"The folder for models is '{top}'; it has to begin at the root, such as /var/lib/erni-ki/vllm/models.")
    if copied and not revision:
        return Wanted(name, "", os.path.normpath(top))
    if not _COMMIT.fullmatch(revision):
        found = f"'{revision}' is no commit" if revision else "no revision is given"
        raise HubError(
            f"{name}: {found}. A commit, 40 hexadecimal digits, is needed: a branch or tag moves, and one run would get other files than the next."
            f" The hub shows it on the model's page under \"Files and versions\", \"History\"; git ls-remote URL-OF-THE-MODEL HEAD prints it too.")
    return Wanted(name, revision, os.path.normpath(top))


def mib(size):
    return f"{-(-size // MIB)} MiB"


def checked_files(files, who):
    """Return the list of files as it is to be used; HubError for a name that could leave the folder, or a size that is none."""
    if len(files) > MAX_FILES:
        raise HubError(f"{who} lists {len(files)} files, and a model has at most {MAX_FILES}.")
    kept = []
    for item in files:
        name, size = item.get("name"), item.get("size")
        parts = name.split("/") if isinstance(name, str) else [""]
        if any(part in ("", ".", "..") or part.startswith(".erni-ki-") or len(part) > 255 or not part.isprintable() for part in parts):
            raise HubError(f"{who} lists a file named {str(name)[:80]!r}, which cannot be in a model's folder.")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_FILE_BYTES:
            raise HubError(f"{who} tells {str(size)[:40]!r} as the size of {name}; a number of bytes is needed.")
        entry = {"name": name, "size": size}
        for kind, pattern in _CHECKSUMS.items():
            if item.get(kind):
                if not isinstance(item[kind], str) or not pattern.fullmatch(item[kind]):
                    raise HubError(f"{who} tells {str(item[kind])[:80]!r} as the checksum of {name}, which is none.")
                entry[kind] = item[kind]
        kept.append(entry)
    kept = [entry for entry in kept if entry["name"] != MANIFEST]
    if len({entry["name"] for entry in kept}) != len(kept):
        raise HubError(f"{who} lists a file twice.")
    if "config.json" not in {entry["name"] for entry in kept}:
        raise HubError(f"{who} lists no config.json among {len(kept)} files: it is not a model that vLLM can load.")
    return sorted(kept, key=lambda entry: entry["name"])


def files_of_controller(top, found):
    """Return the files that M(ansible.builtin.find) found below a folder of the controller, but for hidden ones, which no engine reads."""
    files = [{"name": os.path.relpath(str(item.get("path")), top), "size": item.get("size")} for item in found]
    files = [item for item in files if not any(part.startswith(".") and part != ".." for part in item["name"].split("/"))]
    return [dict(item, copied=True) for item in checked_files(files, f"The folder {top} on the controller")]


def read_manifest(folder):
    """Return (manifest, None), or (None, why there is none)."""
    path = os.path.join(folder, MANIFEST)
    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_MANIFEST_BYTES + 1)
        manifest = json.loads(data.decode("utf-8"))
        manifest["files"] = checked_files(manifest["files"], path)
        return {key: manifest[key] for key in ("name", "revision", "source", "files")}, None
    except FileNotFoundError:
        return None, f"{path} is not there, which is written when all files are"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, HubError) as error:
        return None, f"{path} cannot be used ({type(error).__name__})"


def size_of(path):
    """Return the size of a regular file, None where there is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def first_wrong(folder, files):
    """Return what is wrong with the first file that is not there as it should be, or None."""
    for item in files:
        size = size_of(os.path.join(folder, item["name"]))
        if size is None:
            return f"{item['name']} is missing"
        if size != item["size"]:
            return f"{item['name']} has {size} bytes instead of {item['size']}"
    return None


def look(wanted, files=None):
    """Return (manifest, None) of a whole model, or (None, what is missing). C(files) are those that it has to have, where that is known."""
    if not os.path.isdir(wanted.folder):
        return None, f"{wanted.folder} is not there"
    manifest, problem = read_manifest(wanted.folder)
    if problem:
        return None, problem
    if (manifest["name"], manifest["revision"]) != (wanted.name, wanted.revision):
        return None, f"{wanted.folder} holds {manifest['name']} in revision {manifest['revision'] or 'none'}"
    if files is not None and {item["name"]: item["size"] for item in files} != {item["name"]: item["size"] for item in manifest["files"]}:
        return None, "the files on the controller are others than those on this host"
    problem = first_wrong(wanted.folder, manifest["files"])
    return (None, f"{wanted.folder}: {problem}") if problem else (manifest, None)


def missing_bytes(wanted, files):
    """Return how many bytes are still to come, after what earlier runs left."""
    left = 0
    for item in files:
        here = size_of(os.path.join(wanted.partial, item["name"]))
        if here is None and not item.get("copied"):
            part = size_of(os.path.join(wanted.partial, _hub_script.PARTS, _hub_script.expected(item) or "")) or 0
            linked = size_of(os.path.join(wanted.folder, item["name"])) == item["size"]
            here = item["size"] if linked else part
        left += max(0, item["size"] - (here or 0))
    return left


def existing(path):
    """Return the nearest folder above that is there."""
    while not os.path.isdir(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path


def check_room(wanted, files, statvfs=os.statvfs):
    """Raise HubError where what is still to come has no room."""
    needed = missing_bytes(wanted, files)
    found = statvfs(existing(wanted.top))
    free = found.f_bavail * found.f_frsize
    if needed and needed + SPARE_BYTES > free:
        raise HubError(
            f"There is no room for {wanted.name}: {mib(needed)} are still needed and {mib(SPARE_BYTES)} are to stay free, and the file system of {wanted.top}"
            f" has {free // MIB} MiB free, {mib(needed + SPARE_BYTES - free)} too few. Remove models that are not used from {wanted.top}, or take another"
            " folder (vllm_models_path).")


def prepare(wanted, files, owner):
    """Make the folder in which the files gather, with those that a broken folder has. They are checked like all others."""
    os.makedirs(wanted.partial, mode=0o700, exist_ok=True)
    for item in files:
        source, target = (os.path.join(folder, item["name"]) for folder in (wanted.folder, wanted.partial))
        if size_of(source) == item["size"] and size_of(target) is None and not item.get("copied"):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.link(source, target, follow_symlinks=False)
    write(os.path.join(wanted.partial, _hub_script.FILES), json.dumps(files))
    for folder, _folders, names in os.walk(wanted.partial):
        os.chown(folder, owner, owner)
        for name in names:
            if os.lstat(os.path.join(folder, name)).st_nlink == 1:
                os.chown(os.path.join(folder, name), owner, owner, follow_symlinks=False)


def write(path, text):
    """Write a file of our own into a folder that the container writes to as well: never through a link that lies there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    with open(path, "x", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def sum_copied(wanted, files):
    """Give every file a checksum, the one that the controller's own manifest has for it where there is one, and check that one."""
    told, _problem = read_manifest(wanted.partial)
    sums = {item["name"]: item for item in told["files"]} if told else {}
    if told and (told["name"], told["revision"]) != (wanted.name, wanted.revision):
        raise HubError(f"The folder on the controller holds {told['name']} in revision {told['revision'] or 'none'}, as its {MANIFEST} says, and"
                       f" {wanted.name} in revision {wanted.revision or 'none'} is asked for. Give the folder of that one.")
    lacking = sorted(set(sums) - {item["name"] for item in files})
    if lacking:
        raise HubError(f"The folder on the controller is not whole: {lacking[0]} is in its {MANIFEST}, and not there.")
    made = []
    for item in files:
        path = os.path.join(wanted.partial, item["name"])
        known = sums.get(item["name"])
        if known and not _hub_script.is_right(path, known):
            os.remove(path)
            raise HubError(f"{item['name']} from the controller is not what its {MANIFEST} says (size or checksum), and was removed here."
                           " Download that file on the controller again.")
        made.append(known or {"name": item["name"], "size": item["size"], "sha256": _hub_script.digest(path, {"sha256": True})})
    return made


def adopt(wanted, source, files):
    """Bring the checked files into their place: all of them, or the folder stays as it was."""
    names = {item["name"] for item in files}
    problem = first_wrong(wanted.partial, files)
    if problem:
        raise HubError(f"{wanted.name} did not become whole: in {wanted.partial} {problem}. Run again.")
    shutil.rmtree(os.path.join(wanted.partial, _hub_script.PARTS), ignore_errors=True)
    for folder, folders, found in os.walk(wanted.partial, topdown=False):
        for name in found + [name for name in folders if os.path.islink(os.path.join(folder, name))]:
            path = os.path.join(folder, name)
            if os.path.relpath(path, wanted.partial) not in names:
                os.remove(path)
                continue
            # Its engine reads it, and nobody but root changes it.
            os.chown(path, 0, 0)
            os.chmod(path, 0o644)
        if folder != wanted.partial and not os.listdir(folder):
            os.rmdir(folder)
            continue
        os.chown(folder, 0, 0)
        os.chmod(folder, 0o755)
    manifest = {"schema_version": 1, "name": wanted.name, "revision": wanted.revision, "source": source, "files": files}
    write(os.path.join(wanted.partial, MANIFEST), json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    os.chmod(os.path.join(wanted.partial, MANIFEST), 0o644)
    os.makedirs(os.path.dirname(wanted.folder), mode=0o755, exist_ok=True)
    old = wanted.partial + ".old"
    shutil.rmtree(old, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        os.rename(wanted.folder, old)
    os.rename(wanted.partial, wanted.folder)
    shutil.rmtree(old, ignore_errors=True)
    return {key: manifest[key] for key in ("name", "revision", "source", "files")}


def words(answer, wanted, endpoint, has_token):
    """Return for people what the script's answer says: what was found, and what would help."""
    text, name, hub = answer.get("text") or "", wanted.name, endpoint or "the hub"
    kept = f" What is here of it stays in {wanted.partial}, and the next run goes on from there."
    token = "the token that was given (vllm_hub_token_file)" if has_token else "no token (vllm_hub_token_file)"
    what = {
        "repository": f"{hub} has no model {name} that can be seen with {token}. Check its name, upper and lower case count; a private model needs a token"
                      " of somebody who may read it.",
        "revision": f"{hub} has {name}, and no revision {wanted.revision} of it. Take a commit from its page, \"Files and versions\", \"History\".",
        "gated": f"{name} is gated, and {hub} does not hand it out with {token}. Accept its terms on its page, with the account whose token you give.",
        "token": f"{hub} refuses {token}: HTTP 401. Make a new one that may read, or give none for a public model.",
        "forbidden": f"{hub} refuses {name} with {token}: HTTP 403. The token needs the right to read this model.",
        "entry": f"{hub} lists {answer.get('file')} in {name}, and does not have it (HTTP 404).{kept}",
        "busy": f"{hub} asks to wait (HTTP 429): too many requests from here.{kept} A token has higher limits.",
        "server": f"{hub} answers with HTTP {answer.get('status')}.{kept} ({text})",
        "network": f"{hub} cannot be reached from this host ({text}).{kept} Give the host a way there (vllm_hub_endpoint names a mirror, vllm_hub_environment a"
                   " proxy), or put the model's folder on the controller (vllm_model_controller_path) or on the host (vllm_model).",
        "not_a_hub": f"What answers as {hub} is no hub for models ({text}). Check the address and the port in vllm_hub_endpoint.",
        "disk": f"The file system of {wanted.top} became full during the download.{kept} Free space, then run again.",
        "permission": f"The download may not write to {wanted.partial} ({text}).",
        "checksum": f"{answer.get('file')} of {name} came with another checksum than {hub} tells for it ({text}), {_hub_script.ATTEMPTS} times. Something"
                    " between here and there changes it, or the mirror is broken. That file was thrown away; the others stay.",
        "size": f"{answer.get('file')} of {name} breaks off before its end, again and again ({text}).{kept}",
        "library": f"The image has no huggingface_hub ({text}), which downloads models. Take an image of vLLM.",
    }.get(answer.get("problem"))
    return what or f"{name} cannot be downloaded: {text or 'no reason was given'}.{kept}"


def failure(error, top):
    """Return for people what the system said about a folder."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"The file system of {top} is full. Free space, then run again; nothing that was downloaded is lost."
    return f"{error.filename or top}: {error.strerror or error}. Nothing that was downloaded is lost."
