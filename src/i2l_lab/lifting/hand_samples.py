"""Training samples of the hand network: posed hands in front of a camera, and the landmarks of MediaPipe's network.

Some are real outputs of the network on drawn hands (`synthetic.hands`). The others are new hands whose landmarks are
predicted by a linear map, fitted to the bank, plus residuals of the bank.
"""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from i2l_lab.lifting.samples import BatchSampler, LiftingBatch, full_crop, make_batch
from i2l_lab.synthetic.hands import HandBank, HandSampler, rolled
from i2l_meshnet.bodies.anny import AnnyBody
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.crop import transform_points
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.models.hand import landmark_features
from i2l_meshnet.models.mediapipe import LANDMARK_CROP, crop_around

FINGERS = tuple(range(start, start + 4) for start in (1, 5, 9, 13, 17))
"""Rows of each finger's points, from base to tip."""


@dataclasses.dataclass(frozen=True)
class HandNoise:
    """How landmarks differ from the hand's joints; lengths in crop pixels.

    The residuals of an output in the bank are added, times a factor from `minimum` to `maximum`, then each point is
    jittered. Outputs with a presence below `presence` are not used. fingers, palm: relative standard deviations of the
    lengths of fingers and of parts of the palm: real hands differ more than the shapes of the body model.
    depth_jitter: of the depths, crop pixels. world_jitter: of the world points, metres.
    """

    minimum: float = 0.3
    maximum: float = 1.0
    jitter: float = 1.0
    presence: float = 0.5
    fingers: float = 0.06
    palm: float = 0.05
    depth_jitter: float = 1.5
    world_jitter: float = 0.002


class HandLiftingSampler(BatchSampler):
    """Draws training batches of hands."""

    def __init__(
        self,
        body: AnnyBody,
        grid: LixelGrid,
        hands: HandSampler,
        bank: HandBank,
        noise: HandNoise | None = None,
        seed: int = 0,
    ) -> None:
        self.body, self.grid, self.hands = body, grid, hands
        self.noise, self.seed = noise or HandNoise(), seed
        rows = bank.found.presence > self.noise.presence
        self.params, self.camera = bank.params[rows], bank.camera[rows]
        self.found = landmark_features(bank.found[rows])
        with torch.no_grad():
            starts = range(0, len(self.found), 256)
            joints = torch.cat([body(self.params[start : start + 256]).joints for start in starts])
        # The network's outputs as a linear function of the ground truth, and the residuals.
        truth, outputs = self._truth(joints, self.camera), _coordinates(self.found)
        gram = truth.T @ truth + torch.eye(truth.shape[1]).double() * len(truth) * 1e-4
        self.map = torch.linalg.solve(gram, truth.T @ outputs)
        self.residual = outputs - truth @ self.map

    def _truth(self, joints: Float[Tensor, "n 21 3"], camera: Camera) -> Float[Tensor, "n f"]:
        """Features that determine the network's output: joints in the crop, and in metres in its frame; float64."""
        flat = camera.project(joints)
        scale = camera.focal[:, :1] / joints[:, 0, 2:]
        depth = (joints[..., 2] - joints[:, :1, 2]) * scale
        turn = self.grid.view_rotation(full_crop(len(joints)), camera)
        world = (joints - joints.mean(1, keepdim=True)) @ turn
        half = LANDMARK_CROP[0] / 2
        features = [flat.flatten(1) / half - 1, depth / half, world.flatten(1) * 10, torch.ones(len(joints), 1)]
        return torch.cat(features, 1).double()

    def _sampled(self, n: int, generator: torch.Generator) -> LiftingBatch:
        noise = self.noise

        def normal(*shape: int) -> Tensor:
            return torch.randn(n, *shape, generator=generator)

        hand = self.hands.sample(n, generator)
        joints = hand.mesh.joints
        earlier = joints.clone()
        # The landmarks of an earlier frame determine the crop. MediaPipe's wrist is nearer to the fingers than Anny's.
        earlier[:, 0] += 0.1 * (joints[:, 9] - joints[:, 0])
        seen = hand.camera.project(earlier)
        extent = (seen.amax(1) - seen.amin(1)).amax(-1)[:, None, None]
        crop = crop_around(seen + normal(21, 2) * 0.03 * extent)
        hand = rolled(self.body, hand.params, hand.camera, crop.rotation)
        zoom = crop.affine[..., :2].det().sqrt()[:, None]
        center = transform_points(crop.affine, hand.camera.center[:, None])[:, 0]
        camera = Camera(hand.camera.focal * zoom, center)

        joints = hand.mesh.joints.clone()
        for rows in FINGERS:
            start = joints[:, rows[0] : rows[0] + 1]
            part = joints[:, list(rows)]
            joints[:, list(rows)] = start + (part - start) * (1 + normal(1, 1) * noise.fingers)
            joints[:, list(rows)] += (start - joints[:, :1]) * normal(1, 1) * noise.palm
        expected = self._truth(joints, camera) @ self.map
        donor = torch.randint(len(self.residual), (n,), generator=generator)
        factor = noise.minimum + (noise.maximum - noise.minimum) * torch.rand(n, 1, generator=generator)
        found = (expected + self.residual[donor] * factor).float().unflatten(1, (21, 6))
        found = torch.cat([found[..., :2], self.found[donor][..., 2:3], found[..., 2:]], -1)
        found = self._jittered(found, generator)
        return make_batch(self.body, self.grid, hand.params, hand.mesh, camera, full_crop(n), found)

    def _detected(self, n: int, generator: torch.Generator) -> LiftingBatch:
        index = torch.randint(len(self.found), (n,), generator=generator)
        params = self.params[index]
        found = self._jittered(self.found[index], generator)
        return make_batch(self.body, self.grid, params, self.body(params), self.camera[index], full_crop(n), found)

    def _jittered(self, found: Float[Tensor, "n 21 7"], generator: torch.Generator) -> Float[Tensor, "n 21 7"]:
        noise = self.noise
        size = found.new_tensor([noise.jitter] * 2 + [0.0] + [noise.depth_jitter] + [noise.world_jitter] * 3)
        return found + torch.randn(found.shape, generator=generator) * size


def _coordinates(features: Float[Tensor, "n 21 7"]) -> Float[Tensor, "n f"]:
    """Landmark features without the presence, float64."""
    return torch.cat([features[..., :2], features[..., 3:]], -1).flatten(1).double()
