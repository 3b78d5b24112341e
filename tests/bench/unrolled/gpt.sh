#!/usr/bin/env bash
# Pretraining texts of a two-stage chain scored through both trainings: a GPT-2 of one block, pretrained on 200 sentences and fine-tuned whole
# on 60 others, each for EPOCHS (20) of Adam by minibatches of 16 from a random start, to no minimum. LDS over halves of the pretraining texts,
# both stages trained again with the same seed, beside the ceiling: what the same halves with another seed say.
#   tests/bench/unrolled/gpt.sh WHENCE SHARED WORK [SUBSETS [FRACTION]]       QUERIES (16); METHODS may be set
set -euo pipefail
whence=$(realpath "$1") shared=$(realpath "$2") work=$3 subsets=${4:-60} fraction=${5:-0.5}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$work"
cd "$work"
python3 "$here/../tuning/chain.py" "$shared" . 200 60 "${QUERIES:-16}"
stage() {  # NAME TUNING
  cat <<TOML
[[stage]]
name = "$1"
train = { format = "tsv", file = "$1.tsv" }
tuning = "$2"
loss = "next-token:mean"
weight-decay = 1e-3
optimizer = "adam:learning-rate=3e-3,epochs=${EPOCHS:-20},batch-size=16"
snapshots = 4
checkpoint = "run/$1.safetensors"
TOML
}
{
  printf 'seed = 0\n[model]\ncheckpoint = "base"\n'
  stage pretrain full
  stage tune full:proximity=1e-2
  printf '[queries.test]\ndata = { format = "tsv", file = "queries.tsv" }\n'
} >gpt.toml
"$whence" train gpt.toml --quiet
"$whence" evaluate gpt.toml --stage pretrain --queries test --against lds \
  --methods "${METHODS:-unrolled,influence,gauss-newton+proximal-bregman,segment,grad-dot}" \
  --subsets "$subsets" --fraction "$fraction" --out "lds-$fraction" --quiet
