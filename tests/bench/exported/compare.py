"""Exported models beside PyTorch's own tools: agreement and time, one thread each, in one run.

    python compare.py WHENCE SHARED WORK [--images 300] [--only gradients|ranking|captum|kronfluence|texts]

Needs torch, captum and kronfluence (gradients: transformers). WHENCE is the program, SHARED holds data/image and
models/resnet20-cifar10, WORK gets the files (exports that are there already are kept). Prints tables in Markdown; times
are seconds of a processor (user and system), which a shared machine stretches less than the clock's. All on ResNet-20,
the first `--images` training images of CIFAR-10 and the first five test images that it gets wrong:

  gradients    a forward pass and a gradient of 32 images, PyTorch eager and `whence_bench passes` (--bench) by turns; a
               small GPT-2 too
  ranking      the default, ekfac, and cg preconditioned by nystroem: seconds, and how far they agree
  captum       the last layer alone: TracInCPFast (one checkpoint) beside grad-dot, and Captum's influence function by an
               explicit Hessian beside influence with the Hessian, the same damping
  kronfluence  convolutions and the last layer, norms frozen: its ekfac beside ekfac, the same damping
  texts        the matrices of a small GPT-2's blocks: TracInCP beside grad-dot, kronfluence's ekfac beside ekfac; its
               output layer: TracInCPFast; one norm's 128 numbers: Captum's influence function by an explicit Hessian
               beside influence (needs transformers)
"""

import argparse
import gzip
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.utils.data import TensorDataset  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[2] / "python"), str(HERE.parents[2] / "examples")]
import resnet20  # noqa: E402
import whence_export  # noqa: E402

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
DAMPING = 1e-3


def images(path):
    rows = np.frombuffer(gzip.open(path).read(), dtype=np.uint8).reshape(-1, 3073)
    x = torch.tensor(rows[:, 1:].reshape(-1, 3, 32, 32)).float() / 255
    shape = (1, 3, 1, 1)
    return (x - torch.tensor(MEAN).view(shape)) / torch.tensor(STD).view(shape), torch.tensor(rows[:, 0]).long()


def write_safetensors(path, tensors):
    names = {torch.float32: "F32", torch.int64: "I64"}
    header, data = {}, b""
    for name, tensor in tensors.items():
        raw = tensor.contiguous().numpy().tobytes()
        header[name] = {
            "dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + len(raw)]
        }
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def read_scores(path):
    """The one matrix of scores in a result, [queries, examples]."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    for entry in header.values():
        if len(entry["shape"]) == 2 and entry["dtype"] in ("F32", "F64"):
            begin, end = (8 + size + place for place in entry["data_offsets"])
            kind = np.float32 if entry["dtype"] == "F32" else np.float64
            found = np.frombuffer(data[begin:end], dtype=kind).reshape(entry["shape"]).astype(np.float64)
            return found if found.shape[0] < found.shape[1] else found.T
    raise SystemExit(f"{path}: no matrix among {list(header)}")


def resnet(shared, wanted):
    """ResNet-20 of which only parameters of modules that `wanted` takes are trained."""
    model = resnet20.ResNet20()
    weights = resnet20.read_safetensors(shared / "models/resnet20-cifar10/model.safetensors")
    model.load_state_dict(weights, strict=False)
    for module in model.modules():
        for p in module.parameters(recurse=False):
            p.requires_grad_(wanted(module))
    return model.eval()


def exported(model, examples, path, **more):
    """Writes the file where it is not there yet: an export takes longer than what is measured."""
    if not path.exists():
        whence_export.save(model, examples, path, **more)


def pipeline(work, name, data, checkpoint=None, loss="cross-entropy", more=""):
    """NAME.toml: the stage of NAME.pt2 on train-DATA, and queries test-DATA; more: lines of the stage."""
    table = '{{ format = "safetensors", file = "{}-{}.safetensors" }}'
    (work / f"{name}.toml").write_text(
        f'seed = 0\n[model]\nexported = "{name}.pt2"\n[[stage]]\nname = "train"\ntrain = {table.format("train", data)}\n'
        f'loss = "{loss}"\n{more}checkpoint = "{checkpoint or name + ".pt2"}"\n'
        f'[queries.test]\ndata = {table.format("test", data)}\n'
    )


def whence(arguments, work):
    """Its standard output, and the seconds of a processor that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [ARGS.whence, *arguments, "--threads", "1", "--quiet"], cwd=work, capture_output=True, text=True, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"whence {' '.join(arguments)}: {done.stderr[-2000:]}")
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def scores(name, options, work):
    """[queries, examples], positive where an example speaks for what the query is, and the seconds."""
    shutil.rmtree(work / "result", ignore_errors=True)
    _, seconds = whence(["rank", f"{name}.toml", "--queries", "test", "--out", "result", *options], work)
    return -read_scores(work / "result/scores.safetensors"), seconds


def pearson(a, b):
    return float(np.mean([np.corrcoef(p, q)[0, 1] for p, q in zip(a, b)]))


def spearman(a, b):
    return pearson(*(np.argsort(np.argsort(x, axis=1), axis=1) for x in (a, b)))


def overlap(a, b, count=10):
    """The share of the first `count` that both have, those that speak most for the query."""
    return float(np.mean([len({*np.argsort(-p)[:count]} & {*np.argsort(-q)[:count]}) / count for p, q in zip(a, b)]))


class Passes:
    """The program of `whence_bench passes`, which computes a pass of a stage whenever it is asked."""

    def __init__(self, name, work):
        self.process = subprocess.Popen([*ARGS.bench.split(), f"{name}.toml"], cwd=work, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __call__(self, kind):
        """The loss, and the seconds of a processor."""
        print(kind, file=self.process.stdin, flush=True)
        return [float(x) for x in self.process.stdout.readline().split()]


def beside_eager(what, name, work, data, loss, model, computed, times=15):
    """Rows of a forward pass and of a gradient, theirs and ours by turns."""
    pipeline(work, name, data, loss=loss)
    ours, weights = Passes(name, work), [p for p in model.parameters() if p.requires_grad]

    def theirs(kind):
        start = time.thread_time()
        with torch.set_grad_enabled(kind == "gradient"):
            value = computed()
            if kind == "gradient":
                torch.autograd.grad(value, weights)
        return value.item(), time.thread_time() - start

    for kind in ("forward", "gradient"):
        pairs = [(theirs(kind), ours(kind)) for _ in range(times + 2)][2:]
        (value, _), (same, _) = pairs[0]
        if abs(value - same) > 1e-4 * abs(value):
            sys.exit(f"{what}: the loss is {value} of PyTorch, {same} of whence")
        peer, mine = (np.array([pair[i][1] for pair in pairs]) for i in (0, 1))
        low, middle, high = np.quantile(mine / peer, [0.25, 0.5, 0.75])
        print(f"| {what}, {kind} | {np.median(peer):.4f} | {np.median(mine):.4f} | {np.median(mine) / np.median(peer):.3f} | "
              f"{middle:.3f} [{low:.3f}, {high:.3f}] | {mine.min() / peer.min():.3f} |", flush=True)
    ours.process.stdin.close()


def gradients(shared, work, train, test):
    print("\n| medians of 15 by turns | PyTorch eager, s | whence, s | ratio | ratio of a pair [quartiles] | of the fastest |\n"
          "| --- | ---: | ---: | ---: | ---: | ---: |", flush=True)
    x, y = (part[:32] for part in train)
    write_safetensors(work / "train-step.safetensors", {"inputs": x, "targets": y})
    write_safetensors(work / "test-step.safetensors", {"inputs": x[:2], "targets": y[:2]})
    model = resnet(shared, lambda module: True)
    exported(model, x[:2], work / "step.pt2")
    beside_eager("ResNet-20, 32 images", "step", work, "step", "cross-entropy", model,
                 lambda: F.cross_entropy(model(x), y))

    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=1000, n_positions=128, n_embd=128, n_layer=4, n_head=4, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
    )
    gpt = GPT2LMHeadModel(config).eval()
    tokens = torch.randint(0, 1000, (64, 64))
    exported(gpt, {"input_ids": tokens[:2]}, work / "gpt2.pt2")
    write_safetensors(work / "train-gpt2.safetensors", {"tokens": tokens})
    write_safetensors(work / "test-gpt2.safetensors", {"tokens": tokens[:2]})

    def loss():
        logits = gpt(input_ids=tokens, use_cache=False).logits[:, :-1]
        return F.cross_entropy(logits.reshape(-1, 1000), tokens[:, 1:].reshape(-1))

    beside_eager("GPT-2, 4 layers of 128, 64 texts of 64 tokens", "gpt2", work, "gpt2", "next-token:mean", gpt, loss)


def ranking(shared, work, train, test):
    model = resnet(shared, lambda module: True)
    exported(model, train[0][:2], work / "whole.pt2", classes=resnet20.CLASSES)
    pipeline(work, "whole", "images", more="weight-decay = 1e-4\n")
    damping = ["--damping", str(DAMPING)]
    methods = {
        "default": [],
        "ekfac": ["--curvature", "ekfac"],
        "ekfac, the same damping": ["--curvature", "ekfac", *damping],
        "cg + nystroem": ["--curvature", "gauss-newton", "--solver",
                          "cg:preconditioner=nystroem,relative-tolerance=1e-2", *damping],
    }
    found = {}
    for name, options in methods.items():
        found[name] = scores("whole", options, work)
        run = json.loads((work / "result/run.json").read_text())
        print(f"\n{name}, {found[name][1]:.0f} s: {run['verdict']}\n{run['notes']}\n{run['warnings']}", flush=True)
    exact = found["cg + nystroem"][0]
    print("\n| | Spearman with cg + nystroem | first ten in common | s |\n| --- | ---: | ---: | ---: |")
    for name, (matrix, seconds) in found.items():
        print(f"| {name} | {spearman(matrix, exact):.3f} | {overlap(matrix, exact):.2f} | {seconds:.0f} |", flush=True)


def line(what, peer, peer_seconds, ours):
    peer, (matrix, seconds) = np.asarray(peer, dtype=np.float64), ours
    print(f"| {what} | {pearson(peer, matrix):.6f} | {spearman(peer, matrix):.6f} | {overlap(peer, matrix):.2f} | "
          f"{peer_seconds:.1f} | {seconds:.1f} |", flush=True)


def peers():
    print("\n| | Pearson | Spearman | first ten in common | peer, s | whence, s |\n"
          "| --- | ---: | ---: | ---: | ---: | ---: |", flush=True)


def captum(shared, work, train, test):
    from captum.influence import NaiveInfluenceFunction, TracInCPFast

    peers()
    model = resnet(shared, lambda module: isinstance(module, nn.Linear))
    exported(model, train[0][:2], work / "head.pt2", classes=resnet20.CLASSES)
    pipeline(work, "head", "images")
    torch.save(model.state_dict(), work / "head.pt")

    def load(net, path):
        net.load_state_dict(torch.load(path))
        return 1.0  # the learning rate

    start = time.process_time()
    tracin = TracInCPFast(
        model, model.linear, TensorDataset(*train), [str(work / "head.pt")], load, nn.CrossEntropyLoss(reduction="sum"),
        batch_size=100,
    )
    found = tracin.influence(test)
    seconds = time.process_time() - start
    line("Captum TracInCPFast, grad-dot", found, seconds, scores("head", ["--method", "grad-dot"], work))
    start = time.process_time()
    exact = NaiveInfluenceFunction(
        model, TensorDataset(*train), str(work / "head.pt"), load, layers=["linear"],
        loss_fn=nn.CrossEntropyLoss(reduction="none"), batch_size=100, projection_dim=10_000,
        hessian_reg=DAMPING * len(train[0]), hessian_inverse_tol=0,
    )
    found = exact.influence(test)
    seconds = time.process_time() - start
    options = ["--curvature", "hessian", "--solver", "direct", "--damping", str(DAMPING)]
    line("Captum NaiveInfluenceFunction, influence by the Hessian", found, seconds, scores("head", options, work))


def kronfluence_ekfac(name, task, model, train, test, work, seed, damping):
    """kronfluence's scores [queries, examples] and the seconds; damping None: a tenth of the mean eigenvalue."""
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments

    torch.manual_seed(seed)
    start = time.process_time()
    analyzer = Analyzer(
        f"{name}-{seed}", prepare_model(model, task), task, cpu=True, disable_tqdm=True,
        output_dir=str(work / "kronfluence"),
    )
    analyzer.fit_all_factors(
        "ekfac", TensorDataset(*train), per_device_batch_size=100, factor_args=FactorArguments(strategy="ekfac"),
        overwrite_output_dir=True,
    )
    analyzer.compute_pairwise_scores(
        "scores", "ekfac", TensorDataset(*test), TensorDataset(*train), per_device_query_batch_size=5,
        per_device_train_batch_size=100, score_args=ScoreArguments(damping_factor=damping), overwrite_output_dir=True,
    )
    found = np.asarray(analyzer.load_pairwise_scores("scores")["all_modules"], dtype=np.float64)
    return found, time.process_time() - start


def kronfluence(shared, work, train, test):
    from kronfluence.task import Task

    class Classify(Task):
        def compute_train_loss(self, batch, model, sample=False):
            logits = model(batch[0])
            labels = torch.multinomial(F.softmax(logits.detach(), 1), 1).flatten() if sample else batch[1]
            return F.cross_entropy(logits, labels, reduction="sum")

        def compute_measurement(self, batch, model):
            return F.cross_entropy(model(batch[0]), batch[1], reduction="sum")

    peers()
    layer = lambda module: isinstance(module, (nn.Conv2d, nn.Linear))  # noqa: E731
    model = resnet(shared, layer)
    exported(model, train[0][:2], work / "layers.pt2", classes=resnet20.CLASSES)
    pipeline(work, "layers", "images")
    ours = scores("layers", ["--curvature", "ekfac", "--damping", str(DAMPING)], work)
    drawn = scores("layers", ["--curvature", "ekfac:labels=sampled", "--damping", str(DAMPING)], work)
    exact = scores("layers", ["--curvature", "gauss-newton", "--solver", "cg:preconditioner=nystroem",
                              "--damping", str(DAMPING)], work) if ARGS.exact else None
    found = [kronfluence_ekfac("resnet20", Classify(), resnet(shared, layer), train, test, work, seed, DAMPING)
             for seed in (0, 1)]
    line("kronfluence ekfac, ekfac", *found[0], ours)
    line("kronfluence ekfac, ekfac:labels=sampled", *found[0], drawn)
    if exact:
        line("kronfluence ekfac, cg + nystroem", *found[0], exact)
        line("cg + nystroem, ekfac", *exact, ours)
        line("cg + nystroem, ekfac:labels=sampled", *exact, drawn)
    line("kronfluence ekfac, kronfluence with another seed", *found[0], found[1])


def small_gpt2(wanted=None):
    """GPT-2 of two blocks whose matrices are nn.Linear and alone trained (or modules `wanted` by name), texts that count on by 1, 2 or 3, and what
    a hundred steps on those make of it."""
    from transformers import GPT2Config, GPT2LMHeadModel
    from transformers.pytorch_utils import Conv1D

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(
        vocab_size=200, n_positions=32, n_embd=64, n_layer=2, n_head=2, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
    )).eval()
    names = [name for name, module in model.named_modules() if isinstance(module, Conv1D)]
    for name in names:
        old = model.get_submodule(name)
        new = nn.Linear(*old.weight.shape)
        new.load_state_dict({"weight": old.weight.t().contiguous(), "bias": old.bias})
        model.set_submodule(name, new)
    tokens = (torch.randint(0, 200, (205, 1)) + torch.randint(1, 4, (205, 1)) * torch.arange(32)) % 200
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(100):
        optimizer.zero_grad()
        part = tokens[torch.randint(0, 200, (32,))]
        logits = model(input_ids=part, use_cache=False).logits[:, :-1]
        F.cross_entropy(logits.reshape(-1, 200), part[:, 1:].reshape(-1)).backward()
        optimizer.step()
    for name, p in model.named_parameters():
        p.requires_grad_(name.rsplit(".", 1)[0] in (wanted or names))
    return model, names, tokens[:200], tokens[200:]


class Logits(nn.Module):
    """A model of texts as Captum calls it."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, tokens):
        return self.model(input_ids=tokens, use_cache=False).logits


class NextWord(nn.Module):
    """The token behind a text, by an output layer that is tied to nothing and alone trained."""

    def __init__(self, model):
        super().__init__()
        self.body = model.transformer.requires_grad_(False)
        self.out = nn.Linear(*reversed(model.lm_head.weight.shape), bias=False)
        self.out.load_state_dict({"weight": model.lm_head.weight.detach().clone()})

    def forward(self, tokens):
        return self.out(self.body(input_ids=tokens, use_cache=False).last_hidden_state[:, -1])


class NextToken(nn.Module):
    """The sum over an example's predictions, as whence has it; targets are the tokens."""

    reduction = "none"

    def forward(self, logits, tokens):
        return F.cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none").sum(1)


def captum_texts(work):
    from captum.influence import NaiveInfluenceFunction, TracInCP, TracInCPFast

    def load(net, path):
        net.load_state_dict(torch.load(path))
        return 1.0  # the learning rate

    def prepared(wanted):
        model, names, train, test = small_gpt2(wanted)
        net = Logits(model)
        torch.save(net.state_dict(), work / "texts.pt")
        return net, [f"model.{name}" for name in wanted or names], TensorDataset(train, train), (test, test)

    net, layers, train, test = prepared(None)
    start = time.process_time()
    tracin = TracInCP(net, train, [str(work / "texts.pt")], load, layers, NextToken(), batch_size=100)
    found = tracin.influence(test)
    seconds = time.process_time() - start
    line("GPT-2, Captum TracInCP, grad-dot", found, seconds, scores("texts", ["--method", "grad-dot"], work))

    model, _, *both = small_gpt2()
    word, (train, test) = NextWord(model).eval(), [(tokens[:, :-1], tokens[:, -1]) for tokens in both]
    for name, (inputs, targets) in {"train": train, "test": test}.items():
        write_safetensors(work / f"{name}-word.safetensors", {"inputs": inputs, "targets": F.one_hot(targets, 200).float()})
    exported(word, test[0][:2], work / "word.pt2")
    pipeline(work, "word", "word")
    torch.save(word.state_dict(), work / "word.pt")
    start = time.process_time()
    fast = TracInCPFast(word, word.out, TensorDataset(*train), [str(work / "word.pt")], load,
                        nn.CrossEntropyLoss(reduction="sum"), batch_size=100)
    found = fast.influence(test)
    seconds = time.process_time() - start
    line("GPT-2 with an output layer for the next word, Captum TracInCPFast, grad-dot", found, seconds,
         scores("word", ["--method", "grad-dot"], work))

    net, layers, train, test = prepared(["transformer.ln_f"])
    exported(net.model, {"input_ids": test[0][:2]}, work / "norm.pt2")
    pipeline(work, "norm", "texts", loss="next-token")
    start = time.process_time()
    exact = NaiveInfluenceFunction(
        net, train, str(work / "texts.pt"), load, layers=layers, loss_fn=NextToken(), batch_size=100,
        projection_dim=10_000, hessian_reg=DAMPING * len(train), hessian_inverse_tol=0,
    )
    found = exact.influence(test)
    seconds = time.process_time() - start
    options = ["--curvature", "hessian", "--solver", "direct", "--damping", str(DAMPING)]
    line("GPT-2's last norm, Captum NaiveInfluenceFunction, influence by the Hessian", found, seconds,
         scores("norm", options, work))


def texts(shared, work, train, test):
    from kronfluence.task import Task

    class Continue(Task):
        def compute_train_loss(self, batch, model, sample=False):
            logits = model(input_ids=batch[0], use_cache=False).logits[:, :-1].flatten(0, 1)
            labels = batch[0][:, 1:].flatten()
            if sample:
                labels = torch.multinomial(F.softmax(logits.detach(), 1), 1).flatten()
            return F.cross_entropy(logits, labels, reduction="sum")

        def compute_measurement(self, batch, model):
            return self.compute_train_loss(batch, model)

        def get_influence_tracked_modules(self):
            return names

    peers()
    model, names, train, test = small_gpt2()
    exported(model, {"input_ids": train[:2]}, work / "texts.pt2")
    for name, tokens in {"train": train, "test": test}.items():
        write_safetensors(work / f"{name}-texts.safetensors", {"tokens": tokens})
    pipeline(work, "texts", "texts", loss="next-token")
    captum_texts(work)
    ours = scores("texts", ["--curvature", "ekfac", "--relative-damping", "0.1"], work)
    found = [kronfluence_ekfac("gpt2", Continue(), small_gpt2()[0], (train,), (test,), work, seed, None)
             for seed in (0, 1)]
    line("GPT-2, kronfluence ekfac, ekfac", *found[0], ours)
    line("GPT-2, kronfluence ekfac, kronfluence with another seed", *found[0], found[1])


def main():
    torch.set_num_threads(1)
    shared, work = ARGS.shared.resolve(), ARGS.work
    work.mkdir(parents=True, exist_ok=True)
    x, y = images(shared / "data/image/cifar10_train_4000.bin.gz")
    train = x[: ARGS.images], y[: ARGS.images]
    x, y = images(shared / "data/image/cifar10_test_1000.bin.gz")
    with torch.no_grad():
        wrong = (resnet(shared, lambda module: True)(x[:100]).argmax(1) != y[:100]).nonzero().flatten()[:5]
    test = x[wrong], y[wrong]
    for name, (inputs, labels) in {"train": train, "test": test}.items():
        write_safetensors(work / f"{name}-images.safetensors", {"inputs": inputs, "targets": labels})
    for part in (gradients, ranking, captum, kronfluence, texts):
        if ARGS.only in ("", part.__name__):
            part(shared, work, train, test)


def arguments(text):
    """A parser of what every script here takes; text is the script's own."""
    parser = argparse.ArgumentParser(description=text.split("\n", maxsplit=1)[0])
    parser.add_argument("whence")
    parser.add_argument("shared", type=pathlib.Path)
    parser.add_argument("work", type=lambda path: pathlib.Path(path).resolve())
    parser.add_argument("--images", type=int, default=300)
    return parser


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--bench", default="whence_bench passes", help="of gradients: the program and its bench")
    parser.add_argument("--exact", action="store_true", help="of kronfluence: beside cg with its nystroem too")
    parser.add_argument("--only", default="", choices=["", "gradients", "ranking", "captum", "kronfluence", "texts"])
    ARGS = parser.parse_args()
    main()
