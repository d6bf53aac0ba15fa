"""The people of a clip over time. Their arrays are on disk, so memory does not grow with the length of the clip."""

import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from i2l_meshnet.bodies.base import Body
from i2l_meshnet.video.motion import Motion
from i2l_meshnet.video.source import TICKS
from i2l_meshnet.video.unfinished import Part, WorkFolder

BLOCK = 256
"""Maximum number of frames in memory."""
BRIDGED_TRUST = 0.05
"""Weight of a bridged frame when motion is smoothed."""


@dataclasses.dataclass(frozen=True)
class FollowedPerson:
    """A person, or one spell in which one of their hands was followed: T frames from `first`.

    identity: number of the person. seen: False in frames between sightings, which are bridged. columns: arrays on disk:
    the columns of `Rows`, and the columns that `finish` sets: origin (of the vertices of the lixel mesh), joints and,
    for a body with parameters, translation.
    """

    identity: int
    first: int
    seen: Bool[np.ndarray, "t"]
    columns: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.seen)

    def __contains__(self, frame: int) -> bool:
        return self.first <= frame < self.first + len(self)

    @property
    def trust(self) -> Float[Tensor, "t"]:
        """The weight of each frame: its confidence, or 1 for a network without confidences."""
        return torch.from_numpy(np.nan_to_num(self.columns["confidence"], nan=1.0)).clamp_min(BRIDGED_TRUST)

    def blocks(self) -> Iterator[slice]:
        """The frames in blocks that fit into memory, numbered from the person's first."""
        return (slice(start, min(start + BLOCK, len(self))) for start in range(0, len(self), BLOCK))

    def motion(self, part: slice = slice(None)) -> Motion:
        """The frames `part`, numbered from the person's first."""
        names = {field.name for field in dataclasses.fields(Motion)} & self.columns.keys()
        return Motion(**{name: torch.from_numpy(np.array(self.columns[name][part], np.float32)) for name in names})

    def put(self, part: slice, motion: Motion) -> None:
        """Write a motion into the frames `part`."""
        for name, values in motion.to_arrays().items():
            self.columns[name][part] = values


def gather(
    folder: WorkFolder, body: Body, min_frames: int, part: Part = "body", max_gap: float | None = None
) -> list[FollowedPerson]:
    """All people who were seen in at least `min_frames` frames, in the order of their first frame.

    body: of the people, or of the hands if `part` is a hand. max_gap: seconds unseen after which a new
    `FollowedPerson` starts; None: never. Rows of unseen frames are zero. The arrays of all people are in one file per
    column, in a subfolder that is replaced, so the number of open files does not depend on the number of people.
    """
    spells: dict[int, list[_Spell]] = {}
    rows_of: dict[str, tuple[tuple[int, ...], np.dtype]] = {}
    for stretch in folder.stretches():
        rows = stretch.rows[part]
        for frame, identity in zip(rows.frame.tolist(), rows.identity.tolist(), strict=True):
            time = int(stretch.ticks[frame - stretch.first]) / TICKS
            past = spells.setdefault(identity, [])
            if not past or (max_gap is not None and past[-1].last < frame - 1 and time - past[-1].time > max_gap):
                past.append(_Spell(identity, frame))
            past[-1].last, past[-1].count, past[-1].time = frame, past[-1].count + 1, time
        rows_of = rows_of or {name: (values.shape[1:], values.dtype) for name, values in rows.columns.items()}
    chosen = [spell for past in spells.values() for spell in past if spell.count >= min_frames]
    if not chosen:
        return []
    rows_of |= {"origin": ((3,), np.dtype(np.float32)), "joints": ((len(body.skeleton), 3), np.dtype(np.float32))}
    if "pose" in rows_of:
        rows_of["translation"] = ((3,), np.dtype(np.float32))
    columns = _new_arrays(folder.path / part, sum(spell.last - spell.first + 1 for spell in chosen), rows_of)
    people, start = [], 0
    for spell in sorted(chosen, key=lambda spell: (spell.first, spell.identity)):
        end = start + spell.last - spell.first + 1
        rows = {name: column[start:end] for name, column in columns.items()}
        people.append(FollowedPerson(spell.identity, spell.first, np.zeros(end - start, bool), rows))
        start = end
    for stretch in folder.stretches():
        rows = stretch.rows[part]
        for person in people:
            own = (rows.identity == person.identity) & (rows.frame >= person.first)
            own &= rows.frame < person.first + len(person)
            frames = rows.frame[own] - person.first
            person.seen[frames] = True
            for name, values in rows.columns.items():
                person.columns[name][frames] = values[own]
    return people


@dataclasses.dataclass
class _Spell:
    """Frames from `first` to `last` in which a person was seen without a long gap. time: of the last frame, seconds."""

    identity: int
    first: int
    last: int = 0
    count: int = 0
    time: float = 0.0


def _new_arrays(
    folder: Path, length: int, rows_of: dict[str, tuple[tuple[int, ...], np.dtype]]
) -> dict[str, np.ndarray]:
    """Create arrays of zeros in a new folder. rows_of: shape and type of a row of each array."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, (length, *shape))
        for name, (shape, dtype) in rows_of.items()
    }


def spells_of(spells: Sequence[FollowedPerson], person: FollowedPerson) -> list[FollowedPerson]:
    """The spells of one person."""
    return [spell for spell in spells if spell.identity == person.identity]
