# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan and the services that a module is asked about, from its options C(plan), C(plan_path) and C(services); or its end, in words."""
from __future__ import annotations

import json

from ansible_collections.erni_ki.inference.plugins.module_utils import _proof


def read_plan(module, without):
    """Return the plan, from the option or the file; fail where there is none that can be used. C(without) says what cannot be done without one."""
    plan, where = module.params["plan"], "the option plan"
    if plan is None:
        where = module.params["plan_path"]
        try:
            with open(where, encoding="utf-8") as handle:
                plan = json.load(handle)
        except FileNotFoundError:
            module.fail_json(msg=f"There is no plan at {where}, so {without}. Apply one first (playbook site).")
        except OSError as error:
            module.fail_json(msg=f"The plan {where} cannot be read: {error.strerror}. Run with become: true.")
        except ValueError as error:
            module.fail_json(msg=f"The plan {where} is not valid JSON: {error}. Apply it again (playbook site).")
    try:
        return _proof.load_plan(plan)
    except _proof.PlanError as error:
        module.fail_json(msg=f"{where}: {error}.")


def wanted_services(module, plan, purpose):
    """Return the services that are asked for, all of the plan by default; fail where the plan lacks one, or has none for this purpose."""
    planned = _proof.planned_services(plan)
    asked = [service for service in _proof.SERVICES if service in (planned if module.params["services"] is None else module.params["services"])]
    absent = [service for service in asked if service not in planned]
    if absent or not asked:
        module.fail_json(msg=f"The plan has no service {', '.join(absent) or purpose}; it has {', '.join(planned) or 'none'}.")
    return asked
