#!/usr/bin/env python3
"""Compares whence's tokenizers with the `tokenizers` package, text by text, and their speeds.

    tests/bench/compare_tokenizers.py BENCH SHARED [compare] [stages] [characters] [speed]

BENCH is whence_bench, SHARED holds data/ and models/. Without further words all four: `compare` encodes and decodes every
text of SHARED/data and 100,000 random texts with every kind of tokenizer, `stages` random texts with every normalizer and pre-tokenizer
by itself, `characters` passes every character through those, `speed` encodes text on one thread and counts processor seconds. Ids,
offsets and decoded texts must be equal; exit status 1 where they are not.
"""
import json
import os
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "text"))

import make_tokenizers as kinds  # noqa: E402
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers  # noqa: E402


def shared_texts(shared):
    """Every line of every text file, without repetitions, and each file's beginning as one text."""
    texts = {}
    for path in sorted(pathlib.Path(shared, "data").rglob("*")):
        if path.suffix not in (".txt", ".tsv", ".jsonl", ".md"):
            continue
        whole = path.read_text(encoding="utf-8")
        texts[whole[:20000]] = None
        for line in whole.split("\n"):
            texts[json.loads(line)["text"] if path.suffix == ".jsonl" and line else line] = None
    return list(texts)


class Comparison:
    """Runs whence on texts, and counts where the package disagrees."""

    def __init__(self, bench):
        self.bench, self.failed, self.folder = bench, 0, tempfile.TemporaryDirectory()

    def files(self, tokenizer, texts):
        folder = pathlib.Path(self.folder.name)
        tokenizer.save(str(folder / "tokenizer.json"))
        with open(folder / "texts", "wb") as file:
            for text in texts:
                file.write(struct.pack("<I", len(text.encode())) + text.encode())
        return folder / "tokenizer.json", folder / "texts"

    def whence(self, tokenizer, texts):
        """(ids, begins, ends, decoded, decoded with special tokens) of each text."""
        out = pathlib.Path(self.folder.name, "out")
        subprocess.run([self.bench, "tokenizers", "encode", *self.files(tokenizer, texts), out], check=True)
        data, at = out.read_bytes(), 0

        def take(count):
            nonlocal at
            at += 4 * count
            return list(struct.unpack_from(f"<{count}i", data, at - 4 * count))

        def take_text():
            nonlocal at
            size = take(1)[0]
            at += size
            return data[at - size:at].decode()
        for _ in texts:
            count = take(1)[0]
            yield take(count), take(count), take(count), take_text(), take_text()

    def run(self, name, tokenizer, texts, show=3):
        tokenizer = Tokenizer.from_str(tokenizer.to_str())  # as read from a file, not as trained
        bad = []
        for text, got in zip(texts, self.whence(tokenizer, texts)):
            encoding = tokenizer.encode(text)
            offsets = kinds.byte_offsets(text, encoding.offsets)
            want = (encoding.ids, [b for b, _ in offsets], [e for _, e in offsets], tokenizer.decode(encoding.ids),
                    tokenizer.decode(encoding.ids, skip_special_tokens=False))
            if got != want:
                bad.append(text)
                if len(bad) <= show:
                    print(f"  {ascii(text[:200])}\n    whence     {ascii(got)[:400]}\n    tokenizers {ascii(want)[:400]}")
        print(f"{name}: {len(texts)} texts, {len(bad)} differ", flush=True)
        self.failed += len(bad)
        return bad


def letters():
    """A tokenizer that shows what a normalizer made of a text: a token a byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return tokenizer


def words():
    """A tokenizer that shows where a pre-tokenizer cuts: a token a word."""
    return Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))


NORMALIZERS = {
    "NFC": normalizers.NFC(), "NFD": normalizers.NFD(), "NFKC": normalizers.NFKC(), "NFKD": normalizers.NFKD(),
    "Lowercase": normalizers.Lowercase(), "StripAccents": normalizers.StripAccents(), "Nmt": normalizers.Nmt(),
    "Strip": normalizers.Strip(), "Prepend": normalizers.Prepend("ab"), "ByteLevel": normalizers.ByteLevel(),
    "Replace": normalizers.Replace(Regex(r"\s|[xy]"), "<\u00e9>"), "Bert": normalizers.BertNormalizer(),
    "Bert cleaning": normalizers.BertNormalizer(True, False, False, False),
    "Bert Chinese": normalizers.BertNormalizer(False, True, False, False),
    "Bert accents": normalizers.BertNormalizer(False, False, True, False)}


def pre_tokenizer_variants():
    behaviors = ("removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous")
    variants = {
        "Whitespace": pre_tokenizers.Whitespace(), "WhitespaceSplit": pre_tokenizers.WhitespaceSplit(),
        "BertPreTokenizer": pre_tokenizers.BertPreTokenizer(), "Digits": pre_tokenizers.Digits(),
        "Digits apart": pre_tokenizers.Digits(individual_digits=True), "CharDelimiterSplit": pre_tokenizers.CharDelimiterSplit("e"),
        "ByteLevel": pre_tokenizers.ByteLevel(add_prefix_space=True), "Llama 3": pre_tokenizers.Split(Regex(kinds.LLAMA3), "isolated"),
        "Qwen 2": pre_tokenizers.Split(Regex(kinds.QWEN2), "isolated"), "o200k": pre_tokenizers.Split(Regex(kinds.O200K), "isolated"),
        "ByteLevel then Split": pre_tokenizers.Sequence([pre_tokenizers.ByteLevel(), pre_tokenizers.Split("\u0120", "merged_with_next")]),
        r"classes": pre_tokenizers.Split(Regex(r"\w+(?=\d)|\W\S|[\h\d]{2}|(?m:.)\H"), "isolated"),
        "empty matches": pre_tokenizers.Split(Regex(r"[a-c]*"), "isolated")}
    for scheme in ("always", "first", "never"):
        for split in (True, False):
            variants[f"Metaspace {scheme} {split}"] = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split)
    for behavior in behaviors:
        variants[f"Punctuation {behavior}"] = pre_tokenizers.Punctuation(behavior)
        for invert in (False, True):
            variants[f"Split {behavior} {invert}"] = pre_tokenizers.Split("a", behavior, invert)
            variants[f"Split regex {behavior} {invert}"] = pre_tokenizers.Split(Regex(r"\s+|[^\w\s]"), behavior, invert)
    return variants


def stages():
    for name, normalizer in NORMALIZERS.items():
        tokenizer = letters()
        tokenizer.normalizer = normalizer
        yield name, tokenizer
    for name, pre_tokenizer in pre_tokenizer_variants().items():
        tokenizer = words()
        tokenizer.pre_tokenizer = pre_tokenizer
        yield name, tokenizer


def compare(comparison, shared):
    lines, rng, pools = kinds.corpus(shared), random.Random(2), kinds.character_pools()
    texts = shared_texts(shared) + json.loads((pathlib.Path(kinds.__file__).parent / "tokenizers/texts.json").read_text())
    drawn = [kinds.random_text(rng, pools, 40) for _ in range(100000)]
    tokenizers = {name: make(lines) for name, make in kinds.KINDS.items()}
    full = kinds.charsmap("nmt_nfkc")
    tokenizers |= {"t5, nmt_nfkc": kinds.t5(lines, full), "xlm-r, nmt_nfkc": kinds.xlm_r(lines, full)}
    stories = pathlib.Path(shared, "models/stories260k/tokenizer.json")
    if stories.exists():
        tokenizers["stories260k"] = Tokenizer.from_file(str(stories))
    for name, tokenizer in tokenizers.items():
        comparison.run(f"{name}, texts", tokenizer, texts)
        comparison.run(f"{name}, random", tokenizer, drawn)


def compare_stages(comparison):
    rng, pools = random.Random(3), kinds.character_pools()
    drawn = [kinds.random_text(rng, pools, 40) for _ in range(20000)]
    for name, tokenizer in stages():
        comparison.run(f"{name}, random", tokenizer, drawn)
    for name, tokenizer in stages():  # the same behind added tokens, where words do not begin at 0
        tokenizer.add_tokens([AddedToken("a", normalized=False), AddedToken("b", normalized=True, lstrip=True), " x"])
        comparison.run(f"{name} with added tokens, random", tokenizer, drawn[:5000])


def characters(comparison):
    """Later ones than Unicode 14's, which PCRE2 and ICU of Debian 12 do not know or not alike, are listed, not counted."""
    every = [chr(code) for code in [*range(0xd800), *range(0xe000, 0x20000), *range(0x20000, 0x33480, 9), *range(0xe0000, 0xe01f0)]]
    assigned = set(kinds.assigned_characters())
    for name, tokenizer in stages():
        failed = comparison.failed
        bad = comparison.run(f"{name}, characters", tokenizer, [f"a{c}b" for c in every], show=0)
        old = [text[1] for text in bad if text[1] in assigned]
        comparison.failed = failed + len(old)
        if bad:
            print("  of Unicode 14:", " ".join(f"{ord(c):04X}" for c in old) or "none",
                  "\n  later:", " ".join(f"{ord(t[1]):04X}" for t in bad if t[1] not in assigned)[:2000])


def speed(comparison, shared):
    text = pathlib.Path(shared, "data/corpus/kjv_bible.txt").read_text() + pathlib.Path(shared, "data/corpus/sherlock_holmes.txt").read_text()
    lines, megabytes = text.split("\n"), len(text.encode()) / 1e6
    corpus = kinds.corpus(shared)
    tokenizers = {name: kinds.KINDS[name](corpus) for name in ("gpt2", "llama3", "qwen2", "smollm2", "llama2", "t5", "bert-uncased")}
    split = pre_tokenizers.Split(Regex(kinds.LLAMA3), "isolated")
    tokenizers["llama3, 32k tokens"] = kinds.byte_level(lines, 32000, pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]), [])
    for name, tokenizer in tokenizers.items():
        for unit, texts in (("lines", lines), ("pages", [text[i:i + 20000] for i in range(0, len(text), 20000)])):
            file, data = comparison.files(tokenizer, texts)
            own = float(subprocess.run([comparison.bench, "tokenizers", "time", file, data, "5"], check=True, capture_output=True, text=True).stdout.split()[0])
            tokenizer, best = Tokenizer.from_file(str(file)), float("inf")
            for _ in range(3):
                begin = time.process_time()
                for t in texts:
                    tokenizer.encode(t)
                best = min(best, time.process_time() - begin)
            print(f"{name}, {unit}: whence {megabytes / own:.1f} MB/s, tokenizers {megabytes / best:.1f} MB/s, ratio {best / own:.1f}", flush=True)


def main():
    bench, shared, *wanted = sys.argv[1:]
    comparison = Comparison(bench)
    wanted = wanted or ["compare", "stages", "characters", "speed"]
    if "compare" in wanted:
        compare(comparison, shared)
    if "stages" in wanted:
        compare_stages(comparison)
    if "characters" in wanted:
        characters(comparison)
    if "speed" in wanted:
        speed(comparison, shared)
    sys.exit(comparison.failed > 0)


if __name__ == "__main__":
    main()
