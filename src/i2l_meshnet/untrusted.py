"""Files from strangers, read within bounds: pictures, videos, JSON, NumPy's arrays and archives, PyTorch's files.

Where nothing else is said, a function raises OSError for a file that cannot be opened and ValueError, with one line
that says why, for whatever else is wrong: the libraries behind them report damaged files by almost any exception.
"""

import contextlib
import dataclasses
import json
import os
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, get_args

import av
import cv2
import numpy as np
import torch
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from jaxtyping import AbstractArray, jaxtyped
from PIL import Image

from i2l_meshnet.files import open_regular, require_regular
from i2l_meshnet.picture_limits import is_bounded, require_bounded

PICTURE_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "AVIF", "PPM")
"""Pillow's names of what is read; it knows more, some of which (EPS) start other programs or name other files."""
VIDEO_FORMATS = "mov,mp4,matroska,webm,avi,mpeg,mpegvideo,mpegts,asf,flv,ogg,gif"
"""FFmpeg's names of what is read. It knows playlists too, which make it open other files and addresses."""
MAX_PIXELS = 200_000_000
"""Of a picture or of a clip's frame, unless more is asked for."""
LONGEST_OPENING = 60.0
"""Seconds after which a video whose header does not end is given up."""
MAX_EMPTY_PACKETS = 10_000
"""Packets of a video in a row that may hold no frame, because they are broken or the decoder waits for more."""
PNG_START = b"\x89PNG\r\n\x1a\n"
MOST_JSON_BYTES = 4 * 10**9
"""Of a JSON file; what is parsed takes up to some 30 times as much memory."""
MOST_BYTES = 500 * 10**6
"""Of any other file that is read as a whole."""
FREE_BYTES, MOST_RATIO = 16 * 10**6, 50
"""An archive may unfold to that many bytes, and beyond them to that many times its own size."""
LONGEST_EMPTY = 10**6
"""Rows that an array without a single value may have; a loop over more would take for ever."""


def parse_json(text: bytes | str) -> Any:
    """The value of a JSON text, NaN and Infinity included as Python writes them."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def open_picture(file: Path | BytesIO) -> Image.Image:
    """Pillow's picture of a file in one of `PICTURE_FORMATS`, nothing of which is decoded. Raises as Pillow does."""
    if isinstance(file, Path):
        require_regular(file)
    require_bounded(file)
    Image.init()  # else Pillow knows only the formats that were asked for before
    return Image.open(file, formats=[name for name in PICTURE_FORMATS if name in Image.OPEN])


def png_is_cut_off(data: bytes) -> bool:
    """Whether a chunk of a PNG claims to reach beyond the data: OpenCV takes the memory for it first, up to 4 GB."""
    place = len(PNG_START)
    while data.startswith(PNG_START) and place + 4 <= len(data):
        place += 12 + int.from_bytes(data[place : place + 4])
        if place > len(data):
            return True
    return False


def decode_picture(data: bytes, flags: int) -> np.ndarray | None:
    """A picture as OpenCV decodes it under its `flags`; None if it is damaged."""
    if not data or png_is_cut_off(data) or not is_bounded(data):
        return None
    return cv2.imdecode(np.frombuffer(data, np.uint8), flags)


def open_video(path: Path, max_pixels: int = MAX_PIXELS) -> InputContainer:
    """FFmpeg's container of a file in one of `VIDEO_FORMATS`, from which no other file or address is reached.

    Pictures of more than `max_pixels` are not decoded. Raises FFmpegError, OSError or ValueError.
    """
    require_regular(path)
    options = {"format_whitelist": VIDEO_FORMATS, "protocol_whitelist": "file", "max_pixels": str(max_pixels)}
    if path.suffix.lower() == ".gif":
        # FFmpeg takes the ending's word for it, and looks for a first picture to the end of any file.
        with open_regular(path) as file:
            if file.read(4) != b"GIF8":
                raise ValueError("it is no GIF")
    # An absolute path, because FFmpeg takes what comes before a colon for a protocol.
    container = av.open(path.absolute(), options=options, timeout=(LONGEST_OPENING, None))
    for stream in container.streams.video:
        if stream.codec_context is not None:  # of a codec that FFmpeg does not know
            stream.codec_context.options = {"max_pixels": str(max_pixels)}
    return container


def decode_frames(container: InputContainer) -> Iterator[VideoFrame]:
    """All frames of the first video that can be decoded; a broken packet costs its own, a file that is cut off its end.

    Raises IndexError where there is no video, ValueError after `MAX_EMPTY_PACKETS` packets in a row without a frame.
    """
    packets = container.demux(container.streams.video[0])
    empty = 0
    while True:
        try:
            packet = next(packets, None)
        except FFmpegError:
            return
        if packet is None:
            return
        empty += 1
        if empty > MAX_EMPTY_PACKETS:
            raise ValueError(f"more than {MAX_EMPTY_PACKETS} packets in a row hold no frame")
        try:
            frames = packet.decode()
        except FFmpegError:
            continue
        if frames:
            empty = 0
        for frame in frames:
            if isinstance(frame, VideoFrame):
                yield frame


def read_json(path: Path, most: int = MOST_JSON_BYTES) -> Any:
    """The value in a JSON file of at most `most` bytes."""
    return parse_json(read_bytes(path, most))


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """The content of a regular file, or of a pipe that the user passed, of at most `most` bytes."""
    parts: list[bytes] = []
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        # In one piece; more follow from a pipe, and from a file that grows meanwhile.
        while size <= most and (part := file.read(max(size + 1, 2**20))):
            parts.append(part)
            size = max(size, sum(map(len, parts)))
    if size > most:
        raise ValueError(f"it has more than {most / 1e6:g} MB, the limit")
    return b"".join(parts)


def read_picture(path: Path, flags: int) -> np.ndarray | None:
    """A picture as OpenCV decodes it under its `flags`; None if it cannot be read or is damaged."""
    try:
        return decode_picture(read_bytes(path), flags)
    except (OSError, ValueError):
        return None


def read_arrays(path: Path, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """Arrays of an .npz file, all or those named: plain numbers and texts. One that unfolds to giants is refused."""
    with _one_line():
        require_regular(path)
        with zipfile.ZipFile(path) as archive:
            unfolded = sum(member.file_size for member in archive.infolist())
        if unfolded > FREE_BYTES + MOST_RATIO * path.stat().st_size:
            raise ValueError(f"it unfolds to {unfolded / 1e6:.0f} MB, too many for its size")
        with np.load(path, allow_pickle=False) as archive:
            return {name: _bounded(archive[name]) for name in names or archive.files}


def read_array(path: Path) -> np.ndarray:
    """The array of an .npy file."""
    with _one_line(), open_regular(path) as file:
        return _bounded(np.lib.format.read_array(file, allow_pickle=False))


def read_torch(path: Path, mmap: bool = False) -> Any:
    """What `torch.save` wrote, if it is made of tensors, numbers, texts and containers alone; nothing in it is run.

    mmap: whether tensors stay in the file until they are used.
    """
    with _one_line(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        require_regular(path)
        with open_regular(path) as file:
            start = file.read(2)
        # Anything else PyTorch takes for its oldest format, a tar archive, and makes a folder for it.
        if start != b"PK" and start[:1] != b"\x80":
            raise ValueError("it does not begin as PyTorch's files do")
        is_archive = zipfile.is_zipfile(path)
        if is_archive:
            with zipfile.ZipFile(path) as archive:
                require_stored(archive)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and is_archive)


def require_stored(archive: zipfile.ZipFile) -> None:
    """Raises ValueError for an archive that would unfold: networks are kept as they are."""
    if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
        raise ValueError("its content is compressed, as in such files it never is")


def inside(name: str) -> str:
    """`name`, if it is the path of something in a folder. Raises ValueError for one that leads out of it."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError(f"{name!r} leads out of its folder")
    return name


def require_shapes(read: Any) -> None:
    """Raises ValueError unless the arrays and tensors of a dataclass, and of those in it, are as they are annotated.

    An axis of one name has one length in all of them.
    """
    # In one context, and so in one function: there an axis' name keeps its length.
    with jaxtyped("context"):
        for name, value, kinds in _fields(read):
            if not any(isinstance(value, kind) for kind in kinds):
                found = f"{value.dtype} {tuple(value.shape)}" if hasattr(value, "shape") else type(value).__name__
                raise ValueError(f"{name} is {found}, not {' or '.join(kind.__name__ for kind in kinds)}")


def _fields(read: Any) -> Iterator[tuple[str, Any, list[type]]]:
    """Names, values and types of the fields that are annotated as arrays, nested ones included."""
    for field in dataclasses.fields(read):
        value = getattr(read, field.name)
        kinds = [kind for kind in (get_args(field.type) or (field.type,)) if isinstance(kind, type)]
        if dataclasses.is_dataclass(value):
            yield from _fields(value)
        elif any(issubclass(kind, AbstractArray) for kind in kinds):
            yield field.name, value, kinds


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """Turns any exception but OSError into a ValueError of one line."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise ValueError((str(error).splitlines() or [type(error).__name__])[0][:300]) from error


def _bounded(array: object) -> np.ndarray:
    if not isinstance(array, np.ndarray) or array.dtype.hasobject:
        raise ValueError("a member of it is no array of plain values")
    if max(array.shape, default=0) > max(array.nbytes, LONGEST_EMPTY):
        raise ValueError(f"an array of it is of shape {array.shape}, which is empty but too long")
    return array
