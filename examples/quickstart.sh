#!/usr/bin/env bash
# From a bare clone to a page that shows which pre-training pictures a fine-tuned classifier's predictions come from.
# Everything is written below examples/run/. What is installed, built or trained already is not done again.
#   examples/quickstart.sh [train|rank|evaluate|report]    as far as that step; without one: all
#   WHENCE=PATH examples/quickstart.sh                      with this program, nothing installed or built
#   WHENCE_TORCH=PATH examples/quickstart.sh                with the LibTorch or torch in this folder, which is not fetched then
set -euo pipefail
[[ ${WHENCE:-} != */* ]] || WHENCE=$(realpath -s "$WHENCE")  # from where it was typed; without a slash it is on PATH
[[ -z ${WHENCE_TORCH:-} ]] || export WHENCE_TORCH=$(realpath -s "$WHENCE_TORCH")
cd "$(dirname "$0")/.."
last=${1:-report}
[[ $last =~ ^(train|rank|evaluate|report)$ ]] || { sed -n '4,6s/^# //p' "$0" >&2; exit 2; }

if [[ -z ${WHENCE:-} ]]; then
  source scripts/setup.sh dataset-fashion-mnist
  tests=()
  [[ -f build/release/build.ninja ]] || tests=(-DWHENCE_TESTS=OFF)  # what they need is not installed here
  cmake --preset release -DWHENCE_TORCH="${WHENCE_TORCH:-}" "${tests[@]}"  # not one of an earlier call
  cmake --build --preset release --target whence_tool --parallel "$whence_jobs"
  WHENCE=build/release/whence
fi

run() {
  echo
  echo "$ whence $*"
  "$WHENCE" "$@"
  [[ $1 != "$last" ]] || exit 0
}

pipeline=examples/quickstart.toml
result=examples/run/result
run train "$pipeline" --dtype float64
run rank "$pipeline" --stage pretrain --queries test --top 3 --dtype float64 --out "$result"
run evaluate "$pipeline" --stage pretrain --scores "$result" --examples 20
run report "$result"
