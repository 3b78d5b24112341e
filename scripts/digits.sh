#!/usr/bin/env bash
# Puts scikit-learn's digits (1,797 images of 8 x 8, one row of 64 pixels and the label each) at .deps/data/digits.csv.gz, out of the
# wheel; scikit-learn itself is not installed.
set -euo pipefail
cd "$(dirname "$0")/.."
[[ -s .deps/data/digits.csv.gz ]] && exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
[[ -x .deps/python/bin/pip ]] || python3 -m venv .deps/python  # as setup.sh: Debian's own Python comes without pip
.deps/python/bin/pip download -q --disable-pip-version-check --no-deps --only-binary=:all: -d "$work" scikit-learn==1.7.2
mkdir -p .deps/data
python3 - "$work" <<'PYTHON'
import glob, sys, zipfile
wheel = zipfile.ZipFile(glob.glob(sys.argv[1] + "/*.whl")[0])
open(".deps/data/digits.csv.gz", "wb").write(wheel.read("sklearn/datasets/data/digits.csv.gz"))
PYTHON
