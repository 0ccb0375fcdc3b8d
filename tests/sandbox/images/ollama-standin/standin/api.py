# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each path answers."""
from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import random
import re
import time

from . import VERSION, gguf, gojson, names, registry, runner, store
from .web import NDJSON, PLAIN_JSON, SSE, Answer, error_answer, json_answer

_OPTIONS = "map[string]interface {}"
GENERATE = {"model": "string", "prompt": "string", "suffix": "string", "system": "string", "template": "string", "context": "[]int", "stream": "bool",
            "raw": "bool", "format": "any", "keep_alive": "duration", "images": "any", "options": _OPTIONS, "think": "any", "truncate": "bool",
            "shift": "bool"}
CHAT = {"model": "string", "messages": "[]api.Message", "stream": "bool", "format": "any", "keep_alive": "duration", "tools": "any", "options": _OPTIONS,
        "think": "any", "truncate": "bool", "shift": "bool"}
EMBED = {"model": "string", "input": "any", "keep_alive": "duration", "truncate": "bool", "dimensions": "int", "options": _OPTIONS}
EMBEDDINGS = {"model": "string", "prompt": "string", "keep_alive": "duration", "options": _OPTIONS}
PULL = {"model": "string", "name": "string", "insecure": "bool", "username": "string", "password": "string", "stream": "bool"}
SHOW = {"model": "string", "name": "string", "system": "string", "template": "string", "verbose": "bool", "options": _OPTIONS}
DELETE = {"model": "string", "name": "string"}
COPY = {"source": "string", "destination": "string"}
CREATE = {"model": "string", "name": "string", "stream": "bool", "quantize": "string", "quantization": "string", "from": "string",
          "files": "map[string]string", "draft_files": "map[string]string", "adapters": "map[string]string", "template": "string", "license": "any",
          "system": "string", "parameters": _OPTIONS, "messages": "[]api.Message", "info": _OPTIONS}
V1_CHAT = {"model": "string", "messages": "[]openai.Message", "stream": "bool", "stream_options": _OPTIONS, "max_tokens": "int", "seed": "int", "stop": "any",
           "temperature": "float64", "frequency_penalty": "float64", "presence_penalty": "float64", "top_p": "float64", "response_format": "any",
           "tools": "any"}
V1_COMPLETIONS = {"model": "string", "prompt": "string", "stream": "bool", "stream_options": _OPTIONS, "max_tokens": "int", "seed": "int", "stop": "any",
                  "temperature": "float64", "frequency_penalty": "float64", "presence_penalty": "float64", "top_p": "float64", "suffix": "string"}
V1_EMBEDDINGS = {"model": "string", "input": "any", "dimensions": "int", "encoding_format": "string"}

# Real paths of Ollama's that the stand-in has no answer for; it says so instead of guessing.
NOT_BUILT = ("/api/push", "/api/me", "/api/signout", "/api/experimental/web_search", "/api/experimental/web_fetch",
             "/api/experimental/model-recommendations", "/v1/responses", "/v1/messages", "/v1/audio/transcriptions")
NO_EMBEDDINGS = "This server does not support embeddings. Start it with `--embeddings`"

_WORDS = ("the core keeps its own pace and each thread stays where the plan put it while memory holds what was promised to the other one so "
          "nothing runs out of turn and a quiet host answers every question at the same speed all day long").split()


# ---------------------------------------------------------------- text

def count_tokens(text):
    """About as many tokens as the recorded model's tokenizer makes: a token for two letters, at least two for a longer word."""
    total = 0
    for piece in re.findall(r"<\|[^|]*\|>|\n|[A-Za-z]+|\d|[^\sA-Za-z\d]", text):
        total += max(2, len(piece) // 2) if piece.isalpha() and len(piece) > 1 else 1
    return total


def chatml(messages):
    turns = "".join("<|im_start|>%s\n%s<|im_end|>\n" % (message.get("role", ""), message.get("content") or "") for message in messages)
    return turns + "<|im_start|>assistant\n"


def token_ids(text, count):
    source = random.Random(hashlib.sha256(text.encode("utf-8")).digest())
    return [source.randrange(203, 2048) for _index in range(count)]


def words(model, prompt, seed):
    """What gives one word of an answer after the other, the same for the same model, prompt and seed."""
    source = random.Random(hashlib.sha256(("%s|%s|%s" % (model.digest, prompt, seed)).encode("utf-8")).digest())
    return lambda: " " + source.choice(_WORDS)


def vector(text, size):
    source = random.Random(hashlib.sha256(text.encode("utf-8")).digest())
    values = [source.gauss(0, 1) for _index in range(size)]
    length = math.sqrt(sum(value * value for value in values))
    return [float("%.8g" % (value / length)) for value in values]


def _quote(text):
    if "\n" in text or text.startswith(" ") or text.endswith(" "):
        return '"""%s"""' % text if '"' in text else '"%s"' % text
    return text


def _plain(value):
    return value if isinstance(value, str) else gojson.dumps(value)


def now():
    return gojson.rfc3339(time.time_ns())


class Api:
    def __init__(self, models, catalogue, scheduler, control):
        self.models = models
        self.catalogue = catalogue
        self.scheduler = scheduler
        self.control = control
        self.routes = {
            "/": {"GET": self.root, "HEAD": self.root},
            "/api/version": {"GET": self.version, "HEAD": self.version},
            "/api/status": {"GET": self.status},
            "/api/tags": {"GET": self.tags, "HEAD": self.tags},
            "/api/ps": {"GET": self.ps},
            "/api/show": {"POST": self.show},
            "/api/pull": {"POST": self.pull},
            "/api/create": {"POST": self.create},
            "/api/copy": {"POST": self.copy},
            "/api/delete": {"DELETE": self.delete},
            "/api/generate": {"POST": self.generate},
            "/api/chat": {"POST": self.chat},
            "/api/embed": {"POST": self.embed},
            "/api/embeddings": {"POST": self.embeddings},
            "/v1/models": {"GET": self.v1_models},
            "/v1/chat/completions": {"POST": self.v1_chat},
            "/v1/completions": {"POST": self.v1_completions},
            "/v1/embeddings": {"POST": self.v1_embeddings},
        }
        self.prefixes = {"/api/blobs/": {"HEAD": self.blob_head, "POST": self.blob_post}, "/v1/models/": {"GET": self.v1_model}}
        if control.endpoint:
            self.routes["/standin/control"] = {"GET": self.switches, "PUT": self.switches, "DELETE": self.switches}

    # ------------------------------------------------------------ routing and misbehaviour

    def dispatch(self, web, method, path):
        if path != "/standin/control":
            self._misbehave(web, path)
        if path in NOT_BUILT:
            raise error_answer("the stand-in does not build %s" % path, 501)
        methods, rest = self.routes.get(path), []
        for prefix, candidates in self.prefixes.items():
            if path.startswith(prefix) and path[len(prefix):]:
                methods, rest = candidates, [path[len(prefix):]]
        if methods is None:
            raise Answer(404, b"404 page not found", "text/plain")
        if method not in methods:
            raise Answer(405, b"405 method not allowed", "text/plain", [("Allow", ", ".join(methods))])
        methods[method](web, *rest)

    def _misbehave(self, web, path):
        def told(switch):
            return any(path.startswith(start) for start in self.control()[switch])
        web.wait_while(lambda: told("hung"))
        if told("failing"):
            settings = self.control()
            raise error_answer(settings["failing_error"], settings["failing_status"])

    def switches(self, web):
        if web.command == "PUT":
            try:
                self.control.set(gojson.decode(web.body()))
            except (ValueError, TypeError) as error:
                raise error_answer(str(error), 400) from None
        elif web.command == "DELETE":
            self.control.set({})
        raise json_answer(self.control())

    @staticmethod
    def bind(web, struct, fields):
        try:
            return gojson.bind(web.body(), struct, fields)
        except gojson.GoError as error:
            raise error_answer(str(error), 400) from None

    @staticmethod
    def stream(web, events):
        """Lines as they come; an error before the first of them still has a status of its own."""
        try:
            for event in events:
                if not web.streaming:
                    web.begin(NDJSON)
                web.piece(gojson.dumps(event) + "\n")
        except (store.StoreError, registry.PullError, runner.RunnerError) as error:
            if not web.streaming:
                raise error_answer(str(error), getattr(error, "status", 500), PLAIN_JSON) from None
            web.piece(gojson.dumps({"error": str(error)}) + "\n")
        web.finish_stream()

    def progress(self, web, request, events):
        """The answer of pull and create, streamed or not."""
        events = _watched(web, _plain_errors(events))
        if request.get("stream", True):
            self.stream(web, events)
            return
        latest = {}
        try:
            for latest in events:
                pass
        except (store.StoreError, registry.PullError) as error:
            raise error_answer(str(error), getattr(error, "status", 500), PLAIN_JSON) from None
        raise json_answer(latest, 200, PLAIN_JSON)

    # ------------------------------------------------------------ the server

    @staticmethod
    def root(_web):
        raise Answer(200, b"Ollama is running", "text/plain; charset=utf-8")

    @staticmethod
    def version(_web):
        raise json_answer({"version": VERSION})

    @staticmethod
    def status(_web):
        # Whatever the environment says, the stand-in has no cloud; "env" is what a server told so answers.
        raise json_answer({"cloud": {"disabled": True, "source": "env"}})

    # ------------------------------------------------------------ models

    def find(self, text, missing, empty):
        """The model of this name; `missing` and `empty` are the answers for one that is not there and for no valid name."""
        base, source = names.split_source(text)
        name = names.parse(base)
        if not base or not name.valid:
            raise empty
        if source == "cloud":
            raise error_answer("ollama cloud is disabled: remote model is unavailable", 403)
        try:
            return self.models.model(self.models.existing(name))
        except FileNotFoundError:
            raise missing from None

    def tags(self, _web):
        raise json_answer({"models": [{
            "name": model.name.shortest, "model": model.name.shortest, "modified_at": gojson.rfc3339(model.modified_ns), "size": model.size,
            "digest": model.digest, "details": model.details(lengths=True), "capabilities": model.capabilities} for model in self.models.models()]})

    def ps(self, _web):
        raise json_answer({"models": [{
            "name": one.model.name.shortest, "model": one.model.name.shortest, "size": one.size, "digest": one.model.digest,
            "details": one.model.details(parent=False), "expires_at": gojson.rfc3339(one.expires_ns), "size_vram": one.vram,
            "context_length": one.context} for one in self.scheduler.running()]})

    def show(self, web):
        request = self.bind(web, "ShowRequest", SHOW)
        text = request.get("model") or request.get("name") or ""
        if not text:
            raise error_answer("model is required", 400)
        raise json_answer(self._shown(text, request))

    def _shown(self, text, request):
        missing = error_answer("model '%s' not found" % names.parse(names.split_source(text)[0]).shortest, 404)
        model = self.find(text, missing, error_answer("invalid model name", 400))
        # Keys left out when empty, as Go's omitempty does.
        shown = {"license": "\n".join(model.licenses), "modelfile": self._modelfile(model, request), "parameters": self._parameters(model),
                 "template": model.template, "system": request.get("system") or model.system}
        shown = {key: value for key, value in shown.items() if value}
        shown["details"] = model.details()
        if model.messages:
            shown["messages"] = model.messages
        info = {key: (value[1] if request.get("verbose") else None) if kind == gguf.ARRAY else value
                for key, (kind, value) in model.header.metadata.items() if key not in ("general.name", "tokenizer.chat_template")}
        info["general.parameter_count"] = model.header.parameters
        shown["model_info"] = dict(sorted(info.items()))
        shown["tensors"] = [{"name": name, "type": gguf.TENSOR_TYPES[kind][0], "shape": shape} for name, shape, kind, _offset in model.header.tensors]
        shown["capabilities"] = model.capabilities
        shown["modified_at"] = gojson.rfc3339(model.modified_ns)
        return shown

    @staticmethod
    def _parameters(model):
        lines = []
        for key, value in sorted(model.options.items()):
            # Texts as Go writes them: quoted, with escapes.
            lines += ["%-30s %s" % (key, gojson.dumps(one) if not isinstance(one, str) else json.dumps(one, ensure_ascii=False)) for one in
                      (value if isinstance(value, list) else [value])]
        return "\n".join(lines)

    @staticmethod
    def _modelfile(model, request):
        lines = ['# Modelfile generated by "ollama show"', "# To build a new Modelfile based on this, replace FROM with:",
                 "# FROM %s\n" % model.name.shortest, "FROM %s" % model.path, "TEMPLATE %s" % _quote(model.template)]
        if request.get("system") or model.system:
            lines.append("SYSTEM %s" % _quote(request.get("system") or model.system))
        for key, value in sorted(model.options.items()):
            lines += ["PARAMETER %s %s" % (key, _quote(_plain(one))) for one in (value if isinstance(value, list) else [value])]
        lines += ["LICENSE %s" % _quote(text) for text in model.licenses]
        lines += ["MESSAGE %s %s" % (message.get("role"), _quote(message.get("content", ""))) for message in model.messages]
        return "\n".join(lines) + "\n"

    def pull(self, web):
        request = self.bind(web, "PullRequest", PULL)
        base, source = names.split_source(request.get("model") or request.get("name") or "")
        name = names.parse(base)
        if not base or not name.valid:
            raise error_answer("invalid model name", 400)
        if source == "cloud":
            raise error_answer("ollama cloud is disabled: remote model is unavailable", 403)
        # The scheme of a name is dropped, as Ollama drops it.
        name = self.models.existing(names.parse(name.full))
        self.progress(web, request, registry.pull(self.models, self.catalogue, name, request.get("insecure", False)))

    def create(self, web):
        request = self.bind(web, "CreateRequest", CREATE)
        for digest in (request.get("files") or {}).values():
            if not digest:
                raise error_answer("invalid digest format", 400)
        name = names.parse(request.get("model") or request.get("name") or "")
        if not name.valid:
            raise error_answer("invalid model name", 400)
        self.progress(web, request, self.models.create(
            request, self.models.existing(name), lambda base: registry.pull(self.models, self.catalogue, base)))

    def delete(self, web):
        request = self.bind(web, "DeleteRequest", DELETE)
        text = request.get("model") or request.get("name") or ""
        if not text.strip():
            raise error_answer("model is required", 400)
        name = names.parse(names.split_source(text)[0])
        if not name.valid:
            raise error_answer("name %s is invalid" % gojson.dumps(text), 400)
        try:
            self.models.delete(self.models.existing(name))
        except FileNotFoundError:
            raise error_answer("model '%s' not found" % text, 404) from None
        raise Answer(200)

    def copy(self, web):
        request = self.bind(web, "CopyRequest", COPY)
        found = []
        for key in ("source", "destination"):
            name = names.parse(request.get(key, ""))
            if not name.valid:
                raise error_answer("%s %s is invalid" % (key, gojson.dumps(request.get(key, ""))), 400)
            found.append(self.models.existing(name))
        try:
            self.models.copy(*found)
        except FileNotFoundError:
            raise error_answer("model %s not found" % gojson.dumps(request["source"]), 404) from None
        raise Answer(200)

    def _blob(self, digest):
        try:
            return self.models.blob_path(digest)
        except store.BadDigest as error:
            raise error_answer(str(error), error.status) from None

    def blob_head(self, _web, digest):
        if not os.path.exists(self._blob(digest)):
            raise error_answer("blob %s not found" % gojson.dumps(digest), 404)
        raise Answer(200)

    def blob_post(self, web, digest):
        if os.path.exists(self._blob(digest)):
            raise Answer(200)
        try:
            got = self.models.add_blob(web.chunks())[0]
        except OSError as error:
            raise error_answer("write %s: %s" % (self.models.blobs, str(error.strerror).lower()), 500) from None
        if got != digest:
            raise error_answer('digest mismatch, expected "%s", got "%s"' % (digest, got), 400)
        raise Answer(201)

    # ------------------------------------------------------------ inference

    @contextlib.contextmanager
    def loaded(self, model, request, verb):
        """The runner of a model, loaded for this request."""
        if verb and model.embeds:
            raise error_answer("%s does not support %s" % (gojson.dumps(request.get("model", "")), verb), 400)
        try:
            options = self.scheduler.options(model, request.get("options") or {})
            one = self.scheduler.acquire(model, options, request.get("keep_alive"))
        except runner.RunnerError as error:
            raise error_answer(str(error), error.status) from None
        try:
            yield one, options
        finally:
            self.scheduler.release(one)

    def tokens(self, web, one, options, prompt):
        """Yields (text, None) for each token and at last ("", summary). Each token takes its time on the runner's threads."""
        settings = self.control()
        with one.slots:
            begun = time.monotonic_ns()
            prompt_tokens = count_tokens(prompt)
            self._pace(web, one, settings["prompt_ms_per_token"] * prompt_tokens)
            middle = time.monotonic_ns()
            limit = options["num_predict"]
            limit = settings["answer_tokens"] if limit < 0 else limit
            texts, due = words(one.model, prompt, options["seed"]), time.monotonic()
            for _index in range(limit):
                web.wait_while(lambda: any(web.path.startswith(start) for start in self.control()["hung"]))
                # By the clock, so that what the work itself takes does not slow the rate that was set.
                due = max(due, time.monotonic() - 0.25) + self.control()["ms_per_token"] / 1000
                self._pace(web, one, 1000 * (due - time.monotonic()))
                yield texts(), None
            yield "", {"done_reason": "stop" if options["num_predict"] < 0 else "length", "prompt_eval_count": prompt_tokens,
                       "prompt_eval_duration": max(1, middle - begun), "eval_count": limit, "eval_duration": max(1, time.monotonic_ns() - middle)}

    @staticmethod
    def _pace(web, one, milliseconds):
        """Passes the time of a token in steps, so that a client that hangs up is noticed."""
        left = milliseconds / 1000
        while left > 0:
            step = min(left, 0.25)
            one.token(step)
            web.check_client()
            left -= step

    @staticmethod
    def _metrics(begun, ready, summary):
        found = {"total_duration": max(1, time.monotonic_ns() - begun), "load_duration": max(1, ready - begun)}
        found.update((key, summary[key]) for key in ("prompt_eval_count", "prompt_eval_duration", "eval_count", "eval_duration") if summary[key])
        return found

    def generate(self, web):
        request = self.bind(web, "GenerateRequest", GENERATE)
        self._generate(web, request, _Native(self, web, request.get("stream", True)))

    def _generate(self, web, request, voice):
        begun, name = time.monotonic_ns(), request.get("model", "")
        missing = error_answer("model '%s' not found" % name, 404)
        model = self.find(name, missing, missing)
        prompt = request.get("prompt", "")
        if not prompt and request.get("keep_alive") == 0:
            self.scheduler.expire(model)
            raise voice.whole({"model": name, "created_at": now(), "response": "", "done": True, "done_reason": "unload"})
        with self.loaded(model, request, "generate") as (one, options):
            ready = time.monotonic_ns()
            if not prompt:
                raise voice.whole({"model": name, "created_at": now(), "response": "", "done": True, "done_reason": "load"})
            if not request.get("raw"):
                system = request.get("system") or model.system
                prompt = chatml(([{"role": "system", "content": system}] if system else []) + [{"role": "user", "content": prompt}])

            def events():
                answer = ""
                for text, summary in self.tokens(web, one, options, prompt):
                    answer += text
                    event = {"model": name, "created_at": now(), "response": text, "done": summary is not None}
                    if summary:
                        event["done_reason"] = summary["done_reason"]
                        if not request.get("raw"):
                            event["context"] = token_ids(prompt, summary["prompt_eval_count"]) + token_ids(answer, summary["eval_count"])
                        event.update(self._metrics(begun, ready, summary))
                    yield event
            voice.say(events(), lambda event: event["response"], lambda event, text: event.update(response=text))

    def chat(self, web):
        request = self.bind(web, "ChatRequest", CHAT)
        self._chat(web, request, _Native(self, web, request.get("stream", True)))

    def _chat(self, web, request, voice):
        begun, name = time.monotonic_ns(), request.get("model", "")
        model = self.find(name, error_answer("model '%s' not found" % name, 404), error_answer("model is required", 400))
        messages = [message for message in request.get("messages", []) if isinstance(message, dict)]

        def event_of(text, **more):
            return dict({"model": name, "created_at": now(), "message": {"role": "assistant", "content": text}}, **more)
        if not messages and request.get("keep_alive") == 0:
            self.scheduler.expire(model)
            raise voice.whole(event_of("", done=True, done_reason="unload"))
        with self.loaded(model, request, "chat") as (one, options):
            ready = time.monotonic_ns()
            if not messages:
                raise voice.whole(event_of("", done=True, done_reason="load"))
            if model.system and messages[0].get("role") != "system":
                messages = [{"role": "system", "content": model.system}] + messages

            def events():
                for text, summary in self.tokens(web, one, options, chatml(messages)):
                    if summary is None:
                        yield event_of(text, done=False)
                    else:
                        yield event_of("", done=True, done_reason=summary["done_reason"], **self._metrics(begun, ready, summary))
            voice.say(events(), lambda event: event["message"]["content"], lambda event, text: event["message"].update(content=text))

    def _embed(self, request, texts, missing):
        begun = time.monotonic_ns()
        model = self.find(request.get("model", ""), missing, missing)
        with self.loaded(model, request, None):
            ready = time.monotonic_ns()
            if texts and not model.embeds:
                raise error_answer(NO_EMBEDDINGS, 501)
            size = model.header.own("embedding_length")
            found = {"model": request.get("model", ""), "embeddings": [vector(text, size)[:request.get("dimensions") or size] for text in texts]}
            if texts:
                found.update(total_duration=max(1, time.monotonic_ns() - begun), load_duration=max(1, ready - begun),
                             prompt_eval_count=sum(count_tokens(text) for text in texts))
            return found

    def embed(self, web):
        request = self.bind(web, "EmbedRequest", EMBED)
        given = request.get("input")
        texts = [given] if isinstance(given, str) and given else given or []
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise error_answer("invalid input type", 400)
        raise json_answer(self._embed(request, texts, error_answer(
            "model %s not found, try pulling it first" % gojson.dumps(request.get("model", "")), 404)))

    def embeddings(self, web):
        request = self.bind(web, "EmbeddingRequest", EMBEDDINGS)
        texts = [request["prompt"]] if request.get("prompt") else []
        found = self._embed(request, texts, error_answer("model %s not found, try pulling it first" % gojson.dumps(request.get("model", "")), 404))
        raise json_answer({"embedding": found["embeddings"][0] if texts else []})

    # ------------------------------------------------------------ as OpenAI's API

    def v1_models(self, _web):
        found = [{"id": model.name.shortest, "object": "model", "created": model.modified_ns // 10 ** 9, "owned_by": model.name.namespace}
                 for model in self.models.models()]
        raise json_answer({"object": "list", "data": found or None}, 200, PLAIN_JSON, "\n")

    def v1_model(self, _web, text):
        try:
            missing = error_answer("model '%s' not found" % names.parse(text).shortest, 404)
            model = self.find(text, missing, error_answer("invalid model name", 400))
        except Answer as answer:
            raise _v1_error(answer) from None
        raise json_answer({"id": text, "object": "model", "created": model.modified_ns // 10 ** 9, "owned_by": names.parse(text).namespace},
                          200, PLAIN_JSON, "\n")

    def _v1(self, web, struct, fields, kind, serve):
        try:
            try:
                request = gojson.bind(web.body(), struct, fields)
            except gojson.GoError as error:
                raise error_answer(str(error).replace("missing request body", "EOF"), 400) from None
            serve(web, request, _OpenAI(web, kind, request))
        except Answer as answer:
            raise (_v1_error(answer) if answer.status != 200 else answer) from None

    @staticmethod
    def _v1_options(request):
        options = {"seed": request.get("seed"), "num_predict": request.get("max_tokens")}
        return {key: value for key, value in options.items() if value is not None}

    def v1_chat(self, web):
        def serve(web, request, voice):
            if not request.get("messages"):
                raise error_answer("[] is too short - 'messages'", 400)
            messages = []
            for message in request["messages"]:
                content = message.get("content") if isinstance(message, dict) else None
                if isinstance(content, list):
                    content = "".join(part.get("text", "") for part in content if isinstance(part, dict))
                if not isinstance(content, str):
                    raise error_answer("invalid message content type: <nil>", 400)
                messages.append({"role": message.get("role", ""), "content": content})
            self._chat(web, {"model": request.get("model", ""), "messages": messages, "options": self._v1_options(request)}, voice)
        self._v1(web, "ChatCompletionRequest", V1_CHAT, "chat", serve)

    def v1_completions(self, web):
        def serve(web, request, voice):
            self._generate(web, {"model": request.get("model", ""), "prompt": request.get("prompt", ""), "options": self._v1_options(request)}, voice)
        self._v1(web, "CompletionRequest", V1_COMPLETIONS, "text", serve)

    def v1_embeddings(self, web):
        def serve(_web, request, _voice):
            given = request.get("input")
            texts = [given] if isinstance(given, str) else given
            if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                raise error_answer("invalid input", 400)
            found = self._embed(request, texts, error_answer(
                "model %s not found, try pulling it first" % gojson.dumps(request.get("model", "")), 404))
            count = found.get("prompt_eval_count", 0)
            raise json_answer({"object": "list", "data": [{"object": "embedding", "embedding": one, "index": index}
                                                          for index, one in enumerate(found["embeddings"])],
                               "model": request.get("model", ""), "usage": {"prompt_tokens": count, "total_tokens": count}}, 200, PLAIN_JSON, "\n")
        self._v1(web, "EmbedRequest", V1_EMBEDDINGS, "embed", serve)


def _v1_error(answer):
    message = answer.body.decode("utf-8")
    if message.startswith("{"):
        message = gojson.decode(answer.body)["error"]
    kind = {400: "invalid_request_error", 404: "not_found_error"}.get(answer.status, "api_error")
    return json_answer({"error": {"message": message, "type": kind, "param": None, "code": None}}, answer.status, PLAIN_JSON, "\n")


def _plain_errors(events):
    """A full disk and its like end a stream with a line, not with a broken connection."""
    try:
        yield from events
    except OSError as error:
        if error.errno in (errno.EPIPE, errno.ECONNRESET):
            raise
        raise store.StoreError("%s: %s" % (error.filename, str(error.strerror).lower())) from None


def _watched(web, events):
    """Ends a long operation when the client hangs up, as Ollama does."""
    for event in events:
        web.check_client()
        yield event


class _Native:
    """How an answer is told through /api."""

    def __init__(self, api, web, streamed):
        self.api, self.web, self.streamed = api, web, streamed

    @staticmethod
    def whole(event):
        return json_answer(event)

    def say(self, events, text_of, set_text):
        if self.streamed:
            self.api.stream(self.web, events)
            return
        raise self.whole(_collected(events, text_of, set_text))


class _OpenAI:
    """How the same answer is told through /v1."""

    def __init__(self, web, kind, request):
        self.web, self.kind = web, kind
        self.streamed = request.get("stream", False)
        self.usage = bool((request.get("stream_options") or {}).get("include_usage"))
        self.created = int(time.time())
        self.id = "%s-%d" % ("chatcmpl" if kind == "chat" else "cmpl", random.randrange(999))

    def _frame(self, event, object_name, choices):
        return {"id": self.id, "object": object_name, "created": self.created, "model": event["model"], "system_fingerprint": "fp_ollama",
                "choices": choices}

    @staticmethod
    def _usage(event):
        prompt, answer = event.get("prompt_eval_count", 0), event.get("eval_count", 0)
        return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}

    def whole(self, event):
        reason = event["done_reason"]
        if self.kind == "chat":
            frame = self._frame(event, "chat.completion", [{"index": 0, "message": event["message"], "finish_reason": reason}])
        else:
            frame = self._frame(event, "text_completion", [{"text": event["response"], "index": 0, "finish_reason": reason}])
        frame["usage"] = self._usage(event)
        return json_answer(frame, 200, PLAIN_JSON, "\n")

    def say(self, events, text_of, set_text):
        if not self.streamed:
            raise self.whole(_collected(events, text_of, set_text))
        try:
            for event in events:
                if not self.web.streaming:
                    self.web.begin(SSE)
                    first = True
                for frame in self._chunks(event, text_of(event), first):
                    self.web.piece("data: %s\n\n" % gojson.dumps(frame))
                first = False
            self.web.piece("data: [DONE]\n\n")
        except runner.RunnerError as error:
            if not self.web.streaming:
                raise error_answer(str(error), error.status) from None
            self.web.piece(gojson.dumps({"error": str(error)}) + "\n")
        self.web.finish_stream()

    def _chunks(self, event, text, first):
        reason = event.get("done_reason")
        if self.kind == "chat":
            # The last event carries only numbers: no chunk of text for it, unless it is all there is.
            if text or first:
                delta = {"role": "assistant", "content": text} if first else {"content": text}
                yield self._frame(event, "chat.completion.chunk", [{"index": 0, "delta": delta, "finish_reason": None}])
            if reason:
                yield self._frame(event, "chat.completion.chunk", [{"index": 0, "delta": {}, "finish_reason": reason}])
                if self.usage:
                    yield dict(self._frame(event, "chat.completion.chunk", []), usage=self._usage(event))
            return
        order = ("id", "object", "created", "choices", "model", "system_fingerprint")
        frame = self._frame(event, "text_completion", [{"text": text, "index": 0, "finish_reason": reason}])
        frame = {key: frame[key] for key in order}
        if self.usage:
            frame["usage"] = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        yield frame
        if reason and self.usage:
            yield dict(frame, choices=[], usage=self._usage(event))


def _collected(events, text_of, set_text):
    """A stream as one answer."""
    text, last = "", None
    try:
        for last in events:
            text += text_of(last)
    except runner.RunnerError as error:
        raise error_answer(str(error), error.status) from None
    set_text(last, text)
    return last
