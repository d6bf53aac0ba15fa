"""The regressor from Anny's vertices to RTMPose's 26 points, fitted to detections on synthetic images."""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from rich.console import Console
from rich.table import Table
from scipy.optimize import nnls

from i2l_lab.synthetic.detections import DetectionBank, read_bank
from i2l_meshnet.bodies.anny import AnnyBody
from i2l_meshnet.bodies.library import load_body
from i2l_meshnet.io import atomic_path
from i2l_meshnet.skeletons import HALPE26


@dataclasses.dataclass(frozen=True)
class FitOptions:
    """Fit the keypoint regressor of the Anny body to a bank of detections."""

    bank: Path
    """Folder that `synthesize detections` wrote."""
    out: Path
    """File to write. The package ships it as bodies/data/anny_halpe26_rendered.npz."""
    confidence: float = 0.5
    """Detections with a lower confidence are ignored."""
    pictures: int = 6000
    """Maximum number of images for each point."""


@dataclasses.dataclass(frozen=True)
class KeypointFit:
    """A regressor, and its median distance from the detections for each point, pixels of the crop."""

    regressor: Float[np.ndarray, "26 v"]
    median_error: Float[np.ndarray, "26"]


def fit_keypoint_regressor(options: FitOptions) -> KeypointFit:
    """Fit the regressor, write it, and print its median distances from the detections."""
    body = load_body("anny")
    assert isinstance(body, AnnyBody)
    assert body.vertex_mirror is not None
    bank = read_bank(options.bank)
    fit = fit_regressor(bank, body.vertex_mirror.numpy(), options.confidence, options.pictures)
    write_regressor(options.out, fit.regressor)
    table = Table("point", "vertices", "median error, px")
    for name, row, error in zip(HALPE26.joints, fit.regressor, fit.median_error, strict=True):
        table.add_row(name, str(int((row > 0).sum())), f"{error:.2f}")
    Console().print(table)
    return fit


def fit_regressor(
    bank: DetectionBank, vertex_mirror: Int[np.ndarray, "v"], confidence: float = 0.5, pictures: int = 6000
) -> KeypointFit:
    """Each point as a non-negative combination of few vertices with a sum of 1, exactly mirror-symmetric.

    A point is fitted to its own detections, and to those of its mirror twin in mirrored images. Outliers (swapped
    limbs, hidden points) are removed in rounds.
    """
    keypoints = bank.keypoints.double().numpy()
    positions = bank.vertices[..., :2].numpy()
    twin = np.array(HALPE26.mirror_permutation)
    regressor = np.zeros((len(HALPE26), positions.shape[1]))
    errors = np.zeros(len(HALPE26))
    for point in range(len(HALPE26)):
        if twin[point] < point:
            regressor[point] = regressor[twin[point]][vertex_mirror]
            errors[point] = errors[twin[point]]
            continue
        # Mirroring changes the sign of x and swaps each vertex with its twin.
        own = np.flatnonzero(keypoints[:, point, 2] > confidence)[:pictures]
        other = np.flatnonzero(keypoints[:, twin[point], 2] > confidence)[:pictures]
        flip = np.array([-1.0, 1.0])
        targets = np.concatenate([keypoints[own, point, :2], keypoints[other, twin[point], :2] * flip])
        vertices = np.concatenate([positions[own], positions[other][:, vertex_mirror] * flip.astype(np.float16)])
        weights, errors[point] = _fit_point(vertices.astype(np.float32), targets)
        if twin[point] == point:
            weights = (weights + weights[vertex_mirror]) / 2
        regressor[point] = weights
    return KeypointFit(regressor, errors)


def write_regressor(path: Path, regressor: Float[np.ndarray, "26 v"]) -> None:
    """Write a sparse regressor: the arrays keypoint_index and keypoint_weight, with shape (26, n).

    n is the largest number of vertices of a point.
    """
    count = int((regressor != 0).sum(1).max())
    index = np.argsort(-np.abs(regressor), axis=1, kind="stable")[:, :count]
    weight = np.take_along_axis(regressor, index, 1)
    index = np.where(weight != 0, index, 0)
    with atomic_path(path) as temporary:
        np.savez_compressed(
            temporary, keypoint_index=index.astype(np.uint16), keypoint_weight=weight.astype(np.float32)
        )


def _fit_point(
    vertices: Float[np.ndarray, "n v 2"], targets: Float[np.ndarray, "n 2"], candidates: int = 60, rounds: int = 4
) -> tuple[Float[np.ndarray, "v"], float]:
    """Weights of one point, and its median distance from the detections, pixels."""
    some = slice(None, None, max(1, len(targets) // 1500))
    distance = np.median(np.linalg.norm(vertices[some] - targets[some, None], axis=2), 0)
    near = np.argsort(distance, kind="stable")[:candidates]
    matrix = vertices[:, near].transpose(0, 2, 1).astype(np.float64)
    kept = np.ones(len(targets), bool)
    weights = np.zeros(len(near))
    error = np.zeros(len(targets))
    for _ in range(rounds):
        a, b = matrix[kept].reshape(-1, len(near)), targets[kept].reshape(-1)
        # A row with a large weight makes the sum 1. The candidates' mean is subtracted, so that this row
        # does not bias the fit.
        shift = a.mean(1, keepdims=True)
        heavy = 100.0 * np.sqrt(len(b))
        weights, _ = nnls(np.vstack([a - shift, np.full((1, len(near)), heavy)]), np.append(b - shift[:, 0], heavy))
        weights[weights < 0.01] = 0
        weights /= weights.sum()
        error = np.linalg.norm(matrix @ weights - targets, axis=1)
        kept = error < max(2.2 * float(np.median(error)), 5.0)
    row = np.zeros(vertices.shape[1])
    row[near] = weights
    return row, float(np.median(error))
