#!/usr/bin/env bash
# From a bare clone to a page that shows which pre-training pictures a fine-tuned classifier's predictions come from.
# Everything is written below examples/run/. What is installed, built or trained already is not done again.
#   WHENCE=PATH examples/quickstart.sh       with this program, nothing installed or built
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ -z ${WHENCE:-} ]]; then
  source scripts/setup.sh dataset-fashion-mnist
  [[ -f build/release/build.ninja ]] || cmake --preset release
  cmake --build --preset release --target whence_tool --parallel 2
  WHENCE=build/release/whence
fi

run() {
  echo
  echo "$ whence $*"
  "$WHENCE" "$@"
}

pipeline=examples/quickstart.toml
result=examples/run/result
run train "$pipeline" --dtype float64
run rank "$pipeline" --stage pretrain --queries test --top 3 --dtype float64 --out "$result"
run evaluate "$pipeline" --stage pretrain --scores "$result" --examples 20
run report "$result"
