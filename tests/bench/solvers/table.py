"""One table of accuracy against cost, and the cheapest of each peer that ranks as the exact scores do.

    table.py --exact exact.safetensors LINES.jsonl [LINES.jsonl ...]     whence's lines and the peers'

A line is {"peer", "method", "options", "seconds", "gradients", "scores" (a safetensors file with `scores` [queries, examples], beside the
lines), and where known "fit_seconds", "products", "residual", "error"}; of lines that say the same peer, method and options the last
counts. Relative error is |a - exact| / |exact| over all scores; Spearman and Pearson are means over queries. `gradients` are seconds in
units of the peer's own gradient over all examples; the headline compares both, since those units differ.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from scipy.stats import rankdata

parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
parser.add_argument("lines", type=Path, nargs="+")
parser.add_argument("--exact", type=Path, required=True)
parser.add_argument("--spearman", type=float, default=0.999, help="what counts as ranking as the exact scores do")
arguments = parser.parse_args()


def correlation(a, b):
    """Mean over the rows of Pearson's."""
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(((a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))).mean())


def number(value, form):
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else form.format(value)


exact = load_file(arguments.exact)["scores"].astype(np.float64)
ranks = rankdata(exact, axis=1)
entries = {}
for path in arguments.lines:
    for text in path.read_text().splitlines():
        entry = json.loads(text)
        entries[entry["peer"], entry["method"], str(entry["options"])] = entry | {"folder": path.parent}
for entry in entries.values():
    if "error" in entry or "scores" not in entry:
        continue
    scores = load_file(entry["folder"] / entry["scores"])["scores"].astype(np.float64)
    if scores.shape != exact.shape:
        raise SystemExit(f"{entry['scores']}: shape {scores.shape}, the exact scores' is {exact.shape}")
    entry["error-of-scores"] = float(np.linalg.norm(scores - exact) / np.linalg.norm(exact))
    entry["spearman"] = correlation(rankdata(scores, axis=1), ranks)
    entry["pearson"] = correlation(scores, exact)

print("| peer | method | options | seconds | of which fit | gradients | products | residual | relative error | Spearman | Pearson | |")
print("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |")
order = sorted(entries.values(), key=lambda e: (e["peer"] != "whence", e["peer"], e.get("gradients", math.inf)))
for e in order:
    cells = [e["peer"], e["method"], str(e["options"]), number(e.get("seconds"), "{:.2f}"), number(e.get("fit_seconds"), "{:.2f}"),
             number(e.get("gradients"), "{:.0f}"), number(e.get("products"), "{:.0f}"), number(e.get("residual"), "{:.1e}"),
             number(e.get("error-of-scores"), "{:.2e}"), number(e.get("spearman"), "{:.5f}"), number(e.get("pearson"), "{:.5f}"),
             e.get("error", "").replace("|", "/")]  # fmt: skip
    print("| " + " | ".join(cells) + " |")

print(f"\nCheapest with a Spearman correlation of at least {arguments.spearman:g}:\n")
cheapest = {}
for e in order:
    if e.get("spearman", 0) >= arguments.spearman and e["seconds"] < cheapest.get(e["peer"], {"seconds": math.inf})["seconds"]:
        cheapest[e["peer"]] = e
for peer in dict.fromkeys(e["peer"] for e in order):
    e = cheapest.get(peer)
    print(f"- {peer}: " + (f"{e['method']} {e['options']}".strip() + f", {e['seconds']:.2f} s, {e['gradients']:.0f} gradients" if e else "none"))
others = [e for peer, e in cheapest.items() if peer != "whence"]
if others and "whence" in cheapest:
    best, ours = min(others, key=lambda e: e["seconds"]), cheapest["whence"]
    print(f"- best peer / whence: {best['seconds'] / ours['seconds']:.1f} in seconds, {best['gradients'] / ours['gradients']:.1f} in gradients")
