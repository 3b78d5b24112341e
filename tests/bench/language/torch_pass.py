#!/usr/bin/env python3
"""Seconds that transformers takes over one batch of random tokens, for comparison with whence on the same model and shapes.

    torch_pass.py DIR [--batch B] [--length T] [--threads N] [--repeats R] [--dtypes float32,bfloat16] [--attention sdpa|eager]

Prints JSON: the settings, and for each type the median of R runs after two that are not counted, of
  forward    logits, no gradients
  backward   forward and backward of the mean next-token loss in every parameter
  adamw      the same, and a step of AdamW
"""
import argparse
import json
import os
import statistics
import time

os.environ["HF_HUB_OFFLINE"] = "1"
parser = argparse.ArgumentParser()
parser.add_argument("folder")
parser.add_argument("--batch", type=int, default=4)
parser.add_argument("--length", type=int, default=128)
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--repeats", type=int, default=5)
parser.add_argument("--dtypes", default="float32,bfloat16")
parser.add_argument("--attention", choices=["sdpa", "eager"], default="sdpa")
options = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = str(options.threads)

import torch
import transformers

torch.set_num_threads(options.threads)
torch.manual_seed(0)
transformers.logging.disable_progress_bar()


def median_seconds(run):
    times = []
    for _ in range(2 + options.repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


seconds = {}
for dtype in options.dtypes.split(","):
    config = transformers.AutoConfig.from_pretrained(options.folder, use_cache=False)
    model = transformers.AutoModelForCausalLM.from_config(  # the numbers in the weights do not change what a pass takes
        config, dtype=getattr(torch, dtype), attn_implementation=options.attention).eval()  # without dropout
    tokens = torch.randint(0, model.config.vocab_size, (options.batch, options.length))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def forward():
        with torch.no_grad():
            model(input_ids=tokens)

    def backward():
        optimizer.zero_grad()
        logits = model(input_ids=tokens).logits[:, :-1]
        torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten()).backward()

    def adamw():
        backward()
        optimizer.step()

    for run in (forward, backward, adamw):
        seconds[f"{dtype}.{run.__name__}"] = median_seconds(run)
    del model, optimizer
print(json.dumps({**vars(options), "torch": torch.__version__, "transformers": transformers.__version__, "seconds": seconds}, indent=1))
