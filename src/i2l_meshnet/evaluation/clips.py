"""`evaluate --data real-multiview`: the clips of real people, fetched, prepared and scored in one go."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from i2l_meshnet import assets
from i2l_meshnet.bodies.base import Body
from i2l_meshnet.data.multiview import Detect, build_samples, open_clip, read_crops
from i2l_meshnet.errors import InputError
from i2l_meshnet.evaluation.multiview import evaluate_multiview
from i2l_meshnet.files import atomic_path
from i2l_meshnet.models.output import LixelNetwork
from i2l_meshnet.models.rtmpose import load_onnx

NAME = "real-multiview"


def evaluate_clips(
    network: LixelNetwork,
    body: Body,
    make_detector: Callable[[], Detect] | None,
    device: torch.device,
    batch_size: int,
    out: Path,
    weights: str,
) -> Iterator[str]:
    """Scores a network on each clip; yields the lines to print and writes `multiview.json`.

    make_detector: makes the person detector. weights: their name, for the record. Raises InputError where there is
    none or the body has no keypoint regressor, FileError where the clips cannot be fetched.
    """
    if make_detector is None:
        raise InputError(f"{NAME} needs a person detector, and none was given")
    regressor: Float[Tensor, "26 v"] | None = getattr(body, "keypoint_regressor", None)
    if regressor is None:
        raise InputError(f"{NAME} needs a network of the body 'anny', not of {body.name!r}")
    folder = assets.ensure("multiview")
    detect, estimate = make_detector(), load_onnx(assets.ensure("rtmpose")).eval()
    found = {}
    for path in sorted(path for path in folder.glob("**/Demo_*") if (path / "videos").is_dir()):
        clip = open_clip(path)
        samples = build_samples(clip, detect, estimate)
        crops = read_crops(clip, samples, network.grid.crop_size)
        report = evaluate_multiview(
            network, network.grid, body, regressor, samples.to(device), crops.to(device), batch_size
        )
        found[clip.name] = dataclasses.asdict(report)
        yield f"{clip.name}:"
        yield from report.lines()
    if not found:
        raise InputError(f"{folder} holds no clip: delete it to have it fetched again")
    path = out / "multiview.json"
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps({"weights": weights, "clips": found}, indent=1) + "\n", encoding="utf-8")
    yield f"results in {path}"
