#!/usr/bin/env bash
# Makes .deps/peers, a Python 3.11 environment with the libraries that whence is measured against; does nothing when it is there.
#   tests/bench/solvers/peers.sh && .deps/peers/bin/python tests/bench/solvers/peers.py WORK/digits
set -euo pipefail
cd "$(dirname "$0")/../../.."
if [[ ! -e .deps/peers/complete ]]; then
  rm -rf .deps/peers
  python3.11 -m venv .deps/peers
  .deps/peers/bin/python -m pip install -q --disable-pip-version-check torch==2.13.0 "pydvl[influence]==0.10.0" dattri==0.3.0 \
    kronfluence==1.0.1 numpy==1.26.4 scipy==1.17.1 safetensors==0.8.0
fi
.deps/peers/bin/python -W ignore -c "
import dattri.algorithm.influence_function, kronfluence.analyzer, numpy, pydvl.influence.torch, safetensors, scipy, torch
from importlib.metadata import version
print(*(f'{name} {version(name)}' for name in ('torch', 'pydvl', 'dattri', 'kronfluence', 'numpy', 'scipy', 'safetensors')), sep=', ')"
touch .deps/peers/complete
