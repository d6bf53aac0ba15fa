"""Images that would take their decoder very long are refused before they are decoded."""

import re
import struct
import time
import zlib
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from i2l_meshnet import pictures
from i2l_meshnet.errors import FileError
from i2l_meshnet.pictures import decode_picture
from i2l_meshnet.prediction.images import read_photo, require_picture


def encoded(kind: str, size: tuple[int, int] = (64, 64), mode: str = "RGB", **options: object) -> bytes:
    data = BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)).convert(mode).save(
        data, kind, **options
    )
    return data.getvalue()


def progressive(scans: int, side: int = 64) -> bytes:
    """A progressive JPEG whose last scan is repeated, at a few bytes per scan."""
    data = BytesIO()
    Image.new("L", (side, side), 128).save(data, "JPEG", progressive=True)
    whole = data.getvalue()
    last, end = whole.rindex(b"\xff\xda"), whole.rindex(b"\xff\xd9")
    return whole[:end] + whole[last:end] * (scans - whole.count(b"\xff\xda")) + whole[end:]


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def crowded_png() -> bytes:
    data = encoded("PNG")
    return data[:33] + chunk(b"tEXt", b"a\0b") * 60_000 + data[33:]


def crowded_gif() -> bytes:
    data = encoded("GIF", mode="P")
    start = 13 + (3 << (data[10] & 7) + 1)
    return data[:start] + b"\x21\xfe\x01x\0" * 60_000 + data[start:]


def crowded_jpeg() -> bytes:
    data = encoded("JPEG")
    return data[:2] + b"\xff\xfe\0\2" * 60_000 + data[2:]


def run_lengths() -> bytes:
    runs = b"\1\5" * 3_000_000
    header = struct.pack("<IiiHHIIiiII", 40, 3000, 2000, 1, 8, 1, len(runs), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(runs), 0, 0, 1078) + header + bytes(1024) + runs


HEAVY = {
    "many scans": lambda: progressive(8000, 2000),
    "one scan too many": lambda: progressive(101),
    "many segments": crowded_jpeg,
    "many chunks": crowded_png,
    "many blocks": crowded_gif,
    "run lengths": run_lengths,
    "plain numbers": lambda: b"P3\n1000 1000\n255\n" + b"1 " * 3_000_000,
}


@pytest.mark.parametrize("kind", HEAVY)
def test_an_image_that_takes_its_decoder_long_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "picture"
    path.write_bytes(HEAVY[kind]())
    started = time.process_time()
    for read in (require_picture, read_photo):
        with pytest.raises(FileError, match=re.escape(str(path))):
            read(path)
    assert decode_picture(path.read_bytes(), cv2.IMREAD_COLOR) is None
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    "data",
    [
        encoded("JPEG"),
        encoded("JPEG", (500, 400), progressive=True),
        encoded("JPEG", restart_marker_blocks=1),
        progressive(100),
        encoded("PNG", (900, 900)),
        encoded("GIF", mode="P", comment=b"x" * 3000),
        encoded("GIF", mode="L"),
        encoded("BMP"),
        encoded("TIFF"),
        encoded("JPEG") + b"\xff\xda" * 1000,  # Telephones append a clip, in which scans would be found by chance.
    ],
    ids=lambda data: data[:8].hex(),
)
def test_ordinary_images_are_read(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "picture"
    path.write_bytes(data)
    assert read_photo(path).pixels.shape[2] == 3


@pytest.mark.parametrize("data", [b"\xff\xd8", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"GIF8", b"BM", b"P3"])
def test_truncated_files_are_left_to_the_decoder(data: bytes) -> None:
    assert pictures.is_bounded(data)
