#!/usr/bin/env python3
"""The data of priming.sh, and its table.

    priming.py data TEXTCLS OUT --seed S --held H --shots K      tables of one seed: all.tsv, tasks.tsv, held-T.tsv, test-T.tsv
    priming.py table WORK --seeds S --held H BODY...             accuracy of each body, a Markdown row each

A task is ten intents. Within a task intents are called by their place, so that every task asks for the same ten outputs; in all.tsv, for training
on all of them at once, by their names.
"""
import argparse
import csv
import json
import pathlib
import random
import statistics

TASKS, INTENTS, EXAMPLES = 12, 10, 6  # tasks to train on besides the held-out ones, intents of each, training examples of each intent


def read(path):
    rows = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            rows.setdefault(row["label_name"], []).append(row["text"])
    rows.pop("oos", None)
    return rows


def write(path, columns, rows):
    path.write_text("".join("\t".join(row) + "\n" for row in [columns, *rows]), encoding="utf-8")


def data(options):
    draw = random.Random(options.seed)
    train, test = read(options.textcls / "clinc150_train.tsv"), read(options.textcls / "clinc150_test.tsv")
    intents = sorted(train)
    draw.shuffle(intents)
    groups = [intents[i : i + INTENTS] for i in range(0, len(intents), INTENTS)]
    if options.held + TASKS > len(groups):
        raise SystemExit(f"--held {options.held}, expected at most {len(groups) - TASKS}")
    options.out.mkdir(parents=True, exist_ok=True)
    everything, tasks = [], []
    for number, group in enumerate(groups[:TASKS]):
        for place, intent in enumerate(group):
            for text in draw.sample(train[intent], EXAMPLES):
                everything.append((text, intent))
                tasks.append((text, f"place {place}", f"task {number}"))
    write(options.out / "all.tsv", ("text", "label"), everything)
    write(options.out / "tasks.tsv", ("text", "label", "task"), tasks)
    for number, group in enumerate(groups[TASKS : TASKS + options.held]):
        places = list(enumerate(group))
        write(options.out / f"held-{number}.tsv", ("text", "label"),
              [(text, f"place {p}") for p, intent in places for text in draw.sample(train[intent], options.shots)])
        write(options.out / f"test-{number}.tsv", ("text", "label"),
              [(text, f"place {p}") for p, intent in places for text in test[intent]])


def accuracy(folder):
    lines = [json.loads(line) for line in (folder / "ranking.jsonl").read_text(encoding="utf-8").splitlines()]
    return statistics.mean(line["prediction"]["predicted"] == line["prediction"]["expected"] for line in lines)


def table(options):
    print("| body | accuracy | standard error | held-out tasks |\n| --- | ---: | ---: | ---: |")
    for body in options.bodies:
        # a seed's tasks share its body: seeds are what is independent
        by_seed = [statistics.mean(accuracy(options.work / f"seed-{s}" / f"{body}-{t}") for t in range(options.held))
                   for s in range(options.seeds)]
        error = statistics.stdev(by_seed) / len(by_seed) ** 0.5 if len(by_seed) > 1 else float("nan")
        print(f"| {body} | {statistics.mean(by_seed):.3f} | {error:.3f} | {options.seeds * options.held} |")


parser = argparse.ArgumentParser()
commands = parser.add_subparsers(required=True)
one = commands.add_parser("data")
one.add_argument("textcls", type=pathlib.Path)
one.add_argument("out", type=pathlib.Path)
one.add_argument("--seed", type=int, required=True)
one.add_argument("--held", type=int, required=True)
one.add_argument("--shots", type=int, required=True)
one.set_defaults(run=data)
two = commands.add_parser("table")
two.add_argument("work", type=pathlib.Path)
two.add_argument("bodies", nargs="+")
two.add_argument("--seeds", type=int, required=True)
two.add_argument("--held", type=int, required=True)
two.set_defaults(run=table)
chosen = parser.parse_args()
chosen.run(chosen)
