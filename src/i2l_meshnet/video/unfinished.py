"""Unfinished work on a clip: the sightings in each stretch of frames, in a folder, so that a killed run can resume."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int64

from i2l_meshnet.errors import FileError
from i2l_meshnet.folders import empty, work_folder
from i2l_meshnet.io import atomic_path, read_arrays, reading, write_bytes
from i2l_meshnet.prediction.results import Prediction
from i2l_meshnet.video.motion import Motion

STRETCH = 64
"""Frames that are saved together. At most this many are processed again after a kill."""
Part = Literal["body", "left", "right"]
"""The body of a person, or one of their hands."""
_PREFIX: dict[Part, str] = {"body": "", "left": "left_", "right": "right_"}
"""Prefix of the arrays of a part in the file of a stretch."""


@dataclasses.dataclass(frozen=True)
class Sighting:
    """The prediction of one person in one frame. identity: number of the person."""

    frame: int
    identity: int
    prediction: Prediction


@dataclasses.dataclass(frozen=True)
class Rows:
    """N sightings of bodies, or of hands of one side. frame: its number. identity: number of the person.

    columns: box, confidence and the fields of `Motion`; empty without sightings.
    """

    frame: Int64[np.ndarray, "n"]
    identity: Int64[np.ndarray, "n"]
    columns: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Consecutive frames and the sightings in them. first: number of the first frame. ticks: times of the frames."""

    first: int
    ticks: Int64[np.ndarray, "f"]
    rows: dict[Part, Rows]


class WorkFolder:
    """The finished stretches of one clip."""

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        """facts: everything that the work depends on."""
        self.path, self._facts = path, json.dumps(facts, sort_keys=True, default=str)

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Create or reopen the folder and lock it. Work for other facts is removed.

        Raises FileError if the folder cannot be written or is not a work folder, TakenError if another process uses it.
        """
        with work_folder(self.path):
            path = self.path / "facts.json"
            try:
                fits = path.read_text(encoding="utf-8") == self._facts
            except (OSError, ValueError):
                fits = False
            if not fits:
                try:
                    empty(self.path)
                except OSError as error:
                    raise FileError(f"cannot write {self.path}: {error.strerror}") from error
                write_bytes(path, self._facts.encode())
            yield

    def file(self, name: str, index: int, suffix: str) -> Path:
        """The path of a file of the stretch `index`."""
        return self.path / f"{name}_{index:06d}{suffix}"

    def stretches(self) -> Iterator[Stretch]:
        """The finished stretches, in order."""
        for arrays in self._arrays():
            rows: dict[Part, Rows] = {}
            for part, prefix in _PREFIX.items():
                start = f"{prefix}column_"
                columns = {name.removeprefix(start): arrays[name] for name in arrays if name.startswith(start)}
                rows[part] = Rows(arrays[f"{prefix}frame"], arrays[f"{prefix}identity"], columns)
            yield Stretch(int(arrays["first"]), arrays["ticks"], rows)

    def spans(self) -> list[tuple[int, Int64[np.ndarray, "f"]]]:
        """The first frame and the times of every finished stretch."""
        return [(int(arrays["first"]), arrays["ticks"]) for arrays in self._arrays("first", "ticks")]

    def state(self) -> dict[str, Any] | None:
        """The state after the last finished stretch; None without stretches."""
        states = [str(arrays["state"]) for arrays in self._arrays("state")]
        return json.loads(states[-1]) if states else None

    def _arrays(self, *names: str) -> Iterator[dict[str, np.ndarray]]:
        """The arrays of every stretch: all arrays, or the named arrays."""
        index = 0
        while (path := self.file("seen", index, ".npz")).exists():
            with reading(path, "kept work of a clip", "delete its folder to start the clip again"):
                arrays = read_arrays(path, names)
            yield arrays
            index += 1

    def add(
        self, index: int, first: int, ticks: Sequence[int], sightings: Sequence[Sighting], state: dict[str, Any]
    ) -> None:
        """Save a stretch. state: of the trackers after its last frame."""
        arrays = {"first": np.array(first), "ticks": np.array(ticks, np.int64), "state": np.array(json.dumps(state))}
        for part, prefix in _PREFIX.items():
            seen = [(each, found) for each in sightings if (found := _part_of(each.prediction, part)) is not None]
            arrays[f"{prefix}frame"] = np.array([each.frame for each, _ in seen], np.int64)
            arrays[f"{prefix}identity"] = np.array([each.identity for each, _ in seen], np.int64)
            for name, values in _columns([found for _, found in seen]).items():
                arrays[f"{prefix}column_{name}"] = values
        with atomic_path(self.file("seen", index, ".npz")) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]


def unfinished(base: Path) -> Path:
    """The work folder of the results whose names start with `base`."""
    return base.with_name(base.name + ".unfinished")


def _part_of(person: Prediction, part: Part) -> Prediction | None:
    return person if part == "body" else person.hands.get(part)


def _columns(people: Sequence[Prediction]) -> dict[str, np.ndarray]:
    if not people:
        return {}
    motion = Motion.stack([Motion.of(person) for person in people])
    confidence = [np.nan if person.confidence is None else person.confidence for person in people]
    return {
        "box": torch.stack([person.box for person in people]).numpy(),
        "confidence": np.array(confidence, np.float32),
        **motion.to_arrays(),
    }
