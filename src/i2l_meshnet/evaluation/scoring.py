"""Meshes against the truth, a batch at a time, on the device: from lixels to the numbers of a protocol."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from i2l_meshnet.data.cache import read_json
from i2l_meshnet.data.dataset import Sample
from i2l_meshnet.data.targets import TargetBuilder
from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.evaluation.protocols import Metric
from i2l_meshnet.geometry.alignment import similarity_align
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.io import reading
from i2l_meshnet.skeletons import Skeleton
from i2l_meshnet.tensors import TensorDataclass

POINTS_TOGETHER = 2**17
"""Points that `ScoreKeeper` scores at once: enough for the calls to cost little, few enough for a processor's cache."""


@dataclasses.dataclass(frozen=True)
class Meshes(TensorDataclass):
    """What is scored. lixel: on the network's grid. param: metres, anywhere in space; None in the lixel stage."""

    lixel: Float[Tensor, "*b v 3"]
    param: Float[Tensor, "*b v 3"] | None = None


@dataclasses.dataclass(frozen=True)
class Points(TensorDataclass):
    """What is scored of a mesh, or the truth for it; metres.

    root: camera frame. joints: the scored ones, and vertices (None where they are not scored), relative to the root.
    """

    root: Float[Tensor, "*b 3"]
    joints: Float[Tensor, "*b j 3"]
    vertices: Float[Tensor, "*b v 3"] | None


@dataclasses.dataclass(frozen=True)
class Truth(TensorDataclass):
    """points: zero where not known. known: whether the sample has a truth."""

    points: Points
    known: Bool[Tensor, "*b"]


@dataclasses.dataclass(frozen=True)
class Scores(TensorDataclass):
    """metrics: one column per metric of the protocol. offsets: of the scored joints from the truth, m. NaN without."""

    metrics: Float[Tensor, "*b m"]
    offsets: Float[Tensor, "*b j 3"]


class JointReader(nn.Module):
    """Reads the root and the scored joints off meshes.

    Regressors are sparse: only the vertices that some joint depends on are looked at. `vertices` are their
    numbers, in the order in which they are to be given.
    """

    weights: Float[Tensor, "r n"]
    vertices: Int[Tensor, "n"]

    def __init__(self, regressor: Float[Tensor, "r v"], whole: bool) -> None:
        """regressor: rows of the root and of the scored joints. whole: whether all vertices are given and kept."""
        super().__init__()
        used = torch.arange(regressor.shape[1]) if whole else (regressor != 0).any(0).nonzero()[:, 0]
        self._whole = whole
        self.register_buffer("vertices", used, persistent=False)
        self.register_buffer("weights", regressor[:, used].contiguous(), persistent=False)

    def pick(self, vertices: Float[Tensor, "b v 3"]) -> Float[Tensor, "b n 3"]:
        """The vertices that are looked at."""
        return vertices if self._whole else vertices.index_select(1, self.vertices)

    def forward(self, picked: Float[Tensor, "b n 3"]) -> Points:
        """picked: what `pick` gave, in any frame of metres."""
        joints = self.weights @ picked
        root = joints[:, :1]
        return Points(root[:, 0], joints[:, 1:] - root, picked - root if self._whole else None)


def joint_rows(
    names: Sequence[str], joints: Sequence[str], regressor: Float[Tensor, "j v"], body: str
) -> Float[Tensor, "r v"]:
    """Rows of `regressor`, whose joints are `names`, for `joints`.

    Raise InputError if it has no such joint; `body` is named in the message.
    """
    missing = [joint for joint in joints if joint not in names]
    if missing:
        raise InputError(
            f"the network predicts the body {body!r}, which has no joint {', '.join(dict.fromkeys(missing))}: "
            "it cannot be scored on this data set"
        )
    return regressor[[names.index(joint) for joint in joints]]


class OwnJoints(nn.Module):
    """Truth from the data set's own joints, and from its fitted meshes for the vertices if `fits` are given."""

    rows: Int[Tensor, "r"]

    def __init__(self, skeleton: Skeleton, joints: Sequence[str], fits: TargetBuilder | None) -> None:
        """skeleton: of the samples. joints: the root, then the scored ones."""
        super().__init__()
        rows = torch.tensor([skeleton.index(joint) for joint in joints])
        self.register_buffer("rows", rows, persistent=False)
        self.fits = fits

    def forward(self, sample: Sample, numbers: Int[Tensor, "b"]) -> Truth:
        """numbers: of the samples in the data set."""
        annotation = sample.annotation
        joints = annotation.joints_camera.index_select(1, self.rows)
        root, known, vertices = joints[:, :1], annotation.has_depth, None
        if self.fits is not None:
            _, vertices, _ = self.fits.meshes(sample)
            vertices, known = vertices - root, known & annotation.fit.known
        return Truth(Points(root[:, 0], joints[:, 1:] - root, vertices), known)


class FittedMeshes(nn.Module):
    """Truth from the data set's fitted meshes, joints read off them."""

    def __init__(self, fits: TargetBuilder, reader: JointReader) -> None:
        super().__init__()
        self.fits, self.reader = fits, reader

    def forward(self, sample: Sample, numbers: Int[Tensor, "b"]) -> Truth:
        """numbers: of the samples in the data set."""
        _, vertices, _ = self.fits.meshes(sample)
        return Truth(self.reader(self.reader.pick(vertices)), sample.annotation.fit.known)


class ReleasedTruth(nn.Module):
    """Truth from files of joints (n, J, 3) and vertices (n, V, 3), metres, in the order of the samples."""

    joints: Float[Tensor, "n r 3"]
    vertices: Float[Tensor, "n v 3"] | None

    def __init__(
        self,
        joints: Float[Tensor, "n j 3"],
        vertices: Float[Tensor, "n v 3"],
        skeleton: Skeleton,
        names: Sequence[str],
        keep_vertices: bool,
    ) -> None:
        """skeleton: of the joints in the file. names: the root, then the scored ones."""
        super().__init__()
        rows = [skeleton.index(joint) for joint in names]
        self.register_buffer("joints", joints[:, rows], persistent=False)
        self.register_buffer("vertices", vertices if keep_vertices else None, persistent=False)

    def forward(self, sample: Sample, numbers: Int[Tensor, "b"]) -> Truth:
        """numbers: of the samples in the data set."""
        joints = self.joints[numbers]
        root = joints[:, :1]
        vertices = None if self.vertices is None else self.vertices[numbers] - root
        return Truth(Points(root[:, 0], joints[:, 1:] - root, vertices), torch.ones_like(numbers, dtype=torch.bool))


def read_released(
    paths: tuple[Path, Path], samples: int, joints: int
) -> tuple[Float[Tensor, "n j 3"], Float[Tensor, "n v 3"]]:
    """Read the files that `Protocol.truth_files` names. Raise FileError if they do not fit the samples."""
    found = []
    for path in paths:
        with reading(path, f"a list of {samples} lists of points", "download it again"):
            values = np.asarray(read_json(path), np.float32)
        if values.ndim != 3 or values.shape[::2] != (samples, 3):
            raise FileError(f"{path} does not hold {samples} lists of points: it belongs to another split")
        found.append(torch.from_numpy(values))
    if found[0].shape[1] != joints:
        raise FileError(f"{paths[0]} holds {found[0].shape[1]} joints, not {joints}: it belongs to another joint set")
    return found[0], found[1]


class Scorer(nn.Module):
    """Scores lixel meshes and parametric meshes of one network on one data set.

    truth: `(sample, numbers) -> Truth`. metrics: those whose points `reader` keeps.
    """

    def __init__(self, reader: JointReader, truth: nn.Module, metrics: Sequence[Metric], grid: LixelGrid) -> None:
        super().__init__()
        self.reader, self.truth = reader, truth
        self.metrics, self.grid = tuple(metrics), grid

    def pick(self, meshes: Meshes) -> Meshes:
        """The vertices that are looked at."""
        return meshes.map(self.reader.pick)

    def place(
        self, picked: Float[Tensor, "b n 3"], sample: Sample, root_depth: Float[Tensor, "b"]
    ) -> Float[Tensor, "b n 3"]:
        """Picked lixels in the camera frame, m."""
        return self.grid.to_camera(picked, sample.crop, sample.annotation.camera, root_depth)

    def score(self, found: Points, truth: Truth) -> Scores:
        """Errors of one mesh per sample; `found` may be anywhere in space."""
        pairs: dict[tuple[str, bool], tuple[Tensor, Tensor]] = {("joints", False): (found.joints, truth.points.joints)}
        if found.vertices is not None and truth.points.vertices is not None:
            pairs["vertices", False] = (found.vertices, truth.points.vertices)
        for points in {metric.points for metric in self.metrics if metric.aligned}:
            predicted, true = pairs[points, False]
            pairs[points, True] = (similarity_align(predicted, true), true)
        values = torch.stack([metric.measure(*pairs[metric.points, metric.aligned]) for metric in self.metrics], -1)
        offsets = found.joints - truth.points.joints
        unknown = ~truth.known[..., None]
        return Scores(values.masked_fill(unknown, torch.nan), offsets.masked_fill(unknown[..., None], torch.nan))

    def forward(self, picked: Meshes, sample: Sample, numbers: Int[Tensor, "b"], true_depth: bool) -> dict[str, Scores]:
        """Scores of each kind of mesh. picked: what `pick` gave. numbers: of the samples in the data set.

        true_depth: put lixel meshes at the true root's depth, not at the annotation's.
        """
        truth: Truth = self.truth(sample, numbers)
        depth = truth.points.root[:, 2] if true_depth else sample.annotation.root_depth
        found = {"lixel": self.reader(self.place(picked.lixel, sample, depth))}
        if picked.param is not None:
            found["param"] = self.reader(picked.param)
        # Both kinds at once: on small point sets, calls cost more than numbers.
        truths = truth.map(lambda value: value.expand(len(found), *value.shape))
        both = self.score(Points.stack(list(found.values())), truths)
        return {kind: both[place] for place, kind in enumerate(found)}


class ScoreKeeper:
    """Collects the scores of a data set whose meshes come batch by batch.

    What is looked at of the meshes is held until it makes a batch that is worth the calls, whatever the network's is.
    """

    def __init__(self, scorer: Scorer, true_depth: bool = False, together: int = POINTS_TOGETHER) -> None:
        """true_depth: see `Scorer`. together: points of a mesh that are scored at once, over all samples."""
        self._scorer, self._true_depth, self._together = scorer, true_depth, together
        self._held: list[tuple[Meshes, Sample, Tensor]] = []
        self._points = 0
        self._scores: list[dict[str, Scores]] = []

    def add(self, meshes: Meshes, sample: Sample, numbers: Int[Tensor, "b"]) -> None:
        """meshes: whole. numbers: of the samples in the data set."""
        picked = self._scorer.pick(meshes)
        self._held.append((picked, dataclasses.replace(sample, image=sample.image[..., :0]), numbers))
        self._points += picked.lixel.shape[0] * picked.lixel.shape[1]
        if self._points >= self._together:
            self._score()

    def scores(self) -> dict[str, Scores]:
        """The scores of all that was added, in its order."""
        if self._held:
            self._score()
        return {kind: Scores.concatenate([part[kind] for part in self._scores]) for kind in self._scores[0]}

    def _score(self) -> None:
        meshes, samples, numbers = zip(*self._held, strict=True)
        batch = Meshes.concatenate(meshes), Sample.concatenate(samples), torch.cat(numbers)
        self._scores.append(self._scorer(*batch, self._true_depth))
        self._held, self._points = [], 0
