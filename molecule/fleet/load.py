# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A steady load on the gateway, half of it streams, until the file `stop` is in the folder. Every request leaves a line in `done` there.

    python3 load.py FOLDER CLIENTS

Runs on the gateway's host, with the standard library alone.
"""
from __future__ import annotations

import http.client
import json
import pathlib
import sys
import threading
import time

PORT, PATIENCE_S = 8080, 400


def ask(stream):
    """Return what became of one request: refused (no connection), error (no byte of an answer), broken (an end before the end) or whole."""
    found = {"stream": stream, "begin": time.time(), "id": "", "bytes": 0, "status": 0, "said": ""}
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=PATIENCE_S)
    text = b""
    try:
        connection.connect()
        body = {"model": "chat", "stream": stream, "max_tokens": 12, "messages": [{"role": "user", "content": "Once"}]}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        found.update(status=answer.status, id=answer.getheader("X-Request-Id") or "")
        while True:
            piece = answer.read1(65536)
            if not piece:
                break
            text += piece
        whole = answer.status == 200 and (text.rstrip().endswith(b"data: [DONE]") if stream else b'"finish_reason"' in text)
        outcome = "whole" if whole else "broken" if answer.status == 200 and text else "error"
    except (OSError, http.client.HTTPException) as error:
        outcome = "broken" if text else "error" if connection.sock or found["status"] else "refused"
        found["said"] = repr(error)
    finally:
        connection.close()
    return {**found, "outcome": outcome, "bytes": len(text), "end": time.time(), "said": found["said"] or text[-200:].decode("utf-8", "replace")}


def main():
    folder, clients = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    writing = threading.Lock()
    with open(folder / "done", "a", encoding="utf-8") as done:

        def work(number):
            stream = number % 2 == 0
            while not (folder / "stop").exists():
                line = json.dumps(ask(stream))
                with writing:
                    done.write(line + "\n")
                    done.flush()
                # Whoever is refused asks again a little later, as a client does.
                time.sleep(0.2 if '"whole"' in line else 1)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main()
