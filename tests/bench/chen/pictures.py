#!/usr/bin/env python3
"""The pictures of run.sh. pictures.py data FOLDER OUT writes both tasks' parts into OUT; pictures.py drop PART BY COUNT TO writes PART
without COUNT pictures as TO: those whose scores in the folder BY (scores.csv of `whence score`) speak most against the queries' mean, or,
by NAME-random-SEED, any."""
import csv
import gzip
import pathlib
import random
import struct
import sys

# which classes, and how many pictures, of the training file but for those behind the bar
CIFAR = {"pretrain": ([2, 6], 240), "finetune": ([1, 4], 160), "few": ([1, 4], 8), "against": ([1, 4], 40), "test": ([1, 4], 792)}
MNIST = {"pretrain": ([0, 1, 2, 3], 400), "finetune": ([4, 5, 6, 7], 120), "few": ([4, 5, 6, 7], 10), "against": ([4, 5, 6, 7], 40),
         "test": ([4, 5, 6, 7], 1000)}
OF_TEST = ("few", "against", "test")  # one after the other; "test" goes on with what fine-tuning leaves of the training file


def read(part):
    """[(label, pixels)] of a part that lies here."""
    if part.startswith("cifar"):
        data = pathlib.Path(f"{part}.bin").read_bytes()
        return [(data[i], data[i + 1:i + 3073]) for i in range(0, len(data), 3073)]
    return read_idx(f"{part}-images", f"{part}-labels", open)


def read_idx(images, labels, opened):
    with opened(images, "rb") as file:
        pixels = file.read()[16:]
    with opened(labels, "rb") as file:
        numbers = file.read()[8:]
    return [(label, pixels[784 * i:784 * (i + 1)]) for i, label in enumerate(numbers)]


def write(part, pictures, cifar):
    if cifar:
        pathlib.Path(f"{part}.bin").write_bytes(b"".join(bytes([label]) + pixels for label, pixels in pictures))
        return
    pathlib.Path(f"{part}-images").write_bytes(struct.pack(">4i", 2051, len(pictures), 28, 28) + b"".join(p for _, p in pictures))
    pathlib.Path(f"{part}-labels").write_bytes(struct.pack(">2i", 2049, len(pictures)) + bytes(label for label, _ in pictures))


def data(folder, out):
    def cifar(name):
        bytes_ = gzip.open(folder / name).read()
        return [(bytes_[i], bytes_[i + 1:i + 3073]) for i in range(0, len(bytes_), 3073)]

    sources = {
        "cifar": (cifar("cifar10_train_4000.bin.gz"), cifar("cifar10_test_1000.bin.gz")),
        "mnist": tuple(read_idx(folder / f"mnist-{part}-images-idx3-ubyte.gz", folder / f"mnist-{part}-labels-idx1-ubyte.gz", gzip.open)
                       for part in ("train20k", "t10k")),
    }
    for task, parts in (("cifar", CIFAR), ("mnist", MNIST)):
        used = 0
        for part, (classes, count) in parts.items():
            of_train, of_test = ([picture for picture in source if picture[0] in classes] for source in sources[task])
            source = of_test[used:] if part in OF_TEST else of_train
            if part in OF_TEST:
                used += count
            if part == "test":
                source += of_train[parts["finetune"][1]:]
            write(out / f"{task}-{part}", source[:count], task == "cifar")


def drop(part, by, count, to):
    pictures = read(part)
    if "-random-" in by:
        order = random.Random(int(by.rsplit("-", 1)[1])).sample(range(len(pictures)), len(pictures))
    else:
        with open(f"{by}/scores.csv", newline="", encoding="utf-8") as file:
            sums = [sum(float(value) for name, value in row.items() if name.startswith("query")) for row in csv.DictReader(file)]
        order = sorted(range(len(pictures)), key=lambda i: -sums[i])  # a loss that rises with a picture's weight: it speaks against
    dropped = set(order[:int(count)])
    write(to, [picture for i, picture in enumerate(pictures) if i not in dropped], part.startswith("cifar"))


if __name__ == "__main__":
    if sys.argv[1] == "data":
        data(pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))
    else:
        drop(*sys.argv[2:])
