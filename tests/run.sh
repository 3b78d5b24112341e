#!/usr/bin/env bash
# Installs what is missing, builds whence and runs its tests; the last lines are ctest's summary.
#   tests/run.sh            optimised build, every test
#   tests/run.sh --fast     optimised build, without the slow tests (installation, examples)
#   tests/run.sh --dev      AddressSanitizer and UndefinedBehaviorSanitizer, warnings are errors, without the slow tests
set -euo pipefail
[[ -z ${WHENCE_TORCH:-} ]] || export WHENCE_TORCH=$(realpath -s "$WHENCE_TORCH")  # from where it was typed
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
cmake --preset "$preset" -DWHENCE_TORCH="${WHENCE_TORCH:-}" -DWHENCE_TESTS=ON  # the quickstart configures without
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}  # tests run side by side: threads that wait must not spin
cmake --build --preset "$preset" --parallel "$whence_jobs"
ctest --test-dir "build/$preset" --output-on-failure --no-tests=error -j2 "${choice[@]}"
