"""Finds hands with MediaPipe's networks, in the whole image or at the body's wrists, and predicts their meshes."""

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
from i2l_meshnet.prediction.boxes import PersonBox
from i2l_meshnet.prediction.images import Photo
from i2l_meshnet.prediction.predictor import MeshPredictor
from i2l_meshnet.prediction.results import Prediction, Side

PRESENCE = 0.5
"""Minimum probability of a hand."""
PALM_SCORE = 0.4
"""Minimum score of a palm."""
MAX_PALMS = 64
"""The palms with the highest scores are considered."""
PASSES = 2
"""Number of times that a found hand is cropped again."""
PALM_SIDE, PALM_SHIFT = 2.6, 0.5
"""Side of the first crop, and its shift towards the fingers, in sides of the palm's box."""
ARM_SIDE, ARM_SHIFT = 0.26, 0.07
"""Side of the first crop at a body's wrist, and its shift towards the fingers, metres on an adult."""
PALM_LENGTH = 0.09
"""From the wrist to the base of the middle finger of an adult, metres. It scales the two values above."""
REACH = 1.1
"""A hand belongs to a body if the two wrists are at most this many palm lengths apart."""
WRIST_ROTATIONS = (0.0, math.radians(50), math.radians(-50))
"""Rotations of the hand relative to the arm that are tried, in the image."""
SIDES: tuple[Side, Side] = ("left", "right")
WRISTS: dict[Side, str] = {"left": "L_Wrist", "right": "R_Wrist"}
"""The joints of bodies at which hands are searched."""
WRONG_SIDE = 0.1
"""A hand at a body's wrist is the other hand if the probability of the wanted side is lower."""
NO_PALM_ROTATIONS, NO_PALM_SIDES = 8, (1.0, 0.6)
"""Crops that are tried if no palm is found: number of rotations, and sizes in sides of the searched box."""


@dataclasses.dataclass(frozen=True)
class FoundHand:
    """A hand in an image.

    points: x, y in pixels of the image, or of its mirror image for a left hand. presence: its probability.
    """

    side: Side
    points: Float[Tensor, "21 2"]
    presence: float


class HandFinder:
    """Finds hands with MediaPipe's landmark network."""

    def __init__(self, landmarks: LandmarkNet, palm: PalmNet, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.landmarks, self.palm = landmarks.to(self.device).eval(), palm.to(self.device).eval()

    def in_image(
        self,
        pixels: UInt8[np.ndarray, "h w 3"],
        box: tuple[float, float, float, float] | None = None,
        side: Side | None = None,
    ) -> list[FoundHand]:
        """The hands in an image or in its part `box` (x, y, width, height; pixels), highest probability first.

        side: of all hands, if known.
        """
        height, width = pixels.shape[:2]
        box = box or (0.0, 0.0, float(width), float(height))
        crops = self._palm_crops(pixels, box)
        if crops is None:
            rotations = torch.arange(NO_PALM_ROTATIONS) * (2 * math.pi / NO_PALM_ROTATIONS)
            sides = torch.tensor(NO_PALM_SIDES)
            rotation, size = (part.flatten() for part in torch.meshgrid(rotations, sides, indexing="ij"))
            boxes = torch.tensor(box).expand(len(size), 4)
            crops = Crop.around(boxes, LANDMARK_CROP, margin=size, rotation=rotation)
            best = self._landmarks_in(pixels, crops, False).presence.argmax()
            crops = crops[best : best + 1]
        found, crops = self._refined(pixels, crops, False)
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
            again = self._landmarks_in(pixels, mirrored, True)
            hands.append(FoundHand("left", mirrored.to_image(again.points[..., :2])[0], float(again.presence[0])))
        return hands

    def of_people(
        self,
        pixels: UInt8[np.ndarray, "h w 3"],
        people: Sequence[Prediction],
        known: Sequence[Mapping[Side, FoundHand]] | None = None,
        search: Sequence[bool] | None = None,
    ) -> list[dict[Side, FoundHand]]:
        """Each person's visible hands at the wrists of the body. A body without wrists has no hands.

        known: each person's hands in an earlier frame; they are checked by one pass of the network. search: for whom
        other hands are searched; None: for everybody.
        """
        result: list[dict[Side, FoundHand]] = [{} for _ in people]
        width = pixels.shape[1]
        for side in SIDES:
            mirrored = side == "left"
            arms = {index: arm for index, person in enumerate(people) if (arm := _arm(person, side, width))}
            again = [index for index in arms if known is not None and side in known[index]]
            if known is not None and again:
                crops = crop_around(torch.stack([known[index][side].points for index in again]))
                _accept(result, side, again, arms, self._landmarks_in(pixels, crops, mirrored), crops)
            lost = [index for index in arms if side not in result[index] and (search is None or search[index])]
            if lost:
                starts = [arms[index].starts() for index in lost]
                first = self._landmarks_in(pixels, Crop.concatenate(starts), mirrored)
                best = first.presence.unflatten(0, (len(lost), len(WRIST_ROTATIONS))).argmax(1)
                chosen = Crop.stack(starts)[torch.arange(len(lost)), best]
                _accept(result, side, lost, arms, *self._refined(pixels, chosen, mirrored))
        return result

    @torch.inference_mode()
    def _landmarks_in(self, pixels: UInt8[np.ndarray, "h w 3"], crops: Crop, mirrored: bool) -> Landmarks:
        """The landmark network's output for crops of the image or of its mirror image."""
        cut = crops.mirror(pixels.shape[1]) if mirrored else crops
        shown = np.stack([warp_image(pixels, affine, LANDMARK_CROP) for affine in cut.affine])
        return self.landmarks(_as_input(shown).to(self.device)).to("cpu")

    def _refined(self, pixels: UInt8[np.ndarray, "h w 3"], crops: Crop, mirrored: bool) -> tuple[Landmarks, Crop]:
        """The hands in crops, after they were cropped `PASSES` more times around the found landmarks."""
        found = self._landmarks_in(pixels, crops, mirrored)
        for _ in range(PASSES):
            crops = crop_around(crops.to_image(found.points[..., :2]))
            found = self._landmarks_in(pixels, crops, mirrored)
        return found, crops

    @torch.inference_mode()
    def _palm_crops(self, pixels: UInt8[np.ndarray, "h w 3"], box: tuple[float, float, float, float]) -> Crop | None:
        """The crops of the hands whose palms are found in `box`, None if there are none."""
        crop = Crop.around(torch.tensor(box), PALM_CROP, margin=1.0)
        scores, palms = self.palm(_as_input(warp_image(pixels, crop.affine, PALM_CROP)[None]).to(self.device))
        rows = [row for row in scores[0].argsort(descending=True)[:MAX_PALMS].tolist() if scores[0, row] >= PALM_SCORE]
        kept: list[int] = []
        for row in rows:
            centre, size = palms[0, row, 0], palms[0, row, 1].max()
            if all((palms[0, other, 0] - centre).abs().max() > size / 2 for other in kept):
                kept.append(row)
        if not kept:
            return None
        palm = palms[0, kept].cpu()
        zoom = crop.affine[0, 0]
        centre = crop.to_image(palm[:, 0])
        points = crop.to_image(palm[:, 2:].flatten(0, 1)).unflatten(0, (len(kept), -1))
        towards = points[:, 2] - points[:, 0]
        size = (palm[:, 1].amax(-1) / zoom).clamp_min(1.0)
        rotation = torch.atan2(towards[:, 0], -towards[:, 1])
        ahead = _direction(rotation) * (PALM_SHIFT * size)[:, None]
        return _square_crops(centre + ahead, PALM_SIDE * size, rotation)


class HandPredictor(MeshPredictor):
    """Finds hands in images and predicts their meshes in space. It also adds hands to predicted people.

    The network knows right hands. Left hands are mirrored for it, and their meshes are mirrored back.
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
        """side: of all hands in the images; None: the finder decides."""
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
        """A predictor with the hand network in the package, or with another hand network, such as one for MANO.

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

    def _find(self, photo: Photo, boxes: Sequence[PersonBox] | None) -> tuple[list[PersonBox], str]:
        """As `MeshPredictor._find`. boxes: where one hand each is searched, instead of in the whole image."""
        if boxes is None:
            found, source = self.finder.in_image(photo.pixels, side=self.side), "hand detector"
        else:
            found, source = [], "given"
            for box in boxes:
                found += self.finder.in_image(photo.pixels, box.box, self.side)[:1]
        return [self.box(hand, photo.width) for hand in found], source

    def box(self, hand: FoundHand, width: int, root_depth: float | None = None) -> PersonBox:
        """The box of a hand for the network's crop, in an image of `width` pixels."""
        # Our hand network uses the landmark network's crops. Published networks use upright boxes with a margin.
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
        """The people of several images with their visible hands (`Prediction.hands`).

        A hand gets the depth of the body's wrist. Unreliable people get no hands.
        """
        found: list[list[dict[Side, FoundHand]]] = []
        for pixels, group in zip(images, people, strict=True):
            hands = iter(self.finder.of_people(pixels, [person for person in group if person.reliable]))
            found.append([next(hands) if person.reliable else {} for person in group])
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
        """The people of several images with predictions of the hands that were found."""
        boxes: list[list[PersonBox]] = []
        for pixels, group, found in zip(images, people, hands, strict=True):
            boxes.append([])
            for person, own in zip(group, found, strict=True):
                for side, hand in own.items():
                    depth = float(person.lixel_mesh.joints[person.body.skeleton.index(WRISTS[side]), 2])
                    boxes[-1].append(self.box(hand, pixels.shape[1], depth))
        result: list[list[Prediction]] = []
        for group, found, predicted in zip(people, hands, self.predict_batch(images, boxes, cameras), strict=True):
            following = iter(predicted)
            result.append(
                [
                    dataclasses.replace(person, hands={side: next(following) for side in own})
                    for person, own in zip(group, found, strict=True)
                ]
            )
        return result


@dataclasses.dataclass(frozen=True)
class _Arm:
    """The end of a body's arm, in pixels of the image, or of its mirror image for the left arm.

    towards: unit vector to the fingers. palm: length of the palm at that distance from the camera.
    """

    wrist: Float[Tensor, "2"]
    towards: Float[Tensor, "2"]
    palm: float

    def starts(self) -> Crop:
        """The crops in which the hand is searched."""
        rotation = torch.atan2(self.towards[0], -self.towards[1]) + torch.tensor(WRIST_ROTATIONS)
        ahead = _direction(rotation) * ARM_SHIFT / PALM_LENGTH * self.palm
        return _square_crops(
            self.wrist + ahead, torch.full_like(rotation, ARM_SIDE / PALM_LENGTH * self.palm), rotation
        )


def _accept(
    result: Sequence[dict[Side, FoundHand]],
    side: Side,
    people: Sequence[int],
    arms: Mapping[int, _Arm],
    found: Landmarks,
    crops: Crop,
) -> None:
    """Add the hands that were found for `people` to `result` if they are hands and belong to these arms."""
    points = crops.to_image(found.points[..., :2])
    for row, index in enumerate(people):
        near = float((points[row, 0] - arms[index].wrist).norm()) < REACH * arms[index].palm
        if near and found.presence[row] >= PRESENCE and found.right[row] >= WRONG_SIDE:
            result[index][side] = FoundHand(side, points[row], float(found.presence[row]))


def _arm(person: Prediction, side: Side, width: int) -> _Arm | None:
    """The end of a person's arm; None if the body has no such joints or they are behind the camera."""
    names = [f"{side[0].upper()}_{joint}" for joint in ("Elbow", "Wrist", "Hand")]
    skeleton = person.body.skeleton
    if any(name not in skeleton.joints for name in names):
        return None
    rows = [skeleton.index(name) for name in names]
    joints = person.lixel_mesh.joints[rows]
    flat = person.camera.project(joints)
    rest = person.body(person.body.rest_params()).joints[rows]
    if not bool(flat.isfinite().all()):
        return None
    if side == "left":
        flat = _flipped(flat, width)
    # The hand is short and the arm may be foreshortened: the sum of both directions is stable.
    towards = (flat[2] - flat[1]) + 0.5 * (flat[1] - flat[0])
    palm = float((rest[2] - rest[1]).norm() * person.camera.focal.mean() / joints[1, 2].clamp_min(0.1))
    return _Arm(flat[1], towards / towards.norm().clamp_min(1e-6), palm)


def _flipped(points: Float[Tensor, "*n 2"], width: int) -> Float[Tensor, "*n 2"]:
    """Points of an image of `width` pixels, in its mirror image."""
    return torch.stack([width - 1 - points[..., 0], points[..., 1]], -1)


def _same(points: Float[Tensor, "21 2"], other: Float[Tensor, "21 2"]) -> bool:
    """Whether two results are the same hand: their means are less than a third of its size apart."""
    size = (points.amax(0) - points.amin(0)).max()
    return bool((points.mean(0) - other.mean(0)).norm() < size / 3)


def _direction(rotation: Float[Tensor, "n"]) -> Float[Tensor, "n 2"]:
    """The unit vector that points up in a crop of this rotation."""
    return torch.stack([rotation.sin(), -rotation.cos()], -1)


def _square_crops(centre: Float[Tensor, "n 2"], side: Float[Tensor, "n"], rotation: Float[Tensor, "n"]) -> Crop:
    """Square crops for the landmark network."""
    box = torch.cat([centre - side[:, None] / 2, side[:, None].expand(-1, 2)], 1)
    return Crop.around(box, LANDMARK_CROP, margin=1.0, rotation=rotation)


def _as_input(pixels: UInt8[np.ndarray, "n h w 3"]) -> Float[Tensor, "n 3 h w"]:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
