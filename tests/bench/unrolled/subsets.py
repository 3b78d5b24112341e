#!/usr/bin/env python3
"""LDS by how much is left out, with the trainings of all subsets side by side as one batch of models: subsets.py DIGITS ACTIVATION
[FRACTIONS [SUBSETS [SMOOTH]]]. DIGITS is scikit-learn's digits (digits.csv.gz). An mlp of 32 units on 1,000 of them, 20 epochs of Adam
by minibatches of 32, float64, 20 queries: the training of ../evaluate/run.sh but for the random numbers. A left-out example keeps its
place in its minibatch with weight 0, the others weigh 1 / FRACTION, as whence evaluate retrains. Scores: the derivative of the whole
training in the examples' weights (reverse mode by autograd), and Gauss-Newton with a damping of the mean eigenvalue. SMOOTH: also the
mean of the derivative at so many trainings on random halves."""
import gzip
import math
import sys

import torch

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
N, QUERIES, EPOCHS, BATCH, RATE, DECAY, UNITS = 1000, 20, 20, 32, 5e-3, 1e-3, 32
FRACTIONS = [float(x) for x in (sys.argv[3] if len(sys.argv) > 3 else "0.99,0.95,0.9,0.5").split(",")]
SUBSETS = int(sys.argv[4]) if len(sys.argv) > 4 else 40
SMOOTH = int(sys.argv[5]) if len(sys.argv) > 5 else 0
act = {"tanh": torch.tanh, "relu": torch.relu}[sys.argv[2]]
rows = torch.tensor([[float(x) for x in line.split(",")] for line in gzip.open(sys.argv[1], "rt")])
images, labels = rows[:, :-1] / 16, rows[:, -1].long()
X, Y, XQ, YQ = images[:N], labels[:N], images[N:N + QUERIES], labels[N:N + QUERIES]


def start(seed):
    draw = torch.Generator().manual_seed(seed)
    return [(2 * torch.rand(UNITS, 64, generator=draw) - 1) / 8, torch.zeros(UNITS, 1),
            (2 * torch.rand(10, UNITS, generator=draw) - 1) / math.sqrt(UNITS), torch.zeros(10, 1)]


def losses(theta, x, y):
    """[models, examples] of a batch of models."""
    w1, b1, w2, b2 = theta
    logits = w2 @ act(w1 @ x.T + b1) + b2
    return -torch.log_softmax(logits, 1).gather(1, y.expand(len(w1), 1, -1))[:, 0]


def train(weights, seed=0, graph=False):
    """[models, N] -> the parameters of each."""
    theta = [p.expand(len(weights), *p.shape).clone().requires_grad_() for p in start(seed)]
    mean, square = [torch.zeros_like(p) for p in theta], [torch.zeros_like(p) for p in theta]
    draw = torch.Generator().manual_seed(seed + 1000)
    total, t = EPOCHS * math.ceil(N / BATCH), 0
    for _ in range(EPOCHS):
        for batch in torch.randperm(N, generator=draw).split(BATCH):
            rate = RATE * (1 + math.cos(math.pi * t / total)) / 2
            t += 1
            value = (weights[:, batch] * losses(theta, X[batch], Y[batch])).sum() / len(batch)
            value = value + DECAY / 2 * sum(p.square().sum() for p in theta)
            gradient = torch.autograd.grad(value, theta, create_graph=graph)
            mean = [.9 * a + .1 * g for a, g in zip(mean, gradient)]
            square = [.999 * a + .001 * g * g for a, g in zip(square, gradient)]
            divisor = [(b / (1 - .999**t)).clamp_min(1e-200).sqrt() + 1e-8 for b in square]
            theta = [p - rate / (1 - .9**t) * a / b for p, a, b in zip(theta, mean, divisor)]
            if not graph:
                theta = [p.detach().requires_grad_() for p in theta]
                mean, square = [a.detach() for a in mean], [a.detach() for a in square]
    return theta


def unrolled(weights):
    weights = weights.clone().requires_grad_()
    return torch.autograd.grad(losses(train(weights[None], graph=True), XQ, YQ)[0], weights, torch.eye(QUERIES), is_grads_batched=True)[0]


def gauss_newton():
    theta = [p.detach()[0] for p in train(torch.ones(1, N))]
    parameters = torch.cat([p.flatten() for p in theta])

    def logits(flat, x):
        parts = [part.view_as(p) for part, p in zip(flat.split([p.numel() for p in theta]), theta)]
        return (parts[2] @ act(parts[0] @ x[:, None] + parts[1]) + parts[3])[:, 0]

    jacobian = torch.vmap(torch.func.jacrev(logits), (None, 0))
    rows, of_queries = jacobian(parameters, X), jacobian(parameters, XQ)
    p, q = (torch.softmax(torch.vmap(logits, (None, 0))(parameters, x), 1) for x in (X, XQ))
    root = p.sqrt()[:, :, None] * (rows - (p[:, :, None] * rows).sum(1, keepdim=True))
    matrix = torch.einsum("ncp,ncq->pq", root, root) / N + DECAY * torch.eye(len(parameters))
    matrix += matrix.trace() / len(parameters) * torch.eye(len(parameters))
    slope = lambda p, y, rows: ((p - torch.nn.functional.one_hot(y, 10))[:, :, None] * rows).sum(1)
    return -slope(q, YQ, of_queries) @ torch.linalg.solve(matrix, slope(p, Y, rows).T)


def spearman(predicted, actual):
    a, b = (x.argsort(0).argsort(0).double() for x in (predicted, actual))
    a, b = a - a.mean(0), b - b.mean(0)
    return ((a * b).sum(0) / (a.norm(dim=0) * b.norm(dim=0))).mean().item()


def subsets(count, fraction, seed):
    draw = torch.Generator().manual_seed(seed)
    out = torch.zeros(count, N)
    for row in out:
        row[torch.randperm(N, generator=draw)[:int(fraction * N)]] = 1 / fraction
    return out


scores = {"unrolled": unrolled(torch.ones(N)), "gauss-newton": gauss_newton()}
print(sys.argv[2], "scored", flush=True)
truths = {}
for fraction in FRACTIONS:
    weights = subsets(SUBSETS, fraction, 7)
    truths[fraction] = weights.gt(0).double(), losses(train(weights), XQ, YQ).detach()
    inside, actual = truths[fraction]
    print(f"{sys.argv[2]}: {fraction:g} kept:", *(f"{name} {spearman(inside @ s.T, actual):.3f}" for name, s in scores.items()), flush=True)
for fraction in FRACTIONS:
    other = losses(train(subsets(SUBSETS, fraction, 7), seed=1), XQ, YQ).detach()
    print(f"{sys.argv[2]}: {fraction:g} kept: another seed {spearman(other, truths[fraction][1]):.3f}", flush=True)
sums = torch.zeros(QUERIES, N)
for count, weights in enumerate(subsets(SMOOTH, 0.5, 99), 1):
    sums += unrolled(weights)
    told = [f"{spearman(inside @ sums.T, actual):.3f} at {f:g}" for f, (inside, actual) in truths.items()]
    print(f"{sys.argv[2]}: mean over {count} halves:", *told, flush=True)
