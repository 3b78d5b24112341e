"""DataInf's three text sets (Kwon et al., ICLR 2024; ykwon0407/DataInf): are a test text's strongest training texts of its own kind?

    python datainf.py WHENCE DATAINF MODEL WORK [--sets grammars,math_with_reason,math_without_reason] [--a-kind 90] [--queries 10]

DATAINF is a checkout, whose src/generate_sentence-math_datasets.py makes the sets (seeds 0 here; it sets none). MODEL is a folder of a small
language model in Hugging Face layout. Its LoRA is trained by DataInf's recipe: rank 8, alpha 32, queries and values, AdamW at 3e-4 falling
linearly, 10 epochs of one step (64 texts, gradients accumulated over 16 batches). Then scores of all training texts for all test texts: AUC and
recall (the share of the same kind among as many as there are of it), mean over the test texts, of the texts with their answers and of the prompts
alone, whose gradients DataInf takes. --a-kind and --queries cut each of the ten kinds. Needs NumPy and safetensors. Results: README.md beside it.
"""

import argparse
import collections
import json
import math
import pathlib
import random
import re
import runpy
import subprocess
import sys
import types

import numpy as np
from safetensors.numpy import load_file

METHODS = {
    "influence": [], "ekfac": ["--curvature", "ekfac"], "gauss-newton": ["--curvature", "gauss-newton"],
    "datainf": ["--curvature", "empirical-fisher", "--solver", "datainf"], "logra": ["--method", "logra:rank=8"],
    "grad-dot": ["--method", "grad-dot"], "grad-cos": ["--method", "grad-cos"], "rep-sim": ["--method", "rep-sim"],
    "random": ["--method", "random"],
}


def sets(folder):
    """Runs DataInf's generator with stand-ins for pandas and datasets: {path of a set: its rows as dicts}."""
    made = {}

    class Frame:
        def __init__(self, rows, columns):
            self.rows = [dict(zip(columns, row)) for row in rows]

        def head(self, _):
            return ""

    class Dataset:
        def __init__(self, frame):
            self.rows = frame.rows

        from_pandas = classmethod(lambda cls, frame: cls(frame))

        def save_to_disk(self, path):
            made[pathlib.Path(path).stem] = self.rows

    sys.modules["pandas"] = types.SimpleNamespace(DataFrame=Frame)
    sys.modules["datasets"] = types.SimpleNamespace(Dataset=Dataset)
    random.seed(0)
    np.random.seed(0)
    out, sys.stdout = sys.stdout, open("/dev/null", "w")
    try:
        runpy.run_path(str(folder / "src/generate_sentence-math_datasets.py"), run_name="__main__")
    finally:
        sys.stdout = out
    return made


def cut(rows, count):
    """The first `count` of each kind."""
    seen = collections.Counter()
    kept = []
    for row in rows:
        seen[row["variation"]] += 1
        if seen[row["variation"]] <= count:
            kept.append(row)
    return kept


def bm25(queries, texts):
    """Robertson and Zaragoza 2009, k1 1.2, b .75."""
    words = [collections.Counter(re.findall(r"\w+", text.lower())) for text in texts]
    lengths = np.array([sum(w.values()) for w in words])
    frequency = collections.Counter(word for w in words for word in w)
    scores = np.zeros((len(queries), len(texts)))
    for q, query in enumerate(queries):
        for word in set(re.findall(r"\w+", query.lower())):
            count = np.array([w[word] for w in words])
            rarity = math.log(1 + (len(texts) - frequency[word] + 0.5) / (frequency[word] + 0.5))
            scores[q] += rarity * count * 2.2 / (count + 1.2 * (0.25 + 0.75 * lengths / lengths.mean()))
    return scores


def quality(scores, same):
    """AUC and recall, mean over queries; higher scores speak for a query."""
    auc, recall = [], []
    for row, of_kind in zip(scores, same):
        order = row.argsort(kind="stable")
        rank = np.empty(len(row))
        rank[order] = np.arange(1, len(row) + 1)
        for value in np.unique(row[np.r_[False, np.diff(row[order]) == 0][order.argsort()]]):  # ties share their ranks
            rank[row == value] = rank[row == value].mean()
        n = of_kind.sum()
        auc.append((rank[of_kind].sum() - n * (n + 1) / 2) / (n * (len(row) - n)))
        recall.append(of_kind[row.argsort(kind="stable")[::-1][:n]].mean())
    return f"{np.mean(auc):.3f} {np.mean(recall):.3f}"


def whence(*arguments):
    done = subprocess.run([ARGS.whence, *map(str, arguments), "--threads", "1", "--quiet"], cwd=ARGS.work, capture_output=True, text=True)
    if done.returncode:
        print("  whence", *arguments, "\n ", done.stderr.strip().rpartition("\n")[2], flush=True)
    return done


def main():
    made, table = sets(ARGS.datainf), {}
    for name in ARGS.sets:
        train, test = cut(made[name + "_train"], ARGS.a_kind), cut(made[name + "_test"], ARGS.queries)
        same = np.array([[row["variation"] == query["variation"] for row in train] for query in test])
        for part in ("text", "prompt"):
            for split, rows in (("train", train), ("test", test)):
                lines = [json.dumps({"text": row[part].removesuffix("</s>").strip(), "kind": row["variation"]}) for row in rows]
                (ARGS.work / f"{name}-{part}-{split}.jsonl").write_text("\n".join(lines) + "\n")
            table_of = f"length = {ARGS.length}, end = {'true' if part == 'text' else 'false'}"
            (ARGS.work / f"{name}-{part}.toml").write_text(f"""seed = 0
[model]
checkpoint = "{ARGS.model.resolve()}"
[[stage]]
name = "fit"
train = {{ format = "jsonl", file = "{name}-{part}-train.jsonl", {table_of} }}
loss = "next-token:mean"
tuning = "lora:rank=8,alpha=32,targets=q_proj+v_proj"
optimizer = "adamw:learning-rate=3e-4,schedule=linear,epochs=10,batch-size=1024,decay=0"
checkpoint = "{name}.safetensors"
[queries.test]
data = {{ format = "jsonl", file = "{name}-{part}-test.jsonl", {table_of} }}
""")
        done = whence("train", f"{name}-text.toml")
        print(f"== {name}: {len(train)} texts, {len(test)} queries;", done.stdout.strip(), flush=True)
        for part in ARGS.parts:
            for method in [*ARGS.methods, "bm25"]:
                if method == "bm25":
                    found = bm25([row[part] for row in test], [row[part] for row in train])
                elif whence("score", f"{name}-{part}.toml", "--queries", "test", *METHODS[method], "--out", "result").returncode == 0:
                    found = -load_file(ARGS.work / "result/scores.safetensors")["scores"]
                else:
                    found = None
                table[name, part, method] = "- -" if found is None else quality(found, same)
                print(f"{part:7} {method:13} {table[name, part, method]}", flush=True)
    columns = [(name, part) for name in ARGS.sets for part in ARGS.parts]
    print("| method | " + " | ".join(f"{name}, {part}" for name, part in columns) + " |\n| --- |" + " ---: |" * len(columns))
    for method in [*ARGS.methods, "bm25"]:
        print(f"| {method} | " + " | ".join(table[*column, method] for column in columns) + " |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("whence", type=lambda path: str(pathlib.Path(path).resolve()))
    for name in ("datainf", "model", "work"):
        parser.add_argument(name, type=pathlib.Path)
    parser.add_argument("--sets", type=lambda text: text.split(","), default=["grammars", "math_with_reason", "math_without_reason"])
    parser.add_argument("--methods", type=lambda text: text.split(","), default=list(METHODS))
    parser.add_argument("--parts", type=lambda text: text.split(","), default=["text", "prompt"])
    parser.add_argument("--a-kind", type=int, default=90)
    parser.add_argument("--queries", type=int, default=10)
    parser.add_argument("--length", type=int, default=256, help="the most tokens of a text; DataInf's model has 128")
    ARGS = parser.parse_args()
    ARGS.work.mkdir(parents=True, exist_ok=True)
    main()
