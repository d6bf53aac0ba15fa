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
    same = body.name == protocol.body
    if not same:
        notes.append(
            f"the network predicts {body.name!r}, not {protocol.body!r}: joints of the same names are compared, "
            "though the two bodies place them a little differently, and vertices are not scored"
        )
    released = _released(source, protocol)
    fitted = bool(table.arrays["fit_known"].any())
    known = released is not None or (fitted if protocol.truth == "fit" else bool(table.arrays["has_depth"].any()))
    _check_depths(source, true_depth, known)
    readout, scorer = _rows(body, protocol, joints, regressor), None
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
                truth = FittedMeshes(fits, JointReader(_rows(bodies[0], protocol, joints, regressor), whole))
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


def _rows(
    body: Body, protocol: Protocol, joints: tuple[str, ...], regressor: Float[Tensor, "j n"] | None
) -> Float[Tensor, "r v"]:
    """What reads `joints` off a body: the set's regressor, which is made for the protocol's body, or the body's own."""
    if regressor is None or protocol.joints is None or body.name != protocol.body:
        return joint_rows(body.skeleton.joints, joints, body.joint_regressor.cpu(), body.name)
    if regressor.shape[1] != body.joint_regressor.shape[1]:
        raise FileError(
            f"the joint regressor of {protocol.source} is for {regressor.shape[1]} vertices, the body "
            f"{body.name!r} has {body.joint_regressor.shape[1]}: download it again"
        )
    return joint_rows(protocol.joints, joints, regressor, body.name)


def _released(source: Source, protocol: Protocol) -> tuple[Float[Tensor, "n j 3"], Float[Tensor, "n v 3"]] | None:
    """Joints and vertices that the set's makers released for the scored split, if the files are there."""
    if protocol.truth_files is None or source.split != protocol.split:
        return None
    first, second = (source.folder / path for path in protocol.truth_files)
    if not (first.is_file() and second.is_file()):
        return None
    return read_released((first, second), len(source), len(source.table.skeleton))


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
