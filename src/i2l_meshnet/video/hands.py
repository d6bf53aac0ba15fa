"""The hands of people in a clip: looked at where they were a frame ago, and searched for now and then."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from i2l_meshnet.errors import InputError
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.prediction.hands import FoundHand, HandPredictor
from i2l_meshnet.prediction.predictor import MeshPredictor
from i2l_meshnet.prediction.results import Prediction, Side

SEARCH_EVERY = 5
"""Frames from one search for hands by people's arms to the next. A search takes five looks, a known hand one."""
HAND_GAP = 0.5
"""Seconds unseen after which a hand counts as hidden, and its motion is not bridged."""


class HandFollower:
    """Adds their hands to the people of each frame.

    The same frames give the same answers; `state` and `restore` carry it over a break.
    """

    def __init__(self, hands: HandPredictor) -> None:
        self.hands = hands
        self._known: dict[int, Mapping[Side, FoundHand]] = {}
        self._frames = 0

    def step(
        self, pixels: UInt8[np.ndarray, "h w 3"], people: Mapping[int, Prediction], camera: Camera
    ) -> dict[int, Prediction]:
        """The people (by number) of the next frame with those of their hands that are seen."""
        known = [self._known.get(who, {}) for who in people]
        # Somebody new is searched at once.
        search = [self._frames % SEARCH_EVERY == 0 or who not in self._known for who in people]
        self._frames += 1
        found = self.hands.finder.of_people(pixels, list(people.values()), known, search)
        self._known = dict(zip(people, found, strict=True))
        placed = self.hands.with_hands([pixels], [list(people.values())], [camera], [found])[0]
        return dict(zip(people, placed, strict=True))

    def state(self) -> dict[str, Any]:
        """What `restore` needs, as JSON knows it; numbers come back exactly."""
        known = [
            [who, side, hand.points.tolist(), hand.presence]
            for who, hands in self._known.items()
            for side, hand in hands.items()
        ]
        return {"frames": self._frames, "people": list(self._known), "known": known}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on where a follower of the same clip was when it gave `state`."""
        self._frames = state["frames"]
        known: dict[int, dict[Side, FoundHand]] = {who: {} for who in state["people"]}
        for who, side, points, presence in state["known"]:
            known[who][side] = FoundHand(side, torch.tensor(points), presence)
        self._known = dict(known)


def make_hand_follower(predictor: MeshPredictor) -> HandFollower | None:
    """For a predictor that was given hands; else None. Raises InputError for others than a `HandPredictor`."""
    if predictor.hands is None:
        return None
    if not isinstance(predictor.hands, HandPredictor):
        raise InputError("in clips, hands are found by a HandPredictor; give the predictor one")
    return HandFollower(predictor.hands)
