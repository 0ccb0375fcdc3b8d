# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checks of a service by its own API: it answers, and it does its work."""
from __future__ import annotations

from ansible_collections.erni_ki.inference.plugins.module_utils import _http
from ansible_collections.erni_ki.inference.plugins.module_utils._check import Check, NotProven


class Api:
    """How a service is asked."""

    def __init__(self, service, url, timeout, model=None, key_file=None, bind=None):
        self.service = service
        self.url = url
        self.bind = bind        # the address its port should be published on; that of the URL without
        self.timeout = timeout
        self.model = model
        self.key_file = key_file
        self.silent = None      # why there was no answer at all, so that a second wait is spared
        self._key = None

    def ask(self, path, body=None, authorized=False):
        headers = {}
        if authorized and self.key_file:
            headers["Authorization"] = f"Bearer {self.key()}"
        return _http.exchange(self.url, path, body=body, headers=headers, timeout=self.timeout)

    def key(self):
        if self._key is None:
            self._key = read_key(self.key_file)
        return self._key

    def masked(self, text):
        return text.replace(self._key, "********") if self._key else text


def apis(params, services):
    """Return {service: Api} of a module's options; ValueError, in words, for a URL that is none."""
    result = {}
    for service in services:
        key_file = params["vllm_api_key_file"] if service == "vllm" else None
        url = params[f"{service}_url"].rstrip("/")
        result[service] = Api(service, url, params["timeout"], params[f"{service}_model"], key_file, params[f"{service}_bind_address"])
        try:
            _http.split_url(url)
        except _http.HttpError as error:
            raise ValueError(f"{service}_url: {error}") from error
    return result


def read_key(path):
    """Return the API key in a file that holds nothing else, or as VLLM_API_KEY=…"""
    try:
        with open(path, encoding="utf-8") as handle:
            lines = [line.strip() for line in handle.read().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise NotProven(f"the API key file {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    for line in lines:
        if line and not line.startswith("#"):
            name, sign, value = line.partition("=")
            key = value.strip().strip("'\"") if sign and name.strip() == "VLLM_API_KEY" else line
            if not key.isascii() or not key.isprintable() or not key:
                raise NotProven(f"the API key in {path} is not plain text")
            return key
    raise NotProven(f"the API key file {path} is empty")


def api_health(api):
    path = "/health" if api.service == "vllm" else "/api/version"
    with Check("api_health", api.service, f"GET {path}: HTTP 200", f"{api.url}{path}", f"docker logs {api.service} --tail=50") as check:
        try:
            answer = api.ask(path)
        except _http.HttpError as error:
            api.silent = str(error)
            raise
        ok = answer.status == 200
        text = f"HTTP {answer.status}"
        if ok and api.service == "ollama":
            version = answer.json()
            ok = isinstance(version, dict) and bool(version.get("version"))
            text += f", version {version['version']}" if ok else f", {_http.excerpt(answer.text())}"
        elif not ok:
            text += f": {_http.excerpt(answer.text())}"
        check.see(ok, text)
    return check.result()


def token_generated(api):
    path = "/v1/completions" if api.service == "vllm" else "/api/generate"
    hint = f"docker logs {api.service} --tail=50; the service answers, but does not do its work."
    with Check("token_generated", api.service, "at least 1 token", f"{api.url}{path}", hint) as check:
        if api.silent:
            raise NotProven(f"not tried, since the service did not answer before: {api.silent}")
        try:
            model, tokens = _vllm_token(api) if api.service == "vllm" else _ollama_token(api)
        except (_http.HttpError, NotProven) as error:
            raise NotProven(api.masked(str(error))) from error
        check.see(tokens >= 1, f"{tokens} token{'' if tokens == 1 else 's'} from {model}")
    return check.result()


def _answered(answer, what):
    """Return the JSON object of an answer that must be a success."""
    if answer.status in (401, 403):
        raise NotProven(f"{what}: HTTP {answer.status}, the service wants another API key")
    if answer.status != 200:
        raise NotProven(f"{what}: HTTP {answer.status}: {_http.excerpt(answer.text())}")
    value = answer.json()
    if not isinstance(value, dict):
        raise NotProven(f"{what}: the answer is not an object: {_http.excerpt(answer.text())}")
    return value


def _first(entries, key, what):
    for entry in entries or []:
        if isinstance(entry, dict) and entry.get(key):
            return entry[key]
    raise NotProven(what)


def first_model(api):
    """Return the first model that the service lists; HttpError or NotProven where there is none."""
    if api.service == "vllm":
        listed = _answered(api.ask("/v1/models", authorized=True), "GET /v1/models")
        return _first(listed.get("data"), "id", "GET /v1/models lists no model")
    listed = _answered(api.ask("/api/tags"), "GET /api/tags")
    return _first(listed.get("models"), "name", "GET /api/tags lists no model; pull one, or name it in ollama_model")


def _vllm_token(api):
    model = api.model or first_model(api)
    body = {"model": model, "prompt": "Hello", "max_tokens": 1, "temperature": 0}
    said = _answered(api.ask("/v1/completions", body, authorized=True), "POST /v1/completions")
    tokens = (said.get("usage") or {}).get("completion_tokens")
    return model, tokens if isinstance(tokens, int) else 0


def _ollama_token(api):
    model = api.model or first_model(api)
    body = {"model": model, "prompt": "Hello", "stream": False, "options": {"num_predict": 1}}
    said = _answered(api.ask("/api/generate", body), "POST /api/generate")
    if said.get("error"):
        raise NotProven(f"POST /api/generate: {_http.excerpt(said['error'])}")
    tokens = said.get("eval_count")
    return model, tokens if isinstance(tokens, int) else 0


def loaded_models(api):
    """Return the models that Ollama has loaded, as GET /api/ps tells them.

    Where none stays after its use (keep_alive 0), one is loaded for two minutes: no model proves nothing.
    """
    if api.silent:
        raise NotProven(f"not asked, since the service did not answer before: {api.silent}")
    models = running_models(api)
    if not models:
        _answered(api.ask("/api/generate", {"model": api.model or first_model(api), "stream": False, "keep_alive": "2m"}), "POST /api/generate")
        models = running_models(api)
    if not models:
        raise NotProven("GET /api/ps lists no model, though one was just loaded")
    return models


def running_models(api):
    """Return the models that are loaded, without loading one."""
    models = _answered(api.ask("/api/ps"), "GET /api/ps").get("models") or []
    if not isinstance(models, list) or not all(isinstance(model, dict) for model in models):
        raise NotProven(f"GET /api/ps: the models are no list of objects: {_http.excerpt(models)}")
    return models
