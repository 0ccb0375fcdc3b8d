#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: docker_daemon_config
version_added: 0.1.0
short_description: Merges settings into the Docker Engine's daemon.json
description:
  - Sets or removes single keys of the Docker Engine's configuration file and leaves every other key, and the order of all keys, as they are.
  - The result is checked by C(dockerd --validate) before the file is replaced, also in check mode, where C(dockerd) 23.0 or later is on the host.
  - The module does not restart or reload the engine. It says which of the two the change needs in RV(restart_required) and RV(reload_required).
author: The erni_ki.inference team (@erni-ki)
extends_documentation_fragment:
  - erni_ki.inference._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: The diff is the text of the file. Settings that hold secrets, such as the password of a proxy, are shown as they are unless the task has C(no_log).
  platform:
    platforms: linux
    support: full
options:
  path:
    description:
      - The configuration file of the engine.
      - A symbolic link is followed, and what it points to is replaced.
    type: path
    default: /etc/docker/daemon.json
  settings:
    description:
      - The keys and values, named as in Docker's reference of the file.
      - Objects, such as C(features), C(log-opts) or C(default-ulimits), are merged key by key at every depth. Lists are replaced as a whole.
      - The values of C(log-opts) are text, also where they look like numbers.
    type: dict
    required: true
  state:
    description:
      - With V(present), every value of O(settings) is in the file.
      - With V(absent), every key of O(settings) is removed whose value in the file equals the one given; a key that somebody has given another
        value stays. Objects that become empty by this are removed as well.
    type: str
    choices: [present, absent]
    default: present
  remove_empty:
    description:
      - Whether the file itself is removed when O(state=absent) took the last key out of it. C(dockerd) reads a missing default file as an empty one.
      - Use V(false) where C(dockerd) is started with C(--config-file), since a file named there must exist. It then holds C({}).
      - A file that held no key before the module came is never removed.
    type: bool
    default: true
  validate:
    description:
      - Whether the result is checked by C(dockerd --validate) before anything is changed.
      - Without C(dockerd) on the host, or with one older than 23.0, the check is left out, and RV(note) says so.
      - Options on the command line of C(dockerd), such as C(-H) in its systemd unit, are not part of this check; C(hosts) in both places stops the engine.
    type: bool
    default: true
  backup:
    description: Whether the file is copied, with the time in the name of the copy, before it is changed.
    type: bool
    default: false
seealso:
  - name: The configuration file of dockerd
    description: Docker's reference of all keys.
    link: https://docs.docker.com/reference/cli/dockerd/#daemon-configuration-file
"""

EXAMPLES = r"""
- name: Rotate the logs of containers, and keep containers alive while the engine restarts
  erni_ki.inference.docker_daemon_config:
    settings:
      live-restore: true
      log-driver: json-file
      log-opts:
        max-size: 10m
        max-file: "3"
  register: daemon_config

- name: Restart the engine where the change needs it
  ansible.builtin.systemd_service:
    name: docker.service
    state: restarted
  when: daemon_config.restart_required

- name: Reload the engine where that is enough
  ansible.builtin.systemd_service:
    name: docker.service
    state: reloaded
  when: daemon_config.reload_required

- name: Take a setting back, unless somebody has changed it since
  erni_ki.inference.docker_daemon_config:
    settings:
      live-restore: true
    state: absent
"""

RETURN = r"""
settings:
  description: What the file holds after the module, all keys; empty where there is no file.
  returned: success
  type: dict
  sample:
    live-restore: true
    log-opts:
      max-size: 10m
changed_keys:
  description: The keys whose values changed. Keys inside objects are joined by dots.
  returned: success
  type: list
  elements: str
  sample: [live-restore, log-opts.max-size]
restart_required:
  description: >-
    Whether a changed key takes effect only when C(dockerd) starts. A key that C(dockerd) reloads when it is set may still need a restart when it is removed.
  returned: success
  type: bool
reload_required:
  description: Whether a reload (SIGHUP) brings all the changes into effect. Never true together with RV(restart_required).
  returned: success
  type: bool
backup_file:
  description: The copy of the former file; null where none was made, and in check mode.
  returned: success
  type: str
  sample: /etc/docker/daemon.json.2140.2026-11-23@17:40:02~
validated:
  description: Whether C(dockerd) has checked the result and found it good.
  returned: success
  type: bool
note:
  description: Why the result was not validated; null otherwise.
  returned: success
  type: str
  sample: "not validated: dockerd is not on this host yet"
"""

import os
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.erni_ki.inference.plugins.module_utils import _daemon_config


def read(module, path):
    """Return (exists, bytes) of the file."""
    try:
        with open(path, "rb") as handle:
            return True, handle.read()
    except FileNotFoundError:
        return False, b""
    except OSError as error:
        module.fail_json(msg=f"{path} cannot be read: {error.strerror}. Nothing was changed.")


def validate(module, text, path):
    """Return why the text was not validated, or None when dockerd has found it good; fail when dockerd refuses it."""
    dockerd = module.get_bin_path("dockerd", opt_dirs=["/usr/sbin", "/usr/local/sbin", "/usr/local/bin"])
    if not dockerd:
        return "not validated: dockerd is not on this host yet"
    reason = _daemon_config.why_not_validated(module.run_command([dockerd, "--version"])[1])
    if reason:
        return reason
    handle, name = tempfile.mkstemp(prefix="daemon-", suffix=".json", dir=module.tmpdir)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        rc, stdout, stderr = module.run_command([dockerd, "--validate", "--config-file", name])
    finally:
        os.unlink(name)
    if rc:
        said = (stderr.strip() or stdout.strip() or f"exit code {rc}, no output").replace(name, path)
        module.fail_json(msg=f"dockerd refuses the settings for {path}: {said}. Nothing was changed.", rc=rc, stdout=stdout, stderr=stderr)
    return None


def write(module, text, path, is_new):
    """Replace the file in one step; what it had of mode and owner stays."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        os.makedirs(folder, mode=0o755, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix="daemon-", suffix=".json", dir=module.tmpdir)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
    module.atomic_move(name, path)
    if is_new:
        module.set_mode_if_different(path, 0o644, False)


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/etc/docker/daemon.json"},
            "settings": {"type": "dict", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "remove_empty": {"type": "bool", "default": True},
            "validate": {"type": "bool", "default": True},
            "backup": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    params = module.params
    path = os.path.realpath(params["path"])
    problems = _daemon_config.check_settings(params["settings"])
    if problems:
        module.fail_json(msg="; ".join(problems) + ". Nothing was changed.")

    exists, data = read(module, path)
    try:
        text = _daemon_config.decode(data, path)
        before, indent = _daemon_config.parse(text, path)
    except _daemon_config.ConfigError as error:
        module.fail_json(msg=str(error))
    after = _daemon_config.desired(before, params["settings"], params["state"])
    result = _daemon_config.compare(before, after)
    changed = bool(result["changed_keys"])
    goes = changed and not after and params["remove_empty"]
    result.update(changed=changed, settings=after, backup_file=None, validated=False, note=None)

    new_text = text
    if changed:
        new_text = "" if goes else _daemon_config.render(after, indent)
        if params["validate"] and not goes:
            result["note"] = validate(module, new_text, path)
            result["validated"] = result["note"] is None
    result["diff"] = {
        "before_header": path if exists else f"{path} (absent)",
        "after_header": f"{path} (absent)" if goes or not (exists or changed) else path,
        "before": text,
        "after": new_text,
    }
    if changed and not module.check_mode:
        try:
            if params["backup"] and exists:
                result["backup_file"] = module.backup_local(path)
            if goes:
                os.unlink(path)
            else:
                write(module, new_text, path, is_new=not exists)
        except OSError as error:
            module.fail_json(msg=f"{path} cannot be written: {error.strerror}.")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
