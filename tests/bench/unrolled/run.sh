#!/usr/bin/env bash
# Response unrolled beside the others, against same-seed trainings on halves and without single examples.
#   tests/bench/unrolled/run.sh [SUBSETS [ALONE]]     WHENCE and BENCH: the programs; both are of build/release otherwise
set -euo pipefail
cd "$(dirname "$0")"
whence=${WHENCE:-../../../build/release/whence}
bench=${BENCH:-../../../build/release/tests/whence_bench}
"$whence" train mlp.toml --quiet
score() {  # NAME FLAGS...
  local name=$1
  shift
  /usr/bin/time -f "$name %e s" "$whence" score mlp.toml --queries test --out "run/$name" --quiet "$@" > run/"$name".log
}
score unrolled --response unrolled
score stationary
score proximal-bregman --response proximal-bregman
# response segment is not finite here: where pixels are always 0 Adam divides by epsilon alone
score grad-dot --method grad-dot
"$bench" unrolled mlp.toml fit test "${1:-100}" "${2:-40}" run/unrolled run/stationary run/proximal-bregman run/grad-dot
