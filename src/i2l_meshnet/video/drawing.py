"""Draw the people of a clip: meshes on the frame, and frame, overlay and side view side by side."""

import dataclasses
import functools
from collections.abc import Collection, Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from i2l_meshnet.bodies.base import Body
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.prediction.mesh_files import Surface
from i2l_meshnet.prediction.overlay import draw_overlay, draw_view, fit_to_side
from i2l_meshnet.prediction.results import MeshKind, Side, beyond_wrist
from i2l_meshnet.video.follow import SAMPLES
from i2l_meshnet.video.followed import FollowedPerson, spells_of

PANEL_HEIGHT = 720
SIDE_VIEW_MARGIN = 1.1
"""Margin of the side view around the roots of people, metres."""
BACKGROUND = 238
"""Grey level of the background."""


@dataclasses.dataclass(frozen=True)
class Artist:
    """Draws finished people on the frames of their clip.

    hands: for each side, the body of the hand and the spells in which hands were followed. They replace the hands of
    the body. max_side: longer side of the drawings, pixels; 0 keeps the size of the frame. bounds: minimum and maximum
    of the side view (camera frame, metres).
    """

    people: Sequence[FollowedPerson]
    hands: Mapping[Side, tuple[Body, list[FollowedPerson]]]
    body: Body
    camera: Camera
    show: MeshKind
    max_side: int
    bounds: Float[np.ndarray, "2 3"]

    def draw(
        self, pixels: UInt8[np.ndarray, "h w 3"], number: int
    ) -> tuple[UInt8[np.ndarray, "oh ow 3"], UInt8[np.ndarray, "sh sw 3"]]:
        """The overlay and the side-by-side image of the frame `number`."""
        photo, scale = fit_to_side(pixels, self.max_side)
        focal, center = self.camera.focal.double().numpy(), self.camera.center.double().numpy()
        intrinsics = (focal * scale, (center + 0.5) * scale - 0.5)
        present = [i for i, person in enumerate(self.people) if number in person]
        hands_of = {i: self._hands(self.people[i], number) for i in present}
        bodies = [self._surface(self.people[i], self.body, number, hands_of[i].keys()) for i in present]
        overlay = draw_overlay(photo, bodies, *intrinsics, present, SAMPLES)
        # Hands are drawn in front of their body, even if their mesh is behind it.
        hands = [surface for i in present for surface in hands_of[i].values()]
        owners = [i for i in present for _ in hands_of[i]]
        if hands:
            overlay = draw_overlay(overlay, hands, *intrinsics, owners, SAMPLES)
        side = draw_view([*bodies, *hands], "side", [*present, *owners], self.bounds, samples=1)
        return overlay, side_by_side([photo, overlay, side])

    def _hands(self, person: FollowedPerson, number: int) -> dict[Side, Surface]:
        return {
            side: self._surface(spell, hand, number)
            for side, (hand, spells) in self.hands.items()
            for spell in spells_of(spells, person)
            if number in spell
        }

    def _surface(self, person: FollowedPerson, body: Body, number: int, without: Collection[Side] = ()) -> Surface:
        motion = person.motion(slice(number - person.first, number - person.first + 1))
        params = motion.params(body) if self.show == "param" else None
        mesh = motion.lixel_mesh(body) if params is None else body(params)
        faces = body.faces.numpy()
        for side in without:
            faces = faces[~self._own_hands[side][faces].all(1)]
        return Surface(mesh.vertices[0].double().numpy(), faces)

    @functools.cached_property
    def _own_hands(self) -> dict[Side, Bool[np.ndarray, "v"]]:
        """The body's vertices that a hand's mesh replaces."""
        return {side: beyond_wrist(self.body, side, "lixel") for side in self.hands}


def view_bounds(roots: Sequence[Float[np.ndarray, "_ 3"]]) -> Float[np.ndarray, "2 3"]:
    """Minimum and maximum of the side view, from positions of root joints without outliers. Camera frame, metres."""
    if not roots:
        return np.array([[-1.0, -1.0, 2.0], [1.0, 1.0, 4.0]])
    low, high = np.percentile(np.concatenate(roots).astype(float), (1, 99), axis=0)
    return np.stack([low - SIDE_VIEW_MARGIN, high + SIDE_VIEW_MARGIN])


def side_by_side(panels: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> UInt8[np.ndarray, "h w 3"]:
    """Put panels in a row. They get the height of the first, at most `PANEL_HEIGHT`, and at most an aspect of 16:9."""
    height = min(panels[0].shape[0], PANEL_HEIGHT)
    max_width = max(round(height * 16 / 9), 2)
    row = []
    for panel in panels:
        scale = min(height / panel.shape[0], max_width / panel.shape[1])
        size = (max(1, round(panel.shape[1] * scale)), max(1, round(panel.shape[0] * scale)))
        shrunk = cv2.resize(panel, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        spare = height - size[1]
        row.append(np.pad(shrunk, ((spare // 2, spare - spare // 2), (0, 0), (0, 0)), constant_values=BACKGROUND))
    return np.concatenate(row, 1)
