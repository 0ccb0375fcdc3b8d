# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One thing that is looked at again and again, by a thread of its own, and that is never waited for.

A source that hangs is failed from its deadline on, and what it told before is no longer told: an old value that looks like a new one is
worse than none. Its thread stays in the call; no second one is started, so that a dead disk or engine costs one thread and no more.
"""
from __future__ import annotations

import threading
import time

# Of a source that has just been started.
NOT_YET = "no answer yet"


class Failed(Exception):
    """A source has nothing, or not all, to tell; the text says why. C(samples) are those that it has all the same."""

    def __init__(self, message, samples=()):
        super().__init__(message)
        self.samples = list(samples)


class Seen:
    """What a source told last, when (monotonic), how long it took, and what was wrong."""

    def __init__(self, samples, ended, seconds, problem):
        self.samples = samples
        self.ended = ended
        self.seconds = seconds
        self.problem = problem


class Source:
    """Calls C(look), which returns samples or raises, every C(period) seconds; C(deadline) is what one call may take.

    The first call waits until the source C(after) has something to build on, or has missed its deadline.
    """

    def __init__(self, name, look, period, deadline, after=None, clock=time.monotonic):
        self.name = name
        self.period = period
        self.deadline = deadline
        self._look = look
        self._after = after
        self._clock = clock
        self._begun = None      # while a call is under way
        self._seen = None
        self._told = None
        self.first = threading.Event()

    def start(self, stop):
        threading.Thread(target=self._run, args=(stop,), name=self.name, daemon=True).start()

    def _run(self, stop):
        if self._after:
            self._after.first.wait(self._after.deadline)
        while not stop.is_set():
            began = self._clock()
            self.once()
            stop.wait(max(0.0, self.period - (self._clock() - began)))

    def once(self):
        """Make one call, whatever becomes of it."""
        begun = self._clock()
        self._begun = begun
        try:
            samples, problem = list(self._look()), None
        except Failed as error:
            samples, problem = error.samples, str(error)
        except Exception as error:
            # A hole in one source must not end the others; the text is for the journal.
            samples, problem = [], f"{type(error).__name__}: {error}"
        ended = self._clock()
        self._seen = Seen(samples, ended, ended - begun, problem)
        self._begun = None
        self.first.set()

    def state(self):
        """Return the Seen that holds now."""
        seen, begun, now = self._seen, self._begun, self._clock()
        if begun is not None and now - begun > self.deadline:
            return Seen([], now, now - begun, f"no answer within {self.deadline:g} s")
        if seen is None:
            return Seen([], now, now - begun if begun is not None else 0.0, NOT_YET)
        if now - seen.ended > self.period + self.deadline:
            return Seen([], now, seen.seconds, f"nothing new for {now - seen.ended:.0f} s")
        return seen

    def news(self):
        """Return a line for the journal when what is wrong has changed since it was last asked, else None."""
        problem = self.state().problem
        if problem == NOT_YET or (problem is None) == (self._told is None):
            return None
        self._told = problem
        return f"{self.name}: {problem}" if problem else f"{self.name}: well again"
