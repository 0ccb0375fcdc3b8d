# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Models on disk, laid out as Ollama lays them out: blobs by digest, one manifest for each name."""
from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import threading

from . import gguf, gojson, names

MEDIA = "application/vnd.ollama.image."
CONFIG = "application/vnd.docker.container.image.v1+json"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_DIGEST = re.compile(r"sha256[:-][0-9a-fA-F]{64}")
# The template that Ollama picks for a chat template with these marks, and the parameters that come with it.
CHATML = "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"
CHATML_STOP = ["<|im_start|>", "<|im_end|>"]


class StoreError(Exception):
    """A refused request: the text, and the HTTP status where it is not the usual one."""

    def __init__(self, message, status=500):
        super().__init__(message)
        self.status = status


class BadDigest(StoreError):
    def __init__(self):
        super().__init__("invalid digest format", 400)


class Model:
    """What a manifest and its layers say of one model."""

    def __init__(self, store, name, manifest, digest, modified_ns):
        self.name = name
        self.digest = digest
        self.modified_ns = modified_ns
        self.size = sum(layer["size"] for layer in manifest["layers"]) + manifest["config"]["size"]
        self.config = json.loads(store.read_blob(manifest["config"]["digest"]))
        self.template, self.system, self.parent, self.path = "{{ .Prompt }}", "", "", ""
        self.options, self.messages, self.licenses = {}, [], []
        self.weights_size, self.header = 0, gguf.Header({}, [])
        for layer in manifest["layers"]:
            kind = layer["mediaType"][len(MEDIA):] if layer["mediaType"].startswith(MEDIA) else ""
            if kind == "model":
                self.path = store.blob_path(layer["digest"])
                self.parent = layer.get("from", "")
                self.header = store.header(layer["digest"])
                self.weights_size = layer["size"] - gguf.padded(self.header.size)
            elif kind == "template":
                self.template = store.read_blob(layer["digest"]).decode("utf-8")
            elif kind == "system":
                self.system = store.read_blob(layer["digest"]).decode("utf-8")
            elif kind == "params":
                self.options = json.loads(store.read_blob(layer["digest"]))
            elif kind == "messages":
                self.messages = json.loads(store.read_blob(layer["digest"]))
            elif kind == "license":
                self.licenses.append(store.read_blob(layer["digest"]).decode("utf-8"))

    @property
    def embeds(self):
        return self.header.own("pooling_type", None) is not None

    @property
    def capabilities(self):
        found = ["embedding" if self.embeds else "completion"]
        if ".Tools" in self.template:
            found.append("tools")
        return found

    def details(self, parent=True, lengths=False):
        found = {
            "parent_model": self.parent if parent else "",
            "format": self.config.get("model_format", ""),
            "family": self.config.get("model_family", ""),
            "families": self.config.get("model_families"),
            "parameter_size": self.config.get("model_type", ""),
            "quantization_level": self.config.get("file_type", ""),
        }
        if lengths:
            for key, value in (("context_length", self.header.own("context_length")), ("embedding_length", self.header.own("embedding_length"))):
                if value:
                    found[key] = value
        return found


def human_number(count):
    for unit, size, decimals in (("B", 10 ** 9, 1), ("M", 10 ** 6, 2)):
        if count >= size:
            return "%.*f%s" % (0 if count % size == 0 else decimals, count / size, unit)
    return "%.0fK" % (count / 1000) if count >= 1000 else str(count)


class Store:
    def __init__(self, root):
        self.root = root
        self.blobs = os.path.join(root, "blobs")
        self.manifests = os.path.join(root, "manifests")
        self.lock = threading.RLock()
        self._headers = {}
        os.makedirs(self.blobs, exist_ok=True)
        os.makedirs(self.manifests, exist_ok=True)

    # ------------------------------------------------------------ blobs

    def blob_path(self, digest):
        if not _DIGEST.fullmatch(digest):
            raise BadDigest()
        return os.path.join(self.blobs, digest.replace(":", "-"))

    def read_blob(self, digest):
        with open(self.blob_path(digest), "rb") as stream:
            return stream.read()

    def header(self, digest):
        if digest not in self._headers:
            with open(self.blob_path(digest), "rb") as stream:
                self._headers[digest] = gguf.read(stream)
        return self._headers[digest]

    def add_blob(self, chunks):
        """Stores the bytes under their digest; returns digest, size and whether the blob is new."""
        sha, size = hashlib.sha256(), 0
        handle, path = tempfile.mkstemp(prefix="sha256-", dir=self.blobs)
        try:
            with os.fdopen(handle, "wb") as stream:
                for chunk in chunks:
                    stream.write(chunk)
                    sha.update(chunk)
                    size += len(chunk)
            digest = "sha256:" + sha.hexdigest()
            with self.lock:
                new = not os.path.exists(self.blob_path(digest))
                if new:
                    os.chmod(path, 0o644)
                    os.rename(path, self.blob_path(digest))
                else:
                    os.unlink(path)
        except BaseException:
            if os.path.exists(path):
                os.unlink(path)
            raise
        return digest, size, new

    def layer(self, kind, data):
        digest, size, new = self.add_blob([data])
        layer = {"mediaType": kind if "/" in kind else MEDIA + kind, "digest": digest, "size": size}
        return layer, "%s %s" % ("creating new layer" if new else "using existing layer", digest)

    # ------------------------------------------------------------ manifests

    def manifest_path(self, name):
        return os.path.join(self.manifests, *name.parts)

    def existing(self, name):
        """The name with the case of parts that are on disk: names are found without regard to case."""
        if os.path.exists(self.manifest_path(name)):
            return name
        for other in self.names():
            if other.full.lower() == name.full.lower():
                return other
        return name

    def names(self):
        for folder, _folders, files in sorted(os.walk(self.manifests)):
            parts = os.path.relpath(folder, self.manifests).split(os.sep)
            if len(parts) == 3:
                for file in sorted(files):
                    if not file.startswith("."):
                        yield names.Name(*parts, file)

    def manifest(self, name):
        with open(self.manifest_path(name), "rb") as stream:
            data = stream.read()
            modified = os.fstat(stream.fileno()).st_mtime_ns
        return json.loads(data), hashlib.sha256(data).hexdigest(), modified

    def write_manifest(self, name, data):
        path = self.manifest_path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        # Whole or not at all: a container killed here must find either manifest after its restart.
        fresh = os.path.join(os.path.dirname(path), ".new-" + name.tag)
        with open(fresh, "wb") as stream:
            stream.write(data)
        os.rename(fresh, path)

    def model(self, name):
        """The model of this name; FileNotFoundError where there is none."""
        return Model(self, name, *self.manifest(name))

    def models(self):
        """All models, the most recently changed first."""
        with self.lock:
            found = [self.model(name) for name in self.names()]
        return sorted(found, key=lambda model: (-(model.modified_ns // 10 ** 9), model.name.shortest))

    def _used(self):
        used = set()
        for name in self.names():
            manifest = self.manifest(name)[0]
            used.update(layer["digest"] for layer in manifest["layers"] + [manifest["config"]])
        return used

    def prune(self, digests):
        used = self._used()
        for digest in digests:
            if digest not in used and os.path.exists(self.blob_path(digest)):
                os.unlink(self.blob_path(digest))

    def delete(self, name):
        with self.lock:
            manifest = self.manifest(name)[0]
            os.unlink(self.manifest_path(name))
            self.prune([layer["digest"] for layer in manifest["layers"] + [manifest["config"]]])
            folder = os.path.dirname(self.manifest_path(name))
            while folder != self.manifests and not os.listdir(folder):
                os.rmdir(folder)
                folder = os.path.dirname(folder)

    def copy(self, source, target):
        with self.lock:
            with open(self.manifest_path(source), "rb") as stream:
                data = stream.read()
            if source.full != target.full:
                self.write_manifest(target, data)

    # ------------------------------------------------------------ create

    def create(self, request, name, pull):
        """Yields the progress of `create`; `pull(name)` yields that of fetching a base model that is not here."""
        old = None
        if os.path.exists(self.manifest_path(name)):
            old = self.manifest(name)[0]
        for key in ("adapters", "draft_files", "quantize", "quantization"):
            if request.get(key):
                raise StoreError("the stand-in does not build '%s' of create" % key, 400)
        if request.get("from"):
            base = names.parse(request["from"])
            if not base.valid:
                raise StoreError("invalid model name", 400)
            if not os.path.exists(self.manifest_path(base)):
                yield from pull(base)
            layers = [({key: layer[key] for key in ("mediaType", "digest", "size")}, "using existing layer " + layer["digest"])
                      for layer in self.manifest(base)[0]["layers"]]
            for layer, _status in layers:
                layer["from"] = base.shortest
        elif request.get("files") is not None:
            layers = []
            yield from self._from_files(request["files"], layers)
        else:
            raise StoreError("neither 'from' or 'files' was specified", 400)
        self._overlay(request, layers)
        header = next((self.header(layer["digest"]) for layer, _status in layers if layer["mediaType"] == MEDIA + "model"), None)
        config = self._config(header, request.get("info") or {})
        config_layer, _status = self.layer(CONFIG, config)
        for _layer, status in layers:
            yield {"status": status}
        yield {"status": "writing manifest"}
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config_layer, "layers": [layer for layer, _status in layers]}
        with self.lock:
            self.write_manifest(name, (gojson.dumps(manifest) + "\n").encode("utf-8"))
            if old:
                self.prune([layer["digest"] for layer in old["layers"] + [old["config"]]])
        yield {"status": "success"}

    def _from_files(self, files, layers):
        if not files:
            raise StoreError("no files provided to convert", 400)
        for file in sorted(files):
            yield {"status": "parsing GGUF"}
            path = self.blob_path(files[file])
            try:
                with open(path, "rb") as stream:
                    if stream.read(4) != b"GGUF":
                        raise StoreError("supplied file was not in GGUF format", 400)
                    stream.seek(0)
                    header = gguf.read(stream)
            except FileNotFoundError:
                raise StoreError("open %s: no such file or directory" % path) from None
            except gguf.GGUFError as error:
                raise StoreError(str(error)) from None
            try:
                gguf.check_bounds(header, os.path.getsize(path))
            except gguf.GGUFError as error:
                raise StoreError(str(error)) from None
            yield {"status": "verifying conversion"}
            digest, size, new = self.add_blob(self._rewritten(path, header))
            layers.append(({"mediaType": MEDIA + "model", "digest": digest, "size": size},
                           "%s %s" % ("creating new layer" if new else "using existing layer", digest)))
            if all(mark in header.value("tokenizer.chat_template", "") for mark in CHATML_STOP):
                layers.append((self.layer("template", CHATML.encode("utf-8"))[0], "using autodetected template chatml"))
                layers.append(self.layer("params", (gojson.dumps({"stop": CHATML_STOP}) + "\n").encode("utf-8")))

    @staticmethod
    def _rewritten(path, header):
        yield gguf.dump(gguf.rewritten(header))
        with open(path, "rb") as stream:
            stream.seek(gguf.padded(header.size))
            yield from iter(lambda: stream.read(1 << 20), b"")

    def _overlay(self, request, layers):
        def replace(kind, text):
            gone = [pair[0]["digest"] for pair in layers if pair[0]["mediaType"] == MEDIA + kind]
            layers[:] = [pair for pair in layers if pair[0]["mediaType"] != MEDIA + kind]
            self.prune(gone)
            layers.append(self.layer(kind, text.encode("utf-8")))
        for kind in ("template", "system"):
            if request.get(kind):
                replace(kind, request[kind])
        licenses = request.get("license") or []
        for text in [licenses] if isinstance(licenses, str) else licenses:
            layers.append(self.layer("license", str(text).encode("utf-8")))
        parameters = {}
        for layer, _status in layers:
            if layer["mediaType"] == MEDIA + "params":
                parameters = json.loads(self.read_blob(layer["digest"]))
        parameters.update(request.get("parameters") or {})
        if parameters:
            replace("params", gojson.dumps(dict(sorted(parameters.items()))) + "\n")
        if request.get("messages"):
            replace("messages", gojson.dumps(request["messages"]) + "\n")

    @staticmethod
    def _config(header, info):
        config = {"model_format": "", "model_family": "", "model_families": None, "model_type": "", "file_type": ""}
        if header is not None:
            config.update(model_format="gguf", model_family=header.architecture, model_families=[header.architecture],
                          model_type=human_number(header.parameters), file_type=header.file_type)
        for key, field in (("model_family", "model_family"), ("parameter_size", "model_type"), ("quantization_level", "file_type")):
            if info.get(key):
                config[field] = info[key]
        config.update(architecture="amd64", os="linux")
        return (gojson.dumps(config) + "\n").encode("utf-8")
