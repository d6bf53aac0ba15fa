"""`evaluate --data real-multiview`: fetch, prepare and score clips of real people."""

import contextlib
import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from rich.table import Table
from torch import Tensor

from i2l_meshnet import assets
from i2l_meshnet.data.multiview import (
    KEYPOINT_ROWS,
    MultiviewClip,
    MultiviewSamples,
    build_samples,
    load_samples,
    open_clip,
    read_crops,
    save_samples,
)
from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.evaluation.benchmark import WHOLE, Benchmark, Share, System, keypoint_regressor
from i2l_meshnet.evaluation.multiview import lixels_to_joints, report
from i2l_meshnet.evaluation.report import write_json, write_table
from i2l_meshnet.io import atomic_path, read_arrays, reading
from i2l_meshnet.models.fitting import camera_params
from i2l_meshnet.models.rtmpose import load_onnx
from i2l_meshnet.prediction.detect import PersonDetector

NAME = "real-multiview"
VERSION = 2
"""Increase it when detection, crops or triangulation change, to invalidate cached samples."""


@dataclasses.dataclass(frozen=True)
class ClipBatch:
    """Samples of a clip, and their RGB crops."""

    clip: str
    samples: MultiviewSamples
    crops: UInt8[Tensor, "b 3 h w"]

    def __len__(self) -> int:
        return len(self.crops)


class RealMultiview(Benchmark[ClipBatch]):
    """Scores the lixel mesh and the parametric mesh on real people.

    The detector's joints are regressed from both meshes, and 12 of them are scored relative to the mean of the hips.
    The lixel mesh is converted to metres with the reference's root depth. The parametric mesh needs no depth.
    """

    def __init__(self, system: System, every: int = 4, batch_size: int = 25) -> None:
        """every: use every N-th frame. With 1, acceleration errors are reported too.

        Detections are stored in the cache folder. Raise InputError if the body has no keypoint regressor,
        FileError if the clips cannot be fetched.
        """
        self._system, self._every, self._batch_size = system, every, batch_size
        self._rows = keypoint_regressor(system.body, NAME)[list(KEYPOINT_ROWS)]
        folder = assets.ensure("multiview")
        clips = [open_clip(path) for path in sorted(folder.glob("**/Demo_*")) if (path / "videos").is_dir()]
        if not clips:
            raise InputError(f"{folder} contains no clip: delete it, then it is fetched again")
        self._clips = {clip.name: (clip, clip_samples(clip, every)) for clip in clips}
        self.identity = {"data": NAME}
        self._joints: dict[str, dict[str, list[Float[Tensor, "b 12 3"]]]] = {name: {} for name in self._clips}

    def __len__(self) -> int:
        return sum(len(samples.view) for _, samples in self._clips.values())

    def batches(self, share: Share = WHOLE) -> Iterator[ClipBatch]:
        every = [
            (name, start)
            for name, (_, samples) in self._clips.items()
            for start in range(0, len(samples.view), self._batch_size)
        ]
        for name, starts in itertools.groupby(share.of(every), lambda batch: batch[0]):
            clip, samples = self._clips[name]
            crops = clip_crops(clip, samples, self._system.network.grid.crop_size, self._every)
            for _, start in starts:
                part = slice(start, start + self._batch_size)
                yield ClipBatch(name, samples[part], crops[part])

    def score(self, batch: ClipBatch) -> None:
        network, grid = self._system.network, self._system.network.grid
        samples = batch.samples.to(self._system.device)
        output = network(batch.crops.to(self._system.device).float() / 255)
        found = {"lixel": lixels_to_joints(output.vertices.float(), self._rows, grid, samples)}
        if output.params is not None:
            params = camera_params(network, output, samples.crop(grid.crop_size), samples.camera)
            found["param"] = self._rows @ self._system.body(params).vertices
        for kind, joints in found.items():
            self._joints[batch.clip].setdefault(kind, []).append(joints.cpu())

    def collected(self) -> dict[str, dict[str, list[Tensor]]]:
        return self._joints

    def merge(self, parts: Sequence[dict[str, dict[str, list[Tensor]]]]) -> None:
        for clips in parts:
            for name, found in clips.items():
                for kind, joints in found.items():
                    self._joints[name].setdefault(kind, []).extend(joints)

    def write(self, folder: Path) -> list[str | Table]:
        lines: list[str | Table] = []
        content: dict[str, Any] = {}
        rows: dict[str, list[dict[str, Any]]] = {"joints": [], "views": [], "samples": []}
        for name, (_, samples) in self._clips.items():
            found = report(samples, {kind: torch.cat(parts) for kind, parts in self._joints[name].items()})
            content[name] = found.to_json()
            parts = {"joints": found.joint_rows(), "views": found.view_rows(), "samples": found.sample_rows()}
            for table, part in parts.items():
                rows[table] += [{"clip": name, **row} for row in part]
            lines += [f"{name}:", *found.lines(), *found.tables()]
        path = folder / "multiview.json"
        write_json(path, {**self.identity, "weights": self._system.weights, "every": self._every, "clips": content})
        for table, part in rows.items():
            write_table(folder / f"multiview_{table}.csv", part)
        tables = ", ".join(f"multiview_{table}.csv" for table in rows)
        return [*lines, f"results in {path}, tables beside it ({tables})"]


def clip_samples(clip: MultiviewClip, every: int) -> MultiviewSamples:
    """The people of a clip in every N-th frame, with their reference. Stored in the cache folder."""
    path = _samples_file(clip, every)
    if not path.exists():
        estimate = load_onnx(assets.ensure("rtmpose")).eval()
        save_samples(build_samples(clip, PersonDetector(assets.ensure("detector")), estimate, every), path)
    return load_samples(path)


def clip_crops(
    clip: MultiviewClip, samples: MultiviewSamples, crop_size: tuple[int, int], every: int
) -> UInt8[Tensor, "b 3 h w"]:
    """The samples' crops. Stored in the cache folder under a name that depends on the crops' positions."""
    affine = samples.crop(crop_size).affine
    path = _samples_file(clip, every)
    crops_path = path.with_name(f"{path.stem}-{crop_size[0]}x{crop_size[1]}-{_digest(affine.tolist())}.npz")
    with contextlib.suppress(FileError), reading(crops_path, "a file of crops"):
        crops = torch.from_numpy(read_arrays(crops_path)["crops"])
        if crops.shape == (len(affine), 3, *crop_size) and crops.dtype == torch.uint8:
            return crops
    crops = read_crops(clip, samples, crop_size, every)
    with atomic_path(crops_path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, crops=crops.numpy())
    return crops


def _samples_file(clip: MultiviewClip, every: int) -> Path:
    files = [str(assets.ensure(name)) for name in ("multiview", "detector", "rtmpose")]
    stamp = _digest([VERSION, every, *files])
    return assets.cache_folder() / "benchmarks" / f"{clip.name}-{stamp}.npz"


def _digest(facts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
