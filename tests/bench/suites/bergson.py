"""bergson's recall task (EleutherAI/bergson, bergson/recall): which training sentences state the fact that a question asks for?

    python bergson.py WHENCE BERGSON MODEL WORK [--people 1000] [--epochs 10] [--methods a,b]

BERGSON is a checkout: its bergson/recall/facts.py makes people of data/names and states each of their four facts by every line of data/templates
(seed 0). MODEL is a folder of a small language model in Hugging Face layout, which is trained on the sentences, all parameters, and queried with the
loss of the answer behind the question. A source of a question is a sentence with its person and field. The first --people of the 1,000 are
taken. Needs the standard library alone. Results: README.md beside it.
"""

import argparse
import json
import pathlib
import runpy
import subprocess


def main(args):
    args.work.mkdir(parents=True, exist_ok=True)
    facts = runpy.run_path(str(args.bergson / "bergson/recall/facts.py"))["fact_generator"](4 * args.people, str(args.bergson / "data"))
    sentences, questions = [], {}
    for row in facts:
        source = f"{row['identifier']} {row['field']}"
        sentences.append({"text": row["fact"], "source": source})
        questions.setdefault(source, {"question": row["question"], "said": row["answer"], "source": source})
    for name, rows in (("sentences", sentences), ("questions", questions.values())):
        (args.work / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (args.work / "recall.toml").write_text(f"""seed = 0
[model]
checkpoint = "{args.model.resolve()}"
[[stage]]
name = "fit"
train = {{ format = "jsonl", file = "sentences.jsonl", length = 96 }}
loss = "next-token:mean"
optimizer = "adamw:learning-rate={args.rate},epochs={args.epochs},batch-size=16,decay=0"
snapshots = 4
checkpoint = "fit.safetensors"
[queries.test]
data = {{ format = "jsonl", file = "questions.jsonl", template = "{{question}}", answer = " {{said}}", length = 96 }}
""")
    print(f"{args.people} people, {len(sentences)} sentences, {len(questions)} questions", flush=True)
    subprocess.run([args.whence, "train", "recall.toml", "--threads", "1", "--quiet"], cwd=args.work, check=True)
    subprocess.run(
        [args.whence, "evaluate", "recall.toml", "--queries", "test", "--against", "recall", "--source-column", "source", "--methods", args.methods,
         "--threads", "1", "--quiet", "--out", "judged"], cwd=args.work, check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("whence", type=lambda path: str(pathlib.Path(path).resolve()))
    for folder in ("bergson", "model", "work"):
        parser.add_argument(folder, type=pathlib.Path)
    parser.add_argument("--people", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rate", default="1e-3")
    parser.add_argument("--methods", default="influence,ekfac,segment,logra,tracin,grad-dot")
    main(parser.parse_args())
