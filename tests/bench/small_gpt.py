#!/usr/bin/env python3
"""A GPT-2 of one block without weights, and a tokenizer of the words that are there, as a folder.

    small_gpt.py FOLDER POSITIONS LEAST TABLE ROWS [TABLE ROWS]...    of the words that stand in LEAST texts, those of the last column
"""
import collections
import json
import pathlib
import sys


def write(folder, texts, positions, least=1):
    """The number of words; what stands in fewer than `least` texts is unknown."""
    counts = collections.Counter(word for text in texts for word in set(text.lower().split()))
    vocabulary = {"<unk>": 0, "<end>": 1}
    for text in texts:
        for word in text.lower().split():
            if counts[word] >= least:
                vocabulary.setdefault(word, len(vocabulary))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": len(vocabulary), "n_positions": positions, "n_embd": 16, "n_layer": 1,
        "n_head": 2, "n_inner": None, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-05, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
        "resid_pdrop": 0.0, "initializer_range": 0.1, "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 1}, indent=2) + "\n")
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "added_tokens": [], "normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None, "decoder": None, "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"}}, indent=1) + "\n", encoding="utf-8")
    return len(vocabulary)


if __name__ == "__main__":
    found = []
    for table, rows in zip(sys.argv[4::2], sys.argv[5::2]):
        lines = pathlib.Path(table).read_text(encoding="utf-8").splitlines()[1:int(rows) + 1]
        found += [line.split("\t")[-1] for line in lines]
    print(f"{write(pathlib.Path(sys.argv[1]), found, int(sys.argv[2]), int(sys.argv[3]))} words")
