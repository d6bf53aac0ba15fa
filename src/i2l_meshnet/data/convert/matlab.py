"""Read arrays of numbers from MATLAB files of level 5, with limits.

Follows MathWorks' description of the format. SciPy's reader is not used: it looks up the types in a damaged file beyond
the end of its own table, which crashes the process.
"""

import math
import struct
import zlib
from collections.abc import Collection

import numpy as np

HEADER, LITTLE_ENDIAN = 128, b"\x00\x01IM"
"""Length of a file's header, and its end: version 1.0, written on a little-endian machine."""
NUMBERS = {1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}
"""Element types of numbers."""
MATRIX, COMPRESSED = 14, 15
"""Element types of an array of any kind, and of another element compressed by zlib."""
NUMERIC_CLASSES = range(6, 16)
COMPLEX = 0x08
MAX_DECOMPRESSED = 32_000_000
"""Maximum bytes of all compressed arrays of a file together."""


def read_matrices(data: bytes, names: Collection[str]) -> dict[str, np.ndarray]:
    """Read the arrays with these names as float64. Other arrays are skipped. Raises ValueError for a damaged file."""
    if data[HEADER - len(LITTLE_ENDIAN) : HEADER] != LITTLE_ENDIAN:
        raise ValueError("it is not a little-endian MATLAB file of level 5")
    found: dict[str, np.ndarray] = {}
    position, left = HEADER, MAX_DECOMPRESSED
    while position < len(data):
        kind, content, position = _element(data, position)
        if kind == COMPRESSED:
            decompressed = _decompressed(content, left)
            left -= len(decompressed)
            kind, content, _ = _element(decompressed, 0)
        if kind != MATRIX:
            raise ValueError("it has an element that is not an array")
        found |= _matrix(content, names)
    return found


def _element(data: bytes, position: int) -> tuple[int, bytes, int]:
    """Type and content of the element at a position, and the position after it."""
    if len(data) - position < 8:
        raise ValueError("it is truncated")
    kind, size = struct.unpack_from("<II", data, position)
    start, limit = position + 8, len(data)
    if kind >> 16:  # Content of up to four bytes is in the second half of the header.
        kind, size, start, limit = kind & 0xFFFF, kind >> 16, position + 4, position + 8
    end = start + size
    if end > limit:
        raise ValueError("it is truncated")
    # All elements except compressed ones are padded to a multiple of eight bytes.
    return kind, data[start:end], end if kind == COMPRESSED else end + (position - end) % 8


def _decompressed(content: bytes, limit: int) -> bytes:
    decompressor = zlib.decompressobj()
    try:
        decompressed = decompressor.decompress(content, limit + 1)
    except zlib.error as error:
        raise ValueError("one of its compressed arrays is damaged") from error
    if len(decompressed) > limit:
        raise ValueError(f"it decompresses to more than {MAX_DECOMPRESSED / 1e6:.0f} MB")
    return decompressed


def _matrix(content: bytes, names: Collection[str]) -> dict[str, np.ndarray]:
    """The array in an element, if its name is in `names`."""
    position, parts = 0, []
    for _ in range(3):
        _, part, position = _element(content, position)
        parts.append(part)
    flags, lengths, name = parts[0], parts[1], parts[2].decode("latin-1")
    if name not in names:
        return {}
    if len(flags) < 2 or flags[0] not in NUMERIC_CLASSES or flags[1] & COMPLEX:
        raise ValueError(f"its {name} is not an array of real numbers")
    kind, values, _ = _element(content, position)
    shape = tuple(np.frombuffer(lengths, "<i4").tolist())
    if kind not in NUMBERS or min(shape, default=0) < 0 or len(shape) > 8:
        raise ValueError(f"its {name} is damaged")
    numbers = np.frombuffer(values, NUMBERS[kind])
    if math.prod(shape) != len(numbers):
        raise ValueError(f"its {name} is damaged")
    return {name: numbers.astype(np.float64).reshape(shape, order="F")}
