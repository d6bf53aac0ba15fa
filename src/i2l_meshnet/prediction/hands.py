"""Hands in pictures: found by MediaPipe's networks or by the body's wrists, and given meshes by a hand network."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors.torch import load_file
from torch import Tensor

from i2l_meshnet.bodies.base import Body
from i2l_meshnet.errors import InputError
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.crop import Crop, box_from_points, warp_image
from i2l_meshnet.models.config import NetworkConfig
from i2l_meshnet.models.exported import Runtime, load_ready
from i2l_meshnet.models.loading import HAND_WEIGHTS, PALM_WEIGHTS, load_network, shipped_weights
from i2l_meshnet.models.mediapipe import (
    LANDMARK_CROP,
    LANDMARKS,
    PALM_CROP,
    LandmarkNet,
    Landmarks,
    PalmNet,
    crop_around,
    region_around,
)
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.models.output import LixelNetwork
from i2l_meshnet.prediction.boxes import PersonBox, as_box, require_inside
from i2l_meshnet.prediction.images import Photo
from i2l_meshnet.prediction.intrinsics import Intrinsics
from i2l_meshnet.prediction.predictor import MeshPredictor, Subject
from i2l_meshnet.prediction.results import Prediction, Side

PRESENCE = 0.5
"""Least probability that a hand is there."""
PALM_SCORE = 0.4
"""Least score of a palm."""
PASSES = 2
"""How often a hand is looked for again where it was found."""
PALM_SIDE, PALM_SHIFT = 2.6, 0.5
"""Side of the first crop in sides of the palm, and how far it is moved towards the fingers, likewise."""
ARM_SIDE, ARM_SHIFT = 0.26, 0.07
"""The same from a body's wrist: metres on an adult."""
PALM_LENGTH = 0.09
"""From the wrist to the start of the middle finger on an adult, metres: what the size of a body's hand is told by."""
REACH = 1.1
"""A hand is a body's if its wrist lies within this many of the body's palm lengths of the body's wrist."""
ARM_TURNS = (0.0, math.radians(50), math.radians(-50))
"""How the hand may be bent against the arm, in the picture."""
SIDES: tuple[Side, Side] = ("left", "right")
WRISTS: dict[Side, str] = {"left": "L_Wrist", "right": "R_Wrist"}
"""Joints of bodies at which hands are looked for."""
WRONG_SIDE = 0.1
"""Probability of the wanted side below which a hand by a body's wrist is the other one."""
NO_PALM_TURNS, NO_PALM_SIDES = 8, (1.0, 0.6)
"""Where no palm is found: directions and sizes, in sides of the picture, of the crops that are tried."""


@dataclasses.dataclass(frozen=True)
class FoundHand:
    """A hand in a picture.

    side: whose network's picture it is to be shown in. points: x, y in pixels of the picture, or of its mirror image
    for a left hand. presence: probability that it is one.
    """

    side: Side
    points: Float[Tensor, "21 2"]
    presence: float


class HandFinder:
    """Finds hands with MediaPipe's landmark network, in a picture or by the wrists of bodies."""

    def __init__(self, landmarks: LandmarkNet, palm: PalmNet, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.landmarks, self.palm = landmarks.to(self.device).eval(), palm.to(self.device).eval()

    def in_picture(
        self,
        pixels: UInt8[np.ndarray, "h w 3"],
        box: tuple[float, float, float, float] | None = None,
        side: Side | None = None,
    ) -> list[FoundHand]:
        """The hands in a picture or in its part `box` (x, y, width, height; pixels), surest first.

        side: of all hands, if it is known.
        """
        height, width = pixels.shape[:2]
        x, y, w, h = box or (0.0, 0.0, float(width), float(height))
        crops = self._palms(pixels, (x, y, w, h))
        if crops is None:
            turns = torch.arange(NO_PALM_TURNS) * (2 * math.pi / NO_PALM_TURNS)
            sides = torch.tensor(NO_PALM_SIDES)
            turn, size = (part.flatten() for part in torch.meshgrid(turns, sides, indexing="ij"))
            boxes = torch.tensor([x, y, w, h]).expand(len(size), 4)
            crops = Crop.around(boxes, LANDMARK_CROP, margin=size, rotation=turn)
            found = self._look(pixels, crops, False)
            best = found.presence.argmax()
            crops = crops[best : best + 1]
        found, crops = self._follow(pixels, crops, False)
        points = crops.to_image(found.points[..., :2])
        hands: list[FoundHand] = []
        kept: list[Float[Tensor, "21 2"]] = []
        for i in found.presence.argsort(descending=True).tolist():
            if found.presence[i] < PRESENCE or any(_same(points[i], other) for other in kept):
                continue
            kept.append(points[i])
            if side == "right" or (side is None and found.right[i] >= 0.5):
                hands.append(FoundHand("right", points[i], float(found.presence[i])))
                continue
            mirrored = crop_around(_flipped(points[i : i + 1], width))
            again = self._look(pixels, mirrored, True)
            hands.append(FoundHand("left", mirrored.to_image(again.points[..., :2])[0], float(again.presence[0])))
        return hands

    def of_people(
        self,
        pixels: UInt8[np.ndarray, "h w 3"],
        people: Sequence[Prediction],
        known: Sequence[Mapping[Side, FoundHand]] | None = None,
        search: Sequence[bool] | None = None,
    ) -> list[dict[Side, FoundHand]]:
        """Each person's hands that are seen where the body's wrists are; bodies without wrists have none.

        known: where each person's hands were a moment ago: there, one look is enough. search: for whom hands that
        are not known, or no longer there, are looked for; everybody if None.
        """
        result: list[dict[Side, FoundHand]] = [{} for _ in people]
        width = pixels.shape[1]
        for side in SIDES:
            mirrored = side == "left"
            arms = {index: arm for index, person in enumerate(people) if (arm := _arm(person, side, width))}
            again = [index for index in arms if known is not None and side in known[index]]
            if known is not None and again:
                crops = crop_around(torch.stack([known[index][side].points for index in again]))
                found = self._look(pixels, crops, mirrored)
                _accept(result, side, again, arms, found, crops)
            lost = [index for index in arms if side not in result[index] and (search is None or search[index])]
            if not lost:
                continue
            starts = [arms[index].starts() for index in lost]
            first = self._look(pixels, Crop.concatenate(starts), mirrored)
            best = first.presence.unflatten(0, (len(lost), len(ARM_TURNS))).argmax(1)
            chosen = Crop.stack(starts)[torch.arange(len(lost)), best]
            found, crops = self._follow(pixels, chosen, mirrored)
            _accept(result, side, lost, arms, found, crops)
        return result

    @torch.inference_mode()
    def _look(self, pixels: UInt8[np.ndarray, "h w 3"], crops: Crop, mirrored: bool) -> Landmarks:
        """What the landmark network sees in crops of the picture, or of its mirror image."""
        cut = crops.mirror(pixels.shape[1]) if mirrored else crops
        shown = np.stack([warp_image(pixels, affine, LANDMARK_CROP) for affine in cut.affine])
        return self.landmarks(_as_input(shown).to(self.device)).to("cpu")

    def _follow(self, pixels: UInt8[np.ndarray, "h w 3"], crops: Crop, mirrored: bool) -> tuple[Landmarks, Crop]:
        """The hands in crops, looked at again where they are found."""
        found = self._look(pixels, crops, mirrored)
        for _ in range(PASSES):
            crops = crop_around(crops.to_image(found.points[..., :2]))
            found = self._look(pixels, crops, mirrored)
        return found, crops

    @torch.inference_mode()
    def _palms(self, pixels: UInt8[np.ndarray, "h w 3"], box: tuple[float, float, float, float]) -> Crop | None:
        """Crops of the hands whose palms are found, None if there are none."""
        crop = Crop.around(torch.tensor(box), PALM_CROP, margin=1.0)
        scores, places = self.palm(_as_input(warp_image(pixels, crop.affine, PALM_CROP)[None]).to(self.device))
        rows = [row for row in scores[0].argsort(descending=True)[:64].tolist() if scores[0, row] >= PALM_SCORE]
        kept: list[int] = []
        for row in rows:
            centre, size = places[0, row, 0], places[0, row, 1].max()
            if all((places[0, other, 0] - centre).abs().max() > size / 2 for other in kept):
                kept.append(row)
        if not kept:
            return None
        place = places[0, kept].cpu()
        zoom = crop.affine[0, 0]
        centre = crop.to_image(place[:, 0])
        points = crop.to_image(place[:, 2:].flatten(0, 1)).unflatten(0, (len(kept), -1))
        towards = points[:, 2] - points[:, 0]
        turn = torch.atan2(towards[:, 0], -towards[:, 1])
        size = (place[:, 1].amax(-1) / zoom).clamp_min(1.0)
        ahead = torch.stack([turn.sin(), -turn.cos()], -1) * (PALM_SHIFT * size)[:, None]
        return _squares(centre + ahead, PALM_SIDE * size, turn)


class HandPredictor(MeshPredictor):
    """Finds hands in pictures and gives each a mesh in space; also the hands of people who have been predicted.

    The network knows right hands; left ones are shown to it in the mirror, and their meshes mirrored back.
    `HandPredictor.load()("hand.jpg").save("results")`.
    """

    def __init__(
        self,
        network: LixelNetwork,
        body: Body,
        finder: HandFinder,
        side: Side | None = None,
        device: torch.device | str = "cpu",
        batch_size: int = 16,
        network_facts: dict[str, Any] | None = None,
    ) -> None:
        """side: which hands pictures show; None: the finder tells."""
        super().__init__(network, body, None, device, batch_size, network_facts)
        if body.kind == "body":
            raise InputError(f"a network of the body {body.name!r} does not predict hands: give a hand network")
        self.finder = finder
        self.side: Side | None = side

    @classmethod
    def load(  # pyright: ignore[reportIncompatibleMethodOverride] (hands have a detector of their own)
        cls,
        weights: Path | str | None = None,
        device: str = "auto",
        body_directory: Path | str | None = None,
        side: Side | None = None,
        batch_size: int = 16,
        runtime: Runtime | None = None,
    ) -> "HandPredictor":
        """A predictor with the hand network that ships with the package, or with another one, such as MANO's.

        Arguments as for `MeshPredictor.load`. Raises UserError for anything that cannot be loaded.
        """
        ready = load_ready(weights, body_directory, runtime, device=device, shipped=HAND_WEIGHTS)
        # MediaPipe's networks find the hands, whichever network predicts the meshes.
        own = ready.network if weights is None else load_network(shipped_weights(HAND_WEIGHTS))[0]
        assert isinstance(own, MeshNet)
        landmarks = own.pose_net.get_submodule("estimator")
        assert isinstance(landmarks, LandmarkNet)
        palm = PalmNet()
        palm.load_state_dict({key: value.float() for key, value in load_file(shipped_weights(PALM_WEIGHTS)).items()})
        finder = HandFinder(landmarks, palm, ready.device)
        return cls(ready.network, ready.body, finder, side, ready.device, batch_size, ready.facts)

    def prepare(
        self,
        photo: Photo,
        file: str | None = None,
        name: str | None = None,
        boxes: Sequence[Sequence[float] | PersonBox] | None = None,
        intrinsics: Intrinsics | None = None,
    ) -> Subject:
        """As `MeshPredictor.prepare`; boxes: where to look, for one hand each, rather than the hands' own."""
        subject = super().prepare(photo, file, name, boxes, intrinsics)
        if boxes is None:
            found, source = self.finder.in_picture(photo.pixels, side=self.side), "hand detector"
        else:
            found, source = [], "given"
            for box in boxes:
                require_inside(as_box(box), photo.width, photo.height, file or subject.name)
                found += self.finder.in_picture(photo.pixels, as_box(box).box, self.side)[:1]
        people = tuple(self.box(hand, photo.width) for hand in found)
        return dataclasses.replace(subject, people=people, boxes_source=source)

    def box(self, hand: FoundHand, width: int, root_depth: float | None = None) -> PersonBox:
        """The box from which the network's crop of a hand is cut, in a picture of `width` pixels."""
        # Our network wants the landmark network's crops; published ones, upright boxes with a margin.
        config = getattr(self.network, "config", None)
        own = isinstance(config, NetworkConfig) and config.kind == "hand"
        if own:
            box, rotation = region_around(hand.points)
        else:
            box = box_from_points(hand.points, torch.ones(LANDMARKS, dtype=torch.bool), margin=1.0)
            rotation = 0.0
        x, y, w, h = box.tolist()
        mirrored = hand.side == "left"
        if mirrored:
            x = width - 1 - x - w
        return PersonBox((x, y, w, h), hand.presence, root_depth, own, mirrored, float(rotation))

    def add_hands(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        people: Sequence[Sequence[Prediction]],
        cameras: Sequence[Camera],
    ) -> list[list[Prediction]]:
        """The people of several pictures with those of their hands that are seen (`Prediction.hands`).

        A hand is placed at the distance of the body's wrist. People who are not reliable are left as they are.
        """
        found: list[list[dict[Side, FoundHand]]] = []
        for pixels, there in zip(images, people, strict=True):
            seen = iter(self.finder.of_people(pixels, [person for person in there if person.reliable]))
            found.append([next(seen) if person.reliable else {} for person in there])
        return self.with_hands(images, people, cameras, found)

    def body_of(self, side: Side) -> Body:
        """The body of hands of this side."""
        return self._mirror_body if side == "left" else self.body

    def with_hands(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        people: Sequence[Sequence[Prediction]],
        cameras: Sequence[Camera],
        hands: Sequence[Sequence[Mapping[Side, FoundHand]]],
    ) -> list[list[Prediction]]:
        """The people of several pictures with their hands, which have been found."""
        found: list[tuple[int, int, Side]] = []
        boxes: list[list[PersonBox]] = []
        for index, (pixels, there) in enumerate(zip(images, people, strict=True)):
            boxes.append([])
            for number, person in enumerate(there):
                for side, hand in hands[index][number].items():
                    depth = float(person.lixel_mesh.joints[person.body.skeleton.index(WRISTS[side]), 2])
                    found.append((index, number, side))
                    boxes[-1].append(self.box(hand, pixels.shape[1], depth))
        predicted = self.predict_batch(images, boxes, cameras)
        rows = [iter(row) for row in predicted]
        with_hands: dict[tuple[int, int], dict[Side, Prediction]] = {}
        for index, number, side in found:
            with_hands.setdefault((index, number), {})[side] = next(rows[index])
        return [
            [
                dataclasses.replace(person, hands=with_hands.get((index, number), {}))
                for number, person in enumerate(there)
            ]
            for index, there in enumerate(people)
        ]


@dataclasses.dataclass(frozen=True)
class _Arm:
    """Where a body's hand is: pixels of the picture, or of its mirror image for the left one.

    towards: unit vector to the fingers. palm: length of the palm at that distance from the camera.
    """

    wrist: Float[Tensor, "2"]
    towards: Float[Tensor, "2"]
    palm: float

    def starts(self) -> Crop:
        """The crops in which the hand is looked for."""
        turn = torch.atan2(self.towards[0], -self.towards[1]) + torch.tensor(ARM_TURNS)
        ahead = torch.stack([turn.sin(), -turn.cos()], -1) * ARM_SHIFT / PALM_LENGTH * self.palm
        return _squares(self.wrist + ahead, torch.full((len(turn),), ARM_SIDE / PALM_LENGTH * self.palm), turn)


def _accept(
    result: Sequence[dict[Side, FoundHand]],
    side: Side,
    people: Sequence[int],
    arms: Mapping[int, _Arm],
    found: Landmarks,
    crops: Crop,
) -> None:
    """Takes up those of the hands found for `people` that are surely hands, and theirs."""
    points = crops.to_image(found.points[..., :2])
    for row, index in enumerate(people):
        near = float((points[row, 0] - arms[index].wrist).norm()) < REACH * arms[index].palm
        if near and found.presence[row] >= PRESENCE and found.right[row] >= WRONG_SIDE:
            result[index][side] = FoundHand(side, points[row], float(found.presence[row]))


def _arm(person: Prediction, side: str, width: int) -> _Arm | None:
    names = [f"{side[0].upper()}_{joint}" for joint in ("Elbow", "Wrist", "Hand")]
    skeleton = person.body.skeleton
    if any(name not in skeleton.joints for name in names):
        return None
    rows = [skeleton.index(name) for name in names]
    places = person.lixel_mesh.joints[rows]
    flat = person.camera.project(places)
    rest = person.body(person.body.rest_params()).joints[rows]
    if not bool(flat.isfinite().all()):
        return None
    if side == "left":
        flat = _flipped(flat, width)
    # The hand's own direction is short and the arm's may be foreshortened: both together are steady.
    towards = (flat[2] - flat[1]) + 0.5 * (flat[1] - flat[0])
    palm = float((rest[2] - rest[1]).norm() * person.camera.focal.mean() / places[1, 2].clamp_min(0.1))
    return _Arm(flat[1], towards / towards.norm().clamp_min(1e-6), palm)


def _flipped(points: Float[Tensor, "*n 2"], width: int) -> Float[Tensor, "*n 2"]:
    """Points of a picture of `width` pixels in its mirror image."""
    return torch.stack([width - 1 - points[..., 0], points[..., 1]], -1)


def _same(points: Float[Tensor, "21 2"], other: Float[Tensor, "21 2"]) -> bool:
    """Whether two finds are one hand: their points are less than a third of its size apart."""
    size = (points.amax(0) - points.amin(0)).max()
    return bool((points.mean(0) - other.mean(0)).norm() < size / 3)


def _squares(centre: Float[Tensor, "n 2"], side: Float[Tensor, "n"], turn: Float[Tensor, "n"]) -> Crop:
    """Crops for the landmark network."""
    box = torch.cat([centre - side[:, None] / 2, side[:, None].expand(-1, 2)], 1)
    return Crop.around(box, LANDMARK_CROP, margin=1.0, rotation=turn)


def _as_input(pixels: UInt8[np.ndarray, "n h w 3"]) -> Float[Tensor, "n 3 h w"]:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
