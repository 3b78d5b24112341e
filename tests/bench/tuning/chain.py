#!/usr/bin/env python3
"""The data of chain.sh: chain.py SHARED OUT [TEXTS TEXTS TEXTS] writes base/ (a GPT-2 of one block without weights, and a tokenizer of the words
that are there), pretrain.tsv, tune.tsv and queries.tsv, of so many texts (40 20 8)."""
import collections
import json
import pathlib
import random
import re
import sys

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
vocabulary = {"<unk>": 0, "<end>": 1}
for text in chosen:
    for word in text.split():
        vocabulary.setdefault(word, len(vocabulary))

base = out / "base"
base.mkdir(parents=True, exist_ok=True)
for name, part in (("pretrain", chosen[:PRETRAIN]), ("tune", chosen[PRETRAIN : PRETRAIN + TUNE]), ("queries", chosen[PRETRAIN + TUNE :])):
    (out / f"{name}.tsv").write_text("text\n" + "".join(f"{text}\n" for text in part), encoding="utf-8")
(base / "config.json").write_text(json.dumps({
    "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": len(vocabulary), "n_positions": 16, "n_embd": 16, "n_layer": 1,
    "n_head": 2, "n_inner": None, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-05, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
    "resid_pdrop": 0.0, "initializer_range": 0.1, "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 1}, indent=2) + "\n")
(base / "tokenizer.json").write_text(json.dumps({
    "version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None, "decoder": None,
    "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"}}, indent=1) + "\n", encoding="utf-8")
print(f"{len(vocabulary)} words")
