"""Sampled people: poses, shapes and views together, for training the default model."""

from collections.abc import Sequence
from pathlib import Path

import torch

from i2l_lab.synthetic.cameras import BodySample, ViewMix, ViewSampler
from i2l_lab.synthetic.poses import PoseBank, PoseMix, PoseSampler
from i2l_lab.synthetic.shapes import ShapeSampler
from i2l_meshnet.bodies.base import Body


class BodySampler:
    """Draws posed people in front of cameras. All randomness comes from the given generator."""

    def __init__(self, poses: PoseSampler, shapes: ShapeSampler, views: ViewSampler) -> None:
        self.poses, self.shapes, self.views = poses, shapes, views

    @staticmethod
    def build(
        body: Body,
        makehuman: Path | None,
        mocap: Sequence[Path] = (),
        pose_mix: PoseMix | None = None,
        view_mix: ViewMix | None = None,
        seed: int = 0,
    ) -> "BodySampler":
        """The sampler of a body. makehuman: the asset of that name, or None. mocap: folders of BVH files."""
        bank = PoseBank.build(body, makehuman, mocap, seed=seed)
        return BodySampler(PoseSampler(body, bank, pose_mix), ShapeSampler(body, seed), ViewSampler(body, view_mix))

    def sample(self, n: int, generator: torch.Generator) -> BodySample:
        """Draw `n` people."""
        return self.views.place(self.poses.sample(n, generator), self.shapes.sample(n, generator), generator)
