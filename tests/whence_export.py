"""What python/whence_export.py refuses to write, without torch: a module of that name that holds nothing stands for it."""

import pathlib
import sys
import types

sys.dont_write_bytecode = True
sys.modules["torch"] = types.ModuleType("torch")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "python"))
import whence_export  # noqa: E402


def refusal(shape, classes=None):
    try:
        whence_export._check_output(shape, classes)
    except ValueError as error:
        return str(error)
    return ""


assert "3 classes, and the model has 2 outputs" in refusal([2, 2], ["a", "b", "c"])
assert "an output [] for 2 examples" in refusal([]) and 'reduction="none"' in refusal([])
assert "an output [1, 5] for 2 examples" in refusal([1, 5])
for shape, classes in (([2, 3], ["a", "b", "c"]), ([2, 1], ["a", "b"]), ([2, 7, 9], ["a"]), ([2], None), ([2, 3], None)):
    assert refusal(shape, classes) == "", (shape, classes)
