"""Datasets in the layout of the published code, and custom ones in COCO's. `open_source` reads files into a `Source`.

To add a dataset, write a module like `surreal` with an `ADAPTER` and name it in `ADAPTERS`. To score networks on it,
add its protocol to `evaluation.protocols`.
"""

from pathlib import Path

from i2l_meshnet.data.annotation import AnnotationTable
from i2l_meshnet.data.cache import load_table
from i2l_meshnet.data.sources import coco, custom, freihand, human36m, muco, pw3d, surreal
from i2l_meshnet.data.sources.base import Adapter, Needed, Source
from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.io import reading

__all__ = ["ADAPTERS", "Adapter", "Needed", "Source", "find_adapter", "open_source"]

ADAPTERS = {module.ADAPTER.name: module.ADAPTER for module in (human36m, muco, coco, pw3d, freihand, surreal, custom)}


def find_adapter(name: str) -> Adapter:
    """The adapter of a dataset. Raises InputError for an unknown name."""
    if name not in ADAPTERS:
        raise InputError(f"there is no dataset {name!r}; choose one of {', '.join(ADAPTERS)}")
    return ADAPTERS[name]


def open_source(name: str, root: Path, split: str, true_boxes: bool = False) -> Source:
    """Open a split of a dataset in the data root.

    Raises InputError for an unknown name or split, FileError for a missing or damaged file.
    """
    adapter = find_adapter(name)
    adapter.require_split(split)
    folder = root / name
    if not folder.is_dir():
        raise FileError(f"{folder} is missing: the root must be the folder that contains {name}/")
    parsed = [needed for needed in adapter.needs(split, true_boxes) if needed.parsed]
    for needed in parsed:
        if not (folder / needed.path).is_file():
            raise FileError(f"{folder / needed.path} is missing: get it from {needed.origin}")

    def parse() -> AnnotationTable:
        with reading(folder, f"a whole {name} with its split {split}", fix="download or make its annotations again"):
            return adapter.read(folder, split, true_boxes)

    files = [folder / needed.path for needed in parsed]
    table = load_table(f"{name}-{split}{'-true-boxes' if true_boxes else ''}", folder, files, parse)
    return Source(name, split, folder, table, adapter.three_d)
