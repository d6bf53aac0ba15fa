"""The motion of a person as signals that can be smoothed, and back to meshes."""

import dataclasses

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from i2l_meshnet.bodies.base import Body, BodyMesh, BodyParams
from i2l_meshnet.prediction.results import Prediction
from i2l_meshnet.tensors import TensorDataclass
from i2l_meshnet.video.smoothing import OneEuro, fit_points, fit_rotations, local_fit

CUTOFF = {"pose": 3.3, "ray": 3.3, "vertices": 3.3, "depth": 0.5}
"""Cutoffs of One-Euro, Hz."""
GAIN = {"pose": 2.0, "ray": 20.0, "vertices": 6.0, "depth": 2.0}
"""Gains of One-Euro, Hz per unit per second. Units: radian (pose), tangent of an angle (ray), metre, e-fold (depth)."""
WIDTH = {"pose": 0.08, "ray": 0.05, "vertices": 0.08, "depth": 0.25}
"""Widths of the offline fits, seconds."""


@dataclasses.dataclass(frozen=True)
class Motion(TensorDataclass):
    """One person at one time or at several times (batch axis). Camera frame, metres.

    depth: z of the root. ray: (x / z, y / z) of the root of the lixel mesh. vertices: of the lixel mesh relative to
    `origin`. root_ray: (x / z, y / z) of the root of the parametric mesh. pose, shape: as in `BodyParams`. root_ray,
    pose and shape are None for a network without parameters.
    """

    depth: Float[Tensor, "*t 1"]
    ray: Float[Tensor, "*t 2"]
    vertices: Float[Tensor, "*t v 3"]
    root_ray: Float[Tensor, "*t 2"] | None = None
    pose: Float[Tensor, "*t k 3 3"] | None = None
    shape: Float[Tensor, "*t s"] | None = None

    @staticmethod
    def of(prediction: Prediction) -> "Motion":
        """The motion of a prediction: one person at one time."""
        root, depth = prediction.body.skeleton.root_index, torch.tensor([prediction.root_depth])
        at_root = prediction.lixel_mesh.joints[root]
        ray = at_root[:2] / at_root[2:]
        vertices = prediction.lixel_mesh.vertices - _along(ray, depth)
        if prediction.params is None or prediction.parametric_mesh is None:
            return Motion(depth, ray, vertices)
        at_root = prediction.parametric_mesh.joints[root]
        params = prediction.params
        return Motion(depth, ray, vertices, at_root[:2] / at_root[2:], params.pose, params.shape)

    @property
    def origin(self) -> Float[Tensor, "*t 3"]:
        """The point on `ray` at the depth of the root. Camera frame, metres."""
        return _along(self.ray, self.depth)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The fields that are not None, as arrays. Vertices, the largest, are in half precision (error under 1 mm)."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        arrays = {name: value.numpy() for name, value in fields.items() if value is not None}
        return {**arrays, "vertices": arrays["vertices"].astype(np.float16)}

    def at_depth(self, depth: Float[Tensor, "*t 1"]) -> "Motion":
        """Move the root to another depth. Every point stays on its ray and keeps its depth relative to the root."""
        points = self.vertices + self.origin[..., None, :]
        z = points[..., 2:]
        moved = points * (z + (depth - self.depth)[..., None, :]) / z
        return dataclasses.replace(self, depth=depth, vertices=moved - _along(self.ray, depth)[..., None, :])

    def with_shape(self, body: Body, shape: Float[Tensor, "s"]) -> "Motion":
        """Replace the shapes by one shape. The depth is scaled with the size, so that the image stays the same."""
        if self.shape is None:
            return self
        ratio = rest_size(body, shape) / rest_size(body, self.shape)
        return dataclasses.replace(self.at_depth(self.depth * ratio[..., None]), shape=shape.expand(self.shape.shape))

    def lixel_mesh(self, body: Body) -> BodyMesh:
        """The lixel mesh in the camera frame."""
        vertices = self.vertices + self.origin[..., None, :]
        return BodyMesh(vertices, body.joint_regressor @ vertices)

    def params(self, body: Body) -> BodyParams | None:
        """The body's parameters, with the root on its ray."""
        if self.pose is None or self.shape is None or self.root_ray is None:
            return None
        free = BodyParams(self.pose, self.shape, torch.zeros_like(self.vertices[..., 0, :]))
        at_root = body(free).joints[..., body.skeleton.root_index, :]
        return dataclasses.replace(free, translation=_along(self.root_ray, self.depth) - at_root)


def _along(ray: Float[Tensor, "*t 2"], depth: Float[Tensor, "*t 1"]) -> Float[Tensor, "*t 3"]:
    return torch.cat([ray, torch.ones_like(depth)], -1) * depth


def rest_size(body: Body, shape: Float[Tensor, "*t s"]) -> Float[Tensor, "*t"]:
    """Mean distance of the joints from their centre in the rest pose, metres."""
    rest = dataclasses.replace(body.rest_params(*shape.shape[:-1]), shape=shape)
    joints = body(rest).joints
    return (joints - joints.mean(-2, keepdim=True)).norm(dim=-1).mean(-1)


class MotionFilter:
    """One-Euro filters for the motion of one person or hand."""

    def __init__(self) -> None:
        kinds = {**{name: name for name in CUTOFF}, "root_ray": "ray"}
        self._filters = {
            name: OneEuro(CUTOFF[kind], GAIN[kind], rotations=name == "pose") for name, kind in kinds.items()
        }

    def step(self, motion: Motion, seconds: float) -> Motion:
        """Smooth the next frame. seconds: time since the previous step."""
        depth = self._filters["depth"].step(motion.depth.log(), seconds).exp()
        motion = motion.at_depth(depth)
        smooth = {
            name: self._filters[name].step(value, seconds)
            for name in ("ray", "vertices", "root_ray", "pose")
            if (value := getattr(motion, name)) is not None
        }
        return dataclasses.replace(motion, **smooth)


def smooth_offline(
    motion: Motion, times: Float[Tensor, "n"], trust: Float[Tensor, "n"], part: slice = slice(None)
) -> Motion:
    """Smooth the frames `part` of a motion, with earlier and later frames. times: seconds. trust: weights."""

    def weights(kind: str) -> Float[Tensor, "t n"]:
        return local_fit(times[part], times, trust, WIDTH[kind])

    # Depth is smoothed first, so that its noise does not change the size of the mesh.
    of_depth = local_fit(times, times, trust, WIDTH["depth"])
    motion = motion.at_depth(fit_points(of_depth, motion.depth.log()).exp())
    return Motion(
        depth=motion.depth[part],
        ray=fit_points(weights("ray"), motion.ray),
        vertices=fit_points(weights("vertices"), motion.vertices),
        root_ray=None if motion.root_ray is None else fit_points(weights("ray"), motion.root_ray),
        pose=None if motion.pose is None else fit_rotations(weights("pose"), motion.pose),
        shape=None if motion.shape is None else motion.shape[part],
    )
