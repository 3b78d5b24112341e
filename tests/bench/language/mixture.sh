#!/usr/bin/env bash
# Do the strongest examples of a query come from its own source, where three sources were learned together? stories260k goes on with pieces
# of the Bible, WikiText-2 and State of the Union speeches (mixture.py, mixture.toml); precision at 10 by method (origins.py).
#   mixture.sh WHENCE PYTHON SHARED WORK [ENCODER]
# SHARED holds data/corpus and models/stories260k; PYTHON has numpy, tokenizers and safetensors, with ENCODER (examples/minilm.sh) torch and
# transformers too. Minutes on one core; with EXACT=1 also conjugate gradients for the 12 queries of `few`: 25 iterations of about 40 s, after which the
# largest relative residual is 0.16.
set -euo pipefail
whence=$(realpath "$1") python=$2 shared=$(realpath "$3") work=$4 encoder=${5:-}
here=$(cd "$(dirname "$0")" && pwd)
[[ $python != */* ]] || python=$(realpath -s "$python")
METHODS=(
  "random|--method random"
  "grad-dot|--method grad-dot"
  "grad-cos|--method grad-cos"
  "rep-sim|--method rep-sim"
  "influence-ekfac|--curvature gauss-newton --solver ekfac:residual=false --damping 1.5e-3"
  "influence-ekfac-relatif|--curvature gauss-newton --solver ekfac:residual=false --damping 1.5e-3 --normalize relatif"
)
FEW=(
  "grad-cos|--method grad-cos"
  "influence-ekfac|--curvature gauss-newton --solver ekfac:residual=false --damping 1.5e-2"
  "influence-cg|--curvature gauss-newton --solver cg:preconditioner=ekfac,relative-tolerance=3e-2,max-iterations=25 --damping 1.5e-2"
)

score() {  # QUERIES ENTRY...
  local queries=$1 entry
  shift
  for entry; do
    # shellcheck disable=SC2086
    "$whence" score mixture.toml --stage mixture --queries "$queries" --measurement log-probability --quiet \
      --out "$queries/${entry%%|*}" ${entry#*|} >/dev/null
  done
  "$python" "$here/origins.py" mixture.toml mixture "$queries" "$queries"/* ${encoder:+--embedder "$encoder"}
}

encoder=${encoder:+$(realpath "$encoder")}
mkdir -p "$work"
"$python" "$here/mixture.py" "$shared/data/corpus" "$work"
for form in plain raw; do
  echo "== $form"
  sed "s#SHARED#$shared#" "$here/mixture.toml" >"$work/$form/mixture.toml"
  (
    cd "$work/$form"
    "$whence" train mixture.toml --quiet
    score held-out "${METHODS[@]}"
    if [[ $form == plain && ${EXACT:-0} == 1 ]]; then
      score few "${FEW[@]}"
    fi
  )
done
