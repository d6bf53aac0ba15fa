"""Solves for the position of a metric mesh so that it projects onto its lixels. RootNet is not needed."""

import dataclasses
import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.tensors import TensorDataclass

HUBER = 3.0
"""Threshold of the Huber weight, pixels."""
ITERATIONS = 20
MIN_DEPTH = 0.1
"""Minimum depth of every point of a mesh, metres."""


@dataclasses.dataclass(frozen=True)
class Placement(TensorDataclass):
    """The position of a root-relative mesh, and its reprojection error.

    translation: position of the root, camera frame, metres. median_error, mean_error: distance between projected and
    given points, over the points of nonzero weight, pixels.
    """

    translation: Float[Tensor, "*b 3"]
    median_error: Float[Tensor, "*b"]
    mean_error: Float[Tensor, "*b"]


def solve_translation(
    points: Float[Tensor, "*b n 3"],
    pixels: Float[Tensor, "*b n 2"],
    camera: Camera,
    weights: Float[Tensor, "*b n"] | None = None,
    root_depth: Float[Tensor, "*b"] | None = None,
) -> Placement:
    """The translation T with which root-relative `points` X (metres) project nearest to `pixels` u.

    u = f (X + T)_xy / (X + T)_z + c, multiplied by the depth, is linear in T:
    f T_x - (u - c) T_z = (u - c) X_z - f X_x, and the same for y. Each point gives two equations for the three
    unknowns. The first solution weights all equations equally. The next solutions divide each equation by its depth, so
    residuals are in pixels, and are reweighted. The first half of the iterations uses the Huber weight. The
    second half uses a weight that falls with the square of the residual beyond twice the median. Outliers,
    even a whole limb, therefore hardly move the mesh.

    weights: 0 ignores a point. If fewer than three points have a weight, all points are used. root_depth: T_z if known,
    metres. If the depth is undetermined (a flat, tiny or mirrored mesh), it is clamped so that every point is at least
    `MIN_DEPTH` in front of the camera. Computed in float64 and returned in the given dtype.
    """
    dtype = points.dtype
    points, pixels, camera = points.double(), pixels.double(), camera.to(dtype=torch.float64)
    given = torch.ones_like(points[..., 0]) if weights is None else weights.double().clamp_min(0)
    given = torch.where((given > 0).sum(-1, keepdim=True) < 3, torch.ones_like(given), given)
    rays = (pixels - camera.center[..., None, :]) / camera.focal[..., None, :]
    nearest = MIN_DEPTH - points[..., 2].amin(-1)
    known = None if root_depth is None else torch.maximum(root_depth.double(), nearest)
    used = given > 0

    translation = _least_squares(points, rays, camera.focal, given, known, nearest)
    for iteration in range(ITERATIONS):
        error = _pixel_error(points, translation, pixels, camera)
        depth = points[..., 2] + translation[..., 2:]
        if iteration < ITERATIONS // 2:
            robust = HUBER / error.clamp_min(HUBER)
        else:
            scale = (2 * _masked_median(error, used)[..., None]).clamp_min(HUBER)
            robust = (scale / torch.maximum(error, scale)).square()
        translation = _least_squares(points, rays, camera.focal, given * robust / depth.square(), known, nearest)

    error = _pixel_error(points, translation, pixels, camera)
    mean = (error * used).sum(-1) / used.sum(-1)
    return Placement(translation.to(dtype), _masked_median(error, used).to(dtype), mean.to(dtype))


def _least_squares(
    points: Float[Tensor, "*b n 3"],
    rays: Float[Tensor, "*b n 2"],
    focal: Float[Tensor, "*b 2"],
    weight: Float[Tensor, "*b n"],
    root_depth: Float[Tensor, "*b"] | None,
    nearest: Float[Tensor, "*b"],
) -> Float[Tensor, "*b 3"]:
    """Minimize the sum of weight · |focal · (X_xy + T_xy - ray (X_z + T_z))|² over T.

    For any T_z, the best T_xy is a weighted mean. Its elimination leaves one linear equation for T_z.
    """
    share = (weight / weight.sum(-1, keepdim=True))[..., None]
    offset = rays * points[..., 2:] - points[..., :2]
    mean_ray, mean_offset = (share * rays).sum(-2), (share * offset).sum(-2)
    if root_depth is None:
        ray, rest = focal[..., None, :] * (rays - mean_ray[..., None, :]), offset - mean_offset[..., None, :]
        top = -(share * ray * focal[..., None, :] * rest).sum((-1, -2))
        bottom = (share * ray.square()).sum((-1, -2))
        root_depth = torch.maximum(top / bottom.clamp_min(1e-12), nearest)
    lateral = mean_ray * root_depth[..., None] + mean_offset
    return torch.cat([lateral, root_depth[..., None]], -1)


def _pixel_error(
    points: Float[Tensor, "*b n 3"],
    translation: Float[Tensor, "*b 3"],
    pixels: Float[Tensor, "*b n 2"],
    camera: Camera,
) -> Float[Tensor, "*b n"]:
    x, y = (camera.project(points + translation[..., None, :]) - pixels).unbind(-1)
    return (x.square() + y.square()).sqrt()  # a third of the time of `norm`


def _masked_median(values: Float[Tensor, "*b n"], mask: Bool[Tensor, "*b n"]) -> Float[Tensor, "*b"]:
    hidden = torch.where(mask, values, torch.full_like(values, math.nan))
    return hidden.nanmedian(-1).values


def solve_root_depth(
    pixels: Float[Tensor, "*b n 2"],
    relative_depth: Float[Tensor, "*b n"],
    camera: Camera,
    pairs: Int[Tensor, "p 2"],
    lengths: Float[Tensor, "p"],
    weights: Float[Tensor, "*b n"] | None = None,
) -> Float[Tensor, "*b"]:
    """Root depth Z (metres) at which the bones of back-projected joints have the body's lengths.

    It is for networks without body parameters. A point with ray a = (u - c) / f and root-relative depth d is at
    (a (d + Z), d + Z). The squared distance of a pair is therefore quadratic in Z:
    |Δa|² Z² + 2 Δa·Δ(a d) Z + |Δ(a d)|² + Δd². Z is the larger root at which the sum over `pairs` equals the sum of
    squared `lengths` (metres). Pairs that differ by more than half their length are then removed and Z is solved again.
    If there is no real root, Z is the minimum of the misfit. Every point is at least `MIN_DEPTH` from the camera.

    weights: the weight of a pair is the smaller weight of its two points.
    """
    dtype = pixels.dtype
    pixels, relative, camera = pixels.double(), relative_depth.double(), camera.to(dtype=torch.float64)
    rays = (pixels - camera.center[..., None, :]) / camera.focal[..., None, :]
    start, end = pairs[:, 0], pairs[:, 1]
    flat = rays * relative[..., None]
    slope = rays[..., start, :] - rays[..., end, :]
    shift = flat[..., start, :] - flat[..., end, :]
    a = slope.square().sum(-1)
    b = 2 * (slope * shift).sum(-1)
    c = shift.square().sum(-1) + (relative[..., start] - relative[..., end]).square() - lengths.double().square()
    weight = torch.ones_like(a)
    if weights is not None:
        both = torch.minimum(weights[..., start], weights[..., end]).double()
        weight = torch.where((both > 0).any(-1, keepdim=True), both, weight)
    nearest = MIN_DEPTH - relative.amin(-1)
    depth = torch.maximum(_larger_root(a, b, c, weight), nearest)
    for _ in range(3):
        z = depth[..., None]
        squared = lengths.double().square()
        reached = (a * z + b) * z + c + squared
        fits = (reached.clamp_min(0).sqrt() - lengths.double()).abs() <= 0.5 * lengths.double()
        kept = weight * fits
        kept = torch.where((kept > 0).any(-1, keepdim=True), kept, weight)
        depth = torch.maximum(_larger_root(a, b, c, kept), nearest)
    return depth.to(dtype)


def _larger_root(
    a: Float[Tensor, "*b p"], b: Float[Tensor, "*b p"], c: Float[Tensor, "*b p"], weight: Float[Tensor, "*b p"]
) -> Float[Tensor, "*b"]:
    a, b, c = ((weight * term).sum(-1) for term in (a, b, c))
    root = (b.square() - 4 * a * c).clamp_min(0).sqrt()
    return (-b + root) / (2 * a).clamp_min(1e-12)
