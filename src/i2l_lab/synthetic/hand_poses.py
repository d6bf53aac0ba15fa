"""Sampled poses of the Anny hand: grips, pointing, pinching and free fingers within the joints' ranges of motion."""

import dataclasses
import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from i2l_meshnet.bodies.base import Body, BodyParams
from i2l_meshnet.geometry.rotations import axis_angle_to_matrix

FINGERS = ("Index", "Middle", "Ring", "Pinky")
KINDS = (0.16, 0.16, 0.2, 0.16, 0.12, 0.2)
"""Probabilities of: open, relaxed, closed (grasps and fists), some fingers stretched, pinching, independent fingers."""
REST_BEND = (13.0, 10.0, -2.0)
"""Bending of the resting hand's fingers at their three joints, degrees."""
CLEARANCE = 0.0115
"""Minimum distance between the axes of two fingers, metres."""
SAMPLED = 4
"""Points per bone for measuring distances."""


@dataclasses.dataclass(frozen=True)
class _Bending:
    """Ranges of a joint's bending by kind of hand, degrees. noise: deviations of the fingers of the first three."""

    open: tuple[int, int]
    relaxed: tuple[int, int]
    closed: tuple[int, int]
    stretched: tuple[int, int]
    folded: tuple[int, int]
    pinching: tuple[int, int]
    free: tuple[int, int]
    limits: tuple[int, int]
    noise: tuple[int, int, int]


FIRST_JOINT = _Bending((-18, 18), (5, 40), (45, 85), (-12, 25), (40, 85), (10, 60), (-20, 85), (-30, 90), (6, 7, 6))
MIDDLE_JOINT = _Bending((-5, 15), (8, 50), (55, 105), (-3, 25), (65, 105), (20, 65), (-5, 105), (-8, 110), (5, 8, 8))


class HandPoseSampler:
    """Draws local rotations of the hand's bones. Poses in which fingers intersect are drawn again."""

    def __init__(self, body: Body) -> None:
        """body: the right Anny hand."""
        self.body = body
        joints = body(body.rest_params()).joints
        at = {name: joints[row] for row, name in enumerate(body.skeleton.joints)}
        across = at["Pinky_1"] - at["Index_1"]
        # A rotation about `_bend` bends a finger towards the palm; one about the palm's outward normal spreads it.
        self._palm = _unit(torch.linalg.cross(at["Index_1"] - at["Wrist"], at["Pinky_1"] - at["Wrist"]))
        self._bend = {}
        for finger in FINGERS:
            along = _unit(at[f"{finger}_2"] - at[f"{finger}_1"])
            self._bend[finger] = -_unit(across - (across @ along) * along)
        bones = [_unit(at[f"Thumb_{i + 1}"] - at[f"Thumb_{i}"]) for i in (1, 2, 3)]
        self._thumb_along = bones[0]
        self._thumb_bend = _unit(torch.linalg.cross(bones[1], bones[2]))
        self._thumb_lift = _unit(torch.linalg.cross(bones[0], self._thumb_bend))

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "{n} k 3 3"]:
        """Rotations of `n` hands; the root's is the identity."""
        pose = self._draw(n, generator)
        for _ in range(20):
            rows = (~self._free(pose)).nonzero()[:, 0]
            if not len(rows):
                break
            pose[rows] = self._draw(len(rows), generator)
        return pose

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        return self._rotations(_draw_angles(n, generator))

    def _rotations(self, angles: "_Angles") -> Tensor:
        """Local rotations: up to three per bone, each about one axis, the first one outermost."""
        turns = torch.zeros(len(angles.first), 3, len(self.body.bones), 3)

        def rotate(bone: str, *about: tuple[Tensor, Tensor]) -> None:
            for slot, (axis, degrees) in enumerate(about):
                turns[:, slot, self.body.bones.index(bone)] = axis * degrees[:, None]

        for column, finger in enumerate(FINGERS):
            bend, number = self._bend[finger], column + 2
            first, middle, last = (
                part[:, column] - rest
                for part, rest in zip((angles.first, angles.middle, angles.last), REST_BEND, strict=True)
            )
            rotate(f"metacarpal{column + 1}.R", (bend, angles.cup[:, column]))
            rotate(f"finger{number}-1.R", (self._palm, angles.spread[:, column]), (bend, first))
            rotate(f"finger{number}-2.R", (bend, middle))
            rotate(f"finger{number}-3.R", (bend, last))
        bend, lift, twist, second, third = angles.thumb.unbind(1)
        rotate("finger1-1.R", (self._thumb_lift, lift), (self._thumb_bend, bend), (self._thumb_along, twist))
        rotate("finger1-2.R", (self._thumb_bend, second))
        rotate("finger1-3.R", (self._thumb_bend, third))
        outer, centre, inner = axis_angle_to_matrix(turns * (math.pi / 180)).unbind(1)
        return outer @ centre @ inner

    @torch.no_grad()
    def _free(self, pose: Float[Tensor, "n k 3 3"]) -> Bool[Tensor, "n"]:
        """Whether no finger intersects another finger or the palm."""
        n, body = len(pose), self.body
        joints = body(BodyParams(pose, body.mean_shape.expand(n, -1), pose.new_zeros(n, 3))).joints
        along = torch.linspace(0, 1, SAMPLED)[:, None]
        axes = []
        for finger in ("Thumb", *FINGERS):
            row = body.skeleton.index(f"{finger}_1")
            parts = [
                joints[:, row + i, None] + along * (joints[:, row + i + 1] - joints[:, row + i])[:, None]
                for i in (1, 2)
            ]
            axes.append(torch.cat(parts, 1))
        distance = torch.stack(
            [torch.cdist(axes[i], axes[j]).flatten(1).amin(1) for i in range(5) for j in range(i + 1, 5)], 1
        )
        wrist = joints[:, :1]
        height = (joints - wrist) @ self._palm
        tips = [body.skeleton.index(f"{finger}_{i}") for finger in FINGERS for i in (3, 4)]
        # A tip above the palm must be in front of it.
        knuckle = [body.skeleton.index(f"{finger}_1") for finger in FINGERS for _ in (3, 4)]
        middle = _unit(joints[:, body.skeleton.index("Middle_1")] - wrist[:, 0])
        over = ((joints[:, tips] - joints[:, knuckle]) @ middle[..., None])[..., 0] < 0
        through = over & (height[:, tips] - height[:, knuckle] < 0.012)
        return (distance.amin(1) > CLEARANCE) & ~through.any(1)


@dataclasses.dataclass(frozen=True)
class _Angles:
    """Degrees. first, middle, last: bending of the four fingers' joints from straight. thumb: bend, lift and twist of
    its first joint, bend of the others."""

    first: Float[Tensor, "n 4"]
    middle: Float[Tensor, "n 4"]
    last: Float[Tensor, "n 4"]
    spread: Float[Tensor, "n 4"]
    cup: Float[Tensor, "n 4"]
    thumb: Float[Tensor, "n 5"]


def _draw_angles(n: int, generator: torch.Generator) -> _Angles:
    """Random angles. The order of the draws determines the poses of a seed."""

    def uniform(low: float | int, high: float | int, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(n, *shape, generator=generator)

    def normal(deviation: float | int, *shape: int) -> Tensor:
        return torch.randn(n, *shape, generator=generator) * deviation

    kind = torch.multinomial(torch.tensor(KINDS), n, replacement=True, generator=generator)
    graded = torch.tensor([0.75, 0.9, 1.0, 1.1])
    closing = uniform(0.35, 1.0, 1) + normal(0.08, 4)
    stretched = torch.rand(n, 4, generator=generator) < 0.45

    def bend(ranges: _Bending) -> Tensor:
        options = [
            uniform(*ranges.open, 1) + normal(ranges.noise[0], 4),
            uniform(*ranges.relaxed, 1) * graded + normal(ranges.noise[1], 4),
            closing * uniform(*ranges.closed, 1) + normal(ranges.noise[2], 4),
            torch.where(stretched, uniform(*ranges.stretched, 4), uniform(*ranges.folded, 4)),
            uniform(*ranges.pinching, 1) + normal(12, 4),
            uniform(*ranges.free, 4),
        ]
        return torch.stack([option.expand(n, 4) for option in options])[kind, torch.arange(n)].clamp(*ranges.limits)

    first, middle = bend(FIRST_JOINT), bend(MIDDLE_JOINT)
    last = (middle * uniform(0.35, 0.8, 4) + normal(7, 4)).clamp(-12, 75)
    spread = uniform(-0.6, 1.0, 1) * torch.tensor([-12.0, -2.0, 7.0, 16.0]) + normal(3, 4)
    # Bent fingers are side by side.
    spread = spread * (1 - first.clamp(0, 80) / 100)
    closed = (kind == 2)[:, None] | (kind == 3)[:, None]
    oppose = torch.where(
        (kind == 4)[:, None], uniform(0.4, 1.3, 1), torch.where(closed, uniform(0, 1, 1), uniform(-0.6, 0.6, 1))
    )
    thumb = torch.cat(
        [
            oppose * uniform(5, 30, 1) + normal(7, 1),
            oppose * uniform(-5, 30, 1) + normal(9, 1),
            oppose * uniform(0, 30, 1) + normal(6, 1),
            (uniform(-10, 25, 1) + closed * uniform(0, 30, 1)).clamp(-15, 55),
            (uniform(-20, 25, 1) + closed * uniform(0, 45, 1)).clamp(-25, 75),
        ],
        1,
    )
    cup = uniform(0, 1, 1) * torch.tensor([0.0, 1.0, 4.0, 9.0]) * (first > 20)
    return _Angles(first, middle, last, spread, cup, thumb)


def _unit(vector: Tensor) -> Tensor:
    return vector / vector.norm(dim=-1, keepdim=True)
