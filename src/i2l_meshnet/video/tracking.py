"""Follow people from frame to frame, with boxes from their meshes and a detector that runs every N-th frame.

The network needs a box for each person and frame. The last mesh, moved by the person's speed, gives a better box than
the detector. Therefore detections are not tracked. The network runs on proposed boxes, and the joints that it finds
identify people. Two boxes with the same joints show the same person. An optimal assignment matches the found joints
with the expected joints of the known people.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from i2l_meshnet.errors import InputError
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.prediction.boxes import PersonBox, as_box, require_inside
from i2l_meshnet.prediction.detect import detected_people
from i2l_meshnet.prediction.predictor import MeshPredictor
from i2l_meshnet.prediction.results import Prediction

DETECT_EVERY = 10
SEARCH_EVERY = 3
"""Frames between two runs of the detector while a person is lost or nobody is known."""
MAX_GAP = 1.0
"""Seconds after which an unseen person is given up."""
SAME_BOX = 0.3
"""Minimum overlap (intersection over union) of a detection and a person's expected box."""
DRIFTED_BOX = 0.5
"""Overlap below which a detection replaces the expected box."""
SAME_PERSON = 0.1
"""Two boxes show the same person if the mean distance of their joints is at most this fraction of the height."""
REACH, REACH_A_SECOND = 0.25, 0.5
"""Maximum mean distance between found and expected joints, as a fraction of the person's height, and how much this
fraction grows per second unseen."""
SPEED_MEMORY = 0.15
"""Seconds over which a person's speed is averaged."""
COASTING = 0.3
"""Time constant of the decay of an unseen person's speed, seconds."""
PHANTOM_MISSES = 3
"""Number of runs of the detector without a person, after which the person can be a phantom (`_Track.is_phantom`)."""
VISIBLE_SHARE = 0.2
"""Minimum share of a box inside the frame. Other boxes are not given to the network."""


@dataclasses.dataclass
class _Track:
    """A known person. The fields are saved in the unfinished work of a clip.

    box: (x, y, width, height), pixels. velocity: of the centre of the box, pixels per second. seen: when the network
    last saw the person, seconds. confirmed: when the detector last found the person, seconds. score: of the detector.
    misses: runs of the detector since `confirmed` in which only the network saw the person.
    """

    identity: int
    box: Float[np.ndarray, "4"]
    joints: Float[np.ndarray, "j 2"]
    velocity: Float[np.ndarray, "2"]
    seen: float
    confirmed: float
    score: float
    misses: int = 0

    @classmethod
    def of(cls, identity: int, candidate: "_Candidate", time: float) -> "_Track":
        return cls(identity, candidate.box, candidate.joints, np.zeros(2), time, time, candidate.prediction.score)

    def to_json(self) -> dict[str, Any]:
        return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(self).items()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "_Track":
        arrays = {name: np.array(value, float) for name, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **arrays})

    @property
    def height(self) -> float:
        return float(self.box[2:].max())

    def shift(self, time: float) -> Float[np.ndarray, "2"]:
        """Expected movement since the person was last seen, pixels. The speed decays."""
        return self.velocity * COASTING * (1 - math.exp(-(time - self.seen) / COASTING))

    def expected_box(self, time: float) -> Float[np.ndarray, "4"]:
        return self.box + np.concatenate([self.shift(time), np.zeros(2)])

    def see(self, candidate: "_Candidate", time: float) -> None:
        """Update the person from what the network found at `time`."""
        moved = candidate.box[:2] + candidate.box[2:] / 2 - self.box[:2] - self.box[2:] / 2
        share = 1 - math.exp(-(time - self.seen) / SPEED_MEMORY)
        self.velocity = self.velocity + share * (moved / (time - self.seen) - self.velocity)
        self.box, self.joints, self.seen = candidate.box, candidate.joints, time
        if candidate.track is None:
            self.confirm(time, candidate.prediction.score)

    def confirm(self, time: float, score: float) -> None:
        """Update the person after the detector has found them."""
        self.confirmed, self.score, self.misses = time, score, 0

    def is_phantom(self, time: float, max_gap: float) -> bool:
        """Whether the detector missed a person whom the network sees, several times and for over `max_gap` seconds."""
        return self.misses >= PHANTOM_MISSES and time - self.confirmed > max_gap


@dataclasses.dataclass(frozen=True)
class _Candidate:
    """What the network found in a box. track: the expected person; None for a new detection."""

    track: _Track | None
    prediction: Prediction
    box: Float[np.ndarray, "4"]
    joints: Float[np.ndarray, "j 2"]

    @classmethod
    def of(cls, track: _Track | None, prediction: Prediction) -> "_Candidate":
        mesh, camera = prediction.lixel_mesh, prediction.camera
        corners = camera.project(mesh.vertices).double().numpy()
        low, high = corners.min(0), corners.max(0)
        joints = camera.project(mesh.joints).double().numpy()
        return cls(track, prediction, np.concatenate([low, high - low]), joints)

    @property
    def height(self) -> float:
        return float(self.box[2:].max())

    @property
    def trust(self) -> float:
        return 1.0 if self.prediction.confidence is None else self.prediction.confidence


class Tracker:
    """Follows people through the frames of one clip.

    The same frames give the same results. `state` and `restore` let it continue in another process.
    """

    def __init__(
        self,
        predictor: MeshPredictor,
        camera: Camera,
        size: tuple[int, int],
        boxes: Sequence[Sequence[float] | PersonBox] | None = None,
        *,
        detect_every: int = DETECT_EVERY,
        max_gap: float = MAX_GAP,
        root_depth: float | None = None,
    ) -> None:
        """camera, size (width, height): of all frames.

        boxes: of the people in the first frame. Without boxes, the detector finds people. Without a detector, the first
        box is the whole frame. detect_every: frames between two runs of the detector. max_gap: seconds after which an
        unseen person is given up. root_depth: of all people, metres. Raises InputError for a box outside the frame and
        for values out of range.
        """
        if detect_every < 1 or not max_gap > 0:
            raise InputError("detect_every must be at least 1 frame, max_gap greater than 0 seconds")
        start = [] if boxes is None else [as_box(box) for box in boxes]
        for box in start:
            require_inside(box, *size, "the first frame")
        if boxes is None and predictor.detector is None:
            start = [PersonBox((0.0, 0.0, float(size[0]), float(size[1])))]
        self.predictor, self.camera, self.root_depth = predictor, camera, root_depth
        self.detect_every, self.max_gap = detect_every, max_gap
        self.detections = 0
        """Number of runs of the detector."""
        self._detector, self._start = predictor.detector if boxes is None else None, start
        self._tracks: list[_Track] = []
        self._waited, self._next_identity = detect_every, 0
        self._searching, self._last = True, 0.0

    def step(self, pixels: UInt8[np.ndarray, "h w 3"], time: float) -> dict[int, Prediction]:
        """The people in the next frame, by their permanent numbers. time: seconds, increasing.

        A person whose prediction is not `reliable` counts as not seen.
        """
        # People seen in the previous frame are still known, even if that frame was long ago.
        patience = max(self.max_gap, time - self._last)
        self._tracks, self._last = [track for track in self._tracks if time - track.seen <= patience], time
        expected = [(track, track.expected_box(time)) for track in self._tracks]
        found = self._new_boxes(pixels)
        proposals = [pair for pair in _proposals(expected, found, time) if _inside(pair[1].box, pixels)]
        predictions = self.predictor.predict_batch(
            [pixels], [[box for _, box in proposals]], [self.camera], self.root_depth
        )[0]
        candidates = [
            _Candidate.of(track, prediction)
            for (track, _), prediction in zip(proposals, predictions, strict=True)
            if prediction.reliable
        ]
        named = self._assign(_distinct(candidates), time)
        if self._detector is not None and self._waited == 0:
            for track in self._tracks:
                # Count a miss only if the network sees the person: a hidden person cannot be detected.
                track.misses += track.seen == time and track.confirmed < time
        self._tracks = [track for track in self._tracks if not track.is_phantom(time, self.max_gap)]
        self._searching = not self._tracks or any(track.seen < time for track in self._tracks)
        return dict(sorted(named.items()))

    def state(self) -> dict[str, Any]:
        """The state for `restore`, as JSON values. Numbers are exact."""
        return {
            "tracks": [track.to_json() for track in self._tracks],
            "waited": self._waited,
            "next_identity": self._next_identity,
            "searching": self._searching,
            "last": self._last,
            "detections": self.detections,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from the `state` of a tracker of the same clip."""
        self._tracks = [_Track.from_json(track) for track in state["tracks"]]
        self._waited, self._next_identity = state["waited"], state["next_identity"]
        self._searching, self._last, self.detections = state["searching"], state["last"], state["detections"]

    def _new_boxes(self, pixels: UInt8[np.ndarray, "h w 3"]) -> list[PersonBox]:
        """The boxes of the detector, if it runs in this frame, and the boxes to start from."""
        self._waited += 1
        if self._waited < (min(SEARCH_EVERY, self.detect_every) if self._searching else self.detect_every):
            return []
        self._waited = 0
        boxes = [] if self._tracks else list(self._start)
        if self._detector is not None:
            boxes += detected_people(self._detector, pixels)
            self.detections += 1
        return boxes

    def _assign(self, candidates: Sequence[_Candidate], time: float) -> dict[int, Prediction]:
        """Assign candidates to known people by the distance of joints. Other detections are new people."""
        cost = np.array([[_distance(track, candidate, time) for candidate in candidates] for track in self._tracks])
        cost = cost.reshape(len(self._tracks), len(candidates))
        named: dict[int, Prediction] = {}
        assigned = set()
        for row, column in _assigned(np.minimum(cost, 1e3)):
            if cost[row, column] <= 1:
                self._tracks[row].see(candidates[column], time)
                named[self._tracks[row].identity] = candidates[column].prediction
                assigned.add(column)
        for column, candidate in enumerate(candidates):
            if column not in assigned and candidate.track is None:
                self._tracks.append(_Track.of(self._next_identity, candidate, time))
                named[self._next_identity] = candidate.prediction
                self._next_identity += 1
        return named


def _distance(track: _Track, candidate: _Candidate, time: float) -> float:
    """Mean distance between found and expected joints, relative to the maximum."""
    apart = np.linalg.norm(candidate.joints - track.joints - track.shift(time), axis=1).mean()
    return float(apart / track.height / (REACH + REACH_A_SECOND * (time - track.seen)))


def _proposals(
    expected: Sequence[tuple[_Track, Float[np.ndarray, "4"]]], found: Sequence[PersonBox], time: float
) -> list[tuple[_Track | None, PersonBox]]:
    """Boxes to run the network on, and the person expected in each: the expected boxes, and unmatched detections.

    A detection replaces an expected box that has drifted away from it.
    """
    overlap = np.array([[_overlap(box, np.array(person.box)) for person in found] for _, box in expected])
    overlap = overlap.reshape(len(expected), len(found))
    pairs = _assigned(-overlap)
    matched = {row: column for row, column in pairs if overlap[row, column] >= SAME_BOX}
    proposals: list[tuple[_Track | None, PersonBox]] = []
    for row, (track, box) in enumerate(expected):
        x, y, width, height = box.tolist()
        proposal = (x, y, width, height)
        if row in matched:
            detection = found[matched[row]]
            track.confirm(time, detection.score)
            if overlap[row, matched[row]] < DRIFTED_BOX:
                proposal = detection.box
        proposals.append((track, PersonBox(proposal, track.score)))
    return [*proposals, *((None, person) for column, person in enumerate(found) if column not in matched.values())]


def _assigned(cost: Float[np.ndarray, "r c"]) -> list[tuple[int, int]]:
    """Pairs of rows and columns with the minimum sum of costs. Each row and column is in at most one pair."""
    from scipy.optimize import linear_sum_assignment  # takes 0.3 s, and photos do not need it

    rows, columns = linear_sum_assignment(cost)
    return [*zip(rows.tolist(), columns.tolist(), strict=True)]


def _distinct(candidates: Sequence[_Candidate]) -> list[_Candidate]:
    """One candidate per person. Expected candidates are preferred, then those with higher confidence."""
    kept: list[_Candidate] = []
    for candidate in sorted(candidates, key=lambda candidate: (candidate.track is None, -candidate.trust)):
        near = [np.linalg.norm(candidate.joints - other.joints, axis=1).mean() / other.height for other in kept]
        if not near or min(near) > SAME_PERSON:
            kept.append(candidate)
    return kept


def _overlap(one: Float[np.ndarray, "4"], other: Float[np.ndarray, "4"]) -> float:
    """Intersection over union of two boxes."""
    low = np.maximum(one[:2], other[:2])
    high = np.minimum(one[:2] + one[2:], other[:2] + other[2:])
    common = float(np.prod(np.maximum(high - low, 0)))
    return common / max(float(np.prod(one[2:]) + np.prod(other[2:])) - common, 1e-9)


def _inside(box: Sequence[float], pixels: UInt8[np.ndarray, "h w 3"]) -> bool:
    """Whether enough of a box is inside the frame."""
    size = np.array([pixels.shape[1], pixels.shape[0]], float)
    low, high = np.maximum(box[:2], 0), np.minimum(np.add(box[:2], box[2:]), size - 1)
    return bool((high - low >= 2).all() and np.prod(high - low) >= VISIBLE_SHARE * np.prod(box[2:]))
