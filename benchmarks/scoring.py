"""Scoring predictions: the published method and ours.

`published_evaluate` does for each sample what the published evaluate() of Human3.6M does in its param stage, in NumPy:
lixel mesh to pixels, to the image, to the camera; joints of both meshes; MPJPE, PA-MPJPE. Ours is
`evaluation.scoring.ScoreKeeper`, which receives the same predictions in batches. The regressor is either sparse (32
vertices per joint) or dense, the worst case. Predictions are random: the time does not depend on the values.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from i2l_meshnet.data.annotation import PersonRow, TableBuilder
from i2l_meshnet.data.dataset import Sample
from i2l_meshnet.evaluation.protocols import BODY_METRICS, HUMAN36M_SCORED, MPJPE, PA_MPJPE
from i2l_meshnet.evaluation.scoring import (
    JointReader,
    Meshes,
    OwnJoints,
    Points,
    ScoreKeeper,
    Scorer,
    Truth,
    joint_rows,
)
from i2l_meshnet.geometry.crop import Crop, invert_affine
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.skeletons import HUMAN36M
from published import align_plainly

VERTICES = 6890
SCORED = [HUMAN36M.index(joint) for joint in HUMAN36M_SCORED]


@dataclasses.dataclass(frozen=True)
class Predictions:
    """A batch of samples with their lixel meshes, parametric meshes (m) and joint regressor."""

    sample: Sample
    lixel: Tensor
    param: Tensor
    regressor: Tensor


def make_predictions(count: int, per_joint: int, seed: int = 0) -> Predictions:
    """per_joint: vertices with a weight for each joint."""
    random = np.random.default_rng(seed)
    regressor = np.zeros((len(HUMAN36M), VERTICES))
    for row in regressor:
        row[random.choice(VERTICES, per_joint, replace=False)] = random.random(per_joint)
    regressor /= regressor.sum(1, keepdims=True)
    rows = TableBuilder(HUMAN36M, ("smpl",), bones=24, shapes=10)
    for number in range(count):
        joints = random.normal(size=(17, 3)) * 0.3 + [0, 0, 5]
        rows.add(
            PersonRow(
                where="random",
                id=number,
                path="none.jpg",
                size=(1000, 1000),
                box=[300, 300, 400, 400],
                prepared=True,
                focal=(1145.0, 1144.0),
                center=(512.0, 515.0),
                joints_image=joints[:, :2],
                joints_camera=joints,
                root_depth=5.0,
            )
        )
    table = rows.build(Path("random"))
    annotations = table.annotations(range(count))
    annotations = dataclasses.replace(annotations, box=annotations.box.float())
    sample = Sample(
        torch.zeros(count, 3, 1, 1, dtype=torch.uint8),
        torch.ones(count, 3),
        Crop.around(annotations.box, (256, 256), margin=1.0),
        annotations,
    )
    lixel = torch.from_numpy(random.random((count, VERTICES, 3), np.float32) * 40 + 12)
    param = torch.from_numpy(random.standard_normal((count, VERTICES, 3), np.float32) * np.float32(0.3))
    return Predictions(sample, lixel, param, torch.from_numpy(regressor))


def published_evaluate(predictions: Predictions) -> Callable[[], np.ndarray]:
    """Score samples one by one; (n, 4) millimetres. Tensors are converted to arrays beforehand."""
    annotation = predictions.sample.annotation
    lixel, param, regressor = (getattr(predictions, name).numpy() for name in ("lixel", "param", "regressor"))
    to_image = invert_affine(predictions.sample.crop.affine).numpy()
    joints, depth = annotation.joints_camera.numpy() * 1000, annotation.root_depth.numpy() * 1000
    focal, center = annotation.camera.focal.numpy(), annotation.camera.center.numpy()

    def run() -> np.ndarray:
        results = []
        for n in range(len(lixel)):
            true = (joints[n] - joints[n][0])[SCORED]
            mesh = lixel[n].copy()
            mesh[:, 0] = mesh[:, 0] / 64 * 256
            mesh[:, 1] = mesh[:, 1] / 64 * 256
            ones = np.concatenate([mesh[:, :2], np.ones_like(mesh[:, :1])], 1)
            mesh[:, :2] = np.dot(to_image[n], ones.T).T[:, :2]
            mesh[:, 2] = (mesh[:, 2] / 64 * 2 - 1) * 1000 + depth[n]
            x = (mesh[:, 0] - center[n][0]) / focal[n][0] * mesh[:, 2]
            y = (mesh[:, 1] - center[n][1]) / focal[n][1] * mesh[:, 2]
            errors = []
            for vertices in (np.concatenate([x[:, None], y[:, None], mesh[:, 2:]], 1), param[n] * 1000):
                found = np.dot(regressor, vertices)
                found = (found - found[0])[SCORED]
                errors.append(np.sqrt(((found - true) ** 2).sum(1)).mean())
                errors.append(np.sqrt(((align_plainly(found, true) - true) ** 2).sum(1)).mean())
            results.append(errors)
        return np.array(results)

    return run


class TrueMeshes(nn.Module):
    """The dataset's joints; as true vertices, the predicted ones scaled by 1.01, since only the time matters."""

    def __init__(self, joints: OwnJoints, vertices: Tensor) -> None:
        super().__init__()
        self.joints, self.vertices = joints, vertices

    def forward(self, sample: Sample, numbers: Tensor) -> Truth:
        truth: Truth = self.joints(sample, numbers)
        points = Points(truth.points.root, truth.points.joints, self.vertices[numbers] * 1.01)
        return Truth(points, truth.known)


def scored(predictions: Predictions, batch: int, device: str, everything: bool) -> Callable[[], np.ndarray]:
    """Score batches on `device`; (n, 2 x metrics), distances in millimetres."""
    joints = ("Pelvis", *HUMAN36M_SCORED)
    own: nn.Module = OwnJoints(HUMAN36M, joints, None)
    rows = joint_rows(HUMAN36M.joints, joints, predictions.regressor.float(), "smpl")
    param, lixel = predictions.param.to(device), predictions.lixel.to(device)
    if everything:
        own = TrueMeshes(own, param)
    metrics = BODY_METRICS if everything else (MPJPE, PA_MPJPE)
    scorer = Scorer(JointReader(rows, everything), own, metrics, LixelGrid()).to(device)
    sample = predictions.sample.to(device)
    numbers = torch.arange(len(lixel), device=device)
    parts = [slice(start, start + batch) for start in range(0, len(lixel), batch)]
    batches = [(Meshes(lixel[part], param[part]), sample[part], numbers[part]) for part in parts]

    @torch.inference_mode()
    def run() -> np.ndarray:
        keeper = ScoreKeeper(scorer)
        for part in batches:
            keeper.add(*part)
        joined = [scores.metrics.cpu().double().numpy() for scores in keeper.scores().values()]
        return np.concatenate(joined, 1) * 1000

    return run
