"""Annotation files are parsed once; afterwards their flat arrays are memory-mapped from a cache file.

The cache lies beside the data (or in the user's cache folder where that is read-only), is written atomically and
is thrown away when a source file's size or time changes. Mapped arrays are shared by all loader workers: the
annotations of a million people cost each worker next to nothing.
"""

import gc
import hashlib
import json
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from safetensors.numpy import save as encode

from i2l_meshnet.data.annotation import AnnotationTable
from i2l_meshnet.errors import FileError
from i2l_meshnet.io import MOST_JSON_BYTES, open_regular, parse_json, read_bytes, reading, write_safetensors

FOLDER = ".i2l-meshnet"
VERSION = 2
MISSING = "`i2l-meshnet data check` says where to get it"


def read_json(path: Path) -> Any:
    """Reads a large JSON file. Raises FileError if it is missing, cut short or not JSON.

    NaN is allowed, as Python writes it, so that the check of the values can name the annotation.
    """
    with reading(path, "a whole JSON file", "download or make it again", missing=MISSING):
        data = read_bytes(path, MOST_JSON_BYTES)
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError:
            if b"NaN" in data or b"Infinity" in data:
                return parse_json(data)
            raise


def load_table(name: str, folder: Path, files: Sequence[Path], parse: Callable[[], AnnotationTable]) -> AnnotationTable:
    """The table called `name` of the data set in `folder`, memory-mapped from its cache.

    `parse` makes it from `files` if there is no cache or it is older than they are. `name` must tell apart
    everything that changes the result (data set, split, options).
    """
    stamp = _stamp(name, files)
    for path in _places(name, folder):
        table = _open(path, stamp)
        if table is not None:
            return table
    # Parsing makes millions of small objects that all live on; looking for garbage among them takes half the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        table = parse()
    finally:
        if collecting:
            gc.enable()
    for path in _places(name, folder):
        try:
            write_safetensors(path, encode(table.arrays, metadata={"stamp": stamp, "table": table.describe()}))
        except FileError:
            continue
        return _open(path, stamp) or table
    return table


def _stamp(name: str, files: Sequence[Path]) -> str:
    """What the cache was made from, as text to compare."""
    facts = []
    for path in files:
        with reading(path, "a file of annotations", missing=MISSING):
            status = path.stat()
        facts.append([str(path.resolve()), status.st_size, status.st_mtime_ns])
    return json.dumps([VERSION, name, facts])


def _places(name: str, folder: Path) -> list[Path]:
    """Where the cache may lie: beside the data, else in the user's cache folder."""
    user = Path(os.environ.get("I2L_MESHNET_CACHE") or Path.home() / ".cache" / "i2l-meshnet")
    digest = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]
    return [folder / FOLDER / f"{name}.safetensors", user / "annotations" / f"{name}-{digest}.safetensors"]


_NUMPY_TYPES = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "?"}


def _open(path: Path, stamp: str) -> AnnotationTable | None:
    """Maps a cache file; None if it is missing, damaged or not of `stamp`.

    safetensors' own NumPy reader copies every array into memory, so the file's header is read here.
    """
    try:
        with open_regular(path) as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = orjson.loads(file.read(length))
        facts = header.pop("__metadata__")
        if facts["stamp"] != stamp:
            return None
        data = np.memmap(path, np.uint8, "r", offset=8 + length)
        arrays = {}
        for name, entry in header.items():
            start, end = entry["data_offsets"]
            arrays[name] = data[start:end].view(_NUMPY_TYPES[entry["dtype"]]).reshape(entry["shape"])
        table = AnnotationTable.restore(arrays, facts["table"])
        return table if table.is_whole() else None
    except Exception:  # a damaged file may end in any of them, and is made anew
        return None
