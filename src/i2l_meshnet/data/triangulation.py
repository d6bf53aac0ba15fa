"""Points seen by several calibrated cameras, brought together in space."""

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
    """Cameras placed in a common world frame: camera point = rotation @ world point + translation, metres."""

    intrinsics: Camera
    rotation: Float[Tensor, "*b 3 3"]
    translation: Float[Tensor, "*b 3"]

    def to_camera(self, points: Float[Tensor, "*b n 3"]) -> Float[Tensor, "*b n 3"]:
        """World points to the cameras' frames (x right, y down, z forward), metres."""
        return points @ self.rotation.transpose(-1, -2) + self.translation[..., None, :]

    def turned(self, rotation: Float[Tensor, "*b 3 3"]) -> "PosedCamera":
        """The cameras turned about their own centres by `rotation`, given in their own frames."""
        moved = (rotation @ self.translation[..., None])[..., 0]
        return dataclasses.replace(self, rotation=rotation @ self.rotation, translation=moved)


def triangulate(
    cameras: PosedCamera, pixels: Float[Tensor, "v *n 2"], weight: Float[Tensor, "v *n"]
) -> Float[Tensor, "*n 3"]:
    """World points (metres) from their pixels in each of the V cameras, by weighted direct linear transform.

    cameras: batch axis V. A view of weight 0 does not take part; two with weight are the least.
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
    """Each point from all present views, or without its worst where that lowers the mean error by `advantage` px.

    At least three views are kept where more than three are present. Returns world points (metres) and the
    reprojection errors (pixels) in the views used, nan in the others.
    """
    views = [index for index, here in enumerate(present.tolist()) if here]
    best_points = pixels.new_zeros(pixels.shape[1], 3)
    best_errors = torch.full_like(confidence, torch.nan)
    best_mean = torch.full_like(confidence[0], torch.inf)
    fewest = max(2, min(3, len(views)))
    for count in range(len(views), fewest - 1, -1):
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
    fewest_views: int = 3,
    largest_error: float = 30.0,
) -> list[Int[Tensor, "v"]]:
    """Which detection in each view shows the same person.

    keypoints: for each view, the people found there: K points (x, y in pixels, confidence). Every choice of one
    person (or none) per view is triangulated; the choices are taken greedily by their confidence-weighted
    reprojection error (more views first), nobody twice. Returns a row per person: its index in each view, -1
    where it is not seen. Groups above `largest_error` pixels are not people.
    """
    choices = [[-1, *range(len(people))] for people in keypoints]
    candidates: list[tuple[int, float, tuple[int, ...]]] = []
    for choice in itertools.product(*choices):
        views = [view for view, person in enumerate(choice) if person >= 0]
        if len(views) < fewest_views:
            continue
        seen = torch.stack([keypoints[view][choice[view]] for view in views])
        points = triangulate(cameras[views], seen[..., :2], seen[..., 2])
        errors = reprojection_error(cameras[views], points, seen[..., :2])
        error = float((errors * seen[..., 2]).sum() / seen[..., 2].sum())
        if error <= largest_error:
            candidates.append((-len(views), error, choice))
    taken: set[tuple[int, int]] = set()
    groups: list[Tensor] = []
    for _, _, choice in sorted(candidates):
        members = {(view, person) for view, person in enumerate(choice) if person >= 0}
        if not members & taken:
            taken |= members
            groups.append(torch.tensor(choice))
    return groups


def refine_orientations(
    cameras: PosedCamera, pixels: Float[Tensor, "v n 2"], confidence: Float[Tensor, "v n"], robust: float = 10.0
) -> PosedCamera:
    """Turns each camera a little so that points seen by all views agree better: bundle adjustment of orientations.

     Places and intrinsics stay, so that scale and origin stay. Minimises the confidence-weighted Huber loss (from
     squares to lengths at `robust` pixels) of the reprojection errors, with the points triangulated anew at each
    step and turns held small.
    """
    pixels, confidence, cameras = pixels.double(), confidence.double(), cameras.to(dtype=torch.float64)
    turn = torch.zeros_like(cameras.translation, requires_grad=True)
    optimizer = torch.optim.LBFGS([turn], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        turned = cameras.turned(axis_angle_to_matrix(turn))
        error = reprojection_error(turned, triangulate(turned, pixels, confidence), pixels)
        huber = torch.nn.functional.huber_loss(error, torch.zeros_like(error), delta=robust, reduction="none")
        total = (huber * confidence).mean() / robust + 0.1 * turn.square().sum()
        total.backward()
        return total

    optimizer.step(loss)
    return cameras.turned(axis_angle_to_matrix(turn.detach()))
