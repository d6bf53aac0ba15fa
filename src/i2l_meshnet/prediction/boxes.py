"""Boxes from the user, which replace the detector's boxes."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from i2l_meshnet.errors import InputError
from i2l_meshnet.io import read_json, reading

MAX_BYTES = 200_000_000
"""Maximum size of a box file."""
MAX_VALUE = 1e9
"""Pixels and metres must be smaller."""
MILLIMETRES_FROM = 100.0
"""A root depth from this value on is in millimetres. RootNet files have millimetres, its files for 3DPW have metres."""

_FORMATS = '[[x, y, width, height], …], {"photo.jpg": [[x, y, width, height], …]} or RootNet\'s list of results'


@dataclasses.dataclass(frozen=True)
class PersonBox:
    """The box of a person or hand in an image.

    box: (x, y, width, height), pixels. score: of the detector; 1 for a box from the user. root_depth: distance of the
    root joint along z, metres; None if unknown. prepared: the box already has the crop's aspect and margin, as in
    RootNet files. mirrored: the network gets the mirror image, because it knows right hands only. rotation: of a
    prepared box about its centre, radians clockwise; in the mirror image if mirrored.
    """

    box: tuple[float, float, float, float]
    score: float = 1.0
    root_depth: float | None = None
    prepared: bool = False
    mirrored: bool = False
    rotation: float = 0.0

    def __str__(self) -> str:
        return f"box ({', '.join(f'{value:g}' for value in self.box)})"


class BoxFile:
    """The boxes of a JSON file, by image.

    The file has one of three forms. A list of boxes is for a single image. An object maps file names to lists of
    boxes. RootNet's list has an object per person with `bbox`, `root_cam` (millimetres or metres), `file_name` or
    `image_id` (the digits at the end of the file's name), and optionally `score`.
    """

    def __init__(self, path: Path, max_people: int | None = None) -> None:
        """max_people: maximum people per image. Raises FileError for a file of another form."""
        self.path, self._max_people = path, max_people
        self._only: list[PersonBox] | None = None
        self._by_name: dict[str, list[PersonBox]] = {}
        self._by_id: dict[str, list[PersonBox]] = {}
        with reading(path, "a box file", f"expected {_FORMATS}"):
            content = read_json(path, MAX_BYTES)
            if isinstance(content, dict):
                self._by_name = {name: _boxes(boxes) for name, boxes in content.items()}
            elif content and isinstance(content, list) and isinstance(content[0], dict):
                for entry in content:
                    self._add_rootnet(entry)
            else:
                self._only = _boxes(content)

    @property
    def for_one_picture(self) -> bool:
        """Whether the file is a list without image names."""
        return self._only is not None

    def of(self, picture: Path, relative: Path | None = None) -> list[PersonBox] | None:
        """The boxes of an image; None if the file does not name it. Raises InputError for more than `max_people`.

        relative: path below the input folder. These names are tried in order: the path, the relative path, the file
        name, the name without its suffix, the image id.
        """
        found = self._found(picture, relative)
        if found is not None and self._max_people is not None and len(found) > self._max_people:
            raise InputError(f"{self.path} has {len(found)} boxes for {picture}", argument="max_people")
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
                raise ValueError(f"the depth {depth:g} in a root_cam is not in front of the camera")
        score = entry.get("score", 1.0)
        score = float(score) if isinstance(score, int | float) and abs(score) < MAX_VALUE else 1.0
        person = PersonBox(_box(entry["bbox"]).box, score, depth, prepared=True)
        for key, known in (("file_name", self._by_name), ("image_id", self._by_id)):
            if isinstance(entry.get(key), int | str):
                known.setdefault(str(entry[key]), []).append(person)
                return
        raise ValueError("an entry has neither 'file_name' nor 'image_id'")


def _boxes(value: Any) -> list[PersonBox]:
    if not isinstance(value, list):
        raise ValueError(f"expected a list of boxes, not {type(value).__name__}")
    return [_box(box) for box in value]


def _box(value: Any) -> PersonBox:
    person = as_box(_numbers(value, 4, "a box (x, y, width, height)"))
    if min(person.box[2:]) <= 0:
        raise ValueError(f"{person} has no area; boxes are x, y, width, height")
    return person


def _numbers(value: Any, count: int, what: str) -> list[float]:
    complete = isinstance(value, list) and len(value) == count
    if not complete or not all(type(number) in (int, float) and abs(number) < MAX_VALUE for number in value):
        raise ValueError(f"{what} is {count} numbers less than {MAX_VALUE:g}")
    return [float(number) for number in value]


def as_box(box: Sequence[float] | PersonBox) -> PersonBox:
    """A box from (x, y, width, height), pixels. Raises InputError for another number of values."""
    if isinstance(box, PersonBox):
        return box
    if len(box) != 4:
        raise InputError(f"a box is x, y, width, height; got {len(box)} numbers")
    x, y, width, height = (float(value) for value in box)
    return PersonBox((x, y, width, height))


def require_inside(person: PersonBox, width: int, height: int, picture: str) -> None:
    """Raise InputError if a box does not overlap an image of the given size. picture: its name."""
    x, y, w, h = person.box
    if not (w > 0 and h > 0 and x < width - 1 and y < height - 1 and x + w > 1 and y + h > 1):
        raise InputError(f"{person} is outside {picture} ({width}x{height}); boxes are x, y, width, height in pixels")
