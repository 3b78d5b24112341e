#pragma once
#include <string_view>

namespace whence::detail {

/// The result page's style sheet: light or dark as the reader's system is, one column on a phone, sections kept whole
/// in print. Blue and orange tell the signs apart for colour-blind readers too, and each number carries its sign.
constexpr std::string_view kStyle = R"css(
:root {
  color-scheme: light dark;
  --ground: #f6f7f9; --card: #ffffff; --line: #e1e5ea; --text: #1c2430; --soft: #5d6877;
  --up: #2f6fd0; --down: #c8601a; --good: #1f8a57; --warning: #b26a00; --warning-ground: #fff6e3;
  --stage-0: #6a4fc4; --stage-1: #0d8577; --stage-2: #b0417e; --stage-3: #7d7415;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #12161c; --card: #1b2129; --line: #2f3844; --text: #e6eaf0; --soft: #9aa6b5;
    --up: #6ea5f5; --down: #f0995a; --good: #4fc28a; --warning: #e5a83b; --warning-ground: #2c2414;
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
.good::before, .warning::before { margin-right: 6px; font-weight: 700; }
.good::before { content: "\2713"; color: var(--good); }
.warning::before { content: "!"; color: var(--warning); }
.warnings {
  margin: 20px 0 0; padding: 14px 20px 14px 38px; border: 1px solid var(--warning); border-radius: 12px;
  background: var(--warning-ground);
}
.legend { display: flex; flex-wrap: wrap; gap: 6px 28px; margin: 0 0 16px; padding: 0; list-style: none; color: var(--soft); font-size: 14px; }
.key { display: inline-block; width: 22px; height: 6px; border-radius: 3px; margin-right: 8px; vertical-align: middle; }
.up { --sign: var(--up); } .down { --sign: var(--down); }
.key.up, .key.down { background: var(--sign); }
.evaluation { display: grid; grid-template-columns: minmax(0, 520px) minmax(0, 1fr); gap: 28px; align-items: center; }
.evaluation svg { width: 100%; height: auto; display: block; }
.evaluation + .evaluation { margin-top: 16px; }
nav { display: flex; flex-wrap: wrap; gap: 8px; margin-bottom: 16px; }
nav a {
  display: flex; align-items: center; gap: 8px; padding: 4px 10px; border: 1px solid var(--line); border-radius: 8px;
  background: var(--card); color: var(--text); text-decoration: none; font-size: 13px; font-variant-numeric: tabular-nums;
}
nav a:hover, nav a:focus-visible { border-color: var(--up); }
nav img { width: 24px; height: 24px; object-fit: contain; border-radius: 3px; image-rendering: pixelated; }
.query { display: grid; grid-template-columns: 200px minmax(0, 1fr); gap: 28px; margin-bottom: 20px; scroll-margin-top: 16px; }
.subject { min-width: 0; align-self: start; position: sticky; top: 16px; }
.subject h2 { margin: 0 0 10px; font-size: 16px; }
.subject .label { font-size: 17px; }
.subject .measurement { color: var(--soft); font-variant-numeric: tabular-nums; }
.side + .side { margin-top: 22px; }
.examples { display: grid; grid-template-columns: repeat(auto-fill, minmax(118px, 1fr)); gap: 12px; margin: 0; padding: 0; list-style: none; }
.examples.wide { grid-template-columns: repeat(auto-fill, minmax(250px, 1fr)); }
.example { display: flex; flex-direction: column; min-width: 0; padding: 10px; border: 1px solid var(--line); border-radius: 10px; break-inside: avoid; }
.picture { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; border-radius: 6px; margin-bottom: 8px; image-rendering: pixelated; background: var(--ground); }
.text { margin: 0 0 8px; max-height: 9.2em; overflow: auto; white-space: pre-wrap; overflow-wrap: anywhere; font-size: 14px; line-height: 1.45; }
.tokens span { background: color-mix(in srgb, var(--sign) var(--share), transparent); border-radius: 3px; }
.asked + .asked { margin-top: 16px; }
.prompt { margin: 0; padding: 0; list-style: none; border: 1px solid var(--line); border-radius: 10px; overflow: hidden; }
.demonstration { padding: 8px 14px; background: color-mix(in srgb, var(--sign) var(--share), transparent); break-inside: avoid; }
.demonstration + .demonstration { border-top: 1px solid var(--line); }
.demonstration .text, .question .text { margin: 0; }
.demonstration .score { margin: 0; padding: 0; }
.question { margin-top: 10px; padding: 8px 14px; border: 1px dashed var(--line); border-radius: 10px; }
.values { width: 100%; margin: 0 0 8px; border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
.values th { padding: 1px 8px 1px 0; text-align: left; font-weight: 400; color: var(--soft); overflow-wrap: anywhere; }
.values td { padding: 1px 0; text-align: right; overflow-wrap: anywhere; }
.label { font-weight: 600; overflow-wrap: anywhere; }
.origin { display: flex; flex-wrap: wrap; gap: 2px 6px; align-items: baseline; font-size: 12px; color: var(--soft); }
.stage { color: var(--stage); border: 1px solid; border-radius: 6px; padding: 0 6px; font-size: 11px; font-weight: 600; overflow-wrap: anywhere; }
.stage-0 { --stage: var(--stage-0); } .stage-1 { --stage: var(--stage-1); } .stage-2 { --stage: var(--stage-2); } .stage-3 { --stage: var(--stage-3); }
.score { margin-top: auto; padding-top: 8px; font-weight: 600; color: var(--sign); font-variant-numeric: tabular-nums; }
.bar { height: 5px; border-radius: 3px; background: var(--line); overflow: hidden; }
.bar span { display: block; height: 100%; border-radius: 3px; background: var(--sign); }
.removal { margin-top: 4px; font-size: 11.5px; color: var(--soft); font-variant-numeric: tabular-nums; }
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
    --up: #2f6fd0; --down: #c8601a; --good: #1f8a57; --warning: #b26a00; --warning-ground: #ffffff;
    --stage-0: #6a4fc4; --stage-1: #0d8577; --stage-2: #b0417e; --stage-3: #7d7415;
  }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  main { max-width: none; padding: 0; }
  nav { display: none; }
  .subject { position: static; }
  .query, .evaluation { break-inside: avoid; }
  .text { max-height: none; }
}
)css";

}  // namespace whence::detail
