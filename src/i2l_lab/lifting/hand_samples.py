"""Training samples of the hand network: posed hands before a camera, and what MediaPipe's network finds of them.

Part of them are real answers of the network on drawn hands (`synthetic.hands`). The others are new hands whose points
are moved as the network moves them: on average (a linear map, fitted to the bank), and by the residuals that are left.
"""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from i2l_lab.lifting.samples import LiftingBatch, finished, whole_picture
from i2l_lab.synthetic.hands import HandBank, HandSampler, rolled
from i2l_meshnet.bodies.anny import AnnyBody
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.crop import transform_points
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.models.hand import landmark_features
from i2l_meshnet.models.mediapipe import LANDMARK_CROP, crop_around

FINGERS = tuple(range(start, start + 4) for start in (1, 5, 9, 13, 17))
"""Rows of each finger's points, from its start to its tip."""


@dataclasses.dataclass(frozen=True)
class HandNoise:
    """How found points differ from the hand's; lengths in crop pixels.

    The residuals of an answer in the bank are added times a factor from `least` to `most`, then each point is
    jittered. Answers with a presence below `presence` are not used. fingers, palm: deviations of the lengths of fingers
    and of the palm's parts from the body model's, relative: people's hands differ more than the model's shapes do.
    depth_jitter: of the depths, crop pixels; world_jitter: of the world points, metres.
    """

    least: float = 0.3
    most: float = 1.0
    jitter: float = 1.0
    presence: float = 0.5
    fingers: float = 0.06
    palm: float = 0.05
    depth_jitter: float = 1.5
    world_jitter: float = 0.002


class HandLiftingSampler:
    """Draws batches: the i-th depends on the seed and i alone, whoever draws it and when."""

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
        # The network's answers as a linear function of the truth, and what is left.
        truth, answers = self._truth(joints, self.camera), _places(self.found)
        gram = truth.T @ truth + torch.eye(truth.shape[1]).double() * len(truth) * 1e-4
        self.map = torch.linalg.solve(gram, truth.T @ answers)
        self.residual = answers - truth @ self.map

    @torch.no_grad()
    def batch(self, index: int, size: int, detected: float) -> LiftingBatch:
        """The `index`-th batch of `size` samples, a share `detected` of them real answers on drawn hands."""
        generator = torch.Generator().manual_seed((self.seed << 32) + index)
        count = round(size * detected)
        parts = [self._sampled(size - count, generator)]
        if count:
            parts.append(self._detected(count, generator))
        return LiftingBatch.concatenate(parts)

    def _truth(self, joints: Float[Tensor, "n 21 3"], camera: Camera) -> Float[Tensor, "n f"]:
        """What the network's answer follows: joints in the crop, and in metres in the frame of the crop, float64."""
        flat = camera.project(joints)
        scale = camera.focal[:, :1] / joints[:, 0, 2:]
        depth = (joints[..., 2] - joints[:, :1, 2]) * scale
        turn = self.grid.view_rotation(whole_picture(len(joints)), camera)
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
        flat = joints + 0
        # The previous frame's points decide the crop; MediaPipe's wrist lies nearer to the fingers than Anny's.
        flat[:, 0] += 0.1 * (joints[:, 9] - joints[:, 0])
        seen = hand.camera.project(flat)
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
        answers = self._truth(joints, camera) @ self.map
        donor = torch.randint(len(self.residual), (n,), generator=generator)
        factor = noise.least + (noise.most - noise.least) * torch.rand(n, 1, generator=generator)
        found = (answers + self.residual[donor] * factor).float().unflatten(1, (21, 6))
        found = torch.cat([found[..., :2], self.found[donor][..., 2:3], found[..., 2:]], -1)
        found = self._jittered(found, generator)
        return finished(self.body, self.grid, hand.params, hand.mesh, camera, whole_picture(n), found)

    def _detected(self, n: int, generator: torch.Generator) -> LiftingBatch:
        index = torch.randint(len(self.found), (n,), generator=generator)
        params = self.params[index]
        found = self._jittered(self.found[index], generator)
        return finished(self.body, self.grid, params, self.body(params), self.camera[index], whole_picture(n), found)

    def _jittered(self, found: Float[Tensor, "n 21 7"], generator: torch.Generator) -> Float[Tensor, "n 21 7"]:
        noise = self.noise
        size = found.new_tensor([noise.jitter] * 2 + [0.0] + [noise.depth_jitter] + [noise.world_jitter] * 3)
        return found + torch.randn(found.shape, generator=generator) * size


def _places(features: Float[Tensor, "n 21 7"]) -> Float[Tensor, "n f"]:
    """Landmark features without the presence, float64."""
    return torch.cat([features[..., :2], features[..., 3:]], -1).flatten(1).double()
