"""Work that outlives a kill: what was seen in each stretch of frames, and one person's arrays on disk."""

import dataclasses
import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64

from i2l_meshnet.errors import FileError
from i2l_meshnet.files import atomic_path
from i2l_meshnet.prediction.results import Prediction
from i2l_meshnet.video.motion import Motion

STRETCH = 64
"""Frames that are kept together; so many are done again at most after a kill."""


@dataclasses.dataclass(frozen=True)
class Sighting:
    """One person in one frame, as the network saw them."""

    frame: int
    identity: int
    prediction: Prediction


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Consecutive frames and who was seen in them.

    ticks: times of the frames, the first of which has the number `first`. Rows (n) are sightings: frame and identity,
    what `columns` names (box, confidence and the fields of `Motion`). state: the tracker's after the last frame.
    """

    first: int
    ticks: Int64[np.ndarray, "f"]
    frame: Int64[np.ndarray, "n"]
    identity: Int64[np.ndarray, "n"]
    columns: dict[str, np.ndarray]
    state: dict[str, Any]


class WorkFolder:
    """Finished stretches of one clip. What was kept for other input or options is thrown away."""

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        """facts: all that the work depends on. Raises FileError if the folder cannot be written."""
        self.path = path
        text = json.dumps(facts, sort_keys=True, default=str)
        try:
            if path.exists() and self._facts() != text:
                shutil.rmtree(path)
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"cannot write {path}: {error.strerror}") from error
        if self._facts() != text:
            with atomic_path(path / "facts.json") as temporary:
                temporary.write_text(text, encoding="utf-8")

    def _facts(self) -> str | None:
        try:
            return (self.path / "facts.json").read_text(encoding="utf-8")
        except (OSError, ValueError):
            return None

    def file(self, name: str, index: int, suffix: str) -> Path:
        """Where the part of the stretch `index` lies."""
        return self.path / f"{name}_{index:06d}{suffix}"

    def stretches(self) -> Iterator[Stretch]:
        """The finished stretches, in order."""
        index = 0
        while (path := self.file("seen", index, ".npz")).exists():
            yield _load_stretch(path)
            index += 1

    def add(
        self, index: int, first: int, ticks: Sequence[int], sightings: Sequence[Sighting], state: dict[str, Any]
    ) -> None:
        """Keeps a stretch."""
        arrays = {
            "first": np.array(first),
            "ticks": np.array(ticks, np.int64),
            "frame": np.array([one.frame for one in sightings], np.int64),
            "identity": np.array([one.identity for one in sightings], np.int64),
            "state": np.array(json.dumps(state)),
        }
        for name, values in _columns(sightings).items():
            arrays[f"column_{name}"] = values
        with atomic_path(self.file("seen", index, ".npz")) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]

    def remove(self) -> None:
        """Throws the folder away."""
        shutil.rmtree(self.path, ignore_errors=True)


def _columns(sightings: Sequence[Sighting]) -> dict[str, np.ndarray]:
    if not sightings:
        return {}
    motion = Motion.stack([Motion.of(one.prediction) for one in sightings])
    people = [one.prediction for one in sightings]
    confidence = [np.nan if person.confidence is None else person.confidence for person in people]
    return {
        "box": torch.stack([person.box for person in people]).numpy(),
        "confidence": np.array(confidence, np.float32),
        **motion_arrays(motion),
    }


def motion_arrays(motion: Motion) -> dict[str, np.ndarray]:
    """A motion's fields as arrays; the vertices, which are most of it, in half precision (under 1 mm)."""
    fields = {field.name: getattr(motion, field.name) for field in dataclasses.fields(motion)}
    arrays = {name: value.numpy() for name, value in fields.items() if value is not None}
    return {**arrays, "vertices": arrays["vertices"].astype(np.float16)}


def _load_stretch(path: Path) -> Stretch:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        return Stretch(
            first=int(arrays["first"]),
            ticks=arrays["ticks"],
            frame=arrays["frame"],
            identity=arrays["identity"],
            columns={name[7:]: values for name, values in arrays.items() if name.startswith("column_")},
            state=json.loads(str(arrays["state"])),
        )
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise FileError(f"kept work is damaged: {path} ({error}); delete its folder to begin anew") from error


@dataclasses.dataclass(frozen=True)
class Person:
    """One person's arrays over the frames from `first` on (T), on disk and mapped into memory.

    seen: whether the network saw the person; else a row is bridged. columns: as in `Stretch`.
    """

    first: int
    seen: Bool[np.ndarray, "t"]
    columns: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.seen)

    def motion(self, part: slice = slice(None)) -> Motion:
        """The frames `part`, numbered from the person's first."""
        names = {field.name for field in dataclasses.fields(Motion)} & self.columns.keys()
        return Motion(**{name: torch.from_numpy(np.array(self.columns[name][part])).float() for name in names})

    def put(self, part: slice, motion: Motion) -> None:
        """Writes a motion into the frames `part`."""
        for name, values in motion_arrays(motion).items():
            self.columns[name][part] = values


def gather(folder: WorkFolder, name: str, least: int) -> list[Person]:
    """Everybody who was seen in at least `least` frames, by their first one; rows between sightings are zero.

    name: of the folder inside the work folder for the arrays; what was there is replaced.
    """
    spans: dict[int, tuple[int, int, int]] = {}
    shapes: dict[str, tuple[tuple[int, ...], np.dtype]] = {}
    for stretch in folder.stretches():
        for frame, identity in zip(stretch.frame.tolist(), stretch.identity.tolist(), strict=True):
            first, _, count = spans.get(identity, (frame, frame, 0))
            spans[identity] = (first, frame, count + 1)
        shapes = shapes or {name: (values.shape[1:], values.dtype) for name, values in stretch.columns.items()}
    target = folder.path / name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    people: dict[int, Person] = {}
    for identity, (first, last, count) in sorted(spans.items(), key=lambda item: (item[1][0], item[0])):
        if count >= least:
            people[identity] = _allocate(target, identity, first, last - first + 1, shapes)
    for stretch in folder.stretches():
        for identity, person in people.items():
            rows = stretch.identity == identity
            places = stretch.frame[rows] - person.first
            person.seen[places] = True
            for column, values in stretch.columns.items():
                person.columns[column][places] = values[rows]
    return list(people.values())


def _allocate(
    folder: Path, identity: int, first: int, length: int, shapes: Mapping[str, tuple[tuple[int, ...], np.dtype]]
) -> Person:
    columns: dict[str, np.ndarray] = {
        name: np.lib.format.open_memmap(folder / f"{identity}_{name}.npy", "w+", dtype, (length, *shape))
        for name, (shape, dtype) in shapes.items()
    }
    return Person(first, np.zeros(length, bool), columns)
