#!/usr/bin/env python3
"""The data of fewshot.sh, and its tables.

    fewshot.py data TEXTCLS FOLDER --set sst2|trec|ag_news --seed S --shots N --test M
        train.tsv, dev.tsv and test.tsv of one seed in FOLDER, and body.tsv beside it
    fewshot.py table WORK --arms ARM...
        a Markdown table of the runs in WORK, and WORK/results.tsv with a row each

Training has N examples and development N / 2, both of all classes alike; test texts are drawn from the test set as it
is. AG News, of which there is a test set alone, is cut in two for that.
"""
import argparse
import csv
import json
import pathlib
import random
import statistics

csv.field_size_limit(1 << 24)


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [(row["text"], row["label_name"]) for row in rows]


def write(path, rows):
    path.write_text("".join("\t".join(row) + "\n" for row in [("text", "label"), *rows]), encoding="utf-8")


def balanced(draw, rows, count):
    """`count` rows with classes as equal as they come, and the others."""
    by_class = {}
    for row in draw.sample(rows, len(rows)):
        by_class.setdefault(row[1], []).append(row)
    chosen = []
    while len(chosen) < count:
        for name in sorted(by_class):
            if by_class[name] and len(chosen) < count:
                chosen.append(by_class[name].pop())
    return chosen, [row for name in sorted(by_class) for row in by_class[name]]


def data(options):
    draw = random.Random(options.seed)
    test = read(options.textcls / f"{options.set}_test.tsv")
    path = options.textcls / f"{options.set}_train.tsv"
    if path.exists():
        pool = read(path)
    else:
        pool, test = test[: len(test) // 2], test[len(test) // 2 :]
    train, rest = balanced(draw, pool, options.shots)
    dev, _ = balanced(draw, rest, options.shots // 2)
    options.folder.mkdir(parents=True, exist_ok=True)
    body = options.folder.parent / "body.tsv"
    if not body.exists():
        write(body, balanced(random.Random(0), pool, 12)[0])
    draw.shuffle(train)
    write(options.folder / "train.tsv", train)
    write(options.folder / "dev.tsv", dev)
    write(options.folder / "test.tsv", draw.sample(test, min(options.test, len(test))))


def runs(work, arms):
    """(set, shots, arm, seed) -> (accuracy, test loss, kept, iterations, seconds)"""
    out = {}
    for folder in sorted(work.glob("*-*/seed-*")):
        name, shots = folder.parent.name.rsplit("-", 1)
        for arm in arms:
            if not (folder / arm / "run.json").exists():
                continue
            ranking = (folder / arm / "ranking.jsonl").read_text(encoding="utf-8")
            lines = [json.loads(line) for line in ranking.splitlines()]
            told = json.loads((folder / f"{arm}.json").read_text(encoding="utf-8"))[-1]
            kept = told.get("validation", {}).get("kept-after", told["iterations"])
            out[name, int(shots), arm, int(folder.name.split("-")[1])] = (
                statistics.mean(line["prediction"]["predicted"] == line["prediction"]["expected"] for line in lines),
                statistics.mean(line["measurement"] for line in lines), kept, told["iterations"], told["seconds"])
    return out


def with_error(values, digits=3):
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):.{digits}f} ± {error:.{digits}f}"


def table(options):
    found = runs(options.work, options.arms)
    with (options.work / "results.tsv").open("w", encoding="utf-8") as file:
        print("set", "shots", "arm", "seed", "accuracy", "loss", "kept", "iterations", "seconds", sep="\t", file=file)
        for key, (accuracy, loss, kept, iterations, seconds) in sorted(found.items()):
            print(*key, f"{accuracy:.4f}", f"{loss:.4f}", kept, iterations, f"{seconds:.1f}", sep="\t", file=file)
    settings = sorted({key[:2] for key in found})
    print("| data, shots | arm | accuracy | loss | steps kept, of | seconds | seeds |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for name, shots in settings:
        for arm in options.arms:
            of_arm = [value for key, value in sorted(found.items()) if key[:3] == (name, shots, arm)]
            if of_arm:
                columns = list(zip(*of_arm))
                kept, iterations, seconds = (statistics.mean(column) for column in columns[2:])
                print(f"| {name}, {shots} | {arm} | {with_error(columns[0])} | {with_error(columns[1])} | "
                      f"{kept:.0f}, {iterations:.0f} | {seconds:.0f} | {len(of_arm)} |")
    base = "simplex-stochastic"
    print(f"\nAccuracy less that of {base}, with the standard error of the difference over seeds and data together:\n")
    print("| arm | difference | runs |\n| --- | ---: | ---: |")
    for arm in options.arms:
        pairs = [value[0] - found[(*key[:2], base, key[3])][0] for key, value in sorted(found.items())
                 if key[2] == arm and arm != base and (*key[:2], base, key[3]) in found]
        if pairs:
            print(f"| {arm} | {with_error(pairs)} | {len(pairs)} |")


parser = argparse.ArgumentParser()
commands = parser.add_subparsers(required=True)
one = commands.add_parser("data")
one.add_argument("textcls", type=pathlib.Path)
one.add_argument("folder", type=pathlib.Path)
one.add_argument("--set", required=True)
one.add_argument("--seed", type=int, required=True)
one.add_argument("--shots", type=int, required=True)
one.add_argument("--test", type=int, required=True)
one.set_defaults(run=data)
two = commands.add_parser("table")
two.add_argument("work", type=pathlib.Path)
two.add_argument("--arms", nargs="+", required=True)
two.set_defaults(run=table)
chosen = parser.parse_args()
chosen.run(chosen)
