#!/usr/bin/env bash
# A GPT-2 of one block, pretrained on 40 sentences and LoRA-tuned on 20 others, both to a minimum in float64: the pretraining sentences are ranked
# for predictions of the tuned model, and the ranking is held against leaving them out and training both stages again (Pearson, slope).
#   chain.sh WHENCE PYTHON SHARED WORK
# SHARED holds data/corpus. DECAY (6e-2) of the pretraining, TUNING (lora:rank=2,targets=wte) and EXAMPLES (20), how many are left out, may be set;
# a weaker decay keeps more of the block alive and takes longer to a minimum (docs/tunings.md). What is there already in WORK is not made again.
set -euo pipefail
whence=$(realpath "$1") python=$2 shared=$(realpath "$3") work=$4
here=$(cd "$(dirname "$0")" && pwd)
[[ $python != */* ]] || python=$(realpath -s "$python")
decay=${DECAY:-6e-2} tuning=${TUNING:-lora:rank=2,targets=wte} examples=${EXAMPLES:-20}
mkdir -p "$work"
cd "$work"
"$python" "$here/chain.py" "$shared" .
cat >chain.toml <<TOML
seed = 0
[model]
checkpoint = "base"
[[stage]]
name = "pretrain"
train = { format = "tsv", file = "pretrain.tsv" }
loss = "next-token:mean"
weight-decay = $decay
optimizer = "lbfgs:max-iterations=20000,tolerance=1e-8,history=100"
checkpoint = "run/pretrain.safetensors"
[[stage]]
name = "tune"
train = { format = "tsv", file = "tune.tsv" }
tuning = "$tuning"
loss = "next-token:mean"
weight-decay = 4e-2
optimizer = "lbfgs:max-iterations=20000,tolerance=1e-8,history=100"
checkpoint = "run/tune.safetensors"
[queries.test]
data = { format = "tsv", file = "queries.tsv" }
TOML
"$whence" train chain.toml --dtype float64 --quiet
# condition 4e6: cg to its usual tolerance for rankings leaves out what decides here
"$whence" rank chain.toml --stage pretrain --queries test --top 3 --dtype float64 --curvature hessian --damping 1e-7 --solver direct \
  --out result --quiet
# and trainings that end at 1e-4 do not end where the minimum is
"$whence" evaluate chain.toml --stage pretrain --scores result --examples "$examples" --dtype float64 --quiet \
  --optimizer lbfgs:max-iterations=20000,tolerance=1e-8,history=100
