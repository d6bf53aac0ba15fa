"""Datasets with a protocol: their ground truth, and the rows that regress the scored joints from a body."""

import dataclasses
import functools
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from i2l_meshnet.bodies.base import Body
from i2l_meshnet.bodies.library import load_body
from i2l_meshnet.data.sources import ADAPTERS, Source
from i2l_meshnet.data.targets import TargetBuilder, read_regressor
from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.evaluation.annotated import ScoredSource
from i2l_meshnet.evaluation.protocols import Protocol
from i2l_meshnet.evaluation.scoring import (
    FittedMeshes,
    JointReader,
    OwnJoints,
    ReleasedTruth,
    Scorer,
    joint_rows,
    read_released,
)
from i2l_meshnet.geometry.lixel import LixelGrid


@dataclasses.dataclass(frozen=True)
class PublishedSet:
    """A dataset, its protocol, and the body that is scored on it.

    body: the body that the network predicts. root: the folder of all datasets. body_directory: the folder of licensed
    bodies.
    """

    source: Source
    protocol: Protocol
    body: Body
    root: Path
    body_directory: Path | None = None

    def scored(self, grid: LixelGrid, true_depth: bool = False) -> ScoredSource:
        """How meshes on `grid` are scored, on the CPU. true_depth: lixel meshes will be placed at the true root depth.

        Raise InputError if the body lacks the protocol's joints or depths are unknown, FileError for a missing file.
        """
        protocol, name = self.protocol, f"{self.source.name} {self.source.split}"
        same, notes = self.body.name == protocol.body, []
        if not same:
            notes.append(
                f"the network predicts {self.body.name!r}, not {protocol.body!r}: joints with the same names are "
                "compared, although the two bodies place them a little differently, and vertices are not scored"
            )
        if not self._has_truth:
            notes.append(f"{name} has no 3D ground truth here: nothing is scored")
        self._check_depths(name, true_depth)
        readout, scorer = self._rows(self.body), None
        if self._has_truth:
            whole = same and protocol.vertices and (self._released is not None or self._has_fits)
            metrics = [metric for metric in protocol.metrics if whole or metric.points != "vertices"]
            scorer = Scorer(JointReader(readout, whole), self._truth(grid, whole), metrics, grid)
        return ScoredSource(
            fit_boxes(self.source, grid.crop_size),
            scorer,
            self._joints[1:],
            readout,
            protocol.group,
            submits=protocol.submission and self.source.split == protocol.split,
            notes=tuple(notes),
        )

    @property
    def _joints(self) -> tuple[str, ...]:
        """The root, then the scored joints."""
        skeleton = self.source.table.skeleton
        root = self.protocol.root or skeleton.root
        shared = (joint for joint in skeleton.joints if joint != root and joint in self.body.skeleton.joints)
        return root, *(self.protocol.scored or shared)

    @property
    def _has_fits(self) -> bool:
        return bool(self.source.table.arrays["fit_known"].any())

    @property
    def _has_truth(self) -> bool:
        if self._released is not None:
            return True
        return self._has_fits if self.protocol.truth == "fit" else bool(self.source.table.arrays["has_depth"].any())

    @functools.cached_property
    def _released(self) -> tuple[Float[Tensor, "n j 3"], Float[Tensor, "n v 3"]] | None:
        """Joints and vertices that were released later for the split of the protocol, if the files exist."""
        if self.protocol.truth_files is None or self.source.split != self.protocol.split:
            return None
        first, second = (self.source.folder / path for path in self.protocol.truth_files)
        if not (first.is_file() and second.is_file()):
            return None
        return read_released((first, second), len(self.source), len(self.source.table.skeleton))

    def _truth(self, grid: LixelGrid, whole: bool) -> nn.Module:
        """The `truth` of a `Scorer`. whole: whether vertices are scored."""
        table = self.source.table
        if self._released is not None:
            return ReleasedTruth(*self._released, table.skeleton, self._joints, whole)
        if not whole and self.protocol.truth != "fit":
            return OwnJoints(table.skeleton, self._joints, None)
        bodies = [load_body(name, self.body_directory) for name in table.bodies]
        fits = TargetBuilder(bodies, grid, table.skeleton)
        if self.protocol.truth == "fit":
            return FittedMeshes(fits, JointReader(self._rows(bodies[0]), whole))
        return OwnJoints(table.skeleton, self._joints, fits)

    def _rows(self, body: Body) -> Float[Tensor, "r v"]:
        """Rows that regress the root and the scored joints from the vertices of a body.

        The dataset's regressor fits only the protocol's body. For another body, or if the protocol has no regressor,
        the rows are the body's own.
        """
        names = self.protocol.joints
        if names is None or body.name != self.protocol.body:
            return joint_rows(body.skeleton.joints, self._joints, body.joint_regressor.cpu(), body.name)
        path = self.root / (ADAPTERS[self.protocol.source].joint_regressor or "")
        regressor, shape = read_regressor(path), (len(names), body.joint_regressor.shape[1])
        if regressor.shape != shape:
            raise FileError(
                f"{path} has the shape {tuple(regressor.shape)}, not {shape} (joints, vertices of {body.name!r}): "
                "download it again"
            )
        return joint_rows(names, self._joints, regressor, body.name)

    def _check_depths(self, name: str, true_depth: bool) -> None:
        if true_depth and not self._has_truth:
            raise InputError(f"{name} has no 3D ground truth here: leave it out", argument="gt_root")
        missing = int(np.isnan(self.source.table.arrays["root_depth"]).sum())
        if self._has_truth and missing and not true_depth:
            raise InputError(
                f"{missing} of {len(self.source)} annotations of {name} have no root depth from RootNet: "
                "evaluate with the true depths",
                argument="gt_root",
            )


def fit_boxes(source: Source, crop_size: tuple[int, int]) -> Source:
    """The source with its boxes reduced to the aspect of the network's crop (height, width), with the same centres.

    The boxes of RootNet and of the published code are square.
    """
    box = np.array(source.table.arrays["box"])
    aspect = crop_size[1] / crop_size[0]
    size = np.stack([np.minimum(box[:, 2], box[:, 3] * aspect), np.minimum(box[:, 3], box[:, 2] / aspect)], 1)
    box[:, :2] += (box[:, 2:] - size) / 2
    box[:, 2:] = size
    table = dataclasses.replace(source.table, arrays={**source.table.arrays, "box": box})
    return dataclasses.replace(source, table=table)
