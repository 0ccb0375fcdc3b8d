# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The usage log: its lines, how they are kept on disk, and what they come to over a period.

A line covers the time since the line before, and holds what was used in it, so that lines can be added up. It also holds what the counters
read at its end: a process that starts anew goes on from there, counts nothing twice, and loses nothing of a service that ran on.
"""
from __future__ import annotations

import csv
import datetime
import io
import json
import os
import re

VERSION = 1
COUNTED = ("tokens_in", "tokens_out", "requests")

# Beyond it a line is no line of ours.
MAX_LINE = 1 << 20

COLUMNS = (
    "host", "service", "from", "to", "seconds", "cpu_seconds", "cpus_mean", "memory_mean_bytes", "memory_max_bytes", "vram_mean_bytes", "vram_max_bytes",
    "tokens_in", "tokens_out", "requests", "probes", "cpu_seconds_by_cpu")

_AGO = re.compile(r"(\d{1,9})([smhdw])", re.ASCII)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


class UsageError(Exception):
    """A period or a log cannot be used; the text says why."""


# ---- lines


def stamp(seconds):
    """Return seconds since 1970 as text, in UTC."""
    return datetime.datetime.fromtimestamp(int(seconds), datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def instant(text, now=None):
    """Return the seconds since 1970 of C(2026-11-28), C(2026-11-28T18:00:00Z) or, with C(now), of a time ago such as C(24h); UsageError for anything else."""
    text = str(text).strip()
    ago = _AGO.fullmatch(text)
    if ago and now is not None:
        return now - int(ago.group(1)) * _UNITS[ago.group(2)]
    try:
        found = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
        return (found if found.tzinfo else found.replace(tzinfo=datetime.timezone.utc)).timestamp()
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"'{text}' is no time: give a date such as 2026-11-28, a time such as 2026-11-28T18:00:00Z (UTC), or how long ago, such as 24h or 7d") from error


def rise(before, now, name):
    """Return how much a counter has risen between two readings of a service's counters, None when that cannot be told.

    Counters of another process, and those that went back, began at zero.
    """
    if not now or name not in now or before is None:
        return None
    last, value = before.get(name, 0.0), now[name]
    same = before.get("started") == now.get("started")
    return value - last if same and value >= last else value


def encode(record):
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True) + "\n"


def decode(line):
    """Return the record of a line, None for what is none: a line that was cut off when the power failed, or one of a later version."""
    try:
        record = json.loads(line) if len(line) <= MAX_LINE else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or record.get("version") != VERSION or not isinstance(record.get("services"), dict):
        return None
    try:
        record["end"] = instant(record.get("time"))
        record["seconds"] = float(record["seconds"])
    except (UsageError, KeyError, TypeError, ValueError, OverflowError):
        return None
    return record if all(isinstance(part, dict) for part in record["services"].values()) and 0 <= record["seconds"] < float("inf") else None


# ---- the file


class Log:
    """A file that one process appends to. A full one becomes FILE.1, the one before FILE.2 and so on; the oldest goes.

    The writer itself does that between two lines, so that no line falls between two files and no other program has to be told.
    """

    def __init__(self, path, max_bytes, files):
        self.path = path
        self.max_bytes = max_bytes
        self.files = files      # how many there are at most, with the one that is written

    def names(self):
        """Return the files that are there, the oldest first."""
        return [name for name in (*(f"{self.path}.{number}" for number in range(self.files - 1, 0, -1)), self.path) if os.path.exists(name)]

    def append(self, line):
        """Write a line to the disk; OSError when that fails, and then no part of it stays that a reader would take for a line."""
        data = line.encode("ascii")
        handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            size = os.fstat(handle).st_size
            if size and size + len(data) > self.max_bytes:
                os.close(handle)
                self._rotate()
                handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
                size = 0
            if size and os.pread(handle, 1, size - 1) != b"\n":
                # The power failed in the middle of a line.
                data = b"\n" + data
            written = os.write(handle, data)
            if written < len(data):
                os.ftruncate(handle, size)
                raise OSError(28, "there was no room for the whole line")
            os.fdatasync(handle)
        finally:
            os.close(handle)

    def _rotate(self):
        for number in range(self.files - 1, 0, -1):
            source = f"{self.path}.{number - 1}" if number > 1 else self.path
            if os.path.exists(source):
                os.replace(source, f"{self.path}.{number}")
        if self.files == 1:
            os.unlink(self.path)

    def last(self):
        """Return the newest record, None where there is none."""
        for name in reversed(self.names()):
            newest = None
            for record in read(name):
                newest = record or newest
            if newest:
                return newest
        return None


def read(path):
    """Give the record of each line of a file, None for a line that is none."""
    with open(path, encoding="utf-8", errors="replace") as stream:
        for line in stream:
            if line.strip():
                yield decode(line)


# ---- a period


def total(host, records, begin, end, group=None):
    """Return a row for each service, and for each C(hour) or C(day) where that is asked for, of the records that end within the period.

    Each row has the COLUMNS. C(None) is what no line of it tells.
    """
    rows = {}
    for record in records:
        if record is None or not begin < record["end"] <= end:
            continue
        # A line belongs to the hour or day in which it begins, so that midnight's is the old day's.
        at = max(begin, record["end"] - record["seconds"])
        first, last = _span(at, group, begin, end)
        for service, used in record["services"].items():
            _add(rows.setdefault((first, service), _Row(host, service, first, last)), used, record["seconds"])
    return [rows[key].row() for key in sorted(rows)]


def _span(at, group, begin, end):
    if group is None:
        return begin, end
    length = {"hour": 3600, "day": 86400}[group]
    first = at - at % length
    return first, first + length


class _Row:
    def __init__(self, host, service, first, last):
        self.place = {"host": host, "service": service, "from": stamp(first), "to": stamp(last)}
        self.seconds = 0.0
        self.by_cpu = {}
        self.sums = {}
        self.levels = {"memory": [], "vram": []}

    def row(self):
        cpu = sum(self.by_cpu.values()) if self.by_cpu else None
        row = dict(self.place, seconds=round(self.seconds, 3), cpu_seconds=None if cpu is None else round(cpu, 3))
        row["cpus_mean"] = round(cpu / self.seconds, 3) if cpu is not None and self.seconds else None
        for name, found in self.levels.items():
            weight = sum(seconds for _value, seconds in found)
            row[f"{name}_mean_bytes"] = round(sum(value * seconds for value, seconds in found) / weight) if weight else None
            row[f"{name}_max_bytes"] = max((value for value, _seconds in found), default=None)
        row.update({name: self.sums.get(name) for name in (*COUNTED, "probes")})
        row["cpu_seconds_by_cpu"] = {cpu: round(self.by_cpu[cpu], 3) for cpu in sorted(self.by_cpu, key=lambda name: (len(name), name))}
        return {name: row[name] for name in COLUMNS}


def _number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _add(row, used, seconds):
    row.seconds += seconds
    cpus = used.get("cpu_seconds")
    for cpu, value in cpus.items() if isinstance(cpus, dict) else ():
        if _number(value):
            row.by_cpu[cpu] = row.by_cpu.get(cpu, 0.0) + value
    for name, key in (("memory", "memory_working_set_bytes"), ("vram", "vram_bytes")):
        if _number(used.get(key)):
            row.levels[name].append((used[key], seconds))
    for name in (*COUNTED, "probes"):
        if _number(used.get(name)):
            row.sums[name] = row.sums.get(name, 0) + round(used[name])


def as_csv(rows):
    """Return the rows as CSV; what nobody told is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([_cell(row[name]) for name in COLUMNS])
    return text.getvalue()


def _cell(value):
    if isinstance(value, dict):
        return " ".join(f"{key}={number:g}" for key, number in value.items())
    return "" if value is None else value


def table(rows):
    """Return the rows as lines for a person."""
    head = ("host", "service", "from", "hours", "CPU hours", "CPUs", "memory MiB (max)", "VRAM MiB (max)", "tokens in", "tokens out", "requests")
    lines = [head]
    for row in rows:
        lines.append((
            row["host"], row["service"], row["from"], f"{row['seconds'] / 3600:.2f}", _scaled(row["cpu_seconds"], 3600, 2), _scaled(row["cpus_mean"], 1, 2),
            _levels(row, "memory"), _levels(row, "vram"), *(("-" if row[name] is None else str(row[name])) for name in COUNTED)))
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    # Names to the left, numbers to the right.
    return [
        "  ".join(cell.ljust(width) if column < 3 else cell.rjust(width) for column, (cell, width) in enumerate(zip(line, widths))).rstrip() for line in lines]


def _scaled(value, unit, digits):
    return "-" if value is None else f"{value / unit:.{digits}f}"


def _levels(row, name):
    mean, most = row[f"{name}_mean_bytes"], row[f"{name}_max_bytes"]
    return "-" if mean is None else f"{mean >> 20} ({round(most) >> 20})"
