"""What other libraries need for the same influence scores: accuracy against cost on the problems that problems.sh prepares.

    peers.py WORK/digits                      every method, one process each; scores and lines go to WORK/digits/peers/
    peers.py WORK/digits --only 'pydvl cg'    those whose name matches the regular expression
    peers.py WORK/digits --list               their names

Each method reads the checkpoint that whence trained and the same data, and is timed from model and data to scores: everything that it fits,
solves and multiplies, not imports. The unit of cost is one gradient over all training examples in one pass, by torch, median of 20.

Conventions. whence's score of example i for query q is -g_q' (H + damping)^-1 g_i, H the Hessian of mean loss + weight-decay/2 |theta|^2.
Every peer here returns +g_q' (.)^-1 g_i with H of the mean loss alone, so each is given damping + weight-decay as its regularisation, and
its scores are negated, nothing else: their scale is theirs.

Peers are used as their documentation says, in the way that serves them best: all training examples in one batch where that is exact or
faster (dattri sums the inverses of batches, so it must), no data loader that collates example by example, Fisher labels with a fixed seed.
"""

import argparse
import csv
import functools
import gzip
import importlib
import json
import math
import multiprocessing
import os
import re
import resource
import statistics
import struct
import tempfile
import time
import tomllib
import traceback
import warnings
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads have made peers 50 times slower on busy cores
os.environ["TQDM_DISABLE"] = "1"

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

warnings.filterwarnings("ignore")


# ---- the problem ----------------------------------------------------------------------------------------------------------------------


def opened(path):
    return gzip.open(path, "rb") if str(path).endswith(".gz") else open(path, "rb")


def read_idx(path):
    raw = opened(path).read()
    if raw[:3] != b"\0\0\x08":
        raise ValueError(f"{path}: no idx file of unsigned bytes")
    shape = struct.unpack(f">{raw[3]}i", raw[4 : 4 + 4 * raw[3]])
    return torch.frombuffer(bytearray(raw[4 + 4 * raw[3] :]), dtype=torch.uint8).reshape(shape)


def read_data(table, folder):
    """Inputs and labels in float64 of a `train` or `data` table, as whence's readers make them."""
    unknown = set(table) - {"format", "images", "labels", "file", "header", "label", "limit", "classes", "standardize"}
    if unknown or table.get("standardize"):
        raise ValueError(f"peers.py does not read {', '.join(sorted(unknown)) or 'standardized columns'}")
    if table["format"] == "idx":
        inputs, labels = read_idx(folder / table["images"]).double() / 255, read_idx(folder / table["labels"]).long()
    elif table["format"] == "cifar":
        records = np.frombuffer(opened(folder / table["file"]).read(), np.uint8).reshape(-1, 1 + 3 * 32 * 32)
        inputs = torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32).astype(np.float64)) / 255
        labels = torch.from_numpy(records[:, 0].astype(np.int64))
    elif table["format"] == "csv" and not table["header"]:
        rows = np.array([[float(x) for x in row] for row in csv.reader(open(folder / table["file"]))])
        label = int(table["label"])
        inputs, labels = torch.from_numpy(np.delete(rows, label, 1)), torch.from_numpy(rows[:, label].astype(np.int64))
    else:
        raise ValueError(f"peers.py does not read format {table['format']}")
    if "classes" in table:
        kept = torch.isin(labels, torch.tensor(table["classes"]))
        inputs, labels = inputs[kept], torch.tensor([table["classes"].index(label) for label in labels[kept].tolist()])
    limit = table.get("limit", len(labels))
    return inputs[:limit], labels[:limit]


class Network(nn.Module):
    """whence's mlp and convnet, by its names: body.0.weight, …, head.bias."""

    def __init__(self, weights, activation, pool):
        super().__init__()
        layers = sorted({name.rsplit(".", 1)[0] for name in weights}, key=lambda name: (name == "head", name))
        self.body = nn.ModuleList([self.layer(weights[f"{name}.weight"]) for name in layers if name != "head"])
        self.head = self.layer(weights["head.weight"])
        self.flat = [isinstance(layer, nn.Linear) for layer in self.body]  # kronfluence wraps layers
        self.activation, self.pool = {"tanh": torch.tanh, "gelu": F.gelu, "relu": torch.relu}[activation], pool
        self.to(weights["head.weight"].dtype).load_state_dict(weights)

    @staticmethod
    def layer(weight):
        if weight.dim() == 2:
            return nn.Linear(weight.shape[1], weight.shape[0])
        return nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], padding=weight.shape[2] // 2)

    def forward(self, x):
        for layer, flat in zip(self.body, self.flat):
            if flat:
                x = self.activation(layer(x.flatten(1)))
            else:
                x = self.activation(layer(x))
                x = F.avg_pool2d(x, 2) if self.pool == "avg" else F.max_pool2d(x, 2)
        return self.head(x.flatten(1))


class Problem:
    def __init__(self, folder, dtype, damping=None, examples=None, queries=None):
        folder = Path(folder)
        pipeline = tomllib.load(open(folder / "pipeline.toml", "rb"))
        stage = pipeline["stage"][0]
        self.weight_decay = float(stage["weight-decay"])
        self.damping = float((folder / "damping").read_text()) if damping is None else damping
        self.shift = self.damping + self.weight_decay
        name, _, options = pipeline["model"]["spec"].partition(":")
        options = dict(option.split("=") for option in options.split(","))
        weights = load_file(folder / stage["checkpoint"])
        make = functools.partial(Network, activation=options["activation"], pool=options.get("pool", "max"))
        x, y = read_data(stage["train"], folder)
        if name == "mlp":
            x = x.flatten(1)
        self.check(make({k: v.double() for k, v in weights.items()}), x, y, folder)
        qx, qy = read_data(pipeline["queries"]["test"]["data"], folder)
        qx = qx.flatten(1) if name == "mlp" else qx
        self.x, self.y = x[:examples].to(dtype), y[:examples]
        self.qx, self.qy = qx[:queries].to(dtype), qy[:queries]
        self.weights = {k: v.to(dtype) for k, v in weights.items()}
        self.make = lambda: make(self.weights)
        self.parameters = sum(v.numel() for v in weights.values())

    def check(self, model, x, y, folder):
        """Same model, data and scaling: the objective is what `whence train --json` printed."""
        with torch.no_grad():
            loss = F.cross_entropy(model(x), y).item()
            norm = sum((p**2).sum().item() for p in model.parameters())
        ours = loss + self.weight_decay / 2 * norm
        theirs = json.load(open(folder / "train.json"))[0]["objective"]
        if not abs(ours - theirs) <= 1e-6:
            raise SystemExit(f"{folder}: the objective is {ours:.9g} here, {theirs:.9g} in whence")

    def gradient(self, model):
        return torch.autograd.grad(F.cross_entropy(model(self.x), self.y), list(model.parameters()))

    def unit_seconds(self):
        """One gradient over all examples in one pass."""
        model, seconds = self.make(), []
        for _ in range(25):
            start = time.perf_counter()
            self.gradient(model)
            seconds.append(time.perf_counter() - start)
        return statistics.median(seconds[5:])

    def largest_eigenvalue(self):
        """Of the mean loss's Hessian, by power steps: what LiSSA's scale has to exceed half of. Neither peer finds it."""
        model = self.make()
        parameters = list(model.parameters())
        gradient = torch.autograd.grad(F.cross_entropy(model(self.x), self.y), parameters, create_graph=True)
        torch.manual_seed(0)
        v, norm = [torch.randn_like(p) for p in parameters], 0.0
        for _ in range(20):
            norm = math.sqrt(sum((t**2).sum().item() for t in v))
            v = torch.autograd.grad(gradient, parameters, [t / norm for t in v], retain_graph=True)
        return math.sqrt(sum((t**2).sum().item() for t in v))


# ---- the peers ------------------------------------------------------------------------------------------------------------------------
# Each function takes a problem and its options, and returns g_q' (.)^-1 g_i [queries, examples] and the seconds that fitting took.


class Clock:
    """Seconds since it was made, and what `lap` found."""

    def __init__(self):
        self.start = time.perf_counter()

    def lap(self):
        return time.perf_counter() - self.start


class Batches(torch.utils.data.Dataset):
    """Slices as the items of a data set, for a loader with batch_size=None: no collating."""

    def __init__(self, x, y, size):
        self.batches = list(zip(x.split(size), y.split(size)))

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, i):
        return self.batches[i]


def loader(problem, size=None):
    return torch.utils.data.DataLoader(Batches(problem.x, problem.y, size or len(problem.y)), batch_size=None)


def pydvl(make, problem, size=None):
    model = problem.make()
    data = loader(problem, size)
    clock = Clock()
    influence = make(model).fit(data)
    fitted = clock.lap()
    scores = influence.influences(problem.qx, problem.qy, problem.x, problem.y)
    return scores, fitted


def pydvl_direct(problem, batch=256):
    from pydvl.influence.torch import DirectInfluence

    return pydvl(lambda model: DirectInfluence(model, F.cross_entropy, regularization=problem.shift), problem, batch)


def pydvl_cg(problem, block=False, rtol=1e-4, maxiter=None, nystroem=0, repaired=True):
    from pydvl.influence.torch import CgInfluence
    from pydvl.influence.torch.preconditioner import NystroemPreconditioner

    class Repaired(NystroemPreconditioner):
        """In pyDVL 0.10.0 `fit` returns nothing where its caller takes what it returns, so that no preconditioner is ever used."""

        def fit(self, operator, regularization=None):
            super().fit(operator, regularization)
            return self

    preconditioner = (Repaired if repaired else NystroemPreconditioner)(nystroem) if nystroem else None
    return pydvl(
        lambda model: CgInfluence(model, F.cross_entropy, regularization=problem.shift, rtol=rtol, maxiter=maxiter,
                                  solve_simultaneously=block, preconditioner=preconditioner),
        problem)  # fmt: skip


def pydvl_lissa(problem, scale=None, maxiter=1000, rtol=1e-4, batch=None):
    from pydvl.influence.torch import LissaInfluence

    scale = 1.1 * (problem.largest + problem.shift) if scale is None else scale
    return pydvl(
        lambda model: LissaInfluence(model, F.cross_entropy, regularization=problem.shift, scale=scale, maxiter=maxiter, rtol=rtol),
        problem, batch)  # fmt: skip


def pydvl_arnoldi(problem, rank=10, woodbury=False):
    from pydvl.influence.torch import ArnoldiInfluence

    return pydvl(
        lambda model: ArnoldiInfluence(model, F.cross_entropy, regularization=problem.shift, rank=rank, use_woodbury=woodbury),
        problem)  # fmt: skip


def pydvl_nystroem(problem, rank=10):
    from pydvl.influence.torch import NystroemSketchInfluence

    return pydvl(lambda model: NystroemSketchInfluence(model, F.cross_entropy, regularization=problem.shift, rank=rank), problem)


def pydvl_harmonic(problem):
    from pydvl.influence.torch import InverseHarmonicMeanInfluence

    return pydvl(lambda model: InverseHarmonicMeanInfluence(model, F.cross_entropy, regularization=problem.shift), problem)


def pydvl_ekfac(problem, update_diagonal=True, chunk=64):
    from pydvl.influence.torch import EkfacInfluence

    model, data = problem.make(), loader(problem)
    clock = Clock()
    influence = EkfacInfluence(model, update_diagonal=update_diagonal, hessian_regularization=problem.shift).fit(data)
    fitted = clock.lap()
    # Its gradients of single examples cost the square of the batch, so the examples come in chunks.
    factors = influence.influence_factors(problem.qx, problem.qy)
    scores = [influence.influences_from_factors(factors, x, y) for x, y in loader(problem, chunk)]
    return torch.cat(scores, 1), fitted


def dattri(make, problem):
    from dattri.task import AttributionTask
    from torch.utils.data import SequentialSampler, TensorDataset

    model = problem.make().eval()

    def loss(parameters, data):
        x, y = data
        return F.cross_entropy(torch.func.functional_call(model, parameters, (x,)), y.long())  # its LiSSA makes labels floats

    def one_batch(x, y):  # its bookkeeping needs batch_size and a sampler; the items are made once, outside the clock
        data = TensorDataset(x, y)
        return [torch.utils.data.DataLoader(data, batch_size=len(y), sampler=SequentialSampler(data), collate_fn=lambda _: [x, y])]

    train, = one_batch(problem.x, problem.y)
    query, = one_batch(problem.qx, problem.qy)
    clock = Clock()
    attributor = make(AttributionTask(loss, model, {k: v.clone() for k, v in problem.weights.items()}))
    attributor.cache(train)
    fitted = clock.lap()
    return attributor.attribute(train, query).T, fitted


def dattri_explicit(problem):
    from dattri.algorithm.influence_function import IFAttributorExplicit

    return dattri(lambda task: IFAttributorExplicit(task, regularization=problem.shift), problem)


def dattri_cg(problem, max_iter=10):
    from dattri.algorithm.influence_function import IFAttributorCG

    return dattri(lambda task: IFAttributorCG(task, max_iter=max_iter, regularization=problem.shift), problem)


def dattri_lissa(problem, batch_size=1, recursion_depth=5000, scaling=None):
    from dattri.algorithm.influence_function import IFAttributorLiSSA

    scaling = 1.1 * (problem.largest + problem.shift) if scaling is None else scaling
    # Its recursion subtracts damping * estimate where hvp / scaling is subtracted: damping in units of the scaling.
    return dattri(
        lambda task: IFAttributorLiSSA(task, batch_size=batch_size or len(problem.y), recursion_depth=recursion_depth,
                                       damping=problem.shift / scaling, scaling=scaling),
        problem)  # fmt: skip


def dattri_arnoldi(problem, proj_dim=100, max_iter=100):
    from dattri.algorithm.influence_function import IFAttributorArnoldi

    return dattri(lambda task: IFAttributorArnoldi(task, proj_dim=proj_dim, max_iter=max_iter, regularization=problem.shift), problem)


def dattri_datainf(problem):
    from dattri.algorithm.influence_function import IFAttributorDataInf

    return dattri(lambda task: IFAttributorDataInf(task, regularization=problem.shift), problem)


def dattri_ekfac(problem):
    from dattri.algorithm.influence_function import IFAttributorEKFAC

    return dattri(lambda task: IFAttributorEKFAC(task, damping=problem.shift), problem)


def kronfluence_task():
    from kronfluence.task import Task

    class Classification(Task):
        def compute_train_loss(self, batch, model, sample=False):
            x, y = batch
            logits = model(x)
            if sample:
                with torch.no_grad():
                    y = torch.multinomial(torch.softmax(logits, -1), 1).flatten()
            return F.cross_entropy(logits, y, reduction="sum")

        def compute_measurement(self, batch, model):
            x, y = batch
            return F.cross_entropy(model(x), y, reduction="sum")

    return Classification()


def kronfluence_ekfac(problem, strategy="ekfac", batch=512):
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from torch.utils.data import TensorDataset

    train, query = TensorDataset(problem.x, problem.y), TensorDataset(problem.qx, problem.qy)
    task, model = kronfluence_task(), problem.make()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        clock = Clock()
        analyzer = Analyzer("bench", prepare_model(model, task), task, cpu=True, disable_tqdm=True, output_dir=folder)
        analyzer.fit_all_factors("factors", train, per_device_batch_size=batch, factor_args=FactorArguments(strategy=strategy))
        fitted = clock.lap()
        analyzer.compute_pairwise_scores("scores", "factors", query, train, per_device_query_batch_size=len(query),
                                         per_device_train_batch_size=batch,
                                         score_args=ScoreArguments(damping_factor=problem.shift))  # fmt: skip
        return analyzer.load_pairwise_scores("scores")["all_modules"], fitted


METHODS = [
    ("pydvl", "direct", pydvl_direct, [{}]),
    # Its cg, one right-hand side at a time by default, stops at a residual of rtol^2 times a norm taken over the wrong axis (the right-hand
    # sides', not the parameters'), often below rounding: then it goes on to maxiter, by default 10 times the number of parameters. Block
    # cg stops at rtol^2 |b|, and its default maxiter is 10 times the number of queries.
    ("pydvl", "cg", pydvl_cg,
     [{"rtol": r} for r in (1e-2, 1e-4, 1e-6)] + [{"maxiter": n} for n in (10, 30, 50, 100, 300, 1000)]),
    ("pydvl", "block cg", pydvl_cg,
     [{"block": True, "rtol": r} for r in (1e-1, 1e-2, 1e-4, 1e-6)] + [{"block": True, "maxiter": n} for n in (3, 10, 30, 100, 300)]),
    # As shipped the preconditioner is never used; "repaired" is what a user would get who noticed.
    ("pydvl", "nystroem cg", pydvl_cg, [{"nystroem": 100, "maxiter": 30, "repaired": False}]),
    ("pydvl", "nystroem cg, repaired", pydvl_cg, [{"nystroem": n, "maxiter": m} for n in (10, 100) for m in (10, 30, 100)]),
    ("pydvl", "nystroem block cg, repaired", pydvl_cg,
     [{"block": True, "nystroem": n, "rtol": r, "maxiter": 1000} for n in (10, 100) for r in (1e-1, 1e-2, 1e-4)]),
    ("pydvl", "lissa", pydvl_lissa,
     [{"scale": 10.0}] + [{"maxiter": n, "rtol": 1e-6} for n in (100, 1000, 10000)]),
    ("pydvl", "arnoldi", pydvl_arnoldi, [{}, {"rank": 100}, {"rank": 100, "woodbury": True}]),
    ("pydvl", "nystroem", pydvl_nystroem, [{"rank": n} for n in (10, 100, 300)]),
    ("pydvl", "ekfac", pydvl_ekfac, [{}]),
    ("pydvl", "inverse harmonic mean", pydvl_harmonic, [{}]),
    ("dattri", "explicit", dattri_explicit, [{}]),
    ("dattri", "cg", dattri_cg, [{"max_iter": n} for n in (10, 30, 50, 100, 200, 300, 1000)]),
    ("dattri", "lissa", dattri_lissa,
     [{"scaling": 50.0}, {}, {"batch_size": 64, "recursion_depth": 1000}, {"batch_size": 0, "recursion_depth": 1000}]),
    ("dattri", "arnoldi", dattri_arnoldi, [{}, {"max_iter": 200}]),
    ("dattri", "datainf", dattri_datainf, [{}]),
    ("dattri", "ekfac", dattri_ekfac, [{}]),
    ("kronfluence", "ekfac", kronfluence_ekfac, [{}]),
    ("kronfluence", "kfac", kronfluence_ekfac, [{"strategy": "kfac"}]),
]  # fmt: skip


def runs():
    """(name, peer, method, function, options) of everything, e.g. 'pydvl block cg rtol=0.01'."""
    for peer, method, function, choices in METHODS:
        for options in choices:
            shown = {k: v for k, v in options.items() if k not in ("block", "repaired")}
            text = ",".join(f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in shown.items())
            yield f"{peer} {method} {text}".strip(), peer, method, function, options, text


# ---- running --------------------------------------------------------------------------------------------------------------------------

MODULES = {
    "pydvl": ["pydvl.influence.torch", "pydvl.influence.torch.preconditioner"],
    "dattri": ["dattri.task", "dattri.algorithm.influence_function", "dattri.func.fisher"],
    "kronfluence": ["kronfluence.analyzer", "kronfluence.arguments", "kronfluence.task"],
}


def measure(problem, name, method, function, options, out, threads, memory, pipe):
    """The child's part: one method, its scores to a file and its line to the pipe."""
    log = os.open(out / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    print(f"== {name}", flush=True)
    torch.set_num_threads(threads)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    line = {}
    try:
        problem.unit_seconds()  # starts the threads
        if method == "lissa":
            problem.largest = problem.largest_eigenvalue()
        start = time.perf_counter()
        scores, fitted = function(problem, **options)
        line["seconds"], line["fit_seconds"] = time.perf_counter() - start, fitted
        scores = -scores.detach().double().contiguous()
        if tuple(scores.shape) != (len(problem.qy), len(problem.y)):
            raise RuntimeError(f"scores of shape {tuple(scores.shape)}")
        wrong = (~torch.isfinite(scores)).sum().item()
        if wrong:
            line["error"] = f"NaN in {wrong} of {scores.numel()} scores"
        line["scores"] = re.sub(r"[^a-z0-9=.,-]+", "-", name.lower()) + ".safetensors"
        save_file({"scores": scores}, out / line["scores"])
    except Exception as error:
        traceback.print_exc()
        message = (str(error).strip().splitlines() or [""])[0][:160]
        line["error"] = f"{type(error).__name__}: {message}"
        if isinstance(error, MemoryError) or "alloc" in message:
            line["error"] = f"skipped: needs more than the {memory / 1e9:.0f} GB there are; {line['error']}"
    line["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    pipe.send(line)


def available_memory():
    return next(int(line.split()[1]) for line in open("/proc/meminfo") if line.startswith("MemAvailable")) * 1024


def isolated(target, *arguments, limit=600.0):
    """What `target` sends from a process of its own, which the time limit can end and which cannot take the memory of others."""
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(False)
    process = fork.Process(target=target, args=(*arguments, sender))
    process.start()
    sender.close()
    try:
        line = receiver.recv() if receiver.poll(limit) else {"error": f"skipped: more than {limit:g} s"}
    except EOFError:
        line = {"error": "died, by memory?"}
    process.kill()
    process.join()
    return line


def unit(problem, threads, pipe):
    torch.set_num_threads(threads)
    pipe.send(problem.unit_seconds())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="WORK/NAME of problems.sh")
    parser.add_argument("--out", type=Path, help="default: FOLDER/peers")
    parser.add_argument("--damping", type=float, help="default: the problem's own, FOLDER/damping")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64"])
    parser.add_argument("--limit-seconds", type=float, default=600, help="a method")
    parser.add_argument("--examples", type=int, help="the first so many only, to try things out")
    parser.add_argument("--queries", type=int, help="the first so many only")
    parser.add_argument("--only", default="", help="a regular expression of names")
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    chosen = [run for run in runs() if re.search(arguments.only, run[0])]
    if arguments.list:
        print("\n".join(run[0] for run in chosen))
        return
    if not (arguments.folder / "train.json").exists():
        print(f"{arguments.folder}: skipped, not prepared (problems.sh)")
        return
    out = arguments.out or arguments.folder / "peers"
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # no threads here: they would not survive into the children
    problem = Problem(arguments.folder, getattr(torch, arguments.dtype), arguments.damping, arguments.examples, arguments.queries)
    for module in {module for run in chosen for module in MODULES[run[1]]}:
        importlib.import_module(module)
    gradient = isolated(unit, problem, arguments.threads)
    print(f"{arguments.folder}: {len(problem.y)} examples, {len(problem.qy)} queries, {problem.parameters} parameters, damping "
          f"{problem.damping:g} + weight decay {problem.weight_decay:g}, {arguments.threads} threads, {arguments.dtype}; one gradient "
          f"{gradient * 1e3:.2f} ms", flush=True)  # fmt: skip
    for name, peer, method, function, options, text in chosen:
        line = {"peer": peer, "method": method, "options": text, "dtype": arguments.dtype, "threads": arguments.threads,
                "damping": problem.damping, "unit_seconds": gradient}  # fmt: skip
        line |= isolated(measure, problem, name, method, function, options, out, arguments.threads, available_memory(),
                         limit=arguments.limit_seconds)  # fmt: skip
        cost = ""
        if "seconds" in line:
            line["gradients"] = line["seconds"] / gradient
            cost = f"{line['seconds']:8.2f} s {line['gradients']:10.1f} gradients"
        with open(out / "peers.jsonl", "a") as lines:
            lines.write(json.dumps(line) + "\n")
        print(f"{name:50} {cost} {line.get('error', '')}", flush=True)


if __name__ == "__main__":
    main()
