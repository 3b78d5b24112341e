#pragma once
#include <string_view>

namespace whence::detail {

/// The result page's style sheet: light or dark as the reader's system is, one column on a phone, sections kept whole
/// in print. Blue is helpful and orange harmful on every page and in the terminal: they are told apart by colour-blind
/// readers too, and each number carries its sign. Every colour of a text has a contrast of 4.5 with what it stands on
/// (tests/report/test_style.cpp).
constexpr std::string_view kStyle = R"css(
:root {
  color-scheme: light dark;
  --ground: #f6f7f9; --card: #ffffff; --line: #d9dee5; --text: #1c2430; --soft: #566170;
  --helpful: #1f5fc0; --harmful: #a94a06; --good: #17724a; --warning: #8f5500; --bad: #b3261e; --warning-ground: #fff6e3;
  --stage-0: #6a4fc4; --stage-1: #0b7267; --stage-2: #b0417e; --stage-3: #716911;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #12161c; --card: #1b2129; --line: #2f3844; --text: #e6eaf0; --soft: #9aa6b5;
    --helpful: #6ea5f5; --harmful: #f0995a; --good: #4fc28a; --warning: #e5a83b; --bad: #ff8a80; --warning-ground: #2c2414;
    --stage-0: #a793f2; --stage-1: #4cc4b4; --stage-2: #ea86b9; --stage-3: #cfc45a;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
body {
  margin: 0; background: var(--ground); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main { max-width: 1180px; margin: 0 auto; padding: 40px 24px 64px; }
header h1 { font-size: 28px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -0.01em; overflow-wrap: anywhere; }
header p { margin: 0; color: var(--soft); overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 40px 0 12px; }
h3 { font-size: 13px; font-weight: 600; margin: 0 0 10px; color: var(--soft); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 20px; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); gap: 18px 24px; margin: 0; }
.facts .long { grid-column: span 2; }
.facts dt { color: var(--soft); font-size: 13px; }
.facts dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.facts small { display: block; font-weight: 400; color: var(--soft); line-height: 1.35; }
.good::before, .warning::before, .bad::before { margin-right: 8px; font-weight: 700; }
.good::before { content: "\2713"; color: var(--good); }
.warning::before { content: "!"; color: var(--warning); }
.bad::before { content: "\2715"; color: var(--bad); }
.verdict { margin: 20px 0 0; padding: 12px 18px; border: 1px solid var(--state); border-left-width: 6px; border-radius: 10px; background: var(--card); font-weight: 600; overflow-wrap: anywhere; }
.verdict.good { --state: var(--good); } .verdict.warning { --state: var(--warning); } .verdict.bad { --state: var(--bad); }
.evidence { margin: 10px 0 0; }
.evidence > summary { cursor: pointer; color: var(--soft); padding: 4px 2px; }
.evidence > .card, .evidence > .warnings { margin-top: 12px; }
.warnings {
  margin: 20px 0 0; padding: 14px 20px 14px 38px; border: 1px solid var(--warning); border-radius: 12px;
  background: var(--warning-ground);
}
.legend { display: flex; flex-wrap: wrap; gap: 6px 28px; margin: 16px 0; padding: 0; list-style: none; color: var(--soft); font-size: 14px; }
.key { display: inline-block; width: 22px; height: 6px; border-radius: 3px; margin-right: 8px; vertical-align: middle; background: var(--side); }
.helpful { --side: var(--helpful); } .harmful { --side: var(--harmful); }
.evaluation { display: grid; grid-template-columns: minmax(0, 520px) minmax(0, 1fr); gap: 28px; align-items: center; }
.evaluation svg { width: 100%; height: auto; display: block; }
.evaluation + .evaluation { margin-top: 16px; }
nav { display: flex; flex-wrap: wrap; gap: 8px; margin: 28px 0 0; }
nav a {
  display: flex; align-items: center; gap: 8px; padding: 4px 10px; border: 1px solid var(--line); border-radius: 8px;
  background: var(--card); color: var(--text); text-decoration: none; font-size: 13px; font-variant-numeric: tabular-nums;
}
nav a:hover, nav a:focus-visible { border-color: var(--helpful); }
nav img { width: 24px; height: 24px; object-fit: contain; border-radius: 3px; image-rendering: pixelated; }
.query { display: grid; grid-template-columns: 200px minmax(0, 1fr); gap: 28px; margin-bottom: 20px; scroll-margin-top: 16px; }
.subject { min-width: 0; align-self: start; position: sticky; top: 16px; }
.subject h2 { margin: 0 0 10px; font-size: 16px; }
.subject .facts { grid-template-columns: 1fr; gap: 8px; margin: 0 0 10px; }
.subject .facts .long { grid-column: auto; }
.stages { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 28px; }
.suspects { margin-top: 20px; }
.lists { min-width: 0; }
.lists > .origin { margin-bottom: 10px; }
.side + .side { margin-top: 22px; }
.side h3 { color: var(--side); }
.examples { display: grid; grid-template-columns: repeat(auto-fill, minmax(124px, 1fr)); gap: 12px; margin: 0; padding: 0; list-style: none; }
.examples.wide { grid-template-columns: repeat(auto-fill, minmax(250px, 1fr)); }
.example { display: flex; flex-direction: column; min-width: 0; overflow-x: auto; padding: 10px; border: 1px solid var(--line); border-radius: 10px; break-inside: avoid; }
.picture { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; border-radius: 6px; margin-bottom: 8px; image-rendering: pixelated; background: var(--ground); }
.text { margin: 0 0 8px; white-space: pre-wrap; overflow-wrap: anywhere; font-size: 14px; line-height: 1.45; }
.text > summary { list-style: none; cursor: pointer; }
.text > summary::-webkit-details-marker { display: none; }
.text > summary::after { content: " \2026 more"; color: var(--soft); font-size: 12px; }
.text[open] > summary { display: inline; }
.text[open] > summary::after { content: none; }
.tokens span { background: color-mix(in srgb, var(--side) var(--share), transparent); border-radius: 3px; }
.prompt { margin: 0; padding: 0; list-style: none; border: 1px solid var(--line); border-radius: 10px; overflow: hidden; }
.demonstration { padding: 8px 14px; background: color-mix(in srgb, var(--side) var(--share), var(--card)); break-inside: avoid; }
.demonstration + .demonstration { border-top: 1px solid var(--line); }
.demonstration .text { margin: 0; }
.demonstration .score, .demonstration .origin { margin: 0; padding: 0; color: var(--text); }
.chips { display: flex; flex-wrap: wrap; gap: 6px; align-items: baseline; margin: 10px 0 0; font-size: 14px; }
.chips > span { color: var(--soft); }
.chip { padding: 1px 9px; border: 1px solid var(--side, var(--bad)); border-radius: 999px; color: var(--side, var(--bad)); text-decoration: none; font-weight: 600; font-variant-numeric: tabular-nums; }
.chip small { font-weight: 400; }
.chip.bad::before { content: none; }
.chip:hover, .chip:focus-visible { text-decoration: underline; }
.dropped { box-shadow: inset 5px 0 0 var(--bad); }
.demonstration:target { outline: 2px solid var(--text); outline-offset: -2px; }
.badge { margin-left: 8px; padding: 0 8px; border-radius: 999px; background: var(--bad); color: var(--card); font-size: 12px; }
.instead { margin-left: 8px; font-weight: 400; }
.squares { display: inline-flex; gap: 2px; margin-left: auto; }
.squares span { width: 11px; height: 11px; border-radius: 2px; border: 1px solid var(--line); background: color-mix(in srgb, var(--side) var(--share), var(--card)); }
.questions { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 16px; margin: 0; padding: 0; list-style: none; }
.questions .facts { grid-template-columns: repeat(auto-fill, minmax(130px, 1fr)); gap: 6px 16px; }
.values { width: 100%; margin: 0 0 8px; border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
.values th { padding: 1px 8px 1px 0; text-align: left; font-weight: 400; color: var(--soft); overflow-wrap: break-word; }
.values td, .values .value { padding: 1px 0 1px 8px; text-align: right; overflow-wrap: break-word; }
.values .beside { color: var(--soft); }
.values .differs { color: var(--text); font-weight: 600; }
.label { font-weight: 600; overflow-wrap: anywhere; }
.origin { display: flex; flex-wrap: wrap; gap: 2px 6px; align-items: baseline; font-size: 12px; color: var(--soft); }
.stage { color: var(--stage); border-bottom: 2px solid; padding-bottom: 4px; margin-bottom: 12px; font-weight: 600; overflow-wrap: anywhere; }
.stage-0 { --stage: var(--stage-0); } .stage-1 { --stage: var(--stage-1); } .stage-2 { --stage: var(--stage-2); } .stage-3 { --stage: var(--stage-3); }
.score { margin-top: auto; padding-top: 8px; font-size: 13px; font-weight: 600; color: var(--side); font-variant-numeric: tabular-nums; }
.shares { display: flex; height: 8px; margin: 4px 0 10px; border-radius: 4px; overflow: hidden; background: var(--line); }
.shares span { display: block; background: var(--stage); }
.tokens .shared, mark { text-decoration: underline; text-decoration-thickness: 2px; text-underline-offset: 3px; }
mark { background: none; color: inherit; }
.bar { height: 5px; border-radius: 3px; background: var(--line); overflow: hidden; }
.bar span { display: block; height: 100%; border-radius: 3px; background: var(--side); }
.raw { margin-top: 4px; font-size: 11.5px; color: var(--soft); font-variant-numeric: tabular-nums; }
.none { color: var(--soft); margin: 0; }
footer { margin-top: 40px; color: var(--soft); font-size: 13px; }
@media (max-width: 760px) {
  main { padding: 24px 14px 40px; }
  .query, .evaluation { grid-template-columns: minmax(0, 1fr); }
  .subject { position: static; }
  .subject .picture { max-width: 160px; }
}
@media (max-width: 480px) {
  .facts .long { grid-column: auto; }
}
@media print {
  :root {
    color-scheme: light;
    --ground: #ffffff; --card: #ffffff; --line: #cfd4da; --text: #000000; --soft: #444444;
    --helpful: #1f5fc0; --harmful: #a94a06; --good: #17724a; --warning: #8f5500; --bad: #b3261e; --warning-ground: #ffffff;
    --stage-0: #6a4fc4; --stage-1: #0b7267; --stage-2: #b0417e; --stage-3: #716911;
  }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  main { max-width: none; padding: 0; }
  nav { display: none; }
  .subject { position: static; }
  .query, .evaluation { break-inside: avoid; }
}
)css";

}  // namespace whence::detail
