"""How often stated 90 % intervals of removals hold: coverage.py RESULT [LEARNT] [SPLITS]

RESULT is a folder of `whence rank` that `whence evaluate --examples N` was run on (N about 80: examples/quickstart.sh,
then evaluate examples/quickstart.toml --stage pretrain --scores examples/run/result --examples 80). Draws LEARNT (20)
of its retrained examples, learns intervals from them as lib/whence/evaluate/confidence.cpp does, and counts how many of
the other examples' retrained changes fall into theirs; the mean over SPLITS (200) draws. Needs numpy."""
import json, struct, sys
import numpy as np

folder = sys.argv[1]
learnt = int(sys.argv[2]) if len(sys.argv) > 2 else 20
splits = int(sys.argv[3]) if len(sys.argv) > 3 else 200
evaluation = json.load(open(f"{folder}/evaluation.json"))
raw = open(f"{folder}/scores.safetensors", "rb").read()
size = struct.unpack("<Q", raw[:8])[0]
header = json.loads(raw[8:8 + size])


def tensor(name):
    entry = header[name]
    kind = {"F64": "<f8", "F32": "<f4", "I64": "<i8"}[entry["dtype"]]
    begin, end = entry["data_offsets"]
    return np.frombuffer(raw[8 + size + begin:8 + size + end], kind).reshape(entry["shape"])


scores = tensor("scores").astype(float)
typical = dict(zip(tensor("query-ids").tolist(), np.sqrt((scores ** 2).mean(1)) / scores.shape[1]))
points = evaluation["points"]
example = np.array([p["example"] for p in points])
predicted = np.array([p["predicted"] for p in points])
actual = np.array([p["actual"] for p in points])
usual = np.array([typical[p["query"]] for p in points])
SPREADS = [0.001, 0.01, 0.03, 0.1, 0.3, 1, 3]


def fit(p, a, t):
    best = (np.inf, 1, 1)
    for spread in SPREADS:
        width = np.hypot(p, spread * t)
        slope = (p * a / width ** 2).sum() / (p * p / width ** 2).sum()
        error = np.abs(a - slope * p) / width
        best = min(best, (len(p) * np.log(error.sum() + 1e-300) + np.log(width).sum(), slope, spread))
    return best[1:]


large = np.abs(predicted) >= 0.5 * usual


def learn_part(inside):
    ids = np.unique(example[inside])
    if len(ids) < 9:
        return None
    errors = []
    for one in ids:
        rest, own = inside & (example != one), inside & (example == one)
        slope, spread = fit(predicted[rest], actual[rest], usual[rest])
        errors += list(np.abs(actual[own] - slope * predicted[own]) / np.hypot(predicted[own], spread * usual[own]))
    place = min(len(errors), int(np.ceil((len(errors) + 1) * 0.9))) - 1
    return *fit(predicted[inside], actual[inside], usual[inside]), sorted(errors)[place]


def inside_intervals(ids):
    """Of each pair, whether its change lies in the interval that these examples' retrainings give."""
    inside = np.isin(example, ids)
    out = np.zeros(len(example), bool)
    for part in (large, ~large):
        slope, spread, reach = learn_part(inside & part) or learn_part(inside)
        held = np.abs(actual - slope * predicted) <= reach * np.hypot(predicted, spread * usual)
        out[part] = held[part]
    return out


random = np.random.default_rng(0)
everyone = np.unique(example)
strong = np.abs(predicted) >= np.array([np.quantile(np.abs(predicted[usual == t]), 0.9) for t in usual])
shares, strongest = [], []
for _ in range(splits):
    ids = random.choice(everyone, learnt, replace=False)
    others, held = ~np.isin(example, ids), inside_intervals(ids)
    shares.append(held[others].mean())
    strongest.append(held[others & strong].mean())
print(f"{len(everyone)} retrained examples x {len(typical)} queries; {splits} draws of {learnt} to learn from")
print(f"inside the 90 % interval, of the other examples: {100 * np.mean(shares):.1f} % (middle 80 % of draws "
      f"{100 * np.quantile(shares, .1):.0f} to {100 * np.quantile(shares, .9):.0f} %)")
print(f"of the strongest tenth alone: {100 * np.mean(strongest):.1f} %")
