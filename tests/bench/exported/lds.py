"""Are the scores of an exported ResNet-20 right? By training its head again, in NumPy, without whence.

    python lds.py WHENCE SHARED WORK [--images 300] [--halves 50]

The body stays as its authors trained it; the head is trained to the minimum of the mean loss and a weight decay on
`--images` of CIFAR-10 (Newton, float64) and put into the model, which is exported with the body frozen. whence ranks for
twenty test images, the first five that the model gets wrong among them. The truth: the head trained again on random
halves (linear datamodelling score: Spearman over the halves, mean over the queries), and without each of forty examples,
half of them the strongest for a wrong one (leave-one-out: Pearson). Where training ends at the one minimum, retraining
with another seed comes to the same: the ceiling is 1. The interval is a 95 % bootstrap over the queries. Times are
seconds of a processor. Needs torch and NumPy, and captum and kronfluence not.
"""

import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import compare  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402

DECAY = 1e-2


def losses(theta, x, y):
    z = x @ theta
    z = z - z.max(1, keepdims=True)
    return np.log(np.exp(z).sum(1)) - z[np.arange(len(y)), y]


def fit(theta, x, y, weights):
    """The minimum of sum w l / sum w + decay / 2 |theta|^2 by Newton with halved steps, from theta [65, 10]."""
    weights = weights / weights.sum()
    classes, target = theta.shape[1], np.eye(theta.shape[1])[y]
    value = lambda at: (weights * losses(at, x, y)).sum() + DECAY / 2 * (at * at).sum()  # noqa: E731
    for _ in range(100):
        z = x @ theta
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        gradient = x.T @ ((p - target) * weights[:, None]) + DECAY * theta
        if np.abs(gradient).max() < 1e-10:
            return theta
        hessian = np.zeros((theta.size, theta.size))
        view = hessian.reshape(*theta.shape, *theta.shape)
        for a in range(classes):
            for b in range(a, classes):
                w = weights * (p[:, a] * ((a == b) - p[:, b]))
                view[:, a, :, b] = x.T @ (x * w[:, None])
                view[:, b, :, a] = view[:, a, :, b].T
        hessian.flat[:: theta.size + 1] += DECAY
        step = np.linalg.solve(hessian, gradient.ravel()).reshape(theta.shape)
        size, now, slope = 1.0, value(theta), (gradient * step).sum()
        while value(theta - size * step) > now - 1e-4 * size * slope + 1e-13 * abs(now) and size > 1e-9:
            size /= 2
        theta = theta - size * step
    raise SystemExit("the head did not come to its minimum")


def spearman(a, b):
    rank = lambda x: np.argsort(np.argsort(x))  # noqa: E731
    return np.corrcoef(rank(a), rank(b))[0, 1]


def interval(values):
    draws = np.random.default_rng(1).choice(values, (2000, len(values))).mean(1)
    return f"{np.mean(values):.3f} [{np.quantile(draws, 0.025):.3f}, {np.quantile(draws, 0.975):.3f}]"


def main(args):
    torch.set_num_threads(1)
    args.work.mkdir(parents=True, exist_ok=True)
    x, y = compare.images(args.shared / "data/image/cifar10_train_4000.bin.gz")
    x, y = x[: args.images], y[: args.images]
    test_x, test_y = (part[:100] for part in compare.images(args.shared / "data/image/cifar10_test_1000.bin.gz"))
    model = compare.resnet(args.shared, lambda module: isinstance(module, nn.Linear))
    found = []
    model.linear.register_forward_hook(lambda _, inputs, __: found.append(inputs[0]))
    with torch.no_grad():
        out = model(test_x)
        for part in x.split(250):
            model(part)
    wrong = (out.argmax(1) != test_y).nonzero().flatten().tolist()[:5]
    chosen = wrong + [i for i in range(100) if i not in wrong][:15]
    feature = [np.hstack([part.double().numpy(), np.ones((len(part), 1))]) for part in (found[0], torch.cat(found[1:]))]
    queries, query_y = feature[0][chosen], test_y[chosen].numpy()
    data, labels = feature[1], y.numpy()
    start = np.vstack([model.linear.weight.detach().double().numpy().T, model.linear.bias.detach().double().numpy()])
    theta = fit(start, data, labels, np.ones(len(labels)))
    print(f"{len(labels)} images; the head's minimum is {np.abs(theta - start).max():.2f} from its authors'", flush=True)
    with torch.no_grad():
        model.linear.weight.copy_(torch.tensor(theta[:-1].T))
        model.linear.bias.copy_(torch.tensor(theta[-1]))
    compare.exported(model, x[:2], args.work / "minimum.pt2", classes=compare.resnet20.CLASSES)
    for name, part in {"train": (x, y), "test": (test_x[chosen], test_y[chosen])}.items():
        compare.write_safetensors(args.work / f"{name}-lds.safetensors", {"inputs": part[0], "targets": part[1]})
    compare.pipeline(args.work, "minimum", "lds", more=f"weight-decay = {DECAY}\n")

    random = np.random.default_rng(0)
    halves = [random.permutation(len(labels))[: len(labels) // 2] for _ in range(args.halves)]
    after = []
    for half in halves:
        weights = np.zeros(len(labels))
        weights[half] = 1
        after.append(losses(fit(theta, data, labels, weights), queries, query_y))
    after = np.array(after)  # [halves, queries]
    methods = {
        "default": [],
        "ekfac": ["--curvature", "ekfac", "--damping", "0"],
        "cg + ekfac": [  # of a linear head the Gauss-Newton matrix is the Hessian
            "--curvature", "gauss-newton", "--solver", "cg:preconditioner=ekfac,relative-tolerance=1e-6", "--damping", "0",
        ],
        "grad-dot": ["--method", "grad-dot"],
    }
    scored = {}
    for name, options in methods.items():
        scored[name] = compare.scores("minimum", options, args.work)
    exact = scored["cg + ekfac"][0]
    left_out = list(np.argsort(-np.abs(exact[:5]), axis=1)[:, :4].ravel())
    left_out = list(dict.fromkeys(left_out + list(random.permutation(len(labels))[:20])))
    before, without = losses(theta, queries, query_y), []
    for i in left_out:
        weights = np.ones(len(labels))
        weights[i] = 0
        without.append(losses(fit(theta, data, labels, weights), queries, query_y) - before)
    without = np.array(without)
    print("| method | LDS | leave-one-out, Pearson | seconds |\n| --- | ---: | ---: | ---: |")
    for name, (found, seconds) in scored.items():
        lds = [spearman([-found[q][half].sum() for half in halves], after[:, q]) for q in range(len(chosen))]
        loo = [np.corrcoef(found[q][left_out], without[:, q])[0, 1] for q in range(len(chosen))]
        print(f"| {name} | {interval(lds)} | {interval(loo)} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    parser = compare.arguments(__doc__)
    parser.add_argument("--halves", type=int, default=50)
    compare.ARGS = parser.parse_args()
    main(compare.ARGS)
