#!/usr/bin/env bash
# What the others are compared with: WORK/NAME/exact.safetensors, by whence in float64. A dense solve where the Hessian fits (an error of
# 1e-15), conjugate gradients to 1e-10 elsewhere; either fails where the damped Hessian is not positive definite.
#   tests/bench/solvers/exact.sh WHENCE WORK [NAME ...]
set -euo pipefail
whence=$(realpath "$1") work=$2
shift 2
export OMP_WAIT_POLICY=passive
[[ $# -gt 0 ]] || set -- digits mnist cifar
for name in "$@"; do
  folder=$work/$name
  [[ -s $folder/train.json ]] || { echo "$name: skipped, not prepared (problems.sh)"; continue; }
  [[ $name == digits ]] && solver=direct || solver=cg:relative-tolerance=1e-10,max-iterations=20000
  "$whence" score "$folder/pipeline.toml" --stage fit --queries test --dtype float64 --damping "$(cat "$folder/damping")" \
    --solver "$solver" --out "$folder/exact"
  grep -q '"unconverged-solves": 0' "$folder/exact/run.json" || { echo "$name: a solve did not converge" >&2; exit 1; }
  cp "$folder/exact/scores.safetensors" "$folder/exact.safetensors"
done
