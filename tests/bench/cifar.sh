#!/usr/bin/env bash
# Leave-one-out agreement on a relu convnet over real CIFAR images, which is neither smooth nor convex; prints what it finds.
#   tests/bench/cifar.sh WHENCE DATA       DATA holds cifar10_train_4000.bin.gz and cifar10_test_1000.bin.gz
set -euo pipefail
whence=$(realpath "$1") data=$(realpath "$2")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
sed "s#DATA#$data#" "$(dirname "$0")/cifar.toml" >"$work/cifar.toml"
cd "$work"
count=0
"$whence" train cifar.toml --dtype float64 --quiet
for choice in "--curvature hessian --relative-damping 0.1" "--curvature gauss-newton --relative-damping 0.1"; do
  echo "== $choice"
  out=result-$((++count))
  # shellcheck disable=SC2086
  "$whence" score cifar.toml --stage pretrain --queries test --dtype float64 $choice --solver cg:relative-tolerance=1e-4 --out "$out" --quiet || continue
  "$whence" evaluate cifar.toml --stage pretrain --scores "$out" --examples 10 --quiet
done
