#!/usr/bin/env python3
"""Does the closed-form leave-one-out of a fine-tune's kernel foretell what the fine-tune does without the example? `whence kernel` says whether the
view holds, `score --method kernel:leave-one-out` foretells, `evaluate --against retraining` trains again without an example, from the same start.

    left_out.py WHENCE DATA WORK digits [--cases wide,narrow]
    left_out.py WHENCE DATA WORK prompt --model DIR [options]

`digits`: handwritten 3 and 8 of DATA/image at 7 x 7 pixels, 20 examples a class, 40 queries, an mlp in float64, all examples at each step; each example
is left out. `prompt`: SST-2 of DATA/textcls with a prompt and label words, as in study.py, DIR a folder of a language model, float32; `--left-out` examples,
spread over the scores' range. One row of WORK/left-out.tsv a case. Correlations are over examples, mean over queries, with the standard deviation over
1,000 bootstrap samples of examples. Python's standard library is enough. Nothing is run side by side: set OMP_NUM_THREADS.
"""
import argparse, gzip, json, random, resource, statistics, subprocess, sys
from pathlib import Path

import study

# units, learning rate and steps of plain gradient descent: one that stays near its start, and one that goes far
CASES = {"wide": (2048, 0.05, 60), "narrow": (4, 1, 200)}
COLUMNS = ["case", "model", "optimizer", "examples", "left-out", "queries", "level", "before", "after", "linearised", "feature-change", "share-of-move",
           "spearman", "spearman-error", "pearson", "pearson-error", "slope", "seconds"]


def write_idx(path, shape, values):
    with gzip.open(path, "wb") as file:
        file.write(bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape) + bytes(values))


def write_digits(data, folder, name, source, count):
    """The first `count` of 3 and of 8, each pixel the mean of sixteen."""
    with gzip.open(data / f"image/mnist-{source}-images-idx3-ubyte.gz") as file:
        images = file.read()[16:]
    with gzip.open(data / f"image/mnist-{source}-labels-idx1-ubyte.gz") as file:
        labels = file.read()[8:]
    rows = [row for digit in (3, 8) for row in [i for i, label in enumerate(labels) if label == digit][:count]]
    pixels = []
    for row in rows:
        at = images[784 * row:784 * (row + 1)]
        pixels += [sum(at[28 * (y + i) + x + j] for i in range(4) for j in range(4)) // 16 for y in range(0, 28, 4) for x in range(0, 28, 4)]
    write_idx(folder / f"{name}-images.gz", (len(rows), 7, 7), pixels)
    write_idx(folder / f"{name}-labels.gz", (len(rows),), [int(labels[row] == 8) for row in rows])


def ranks(values):
    order = sorted(range(len(values)), key=values.__getitem__)
    out = [0.0] * len(values)
    begin = 0
    while begin < len(order):
        end = begin
        while end < len(order) and values[order[end]] == values[order[begin]]:
            end += 1
        for i in order[begin:end]:
            out[i] = (begin + end - 1) / 2
        begin = end
    return out


def pearson(x, y):
    mx, my = statistics.fmean(x), statistics.fmean(y)
    xy = sum((a - mx) * (b - my) for a, b in zip(x, y))
    xx, yy = sum((a - mx) ** 2 for a in x), sum((b - my) ** 2 for b in y)
    return xy / (xx * yy) ** 0.5 if xx > 0 and yy > 0 else 0.0


def over_queries(points, rows, statistic):
    """Mean over the queries of a statistic over some of the examples; `points` [query][example] = (predicted, actual)."""
    return statistics.fmean(statistic([of[r][0] for r in rows], [of[r][1] for r in rows]) for of in points)


def spearman(x, y):
    return pearson(ranks(x), ranks(y))


def judge(args, case, model, optimizer, examples):
    """Trains, foretells, trains again: a row."""
    place, common = args.work / case, ["--quiet", *(["--dtype", "float64"] if args.what == "digits" else [])]
    seconds = 0
    for command in (["train", "fit.toml"], ["kernel", "fit.toml", "--examples", "100000", "--limit-queries", "0", "--out", "kernel"],
                    ["score", "fit.toml", "--method", "kernel:leave-one-out", "--out", "scores"],
                    ["evaluate", "fit.toml", "--scores", "scores", "--examples", examples, "--out", "judged"]):
        seconds += study.run(list(map(str, [args.whence, *command, *common])), place / "log.txt", place)
    kernel = json.loads((place / "kernel/kernel.json").read_text())
    judged = json.loads((place / "judged/evaluation.json").read_text())
    count = judged["examples"]
    flat = [(point["predicted"], point["actual"]) for point in judged["points"]]
    points = [flat[begin:begin + count] for begin in range(0, len(flat), count)]
    draws = random.Random(0)
    samples = [[draws.randrange(count) for _ in range(count)] for _ in range(1000)]
    row = [case, model, optimizer, len(kernel["examples"]), count, len(points), kernel["level"], kernel["skill"]["before"], kernel["skill"]["after"],
           kernel["skill"]["linearised"], kernel["feature-change"]["relative"], kernel["share-of-move"]["linearised"]]
    for statistic in (spearman, pearson):
        row += [over_queries(points, range(count), statistic), statistics.stdev(over_queries(points, rows, statistic) for rows in samples)]
    row += [judged["slope"], seconds]
    line = "\t".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row)
    table = args.work / "left-out.tsv"
    if not table.exists():
        table.write_text("\t".join(COLUMNS) + "\n")
    with open(table, "a") as file:
        file.write(line + "\n")
    print(line, flush=True)


def digits(args):
    for case in args.cases.split(","):
        units, rate, steps = CASES[case]
        place = args.work / case
        place.mkdir(parents=True, exist_ok=True)
        write_digits(args.data, place, "train", "train20k", 20)
        write_digits(args.data, place, "queries", "t10k", 20)
        optimizer = f"sgd:learning-rate={rate},momentum=0,max-iterations={steps},batch-size=40,schedule=constant"
        (place / "fit.toml").write_text(f"""seed = 0
[model]
spec = "mlp:widths={units},activation=relu"
[[stage]]
name = "fit"
train = {{ format = "idx", images = "train-images.gz", labels = "train-labels.gz" }}
optimizer = "{optimizer}"
checkpoint = "fit.safetensors"
[queries.test]
data = {{ format = "idx", images = "queries-images.gz", labels = "queries-labels.gz" }}
""")
        judge(args, case, f"mlp of {units}", optimizer, 40)


def prompt(args):
    place = args.work / args.name
    place.mkdir(parents=True, exist_ok=True)
    study.sample(args, "sst2", 1, args.shots, place)
    (place / "fit.toml").write_text(study.pipeline(args, "sst2", args.model.resolve(), "prompt", "sgd", args.sgd))
    judge(args, args.name, args.model.resolve().name, f"sgd:learning-rate={args.sgd},{args.steps} steps of {args.batch}", args.left_out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("whence", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("what", choices=["digits", "prompt"])
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--name", default="prompt")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--shots", type=int, default=8, help="examples a class")
    parser.add_argument("--left-out", type=int, default=10)
    parser.add_argument("--queries", type=int, default=16)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--micro-batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--tuning", default="full")
    parser.add_argument("--sgd", default="5e-4", help="the learning rate")
    args = parser.parse_args()
    args.whence, args.work = args.whence.resolve(), args.work.resolve()
    if args.what == "prompt":
        args.data = args.data / "textcls"
    {"digits": digits, "prompt": prompt}[args.what](args)


if __name__ == "__main__":
    main()
