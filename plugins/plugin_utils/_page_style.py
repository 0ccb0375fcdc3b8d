# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The style sheet of the pages: dark and light, on a phone and on paper."""
from __future__ import annotations

STYLE = """\
:root { --back: #fff; --fore: #1b1d21; --soft: #5b616b; --rule: #d4d8de; --panel: #f5f6f8; --vllm: #2f6fb7; --ollama: #d9822b; --system: #9aa2ad;
  --shared: #8a5aa8; --good: #1d7a45; --bad: #b3261e; --on: #fff; --on-light: #14161a; }
@media (prefers-color-scheme: dark) {
  :root { --back: #14161a; --fore: #e7e9ec; --soft: #a3aab5; --rule: #373c45; --panel: #1d2026; --vllm: #6aa5e8; --ollama: #eba45c; --system: #8b93a0;
    --shared: #b98bd6; --good: #5cc48c; --bad: #ff8a80; --on: #14161a; --on-light: #14161a; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 62rem; background: var(--back); color: var(--fore); font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .25rem; }
h1, h2, h3 { overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 0 0 .5rem; break-after: avoid; }
h3 { font-size: 1rem; margin: 1rem 0 .3rem; break-after: avoid; }
.pictures h3, .finding h3 { margin-top: 0; }
.pictures + .wide, ul + .pictures { margin-top: 1rem; }
a { color: inherit; }
p { margin: 0 0 .6rem; overflow-wrap: anywhere; }
small, .soft { color: var(--soft); font-size: .85em; }
.verdict { border-left: .35rem solid var(--good); background: var(--panel); padding: .6rem .8rem; margin: .8rem 0; }
.verdict.failed { border-color: var(--bad); }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1rem; }
section { margin: 1.4rem 0; }
.pictures section { margin: 0; border: 1px solid var(--rule); border-radius: .4rem; padding: .8rem; break-inside: avoid; }
svg { display: block; width: 100%; max-width: 32rem; height: auto; font: 12px system-ui, sans-serif; }
svg text { fill: var(--fore); }
svg text.small { font-size: 8px; }
svg text.bad { fill: var(--bad); font-weight: 700; }
.core { fill: none; stroke: var(--rule); }
.cpu { stroke: var(--back); }
.vllm { fill: var(--vllm); } .ollama { fill: var(--ollama); } .system { fill: var(--system); } .shared { fill: var(--shared); } .nobody { fill: var(--panel); }
svg text.on-vllm, svg text.on-shared { fill: var(--on); } svg text.on-ollama, svg text.on-system { fill: var(--on-light); }
svg text.on-nobody { fill: var(--fore); }
.grid { stroke: var(--rule); } .axis { stroke: var(--fore); } .frame { fill: none; stroke: var(--fore); }
.range { stroke: var(--fore); stroke-width: 1.5; } .limit { stroke: var(--bad); stroke-width: 2; stroke-dasharray: 3 2; }
.limit.other { stroke-dasharray: 9 3; }
.segment { stroke: var(--fore); stroke-width: .75; } .strip.well { fill: var(--good); } .strip.ill { fill: var(--bad); }
.curve { fill: none; stroke-width: 2; }
.line0 { stroke: var(--fore); } .line1 { stroke: var(--vllm); stroke-dasharray: 7 3; } .line2 { stroke: var(--ollama); stroke-dasharray: 3 3; }
.line3 { stroke: var(--shared); stroke-dasharray: 9 3 2 3; }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1rem; margin: .5rem 0 0; padding: 0; list-style: none; font-size: .85rem; }
.swatch { display: inline-block; width: .9em; height: .9em; margin-right: .35em; vertical-align: -.1em; border: 1px solid var(--rule); }
.swatch.vllm { background: var(--vllm); } .swatch.ollama { background: var(--ollama); } .swatch.system { background: var(--system); }
.swatch.shared { background: var(--shared); } .swatch.nobody { background: var(--panel); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--rule); vertical-align: top; white-space: nowrap; }
th { font-weight: 600; }
.finding { border-left: .35rem solid var(--rule); padding: .1rem 0 .1rem .8rem; margin: 0 0 .9rem; overflow-wrap: anywhere; break-inside: avoid; }
.finding.critical { border-color: var(--bad); } .finding.warning { border-color: var(--ollama); }
.bad { color: var(--bad); font-weight: 700; }
.columns { columns: 22rem; column-gap: 2rem; list-style: none; padding: 0; font-size: .85rem; }
.columns li { break-inside: avoid; padding: .1rem 0; }
.long, .cards td, .cards th[scope=row] { white-space: normal; }
.long, .cards th[scope=row] { overflow-wrap: anywhere; min-width: 6rem; }
ul { margin: 0; padding-left: 1.2rem; }
li { overflow-wrap: anywhere; }
@media (max-width: 40rem) {
  table { font-size: .85rem; }
  .cards thead { display: none; }
  .cards tr { display: block; padding: .4rem 0; border-bottom: 1px solid var(--rule); }
  .cards th, .cards td { display: block; padding: 0; border: 0; }
  .cards td:empty { display: none; }
  .cards td[data-name]::before { content: attr(data-name) ": "; color: var(--soft); }
}
@media print {
  :root { --back: #fff; --fore: #000; --soft: #444; --rule: #bbb; --panel: #f2f2f2; --vllm: #2f6fb7; --ollama: #d9822b; --system: #9aa2ad; --shared: #8a5aa8;
    --good: #1d7a45; --bad: #b3261e; --on: #fff; --on-light: #14161a; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  .pictures { display: block; columns: 2; }
  .pictures section { margin-bottom: 1rem; }
  .wide { overflow: visible; }
  th, td { padding-right: .4rem; white-space: normal; }
  tr, li { break-inside: avoid; }
}
@page { margin: 1.5cm; }
"""
