#!/usr/bin/env python3
"""Makes mnist_mlp.safetensors and mnist_scores.safetensors: the weights that a stranger brings, and what whence is to say of them.

A 784-64-10 relu network is trained for three epochs by Adam in PyTorch. Then, in double and with PyTorch's own products alone, scores
    -g_query' (G + damping I)^-1 g_example,   G = (1/N) sum_i J_i' H_i J_i,   damping = trace(G) / P,
with conjugate gradients to 1e-10; the trace is summed exactly, example by example.
    python tests/stories/make_mnist.py SHARED/data/image
"""
import gzip
import pathlib
import sys

import numpy as np
import torch
from safetensors.torch import save_file
from torch.func import functional_call, jvp, vjp

N, QUERIES, KEPT = 4000, 3, 4  # training images, test images, and every so many of the scores is kept
FOLDER = pathlib.Path(__file__).parent


def read(folder, images, labels, count):
    pixels = np.frombuffer(gzip.decompress((folder / images).read_bytes())[16:], np.uint8)[: count * 784].reshape(count, 784)
    classes = np.frombuffer(gzip.decompress((folder / labels).read_bytes())[8:], np.uint8)[:count]
    return torch.tensor(pixels / 255.0), torch.tensor(classes.astype(np.int64))


def train(inputs, targets):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(784, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(3):
        for rows in torch.randperm(N).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs[rows].float()), targets[rows]).backward()
            optimizer.step()
    return model


def main():
    folder = pathlib.Path(sys.argv[1])
    inputs, targets = read(folder, "mnist-train20k-images-idx3-ubyte.gz", "mnist-train20k-labels-idx1-ubyte.gz", N)
    query_inputs, query_targets = read(folder, "mnist-t10k-images-idx3-ubyte.gz", "mnist-t10k-labels-idx1-ubyte.gz", QUERIES)
    model = train(inputs, targets)
    save_file({name: p.detach().contiguous() for name, p in model.named_parameters()}, FOLDER / "mnist_mlp.safetensors")
    model = model.double()
    theta = {name: p.detach() for name, p in model.named_parameters()}
    names, entries = list(theta), sum(p.numel() for p in theta.values())

    def output(parameters):
        return functional_call(model, parameters, (inputs,))

    probabilities = output(theta).softmax(1)
    _, pull_back = vjp(output, theta)

    def unflatten(v):
        parts = v.split([theta[name].numel() for name in names])
        return {name: part.view_as(theta[name]) for name, part in zip(names, parts)}

    def flatten(parts):
        return torch.cat([parts[name].reshape(-1) for name in names])

    def product(v):
        tangent = jvp(output, (theta,), (unflatten(v),))[1]
        curved = probabilities * (tangent - (probabilities * tangent).sum(1, keepdim=True))
        return flatten(pull_back(curved / N)[0])

    # trace: sum over examples of sum over the columns c of a root of H_i of |J_i' c|^2, layer by layer
    hidden = inputs @ theta["0.weight"].T + theta["0.bias"]
    active = (hidden > 0).double()
    trace = 0.0
    for c in range(10):
        root = -probabilities * probabilities[:, c : c + 1].sqrt()
        root[:, c] += probabilities[:, c].sqrt()
        below = (root @ theta["2.weight"]) * active
        trace += (root.square().sum(1) * ((hidden * active).square().sum(1) + 1)).sum().item()
        trace += (below.square().sum(1) * (inputs.square().sum(1) + 1)).sum().item()
    trace /= N
    damping = trace / entries

    def loss_gradient(x, y):
        loss = lambda p: torch.nn.functional.cross_entropy(functional_call(model, p, (x,)), y)
        return flatten(torch.func.grad(loss)(theta))

    def solve(b):
        x, r = torch.zeros_like(b), b.clone()
        p, square = r.clone(), r @ r
        for step in range(5000):
            image = product(p) + damping * p
            alpha = square / (p @ image)
            x, r = x + alpha * p, r - alpha * image
            fresh = r @ r
            if fresh.sqrt() <= 1e-10 * b.norm():
                print(f"  {step + 1} products, residual {(b - product(x) - damping * x).norm() / b.norm():.1e}")
                return x
            p, square = r + fresh / square * p, fresh
        raise RuntimeError("no convergence")

    kept = torch.arange(0, N, KEPT)
    scores = []
    for q in range(QUERIES):
        s = solve(loss_gradient(query_inputs[q : q + 1], query_targets[q : q + 1]))
        losses = lambda p: torch.nn.functional.cross_entropy(functional_call(model, p, (inputs[kept],)), targets[kept], reduction="none")
        scores.append(-jvp(losses, (theta,), (unflatten(s),))[1])
    gradient = loss_gradient(inputs, targets).norm().item()
    accuracy = (output(theta).argmax(1) == targets).double().mean().item()
    print(f"accuracy {accuracy:.4f}, |gradient| {gradient:.3g}, mean eigenvalue {trace / entries:.6g}, damping {damping:.6g}")
    save_file({"scores": torch.stack(scores).float(), "example-ids": kept}, FOLDER / "mnist_scores.safetensors",
              metadata={"damping": f"{damping:.10g}", "mean-eigenvalue": f"{trace / entries:.10g}", "examples": str(N)})  # fmt: skip


if __name__ == "__main__":
    main()
