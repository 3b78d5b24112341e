#!/usr/bin/env python3
"""The tables of hut.sh.

    hut.py WORK --shots N --methods METHOD... --ranks R... --texts B... --steps S

Operations are counted by formula, a multiplication and an addition two of them, for each layer W [d, k] that the
tuning's checkpoint names and n tokens a step; what the frozen model itself takes is 2 n d k forward and as much
backward for the signal that goes on to the layer before.

    beside that        forward                    backward
    lora               2 n r (d + k) + 2 n d      4 n r (d + k)              through the factors
    hut                2 d k + 2 n d              2 n d k + 4 d k + 4 n d    of W' itself, then sums
    hira               2 d k r + 2 d k            2 n d k + d k + 4 d k r    the same, then products
"""
import argparse
import json
import math
import pathlib
import statistics
import struct

TOKENS = 32  # a text: cut to so many, and AG News has few that are shorter


def shapes(checkpoint):
    with checkpoint.open("rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    return {name: entry["shape"] for name, entry in header.items() if name.startswith("tuning.")}


def layers(checkpoint, method):
    """[(d, k)], and the number of parameters beside the head."""
    first, second = {"lora": (".lora_B.weight", ".lora_A.weight"),
                     "hut": (".hut_a", ".hut_b"),
                     "hira": (".hira_B", ".hira_A")}[method]
    found = shapes(checkpoint)
    out = [(shape[0], found[name.removesuffix(first) + second][1]) for name, shape in found.items()
           if name.endswith(first)]
    return out, sum(math.prod(shape) for shape in found.values())


def operations(method, d, k, r, n):
    return {
        "lora": (2 * n * r * (d + k) + 2 * n * d, 4 * n * r * (d + k)),
        "hut": (2 * d * k + 2 * n * d, 2 * n * d * k + 4 * d * k + 4 * n * d),
        "hira": (2 * d * k * r + 2 * d * k, 2 * n * d * k + d * k + 4 * d * k * r),
    }[method]


def seconds_a_step(folder, name, texts, steps):
    def seconds(count):
        return json.loads((folder / f"time-{name}-{texts}-{count}.json").read_text(encoding="utf-8"))[-1]["seconds"]

    return (seconds(steps + 1) - seconds(1)) / steps


def accuracy(folder):
    lines = [json.loads(line) for line in (folder / "ranking.jsonl").read_text(encoding="utf-8").splitlines()]
    return statistics.mean(line["prediction"]["predicted"] == line["prediction"]["expected"] for line in lines)


parser = argparse.ArgumentParser()
parser.add_argument("work", type=pathlib.Path)
parser.add_argument("--shots", type=int, required=True)
parser.add_argument("--methods", nargs="+", required=True)
parser.add_argument("--ranks", nargs="+", type=int, required=True)
parser.add_argument("--texts", nargs="+", type=int, required=True)
parser.add_argument("--steps", type=int, required=True)
options = parser.parse_args()

seeds = sorted((options.work / f"ag_news-{options.shots}").glob("seed-*"))
rows = []
print("| tuning | parameters | accuracy |" +
      "".join(f" {t * TOKENS} tokens: forward | backward | seconds a step |" for t in options.texts))
print("| --- | ---: | ---: |" + " ---: | ---: | ---: |" * len(options.texts))
for method in options.methods:
    for rank in options.ranks:
        name = f"{method}-{rank}"
        sides, parameters = layers(seeds[0] / f"{name}.safetensors", method)
        found = [accuracy(seed / name) for seed in seeds if (seed / name / "run.json").exists()]
        error = statistics.stdev(found) / len(found) ** 0.5 if len(found) > 1 else float("nan")
        line = f"| {method}, rank {rank} | {parameters} | {statistics.mean(found):.3f} ± {error:.3f} |"
        for texts in options.texts:
            n = texts * TOKENS
            frozen = sum(2 * n * d * k for d, k in sides)
            forward, backward = (sum(part) for part in zip(*(operations(method, d, k, rank, n) for d, k in sides)))
            seconds = seconds_a_step(seeds[0], name, texts, options.steps)
            line += f" {forward / frozen:.3f} | {backward / frozen:.3f} | {seconds:.2f} |"
            rows.append((method, rank, parameters, n, forward, backward, frozen, f"{seconds:.3f}",
                         f"{statistics.mean(found):.4f}", f"{error:.4f}", len(found)))
        print(line)
print("\nForward and backward are operations beside the frozen layers' own, in shares of their forward ones "
      "(their backward ones are as many).")
COLUMNS = ("method", "rank", "parameters", "tokens", "forward", "backward", "frozen-forward", "seconds-a-step",
           "accuracy", "error", "seeds")
with (options.work / "results.tsv").open("w", encoding="utf-8") as file:
    for row in [COLUMNS, *rows]:
        print(*row, sep="\t", file=file)
