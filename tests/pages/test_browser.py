# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the other tests rely on: the browser notices what is wrong with a page."""
from __future__ import annotations

WRONG = """<!DOCTYPE html><html><body style="margin: 0"><div style="width: 3000px">wide</div>
<svg viewBox="0 0 100 40" width="100"><text x="0" y="25">one</text><text x="2" y="25">two</text><text x="90" y="25">outside</text>
<line x1="95" y1="0" x2="95" y2="40" class="through"/></svg>
<img src="http://192.0.2.1/x.png"><script>throw new Error("on purpose")</script></body></html>"""


def test_what_is_wrong_is_seen(browser, folder):
    (folder / "wrong.html").write_text(WRONG, encoding="utf-8")
    seen, said = browser.look("wrong.html", width=400)
    assert seen["wide"] >= 3000 and seen["screen"] == 400
    assert seen["pictures"][0]["on"] == [["one", "two"], ["outside", "through"]] and seen["pictures"][0]["outside"] == ["outside"]
    assert any("on purpose" in line for line in said), said
