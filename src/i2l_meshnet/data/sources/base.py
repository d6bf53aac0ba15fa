"""The one path that all data sets take: an adapter names its files and reads rows; the rest is shared."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from i2l_meshnet.data.annotation import AnnotationTable
from i2l_meshnet.data.cache import load_table
from i2l_meshnet.errors import FileError, InputError


@dataclasses.dataclass(frozen=True)
class Needed:
    """A file or folder that a data set needs. path: below the data set's folder. origin: where to get it."""

    path: str
    origin: str
    parsed: bool = True
    """Whether annotations are read from it (and the cache depends on it), as against a folder of pictures."""


@dataclasses.dataclass(frozen=True)
class Adapter:
    """How one data set is read.

    folder: its folder below the data root. splits: the names it knows. needs: (split, true_boxes) -> files and
    folders. read: (folder, split, true_boxes) -> table. three_d: whether it counts as 3D in the mixing of 2D and 3D.
    true_boxes asks for ground-truth boxes and depths in the test split instead of RootNet's (`use_gt_info`).
    joint_regressor: path, below the data root, of the matrix that reads the data set's joints off an SMPL mesh.
    """

    folder: str
    splits: tuple[str, ...]
    needs: Callable[[str, bool], list[Needed]]
    read: Callable[[Path, str, bool], AnnotationTable]
    three_d: bool = True
    joint_regressor: str | None = None


@dataclasses.dataclass(frozen=True)
class Source:
    """One split of a data set, opened: its annotations and where its pictures are."""

    name: str
    split: str
    folder: Path
    table: AnnotationTable
    three_d: bool

    def __len__(self) -> int:
        return len(self.table)

    def image_path(self, index: int) -> Path:
        """The picture of annotation `index`."""
        return self.folder / self.table.image_path(index)


def open_source(adapter: Adapter, name: str, root: Path, split: str, true_boxes: bool = False) -> Source:
    """Opens a split of the data set that `adapter` reads, below the data root.

    Raises InputError for an unknown split, FileError for a missing or damaged file.
    """
    if split not in adapter.splits:
        raise InputError(f"{name} has the splits {', '.join(adapter.splits)}, not {split!r}")
    folder = root / adapter.folder
    if not folder.is_dir():
        raise FileError(f"{folder} is missing: the root must be the folder that holds {adapter.folder}/")
    parsed = [needed for needed in adapter.needs(split, true_boxes) if needed.parsed]
    for needed in parsed:
        if not (folder / needed.path).is_file():
            raise FileError(f"{folder / needed.path} is missing: get it from {needed.origin}")

    def parse() -> AnnotationTable:
        try:
            return adapter.read(folder, split, true_boxes)
        except KeyError as error:
            raise FileError(f"{folder}: the annotations of split {split} lack the key {error}") from error
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
            reason = str(error).split("\n")[0][:200]
            raise FileError(f"{folder}: the annotations of split {split} are malformed ({reason})") from error

    files = [folder / needed.path for needed in parsed]
    table = load_table(f"{name}-{split}{'-true-boxes' if true_boxes else ''}", folder, files, parse)
    return Source(name, split, folder, table, adapter.three_d)


class CocoFile:
    """An annotation file in MS-COCO's structure: `images`, `annotations`, perhaps `categories`."""

    def __init__(self, content: Any, path: Path) -> None:
        if not isinstance(content, dict) or not all(
            isinstance(content.get(k), list) for k in ("images", "annotations")
        ):
            raise FileError(f"{path} is not in MS-COCO's structure: it needs the lists `images` and `annotations`")
        self.path = path
        self.annotations: list[dict[str, Any]] = content["annotations"]
        self.categories: list[dict[str, Any]] = content.get("categories", [])
        try:
            self.images: dict[int, dict[str, Any]] = {image["id"]: image for image in content["images"]}
        except (KeyError, TypeError) as error:
            raise FileError(f"{path}: every image needs an `id`") from error

    def image_of(self, annotation: dict[str, Any]) -> dict[str, Any]:
        """The image that an annotation belongs to; FileError if the file does not list it."""
        try:
            return self.images[annotation["image_id"]]
        except (KeyError, TypeError) as error:
            raise FileError(
                f"{self.path}: annotation {annotation.get('id')} belongs to no image of the file"
            ) from error
