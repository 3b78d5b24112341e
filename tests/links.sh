#!/usr/bin/env bash
# torch's wheels export the std::filesystem of the compiler that built them, of another layout than a newer compiler's headers know. What
# comes first among the libraries that a program needs is taken, so libstdc++ must stand before torch's (cmake/FindLibTorch.cmake).
#   tests/links.sh PROGRAM
set -euo pipefail
[[ $# == 1 ]] || { echo "usage: $0 PROGRAM" >&2; exit 2; }
needed=$(LC_ALL=C readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
first=$(grep -m 1 -E '^(libstdc\+\+|libtorch|libc10)' <<<"$needed")
[[ $first == libstdc++* ]] || { echo "$1 needs $first before libstdc++; in order:" $needed; exit 1; }
