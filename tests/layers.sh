#!/usr/bin/env bash
# Fails, naming file and line, where lib/ breaks the rules of its layout: which room may include which, and what never stands in lib/.
#   tests/layers.sh [ROOT]       ROOT holds lib/; by default the source tree this file is in
set -euo pipefail
cd "${1:-$(dirname "$0")/..}"

# Lowest first. A room includes only rooms to its left; rooms of one level do not know each other.
levels="core text data models tuning training curvature solvers stages,kernels attribution,icl store evaluate,report"

includes() { grep -rnE --include='*.h' --include='*.cpp' '^ *# *include' lib || true; }
code() { grep -rn --include='*.h' --include='*.cpp' '' lib | sed 's#//.*##' | grep -E "$1" || true; }  # comments left out

{
  includes | awk -v levels="$levels" '
    BEGIN { n = split(levels, level, " "); for (i = 1; i <= n; ++i) { m = split(level[i], room, ","); for (j = 1; j <= m; ++j) rank[room[j]] = i } }
    {
      split($0, part, ":"); file = part[1]; place = part[1] ":" part[2]
      match($0, /["<][^">]*/); included = substr($0, RSTART + 1, RLENGTH - 1)
      split(file, f, "/"); own = f[3]
      if (!(own in rank)) { print place ": room " own " has no level in tests/layers.sh"; next }
      if ($0 ~ /include *"/ && included !~ /^whence\//) { print place ": includes " included ", a quoted include begins with whence/"; next }
      if (included ~ /^torch\/torch\.h$/) { print place ": includes " included ", which costs 20 s and 1.4 GB a file"; next }
      if (included ~ /^(ATen|torch|c10)\// && included !~ /^ATen\/core\// && file ~ /\.h$/ && file !~ /\/detail\//) {
        print place ": includes " included ", a public header includes only ATen/core/ of torch"; next
      }
      if (included !~ /^whence\// || included == "whence/version.h") next
      split(included, g, "/"); other = g[2]
      if (!(other in rank)) { print place ": includes " included ", a room without a level in tests/layers.sh"; next }
      if (file == "lib/whence/store/score_sink.h" && other != "core") { print place ": includes " included ", score_sink.h may only include core"; next }
      if (included == "whence/store/score_sink.h" && (own == "attribution" || own == "kernels")) next
      if (own != other && rank[other] >= rank[own]) { print place ": includes " included ", but " other " is not below " own; next }
      if (own != other && included ~ /\/detail\//) print place ": includes " included ", which " other " keeps to itself"
    }'
  code '# *pragma +omp' | grep -v '^lib/whence/core/parallel\.' | sed 's/$/   <- only core\/parallel holds OpenMP/' || true
  code '\bstd::(cout|cerr|clog)\b|\b(f|v|vf)?printf *\(|\bf?puts *\(|\bfmt::print|\b(exit|_Exit|quick_exit|abort|terminate) *\(' |
    sed 's/$/   <- lib\/ never prints or exits/'
} | { ! grep . ; } || { echo "layers: see above" >&2; exit 1; }
