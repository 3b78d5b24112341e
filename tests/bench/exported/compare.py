"""The same exported models beside PyTorch's own tools: agreement and time, one thread each, in one run.

    python compare.py WHENCE SHARED WORK [--images 300]

Needs torch, captum, kronfluence and transformers (README.md tells which were used). WHENCE is the program, SHARED holds
data/image and models/resnet20-cifar10, WORK gets the files. Prints tables in Markdown.

ResNet-20, `--images` training images of CIFAR-10, the first five test images that it gets wrong:
  head     the last layer alone: Captum's TracInCPFast (one checkpoint) beside grad-dot, and Captum's influence function
           by an explicit Hessian (all its eigenvectors) beside influence with the Hessian, the same damping
  layers   all convolutions and the last layer, norms frozen: kronfluence's ekfac beside ekfac, the same damping
  gradient the mean loss's, PyTorch eager beside what `--plan` times; also of a small GPT-2
"""

import argparse
import gzip
import json
import os
import pathlib
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


def resnet(shared, wanted):
    """ResNet-20 of which only parameters of modules that `wanted` takes are trained."""
    model = resnet20.ResNet20()
    weights = resnet20.read_safetensors(shared / "models/resnet20-cifar10/model.safetensors")
    model.load_state_dict(weights, strict=False)
    for module in model.modules():
        for p in module.parameters(recurse=False):
            p.requires_grad_(wanted(module))
    return model.eval()


def pipeline(work, name, loss="cross-entropy", more=""):
    (work / f"{name}.toml").write_text(
        f'seed = 0\n[model]\nexported = "{name}.pt2"\n[[stage]]\nname = "train"\ntrain = {{ format = "safetensors", '
        f'file = "train-{more or name}.safetensors" }}\nloss = "{loss}"\ncheckpoint = "{name}.pt2"\n[queries.test]\n'
        f'data = {{ format = "safetensors", file = "test-{more or name}.safetensors" }}\n'
    )


def whence(arguments, work):
    start = time.time()
    done = subprocess.run(
        [ARGS.whence, *arguments, "--threads", "1"], cwd=work, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"whence {' '.join(arguments)}: {done.stderr[-2000:]}")
    return done.stdout, time.time() - start


def scores(name, out, options, work):
    """[queries, examples], positive where an example speaks for what the query is, and the seconds."""
    subprocess.run(["rm", "-rf", str(work / out)], check=True)
    _, seconds = whence(["score", f"{name}.toml", "--queries", "test", "--out", out, "--quiet", *options], work)
    found = read_scores(work / out / "scores.safetensors")
    return -torch.as_tensor(found), seconds


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


def agreement(a, b):
    """Pearson and Spearman over the examples, mean over the queries."""
    def pearson(x, y):
        return float(np.mean([np.corrcoef(p, q)[0, 1] for p, q in zip(x, y)]))

    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    rank = lambda x: np.argsort(np.argsort(x, axis=1), axis=1)  # noqa: E731
    return pearson(a, b), pearson(rank(a), rank(b))


def line(what, peer, ours, peer_seconds, our_seconds):
    pearson, spearman = agreement(peer, ours)
    print(f"| {what} | {pearson:.4f} | {spearman:.4f} | {peer_seconds:.1f} | {our_seconds:.1f} |", flush=True)


def head(shared, work, train, test):
    from captum.influence import NaiveInfluenceFunction, TracInCPFast

    model = resnet(shared, lambda module: isinstance(module, nn.Linear))
    whence_export.save(model, train[0][:2], work / "head.pt2", classes=resnet20.CLASSES)
    pipeline(work, "head", more="images")
    torch.save(model.state_dict(), work / "head.pt")

    def load(net, path):
        net.load_state_dict(torch.load(path))
        return 1.0  # the learning rate

    start = time.time()
    tracin = TracInCPFast(
        model, model.linear, TensorDataset(*train), [str(work / "head.pt")], load, nn.CrossEntropyLoss(reduction="sum"),
        batch_size=100,
    )
    found = tracin.influence(test)
    seconds = time.time() - start
    line("Captum TracInCPFast, grad-dot", found, *swap(seconds, scores("head", "dot", ["--method", "grad-dot"], work)))
    start = time.time()
    exact = NaiveInfluenceFunction(
        model, TensorDataset(*train), str(work / "head.pt"), load, layers=["linear"],
        loss_fn=nn.CrossEntropyLoss(reduction="none"), batch_size=100, projection_dim=10_000,
        hessian_reg=DAMPING * len(train[0]), hessian_inverse_tol=0,
    )
    found = exact.influence(test)
    seconds = time.time() - start
    options = ["--curvature", "hessian", "--solver", "direct", "--damping", str(DAMPING)]
    line("Captum influence function, Hessian", found, *swap(seconds, scores("head", "exact", options, work)))


def swap(seconds, found):
    return found[0], seconds, found[1]


def layers(shared, work, train, test):
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task

    class Classify(Task):
        def compute_train_loss(self, batch, model, sample=False):
            logits = model(batch[0])
            labels = torch.multinomial(F.softmax(logits.detach(), 1), 1).flatten() if sample else batch[1]
            return F.cross_entropy(logits, labels, reduction="sum")

        def compute_measurement(self, batch, model):
            return F.cross_entropy(model(batch[0]), batch[1], reduction="sum")

    layer = lambda module: isinstance(module, (nn.Conv2d, nn.Linear))  # noqa: E731
    model = resnet(shared, layer)
    whence_export.save(model, train[0][:2], work / "layers.pt2", classes=resnet20.CLASSES)
    pipeline(work, "layers", more="images")
    task = Classify()
    torch.manual_seed(0)
    start = time.time()
    analyzer = Analyzer(
        "resnet20", prepare_model(model, task), task, cpu=True, disable_tqdm=True, output_dir=str(work / "kronfluence")
    )
    analyzer.fit_all_factors(
        "ekfac", TensorDataset(*train), per_device_batch_size=100, factor_args=FactorArguments(strategy="ekfac"),
        overwrite_output_dir=True,
    )
    analyzer.compute_pairwise_scores(
        "scores", "ekfac", TensorDataset(*test), TensorDataset(*train), per_device_query_batch_size=5,
        per_device_train_batch_size=100, score_args=ScoreArguments(damping_factor=DAMPING), overwrite_output_dir=True,
    )
    found = analyzer.load_pairwise_scores("scores")["all_modules"]
    seconds = time.time() - start
    options = ["--curvature", "ekfac", "--damping", str(DAMPING)]
    line("kronfluence ekfac", found, *swap(seconds, scores("layers", "ekfac", options, work)))


def timed_gradient(loss, parameters, times=5):
    took = []
    for _ in range(times):
        start = time.time()
        torch.autograd.grad(loss(), parameters)
        took.append(time.time() - start)
    return sorted(took)[len(took) // 2]


def planned_gradient(name, work):
    found = []
    for _ in range(3):
        out, _ = whence(["rank", f"{name}.toml", "--method", "grad-dot", "--plan", "--json"], work)
        found.append(json.loads(out)["seconds"]["gradient-pass"]["train"])
    return sorted(found)[1]


def gradients(shared, work, train):
    print("\n| gradient of the mean loss | PyTorch eager, s | whence, s | ratio |\n| --- | ---: | ---: | ---: |")
    model = resnet(shared, lambda module: True)
    whence_export.save(model, train[0][:2], work / "whole.pt2")
    pipeline(work, "whole", more="images")
    x, y = train
    theirs = timed_gradient(lambda: F.cross_entropy(model(x), y), list(model.parameters()))
    ours = planned_gradient("whole", work)
    print(f"| ResNet-20, {len(x)} images | {theirs:.3f} | {ours:.3f} | {ours / theirs:.2f} |", flush=True)

    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=1000, n_positions=128, n_embd=128, n_layer=4, n_head=4, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
    )
    gpt = GPT2LMHeadModel(config).eval()
    tokens = torch.randint(0, 1000, (64, 64))
    whence_export.save(gpt, {"input_ids": tokens[:2]}, work / "gpt2.pt2")
    write_safetensors(work / "train-gpt2.safetensors", {"tokens": tokens})
    write_safetensors(work / "test-gpt2.safetensors", {"tokens": tokens[:2]})
    pipeline(work, "gpt2", "next-token")

    def loss():
        logits = gpt(input_ids=tokens, use_cache=False).logits[:, :-1]
        return F.cross_entropy(logits.reshape(-1, 1000), tokens[:, 1:].reshape(-1))

    theirs = timed_gradient(loss, list(gpt.parameters()))
    ours = planned_gradient("gpt2", work)
    print(f"| GPT-2, 4 layers of 128, 64 texts of 64 tokens | {theirs:.3f} | {ours:.3f} | {ours / theirs:.2f} |", flush=True)


def main():
    torch.set_num_threads(1)
    shared, work = ARGS.shared, ARGS.work
    work.mkdir(parents=True, exist_ok=True)
    x, y = images(shared / "data/image/cifar10_train_4000.bin.gz")
    train = x[: ARGS.images], y[: ARGS.images]
    x, y = images(shared / "data/image/cifar10_test_1000.bin.gz")
    with torch.no_grad():
        wrong = (resnet(shared, lambda module: True)(x[:100]).argmax(1) != y[:100]).nonzero().flatten()[:5]
    test = x[wrong], y[wrong]
    for name, (inputs, labels) in {"train": train, "test": test}.items():
        write_safetensors(work / f"{name}-images.safetensors", {"inputs": inputs, "targets": labels})
    print("| peer, whence | Pearson | Spearman | peer, s | whence, s |\n| --- | ---: | ---: | ---: | ---: |", flush=True)
    for part in (head, layers):
        if ARGS.only in ("", part.__name__):
            part(shared, work, train, test)
    if ARGS.only in ("", "gradients"):
        gradients(shared, work, train)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("whence")
    parser.add_argument("shared", type=pathlib.Path)
    parser.add_argument("work", type=lambda path: pathlib.Path(path).resolve())
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--only", default="", choices=["", "head", "layers", "gradients"])
    ARGS = parser.parse_args()
    main()
