#!/usr/bin/env python3
"""What scores of demonstrations are worth, from prompts with wrong labels (prompts.py) and what whence_bench_icl_study made of them.

    study.py detect TASKS.jsonl RESULT.jsonl [--embedder DIR]
                                                        AUROC of finding the wrong labels, and rank correlation with removal: the
                                                        configuration and layer chosen on the first half of the prompts, told of the second
    study.py layers TASKS.jsonl RESULT.jsonl NAME       one configuration, layer by layer, over all prompts
    study.py variants TASKS.jsonl RESULT.jsonl OUT.jsonl NAME LAYER [--prompts P]
                                                        the second half's prompts with 4, 7 and 10 demonstrations removed: the most helpful,
                                                        the least helpful or random ones; their answers come from
                                                        `whence icl --tasks OUT.jsonl --method random --out DIR`
    study.py curation TASKS.jsonl RESULT.jsonl OUT.jsonl NAME LAYER
                                                        every prompt whole, and without its 10 least helpful or 10 random demonstrations
    study.py accuracy DIR                               accuracy by variant, calibrated by the query N/A where there is one

Scores: test (mean over the validation queries; negated to find wrong labels), leave-one-out (likewise), self. Embedding: how much the
validation queries that an encoder (examples/minilm.sh) finds similar have other outputs. Only the standard library, but torch and
transformers for --embedder.
"""
import argparse
import collections
import json
import math
import pathlib
import random
import statistics


def lines(path):
    return [json.loads(line) for line in open(path) if line.strip()]


def auroc(scores, positive):
    pairs = [(scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j])
             for i in positive for j in range(len(scores)) if j not in positive]
    return sum(pairs) / len(pairs)


def detector(kind, values):
    return values if kind == "self" else [-x for x in values]


KINDS = ("test", "leave-one-out", "self")


def load(tasks, results):
    wrong = lines(tasks + ".wrong")
    results = lines(results)
    return results, [set(w) for w in wrong[:len(results)]], lines(tasks)[:len(results)]


def table(results, wrong):
    """AUROC of each prompt by (configuration, layer, kind)."""
    out = collections.defaultdict(dict)
    for number, (result, bad) in enumerate(zip(results, wrong)):
        for name, layers in result["scores"].items():
            for layer, entry in layers.items():
                for kind in KINDS:
                    if all(isinstance(x, (int, float)) and math.isfinite(x) for x in entry[kind]):
                        out[name, int(layer), kind][number] = auroc(detector(kind, entry[kind]), bad)
    return out


def mean(values):
    values = [v for v in values if v is not None and math.isfinite(v)]
    return statistics.mean(values) if values else math.nan


def correlation(results, name, layer, kind, numbers):
    found = [results[n]["scores"].get(name, {}).get(str(layer), {}).get(kind + "-removal") for n in numbers]
    return mean(found)


def by_embedding(tasks, folder, validation):
    """For each prompt how suspect its demonstrations are."""
    import torch
    import transformers
    tokens = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()

    def embed(texts):
        batch = tokens(texts, padding=True, truncation=True, return_tensors="pt")
        with torch.no_grad():
            hidden = model(**batch).last_hidden_state * batch["attention_mask"].unsqueeze(2)
        return torch.nn.functional.normalize(hidden.sum(1), dim=1)

    out = []
    for task in tasks:
        own, asked = task["demonstrations"], task["queries"][:validation]
        share = 1 / len({d["output"] for d in own})
        agreement = torch.tensor([[(d["output"] == q["output"]) - share for q in asked] for d in own])
        alike = embed([d["input"] for d in own]) @ embed([q["input"] for q in asked]).T
        out.append((-(alike * agreement).sum(1)).tolist())
    return out


def detect(options):
    results, wrong, tasks = load(options.tasks, options.results)
    half = len(results) // 2
    first, second = range(half), range(half, len(results))
    scores = table(results, wrong)
    of = lambda key, numbers: mean([scores[key].get(n) for n in numbers])
    print(f"{len(results)} prompts; chosen on {half}, told of {len(results) - half}")
    verified = [n for n, r in enumerate(results) if "removal" in r]
    asked = [n for n in second if "surprisal" in results[n]]
    middle = sorted({layer for _, layer, _ in scores})[len({layer for _, layer, _ in scores}) // 2 - 1]
    print(f"{'score':16}{'configuration':34}{'layer':>6}{'AUROC':>8}{'removal':>9}")

    def row(kind, name, layer, note=""):
        value = of((name, layer, kind), second)
        together = correlation(results, name, layer, kind, verified) if kind != "self" else math.nan
        print(f"{kind:16}{name:34}{layer:6}{value:8.3f}{together:9.3f}  {note}")

    for kind in KINDS:
        row(kind, "detail", middle, "the paper's, middle layer")
    row("self", "detail, self-lambda 1e-9", middle, "the paper's noise detector")
    for kind in KINDS:
        best = max((key for key in scores if key[2] == kind), key=lambda key: of(key, first))
        row(kind, best[0], best[1], f"chosen by AUROC ({of(best, first):.3f} on the first half)")
    if options.embedder:
        found = by_embedding(tasks[half:], options.embedder, options.validation)
        print(f"{'embedding':50}{'':6}{mean([auroc(f, w) for f, w in zip(found, wrong[half:])]):8.3f}")
    for name in ("surprisal", "surprisal, centred"):
        if asked:
            print(f"{name:50}{'':6}{mean([auroc(results[n][name], wrong[n]) for n in asked]):8.3f}           {len(asked)} prompts")
    if verified:
        fit, told = verified[::2], verified[1::2]
        for kind in ("test", "leave-one-out"):
            best = max((key for key in scores if key[2] == kind),
                       key=lambda key: correlation(results, key[0], key[1], kind, fit))
            print(f"{kind:16}{best[0]:34}{best[1]:6}{of(best, second):8.3f}{correlation(results, best[0], best[1], kind, told):9.3f}  "
                  f"chosen by removal on {len(fit)} prompts, told of {len(told)}")
        print(f"{'removal':50}{'':6}{mean([auroc([-x for x in results[n]['removal']], wrong[n]) for n in verified]):8.3f}"
              f"           the model's own leave-one-out, {len(verified)} prompts")


def layers(options):
    results, wrong, _ = load(options.tasks, options.results)
    scores = table(results, wrong)
    verified = [n for n, r in enumerate(results) if "removal" in r]
    print(f"{options.name}\n{'layer':>6}" + "".join(f"{kind:>16}" for kind in KINDS) + f"{'removal':>10}{'loss':>8}")
    for layer in sorted({layer for name, layer, _ in scores if name == options.name}):
        print(f"{layer:6}" + "".join(f"{mean(scores[options.name, layer, kind].values()):16.3f}" for kind in KINDS)
              + f"{correlation(results, options.name, layer, 'test', verified):10.3f}"
              + f"{mean([r['scores'][options.name][str(layer)]['loss'] for r in results if options.name in r['scores']]):8.3f}")


def variants(options):
    results, _, tasks = load(options.tasks, options.results)
    half = len(results) // 2
    write_variants(options, list(zip(results, tasks))[half:half + options.prompts],
                   ["random-0"] + [f"{order}-{count}" for count in (4, 7, 10) for order in ("most", "least", "random")])


def curation(options):
    results, _, tasks = load(options.tasks, options.results)
    write_variants(options, list(zip(results, tasks)), ["random-0", "least-10", "random-10"])


def write_variants(options, prompts, wanted):
    draw = random.Random(0)
    out = []
    for result, task in prompts:
        entry = result["scores"][options.name][str(options.layer)]["test"]
        n = len(task["demonstrations"])
        falling = sorted(range(n), key=lambda i: -entry[i])
        anyhow = draw.sample(range(n), n)
        asked = task["queries"][options.validation:]
        orders = {"most": falling, "least": falling[::-1], "random": anyhow}
        for variant in wanted:
            order, count = variant.split("-")
            gone = set(orders[order][:int(count)])
            out.append({**task, "name": f"{task['name']}.{variant}", "queries": asked,
                        "demonstrations": [d for i, d in enumerate(task["demonstrations"]) if i not in gone]})
    pathlib.Path(options.out).write_text("".join(json.dumps(t, ensure_ascii=False) + "\n" for t in out))


def accuracy(options):
    right = collections.defaultdict(list)
    for path in sorted(pathlib.Path(options.folder).glob("*/icl.json")):
        result = json.loads(path.read_text())
        variant = path.parent.name.rsplit(".", 1)[1]
        blank = [q for q in result["queries"] if q["input"] == "N/A" and q["output"] is None]
        base = blank[0].get("log-probabilities", {}) if blank else {}
        for query in result["queries"]:
            if query["output"] is None:
                continue
            prediction = query["prediction"]
            if base and "log-probabilities" in query:
                prediction = max(query["log-probabilities"], key=lambda c: query["log-probabilities"][c] - base[c])
            right[variant].append(prediction == query["output"])
    for variant in sorted(right, key=lambda v: (v.split("-")[0], int(v.split("-")[1]))):
        print(f"{variant:12}{mean(right[variant]):.3f}  of {len(right[variant])}")


parser = argparse.ArgumentParser()
commands = parser.add_subparsers(required=True)
for run in (detect, layers, variants, curation):
    command = commands.add_parser(run.__name__)
    command.set_defaults(run=run)
    command.add_argument("tasks")
    command.add_argument("results")
    if run in (variants, curation):
        command.add_argument("out")
    if run is not detect:
        command.add_argument("name")
    if run in (variants, curation):
        command.add_argument("layer", type=int)
    if run is variants:
        command.add_argument("--prompts", type=int, default=50)
    if run is detect:
        command.add_argument("--embedder")
    command.add_argument("--validation", type=int, default=10)
command = commands.add_parser("accuracy")
command.set_defaults(run=accuracy)
command.add_argument("folder")
options = parser.parse_args()
options.run(options)
