#!/usr/bin/env bash
# tests/layers.sh finds each kind of breach, and lets through what is allowed.
set -euo pipefail
check=$(cd "$(dirname "$0")" && pwd)/layers.sh
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

expect() {  # expect pass|fail FILE LINE: the verdict on a tree that holds only FILE with this one LINE
  rm -rf "$root/lib" && mkdir -p "$(dirname "$root/lib/whence/$2")" && echo "$3" >"$root/lib/whence/$2"
  local verdict=pass
  "$check" "$root" >"$root/out" 2>&1 || verdict=fail
  if [[ $verdict != "$1" ]] || { [[ $1 == fail ]] && ! grep -q "lib/whence/$2:1:" "$root/out"; }; then
    echo "expected $1, got $verdict: $2: $3"; cat "$root/out"; exit 1
  fi
}

expect pass models/a.cpp '#include "whence/data/batch.h"'
expect pass data/a.cpp '#include "whence/text/tokenizer.h"'
expect pass stages/a.cpp '#include "whence/stages/stage.h"'
expect pass attribution/a.h '#include "whence/store/score_sink.h"'
expect pass kernels/a.h '#include "whence/store/score_sink.h"'
expect pass store/score_sink.h '#include "whence/core/error.h"'
expect pass core/parallel.cpp '#pragma omp parallel for'
expect pass data/a.cpp '#include <ATen/ATen.h>'
expect pass data/a.cpp 'std::snprintf(text, 8, "%d", exit_code);  // no exit()'
expect fail data/a.h '#include "whence/models/model.h"'
expect fail data/a.h '#include <whence/report/html.h>'
expect fail data/a.cpp '#include "whence/text/detail/unicode.h"'
expect fail text/a.cpp '#include "whence/data/batch.h"'
expect fail stages/a.cpp '#include "whence/kernels/entk.h"'
expect fail attribution/a.cpp '#include "whence/store/topk.h"'
expect fail solvers/a.cpp '#include "whence/store/score_sink.h"'
expect fail store/score_sink.h '#include "whence/data/dataset.h"'
expect fail models/a.cpp '#include "whence/data/detail/gzip.h"'
expect fail models/a.cpp '#include "ops.h"'
expect fail models/a.cpp '#include "whence/misc/a.h"'
expect fail misc/a.cpp '#include "whence/core/error.h"'
expect fail models/a.cpp '#include <torch/torch.h>'
expect fail models/a.h '#include <ATen/ATen.h>'
expect fail models/a.cpp '  #pragma omp parallel'
expect fail models/a.cpp 'std::cout << 1;'
expect fail models/a.cpp 'std::fprintf(stderr, "x");'
expect fail models/a.cpp 'std::exit(1);'
