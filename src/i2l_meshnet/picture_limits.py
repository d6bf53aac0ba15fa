"""What a picture's file may ask of its decoder, checked before it is decoded.

A decoder's work grows with more than the pixels: a progressive JPEG may pass over them thousands of times, and Pillow
spends microseconds of Python on each part of a file, however small. A file of a few megabytes could take minutes.
"""

import contextlib
import mmap
import re
from io import BytesIO
from pathlib import Path

from i2l_meshnet.files import open_regular

MAX_SCANS = 100
"""Scans of a JPEG; encoders make about ten."""
MAX_PARTS = 50_000
"""Segments of a JPEG, chunks of a PNG, blocks of a GIF before its first frame."""
MAX_SLOW_BYTES = 5_000_000
"""Of files that Pillow decodes in Python: run-length encoded BMP, plain PPM."""

_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
"""Neither FF 00, which is data, nor restart markers, of which there may be one for each block."""
_WITHOUT_LENGTH = {0x01, 0xD8}
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9


def require_bounded(file: Path | BytesIO) -> None:
    """Raise ValueError for a picture that would take its decoder much longer than its pixels do."""
    if isinstance(file, BytesIO):
        _require_bounded(file.getbuffer())
    elif file.stat().st_size:
        with open_regular(file) as opened, contextlib.closing(_mapped(opened.fileno())) as data:
            _require_bounded(data)


def is_bounded(data: bytes) -> bool:
    """Whether the bytes of a picture pass `require_bounded`."""
    try:
        _require_bounded(data)
    except ValueError:
        return False
    return True


def _mapped(handle: int) -> mmap.mmap:
    return mmap.mmap(handle, 0, access=mmap.ACCESS_READ)


def _require_bounded(data: bytes | memoryview | mmap.mmap) -> None:
    start = bytes(data[:34])
    if start.startswith(b"\xff\xd8"):
        _require_bounded_jpeg(data)
    elif start.startswith(b"\x89PNG\r\n\x1a\n"):
        _require_bounded_png(data)
    elif start.startswith(b"GIF8"):
        _require_bounded_gif(data)
    is_run_length = start.startswith(b"BM") and start[30:34] in (b"\x01\0\0\0", b"\x02\0\0\0")
    if (is_run_length or start[:2] in (b"P1", b"P2", b"P3")) and len(data) > MAX_SLOW_BYTES:
        raise ValueError(f"it has more than the {MAX_SLOW_BYTES / 1e6:g} MB allowed in this encoding; save it as PNG")


def _require_bounded_jpeg(data: bytes | memoryview | mmap.mmap) -> None:
    scans = parts = place = 0
    while found := _MARKER.search(data, place):
        marker, place = found[1][0], found.end()
        if marker == _END_OF_IMAGE:
            return
        if marker in _WITHOUT_LENGTH:
            continue
        parts += 1
        scans += marker == _START_OF_SCAN
        if scans > MAX_SCANS:
            raise ValueError(f"it has more than the {MAX_SCANS} scans allowed in a JPEG; save it again")
        if parts > MAX_PARTS:
            raise ValueError(f"it has more than the {MAX_PARTS} segments allowed in a JPEG; save it again")
        place += int.from_bytes(data[place : place + 2])


def _require_bounded_png(data: bytes | memoryview | mmap.mmap) -> None:
    place = 8
    for _ in range(MAX_PARTS):
        if place >= len(data):
            return
        place += 12 + int.from_bytes(data[place : place + 4])
    raise ValueError(f"it has more than the {MAX_PARTS} chunks allowed in a PNG; save it again")


def _require_bounded_gif(data: bytes | memoryview | mmap.mmap) -> None:
    place = 13 + (3 << (data[10] & 7) + 1 if len(data) > 10 and data[10] & 0x80 else 0)
    for _ in range(MAX_PARTS):
        # An extension is followed by blocks of up to 255 bytes, each after its length; the last has none.
        if place >= len(data) or data[place] == 0x2C:
            return
        place += 2 if data[place] == 0x21 else 1 + data[place]
    raise ValueError(f"it has more than the {MAX_PARTS} blocks allowed before a GIF's picture; save it again")
