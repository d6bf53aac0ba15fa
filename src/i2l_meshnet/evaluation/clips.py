"""`evaluate --data real-multiview`: the clips of real people, fetched, prepared and scored in one go."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from rich.table import Table
from torch import Tensor

from i2l_meshnet import assets
from i2l_meshnet.bodies.base import Body
from i2l_meshnet.data.multiview import (
    Detect,
    MultiviewClip,
    MultiviewSamples,
    build_samples,
    load_samples,
    open_clip,
    read_crops,
    save_samples,
)
from i2l_meshnet.errors import InputError
from i2l_meshnet.evaluation.multiview import evaluate_multiview
from i2l_meshnet.evaluation.report import write_table
from i2l_meshnet.io import atomic_path, read_arrays
from i2l_meshnet.models.output import LixelNetwork
from i2l_meshnet.models.rtmpose import load_onnx

NAME = "real-multiview"
VERSION = 2
"""To be raised when samples come out otherwise, so that kept ones are made again."""


def evaluate_clips(
    network: LixelNetwork,
    body: Body,
    make_detector: Callable[[], Detect] | None,
    device: torch.device,
    batch_size: int,
    out: Path,
    weights: str,
    every: int = 4,
) -> Iterator[str | Table]:
    """Scores a network on each clip; yields what to print and writes `multiview.json` and tables.

    make_detector: makes the person detector. weights: their name, for the record. every: every so-manieth frame; with
    1 there are accelerations too. What the detectors find is kept in the cache folder for the next time. Raises
    InputError where there is no detector or the body has no keypoint regressor, FileError where the clips cannot be
    fetched.
    """
    if make_detector is None:
        raise InputError(f"{NAME} needs a person detector, and none was given")
    regressor = require_regressor(body, NAME)
    folder = assets.ensure("multiview")
    found: dict[str, Any] = {}
    rows: dict[str, list[dict[str, Any]]] = {"joints": [], "views": [], "samples": []}
    for path in sorted(path for path in folder.glob("**/Demo_*") if (path / "videos").is_dir()):
        clip = open_clip(path)
        samples, crops = _prepared(clip, make_detector, every, network.grid.crop_size)
        report = evaluate_multiview(network, body, regressor, samples.to(device), crops.to(device), batch_size)
        found[clip.name] = report.to_json()
        for name, part in (
            ("joints", report.joint_rows()),
            ("views", report.view_rows()),
            ("samples", report.sample_rows()),
        ):
            rows[name] += [{"clip": clip.name, **row} for row in part]
        yield f"{clip.name}:"
        yield from report.lines()
        yield from report.tables()
    if not found:
        raise InputError(f"{folder} holds no clip: delete it to have it fetched again")
    path = out / "multiview.json"
    with atomic_path(path) as temporary:
        content = {"weights": weights, "every": every, "clips": found}
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    for name, part in rows.items():
        write_table(out / f"multiview_{name}.csv", part)
    yield f"results in {path}, tables beside it (multiview_joints.csv, multiview_views.csv, multiview_samples.csv)"


def require_regressor(body: Body, benchmark: str) -> Float[Tensor, "26 v"]:
    """What reads the detector's keypoints off the body. Raises InputError for a body that has none."""
    regressor: Float[Tensor, "26 v"] | None = getattr(body, "keypoint_regressor", None)
    if regressor is None:
        raise InputError(f"{benchmark} needs a network of the body 'anny', not of {body.name!r}")
    return regressor


def clip_samples(clip: MultiviewClip, make_detector: Callable[[], Detect], every: int) -> MultiviewSamples:
    """The people of a clip in every so-manieth frame, with their reference; kept in the cache folder."""
    kept = _samples_file(clip, every)
    if not kept.exists():
        estimate = load_onnx(assets.ensure("rtmpose")).eval()
        save_samples(build_samples(clip, make_detector(), estimate, every), kept)
    return load_samples(kept)


def _samples_file(clip: MultiviewClip, every: int) -> Path:
    facts = [VERSION, every, *(str(assets.ensure(name)) for name in ("multiview", "detector", "rtmpose"))]
    stamp = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
    return assets.cache_folder() / "benchmarks" / f"{clip.name}-{stamp}.npz"


def _prepared(
    clip: MultiviewClip, make_detector: Callable[[], Detect], every: int, crop_size: tuple[int, int]
) -> tuple[MultiviewSamples, UInt8[Tensor, "b 3 h w"]]:
    """Samples and crops of a clip, kept in the cache folder."""
    kept = _samples_file(clip, every)
    samples = clip_samples(clip, make_detector, every)
    cut = kept.with_name(f"{kept.stem}-{crop_size[0]}x{crop_size[1]}.npz")
    try:
        crops = torch.from_numpy(read_arrays(cut)["crops"])
        if crops.shape == (len(samples.view), 3, *crop_size) and crops.dtype == torch.uint8:
            return samples, crops
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there, or damaged: made anew
    crops = read_crops(clip, samples, crop_size, every)
    with atomic_path(cut) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, crops=crops.numpy())
    return samples, crops
