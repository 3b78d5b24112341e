#!/usr/bin/env bash
# Which damping serves rankings best where a checkpoint is no minimum: linear datamodelling scores on a network, a convnet and a decoder.
#   tests/bench/defaults/run.sh WHENCE WHENCE_BENCH SHARED WORK
# A few minutes each on one core. What it found: README.md beside it.
set -euo pipefail
whence=$(realpath "$1") bench=$(realpath "$2") shared=$(realpath "$3") work=$4
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$work"
cd "$work"
for problem in mlp convnet decoder; do
  sed -e "s#DATA#$shared/data#g" -e "s#MODELS#$shared/models#g" "$here/$problem.toml" >"$problem.toml"
  "$whence" train "$problem.toml" --quiet
  echo "== $problem"
  case $problem in
    mlp) "$bench" defaults mlp.toml fit test 100 3 ;;
    convnet) "$bench" defaults convnet.toml fit test 60 2 ;;
    decoder) "$bench" defaults decoder.toml fit test 40 1 ekfac ;;
  esac
done
