"""A network that knows the ground truth: it identifies people by the colour in the middle of their crops."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from i2l_meshnet.bodies.base import Body, BodyMesh, BodyParams
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.crop import Crop, published_boxes
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.geometry.rotations import axis_angle_to_matrix
from i2l_meshnet.models.output import LixelOutput

FACING = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
"""Root rotation of an upright Anny body that faces the camera."""


@dataclasses.dataclass(frozen=True)
class KnownPerson:
    """The ground truth of a person in the camera frame, and the box in the picture."""

    params: BodyParams
    mesh: BodyMesh
    box: tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class Scene:
    """A picture with a coloured square at the centre of each person's crop."""

    pixels: np.ndarray
    camera: Camera
    people: tuple[KnownPerson, ...]

    @property
    def boxes(self) -> list[tuple[float, float, float, float]]:
        return [person.box for person in self.people]


class TruthNetwork:
    """Returns the true lixels of the people in its scenes."""

    def __init__(self, scenes: Sequence[Scene], body: Body, grid: LixelGrid) -> None:
        self.grid, self.confidence, self.batches = grid, 0.8, []
        self.with_params = self.with_keypoints = True
        rows: list[LixelOutput] = []
        for scene in scenes:
            height, width = scene.pixels.shape[:2]
            for person in scene.people:
                crop = Crop.around(torch.tensor(person.box), grid.crop_size, clip_to=(width, height))
                root = person.mesh.joints[body.skeleton.root_index, 2]
                vertices = grid.from_camera(person.mesh.vertices, crop, scene.camera, root)
                joints = grid.from_camera(person.mesh.joints, crop, scene.camera, root)
                view = grid.view_rotation(crop, scene.camera)
                local = dataclasses.replace(person.params.rotated(view.mT), translation=torch.zeros(3))
                rows.append(
                    LixelOutput(joints[None], vertices[None], (body.joint_regressor @ vertices)[None], local[None])
                )
        self.rows = LixelOutput.concatenate(rows)

    def __call__(self, image: Tensor) -> LixelOutput:
        height, width = image.shape[2:]
        self.batches.append(len(image))
        person = (image[:, 0, height // 2, width // 2] * 255 / 10).round().long() - 1
        person = person.clamp(0, len(self.rows.joints) - 1)  # a crop without a square shows any person
        keypoints = None
        if self.with_keypoints:
            keypoints = torch.full((len(image), 26, 3), 20.0)
            keypoints[..., 2] = self.confidence
        output = dataclasses.replace(self.rows[person], keypoints=keypoints)
        return output if self.with_params else dataclasses.replace(output, params=None)


def standing(body: Body, position: tuple[float, float, float], rotation: float) -> BodyParams:
    """An upright Anny body with bent joints. position: camera frame, metres. rotation: about the vertical, radians."""
    generator = torch.Generator().manual_seed(round(1000 * rotation))
    params = body.rest_params()
    axes = torch.randn(len(body.bones), 3, generator=generator) * 0.2
    axes[0] = torch.tensor([0.0, rotation, 0.0])
    pose = axis_angle_to_matrix(axes)
    pose[0] = pose[0] @ FACING
    return BodyParams(pose, params.shape, torch.tensor(position))


def make_scene(
    body: Body, camera: Camera, size: tuple[int, int], people: Sequence[BodyParams], first: int = 0
) -> Scene:
    """A picture of `size` (height, width). first: number of the first person in a network of several scenes."""
    pixels = np.full((*size, 3), 200, np.uint8)
    found = []
    for number, params in enumerate(people, first):
        mesh = body(params)
        flat = camera.project(mesh.vertices)
        low, high = flat.amin(0).clamp_min(0), flat.amax(0)
        limit = torch.tensor([size[1] - 1.0, size[0] - 1.0])
        high = torch.minimum(high, limit)
        box = (float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1]))
        ready, _ = published_boxes(torch.tensor(box), torch.tensor([size[1], size[0]]))
        x, y = (ready[:2] + ready[2:] / 2).round().int().tolist()
        reach = max(4, round(box[3] / 20))
        pixels[y - reach : y + reach + 1, x - reach : x + reach + 1] = 10 * (number + 1)
        found.append(KnownPerson(params, mesh, box))
    return Scene(pixels, camera, tuple(found))
