#!/usr/bin/env python3
"""When does a fine-tune behave like its kernel? Fine-tunes of few examples a class, with a prompt and label words or with a head on the body, by SGD
and by Adam, each beside its eNTK, its sign kernels and its linearisation (`whence kernel`), after Malladi et al., "A Kernel-Based View of Language
Model Fine-Tuning", 2023. One row of WORK/study.tsv a kernel; what has its row is not made again, and an interrupted kernel goes on.

    study.py WHENCE DATA WORK --model NAME=DIR[:prompt|:head] ... [options]

DATA holds sst2_train.tsv, sst2_test.tsv, rotten_tomatoes_mr.tsv, trec_train.tsv, trec_test.tsv and ag_news_test.tsv, with columns label, label_name and
text (others are ignored). WORK takes a gigabyte for a model of 135 million parameters; a fine-tune's checkpoint goes when its kernels are made. The kernel at
the start is made once for all fine-tunes from there, and is in the seconds of the first. Python's standard library is enough. Nothing is run side by side: set OMP_NUM_THREADS.

The default (one task, one seed, 12 steps, 48 queries, both optimizers) was cut to minutes from the paper's 14 tasks, 5 seeds, 16 to 512 examples a class, up
to 1,000 steps and 1,000 queries. --tasks sst2,rotten,trec,ag --seeds 1,2,3,4,5 --steps 8 --batch 16 --queries 24 --length 32 --kernels entk with SmolLM2, with
and without a prompt, takes six to seven hours of a processor; --shots 16,64 --steps 100 --queries 200 and all kernels days.
"""
import argparse, csv, json, random, resource, subprocess, sys
from pathlib import Path

# Per task: its files for training and for queries (None: what is left of the first), the prompt, and label words that begin with different tokens.
TASKS = {
    "sst2": (("sst2_train.tsv", "sst2_test.tsv"), "{text} It was", {"negative": " terrible", "positive": " great"}),
    "rotten": (("rotten_tomatoes_mr.tsv", None), "{text} It was", {"negative": " terrible", "positive": " great"}),
    "trec": (("trec_train.tsv", "trec_test.tsv"), "Question: {text} Type of answer:",
             {"Abbreviation": " Expression", "Entity": " Entity", "Description": " Description", "Person": " Person", "Location": " Location",
              "Number": " Number"}),
    "ag": (("ag_news_test.tsv", None), "{text} Topic:", {"World": " World", "Sports": " Sports", "Business": " Business", "Sci/Tech": " Technology"}),
}
OPTIMIZERS = {"sgd": ["entk"], "adam": ["entk", "signgd", "a-signgd"]}  # and the kernels that are to foretell each
COLUMNS = ["task", "seed", "shots", "model", "form", "optimizer", "rate", "steps", "batch", "queries", "length", "kernel", "before", "after", "linearised", "regression", "regression-otherwise",
           "leave-one-out", "feature-change", "share-of-move", "solves", "linear", "fixed", "level", "train-seconds", "kernel-seconds", "peak-bytes"]
KEYS = COLUMNS.index("kernel") + 1  # what tells rows apart


def rows_of(path):
    csv.field_size_limit(1 << 30)
    with open(path, newline="", encoding="utf-8") as file:
        return [(row["label_name"], row["text"]) for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]


def write_rows(path, rows):
    with open(path, "w", encoding="utf-8") as file:
        file.write("text\tlabel\n")
        file.writelines(f"{text}\t{label}\n" for label, text in rows)


def sample(args, task, seed, shots, folder):
    """`shots` examples of each class, and queries that are none of them."""
    (train, test), _, words = TASKS[task]
    draws = random.Random(seed)
    held = [row for row in rows_of(args.data / train) if row[0] in words and row[1].strip()]
    draws.shuffle(held)
    chosen = [row for name in words for row in [r for r in held if r[0] == name][:shots]]
    short = [name for name in words if sum(row[0] == name for row in chosen) < shots]
    if short:
        sys.exit(f"study.py: {train} has fewer than {shots} examples of {short[0]}")
    taken = set(chosen)
    others = [row for row in (held if test is None else rows_of(args.data / test)) if row[0] in words and row[1].strip() and row not in taken]
    draws.shuffle(others)
    by_class = [[row for row in others if row[0] == name] for name in words]
    asked = [members[turn] for turn in range(args.queries) for members in by_class if turn < len(members)]  # evenly, while they last
    write_rows(folder / "train.tsv", chosen)
    write_rows(folder / "queries.tsv", asked[:args.queries])


def pipeline(args, task, model, form, optimizer, rate):
    """One stage, on the model as its folder has it: where training began is then known."""
    _, template, words = TASKS[task]
    table = f'format = "tsv", text = "text", label = "label", length = {args.length}, classes = {json.dumps(list(words))}'
    if form == "prompt":
        table += f', template = {json.dumps(template)}, label-words = {json.dumps(list(words.values()))}'
    steps = f"max-iterations={args.steps},batch-size={args.batch},micro-batch={args.micro_batch},schedule=constant"
    spec = f"{optimizer}:learning-rate={rate},{'momentum=0,' if optimizer == 'sgd' else ''}{steps}"
    head = '' if form == "prompt" else 'head-start = "regression"\n'
    return f"""seed = 0
[model]
checkpoint = {json.dumps(str(model))}
[[stage]]
name = "finetune"
train = {{ file = "train.tsv", {table} }}
tuning = {json.dumps(args.tuning)}
optimizer = {json.dumps(spec)}
{head}checkpoint = "finetune-{form}-{optimizer}-{rate}.safetensors"
[queries.test]
data = {{ file = "queries.tsv", {table} }}
"""


def run(command, log, folder=None):
    """Processor seconds that it took."""
    began = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    with open(log, "a") as out:
        done = subprocess.run(command, cwd=folder, stdout=out, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        sys.exit(f"study.py: {' '.join(map(str, command))}: status {done.returncode}; {log} says:\n" + Path(log).read_text()[-2000:])
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - began


def fine_tune(args, task, seed, shots, model, optimizer, rate, table, known):
    """One fine-tune and a row of the table for each of its kernels that has none."""
    name, folder, form = model
    case = (task, seed, shots, name, form, optimizer, rate, str(args.steps), str(args.batch), str(args.queries), str(args.length))
    kernels = [k for k in OPTIMIZERS[optimizer] if k in args.kernels.split(",") and case + (k,) not in known]
    if not kernels:
        return
    place = args.work / f"{task}-{seed}-{shots}-{name}-{args.steps}x{args.batch}-{args.queries}-{args.length}"
    place.mkdir(exist_ok=True)
    if not (place / "train.tsv").exists():
        sample(args, task, int(seed), int(shots), place)
    toml = place / f"{form}-{optimizer}-{rate}.toml"
    toml.write_text(pipeline(args, task, folder, form, optimizer, rate))
    log, checkpoint = toml.with_suffix(".log"), place / f"finetune-{form}-{optimizer}-{rate}.safetensors"
    trained = run([args.whence, "train", toml, "--quiet"], log) if not checkpoint.exists() else float("nan")
    for kernel in kernels:
        out = place / f"{form}-{kernel}"  # what it has of the start serves the next fine-tune from there
        took = run([args.whence, "kernel", toml, "--kernel", kernel, "--filter", args.filter, "--examples", "100000",
                    "--limit-queries", "0", "--quiet", "--out", out], log)
        found = json.loads((out / "kernel.json").read_text())
        skill, tests = found["skill"], found["tests"]
        row = list(case) + [kernel, skill["before"], skill["after"], skill["linearised"], skill["kernel"], skill["kernel-otherwise"],
                            skill["leave-one-out"], found["feature-change"]["relative"], found["share-of-move"]["linearised"],
                            tests["solves"]["holds"], tests["linear"]["holds"], tests["fixed"]["holds"], found["level"],
                            trained, took, found["peak-bytes"]]
        line = "\t".join(f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value) for value in row)
        with open(table, "a") as file:
            file.write(line + "\n")
        print(line, flush=True)
    checkpoint.unlink()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("whence", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--model", action="append", required=True, help="NAME=DIR:prompt or NAME=DIR:head; without a form: prompt")
    parser.add_argument("--tasks", default="sst2")
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--shots", default="16")
    parser.add_argument("--optimizers", default="sgd,adam")
    parser.add_argument("--kernels", default="entk,signgd,a-signgd", help="which of them are made")
    parser.add_argument("--tuning", default="full")
    parser.add_argument("--filter", default="no-embeddings", help="of the kernels: signs of embeddings that no example reads are 0")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--micro-batch", type=int, default=8)
    parser.add_argument("--queries", type=int, default=48)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--sgd", default="2e-4", help="learning rates, several with commas")
    parser.add_argument("--adam", default="2e-6", help="the same")
    args = parser.parse_args()
    args.whence, args.work = args.whence.resolve(), args.work.resolve()
    args.work.mkdir(parents=True, exist_ok=True)
    table = args.work / "study.tsv"
    known = set()
    if table.exists():
        with open(table, newline="") as file:
            known = {tuple(row[key] for key in COLUMNS[:KEYS]) for row in csv.DictReader(file, delimiter="\t")}
    else:
        table.write_text("\t".join(COLUMNS) + "\n")
    for task in args.tasks.split(","):
        for seed in args.seeds.split(","):
            for shots in args.shots.split(","):
                for model in args.model:
                    name, folder = model.split("=", 1)
                    folder, form = folder.rsplit(":", 1) if folder.endswith((":prompt", ":head")) else (folder, "prompt")
                    for optimizer in args.optimizers.split(","):
                        for rate in (args.sgd if optimizer == "sgd" else args.adam).split(","):
                            fine_tune(args, task, seed, shots, (name, Path(folder).resolve(), form), optimizer, rate, table, known)


if __name__ == "__main__":
    main()
