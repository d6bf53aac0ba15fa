"""Compare batches of meshes with the ground truth on the device: from lixels to the metrics of a protocol."""

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
"""Number of points that `ScoreKeeper` scores at once. More points need fewer calls; these fit into a CPU cache."""


@dataclasses.dataclass(frozen=True)
class Meshes(TensorDataclass):
    """Predicted meshes. lixel: on the network's grid. param: metres, at any position; None in the lixel stage."""

    lixel: Float[Tensor, "*b v 3"]
    param: Float[Tensor, "*b v 3"] | None = None


@dataclasses.dataclass(frozen=True)
class Points(TensorDataclass):
    """The scored points of a mesh, or the true points; metres.

    root: camera frame. joints: the scored joints, relative to the root. vertices: relative to the root, None if they
    are not scored.
    """

    root: Float[Tensor, "*b 3"]
    joints: Float[Tensor, "*b j 3"]
    vertices: Float[Tensor, "*b v 3"] | None


@dataclasses.dataclass(frozen=True)
class Truth(TensorDataclass):
    """Ground truth. points: zero where unknown. known: whether the sample has ground truth."""

    points: Points
    known: Bool[Tensor, "*b"]


@dataclasses.dataclass(frozen=True)
class Scores(TensorDataclass):
    """metrics: one column per metric. offsets: predicted minus true joints, m. Both are NaN without ground truth."""

    metrics: Float[Tensor, "*b m"]
    offsets: Float[Tensor, "*b j 3"]


class JointReader(nn.Module):
    """Regresses the root and the scored joints from meshes.

    Regressors are sparse: only the vertices with a weight are used. `vertices` are their indices.
    """

    weights: Float[Tensor, "r n"]
    vertices: Int[Tensor, "n"]

    def __init__(self, regressor: Float[Tensor, "r v"], whole: bool) -> None:
        """regressor: rows of the root and of the scored joints. whole: use all vertices, as they are scored too."""
        super().__init__()
        used = torch.arange(regressor.shape[1]) if whole else (regressor != 0).any(0).nonzero()[:, 0]
        self._whole = whole
        self.register_buffer("vertices", used, persistent=False)
        self.register_buffer("weights", regressor[:, used].contiguous(), persistent=False)

    def pick(self, vertices: Float[Tensor, "b v 3"]) -> Float[Tensor, "b n 3"]:
        """The vertices that `forward` takes."""
        return vertices if self._whole else vertices.index_select(1, self.vertices)

    def forward(self, picked: Float[Tensor, "b n 3"]) -> Points:
        """picked: vertices from `pick`, metres, in any frame."""
        joints = self.weights @ picked
        root = joints[:, :1]
        return Points(root[:, 0], joints[:, 1:] - root, picked - root if self._whole else None)


def joint_rows(
    names: Sequence[str], joints: Sequence[str], regressor: Float[Tensor, "j v"], body: str
) -> Float[Tensor, "r v"]:
    """The rows of `joints` in a regressor whose rows are the joints `names`. body: its name, for the error message.

    Raise InputError if a joint is missing.
    """
    missing = [joint for joint in joints if joint not in names]
    if missing:
        raise InputError(
            f"the network predicts the body {body!r}, which has no joint {', '.join(dict.fromkeys(missing))}: "
            "it cannot be scored on this dataset"
        )
    return regressor[[names.index(joint) for joint in joints]]


class OwnJoints(nn.Module):
    """True joints from the dataset's own joints; true vertices from its fitted meshes, if `fits` is given."""

    rows: Int[Tensor, "r"]

    def __init__(self, skeleton: Skeleton, joints: Sequence[str], fits: TargetBuilder | None) -> None:
        """skeleton: the joints of the samples. joints: the root, then the scored joints."""
        super().__init__()
        rows = torch.tensor([skeleton.index(joint) for joint in joints])
        self.register_buffer("rows", rows, persistent=False)
        self.fits = fits

    def forward(self, sample: Sample, numbers: Int[Tensor, "b"]) -> Truth:
        """numbers: indices of the samples in the dataset."""
        annotation = sample.annotation
        joints = annotation.joints_camera.index_select(1, self.rows)
        root, known, vertices = joints[:, :1], annotation.has_depth, None
        if self.fits is not None:
            _, vertices, _ = self.fits.meshes(sample)
            vertices, known = vertices - root, known & annotation.fit.known
        return Truth(Points(root[:, 0], joints[:, 1:] - root, vertices), known)


class FittedMeshes(nn.Module):
    """True joints and vertices from the dataset's fitted meshes."""

    def __init__(self, fits: TargetBuilder, reader: JointReader) -> None:
        super().__init__()
        self.fits, self.reader = fits, reader

    def forward(self, sample: Sample, numbers: Int[Tensor, "b"]) -> Truth:
        """numbers: indices of the samples in the dataset."""
        _, vertices, _ = self.fits.meshes(sample)
        return Truth(self.reader(self.reader.pick(vertices)), sample.annotation.fit.known)


class ReleasedTruth(nn.Module):
    """Ground truth from files of joints (n, J, 3) and vertices (n, V, 3), metres, in the order of the samples."""

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
        """skeleton: the joints of the file. names: the root, then the scored joints."""
        super().__init__()
        rows = [skeleton.index(joint) for joint in names]
        self.register_buffer("joints", joints[:, rows], persistent=False)
        self.register_buffer("vertices", vertices if keep_vertices else None, persistent=False)

    def forward(self, sample: Sample, numbers: Int[Tensor, "b"]) -> Truth:
        """numbers: indices of the samples in the dataset."""
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
    """Scores lixel meshes and parametric meshes of one network on one dataset.

    truth: `(sample, numbers) -> Truth`. metrics: those on vertices need a `reader` that keeps all vertices.
    """

    def __init__(self, reader: JointReader, truth: nn.Module, metrics: Sequence[Metric], grid: LixelGrid) -> None:
        super().__init__()
        self.reader, self.truth = reader, truth
        self.metrics, self.grid = tuple(metrics), grid

    def score(self, found: Points, truth: Truth) -> Scores:
        """Errors of one mesh per sample."""
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
        """Scores of each kind of mesh. picked: vertices from `reader.pick`. numbers: indices of the samples.

        true_depth: place lixel meshes at the true root depth instead of the annotation's.
        """
        truth: Truth = self.truth(sample, numbers)
        depth = truth.points.root[:, 2] if true_depth else sample.annotation.root_depth
        lixel = self.grid.to_camera(picked.lixel, sample.crop, sample.annotation.camera, depth)
        found = {"lixel": self.reader(lixel)}
        if picked.param is not None:
            found["param"] = self.reader(picked.param)
        # Score both kinds in one call: for small point sets, a call costs more than its computation.
        truths = truth.map(lambda value: value.expand(len(found), *value.shape))
        both = self.score(Points.stack(list(found.values())), truths)
        return {kind: both[index] for index, kind in enumerate(found)}


class ScoreKeeper:
    """Collects the scores of a dataset whose meshes are predicted batch by batch.

    Vertices are collected until they make a batch of an efficient size.
    """

    def __init__(self, scorer: Scorer, true_depth: bool = False, together: int = POINTS_TOGETHER) -> None:
        """true_depth: as in `Scorer.forward`. together: number of points, over all samples, that are scored at once."""
        self._scorer, self._true_depth, self._together = scorer, true_depth, together
        self._waiting: list[tuple[Meshes, Sample, Tensor]] = []
        self._points = 0
        self._parts: list[dict[str, Scores]] = []

    def add(self, meshes: Meshes, sample: Sample, numbers: Int[Tensor, "b"]) -> None:
        """meshes: with all vertices. numbers: indices of the samples in the dataset."""
        picked = meshes.map(self._scorer.reader.pick)
        self._waiting.append((picked, dataclasses.replace(sample, image=sample.image[..., :0]), numbers))
        self._points += picked.lixel.shape[0] * picked.lixel.shape[1]
        if self._points >= self._together:
            self._score()

    def scores(self) -> dict[str, Scores]:
        """The scores of all added samples, in order, on the CPU."""
        parts = self.parts()
        return {kind: Scores.concatenate([part[kind] for part in parts]) for kind in parts[0]}

    def parts(self) -> list[dict[str, Scores]]:
        """The scores of all added samples, in parts, on the CPU."""
        if self._waiting:
            self._score()
        self._parts = [{kind: scores.to("cpu") for kind, scores in part.items()} for part in self._parts]
        return self._parts

    def extend(self, parts: Sequence[dict[str, Scores]]) -> None:
        """Add the parts of another keeper, whose samples follow."""
        self._parts = [*self.parts(), *parts]

    def _score(self) -> None:
        meshes, samples, numbers = zip(*self._waiting, strict=True)
        batch = Meshes.concatenate(meshes), Sample.concatenate(samples), torch.cat(numbers)
        self._parts.append(self._scorer(*batch, self._true_depth))
        self._waiting, self._points = [], 0
