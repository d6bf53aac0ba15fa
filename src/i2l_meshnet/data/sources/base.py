"""The adapter of a dataset, and what adapters share: files in MS-COCO's structure, fits, RootNet's boxes."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from i2l_meshnet.data.annotation import AnnotationTable, Fit, PersonRow, TableBuilder
from i2l_meshnet.data.cache import read_json
from i2l_meshnet.errors import InputError
from i2l_meshnet.io import reading


@dataclasses.dataclass(frozen=True)
class Needed:
    """A file or folder that a dataset needs.

    path: in the dataset's folder. origin: where to get it, with an address. docs/migration.md lists all addresses.
    """

    path: str
    origin: str
    parsed: bool = True
    """Whether annotations are read from it, so that the cache depends on it. False for folders of images."""
    instead: str = ""
    """Another path, which is read if `path` does not exist."""

    def existing(self, folder: Path) -> str | None:
        """The path that exists in the dataset's folder; None if it is missing."""
        return next((path for path in (self.path, self.instead) if path and (folder / path).exists()), None)


@dataclasses.dataclass(frozen=True)
class Adapter:
    """How to read one dataset.

    name: its name and the name of its folder in the data root. needs: (split, true_boxes) -> files and folders. read:
    (folder, split, true_boxes) -> table. true_boxes: use ground-truth boxes and depths in the test split instead of
    RootNet's (`use_gt_info`). three_d: whether it counts as 3D in mixtures. joint_regressor: path, in the data root, of
    the matrix that computes the dataset's joints from an SMPL mesh.
    """

    name: str
    splits: tuple[str, ...]
    needs: Callable[[str, bool], list[Needed]]
    read: Callable[[Path, str, bool], AnnotationTable]
    three_d: bool = True
    joint_regressor: str | None = None

    def require_split(self, split: str) -> None:
        """Raise InputError for an unknown split."""
        if split not in self.splits:
            raise InputError(f"{self.name} has the splits {', '.join(self.splits)}, not {split!r}")


@dataclasses.dataclass(frozen=True)
class Source:
    """An open split of a dataset: its annotations and the folder of its images."""

    name: str
    split: str
    folder: Path
    table: AnnotationTable
    three_d: bool

    def __len__(self) -> int:
        return len(self.table)

    def image_path(self, index: int) -> Path:
        """The image of annotation `index`."""
        return self.folder / self.table.image_path(index)


SMPL_BODIES = {"neutral": "smpl", "male": "smpl-male", "female": "smpl-female"}
"""Bodies by the gender in the annotations."""
PUBLISHED_CODE = "https://github.com/mks0601/I2L-MeshNet_RELEASE"
"""The published code, whose folder data/ has the joint regressors."""


def from_rootnet(address: str) -> str:
    """Where to get the boxes and depths of a test split."""
    return f"{address} (RootNet's boxes and depths)"


def smpl_fit(fitted: dict[str, Any], body: str = "smpl") -> Fit:
    """The fit of an annotation's `smpl_param` or `mano_param`, in the camera frame."""
    return Fit(fitted["pose"], fitted["shape"], fitted["trans"], body)


ReadPerson = Callable[[dict[str, Any], dict[str, Any]], PersonRow | str | None]
"""(annotation, image) -> the person, the reason to leave it out, or None for one that the protocol does not use."""


class CocoFile:
    """An annotation file in MS-COCO's structure: `images`, `annotations`, perhaps `categories`."""

    def __init__(self, path: Path) -> None:
        """Read the file. Raises FileError if it does not have this structure."""
        self.path = path
        content = read_json(path)
        with reading(path, "in MS-COCO's structure, with lists `images` (each with an `id`) and `annotations`"):
            self.annotations: list[dict[str, Any]] = content["annotations"]
            self.categories: list[dict[str, Any]] = content.get("categories", [])
            self.images: dict[int, dict[str, Any]] = {image["id"]: image for image in content["images"]}
            if not isinstance(self.annotations, list):
                raise ValueError("its annotations are not a list")

    def people(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Each annotation with its image. Raises FileError for an annotation whose image is not in the file."""
        for annotation in self.annotations:
            with self._reading(annotation):
                image = self.images.get(annotation["image_id"])
                if image is None:
                    raise ValueError("its image is not in the file")
            yield annotation, image

    def add_people(self, rows: TableBuilder, read: ReadPerson) -> None:
        """Add all people to `rows`. Raises FileError that names the annotation if `read` fails."""
        for annotation, image in self.people():
            with self._reading(annotation):
                person = read(annotation, image)
                if isinstance(person, str):
                    rows.leave_out(person)
                elif person is not None:
                    rows.add(person)

    def _reading(self, annotation: dict[str, Any]) -> AbstractContextManager[None]:
        return reading(f"{self.path}: annotation {annotation.get('id')}", "a valid annotation")

    def facts(self, annotation: dict[str, Any], image: dict[str, Any]) -> dict[str, Any]:
        """The fields of `PersonRow` that most files have: id, image size, box and, if known, camera."""
        camera = image.get("cam_param", {})
        return {
            "where": str(self.path),
            "id": annotation["id"],
            "size": (image["width"], image["height"]),
            "box": annotation["bbox"],
            **({"focal": camera["focal"], "center": camera["princpt"]} if camera else {}),
        }


class RootNet:
    """RootNet's boxes and root depths, used to score test splits. Without a file, those of the annotations are used."""

    def __init__(self, path: Path | None, key: str, per_metre: float = 1.0) -> None:
        """key: the key of an entry's image or annotation number. per_metre: units of the depths per metre."""
        self._entries = None if path is None else {entry[key]: entry for entry in read_json(path)}
        self._per_metre = per_metre

    def facts(self, number: int) -> dict[str, Any] | None:
        """The fields of `PersonRow` from RootNet; None for a person whom RootNet did not find."""
        if self._entries is None:
            return {}
        entry = self._entries.get(number)
        if entry is None:
            return None
        return {"box": entry["bbox"], "prepared": True, "root_depth": entry["root_cam"][2] / self._per_metre}


NO_BOX = "without RootNet box"
"""The reason for leaving out a person whom RootNet did not find."""
