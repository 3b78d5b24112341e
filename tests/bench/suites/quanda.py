"""quanda's local MNIST benchmark (dilyabareeva/quanda, tests/assets/mnist_local_bench) with whence's methods.

    python quanda.py WHENCE BENCH MNIST WORK [--methods a,b]

BENCH is that folder: LeNets as safetensors, splits in YAML. MNIST holds the four files of MNIST, as *train*images* and so on (.gz); the first
600 training and 100 test images are read. Queries have the class that the model predicts, as in quanda, whose metrics are computed here from its
description. The row `cosine at fc_2` is what quanda's tests expect of captum's SimilarityInfluence, computed here: it checks the splits.
Needs torch, PyYAML and safetensors. Results: README.md beside it.
"""

import argparse
import gzip
import pathlib
import resource
import subprocess
import sys

import numpy as np
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import nn

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "python"))
import whence_export  # noqa: E402

METHODS = {  # of whence score
    "influence": [], "ekfac": ["--curvature", "ekfac"], "hessian": ["--curvature", "hessian"],
    "gauss-newton": ["--curvature", "gauss-newton"],
    "datainf": ["--curvature", "empirical-fisher", "--solver", "datainf"],
    "segment": ["--response", "segment:time=0.04,steps=40"],  # 40 steps of Adam at 1e-3
    "kernel": ["--method", "kernel"], "trak": ["--method", "trak:dimension=256"], "logra": ["--method", "logra"],
    "grad-dot": ["--method", "grad-dot"], "grad-cos": ["--method", "grad-cos"], "rep-sim": ["--method", "rep-sim"],
    "random": ["--method", "random"],
}
SLOW = ("hessian", "gauss-newton", "kernel")  # for the first LeNet alone


class LeNet(nn.Module):
    """As in quanda/benchmarks/resources/modules.py."""

    def __init__(self, outputs):
        super().__init__()
        self.conv_1, self.conv_2 = nn.Conv2d(1, 6, 5), nn.Conv2d(6, 16, 5)
        self.fc_1, self.fc_2, self.fc_3 = nn.Linear(256, 120), nn.Linear(120, 84), nn.Linear(84, outputs)

    def forward(self, x):
        for layer in (self.conv_1, self.conv_2):
            x = nn.functional.max_pool2d(nn.functional.relu(layer(x)), 2)
        x = nn.functional.relu(self.fc_1(x.flatten(1)))
        return self.fc_3(nn.functional.relu(self.fc_2(x)))


def mnist(folder, part, count):
    def read(kind, header):
        data = gzip.open(next(pathlib.Path(folder).glob(f"*{part}*{kind}*.gz"))).read()
        return np.frombuffer(data, np.uint8, offset=header)

    images = read("images", 16).reshape(-1, 1, 28, 28)[:count]
    return torch.tensor(images.copy()), torch.tensor(read("labels", 8)[:count].astype(np.int64))


def metadata(name, file):
    return yaml.safe_load((ARGS.bench / f"metadata/83edb41-default_{name}_metadata/{file}").read_text())


def weights(name):
    return load_file(ARGS.bench / f"ckpt/83edb41-default_{name}/model.safetensors")


def scaled(images):
    return (images / 255 - 0.5) / 0.5


def whence(*arguments):
    done = subprocess.run([ARGS.whence, *map(str, arguments)], cwd=ARGS.work, capture_output=True, text=True)
    if done.returncode:
        print("  whence", *arguments, "\n ", done.stderr.strip().rpartition("\n")[2], flush=True)
    return done


def prepare(name, x, y, queries):
    """The model, its examples and queries as files, and a pipeline; the model with the class of each query."""
    state = weights(name)
    model = LeNet(len(state["fc_3.bias"]))
    model.load_state_dict(state)
    model.eval()
    with torch.no_grad():
        predicted = model(queries).argmax(1)
    whence_export.save(model, x[:2], str(ARGS.work / f"{name}.pt2"))
    for part, inputs, targets in (("train", x, y), ("test", queries, predicted)):
        save_file({"inputs": inputs.contiguous(), "targets": targets.contiguous()}, ARGS.work / f"{name}-{part}.safetensors")
    (ARGS.work / f"{name}.toml").write_text(f"""seed = 0
[model]
exported = "{name}.pt2"
[[stage]]
name = "fit"
train = {{ format = "safetensors", file = "{name}-train.safetensors" }}
loss = "cross-entropy"
optimizer = "adam:learning-rate=1e-3,schedule=constant,epochs=5,batch-size=64"
checkpoint = "{name}.pt2"
[queries.test]
data = {{ format = "safetensors", file = "{name}-test.safetensors" }}
""")
    return model, predicted


def scores(name, method, self_scores=False):
    """[queries, examples], positive where an example speaks for what the query is, or None; of self_scores how much an example moves its own loss."""
    more = ["--self"] if self_scores else ["--queries", "test"]
    if whence("score", f"{name}.toml", *more, *METHODS[method], "--threads", 1, "--quiet", "--out", "result").returncode:
        return None
    return -load_file(ARGS.work / "result/scores.safetensors")["self" if self_scores else "scores"]


def features(model, x):
    """What fc_2 puts out, before its relu."""
    found = []
    hook = model.fc_2.register_forward_hook(lambda _, __, output: found.append(output.detach()))
    with torch.no_grad():
        model(x)
    hook.remove()
    return nn.functional.normalize(found[0])


def precision(row, positive):
    """The area under the precision-recall curve."""
    hits = positive[torch.argsort(row, descending=True, stable=True)]
    return float((hits.cumsum(0) / torch.arange(1, len(hits) + 1))[hits > 0].mean())


def kendall(a, b):
    signs = [torch.sign(v[:, None] - v[None]) for v in (a, b)]
    return float((signs[0] * signs[1]).sum() / (len(a) * (len(a) - 1)))


def interval(values):
    values = np.asarray(values, float)
    draws = np.random.default_rng(0).choice(values, (2000, len(values))).mean(1)
    return f"{values.mean():.3f} [{np.quantile(draws, .025):.3f}, {np.quantile(draws, .975):.3f}]"


def main():
    train, labels = mnist(ARGS.mnist, "train", 600)
    test, test_labels = mnist(ARGS.mnist, "t10k", 100)
    rows = torch.tensor(metadata("ClassDetection", "mnist_train_split.yaml")["train"])
    images, y = train[rows], labels[rows]
    x, queries, table = scaled(images), scaled(test), {}

    def suite(name, x, y, queries, **metrics):
        """metric(scores, predicted): numbers whose mean is a column of the table."""
        model, predicted = prepare(name, x, y, queries)
        for method in ["cosine at fc_2", *ARGS.methods]:
            if name != "LDS" and method in SLOW:
                continue
            before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
            found = scores(name, method) if method in METHODS else features(model, queries) @ features(model, x).T
            seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
            for column, metric in metrics.items():
                table[column, method] = "-" if found is None else interval(metric(found, predicted))
                print(f"{column:10} {method:15} {table[column, method]} {seconds:.1f} s of a processor", flush=True)
        return f"{float((predicted == test_labels).float().mean()):.2f} of the test images have the label that it gives"

    subsets = metadata("LDS", "lds_subsets.yaml")
    half, after = LeNet(10), []
    for i in range(len(subsets)):
        half.load_state_dict(weights(f"LDS_lds_subset_{i}"))
        with torch.no_grad():
            after.append(half(queries).log_softmax(1))
    after = torch.stack(after, 1)  # [queries, subsets, classes]

    def datamodelling(scores, predicted):
        sums = torch.stack([scores[:, subset].sum(1) for subset in subsets], 1)
        return [kendall(a[:, c], b) for a, b, c in zip(after, sums, predicted)]

    same_class = lambda s, predicted: (y[s.argmax(1)] == predicted).float()  # noqa: E731
    print("LDS:", suite("LDS", x, y, queries, lds=datamodelling, same_class=same_class), flush=True)  # ClassDetection's LeNet, to the byte

    groups = metadata("SubclassDetection", "83edb41-default_SubclassDetection_class_to_group.yaml")["class_to_group"]
    group = torch.tensor([groups[i] for i in range(10)])
    suite("SubclassDetection", x, group[y], queries, subclass=lambda s, _: (y[s.argmax(1)] == test_labels).float())

    marked = torch.zeros(len(y))
    marked[metadata("ShortcutDetection", "mnist_train_shortcut_transform_indices.yaml")["transform_indices"]] = 1
    corner = (torch.arange(28)[:, None] < 12) & (torch.arange(28) < 12)
    shown = torch.where(corner & (marked > 0)[:, None, None, None], 255, images)
    square = lambda s, _: [precision(row, marked) for row in s]  # noqa: E731
    followed = lambda s, predicted: square(s[(predicted == 0) & (test_labels != 0)], 0)  # noqa: E731
    suite("ShortcutDetection", scaled(shown), y, scaled(torch.where(corner, 255, test)), shortcut=square, followed=followed)

    flipped = metadata("MislabelingDetection", "mnist_train_mislabeling_transform_indices.yaml")
    wrong, noisy = torch.zeros(len(y)), y.clone()
    for i, label in flipped["mislabeling_labels"].items():
        noisy[i], wrong[i] = label, 1
    prepare("MislabelingDetection", x, noisy, queries)

    def found(order):
        curve = wrong[order].cumsum(0) / wrong.sum()
        return float(torch.trapezoid(curve) / len(curve))

    table["mislabel", "cosine at fc_2"] = f"{found(torch.arange(len(y)).flip(0)):.3f}"  # all are 1: quanda breaks ties by the last row
    for method in (method for method in ARGS.methods if method not in (*SLOW, "datainf")):
        own = scores("MislabelingDetection", method, True)
        table["mislabel", method] = "-" if own is None else f"{found(torch.argsort(own.abs(), descending=True, stable=True)):.3f}"

    columns = ["same_class", "subclass", "shortcut", "followed", "mislabel", "lds"]
    print("| method | " + " | ".join(columns) + " |\n| --- |" + " ---: |" * len(columns))
    for method in ["cosine at fc_2", *ARGS.methods]:
        print(f"| {method} | " + " | ".join(table.get((column, method), "") for column in columns) + " |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("whence", type=lambda path: str(pathlib.Path(path).resolve()))
    for name in ("bench", "mnist", "work"):
        parser.add_argument(name, type=pathlib.Path)
    parser.add_argument("--methods", type=lambda text: text.split(","), default=list(METHODS))
    ARGS = parser.parse_args()
    ARGS.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    main()
