"""Conversions that can be broken off and go on: one part file per sequence or clip, joined at the end."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from i2l_meshnet.data.cache import read_json
from i2l_meshnet.errors import FileError
from i2l_meshnet.folders import remove, work_folder
from i2l_meshnet.io import write_bytes

Content = dict[str, list[dict[str, Any]]]
"""`images` and `annotations` in MS-COCO's structure."""


@dataclasses.dataclass(frozen=True)
class Part:
    """A piece of work. name: unique, may contain slashes. source: the file it depends on. make: does it.

    Image ids count from 0 within a part.
    """

    name: str
    source: Path
    make: Callable[[], Content]


def convert_parts(parts: Sequence[Part], target: Path, title: str, console: Console) -> int:
    """Makes every part that is not there yet and joins all into `target`, ids counted through; returns how many people.

    Parts lie beside `target` until it is written, so a run that was broken off goes on where it was. Raises FileError
    while another process makes `target`.
    """
    folder = target.with_name(f".{target.stem}-parts")
    with work_folder(folder):
        joined = _joined(parts, folder, title, console)
        write_bytes(target, orjson.dumps(joined))
        remove(folder)
    return len(joined["annotations"])


def _joined(parts: Sequence[Part], folder: Path, title: str, console: Console) -> Content:
    """The content of all parts, those that are missing in `folder` made first."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=len(parts))
        for part in parts:
            path = folder / f"{part.name.replace('/', '+')}.json"
            stamp = _stamp(part.source)
            if not _is_done(path, stamp):
                content = part.make()
                write_bytes(path, orjson.dumps({"stamp": stamp, **content}, option=orjson.OPT_SERIALIZE_NUMPY))
            progress.advance(task)
    joined: Content = {"images": [], "annotations": []}
    for part in parts:
        content = read_json(folder / f"{part.name.replace('/', '+')}.json")
        first = len(joined["images"])
        joined["images"] += [{**image, "id": first + image["id"]} for image in content["images"]]
        for annotation in content["annotations"]:
            number = {"id": len(joined["annotations"]), "image_id": first + annotation["image_id"]}
            joined["annotations"].append({**annotation, **number})
    return joined


def _stamp(source: Path) -> str:
    try:
        status = source.stat()
    except OSError as error:
        raise FileError(f"cannot read {source}: {error.strerror}; what is converted already is kept") from error
    return json.dumps([str(source), status.st_size, status.st_mtime_ns])


def _is_done(path: Path, stamp: str) -> bool:
    try:
        return path.is_file() and read_json(path).get("stamp") == stamp
    except FileError:
        return False
