#!/usr/bin/env bash
# Passes over a language model in whence and in PyTorch eager (transformers, sdpa attention), in turns, on the same shapes and threads.
#   passes.sh WHENCE_BENCH PYTHON DIR [B] [T] [THREADS] [ROUNDS] [QUERIES]
# PYTHON has torch 2.13 and transformers. Prints each side's median seconds over the rounds, and whence's over PyTorch's.
set -euo pipefail
bench=$1 python=$2 model=$3 batch=${4:-16} length=${5:-64} threads=${6:-2} rounds=${7:-3} queries=${8:-32}
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMP_WAIT_POLICY=passive
for round in $(seq "$rounds"); do
  OMP_NUM_THREADS=$threads "$bench" language "$model" "$batch" "$length" "$threads" "$queries" >"$work/whence.$round"
  "$python" "$here/torch_pass.py" "$model" --batch "$batch" --length "$length" --threads "$threads" >"$work/torch.$round"
done
"$python" - "$work" "$rounds" <<'PYTHON'
import json, pathlib, statistics, sys
work, rounds = pathlib.Path(sys.argv[1]), int(sys.argv[2])
ours = [json.loads((work / f"whence.{i + 1}").read_text()) for i in range(rounds)]
theirs = [json.loads((work / f"torch.{i + 1}").read_text())["seconds"] for i in range(rounds)]
median = lambda runs, key: statistics.median(run[key] for run in runs)
print(f"{'':32}{'whence':>9}{'PyTorch':>9}{'ratio':>7}")
for key in ours[0]:
    what, dtype = key.split()[0], key.split()[-1]
    other = median(theirs, f"{dtype}.{'forward' if what == 'forward' else 'backward'}")
    mine = median(ours, key)
    print(f"{key:32}{mine:9.4f}{other:9.4f}{mine / other:7.2f}")
PYTHON
