#!/usr/bin/env bash
# Methods beside the ceiling on pictures: an mlp on MNIST that Adam trains from a random start, or a relu convnet on two classes of CIFAR-10 that
# lbfgs brings to no minimum in 100 iterations. What it found: README.md beside it.
#   tests/bench/evaluate/tables.sh WHENCE DATA WORK mnist|cifar [lds|retraining|removal|mislabel …]
# DATA holds mnist-train20k-{images-idx3,labels-idx1}-ubyte.gz and mnist-t10k-…, or cifar10_train_4000.bin.gz and cifar10_test_1000.bin.gz.
set -euo pipefail
whence=$(realpath "$1") data=$(realpath "$2") work=$3 task=$4
shift 4
mkdir -p "$work"
cd "$work"
case $task in
  mnist)
    spec="mlp:widths=16,activation=relu" decay=1e-3 optimizer="adam:learning-rate=2e-3,epochs=20,batch-size=32" queries=50
    train="format = \"idx\", images = \"$data/mnist-train20k-images-idx3-ubyte.gz\", labels = \"$data/mnist-train20k-labels-idx1-ubyte.gz\", limit = 1000"
    test="format = \"idx\", images = \"$data/mnist-t10k-images-idx3-ubyte.gz\", labels = \"$data/mnist-t10k-labels-idx1-ubyte.gz\", limit = 100"
    ;;
  cifar)
    spec="convnet:channels=4/8,kernel=3,activation=relu" decay=2e-2 optimizer="lbfgs:max-iterations=100,tolerance=1e-6" queries=40
    train="format = \"cifar\", file = \"$data/cifar10_train_4000.bin.gz\", classes = [2, 6], limit = 400"
    test="format = \"cifar\", file = \"$data/cifar10_test_1000.bin.gz\", classes = [2, 6], limit = 40"
    ;;
esac
cat >"$task.toml" <<TOML
seed = 0
[model]
spec = "$spec"
[[stage]]
name = "fit"
train = { $train }
weight-decay = $decay
optimizer = "$optimizer"
checkpoint = "$task.safetensors"
[queries.test]
data = { $test }
TOML
"$whence" train "$task.toml" --quiet
methods=influence,gauss-newton+cg,gauss-newton+cg:preconditioner=ekfac,ekfac,segment,trak,logra,kernel,grad-dot,rep-sim
for against in "${@:-lds}"; do
  unrolled=
  [[ $task == cifar || $against == mislabel ]] || unrolled=unrolled,  # of steps, and not by self-influence
  echo "== $task, $against"
  "$whence" evaluate "$task.toml" --stage fit --queries test --limit-queries "$queries" --methods "$unrolled$methods" --against "$against" --subsets 50 \
    --examples 20 --remove 10,20 --out "$task-$against" --threads 1 --quiet
done
