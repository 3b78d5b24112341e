#!/usr/bin/env bash
# FiMODA's further training (Wei et al., NeurIPS 2025; IBM/fimoda, fimoda/tabular) on two tables of UCI: the final model alone is there, and the
# truth is training that goes on from it with every example and without one. Results: README.md beside it.
#   tests/bench/suites/concrete.sh WHENCE DATA WORK [concrete|energy...]
# DATA holds concrete.data (pomonam/kronfluence, examples/uci/data) and ENB2012_data.csv (UCI Energy Efficiency: a header, X1 to X8, Y1, Y2).
# EPOCHS ("1 10 100 500") of further training, EXAMPLES (100) left out, METHODS and PYTHON (python3 with PyTorch, safetensors) may be set.
set -euo pipefail
whence=$(realpath "$1") data=$(realpath "$2") work=$3
shift 3
[[ $# -gt 0 ]] || set -- concrete energy
mkdir -p "$work"
cd "$work"
# The final model as fimoda's notebook makes it, by PyTorch; of the grid of rates that it was tuned over, concrete's is not told.
"${PYTHON:-python3}" - "$data" "$@" <<'PY'
import pathlib
import sys

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

torch.set_num_threads(1)
for name in sys.argv[2:]:
    if pathlib.Path(f"{name}.safetensors").exists():
        continue
    if name == "concrete":
        table = np.loadtxt(f"{sys.argv[1]}/concrete.data")
    else:
        table = np.loadtxt(f"{sys.argv[1]}/ENB2012_data.csv", delimiter=",", skiprows=1)[:, :9]  # Y2 is not used
    order, held_out = np.random.RandomState(0).permutation(len(table)), -(-len(table) // 10)  # train_test_split(random_state=0)
    train, test = table[order[held_out:]], table[order[:held_out]]
    parts = [(rows - train.mean(0)) / train.std(0) for rows in (train, test)]
    for part, rows in zip(("train", "test"), parts):
        np.savetxt(f"{name}-{part}.csv", rows, fmt="%.9g", delimiter=",")
    (x, y), (test_x, test_y) = ((torch.tensor(rows[:, :-1]).float(), torch.tensor(rows[:, -1:]).float()) for rows in parts)
    found = {}
    for rate in [3e-1] if name == "energy" else [1e-2, 3e-2, 1e-1, 3e-1]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 1))
        optimizer, generator = torch.optim.SGD(model.parameters(), lr=rate), torch.Generator().manual_seed(0)
        for _ in range(1000):
            for batch in torch.randperm(len(x), generator=generator).split(128):
                optimizer.zero_grad()
                nn.functional.mse_loss(model(x[batch]), y[batch]).backward()
                optimizer.step()
        with torch.no_grad():
            losses = [nn.functional.mse_loss(model(part), values).item() for part, values in ((x, y), (test_x, test_y))]
        print(f"{name}, learning rate {rate}: mean squared error {losses[0]:.2g}, of the test tenth {losses[1]:.2g}", flush=True)
        found[losses[1]] = model
    save_file(found[min(found)].state_dict(), f"{name}.safetensors")
PY
for name in "$@"; do
  cat >"$name.toml" <<TOML
seed = 0
[model]
spec = "mlp:widths=128/128,activation=relu"
[[stage]]
name = "fit"
train = { format = "csv", file = "$name-train.csv", header = false, label = "8" }
loss = "squared-error"
checkpoint = "$name.safetensors"
[queries.test]
data = { format = "csv", file = "$name-test.csv", header = false, label = "8" }
TOML
  for epochs in ${EPOCHS:-1 10 100 500}; do
    echo "== $name, $epochs more epochs"  # MSELoss is twice squared-error, so the learning rate is twice FiMODA's 3e-2
    "$whence" evaluate "$name.toml" --queries test --against further-training --examples "${EXAMPLES:-100}" --threads 1 --quiet --no-ceiling \
      --methods "${METHODS:-influence,ekfac,empirical-fisher+datainf,logra,kernel,grad-dot}" --out "$name-$epochs" \
      --optimizer "sgd:learning-rate=0.06,momentum=0,schedule=constant,epochs=$epochs,batch-size=128"
  done
done
