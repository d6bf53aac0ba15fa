"""Work that outlives a kill: what was seen in each stretch of frames, and one person's arrays on disk."""

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Int64

from i2l_meshnet.errors import FileError
from i2l_meshnet.folders import empty, remove, work_folder
from i2l_meshnet.io import atomic_path, read_arrays, write_bytes
from i2l_meshnet.prediction.results import Prediction
from i2l_meshnet.video.motion import Motion
from i2l_meshnet.video.source import TICKS

STRETCH = 64
"""Frames that are kept together; so many are done again at most after a kill."""
Part = Literal["body", "left", "right"]
"""What is followed: a person, and each of their hands."""
_PREFIX: dict[Part, str] = {"body": "", "left": "left_", "right": "right_"}
"""What the arrays of a part are called by in a stretch's file."""


@dataclasses.dataclass(frozen=True)
class Sighting:
    """One person in one frame, as the network saw them."""

    frame: int
    identity: int
    prediction: Prediction


@dataclasses.dataclass(frozen=True)
class Rows:
    """Sightings (n) of bodies, or of hands of one side: the frame, and the identity of the person.

    columns: box, confidence and the fields of `Motion`; none where nothing was seen.
    """

    frame: Int64[np.ndarray, "n"]
    identity: Int64[np.ndarray, "n"]
    columns: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Consecutive frames and who was seen in them.

    ticks: times of the frames, the first of which has the number `first`.
    """

    first: int
    ticks: Int64[np.ndarray, "f"]
    rows: dict[Part, Rows]


class WorkFolder:
    """Finished stretches of one clip."""

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        """facts: all that the work depends on."""
        self.path, self._facts = path, json.dumps(facts, sort_keys=True, default=str)

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Create or reopen the folder and lock it. Work that was kept for other facts is removed.

        Raises FileError if it cannot be written or is not our work folder, TakenError if another process uses it.
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
        """Where the part of the stretch `index` lies."""
        return self.path / f"{name}_{index:06d}{suffix}"

    def stretches(self) -> Iterator[Stretch]:
        """The finished stretches, in order."""
        for path in self._kept():
            arrays = _read(path)
            rows: dict[Part, Rows] = {}
            for part, prefix in _PREFIX.items():
                start = f"{prefix}column_"
                columns = {name.removeprefix(start): arrays[name] for name in arrays if name.startswith(start)}
                rows[part] = Rows(arrays[f"{prefix}frame"], arrays[f"{prefix}identity"], columns)
            yield Stretch(int(arrays["first"]), arrays["ticks"], rows)

    def spans(self) -> list[tuple[int, Int64[np.ndarray, "f"]]]:
        """First frame and times of every finished stretch."""
        return [(int(arrays["first"]), arrays["ticks"]) for arrays in self._heads()]

    def state(self) -> dict[str, Any] | None:
        """What `add` was given after the last finished stretch; None if there is none."""
        states = [str(arrays["state"]) for arrays in self._heads()]
        return json.loads(states[-1]) if states else None

    def _heads(self) -> Iterator[dict[str, np.ndarray]]:
        for path in self._kept():
            yield _read(path, ("first", "ticks", "state"))

    def _kept(self) -> Iterator[Path]:
        index = 0
        while (path := self.file("seen", index, ".npz")).exists():
            yield path
            index += 1

    def add(
        self, index: int, first: int, ticks: Sequence[int], sightings: Sequence[Sighting], state: dict[str, Any]
    ) -> None:
        """Keeps a stretch. state: of what follows people, after its last frame."""
        arrays = {
            "first": np.array(first),
            "ticks": np.array(ticks, np.int64),
            "state": np.array(json.dumps(state)),
        }
        for part, prefix in _PREFIX.items():
            seen = [(one, found) for one in sightings if (found := _of_part(one.prediction, part)) is not None]
            arrays[f"{prefix}frame"] = np.array([one.frame for one, _ in seen], np.int64)
            arrays[f"{prefix}identity"] = np.array([one.identity for one, _ in seen], np.int64)
            for name, values in _columns([found for _, found in seen]).items():
                arrays[f"{prefix}column_{name}"] = values
        with atomic_path(self.file("seen", index, ".npz")) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]

    def remove(self) -> None:
        """Remove the folder."""
        remove(self.path)


def work_of(base: Path) -> Path:
    """The work folder of the results whose names begin with that of `base`."""
    return base.with_name(base.name + ".unfinished")


def _of_part(person: Prediction, part: Part) -> Prediction | None:
    return person if part == "body" else person.hands.get(part)


def _columns(people: Sequence[Prediction]) -> dict[str, np.ndarray]:
    if not people:
        return {}
    motion = Motion.stack([Motion.of(person) for person in people])
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


def _read(path: Path, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of a stretch's file, all or those named."""
    try:
        return read_arrays(path, names)
    except (OSError, ValueError) as error:
        raise FileError(f"kept work is damaged: {path} ({error}); delete its folder to begin anew") from error


class Column:
    """An array on disk of which only what is asked for is in memory.

    The file is mapped no longer than an access lasts, so neither memory nor open files grow with the length of a clip
    or its number of people.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, shape: tuple[int, ...], dtype: np.dtype) -> "Column":
        """A new array of zeros; replaces a file."""
        np.lib.format.open_memmap(path, "w+", dtype, shape)
        return cls(path)

    def map(self) -> np.ndarray:
        """The whole array, mapped for as long as it is held; changes stay in memory."""
        return np.lib.format.open_memmap(self.path, "c")

    def __getitem__(self, part: Any) -> np.ndarray:
        return np.array(self.map()[part])

    def __setitem__(self, part: Any, values: Any) -> None:
        np.lib.format.open_memmap(self.path, "r+")[part] = values


@dataclasses.dataclass(frozen=True)
class Person:
    """One person's arrays, or those of a hand for as long as it was followed, over the frames from `first` on (T).

    identity: of the person. seen: whether the network saw them; else a row is bridged. columns: as in `Rows`, and
    what `finish` adds.
    """

    folder: Path
    identity: int
    first: int
    seen: Bool[np.ndarray, "t"]
    columns: dict[str, Column]

    def __len__(self) -> int:
        return len(self.seen)

    def add(self, name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> Column:
        """A new column of zeros; shape: of a row."""
        path = self.folder / f"{self.identity}_{self.first}_{name}.npy"
        self.columns[name] = Column.create(path, (len(self), *shape), np.dtype(dtype))
        return self.columns[name]

    def motion(self, part: slice = slice(None)) -> Motion:
        """The frames `part`, numbered from the person's first."""
        names = {field.name for field in dataclasses.fields(Motion)} & self.columns.keys()
        return Motion(**{name: torch.from_numpy(self.columns[name][part]).float() for name in names})

    def put(self, part: slice, motion: Motion) -> None:
        """Writes a motion into the frames `part`."""
        for name, values in motion_arrays(motion).items():
            self.columns[name][part] = values


def gather(
    folder: WorkFolder, name: str, least: int, part: Part = "body", max_gap: float | None = None
) -> list[Person]:
    """Everybody who was seen in at least `least` frames, by their first one; rows between sightings are zero.

    name: of the folder inside the work folder for the arrays; what was there is replaced. part: what of them.
    max_gap: seconds unseen after which a new `Person` begins; None: never.
    """
    spells: dict[int, list[_Spell]] = {}
    shapes: dict[str, tuple[tuple[int, ...], np.dtype]] = {}
    for stretch in folder.stretches():
        rows = stretch.rows[part]
        for frame, identity in zip(rows.frame.tolist(), rows.identity.tolist(), strict=True):
            time = int(stretch.ticks[frame - stretch.first]) / TICKS
            past = spells.setdefault(identity, [])
            after_gap = (
                bool(past) and frame - past[-1].last > 1 and max_gap is not None and time - past[-1].time > max_gap
            )
            if not past or after_gap:
                past.append(_Spell(identity, frame))
            past[-1].extend(frame, time)
        shapes = shapes or {key: (values.shape[1:], values.dtype) for key, values in rows.columns.items()}
    target = folder.path / name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    chosen = sorted(
        (spell for past in spells.values() for spell in past if spell.count >= least),
        key=lambda spell: (spell.first, spell.identity),
    )
    people = []
    for spell in chosen:
        person = Person(target, spell.identity, spell.first, np.zeros(spell.last - spell.first + 1, bool), {})
        for key, (shape, dtype) in shapes.items():
            person.add(key, shape, dtype.type)
        people.append(person)
    for stretch in folder.stretches():
        rows = stretch.rows[part]
        for person in people:
            there = (rows.identity == person.identity) & (rows.frame >= person.first)
            there &= rows.frame < person.first + len(person)
            if there.any():
                places = rows.frame[there] - person.first
                person.seen[places] = True
                for key, values in rows.columns.items():
                    person.columns[key][places] = values[there]
    return people


@dataclasses.dataclass
class _Spell:
    """Frames from `first` to `last` in which somebody was seen without a long gap; time: of the last, seconds."""

    identity: int
    first: int
    last: int = 0
    count: int = 0
    time: float = 0.0

    def ends_before(self, frame: int, time: float) -> bool:
        """Whether nothing was seen from `time` on, and not in the frame before either."""
        return self.last < frame - 1 and self.time < time

    def extend(self, frame: int, time: float) -> None:
        self.last, self.count, self.time = frame, self.count + 1, time


def of_person(spells: Sequence[Person], person: Person) -> list[Person]:
    """The spells of this person's hand among everybody's."""
    return [spell for spell in spells if spell.identity == person.identity]
