"""The regressor from Anny's vertices to the 26 points that RTMPose finds, fitted to its detections on pictures."""

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
    """Folder that `detect_bank` wrote."""
    out: Path
    """The file to write; the package holds it as bodies/data/anny_halpe26_rendered.npz."""
    confidence: float = 0.5
    """Detections below this confidence are left out."""
    pictures: int = 6000
    """At most so many pictures are used for each point."""


@dataclasses.dataclass(frozen=True)
class KeypointFit:
    """A regressor and how well it agrees with the detections: median errors per point, pixels of the crop."""

    regressor: Float[np.ndarray, "26 v"]
    median_error: Float[np.ndarray, "26"]


def fit_keypoint_regressor(options: FitOptions) -> KeypointFit:
    """Fits the regressor, writes it and prints how well it agrees with the detections."""
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
    """Each point as a non-negative combination of few vertices, weights summing to 1; exactly mirror-symmetric.

    A point is fitted to its own detections and to its mirror twin's in mirrored pictures. Detections far off the
    fit (limbs taken for one another, hidden points) are left out in rounds.
    """
    keypoints = bank.keypoints.double().numpy()
    places = bank.vertices[..., :2].numpy()
    twin = np.array(HALPE26.mirror_permutation)
    regressor = np.zeros((len(HALPE26), places.shape[1]))
    errors = np.zeros(len(HALPE26))
    for point in range(len(HALPE26)):
        if twin[point] < point:
            regressor[point] = regressor[twin[point]][vertex_mirror]
            errors[point] = errors[twin[point]]
            continue
        # A mirrored picture differs by the sign of x; the vertices change places with their twins.
        own = np.flatnonzero(keypoints[:, point, 2] > confidence)[:pictures]
        other = np.flatnonzero(keypoints[:, twin[point], 2] > confidence)[:pictures]
        flip = np.array([-1.0, 1.0])
        targets = np.concatenate([keypoints[own, point, :2], keypoints[other, twin[point], :2] * flip])
        vertices = np.concatenate([places[own], places[other][:, vertex_mirror] * flip.astype(np.float16)])
        weights, errors[point] = _fit_point(vertices.astype(np.float32), targets)
        if twin[point] == point:
            weights = (weights + weights[vertex_mirror]) / 2
        regressor[point] = weights
    return KeypointFit(regressor, errors)


def write_regressor(path: Path, regressor: Float[np.ndarray, "26 v"]) -> None:
    """Writes the rows' vertices and weights: keypoint_index and keypoint_weight, (26, most vertices in a row)."""
    most = int((regressor != 0).sum(1).max())
    index = np.argsort(-np.abs(regressor), axis=1, kind="stable")[:, :most]
    weight = np.take_along_axis(regressor, index, 1)
    index = np.where(weight != 0, index, 0)
    with atomic_path(path) as temporary:
        np.savez_compressed(
            temporary, keypoint_index=index.astype(np.uint16), keypoint_weight=weight.astype(np.float32)
        )


def _fit_point(
    vertices: Float[np.ndarray, "n v 2"], targets: Float[np.ndarray, "n 2"], candidates: int = 60, rounds: int = 4
) -> tuple[Float[np.ndarray, "v"], float]:
    """Weights of one point and the median distance to its detections, pixels."""
    some = slice(None, None, max(1, len(targets) // 1500))
    distance = np.median(np.linalg.norm(vertices[some] - targets[some, None], axis=2), 0)
    near = np.argsort(distance, kind="stable")[:candidates]
    matrix = vertices[:, near].transpose(0, 2, 1).astype(np.float64)
    kept = np.ones(len(targets), bool)
    weights = np.zeros(len(near))
    error = np.zeros(len(targets))
    for _ in range(rounds):
        a, b = matrix[kept].reshape(-1, len(near)), targets[kept].reshape(-1)
        # Weights sum to 1 by a heavy row, about the mean of the candidates so that it does not skew the rest.
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
