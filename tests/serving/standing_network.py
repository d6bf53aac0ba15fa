"""A network that predicts a standing Anny in every crop, and a detector of a given number of people."""

import dataclasses

import numpy as np
import torch
from torch import Tensor

from i2l_meshnet.bodies.base import Body, BodyParams
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.crop import Crop
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.models.output import LixelOutput
from i2l_meshnet.prediction.detect import PersonDetector

FACING = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
"""Root rotation with which Anny is upright and faces the camera."""


class StandingNetwork:
    """Predicts the same lixels for every crop."""

    def __init__(self, body: Body) -> None:
        self.grid = LixelGrid(crop_size=(256, 192), depth_extent=2.4, margin=0.5, depth_axis="crop")
        self.parameter_regressor = None
        camera = Camera.from_field_of_view(300, 400, 55.0)
        rest = body.rest_params()
        pose = rest.pose.clone()
        pose[0] = FACING
        params = BodyParams(pose, rest.shape, torch.tensor([0.0, 0.0, 2.4]))
        mesh = body(params)
        crop = Crop.around(torch.tensor([60.0, 10.0, 180.0, 380.0]), self.grid.crop_size, clip_to=(300, 400))
        root = mesh.joints[body.skeleton.root_index, 2]
        vertices = self.grid.from_camera(mesh.vertices, crop, camera, root)
        joints = self.grid.from_camera(mesh.joints, crop, camera, root)
        view = self.grid.view_rotation(crop, camera)
        local = dataclasses.replace(params.rotated(view.mT), translation=torch.zeros(3))
        keypoints = torch.full((1, 26, 3), 0.8)
        self.row = LixelOutput(
            joints[None], vertices[None], (body.joint_regressor @ vertices)[None], local[None], keypoints=keypoints
        )

    def __call__(self, image: Tensor) -> LixelOutput:
        return self.row[torch.zeros(len(image), dtype=torch.long)]


class Detector(PersonDetector):
    """Finds `count` people side by side, the first with a score of 0.9, the others with 0.6. It loads no network."""

    def __init__(self, count: int = 1) -> None:
        self.count, self.threshold = count, 0.35

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        height, width = image.shape[:2]
        step = width / max(self.count, 1)
        boxes = [[i * step, 0.05 * height, step, 0.9 * height] for i in range(self.count)]
        scores = [0.9, *[0.6] * self.count][: self.count]
        seen = sum(score >= self.threshold for score in scores)
        return np.array(boxes, np.float32).reshape(-1, 4)[:seen], np.array(scores, np.float32)[:seen]
