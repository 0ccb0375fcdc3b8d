# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checks of the GPU that the plan gives to Ollama: that it has it, that it computes on it, and that vLLM is not on it.

Ollama falls back to the CPU without a word, so nothing here believes one witness alone: the kernel has the nodes, the permission, the
libraries and the open processes, Ollama's API has the model, and the driver has its own list of who uses the card.
"""
from __future__ import annotations

import os
import re
import stat

from ansible_collections.erni_ki.inference.plugins.module_utils import _cgroup, _check_api, _gpu_info, _http, _procs
from ansible_collections.erni_ki.inference.plugins.module_utils._check import MIB, Check, NotProven, lasting, named
from ansible_collections.erni_ki.inference.plugins.module_utils._check_container import RUNC, gpu_configuration
from ansible_collections.erni_ki.inference.plugins.module_utils._gpu_compat import Window

_CARD_NODE = re.compile(r"nvidia\d+", re.ASCII)
_LIBRARY = re.compile(r"(/\S*/lib(?:cuda|nvidia-ml)\.so(?:\.(\d[\d.]*))?)( \(deleted\))?$", re.ASCII)
_RUNNER = re.compile(r"llama[-_]server")

# What decides the number of a runner's threads: while it answers, and while it reads the prompt.
_THREADS = (("-t", "--threads"), "LLAMA_ARG_THREADS")
_BATCH_THREADS = (("-tb", "--threads-batch"), "LLAMA_ARG_THREADS_BATCH")

_AGAIN = "Run the playbook again."


class Card:
    """The GPU of the plan, and what this host's driver says."""

    def __init__(self, wanted, root, look=_gpu_info.detect):
        self.wanted = wanted
        self.root = root
        self._facts, self._problem = None, None
        try:
            self._facts = look(root)
        except Exception as error:
            # Whatever keeps the driver from being read is a finding of each check that needs it.
            self._problem = f"the GPU could not be read: {type(error).__name__}: {error}"

    @property
    def facts(self):
        if self._problem:
            raise NotProven(self._problem)
        return self._facts

    def gpus(self, check):
        """Return all GPUs, for a check that needs the driver's answer."""
        if self.facts["state"] != "ok":
            check.hint = self.facts["hint"]
            raise NotProven(f"NVML cannot be asked (driver state {self.facts['state']})")
        return self.facts["gpus"]

    def gpu(self, gpus):
        """Return the planned one of these; one that is lost tells no UUID any more, and is known by its place. None without."""
        for key in ("uuid", "bus_id"):
            found = next((gpu for gpu in gpus if gpu[key] and gpu[key] == self.wanted.get(key)), None)
            if found:
                return found
        return None

    @property
    def information(self):
        return f"/proc/driver/nvidia/gpus/{self.wanted.get('bus_id')}/information"

    def kernel(self):
        """Return what the driver's kernel module itself shows of the card at its place; empty without."""
        try:
            return _procs.parse_fields(_procs.read_text(self.root, self.information))
        except _procs.Unreadable:
            return {}


def planned(plan):
    """Return what the plan says of Ollama's GPU, or None."""
    device = (plan.get("ollama") or {}).get("device") or {}
    return device if device.get("kind") == "gpu" else None


# ---- the host


def gpu_uuid(subject, card):
    """The GPU of the plan is there, and it is the one that Docker was told to hand over, and the only one."""
    uuid, name = card.wanted["uuid"], card.wanted["cdi_device"]
    expected = f"the GPU {uuid} is there; Docker hands over {name} and no other device"
    with Check("gpu_uuid", subject.service, expected, f"NVML; {subject.api}: HostConfig", _AGAIN) as check:
        absent = _absence(card, check)
        wrong = [absent] if absent else []
        handed = [(request.get("Driver"), request.get("DeviceIDs")) for request in subject.get("HostConfig", "DeviceRequests") or []]
        if handed != [("cdi", [name])]:
            told = "; ".join(f"by the driver {driver or '(none)'}: {', '.join(ids or []) or 'any'}" for driver, ids in handed)
            wrong.append(f"Docker hands over {told or 'no device'}")
        runtime = subject.get("HostConfig", "Runtime")
        wrong += gpu_configuration(subject, runtime if runtime in RUNC else RUNC[0], ("Devices", "DeviceCgroupRules"))
        check.see(not wrong, named(wrong, "faults") or f"{card.wanted.get('name') or 'the GPU'} is there, and {name} is all that is handed over")
    return check.result()


def _absence(card, check):
    """Return why the GPU of the plan is not there, or None when it is."""
    facts, uuid = card.facts, card.wanted["uuid"]
    gpu = card.gpu(facts["gpus"])
    if gpu and gpu["uuid"] == uuid and not gpu["error"]:
        return None
    if facts["state"] == "no_bindings" and card.kernel().get("GPU UUID") == uuid:
        check.evidence = check.evidence.replace("NVML", card.information)
        return None
    check.hint = facts["hint"] or "Another card is in its place, or it was passed to another machine. Plan anew (playbook plan), then run the playbook again."
    if gpu and gpu["error"]:
        return f"the GPU at {gpu['bus_id'] or 'its place'} does not answer: {gpu['error']}"
    shown = ", ".join(gpu["uuid"] or "one without a UUID" for gpu in facts["gpus"])
    return f"NVML shows {shown}" if shown else f"NVML shows no GPU (driver state {facts['state']})"


def gpu_driver(subject, card):
    """The kernel runs the version of the driver that the libraries are of, and one that the card and Ollama go together with."""
    allowed = card.wanted["driver"]["allowed"]
    expected = f"kernel module and library of one version, of branch {allowed}"
    evidence = "/proc/driver/nvidia/version; NVML: nvmlSystemGetNVMLVersion"
    hint = "Reboot after an upgrade of the driver, and hold its packages against unattended upgrades; docs/gpu.md tells which branches go with which card."
    with Check("gpu_driver", subject.service, expected, evidence, hint) as check:
        facts = card.facts
        check.hint = facts["hint"] or hint
        version, library = facts["module"]["version"], _gpu_info.library_version(facts["nvml_version"])
        if not version:
            raise NotProven(f"the kernel shows no version of the driver's module (driver state {facts['state']})")
        wrong = []
        if not library:
            wrong.append(f"the version of the library cannot be read (driver state {facts['state']})")
        elif library != version or facts["state"] == "version_mismatch":
            wrong.append("they differ: the driver was upgraded under a kernel that still runs the old one")
        if not _window(allowed).holds(int(version.split(".")[0])):
            wrong.append(f"branch {version.split('.')[0]} is outside of {allowed}")
        check.see(not wrong, "; ".join([f"kernel module {version}, library {library or 'unknown'}", *wrong]))
    return check.result()


def _window(text):
    first, _dash, last = text.partition("-")
    return Window(int(first), int(last) if last else None)


def cdi_fresh(subject, card):
    """Docker reads the nodes and libraries it hands over from a file, which an upgrade of the driver makes a lie."""
    name = card.wanted["cdi_device"]
    expected = f"a CDI specification with {name}, for the driver that runs"
    hint = "systemctl restart nvidia-cdi-refresh.service, or nvidia-ctk cdi generate --output=/var/run/cdi/nvidia.yaml; then recreate the container."
    with Check("cdi_fresh", subject.service, expected, "/var/run/cdi, /etc/cdi", hint) as check:
        toolkit, running = card.facts["toolkit"], card.facts["module"]["version"] or card.facts["driver_version"]
        if not toolkit["cdi_spec"]:
            raise NotProven("there is no specification of nvidia.com/gpu")
        check.evidence = toolkit["cdi_spec"]
        written = toolkit["cdi_driver_version"]
        wrong = []
        if name not in toolkit["cdi_devices"]:
            wrong.append(f"{name} is not in it; it has {', '.join(toolkit['cdi_devices']) or 'no device'}")
        if not written:
            wrong.append("it does not tell which driver it was written for")
        elif written != running:
            wrong.append(f"it was written for driver {written}, and {running or 'none that can be told'} runs")
        check.see(not wrong, "; ".join(wrong) or f"{name} is in it, for driver {written}")
    return check.result()


# ---- the container


def gpu_nodes(subject, card, probe=_cgroup.probe_devices):
    """The container has the card's nodes, and the kernel lets it open them: a reload of systemd can take that away from one that runs."""
    minor = card.kernel().get("Device Minor")
    node = f"nvidia{minor}" if minor and minor.isdigit() else None
    expected = f"/dev/nvidiactl and {f'/dev/{node}' if node else 'one /dev/nvidiaN'} in the container, which the kernel lets it open; no other GPU's"
    hint = f"docker restart {subject.name} brings lost nodes and permissions back; a container that never had them needs its CDI device. {_AGAIN}"
    with Check("gpu_nodes", subject.service, expected, "/proc/PID/root/dev", hint) as check:
        folder = f"/proc/{subject.pid}/root/dev"
        check.evidence = folder
        try:
            cards = sorted(name for name in os.listdir(_procs.join(subject.root, folder)) if _CARD_NODE.fullmatch(name))
        except OSError as error:
            raise NotProven(f"its /dev cannot be read: {error.strerror}") from error
        wanted = ["nvidiactl", node or (cards[0] if cards else "nvidia0")]
        if os.path.exists(_procs.join(subject.root, "/dev/nvidia-uvm")):
            # CUDA needs it; a host without has no CUDA to offer.
            wanted.append("nvidia-uvm")
        numbers = {name: device_number(_procs.join(subject.root, f"{folder}/{name}")) for name in wanted}
        wrong = [f"/dev/{name} is not there, or no character device" for name in wanted if numbers[name] is None]
        wrong += [f"/dev/{name} is there, which is another GPU" for name in cards if name not in wanted]
        there = [name for name in wanted if numbers[name] is not None]
        if there:
            check.evidence, refused = _refused(subject, folder, {name: numbers[name] for name in there}, probe)
            wrong += [f"the kernel does not let it open /dev/{name}" for name in refused]
        check.see(not wrong, named(wrong, "faults") or ", ".join(f"/dev/{name}" for name in there))
    return check.result()


def device_number(path):
    """Return (major, minor) of a character device, None for anything else; a link is not followed, as it would lead out of the container."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return (os.major(found.st_rdev), os.minor(found.st_rdev)) if stat.S_ISCHR(found.st_mode) else None


def _refused(subject, folder, numbers, probe):
    """Return (evidence, those of these nodes of the container that its control group may not open)."""
    group = subject.group("devices")
    if subject.groups.version_of("devices") == 1:
        text = group.read("devices.list")
        return f"{folder}; {group.file('devices.list')}", [name for name, number in numbers.items() if not _cgroup.granted_device(text, *number)]
    # Only the very group that the process is in can be joined.
    group = subject.groups.of_process(subject.pid, "devices")
    paths = {_procs.join(subject.root, f"{folder}/{name}"): name for name in numbers}
    answers = dict(probe(_procs.join(subject.root, group.folder), [], list(paths)))
    return f"{folder}; a probe in {group.folder}", [name for path, name in paths.items() if not answers.get(path)]


def gpu_libraries(subject, card):
    """A process of the container has the driver's library loaded, in the version that the kernel runs.

    The image brings no tool that could be asked inside of the container, and a library from in there is not loaded into a process of root.
    """
    expected = "a process of the container has libcuda or libnvidia-ml loaded, of the version of the kernel module"
    hint = f"docker restart {subject.name}; the library comes from the CDI specification, so one that is missing or old shows a stale one (cdi_fresh)."
    with Check("gpu_libraries", subject.service, expected, "/proc/PID/maps", hint) as check:
        version = card.facts["module"]["version"]
        seen, wrong = [], []
        for process in subject.processes():
            for path, number, deleted in _libraries(subject.root, process.pid):
                who = f"process {process.pid} ({process.comm}) has {path}"
                seen.append(who)
                if deleted:
                    wrong.append(f"{who}, which was deleted since")
                elif number and "." in number and version and number != version:
                    wrong.append(f"{who}, and the kernel runs {version}")
        if not seen:
            raise NotProven(f"none of its {len(subject.processes())} processes has one of them")
        check.see(not wrong, named(wrong or seen, "libraries"))
    return check.result()


def _libraries(root, pid):
    """Return (path, version, whether it was deleted) of each of the driver's libraries that a process has mapped."""
    try:
        text = _procs.read_text(root, f"/proc/{pid}/maps")
    except _procs.Unreadable as error:
        if error.gone:
            return []
        raise
    found = (_LIBRARY.search(line) for line in text.splitlines())
    return sorted({(match.group(1), match.group(2) or "", bool(match.group(3))) for match in found if match})


# ---- the work


def gpu_loaded(device, name, api):
    """The loaded models are on the GPU as Ollama has it.

    Ollama also says so when it could not read how its runner placed the model, so gpu_processes asks the driver.
    """
    partial = device.get("vram", {}).get("partial_allowed") is True
    expected = "every loaded model on the GPU: size_vram is size" + (", or a part of it, as the plan allows" if partial else "")
    hint = (f"It is computed on CPUs. Likely causes: the driver is too old for the card or for Ollama's library (gpu_driver), the container lost its device"
            f" (gpu_nodes), the GPU came after Ollama had started, or the model does not fit. docker logs {name} | grep -i -e cuda -e 'inference compute';"
            f" docker restart {name} makes it look again.")
    with Check("gpu_loaded", "ollama", expected, f"{api.url}/api/ps", hint) as check:
        good, bad = [], []
        for model in _check_api.loaded_models(api):
            ok, text = _placed(model, partial)
            (good if ok else bad).append(text)
        if bad and all("on the GPU, the rest" in text for text in bad):
            check.hint = ("The model does not fit with its context: take a smaller one, a shorter context (plan_ollama_context_length), fewer slots, or allow"
                          " it with plan_ollama_allow_partial_offload: true. Another process may hold the memory (gpu_processes).")
        check.see(not bad, named(bad or good, "models"))
    return check.result()


def is_placed(size, vram):
    """Return whether these two numbers of a loaded model say where it is."""
    return all(isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in (size, vram)) and 0 < size >= vram


def _placed(model, partial):
    """Return (whether that is right, where a model is)."""
    name, size, vram = model.get("name") or "a model", model.get("size"), model.get("size_vram")
    # Go leaves a zero out where a field is marked so; a size that is missing tells nothing.
    vram = 0 if vram is None else vram
    if not is_placed(size, vram):
        return False, f"{name}: size {_http.excerpt(size)}, size_vram {_http.excerpt(vram)}, which says nothing"
    if vram == size:
        return True, f"{name}: all of {size / MIB:.0f} MiB on the GPU"
    if vram == 0:
        return False, f"{name}: all of {size / MIB:.0f} MiB on CPUs"
    return partial, f"{name}: {100 * vram // size} % of {size / MIB:.0f} MiB on the GPU, the rest on CPUs"


def gpu_processes(subject, card):
    """The driver itself lists a process of Ollama's container on the GPU, and on no other."""
    uuid = card.wanted["uuid"]
    expected = f"a process of the container on {uuid} while a model is loaded, and on no other GPU"
    hint = f"docker logs {subject.name} | grep -i -e cuda -e 'inference compute'; a model that is not on the GPU is computed on CPUs without a word."
    with Check("gpu_processes", subject.service, expected, "NVML: nvmlDeviceGetComputeRunningProcesses", hint) as check:
        gpus = card.gpus(check)
        gpu = card.gpu(gpus)
        if gpu is None:
            raise NotProven(f"NVML shows no GPU {uuid}")
        if gpu["error"]:
            raise NotProven(f"NVML gives no list of processes: {gpu['error']}")
        mine = _of_container(subject, gpu)
        astray = [f"{text} on {other['uuid'] or other['index']}" for other in gpus if other is not gpu for text in _of_container(subject, other)]
        if not mine:
            others = [_process(process) for process in gpu["processes"]]
            used = gpu["memory"]["used_mib"]
            listed = f"only {named(others, 'processes')}" if others else "no process"
            astray.insert(0, f"NVML lists {listed} there" + ("" if used is None else f"; {used} MiB of its memory are in use"))
        check.see(not astray, named(astray or mine, "processes"))
    return check.result()


def no_gpu_processes(subject, card):
    """The driver lists no process of this container on any GPU."""
    hint = "The container got a GPU: its runtime, NVIDIA_VISIBLE_DEVICES, devices or privileged mode did it. Run the playbook again."
    with Check("no_gpu_processes", subject.service, "no process of the container on any GPU", "NVML: nvmlDeviceGetComputeRunningProcesses", hint) as check:
        gpus = card.gpus(check)
        found = [f"{text} on {gpu['uuid'] or gpu['index']}" for gpu in gpus for text in _of_container(subject, gpu)]
        silent = [f"GPU {gpu['index']}: {gpu['error']}" for gpu in gpus if gpu["error"]]
        if silent and not found:
            raise NotProven(f"NVML gives no list of processes: {named(silent, 'GPUs')}")
        total = sum(len(gpu["processes"]) for gpu in gpus)
        check.see(not found, named(found, "processes") or f"none of the {total} processes on {len(gpus)} GPU{'' if len(gpus) == 1 else 's'}")
    return check.result()


def _of_container(subject, gpu):
    """Return the processes on a GPU that are of the container: by its id, or by number where the control group had gone."""
    identity, pids = str(subject.get("Id") or "?"), {process.pid for process in subject.processes()}
    return [_process(process) for process in gpu["processes"] if process["container"] == identity or process["pid"] in pids]


def _process(process):
    size = "" if process["memory_mib"] is None else f" with {process['memory_mib']} MiB"
    return f"process {process['pid']} ({process['name'] or '?'}){size}"


def runner_threads(subject):
    """The process that computes a model has no more threads than Ollama has cores: llama.cpp would count those of the host."""
    most = subject.wanted["threads"]
    hint = ("An option num_thread, of the request or of the model, goes before LLAMA_ARG_THREADS: take it out of the model (ollama show --parameters MODEL)."
            " Without either llama.cpp counts the host's cores.")
    expected = f"each llama-server told to use {most} thread{'' if most == 1 else 's'} at most"
    with Check("runner_threads", subject.service, expected, "/proc/PID/cmdline: -t, -tb; /proc/PID/environ: LLAMA_ARG_THREADS", hint) as check:
        told = {}

        def look():
            subject.forget()
            told.clear()
            wrong = {}
            for process in subject.processes():
                threads = _told_threads(subject.root, process.pid)
                if threads is None:
                    continue
                who = f"process {process.pid} ({process.comm})"
                told[process.pid] = f"{who}: {', '.join(map(str, threads))}"
                if any(not str(number or "").isdigit() or not 1 <= int(number) <= most for number in threads):
                    wrong[process.pid] = [f"{who} is told {', '.join(str(number or 'nothing') for number in threads)}"]
            return wrong

        wrong = lasting(look)
        if not told:
            raise NotProven("there is no llama-server in the container")
        check.see(not wrong, named(wrong, "processes") or named(list(told.values()), "processes"))
    return check.result()


def _told_threads(root, pid):
    """Return the numbers of threads that a runner was told, None for a process that is none; None among them is: nothing was told."""
    try:
        words = _procs.read_arguments(root, pid)
        if not any(_RUNNER.search(os.path.basename(word)) for word in words[:3]):
            return None
        environment = _procs.read_environ(root, pid)
    except _procs.Unreadable as error:
        if error.gone:
            return None
        raise
    threads, batch = (_last(words, names) or environment.get(variable) for names, variable in (_THREADS, _BATCH_THREADS))
    return [threads] if batch in (None, threads) else [threads, batch]


def _last(words, names):
    """Return the value of an option, the last where it was given more than once."""
    return next((value for name, value in zip(reversed(words[:-1]), reversed(words)) if name in names), None)
