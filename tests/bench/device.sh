#!/usr/bin/env bash
# What a device saves and whether it agrees: the same commands on the processor and on the device, in turns, on three real problems (an mlp
# of 0.67 million parameters on 10,000 MNIST digits, a convnet of 0.55 million on 2,000 CIFAR images, a decoder of 0.26 million on stories and plays).
#   tests/bench/device.sh WHENCE SHARED [DEVICE]       DEVICE: cuda
# A line for each command: seconds on each, the ratio, and for scores the relative difference (Frobenius) and the share of the ten
# strongest examples of a query that both name. Where training itself ran on the device, the final losses are printed beside each other.
set -euo pipefail
whence=$(realpath "$1") shared=$(realpath "$2") device=${3:-cuda}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
images=$shared/data/image

cat >mlp.toml <<END
[model]
spec = "mlp:widths=512/512,activation=relu"
[[stage]]
name = "fit"
train = { format = "idx", images = "$images/mnist-train20k-images-idx3-ubyte.gz", labels = "$images/mnist-train20k-labels-idx1-ubyte.gz", limit = 10000 }
optimizer = "adam:learning-rate=1e-3,epochs=3,batch-size=64"
checkpoint = "mlp.safetensors"
[queries.test]
data = { format = "idx", images = "$images/mnist-t10k-images-idx3-ubyte.gz", labels = "$images/mnist-t10k-labels-idx1-ubyte.gz", limit = 20 }
END
cat >convnet.toml <<END
[model]
spec = "convnet:channels=32/64,kernel=3,activation=relu,dense=128"
[[stage]]
name = "fit"
train = { format = "cifar", file = "$images/cifar10_train_4000.bin.gz", limit = 2000 }
optimizer = "adam:learning-rate=1e-3,epochs=3,batch-size=64"
checkpoint = "convnet.safetensors"
[queries.test]
data = { format = "cifar", file = "$images/cifar10_test_1000.bin.gz", limit = 20 }
END
cat >decoder.toml <<END
[model]
checkpoint = "$shared/models/stories260k"
[[stage]]
name = "fit"
train = [
  { format = "jsonl", file = "$shared/data/corpus/tinystories_v2_head.jsonl", length = 128, limit = 250 },
  { format = "text", file = "$shared/data/corpus/tinyshakespeare.txt", length = 128, limit = 250 },
]
loss = "next-token:mean"
optimizer = "adamw:learning-rate=1e-3,epochs=3,batch-size=32,decay=0,clip=1"
checkpoint = "decoder"
[queries.test]
data = { format = "jsonl", file = "$shared/data/corpus/tinystories_v2_head.jsonl", length = 128, skip = 1600, limit = 20 }
END

"$whence" inspect mlp.toml --quiet --device "$device" >/dev/null  # the device's start is not a command's
timed() {  # timed NAME DEVICE COMMAND...: the seconds it took in `seconds`, its output in NAME.DEVICE.log
  local name=$1 on=$2 begin end
  begin=$(date +%s.%N)
  "$whence" "${@:3}" --device "$on" --quiet >"$name.$on.log" 2>&1 || { echo "$name on $on: FAILED: $(tail -n 1 "$name.$on.log")"; return 1; }
  end=$(date +%s.%N)
  seconds=$(awk "BEGIN { printf \"%.2f\", $end - $begin }")
}
agreement() {  # agreement A B: of two results' scores
  python3 - "$@" <<'END'
import json, struct, sys
import numpy as np
def scores(folder):
    data = open(folder + "/scores.safetensors", "rb").read()
    n, = struct.unpack("<Q", data[:8])
    for name, t in json.loads(data[8:8 + n]).items():
        if name != "__metadata__" and len(t["shape"]) == 2 and t["dtype"] in ("F32", "F64"):
            a, b = t["data_offsets"]
            kind = {"F32": np.float32, "F64": np.float64}[t["dtype"]]
            return np.frombuffer(data[8 + n + a:8 + n + b], kind).reshape(t["shape"]).astype(float)
a, b = scores(sys.argv[1]), scores(sys.argv[2])
top = [len(set(np.argsort(-abs(x))[:10]) & set(np.argsort(-abs(y))[:10])) / 10 for x, y in zip(a, b)]
print(f"difference {np.linalg.norm(a - b) / np.linalg.norm(a):.1e}, ten strongest shared {np.mean(top):.2f}")
END
}
printf '%-10s %-52s %8s %8s %6s  %s\n' problem command cpu "$device" ratio agreement
row() { printf '%-10s %-52s %8s %8s %6s  %s\n' "$1" "$2" "$3" "$4" "$(awk "BEGIN { printf \"%.1f\", $3 / $4 }")" "$5"; }
for problem in mlp decoder convnet; do
  checkpoint=$(sed -n 's/^checkpoint = "\([^/]*\)"$/\1/p' $problem.toml | tail -n 1)
  timed train cpu train $problem.toml || continue
  cpu=$seconds; mv "$checkpoint" kept
  timed train "$device" train $problem.toml || { mv kept "$checkpoint"; }
  row $problem train "$cpu" "$seconds" ""
  rm -rf "$checkpoint"; mv kept "$checkpoint"
  for choice in "" "--curvature ekfac" "--method trak" "--dtype float64 --curvature gauss-newton --damping 1"; do
    cpu=
    for on in cpu "$device"; do
      # shellcheck disable=SC2086
      timed score $on score $problem.toml $([[ $choice == --self ]] || echo --queries test) $choice --out "out.$on" || { seconds=; break; }
      [[ $on != cpu ]] || cpu=$seconds
    done
    [[ -n $seconds && -n $cpu ]] && row $problem "score $choice" "$cpu" "$seconds" "$(agreement out.cpu "out.$device" 2>&1 | tail -n 1)"
    rm -rf out.cpu "out.$device"
  done
done
