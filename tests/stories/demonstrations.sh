#!/usr/bin/env bash
# Story 4: 20 text messages of which 4 have the wrong label, in a prompt to SmolLM2-135M. The first command, without a flag, ends in a minute
# and says which to drop; over five prompts its self scores tell the wrong labels with an AUROC of .9 at least, and what it drops is wrong.
#   tests/stories/demonstrations.sh WHENCE [MODEL]
# Exit 77 (skipped) where the data or the model cannot be had: MODEL is made by examples/smollm2.sh (93 MB to download, half a minute).
set -euo pipefail
[[ $# == 1 || $# == 2 ]] || { echo "usage: $0 WHENCE [MODEL]" >&2; exit 2; }
tool=$1
root=$(cd "$(dirname "$0")/../.." && pwd)
model=${2:-$root/.deps/smollm2}
data=$root/../shared/data
[[ -f $data/textcls/sms_spam.tsv ]] || { echo "skipped: no $data/textcls/sms_spam.tsv"; exit 77; }
"$root/examples/smollm2.sh" "$model" || { echo "skipped: SmolLM2-135M could not be made in $model"; exit 77; }

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 "$root/tests/bench/icl/prompts.py" "$data" sms tasks.jsonl --prompts 5 --validation 0 --test 2 --seed 7
head -n 1 tasks.jsonl >task.json

begin=$SECONDS
"$tool" icl --model "$model" --task task.json --quiet | tee shown.txt
seconds=$((SECONDS - begin))
tail -n 1 shown.txt | grep -Eq '^drop: [0-9]+ \(\+[0-9.e-]+\)' || { echo "the last line is no advice"; exit 1; }
[[ $seconds -le 60 ]] || { echo "$seconds s, expected a minute at most"; exit 1; }

"$tool" icl --model "$model" --tasks tasks.jsonl --out run --quiet
python3 - <<'END'
import json

right = wrong = dropped = found = 0.0
for line, bad in zip(open("tasks.jsonl"), open("tasks.jsonl.wrong")):
    bad = set(json.loads(bad))
    result = json.load(open(f"run/{json.loads(line)['name']}/icl.json"))
    drop = [d["demonstration"] for d in result["drop"]]
    dropped, found = dropped + len(drop), found + len(bad & set(drop))
    scores = result["self"]
    for i in bad:
        for j in set(range(len(scores))) - bad:
            right, wrong = right + (scores[i] > scores[j]), wrong + (scores[i] < scores[j])
auroc = right / (right + wrong)
print(f"AUROC of 20 wrong labels {auroc:.3f}; {found:.0f} of {dropped:.0f} dropped ones are wrong")
assert auroc >= 0.9, "expected 0.9 at least"
assert dropped >= 8 and found / dropped >= 0.8, "expected 8 dropped at least, of which 4 in 5 are wrong"
END
