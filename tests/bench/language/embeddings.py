#!/usr/bin/env python3
"""embeddings.py WHENCE DIR TEXTS.jsonl: are whence's sentence embeddings (rep-sim: the mean over the tokens of what the last block leaves)
those of transformers? DIR is an encoder such as examples/minilm.sh makes, TEXTS has {"text": ...} a line; the first 64 are taken.

Compares the products of all pairs of embeddings, in float32. Prints the relative difference of the matrices, and the largest of an entry from
the product of the two lengths; fails above 1e-4. Needs torch, transformers and safetensors.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
import transformers
from safetensors.torch import load_file

whence, folder, texts = sys.argv[1], pathlib.Path(sys.argv[2]).resolve(), pathlib.Path(sys.argv[3])
lines = [json.loads(line)["text"] for line in texts.open()][:64]
length = 256
with tempfile.TemporaryDirectory() as work:
    work = pathlib.Path(work)
    (work / "texts.jsonl").write_text("".join(json.dumps({"text": text, "label": i % 2}) + "\n" for i, text in enumerate(lines)))
    table = f'{{ format = "jsonl", file = "texts.jsonl", text = "text", label = "label", length = {length} }}'
    (work / "pipeline.toml").write_text(f"""
[model]
checkpoint = "{folder}"
[[stage]]
name = "untrained"
train = {table}
loss = "cross-entropy"
optimizer = "adamw:epochs=1,learning-rate=1e-20"
checkpoint = "untrained.safetensors"
[queries.all]
data = {table}
""")
    for command in (["train", "pipeline.toml"],
                    ["score", "pipeline.toml", "--stage", "untrained", "--queries", "all", "--method", "rep-sim:similarity=dot",
                     "--measurement", "log-probability", "--out", "result"]):
        subprocess.run([whence, *command, "--quiet"], cwd=work, check=True, stdout=subprocess.DEVNULL)
    ours = load_file(work / "result" / "scores.safetensors")["scores"]

tokens = transformers.AutoTokenizer.from_pretrained(folder)
model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
with torch.no_grad():
    batch = tokens(lines, padding=True, truncation=True, max_length=length, return_tensors="pt")
    mask = batch["attention_mask"].unsqueeze(2)
    theirs = (model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)
lengths = theirs.norm(dim=1)
gram = theirs @ theirs.T
apart = (ours - gram).abs()
relative, largest = (apart.norm() / gram.norm()).item(), (apart / (lengths.unsqueeze(1) * lengths)).max().item()
print(f"{len(lines)} texts of {int(mask.sum(1).min())} to {int(mask.sum(1).max())} tokens: relative difference {relative:.1e}, largest of a pair {largest:.1e}")
sys.exit(0 if max(relative, largest) < 1e-4 else 1)
