"""Data sets that are scored by a protocol: what is true of them, and what reads the scored joints off a body."""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

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


def score_by_protocol(
    source: Source,
    protocol: Protocol,
    body: Body,
    grid: LixelGrid,
    root: Path,
    body_directory: Path | None = None,
    true_depth: bool = False,
) -> ScoredSource:
    """Find the truth of a data set and what reads the scored joints off `body`, which the network predicts.

    root: folder that holds the data sets' folders. true_depth: lixel meshes will be put at the true root's depth.
    Raise InputError if the body lacks the protocol's joints, or if depths are wanted that are not known; FileError for
    a missing file. The result is on the CPU.
    """
    table, notes = source.table, []
    root_joint = protocol.root or table.skeleton.root
    shared = (joint for joint in table.skeleton.joints if joint != root_joint and joint in body.skeleton.joints)
    joints = (root_joint, *(protocol.scored or shared))
    regressor = _regressor(protocol, root)

    def rows(of: Body) -> Float[Tensor, "r v"]:
        # The set's regressor is made for the vertices of the protocol's body.
        if regressor is None or protocol.joints is None or of.name != protocol.body:
            return joint_rows(of.skeleton.joints, joints, of.joint_regressor.cpu(), of.name)
        if regressor.shape[1] != of.joint_regressor.shape[1]:
            raise FileError(
                f"the joint regressor of {source.name} is for {regressor.shape[1]} vertices, the body "
                f"{of.name!r} has {of.joint_regressor.shape[1]}: download it again"
            )
        return joint_rows(protocol.joints, joints, regressor, of.name)

    same = body.name == protocol.body
    if not same:
        notes.append(
            f"the network predicts {body.name!r}, not {protocol.body!r}: joints of the same names are compared, "
            "though the two bodies place them a little differently, and vertices are not scored"
        )
    released = None
    if protocol.truth_files is not None and source.split == protocol.split:
        first, second = (source.folder / path for path in protocol.truth_files)
        if first.is_file() and second.is_file():
            released = read_released((first, second), len(source), len(table.skeleton))
    fitted = bool(table.arrays["fit_known"].any())
    known = released is not None or (fitted if protocol.truth == "fit" else bool(table.arrays["has_depth"].any()))
    _check_depths(source, true_depth, known)
    readout, scorer = rows(body), None
    if known:
        whole = same and protocol.vertices and (released is not None or fitted)
        truth: OwnJoints | FittedMeshes | ReleasedTruth
        if released is not None:
            truth = ReleasedTruth(*released, table.skeleton, joints, whole)
        else:
            fits, bodies = None, list[Body]()
            if whole or protocol.truth == "fit":
                bodies = [load_body(name, body_directory) for name in table.bodies]
                fits = TargetBuilder(bodies, grid, table.skeleton)
            if protocol.truth == "fit" and fits is not None:
                truth = FittedMeshes(fits, JointReader(rows(bodies[0]), whole))
            else:
                truth = OwnJoints(table.skeleton, joints, fits)
        metrics = [metric for metric in protocol.metrics if whole or metric.points != "vertices"]
        scorer = Scorer(JointReader(readout, whole), truth, metrics, grid)
    else:
        notes.append(f"{source.name} {source.split} has no 3D ground truth here: nothing is scored")
    submits = protocol.submission and source.split == protocol.split
    fitting = fit_boxes(source, grid.crop_size)
    return ScoredSource(fitting, scorer, joints[1:], readout, protocol.group, submits, notes=tuple(notes))


def fit_boxes(source: Source, crop_size: tuple[int, int]) -> Source:
    """The source with its boxes cut to the aspect of the network's crop (height, width) about their centres.

    RootNet's and the published code's boxes are square; an upright person needs only the middle of theirs.
    """
    box = np.array(source.table.arrays["box"])
    aspect = crop_size[1] / crop_size[0]
    size = np.stack([np.minimum(box[:, 2], box[:, 3] * aspect), np.minimum(box[:, 3], box[:, 2] / aspect)], 1)
    box[:, :2] += (box[:, 2:] - size) / 2
    box[:, 2:] = size
    table = dataclasses.replace(source.table, arrays={**source.table.arrays, "box": box})
    return dataclasses.replace(source, table=table)


def _regressor(protocol: Protocol, root: Path) -> Float[Tensor, "j v"] | None:
    """The data set's joint regressor, if the protocol reads joints with it."""
    if protocol.joints is None:
        return None
    path = root / (ADAPTERS[protocol.source].joint_regressor or "")
    regressor = read_regressor(path)
    if len(regressor) != len(protocol.joints):
        raise FileError(f"{path} has {len(regressor)} rows, not one for each of {len(protocol.joints)} joints")
    return regressor


def _check_depths(source: Source, true_depth: bool, known: bool) -> None:
    if true_depth and not known:
        raise InputError(f"{source.name} {source.split} has no 3D ground truth here: leave it out", argument="gt_root")
    missing = int(np.isnan(source.table.arrays["root_depth"]).sum())
    if known and missing and not true_depth:
        raise InputError(
            f"{missing} of {len(source)} annotations of {source.name} {source.split} have no root depth from RootNet: "
            "evaluate with the true depths",
            argument="gt_root",
        )
