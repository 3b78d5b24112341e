#!/usr/bin/env bash
# Methods beside the ceiling, as in run.sh, of a relu convnet on 400 pictures of CIFAR-10 (automobiles and deer) that Adam trains for 20 epochs
# from a random start, at no minimum. What it found: README.md beside it. Minutes on one core.
#   tests/bench/evaluate/cifar.sh WHENCE SHARED WORK [AGAINST...]        by default: lds mislabel removal
# SUBSETS (40) may be set.
set -euo pipefail
whence=$(realpath "$1") shared=$(realpath "$2") work=$3
shift 3
[[ $# -gt 0 ]] || set -- lds mislabel removal
mkdir -p "$work"
cd "$work"
ln -sfn "$shared/data/image" DATA
cat >cifar.toml <<'TOML'
seed = 0
[model]
spec = "convnet:channels=4/8,kernel=3,activation=relu"
[[stage]]
name = "fit"
train = { format = "cifar", file = "DATA/cifar10_train_4000.bin.gz", classes = [1, 4], limit = 400 }
weight-decay = 1e-3
optimizer = "adam:learning-rate=3e-3,epochs=20,batch-size=32"
snapshots = 4
checkpoint = "fit.safetensors"
[queries.test]
data = { format = "cifar", file = "DATA/cifar10_test_1000.bin.gz", classes = [1, 4], limit = 40 }
TOML
"$whence" train cifar.toml --threads 1 --quiet
methods=influence,ekfac,trak,logra,grad-dot,rep-sim,kernel followed=unrolled,segment,tracin  # these need a training that was followed
for against in "$@"; do
  echo "== $against"
  options=(--methods "$followed,$methods" --subsets "${SUBSETS:-40}")
  [[ $against != mislabel ]] || options=(--methods "segment,tracin,$methods")
  [[ $against != removal ]] || options=(--methods "$followed,$methods" --remove 10,20)
  "$whence" evaluate cifar.toml --stage fit --queries test --against "$against" "${options[@]}" --out "$against" --threads 1 --quiet
done
