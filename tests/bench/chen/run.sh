#!/usr/bin/env bash
# Chen et al.'s experiments ("Multi-Stage Influence Function", NeurIPS 2020) at a size for one core: pretrained on two or four classes of
# pictures, fine-tuned on others with the embedding fixed or updated. Both stages by Adam to no minimum.
#   tests/bench/chen/run.sh WHENCE SHARED WORK [TASK-TUNING...]        by default: cifar-fixed cifar-updated mnist-fixed mnist-updated
# Leave-one-out: pretraining pictures are left out one at a time and both stages trained again. Clean-up: the pretraining pictures that speak
# most against 40 pictures are dropped and both stages trained again; how many others are wrong, beside as many dropped at random. EXAMPLES
# (20), DROP (40 80) and DRAWS (3) may be set.
set -euo pipefail
whence=$(realpath "$1") shared=$(realpath "$2") work=$3
shift 3
here=$(cd "$(dirname "$0")" && pwd)
[[ $# -gt 0 ]] || set -- cifar-fixed cifar-updated mnist-fixed mnist-updated
mkdir -p "$work"
cd "$work"
python3 "$here/pictures.py" data "$shared/data/image" .

pipeline() {  # NAME FOLDER: the pipeline of a task and tuning, pretrained on FOLDER's pictures, beside it
  local task=${1%-*} tuning=full:proximity=0.1 epochs=10 model=mlp:widths=32,activation=relu
  [[ $task == mnist ]] || model=convnet:channels=4/8,kernel=3,activation=relu epochs=30  # after 10: 44 % wrong
  [[ ${1#*-} == updated ]] || tuning=head epochs=60
  data() {  # PART: of which pictures
    if [[ $task == mnist ]]; then
      echo "{ format = \"idx\", images = \"$1-images\", labels = \"$1-labels\" }"
    else
      echo "{ format = \"cifar\", file = \"$1.bin\" }"
    fi
  }
  cat <<TOML
seed = 0
[model]
spec = "$model"
[[stage]]
name = "pretrain"
train = $(data "$2")
weight-decay = 1e-3
optimizer = "adam:learning-rate=3e-3,epochs=10,batch-size=32"
snapshots = 4
checkpoint = "$1-$2/pretrain.safetensors"
[[stage]]
name = "finetune"
train = $(data "$task-finetune")
tuning = "$tuning"
weight-decay = 1e-3
optimizer = "adam:learning-rate=3e-3,epochs=$epochs,batch-size=32"
snapshots = 4
checkpoint = "$1-$2/finetune.safetensors"
[queries.few]
data = $(data "$task-few")
[queries.against]
data = $(data "$task-against")
[queries.test]
data = $(data "$task-test")
TOML
}

wrong() {  # PIPELINE: "N of M" of its test pictures
  rm -rf wrong
  "$whence" score "$1" --stage pretrain --queries test --queries-wrong --method random --dtype float64 --threads 1 --out wrong 2>&1 >wrong.log |
    sed -n 's/.*model gets \(.*\) queries.*/\1/p'
}

for name in "$@"; do
  task=${name%-*}
  pipeline "$name" "$task-pretrain" >"$name.toml"
  "$whence" train "$name.toml" --dtype float64 --threads 1 --quiet >/dev/null
  echo "== $name: leave one of ${EXAMPLES:-20} pretraining pictures out"
  "$whence" evaluate "$name.toml" --stage pretrain --queries few --methods unrolled,influence,proximal-bregman,segment \
    --against retraining --examples "${EXAMPLES:-20}" --dtype float64 --threads 1 --quiet --out "$name-loo"
  for method in unrolled stationary; do
    "$whence" score "$name.toml" --stage pretrain --queries against --response "$method" --format csv --dtype float64 --threads 1 \
      --out "$name-$method" --quiet >/dev/null
  done
  echo "== $name: clean-up, wrong of the test pictures; of all: $(wrong "$name.toml")"
  for count in ${DROP:-40 80}; do
    for by in unrolled stationary $(seq -f random-%.0f "${DRAWS:-3}"); do
      python3 "$here/pictures.py" drop "$task-pretrain" "$name-$by" "$count" "$name-kept"
      rm -rf "$name-$name-kept"
      pipeline "$name" "$name-kept" >"$name-kept.toml"
      "$whence" train "$name-kept.toml" --dtype float64 --threads 1 --quiet >/dev/null
      echo "$count dropped by $by: $(wrong "$name-kept.toml")"
    done
  done
done
