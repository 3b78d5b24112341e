#!/usr/bin/env python3
"""What scores of demonstrations are worth, from prompts with wrong labels (prompts.py) and what whence_bench icl-study made of them.

    study.py detect TASKS.jsonl RESULT.jsonl [--embedder DIR]
                                                        AUROC of finding the wrong labels, and rank correlation with removal, with standard
                                                        errors: configuration and layer chosen on the first half of the prompts, told of the
                                                        second, of which some may have been verified
    study.py layers TASKS.jsonl RESULT.jsonl NAME       one configuration, layer by layer, over all prompts
    study.py variants TASKS.jsonl RESULT.jsonl OUT.jsonl NAME LAYER [--prompts P] [--by ORDER...]
                                                        the second half's prompts with 4, 7 and 10 demonstrations removed: the most helpful,
                                                        the least helpful, random ones, and where wanted those of the highest self scores
                                                        (self) or surprisal (surprising); their answers come from
                                                        `whence icl --tasks OUT.jsonl --method random --layers 1 --out DIR`
    study.py curation TASKS.jsonl RESULT.jsonl OUT.jsonl NAME LAYER
                                                        every prompt whole and without 5 or 10 demonstrations: the least helpful, the least
                                                        explained, random ones, or those that selection does not choose
    study.py orders TASKS.jsonl OUT.jsonl DIR           every prompt as given, shuffled, and as `whence icl --reorder two-highest-first`
                                                        arranged it (DIR has its results) and --reorder descending would
    study.py found TASKS.jsonl DIR                      AUROC of `test` and `self` in the results of `whence icl --tasks TASKS.jsonl --out DIR`,
                                                        and what share of what it dropped was wrong
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
POSITIONS = ("column", "label", "mean")


def said(values):
    """A mean and its standard error."""
    values = [v for v in values if v is not None and math.isfinite(v)]
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{mean(values):7.3f} +-{error:.3f}"


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


def correlations(results, name, layer, kind, numbers):
    return [results[n]["scores"].get(name, {}).get(str(layer), {}).get(kind + "-removal") for n in numbers]


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
    half = options.first or len(results) // 2
    first, second = range(half), range(half, len(results))
    scores = table(results, wrong)
    verified = [n for n in second if "removal" in results[n]]
    found = lambda key, numbers: [scores[key].get(n) for n in numbers]
    removal = lambda key, numbers: correlations(results, key[0], key[1], key[2], numbers)
    print(f"{len(results)} prompts; chosen on {half}, told of {len(results) - half}, of which {len(verified)} were verified")
    depths = sorted({layer for _, layer, _ in scores})
    print(f"{'score':16}{'configuration':34}{'layer':>6}{'AUROC':>15}{'removal':>15}")

    def row(key, note):
        together = said(removal(key, verified)) if verified and key[2] != "self" else ""
        print(f"{key[2]:16}{key[0]:34}{key[1]:6} {said(found(key, second)):>14} {together:>14}  {note}")

    def other(name, values):
        print(f"{name:56} {said(values):>14}")

    middle = depths[len(depths) // 2 - 1]
    for kind in KINDS:
        row(("column detail", middle, kind), "the paper's, middle layer")
    row(("column detail, self-lambda 1e-9", middle, "self"), "the paper's noise detector")
    for position in POSITIONS:
        at = [key for key in scores if key[0].startswith(position) and set(first) & scores[key].keys()]
        for kind in KINDS if at else ():
            best = max((key for key in at if key[2] == kind), key=lambda key: mean(found(key, first)))
            row(best, f"chosen by AUROC ({mean(found(best, first)):.3f} on the first half)")
    for position in POSITIONS:
        name = position + " cosine 0.1"
        losses = {layer: mean([r["scores"][name][str(layer)]["loss"] for r in results if name in r["scores"]]) for layer in depths}
        for kind in KINDS if any(math.isfinite(x) for x in losses.values()) else ():
            row((name, min(losses, key=losses.get), kind), "the layer with the least validation loss")
    every = [(position + " cosine 0.1", layer) for position in ("column", "mean") for layer in depths]
    for kind in KINDS:
        chosen = {}
        for n in second:
            losses = {(name, layer): results[n]["scores"][name][str(layer)]["loss"] for name, layer in every if name in results[n]["scores"]}
            chosen[n] = min(losses, key=losses.get) + (kind,)
        taken = collections.Counter(key[0].split()[0] for key in chosen.values())
        together = said([removal(chosen[n], [n])[0] for n in verified]) if verified and kind != "self" else ""
        print(f"{kind:16}{'cosine 0.1':40} {said([scores[key][n] for n, key in chosen.items()]):>14} {together:>14}  "
              f"position and layer by each prompt's own validation loss: {dict(taken)}")
    if options.embedder:
        alike = by_embedding(tasks[half:], options.embedder, options.validation)
        other("embedding", [auroc(f, w) for f, w in zip(alike, wrong[half:])])
    for name in ("surprisal", "surprisal, centred"):
        other(name, [auroc(results[n][name], wrong[n]) for n in second])
    if verified:
        other("removal, the model's own leave-one-out", [auroc([-x for x in results[n]["removal"]], wrong[n]) for n in verified])


def layers(options):
    results, wrong, _ = load(options.tasks, options.results)
    scores = table(results, wrong)
    every = range(len(results))
    print(f"{options.name}\n{'layer':>6}" + "".join(f"{kind:>16}" for kind in KINDS) + f"{'removal':>10}{'loss':>8}")
    for layer in sorted({layer for name, layer, _ in scores if name == options.name}):
        print(f"{layer:6}" + "".join(f"{mean(scores[options.name, layer, kind].values()):16.3f}" for kind in KINDS)
              + f"{mean(correlations(results, options.name, layer, 'test', every)):10.3f}"
              + f"{mean([r['scores'][options.name][str(layer)]['loss'] for r in results if options.name in r['scores']]):8.3f}")


def variants(options):
    results, _, tasks = load(options.tasks, options.results)
    half = options.first or len(results) // 2
    write_variants(options, list(zip(results, tasks))[half:half + options.prompts],
                   ["random-0"] + [f"{order}-{count}" for count in (4, 7, 10) for order in options.by])


def curation(options):
    results, _, tasks = load(options.tasks, options.results)
    write_variants(options, list(zip(results, tasks)),
                   ["random-0"] + [f"{order}-{count}" for count in (5, 10) for order in ("least", "self", "random")] + ["unselected-10"])


def asked_with(task, variant, order, options):
    """The test queries after these demonstrations."""
    return {**task, "name": f"{task['name']}.{variant}", "queries": task["queries"][options.validation:],
            "demonstrations": [task["demonstrations"][i] for i in order]}


def write_tasks(path, tasks):
    pathlib.Path(path).write_text("".join(json.dumps(t, ensure_ascii=False) + "\n" for t in tasks))


def write_variants(options, prompts, wanted):
    draw = random.Random(0)
    out = []
    for result, task in prompts:
        entry = result["scores"][options.name][str(options.layer)]
        n = len(task["demonstrations"])
        falling = sorted(range(n), key=lambda i: -entry["test"][i])
        first = {"most": falling, "least": falling[::-1], "random": draw.sample(range(n), n),
                  "self": sorted(range(n), key=lambda i: -entry["self"][i]),
                  "surprising": sorted(range(n), key=lambda i: -result["surprisal"][i]),
                  "unselected": [i for i in range(n) if i not in entry.get("selected", ())]}
        for variant in wanted:
            order, count = variant.split("-")
            gone = set(first[order][:int(count)])
            out.append(asked_with(task, variant, [i for i in range(n) if i not in gone], options))
    write_tasks(options.out, out)


def orders(options):
    draw = random.Random(0)
    out = []
    for task in lines(options.tasks):
        n = len(task["demonstrations"])
        found = {"given": range(n), "shuffled": draw.sample(range(n), n)}
        first = json.loads((pathlib.Path(options.folder) / task["name"] / "icl.json").read_text())["reordered"]["order"]
        found.update({"two-highest-first": first, "descending": first[:2] + first[:1:-1]})
        out += [asked_with(task, name, order, options) for name, order in found.items()]
    write_tasks(options.out, out)


def found(options):
    """`test` over the first validation queries, as the tables have it."""
    scores = {"test": [], "self": []}
    dropped = right = bad = 0
    for task, wrong in zip(lines(options.tasks), lines(options.tasks + ".wrong")):
        path = pathlib.Path(options.folder) / task["name"] / "icl.json"
        if not path.exists():
            continue
        result = json.loads(path.read_text())
        asked = [q["test"] for q in result["queries"][:options.validation] if q["output"] is not None and None not in q["test"]]
        scores["test"].append(auroc([-mean(column) for column in zip(*asked)], set(wrong)))
        scores["self"].append(auroc(result["self"], set(wrong)))
        drop = {entry["demonstration"] for entry in result["drop"] or []}
        dropped, right, bad = dropped + len(drop), right + len(drop & set(wrong)), bad + len(wrong)
    for kind, values in scores.items():
        print(f"{kind:6}{said(values)}   {len(values)} prompts")
    print(f"dropped {dropped}, of which {right} of the {bad} wrong ones")


def accuracy(options):
    right = collections.defaultdict(dict)  # by variant and prompt, the share
    for path in sorted(pathlib.Path(options.folder).glob("*/icl.json")):
        result = json.loads(path.read_text())
        prompt, variant = path.parent.name.rsplit(".", 1)
        blank = [q for q in result["queries"] if q["input"] == "N/A" and q["output"] is None]
        base = blank[0].get("log-probabilities", {}) if blank else {}
        answers = []
        for query in result["queries"]:
            if query["output"] is None:
                continue
            prediction = query["prediction"]
            if base and "log-probabilities" in query:
                prediction = max(query["log-probabilities"], key=lambda c: query["log-probabilities"][c] - base[c])
            answers.append(prediction == query["output"])
        right[variant][prompt] = mean(answers)
    whole = right.get("random-0", right.get("given"))
    for variant in sorted(right):
        change = [share - whole[prompt] for prompt, share in right[variant].items() if prompt in whole]
        print(f"{variant:18}{said(right[variant].values())}   change {said(change)}   {len(right[variant])} prompts")


parser = argparse.ArgumentParser()
commands = parser.add_subparsers(required=True)
for run in (detect, layers, variants, curation, orders, found):
    command = commands.add_parser(run.__name__)
    command.set_defaults(run=run)
    command.add_argument("tasks")
    if run not in (orders, found):
        command.add_argument("results")
    if run in (variants, curation, orders):
        command.add_argument("out")
    if run in (orders, found):
        command.add_argument("folder")
    elif run is not detect:
        command.add_argument("name")
    if run in (variants, curation):
        command.add_argument("layer", type=int)
    if run is variants:
        command.add_argument("--prompts", type=int, default=50)
        command.add_argument("--by", nargs="+", default=["most", "least", "random"])
    if run is detect:
        command.add_argument("--embedder")
    if run in (detect, variants):
        command.add_argument("--first", type=int, help="prompts of the first half, where it is not half of them")
    command.add_argument("--validation", type=int, default=10)
command = commands.add_parser("accuracy")
command.set_defaults(run=accuracy)
command.add_argument("folder")
options = parser.parse_args()
options.run(options)
