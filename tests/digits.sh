#!/usr/bin/env bash
# Multinomial logistic regression on scikit-learn's digits, a convex problem: influence scores must predict leave-one-out refits (Pearson at
# least 0.999 over 50) and refits on halves (linear datamodelling score at least 0.98 over 100), above grad-dot and random.
#   tests/digits.sh WHENCE
set -euo pipefail
whence=$1
data=$(cd "$(dirname "$0")/.." && pwd)/.deps/data/digits.csv.gz
[[ -s $data ]] || { echo "skipped: no digits, scripts/digits.sh fetches them"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
zcat "$data" | awk -F, -v OFS=, '{ for (i = 1; i < NF; ++i) $i = $i / 16; print }' >all.csv  # pixels 0 to 16, as 0 to 1
head -n 1000 all.csv >train.csv
sed -n 1001,1100p all.csv >queries.csv
cat >digits.toml <<'TOML'
[model]
spec = "linear"
[[stage]]
name = "fit"
train = { format = "csv", file = "train.csv", header = false, label = "64", standardize = false }
weight-decay = 1e-2
optimizer = "lbfgs:max-iterations=5000,tolerance=1e-9"
checkpoint = "fit.safetensors"
[queries.test]
data = { format = "csv", file = "queries.csv", header = false, label = "64" }
TOML
"$whence" train digits.toml --dtype float64 --quiet
for method in influence grad-dot; do
  "$whence" score digits.toml --stage fit --queries test --dtype float64 --method "$method" --solver direct --out "$method" --quiet >/dev/null
done
"$whence" evaluate digits.toml --stage fit --scores influence --examples 50 --quiet
for method in influence grad-dot; do
  echo "$method:"
  "$whence" evaluate digits.toml --stage fit --scores "$method" --against lds --subsets 100 --quiet
done
python3 - <<'PYTHON'
import json, sys
loo = json.load(open("influence/evaluation.json"))
lds, dot = (json.load(open(f"{m}/evaluation-lds.json")) for m in ("influence", "grad-dot"))
sys.exit(not (loo["pearson"] >= 0.999 and lds["lds"] >= 0.98 and lds["lds"] > dot["lds"] > lds["lds-of-random-scores"]))
PYTHON
