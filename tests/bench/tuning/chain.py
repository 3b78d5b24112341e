#!/usr/bin/env python3
"""The data of chain.sh: chain.py SHARED OUT [TEXTS TEXTS TEXTS] writes base/ (a GPT-2 of one block without weights, and a tokenizer of the words
that are there), pretrain.tsv, tune.tsv and queries.tsv, of so many texts (40 20 8)."""
import collections
import json
import pathlib
import random
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import small_gpt  # noqa: E402

PRETRAIN, TUNE, QUERIES = map(int, sys.argv[3:] or (40, 20, 8))
WORDS = (4, 9)  # that a text may have

shared, out = map(pathlib.Path, sys.argv[1:3])


def sentences():
    """Short ones of children's stories, each once."""
    found = {}
    with (shared / "data" / "corpus" / "tinystories_v2_head.jsonl").open(encoding="utf-8") as file:
        for line in file:
            for sentence in re.findall(r"[^.!?\n]+[.!?]", json.loads(line)["text"]):
                words = re.findall(r"[\w']+|[^\w\s]", sentence.lower())
                if WORDS[0] <= len(words) <= WORDS[1]:
                    found[" ".join(words)] = words
    return found


found = sentences()
counts = collections.Counter(word for words in found.values() for word in set(words))
# those of the most frequent words: a text whose words stand nowhere else has nothing to do with any other
chosen = sorted(found, key=lambda text: -min(counts[word] for word in found[text]))[: PRETRAIN + TUNE + QUERIES]
random.Random(0).shuffle(chosen)
out.mkdir(parents=True, exist_ok=True)
for name, part in (("pretrain", chosen[:PRETRAIN]), ("tune", chosen[PRETRAIN : PRETRAIN + TUNE]), ("queries", chosen[PRETRAIN + TUNE :])):
    (out / f"{name}.tsv").write_text("text\n" + "".join(f"{text}\n" for text in part), encoding="utf-8")
print(f"{small_gpt.write(out / 'base', chosen, 16)} words")
