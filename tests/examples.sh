#!/usr/bin/env bash
# Runs one of the numbered programs, which must say what docs/cpp.md shows behind `$ … NAME`.
#   tests/examples.sh PROGRAM
set -euo pipefail
program=$1 name=$(basename "$1")
root=$(cd "$(dirname "$0")/.." && pwd)
arguments=()
if [[ $name == 03_demonstrations ]]; then
  arguments=("$root/../shared/models/stories260k")
  [[ -e ${arguments[0]}/model.safetensors ]] || { echo "skipped: no model in ${arguments[0]}"; exit 77; }
fi
shown=$(awk -v command="^[$] .*$name" '/^```/ { inside = 0 } inside { print } $0 ~ command { inside = 1 }' "$root/docs/cpp.md")
[[ -n $shown ]] || { echo "docs/cpp.md shows no output of $name"; exit 1; }
said=$(OMP_WAIT_POLICY=passive "$program" "${arguments[@]}")
diff <(printf '%s\n' "$shown") <(printf '%s\n' "$said")
