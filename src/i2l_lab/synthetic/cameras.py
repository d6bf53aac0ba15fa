"""Sampled views: the position of the camera, its lens, and the box that a detector would give."""

import dataclasses
import math

import torch
from jaxtyping import Float
from torch import Tensor

from i2l_meshnet.bodies.base import Body, BodyMesh, BodyParams
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.tensors import TensorDataclass

FACING = ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0))
"""Root rotation of an upright Anny (x left, -y front, z up) that faces the camera (x right, y down, z forward)."""

ENDLESS = 1e6


@dataclasses.dataclass(frozen=True)
class ViewMix:
    """How views are sampled; angles in degrees.

    frontal: probability that the heading is within `frontal_range` of facing the camera; otherwise it is uniform.
    pitch_mean, pitch: mean and deviation of the camera's downward tilt; steep: the deviation in a third of the views.
    roll, tilted_roll: deviations, the second in a fifth of the views. near, far: ranges of the angle that the person
    spans; tele: probability of `far`. offset: deviation of the person's direction from the optical axis. truncated:
    probability that the image border cuts the person. box_scale, box_shift: relative deviations of the box.
    """

    frontal: float = 0.5
    frontal_range: float = 60.0
    pitch_mean: float = 6.0
    pitch: float = 8.0
    steep: float = 17.0
    roll: float = 5.0
    tilted_roll: float = 18.0
    near: tuple[float, float] = (22.0, 62.0)
    far: tuple[float, float] = (5.0, 22.0)
    tele: float = 0.3
    offset: float = 7.0
    truncated: float = 0.16
    box_scale: float = 0.08
    box_shift: float = 0.025


@dataclasses.dataclass(frozen=True)
class BodySample(TensorDataclass):
    """People in front of cameras.

    params, mesh: in the camera frame, metres. camera: its principal point is pixel (0, 0) of an image in which the
    person is about 400 px long. box: x, y, width, height in pixels as a detector would give it, without margin. frame:
    the image rectangle (x, y, width, height; pixels), far larger than the person unless it cuts the person. up: the
    world's up direction in the camera frame.
    """

    params: BodyParams
    mesh: BodyMesh
    camera: Camera
    box: Float[Tensor, "*b 4"]
    frame: Float[Tensor, "*b 4"]
    up: Float[Tensor, "*b 3"]


class ViewSampler:
    """Puts batches of posed people in front of sampled cameras."""

    def __init__(self, body: Body, mix: ViewMix | None = None) -> None:
        self.body, self.mix = body, mix or ViewMix()

    def place(
        self, pose: Float[Tensor, "n k 3 3"], shape: Float[Tensor, "n s"], generator: torch.Generator
    ) -> BodySample:
        """Views of people with the given shapes and local rotations; the root's heading is the front (-y)."""
        n, mix = len(pose), self.mix

        def uniform(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand(n, generator=generator)

        def normal(deviation: float | Tensor) -> Tensor:
            return torch.randn(n, generator=generator) * deviation

        def chance(probability: float) -> Tensor:
            return torch.rand(n, generator=generator) < probability

        def radians(degrees: Tensor) -> Tensor:
            return degrees * (math.pi / 180)

        frontal = chance(mix.frontal)
        yaw = torch.where(frontal, uniform(-mix.frontal_range, mix.frontal_range), uniform(-180.0, 180.0))
        pitch = (mix.pitch_mean + normal(torch.where(chance(1 / 3), mix.steep, mix.pitch))).clamp(-30, 60)
        roll = normal(torch.where(chance(0.2), mix.tilted_roll, mix.roll)).clamp(-40, 40)
        facing = torch.tensor(FACING)
        view = _axis_rotation(radians(roll), 2) @ _axis_rotation(radians(pitch), 0) @ facing
        view = view @ _axis_rotation(radians(yaw), 2)
        pose = torch.cat([(view @ pose[:, 0])[:, None], pose[:, 1:]], 1)
        with torch.no_grad():
            mesh = self.body(BodyParams(pose, shape, pose.new_zeros(n, 3)))

        low, high = mesh.vertices.amin(1), mesh.vertices.amax(1)
        extent = (high - low)[:, :2].amax(1)
        span = radians(torch.where(chance(mix.tele), uniform(*mix.far), uniform(*mix.near)))
        # The nearest limbs can be in front of the plane that spans the angle, but at least 0.35 m from the camera.
        distance = extent / 2 / torch.tan(span / 2) - low[:, 2] * 0.5
        distance = torch.maximum(distance, 0.35 - low[:, 2])
        aside = torch.tan(radians(torch.stack([normal(mix.offset), normal(mix.offset * 0.7)], 1).clamp(-22, 22)))
        middle = (low + high)[:, :2] / 2
        shift = torch.cat([aside * distance[:, None] - middle, distance[:, None]], 1)
        params = BodyParams(pose, shape, shift)
        mesh = mesh.map(lambda points: points + shift[:, None])

        flat = mesh.vertices[..., :2] / mesh.vertices[..., 2:]
        low, high = flat.amin(1), flat.amax(1)
        focal = 400 / (high - low).amax(1)
        camera = Camera(focal[:, None].expand(n, 2), torch.zeros(n, 2))
        low, high = low * focal[:, None], high * focal[:, None]

        edges_low, edges_high = self._cut(low, high, chance(mix.truncated), generator)
        low, high = torch.maximum(low, edges_low), torch.minimum(high, edges_high)
        size = high - low
        center = (low + high) / 2 + torch.randn(n, 2, generator=generator) * mix.box_shift * size
        size = size * torch.exp(normal(mix.box_scale))[:, None]
        size = size * torch.exp(torch.randn(n, 2, generator=generator) * mix.box_scale / 2)
        box = torch.cat([center - size / 2, size], 1)
        frame = torch.cat([edges_low, edges_high - edges_low], 1)
        return BodySample(params, mesh, camera, box, frame, up=view[:, :, 2])

    def _cut(self, low: Tensor, high: Tensor, cut: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Borders of the image. They mostly cut below the hips or knees, otherwise through the head or at a side."""
        n = len(low)
        size = high - low
        side = torch.rand(n, generator=generator)
        keep = torch.rand(n, generator=generator)
        edges_low, edges_high = torch.full((n, 2), -ENDLESS), torch.full((n, 2), ENDLESS)
        bottom, top = cut & (side < 0.75), cut & (side >= 0.75) & (side < 0.82)
        left, right = cut & (side >= 0.82) & (side < 0.91), cut & (side >= 0.91)
        edges_high[:, 1] = torch.where(bottom, low[:, 1] + size[:, 1] * (0.4 + 0.5 * keep), edges_high[:, 1])
        edges_low[:, 1] = torch.where(top, high[:, 1] - size[:, 1] * (0.7 + 0.25 * keep), edges_low[:, 1])
        edges_low[:, 0] = torch.where(left, high[:, 0] - size[:, 0] * (0.5 + 0.4 * keep), edges_low[:, 0])
        edges_high[:, 0] = torch.where(right, low[:, 0] + size[:, 0] * (0.5 + 0.4 * keep), edges_high[:, 0])
        return edges_low, edges_high


def _axis_rotation(angle: Float[Tensor, "n"], axis: int) -> Float[Tensor, "n 3 3"]:
    """Rotations about a coordinate axis, radians."""
    result = torch.eye(3).repeat(len(angle), 1, 1)
    first, second = [(1, 2), (2, 0), (0, 1)][axis]
    result[:, first, first] = result[:, second, second] = angle.cos()
    result[:, second, first] = angle.sin()
    result[:, first, second] = -angle.sin()
    return result
