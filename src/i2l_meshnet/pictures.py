"""Read untrusted pictures with limits on memory and time, and write pictures.

A decoder's time does not depend on the number of pixels alone. A progressive JPEG can pass over them thousands of
times, and Pillow spends microseconds of Python on each part of a file. A file of a few megabytes could take minutes.
So files are checked before they are decoded.
"""

import mmap
import re
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from i2l_meshnet.errors import FileError
from i2l_meshnet.io import open_regular, read_bytes, require_regular, write_bytes

PICTURE_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "AVIF", "PPM")
"""Pillow's names of the formats that are read. Other formats, such as EPS, can start programs or name other files."""

MAX_PIXELS = 200_000_000
"""Default limit for an image or a frame of a clip."""

PNG_START = b"\x89PNG\r\n\x1a\n"

MAX_SCANS = 100
"""Maximum scans of a JPEG. Encoders make about ten."""

MAX_PARTS = 50_000
"""Maximum segments of a JPEG, chunks of a PNG, blocks of a GIF before its first frame."""

MAX_SLOW_BYTES = 5_000_000
"""Maximum size of files that Pillow decodes in Python: run-length encoded BMP, plain PPM."""

_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
"""All markers except FF 00, which is data, and restart markers, which can follow every block."""

_WITHOUT_LENGTH = {0x01, 0xD8}

_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9


def write_picture(path: Path, picture: UInt8[np.ndarray, "h w 3"], quality: int = 95) -> None:
    """Write an RGB image in the format of the path's suffix: .jpg, .jpeg or .png. quality: of a JPEG, up to 100.

    Raises FileError for other suffixes, and if the file cannot be written.
    """
    write_bytes(path, encode_picture(picture, path.suffix, quality))


def encode_picture(picture: UInt8[np.ndarray, "h w 3"], suffix: str, quality: int = 95) -> bytes:
    """Encode an RGB image in the format of `suffix`; see `write_picture`."""
    if suffix not in (".jpg", ".jpeg", ".png"):
        raise FileError(f"cannot write images of the format {suffix!r}: name a .jpg or .png")
    options = [] if suffix == ".png" else [cv2.IMWRITE_JPEG_QUALITY, quality]
    # OpenCV's imwrite does not report a full disk.
    done, data = cv2.imencode(suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise FileError(f"cannot encode a picture of {picture.shape[1]}x{picture.shape[0]} pixels as {suffix}")
    return data.tobytes()


def open_picture(file: Path | BytesIO) -> Image.Image:
    """Open a file in one of `PICTURE_FORMATS` with Pillow, without decoding it. Raises as Pillow does."""
    if isinstance(file, Path):
        require_regular(file)
    require_bounded(file)
    Image.init()  # Otherwise Pillow knows only the formats that were used before.
    return Image.open(file, formats=[name for name in PICTURE_FORMATS if name in Image.OPEN])


def png_is_cut_off(data: bytes) -> bool:
    """Whether a PNG chunk claims to extend beyond the data. OpenCV would first allocate up to 4 GB for it."""
    position = len(PNG_START)
    while data.startswith(PNG_START) and position + 4 <= len(data):
        position += 12 + int.from_bytes(data[position : position + 4])
        if position > len(data):
            return True
    return False


def decode_picture(data: bytes, flags: int) -> np.ndarray | None:
    """Decode an image with OpenCV and its `flags`; None if it is damaged."""
    if not data or png_is_cut_off(data) or not is_bounded(data):
        return None
    return cv2.imdecode(np.frombuffer(data, np.uint8), flags)


def read_picture(path: Path, flags: int) -> np.ndarray | None:
    """Read and decode an image with OpenCV and its `flags`; None if it cannot be read or is damaged."""
    try:
        return decode_picture(read_bytes(path), flags)
    except (OSError, ValueError):
        return None


def require_bounded(file: Path | BytesIO) -> None:
    """Raise ValueError for an image that would take its decoder much longer than its size suggests."""
    if isinstance(file, BytesIO):
        _require_bounded(file.getbuffer())
    elif file.stat().st_size:
        with open_regular(file) as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _require_bounded(data)


def is_bounded(data: bytes) -> bool:
    """Whether the bytes of an image pass `require_bounded`."""
    try:
        _require_bounded(data)
    except ValueError:
        return False
    return True


def _require_bounded(data: bytes | memoryview | mmap.mmap) -> None:
    start = bytes(data[:34])
    if start.startswith(b"\xff\xd8"):
        _require_bounded_jpeg(data)
    elif start.startswith(PNG_START):
        _require_bounded_png(data)
    elif start.startswith(b"GIF8"):
        _require_bounded_gif(data)
    is_run_length = start.startswith(b"BM") and start[30:34] in (b"\x01\0\0\0", b"\x02\0\0\0")
    if (is_run_length or start[:2] in (b"P1", b"P2", b"P3")) and len(data) > MAX_SLOW_BYTES:
        raise ValueError(f"it has more than the {MAX_SLOW_BYTES / 1e6:g} MB allowed in this encoding; save it as PNG")


def _require_bounded_jpeg(data: bytes | memoryview | mmap.mmap) -> None:
    scans = parts = position = 0
    while found := _MARKER.search(data, position):
        marker, position = found[1][0], found.end()
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
        position += int.from_bytes(data[position : position + 2])


def _require_bounded_png(data: bytes | memoryview | mmap.mmap) -> None:
    position = 8
    for _ in range(MAX_PARTS):
        if position >= len(data):
            return
        position += 12 + int.from_bytes(data[position : position + 4])
    raise ValueError(f"it has more than the {MAX_PARTS} chunks allowed in a PNG; save it again")


def _require_bounded_gif(data: bytes | memoryview | mmap.mmap) -> None:
    position = 13 + (3 << (data[10] & 7) + 1 if len(data) > 10 and data[10] & 0x80 else 0)
    for _ in range(MAX_PARTS):
        # An extension is followed by blocks of up to 255 bytes, each after its length; the last has none.
        if position >= len(data) or data[position] == 0x2C:
            return
        position += 2 if data[position] == 0x21 else 1 + data[position]
    raise ValueError(f"it has more than the {MAX_PARTS} blocks allowed before a GIF's picture; save it again")
