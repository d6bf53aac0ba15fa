"""Conversions that resume after an interruption: one file per sequence or clip, joined at the end."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson

from i2l_meshnet.console import output, track
from i2l_meshnet.data.cache import read_json
from i2l_meshnet.errors import FileError
from i2l_meshnet.folders import remove, work_folder
from i2l_meshnet.io import reading, write_bytes

Content = dict[str, list[dict[str, Any]]]
"""`images` and `annotations` in MS-COCO's structure."""


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of a conversion. name: unique, can contain slashes. source: the file it depends on. make: converts it.

    Image ids start at 0 in each part.
    """

    name: str
    source: Path
    make: Callable[[], Content]


def convert_parts(parts: Sequence[Part], target: Path, title: str) -> int:
    """Make every missing part and join all in `target` with consecutive ids. Returns the number of people.

    Parts are kept beside `target` until it is written, so an interrupted run resumes. Raises FileError if another
    process makes `target`.
    """
    folder = target.with_name(f".{target.stem}-parts")
    with work_folder(folder):
        paths = [folder / f"{part.name.replace('/', '+')}.json" for part in parts]
        for part, path in track(zip(parts, paths, strict=True), title, len(parts)):
            stamp = _stamp(part.source)
            if not _is_done(path, stamp):
                content = part.make()
                write_bytes(path, orjson.dumps({"stamp": stamp, **content}, option=orjson.OPT_SERIALIZE_NUMPY))
        joined = _joined(paths)
        write_bytes(target, orjson.dumps(joined))
        remove(folder)
    output(f"{target}: {len(joined['annotations'])} people in {len(parts)} parts")
    return len(joined["annotations"])


def _joined(paths: Sequence[Path]) -> Content:
    joined: Content = {"images": [], "annotations": []}
    for path in paths:
        content = read_json(path)
        first = len(joined["images"])
        joined["images"] += [{**image, "id": first + image["id"]} for image in content["images"]]
        for annotation in content["annotations"]:
            number = {"id": len(joined["annotations"]), "image_id": first + annotation["image_id"]}
            joined["annotations"].append({**annotation, **number})
    return joined


def _stamp(source: Path) -> str:
    with reading(source, "a part of the release", missing="unpack the release again; converted parts are kept"):
        status = source.stat()
    return json.dumps([str(source), status.st_size, status.st_mtime_ns])


def _is_done(path: Path, stamp: str) -> bool:
    try:
        return path.is_file() and read_json(path).get("stamp") == stamp
    except FileError:
        return False
