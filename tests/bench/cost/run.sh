#!/usr/bin/env bash
# What it costs that nothing stale or damaged is taken for a result: the share of a command's CPU time that goes into
# SHA-256 (digests of inputs and results, seals) and, of rank, into looking for leverages, and how many times as long it takes.
#   tests/bench/cost/run.sh WHENCE SHARED WORK
# perf samples where the time goes (all SHA-256 is OpenSSL's), gdb times the one call that looks for leverages. A minute
# or two on one core. What it found: README.md beside it.
set -euo pipefail
whence=$(realpath "$1") shared=$(realpath "$2") work=$3
export OMP_NUM_THREADS=1
mkdir -p "$work"
cd "$work"
idx="$shared/data/image/mnist"
cat >mlp.toml <<TOML
seed = 0
[model]
spec = "mlp:widths=32,activation=tanh"
[[stage]]
name = "fit"
train = { format = "idx", images = "$idx-train20k-images-idx3-ubyte.gz", labels = "$idx-train20k-labels-idx1-ubyte.gz" }
weight-decay = 1e-2
optimizer = "adam:learning-rate=3e-3,epochs=5,batch-size=64"
checkpoint = "run/mlp.safetensors"
[queries.test]
data = { format = "idx", images = "$idx-t10k-images-idx3-ubyte.gz", labels = "$idx-t10k-labels-idx1-ubyte.gz", limit = 40 }
TOML
sed -e 's/"adam.*"/"lbfgs:max-iterations=3000,tolerance=1e-7"/' -e 's/gz" }/gz", limit = 1000 }/' -e 's#run/mlp#run/minimum#' -e 's/"mlp:.*"/"linear"/' mlp.toml >minimum.toml
cat >leverages.py <<'PYTHON'
import gdb
spent = 0.0
def taken():  # of a processor, by the process that is looked at
    times = open(f"/proc/{gdb.selected_inferior().pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(times[11]) + int(times[12])) / 100
class Entry(gdb.Breakpoint):
    def stop(self):
        Exit(gdb.newest_frame(), taken())
        return False
class Exit(gdb.FinishBreakpoint):
    def __init__(self, frame, start):
        super().__init__(frame, internal=True)
        self.start = start
    def stop(self):
        global spent
        spent += taken() - self.start
        return False
class End(gdb.Breakpoint):
    def stop(self):  # the share in this run, since another takes longer or shorter where the machine is busy
        open("leverages.txt", "w").write(f"{spent / taken()}\n")
        return False
gdb.execute("set pagination off")
gdb.execute("set breakpoint pending on")
Entry("whence::find_leverages")
End("_exit")  # by which the tool ends
gdb.execute("run", to_string=True)  # by the arguments that gdb was given: "run ..." has others in their place
PYTHON
echo "| command | CPU s | SHA-256 | leverages | times as long |"
echo "|---|---|---|---|---|"
while read -r command; do
  rm -rf result
  echo 0 >leverages.txt
  # shellcheck disable=SC2086
  [[ $command != rank* ]] || gdb -q -batch -x leverages.py --args "$whence" $command >/dev/null 2>&1
  rm -rf result
  # shellcheck disable=SC2086
  /usr/bin/time -f '%U %S' -o time.txt perf record -q -F 997 -e cpu-clock -o perf.data "$whence" $command >/dev/null 2>&1
  hashing=$(perf report -q -i perf.data --sort dso 2>/dev/null | awk '/libcrypto/ { print $1 + 0; exit }')
  awk -v command="$command" -v hashing="${hashing:-0}" -v leverages="$(cat leverages.txt)" '{
    seconds = $1 + $2; share = hashing / 100 + leverages
    printf "| %s | %.2f | %.3f | %.2f | %.3f |\n", command, seconds, seconds * hashing / 100, seconds * leverages, 1 / (1 - share)
  }' time.txt
done <<'COMMANDS'
train mlp.toml --quiet --force
score mlp.toml --quiet --out result --method grad-dot
score mlp.toml --quiet --out result --curvature ekfac --relative-damping 1
rank mlp.toml --quiet --out result
train minimum.toml --quiet --force
rank minimum.toml --quiet --out result
COMMANDS
