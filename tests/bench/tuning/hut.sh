#!/usr/bin/env bash
# HUT against LoRA and HiRA at several ranks: parameters, operations forward and backward beside those of the frozen model, seconds a step at
# several numbers of tokens, and accuracy on AG News from few examples with standard errors over seeds (hut.py).
#   hut.sh WHENCE PYTHON SHARED ENCODER WORK
# SHARED holds data/textcls; ENCODER is a directory of examples/minilm.sh. RANKS, TEXTS (of 32 tokens a step, for the time), STEPS, SEEDS, SHOTS,
# EPOCHS and TEST may be set; what is there already in WORK is not made again. WORK/results.tsv has a row a measurement.
set -euo pipefail
whence=$(realpath "$1") python=$2 data=$(realpath "$3")/data/textcls encoder=$(realpath "$4") work=$5
here=$(cd "$(dirname "$0")" && pwd)
[[ $python != */* ]] || python=$(realpath -s "$python")
ranks=${RANKS:-"1 8 32"} texts=${TEXTS:-"4 32"} steps=${STEPS:-6} seeds=${SEEDS:-3} shots=${SHOTS:-50} epochs=${EPOCHS:-8} test=${TEST:-200}
methods="lora hut hira"
mkdir -p "$work"
cd "$work"

source "$here/encoder_pipeline.sh"

for ((seed = 0; seed < seeds; ++seed)); do
  folder=ag_news-$shots/seed-$seed
  [[ -s $folder/test.tsv ]] ||
    "$python" "$here/fewshot.py" data "$data" "$folder" --set ag_news --seed "$seed" --shots "$shots" --test "$test"
  for method in $methods; do
    for rank in $ranks; do
      name=$method-$rank tuning=$method:rank=$rank
      [[ $method != lora ]] || tuning+=",alpha=$((2 * rank))"
      if [[ ! -s $folder/$name/run.json ]]; then
        pipeline "$tuning" "learning-rate=${RATE[$method]},batch-size=10,epochs=$epochs" "$name" >"$folder/$name.toml"
        "$whence" train "$folder/$name.toml" --seed "$seed" --quiet --json >"$folder/$name.json" 2>>"$folder/log"
        "$whence" rank "$folder/$name.toml" --seed "$seed" --stage fit --queries test --method random --top 1 --out "$folder/$name" --quiet \
          >/dev/null 2>>"$folder/log"
      fi
      # the time of a step: a run of few steps taken from one of more, which leaves what is done once
      ((seed == 0)) || continue
      for text in $texts; do
        for count in 1 $((steps + 1)); do
          run=$folder/time-$name-$text-$count
          [[ ! -s $run.json ]] || continue
          pipeline "$tuning" "learning-rate=1e-9,batch-size=$text,max-iterations=$count" "time" >"$run.toml"
          "$whence" train "$run.toml" --stage fit --force --quiet --json >"$run.part" 2>>"$folder/log"
          mv "$run.part" "$run.json"
        done
      done
    done
  done
done
"$python" "$here/hut.py" . --shots "$shots" --methods $methods --ranks $ranks --texts $texts --steps "$steps" >results.md
cat results.md
