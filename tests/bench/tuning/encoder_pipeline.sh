# What fewshot.sh and hut.sh train: an encoder's body left alone, then one tuning on few texts. Sourced where $encoder is set.

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
