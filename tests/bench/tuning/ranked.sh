#!/usr/bin/env bash
# Fine-tuning texts ranked through each tuning, by the defaults: an encoder tuned on few texts of SST-2, two test texts asked, their ranking made and
# spot-checked by training again without CHECKS (6) of the texts. Prints a row a tuning: accuracy, seconds, what the ranking says of itself.
#   ranked.sh WHENCE PYTHON SHARED ENCODER WORK
# SHARED holds data/textcls; ENCODER is a directory of examples/minilm.sh. SHOTS (50), EPOCHS (8), TUNINGS and CHECKS may be set; what is there already in WORK
# is not made again.
set -euo pipefail
whence=$(realpath "$1") python=$2 data=$(realpath "$3")/data/textcls encoder=$(realpath "$4") work=$5
here=$(cd "$(dirname "$0")" && pwd)
[[ $python != */* ]] || python=$(realpath -s "$python")
shots=${SHOTS:-50} epochs=${EPOCHS:-8} checks=${CHECKS:-6}
mkdir -p "$work"
cd "$work"

source "$here/encoder_pipeline.sh"

[[ -s fit/test.tsv ]] || "$python" "$here/fewshot.py" data "$data" fit --set sst2 --seed 0 --shots "$shots" --test 100
for name in ${TUNINGS:-lora prefix simplex hut}; do
  pipeline "${TUNING[$name]}" "learning-rate=${RATE[$name]},batch-size=10,epochs=$epochs" "$name" "weight-decay = 1e-4" >"fit/$name.toml"
  echo "== $name"
  SECONDS=0
  "$whence" train "fit/$name.toml" --quiet 2>&1 >"fit/$name.trained" | sed 's/^/  /'
  tail -n 1 "fit/$name.trained"
  echo "  trained in $SECONDS s"
  SECONDS=0
  "$whence" rank "fit/$name.toml" --stage fit --queries test --limit-queries 2 --top 3 --spot-check "$checks" --out "fit/$name" --quiet
  echo "  ranked and checked in $SECONDS s"
done
