#!/usr/bin/env bash
# Linear datamodelling score of several methods on a small version of problem (b): 1,000 images of MNIST, 784-16-10, 10 queries, 50 subsets
# of half the images; about ten minutes on two cores. Prints one row a method; a method that this whence lacks says so.
#   tests/bench/solvers/lds.sh WHENCE WORK
#
# Seeds. `whence evaluate` trains each subset once, from the chain's own parameters, under the stage's optimizer; it has no option for several
# trainings a subset, and with lbfgs a training does not depend on a seed. --seed changes which subsets are drawn: SEEDS > 1 repeats the
# score with so many draws of SUBSETS subsets, and says how far they spread. The truth is made anew for every method.
set -euo pipefail
METHODS=(
  "influence, cg to 1e-8|--solver cg:relative-tolerance=1e-8"
  "influence, cg|--solver cg:relative-tolerance=1e-4"
  "influence, lissa|--solver lissa:depth=1000"
  "influence, curvature ekfac|--curvature ekfac"
  "influence, solver ekfac|--solver ekfac"
  "grad-dot|--method grad-dot"
  "grad-cos|--method grad-cos"
  "trak|--method trak"
)
whence=$(realpath "$1")
here=$(cd "$(dirname "$0")" && pwd)
images=$(realpath -m "${SHARED:-$here/../../../../shared/data}/image")
subsets=${SUBSETS:-50} seeds=${SEEDS:-1} examples=${EXAMPLES:-1000}
damping=1e-3 optimizer=lbfgs:max-iterations=500,tolerance=1e-4
export OMP_WAIT_POLICY=passive
[[ -s $images/mnist-train20k-images-idx3-ubyte.gz ]] || { echo "skipped, no $images/mnist-*"; exit 0; }
mkdir -p "$2/lds"
cd "$2/lds"
sed -e "s#DATA#$images#g" -e 's/widths=128/widths=16/' -e "s/limit = 5000/limit = $examples/" -e 's/tolerance=1e-7/tolerance=1e-6/' \
  "$here/mnist.toml" >pipeline.toml
"$whence" train pipeline.toml --dtype float64

printf '| method | seconds to score | LDS, mean over %s draws | lowest | highest | random |\n| --- | ---: | ---: | ---: | ---: | ---: |\n' "$seeds"
for entry in "${METHODS[@]}"; do
  name=${entry%%|*} options=${entry#*|} out=${entry%%|*}
  out=${out//[^a-z0-9]/}
  start=$(date +%s.%N)
  # shellcheck disable=SC2086
  if ! "$whence" score pipeline.toml --stage fit --queries test --dtype float64 --damping $damping $options --out "$out" --quiet \
    >"$out.log" 2>&1; then
    echo "| $name | $(grep -m1 -a error "$out.log" | sed "s/.*error: //" | tr '|' '/') | | | | |"
    continue
  fi
  seconds=$(echo "$(date +%s.%N) - $start" | bc)
  for ((seed = 1; seed <= seeds; ++seed)); do
    "$whence" evaluate pipeline.toml --stage fit --scores "$out" --against lds --subsets "$subsets" --fraction 0.5 --dtype float64 \
      --optimizer "$optimizer" --seed "$seed" --out "$out/seed$seed" --quiet >/dev/null
  done
  python3 - "$name" "$seconds" "$out"/seed*/evaluation-lds.json <<'PYTHON'
import json, sys
results = [json.load(open(path)) for path in sys.argv[3:]]
lds, chance = ([r[key] for r in results] for key in ("lds", "lds-of-random-scores"))
mean = lambda values: sum(values) / len(values)
print(f"| {sys.argv[1]} | {float(sys.argv[2]):.1f} | {mean(lds):.4f} | {min(lds):.4f} | {max(lds):.4f} | {mean(chance):.4f} |")
PYTHON
done
