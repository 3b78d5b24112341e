#!/usr/bin/env python3
"""The data of run.sh. parts.py data FOLDER OUT writes all tasks' parts into OUT; parts.py drop PART BY COUNT TO writes PART without COUNT
examples as TO: those whose scores in the folder BY (scores.csv of `whence score`) speak most against the queries' mean, or, by
NAME-random-SEED, any."""
import csv
import gzip
import pathlib
import random
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import small_gpt  # noqa: E402

# which classes, and how many pictures, of the training file but for those behind the bar
CIFAR = {"pretrain": ([2, 6], 240), "finetune": ([1, 4], 160), "few": ([1, 4], 8), "against": ([1, 4], 40), "test": ([1, 4], 792)}
MNIST = {"pretrain": ([0, 1, 2, 3], 400), "finetune": ([4, 5, 6, 7], 120), "few": ([4, 5, 6, 7], 10), "against": ([4, 5, 6, 7], 40),
         "test": ([4, 5, 6, 7], 1000)}
ASKED = ["Person", "Location", "Number"]
TREC = {"pretrain": (None, 200), "finetune": (ASKED, 90), "few": (ASKED, 8), "against": (ASKED, 40), "test": (ASKED, 1000)}  # None: any
OF_TEST = ("few", "against", "test")  # one after the other; "test" goes on with what fine-tuning leaves of the training file


def read(part):
    """[(label, pixels or text)] of a part that lies here."""
    if part.startswith("trec"):
        return read_texts(f"{part}.tsv")
    if part.startswith("cifar"):
        data = pathlib.Path(f"{part}.bin").read_bytes()
        return [(data[i], data[i + 1:i + 3073]) for i in range(0, len(data), 3073)]
    return read_idx(f"{part}-images", f"{part}-labels", open)


def read_texts(path):
    rows = [line.split("\t") for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines()]
    label = rows[0].index("label_name")
    return [(row[label], row[-1]) for row in rows[1:]]


def read_idx(images, labels, opened):
    with opened(images, "rb") as file:
        pixels = file.read()[16:]
    with opened(labels, "rb") as file:
        numbers = file.read()[8:]
    return [(label, pixels[784 * i:784 * (i + 1)]) for i, label in enumerate(numbers)]


def write(part, examples):
    if "trec" in part.name:
        rows = ("label_name", "text"), *examples
        pathlib.Path(f"{part}.tsv").write_text("".join(f"{label}\t{text}\n" for label, text in rows), encoding="utf-8")
    elif "cifar" in part.name:
        pathlib.Path(f"{part}.bin").write_bytes(b"".join(bytes([label]) + pixels for label, pixels in examples))
    else:
        pathlib.Path(f"{part}-images").write_bytes(struct.pack(">4i", 2051, len(examples), 28, 28) + b"".join(p for _, p in examples))
        pathlib.Path(f"{part}-labels").write_bytes(struct.pack(">2i", 2049, len(examples)) + bytes(label for label, _ in examples))


def data(folder, out):
    images = folder / "image"

    def cifar(name):
        bytes_ = gzip.open(images / name).read()
        return [(bytes_[i], bytes_[i + 1:i + 3073]) for i in range(0, len(bytes_), 3073)]

    def mnist(part):
        return read_idx(images / f"mnist-{part}-images-idx3-ubyte.gz", images / f"mnist-{part}-labels-idx1-ubyte.gz", gzip.open)

    asked, answers = (read_texts(folder / "textcls" / f"trec_{part}.tsv") for part in ("train", "test"))
    before, asked = asked[:TREC["pretrain"][1]], asked[TREC["pretrain"][1]:]  # what is pretrained on is no other part's
    sources = {
        "cifar": (CIFAR, cifar("cifar10_train_4000.bin.gz"), cifar("cifar10_test_1000.bin.gz")),
        "mnist": (MNIST, mnist("train20k"), mnist("t10k")),
        "trec": (TREC, asked, answers),
    }
    known = [text for _, text in before + [row for row in asked if row[0] in ASKED][:TREC["finetune"][1]]]
    small_gpt.write(out / "trec-base", known, 24, 2)
    for task, (parts, training, testing) in sources.items():
        used = 0
        for part, (classes, count) in parts.items():
            if classes is None:
                write(out / f"{task}-{part}", before)
                continue
            of_train, of_test = ([example for example in source if example[0] in classes] for source in (training, testing))
            source = of_test[used:] if part in OF_TEST else of_train
            if part in OF_TEST:
                used += count
            if part == "test":
                source += of_train[parts["finetune"][1]:]
            write(out / f"{task}-{part}", source[:count])


def drop(part, by, count, to):
    examples = read(part)
    if "-random-" in by:
        order = random.Random(int(by.rsplit("-", 1)[1])).sample(range(len(examples)), len(examples))
    else:
        with open(f"{by}/scores.csv", newline="", encoding="utf-8") as file:
            sums = [sum(float(value) for name, value in row.items() if name.startswith("query")) for row in csv.DictReader(file)]
        order = sorted(range(len(examples)), key=lambda i: -sums[i])  # a loss that rises with an example's weight: it speaks against
    dropped = set(order[:int(count)])
    write(pathlib.Path(to), [example for i, example in enumerate(examples) if i not in dropped])


if __name__ == "__main__":
    if sys.argv[1] == "data":
        data(pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))
    else:
        drop(*sys.argv[2:])
