#!/usr/bin/env python3
"""mixture.py CORPUS OUT: pieces of the King James Bible, of WikiText-2 and of State of the Union speeches, as OUT/{plain,raw}/SOURCE.jsonl
(150 a source to train on) and SOURCE-queries.jsonl (10, from the last tenth of the source, which training never sees).

raw    as the files have it: verse numbers, " @-@ ", "<unk>" and spaced commas give a piece's source away
plain  words in small letters and nothing else, so that only the words and their order tell
Pieces are 30 words, the same ones in both forms, drawn with a fixed seed.
"""
import json
import pathlib
import random
import re
import sys

corpus, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
texts = {
    "bible": (corpus / "kjv_bible.txt").read_text(),
    "wikitext": (corpus / "wikitext2_test.txt").read_text(),
    "union": "\n".join(json.loads(line)["text"] for line in (corpus / "state_union.jsonl").open()),
}
VERSE = re.compile(r"^\w+\d+:\d+$")


def plain(words):
    text = " ".join(word for word in words if not VERSE.match(word) and word != "<unk>")
    text = re.sub(r" @(.)@ ", r"\1", text).replace(" '", "'").lower()
    return " ".join(re.findall(r"[a-z]+(?:'[a-z]+)?", text))


for source, text in texts.items():
    words = text.split()
    pieces = [words[i:i + 30] for i in range(0, len(words) - 30, 30)]
    pieces = [piece for piece in pieces if len(plain(piece).split()) >= 20]
    border = len(pieces) * 9 // 10
    draw = random.Random(f"mixture {source}")
    chosen = {source: sorted(draw.sample(range(border), 150)), source + "-queries": sorted(draw.sample(range(border, len(pieces)), 10))}
    for name, rows in chosen.items():
        for form, write in (("raw", " ".join), ("plain", plain)):
            (out / form).mkdir(parents=True, exist_ok=True)
            (out / form / f"{name}.jsonl").write_text("".join(json.dumps({"text": write(pieces[i])}) + "\n" for i in rows))
