"""Triangulation of points that several calibrated cameras see."""

import dataclasses
import itertools

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.rotations import axis_angle_to_matrix
from i2l_meshnet.tensors import TensorDataclass


@dataclasses.dataclass(frozen=True)
class PosedCamera(TensorDataclass):
    """Cameras in a common world frame: camera point = rotation @ world point + translation, metres."""

    intrinsics: Camera
    rotation: Float[Tensor, "*b 3 3"]
    translation: Float[Tensor, "*b 3"]

    def to_camera(self, points: Float[Tensor, "*b n 3"]) -> Float[Tensor, "*b n 3"]:
        """Transform world points to the cameras' frames (x right, y down, z forward), metres."""
        return points @ self.rotation.transpose(-1, -2) + self.translation[..., None, :]

    def rotated(self, rotation: Float[Tensor, "*b 3 3"]) -> "PosedCamera":
        """The cameras rotated about their own centres by `rotation`, in their own frames."""
        moved = (rotation @ self.translation[..., None])[..., 0]
        return dataclasses.replace(self, rotation=rotation @ self.rotation, translation=moved)


def triangulate(
    cameras: PosedCamera, pixels: Float[Tensor, "v *n 2"], weight: Float[Tensor, "v *n"]
) -> Float[Tensor, "*n 3"]:
    """World points (metres) from their pixels in each of the V cameras, by weighted direct linear transform.

    cameras: batch axis V. Views of weight 0 are ignored. At least two views must have a weight.
    """
    axes = (...,) + (None,) * (pixels.ndim - 2) + (slice(None),)
    normal = (pixels - cameras.intrinsics.center[axes]) / cameras.intrinsics.focal[axes]
    matrix = torch.cat([cameras.rotation, cameras.translation[..., None]], -1)
    matrix = matrix.reshape(-1, *(1,) * (pixels.ndim - 2), 3, 4)
    rows = weight[..., None, None] * (normal[..., None] * matrix[..., 2:, :] - matrix[..., :2, :])
    stacked = rows.movedim(0, -3).flatten(-3, -2)
    solution = torch.linalg.svd(stacked, full_matrices=False).Vh[..., -1, :]
    return solution[..., :3] / solution[..., 3:]


def reprojection_error(
    cameras: PosedCamera, points: Float[Tensor, "*n 3"], pixels: Float[Tensor, "v *n 2"]
) -> Float[Tensor, "v *n"]:
    """Distance in pixels between observed pixels and the world points' projections, per view."""
    views = pixels.shape[0]
    flat = cameras.to_camera(points.reshape(1, -1, 3).expand(views, -1, 3))
    return (cameras.intrinsics.project(flat).reshape(pixels.shape) - pixels).norm(dim=-1)


def triangulate_best_views(
    cameras: PosedCamera,
    pixels: Float[Tensor, "v n 2"],
    confidence: Float[Tensor, "v n"],
    present: Bool[Tensor, "v"],
    advantage: float = 6.0,
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "v n"]]:
    """Triangulate each point from all present views, or from fewer if that lowers the mean error by `advantage` px.

    At least three views are used if three are present. Returns world points (metres) and reprojection errors (pixels),
    which are nan in views that were not used.
    """
    views = [view for view, is_present in enumerate(present.tolist()) if is_present]
    best_points = pixels.new_zeros(pixels.shape[1], 3)
    best_errors = torch.full_like(confidence, torch.nan)
    best_mean = torch.full_like(confidence[0], torch.inf)
    min_count = max(2, min(3, len(views)))
    for count in range(len(views), min_count - 1, -1):
        for subset in itertools.combinations(views, count):
            index = list(subset)
            points = triangulate(cameras[index], pixels[index], confidence[index])
            errors = reprojection_error(cameras[index], points, pixels[index])
            better = errors.mean(0) < best_mean - advantage
            best_mean = torch.where(better, errors.mean(0), best_mean)
            best_points = torch.where(better[:, None], points, best_points)
            spread = torch.full_like(confidence, torch.nan)
            spread[index] = errors
            best_errors = torch.where(better, spread, best_errors)
    return best_points, best_errors


def associate(
    cameras: PosedCamera,
    keypoints: list[Float[Tensor, "_ k 3"]],
    min_views: int = 3,
    max_error: float = 30.0,
) -> list[Int[Tensor, "v"]]:
    """Find the detections of the same person in the views.

    keypoints: for each view, the detected people with K points each (x, y in pixels, confidence). All combinations of
    at most one person per view are triangulated, so the cost is exponential in the views. They are accepted greedily,
    more views first, then by their confidence-weighted reprojection error, with each detection used once. Returns a row
    per person: the index of its detection in each view, -1 in views without it. max_error: maximum error, pixels.
    """
    choices = [[-1, *range(len(people))] for people in keypoints]
    candidates: list[tuple[int, float, tuple[int, ...]]] = []
    for choice in itertools.product(*choices):
        views = [view for view, person in enumerate(choice) if person >= 0]
        if len(views) < min_views:
            continue
        seen = torch.stack([keypoints[view][choice[view]] for view in views])
        points = triangulate(cameras[views], seen[..., :2], seen[..., 2])
        errors = reprojection_error(cameras[views], points, seen[..., :2])
        error = float((errors * seen[..., 2]).sum() / seen[..., 2].sum())
        if error <= max_error:
            candidates.append((-len(views), error, choice))
    used: set[tuple[int, int]] = set()
    groups: list[Tensor] = []
    for _, _, choice in sorted(candidates):
        members = {(view, person) for view, person in enumerate(choice) if person >= 0}
        if not members & used:
            used |= members
            groups.append(torch.tensor(choice))
    return groups


def refine_orientations(
    cameras: PosedCamera, pixels: Float[Tensor, "v n 2"], confidence: Float[Tensor, "v n"], robust: float = 10.0
) -> PosedCamera:
    """Bundle adjustment of orientations: rotate the cameras so that the points of all views agree better.

    Positions and intrinsics do not change, which keeps scale and origin. Minimises the confidence-weighted Huber loss
    (linear above `robust` pixels) of the reprojection errors and a penalty on the rotations. Each step triangulates the
    points again.
    """
    pixels, confidence, cameras = pixels.double(), confidence.double(), cameras.to(dtype=torch.float64)
    rotation = torch.zeros_like(cameras.translation, requires_grad=True)
    optimizer = torch.optim.LBFGS([rotation], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        rotated = cameras.rotated(axis_angle_to_matrix(rotation))
        error = reprojection_error(rotated, triangulate(rotated, pixels, confidence), pixels)
        huber = torch.nn.functional.huber_loss(error, torch.zeros_like(error), delta=robust, reduction="none")
        total = (huber * confidence).mean() / robust + 0.1 * rotation.square().sum()
        total.backward()
        return total

    optimizer.step(loss)
    return cameras.rotated(axis_angle_to_matrix(rotation.detach()))
