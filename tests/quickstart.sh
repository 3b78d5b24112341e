#!/usr/bin/env bash
# Runs examples/quickstart.sh in a copy, and then the same chain with the embedding fixed. Both must agree with leave-one-out retraining:
# Pearson at least 0.95, slope of actual on predicted change within 0.8 to 1.25.
#   tests/quickstart.sh WHENCE
set -euo pipefail
whence=$1
source_dir=$(cd "$(dirname "$0")/.." && pwd)
[[ -d /usr/share/datasets/fashion-mnist ]] || { echo "skipped: the package dataset-fashion-mnist is not installed"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -R "$source_dir/examples" "$source_dir/scripts" "$work/"
rm -rf "$work/examples/run"

agrees() {  # agrees EVALUATION.json
  python3 - "$1" <<'PYTHON'
import json, sys
found = json.load(open(sys.argv[1]))
print(f"Pearson {found['pearson']:.4f}, slope {found['slope']:.3f}")
sys.exit(not (found["pearson"] >= 0.95 and 0.8 <= found["slope"] <= 1.25))
PYTHON
}

WHENCE=$whence "$work/examples/quickstart.sh"
agrees "$work/examples/run/result/evaluation.json"
grep -q '<img' "$work/examples/run/result/report.html"

sed 's/full:proximity=0.1/head/; s#run/finetune#run/head#' "$work/examples/quickstart.toml" >"$work/examples/head.toml"
"$whence" train "$work/examples/head.toml" --dtype float64 --quiet
"$whence" score "$work/examples/head.toml" --stage pretrain --queries test --dtype float64 --out "$work/head" --quiet
"$whence" evaluate "$work/examples/head.toml" --stage pretrain --scores "$work/head" --examples 6 --quiet
agrees "$work/head/evaluation.json"
