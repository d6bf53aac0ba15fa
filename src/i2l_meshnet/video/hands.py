"""The hands of people in a clip: followed from frame to frame, and searched in every `SEARCH_EVERY`-th frame."""

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
"""Frames between two searches for hands. A search runs the network five times, following a hand runs it once."""
HAND_GAP = 0.5
"""Seconds unseen after which the motion of a hand is not bridged."""


class HandFollower:
    """Adds hands to the people of each frame.

    The same frames give the same results. `state` and `restore` let it continue in another process.
    """

    def __init__(self, hands: HandPredictor) -> None:
        self.hands = hands
        self._known: dict[int, Mapping[Side, FoundHand]] = {}
        self._frames = 0

    def step(
        self, pixels: UInt8[np.ndarray, "h w 3"], people: Mapping[int, Prediction], camera: Camera
    ) -> dict[int, Prediction]:
        """Add hands to the people of the next frame, by number."""
        known = [self._known.get(who, {}) for who in people]
        # A new person is searched at once.
        search = [self._frames % SEARCH_EVERY == 0 or who not in self._known for who in people]
        self._frames += 1
        found = self.hands.finder.of_people(pixels, list(people.values()), known, search)
        self._known = dict(zip(people, found, strict=True))
        placed = self.hands.with_hands([pixels], [list(people.values())], [camera], [found])[0]
        return dict(zip(people, placed, strict=True))

    def state(self) -> dict[str, Any]:
        """The state for `restore`, as JSON values. Numbers are exact."""
        known = [
            [who, side, hand.points.tolist(), hand.presence]
            for who, hands in self._known.items()
            for side, hand in hands.items()
        ]
        return {"frames": self._frames, "people": list(self._known), "known": known}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from the `state` of a follower of the same clip."""
        self._frames = state["frames"]
        known: dict[int, dict[Side, FoundHand]] = {who: {} for who in state["people"]}
        for who, side, points, presence in state["known"]:
            known[who][side] = FoundHand(side, torch.tensor(points), presence)
        self._known = dict(known)


def make_hand_follower(predictor: MeshPredictor) -> HandFollower | None:
    """A follower, or None for a predictor without hands. Raise InputError if its hands are no `HandPredictor`."""
    if predictor.hands is None:
        return None
    if not isinstance(predictor.hands, HandPredictor):
        raise InputError("hands in clips need a predictor whose hands are a HandPredictor")
    return HandFollower(predictor.hands)
