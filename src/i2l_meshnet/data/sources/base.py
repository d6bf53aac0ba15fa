"""What an adapter is, and what adapters share: files in MS-COCO's structure, fits, RootNet's boxes."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from i2l_meshnet.data.annotation import AnnotationTable, Fit
from i2l_meshnet.data.cache import read_json
from i2l_meshnet.errors import FileError
from i2l_meshnet.io import reading


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

    name: its name, and that of its folder below the data root. splits: the names it knows. needs: (split, true_boxes)
    -> files and folders. read: (folder, split, true_boxes) -> table. three_d: whether it counts as 3D in the mixing of
    2D and 3D. true_boxes asks for ground-truth boxes and depths in the test split instead of RootNet's (`use_gt_info`).
    joint_regressor: path, below the data root, of the matrix that reads the data set's joints off an SMPL mesh.
    """

    name: str
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


SMPL_BODIES = {"neutral": "smpl", "male": "smpl-male", "female": "smpl-female"}
"""Bodies by the gender that annotations name."""
ROOTNET = "RootNet's outputs, linked from the published README"
"""Where to get boxes and depths of test splits."""


def smpl_fit(fitted: dict[str, Any], body: str = "smpl") -> Fit:
    """The fit of an annotation's `smpl_param` or `mano_param`, in the camera frame."""
    return Fit(fitted["pose"], fitted["shape"], fitted["trans"], body)


class CocoFile:
    """An annotation file in MS-COCO's structure: `images`, `annotations`, perhaps `categories`."""

    def __init__(self, path: Path) -> None:
        """Reads the file. Raises FileError for one that has not this structure."""
        self.path = path
        content = read_json(path)
        with reading(path, "in MS-COCO's structure, with lists `images` (each with an `id`) and `annotations`"):
            self.annotations: list[dict[str, Any]] = content["annotations"]
            self.categories: list[dict[str, Any]] = content.get("categories", [])
            self.images: dict[int, dict[str, Any]] = {image["id"]: image for image in content["images"]}
            if not isinstance(self.annotations, list):
                raise ValueError("its annotations are not a list")

    def people(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Each annotation with its image. Raises FileError for an annotation whose image the file does not list."""
        for annotation in self.annotations:
            try:
                image = self.images[annotation["image_id"]]
            except (KeyError, TypeError) as error:
                raise FileError(
                    f"{self.path}: annotation {annotation.get('id')} belongs to no image of the file"
                ) from error
            yield annotation, image

    def facts(self, annotation: dict[str, Any], image: dict[str, Any]) -> dict[str, Any]:
        """What `TableBuilder.add` takes of most files: id, image size, box and, if it is known, camera."""
        facts: dict[str, Any] = {
            "where": str(self.path),
            "id": annotation["id"],
            "size": (image["width"], image["height"]),
        }
        camera = image.get("cam_param", {})
        if camera:
            facts |= {"focal": camera["focal"], "center": camera["princpt"]}
        return {**facts, "box": annotation["bbox"]}


class RootNet:
    """RootNet's boxes and root depths, which test splits are scored with; no file where the annotations' own count."""

    def __init__(self, path: Path | None, key: str, per_metre: float = 1.0) -> None:
        """key: the entries' key that tells whose they are. per_metre: units of their depths in a metre."""
        self._entries = {} if path is None else {entry[key]: entry for entry in read_json(path)}
        self._unused, self._per_metre = path is None, per_metre

    def facts(self, number: int) -> dict[str, Any] | None:
        """What `TableBuilder.add` takes of it; None for somebody whom RootNet did not find."""
        if self._unused:
            return {}
        entry = self._entries.get(number)
        if entry is None:
            return None
        return {"box": entry["bbox"], "prepared": True, "root_depth": entry["root_cam"][2] / self._per_metre}
