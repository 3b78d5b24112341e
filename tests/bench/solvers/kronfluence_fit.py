"""What fitting EK-FAC costs kronfluence, in plain training passes: forward and backward over the same examples in the same batches.

    kronfluence_fit.py [WORK/mnist]     problem (b) of problems.sh where it is given, and a decoder: 4 layers, 256 wide, 500 random
                                        sequences of 64 tokens out of 1,000

One JSON line each: seconds of a pass (median of five), of the covariances, the eigendecompositions and the eigenvalues, and their sum in
passes. kronfluence's batches are the pass's; the decoder's factors are of the linear layers of its blocks (24 of them), not of embedding,
norms and head.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import peers  # first: it sets up the environment
import torch
import torch.nn.functional as F
from kronfluence.analyzer import Analyzer, prepare_model
from kronfluence.arguments import FactorArguments
from kronfluence.task import Task
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        batch, length, width = x.shape
        y = self.norm1(x)
        q, k, v = (f(y).view(batch, length, self.heads, -1).transpose(1, 2) for f in (self.query, self.key, self.value))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Decoder(nn.Module):
    def __init__(self, vocabulary=1000, length=64, width=256, layers=4, heads=4):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def forward(self, tokens):
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class NextToken(Task):
    def __init__(self, model):
        self.modules = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name != "head"]

    def compute_train_loss(self, batch, model, sample=False):
        (tokens,) = batch
        logits = model(tokens)[:, :-1].flatten(0, 1)
        targets = tokens[:, 1:].flatten()
        if sample:
            with torch.no_grad():
                targets = torch.multinomial(torch.softmax(logits, -1), 1).flatten()
        return F.cross_entropy(logits, targets, reduction="sum")

    def compute_measurement(self, batch, model):
        return self.compute_train_loss(batch, model)

    def get_influence_tracked_modules(self):
        return self.modules


def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(problem, model, task, data, batch):
    def training_pass():
        for items in DataLoader(data, batch_size=batch):
            model.zero_grad()
            task.compute_train_loss(items, model).backward()

    training_pass()
    unit = statistics.median(timed(training_pass) for _ in range(5))
    model.zero_grad()
    line = {"peer": "kronfluence", "problem": problem, "examples": len(data), "batch": batch, "threads": torch.get_num_threads(),
            "parameters": sum(p.numel() for p in model.parameters()), "pass_seconds": unit}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        analyzer = Analyzer("fit", prepare_model(model, task), task, cpu=True, disable_tqdm=True, output_dir=folder)
        ekfac = FactorArguments(strategy="ekfac")
        line["covariance_seconds"] = timed(
            lambda: analyzer.fit_covariance_matrices("f", data, per_device_batch_size=batch, factor_args=ekfac))  # fmt: skip
        line["eigen_seconds"] = timed(lambda: analyzer.perform_eigendecomposition("f", factor_args=ekfac))
        line["lambda_seconds"] = timed(
            lambda: analyzer.fit_lambda_matrices("f", data, per_device_batch_size=batch, factor_args=ekfac))  # fmt: skip
    line["fit_seconds"] = line["covariance_seconds"] + line["eigen_seconds"] + line["lambda_seconds"]
    line["passes"] = line["fit_seconds"] / unit
    print(json.dumps(line), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", help="WORK/mnist")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sequences", type=int, default=500)
    parser.add_argument("--examples", type=int)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    if arguments.folder and (arguments.folder / "train.json").exists():
        problem = peers.Problem(arguments.folder, torch.float32, examples=arguments.examples)
        measure(arguments.folder.name, problem.make(), peers.kronfluence_task(), TensorDataset(problem.x, problem.y), 512)
    decoder = Decoder()
    tokens = torch.randint(0, 1000, (arguments.sequences, 64))
    measure("decoder", decoder, NextToken(decoder), TensorDataset(tokens), 25)


if __name__ == "__main__":
    main()
