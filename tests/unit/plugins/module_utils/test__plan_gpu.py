# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every row of the compatibility table has a bad side, and each is refused here: with the numbers, the rule, and what works."""
from __future__ import annotations

import pytest

from ansible_collections.erni_ki.inference.plugins.module_utils._plan import decide
from ansible_collections.erni_ki.inference.plugins.module_utils._policy import merge
from ansible_collections.erni_ki.inference.tests.unit.plugins.plan_strategies import GPU, SOLD, UUID, card, gpu, gpu_facts, split, topology

HOST = topology(split(8))
OWN, OTHER = "a" * 64, "b" * 64
CPU = {"ollama_require_gpu": False}
# llama3.2:3b, and with other weights
MODEL = {"ollama_model_mib": 1926, "ollama_kv_bytes_per_token": 114688}


def model(mib, **policy):
    return {**MODEL, "ollama_model_mib": mib, **policy}


def engine(version="26.1.5", **changes):
    found = {
        "flavor": "docker-ce", "installed": True, "reachable": True, "version": version, "cgroup_driver": "systemd", "cgroup_version": 2,
        "compose": {"kind": "v2", "version": "2.26.1"}, "containers": [{"name": "ollama", "id": OWN}, {"name": "webui", "id": OTHER}]}
    found.update(changes)
    return found


def sold(name, **changes):
    """Facts of a host with one card that is sold under this name, with the modules that it needs, and with memory enough."""
    found, device_id, capability, architecture, total = next(one for one in SOLD if one[0] == name)
    total = max(4096, total)
    module = {"loaded": True, "version": "580.95.05", "open": architecture == "Blackwell"}
    return gpu_facts(
        gpu(name=found, total=total, capability=capability, architecture=architecture), cards=[card(device_id)], **{"module": module, **changes})


def ask(*facts, **policy):
    """Decide for a host with these GPUs, the idle P2200 where none are given, and with this engine."""
    gpus, docker = (*facts, *(GPU, None)[len(facts):])
    return decide(HOST, docker, gpus, policy)


def plan(*facts, **policy):
    result = ask(*facts, **policy)
    assert not result["violations"], result["violations"]
    return result["plan"]


def device(*args, **policy):
    return plan(*args, **policy)["ollama"]["device"]


def refuse(*facts, **policy):
    """Return the violations by rule; what they call nearest has been tried, and Ollama on CPUs as well."""
    result = ask(*facts, **policy)
    assert result["plan"] is None
    nearest = {name: value for violation in result["violations"] for name, value in violation["nearest"].items()}
    again = ask(*facts, **merge(policy, nearest))
    assert {item["rule"] for item in again["violations"]} == {item["rule"] for item in result["violations"] if not item["nearest"]}
    return {item["rule"]: item for item in result["violations"]}


def only(rule, *args, **policy):
    """Return the one violation there is; without a need for the GPU the same is a note, and Ollama is on its CPUs."""
    found = refuse(*args, **policy)
    assert list(found) == [rule]
    if found[rule]["option"] == "ollama_require_gpu":
        spared = plan(*args, **dict(policy, ollama_require_gpu=False))
        assert spared["ollama"]["device"] == {"kind": "none", "uuid": None, "name": None}
        assert any(note["rule"] == "gpu-unused" and found[rule]["message"].startswith(note["text"]) for note in spared["notes"])
        assert "ollama-on-cpu" in rules(spared)
    return found[rule]


def rules(found):
    return [note["rule"] for note in found["notes"]]


def text(found, rule):
    return next(note["text"] for note in found["notes"] if note["rule"] == rule)


# Architectures and drivers: each row's windows from outside


def driver(version, **changes):
    return {"driver_version": version, "module": {"loaded": True, "version": version, "open": changes.pop("open", False)}, **changes}


@pytest.mark.parametrize("name, version, allowed, why", [
    ("Quadro P2200", "550.163.01", "570-580", "Ollama 0.32.15 leaves a card like this alone with an older driver"),
    ("Quadro P2200", "595.58", "570-580", "580 is the last branch that knows Pascal cards"),
    ("Quadro P2200", "535.288.01", "570-580", "older driver"),
    ("Quadro P2200", "590.48", "570-580", "last branch"),
    ("GeForce GTX 750 Ti", "550.163.01", "570-580", "older driver"),
    ("GeForce GTX 750 Ti", "590.48", "570-580", "580 is the last branch that knows Maxwell cards"),
    ("Tesla V100-PCIE-16GB", "535.288.01", "550-580", "older driver"),
    ("Tesla V100-PCIE-16GB", "590.48", "550-580", "580 is the last branch that knows Volta cards"),
    ("Tesla T4", "535.288.01", "550-", "older driver"),
    ("NVIDIA RTX A2000", "545.29", "550-", "older driver"),
    ("NVIDIA L4", "535.288.01", "550-", "older driver"),
    ("NVIDIA H200", "535.288.01", "550-", "older driver"),
    ("NVIDIA GeForce RTX 5060", "565.77", "570-", "older driver"),
    ("NVIDIA B200", "575.57", "580-", "older driver"),
])
def test_drivers_outside_the_window(name, version, allowed, why):
    facts = sold(name, **driver(version, open=name in ("NVIDIA GeForce RTX 5060", "NVIDIA B200")))
    found = only("gpu-driver-branch", facts)
    assert found["found"] == f"driver {version}, allowed {allowed}" and why in found["message"] and found["nearest"] == CPU
    assert "Install a driver of branch " in found["message"] and "reboot" in found["message"] and found["asked"] is True
    # What is said to do does.
    first, _dash, last = allowed.partition("-")
    for branch in (first, last or "610"):
        inside = dict(facts, **driver(f"{branch}.10", open=facts["module"]["open"]))
        assert device(inside)["driver"] == {"found": f"{branch}.10", "allowed": allowed}


@pytest.mark.parametrize("name, version, library", [
    ("Quadro P2200", "580.95.05", "cuda_v12"), ("Quadro P2200", "570.211.01", "cuda_v12"), ("Tesla T4", "570.211.01", "cuda_v12"),
    ("Tesla T4", "580.95.05", "cuda_v13"), ("NVIDIA H200", "610.43", "cuda_v13"), ("NVIDIA GeForce RTX 5060", "575.57", "cuda_v12")])
def test_the_library_follows_from_card_and_driver(name, version, library):
    assert device(sold(name, **driver(version, open=name == "NVIDIA GeForce RTX 5060")))["library"] == library


def test_an_older_ollama_takes_an_older_driver():
    facts = sold("Quadro P2200", **driver("550.163.01"))
    assert device(facts, ollama_engine_version="0.24.0")["driver"] == {"found": "550.163.01", "allowed": "531-580"}


@pytest.mark.parametrize("name, branch", [("Quadro P2200", 580), ("GeForce GTX 750 Ti", 580), ("Tesla V100-PCIE-16GB", 580)])
def test_open_kernel_modules_before_turing(name, branch):
    facts = sold(name, module={"loaded": True, "version": "580.95.05", "open": True})
    found = only("gpu-open-modules", facts)
    assert found["found"] == "open kernel modules" and f"branch {branch}" in found["message"] and "proprietary" in found["message"]


@pytest.mark.parametrize("name", ["NVIDIA B200", "NVIDIA GeForce RTX 5060"])
def test_proprietary_kernel_modules_on_blackwell(name):
    found = only("gpu-closed-modules", sold(name, module={"loaded": True, "version": "580.95.05", "open": False}))
    assert found["found"] == "proprietary kernel modules" and "Install the open modules" in found["message"]


@pytest.mark.parametrize("name", ["Tesla T4", "NVIDIA RTX A2000", "NVIDIA L4", "NVIDIA H200"])
@pytest.mark.parametrize("open_modules", [True, False, None])
def test_either_kernel_module_from_turing_to_hopper(name, open_modules):
    assert device(sold(name, module={"loaded": True, "version": "580.95.05", "open": open_modules}))["kind"] == "gpu"


def test_a_card_that_ollama_never_computes_on():
    found = only("gpu-library", sold("Quadro K4200", **driver("470.256.02")))
    assert "Quadro K4200 (Kepler, compute capability 3.0) is none that Ollama 0.32.15 can compute on" in found["message"]
    # Older than the table.
    ancient = gpu_facts(gpu(name="Tesla C2050", capability="2.0", architecture="Fermi"), cards=[card("0x06d1")], **driver("390.157"))
    assert "compute capability 2.0" in only("gpu-library", ancient)["message"]


def test_a_card_that_only_a_newer_ollama_computes_on():
    found = refuse(sold("NVIDIA B200"), ollama_engine_version="0.9.0")["gpu-library"]
    assert found["nearest"] == {"ollama_engine_version": "0.32.15"} and "Use Ollama 0.32.15." in found["message"]


def test_a_card_newer_than_the_table():
    facts = gpu_facts(gpu(name="NVIDIA R100", capability="13.0", architecture="Rubin", total=200000), cards=[card("0x3a00")], **driver("610.43", open=True))
    found = plan(facts)
    assert found["ollama"]["device"]["library"] == "cuda_v13" and "in no row" in text(found, "gpu-unknown")
    assert "gpu-driver-branch" in refuse(dict(facts, **driver("575.57", open=True)))


@pytest.mark.parametrize("changes, capability", [
    # What the driver does not tell is known of the card, of its architecture, or of its place on the PCI bus.
    ({"capability": None}, "6.1"), ({"capability": None, "architecture": None}, "6.1"), ({"capability": "6.1", "architecture": "?"}, "6.1")])
def test_a_capability_that_the_driver_does_not_tell(changes, capability):
    assert device(gpu_facts(gpu(**changes)))["compute_capability"] == capability


@pytest.mark.parametrize("architecture, device_id, capability", [("Turing", "0x1eb8", "7.5"), (None, "0x1eb8", "7.5"), ("unknown", "0x1b38", "6.0")])
def test_a_capability_by_architecture(architecture, device_id, capability):
    facts = gpu_facts(gpu(name="A card", capability=None, architecture=architecture), cards=[card(device_id)])
    assert device(facts)["compute_capability"] == capability


# The driver's states


STATES = {
    "no_driver": "The card is there, but its driver is not installed.", "not_loaded": "The driver is installed, but its kernel module is not loaded.",
    "version_mismatch": "a reboot loads the new module.", "gpu_lost": "The driver has lost the GPU.", "permission": "The driver does not let this user at",
    "no_bindings": "nvidia-ml-py is missing", "unknown": "The driver does not answer as it should."}


@pytest.mark.parametrize("state, words", STATES.items())
@pytest.mark.parametrize("code, hint", [(None, "look into the log"), (999, "Look!"), (9, " ")])
def test_a_card_whose_driver_does_not_do_is_not_a_host_without_one(state, words, code, hint):
    facts = gpu_facts(state=state, code=code, hint=hint, driver_version=None, module={"loaded": False, "version": None, "open": None})
    found = only("gpu-driver", facts)
    assert f"The host has Quadro P2200 at 0000:01:00.0, and Ollama cannot use it (driver state {state}{f', code {code}' if code else ''})." in found["message"]
    # What gpu_info says of it knows more than we do.
    said = {"look into the log": ". Look into the log. ", "Look!": ". Look! "}.get(hint, words)
    assert said in found["message"] and (said == words or words not in found["message"])
    assert found["found"] == f"{state}: Quadro P2200 at 0000:01:00.0" and found["nearest"] == CPU
    # Where there is something to install, it is said what.
    advice = "Quadro P2200 needs a driver of branch 570 to 580, with the proprietary kernel modules; 580 is the best choice."
    assert (advice in found["message"]) == (state in ("no_driver", "not_loaded"))


def test_a_driver_of_the_right_branch_is_not_asked_for_again():
    assert "needs a driver" not in only("gpu-driver", gpu_facts(state="not_loaded"))["message"]


def test_a_driver_that_does_not_do_on_a_host_whose_cards_nobody_could_list():
    found = only("gpu-driver", gpu_facts(state="unknown", code=5, cards=[]))
    assert found["found"] == "unknown: an NVIDIA card" and "(driver state unknown, code 5)" in found["message"]
    assert "Done." in only("gpu-driver", gpu_facts(state="unknown", hint="Done."))["message"]


def test_cards_without_a_driver_are_named_as_well_as_they_are_known():
    cards = [card("0x1eb8", "0000:02:00.0"), card("0x9999", None), card("0x1b38", "0000:03:00.0", name="Tesla P40")]
    found = only("gpu-driver", gpu_facts(state="no_driver", cards=[*cards, {**card("0x10f0", "0000:01:00.1"), "class": "0x040300"}]))
    assert found["found"] == "no_driver: an NVIDIA card, a Turing card at 0000:02:00.0, Tesla P40 at 0000:03:00.0"
    # Turing and later take either kind of module, and no branch is the last.
    alone = only("gpu-driver", gpu_facts(state="no_driver", cards=cards[:1], **driver(None)))["message"]
    assert "A Turing card needs a driver of branch 550 or newer. Or let" in alone
    blackwell = gpu_facts(state="not_loaded", cards=[card("0x2d05")], **driver(None, open=None))
    assert "with the open kernel modules" in only("gpu-driver", blackwell)["message"]


def test_after_an_upgrade_without_a_reboot_the_old_module_is_not_blamed():
    assert list(refuse(gpu_facts(state="version_mismatch", **driver("550.163.01")))) == ["gpu-driver"]
    # A driver that stands is.
    assert set(refuse(gpu_facts(state="gpu_lost", **driver("550.163.01", open=True)))) == {"gpu-driver", "gpu-driver-branch", "gpu-open-modules"}


@pytest.mark.parametrize("facts", [None, {}, gpu_facts(state="no_card", cards=[]), gpu_facts(cards=[])])
def test_a_host_without_a_card(facts):
    found = refuse(facts)["gpu-required"]
    assert found["found"] == "no GPU" and found["nearest"] == CPU
    spared = plan(facts, ollama_require_gpu=False, ollama_gpu="*P2200*", container_toolkit_version="1.0.0")
    assert spared["ollama"]["device"] == {"kind": "none", "uuid": None, "name": None}
    assert text(spared, "ollama-on-cpu") == "No GPU was found, so Ollama runs on its CPUs, as allowed." and "gpu-unused" not in rules(spared)


def test_cards_are_nobodys_business_without_ollama():
    assert plan(gpu_facts(state="gpu_lost"), services="vllm")["ollama"] is None


@pytest.mark.parametrize("pci_driver, words", [("vfio-pci", "vfio-pci drives it"), ("nvidia", "the driver may not know it"), (None, "may not know it")])
def test_a_card_that_the_driver_does_not_show(pci_driver, words):
    found = only("gpu-not-shown", gpu_facts(cards=[card(driver=pci_driver)]))
    assert words in found["message"] and "Quadro P2200 at 0000:01:00.0 is not among" in found["message"] and "570 to 580" in found["message"]
    # A driver that is too new shows no Pascal; then that is said too.
    assert set(refuse(gpu_facts(cards=[card()], **driver("595.58")))) == {"gpu-not-shown", "gpu-driver-branch"}


def test_a_gpu_that_does_not_answer():
    assert "GPU is lost" in only("gpu-error", gpu_facts(gpu(error="GPU is lost")))["message"]
    assert "gpu-error" in refuse(gpu_facts(gpu(uuid=None, error="Unknown Error.")))


def test_mig():
    found = only("gpu-mig", gpu_facts(gpu(mig_mode="enabled")))
    assert f"nvidia-smi -i {UUID} -mig 0" in found["message"] and found["found"] == "MIG mode enabled"


# Container toolkit and Docker


@pytest.mark.parametrize("version", ["1.17.7", "1.16.2", "1.0.0"])
def test_an_installed_toolkit_below_the_floor(version):
    found = only("toolkit-floor", dict(GPU, toolkit={"version": version}))
    assert f"{version} on this host is below 1.17.8" in found["message"] and "CVE-2025-23266" in found["message"]


@pytest.mark.parametrize("version", ["1.17.7", "1.16.2"])
def test_a_pinned_toolkit_below_the_floor(version):
    found = only("toolkit-pin", container_toolkit_version=version)
    assert found["nearest"] == {"container_toolkit_version": "1.19.1"} and found["asked"] == version and found["found"] == "the least is 1.17.8"


@pytest.mark.parametrize("version, noted", [("1.17.8", True), ("1.18.2", True), ("1.19.1", False), ("1.20.0", False)])
def test_a_toolkit_that_does_with_a_note(version, noted):
    found = plan(container_toolkit_version=version)
    assert ("toolkit-version" in rules(found)) == noted
    assert not noted or f"{version} is below 1.19.1" in text(found, "toolkit-version")


@pytest.mark.parametrize("toolkit", [None, {}, {"version": None}, {"version": "strange"}, {"version": "1.18.2"}])
def test_a_toolkit_that_is_going_to_be_installed_or_replaced(toolkit):
    assert "toolkit-version" not in rules(plan(dict(GPU, toolkit=toolkit)))


@pytest.mark.parametrize("version", ["20.10.24", "23.0.6", "24.0.9"])
def test_docker_without_cdi(version):
    found = only("engine-cdi", GPU, engine(version))
    assert found["found"] == f"Docker Engine {version}" and "25 or later does" in found["message"]


@pytest.mark.parametrize("docker", [engine("25.0.0"), engine("28.2.0"), engine(None), engine("20.10.24", installed=False), None])
def test_docker_with_cdi_or_none_yet(docker):
    assert device(GPU, docker)["handover"] == "cdi"


# Which GPU


SMALL, LARGE = gpu("GPU-small", "Tesla T4", 2900, "7.5", "Turing", bus_id="0000:02:00.0"), gpu("GPU-large", "Tesla T4", 16384, "7.5", "Turing")
TWO = gpu_facts(SMALL, LARGE, cards=[card("0x1eb8"), card("0x1eb8", "0000:02:00.0")])


@pytest.mark.parametrize("asked, uuid", [
    ("", "GPU-large"), ("GPU-small", "GPU-small"), ("gpu-SMALL", "GPU-small"), ("*t4*", "GPU-large"), ("GPU-s*", "GPU-small")])
def test_the_gpu_by_uuid_by_name_or_by_memory(asked, uuid):
    found = plan(TWO, ollama_gpu=asked)
    assert found["ollama"]["device"]["uuid"] == uuid
    assert ("gpu-choice" in rules(found)) == (asked in ("", "*t4*"))


def test_the_choice_is_told():
    assert text(plan(TWO), "gpu-choice") == "The host has 2 GPUs; Ollama gets the one with most memory, Tesla T4 (GPU-large)."
    assert text(plan(TWO, ollama_gpu="Tesla*"), "gpu-choice").startswith("The host has 2 GPUs that match Tesla*; Ollama gets ")


def test_the_largest_that_can_be_used():
    found = plan(gpu_facts(SMALL, dict(LARGE, mig_mode="enabled")))
    assert found["ollama"]["device"]["uuid"] == "GPU-small" and "most memory that can be used" in text(found, "gpu-choice")
    assert "cut into slices" in text(found, "gpu-skipped")


def test_one_that_cannot_be_used_beside_one_that_can():
    found = refuse(gpu_facts(SMALL, dict(LARGE, mig_mode="enabled")), ollama_gpu="GPU-large")["gpu-mig"]
    assert found["nearest"] == {"ollama_gpu": "GPU-small"}


@pytest.mark.parametrize("asked, nearest", [("*P4000*", ""), ("GPU-9", ""), ("T4", "*T4*"), ("small", "*small*"), ("Tesla?", "*Tesla?*"), ("Tesla *9*", "")])
def test_a_name_that_nothing_has(asked, nearest):
    found = only("gpu-no-match", TWO, ollama_gpu=asked)
    assert found["nearest"] == {"ollama_gpu": nearest} and found["asked"] == asked
    assert "There are: Tesla T4 (GPU-large), Tesla T4 (GPU-small)." in found["message"]


def test_a_name_that_nothing_has_on_a_host_with_one():
    found = only("gpu-no-match", gpu_facts(gpu(), cards=[card(), card("0x1eb8", "0000:02:00.0")]), ollama_gpu="*P4000*")
    assert f"There are: Quadro P2200 ({UUID}), a Turing card (at 0000:02:00.0, not shown by the driver)." in found["message"]
    assert "There is: " in only("gpu-no-match", ollama_gpu="x")["message"]


def test_a_name_says_nothing_while_no_driver_tells_names():
    assert list(refuse(gpu_facts(state="no_driver"), ollama_gpu="*P2200*")) == ["gpu-driver"]
    named = gpu_facts(state="no_driver", cards=[card(name="Quadro P2200"), card("0x1b38", "0000:02:00.0", name="Tesla P40")])
    assert list(refuse(named, ollama_gpu="*P40*")) == ["gpu-driver"]


# Its memory


def test_the_default_model_on_a_p2200():
    found = plan(**MODEL)
    assert found["ollama"]["device"]["vram"] == {
        "total_mib": 5120, "reserve_mib": 1853, "weights_mib": 1926, "kv_cache_mib": 448, "left_mib": 893, "context_length": 4096, "parallel": 1,
        "kv_cache_type": "f16", "max_loaded_models": 1, "partial_allowed": False}
    assert not {"model-unknown", "context-lowered"} & set(rules(found))


@pytest.mark.parametrize("policy, vram", [
    ({"ollama_model_mib": 1926}, {"kv_cache_mib": 576, "context_length": 4096}),
    ({"ollama_kv_bytes_per_token": 114688}, {"weights_mib": 0, "kv_cache_mib": 448}),
    ({**MODEL, "ollama_parallel": 2, "ollama_kv_cache_type": "q8_0"}, {"kv_cache_mib": 476, "parallel": 2, "kv_cache_type": "q8_0"}),
    ({**MODEL, "ollama_context_length": 8192}, {"kv_cache_mib": 896, "context_length": 8192, "left_mib": 445}),
    ({**MODEL, "ollama_engine_version": "0.24.0"}, {"reserve_mib": 829}),
    ({"ollama_model_mib": 300, "ollama_max_loaded_models": 2}, {"reserve_mib": 2621, "weights_mib": 600, "kv_cache_mib": 1152, "max_loaded_models": 2}),
])
def test_budgets(policy, vram):
    found = plan(**policy)
    assert vram.items() <= found["ollama"]["device"]["vram"].items()
    missing = [name for name in ("ollama_model_mib", "ollama_kv_bytes_per_token") if name not in policy]
    assert ("model-unknown" in rules(found)) == bool(missing)
    assert not missing or f"Set {' and '.join(missing)} to have" in text(found, "model-unknown")


def test_a_context_that_is_lowered():
    found = plan(**model(3000))
    assert found["ollama"]["device"]["vram"]["context_length"] == 2304
    assert text(found, "context-lowered") == (
        "Ollama's context is 2304 tokens instead of 4096: overhead 1853 + weights 3000 + KV cache 252 (2304 tokens at 114688 bytes, f16) = 5105 MiB,"
        " Quadro P2200 has 5120 MiB.")


@pytest.mark.parametrize("policy, nearest, option", [
    ({"ollama_context_length": 16384}, {"ollama_kv_cache_type": "q8_0"}, "ollama_kv_cache_type"),
    ({"ollama_parallel": 8, "ollama_context_length": 4096}, {"ollama_parallel": 2}, "ollama_parallel"),
    ({"ollama_context_length": 131072}, {"ollama_context_length": 12032}, "ollama_context_length"),
    ({"ollama_max_loaded_models": 2}, {"ollama_max_loaded_models": 1}, "ollama_max_loaded_models"),
    ({"ollama_model_mib": 3215}, {"ollama_kv_cache_type": "q4_0"}, "ollama_kv_cache_type"),
])
def test_a_model_that_fits_with_less(policy, nearest, option):
    found = only("vram-fits", **{**MODEL, **policy})
    assert found["nearest"] == nearest and found["option"] == option and "Ollama's model does not fit: " in found["message"]
    assert "MiB, Quadro P2200 has 5120 MiB." in found["message"] and "overhead " in found["message"]


def test_a_model_that_does_not_fit_at_all():
    found = only("vram-fits", **model(4466))
    assert found["nearest"] == {"ollama_allow_partial_offload": True} and found["found"] == "3267 MiB for model and KV cache"
    assert "weights 4466" in found["message"] and "computed on CPUs, much more slowly" in found["message"]
    # Its RAM has to grow for that, and the host has it; and then one that no host like this holds.
    assert only("vram-fits", **model(9000))["nearest"] == {
        "ollama_allow_partial_offload": True, "ollama_memory_limit_mib": 6437}
    helpless = only("vram-fits", **model(90000))
    assert helpless["nearest"] == {} and "a smaller model would." in helpless["message"]


def test_a_model_that_may_spill():
    found = plan(**model(4466, ollama_allow_partial_offload=True))
    assert found["ollama"]["device"]["vram"]["left_mib"] == 5120 - 1853 - 4466 - 448 == -1647 and found["ollama"]["device"]["vram"]["partial_allowed"]
    assert "1647 MiB go to RAM, inside its memory limit of 4096 MiB" in text(found, "vram-spill")
    table = decide(HOST, None, GPU, model(4466, ollama_allow_partial_offload=True))["table"]
    assert any("1647 MiB go to RAM" in line for line in table)
    # What fits is not made to spill.
    assert "vram-spill" not in rules(plan(ollama_allow_partial_offload=True, **MODEL))


@pytest.mark.parametrize("policy, nearest", [
    ({"ollama_model_mib": 9000}, {"ollama_memory_limit_mib": 6437}),
    ({"ollama_model_mib": 4466, "ollama_context_length": 131072, "ollama_parallel": 4},
     {"ollama_parallel": 1, "ollama_memory_limit_mib": 15791}),
    ({"ollama_model_mib": 90000}, {}),
])
def test_a_spill_that_its_ram_does_not_hold(policy, nearest):
    found = only("spill-fits-limit", **{**MODEL, **policy, "ollama_allow_partial_offload": True})
    assert found["nearest"] == nearest and "memory limit of 4096 MiB" in found["message"]


@pytest.mark.parametrize("facts, policy", [
    (sold("GeForce GTX 750 Ti"), {}), (GPU, {"ollama_engine_version": "0.30.11"}), (GPU, {"ollama_engine_version": "0.31.0"})])
@pytest.mark.parametrize("kind", ["q8_0", "q4_0"])
def test_a_small_cache_needs_flash_attention(facts, policy, kind):
    facts = dict(facts, gpus=[dict(facts["gpus"][0], memory={"total_mib": 5120})])
    found = only("kv-flash-attention", facts, ollama_kv_cache_type=kind, **policy)
    assert found["nearest"] == {"ollama_kv_cache_type": "f16"} and found["asked"] == kind
    # Nor is it offered.
    assert only("vram-fits", facts, ollama_context_length=16384, **policy, **MODEL)["nearest"] == {"ollama_context_length": 12800}


@pytest.mark.parametrize("memory, found", [
    ({"total_mib": 2048, "reserved_mib": 0}, "2048 MiB"), ({"total_mib": 2109, "reserved_mib": 61}, "2048 MiB"), ({"total_mib": None}, "unknown"),
    ({}, "unknown"), (None, "unknown")])
def test_a_card_with_too_little_memory_for_anything(memory, found):
    refused = only("gpu-memory", gpu_facts(gpu(memory=memory)))
    assert refused["found"] == found and "1792 MiB are gone before a model is loaded" in refused["message"]
    assert device(gpu_facts(gpu(memory={"total_mib": 2049})))["vram"]["left_mib"] == 2049 - 1792 - 144


# What others hold of it


def process(memory, container=None, name="python"):
    return {"pid": 4711, "name": name, "memory_mib": memory, "container": container, "type": "compute"}


def held(free, *processes):
    return gpu_facts(gpu(memory={"total_mib": 5120, "used_mib": 0, "free_mib": free, "reserved_mib": 61}, processes=list(processes)))


def test_a_gpu_that_another_process_fills():
    found = only("gpu-busy", held(559, process(4500, OTHER), process(None, "c" * 64), process(12, None, None)), engine(), **MODEL)
    assert found["found"] == "559 of 5120 MiB free" and found["nearest"] == CPU
    assert "559 MiB are free for Ollama, and it needs 4166 MiB. Others hold the rest: " in found["message"]
    assert "python in the container webui 4500 MiB; python in the container cccccccccccc; process 4711 12 MiB." in found["message"]


def test_what_ollama_itself_holds_is_its_own():
    """The playbook runs again while a model is loaded: the same plan."""
    idle = plan(held(5056), engine(), **MODEL)
    assert plan(held(1000, process(4050, OWN)), engine(), **MODEL) == idle
    assert plan(held(1000, process(None, OWN)), engine(), **MODEL) == idle
    assert plan(held(None, process(4050, OTHER)), engine(), **MODEL) == idle
    # Without the engine nobody knows whose it is.
    assert "gpu-busy" in refuse(held(1000, process(4050, OWN)), **MODEL)
    assert "gpu-busy" in refuse(held(1000, process(4050, OWN)), engine(containers=[{"name": "ollama"}]), **MODEL)
    assert "gpu-busy" in refuse(held(100, process(None, OWN), process(2000)), engine(), **MODEL)


def test_a_gpu_that_is_filled_in_part():
    assert device(held(4166 - 64, process(900)), **MODEL)["kind"] == "gpu"
    found = refuse(held(4000, process(1000)), **MODEL)["gpu-busy"]
    assert found["nearest"] == {"ollama_kv_cache_type": "q8_0"}
    assert refuse(held(3760, process(1000)), **MODEL, ollama_kv_cache_type="q4_0")["gpu-busy"]["nearest"] == {"ollama_context_length": 1280}
    # A model that may spill needs no more than a place to begin.
    assert device(held(2000, process(3000)), ollama_allow_partial_offload=True, **MODEL)["kind"] == "gpu"
    assert "gpu-busy" in refuse(held(1000, process(3000)), ollama_allow_partial_offload=True, **MODEL)


def test_many_that_hold_it_are_not_all_named():
    many = [process(500, None, f"p{number}") for number in range(9)]
    message = only("gpu-busy", held(100, *many))["message"]
    assert "p4 500 MiB; and more." in message and "p5" not in message
    assert "nobody that the driver names" in only("gpu-busy", held(100))["message"]


def test_another_gpu_is_taken_where_one_is_filled():
    full = dict(LARGE, memory={"total_mib": 16384, "free_mib": 100, "reserved_mib": 0}, processes=[process(16000)])
    found = plan(gpu_facts(SMALL, full))
    assert found["ollama"]["device"]["uuid"] == "GPU-small" and "Others hold the rest" in text(found, "gpu-skipped")


# All at once


def test_everything_that_is_wrong_is_said_at_once():
    facts = gpu_facts(
        gpu(mig_mode="enabled", memory={"total_mib": 5120, "free_mib": 10, "reserved_mib": 61}), toolkit={"version": "1.16.0"},
        **driver("550.163.01", open=True))
    found = refuse(facts, engine("24.0.9"), container_toolkit_version="1.17.0", ollama_context_length=131072, **MODEL)
    assert set(found) == {
        "engine-cdi", "toolkit-floor", "gpu-driver-branch", "gpu-open-modules", "gpu-mig", "gpu-busy", "toolkit-pin", "vram-fits"}


def test_the_keys_are_named_as_the_caller_does():
    found = decide(HOST, None, gpu_facts(state="no_driver"), {"ollama_gpu": "x"}, "plan_")
    assert "plan_ollama_require_gpu: false" in found["violations"][0]["message"] and found["violations"][0]["nearest"] == {"plan_ollama_require_gpu": False}
    assert "Set plan_ollama_model_mib and plan_ollama_kv_bytes_per_token" in text(decide(HOST, None, GPU, {}, "plan_"), "model-unknown")
