#!/usr/bin/env python3
"""Prompts with wrong labels from the shared data, as tasks for `whence icl --tasks`.

    prompts.py DATA SET OUT.jsonl [--prompts 100] [--demonstrations 20] [--wrong 4] [--validation 10] [--test 10] [--seed 0] [--most 300]

DATA is the folder shared/data. SET: sms, trec, ag-news, present-past, singular-plural or capitalize. Demonstrations, validation queries and
test queries of a prompt are different rows; of a classification the demonstrations' classes are balanced. `wrong` demonstrations get
another class, or of pairs each other's outputs; which they are is in OUT.jsonl.wrong, one list a line. Behind the queries of a
classification stands one with the input N/A and no output, for calibration. Texts are cut after `most` characters.
"""
import argparse
import json
import pathlib
import random

parser = argparse.ArgumentParser()
parser.add_argument("data", type=pathlib.Path)
parser.add_argument("set")
parser.add_argument("out")
parser.add_argument("--prompts", type=int, default=100)
parser.add_argument("--demonstrations", type=int, default=20)
parser.add_argument("--wrong", type=int, default=4)
parser.add_argument("--validation", type=int, default=10)
parser.add_argument("--test", type=int, default=10)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--most", type=int, default=300)
o = parser.parse_args()

CLASSES = {
    "sms": ("textcls/sms_spam.tsv", "text", "label_name", "Message: {input}\nLabel: {output}", {}),
    "trec": ("textcls/trec_train.tsv", "text", "label_name", "Question: {input}\nAnswer type: {output}",
             {"ABBR": "Abbreviation", "DESC": "Description", "ENTY": "Entity", "HUM": "Person", "LOC": "Location", "NUM": "Number"}),
    "ag-news": ("textcls/ag_news_test.tsv", "text", "label_name", "Article: {input}\nTopic: {output}", {"Sci/Tech": "Technology"}),
}


def rows(path):
    lines = (o.data / path).read_text().split("\n")
    names = lines[0].split("\t")
    return [dict(zip(names, line.split("\t"))) for line in lines[1:] if line]


draw = random.Random(f"{o.set} {o.seed}")
tasks, wrong_lists = [], []
if o.set in CLASSES:
    path, text, label, template, words = CLASSES[o.set]
    table = [{"input": r[text][:o.most], "output": words.get(r[label], r[label])} for r in rows(path)]
else:
    template = "Input: {input}\nOutput: {output}"
    table = rows(f"icl_pairs/{o.set}.tsv")
    table = [{"input": r["input"], "output": r["output"]} for r in table]
outputs = sorted({r["output"] for r in table}) if o.set in CLASSES else []
by_output = {c: [r for r in table if r["output"] == c] for c in outputs}
for number in range(o.prompts):
    count = o.demonstrations + o.validation + o.test
    if outputs:
        order = [outputs[i % len(outputs)] for i in range(count)]
        picked = {c: iter(draw.sample(rows_of, min(len(rows_of), count))) for c, rows_of in by_output.items()}
        chosen = [dict(next(picked[c])) for c in order]
        demonstrations, rest = chosen[:o.demonstrations], chosen[o.demonstrations:]
        draw.shuffle(demonstrations)
        draw.shuffle(rest)
    else:
        chosen = [dict(r) for r in draw.sample(table, count)]
        demonstrations, rest = chosen[:o.demonstrations], chosen[o.demonstrations:]
    wrong = sorted(draw.sample(range(o.demonstrations), o.wrong))
    if outputs:
        for i in wrong:
            demonstrations[i]["output"] = draw.choice([c for c in outputs if c != demonstrations[i]["output"]])
    else:
        given = [demonstrations[i]["output"] for i in wrong]
        for k, i in enumerate(wrong):
            demonstrations[i]["output"] = given[(k + 1) % len(given)]
    queries = rest + ([{"input": "N/A"}] if outputs else [])
    tasks.append({"name": f"{o.set}-{number}", "template": template, "demonstrations": demonstrations, "queries": queries})
    wrong_lists.append(wrong)
pathlib.Path(o.out).write_text("".join(json.dumps(t, ensure_ascii=False) + "\n" for t in tasks))
pathlib.Path(o.out + ".wrong").write_text("".join(json.dumps(w) + "\n" for w in wrong_lists))
