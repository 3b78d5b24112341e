#!/usr/bin/env bash
# Installs what is missing, builds whence and runs its tests; the last lines are ctest's summary.
#   tests/run.sh            optimised build, every test
#   tests/run.sh --fast     optimised build, without the slow tests (installation, examples)
#   tests/run.sh --dev      AddressSanitizer and UndefinedBehaviorSanitizer, warnings are errors, without the slow tests
#   tests/run.sh --ci       the optimised build with the half of the tests that is CI's there (tests/CMakeLists.txt)
#   tests/run.sh --dev-ci   the sanitized build with the other half, and whence_bench
# WHENCE_UNITY=OFF compiles file by file: quicker while one file is edited, more than twice the time for all of them.
set -euo pipefail
[[ -z ${WHENCE_TORCH:-} ]] || export WHENCE_TORCH=$(realpath -s "$WHENCE_TORCH")  # from where it was typed
cd "$(dirname "$0")/.."

preset=release
half=
targets=(all)
choice=()
case "${1:-}" in
  "") ;;
  --fast) choice=(--label-exclude slow) ;;
  --dev) preset=dev choice=(--label-exclude slow) ;;
  --ci) half=optimised ;;
  --dev-ci) preset=dev half=sanitized targets=(all whence_bench) choice=(--label-exclude slow) ;;
  *) sed -n '2,8s/^# //p' "$0" >&2; exit 2 ;;
esac

packages=(doctest-dev dataset-fashion-mnist)
[[ $preset != dev ]] || packages+=(clang-16 libclang-rt-16-dev libomp-16-dev lld-16)  # compiles in a third of the time of GCC's sanitized build
source scripts/setup.sh "${packages[@]}"
scripts/digits.sh
cmake --preset "$preset" -DWHENCE_TORCH="${WHENCE_TORCH:-}" -DWHENCE_TESTS=ON -DWHENCE_TEST_HALF=$half  # the quickstart configures without
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}  # tests run side by side: threads that wait must not spin
[[ $preset != dev ]] || export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}  # under sanitizers one thread a test; all threads in the optimised build
cmake --build --preset "$preset" --target "${targets[@]}" --parallel "$whence_jobs"
ctest --test-dir "build/$preset" --output-on-failure --no-tests=error -j2 "${choice[@]}"
