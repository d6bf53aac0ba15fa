"""A network that knows the truth: it tells people apart by the colour in the middle of their crops."""

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
"""Root rotation that lets Anny stand upright before the camera and face it."""


@dataclasses.dataclass(frozen=True)
class KnownPerson:
    """What the network will be asked for: truth in the camera frame, and where it is seen."""

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
    """Answers with the true lixels of the people of the scenes it was made with."""

    def __init__(self, scenes: Sequence[Scene], body: Body, grid: LixelGrid, confidence: float = 0.8) -> None:
        self.grid, self.confidence, self.batches = grid, confidence, []
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
        person = person.clamp(0, len(self.rows.joints) - 1)  # a crop without a square: somebody
        keypoints = None
        if self.with_keypoints:
            keypoints = torch.full((len(image), 26, 3), 20.0)
            keypoints[..., 2] = self.confidence
        output = dataclasses.replace(self.rows[person], keypoints=keypoints)
        return output if self.with_params else dataclasses.replace(output, params=None)


def standing(body: Body, place: tuple[float, float, float], turn: float = 0.3, bend: float = 0.2) -> BodyParams:
    """Anny upright at `place` (camera frame, metres), turned about the vertical, with bent joints."""
    generator = torch.Generator().manual_seed(round(1000 * turn))
    params = body.rest_params()
    axes = torch.randn(len(body.bones), 3, generator=generator) * bend
    axes[0] = torch.tensor([0.0, turn, 0.0])
    pose = axis_angle_to_matrix(axes)
    pose[0] = pose[0] @ FACING
    return BodyParams(pose, params.shape, torch.tensor(place))


def make_scene(
    body: Body, camera: Camera, size: tuple[int, int], people: Sequence[BodyParams], first: int = 0
) -> Scene:
    """A picture of `size` (height, width). first: number of the first person, for networks of several scenes."""
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
