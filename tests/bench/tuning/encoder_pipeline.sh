# What fewshot.sh, hut.sh and ranked.sh train: an encoder's body left alone, then one tuning on few texts. Sourced where $encoder is set.

# The tunings that are compared, and the learning rate of each.
declare -A TUNING=([simplex]="prefix-simplex:vertices=4,length=8,deviation=0.1" [prefix]="prefix:length=8,deviation=0.1" [lora]="lora:rank=8,alpha=16"
  [hut]="hut:rank=8" [full]=full)
declare -A RATE=([simplex]=1e-2 [prefix]=1e-2 [lora]=2e-3 [hut]=1e-2 [hira]=1e-2 [full]=1e-4)

# pipeline TUNING OPTIMIZER CHECKPOINT [KEYS]: the file of one run
pipeline() {
  cat <<TOML
[model]
checkpoint = "$encoder"
[[stage]]
name = "body"
train = { format = "tsv", file = "../body.tsv", text = "text", length = 32 }
optimizer = "adam:learning-rate=1e-30,max-iterations=1"
checkpoint = "../body.safetensors"
[[stage]]
name = "fit"
train = { format = "tsv", file = "train.tsv", text = "text", length = 32 }
tuning = "$1"
optimizer = "adam:$2"
checkpoint = "$3.safetensors"
${4:-}
[queries.test]
data = { format = "tsv", file = "test.tsv", text = "text", length = 32 }
TOML
}
