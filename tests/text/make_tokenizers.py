#!/usr/bin/env python3
"""Makes tests/text/tokenizers: small tokenizers of every kind, texts, and what the `tokenizers` package makes of them.

    tests/text/make_tokenizers.py SHARED

SHARED holds data/, the texts to train on. Wants the packages tokenizers, sentencepiece and protobuf.
NAME.json is a tokenizer. texts.json is a list of texts. NAME.expected.gz has a line for each of them, a JSON list of three: id, begin
less the end before, and length of every token, in bytes of the text; the text decoded without special tokens, null for the text
itself; and with them, null for the same as without.
"""
import gzip
import json
import pathlib
import random
import sys
import tempfile

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def corpus(shared):
    """Lines to train on: English, French, German, Spanish."""
    data = pathlib.Path(shared) / "data"
    lines = (data / "corpus/tinyshakespeare.txt").read_text().splitlines()[:4000]
    lines += (data / "corpus/sherlock_holmes.txt").read_text().splitlines()[:4000]
    lines += [line.split("\t")[-1] for line in (data / "textcls/sms_spam.tsv").read_text().splitlines()[1:1500]]
    for language in ("french", "german", "spanish"):
        lines += (data / f"icl_pairs/english-{language}.tsv").read_text().splitlines()[1:1500]
    return [line for line in lines if line]


def template(tokenizer, single, pair, *tokens):
    return processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[(token, tokenizer.token_to_id(token)) for token in tokens])


def byte_level(lines, size, pre_tokenizer, special, alphabet=None):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet() if alphabet is None else alphabet
    tokenizer.train_from_iterator(lines, trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=sorted(alphabet), show_progress=False))
    return tokenizer


def changed(tokenizer, change):
    """The tokenizer whose json is as `change` leaves it."""
    parts = json.loads(tokenizer.to_str())
    change(parts)
    return Tokenizer.from_str(json.dumps(parts))


def gpt2(lines):
    tokenizer = byte_level(lines, 600, pre_tokenizers.ByteLevel(add_prefix_space=False), ["<|endoftext|>"])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def llama3(lines):
    split = pre_tokenizers.Split(Regex(LLAMA3), "isolated")
    tokenizer = byte_level(lines, 700, pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]),
        ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"])
    tokenizer.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=True), template(
            tokenizer, "<|begin_of_text|> $A", "<|begin_of_text|> $A <|begin_of_text|>:1 $B:1", "<|begin_of_text|>")])

    def some_without_merges(parts):  # only ignore_merges makes tokens of these
        parts["model"]["ignore_merges"] = True
        parts["model"]["merges"] = parts["model"]["merges"][:-60]
    return changed(tokenizer, some_without_merges)


def qwen2(lines):
    tokenizer = byte_level(lines, 600, pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(QWEN2), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]),
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def smollm2(lines):
    """Its vocabulary lacks some bytes, for which the unknown token stands."""
    alphabet = [letter for letter in pre_tokenizers.ByteLevel.alphabet() if not 0x100 <= ord(letter) < 0x108]
    tokenizer = byte_level(lines, 600, pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]),
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], alphabet)
    return changed(tokenizer, lambda parts: parts["model"].update(unk_token="<|endoftext|>"))


def roberta(lines):
    tokenizer = byte_level(lines, 600, pre_tokenizers.ByteLevel(add_prefix_space=True), ["<s>", "<pad>", "</s>", "<unk>"])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=True)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False, special=True)])
    return tokenizer


def llama2(lines):
    """A SentencePiece model of byte-pair merges, as converters lay it out."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")  # to train with alone
    tokenizer.train_from_iterator(lines, trainers.BpeTrainer(
        vocab_size=800, special_tokens=["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)],
        limit_alphabet=80, show_progress=False))
    tokenizer.decoder = decoders.Sequence([
        decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.post_processor = template(tokenizer, "<s> $A", "<s> $A <s>:1 $B:1", "<s>")

    def as_published(parts):
        parts["pre_tokenizer"] = None
        parts["added_tokens"] = parts["added_tokens"][:3]
    return changed(tokenizer, as_published)


def mistral(lines):
    """The same with Metaspace, unfused unknown tokens and no bytes."""
    tokenizer = llama2(lines)

    def as_published(parts):
        model = parts["model"]
        bytes_ = {f"<0x{byte:02X}>" for byte in range(256)}
        model["vocab"] = {token: i for i, token in enumerate(t for t in model["vocab"] if t not in bytes_)}
        model.update(fuse_unk=False, byte_fallback=False)
        parts["normalizer"] = None
        parts["pre_tokenizer"] = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False}
        parts["decoder"]["decoders"].pop(1)
    return changed(tokenizer, as_published)


def clip(lines):
    """Merges with a suffix for the ends of words, and a prefix for what is inside."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>", continuing_subword_prefix="@@"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(
        Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), "removed", invert=True)])
    tokenizer.train_from_iterator(lines, trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<unk>", "<start>", "<end>"], end_of_word_suffix="</w>", continuing_subword_prefix="@@",
        limit_alphabet=60, show_progress=False))
    tokenizer.decoder = decoders.BPEDecoder("</w>")
    tokenizer.post_processor = processors.BertProcessing(("<end>", 2), ("<start>", 1))
    return tokenizer


def charsmap(rule):
    """The map that SentencePiece compiles from its normalization rule of that name, or from a file of rules."""
    rules = {"normalization_rule_tsv": rule} if rule.endswith(".tsv") else {"normalization_rule_name": rule}
    with tempfile.TemporaryDirectory() as folder:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["a few words to train on"] * 10), model_prefix=f"{folder}/m", vocab_size=30,
            hard_vocab_limit=False, minloglevel=2, **rules)
        model = sentencepiece_model_pb2.ModelProto()
        model.ParseFromString(pathlib.Path(f"{folder}/m.model").read_bytes())
    return model.normalizer_spec.precompiled_charsmap


def small_charsmap():
    """A few rules of each sort: one to one, one to many, many to one, and to nothing."""
    rules = {"\t": " ", "\n": " ", "\r": " ", "\u00a0": " ", "\u3000": " ", "\u200b": " ", "\u0001": "", "\u00ad": "",
             "\ufb01": "fi", "\u2026": "...", "\u00bd": "1\u20442", "\u2122": "TM", "e\u0301": "\u00e9", "a\u0308": "\u00e4",
             "\u212b": "\u00c5", "\uff21": "A", "\uff42": "b", "\u304b\u3099": "\u304c", "\u3131": "\u1100", "\u2103": "\u00b0C",
             "\U0001d400": "A", "\U0001f100": "0.", "\u0344": "\u0308\u0301", "\ufdfa": "\u0635\u0644\u0649"}
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as file:
        for old, new in rules.items():
            file.write(" ".join(f"{ord(c):04X}" for c in old) + "\t" + " ".join(f"{ord(c):04X}" for c in new) + "\n")
        file.flush()
        return charsmap(file.name)


def unigram(lines, size, special, unknown):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(lines, trainers.UnigramTrainer(
        vocab_size=size, special_tokens=special, unk_token=unknown, show_progress=False))
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def t5(lines, precompiled=None):
    tokenizer = unigram(lines, 500, ["<pad>", "</s>", "<unk>"], "<unk>")
    tokenizer.normalizer = normalizers.Precompiled(small_charsmap() if precompiled is None else precompiled)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.post_processor = template(tokenizer, "$A </s>", "$A </s> $B </s>", "</s>")
    tokenizer.add_special_tokens([f"<extra_id_{i}>" for i in range(3)])
    return tokenizer


def xlm_r(lines, precompiled=None):
    tokenizer = unigram(lines, 500, ["<s>", "<pad>", "</s>", "<unk>"], "<unk>")
    tokenizer.normalizer = normalizers.Sequence([
        normalizers.Precompiled(small_charsmap() if precompiled is None else precompiled),
        normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), "\u2581")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.post_processor = template(tokenizer, "<s> $A </s>", "<s> $A </s> </s> $B </s>", "<s>", "</s>")
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=True, special=True)])

    def add_bytes(parts):
        parts["model"]["byte_fallback"] = True
        parts["model"]["vocab"] += [[f"<0x{byte:02X}>", -20.0] for byte in range(256)]
        for token in parts["added_tokens"]:
            token["id"] += 256 if token["content"] == "<mask>" else 0
    tokenizer = changed(tokenizer, add_bytes)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first")])
    return tokenizer


def albert(lines):
    tokenizer = unigram(lines, 500, ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"], "<unk>")
    tokenizer.normalizer = normalizers.Sequence([
        normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.Nmt(), normalizers.NFKD(),
        normalizers.StripAccents(), normalizers.Lowercase(), normalizers.Strip()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.post_processor = template(tokenizer, "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", "[CLS]", "[SEP]")
    return tokenizer


def bert(lines, lowercase):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=30))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(lines, trainers.WordPieceTrainer(
        vocab_size=600, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False))
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = template(tokenizer, "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", "[CLS]", "[SEP]")
    return tokenizer


def word_level(lines):
    """With added tokens of every sort."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(lines, trainers.WordLevelTrainer(
        vocab_size=500, special_tokens=["<unk>", "<pad>"], show_progress=False))
    tokenizer.add_special_tokens([AddedToken("<left>", lstrip=True), AddedToken("<right>", rstrip=True),
                                  AddedToken("<both>", lstrip=True, rstrip=True), AddedToken("<one>", single_word=True)])
    tokenizer.add_tokens([AddedToken("and", single_word=True), AddedToken("\ufb01x", normalized=True), AddedToken("abab"), AddedToken("ab"),
                          AddedToken("\u00e9t\u00e9", lstrip=True, rstrip=True, normalized=False)])
    return tokenizer


KINDS = {"gpt2": gpt2, "llama3": llama3, "qwen2": qwen2, "smollm2": smollm2, "roberta": roberta, "llama2": llama2, "mistral": mistral,
         "clip": clip, "t5": t5, "xlm-r": xlm_r, "albert": albert, "bert-uncased": lambda lines: bert(lines, True),
         "bert-cased": lambda lines: bert(lines, False), "word-level": word_level}

AWKWARD = """
 a|  a|a |a  b   c|   |\t|\n|\r\n|a\r\n\r\nb|\n\n\n a\n|a\u00a0b\u3000c|\u2003\u2028x\u2029y\u0085z|\u180ea\u200bb\ufeffc\u2060d
don't we'll I'm they've HE'D it\u2019s 'S 'LL 'Re|can''t ''s|\u017f'\u017f \u212a'\u212a|x's'sx
1 12 123 1234 12345 \u0661\u0662\u0663 \u00bd \u2167 \u4e00\u4e8c 3.14 1,000 2\u00b2|a1b2c3|\u0967\u0968\u0969\u096a\u096b
e\u0301 \u00e9 a\u0308\u0323 a\u0323\u0308 \u1e69 s\u0323\u0307|\u0301a|\u0344|\u0f73\u0301|\u1100\u1161\u11a8 \uac01 \uac00\u11a8|\u0958 \u0915\u093c
\ufb01\ufb02\u2026\u2122\u212b\u2103\ufdfa\u3131\u304b\u3099|\uff21\uff22\uff43 \uff0c|\U0001d400\U0001d7ce\U0001f100|\u2460\u00b5\u00aa
\u0130\u0131I\u0307 \u01c5 \u1e9e \u00df \u03a3\u03c3\u03c2 \u03a3|\u10a0\u2d00 \u13a0\uab70|STRASSE Stra\u00dfe
\u4e2d\u6587\u5b57\u7b26|\u4e2dabc\u6587|\u3053\u3093\u306b\u3061\u306f\u4e16\u754c|\ud55c\uad6d\uc5b4 \ud14d\uc2a4\ud2b8|\U00020000\U0002a700\uf900
\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645|\u05e9\u05b8\u05dc\u05d5\u05b9\u05dd|\u0928\u092e\u0938\u094d\u0924\u0947|\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35|\u0bb5\u0ba3\u0b95\u0bcd\u0b95\u0bae\u0bcd
\U0001f642|\U0001f469\u200d\U0001f469\u200d\U0001f467|\U0001f1eb\U0001f1f7\U0001f1e9|\U0001f44d\U0001f3fd ok|\u2764\ufe0f|1\ufe0f\u20e3
\x00|a\x00b|\x01\x02\x7f\x80\x9f|\u00ad\u200d\u200c|\ufffd\ufffe\uffff|\U000e0001\U0010ffff|\ue000\uf8ff
!|!!!|a!b?c|...|--\u2014\u2013|\u00bfqu\u00e9? \u00a1s\u00ed!|"quoted" \u201cquoted\u201d \u00abx\u00bb|$5 \u20ac6 +1 <a> ^_` ~|\u166d\u104a\u2e3a
_a_b_ a_b __|a-b a\u2011b|http://example.org/a?b=c&d#e|me@example.org|#tag @name|C:\\path\\file|x = y*z/(w%v)|{"k": [1, 2]}
\u2581|\u2581\u2581a \u2581b|a\u2581b|\u0120a\u010ab|<0x41>|<0x0A>x|##a ##ing|a</w>|@@a
<s>|</s>|<s> a</s>b|<unk>|x<unk>y|[CLS] a [SEP] b [MASK] c|a  <mask>  b|<mask>.<mask>| <mask>|<|endoftext|>a<|endoftext|>|<|im_start|>user\nhi<|im_end|>\n
<|begin_of_text|>a <|eot_id|>|<extra_id_0>a <extra_id_1> b|<|endoftext|<|endoftext|>|<pad><pad>
a <left> b <right> c <both> d|  <both>  <both>  |<one>|a<one>b|a <one> b|<left><right>|  <left>\t<right>\n |sand and band, and|\ufb01x fix Fix|abababab abab ab ababx
\u00e9t\u00e9|l'\u00e9t\u00e9 |  \u00e9t\u00e9  e\u0301te\u0301
supercalifragilisticexpialidocious|aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa|abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg
\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9
do not n 't i 'm he 's we 've you 're ' quoted '|Hello , world ! How are you ?
"""


def random_text(rng, pools, longest=24):
    """Characters of a few pools at a time."""
    chosen = rng.sample(pools, rng.randint(1, len(pools)))
    return "".join(rng.choice(rng.choice(chosen)) for _ in range(rng.randint(0, longest)))


def character_pools():
    """For random_text(): every character, and those that matter to tokenizers."""
    assigned = assigned_characters()
    return [assigned, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789", " \t\n\r\u00a0\u3000\u2581",
            "'.,!?-_<>|[]()\"#@/", [c for c in assigned if 0xc0 <= ord(c) < 0x370], [c for c in assigned if 0x300 <= ord(c) < 0x370]]


def assigned_characters():
    """Characters that Unicode 14 has, so that libraries agree on them: the Python that runs this knows no later ones."""
    import unicodedata
    assert unicodedata.unidata_version == "14.0.0", "run this with Python 3.11"
    return [chr(code) for code in range(0x110000)
            if unicodedata.category(chr(code)) not in ("Cn", "Cs", "Co") or code in (0xe000, 0xf8ff, 0x10ffff)]


def make_texts(shared, lines):
    rng = random.Random(1)
    texts = ["", " "] + [part for line in AWKWARD.strip("\n").split("\n") for part in split_awkward(line)]
    texts += [line[:100] for line in rng.sample(lines, 100)]
    wiki = (pathlib.Path(shared) / "data/corpus/wikitext2_test.txt").read_text().splitlines()
    texts += [line[:160] for line in rng.sample([line for line in wiki if len(line) > 20], 40)]
    pools = character_pools()
    return texts + [random_text(rng, pools) for _ in range(160)]


def split_awkward(line):
    """At each | that is no part of a token like <|this|>."""
    parts, token = [""], False
    for i, c in enumerate(line):
        if c == "|" and not token and line[i - 1:i] != "<":
            parts.append("")
            continue
        if c == "|":
            token = line[i - 1:i] == "<" and "|>" in line[i + 1:]
        parts[-1] += c
    return [part for part in parts if part]


def byte_offsets(text, offsets):
    """What the package counts in characters, in bytes."""
    places = [0]
    for c in text:
        places.append(places[-1] + len(c.encode()))
    return [(places[begin], places[end]) for begin, end in offsets]


def expected_line(tokenizer, text):
    encoding = tokenizer.encode(text)
    numbers, before = [], 0
    for token, (begin, end) in zip(encoding.ids, byte_offsets(text, encoding.offsets)):
        numbers += [token, begin - before, end - begin]
        before = end
    decoded = tokenizer.decode(encoding.ids)
    whole = tokenizer.decode(encoding.ids, skip_special_tokens=False)
    return json.dumps([numbers, None if decoded == text else decoded, None if whole == decoded else whole], separators=(",", ":"))


def main():
    shared = sys.argv[1]
    folder = pathlib.Path(__file__).parent / "tokenizers"
    lines = corpus(shared)
    texts = make_texts(shared, lines)
    (folder / "texts.json").write_text(json.dumps(texts, indent=0) + "\n")
    for name, make in KINDS.items():
        tokenizer = make(lines)
        (folder / f"{name}.json").write_text(tokenizer.to_str(pretty=False) + "\n")
        expected = "".join(expected_line(tokenizer, text) + "\n" for text in texts)
        (folder / f"{name}.expected.gz").write_bytes(gzip.compress(expected.encode(), mtime=0))
        print(name, tokenizer.get_vocab_size())


if __name__ == "__main__":
    main()
