#!/usr/bin/env bash
# Prepares the problems of the solver benchmark: WORK/NAME/pipeline.toml, its data, its checkpoint, trained until the gradient is small, and
# `damping`, which every method is given on top of the Hessian of the objective, weight decay included. A problem that was trained
# is left alone; one whose data is absent is skipped with a message.
#   tests/bench/solvers/problems.sh WHENCE WORK [NAME ...]     digits, mnist and cifar unless named; SHARED says where the images are
set -euo pipefail
whence=$(realpath "$1") work=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
images=${SHARED:-$root/../shared/data}/image
export OMP_WAIT_POLICY=passive

skip() { echo "$1: skipped, no $2"; }

[[ $# -gt 0 ]] || set -- digits mnist cifar
for name in "$@"; do
  folder=$work/$name
  mkdir -p "$folder"
  case $name in
  digits)
    damping=1e-3 dtype=float64
    digits=$root/.deps/data/digits.csv.gz
    [[ -s $digits ]] || "$root/scripts/digits.sh" || { skip "$name" "$digits"; continue; }
    zcat "$digits" | awk -F, -v OFS=, '{ for (i = 1; i < NF; ++i) $i = $i / 16; print }' >"$folder/all.csv"
    sed -n 1,1437p "$folder/all.csv" >"$folder/train.csv"
    sed -n 1438,1469p "$folder/all.csv" >"$folder/queries.csv"
    ;;
  mnist)
    damping=1e-3 dtype=float64
    [[ -s $images/mnist-train20k-images-idx3-ubyte.gz ]] || { skip "$name" "$images/mnist-*"; continue; }
    ;;
  cifar)
    damping=1e-2 dtype=float32  # convolutions in float64 take four times as long
    [[ -s $images/cifar10_train_4000.bin.gz ]] || { skip "$name" "$images/cifar10_*"; continue; }
    ;;
  *) echo "no problem $name" >&2; exit 2 ;;
  esac
  echo "$damping" >"$folder/damping"
  sed "s#DATA#$(realpath -m "$images")#g" "$here/$name.toml" >"$folder/pipeline.toml"
  "$whence" train "$folder/pipeline.toml" --dtype "$dtype"
  # Weights that exist are not trained again; what this prints is what peers.py holds its own objective against.
  "$whence" train "$folder/pipeline.toml" --dtype float64 --quiet --json >"$folder/train.json"
done
