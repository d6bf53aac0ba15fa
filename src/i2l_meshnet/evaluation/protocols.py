"""Protocols: for each dataset, the scored joints, their root, the ground truth and the metrics.

The protocols of Human36M, PW3D, FreiHAND and MSCOCO are published.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from torch import Tensor

from i2l_meshnet.evaluation.metrics import acceleration_error, area_under_curve, correct_share, f_score, mean_error
from i2l_meshnet.skeletons import HUMAN36M, MANO, TOY

Points = Literal["joints", "vertices"]


@dataclasses.dataclass(frozen=True)
class Metric:
    """One number per sample, from predicted and true points relative to their roots.

    key: name in files. label: printed name. points: the compared points. aligned: whether the prediction is first
    aligned to the truth by scale, rotation and translation. measure: (predicted, truth), in metres → number. unit: the
    unit of the number times `factor`.
    """

    key: str
    label: str
    points: Points
    aligned: bool
    measure: Callable[[Tensor, Tensor], Tensor]
    unit: str
    factor: float


def _error(key: str, label: str, points: Points, aligned: bool = False) -> Metric:
    return Metric(key, label, points, aligned, mean_error, "mm", 1000.0)


def _share(key: str, label: str, points: Points, aligned: bool, measure: Callable[[Tensor, Tensor], Tensor]) -> Metric:
    return Metric(key, label, points, aligned, measure, "%", 100.0)


MPJPE = _error("mpjpe", "MPJPE", "joints")
PA_MPJPE = _error("pa_mpjpe", "PA MPJPE", "joints", aligned=True)
MPVPE = _error("mpvpe", "MPVPE", "vertices")
PA_MPVPE = _error("pa_mpvpe", "PA MPVPE", "vertices", aligned=True)
ACCELERATION = Metric("acceleration", "acceleration error", "joints", False, acceleration_error, "mm/frame²", 1000.0)
"""In no protocol: it is reported for every dataset with three consecutive frames of one person."""
BODY_REACH, HAND_REACH = 0.150, 0.050
"""Maximum distance of PCK and AUC, m: as in MPI-INF-3DHP for bodies, as in FreiHAND for hands."""

BODY_METRICS = (
    MPJPE,
    PA_MPJPE,
    MPVPE,
    PA_MPVPE,
    _share("pck_150", "PCK@150", "joints", False, partial(correct_share, threshold=BODY_REACH)),
    _share("auc_150", "AUC@0-150", "joints", False, partial(area_under_curve, largest=BODY_REACH, steps=31)),
)
HAND_METRICS = (
    MPJPE,
    PA_MPJPE,
    MPVPE,
    PA_MPVPE,
    _share("pa_auc_50", "PA AUC@0-50", "joints", True, partial(area_under_curve, largest=HAND_REACH, steps=100)),
    _share("pa_f_5", "F@5", "vertices", True, partial(f_score, threshold=0.005)),
    _share("pa_f_15", "F@15", "vertices", True, partial(f_score, threshold=0.015)),
)


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How one dataset is scored.

    source: the dataset's name in `data.sources.ADAPTERS`, or that of the toy dataset.
    split: the split that is scored by default.
    body: the body of the true meshes. A network for another body is scored only on joints with the same names.
    joints: names of the rows of the dataset's joint regressor (`Adapter.joint_regressor`). None if the scored joints
        are the body's own joints; then no regressor is needed.
    root: predictions and truth are made relative to this joint. None: the root of the dataset's skeleton.
    scored: the scored joints. None: all joints of the dataset that the body has, except the root. Do not list the root:
        its error is always 0, which would lower MPJPE and raise PCK and AUC (FreiHAND's published protocol lists it).
    truth: the true joints are the dataset's own joints (`joints`), or are regressed from its fitted meshes (`fit`).
    vertices: whether the fitted meshes are accurate enough to score vertices.
    metrics: in the order of printing.
    group: the name of a group of samples, such as "action".
    truth_files: files below the dataset's folder that were released later, with the true joints (N, J, 3) and vertices
        (N, V, 3) of `split`, metres.
    submission: whether predictions are written for the benchmark's server, which has the ground truth.
    """

    source: str
    split: str
    body: str = "smpl"
    joints: tuple[str, ...] | None = None
    root: str | None = "Pelvis"
    scored: tuple[str, ...] | None = None
    truth: Literal["joints", "fit"] = "joints"
    vertices: bool = False
    metrics: tuple[Metric, ...] = BODY_METRICS
    group: str = "group"
    truth_files: tuple[str, str] | None = None
    submission: bool = False


HUMAN36M_SCORED = tuple(HUMAN36M.joints[row] for row in (1, 2, 3, 4, 5, 6, 8, 10, 11, 12, 13, 14, 15, 16))
_REGRESSED: dict[str, Any] = {"joints": HUMAN36M.joints, "scored": HUMAN36M_SCORED}
_RELEASED = ("data/evaluation_xyz.json", "data/evaluation_verts.json")

PROTOCOLS: dict[str, Protocol] = {
    protocol.source: protocol
    for protocol in (
        # Vertices of Human3.6M's fits are not accurate enough to be ground truth.
        Protocol("Human36M", "test", **_REGRESSED, group="action"),
        Protocol("PW3D", "test", **_REGRESSED, truth="fit", vertices=True, group="sequence"),
        Protocol(
            "FreiHAND",
            "eval",
            "mano",
            root="Wrist",
            scored=MANO.joints,
            vertices=True,
            metrics=HAND_METRICS,
            truth_files=_RELEASED,
            submission=True,
        ),
        # Published: images only, as there is no 3D ground truth.
        Protocol("MSCOCO", "val"),
        Protocol("SURREAL", "val", vertices=True, group="sequence"),
        Protocol("Custom", "test", root=None, group="sequence"),
        # The root is scored too, so that MPJPE equals the validation error of a training.
        Protocol("Toy", "test", "toy", scored=TOY.joints, vertices=True),
    )
}
"""Dataset → protocol. Add an entry for a new dataset."""
