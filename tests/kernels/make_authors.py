"""Writes authors.safetensors: what the solvers of Malladi et al. 2023 say of small random kernels.

    python3 make_authors.py SOLVERS OUT     SOLVERS: src/kernel_solvers.py of github.com/princeton-nlp/LM-Kernel-FT, which is not copied
                                            here; needs torch, transformers, scikit-learn and safetensors

Kernels are [C, train, train] and [C, train, evaluation], as theirs are.
"""
import importlib.util
import sys
import types

import torch
from safetensors.torch import save_file

spec = importlib.util.spec_from_file_location("kernel_solvers", sys.argv[1])
solvers = importlib.util.module_from_spec(spec)
spec.loader.exec_module(solvers)
torch.manual_seed(0)
train, asked, width = 9, 4, 30
out = {}


def run(name, case, kernel, evaluation, targets, asked_targets, logits=None, asked_logits=None, flipped=None, **settings):
    options = types.SimpleNamespace(kernel_regularization=0.0, f0_scaling=0.0, kernel_gamma=1.0, kernel_lambda=0.0)
    vars(options).update(settings)
    solver = solvers.SOLVERS[name](options)
    solver.fit(kernel, targets, logits)
    more = {} if flipped is None else {"eval_kernel_flipped": flipped}
    out[case] = solver.predict(evaluation, asked_targets, asked_logits, **more)[1].double().contiguous()


def features(outputs):
    return torch.randn(outputs, train, width, dtype=torch.double), torch.randn(outputs, asked, width, dtype=torch.double)


def between(a, b):
    return a @ b.transpose(1, 2)


for outputs, part in ((1, "one"), (3, "three")):
    a, b = features(outputs)
    kernel, evaluation = between(a, a), between(a, b)
    labels = torch.arange(train) % max(2, outputs)
    targets = 2 * labels - 1 if outputs == 1 else labels
    nothing = torch.zeros(asked, dtype=torch.long)
    logits, asked_logits = torch.randn(train, outputs, dtype=torch.double), torch.randn(asked, outputs, dtype=torch.double)
    out |= {f"{part}.kernel": kernel, f"{part}.evaluation": evaluation, f"{part}.labels": labels,
            f"{part}.logits": logits, f"{part}.asked-logits": asked_logits}
    run("lstsq", f"{part}.lstsq", kernel, evaluation, targets, nothing)
    run("lstsq", f"{part}.lstsq-regularised", kernel, evaluation, targets, nothing, kernel_regularization=0.1)
    if outputs == 1:  # theirs subtracts in place from a view of whole numbers otherwise
        run("lstsq", f"{part}.lstsq-offset", kernel, evaluation, targets.double(), nothing.double(), logits, asked_logits,
            f0_scaling=2.0)
        run("svc", f"{part}.svc", kernel, evaluation, targets, nothing)
    run("svr", f"{part}.svr", kernel, evaluation, targets, nothing)

a, b = features(1)
kernel, evaluation, flipped = between(a, a.sign()), between(a, b.sign()), between(b, a.sign()).transpose(1, 2)
labels = torch.arange(train) % 2
out |= {"signs.kernel": kernel, "signs.evaluation": evaluation, "signs.flipped": flipped, "signs.labels": labels}
for mix in (0.0, 0.3, 1.0):
    run("asym", f"signs.asym-{mix}", kernel, evaluation, (2 * labels - 1).double(), torch.zeros(asked), flipped=flipped,
        kernel_gamma=0.5, kernel_lambda=mix)
save_file({name: value.contiguous() for name, value in out.items()}, sys.argv[2])
