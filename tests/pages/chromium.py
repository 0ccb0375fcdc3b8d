# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Chromium of Debian 13, unpacked into the cache. It runs in a root, and in namespaces without a network, of its own."""
from __future__ import annotations

import json
import re
import subprocess

from sandbox_lib import debian
from sandbox_lib.common import SandboxError
from sandbox_lib.host import tool

SUITE = "trixie"
PACKAGES = ["base-files", "chromium-headless-shell", "fonts-dejavu-core"]
UNUSED = ["usr/share/doc", "usr/share/locale", "usr/share/man", "usr/share/icons", "var"]
PROGRAM = ["/usr/lib/chromium/chromium-headless-shell", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run",
           "--disable-extensions", "--disable-background-networking", "--user-data-dir=/tmp/profile", "--enable-logging=stderr"]
# $0 is the root, $1 the folder of the pages.
ENTER = """
mkdir -p "$0/proc" "$0/dev" "$0/tmp" "$0/mnt" && mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && mount -t tmpfs tmpfs "$0/tmp" &&
mount --bind "$1" "$0/mnt" && shift &&
exec env -i PATH=/usr/sbin:/usr/bin HOME=/tmp XDG_RUNTIME_DIR=/tmp LANG=C.UTF-8 chroot "$0" "$@"
"""
# A bound to end, not to be reached.
TIMEOUT_S = 600

# What the eye would see at once: a page wider than the screen, words outside of their picture or on top of each other.
MEASURE = """
<script>
const seen = {wide: document.documentElement.scrollWidth, screen: document.documentElement.clientWidth,
              dark: matchMedia("(prefers-color-scheme: dark)").matches, back: getComputedStyle(document.body).backgroundColor, pictures: []};
for (const svg of document.querySelectorAll("svg")) {
  const frame = svg.getBoundingClientRect(), all = [...svg.querySelectorAll("text")].map(one => [one.textContent, one.getBoundingClientRect()]), on = [];
  all.forEach(([name, a], place) => all.slice(place + 1).forEach(([other, b]) => {
    if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3) on.push([name, other]);
  }));
  for (const [name, a] of all) for (const line of svg.querySelectorAll("line")) {
    const b = line.getBoundingClientRect();
    if (Math.min(a.right, b.right) - Math.max(a.left, b.left) >= 0 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3)
      on.push([name, line.className.baseVal]);
  }
  seen.pictures.push({
    label: svg.getAttribute("aria-label"), width: frame.width, height: frame.height, on,
    outside: all.filter(([, a]) => a.left < frame.left - 1 || a.right > frame.right + 1 || a.top < frame.top - 1
                                   || a.bottom > frame.bottom + 1).map(one => one[0]),
    smallest: Math.min(...[...svg.querySelectorAll("text")].map(
      one => parseFloat(getComputedStyle(one).fontSize) * frame.width / svg.viewBox.baseVal.width)),
    words: all.map(one => one[0]), bars: [...svg.querySelectorAll(".bar")].map(one => one.getBBox().width)});
}
const rows = one => [...one.rows].map(row => [...row.cells].map(cell => cell.innerText));
seen.tables = [...document.querySelectorAll("table")].map(rows);
const told = document.createElement("pre");
told.id = "seen";
told.textContent = JSON.stringify(seen);
document.body.append(told);
</script>
"""


def ensure(cache):
    """The folder of the browser, unpacked now when it is not there."""
    return debian.unpacked(cache, "chromium", SUITE, PACKAGES, UNUSED)


class Browser:
    """Looks at the pages in one folder."""

    def __init__(self, root, folder):
        self.root, self.folder = root, folder

    def run(self, name, *words, width=1100, height=1600, dark=False):
        """Open a page; return (what went to the standard output, what was said in the browser's console)."""
        scheme = [f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
        done = subprocess.run(
            [tool("setpriv"), "--pdeathsig", "KILL", tool("unshare"), "--mount", "--propagation", "private", "--pid", "--net", "--fork", "--kill-child",
             "sh", "-c", ENTER, self.root, self.folder, *PROGRAM, *scheme, f"--window-size={width},{height}", *words, f"file:///mnt/{name}"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        if done.returncode:
            raise SandboxError(f"Chromium ended with {done.returncode}:\n{done.stderr}")
        return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]

    def look(self, name, **how):
        """Return (what MEASURE sees, what was said in the console)."""
        text = (self.folder / name).read_text(encoding="utf-8")
        measured = f"measured-{name}"
        (self.folder / measured).write_text(text.replace("</body>", MEASURE + "</body>"), encoding="utf-8")
        page, said = self.run(measured, "--dump-dom", **how)
        found = re.search(r'<pre id="seen">(.*?)</pre>', page, re.DOTALL)
        if found is None:
            raise SandboxError(f"{name} could not be measured: {said or page[-2000:]}")
        text = found.group(1)
        for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&nbsp;", "\u00a0"), ("&amp;", "&")):
            text = text.replace(entity, character)
        return json.loads(text), said

    def picture(self, name, to, **how):
        """Write a PNG of the page as it is on a screen."""
        self.run(name, f"--screenshot=/mnt/{to}", **how)
        return self.folder / to

    def paper(self, name, to):
        """Write a PDF of the page; return its number of sheets."""
        self.run(name, f"--print-to-pdf=/mnt/{to}", "--no-pdf-header-footer")
        return len(re.findall(rb"/Type\s*/Page\b", (self.folder / to).read_bytes()))
