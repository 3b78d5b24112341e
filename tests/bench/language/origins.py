#!/usr/bin/env python3
"""Do the strongest pretraining examples of a query come from its own source? Precision at 10, with its standard error over the queries, for
results of whence, chance, BM25 and embedding similarity, on examples/stories.toml or on a pipeline of the same shape.

    origins.py PIPELINE STAGE QUERIES RESULT... [--embedder DIR]

Sources are the tables of the stage's `train` list, in the order of the queries' `data` list. RESULT is a directory of
`whence score --measurement log-probability`. DIR is a sentence encoder in Hugging Face layout (examples/minilm.sh).
Needs tokenizers, safetensors and numpy; with --embedder torch and transformers too.
"""
import argparse
import collections
import json
import math
import pathlib
import tomllib

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

parser = argparse.ArgumentParser()
parser.add_argument("pipeline", type=pathlib.Path)
parser.add_argument("stage")
parser.add_argument("queries")
parser.add_argument("results", nargs="*", type=pathlib.Path)
parser.add_argument("--embedder")
options = parser.parse_args()
pipeline = tomllib.loads(options.pipeline.read_text())
folder = options.pipeline.parent
place = folder / pipeline["model"].get("tokenizer", pipeline["model"]["checkpoint"])
tokenizer = Tokenizer.from_file(str(place / "tokenizer.json" if place.is_dir() else place))


def texts_of(table):
    """(row, tokens) of each example of a table, as whence cuts them, and how many rows or blocks its file has."""
    length, skip, limit = table["length"], table.get("skip", 0), table.get("limit", 10**9)
    if table["format"] == "text":
        first, *ids = tokenizer.encode((folder / table["file"]).read_text()).ids
        bos = tokenizer.encode("").ids
        ids = ids if bos else [first, *ids]
        room = length - len(bos)
        rows = [ids[i:i + room] for i in range(0, len(ids), room)]
    else:
        lines = [json.loads(line)[table.get("text", "text")] for line in (folder / table["file"]).open() if line.strip()]
        rows = [tokenizer.encode(text).ids[:length] for text in lines]
    return list(enumerate(rows))[skip:skip + limit], len(rows)


def load(tables):
    """Source and text by id."""
    out, before = {}, 0
    for source, table in enumerate(tables):
        examples, count = texts_of(table)
        for row, ids in examples:
            out[before + row] = (source, tokenizer.decode(ids))
        before += count if table["format"] != "text" else max(row for row, _ in examples) + 1
    return out


stage = next(s for s in pipeline["stage"] if s["name"] == options.stage)
train, queries = load(stage["train"]), load(pipeline["queries"][options.queries]["data"])
train_ids, query_ids = list(train), list(queries)
same = np.array([[train[i][0] == queries[q][0] for i in train_ids] for q in query_ids])


def report(name, scores):
    top = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    hits = np.take_along_axis(same, top, axis=1).mean(axis=1)
    by_source = [hits[[queries[q][0] == s for q in query_ids]].mean() for s in range(len(stage["train"]))]
    error = hits.std(ddof=1) / len(hits) ** 0.5
    print(f"{name:32}{hits.mean():.3f} +- {error:.3f}   by source {' '.join(f'{x:.2f}' for x in by_source)}")


def bm25(documents, asked, k=1.5, b=0.75):
    words = [collections.Counter(text.lower().split()) for text in documents]
    frequency = collections.Counter(word for document in words for word in document)
    mean = sum(sum(document.values()) for document in words) / len(words)
    inverse = {w: math.log(1 + (len(words) - n + 0.5) / (n + 0.5)) for w, n in frequency.items()}
    return np.array([[sum(inverse[w] * document[w] * (k + 1) / (document[w] + k * (1 - b + b * sum(document.values()) / mean))
                          for w in query.lower().split() if w in document) for document in words] for query in asked])


def embeddings(texts):
    import torch
    import transformers
    tokens = transformers.AutoTokenizer.from_pretrained(options.embedder)
    model = transformers.AutoModel.from_pretrained(options.embedder).eval()
    rows = []
    with torch.no_grad():
        for i in range(0, len(texts), 64):
            batch = tokens(texts[i:i + 64], padding=True, truncation=True, return_tensors="pt")
            hidden = model(**batch).last_hidden_state * batch["attention_mask"].unsqueeze(2)
            rows.append(torch.nn.functional.normalize(hidden.sum(1), dim=1))
    return torch.cat(rows).numpy()


print(f"{len(query_ids)} queries, {len(train_ids)} examples; precision at 10")
print(f"{'chance':32}{same.mean():.3f}")
documents, asked = [train[i][1] for i in train_ids], [queries[q][1] for q in query_ids]
report("BM25", bm25(documents, asked))
if options.embedder:
    report("embedding similarity", embeddings(asked) @ embeddings(documents).T)
for path in options.results:
    result = load_file(path / "scores.safetensors")
    position = {int(i): n for n, i in enumerate(result["example-ids"])}
    row = {int(q): n for n, q in enumerate(result["query-ids"])}
    report(path.name, result["scores"][[row[q] for q in query_ids]][:, [position[i] for i in train_ids]])
