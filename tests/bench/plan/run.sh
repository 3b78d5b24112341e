#!/usr/bin/env bash
# What `--plan` tells of each command in commands.txt, against what GNU time measures of the same command run to its end.
#   tests/bench/plan/run.sh WHENCE SHARED WORK [PATTERN]
# A few minutes on one core; where the pattern is given, only the commands that match it. What it found: README.md beside it.
set -euo pipefail
whence=$(realpath "$1") shared=$(realpath "$2") work=$3 pattern=${4:-.}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$work"
cd "$work"
for pipeline in mlp conv text; do
  grep -E -- "$pattern" "$here/commands.txt" | grep -q " $pipeline.toml" || continue
  sed -e "s#DATA#$shared/data#g" -e "s#MODELS#$shared/models#g" "$here/$pipeline.toml" >$pipeline.toml
  "$whence" train $pipeline.toml --quiet >/dev/null 2>&1
done
number() { sed -n "s/^ *\"$1\": \([0-9.e+-]*\),\{0,1\}$/\1/p" plan.json | head -1; }
echo "| command | memory told, MiB | taken | | seconds told | taken | of CPU time | |"
echo "|---|---|---|---|---|---|---|---|"
grep -E -- "$pattern" "$here/commands.txt" | while read -r command; do
  rm -rf result
  # shellcheck disable=SC2086
  "$whence" $command --plan --json --quiet >plan.json 2>plan.err || { echo "| $command | $(tail -1 plan.err) |"; continue; }
  # shellcheck disable=SC2086
  /usr/bin/time -f '%M %e %U %S' -o time.txt "$whence" $command --quiet --out result >/dev/null 2>run.err || { echo "| $command | $(tail -1 run.err) |"; continue; }
  read -r memory seconds user system < <(tail -1 time.txt)
  awk -v command="$command" -v told="$(number peak)" -v taken="$memory" -v low="$(number low)" -v high="$(number high)" -v s="$seconds" -v cpu="$(awk "BEGIN { print $user + $system }")" 'BEGIN {
    told /= 1048576; taken /= 1024; between = high == "" ? low : sqrt(low * high)
    printf "| %s | %.0f | %.0f | %+.0f %% | %.1f%s | %.1f | %.1f | %.2f |\n", command, told, taken, 100 * (told / taken - 1), low, high == "" ? " or more" : high == low ? "" : sprintf(" to %.1f", high), s, cpu, between / s
  }'
done
