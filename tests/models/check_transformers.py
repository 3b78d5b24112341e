#!/usr/bin/env python3
"""check_transformers.py DIR OUTPUTS.safetensors: transformers loads the model in DIR and nothing is missing, left over or of another
shape; prints the largest |transformers' output - the output given|.

OUTPUTS: tokens [B,T]; mask [B,T] if there is padding; logits, or for a model without a head hidden.N of its last layer.
"""
import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
import transformers
from safetensors.torch import load_file

folder, given = Path(sys.argv[1]), load_file(sys.argv[2])
(architecture,) = json.loads((folder / "config.json").read_text())["architectures"]
auto = {"LMHeadModel": "AutoModelForCausalLM", "ForCausalLM": "AutoModelForCausalLM", "ForMaskedLM": "AutoModelForMaskedLM",
        "ForSequenceClassification": "AutoModelForSequenceClassification", "Model": "AutoModel"}
kind = next(value for ending, value in auto.items() if architecture.endswith(ending))
model, found = getattr(transformers, kind).from_pretrained(folder, dtype=torch.float32, attn_implementation="eager",
                                                           output_loading_info=True)
if type(model).__name__ != architecture:
    sys.exit(f"{folder}: {kind} made a {type(model).__name__}, config.json says {architecture}")
for what, names in found.items():
    if names:
        sys.exit(f"{folder}: {what}: {names}")

tokens = given["tokens"].long()
mask = given["mask"].long() if "mask" in given else torch.ones_like(tokens)
with torch.no_grad():
    output = model.eval()(input_ids=tokens, attention_mask=mask)
if kind == "AutoModel":
    outputs, expected = output.last_hidden_state, given[max((key for key in given if key.startswith("hidden.")),
                                                            key=lambda key: int(key[7:]))]
else:
    outputs, expected = output.logits, given["logits"]
if outputs.shape != expected.shape:
    sys.exit(f"{folder}: output {tuple(outputs.shape)}, given {tuple(expected.shape)}")
apart = (outputs - expected).abs()
print(f"{(apart[mask.bool()] if apart.dim() == 3 else apart).max():.3g}")
