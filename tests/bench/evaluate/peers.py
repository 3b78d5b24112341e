"""Other libraries' scores for the network of `run.sh WHENCE SHARED WORK digits|cifar`, and ours, judged by the same trainings on halves.

    peers.py WHENCE WORK/digits [--only REGEX] [--damping X]      after run.sh; .deps/peers (../solvers/peers.sh) and captum

Each peer reads the checkpoint that whence trained and the same data (../solvers/peers.py has how it is called); its scores, negated where they are
+g' (.)^-1 g, take the place of those in a result, which `whence evaluate --scores --against lds` holds against the bank that run.sh filled, as it
does ours: no training is made. A peer at its defaults has the regularisation that its library gives; "damped" is given the damping that whence's
default chose (and its weight decay), where the checkpoint is no minimum. Seconds are of a processor, from model and data to scores for a peer,
of `whence score` whole for us. Intervals: 95 %, over the halves alone.
"""

import argparse
import hashlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "solvers"))
import peers  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from torch.utils.data import TensorDataset  # noqa: E402


def snapshots(problem):
    return sorted(str(path) for path in problem.folder.glob("fit.snapshot-*.safetensors"))


def load(model, path):
    weights = load_file(path)
    model.load_state_dict({name: weights[name] for name in model.state_dict()})  # snapshots hold moments too
    return 1.0  # the learning rate


def sums(reduction):
    return torch.nn.CrossEntropyLoss(reduction=reduction)


def captum_tracin(problem, checkpoints=None, last=False):
    """Its scores are g' g: positive as the others'."""
    from captum.influence import TracInCP, TracInCPFast

    model, names = problem.make(), checkpoints or [problem.checkpoint]
    data = TensorDataset(problem.x, problem.y)
    if last:
        tracin = TracInCPFast(model, model.head, data, names, load, sums("sum"), batch_size=100)
    else:
        tracin = TracInCP(model, data, names, load, None, sums("sum"), batch_size=100, sample_wise_grads_per_batch=True)
    return tracin.influence((problem.qx, problem.qy)), None


def captum_hessian(problem, arnoldi=False, damped=False, **options):
    from captum.influence import NaiveInfluenceFunction
    from captum.influence._core.arnoldi_influence_function import ArnoldiInfluenceFunction

    size = len(problem.y)  # its Hessian is the sum over the examples
    if damped:
        options["hessian_reg"] = problem.shift * size
    function = (ArnoldiInfluenceFunction if arnoldi else NaiveInfluenceFunction)(
        problem.make(), TensorDataset(problem.x, problem.y), problem.checkpoint, load, loss_fn=sums("none"), batch_size=100, **options)
    return function.influence((problem.qx, problem.qy)), None


def dattri_trak(problem, regularization=0.0):
    from dattri.algorithm.trak import TRAKAttributor
    from dattri.task import AttributionTask

    model = problem.make().eval()

    def logit(parameters, data):  # of the right class, p / (1 - p), as its examples have it
        x, y = data
        p = -F.cross_entropy(torch.func.functional_call(model, parameters, (x.unsqueeze(0),)), y.unsqueeze(0))
        return p - torch.log(1 - torch.exp(p) + 1e-6)

    def probability(parameters, data):
        x, y = data
        return torch.exp(-F.cross_entropy(torch.func.functional_call(model, parameters, (x.unsqueeze(0),)), y.unsqueeze(0)))

    task = AttributionTask(logit, model, {k: v.clone() for k, v in problem.weights.items()})
    trak = TRAKAttributor(task, probability, regularization=regularization)
    batches = lambda x, y: torch.utils.data.DataLoader(TensorDataset(x, y), batch_size=256)  # noqa: E731
    with torch.no_grad():
        trak.cache(batches(problem.x, problem.y))
        return trak.attribute(batches(problem.qx, problem.qy)).T, None


def kronfluence(problem, damping=1e-8):
    from kronfluence.arguments import ScoreArguments

    own, problem.shift = problem.shift, damping
    assert ScoreArguments().damping_factor == 1e-8  # what `damping` is by default
    found = peers.kronfluence_ekfac(problem)
    problem.shift = own
    return found


def damped(function, shift=None, **options):
    """A method of ../solvers/peers.py with the regularisation `shift` (its library's default), or with the problem's."""

    def call(problem):
        own = problem.shift
        problem.shift = own if shift is None else shift
        try:
            return function(problem, **options)
        finally:
            problem.shift = own

    return call


PEERS = {
    "captum TracInCP, the end alone (default)": captum_tracin,
    "captum TracInCP, four snapshots": lambda problem: captum_tracin(problem, snapshots(problem)),
    "captum TracInCPFast, four snapshots": lambda problem: captum_tracin(problem, snapshots(problem), last=True),
    "captum NaiveInfluenceFunction, default": captum_hessian,
    "captum NaiveInfluenceFunction, every dimension, damped":
        lambda problem: captum_hessian(problem, damped=True, projection_dim=10_000, hessian_inverse_tol=0),
    "captum ArnoldiInfluenceFunction, default": lambda problem: captum_hessian(problem, arnoldi=True),
    "captum ArnoldiInfluenceFunction, damped": lambda problem: captum_hessian(problem, arnoldi=True, damped=True),
    "pyDVL DirectInfluence, default": damped(peers.pydvl_direct, 0.0),
    "pyDVL DirectInfluence, damped": damped(peers.pydvl_direct),
    "pyDVL CgInfluence, block, at most 30 iterations, damped": damped(peers.pydvl_cg, block=True, maxiter=30),
    "pyDVL LissaInfluence, scale by the largest eigenvalue, damped": damped(peers.pydvl_lissa, maxiter=1000, rtol=1e-6),
    "pyDVL ArnoldiInfluence, default rank, damped": damped(peers.pydvl_arnoldi),
    "pyDVL NystroemSketchInfluence, rank 100, damped": damped(peers.pydvl_nystroem, rank=100),
    "pyDVL EkfacInfluence, damped": damped(peers.pydvl_ekfac),
    "dattri IFAttributorExplicit, default": damped(peers.dattri_explicit, 0.0),
    "dattri IFAttributorExplicit, damped": damped(peers.dattri_explicit),
    "dattri IFAttributorCG, default": damped(peers.dattri_cg, 0.0),
    "dattri IFAttributorCG, 30 iterations, damped": damped(peers.dattri_cg, max_iter=30),
    "dattri IFAttributorEKFAC, default": damped(peers.dattri_ekfac, 0.0),
    "dattri IFAttributorEKFAC, damped": damped(peers.dattri_ekfac),
    "dattri IFAttributorDataInf, damped": damped(peers.dattri_datainf),
    "dattri TRAKAttributor, default": dattri_trak,
    "dattri TRAKAttributor, regularization 0.1": lambda problem: dattri_trak(problem, 0.1),
    "kronfluence ekfac, default": kronfluence,
    "kronfluence ekfac, a tenth of the mean eigenvalue": lambda problem: kronfluence(problem, None),
    "kronfluence ekfac, damped": lambda problem: peers.kronfluence_ekfac(problem),
}
OURS = {
    "whence influence (auto)": "",
    "whence ekfac": "--curvature ekfac",
    "whence hessian, cg": "--curvature hessian --solver cg",
    "whence unrolled": "--response unrolled",
    "whence segment": "--response segment",
    "whence trak": "--method trak",
    "whence logra": "--method logra",
    "whence tracin": "--method tracin",
    "whence grad-dot": "--method grad-dot",
}


class Trained(peers.Problem):
    def __init__(self, folder, damping):
        self.folder, self.checkpoint = folder, str(folder / "fit.safetensors")
        super().__init__(folder, torch.float32, damping)


def measure(problem, function, out, pipe):
    """In a process of its own: the scores to a file, its seconds of a processor to the pipe."""
    torch.set_num_threads(1)
    line = {}
    try:
        problem.unit_seconds()
        if function is PEERS["pyDVL LissaInfluence, scale by the largest eigenvalue, damped"]:
            problem.largest = problem.largest_eigenvalue()
        before = resource.getrusage(resource.RUSAGE_SELF)
        scores, _ = function(problem)
        after = resource.getrusage(resource.RUSAGE_SELF)
        line["seconds"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        scores = -scores.detach().float()
        if tuple(scores.shape) != (len(problem.qy), len(problem.y)):
            raise RuntimeError(f"scores of shape {tuple(scores.shape)}")
        if not torch.isfinite(scores).all():
            raise RuntimeError(f"{(~torch.isfinite(scores)).sum().item()} of {scores.numel()} scores are not finite")
        out.write_bytes(scores.contiguous().numpy().tobytes())
    except Exception as error:
        traceback.print_exc(file=open(out.with_suffix(".log"), "w"))
        line["error"] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120] if str(error).strip() else ''}"
    pipe.send(line)


def whence(program, folder, *arguments):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([program, *arguments, "--threads", "1", "--quiet"], cwd=folder, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"whence {' '.join(arguments)}: {done.stderr[-2000:]}")
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def put(result, data):
    """The float32 scores in the place of those in a result, which says in run.json what its files and run.json itself are by their digests."""
    path, run = result / "scores.safetensors", result / "run.json"
    held = bytearray(path.read_bytes())
    before = hashlib.sha256(held).hexdigest()
    size = int.from_bytes(held[:8], "little")
    begin, end = (8 + size + place for place in json.loads(held[8 : 8 + size])["scores"]["data_offsets"])
    assert end - begin == len(data), "scores of another shape"
    held[begin:end] = data
    path.write_bytes(held)
    text = run.read_text().replace(before, hashlib.sha256(held).hexdigest())
    own = re.compile(r'(,\n  "sha256": ")[0-9a-f]{64}"')
    run.write_text(own.sub(rf'\g<1>{hashlib.sha256(own.sub("", text).encode()).hexdigest()}"', text))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("whence", type=lambda path: str(Path(path).resolve()))
    parser.add_argument("folder", type=lambda path: Path(path).resolve())
    parser.add_argument("--damping", type=float, help="default: what whence's default chose")
    parser.add_argument("--subsets", type=int, default=50)
    parser.add_argument("--limit-seconds", type=float, default=3600, help="a method, by the clock")
    parser.add_argument("--only", default="", help="a regular expression of names")
    arguments = parser.parse_args()
    program, folder = arguments.whence, arguments.folder
    out = folder / "peers"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    judged = ["evaluate", "pipeline.toml", "--against", "lds", "--subsets", str(arguments.subsets)]
    (folder / "train.json").write_text(whence(program, folder, "train", "pipeline.toml", "--dtype", "float64", "--json")[0])

    def judge(name, result, seconds):
        result.joinpath("bank").symlink_to(folder / "lds" / "bank")
        whence(program, folder, *judged, "--scores", str(result))
        found = json.loads((result / "evaluation-lds.json").read_text())
        low, high = found["lds-interval-95"]
        print(f"| {name} | {found['lds']:.3f} [{low:.3f}, {high:.3f}] | {seconds:.1f} |", flush=True)

    print("| method | LDS | seconds |\n| --- | ---: | ---: |", flush=True)
    damping = arguments.damping
    for name, options in OURS.items():
        if not (out / "template").exists() or re.search(arguments.only, name):
            result = out / re.sub(r"[^a-z]+", "-", name)
            _, seconds = whence(program, folder, "score", "pipeline.toml", "--stage", "fit", "--queries", "test", *options.split(), "--out", str(result))
            if not (out / "template").exists():
                shutil.copytree(result, out / "template")
            judge(name, result, seconds)
            if damping is None:
                damping = json.loads((result / "run.json").read_text())["stages"]["fit"]["damping"]
    problem = Trained(folder, damping)
    for name, function in PEERS.items():
        if not re.search(arguments.only, name):
            continue
        scores = out / (re.sub(r"[^a-z0-9]+", "-", name.lower()) + ".scores")
        line = peers.isolated(measure, problem, function, scores, limit=arguments.limit_seconds)
        if "error" in line:
            print(f"| {name} | {line['error']} | |", flush=True)
            continue
        with tempfile.TemporaryDirectory() as copy:
            result = Path(copy) / "result"
            shutil.copytree(out / "template", result)
            put(result, scores.read_bytes())
            judge(name, result, line["seconds"])
    print(f"damped by {problem.damping:.3g} + weight decay {problem.weight_decay:g}")


if __name__ == "__main__":
    os.environ["TQDM_DISABLE"] = "1"
    main()
