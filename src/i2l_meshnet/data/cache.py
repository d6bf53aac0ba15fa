"""Cache of annotation tables. JSON is parsed once; then the arrays are memory-mapped from a cache file.

The cache is beside the data, or in the user's cache folder if the data are read-only. It is replaced when the size or
time of a source file changes. All loader workers share the mapped arrays, so even a million annotations need almost no
memory per worker.
"""

import gc
import hashlib
import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from safetensors.numpy import save as encode

from i2l_meshnet.assets import cache_folder
from i2l_meshnet.data.annotation import AnnotationTable
from i2l_meshnet.errors import FileError
from i2l_meshnet.io import MAX_JSON_BYTES, open_regular, parse_json, read_bytes, reading, write_safetensors

FOLDER = ".i2l-meshnet"
VERSION = 2
MISSING = "`i2l-meshnet data check` says where to get it"


def read_json(path: Path) -> Any:
    """Read a large JSON file. Raises FileError if it is missing, truncated or not JSON.

    NaN is accepted, so that the later check of the values can name the annotation.
    """
    with reading(path, "a whole JSON file", "download or make it again", missing=MISSING):
        data = read_bytes(path, MAX_JSON_BYTES)
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError:
            if b"NaN" in data or b"Infinity" in data:
                return parse_json(data)
            raise


def load_table(name: str, folder: Path, files: Sequence[Path], parse: Callable[[], AnnotationTable]) -> AnnotationTable:
    """The table `name` of the dataset in `folder`, memory-mapped from its cache.

    parse: makes the table from `files` if there is no cache or a file has changed. name: must differ for everything
    that changes the table (dataset, split, options).
    """
    stamp = _stamp(name, files)
    for path in _cache_files(name, folder):
        table = _open(path, stamp)
        if table is not None:
            return table
    # Parsing makes millions of objects that stay in use. Collecting garbage would take half of the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        table = parse()
    finally:
        if collecting:
            gc.enable()
    for path in _cache_files(name, folder):
        try:
            write_safetensors(path, encode(table.arrays, metadata={"stamp": stamp, "table": table.describe()}))
        except FileError:
            continue
        return _open(path, stamp) or table
    return table


def _stamp(name: str, files: Sequence[Path]) -> str:
    """Names, sizes and times of the source files, as text."""
    facts = []
    for path in files:
        with reading(path, "a file of annotations", missing=MISSING):
            status = path.stat()
        facts.append([str(path.resolve()), status.st_size, status.st_mtime_ns])
    return json.dumps([VERSION, name, facts])


def _cache_files(name: str, folder: Path) -> list[Path]:
    """Possible cache files: beside the data, then in the user's cache folder."""
    digest = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]
    user = cache_folder() / "annotations" / f"{name}-{digest}.safetensors"
    return [folder / FOLDER / f"{name}.safetensors", user]


_NUMPY_TYPES = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "?"}


def _open(path: Path, stamp: str) -> AnnotationTable | None:
    """Map a cache file. Returns None if it is missing, damaged or has another stamp.

    The header is read here because safetensors' NumPy reader copies every array into memory.
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
    except Exception:  # A damaged file can cause any exception. It is written again.
        return None
