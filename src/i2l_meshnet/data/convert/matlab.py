"""Arrays of numbers from MATLAB's files of level 5, read within bounds.

After MathWorks' description of the format. Not by SciPy's reader, which looks up types that a broken file names beyond
the end of its own table, and ends the process.
"""

import math
import struct
import zlib
from collections.abc import Collection

import numpy as np

HEADER, LITTLE_ENDIAN = 128, b"\x00\x01IM"
"""Length of a file's beginning, and how it ends: of version 1.0, written on a little-endian machine."""
NUMBERS = {1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}
"""Kinds of elements that hold numbers."""
MATRIX, COMPRESSED = 14, 15
"""Kinds of elements that hold an array of any kind, and another element packed by zlib."""
NUMERIC_CLASSES = range(6, 16)
COMPLEX = 0x08
MOST_UNFOLDED = 32_000_000
"""Bytes that all packed arrays of a file may have together."""


def read_matrices(data: bytes, names: Collection[str]) -> dict[str, np.ndarray]:
    """The arrays of these names among a file's, as float64. Raises ValueError for a file that cannot be read so.

    Other arrays are passed over, whatever they are. Not in `names`' order; those that are not there are left out.
    """
    if data[HEADER - len(LITTLE_ENDIAN) : HEADER] != LITTLE_ENDIAN:
        raise ValueError("it is no little-endian MATLAB file of level 5")
    found: dict[str, np.ndarray] = {}
    place, left = HEADER, MOST_UNFOLDED
    while place < len(data):
        kind, content, place = _element(data, place)
        if kind == COMPRESSED:
            unfolded = _unfolded(content, left)
            left -= len(unfolded)
            kind, content, _ = _element(unfolded, 0)
        if kind != MATRIX:
            raise ValueError("it holds what is no array")
        found |= _matrix(content, names)
    return found


def _element(data: bytes, place: int) -> tuple[int, bytes, int]:
    """Kind and content of the element at a place, and the place behind it."""
    if len(data) - place < 8:
        raise ValueError("it is cut off")
    kind, size = struct.unpack_from("<II", data, place)
    start = place + 8
    if kind >> 16:  # content of up to four bytes has its place in the second half of the head
        kind, size, start = kind & 0xFFFF, kind >> 16, place + 4
    end = start + size
    if end > (len(data) if start > place + 4 else place + 8):
        raise ValueError("it is cut off")
    # All but packed ones fill up to eight bytes.
    return kind, data[start:end], end if kind == COMPRESSED else end + (place - end) % 8


def _unfolded(content: bytes, most: int) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        unfolded = unpacker.decompress(content, most + 1)
    except zlib.error as error:
        raise ValueError("a packed array of it is damaged") from error
    if len(unfolded) > most:
        raise ValueError(f"it unfolds to more than {MOST_UNFOLDED / 1e6:.0f} MB")
    return unfolded


def _matrix(content: bytes, names: Collection[str]) -> dict[str, np.ndarray]:
    """The array in an element, if it is one of those named."""
    place, parts = 0, []
    for _ in range(3):
        _, part, place = _element(content, place)
        parts.append(part)
    flags, lengths, name = parts[0], parts[1], parts[2].decode("latin-1")
    if name not in names:
        return {}
    if len(flags) < 2 or flags[0] not in NUMERIC_CLASSES or flags[1] & COMPLEX:
        raise ValueError(f"its {name} is no array of real numbers")
    kind, values, _ = _element(content, place)
    shape = tuple(np.frombuffer(lengths, "<i4").tolist())
    if kind not in NUMBERS or min(shape, default=0) < 0 or len(shape) > 8:
        raise ValueError(f"its {name} is damaged")
    numbers = np.frombuffer(values, NUMBERS[kind])
    if math.prod(shape) != len(numbers):
        raise ValueError(f"its {name} is damaged")
    return {name: numbers.astype(np.float64).reshape(shape, order="F")}
