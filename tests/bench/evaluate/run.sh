#!/usr/bin/env bash
# Methods beside the ceiling, by `whence evaluate --methods`, on small networks that Adam trains from a random start to no minimum: a relu network on
# scikit-learn's digits; a relu convnet on 400 pictures of CIFAR-10; a transformer of one block on 300 questions of TREC. What it found: README.md
# beside it.
#   tests/bench/evaluate/run.sh WHENCE SHARED WORK digits|cifar|texts [AGAINST...]        by default against lds mislabel removal
# All in WORK/PROBLEM, the pipeline as pipeline.toml. SUBSETS (40; digits 50) and METHODS may be set.
set -euo pipefail
whence=$(realpath "$1") shared=$(realpath "$2") work=$3/$4 problem=$4
shift 4
here=$(cd "$(dirname "$0")" && pwd)
[[ $# -gt 0 ]] || set -- lds mislabel removal
mkdir -p "$work"
cd "$work"
ln -sfn "$shared/data" DATA
methods=influence,gauss-newton+cg,ekfac,trak,logra,grad-dot,rep-sim subsets=40 model='spec = "mlp:widths=32,activation=relu"' more=kernel,
followed=unrolled,segment,tracin  # these need a training that was followed
case $problem in
digits)
  zcat "$here/../../../.deps/data/digits.csv.gz" |
    awk -F, -v OFS=, '{ for (i = 1; i < NF; ++i) $i = $i / 16; print }' >all.csv  # pixels 0 to 16, as 0 to 1
  head -n 1000 all.csv >train.csv
  sed -n 1001,1100p all.csv >queries.csv
  train='format = "csv", file = "train.csv", header = false, label = "64", standardize = false' queries=${train/train/queries}
  optimizer=learning-rate=5e-3,epochs=20,batch-size=32 subsets=50 more=  # a kernel of 10,000 rows would take an hour
  ;;
cifar)
  model='spec = "convnet:channels=4/8,kernel=3,activation=relu"'
  train='format = "cifar", file = "DATA/image/cifar10_train_4000.bin.gz", classes = [1, 4], limit = 400'
  queries='format = "cifar", file = "DATA/image/cifar10_test_1000.bin.gz", classes = [1, 4], limit = 40'
  optimizer=learning-rate=3e-3,epochs=20,batch-size=32
  ;;
texts)
  of() { awk -F'\t' -v n="$2" 'NR == 1 || $2 ~ /^(Entity|Person|Location)$/ && ++k <= n' "DATA/textcls/$1.tsv"; }  # what is asked for
  of trec_train 300 >train.tsv
  of trec_test 40 >queries.tsv
  python3 "$here/../small_gpt.py" base 24 2 train.tsv 300
  model='checkpoint = "base"'
  train='format = "tsv", file = "train.tsv", label = "label_name", length = 24' queries=${train/train/queries}
  optimizer=learning-rate=3e-3,epochs=15,batch-size=32
  more+=hessian+cg,gauss-newton+cg:preconditioner=ekfac,gauss-newton+lissa:depth=300,
  ;;
esac
cat >pipeline.toml <<TOML
seed = 0
[model]
$model
[[stage]]
name = "fit"
train = { $train }
weight-decay = 1e-3
optimizer = "adam:$optimizer"
snapshots = 4
checkpoint = "fit.safetensors"
[queries.test]
data = { $queries }
TOML
"$whence" train pipeline.toml --threads 1 --quiet
for against in "$@"; do
  echo "== $against"
  list=${METHODS:-$followed,$more$methods}
  [[ $against != mislabel ]] || list=${list/unrolled,/}  # by self-influence
  options=(--methods "$list" --subsets "${SUBSETS:-$subsets}")
  [[ $against != removal ]] || options+=(--remove 10,20)
  "$whence" evaluate pipeline.toml --stage fit --queries test --against "$against" "${options[@]}" --out "$against" --threads 1 --quiet
done
