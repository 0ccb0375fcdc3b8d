# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for an engine: it speaks as much of vLLM's or Ollama's API as the gateway needs, generates nothing, and can be told to misbehave.

    python engine.py --service vllm --port 8000 --model tiny

POST /_control {"delay": 0.1, …} sets what is in Behaviour; GET /_seen tells which requests came, POST /_forget forgets them. It is a process of its own,
so that it can be killed and stopped as an engine is. One thread and no library: it has to be faster than what is measured with it.
"""
from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os

SENTENCE = "one two three four five six seven eight nine ten".split()


@dataclasses.dataclass
class Behaviour:
    """What the engine does with a request that generates."""

    tokens: int = 5             # of an answer, unless the request asks for fewer
    delay: float = 0.0          # seconds before each token
    prefill: float = 0.0        # seconds before the answer begins
    status: int = 200           # what it answers instead, when it is not 200
    status_times: int = -1      # how often; negative: always
    die_before: bool = False    # ends the process instead of the first byte
    die_after: int = -1         # ends the process after so many tokens
    cut_after: int = -1         # closes the connection after so many tokens, in the middle of an event
    pieces: list = dataclasses.field(default_factory=list)     # what a stream consists of, when it is not empty
    health: int = 200           # what GET /health answers
    size: int = 1000            # of the loaded model, in bytes
    size_vram: int = 1000       # of which on the GPU


class Engine:
    """The server."""

    def __init__(self, service, models):
        self.service, self.models, self.behaviour = service, models, Behaviour()
        self.seen, self.active, self.most = [], 0, 0

    async def serve(self, reader, writer):
        try:
            while await self.exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    async def exchange(self, reader, writer):
        """Answer one request; return whether the connection stays."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, version = head[0].split(" ")
        headers = {name.lower(): value.strip() for name, _colon, value in (line.partition(":") for line in head[1:] if line)}
        text = await reader.readexactly(int(headers.get("content-length") or 0))
        value = json.loads(text) if text else {}
        keep = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
        if path == "/_control":
            self.behaviour = dataclasses.replace(self.behaviour, **value)
            self.whole(writer, 200, {}, keep)
        elif path == "/_seen":
            self.whole(writer, 200, {"seen": self.seen, "most": self.most, "active": self.active}, keep)
        elif path == "/_forget":
            self.seen, self.most = [], 0
            self.behaviour = self.behaviour if value.get("behave", True) else Behaviour()
            self.whole(writer, 200, {}, keep)
        else:
            if version == "HTTP/1.1":       # the gateway's own checks come with 1.0
                self.seen.append({"method": method, "path": path, "headers": headers, "body": value})
            await self.api(writer, method, path, value, keep)
        await writer.drain()
        return keep

    @staticmethod
    def whole(writer, status, value, keep, kind="application/json"):
        text = json.dumps(value).encode()
        writer.write(b"HTTP/1.1 %d X\r\nContent-Type: %s\r\nServer: standin\r\nContent-Length: %d\r\nConnection: %s\r\n\r\n%s" % (
            status, kind.encode(), len(text), b"keep-alive" if keep else b"close", text))

    async def api(self, writer, method, path, value, keep):
        ollama = self.service == "ollama"
        if method != "POST":
            if path == "/health" and not ollama:
                return self.whole(writer, self.behaviour.health, {}, keep)
            if path == "/api/ps" and ollama:
                models = [{"name": self.models[0], "size": self.behaviour.size, "size_vram": self.behaviour.size_vram}]
                return self.whole(writer, 200, {"models": models}, keep)
            if path == "/api/tags" and ollama:
                return self.whole(writer, 200, {"models": [{"name": name, "model": name} for name in self.models]}, keep)
            return self.whole(writer, 200, {"path": path, "version": "0.0.0"}, keep)
        if value.get("model") not in self.models:
            message = f"model {value.get('model')!r} not found"
            return self.whole(writer, 404, {"error": message if path.startswith("/api") else {"message": message, "type": "NotFoundError"}}, keep)
        self.active += 1
        self.most = max(self.most, self.active)
        try:
            await self.generate(writer, path, value, keep)
        finally:
            self.active -= 1
        return None

    async def generate(self, writer, path, value, keep):
        now = self.behaviour
        if now.die_before:
            os._exit(9)
        if now.status != 200 and now.status_times:
            now.status_times -= 1
            return self.whole(writer, now.status, {"error": f"the stand-in answers {now.status}"}, keep)
        native = path.startswith("/api")
        asked = value.get("options", {}).get("num_predict") if native else value.get("max_tokens") or value.get("max_completion_tokens")
        tokens = min(now.tokens, asked or now.tokens)
        if value.get("stream", path in ("/api/chat", "/api/generate")):
            return await self.stream(writer, path, value, tokens)
        await asyncio.sleep(now.prefill + now.delay * tokens)
        if 0 <= now.die_after < tokens:
            os._exit(9)
        return self.whole(writer, 200, self.last(path, value, tokens, " ".join(SENTENCE[n % 10] for n in range(tokens))), keep)

    def last(self, path, value, tokens, text):
        """The whole answer, or the end of Ollama's stream."""
        if path == "/api/generate":
            return {"model": value["model"], "created_at": "2026-01-01T00:00:00Z", "response": text, "done": True, "done_reason": "stop", "eval_count": tokens}
        if path == "/api/chat":
            return {"model": value["model"], "created_at": "2026-01-01T00:00:00Z", "message": {"role": "assistant", "content": text}, "done": True,
                    "done_reason": "stop", "eval_count": tokens}
        if path.endswith(("embed", "embeddings")):
            return {"object": "list", "model": value["model"], "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}],
                    "embeddings": [[0.5, 0.25]], "usage": {"prompt_tokens": 1, "total_tokens": 1}}
        choice = {"index": 0, "finish_reason": "stop", "logprobs": None}
        choice.update({"message": {"role": "assistant", "content": text}} if "chat" in path else {"text": text})
        return {"id": "x", "object": "chat.completion" if "chat" in path else "text_completion", "created": 1, "model": value["model"], "choices": [choice],
                "usage": {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": 1 + tokens}}

    async def stream(self, writer, path, value, tokens):
        now = self.behaviour
        native = path.startswith("/api")

        def chunk(text):
            data = text.encode()
            writer.write(b"%x\r\n%s\r\n" % (len(data), data))

        def begin():
            kind = b"application/x-ndjson" if native else b"text/event-stream; charset=utf-8"
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\nServer: standin\r\n\r\n" % kind)

        def event(place):
            word = SENTENCE[place % 10] + " "
            if native:
                part = {"response": word} if path == "/api/generate" else {"message": {"role": "assistant", "content": word}}
                return json.dumps({"model": value["model"], "created_at": "2026-01-01T00:00:00Z", "done": False, **part}) + "\n"
            choice = {"index": 0, "finish_reason": None}
            choice.update({"delta": {"role": "assistant", "content": word}} if "chat" in path else {"text": word})
            part = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": value["model"], "choices": [choice]}
            return f"data: {json.dumps(part)}\n\n"

        # As the real ones: vLLM sends its headers at once, Ollama with the first token.
        if not native:
            begin()
            await writer.drain()
        if now.prefill:
            await asyncio.sleep(now.prefill)
        for piece in now.pieces:
            await asyncio.sleep(now.delay)
            chunk(piece)
            await writer.drain()
        for place in range(0 if now.pieces else tokens):
            if now.delay:
                await asyncio.sleep(now.delay)
            now = self.behaviour
            if place == now.die_after:
                await writer.drain()
                os._exit(9)
            if native and place == 0:
                begin()
            if place == now.cut_after:
                chunk(event(place)[:20])
                await writer.drain()
                raise ConnectionError
            chunk(event(place))
            await writer.drain()
        if not now.pieces:
            chunk(json.dumps(self.last(path, value, tokens, "")) + "\n" if native else "data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--service", choices=["vllm", "ollama"], required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", action="append", required=True)
    options = parser.parse_args()
    engine = Engine(options.service, options.model)
    server = await asyncio.start_server(engine.serve, "127.0.0.1", options.port, backlog=1024, limit=1 << 24)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
