#!/usr/bin/env bash
# Compares whence's tokenizers with the Python package's, encoding by encoding and in speed: see compare_tokenizers.py. Makes
# .deps/tokenizers, a Python 3.11 environment with that package, where there is none.
#   tests/bench/tokenizers.sh BENCH SHARED [compare] [stages] [characters] [speed]
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
if [[ ! -e $root/.deps/tokenizers/complete ]]; then
  rm -rf "$root/.deps/tokenizers"
  python3.11 -m venv "$root/.deps/tokenizers"
  "$root/.deps/tokenizers/bin/python" -m pip install -q --disable-pip-version-check tokenizers==0.23.3 sentencepiece==0.2.3 protobuf
  touch "$root/.deps/tokenizers/complete"
fi
exec "$root/.deps/tokenizers/bin/python" "$root/tests/bench/compare_tokenizers.py" "$@"
