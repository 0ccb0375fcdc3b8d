# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in's server: `ollama serve`."""
from __future__ import annotations

import os
import signal
import sys
import threading
import time

from . import BANNER, VERSION
from .api import Api
from .client import host_and_port
from .control import Bad, Control
from .registry import Catalogue
from .runner import Scheduler
from .store import Store
from .web import Server

CATALOGUE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "data", "catalogue.json")


def log(message, **fields):
    """A line as Go's slog writes it."""
    rest = "".join(' %s=%s' % (key, value if value and " " not in str(value) else '"%s"' % value) for key, value in fields.items())
    print('time=%s level=INFO source=standin msg="%s"%s' % (time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), message, rest), file=sys.stderr, flush=True)


def serve(environ):
    print(BANNER, file=sys.stderr, flush=True)
    root = environ.get("OLLAMA_MODELS") or os.path.join(environ.get("HOME") or "/root", ".ollama", "models")
    host, port = host_and_port(environ)
    try:
        control = Control(environ)
        models = Store(root)
        scheduler = Scheduler(environ, control)
        server = Server(host, port, Api(models, Catalogue(CATALOGUE, control), scheduler, control))
    except Bad as error:
        print("Error: %s" % error, file=sys.stderr, flush=True)
        return 1
    except OSError as error:
        what = "listen tcp %s:%d: bind" % (host, port) if not error.filename else "mkdir %s" % error.filename
        print("Error: %s: %s" % (what, str(error.strerror).lower()), file=sys.stderr, flush=True)
        return 1

    def stop(_number, _frame):
        # Not from here: shutdown() waits for the loop that this handler interrupts.
        threading.Thread(target=server.shutdown, daemon=True).start()
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    if control.stop_with_stdin:
        # Not through sys.stdin: a thread that waits in it makes Python abort at its end.
        threading.Thread(target=lambda: (os.read(0, 1), server.shutdown()), daemon=True).start()
    log("Listening on %s:%d (version %s, stand-in)" % (host, server.server_address[1], VERSION))
    device = "CUDA" if scheduler.gpu else "cpu"
    log("inference compute", id=scheduler.gpu or "cpu", library=device, name="stand-in", models=len(models.models()), path=root)
    server.serve_forever(poll_interval=0.1)
    scheduler.stop()
    server.server_close()
    return 0
