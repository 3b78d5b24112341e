#!/usr/bin/env bash
# Does priming help adapters? An encoder's body is left alone, trained on 50 intents at once, or primed on ten tasks of five intents each
# (CLINC150); an adapter then learns a held-out task of five other intents from two examples each. Accuracy on the task's test texts, with its
# standard error over seeds (priming.py). The encoder is the first LAYERS (2) blocks of MiniLM: a third of the time of all six.
#   priming.sh WHENCE PYTHON SHARED ENCODER WORK
# SHARED holds data/textcls; ENCODER is a directory of examples/minilm.sh; PYTHON has safetensors, numpy and tokenizers. SEEDS (2), STEPS (40) of
# priming, HELD (3) held-out tasks and SHOTS (2) of each intent may be set; what is there already in WORK is not made again.
set -euo pipefail
whence=$(realpath "$1") python=$2 data=$(realpath "$3")/data/textcls encoder=$(realpath "$4") work=$5
here=$(cd "$(dirname "$0")" && pwd)
[[ $python != */* ]] || python=$(realpath -s "$python")
seeds=${SEEDS:-2} steps=${STEPS:-40} held=${HELD:-3} shots=${SHOTS:-2} layers=${LAYERS:-2}
inner="inner=adapter:width=16,inner-steps=2,inner-rate=0.05"
BODIES=(
  "alone|||"
  "trained|all.tsv||adam:learning-rate=1e-4,batch-size=30,max-iterations=$((steps * 2))"
  "primed-first|tasks.tsv|maml:$inner,order=first|adam:learning-rate=1e-4,batch-size=2,max-iterations=$steps"
  "primed-exact|tasks.tsv|maml:$inner|adam:learning-rate=1e-4,batch-size=2,max-iterations=$steps"
)

# body_stage NAME TABLE PRIMING OPTIMIZER: what trains the body before the adapter's stage; nothing where it is left alone
body_stage() {
  [[ -n $2 ]] || return 0
  echo '[[stage]]
name = "body"'
  echo "train = { format = \"tsv\", file = \"$2\", text = \"text\" }"
  [[ -z $3 ]] || printf '%s\n' 'tasks = "task"' "priming = \"$3\""
  echo "optimizer = \"$4\""
  echo "checkpoint = \"$1-body.safetensors\""
}

mkdir -p "$work"
cd "$work"
[[ -s encoder/tokenizer.json ]] || "$python" "$here/priming.py" encoder "$encoder" "$data" encoder --layers "$layers"

for ((seed = 0; seed < seeds; ++seed)); do
  "$python" "$here/priming.py" data "$data" "seed-$seed" --seed "$seed" --held "$held" --shots "$shots"
  for entry in "${BODIES[@]}"; do
    IFS='|' read -r name table priming optimizer <<<"$entry"
    for ((task = 0; task < held; ++task)); do
      file=seed-$seed/$name-$task.toml out=seed-$seed/$name-$task
      [[ ! -s $out/run.json ]] || continue
      cat >"$file" <<TOML
seed = $seed
[model]
checkpoint = "$PWD/encoder"
$(body_stage "$name" "$table" "$priming" "$optimizer")
[[stage]]
name = "adapter"
train = { format = "tsv", file = "held-$task.tsv", text = "text" }
tuning = "adapter:width=16"
weight-decay = 1e-4
optimizer = "adam:learning-rate=2e-3,batch-size=10,epochs=25"
checkpoint = "$name-$task.safetensors"
[queries.test]
data = { format = "tsv", file = "test-$task.tsv", text = "text" }
TOML
      "$whence" train "$file" --quiet >/dev/null
      "$whence" rank "$file" --stage adapter --queries test --method random --top 1 --out "$out" --quiet >/dev/null
    done
  done
done
"$python" "$here/priming.py" table . --seeds "$seeds" --held "$held" "${BODIES[@]%%|*}"
