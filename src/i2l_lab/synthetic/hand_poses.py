"""Sampled poses of the Anny hand: grips, pointing, pinching and free fingers within the joints' ranges of motion."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from i2l_meshnet.bodies.base import Body, BodyParams
from i2l_meshnet.geometry.rotations import axis_angle_to_matrix

FINGERS = ("Index", "Middle", "Ring", "Pinky")
KINDS = (0.16, 0.16, 0.2, 0.16, 0.12, 0.2)
"""Shares of: open, relaxed, closed (grasps and fists), some fingers stretched, pinching, each finger on its own."""
REST_BEND = (13.0, 10.0, -2.0)
"""By how many degrees the resting hand's fingers are bent at their three joints."""
CLEARANCE = 0.0115
"""Least distance between the axes of two fingers, metres."""
SAMPLED = 4
"""Points on each bone between which distances are measured."""


class HandPoseSampler:
    """Draws local rotations of the hand's bones; poses in which fingers run through each other are drawn again."""

    def __init__(self, body: Body) -> None:
        """body: the right Anny hand."""
        self.body = body
        joints = body(body.rest_params()).joints
        place = {name: joints[row] for row, name in enumerate(body.skeleton.joints)}
        across = place["Pinky_1"] - place["Index_1"]
        # Turning about an axis bends a finger towards the palm, about the palm's outward normal spreads it.
        self._palm = _unit(torch.linalg.cross(place["Index_1"] - place["Wrist"], place["Pinky_1"] - place["Wrist"]))
        self._bend = {}
        for finger in FINGERS:
            along = _unit(place[f"{finger}_2"] - place[f"{finger}_1"])
            self._bend[finger] = -_unit(across - (across @ along) * along)
        bones = [_unit(place[f"Thumb_{i + 1}"] - place[f"Thumb_{i}"]) for i in (1, 2, 3)]
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
        def uniform(low: float | int, high: float | int, *shape: int) -> Tensor:
            return low + (high - low) * torch.rand(n, *shape, generator=generator)

        def normal(deviation: float | int, *shape: int) -> Tensor:
            return torch.randn(n, *shape, generator=generator) * deviation

        kind = torch.multinomial(torch.tensor(KINDS), n, replacement=True, generator=generator)

        def choose(*options: Tensor) -> Tensor:
            stacked = torch.stack([option.expand(n, 4) for option in options])
            return stacked[kind, torch.arange(n)]

        # Degrees of bending of the four fingers (n, 4) at their first and middle joints, from straight.
        graded = torch.tensor([0.75, 0.9, 1.0, 1.1])
        closing = uniform(0.35, 1.0, 1) + normal(0.08, 4)
        stretched = torch.rand(n, 4, generator=generator) < 0.45
        first = choose(
            uniform(-18, 18, 1) + normal(6, 4),
            uniform(5, 40, 1) * graded + normal(7, 4),
            closing * uniform(45, 85, 1) + normal(6, 4),
            torch.where(stretched, uniform(-12, 25, 4), uniform(40, 85, 4)),
            uniform(10, 60, 1) + normal(12, 4),
            uniform(-20, 85, 4),
        ).clamp(-30, 90)
        middle = choose(
            uniform(-5, 15, 1) + normal(5, 4),
            uniform(8, 50, 1) * graded + normal(8, 4),
            closing * uniform(55, 105, 1) + normal(8, 4),
            torch.where(stretched, uniform(-3, 25, 4), uniform(65, 105, 4)),
            uniform(20, 65, 1) + normal(12, 4),
            uniform(-5, 105, 4),
        ).clamp(-8, 110)
        last = (middle * uniform(0.35, 0.8, 4) + normal(7, 4)).clamp(-12, 75)
        spread_all = uniform(-0.6, 1.0, 1) * torch.tensor([-12.0, -2.0, 7.0, 16.0]) + normal(3, 4)
        # Bent fingers lie side by side.
        spread = spread_all * (1 - first.clamp(0, 80) / 100)
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

        # Turns about up to three axes of each bone, the first the outermost.
        turns = torch.zeros(n, 3, len(self.body.bones), 3)

        def put(bone: str, *about: tuple[Tensor, Tensor]) -> None:
            for slot, (axis, degrees) in enumerate(about):
                turns[:, slot, self.body.bones.index(bone)] = axis * degrees[:, None]

        for column, finger in enumerate(FINGERS):
            bend, number = self._bend[finger], column + 2
            put(f"metacarpal{column + 1}.R", (bend, cup[:, column]))
            put(f"finger{number}-1.R", (self._palm, spread[:, column]), (bend, first[:, column] - REST_BEND[0]))
            put(f"finger{number}-2.R", (bend, middle[:, column] - REST_BEND[1]))
            put(f"finger{number}-3.R", (bend, last[:, column] - REST_BEND[2]))
        put(
            "finger1-1.R",
            (self._thumb_lift, thumb[:, 1]),
            (self._thumb_bend, thumb[:, 0]),
            (self._thumb_along, thumb[:, 2]),
        )
        put("finger1-2.R", (self._thumb_bend, thumb[:, 3]))
        put("finger1-3.R", (self._thumb_bend, thumb[:, 4]))
        outer, middle_turn, inner = axis_angle_to_matrix(turns * (math.pi / 180)).unbind(1)
        return outer @ middle_turn @ inner

    @torch.no_grad()
    def _free(self, pose: Float[Tensor, "n k 3 3"]) -> Bool[Tensor, "n"]:
        """Whether no finger runs through another or through the palm."""
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
        # A tip that is bent back over the palm must lie before it.
        knuckle = [body.skeleton.index(f"{finger}_1") for finger in FINGERS for _ in (3, 4)]
        middle = _unit(joints[:, body.skeleton.index("Middle_1")] - wrist[:, 0])
        over = ((joints[:, tips] - joints[:, knuckle]) @ middle[..., None])[..., 0] < 0
        through = over & (height[:, tips] - height[:, knuckle] < 0.012)
        return (distance.amin(1) > CLEARANCE) & ~through.any(1)


def _unit(vector: Tensor) -> Tensor:
    return vector / vector.norm(dim=-1, keepdim=True)
