#!/usr/bin/env bash
# The study of study.py on SmolLM2-135M with label words and on MiniLM with a head, at the size of about half an hour of one core.
#   study.sh WHENCE SHARED WORK [OPTION OF study.py ...]
# SMOLLM2 and MINILM name the models' folders (examples/smollm2.sh and examples/minilm.sh make them; by default .deps/smollm2 and WORK/minilm).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
whence=$1 shared=$2 work=$3
shift 3
smollm2=${SMOLLM2:-$here/../../../.deps/smollm2} minilm=${MINILM:-$work/minilm}
mkdir -p "$work"
"$here/../../../examples/smollm2.sh" "$smollm2"
"$here/../../../examples/minilm.sh" "$minilm"
exec python3 "$here/study.py" "$whence" "$shared/data/textcls" "$work" --model "smollm2=$smollm2:prompt" --model "minilm=$minilm:head" "$@"
