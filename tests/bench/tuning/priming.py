#!/usr/bin/env python3
"""The encoder and the data of priming.sh, and its table.

    priming.py encoder MINILM TEXTCLS OUT --layers L             the first L blocks, and of the vocabulary what CLINC150's texts have
    priming.py data TEXTCLS OUT --seed S --held H --shots K      tables of one seed: all.tsv, tasks.tsv, held-T.tsv, test-T.tsv
    priming.py table WORK --seeds S --held H BODY...             accuracy of each body, a Markdown row each

A task is five intents. Within a task intents are called by their place, so that every task asks for the same five outputs; in all.tsv, for training
on all of them at once, by their names. The encoder needs the packages safetensors, numpy and tokenizers.
"""
import argparse
import csv
import json
import pathlib
import random
import statistics

TASKS, INTENTS, EXAMPLES = 10, 5, 6  # tasks to train on besides the held-out ones, intents of each, training examples of each intent


def read(path):
    rows = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            rows.setdefault(row["label_name"], []).append(row["text"])
    rows.pop("oos", None)
    return rows


def write(path, columns, rows):
    path.write_text("".join("\t".join(row) + "\n" for row in [columns, *rows]), encoding="utf-8")


def encoder(options):
    """Texts of CLINC150 go through it as through the first blocks of the whole: they hold no other tokens."""
    from safetensors.numpy import load_file, save_file
    from tokenizers import Tokenizer

    whole = Tokenizer.from_file(str(options.minilm / "tokenizer.json"))
    whole.no_padding()
    whole.no_truncation()
    told = json.loads((options.minilm / "tokenizer.json").read_text(encoding="utf-8"))
    used = {token["id"] for token in told["added_tokens"]}
    for part in ("train", "test"):
        texts = [text for rows in read(options.textcls / f"clinc150_{part}.tsv").values() for text in rows]
        for encoded in whole.encode_batch(texts):
            used.update(encoded.ids)
    kept = sorted(used)
    new = {old: i for i, old in enumerate(kept)}
    told["model"]["vocab"] = {token: new[i] for token, i in told["model"]["vocab"].items() if i in new}
    for token in told["added_tokens"]:
        token["id"] = new[token["id"]]
    for token in told["post_processor"]["special_tokens"].values():
        token["ids"] = [new[i] for i in token["ids"]]
    told["padding"] = None
    config = json.loads((options.minilm / "config.json").read_text(encoding="utf-8"))
    config.update(num_hidden_layers=options.layers, vocab_size=len(kept), pad_token_id=new[config["pad_token_id"]])
    weights = load_file(options.minilm / "model.safetensors")
    weights = {name: value for name, value in weights.items()
               if ".layer." not in name or int(name.split(".layer.")[1].split(".")[0]) < options.layers}
    weights["embeddings.word_embeddings.weight"] = weights["embeddings.word_embeddings.weight"][kept].copy()
    options.out.mkdir(parents=True, exist_ok=True)
    save_file(weights, options.out / "model.safetensors")
    (options.out / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (options.out / "tokenizer.json").write_text(json.dumps(told), encoding="utf-8")


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


def error(values):
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")


def table(options):
    with (options.work / "results.tsv").open("w", encoding="utf-8") as file:
        print("body", "seed", "task", "accuracy", sep="\t", file=file)
        for body in options.bodies:
            for s in range(options.seeds):
                for t in range(options.held):
                    print(body, s, t, f"{accuracy(options.work / f'seed-{s}' / f'{body}-{t}'):.4f}", sep="\t", file=file)
    print("| body | accuracy | standard error | less alone | held-out tasks |\n| --- | ---: | ---: | ---: | ---: |")
    by_body = {}
    for body in options.bodies:
        # a seed's tasks share its body: seeds are what is independent
        by_seed = [statistics.mean(accuracy(options.work / f"seed-{s}" / f"{body}-{t}") for t in range(options.held))
                   for s in range(options.seeds)]
        by_body[body] = by_seed
        less = [a - b for a, b in zip(by_seed, by_body[options.bodies[0]])]
        print(f"| {body} | {statistics.mean(by_seed):.3f} | {error(by_seed):.3f} | {statistics.mean(less):+.3f} ± {error(less):.3f} | "
              f"{options.seeds * options.held} |")


parser = argparse.ArgumentParser()
commands = parser.add_subparsers(required=True)
cut = commands.add_parser("encoder")
cut.add_argument("minilm", type=pathlib.Path)
cut.add_argument("textcls", type=pathlib.Path)
cut.add_argument("out", type=pathlib.Path)
cut.add_argument("--layers", type=int, required=True)
cut.set_defaults(run=encoder)
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
