"""Digests of what the same input gives: `python tests/security/digests.py FOLDER WORKERS`, one line for each file.

Predictions of the default model on pictures of tests/regression, and the checkpoints and states of a small training
whose pictures are loaded by so many processes.
"""

import hashlib
import json
import sys
from pathlib import Path

import cv2
import torch

TESTS = Path(__file__).parents[1]
sys.path += [str(TESTS), str(TESTS / "training")]

from predict_options import predict_options  # noqa: E402
from tiny_training import slim_networks, tiny_options  # noqa: E402

from i2l_meshnet.training import train as training  # noqa: E402
from i2l_meshnet.video import predict  # noqa: E402
from i2l_meshnet.video.options import ClipOptions  # noqa: E402


def main(folder: Path, workers: int) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    pictures = TESTS / "regression"
    facts = json.loads((pictures / "pictures.json").read_text(encoding="utf-8"))
    names = ["01.jpg", "06.jpg", "10.jpg"]
    boxes = folder.with_suffix(".json")
    boxes.parent.mkdir(parents=True, exist_ok=True)
    boxes.write_text(json.dumps({name: [facts[name]["box"]] for name in names}))
    inputs = tuple(str(pictures / name) for name in names)
    formats = ("glb", "obj")
    options = predict_options(*inputs, out=folder / "predicted", device="cpu", boxes=boxes, formats=formats)
    assert predict.run(options, ClipOptions()) == 0
    with slim_networks():
        recipe = {"pictures": 6, "end_epoch": 1, "ema": 0.9, "validation": "Toy"}
        assert training.run(tiny_options(folder / "trained", recipe, workers=workers)) == 0
    for path in sorted(folder.rglob("*.*")):
        if path.is_file() and path.suffix != ".csv":
            print(hashlib.sha256(path.read_bytes()).hexdigest(), path.relative_to(folder))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
