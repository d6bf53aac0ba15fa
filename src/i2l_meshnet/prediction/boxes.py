"""Boxes that the user gives, in place of the detector's."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from i2l_meshnet.errors import InputError
from i2l_meshnet.io import read_json, reading

MOST_BYTES = 200_000_000
"""Of a file of boxes."""
LARGEST = 1e9
"""Pixels and metres beyond this are no place in a picture."""
MILLIMETRES_FROM = 100.0
"""RootNet files give the root in millimetres, 3DPW's in metres; no person is read as 100 m away or more."""

_FORMATS = '[[x, y, width, height], …], {"photo.jpg": [[x, y, width, height], …]} or RootNet\'s list of results'


@dataclasses.dataclass(frozen=True)
class PersonBox:
    """Where a person is.

    box: (x, y, width, height), pixels. score: the detector's, 1 for a box that a user gave. root_depth: distance of
    the root joint along z, metres, None if not known. prepared: the box has the crop's shape and margin already and
    is used as it is (the boxes of RootNet files are). mirrored: the network is to see the mirror image, as one that
    knows right hands must of a left one. rotation: by which a prepared box is turned about its centre, radians
    clockwise; in the mirror image, if mirrored.
    """

    box: tuple[float, float, float, float]
    score: float = 1.0
    root_depth: float | None = None
    prepared: bool = False
    mirrored: bool = False
    rotation: float = 0.0


class BoxFile:
    """The boxes of a JSON file, by picture.

    Three forms: a list of boxes for the only picture of a run; an object {file name: list of boxes}; and the list
    that RootNet writes, one object per person with `bbox`, `root_cam` (millimetres, or metres as for 3DPW),
    optionally `score`, and `file_name` or `image_id` (which is compared with the digits of the file's name).
    """

    def __init__(self, path: Path, max_people: int | None = None) -> None:
        """Reads the file. max_people: maximum people per image. Raises FileError for a file of another form."""
        self.path, self._max_people = path, max_people
        self._only: list[PersonBox] | None = None
        self._by_name: dict[str, list[PersonBox]] = {}
        self._by_id: dict[str, list[PersonBox]] = {}
        with reading(path, "a file of boxes", f"expected {_FORMATS}"):
            content = read_json(path, MOST_BYTES)
            if isinstance(content, dict):
                self._by_name = {name: _boxes(boxes) for name, boxes in content.items()}
            elif content and isinstance(content, list) and isinstance(content[0], dict):
                for entry in content:
                    self._add_rootnet(entry)
            else:
                self._only = _boxes(content)

    @property
    def for_one_picture(self) -> bool:
        """Whether the file is a plain list, which names no picture."""
        return self._only is not None

    def of(self, picture: Path, relative: Path | None = None) -> list[PersonBox] | None:
        """The boxes of a picture; None if the file does not name it. Raises InputError for too many.

        Names are tried from the longest: the path as given, its path below the input folder, the file's name, the
        name without its ending; then the image id.
        """
        found = self._found(picture, relative)
        if found is not None and self._max_people is not None and len(found) > self._max_people:
            raise InputError(f"{self.path} has {len(found)} boxes for {picture}, more than allowed", "max_people")
        return found

    def _found(self, picture: Path, relative: Path | None) -> list[PersonBox] | None:
        if self._only is not None:
            return self._only
        names = [str(picture), picture.as_posix(), (relative or picture).as_posix(), picture.name, picture.stem]
        for name in names:
            if name in self._by_name:
                return self._by_name[name]
        digits = picture.stem.rsplit("_", 1)[-1]
        identity = str(int(digits)) if digits.isascii() and digits.isdigit() else picture.stem
        return self._by_id.get(identity)

    def _add_rootnet(self, entry: Any) -> None:
        depth = None
        if "root_cam" in entry:
            (depth,) = _numbers(entry["root_cam"], 3, "root_cam")[2:]
            depth = depth / 1000 if depth >= MILLIMETRES_FROM else depth
            if depth <= 0:
                raise ValueError(f"the depth {depth:g} of a root_cam is not in front of the camera")
        score = entry.get("score", 1.0)
        score = float(score) if isinstance(score, int | float) and abs(score) < LARGEST else 1.0
        person = PersonBox(_box(entry["bbox"]).box, score, depth, prepared=True)
        for key, known in (("file_name", self._by_name), ("image_id", self._by_id)):
            if isinstance(entry.get(key), int | str):
                known.setdefault(str(entry[key]), []).append(person)
                return
        raise ValueError("an entry has neither 'file_name' nor 'image_id'")


def _boxes(value: Any) -> list[PersonBox]:
    if not isinstance(value, list):
        raise ValueError(f"a list of boxes is missing; there is a {type(value).__name__}")
    return [_box(box) for box in value]


def _box(value: Any) -> PersonBox:
    x, y, width, height = _numbers(value, 4, "a box (x, y, width, height)")
    if width <= 0 or height <= 0:
        raise ValueError(f"box {value} has no area; boxes are x, y, width, height")
    return PersonBox((x, y, width, height))


def _numbers(value: Any, count: int, what: str) -> list[float]:
    right = isinstance(value, list) and len(value) == count
    if not right or not all(type(number) in (int, float) and abs(number) < LARGEST for number in value):
        raise ValueError(f"{what} is {count} numbers less than {LARGEST:g}")
    return [float(number) for number in value]


def as_box(box: Sequence[float] | PersonBox) -> PersonBox:
    """A box given as (x, y, width, height), pixels. Raises InputError for another number of values."""
    if isinstance(box, PersonBox):
        return box
    values = [float(value) for value in box]
    if len(values) != 4:
        raise InputError(f"a box is x, y, width, height; got {len(values)} numbers")
    return PersonBox((values[0], values[1], values[2], values[3]))


def require_inside(person: PersonBox, width: int, height: int, picture: str) -> None:
    """Raises InputError if a box does not touch a picture of the given size."""
    x, y, w, h = person.box
    if not (w > 0 and h > 0 and x < width - 1 and y < height - 1 and x + w > 1 and y + h > 1):
        shown = ", ".join(f"{value:g}" for value in person.box)
        raise InputError(
            f"box ({shown}) is outside {picture} ({width}x{height}); boxes are x, y, width, height in pixels"
        )
