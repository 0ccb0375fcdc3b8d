#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_model
version_added: 0.1.0
short_description: Has one commit of a model of the hub in a folder on the host
description:
  - Downloads the files of one commit of a model, checks each against the checksum that the hub tells for it, and brings them into their place together.
  - The download is made by the hub's own library, in a container of vLLM's image that is removed afterwards. It has one folder and the network, no GPU, no
    capabilities, one CPU's time and 1 GiB of memory.
  - A folder that is whole is left as it is, and neither the hub nor Docker is asked. It is whole when its manifest, C(erni-ki-model.json), is there, which is
    written last, and every file in it has its size.
  - A download that was interrupted goes on where it stopped when the module runs again, also in the middle of a file.
  - Other forms of the same weights (C(.gguf), C(.onnx), C(.pth) and the like, and C(.bin) beside C(.safetensors)) are not downloaded.
author: The erni_ki.inference team (@erni-ki)
extends_documentation_fragment:
  - erni_ki.inference._attributes
attributes:
  check_mode:
    support: full
    details:
      - With O(state=present) the hub is not asked. With O(state=described) it is, as nothing stays of that on the host.
  diff_mode:
    support: full
    details: Shows whether the folder is whole before and after, and what is in it.
  platform:
    platforms: linux
    support: full
options:
  name:
    description: The model's name on the hub, an owner and a model.
    type: str
    required: true
  revision:
    description:
      - The commit, 40 hexadecimal digits. Branches and tags are refused, because they move; the next run would have to ask the hub, and might get other files.
      - It may be empty only with O(copied).
    type: str
    default: ""
  state:
    description:
      - With V(present) the model is in its folder, whole.
      - With V(described) nothing is changed. Without a whole folder the hub is asked what the model holds and what it takes in memory, where O(image) is on
        the host; a model that the hub does not have or hand out, and one that there is no room for, are refused.
    type: str
    choices: [present, described]
    default: present
  path:
    description: The folder for models. The model gets C(OWNER--MODEL/REVISION) in it. A download gathers beside it in a folder C(.partial-...).
    type: path
    default: /var/lib/erni-ki/vllm/models
  copied:
    description:
      - What something else copied from a folder of the controller into RV(model.partial), or is about to. With it the hub is never asked.
      - Where C(erni-ki-model.json) is among that, the files are compared with its checksums. It is otherwise made from them.
    type: dict
    suboptions:
      path:
        description: The folder on the controller.
        type: str
        required: true
      files:
        description: Its files with C(path) and C(size), as M(ansible.builtin.find) lists them. Hidden ones are left out.
        type: list
        elements: dict
        required: true
  image:
    description: The image that has the hub's library. It is needed when the hub is to be asked, and never pulled here.
    type: str
    default: ""
  endpoint:
    description:
      - The URL of the hub, or of a mirror of it. Empty means the library's own. One on the loopback of the host is reached through the host's network.
    type: str
    default: ""
  token:
    description: The token for the hub. It is handed to the container in a file that is removed afterwards. Empty means none.
    type: str
    default: ""
  environment:
    description: More environment variables for the container, such as C(HTTPS_PROXY). Who may ask Docker can read them.
    type: dict
    default: {}
  offline:
    description: Never asks the hub. A model that is not whole is then refused.
    type: bool
    default: false
  user:
    description:
      - The user id that the container runs as. The default is one that no account has, so that nobody on the host can read the token, or change a file between
        its check and its end. What is finished belongs to root, and everybody may read it.
    type: int
    default: 65600
  cpuset:
    description: The logical CPUs that the container may use. Empty means all.
    type: str
    default: ""
  dtype:
    description: The type in which the engine computes, for RV(model_size), as in M(erni_ki.inference.model_size_info).
    type: str
    choices: [auto, bfloat16, float16, float32]
    default: auto
  timeout:
    description: The seconds that the download may take.
    type: int
    default: 7200
seealso:
  - module: erni_ki.inference.model_size_info
  - module: erni_ki.inference.colocation_plan
"""

EXAMPLES = r"""
- name: Have one commit of a model
  erni_ki.inference.vllm_model:
    name: HuggingFaceTB/SmolLM2-135M-Instruct
    revision: 0123456789abcdef0123456789abcdef01234567
    image: vllm/vllm-openai-cpu:v0.32.0-x86_64

- name: Ask what it would take, before anything is downloaded
  erni_ki.inference.vllm_model:
    name: HuggingFaceTB/SmolLM2-135M-Instruct
    revision: 0123456789abcdef0123456789abcdef01234567
    image: vllm/vllm-openai-cpu:v0.32.0-x86_64
    state: described
  register: described
"""

RETURN = r"""
model:
  description: The model on the host, in check mode as it would be.
  returned: success
  type: dict
  contains:
    name:
      description: Its name on the hub.
      type: str
      sample: HuggingFaceTB/SmolLM2-135M-Instruct
    revision:
      description: The commit; empty where none was given.
      type: str
      sample: 0123456789abcdef0123456789abcdef01234567
    path:
      description: Its folder, which vLLM is to be given.
      type: str
      sample: /var/lib/erni-ki/vllm/models/HuggingFaceTB--SmolLM2-135M-Instruct/0123456789abcdef0123456789abcdef01234567
    partial:
      description: The folder in which its files gather until they are whole.
      type: str
      sample: /var/lib/erni-ki/vllm/models/.partial-HuggingFaceTB--SmolLM2-135M-Instruct-0123456789abcdef0123456789abcdef01234567
    whole:
      description: Whether the folder is whole.
      type: bool
    problem:
      description: What it lacks; V(none) when it is whole.
      type: str
      sample: model.safetensors is missing
    source:
      description: Where its files came from, V(hub) or V(controller); V(none) when it is not whole.
      type: str
      sample: hub
    files:
      description: How many files it has; V(none) where that is not known.
      type: int
      sample: 9
    size_bytes:
      description: What they have together, in bytes; V(none) where that is not known.
      type: int
      sample: 273674112
model_size:
  description: >-
    What the model takes in memory, as RV(erni_ki.inference.model_size_info#module:model_size) tells it; V(none) where that is not known, and without
    O(state=described). Everything in it may be V(none).
  returned: success
  type: dict
unknown:
  description: Why RV(model_size) is not known; V(none) where it is, and without O(state=described).
  returned: success
  type: str
  sample: The image vllm/vllm-openai-cpu:v0.32.0-x86_64 is not on this host.
fetched_bytes:
  description: How many bytes were downloaded by this run.
  returned: success
  type: int
  sample: 273674112
"""

import os
import shutil
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.erni_ki.inference.plugins.module_utils import _hub_container as _container
from ansible_collections.erni_ki.inference.plugins.module_utils import _hub_model as _model
from ansible_collections.erni_ki.inference.plugins.module_utils._model_files import ModelError
from ansible_collections.erni_ki.inference.plugins.module_utils._model_size import measure


def described(wanted, files, manifest, problem):
    """Return RV(model)."""
    files = manifest["files"] if manifest else files
    return {
        "name": wanted.name, "revision": wanted.revision, "path": wanted.folder, "partial": wanted.partial, "whole": bool(manifest), "problem": problem,
        "source": manifest["source"] if manifest else None, "files": None if files is None else len(files),
        "size_bytes": None if files is None else sum(item["size"] for item in files)}


def ask(settings, wanted, dtype):
    """Return (files, size in memory or None, why that is not known or None) from the hub."""
    folder = tempfile.mkdtemp(prefix="erni-ki-vllm-model-")
    try:
        os.chown(folder, settings.user, settings.user)
        answer = _container.run(settings, "list", wanted, folder)
        if "problem" in answer:
            raise _model.HubError(_model.words(answer, wanted, settings.endpoint, bool(settings.token)))
        files = _model.checked_files(answer.get("files") or [], settings.endpoint or "The hub")
        if answer.get("skeleton"):
            return files, None, _model.words(answer["skeleton"], wanted, settings.endpoint, bool(settings.token))
        size, unknown = sized(folder, dtype, wanted)
        return files, size, unknown
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sized(folder, dtype, wanted):
    """Return (what a folder's model takes, None), or (None, why that is not known)."""
    try:
        found = measure(folder, dtype)
    except ModelError as error:
        return None, str(error).replace(folder, wanted.name)
    return (dict(found, path=wanted.folder), None) if found else (None, f"{folder} is not there")


def describe(module, settings, wanted, copied, manifest):
    """Return (files or None, size or None, why not or None); HubError for what cannot become whole."""
    params = module.params
    if manifest:
        return (manifest["files"], *sized(wanted.folder, params["dtype"], wanted))
    if copied is not None:
        _model.check_room(wanted, copied)
        return copied, None, "The model's files are on the controller; model_size_info can read them there."
    if params["offline"]:
        raise _model.HubError(offline(wanted))
    if not params["image"]:
        return None, None, "No image was given that could ask the hub."
    try:
        files, size, unknown = ask(settings, wanted, params["dtype"])
    except _container.Unavailable as error:
        return None, None, str(error)
    _model.check_room(wanted, files)
    return files, size, unknown


def offline(wanted):
    return (f"{wanted.name} is not whole on this host ({_model.look(wanted)[1]}), and offline is asked for (vllm_offline), so the hub is not. Put the model's"
            " folder on the controller (vllm_model_controller_path) or on the host (vllm_model), or run once without it.")


def fetch(module, settings, wanted, copied):
    """Make the model whole. Return (manifest, bytes that were downloaded)."""
    if copied is not None:
        problem = _model.first_wrong(wanted.partial, copied)
        if problem:
            raise _model.HubError(f"{wanted.name} is not whole in {wanted.partial}: {problem}. Copy it there again.")
        return _model.adopt(wanted, "controller", _model.sum_copied(wanted, copied)), 0
    if module.params["offline"]:
        raise _model.HubError(offline(wanted))
    if not module.params["image"]:
        raise _model.HubError(f"{wanted.name} is to be downloaded, and no image is given that has the hub's library. Give vLLM's.")
    files = ask(settings, wanted, module.params["dtype"])[0]
    _model.check_room(wanted, files)
    _model.prepare(wanted, files, settings.user)
    module.log(f"downloading {wanted.name} {wanted.revision}: {_model.mib(_model.missing_bytes(wanted, files))} to come; docker logs -f {_container.CONTAINER}")
    answer = _container.run(settings, "fetch", wanted, wanted.partial)
    if "problem" in answer:
        raise _model.HubError(_model.words(answer, wanted, settings.endpoint, bool(settings.token)))
    return _model.adopt(wanted, "hub", files), answer.get("fetched_bytes", 0)


def run(module):
    params = module.params
    settings = _container.Settings(
        params["image"], params["user"], params["endpoint"].rstrip("/"), params["token"].strip(),
        {str(key): str(value) for key, value in params["environment"].items()}, params["cpuset"], params["timeout"])
    if settings.user < 1:
        raise _model.HubError(f"user is {settings.user}; the container does not run as root. Take a user id above 0, such as 65600.")
    if settings.timeout < 1:
        raise _model.HubError(f"timeout is {settings.timeout} seconds; it has to be 1 or more.")
    copied = params["copied"]
    wanted = _model.checked(params["name"], params["revision"], params["path"], copied is not None)
    _container.checked_endpoint(settings.endpoint)
    _container.check_token(settings.token)
    if copied is not None:
        copied = _model.files_of_controller(copied["path"], copied["files"])
    manifest, problem = _model.look(wanted, copied)
    before = described(wanted, copied, manifest, problem)
    size, unknown, fetched, after = None, None, 0, before
    if params["state"] == "described":
        files, size, unknown = describe(module, settings, wanted, copied, manifest)
        after = described(wanted, files, manifest, problem)
    elif not manifest and module.check_mode:
        after = dict(before, whole=True, problem=None, source="hub" if copied is None else "controller")
    elif not manifest:
        manifest, fetched = fetch(module, settings, wanted, copied)
        after = described(wanted, None, manifest, None)
    changed = params["state"] == "present" and not before["whole"]
    # Both sides name the same: what a look at the disk alone does not tell is no difference.
    diff = {side: {key: found[key] for key in ("name", "revision", "path", "whole", "source")} for side, found in (("before", before), ("after", after))}
    return {"changed": changed, "model": after, "model_size": size, "unknown": unknown, "fetched_bytes": fetched, "diff": diff}


def main():
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "revision": {"type": "str", "default": ""},
            "state": {"type": "str", "choices": ["present", "described"], "default": "present"},
            "path": {"type": "path", "default": "/var/lib/erni-ki/vllm/models"},
            "copied": {"type": "dict", "options": {
                "path": {"type": "str", "required": True}, "files": {"type": "list", "elements": "dict", "required": True}}},
            "image": {"type": "str", "default": ""},
            "endpoint": {"type": "str", "default": ""},
            "token": {"type": "str", "default": "", "no_log": True},
            "environment": {"type": "dict", "default": {}},
            "offline": {"type": "bool", "default": False},
            "user": {"type": "int", "default": 65600},
            "cpuset": {"type": "str", "default": ""},
            "dtype": {"type": "str", "choices": ["auto", "bfloat16", "float16", "float32"], "default": "auto"},
            "timeout": {"type": "int", "default": 7200},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module)
    except _model.HubError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=_model.failure(error, module.params["path"]))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
