#!/usr/bin/env bash
# Methods beside the ceiling, by `whence evaluate --methods`: a relu network on scikit-learn's digits that Adam trains for 20 epochs from a random
# start, at no minimum. What it found: README.md beside it. Minutes on one core.
#   tests/bench/evaluate/run.sh WHENCE WORK
set -euo pipefail
whence=$(realpath "$1") work=$2
data=$(cd "$(dirname "$0")/../../.." && pwd)/.deps/data/digits.csv.gz
mkdir -p "$work"
cd "$work"
zcat "$data" | awk -F, -v OFS=, '{ for (i = 1; i < NF; ++i) $i = $i / 16; print }' >all.csv  # pixels 0 to 16, as 0 to 1
head -n 1000 all.csv >train.csv
sed -n 1001,1100p all.csv >queries.csv
cat >digits.toml <<'TOML'
seed = 0
[model]
spec = "mlp:widths=32,activation=relu"
[[stage]]
name = "fit"
train = { format = "csv", file = "train.csv", header = false, label = "64", standardize = false }
weight-decay = 1e-3
optimizer = "adam:learning-rate=5e-3,epochs=20,batch-size=32"
checkpoint = "fit.safetensors"
[queries.test]
data = { format = "csv", file = "queries.csv", header = false, label = "64" }
TOML
"$whence" train digits.toml --quiet
methods=influence,gauss-newton+cg,ekfac,grad-dot,trak,logra,rep-sim
for against in lds mislabel retraining removal; do
  echo "== $against"
  unrolled=unrolled,
  [[ $against != mislabel ]] || unrolled=  # by self-influence
  "$whence" evaluate digits.toml --stage fit --queries test --methods "$unrolled$methods" --against "$against" --subsets 50 --examples 20 --remove 10,20 \
    --out "$against" --threads 1 --quiet
done
