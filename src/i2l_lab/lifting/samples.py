"""Training samples of the default network: posed bodies in front of a camera, and keypoints with a detector's errors.

No images are needed: the body's keypoints are moved, and get a confidence, like real detections.
"""

import dataclasses
from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from i2l_lab.synthetic.detections import DetectionBank
from i2l_lab.synthetic.samples import BodySampler
from i2l_meshnet.bodies.anny import AnnyBody, rendered_keypoints
from i2l_meshnet.bodies.base import BodyMesh, BodyParams
from i2l_meshnet.bodies.skinning import global_rotations
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.crop import Crop
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.skeletons import HALPE26
from i2l_meshnet.tensors import TensorDataclass

GROUPS = tuple(
    [HALPE26.index(joint) for joint in joints.split()]
    for joints in (
        "Nose L_Eye R_Eye L_Ear R_Ear Head_top",
        "L_Hip R_Hip Pelvis",
        "L_Big_toe L_Small_toe L_Heel",
        "R_Big_toe R_Small_toe R_Heel",
    )
)
"""Keypoints that are displaced together: head, hips, left foot, right foot."""


@dataclasses.dataclass(frozen=True)
class LiftingBatch(TensorDataclass):
    """Inputs of the network and its targets.

    keypoints: input of the trunk; for people, crop pixels and confidence. vertices, joints: lixels. rotations: of the
    bones, relative to the view frame (`LixelGrid.view_rotation`). shape: of the body. view_vertices: in the view frame,
    metres, relative to the root joint. scale: crop pixels per metre at the root's depth.
    """

    keypoints: Float[Tensor, "b n c"]
    vertices: Float[Tensor, "b v 3"]
    joints: Float[Tensor, "b j 3"]
    rotations: Float[Tensor, "b k 3 3"]
    shape: Float[Tensor, "b s"]
    view_vertices: Float[Tensor, "b v 3"]
    scale: Float[Tensor, "b"]


class BatchSampler(ABC):
    """Draws training batches. The i-th batch depends only on the seed and i."""

    seed: int

    @torch.no_grad()
    def batch(self, index: int, size: int, detected: float) -> LiftingBatch:
        """Batch `index` of `size` samples, of which a fraction `detected` are real detections on synthetic images."""
        generator = torch.Generator().manual_seed((self.seed << 32) + index)
        count = round(size * detected)
        parts = [self._sampled(size - count, generator)]
        if count:
            parts.append(self._detected(count, generator))
        return LiftingBatch.concatenate(parts)

    @abstractmethod
    def _sampled(self, n: int, generator: torch.Generator) -> LiftingBatch:
        """New bodies; their keypoints are moved as the detector moves them."""

    @abstractmethod
    def _detected(self, n: int, generator: torch.Generator) -> LiftingBatch:
        """Bodies of the bank, with what the detector found on their images."""


@dataclasses.dataclass(frozen=True)
class NoiseOptions:
    """How detections differ from the body's keypoints; lengths in crop pixels.

    Detections with a mean confidence below `sure` are drawn less often, below `doubtful` a tenth as often: synthetic
    images are harder for the detector than photos. The residuals of a whole real detection are added, times a factor
    from `minimum` to `maximum`, together with its confidences. A fraction `clean` of people gets no residuals. Then
    every keypoint is jittered, and some are lost.

    build: standard deviation of a person's position between the keypoints of a rendered body (0) and those of
    `keypoint_regressor` (1). head, hips, feet: standard deviations, in metres along each axis, of the position of these
    groups of keypoints from person to person.
    """

    doubtful: float = 0.35
    sure: float = 0.65
    minimum: float = 0.35
    maximum: float = 1.1
    clean: float = 0.25
    jitter: float = 1.2
    build: float = 0.4
    head: float = 0.03
    hips: float = 0.02
    feet: float = 0.012
    lost: float = 0.04
    lost_more: float = 0.14
    careless: float = 0.3


class LiftingSampler(BatchSampler):
    """Draws training batches of people."""

    def __init__(
        self,
        body: AnnyBody,
        grid: LixelGrid,
        people: BodySampler,
        bank: DetectionBank,
        noise: NoiseOptions | None = None,
        seed: int = 0,
    ) -> None:
        self.body, self.grid, self.people, self.bank = body, grid, people, bank
        if body.keypoint_regressor is None:
            raise ValueError(f"{body.name} has no keypoints of a 2D detector")
        # The points that the detector finds on images of the body, and on real people.
        self.rendered, self.real = rendered_keypoints(), body.keypoint_regressor
        self.noise, self.seed = noise or NoiseOptions(), seed
        self.residual = bank.keypoints[..., :2] - self.rendered @ bank.vertices[..., :2].float()
        self.confidence = bank.keypoints[..., 2].clamp(0, 1)
        options = self.noise
        trust = (self.confidence.mean(1) - options.doubtful) / (options.sure - options.doubtful)
        self.chances = trust.clamp(0.1, 1)

    def _sampled(self, n: int, generator: torch.Generator) -> LiftingBatch:
        people = self.people.sample(n, generator)
        crop = Crop.around(people.box, self.grid.crop_size)
        points = self._individual(people.mesh.vertices, generator)
        true = people.camera.project(points)
        low, size = people.frame[:, None, :2], people.frame[:, None, 2:]
        hidden = ((true < low) | (true > low + size)).any(-1)
        keypoints = self._detect(crop.to_crop(true), hidden, generator)
        return make_batch(self.body, self.grid, people.params, people.mesh, people.camera, crop, keypoints)

    def _detected(self, n: int, generator: torch.Generator) -> LiftingBatch:
        index = self._draw(n, generator)
        params, camera, found = self.bank.params[index], self.bank.camera[index], self.bank.keypoints[index]
        mesh = self.body(params)
        # Move the detections on a rendered body to where they would be on a real person in the same pose.
        person = self._individual(mesh.vertices, generator)
        moved = found[..., :2] + camera.project(person) - camera.project(self.rendered @ mesh.vertices)
        moved = moved + torch.randn(n, 26, 2, generator=generator) * self.noise.jitter / 2
        keypoints = torch.cat([moved, found[..., 2:].clamp(0, 1)], -1)
        return make_batch(self.body, self.grid, params, mesh, camera, full_crop(n), keypoints)

    def _individual(self, vertices: Float[Tensor, "n v 3"], generator: torch.Generator) -> Float[Tensor, "n 26 3"]:
        """Keypoints of bodies (metres), displaced as on individual people."""
        noise = self.noise
        share = 1 + noise.build * torch.randn(len(vertices), 1, 1, generator=generator)
        rendered = self.rendered @ vertices
        points = rendered + share * (self.real @ vertices - rendered)
        for group, deviation in zip(GROUPS, (noise.head, noise.hips, noise.feet, noise.feet), strict=True):
            points[:, group] += torch.randn(len(points), 1, 3, generator=generator) * deviation
        return points

    def _draw(self, n: int, generator: torch.Generator) -> Int[Tensor, "n"]:
        """Rows of the bank."""
        return torch.multinomial(self.chances, n, replacement=True, generator=generator)

    def _detect(
        self, keypoints: Float[Tensor, "n 26 2"], hidden: Bool[Tensor, "n 26"], generator: torch.Generator
    ) -> Float[Tensor, "n 26 3"]:
        """Detections of true keypoints (crop pixels). hidden: keypoints outside the image."""
        n, noise = len(keypoints), self.noise

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator)

        chosen = self._draw(n, generator)
        factor = noise.minimum + (noise.maximum - noise.minimum) * uniform(n, 1, 1)
        factor = torch.where(uniform(n, 1, 1) < noise.clean, 0.0, factor)
        found = keypoints + self.residual[chosen] * factor
        found = found + torch.randn(found.shape, generator=generator) * noise.jitter
        confidence = self.confidence[chosen] + (1 - factor[..., 0]).clamp_min(0) * 0.25 * uniform(n, 1)
        rate = noise.lost + torch.where(uniform(n, 1) < noise.careless, noise.lost_more, 0.0)
        confidence = torch.where(uniform(n, 26) < rate, 0.0, confidence)
        height, width = self.grid.crop_size
        outside = (keypoints < -4).any(-1) | (keypoints[..., 0] > width + 4) | (keypoints[..., 1] > height + 4)
        confidence = torch.where(outside | hidden, confidence.clamp(max=0.3) * uniform(n, 26), confidence)
        return torch.cat([found, confidence.clamp(0, 1)[..., None]], -1)


def make_batch(
    body: AnnyBody,
    grid: LixelGrid,
    params: BodyParams,
    mesh: BodyMesh,
    camera: Camera,
    crop: Crop,
    keypoints: Float[Tensor, "b k f"],
) -> LiftingBatch:
    """The batch for posed bodies (camera frame) whose `keypoints` were found in a crop."""
    root = mesh.joints[:, body.skeleton.root_index]
    turn = grid.view_rotation(crop, camera)
    return LiftingBatch(
        keypoints=keypoints,
        vertices=grid.from_camera(mesh.vertices, crop, camera, root[:, 2]),
        joints=grid.from_camera(mesh.joints, crop, camera, root[:, 2]),
        rotations=turn[:, None].mT @ global_rotations(params.pose, body.parents),
        shape=params.shape,
        view_vertices=(mesh.vertices - root[:, None]) @ turn,
        scale=camera.focal[:, 1] * crop.affine[:, 1, 1] / root[:, 2],
    )


def full_crop(n: int) -> Crop:
    """Crops that are the full images of their cameras."""
    affine = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]).expand(n, 2, 3)
    return Crop(affine, torch.zeros(n), torch.zeros(n, dtype=torch.bool))
