"""Who is who from frame to frame: boxes from the last frame's meshes, the detector only now and then.

A pose network needs a box for each person and frame, and the last mesh gives a better one than the detector, moved on
by its speed. So this is no tracker of detections: it proposes boxes, lets the network look at them, and then tells by
the joints that it found who is who (an optimal assignment) and whether two boxes show the same person.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.prediction.boxes import PersonBox
from i2l_meshnet.prediction.predictor import MeshPredictor
from i2l_meshnet.prediction.results import Prediction

Detect = Callable[[UInt8[np.ndarray, "h w 3"]], Sequence[PersonBox]]
"""The people of an RGB picture."""

DETECT_EVERY = 10
SEARCH_EVERY = 3
"""Frames between two runs of the detector while somebody is lost or nobody is there."""
MAX_GAP = 1.0
"""Seconds after which somebody who was not seen again is given up."""
SAME_BOX = 0.3
"""Overlap (intersection over union) from which a detection belongs to a person's expected box."""
DRIFTED_BOX = 0.5
"""Overlap below which a detection replaces the expected box."""
SAME_PERSON = 0.1
"""Mean distance of the joints, in heights of the person, below which two boxes show the same person."""
REACH, REACH_A_SECOND = 0.25, 0.5
"""How far joints may lie from where they are expected, in heights, and how much further for each second unseen."""
SPEED_MEMORY = 0.15
"""Seconds over which a person's speed is averaged."""
COASTING = 0.3
"""Seconds in which the speed of somebody out of sight dies down to a third."""
PHANTOM_MISSES = 3
VISIBLE_SHARE = 0.2
"""Share of a box that must lie in the picture for a look into it."""


@dataclasses.dataclass
class _Track:
    """One person as last seen. box: (x, y, width, height), pixels; velocity: of its centre, pixels a second.

    seen, confirmed: when the network and when the detector last saw the person, seconds. score: the detector's.
    misses: its runs since then in which only the network saw the person.
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
        fields: dict[str, Any] = {}
        for name, value in values.items():
            fields[name] = np.array(value, float) if isinstance(value, list) else value
        return cls(**fields)

    @property
    def height(self) -> float:
        return float(self.box[2:].max())

    def shift(self, time: float) -> Float[np.ndarray, "2"]:
        """How far the person has gone since last seen, pixels: at a speed that dies down."""
        return self.velocity * COASTING * (1 - math.exp(-(time - self.seen) / COASTING))

    def expected_box(self, time: float) -> Float[np.ndarray, "4"]:
        return self.box + np.concatenate([self.shift(time), np.zeros(2)])

    def see(self, candidate: "_Candidate", time: float) -> None:
        """Takes up where and how the person is now."""
        moved = candidate.box[:2] + candidate.box[2:] / 2 - self.box[:2] - self.box[2:] / 2
        share = 1 - math.exp(-(time - self.seen) / SPEED_MEMORY)
        self.velocity = self.velocity + share * (moved / (time - self.seen) - self.velocity)
        self.box, self.joints, self.seen = candidate.box, candidate.joints, time
        if candidate.track is None:
            self.confirm(time, candidate.prediction.score)

    def confirm(self, time: float, score: float) -> None:
        """The detector has found the person too."""
        self.confirmed, self.score, self.misses = time, score, 0

    def is_phantom(self, time: float, max_gap: float) -> bool:
        """Whether the detector has not found this person for long, whatever the network thinks."""
        return self.misses >= PHANTOM_MISSES and time - self.confirmed > max_gap


@dataclasses.dataclass(frozen=True)
class _Candidate:
    """What the network saw in a box. track: of whom it was expected; None: of nobody known."""

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

    The same frames give the same answers; `state` and `restore` carry it over a break.
    """

    def __init__(
        self,
        predictor: MeshPredictor,
        camera: Camera,
        detect: Detect | None,
        start: Sequence[PersonBox] = (),
        detect_every: int = DETECT_EVERY,
        max_gap: float = MAX_GAP,
        root_depth: float | None = None,
    ) -> None:
        """camera: of all frames. detect: None to look only where people were last seen.

        start: boxes to look into at the first frame, and again while nobody is there. detect_every: frames from one
        run of the detector to the next. max_gap: seconds. root_depth: metres, of everybody.
        """
        self.predictor, self.camera, self.detect, self.root_depth = predictor, camera, detect, root_depth
        self.start, self.detect_every, self.max_gap = tuple(start), detect_every, max_gap
        self.detections = 0
        """How often the detector has run."""
        self._tracks: list[_Track] = []
        self._waited, self._next_identity = detect_every, 0
        self._searching, self._last = True, 0.0

    def step(self, pixels: UInt8[np.ndarray, "h w 3"], time: float) -> dict[int, Prediction]:
        """The people seen in the next frame, by a number that stays theirs. time: seconds, later than before.

        A person that the network does not recognise (`Prediction.reliable`) counts as not seen.
        """
        # Whoever was in the last frame is no stranger in this one, however long ago that was.
        patience = max(self.max_gap, time - self._last)
        self._tracks, self._last = [track for track in self._tracks if time - track.seen <= patience], time
        expected = [(track, track.expected_box(time)) for track in self._tracks]
        found = self._new_boxes(pixels)
        looks = [look for look in _looks(expected, found, time) if _inside(look[1].box, pixels)]
        predictions = self.predictor.predict_batch(
            [pixels], [[box for _, box in looks]], [self.camera], self.root_depth
        )[0]
        candidates = [
            _Candidate.of(track, prediction)
            for (track, _), prediction in zip(looks, predictions, strict=True)
            if prediction.reliable
        ]
        named = self._assign(_distinct(candidates), time)
        if self.detect is not None and self._waited == 0:
            for track in self._tracks:
                # Somebody hidden is not missed by the detector, somebody whom only the network sees is.
                track.misses += track.seen == time and track.confirmed < time
        self._tracks = [track for track in self._tracks if not track.is_phantom(time, self.max_gap)]
        self._searching = not self._tracks or any(track.seen < time for track in self._tracks)
        return dict(sorted(named.items()))

    def state(self) -> dict[str, Any]:
        """What `restore` needs, as JSON knows it; numbers come back exactly."""
        return {
            "tracks": [
                {
                    name: value.tolist() if isinstance(value, np.ndarray) else value
                    for name, value in vars(track).items()
                }
                for track in self._tracks
            ],
            "waited": self._waited,
            "next_identity": self._next_identity,
            "searching": self._searching,
            "last": self._last,
            "detections": self.detections,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on where a tracker of the same clip was when it gave `state`."""
        self._tracks = [_Track.from_json(track) for track in state["tracks"]]
        self._waited, self._next_identity = state["waited"], state["next_identity"]
        self._searching, self._last, self.detections = state["searching"], state["last"], state["detections"]

    def _new_boxes(self, pixels: UInt8[np.ndarray, "h w 3"]) -> list[PersonBox]:
        """The detector's boxes, where it is its turn, and those to start from."""
        self._waited += 1
        if self._waited < (min(SEARCH_EVERY, self.detect_every) if self._searching else self.detect_every):
            return []
        self._waited = 0
        boxes = [] if self._tracks else list(self.start)
        if self.detect is not None:
            boxes += self.detect(pixels)
            self.detections += 1
        return boxes

    def _assign(self, candidates: Sequence[_Candidate], time: float) -> dict[int, Prediction]:
        """Who is who: nearest joints, all people at once. Detections of nobody known are new people."""
        cost = np.array([[_distance(track, candidate, time) for candidate in candidates] for track in self._tracks])
        cost = cost.reshape(len(self._tracks), len(candidates))
        named: dict[int, Prediction] = {}
        taken = set()
        for row, column in _assigned(np.minimum(cost, 1e3)):
            if cost[row, column] <= 1:
                self._tracks[row].see(candidates[column], time)
                named[self._tracks[row].identity] = candidates[column].prediction
                taken.add(column)
        for column, candidate in enumerate(candidates):
            if column not in taken and candidate.track is None:
                self._tracks.append(_Track.of(self._next_identity, candidate, time))
                named[self._next_identity] = candidate.prediction
                self._next_identity += 1
        return named


def _distance(track: _Track, candidate: _Candidate, time: float) -> float:
    """How far a candidate's joints are from where a person's are expected; 1 is as far as can be."""
    apart = np.linalg.norm(candidate.joints - track.joints - track.shift(time), axis=1).mean()
    return float(apart / track.height / (REACH + REACH_A_SECOND * (time - track.seen)))


def _looks(
    expected: Sequence[tuple[_Track, Float[np.ndarray, "4"]]], found: Sequence[PersonBox], time: float
) -> list[tuple[_Track | None, PersonBox]]:
    """Where to look and for whom: everybody's expected box, and the new boxes that are nobody's.

    A box of the detector's replaces an expected one that has drifted away from it.
    """
    overlap = np.array([[_overlap(box, np.array(person.box)) for person in found] for _, box in expected])
    overlap = overlap.reshape(len(expected), len(found))
    pairs = _assigned(-overlap)
    matched = {row: column for row, column in pairs if overlap[row, column] >= SAME_BOX}
    looks: list[tuple[_Track | None, PersonBox]] = []
    for row, (track, box) in enumerate(expected):
        place = (float(box[0]), float(box[1]), float(box[2]), float(box[3]))
        if row in matched:
            detection = found[matched[row]]
            track.confirm(time, detection.score)
            if overlap[row, matched[row]] < DRIFTED_BOX:
                place = detection.box
        looks.append((track, PersonBox(place, track.score)))
    strangers = [person for column, person in enumerate(found) if column not in matched.values()]
    return [*looks, *((None, person) for person in strangers)]


def _assigned(cost: Float[np.ndarray, "r c"]) -> list[tuple[int, int]]:
    """Pairs of a row and a column, each in one at most, of the least sum of costs."""
    from scipy.optimize import linear_sum_assignment  # takes a third of a second, which photos need not wait for

    rows, columns = linear_sum_assignment(cost)
    return [*zip(rows.tolist(), columns.tolist(), strict=True)]


def _distinct(candidates: Sequence[_Candidate]) -> list[_Candidate]:
    """Each person once: of candidates with the same joints, one that was expected, and the surest, is kept."""
    kept: list[_Candidate] = []
    for candidate in sorted(candidates, key=lambda one: (one.track is None, -one.trust)):
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
    """Whether enough of a box lies in the picture to look for somebody there."""
    size = np.array([pixels.shape[1], pixels.shape[0]], float)
    low, high = np.maximum(box[:2], 0), np.minimum(np.add(box[:2], box[2:]), size - 1)
    return bool((high - low >= 2).all() and np.prod(high - low) >= VISIBLE_SHARE * np.prod(box[2:]))
