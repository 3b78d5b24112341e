#!/usr/bin/env bash
# How well the derivative of a smooth training foretells trainings on random halves and without single examples: 4,000 of MNIST, an mlp of tanh,
# 20 epochs of Adam at a small rate from a random start, no minimum; every response, and methods that are cheap. Four minutes of one core for 100
# halves.
#   tests/bench/unrolled/mnist.sh WHENCE SHARED WORK [SUBSETS]
# SHARED holds data/image.
set -euo pipefail
whence=$(realpath "$1") data=$(realpath "$2")/data/image work=$3 subsets=${4:-100}
mkdir -p "$work"
cd "$work"
cat >mnist.toml <<TOML
seed = 0
[model]
spec = "mlp:widths=16,activation=tanh"
[[stage]]
name = "fit"
train = { format = "idx", images = "$data/mnist-train20k-images-idx3-ubyte.gz", labels = "$data/mnist-train20k-labels-idx1-ubyte.gz", limit = 4000 }
weight-decay = 1e-3
optimizer = "adam:learning-rate=3e-4,epochs=20,batch-size=64"
snapshots = 5
checkpoint = "fit.safetensors"
[queries.test]
data = { format = "idx", images = "$data/mnist-t10k-images-idx3-ubyte.gz", labels = "$data/mnist-t10k-labels-idx1-ubyte.gz", limit = 40 }
TOML
"$whence" train mnist.toml --quiet
for against in lds retraining; do
  "$whence" evaluate mnist.toml --methods unrolled,segment,influence,proximal-bregman,ekfac,trak,grad-dot --against "$against" --subsets "$subsets" \
    --examples 40 --out "$against" --threads 1 --quiet
done
