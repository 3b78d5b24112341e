#!/usr/bin/env bash
# Prefix simplices against a single prefix, LoRA and full fine-tuning on few examples, and whether stochastic validation helps: accuracy on test
# texts of SST-2, TREC and AG News, with standard errors over seeds (fewshot.py). An arm is a tuning and how its training is validated:
#   last        trained to the end
#   middle      stopped early by the accuracy on development examples, half as many as training ones, as predictions are made
#   stochastic  the same under 8 draws of the simplex each
#   ensemble    the checkpoint of the arm before, its predictions the mean over 16 draws
#   fewshot.sh WHENCE PYTHON SHARED ENCODER WORK
# SHARED holds data/textcls; ENCODER is a directory of examples/minilm.sh. DATA, SHOTS, SEEDS, EPOCHS, TEST, PATIENCE, BY (accuracy or
# loss) and ARMS may be set; what is there already in WORK is not made again. WORK/results.tsv has a row a run.
set -euo pipefail
whence=$(realpath "$1") python=$2 data=$(realpath "$3")/data/textcls encoder=$(realpath "$4") work=$5
here=$(cd "$(dirname "$0")" && pwd)
[[ $python != */* ]] || python=$(realpath -s "$python")
sets=${DATA:-"sst2 trec ag_news"} shots=${SHOTS:-50} seeds=${SEEDS:-5} epochs=${EPOCHS:-8} test=${TEST:-200} patience=${PATIENCE:-2} by=${BY:-accuracy}
ARMS=${ARMS:-"simplex-last simplex-middle simplex-stochastic simplex-ensemble prefix-middle lora-middle full-middle"}
mkdir -p "$work"
cd "$work"

source "$here/encoder_pipeline.sh"

for set in $sets; do
  for shot in $shots; do
    for ((seed = 0; seed < seeds; ++seed)); do
      folder=$set-$shot/seed-$seed
      [[ -s $folder/test.tsv ]] || "$python" "$here/fewshot.py" data "$data" "$folder" --set "$set" --seed "$seed" --shots "$shot" --test "$test"
      for arm in $ARMS; do
        out=$folder/$arm method=${arm%%-*} validated=${arm#*-} checkpoint=$arm
        [[ ! -s $out/run.json ]] || continue
        tuning=${TUNING[$method]} keys=
        every="patience = $patience
validation-by = \"$by\"
validation = { format = \"tsv\", file = \"dev.tsv\", text = \"text\", length = 32 }
validation-every = $((2 * ((shot + 9) / 10)))"
        case $validated in
          middle) keys=$every ;;
          stochastic) keys="$every
validation-draws = 8" ;;
          ensemble)
            tuning+=",inference=ensemble,draws=16" checkpoint=$method-stochastic keys="$every
validation-draws = 8"
            ;;
        esac
        pipeline "$tuning" "learning-rate=${RATE[$method]},batch-size=10,epochs=$epochs" "$checkpoint" "$keys" >"$folder/$arm.toml"
        if [[ $validated != ensemble ]]; then
          "$whence" train "$folder/$arm.toml" --seed "$seed" --quiet --json >"$folder/$arm.json" 2>>"$folder/log"
        else
          cp "$folder/$checkpoint.json" "$folder/$arm.json"
        fi
        "$whence" rank "$folder/$arm.toml" --seed "$seed" --stage fit --queries test --method random --top 1 --out "$out" --quiet \
          >/dev/null 2>>"$folder/log"
        [[ $method != full ]] || rm "$folder/$arm.safetensors" # as large as the model
      done
    done
  done
done
"$python" "$here/fewshot.py" table . --arms $ARMS >results.md
cat results.md
