"""How each benchmark is scored, as data: joints, root, truth, metrics. The path that scores knows none of them by name.

The published code's protocols are those of Human36M, PW3D, FreiHAND and MSCOCO.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from torch import Tensor

from i2l_meshnet.evaluation.metrics import acceleration_error, area_under_curve, correct_share, f_score, mean_error
from i2l_meshnet.skeletons import HUMAN36M, MANO

Points = Literal["joints", "vertices"]


@dataclasses.dataclass(frozen=True)
class Metric:
    """One number per sample, from predicted and true points relative to their roots.

    key: its name in files. label: its printed name. points: what it compares. aligned: after the best scale,
    rotation and translation. measure: (predicted, truth), metres, to the number. unit: what `factor` times the
    number is in.
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
"""No protocol names it: it needs three consecutive frames of one person, and is reported if a set has them."""
BODY_REACH, HAND_REACH = 0.150, 0.050
"""Largest distance of PCK and AUC, m: MPI-INF-3DHP's for bodies, FreiHAND's for hands."""

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
    """How one data set is scored.

    source: its name in `data.sources.ADAPTERS`. split: the one that is scored by default. body: the body whose meshes
    the truth is of; predictions of another body are scored on joints of the same names only. joints: the names of the
    rows of the set's joint regressor, None if the body's own joints are scored. root: the joint that predictions are
    made relative to, None for the set's own root. scored: the joints that count, None for all of the set's own that the
    body has. truth: whether the true joints are the set's own (`joints`) or are read off its fitted meshes (`fit`).
    vertices: whether the fitted meshes are good enough to score vertices on. metrics: in the order of printing. group:
    what the set's groups are called. truth_files: files below the set's folder that its makers released later, with the
    true joints and vertices of `split` as lists of (N, J, 3) and (N, V, 3) metres. submission: whether predictions are
    written for the benchmark's server, which keeps the truth.
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
        # The fits of Human3.6M are fits: their vertices are no truth.
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
        # Published: pictures only. Nothing of it has a third dimension.
        Protocol("MSCOCO", "val"),
        Protocol("SURREAL", "val", vertices=True, group="sequence"),
        Protocol("Custom", "test", root=None, group="sequence"),
    )
}
"""Data set → its protocol: a new one is an entry here."""
