"""Drawings of a clip's people: meshes on the frame, and frame, overlay and side view beside each other."""

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
ROOM = 1.1
"""Metres that the side view shows around the roots of people."""
PAPER = 238


@dataclasses.dataclass(frozen=True)
class Artist:
    """Draws finished people on the frames of their clip.

    hands: for each side, the hand's body and the spells in which hands were followed. They replace the body's own.
    camera: of the frames. max_side: longer side of the drawings, pixels; 0 keeps the frame's. bounds: minimum and
    maximum of the side view (camera frame, metres).
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
        """The overlay and the side-by-side picture of the frame `number`."""
        photo, scale = fit_to_side(pixels, self.max_side)
        focal, center = self.camera.focal.double().numpy(), self.camera.center.double().numpy()
        seen = (focal * scale, (center + 0.5) * scale - 0.5)
        there = [i for i, person in enumerate(self.people) if number in person]
        hands = {i: self._hands(self.people[i], number) for i in there}
        bodies = [self._surface(self.people[i], self.body, number, hands[i].keys()) for i in there]
        overlay = draw_overlay(photo, bodies, *seen, there, SAMPLES)
        # Hands are drawn over their own body, whatever the depths of their meshes.
        ends = [surface for i in there for surface in hands[i].values()]
        owners = [i for i in there for _ in hands[i]]
        if ends:
            overlay = draw_overlay(overlay, ends, *seen, owners, SAMPLES)
        side = draw_view([*bodies, *ends], "side", [*there, *owners], self.bounds, samples=1)
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


def view_bounds(places: Sequence[Float[np.ndarray, "_ 3"]]) -> Float[np.ndarray, "2 3"]:
    """Minimum and maximum of the side view for roots at `places` (camera frame, metres), without outliers."""
    if not places:
        return np.array([[-1.0, -1.0, 2.0], [1.0, 1.0, 4.0]])
    low, high = np.percentile(np.concatenate(places).astype(float), (1, 99), axis=0)
    return np.stack([low - ROOM, high + ROOM])


def side_by_side(panels: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> UInt8[np.ndarray, "h w 3"]:
    """Panels in a row, as high as the first but at most `PANEL_HEIGHT`, and at most as wide as 16:9."""
    height = min(panels[0].shape[0], PANEL_HEIGHT)
    widest = max(round(height * 16 / 9), 2)
    row = []
    for panel in panels:
        scale = min(height / panel.shape[0], widest / panel.shape[1])
        size = (max(1, round(panel.shape[1] * scale)), max(1, round(panel.shape[0] * scale)))
        shrunk = cv2.resize(panel, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        spare = height - size[1]
        row.append(np.pad(shrunk, ((spare // 2, spare - spare // 2), (0, 0), (0, 0)), constant_values=PAPER))
    return np.concatenate(row, 1)
