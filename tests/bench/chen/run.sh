#!/usr/bin/env bash
# Chen et al.'s experiments ("Multi-Stage Influence Function", NeurIPS 2020) at a size for one core: pretrained on two or four classes of
# pictures, fine-tuned on others with the embedding fixed or updated; or a GPT-2 of one block pretrained on questions of TREC as a language model,
# fine-tuned to tell what others ask for. Both stages by Adam to no minimum.
#   tests/bench/chen/run.sh WHENCE SHARED WORK [TASK-TUNING...]        by default: cifar, mnist and trec, each -fixed and -updated
# Leave-one-out: pretraining examples are left out one at a time and both stages trained again. Clean-up: the pretraining examples that speak
# most against 40 others are dropped and both stages trained again; how many others are wrong, beside as many dropped at random. EXAMPLES
# (20), DROP (40 80) and DRAWS (3) may be set.
set -euo pipefail
whence=$(realpath "$1") shared=$(realpath "$2") work=$3
shift 3
here=$(cd "$(dirname "$0")" && pwd)
[[ $# -gt 0 ]] || set -- {cifar,mnist,trec}-{fixed,updated}
mkdir -p "$work"
cd "$work"
python3 "$here/parts.py" data "$shared/data" .

pipeline() {  # NAME FOLDER: the pipeline of a task and tuning, pretrained on FOLDER's examples, beside it
  local task=${1%-*} tuning=full:proximity=0.1 epochs=10 model='spec = "mlp:widths=32,activation=relu"' loss=cross-entropy
  local before=10 rate=3e-3
  [[ $task != cifar ]] || model='spec = "convnet:channels=4/8,kernel=3,activation=relu"' epochs=30  # after 10: 44 % wrong
  [[ $task != trec ]] || model='checkpoint = "trec-base"' epochs=20 loss=next-token:mean before=30
  [[ ${1#*-} == updated ]] || tuning=head epochs=60
  [[ $1 != trec-fixed ]] || rate=3e-2  # the head of a model of language learns slower
  data() {  # PART: of which examples
    if [[ $task == mnist ]]; then
      echo "{ format = \"idx\", images = \"$1-images\", labels = \"$1-labels\" }"
    elif [[ $task == trec ]]; then
      echo "{ format = \"tsv\", file = \"$1.tsv\", length = 24, label = \"label_name\" }"
    else
      echo "{ format = \"cifar\", file = \"$1.bin\" }"
    fi
  }
  cat <<TOML
seed = 0
[model]
$model
[[stage]]
name = "pretrain"
train = $(data "$2")
loss = "$loss"
weight-decay = 1e-3
optimizer = "adam:learning-rate=3e-3,epochs=$before,batch-size=32"
snapshots = 4
checkpoint = "$1-$2/pretrain.safetensors"
[[stage]]
name = "finetune"
train = $(data "$task-finetune")
tuning = "$tuning"
weight-decay = 1e-3
optimizer = "adam:learning-rate=$rate,epochs=$epochs,batch-size=32"
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

wrong() {  # PIPELINE: "N of M" of its test examples
  rm -rf wrong
  "$whence" score "$1" --stage pretrain --queries test --queries-wrong --method random --dtype float64 --threads 1 --out wrong 2>&1 >wrong.log |
    sed -n 's/.*model gets \(.*\) queries.*/\1/p'
}

for name in "$@"; do
  task=${name%-*}
  pipeline "$name" "$task-pretrain" >"$name.toml"
  "$whence" train "$name.toml" --dtype float64 --threads 1 --quiet >/dev/null
  echo "== $name: leave one of ${EXAMPLES:-20} pretraining examples out"
  "$whence" evaluate "$name.toml" --stage pretrain --queries few --methods unrolled,influence,proximal-bregman,segment \
    --against retraining --examples "${EXAMPLES:-20}" --dtype float64 --threads 1 --quiet --out "$name-loo"
  for method in unrolled stationary; do
    "$whence" score "$name.toml" --stage pretrain --queries against --response "$method" --format csv --dtype float64 --threads 1 \
      --out "$name-$method" --quiet >/dev/null
  done
  echo "== $name: clean-up, wrong of the test examples; of all: $(wrong "$name.toml")"
  for count in ${DROP:-40 80}; do
    for by in unrolled stationary $(seq -f random-%.0f "${DRAWS:-3}"); do
      python3 "$here/parts.py" drop "$task-pretrain" "$name-$by" "$count" "$name-kept"
      rm -rf "$name-$name-kept"
      pipeline "$name" "$name-kept" >"$name-kept.toml"
      "$whence" train "$name-kept.toml" --dtype float64 --threads 1 --quiet >/dev/null
      echo "$count dropped by $by: $(wrong "$name-kept.toml")"
    done
  done
done
