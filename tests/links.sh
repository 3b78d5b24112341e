#!/usr/bin/env bash
# torch's wheels export the std::filesystem of the compiler that built them, of another layout than a newer compiler's headers know: what
# is linked must take libstdc++'s.
#   tests/links.sh PROGRAM
set -euo pipefail
[[ $# == 1 ]] || { echo "usage: $0 PROGRAM" >&2; exit 2; }
bound=$(LD_BIND_NOW=1 LD_DEBUG=bindings "$1" --version 2>&1 | grep 'normal symbol.*filesystem' | grep "$(basename "$1") \[0\] to" || true)
[[ -n $bound ]] || { echo "$1 binds no symbol of std::filesystem: LD_DEBUG=bindings no longer tells"; exit 1; }
if grep 'libtorch' <<<"$bound"; then
  echo "$1: the above come from torch, expected libstdc++ (cmake/FindLibTorch.cmake: its order)"
  exit 1
fi
