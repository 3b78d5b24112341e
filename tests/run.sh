#!/usr/bin/env bash
# Installs what is missing, builds whence and runs its tests; the last lines are ctest's summary.
#   tests/run.sh            optimised build, every test
#   tests/run.sh --fast     optimised build, without the slow tests (installation, examples)
#   tests/run.sh --dev      AddressSanitizer and UndefinedBehaviorSanitizer, warnings are errors, without the slow tests
set -euo pipefail
cd "$(dirname "$0")/.."

preset=release
choice=()
case "${1:-}" in
  "") ;;
  --fast) choice=(--label-exclude slow) ;;
  --dev) preset=dev choice=(--label-exclude slow) ;;
  *) sed -n '2,5s/^# //p' "$0" >&2; exit 2 ;;
esac

source scripts/setup.sh doctest-dev dataset-fashion-mnist
scripts/digits.sh
jobs=$(nproc)
((jobs <= 2)) || jobs=$((jobs / 2))  # a compilation takes up to 1.5 GB
cmake --preset "$preset"
cmake --build --preset "$preset" --parallel "$jobs"
ctest --test-dir "build/$preset" --output-on-failure --no-tests=error -j2 "${choice[@]}"
